//! Publishing over HTTP: a plain body, or CloudEvents in any of their three modes.
//!
//! - 201 with where the event stands, 202 with where it waits for its moment; 200 when nothing was appended because all of it was seen
//!   before.
//! - A batch is atomic.

use hyper::{
    HeaderMap, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderName},
};
use tidings_proto::{
    Code, Topic, WireError,
    event::JSON,
    message::{Publish, Published},
    wire::{cloudevents, json},
};

use super::{
    Body, Call,
    body::{self, Taken},
    headers::{self, CLOUDEVENT, CLOUDEVENTS},
    respond,
};
use crate::{
    net::problem::Refusal,
    session::{Session, Transport, check_batch, internal, parse_topic, shown},
};

/// Headers of these families are read as attributes, so they must be text.
const ATTRIBUTE_PREFIXES: [&str; 2] = ["ce-", "tidings-"];

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What a body holds.
enum Given {
    One(Box<Publish>),
    Many(Vec<Publish>),
}

impl Given {
    fn one(publish: Publish) -> Given {
        Given::One(Box::new(publish))
    }

    /// With what headers say of a body that has attributes of its own: the id of one event. `ce-…` may repeat what
    /// stands in the body (CloudEvents HTTP binding, 3.2.3) and is passed over; our own options would be lost.
    fn beside(mut self, headers: &HeaderMap) -> Result<Given, WireError> {
        let option = headers.keys().map(HeaderName::as_str).find(|name| {
            name.starts_with("tidings-") && !["tidings-log", "tidings-cursor"].contains(name)
        });
        if let Some(name) = option {
            let name = shown(name);
            let text = format!("{name}: it goes with a plain body; say it in the event itself");
            return Err(WireError::invalid(text));
        }
        let Some(key) = headers::text(headers, &IDEMPOTENCY_KEY)? else { return Ok(self) };
        let Given::One(publish) = &mut self else {
            let text = "idempotency-key: it names one event: give each of the batch an id";
            return Err(WireError::invalid(text));
        };
        let key = cloudevents::idempotency_key(key)?;
        if publish.event.id.as_ref().is_some_and(|id| *id != key) {
            let text = "idempotency-key: it is not the id in the body: give one of the two";
            return Err(WireError::invalid(text));
        }
        publish.event.id = Some(key);
        Ok(self)
    }
}

#[derive(serde::Serialize)]
struct Results {
    results: Vec<Published>,
}

#[derive(serde::Serialize)]
struct Scheduled {
    scheduled: Published,
}

/// `POST /v1/topics/{topic}/events`.
pub(super) async fn to_topic(call: &Call, body: Incoming) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let topic = parse_topic("topic", &call.name)?;
    let content_type = call.header(&header::CONTENT_TYPE)?;
    let taken = body::take(call, body).await?;
    let given = match media_type(content_type).as_str() {
        CLOUDEVENT => Given::one(cloudevents::decode_structured(taken.text()?, Some(topic))?)
            .beside(&call.head.headers)?,
        CLOUDEVENTS => Given::Many(cloudevents::decode_batch(taken.text()?, Some(topic))?)
            .beside(&call.head.headers)?,
        _ => Given::one(plain(topic, &call.head.headers, content_type, &taken)?),
    };
    publish(&session, given).await
}

/// `POST /v1/events`.
pub(super) async fn to_topics(call: &Call, body: Incoming) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let media_type = media_type(call.header(&header::CONTENT_TYPE)?);
    if !["", JSON, CLOUDEVENT, CLOUDEVENTS].contains(&media_type.as_str()) {
        let text = format!(
            "content-type: {} is not taken here: send {JSON}, {CLOUDEVENT} or {CLOUDEVENTS}, \
             or publish any content to /v1/topics/TOPIC/events",
            shown(&media_type)
        );
        return Err(WireError::new(Code::UnsupportedMediaType, text).into());
    }
    let taken = body::take(call, body).await?;
    let text = taken.text()?;
    let given = match media_type.as_str() {
        CLOUDEVENT => Given::one(cloudevents::decode_structured(text, None)?),
        CLOUDEVENTS => Given::Many(cloudevents::decode_batch(text, None)?),
        _ if text.trim_ascii_start().starts_with('[') => Given::Many(json::decode_publishes(text)?),
        _ => Given::one(json::decode_publish(text)?),
    };
    publish(&session, given.beside(&call.head.headers)?).await
}

