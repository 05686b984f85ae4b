//! An event's attributes by reference, from a record or from an [`Event`]: what every encoding of
//! events writes.

use crate::{
    Event, Offset, Priority, Timestamp,
    wire::stored::{Body, Place},
};

/// All attributes but the headers, in the order of the protocol.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a> {
    pub(super) offset: Offset,
    pub(super) topic: &'a str,
    pub(super) id: &'a str,
    pub(super) kind: &'a str,
    pub(super) source: &'a str,
    pub(super) time: Timestamp,
    pub(super) datacontenttype: Option<&'a str>,
    pub(super) data: Option<&'a [u8]>,
    pub(super) key: Option<&'a str>,
    pub(super) priority: Priority,
    pub(super) expires: Option<Timestamp>,
    pub(super) correlation: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    pub(super) fn of_record(place: &Place<'a>, body: &'a Body<'_>) -> Attributes<'a> {
        Attributes {
            offset: place.offset,
            topic: place.topic,
            id: &body.id,
            kind: body.kind,
            source: &body.source,
            time: place.time,
            datacontenttype: body.datacontenttype,
            data: body.data,
            key: place.key,
            priority: place.priority,
            expires: body.expires,
            correlation: body.correlation,
        }
    }

    pub(super) fn of_event(event: &'a Event) -> Attributes<'a> {
        Attributes {
            offset: event.offset,
            topic: event.topic.as_str(),
            id: &event.id,
            kind: &event.kind,
            source: &event.source,
            time: event.time,
            datacontenttype: event.datacontenttype.as_deref(),
            data: event.data.as_deref(),
            key: event.key.as_deref(),
            priority: event.priority,
            expires: event.expires,
            correlation: event.correlation.as_deref(),
        }
    }
}

/// The headers of an event, name and value, as [`crate::wire::stored::Headers`] gives them.
pub(super) fn headers(event: &Event) -> impl Iterator<Item = (&str, &str)> + Clone {
    event.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}
