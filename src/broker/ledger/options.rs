//! The options of a durable as bytes: Protobuf, without its filters and without what is as by default. Those of a
//! durable with default options are no bytes at all.

use std::collections::BTreeMap;

use prost::Message;
use serde::{Deserialize, Serialize};
use tidings_proto::{
    Filters, Mode, Priority, Start, SubscribeOptions, Timestamp,
    subscribe::{After, OnGap, Order, PartitionBy, Presence},
};

/// What the numbers of words stand for; the first is the default. Only to be added to.
const MODES: [Mode; 3] = [Mode::Exclusive, Mode::Shared, Mode::Mirror];
const PARTITIONS: [Option<PartitionBy>; 2] = [None, Some(PartitionBy::Key)];
const ORDERS: [Order; 2] = [Order::Log, Order::Priority];
const ON_GAP: [OnGap; 2] = [OnGap::Continue, OnGap::Error];
const PRIORITIES: [Option<Priority>; 5] = [
    None,
    Some(Priority::Low),
    Some(Priority::Normal),
    Some(Priority::High),
    Some(Priority::Urgent),
];

/// Bytes that are no options.
#[derive(Debug, thiserror::Error)]
pub(in crate::broker) enum Unreadable {
    /// They are no Protobuf of this kind.
    #[error(transparent)]
    Form(#[from] prost::DecodeError),
    /// What was asked for is no JSON of this kind.
    #[error(transparent)]
    Asked(#[from] serde_json::Error),
    /// A number stands for nothing.
    #[error("{0} has the unknown value {1}")]
    Value(&'static str, u32),
}

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(string, repeated, tag = "1")]
    types: Vec<String>,
    #[prost(btree_map = "string, string", tag = "2")]
    headers: BTreeMap<String, String>,
    #[prost(uint32, tag = "3")]
    min_priority: u32,
    #[prost(string, repeated, tag = "4")]
    content_types: Vec<String>,
    #[prost(uint32, tag = "5")]
    mode: u32,
    #[prost(uint32, tag = "6")]
    partition_by: u32,
    #[prost(uint32, tag = "7")]
    order: u32,
    #[prost(uint32, optional, tag = "8")]
    max_in_flight: Option<u32>,
    #[prost(uint64, optional, tag = "9")]
    ack_wait_ms: Option<u64>,
    #[prost(uint32, tag = "10")]
    max_deliveries: u32,
    #[prost(uint64, repeated, tag = "11")]
    backoff_ms: Vec<u64>,
    #[prost(uint64, tag = "12")]
    idle_expiry_ms: u64,
    #[prost(uint64, tag = "13")]
    conflate_ms: u64,
    #[prost(uint64, tag = "14")]
    linger_ms: u64,
    #[prost(uint32, optional, tag = "15")]
    batch_max: Option<u32>,
    #[prost(uint64, tag = "16")]
    max_bytes_per_second: u64,
    #[prost(uint64, optional, tag = "17")]
    max_data_bytes: Option<u64>,
    #[prost(uint32, tag = "18")]
    on_gap: u32,
    #[prost(bool, tag = "19")]
    last_per_key: bool,
    #[prost(string, tag = "20")]
    asked: String,
}

/// What belongs to one request and is not kept with a durable; were it there, it would come back too.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Asked {
    after: Option<After>,
    since: Option<Timestamp>,
    log: Option<String>,
    durable: Option<String>,
    start: Start,
    presence: Option<Presence>,
    lost_reader: Option<String>,
}

