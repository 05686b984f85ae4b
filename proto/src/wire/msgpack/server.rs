//! What the broker sends, in MessagePack: replies, pushes and batches of events.

use serde::Deserialize;

use super::{
    BatchHeader, check,
    data::Given,
    item::{Item, take, take_value},
    read,
    write::{MessagePack, push_serde},
};
use crate::{
    Event, WireError,
    message::{Events, Push, Reply, RequestId, ServerMessage},
    wire::{
        compressed, invalid,
        objects::server::{self, ARRAY, EVENTS, Kind, Parts, WireArray, WireEvents},
    },
};

const MAP_OF_ONE: u8 = 0x81;
const MAP_OF_TWO: u8 = 0x82;

/// Appends a reply: `{"reply":1,"published":{…}}`. Without an id there is no `reply` in it.
pub fn encode_reply(id: Option<RequestId>, reply: &Reply, out: &mut Vec<u8>) {
    let Some(id) = id else { return push_serde(reply, out) };
    out.push(MAP_OF_TWO);
    push_serde("reply", out);
    push_serde(&id, out);
    let start = out.len();
    push_serde(reply, out);
    // The reply is a map of one attribute: that becomes the second of this one.
    out.drain(start..=start);
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
    server::write_events::<MessagePack>(header, events, out);
}

/// Appends the array of events of a batch alone, which is what a [compressed](crate::wire::compressed) one
/// compresses.
pub fn encode_array<'a>(events: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    server::write_array::<MessagePack>(events, out);
}

/// Reads a frame with a [compressed](crate::wire::compressed) batch, of which at most `inflated_bytes_max` bytes
/// may come.
///
/// # Errors
/// When the bytes are no such frame, or more would come of them.
pub fn decode_compressed(frame: &[u8], inflated_bytes_max: usize) -> Result<Events, WireError> {
    compressed::decode(frame, inflated_bytes_max, decode_server_message, decode_array)
}

/// Reads anything that the broker sends; attributes that are not known here are skipped.
///
/// # Errors
/// When the bytes are no such message, or of a kind that this version does not know.
pub fn decode_server_message(bytes: &[u8]) -> Result<ServerMessage, WireError> {
    check::message(bytes)?;
    let (kind, name, value) = parts_of(bytes)?.kind()?;
    Ok(match kind {
        Kind::Reply(id) => ServerMessage::Reply(id, tagged(&name, value)?),
        Kind::Push => ServerMessage::Push(tagged(&name, value)?),
        Kind::Events => {
            let batch: WireEvents<Given<'_>> = read::object(value, EVENTS)?;
            ServerMessage::Events(batch.into_events()?)
        }
    })
}

fn decode_array(bytes: &[u8]) -> Result<Vec<Event>, WireError> {
    check::message(bytes)?;
    let array: WireArray<Given<'_>> = read::value(bytes, ARRAY)?;
    server::events_of(array)
}

/// Reads an enum that serde writes as a map of one attribute.
fn tagged<T: for<'de> Deserialize<'de>>(kind: &str, value: &[u8]) -> Result<T, WireError> {
    let mut bytes = vec![MAP_OF_ONE];
    push_serde(kind, &mut bytes);
    bytes.extend_from_slice(value);
    read::value(&bytes, "")
}

/// The attributes of a message that has been checked.
fn parts_of(bytes: &[u8]) -> Result<Parts<'_, &[u8]>, WireError> {
    let wrong = |text: String| invalid("message", &text);
    let mut rest = bytes;
    let Item::Map(len) = take(&mut rest).map_err(wrong)? else {
        return Err(invalid("message", "is no map"));
    };
    let mut parts = Parts { reply: None, kinds: Vec::new() };
    for _ in 0..len {
        let name = take(&mut rest).map_err(wrong)?;
        let value = take_value(&mut rest).map_err(wrong)?;
        match name {
            Item::Text(b"reply") => parts.reply = Some(read::value(value, "reply")?),
            Item::Text(name) => parts.kinds.push((String::from_utf8_lossy(name), value)),
            _ => return Err(invalid("message", "has a name that is no text")),
        }
    }
    Ok(parts)
}
