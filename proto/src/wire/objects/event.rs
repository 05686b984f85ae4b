//! Events as the broker sends them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Object, Payload, Syntax};
use crate::{
    Event, Offset, Priority, Timestamp, Topic,
    strict::{given, texts},
    wire::{
        Fault,
        attributes::{self, Attributes},
        stored::{Body, Place},
    },
};

/// Appends an event of the log.
pub(in crate::wire) fn write_record<S: Syntax>(
    place: &Place<'_>,
    body: &Body<'_>,
    out: &mut Vec<u8>,
) {
    write::<S>(&Attributes::of_record(place, body), body.headers, out);
}

/// Appends an event, the same bytes as [`write_record`] makes of its record.
pub(in crate::wire) fn write_event<S: Syntax>(event: &Event, out: &mut Vec<u8>) {
    write::<S>(&Attributes::of_event(event), attributes::headers(event), out);
}

fn write<'h, S: Syntax>(
    event: &Attributes<'_>,
    headers: impl Iterator<Item = (&'h str, &'h str)>,
    out: &mut Vec<u8>,
) {
    let mut object = Object::<S>::begin(out);
    object.number("offset", event.offset.get());
    object.text("topic", event.topic);
    object.text("id", event.id);
    object.text("type", event.kind);
    object.text("source", event.source);
    object.plain("time", event.time);
    object.text_if("datacontenttype", event.datacontenttype);
    if let Some(data) = event.data {
        object.data(event.datacontenttype, data);
    }
    object.text_if("key", event.key);
    if event.priority != Priority::Normal {
        object.text("priority", event.priority.as_str());
    }
    if let Some(expires) = event.expires {
        object.plain("expires", expires);
    }
    object.text_if("correlation", event.correlation);
    object.headers(headers);
    object.end();
}

/// An event as it is read; attributes that are not known here are skipped.
#[derive(Deserialize)]
#[serde(bound(deserialize = "D: Deserialize<'de>"))]
pub(in crate::wire) struct WireEvent<D> {
    offset: Offset,
    topic: Topic,
    id: String,
    #[serde(rename = "type")]
    kind: String,
    source: String,
    time: Timestamp,
    #[serde(default, deserialize_with = "given")]
    datacontenttype: Option<String>,
    #[serde(default, deserialize_with = "given")]
    data: Option<D>,
    #[serde(default, deserialize_with = "given")]
    data_base64: Option<String>,
    #[serde(default, deserialize_with = "given")]
    key: Option<String>,
    #[serde(default)]
    priority: Priority,
    #[serde(default, deserialize_with = "given")]
    expires: Option<Timestamp>,
    #[serde(default, deserialize_with = "given")]
    correlation: Option<String>,
    #[serde(default, deserialize_with = "texts")]
    headers: Option<BTreeMap<String, String>>,
}

impl<D: Payload> WireEvent<D> {
    pub(in crate::wire) fn into_event(self) -> Result<Event, Fault> {
        let data = D::bytes(self.datacontenttype.as_deref(), self.data, self.data_base64)?;
        Ok(Event {
            offset: self.offset,
            topic: self.topic,
            id: self.id,
            kind: self.kind,
            source: self.source,
            time: self.time,
            datacontenttype: self.datacontenttype,
            data,
            key: self.key,
            priority: self.priority,
            expires: self.expires,
            correlation: self.correlation,
            headers: self.headers.unwrap_or_default(),
        })
    }
}
