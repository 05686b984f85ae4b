//! Events in MessagePack: written from a record or from an [`Event`], read back as an [`Event`].

use super::{check, data::Given, read, write::MessagePack};
use crate::{
    Event, WireError,
    wire::{
        objects::event::{self, WireEvent},
        stored::{Body, Place},
    },
};

/// Appends an event of the log as one map.
pub fn encode_event(place: &Place<'_>, body: &Body<'_>, out: &mut Vec<u8>) {
    event::write_record::<MessagePack>(place, body, out);
}

/// Appends an event as one map, the same bytes as [`encode_event`] makes of its record.
pub fn write_event(event: &Event, out: &mut Vec<u8>) {
    event::write_event::<MessagePack>(event, out);
}

/// Reads an event as the broker sends it; attributes that are not known here are skipped.
///
/// # Errors
/// When the bytes are no such map; the error names the attribute.
pub fn decode_event(bytes: &[u8]) -> Result<Event, WireError> {
    check::message(bytes)?;
    let event: WireEvent<Given<'_>> = read::object(bytes, "")?;
    event.into_event().map_err(|fault| fault.under(""))
}
