//! Durable subscriptions over HTTP: made, looked at, fetched from, acknowledged, streamed,
//! forgotten.

use std::time::Duration;

use hyper::{Response, StatusCode, body::Incoming};
use serde::{Deserialize, Serialize};
use tidings_proto::{
    Cursor, Placed, SubscribeOptions, WireError,
    message::{Acked, Request},
};

use super::{
    Body, Call, body,
    events::{PRESENCE, presence},
    list::join,
    query::{LIMIT_DEFAULT, TICKET, limit_of, wait_of},
    respond, stopping,
};
use crate::{
    metrics,
    net::{problem::Refusal, sse},
    session::{DurableInfo, FetchReader, Fetched, PutOutcome, Transport, Wanted, internal},
};

/// What is told of a durable subscription.
#[derive(Serialize)]
struct State<'a> {
    name: &'a str,
    cursor: Cursor,
    lag: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lag_at_least: bool,
    in_flight: u64,
    redelivered: u64,
    dead: u64,
    sessions: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
    options: &'a SubscribeOptions,
}

impl<'a> State<'a> {
    fn of(info: &'a DurableInfo) -> State<'a> {
        State {
            name: &info.spec.name,
            cursor: info.cursor,
            lag: info.lag,
            lag_at_least: info.lag_at_least,
            in_flight: info.in_flight,
            redelivered: info.redelivered,
            dead: info.dead,
            sessions: info.sessions,
            paused: info.paused,
            options: &info.spec.options,
        }
    }
}

#[derive(Serialize)]
struct Page<'a> {
    subscriptions: Vec<State<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// Of a stream: whose last fetch was not answered, as far as they know.
const LOST_READER: &str = "lost_reader";

/// The body of a fetch; all of it may be left out.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wish {
    limit: Limit,
    wait: Wait,
    reader: Option<String>,
    lost: bool,
    after: Option<Placed>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Limit(u64);

#[derive(Deserialize)]
#[serde(untagged, expecting = "it must be a time up to 30s, as in \"10s\"")]
enum Wait {
    Seconds(u64),
    Text(String),
}

impl Default for Limit {
    fn default() -> Limit {
        Limit(u64::try_from(LIMIT_DEFAULT).unwrap_or(1))
    }
}

impl Default for Wait {
    fn default() -> Wait {
        Wait::Seconds(0)
    }
}

/// `GET /v1/subscriptions`.
pub(super) async fn list(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    let query = call.query(&["limit", "cursor"])?;
    let (infos, cursor) = session.durable_page(query.get("cursor"), query.limit()?).await?;
    let subscriptions = infos.iter().map(State::of).collect();
    Ok(respond::of(StatusCode::OK, &Page { subscriptions, cursor })?)
}

/// `GET /v1/subscriptions/{name}`.
pub(super) async fn show(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let info = session.shown_durable(&call.name).await?;
    Ok(respond::of(StatusCode::OK, &State::of(&info))?)
}

/// `PUT /v1/subscriptions/{name}`.
pub(super) async fn put(call: &Call, body: Incoming) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let taken = body::take(call, body).await?;
    let Request::Subscribe(options) = taken.as_request("subscribe")? else {
        return Err(WireError::invalid("body: it must be the options of a subscription").into());
    };
    if options.durable.as_ref().is_some_and(|name| *name != call.name) {
        return Err(WireError::invalid("durable: the path names another: leave it out").into());
    }
    let name = call.name.clone();
    let put = call.to_the_end(async move {
        let outcome = session.put_durable(&name, &options).await?;
        Ok((outcome, session.durable(&name).await?))
    });
    let (outcome, info) = put.await?;
    let status = match outcome {
        PutOutcome::Created => StatusCode::CREATED,
        PutOutcome::Kept => StatusCode::OK,
    };
    Ok(respond::of(status, &State::of(&info))?)
}

