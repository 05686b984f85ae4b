//! Events in JSON: written from a record or from an [`Event`], read back as an [`Event`].

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{payload, read, write::Object};
use crate::{
    Event, Offset, Priority, Timestamp, Topic, WireError,
    strict::{given, texts},
    wire::{
        Fault, LEVELS_MAX,
        stored::{Body, Place},
    },
};

/// Appends an event of the log as one JSON object.
pub fn encode_event(place: &Place<'_>, body: &Body<'_>, out: &mut Vec<u8>) {
    let attributes = Attributes {
        offset: place.offset,
        topic: place.topic,
        id: &body.id,
        kind: body.kind,
        source: &body.source,
        time: place.time,
        datacontenttype: body.datacontenttype,
        data: body.data,
        key: place.key,
        priority: place.priority,
        expires: body.expires,
        correlation: body.correlation,
    };
    attributes.write(body.headers, out);
}

/// Appends an event as one JSON object, the same bytes as [`encode_event`] makes of its record.
pub fn write_event(event: &Event, out: &mut Vec<u8>) {
    let attributes = Attributes {
        offset: event.offset,
        topic: event.topic.as_str(),
        id: &event.id,
        kind: &event.kind,
        source: &event.source,
        time: event.time,
        datacontenttype: event.datacontenttype.as_deref(),
        data: event.data.as_deref(),
        key: event.key.as_deref(),
        priority: event.priority,
        expires: event.expires,
        correlation: event.correlation.as_deref(),
    };
    let headers = event.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    attributes.write(headers, out);
}

/// Reads an event as the broker sends it; attributes that are not known here are skipped.
///
/// # Errors
/// When the text is no such object; the error names the attribute.
pub fn decode_event(text: &str) -> Result<Event, WireError> {
    let event: WireEvent<'_> = read::object(text, "", LEVELS_MAX)?;
    event.into_event().map_err(|fault| fault.under(""))
}

struct Attributes<'a> {
    offset: Offset,
    topic: &'a str,
    id: &'a str,
    kind: &'a str,
    source: &'a str,
    time: Timestamp,
    datacontenttype: Option<&'a str>,
    data: Option<&'a [u8]>,
    key: Option<&'a str>,
    priority: Priority,
    expires: Option<Timestamp>,
    correlation: Option<&'a str>,
}

impl Attributes<'_> {
    fn write<'h>(&self, headers: impl Iterator<Item = (&'h str, &'h str)>, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        object.number("offset", self.offset.get());
        object.text("topic", self.topic);
        object.text("id", self.id);
        object.text("type", self.kind);
        object.text("source", self.source);
        object.plain("time", self.time);
        object.text_if("datacontenttype", self.datacontenttype);
        if let Some(data) = self.data {
            object.data(self.datacontenttype, data);
        }
        object.text_if("key", self.key);
        if self.priority != Priority::Normal {
            object.text("priority", self.priority.as_str());
        }
        if let Some(expires) = self.expires {
            object.plain("expires", expires);
        }
        object.text_if("correlation", self.correlation);
        object.headers(headers);
        object.end();
    }
}

/// An event as it stands in JSON.
#[derive(Deserialize)]
pub(super) struct WireEvent<'a> {
    offset: Offset,
    topic: Topic,
    id: String,
    #[serde(rename = "type")]
    kind: String,
    source: String,
    time: Timestamp,
    #[serde(default, deserialize_with = "given")]
    datacontenttype: Option<String>,
    #[serde(default, borrow, deserialize_with = "given")]
    data: Option<&'a RawValue>,
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

impl WireEvent<'_> {
    pub(super) fn into_event(self) -> Result<Event, Fault> {
        let data = payload(self.datacontenttype.as_deref(), self.data, self.data_base64)?;
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
