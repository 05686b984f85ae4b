//! An event as its publisher sends it, with what is to hold for it.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{read, write::Object};
use crate::{
    Data, EventId, NewEvent, Priority, Timestamp, Topic, WireError,
    event::{DEFAULT_TYPE, Expiry, JSON},
    message::Publish,
    strict::{self, given, texts, word},
    wire::{Fault, LEVELS_MAX},
};

/// The content type of bytes that nobody says anything about (RFC 9110 §8.3).
pub(in crate::wire) const OCTETS: &str = "application/octet-stream";

/// Reads one event object, as in the request `publish`.
///
/// # Errors
/// When the text is no such object or the event is not valid; the error names the attribute.
pub fn decode_publish(text: &str) -> Result<Publish, WireError> {
    let publish: WirePublish<'_> = read::object(text, "", LEVELS_MAX)?;
    publish.into_publish().map_err(|fault| fault.under(""))
}

/// Reads one event object or an array of them, which may be empty.
///
/// # Errors
/// As [`decode_publish`]; the path of an attribute begins with `[n]` in an array.
pub fn decode_publishes(text: &str) -> Result<Vec<Publish>, WireError> {
    if !text.trim_start().starts_with('[') {
        return Ok(vec![decode_publish(text)?]);
    }
    let publishes: Vec<strict::Object<WirePublish<'_>>> = read::value(text, "", LEVELS_MAX)?;
    into_publishes(publishes, "")
}

/// Appends the object of the request `publish`.
pub fn encode_publish(publish: &Publish, out: &mut Vec<u8>) {
    let event = &publish.event;
    let mut object = Object::begin(out);
    object.text("topic", event.topic.as_str());
    object.text_if("id", event.id.as_ref().map(EventId::as_str));
    if event.kind != DEFAULT_TYPE {
        object.text("type", &event.kind);
    }
    object.text_if("source", event.source.as_deref());
    write_payload(event, &mut object);
    object.text_if("key", event.key.as_deref());
    if event.priority != Priority::Normal {
        object.text("priority", event.priority.as_str());
    }
    match event.expires {
        Some(Expiry::At(time)) => object.plain("expires", time),
        Some(Expiry::TtlMs(ms)) => object.number("ttl_ms", ms),
        None => {}
    }
    object.text_if("correlation", event.correlation.as_deref());
    object.headers(event.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    if let Some(expect_last) = publish.expect_last {
        object.number("expect_last", expect_last);
    }
    if let Some(deliver_at) = publish.deliver_at {
        object.plain("deliver_at", deliver_at);
    }
    if publish.receipts {
        object.raw("receipts", b"true");
    }
    object.end();
}

fn write_payload(event: &NewEvent, object: &mut Object<'_>) {
    let Some(data) = &event.data else {
        return object.text_if("datacontenttype", event.datacontenttype.as_deref());
    };
    let content_type = event.datacontenttype.as_deref().unwrap_or(JSON);
    // An attribute that is `null` is refused, so a payload that is `null` goes as bytes.
    let as_bytes = data.is_empty() || data.trim_ascii() == b"null";
    if as_bytes && Data::of(content_type) == Data::Json {
        object.text("datacontenttype", content_type);
        return object.base64(data);
    }
    // What the broker takes when nothing is said is left out.
    if content_type != JSON && content_type != OCTETS {
        object.text("datacontenttype", content_type);
    }
    object.data(Some(content_type), data);
}

/// An event as its publisher writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WirePublish<'a> {
    topic: Topic,
    #[serde(default, deserialize_with = "given")]
    id: Option<String>,
    #[serde(default, rename = "type", deserialize_with = "given")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "given")]
    source: Option<String>,
    #[serde(default, deserialize_with = "given")]
    datacontenttype: Option<String>,
    #[serde(default, borrow, deserialize_with = "given")]
    data: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "given")]
    data_base64: Option<String>,
    #[serde(default, deserialize_with = "given")]
    key: Option<String>,
    #[serde(default, deserialize_with = "word")]
    priority: Priority,
    #[serde(default, deserialize_with = "given")]
    expires: Option<Timestamp>,
    #[serde(default, deserialize_with = "given")]
    ttl_ms: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    correlation: Option<String>,
    #[serde(default, deserialize_with = "texts")]
    headers: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "given")]
    expect_last: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    deliver_at: Option<Timestamp>,
    #[serde(default)]
    receipts: bool,
}

