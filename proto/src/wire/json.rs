//! The protocol in JSON, as `docs/protocol.md` shows it.
//!
//! - JSON data is embedded and handed out byte for byte: no key moves, no number changes. (Blanks
//!   around a value are no part of it, so they do not come back.)
//! - What a client sends is read strictly: unknown attributes, names given twice and `null` are
//!   refused.
//! - What the broker sends is read leniently: a client skips attributes that it does not know.
//! - Absent attributes are left out; the order of attributes is that of the protocol.
//!
//! The broker writes events with [`encode_event`] and [`write_event`], which [`decode_event`]
//! reads; a client writes [`encode_request`] and [`encode_publish`], which [`decode_request`],
//! [`decode_publish`] and [`decode_publishes`] read; all else that the broker sends is written by
//! [`encode_reply`], [`encode_push`] and [`encode_events`], and read by [`decode_server_message`].
//!
//! What is no message is read by [`decode_object`], so that its errors name the attribute as those of messages do.

mod event;
mod publish;
mod request;
mod server;

pub(super) mod read;
pub(super) mod write;

#[cfg(test)]
mod tests;

use serde::Deserialize;

use super::LEVELS_MAX;
use crate::WireError;

pub use super::{BadRequest, BatchHeader, Incoming};
pub(super) use publish::payload;
pub use {
    event::{decode_event, encode_event, write_event},
    publish::{decode_publish, decode_publishes, encode_publish},
    request::{decode_request, encode_request},
    server::{
        decode_compressed, decode_server_message, encode_array, encode_events, encode_push,
        encode_reply,
    },
    write::{data_growth_bytes, escape_bytes},
};

/// Reads a `T` that is written as an object. Errors say where: `path` is where the object stands, and goes before the
/// name of the attribute.
///
/// # Errors
/// When it is not JSON, is nested too deep, is no object or not a `T`.
pub fn decode_object<'de, T: Deserialize<'de>>(text: &'de str, path: &str) -> Result<T, WireError> {
    read::object(text, path, LEVELS_MAX)
}
