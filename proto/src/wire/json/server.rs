//! What the broker sends, in JSON: replies, pushes and batches of events.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    BatchHeader,
    event::WireEvent,
    read,
    write::{Object, push_display, push_serde},
};
use crate::{
    Cursor, Offset, WireError,
    message::{Events, Push, Reply, RequestId, ServerMessage},
    strict::{self, given},
    wire::{LEVELS_MAX, invalid},
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
    let mut message = Object::begin(out);
    let mut batch = Object::begin(message.name("events"));
    batch.number("subscription", header.subscription);
    if let Some(after) = header.after {
        batch.number("after", after.get());
    }
    if let Some(cursor) = header.cursor {
        batch.number("cursor", cursor.get());
    }
    let out = batch.name("events");
    out.push(b'[');
    for (n, event) in events.enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(event);
    }
    out.push(b']');
    if !header.attempts.is_empty() {
        let mut attempts = Object::begin(batch.name("attempts"));
        for (offset, deliveries) in header.attempts {
            attempts.number(&offset.to_string(), *deliveries);
        }
        attempts.end();
    }
    batch.end();
    message.end();
}

/// Reads anything that the broker sends; attributes that are not known here are skipped.
///
/// # Errors
/// When the text is no such message, or of a kind that this version does not know.
pub fn decode_server_message(text: &str) -> Result<ServerMessage, WireError> {
    let Parts { reply, kinds } = read::value(text, "", LEVELS_MAX)?;
    let known = if reply.is_some() { REPLIES } else { PUSHES };
    let mut kinds = kinds.into_iter().filter(|(kind, _)| known.contains(&kind.as_str()));
    let (Some((kind, raw)), None) = (kinds.next(), kinds.next()) else {
        let want = known.join(", ");
        return Err(invalid("message", &format!("must have one of {want}, and only one")));
    };
    match reply {
        Some(id) => tagged(&kind, raw).map(|reply| ServerMessage::Reply(id, reply)),
        None if kind == EVENTS => decode_events(raw.get()).map(ServerMessage::Events),
        None => tagged(&kind, raw).map(ServerMessage::Push),
    }
}

/// Reads an enum that serde writes as an object of one attribute.
fn tagged<T: for<'de> Deserialize<'de>>(kind: &str, raw: &RawValue) -> Result<T, WireError> {
    let text = format!("{{\"{kind}\":{}}}", raw.get());
    read::value(&text, "", LEVELS_MAX)
}

fn decode_events(text: &str) -> Result<Events, WireError> {
    let batch: WireEvents<'_> = read::object(text, EVENTS, LEVELS_MAX)?;
    let one = |(n, strict::Object(event)): (usize, strict::Object<WireEvent<'_>>)| {
        event.into_event().map_err(|fault| fault.under(&format!("events.events[{n}]")))
    };
    Ok(Events {
        subscription: batch.subscription,
        after: batch.after,
        cursor: batch.cursor,
        events: batch.events.into_iter().enumerate().map(one).collect::<Result<_, _>>()?,
        attempts: batch.attempts.0,
    })
}

#[derive(Deserialize)]
struct WireEvents<'a> {
    subscription: u32,
    #[serde(default, deserialize_with = "given")]
    after: Option<Cursor>,
    #[serde(default, deserialize_with = "given")]
    cursor: Option<Cursor>,
    #[serde(borrow)]
    events: Vec<strict::Object<WireEvent<'a>>>,
    #[serde(default)]
    attempts: Attempts,
}

#[derive(Default)]
struct Attempts(Vec<(Offset, u32)>);

impl<'de> Deserialize<'de> for Attempts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Attempts, D::Error> {
        deserializer.deserialize_map(AttemptsVisitor).map(Attempts)
    }
}

struct AttemptsVisitor;

impl<'de> Visitor<'de> for AttemptsVisitor {
    type Value = Vec<(Offset, u32)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of offsets and counts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut attempts = Vec::new();
        while let Some(entry) = map.next_entry()? {
            attempts.push(entry);
        }
        Ok(attempts)
    }
}

/// The attributes of a message, none of them read yet.
struct Parts<'a> {
    reply: Option<RequestId>,
    kinds: Vec<(String, &'a RawValue)>,
}

impl<'de> Deserialize<'de> for Parts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parts<'de>, D::Error> {
        deserializer.deserialize_map(PartsVisitor)
    }
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = Parts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parts<'de>, A::Error> {
        let mut parts = Parts { reply: None, kinds: Vec::new() };
        while let Some(name) = map.next_key::<String>()? {
            if name == "reply" {
                parts.reply = Some(map.next_value()?);
            } else {
                parts.kinds.push((name, map.next_value()?));
            }
        }
        Ok(parts)
    }
}

const EVENTS: &str = "events";
const REPLIES: &[&str] = &[
    "connected",
    "published",
    "published_batch",
    "subscribed",
    "acked",
    "nacked",
    "unsubscribed",
    "refreshed",
    "receipts",
    "pong",
    "error",
];
const PUSHES: &[&str] = &[
    EVENTS,
    "caught_up",
    "gap",
    "superseded",
    "acked",
    "token_expiring",
    "goodbye",
    "error",
    "pong",
];
