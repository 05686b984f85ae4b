//! Reading over HTTP: events of filters as JSON, as CloudEvents or as a stream; one event; its receipts.
//!
//! - A JSON answer is put together from events as they are encoded already.
//! - The `cursor` of an answer is where the next one goes on; it never passes what was not looked at.
//! - What is gone is said: as `offset_gone`, or as `gap` in the answer with `on_gap=skip`.

use std::{sync::Arc, time::Duration};

use hyper::{Response, StatusCode, header::HeaderName, header::HeaderValue};
use tidings_proto::{
    Code, Cursor, Filters, LogId, Offset, Position, SubscribeOptions, WireError,
    message::{Gap, GapReason},
    subscribe::{After, OnGap},
    wire::cloudevents,
};

use super::{
    Body, Call,
    headers::{self, CLOUDEVENT, CLOUDEVENTS, Form},
    query::Query,
    respond,
};
use crate::{
    clock, metrics,
    net::{problem::Refusal, sse},
    session::{ReadFrom, ReadLimit, Session, Stored, Transport, internal, parse_filter},
};

/// The most bytes of events that one JSON answer is filled with; one event may have more.
const READ_BYTES_MAX: usize = 1024 * 1024;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// When to come again when too many wait already, in milliseconds.
const CROWDED_MS: (u64, u64) = (1000, 5000);

/// What a read found.
struct Found {
    events: Vec<Arc<Stored>>,
    cursor: Cursor,
    gap: Option<Gap>,
}

/// `GET /v1/topics/{filter}/events`.
pub(super) async fn of_topic(call: &Call) -> Result<Response<Body>, Refusal> {
    let form = headers::form(&call.head.headers);
    let session = call.session(transport(form))?;
    let known = ["after", "since", "limit", "wait", "types", "min_priority", "on_gap"];
    let query = call.query(&known)?;
    let filters = Filters::one(parse_filter("filter", &call.name)?);
    read(call, session, &query, filters, form).await
}

/// `GET /v1/events?topic=…`.
pub(super) async fn of_topics(call: &Call) -> Result<Response<Body>, Refusal> {
    let form = headers::form(&call.head.headers);
    let session = call.session(transport(form))?;
    let known = ["topic", "after", "since", "limit", "wait", "types", "min_priority", "on_gap"];
    let query = call.query(&known)?;
    let filters = query.all("topic").map(|text| parse_filter("topic", text));
    let filters = Filters::new(filters.collect::<Result<_, _>>()?);
    let filters = filters.map_err(|error| WireError::invalid(format!("topic: {error}")))?;
    read(call, session, &query, filters, form).await
}

fn transport(form: Form) -> Transport {
    if form == Form::Stream { Transport::Sse } else { Transport::Http }
}

async fn read(
    call: &Call,
    session: Session,
    query: &Query,
    filters: Filters,
    form: Form,
) -> Result<Response<Body>, Refusal> {
    let options = options(query, filters, form)?;
    match form {
        Form::Stream => stream(call, session, query, options).await,
        Form::Json | Form::CloudEvents => list(call, &session, query, &options, form).await,
    }
}

/// What the parameters say, but for `limit` and `wait`.
fn options(query: &Query, filters: Filters, form: Form) -> Result<SubscribeOptions, WireError> {
    let on_gap = match query.get("on_gap") {
        None if form == Form::Stream => OnGap::Continue,
        None | Some("error") => OnGap::Error,
        Some("skip" | "continue") => OnGap::Continue,
        Some(_) => return Err(WireError::invalid("on_gap: it must be skip or error")),
    };
    if on_gap == OnGap::Continue && form == Form::CloudEvents {
        let text = "on_gap: a batch of CloudEvents has no place to say what is gone: read JSON instead";
        return Err(WireError::invalid(text));
    }
    let types = query.all("types").flat_map(|types| types.split(','));
    let options = SubscribeOptions {
        after: query.after()?.map(After),
        since: query.since()?,
        types: types.filter(|kind| !kind.is_empty()).map(str::to_owned).collect(),
        min_priority: query.value("min_priority")?,
        on_gap,
        ..SubscribeOptions::to(filters)
    };
    match (&options.after, options.since) {
        (Some(_), Some(_)) => Err(WireError::invalid("since: give after or since, not both")),
        _ => Ok(options),
    }
}

