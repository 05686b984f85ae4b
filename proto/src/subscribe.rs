//! What a subscriber may ask for ([`SubscribeOptions`]); the same over the socket and over HTTP.
//!
//! Absent options have the defaults of [`SubscribeOptions::to`]; an unknown one is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use crate::{
    Cursor, Filters, Position, Priority, Timestamp,
    event::JSON_DEPTH_MAX,
    strict::{given, given_word, object, some_texts, word},
};

/// The options of a subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscribeOptions {
    /// What to deliver: 1 to 64 filters.
    pub filters: Filters,
    /// Ephemeral: deliver what comes after this. Without it and `since`: from now.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub after: Option<After>,
    /// Ephemeral: deliver what was appended at or after this moment.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The log that `after` belongs to: its id or the first eight hex digits.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The name of a durable subscription: one token, 64 bytes at most.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub durable: Option<String>,
    /// Durable: where a new one begins.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start: Start,
    /// First the last event of every (topic, key) as of now, then everything after.
    #[serde(default, skip_serializing_if = "is_default")]
    pub last_per_key: bool,
    /// Event types to deliver; `task.*` stands for all that begin with `task.`. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Headers that an event must have with these values; 16 at most. Empty: all.
    #[serde(default, deserialize_with = "some_texts", skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The lowest priority to deliver.
    #[serde(default, deserialize_with = "given_word", skip_serializing_if = "Option::is_none")]
    pub min_priority: Option<Priority>,
    /// Content types to deliver; `text/*` stands for all that begin with `text/`. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content_types: Vec<String>,
    /// Durable: how several sessions share it.
    #[serde(default, deserialize_with = "word", skip_serializing_if = "is_default")]
    pub mode: Mode,
    /// Durable and shared: what must not be with two sessions at a time.
    #[serde(default, deserialize_with = "given_word", skip_serializing_if = "Option::is_none")]
    pub partition_by: Option<PartitionBy>,
    /// Durable: in which order events are delivered.
    #[serde(default, deserialize_with = "word", skip_serializing_if = "is_default")]
    pub order: Order,
    /// Durable: how many events may be delivered and not yet acknowledged.
    #[serde(default = "max_in_flight", skip_serializing_if = "is_max_in_flight")]
    pub max_in_flight: u32,
    /// Durable: after how long without an ack an event is delivered again, in milliseconds; 0: never.
    #[serde(default = "ack_wait_ms", skip_serializing_if = "is_ack_wait_ms")]
    pub ack_wait_ms: u64,
    /// Durable: after how many deliveries an event is dead; 0: never.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_deliveries: u32,
    /// Durable: the wait before the second, third, … delivery, in milliseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backoff_ms: Vec<u64>,
    /// Durable: forgotten when nobody has used it for so long, in milliseconds; 0: never.
    #[serde(default, skip_serializing_if = "is_default")]
    pub idle_expiry_ms: u64,
    /// Deliver per (topic, key) only the last event within this window, in milliseconds; 0: off.
    #[serde(default, skip_serializing_if = "is_default")]
    pub conflate_ms: u64,
    /// How long a batch may wait for more events, in milliseconds.
    #[serde(default, skip_serializing_if = "is_default")]
    pub linger_ms: u64,
    /// How many events a batch may hold.
    #[serde(default = "batch_max", skip_serializing_if = "is_batch_max")]
    pub batch_max: u32,
    /// How many bytes of events a second are sent; 0: as many as the socket takes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_bytes_per_second: u64,
    /// Data of more bytes is left out and its size said, to be read with `GET /v1/events/{offset}`.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub max_data_bytes: Option<u64>,
    /// What to do when events are gone.
    #[serde(default, deserialize_with = "word", skip_serializing_if = "is_default")]
    pub on_gap: OnGap,
    /// Be listed on the topic with this data.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub presence: Option<Presence>,
    /// Durable: the answer to the last fetch of this reader over HTTP did not come: what that had leased comes again at
    /// once.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub lost_reader: Option<String>,
}

/// The data a subscriber is listed with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    /// Anything, 1 KiB at most.
    #[serde(default, deserialize_with = "shallow")]
    pub data: Value,
}

/// Any value of at most [`JSON_DEPTH_MAX`] levels, in every encoding.
fn shallow<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    // The decoders have bounded what this recurses into.
    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }
    let value = Value::deserialize(deserializer)?;
    match depth(&value) > JSON_DEPTH_MAX {
        true => Err(de::Error::custom(format!("is nested deeper than {JSON_DEPTH_MAX} levels"))),
        false => Ok(value),
    }
}

