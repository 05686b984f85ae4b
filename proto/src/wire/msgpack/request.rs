//! Requests in MessagePack: `{"id":1,"publish":{…}}`.

use super::{BadRequest, Incoming, check, data::Given, read, write::MessagePack};
use crate::{
    message::{Head, Request},
    wire::objects::request::{self, Envelope},
};

/// Reads a request.
///
/// # Errors
/// When the bytes are no request or what it holds is not valid; with the id, if that can be read.
pub fn decode_request(bytes: &[u8]) -> Result<Incoming, BadRequest> {
    let bad = |error| BadRequest { id: check::id_of(bytes), error };
    check::request(bytes).map_err(bad)?;
    let envelope: Envelope<Given<'_>> = read::object(bytes, "").map_err(bad)?;
    envelope.into_incoming().map_err(bad)
}

/// Appends a request.
pub fn encode_request(head: impl Into<Head>, request: &Request, out: &mut Vec<u8>) {
    request::write::<MessagePack>(head.into(), request, out);
}
