//! A list of events as the answer to one request, in JSON or as a batch of CloudEvents.
//!
//! - It is put together from events as they are encoded already.
//! - Its cursor is where the next one goes on; it never passes what was not looked at.
//! - What is gone is said: as `offset_gone`, or as `gap` in the answer with `on_gap=skip`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{HeaderName, HeaderValue},
};
use tidings_proto::{
    Cursor, Offset, Position, SubscribeOptions, WireError, message::Gap, subscribe::OnGap,
    wire::cloudevents,
};

use super::{
    Body, Call,
    headers::{self, CLOUDEVENTS, Form},
    query::Query,
    respond,
};
use crate::{
    clock, metrics,
    net::problem::Refusal,
    session::{ReadFrom, ReadLimit, Session, Stored, Transport, internal},
};

/// The most bytes of events that an answer is filled with; one event may have more.
const READ_BYTES_MAX: usize = 1024 * 1024;
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What a read found.
struct Found {
    events: Vec<Arc<Stored>>,
    cursor: Cursor,
    gap: Option<Gap>,
}

impl Found {
    /// Whether there is nothing to tell.
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.gap.is_none()
    }

    fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.batch_bytes()).sum()
    }
}

/// Answers with a list; `options` has where it begins.
pub(super) async fn list(
    call: &Call,
    session: &Session,
    query: &Query,
    options: &SubscribeOptions,
    form: Form,
) -> Result<Response<Body>, Refusal> {
    let limit = query.limit()?;
    let preferred = headers::preferred_wait(&call.head.headers);
    let wait = query.wait()?.or(preferred).unwrap_or_default();
    let from = match (&options.after, options.since) {
        (Some(after), _) => ReadFrom::After(after.0.clone()),
        (None, Some(time)) => ReadFrom::Since(time),
        (None, None) => after(Cursor::START),
    };
    // A read may go on in mid-state, as no subscription does.
    let options = &SubscribeOptions { after: None, ..options.clone() };
    let found = fill(call, session, options, &from, limit, wait).await?;
    if let (Some(gap), OnGap::Error) = (&found.gap, options.on_gap) {
        return Err(session.gone(gap, advice(form)).into());
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
            response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
    }
    Ok(response)
}

/// How somebody goes on behind what is gone, who reads in this form.
fn advice(form: Form) -> &'static str {
    match form {
        Form::Json | Form::Stream => "say on_gap=skip to go on from there",
        Form::CloudEvents => "read JSON with on_gap=skip to go on from there",
    }
}

/// Reads until there are `limit` events, the answer is full, or the end of the log is reached.
/// Where nothing is there and nothing is gone, waits for the first event.
async fn fill(
    call: &Call,
    session: &Session,
    options: &SubscribeOptions,
    from: &ReadFrom,
    limit: usize,
    wait: Duration,
) -> Result<Found, Refusal> {
    let first = ReadLimit { events: limit, bytes: READ_BYTES_MAX };
    let read = session.read(options, from, first, Duration::ZERO).await?;
    let mut found = Found { events: read.batch.events, cursor: read.batch.cursor, gap: read.gap };
    if found.is_empty() && !wait.is_zero() {
        let _waits = call.door.polls.enter(session, call.caller.guest.ip())?;
        let wait = wait.min(until_expiry(session));
        let from = after(found.cursor);
        tokio::select! {
            read = session.read(options, &from, first, wait) => {
                let read = read?;
                found.cursor = read.batch.cursor;
                (found.events, found.gap) = (read.batch.events, read.gap);
            }
            // Answered with nothing, so that nobody holds up the stop.
            () = session.house().stop.cancelled() => {}
        }
    }
    while !found.events.is_empty() && found.gap.is_none() {
        let (events, bytes) = (found.events.len(), found.bytes());
        let is_full = events >= limit || bytes >= READ_BYTES_MAX;
        if is_full || found.cursor >= session.house().broker.log().committed() {
            break;
        }
        let rest = ReadLimit { events: limit - events, bytes: READ_BYTES_MAX - bytes };
        let more = session.read(options, &after(found.cursor), rest, Duration::ZERO).await?;
        // Trimmed meanwhile: the next request is told.
        if more.gap.is_some() {
            break;
        }
        found.cursor = more.batch.cursor;
        found.events.extend(more.batch.events);
    }
    Ok(found)
}

fn after(cursor: Cursor) -> ReadFrom {
    ReadFrom::After(Position { cursor, log: None })
}

/// How long the session's token holds.
fn until_expiry(session: &Session) -> Duration {
    session.ends_ms().map_or(Duration::MAX, |ends_ms| {
        Duration::from_millis(ends_ms.saturating_sub(clock::monotonic_ms()))
    })
}

fn json_of(
    session: &Session,
    on_gap: OnGap,
    mut found: Found,
) -> Result<(Response<Body>, Cursor), WireError> {
    let log = session.house().broker.log();
    let (first, last) = (log.first().get(), log.committed().get().max(found.cursor.get()));
    let damage = |offset: Offset| log.damage_gap(offset.before(), offset.cursor());
    let encoded = encode(&mut found, damage, |event| {
        event.json().cloned().map_err(|error| error.to_string())
    });
    if let (Some(gap), OnGap::Error) = (&found.gap, on_gap) {
        return Err(session.gone(gap, advice(Form::Json)));
    }
    let bytes: usize = encoded.iter().map(Bytes::len).sum();
    let mut out = Vec::with_capacity(bytes + encoded.len() + 256);
    out.extend_from_slice(b"{\"events\":[");
    join(&encoded, &mut out);
    let cursor = found.cursor;
    let tail =
        format!("],\"cursor\":{cursor},\"log\":\"{}\",\"first\":{first},\"last\":{last}", log.id());
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
    let damage = |offset: Offset| log.damage_gap(offset.before(), offset.cursor());
    let encoded = encode(&mut found, damage, |event| {
        let event = event.event().map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        cloudevents::write_cloudevent(&event, &mut out);
        Ok(Bytes::from(out))
    });
    if let Some(gap) = &found.gap {
        return Err(session.gone(gap, advice(Form::CloudEvents)));
    }
    let mut out = vec![b'['];
    join(&encoded, &mut out);
    out.push(b']');
    metrics::delivered(Transport::Http.as_str(), encoded.len(), out.len());
    Ok((respond::typed(StatusCode::OK, CLOUDEVENTS, out), found.cursor))
}

/// Encodes up to the first event that cannot be read. One that comes first is a gap: never a silent
/// skip, and never a reader that is stuck before it.
fn encode(
    found: &mut Found,
    damage: impl Fn(Offset) -> Gap,
    encode: impl Fn(&Stored) -> Result<Bytes, String>,
) -> Vec<Bytes> {
    let mut encoded = Vec::with_capacity(found.events.len());
    for event in &found.events {
        let offset = event.offset();
        match encode(event) {
            Ok(bytes) => encoded.push(bytes),
            Err(error) => {
                tracing::error!(offset = offset.get(), %error, "an event cannot be read");
                if encoded.is_empty() && found.gap.is_none() {
                    found.cursor = offset.cursor();
                    found.gap = Some(damage(offset));
                } else {
                    found.cursor = offset.before();
                }
                break;
            }
        }
    }
    encoded
}

/// The parts of a JSON array, without its brackets.
pub(super) fn join(parts: &[Bytes], out: &mut Vec<u8>) {
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_by_commas() {
        let mut out = Vec::new();
        join(&[], &mut out);
        assert!(out.is_empty());
        join(&[Bytes::from_static(b"1"), Bytes::from_static(b"2")], &mut out);
        assert_eq!(out, b"1,2");
    }
}
