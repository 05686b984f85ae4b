//! What the broker sends, in JSON: replies, pushes and batches of events.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    BatchHeader, read,
    write::{Json, push_display, push_serde},
};
use crate::{
    Event, WireError,
    message::{Events, Push, Reply, RequestId, ServerMessage},
    wire::{
        LEVELS_MAX, compressed, invalid,
        objects::server::{self, ARRAY, EVENTS, Kind, Parts, WireArray, WireEvents},
    },
};

/// Appends a reply: `{"reply":1,"published":{…}}`. Without an id there is no `reply` in it.
pub fn encode_reply(id: Option<RequestId>, reply: &Reply, out: &mut Vec<u8>) {
    let Some(id) = id else { return push_serde(reply, out) };
    out.extend_from_slice(b"{\"reply\":");
    push_display(id, out);
    let brace = out.len();
    push_serde(reply, out);
    // The reply is an object of one attribute: that becomes the second of this one.
    if let Some(brace) = out.get_mut(brace) {
        *brace = b',';
    }
}

/// Appends a push: `{"caught_up":{…}}`.
pub fn encode_push(push: &Push, out: &mut Vec<u8>) {
    push_serde(push, out);
}

/// Appends a batch of events, each of them encoded by [`super::encode_event`].
pub fn encode_events<'a>(
    header: &BatchHeader<'_>,
    events: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) {
    server::write_events::<Json>(header, events, out);
}

/// Appends the array of events of a batch alone, which is what a [compressed](crate::wire::compressed) one
/// compresses.
pub fn encode_array<'a>(events: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    server::write_array::<Json>(events, out);
}

/// Reads a frame with a [compressed](crate::wire::compressed) batch, of which at most `inflated_bytes_max` bytes
/// may come.
///
/// # Errors
/// When the bytes are no such frame, or more would come of them.
pub fn decode_compressed(frame: &[u8], inflated_bytes_max: usize) -> Result<Events, WireError> {
    compressed::decode(
        frame,
        inflated_bytes_max,
        |header| decode_server_message(text_of(header)?),
        decode_array,
    )
}

/// Reads anything that the broker sends; attributes that are not known here are skipped.
///
/// # Errors
/// When the text is no such message, or of a kind that this version does not know.
pub fn decode_server_message(text: &str) -> Result<ServerMessage, WireError> {
    let RawParts(parts) = read::value(text, "", LEVELS_MAX)?;
    let (kind, name, raw) = parts.kind()?;
    Ok(match kind {
        Kind::Reply(id) => ServerMessage::Reply(id, tagged(&name, raw)?),
        Kind::Push => ServerMessage::Push(tagged(&name, raw)?),
        Kind::Events => {
            let batch: WireEvents<&RawValue> = read::object(raw.get(), EVENTS, LEVELS_MAX)?;
            ServerMessage::Events(batch.into_events()?)
        }
    })
}

fn decode_array(bytes: &[u8]) -> Result<Vec<Event>, WireError> {
    let array: WireArray<&RawValue> = read::value(text_of(bytes)?, ARRAY, LEVELS_MAX)?;
    server::events_of(array)
}

fn text_of(bytes: &[u8]) -> Result<&str, WireError> {
    str::from_utf8(bytes).map_err(|_| invalid("message", "is not UTF-8"))
}

/// Reads an enum that serde writes as an object of one attribute.
fn tagged<T: for<'de> Deserialize<'de>>(kind: &str, raw: &RawValue) -> Result<T, WireError> {
    let text = format!("{{\"{kind}\":{}}}", raw.get());
    read::value(&text, "", LEVELS_MAX)
}

struct RawParts<'a>(Parts<'a, &'a RawValue>);

impl<'de> Deserialize<'de> for RawParts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawParts<'de>, D::Error> {
        deserializer.deserialize_map(PartsVisitor).map(RawParts)
    }
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = Parts<'de, &'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut parts = Parts { reply: None, kinds: Vec::new() };
        while let Some(name) = map.next_key::<String>()? {
            if name == "reply" {
                parts.reply = Some(map.next_value()?);
            } else {
                parts.kinds.push((Cow::Owned(name), map.next_value()?));
            }
        }
        Ok(parts)
    }
}
