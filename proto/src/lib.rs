//! The words and the wire of tidings: what every room of the broker and every client speaks.
//!
//! No I/O, no clock, no async. The words ([`Offset`], [`Cursor`], [`Topic`], [`Filter`], [`Event`])
//! exist only parsed, so that a value of the type is proof of its form; the messages
//! ([`message`]) are plain data; [`wire`] turns both into bytes and back.

pub mod control;
pub mod documents;
pub mod error;
pub mod event;
pub mod message;
pub mod offset;
mod strict;
pub mod subscribe;
pub mod topic;
pub mod wire;

pub use error::{Code, WireError};
pub use event::{Data, Event, EventId, NewEvent, Priority, Timestamp};
pub use offset::{Cursor, LogId, Offset, Placed, Position};
pub use subscribe::{Mode, Start, SubscribeOptions};
pub use topic::{Filter, Filters, Topic};
