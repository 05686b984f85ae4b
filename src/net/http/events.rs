//! Reading events of filters over HTTP: what the parameters say, and in which form it is answered.
//!
//! - The same parameters mean the same in every form; what a form cannot do is refused.

use hyper::{Response, header::HeaderName};
use tidings_proto::{
    Filters, Position, SubscribeOptions, WireError,
    subscribe::{After, OnGap, Presence},
    wire::json,
};

use super::{
    Body, Call,
    headers::{self, Form},
    list::list,
    query::{Query, TICKET},
};
use crate::{
    net::{problem::Refusal, sse},
    session::{Transport, parse_filter},
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The parameters of both calls.
const KNOWN: [&str; 15] = [
    "after",
    "since",
    "limit",
    "wait",
    "types",
    "content_types",
    "header",
    "last_per_key",
    "max_data_bytes",
    "max_bytes_per_second",
    "min_priority",
    "on_gap",
    "linger_ms",
    "conflate_ms",
    PRESENCE,
];
/// Those of streams: a read is paced by its reader, and stays nowhere.
const OF_STREAMS: [&str; 4] = ["linger_ms", "conflate_ms", "max_bytes_per_second", PRESENCE];
/// The parameter with what a stream is listed with.
pub(super) const PRESENCE: &str = "presence";

/// `GET /v1/topics/{filter}/events`.
pub(super) async fn of_topic(call: &Call) -> Result<Response<Body>, Refusal> {
    let filters = |_: &Query| Ok(Filters::one(parse_filter("filter", &call.name)?));
    read(call, None, filters).await
}

/// `GET /v1/events?topic=…`.
pub(super) async fn of_topics(call: &Call) -> Result<Response<Body>, Refusal> {
    let filters = |query: &Query| {
        let filters = query.all("topic").map(|text| parse_filter("topic", text));
        let filters = Filters::new(filters.collect::<Result<_, _>>()?);
        filters.map_err(|error| WireError::invalid(format!("topic: {error}")))
    };
    read(call, Some("topic"), filters).await
}

fn known(form: Form, more: Option<&'static str>) -> Vec<&'static str> {
    let ticket = (form == Form::Stream).then_some(TICKET);
    KNOWN.into_iter().chain(ticket).chain(more).collect()
}

async fn read(
    call: &Call,
    more: Option<&'static str>,
    filters: impl Fn(&Query) -> Result<Filters, WireError>,
) -> Result<Response<Body>, Refusal> {
    let form = headers::form(&call.head.headers);
    let asked = || {
        let query = call.query(&known(form, more))?;
        let options = options(&query, filters(&query)?, form)?;
        match form {
            Form::Stream => Ok((of_stream(call, &query, options)?, query)),
            Form::Json | Form::CloudEvents => Ok((options, query)),
        }
    };
    let (session, (options, query)) = match form {
        Form::Stream => call.stream_session(asked)?,
        Form::Json | Form::CloudEvents => (call.session(Transport::Http)?, asked()?),
    };
    match form {
        Form::Stream => Ok(sse::answer(session, &options, call.door.options.stream_max).await?),
        Form::Json | Form::CloudEvents => list(call, &session, &query, &options, form).await,
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
        let text =
            "on_gap: a batch of CloudEvents has no place to say what is gone: read JSON instead";
        return Err(WireError::invalid(text));
    }
    if form != Form::Stream
        && let Some(name) = OF_STREAMS.into_iter().find(|name| query.get(name).is_some())
    {
        let text = format!("{name}: a read is answered at once: leave it out, or open a stream");
        return Err(WireError::invalid(text));
    }
    let split = |name| -> Vec<String> {
        query.all(name).flat_map(|values| values.split(',')).map(str::to_owned).collect()
    };
    let options = SubscribeOptions {
        after: query.after()?.map(After),
        since: query.since()?,
        types: split("types"),
        content_types: split("content_types"),
        headers: query.all("header").map(header).collect::<Result<_, _>>()?,
        min_priority: query.value("min_priority")?,
        on_gap,
        max_data_bytes: query.number("max_data_bytes")?,
        max_bytes_per_second: query.number("max_bytes_per_second")?.unwrap_or(0),
        last_per_key: query.flag("last_per_key")?,
        linger_ms: query.number("linger_ms")?.unwrap_or(0),
        conflate_ms: query.number("conflate_ms")?.unwrap_or(0),
        presence: presence(query)?,
        ..SubscribeOptions::to(filters)
    };
    match (&options.after, options.since) {
        (Some(_), Some(_)) => Err(WireError::invalid("since: give after or since, not both")),
        _ => Ok(options),
    }
}

/// `presence`: the object of a subscribe, as JSON.
pub(super) fn presence(query: &Query) -> Result<Option<Presence>, WireError> {
    let Some(text) = query.get(PRESENCE) else { return Ok(None) };
    if !text.starts_with('{') {
        let example = "{\"data\":{\"name\":\"Bob\"}}";
        return Err(WireError::invalid(format!("presence: it must be an object, as in {example}")));
    }
    json::decode_object(text, PRESENCE).map(Some)
}

/// A header and the value it must have.
fn header(text: &str) -> Result<(String, String), WireError> {
    let given = text.split_once(':').filter(|(name, _)| !name.is_empty());
    let (name, value) = given.ok_or_else(|| {
        WireError::invalid("header: it must be a name, a colon and the value, as in tenant:7")
    })?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What a stream asks for, which a browser that comes back asks from its last id.
fn of_stream(
    call: &Call,
    query: &Query,
    mut options: SubscribeOptions,
) -> Result<SubscribeOptions, WireError> {
    if let Some(name) = ["limit", "wait"].into_iter().find(|name| query.get(name).is_some()) {
        let text = format!("{name}: a stream has no end: leave it out, or read JSON");
        return Err(WireError::invalid(text));
    }
    if let Some(id) = call.header(&LAST_EVENT_ID)?.filter(|id| !id.is_empty()) {
        let position: Position =
            id.parse().map_err(|error| WireError::invalid(format!("last-event-id: {error}")))?;
        options.after = Some(After(position));
        options.since = None;
        // It had the state, or a part of it, and goes on from there.
        options.last_per_key = false;
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use tidings_proto::{Filter, Priority};

    use super::*;

    fn parsed(raw: &str, form: Form) -> Result<SubscribeOptions, WireError> {
        let query = Query::parse(Some(raw), &KNOWN)?;
        options(&query, Filters::one(Filter::parse("a").unwrap()), form)
    }

    #[test]
    fn parameters_become_options() {
        let raw = "after=57@9f3c21d0&types=a,b.*&types=c&min_priority=high&on_gap=skip\
                   &content_types=text/*,a/b&content_types=image/png";
        let options = parsed(raw, Form::Json).unwrap();
        assert_eq!(options.after.unwrap().0.to_string(), "57@9f3c21d0");
        assert_eq!(options.types, ["a", "b.*", "c"]);
        assert_eq!(options.content_types, ["text/*", "a/b", "image/png"]);
        assert_eq!(options.min_priority, Some(Priority::High));
        assert_eq!(options.on_gap, OnGap::Continue);
    }

    #[test]
    fn a_stream_says_what_it_is_listed_with() {
        let presence = |raw: &str| parsed(raw, Form::Stream).unwrap().presence;
        let name = |name: &str| Some(Presence { data: serde_json::json!({ "name": name }) });
        assert_eq!(presence(""), None);
        assert_eq!(presence("presence={}").unwrap().data, serde_json::Value::Null);
        assert_eq!(presence("presence=%7B%22data%22:{%22name%22:%22B%C3%B6%22}}"), name("Bö"));
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
            ("linger_ms=5", Form::Json, "linger_ms: "),
            ("linger_ms=-5", Form::Stream, "linger_ms: \"-5\": it must be a whole number"),
            ("max_data_bytes=-1", Form::Json, "max_data_bytes: \"-1\": it must be a whole number"),
            ("max_data_bytes=+1", Form::Json, "max_data_bytes: "),
            ("max_data_bytes=", Form::Json, "max_data_bytes: "),
            ("last_per_key=1", Form::Json, "last_per_key: \"1\": it must be true or false"),
            ("conflate_ms=5", Form::CloudEvents, "conflate_ms: "),
            ("conflate_ms=x", Form::Stream, "conflate_ms: "),
            ("presence={}", Form::Json, "presence: "),
            ("presence=", Form::Stream, "presence: "),
            ("presence=[null]", Form::Stream, "presence: "),
            ("presence={\"name\":1}", Form::Stream, "presence.name: unknown field"),
            ("presence={", Form::Stream, "presence: is not JSON"),
            ("presence={}&presence={}", Form::Stream, "presence: "),
            ("after=1&since=2026-11-21T06:00:00Z", Form::Json, "since: "),
        ] {
            let error = parsed(raw, form).unwrap_err();
            assert!(error.message.starts_with(name), "{raw}: {}", error.message);
        }
    }
}