/// `DELETE /v1/subscriptions/{name}`.
pub(super) async fn delete(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let name = call.name.clone();
    call.to_the_end(async move { session.delete_durable(&name).await }).await?;
    let mut response = Response::new(Body::full(Vec::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// `POST /v1/subscriptions/{name}/fetch`.
pub(super) async fn fetch(call: &Call, body: Incoming) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let wanted = wish(body::take(call, body).await?.text()?)?;
    let log = call.house().broker.log().id();
    let _waits = match wanted.wait.is_zero() {
        true => None,
        false => Some(call.door.polls.enter(&session, call.caller.guest.ip())?),
    };
    // Given up with the connection: what it had begun to lease is free again then.
    let fetched = tokio::select! {
        biased;
        fetched = session.fetch(&call.name, &wanted) => fetched?,
        () = call.house().stop.cancelled() => return Err(stopping().into()),
    };
    let mut response = respond::json(StatusCode::OK, fetched_json(&fetched)?);
    respond::place(response.headers_mut(), fetched.floor, log);
    Ok(response)
}

fn wish(text: &str) -> Result<Wanted, WireError> {
    if text.is_empty() {
        let (limit, wait) = (LIMIT_DEFAULT, Duration::ZERO);
        return Ok(Wanted { limit, wait, reader: None, after: None });
    }
    let wish: Wish = body::object(text, "{\"limit\":5}")?;
    let limit = limit_of(Some(wish.limit.0), &wish.limit.0.to_string())?;
    let wait = match wish.wait {
        Wait::Seconds(seconds) => wait_of(&seconds.to_string())?,
        Wait::Text(text) => wait_of(&text)?,
    };
    Ok(Wanted { limit, wait, reader: reader_of(wish.reader, wish.lost)?, after: wish.after })
}

fn reader_of(name: Option<String>, lost: bool) -> Result<Option<FetchReader>, WireError> {
    let Some(name) = name else {
        let text = "lost: say with reader whose last answer did not come";
        return if lost { Err(WireError::invalid(text)) } else { Ok(None) };
    };
    check_reader("reader", &name)?;
    Ok(Some(FetchReader { name, lost }))
}

fn check_reader(field: &str, name: &str) -> Result<(), WireError> {
    let wrong = |problem| Err(WireError::invalid(format!("{field}: {problem}")));
    FetchReader::problem(name).map_or(Ok(()), wrong)
}

fn fetched_json(fetched: &Fetched) -> Result<Vec<u8>, WireError> {
    let mut encoded = Vec::with_capacity(fetched.events.len());
    for event in &fetched.events {
        let offset = event.offset();
        let json = event.json();
        let unreadable = |error| internal(&format!("event {offset} cannot be read: {error}"));
        encoded.push(json.map_err(unreadable)?.clone());
    }
    let bytes = encoded.iter().map(bytes::Bytes::len).sum();
    let mut out = Vec::with_capacity(bytes + encoded.len() + 64);
    out.extend_from_slice(b"{\"events\":[");
    join(&encoded, &mut out);
    out.push(b']');
    if !fetched.attempts.is_empty() {
        out.extend_from_slice(b",\"attempts\":");
        sse::write_attempts(&fetched.attempts, &mut out);
    }
    if let Some(gap) = &fetched.gap {
        out.extend_from_slice(b",\"gap\":");
        serde_json::to_writer(&mut out, gap).map_err(|error| internal(&error.to_string()))?;
    }
    out.extend_from_slice(format!(",\"cursor\":{}}}", fetched.floor).as_bytes());
    metrics::delivered(Transport::Http.as_str(), encoded.len(), bytes);
    Ok(out)
}

/// `POST /v1/subscriptions/{name}/ack`.
pub(super) async fn ack(call: &Call, body: Incoming) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let Request::Ack(ack) = body::take(call, body).await?.as_request("ack")? else {
        return Err(WireError::invalid("body: it must say offset or offsets").into());
    };
    let cursor = session.ack_by_name(&call.name, &ack).await?;
    let log = call.house().broker.log().id();
    let mut response = respond::of(StatusCode::OK, &Acked { subscription: None, cursor })?;
    respond::place(response.headers_mut(), cursor, log);
    Ok(response)
}

/// `POST /v1/subscriptions/{name}/nack`.
pub(super) async fn nack(call: &Call, body: Incoming) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let Request::Nack(nack) = body::take(call, body).await?.as_request("nack")? else {
        return Err(WireError::invalid("body: it must say offsets").into());
    };
    session.nack_by_name(&call.name, &nack).await?;
    Ok(respond::json(StatusCode::OK, "{}"))
}

/// `GET /v1/subscriptions/{name}/events`.
pub(super) async fn stream(call: &Call) -> Result<Response<Body>, Refusal> {
    let asked = || {
        let query = call.query(&[TICKET, PRESENCE, LOST_READER])?;
        let lost_reader = query.get(LOST_READER).map(str::to_owned);
        lost_reader.as_deref().map_or(Ok(()), |name| check_reader(LOST_READER, name))?;
        Ok((presence(&query)?, lost_reader))
    };
    let (session, (presence, lost_reader)) = call.stream_session(asked)?;
    let durable = Some(call.name.clone());
    let options = session.durable_options(&call.name)?;
    let options = SubscribeOptions { durable, presence, lost_reader, ..options };
    // It does not end by itself: what was given and is not acknowledged would come again.
    Ok(sse::answer(session, &options, None).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_says_how_many_and_how_long() {
        let second = Duration::from_secs(1);
        for (text, want) in [
            ("", (LIMIT_DEFAULT, Duration::ZERO)),
            ("{}", (LIMIT_DEFAULT, Duration::ZERO)),
            (r#" {"limit":5,"wait":"10s"}"#, (5, 10 * second)),
            (r#"{"wait":3}"#, (LIMIT_DEFAULT, 3 * second)),
        ] {
            let wanted = wish(text).unwrap();
            assert_eq!((wanted.limit, wanted.wait), want, "{text}");
            assert_eq!(wanted.reader, None);
        }
        let named = wish(r#"{"reader":"a","lost":true}"#).unwrap();
        assert_eq!(named.reader, Some(FetchReader { name: "a".to_owned(), lost: true }));
        let long = format!(r#"{{"reader":"{}"}}"#, "x".repeat(65));
        for (text, name) in [
            (r#"{"limit":0}"#, "limit: "),
            (r#"{"limit":1001}"#, "limit: "),
            (r#"{"limit":null}"#, "limit: "),
            (r#"{"limit":-1}"#, "limit: invalid value"),
            (r#"{"wait":"31s"}"#, "wait: "),
            (r#"{"wait":31}"#, "wait: "),
            (r#"{"wait":null}"#, "wait: it must be"),
            (r#"{"limt":1}"#, "limt: unknown field"),
            (r#"{"lost":true}"#, "lost: "),
            (r#"{"reader":""}"#, "reader: "),
            (r#"{"reader":"\n"}"#, "reader: "),
            (long.as_str(), "reader: "),
            ("[5]", "body: "),
            (" ", "body: "),
        ] {
            let error = wish(text).unwrap_err();
            assert!(error.message.starts_with(name), "{text}: {}", error.message);
        }
    }
}