/// These options as bytes.
pub(super) fn to_bytes(options: &SubscribeOptions) -> Vec<u8> {
    let default = SubscribeOptions::to(options.filters.clone());
    if *options == default {
        return Vec::new();
    }
    // Whoever adds an option says here how it is stored.
    let SubscribeOptions {
        filters: _,
        after,
        since,
        log,
        durable,
        start,
        last_per_key,
        types,
        headers,
        min_priority,
        content_types,
        mode,
        partition_by,
        order,
        max_in_flight,
        ack_wait_ms,
        max_deliveries,
        backoff_ms,
        idle_expiry_ms,
        conflate_ms,
        linger_ms,
        batch_max,
        max_bytes_per_second,
        max_data_bytes,
        on_gap,
        presence,
        lost_reader,
    } = options.clone();
    let asked = Asked { after, since, log, durable, start, presence, lost_reader };
    let asked = match asked == Asked::default() {
        true => String::new(),
        false => serde_json::to_string(&asked).unwrap_or_default(),
    };
    let stored = Stored {
        types,
        headers,
        min_priority: number_of(&PRIORITIES, &min_priority),
        content_types,
        mode: number_of(&MODES, &mode),
        partition_by: number_of(&PARTITIONS, &partition_by),
        order: number_of(&ORDERS, &order),
        max_in_flight: Some(max_in_flight).filter(|max| *max != default.max_in_flight),
        ack_wait_ms: Some(ack_wait_ms).filter(|wait| *wait != default.ack_wait_ms),
        max_deliveries,
        backoff_ms,
        idle_expiry_ms,
        conflate_ms,
        linger_ms,
        batch_max: Some(batch_max).filter(|max| *max != default.batch_max),
        max_bytes_per_second,
        max_data_bytes,
        on_gap: number_of(&ON_GAP, &on_gap),
        last_per_key,
        asked,
    };
    stored.encode_to_vec()
}

/// The options that were stored with these filters.
///
/// # Errors
/// [`Unreadable`].
pub(super) fn from_bytes(bytes: &[u8], filters: Filters) -> Result<SubscribeOptions, Unreadable> {
    let default = SubscribeOptions::to(filters);
    if bytes.is_empty() {
        return Ok(default);
    }
    let stored = Stored::decode(bytes)?;
    let asked: Asked = match stored.asked.as_str() {
        "" => Asked::default(),
        json => serde_json::from_str(json)?,
    };
    Ok(SubscribeOptions {
        filters: default.filters,
        after: asked.after,
        since: asked.since,
        log: asked.log,
        durable: asked.durable,
        start: asked.start,
        last_per_key: stored.last_per_key,
        types: stored.types,
        headers: stored.headers,
        min_priority: word_of("min_priority", &PRIORITIES, stored.min_priority)?,
        content_types: stored.content_types,
        mode: word_of("mode", &MODES, stored.mode)?,
        partition_by: word_of("partition_by", &PARTITIONS, stored.partition_by)?,
        order: word_of("order", &ORDERS, stored.order)?,
        max_in_flight: stored.max_in_flight.unwrap_or(default.max_in_flight),
        ack_wait_ms: stored.ack_wait_ms.unwrap_or(default.ack_wait_ms),
        max_deliveries: stored.max_deliveries,
        backoff_ms: stored.backoff_ms,
        idle_expiry_ms: stored.idle_expiry_ms,
        conflate_ms: stored.conflate_ms,
        linger_ms: stored.linger_ms,
        batch_max: stored.batch_max.unwrap_or(default.batch_max),
        max_bytes_per_second: stored.max_bytes_per_second,
        max_data_bytes: stored.max_data_bytes,
        on_gap: word_of("on_gap", &ON_GAP, stored.on_gap)?,
        presence: asked.presence,
        lost_reader: asked.lost_reader,
    })
}

fn number_of<T: PartialEq>(words: &[T], word: &T) -> u32 {
    words.iter().zip(0..).find(|(known, _)| *known == word).map_or(0, |(_, number)| number)
}

fn word_of<T: Copy>(name: &'static str, words: &[T], number: u32) -> Result<T, Unreadable> {
    let known = usize::try_from(number).ok().and_then(|number| words.get(number));
    known.copied().ok_or(Unreadable::Value(name, number))
}

/// Whether these options say that the durable is forgotten when nobody uses it.
pub(super) fn expires(bytes: &[u8]) -> bool {
    Stored::decode(bytes).is_ok_and(|stored| stored.idle_expiry_ms > 0)
}