impl SubscribeOptions {
    /// How many events a batch holds unless said.
    pub const BATCH_MAX: u32 = 256;

    /// The default options for these filters.
    pub fn to(filters: Filters) -> SubscribeOptions {
        SubscribeOptions {
            filters,
            after: None,
            since: None,
            log: None,
            durable: None,
            start: Start::Now,
            last_per_key: false,
            types: Vec::new(),
            headers: BTreeMap::new(),
            min_priority: None,
            content_types: Vec::new(),
            mode: Mode::Exclusive,
            partition_by: None,
            order: Order::Log,
            max_in_flight: max_in_flight(),
            ack_wait_ms: ack_wait_ms(),
            max_deliveries: 0,
            backoff_ms: Vec::new(),
            idle_expiry_ms: 0,
            conflate_ms: 0,
            linger_ms: 0,
            batch_max: batch_max(),
            max_bytes_per_second: 0,
            max_data_bytes: None,
            on_gap: OnGap::Continue,
            presence: None,
            lost_reader: None,
        }
    }
}

/// The place an ephemeral subscription goes on from: a number, or `"57@9f3c21d0"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After(pub Position);

impl Serialize for After {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.log {
            None => serializer.serialize_u64(self.0.cursor.get()),
            Some(_) => serializer.collect_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<After, D::Error> {
        position(NumberOrText::deserialize(deserializer)?).map(After).map_err(de::Error::custom)
    }
}

/// Where a new durable subscription begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the first event there is.
    First,
    /// With what comes from now on.
    #[default]
    Now,
    /// After this place.
    After(Position),
    /// With what was appended at or after this moment.
    Since(Timestamp),
}

impl Serialize for Start {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Start::First => serializer.serialize_str("first"),
            Start::Now => serializer.serialize_str("now"),
            Start::After(position) => After(position.clone()).serialize(serializer),
            Start::Since(time) => time.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Start, D::Error> {
        let given = NumberOrText::deserialize(deserializer)?;
        if let NumberOrText::Text(text) = &given {
            match text.as_str() {
                "first" => return Ok(Start::First),
                "now" => return Ok(Start::Now),
                _ => {}
            }
            if let Ok(time) = text.parse() {
                return Ok(Start::Since(time));
            }
        }
        position(given).map(Start::After).map_err(|text| {
            de::Error::custom(format!(
                "{text}; \"first\", \"now\" and a time in RFC 3339 are understood too"
            ))
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a whole number, 0 or more, or a text")]
enum NumberOrText {
    Number(u64),
    Text(String),
}

fn position(given: NumberOrText) -> Result<Position, String> {
    match given {
        NumberOrText::Number(n) if n <= crate::Offset::MAX => {
            Ok(Position { cursor: Cursor::new(n), log: None })
        }
        NumberOrText::Number(n) => Err(format!("{n}, above 9007199254740991")),
        NumberOrText::Text(text) => text.parse().map_err(|error| format!("{error}")),
    }
}

/// How the sessions on a durable subscription share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One session has it; a newer one takes it over.
    #[default]
    Exclusive,
    /// Each event goes to one of them.
    Shared,
    /// Each event goes to all of them; one floor.
    Mirror,
}

/// What of the events of a shared durable subscription stays together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionBy {
    /// Events of one topic and key are with one session at a time, in log order. Those without a key are free.
    Key,
}

/// In which order a durable subscription delivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// By offset.
    #[default]
    Log,
    /// Higher priorities first, by offset within one.
    Priority,
}

/// What to do when the events after a cursor are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnGap {
    /// Say so with `gap` and go on with the first there is.
    #[default]
    #[serde(alias = "skip")]
    Continue,
    /// Answer `offset_gone`.
    Error,
}

const fn max_in_flight() -> u32 {
    1000
}

const fn ack_wait_ms() -> u64 {
    30_000
}

const fn batch_max() -> u32 {
    SubscribeOptions::BATCH_MAX
}

const fn is_max_in_flight(n: &u32) -> bool {
    *n == max_in_flight()
}

const fn is_ack_wait_ms(n: &u64) -> bool {
    *n == ack_wait_ms()
}

const fn is_batch_max(n: &u32) -> bool {
    *n == batch_max()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