impl WirePublish<'_> {
    pub(super) fn into_publish(self) -> Result<Publish, Fault> {
        if self.data.is_some_and(|data| data.get() == "null") {
            return Err(Fault::new("data", "is null: leave it out"));
        }
        let data = payload(self.datacontenttype.as_deref(), self.data, self.data_base64)?;
        let default = if self.data.is_some() { JSON } else { OCTETS };
        let datacontenttype =
            self.datacontenttype.or_else(|| data.is_some().then(|| default.to_owned()));
        let event = NewEvent {
            topic: self.topic,
            id: self.id.as_deref().map(EventId::parse).transpose()?,
            kind: self.kind.unwrap_or_else(|| DEFAULT_TYPE.to_owned()),
            source: self.source,
            datacontenttype,
            data,
            key: self.key,
            priority: self.priority,
            expires: expiry(self.expires, self.ttl_ms)?,
            correlation: self.correlation,
            headers: self.headers.unwrap_or_default(),
        };
        event.check()?;
        Ok(Publish {
            event,
            expect_last: self.expect_last,
            deliver_at: self.deliver_at,
            receipts: self.receipts,
        })
    }
}

/// The events of a batch; `path` leads to the array.
pub(super) fn into_publishes(
    publishes: Vec<strict::Object<WirePublish<'_>>>,
    path: &str,
) -> Result<Vec<Publish>, WireError> {
    let one = |(n, strict::Object(publish)): (usize, strict::Object<WirePublish<'_>>)| {
        publish.into_publish().map_err(|fault| fault.under(&format!("{path}[{n}]")))
    };
    publishes.into_iter().enumerate().map(one).collect()
}

/// The bytes of an event's data, of which at most one form may be given.
pub(in crate::wire) fn payload(
    datacontenttype: Option<&str>,
    data: Option<&RawValue>,
    data_base64: Option<String>,
) -> Result<Option<Bytes>, Fault> {
    let raw = match (data, data_base64) {
        (None, None) => return Ok(None),
        (None, Some(text)) => {
            return match STANDARD.decode(text) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(cause) => Err(Fault::new("data_base64", format!("is not base64: {cause}"))),
            };
        }
        (Some(_), Some(_)) => {
            let text = "is given together with data_base64: give one of the two";
            return Err(Fault::new("data", text));
        }
        (Some(raw), None) => raw.get(),
    };
    let content_type = datacontenttype.unwrap_or(JSON);
    match Data::of(content_type) {
        Data::Json => Ok(Some(Bytes::copy_from_slice(raw.as_bytes()))),
        Data::Text => match serde_json::from_str::<String>(raw) {
            Ok(text) => Ok(Some(text.into())),
            Err(_) => {
                Err(Fault::new("data", format!("must be a string, for it is {content_type}")))
            }
        },
        Data::Binary => {
            let text = format!("cannot be {content_type}: give data_base64 with the bytes instead");
            Err(Fault::new("data", text))
        }
    }
}

/// When an event stops being delivered, which may be said in one way only.
pub(in crate::wire) fn expiry(
    expires: Option<Timestamp>,
    ttl_ms: Option<u64>,
) -> Result<Option<Expiry>, Fault> {
    match (expires, ttl_ms) {
        (Some(_), Some(_)) => {
            Err(Fault::new("expires", "is given together with ttl_ms: give one of the two"))
        }
        (Some(time), None) => Ok(Some(Expiry::At(time))),
        (None, ttl_ms) => Ok(ttl_ms.map(Expiry::TtlMs)),
    }
}
