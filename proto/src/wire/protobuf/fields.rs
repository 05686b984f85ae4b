//! What a client may send, field by field: the schema of `Request` for [`super::strict`].
//!
//! A test compares it with the schema itself.

use super::strict::{Field, Kind, Rule};
use crate::wire::EVENTS_MAX;

const fn field(tag: u32, name: &'static str, kind: Kind) -> Field {
    Field { tag, name, kind, rule: Rule::Once }
}

const fn many(tag: u32, name: &'static str, kind: Kind) -> Field {
    Field { tag, name, kind, rule: Rule::Many(usize::MAX) }
}

/// A field of a oneof; `group` has the bit of every tag of that.
const fn one_of(tag: u32, name: &'static str, kind: Kind, group: u32) -> Field {
    Field { tag, name, kind, rule: Rule::OneOf(group) }
}

const U32: Kind = Kind::Number(u32::MAX as u64);
const U64: Kind = Kind::Number(u64::MAX);

/// The tags of the oneof `request`.
const REQUESTS: u32 = 0x3ffc;

pub(super) const REQUEST: &[Field] = &[
    field(1, "id", U32),
    one_of(2, "connect", Kind::Message(CONNECT), REQUESTS),
    one_of(3, "publish", Kind::Message(PUBLISH), REQUESTS),
    one_of(4, "publish_batch", Kind::Message(PUBLISH_BATCH), REQUESTS),
    one_of(5, "subscribe", Kind::Message(SUBSCRIBE), REQUESTS),
    one_of(6, "ack", Kind::Message(ACK), REQUESTS),
    one_of(7, "nack", Kind::Message(NACK), REQUESTS),
    one_of(8, "unsubscribe", Kind::Message(&[field(1, "subscription", U32)]), REQUESTS),
    one_of(9, "refresh", Kind::Message(&[field(1, "token", Kind::Text)]), REQUESTS),
    one_of(10, "presence", Kind::Message(&[field(1, "topic", Kind::Text)]), REQUESTS),
    one_of(11, "receipts", Kind::Message(&[field(1, "offset", U64)]), REQUESTS),
    one_of(12, "ping", Kind::Message(&[]), REQUESTS),
    one_of(13, "cancel", Kind::Message(&[field(1, "offset", U64)]), REQUESTS),
    field(14, "follows", Kind::Number(1)),
];

const CONNECT: &[Field] = &[
    field(1, "token", Kind::Text),
    field(2, "client", Kind::Text),
    many(3, "compress", Kind::Text),
];

/// The tags of the oneof `expiry`.
const EXPIRY: u32 = 1 << 11 | 1 << 14;

const PUBLISH: &[Field] = &[
    field(2, "topic", Kind::Text),
    field(3, "id", Kind::Text),
    field(5, "key", Kind::Text),
    field(6, "type", Kind::Text),
    field(7, "source", Kind::Text),
    field(8, "datacontenttype", Kind::Text),
    field(9, "data", Kind::Bytes),
    field(10, "priority", Kind::Number(3)),
    one_of(11, "expires_ms", U64, EXPIRY),
    field(12, "correlation", Kind::Text),
    many(13, "headers", Kind::Header),
    one_of(14, "ttl_ms", U64, EXPIRY),
    field(15, "expect_last", U64),
    field(16, "deliver_at_ms", U64),
    field(17, "receipts", Kind::Number(1)),
];

const PUBLISH_BATCH: &[Field] =
    &[Field { tag: 1, name: "events", kind: Kind::Message(PUBLISH), rule: Rule::Many(EVENTS_MAX) }];

/// The tags of the oneof `start`.
const START: u32 = 1 << 6 | 1 << 7 | 1 << 8;

const SUBSCRIBE: &[Field] = &[
    many(1, "filters", Kind::Text),
    field(2, "after", Kind::Message(POSITION)),
    field(3, "since_ms", U64),
    field(4, "log", Kind::Text),
    field(5, "durable", Kind::Text),
    one_of(6, "start_at", Kind::Number(1), START),
    one_of(7, "start_after", Kind::Message(POSITION), START),
    one_of(8, "start_since_ms", U64, START),
    field(9, "last_per_key", Kind::Number(1)),
    many(10, "types", Kind::Text),
    field(11, "min_priority", Kind::Number(3)),
    many(12, "content_types", Kind::Text),
    field(13, "mode", Kind::Number(2)),
    field(14, "order", Kind::Number(1)),
    field(15, "max_in_flight", U32),
    field(16, "ack_wait_ms", U64),
    field(17, "max_deliveries", U32),
    many(18, "backoff_ms", U64),
    field(19, "conflate_ms", U64),
    field(20, "linger_ms", U64),
    field(21, "batch_max", U32),
    field(22, "on_gap", Kind::Number(1)),
    field(23, "presence", Kind::Message(&[field(1, "data", Kind::Bytes)])),
    many(24, "headers", Kind::Header),
    field(25, "partition_by", Kind::Number(1)),
    field(26, "idle_expiry_ms", U64),
    field(27, "max_bytes_per_second", U64),
    field(28, "max_data_bytes", U64),
    field(29, "lost_reader", Kind::Text),
];

const POSITION: &[Field] = &[field(1, "cursor", U64), field(2, "log", Kind::Text)];

/// The tags of the oneof `done`.
const DONE: u32 = 1 << 2 | 1 << 3;

const ACK: &[Field] = &[
    field(1, "subscription", U32),
    one_of(2, "offset", U64, DONE),
    one_of(3, "offsets", Kind::Message(&[many(1, "offsets", U64)]), DONE),
    field(4, "log", Kind::Text),
];

const NACK: &[Field] = &[
    field(1, "subscription", U32),
    many(2, "offsets", U64),
    field(3, "delay_ms", U64),
    field(4, "reason", Kind::Text),
    field(5, "log", Kind::Text),
];
