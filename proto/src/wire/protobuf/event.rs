//! Events in Protobuf: written from a record or from an [`Event`], read back as an [`Event`].

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};

use super::{field_len, generated, offset};
use crate::{
    Event, Priority, Timestamp, Topic, WireError,
    wire::{
        Fault,
        attributes::{self, Attributes},
        invalid,
        stored::{Body, Place, push_field, push_header},
    },
};

/// Appends an event of the log as the bytes of an `Event`, without a length before them.
pub fn encode_event(place: &Place<'_>, body: &Body<'_>, out: &mut Vec<u8>) {
    write(&Attributes::of_record(place, body), body.headers, out);
}

/// Appends an event, the same bytes as [`encode_event`] makes of its record.
pub fn write_event(event: &Event, out: &mut Vec<u8>) {
    write(&Attributes::of_event(event), attributes::headers(event), out);
}

/// Reads an event as the broker sends it; fields that are not known here are skipped.
///
/// # Errors
/// When the bytes are no such message; the error names the field.
pub fn decode_event(bytes: &[u8]) -> Result<Event, WireError> {
    let event = generated::Event::decode(bytes)
        .map_err(|error| invalid("message", &format!("is no Protobuf event: {error}")))?;
    event_of(event).map_err(|fault| fault.under(""))
}

pub(super) fn event_of(event: generated::Event) -> Result<Event, Fault> {
    Ok(Event {
        offset: offset("offset", event.offset)?,
        topic: Topic::parse(&event.topic)
            .map_err(|error| Fault::new("topic", error.to_string()))?,
        id: event.id,
        kind: event.r#type,
        source: event.source,
        time: Timestamp::from_millis(event.time_ms),
        datacontenttype: event.datacontenttype,
        data: event.data,
        key: event.key,
        priority: priority(event.priority),
        expires: event.expires_ms.map(Timestamp::from_millis),
        correlation: event.correlation,
        headers: event.headers,
    })
}

/// A priority as [`Priority::to_bits`] numbers them, which is as the schema does; one of a later
/// version is as good as the default.
pub(super) fn priority(n: i32) -> Priority {
    u8::try_from(n).ok().filter(|&bits| bits <= 3).map(Priority::from_bits).unwrap_or_default()
}

fn write<'h>(
    event: &Attributes<'_>,
    headers: impl Iterator<Item = (&'h str, &'h str)>,
    out: &mut Vec<u8>,
) {
    number(OFFSET, event.offset.get(), out);
    text(TOPIC, event.topic, out);
    text(ID, event.id, out);
    number(TIME_MS, event.time.as_millis(), out);
    text_if(KEY, event.key, out);
    text(TYPE, event.kind, out);
    text(SOURCE, event.source, out);
    text_if(DATACONTENTTYPE, event.datacontenttype, out);
    if let Some(data) = event.data {
        out.reserve(field_len(data.len()));
        push_field(DATA, data, out);
    }
    number(PRIORITY, event.priority.to_bits().into(), out);
    if let Some(expires) = event.expires {
        encode_key(EXPIRES_MS, WireType::Varint, out);
        encode_varint(expires.as_millis(), out);
    }
    text_if(CORRELATION, event.correlation, out);
    for (name, value) in headers {
        push_header(name, value, out);
    }
}

/// A field that is left out when it is 0.
fn number(tag: u32, n: u64, out: &mut Vec<u8>) {
    if n != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(n, out);
    }
}

/// A field that is left out when it is empty.
fn text(tag: u32, text: &str, out: &mut Vec<u8>) {
    text_if(tag, Some(text).filter(|text| !text.is_empty()), out);
}

fn text_if(tag: u32, text: Option<&str>, out: &mut Vec<u8>) {
    if let Some(text) = text {
        push_field(tag, text.as_bytes(), out);
    }
}

// Field numbers of tidings.v1.Event.
const OFFSET: u32 = 1;
const TOPIC: u32 = 2;
const ID: u32 = 3;
const TIME_MS: u32 = 4;
const KEY: u32 = 5;
const TYPE: u32 = 6;
const SOURCE: u32 = 7;
const DATACONTENTTYPE: u32 = 8;
const DATA: u32 = 9;
const PRIORITY: u32 = 10;
const EXPIRES_MS: u32 = 11;
const CORRELATION: u32 = 12;
