//! What the broker sends: batches of events, and how replies and pushes are told apart.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use super::{List, Object, Payload, Syntax, event::WireEvent};
use crate::{
    Cursor, Event, Offset, WireError,
    message::{Events, RequestId},
    strict::{self, given},
    wire::{BatchHeader, invalid},
};

/// Appends a batch of events, each of them encoded before.
pub(in crate::wire) fn write_events<'a, S: Syntax>(
    header: &BatchHeader<'_>,
    events: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) {
    let mut message = Object::<S>::begin(out);
    let mut batch = Object::<S>::begin(message.name("events"));
    batch.number("subscription", header.subscription);
    if let Some(after) = header.after {
        batch.number("after", after.get());
    }
    if let Some(cursor) = header.cursor {
        batch.number("cursor", cursor.get());
    }
    write_array::<S>(events, batch.name("events"));
    if !header.attempts.is_empty() {
        let mut attempts = Object::<S>::begin(batch.name("attempts"));
        for (offset, deliveries) in header.attempts {
            attempts.number(&offset.to_string(), *deliveries);
        }
        attempts.end();
    }
    batch.end();
    message.end();
}

/// Appends the array of events of a batch, each of them encoded before.
pub(in crate::wire) fn write_array<'a, S: Syntax>(
    events: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) {
    let mut list = List::<S>::begin(out);
    for event in events {
        list.element().extend_from_slice(event);
    }
    list.end();
}

/// A batch of events as it is read.
#[derive(Deserialize)]
#[serde(bound(deserialize = "D: Deserialize<'de>"))]
pub(in crate::wire) struct WireEvents<D> {
    subscription: u32,
    #[serde(default, deserialize_with = "given")]
    after: Option<Cursor>,
    #[serde(default, deserialize_with = "given")]
    cursor: Option<Cursor>,
    events: WireArray<D>,
    #[serde(default)]
    attempts: Attempts,
}

/// The array of events of a batch as it is read.
pub(in crate::wire) type WireArray<D> = Vec<strict::Object<WireEvent<D>>>;

/// Its events.
pub(in crate::wire) fn events_of<D: Payload>(array: WireArray<D>) -> Result<Vec<Event>, WireError> {
    let one = |(n, strict::Object(event)): (usize, strict::Object<WireEvent<D>>)| {
        event.into_event().map_err(|fault| fault.under(&format!("{ARRAY}[{n}]")))
    };
    array.into_iter().enumerate().map(one).collect()
}

impl<D: Payload> WireEvents<D> {
    pub(in crate::wire) fn into_events(self) -> Result<Events, WireError> {
        Ok(Events {
            subscription: self.subscription,
            after: self.after,
            cursor: self.cursor,
            events: events_of(self.events)?,
            attempts: self.attempts.0,
        })
    }
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
        while let Some((OffsetName(offset), deliveries)) = map.next_entry()? {
            attempts.push((offset, deliveries));
        }
        Ok(attempts)
    }
}

/// An offset as the name of an attribute, which is a text.
struct OffsetName(Offset);

impl<'de> Deserialize<'de> for OffsetName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OffsetName, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let offset = text.parse().ok().and_then(Offset::new);
        offset.map(OffsetName).ok_or_else(|| D::Error::custom("is not named by an offset"))
    }
}

/// The attributes of a message, none of them read yet: `V` is how one is written.
pub(in crate::wire) struct Parts<'a, V> {
    pub(in crate::wire) reply: Option<RequestId>,
    pub(in crate::wire) kinds: Vec<(Cow<'a, str>, V)>,
}

/// What a message is.
pub(in crate::wire) enum Kind {
    Reply(RequestId),
    Events,
    Push,
}

impl<'a, V> Parts<'a, V> {
    /// The one attribute that says what the message is, its name and how it is written.
    pub(in crate::wire) fn kind(self) -> Result<(Kind, Cow<'a, str>, V), WireError> {
        let known = if self.reply.is_some() { REPLIES } else { PUSHES };
        let mut kinds = self.kinds.into_iter().filter(|(kind, _)| known.contains(&&**kind));
        let (Some((name, value)), None) = (kinds.next(), kinds.next()) else {
            let want = known.join(", ");
            return Err(invalid("message", &format!("must have one of {want}, and only one")));
        };
        let kind = match self.reply {
            Some(id) => Kind::Reply(id),
            None if name == EVENTS => Kind::Events,
            None => Kind::Push,
        };
        Ok((kind, name, value))
    }
}

/// The name of a batch of events.
pub(in crate::wire) const EVENTS: &str = "events";
/// Where its array stands in the message.
pub(in crate::wire) const ARRAY: &str = "events.events";
const REPLIES: &[&str] = &[
    "connected",
    "published",
    "published_batch",
    "subscribed",
    "acked",
    "nacked",
    "unsubscribed",
    "refreshed",
    "presence",
    "receipts",
    "scheduled",
    "cancelled",
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