async fn publish(session: &Session, given: Given) -> Result<Response<Body>, Refusal> {
    let (batch, is_one) = match given {
        Given::One(publish) => (vec![*publish], true),
        Given::Many(batch) => {
            check_batch(&batch)?;
            (batch, false)
        }
    };
    let waits = batch.iter().any(|publish| publish.deliver_at.is_some());
    let mut results = session.publish_now(batch).await?;
    let status = match results.iter().all(|published| published.duplicate) {
        true => StatusCode::OK,
        // It is published later.
        false if waits => StatusCode::ACCEPTED,
        false => StatusCode::CREATED,
    };
    if !is_one {
        return Ok(respond::of(status, &Results { results: results.into_vec() })?);
    }
    let published = results.pop().ok_or_else(|| internal("a publish without a result"))?;
    if waits {
        return Ok(respond::of(status, &Scheduled { scheduled: published })?);
    }
    Ok(respond::of(status, &published)?)
}

/// The body as it is, with what the headers say of it.
fn plain(
    topic: Topic,
    headers: &HeaderMap,
    content_type: Option<&str>,
    taken: &Taken,
) -> Result<Publish, WireError> {
    let attributes = attributes(headers)?;
    let pairs = attributes.iter().copied();
    cloudevents::binary_attributes(topic, pairs, content_type, taken.bytes.clone())
}

/// The headers that may be attributes.
fn attributes(headers: &HeaderMap) -> Result<Vec<(&str, &str)>, WireError> {
    let mut attributes: Vec<(&str, &str)> = Vec::new();
    for (name, value) in headers {
        let name = name.as_str();
        let is_attribute = ATTRIBUTE_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if !is_attribute && name != "idempotency-key" {
            continue;
        }
        let value = value.to_str().map_err(|_| {
            let name = shown(name);
            WireError::invalid(format!("{name}: other than visible ASCII is percent-encoded here"))
        })?;
        attributes.push((name, value));
    }
    Ok(attributes)
}

/// The content type without its parameters, in lower case.
fn media_type(content_type: Option<&str>) -> String {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn attributes_are_text_and_given_once() {
        let plain = |headers: &HeaderMap| {
            let taken = Taken::of("hello");
            super::plain(Topic::parse("a").unwrap(), headers, Some("text/plain"), &taken)
        };
        let mut headers = HeaderMap::new();
        headers.insert("ce-id", HeaderValue::from_static("x%20y"));
        headers.insert("x-other", HeaderValue::from_bytes(b"\xff").unwrap());
        let event = plain(&headers).unwrap().event;
        assert_eq!(event.id.unwrap().as_str(), "x y");
        assert_eq!(event.data.unwrap(), "hello");
        headers.append("ce-id", HeaderValue::from_static("c"));
        assert_eq!(plain(&headers).unwrap_err().code, Code::InvalidArgument);
        headers.remove("ce-id");
        let key = HeaderName::from_static("tidings-key");
        headers.insert(key, HeaderValue::from_bytes(b"\xc3\xa4").unwrap());
        assert!(plain(&headers).unwrap_err().message.starts_with("tidings-key: "));
    }

    #[test]
    fn a_body_with_attributes_takes_its_id_from_a_header_and_nothing_else() {
        let one = |text: &str| Given::one(json::decode_publish(text).unwrap());
        let beside = |given: Given, pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            given.beside(&headers)
        };
        let key = ("idempotency-key", "\"k\"");
        for text in [r#"{"topic":"a"}"#, r#"{"topic":"a","id":"k"}"#] {
            let headers = [key, ("ce-id", "other"), ("tidings-log", "9f3c21d0")];
            let Ok(Given::One(publish)) = beside(one(text), &headers) else { panic!("{text}") };
            assert_eq!(publish.event.id.unwrap().as_str(), "k");
        }
        let many = || Given::Many(Vec::new());
        for (given, headers, name) in [
            (one(r#"{"topic":"a","id":"other"}"#), &[key][..], "idempotency-key: "),
            (one(r#"{"topic":"a"}"#), &[key, key][..], "idempotency-key: "),
            (one(r#"{"topic":"a"}"#), &[("idempotency-key", "")][..], "id: "),
            (many(), &[key][..], "idempotency-key: "),
            (many(), &[("tidings-priority", "high")][..], "tidings-priority: "),
            (one(r#"{"topic":"a"}"#), &[("tidings-prio", "high")][..], "tidings-prio: "),
        ] {
            let Err(error) = beside(given, headers) else { panic!("{headers:?} was taken") };
            assert!(error.message.starts_with(name), "{headers:?}: {}", error.message);
        }
    }

    #[test]
    fn a_media_type_has_no_parameters() {
        let batch = " Application/CloudEvents-Batch+JSON ; charset=utf-8";
        assert_eq!(media_type(Some(batch)), CLOUDEVENTS);
        assert_eq!(media_type(None), "");
    }
}