async fn stream(
    call: &Call,
    session: Session,
    query: &Query,
    mut options: SubscribeOptions,
) -> Result<Response<Body>, Refusal> {
    if let Some(name) = ["limit", "wait"].into_iter().find(|name| query.get(name).is_some()) {
        let text = format!("{name}: a stream has no end: leave it out, or read JSON");
        return Err(WireError::invalid(text).into());
    }
    if let Some(id) = call.header(&LAST_EVENT_ID)?.filter(|id| !id.is_empty()) {
        let position: Position = id
            .parse()
            .map_err(|error| WireError::invalid(format!("last-event-id: {error}")))?;
        options.after = Some(After(position));
        options.since = None;
    }
    Ok(sse::answer(session, &options).await?)
}

async fn list(
    call: &Call,
    session: &Session,
    query: &Query,
    options: &SubscribeOptions,
    form: Form,
) -> Result<Response<Body>, Refusal> {
    let limit = query.limit()?;
    let preferred = headers::preferred_wait(&call.head.headers)?;
    let wait = query.wait()?.or(preferred).unwrap_or_default();
    let from = match (&options.after, options.since) {
        (Some(after), _) => ReadFrom::After(after.0.clone()),
        (None, Some(time)) => ReadFrom::Since(time),
        (None, None) => ReadFrom::After(Position { cursor: Cursor::START, log: None }),
    };
    let found = fill(call, session, options, &from, limit, wait).await?;
    if let (Some(gap), OnGap::Error) = (&found.gap, options.on_gap) {
        return Err(session.gone(gap).into());
    }
    let log = session.house().broker.log().id();
    let (mut response, cursor) = match form {
        Form::CloudEvents => cloudevents_of(session, found)?,
        Form::Json | Form::Stream => json_of(session, options.on_gap, found)?,
    };
    respond::place(response.headers_mut(), cursor, log);
    if preferred.is_some_and(|preferred| preferred == wait) {
        let applied = HeaderValue::from_str(&format!("wait={}", wait.as_secs()));
        if let Ok(applied) = applied {
            response.headers_mut().insert("preference-applied", applied);
        }
    }
    Ok(response)
}

/// Reads until there are `limit` events, the answer is full, or the end of the log is reached.
async fn fill(
    call: &Call,
    session: &Session,
    options: &SubscribeOptions,
    from: &ReadFrom,
    limit: usize,
    wait: Duration,
) -> Result<Found, Refusal> {
    let bytes_of = |events: &[Arc<Stored>]| events.iter().map(|event| event.cost_bytes()).sum::<usize>();
    let first = ReadLimit { events: limit, bytes: READ_BYTES_MAX };
    let read = if wait.is_zero() {
        session.read(options, from, first, Duration::ZERO).await?
    } else {
        let _waits = call.door.long_polls.try_acquire().map_err(|_| crowded())?;
        let wait = wait.min(until_expiry(session));
        tokio::select! {
            read = session.read(options, from, first, wait) => read?,
            // Answered with what there is, so that nobody holds up the stop.
            () = session.house().stop.cancelled() => {
                session.read(options, from, first, Duration::ZERO).await?
            }
        }
    };
    let mut found = Found { events: read.batch.events, cursor: read.batch.cursor, gap: read.gap };
    while !found.events.is_empty() && found.gap.is_none() {
        let (events, bytes) = (found.events.len(), bytes_of(&found.events));
        let is_full = events >= limit || bytes >= READ_BYTES_MAX;
        if is_full || found.cursor >= session.house().broker.log().committed() {
            break;
        }
        let rest = ReadLimit { events: limit - events, bytes: READ_BYTES_MAX - bytes };
        let from = ReadFrom::After(Position { cursor: found.cursor, log: None });
        let more = session.read(options, &from, rest, Duration::ZERO).await?;
        // Trimmed meanwhile: the next request is told.
        if more.gap.is_some() {
            break;
        }
        found.cursor = more.batch.cursor;
        found.events.extend(more.batch.events);
    }
    Ok(found)
}

