//! Requests in JSON: `{"id":1,"publish":{…}}`.

use std::fmt;

use serde::{
    Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{BadRequest, Incoming, read, write::Json};
use crate::{
    message::{Head, Request, RequestId},
    wire::{
        LEVELS_MAX,
        objects::request::{self, Envelope},
    },
};

/// Reads a request.
///
/// # Errors
/// When the text is no request or what it holds is not valid; with the id, if that can be read.
pub fn decode_request(text: &str) -> Result<Incoming, BadRequest> {
    let bad = |error| BadRequest { id: id_of(text), error };
    let envelope: Envelope<&RawValue> = read::object(text, "", LEVELS_MAX).map_err(bad)?;
    envelope.into_incoming().map_err(bad)
}

/// Appends a request.
pub fn encode_request(head: impl Into<Head>, request: &Request, out: &mut Vec<u8>) {
    request::write::<Json>(head.into(), request, out);
}

/// The id in a message that is wrong otherwise, read up to where the text stops being JSON.
fn id_of(text: &str) -> Option<RequestId> {
    let mut id = None;
    // The message is known to be wrong already; only what was found on the way counts. Values that
    // are passed over are not recursed into, however deep they are nested.
    let _ = serde_json::Deserializer::from_str(text).deserialize_map(FindId(&mut id));
    id
}

struct FindId<'a>(&'a mut Option<RequestId>);

impl<'de> Visitor<'de> for FindId<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == "id" {
                *self.0 = Some(map.next_value()?);
                break;
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}
