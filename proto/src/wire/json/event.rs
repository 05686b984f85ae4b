//! Events in JSON: written from a record or from an [`Event`], read back as an [`Event`].

use serde_json::value::RawValue;

use super::{read, write::Json};
use crate::{
    Event, WireError,
    wire::{
        LEVELS_MAX,
        objects::event::{self, WireEvent},
        stored::{Body, Place},
    },
};

/// Appends an event of the log as one JSON object.
pub fn encode_event(place: &Place<'_>, body: &Body<'_>, out: &mut Vec<u8>) {
    event::write_record::<Json>(place, body, out);
}

/// Appends an event as one JSON object, the same bytes as [`encode_event`] makes of its record.
pub fn write_event(event: &Event, out: &mut Vec<u8>) {
    event::write_event::<Json>(event, out);
}

/// Reads an event as the broker sends it; attributes that are not known here are skipped.
///
/// # Errors
/// When the text is no such object; the error names the attribute.
pub fn decode_event(text: &str) -> Result<Event, WireError> {
    let event: WireEvent<&RawValue> = read::object(text, "", LEVELS_MAX)?;
    event.into_event().map_err(|fault| fault.under(""))
}