fn crowded() -> Refusal {
    let wait_ms = clock::random_between(CROWDED_MS.0, CROWDED_MS.1);
    let text = "wait: as many reads as may wait are waiting: come again, or use a stream";
    WireError::new(Code::RateLimited, text).retry_after_ms(wait_ms).into()
}

/// How long the session's token holds.
fn until_expiry(session: &Session) -> Duration {
    session.identity().expires.map_or(Duration::MAX, |expires| {
        Duration::from_millis(expires.as_millis().saturating_sub(clock::now().as_millis()))
    })
}

fn json_of(
    session: &Session,
    on_gap: OnGap,
    mut found: Found,
) -> Result<(Response<Body>, Cursor), WireError> {
    let log = session.house().broker.log();
    let (first, last) = (log.first().get(), log.committed().get().max(found.cursor.get()));
    let encoded = encode(&mut found, log.id(), last, |event| {
        event.json().map_err(|error| error.to_string())
    });
    if let (Some(gap), OnGap::Error) = (&found.gap, on_gap) {
        return Err(session.gone(gap));
    }
    let bytes: usize = encoded.iter().map(bytes::Bytes::len).sum();
    let mut out = Vec::with_capacity(bytes + encoded.len() + 256);
    out.extend_from_slice(b"{\"events\":[");
    join(&encoded, &mut out);
    let cursor = found.cursor;
    let tail = format!(
        "],\"cursor\":{cursor},\"log\":\"{}\",\"first\":{first},\"last\":{last}",
        log.id()
    );
    out.extend_from_slice(tail.as_bytes());
    if let Some(gap) = &found.gap {
        let gap = Gap { subscription: None, ..gap.clone() };
        out.extend_from_slice(b",\"gap\":");
        serde_json::to_writer(&mut out, &gap).map_err(|error| internal(&error.to_string()))?;
    }
    out.push(b'}');
    metrics::delivered(Transport::Http.as_str(), encoded.len(), bytes);
    Ok((respond::json(StatusCode::OK, out), cursor))
}

fn cloudevents_of(
    session: &Session,
    mut found: Found,
) -> Result<(Response<Body>, Cursor), WireError> {
    let log = session.house().broker.log();
    let encoded = encode(&mut found, log.id(), log.committed().get(), |event| {
        let event = event.event().map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        cloudevents::write_cloudevent(&event, &mut out);
        Ok(bytes::Bytes::from(out))
    });
    if let Some(gap) = &found.gap {
        return Err(session.gone(gap));
    }
    let mut out = vec![b'['];
    join(&encoded, &mut out);
    out.push(b']');
    metrics::delivered(Transport::Http.as_str(), encoded.len(), out.len());
    Ok((respond::typed(StatusCode::OK, CLOUDEVENTS, out), found.cursor))
}

/// Encodes up to the first event that cannot be read. One that comes first is a gap: never a silent skip,
/// and never a reader that is stuck before it.
fn encode(
    found: &mut Found,
    log: LogId,
    last: u64,
    encode: impl Fn(&Stored) -> Result<bytes::Bytes, String>,
) -> Vec<bytes::Bytes> {
    let mut encoded = Vec::with_capacity(found.events.len());
    for event in &found.events {
        let offset = event.offset();
        match encode(event) {
            Ok(bytes) => encoded.push(bytes),
            Err(error) => {
                tracing::error!(offset = offset.get(), %error, "an event cannot be read");
                if encoded.is_empty() && found.gap.is_none() {
                    found.cursor = offset.cursor();
                    found.gap = Some(corrupt(offset, last, log));
                } else {
                    found.cursor = offset.before();
                }
                break;
            }
        }
    }
    encoded
}

fn corrupt(offset: Offset, last: u64, log: LogId) -> Gap {
    Gap {
        subscription: None,
        requested: offset.before(),
        first: offset.get() + 1,
        last,
        log,
        reason: GapReason::Corrupt,
    }
}

/// The parts of a JSON array, without its brackets.
pub(super) fn join(parts: &[bytes::Bytes], out: &mut Vec<u8>) {
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(part);
    }
}

