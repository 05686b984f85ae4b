//! An event as its publisher sends it, with what is to hold for it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Object, Payload, Syntax};
use crate::{
    EventId, NewEvent, Offset, Priority, Timestamp, Topic, WireError,
    event::{DEFAULT_TYPE, Expiry, JSON},
    message::Publish,
    strict::{self, given, texts, word},
    wire::Fault,
};

/// The content type of bytes that nobody says anything about (RFC 9110 §8.3).
pub(in crate::wire) const OCTETS: &str = "application/octet-stream";

/// Appends the object of the request `publish`.
pub(in crate::wire) fn write<S: Syntax>(publish: &Publish, out: &mut Vec<u8>) {
    let event = &publish.event;
    let mut object = Object::<S>::begin(out);
    object.text("topic", event.topic.as_str());
    object.text_if("id", event.id.as_ref().map(EventId::as_str));
    if event.kind != DEFAULT_TYPE {
        object.text("type", &event.kind);
    }
    object.text_if("source", event.source.as_deref());
    S::payload(event, &mut object);
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
        object.serde("receipts", &true);
    }
    object.end();
}

/// An event as its publisher writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "D: Deserialize<'de>"))]
pub(in crate::wire) struct WirePublish<D> {
    topic: Topic,
    #[serde(default, deserialize_with = "given")]
    id: Option<String>,
    #[serde(default, rename = "type", deserialize_with = "given")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "given")]
    source: Option<String>,
    #[serde(default, deserialize_with = "given")]
    datacontenttype: Option<String>,
    #[serde(default, deserialize_with = "given")]
    data: Option<D>,
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

impl<D: Payload> WirePublish<D> {
    pub(in crate::wire) fn into_publish(self) -> Result<Publish, Fault> {
        if self.data.as_ref().is_some_and(Payload::is_null) {
            return Err(Fault::new("data", "is null: leave it out"));
        }
        let is_parsed = D::IS_PARSED && self.data.is_some();
        let default = if self.data.is_some() { JSON } else { OCTETS };
        let data = D::bytes(self.datacontenttype.as_deref(), self.data, self.data_base64)?;
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
        if is_parsed {
            event.check_parsed()?
        } else {
            event.check()?
        }
        Ok(Publish {
            event,
            expect_last: expectation(self.expect_last)?,
            deliver_at: self.deliver_at,
            receipts: self.receipts,
        })
    }
}

/// The events of a batch; `path` leads to the array.
pub(in crate::wire) fn into_publishes<D: Payload>(
    publishes: Vec<strict::Object<WirePublish<D>>>,
    path: &str,
) -> Result<Vec<Publish>, WireError> {
    let one = |(n, strict::Object(publish)): (usize, strict::Object<WirePublish<D>>)| {
        publish.into_publish().map_err(|fault| fault.under(&format!("{path}[{n}]")))
    };
    publishes.into_iter().enumerate().map(one).collect()
}

/// The offset that a topic's last event is to have; 0 for none.
pub(in crate::wire) fn expectation(last: Option<u64>) -> Result<Option<u64>, Fault> {
    match last {
        Some(last) if last > Offset::MAX => {
            Err(Fault::new("expect_last", "must be an offset, or 0: at most 9007199254740991"))
        }
        last => Ok(last),
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
