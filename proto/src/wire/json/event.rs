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
        attributes::{self, Attributes},
        stored::{Body, Place},
    },
};

/// Appends an event of the log as one JSON object.
pub fn encode_event(place: &Place<'_>, body: &Body<'_>, out: &mut Vec<u8>) {
    write(&Attributes::of_record(place, body), body.headers, out);
}

/// Appends an event as one JSON object, the same bytes as [`encode_event`] makes of its record.
pub fn write_event(event: &Event, out: &mut Vec<u8>) {
    write(&Attributes::of_event(event), attributes::headers(event), out);
}

/// Reads an event as the broker sends it; attributes that are not known here are skipped.
///
/// # Errors
/// When the text is no such object; the error names the attribute.
pub fn decode_event(text: &str) -> Result<Event, WireError> {
    let event: WireEvent<'_> = read::object(text, "", LEVELS_MAX)?;
    event.into_event().map_err(|fault| fault.under(""))
}

fn write<'h>(
    event: &Attributes<'_>,
    headers: impl Iterator<Item = (&'h str, &'h str)>,
    out: &mut Vec<u8>,
) {
    let mut object = Object::begin(out);
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
