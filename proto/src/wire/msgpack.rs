//! The protocol in MessagePack, for the subprotocol `tidings.v1.msgpack`.
//!
//! - A message is the object that it is in JSON: maps with the same names, whole numbers where JSON has
//!   them, texts for times, words and ids.
//! - An event's `data` is bytes whatever its content type; JSON data stays byte for byte. Where the
//!   content type is `text/*` a text is taken for its UTF-8. There is no `data_base64`.
//! - Presence data is any value that JSON has, too.
//! - What a client sends is read as strictly as JSON is; extension types, names that are no texts and
//!   bytes elsewhere than in `data` are refused, too. What the broker sends is read leniently.
//! - Before anything is read the message is gone through: no length is believed, no value lies deeper
//!   than [`super::LEVELS_MAX`], nothing stands behind it.
//! - A message here is without the byte that every binary frame starts with: framing is the
//!   session's business.
//!
//! The functions are those of [`super::json`], with bytes for text.

mod check;
mod data;
mod event;
mod item;
mod read;
mod request;
mod server;
mod write;

#[cfg(test)]
mod tests;

pub use super::{BadRequest, BatchHeader, Incoming};
pub use {
    event::{decode_event, encode_event, write_event},
    request::{decode_request, encode_request},
    server::{
        decode_compressed, decode_server_message, encode_array, encode_events, encode_push,
        encode_reply,
    },
};
