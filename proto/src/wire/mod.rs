//! Bytes on the wire and in the log: one module an encoding.
//!
//! - [`json`], [`msgpack`] and [`protobuf`] have every message of the protocol; [`cloudevents`] the HTTP binding
//!   of single events; [`compressed`] how a batch of events is compressed; [`stored`] the body of a record in
//!   the log.
//! - What a decoder hands out is valid: every event has passed [`crate::NewEvent::check`].
//! - No bytes, however hostile, panic a decoder or make it recurse deeper than [`LEVELS_MAX`].
//! - An error's text begins with the path of the attribute that is wrong and a colon, as in
//!   `publish_batch.events[3].topic: …`; `message: …` means the whole of it.

use crate::{
    Code, Cursor, Offset, WireError,
    event::{EventError, JSON_DEPTH_MAX},
    message::{Head, Request, RequestId},
};

pub mod cloudevents;
pub mod compressed;
pub mod json;
pub mod msgpack;
pub mod protobuf;
pub mod stored;

mod attributes;
mod objects;

#[cfg(test)]
mod round_trips;
#[cfg(test)]
mod samples;

/// The most levels of nesting in a message: data within an event, a list, a batch and a message.
pub const LEVELS_MAX: usize = JSON_DEPTH_MAX + 4;

/// The most events in one atomic batch. Where events can be written in few bytes they are counted
/// before they are read, for in memory they are many times as large.
const EVENTS_MAX: usize = 4096;

/// A request as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    /// What stands beside it.
    pub head: Head,
    /// What is asked for.
    pub request: Request,
}

impl Incoming {
    fn checked(head: Head, request: Request) -> Result<Incoming, WireError> {
        let is_publish = matches!(request, Request::Publish(_) | Request::PublishBatch(_));
        if head.follows && !is_publish {
            return Err(invalid("follows", "is said of publishes only: leave it out"));
        }
        Ok(Incoming { head, request })
    }
}

/// A message that is no request.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{error}")]
pub struct BadRequest {
    /// Its id, as far as it could be read.
    pub id: Option<RequestId>,
    /// What is wrong with it.
    #[source]
    pub error: WireError,
}

/// What goes before the events of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchHeader<'a> {
    /// The session's number of the subscription.
    pub subscription: u32,
    /// The cursor before the batch; `None` with `order: "priority"`.
    pub after: Option<Cursor>,
    /// The cursor behind it; `None` with `order: "priority"`.
    pub cursor: Option<Cursor>,
    /// Events that were delivered before, and how often with this delivery.
    pub attempts: &'a [(Offset, u32)],
}

/// What is wrong with one attribute; the caller knows where in the message that attribute stands.
#[derive(Debug)]
struct Fault {
    field: String,
    text: String,
}

impl Fault {
    fn new(field: &str, text: impl Into<String>) -> Fault {
        Fault { field: field.to_owned(), text: text.into() }
    }

    /// The error as it travels. `path` leads to the object that has the attribute; it may be empty.
    fn under(self, path: &str) -> WireError {
        let dot = if path.is_empty() { "" } else { "." };
        invalid(&format!("{path}{dot}{}", self.field), &self.text)
    }
}

impl From<EventError> for Fault {
    /// An [`EventError`]'s text begins with the attribute.
    fn from(error: EventError) -> Fault {
        let text = error.to_string();
        let (field, rest) = text.split_once([' ', ':']).unwrap_or(("data", &text));
        Fault::new(field, rest.trim_start())
    }
}

/// `path: text` as [`Code::InvalidArgument`], cut where a hostile message would make it long.
fn invalid(path: &str, text: &str) -> WireError {
    const TEXT_CHARS_MAX: usize = 400;
    const PATH_CHARS_MAX: usize = 200;
    let mut message: String = path.chars().take(PATH_CHARS_MAX).collect();
    message.push_str(": ");
    message.extend(text.chars().take(TEXT_CHARS_MAX));
    WireError::new(Code::InvalidArgument, message)
}

/// Appends the name of an attribute to a path.
fn push_name(name: &str, path: &mut String) {
    const NAME_CHARS_MAX: usize = 64;
    if !path.is_empty() {
        path.push('.');
    }
    path.extend(name.chars().take(NAME_CHARS_MAX));
}