/// `GET /v1/events/{offset}`.
pub(super) async fn one(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let offset = offset(&session, &call.name)?;
    let event = session.event(offset).await?;
    let unreadable = |error: String| internal(&format!("event {offset} cannot be read: {error}"));
    let mut response = match headers::form(&call.head.headers) {
        Form::CloudEvents => {
            let event = event.event().map_err(|error| unreadable(error.to_string()))?;
            let mut out = Vec::new();
            cloudevents::write_cloudevent(&event, &mut out);
            respond::typed(StatusCode::OK, CLOUDEVENT, out)
        }
        Form::Json | Form::Stream => {
            let json = event.json().map_err(|error| unreadable(error.to_string()))?;
            respond::json(StatusCode::OK, json)
        }
    };
    let log = session.house().broker.log().id();
    respond::place(response.headers_mut(), offset.cursor(), log);
    Ok(response)
}

/// `GET /v1/events/{offset}/receipts`.
pub(super) async fn receipts(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let offset = offset(&session, &call.name)?;
    Ok(respond::of(StatusCode::OK, &session.receipts(offset).await?)?)
}

/// The offset in a path, which may say its log.
fn offset(session: &Session, text: &str) -> Result<Offset, WireError> {
    let position: Position =
        text.parse().map_err(|error| WireError::invalid(format!("offset: {error}")))?;
    let log = session.house().broker.log();
    let (first, last) = (log.first(), log.committed());
    let gone = |text: String| WireError {
        first: Some(first.get()),
        last: Some(last.get()),
        log: Some(log.id()),
        ..WireError::new(Code::OffsetGone, text)
    };
    if !position.fits(log.id()) {
        return Err(gone(format!("offset: {position} is of another log than this one, {}", log.id())));
    }
    let offset = Offset::new(position.cursor.get())
        .ok_or_else(|| WireError::invalid("offset: the first event of a log is 1"))?;
    if offset < first {
        return Err(gone(format!("offset: {offset} is gone: the log begins at {first}")));
    }
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use tidings_proto::{Filter, Priority};

    use super::*;

    const KNOWN: [&str; 7] = ["after", "since", "limit", "wait", "types", "min_priority", "on_gap"];

    fn parsed(raw: &str, form: Form) -> Result<SubscribeOptions, WireError> {
        let query = Query::parse(Some(raw), &KNOWN)?;
        options(&query, Filters::one(Filter::parse("a").unwrap()), form)
    }

    #[test]
    fn parameters_become_options() {
        let raw = "after=57@9f3c21d0&types=a,b.*&types=c&min_priority=high&on_gap=skip";
        let options = parsed(raw, Form::Json).unwrap();
        assert_eq!(options.after.unwrap().0.to_string(), "57@9f3c21d0");
        assert_eq!(options.types, ["a", "b.*", "c"]);
        assert_eq!(options.min_priority, Some(Priority::High));
        assert_eq!(options.on_gap, OnGap::Continue);
    }

    #[test]
    fn what_is_gone_ends_a_read_and_is_told_in_a_stream() {
        assert_eq!(parsed("", Form::Json).unwrap().on_gap, OnGap::Error);
        assert_eq!(parsed("", Form::CloudEvents).unwrap().on_gap, OnGap::Error);
        assert_eq!(parsed("", Form::Stream).unwrap().on_gap, OnGap::Continue);
        assert_eq!(parsed("on_gap=error", Form::Stream).unwrap().on_gap, OnGap::Error);
    }

    #[test]
    fn wrong_options_are_named() {
        for (raw, form, name) in [
            ("on_gap=ignore", Form::Json, "on_gap: "),
            ("on_gap=skip", Form::CloudEvents, "on_gap: "),
            ("min_priority=top", Form::Json, "min_priority: "),
            ("after=1&since=2026-11-21T06:00:00Z", Form::Json, "since: "),
        ] {
            let error = parsed(raw, form).unwrap_err();
            assert!(error.message.starts_with(name), "{raw}: {}", error.message);
        }
    }

    #[test]
    fn parts_are_joined_by_commas() {
        let mut out = Vec::new();
        join(&[], &mut out);
        assert!(out.is_empty());
        join(&[bytes::Bytes::from_static(b"1"), bytes::Bytes::from_static(b"2")], &mut out);
        assert_eq!(out, b"1,2");
    }
}
