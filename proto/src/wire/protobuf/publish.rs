//! An event as its publisher sends it, with what is to hold for it.

use bytes::Bytes;

use super::{
    event::priority,
    generated::{self, publish},
    time,
};
use crate::{
    EventId, NewEvent, Topic, WireError,
    event::{DEFAULT_TYPE, Expiry, JSON},
    message::Publish,
    wire::{Fault, objects::publish::expectation},
};

impl From<&Publish> for generated::Publish {
    fn from(publish: &Publish) -> generated::Publish {
        let event = &publish.event;
        // What the broker takes when nothing is said is left out.
        let is_plain = event.data.is_some() && event.datacontenttype.as_deref() == Some(JSON);
        generated::Publish {
            topic: event.topic.as_str().to_owned(),
            id: event.id.as_ref().map(|id| id.as_str().to_owned()),
            key: event.key.clone(),
            r#type: Some(&event.kind).filter(|kind| *kind != DEFAULT_TYPE).cloned(),
            source: event.source.clone(),
            datacontenttype: event.datacontenttype.clone().filter(|_| !is_plain),
            data: event.data.clone(),
            priority: event.priority.to_bits().into(),
            expiry: event.expires.map(|expiry| match expiry {
                Expiry::At(time) => publish::Expiry::ExpiresMs(time.as_millis()),
                Expiry::TtlMs(ms) => publish::Expiry::TtlMs(ms),
            }),
            correlation: event.correlation.clone(),
            headers: event.headers.clone(),
            expect_last: publish.expect_last,
            deliver_at_ms: publish.deliver_at.map(|time| time.as_millis()),
            receipts: publish.receipts,
        }
    }
}

/// A publish whose event has been checked.
pub(super) fn publish_of(given: generated::Publish) -> Result<Publish, Fault> {
    if given.topic.is_empty() {
        return Err(Fault::new("topic", "is missing"));
    }
    let topic =
        Topic::parse(&given.topic).map_err(|error| Fault::new("topic", error.to_string()))?;
    let expires = match given.expiry {
        Some(publish::Expiry::ExpiresMs(ms)) => Some(Expiry::At(time("expires_ms", ms)?)),
        Some(publish::Expiry::TtlMs(ms)) => Some(Expiry::TtlMs(ms)),
        None => None,
    };
    let data: Option<Bytes> = given.data;
    let plain = data.as_ref().map(|_| JSON.to_owned());
    let event = NewEvent {
        topic,
        id: given.id.as_deref().map(EventId::parse).transpose()?,
        kind: given.r#type.unwrap_or_else(|| DEFAULT_TYPE.to_owned()),
        source: given.source,
        datacontenttype: given.datacontenttype.or(plain),
        data,
        key: given.key,
        priority: priority(given.priority),
        expires,
        correlation: given.correlation,
        headers: given.headers,
    };
    event.check()?;
    let deliver_at = given.deliver_at_ms.map(|ms| time("deliver_at_ms", ms)).transpose()?;
    let expect_last = expectation(given.expect_last)?;
    Ok(Publish { event, expect_last, deliver_at, receipts: given.receipts })
}

/// The events of a batch; `path` leads to the list.
pub(super) fn publishes_of(
    given: Vec<generated::Publish>,
    path: &str,
) -> Result<Vec<Publish>, WireError> {
    let one = |(n, publish): (usize, generated::Publish)| {
        publish_of(publish).map_err(|fault| fault.under(&format!("{path}[{n}]")))
    };
    given.into_iter().enumerate().map(one).collect()
}
