//! The protocol in Protobuf: the messages of `tidings/v1/protocol.proto`, for the subprotocol
//! `tidings.v1.protobuf`.
//!
//! - The fields are those of JSON, with times as milliseconds (`expires` is `expires_ms`) and data
//!   always as bytes; JSON data stays byte for byte, text is its UTF-8.
//! - What a client sends is read strictly, which Protobuf by itself is not: unknown fields, fields
//!   given twice, two of a oneof and numbers that are too high are refused. What Protobuf cannot
//!   tell from absent (0, an empty list) is read as absent.
//! - What the broker sends is read leniently: a client skips fields that it does not know.
//! - Equal messages have equal bytes here, but other writers may order fields otherwise.
//! - A message here is without the byte that every binary frame starts with: framing is the
//!   session's business.
//!
//! The functions are those of [`super::json`], with bytes for text.

mod event;
mod fields;
mod publish;
mod request;
mod server;
mod strict;
mod subscribe;
mod words;

// What prost-build makes is `pub` throughout and documents some of it.
#[allow(clippy::all, missing_docs, unreachable_pub, reason = "generated, and used here only")]
mod generated;

#[cfg(test)]
mod tests;

use prost::{Message, encoding::encoded_len_varint};

use super::Fault;
use crate::{Cursor, Offset, Timestamp};

pub use super::{BadRequest, BatchHeader, Incoming};
pub use {
    event::{decode_event, encode_event, write_event},
    request::{decode_request, encode_request},
    server::{
        decode_compressed, decode_server_message, encode_array, encode_events, encode_push,
        encode_reply,
    },
};

/// Appends a message.
fn push(message: &impl Message, out: &mut Vec<u8>) {
    // It fails only where there is no room left, and a vector takes everything.
    let _ = message.encode(out);
}

/// How many bytes a length-delimited field takes whose key takes one byte.
fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn offset(field: &str, n: u64) -> Result<Offset, Fault> {
    let wrong = || Fault::new(field, format!("is {n}: give an offset from 1 to {}", Offset::MAX));
    Offset::new(n).ok_or_else(wrong)
}

fn cursor(field: &str, n: u64) -> Result<Cursor, Fault> {
    if n > Offset::MAX {
        return Err(Fault::new(field, format!("is {n}: give a cursor from 0 to {}", Offset::MAX)));
    }
    Ok(Cursor::new(n))
}

/// A moment that a client gives.
fn time(field: &str, ms: u64) -> Result<Timestamp, Fault> {
    if ms > Timestamp::MAX.as_millis() {
        let text = format!("is {ms}: give milliseconds up to {}", Timestamp::MAX.as_millis());
        return Err(Fault::new(field, text));
    }
    Ok(Timestamp::from_millis(ms))
}
