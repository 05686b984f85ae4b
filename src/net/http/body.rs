//! The body of a request, within its bounds.
//!
//! - A length over the limit is refused before anything is read; without a length the bytes are
//!   counted.
//! - Memory grows with what has come, never with what was announced, and counts against the door's
//!   room.
//! - A body that is not taken to its end closes the connection behind the answer.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{StatusCode, body::Incoming, header};
use serde_json::value::RawValue;
use tidings_proto::{
    Code, WireError,
    event::json_depth,
    message::Request,
    wire::{LEVELS_MAX, json},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Call, headers};
use crate::{clock, net::problem::Refusal};

/// When to come again when there is no room for the body, in milliseconds.
const NO_ROOM_MS: (u64, u64) = (500, 1500);

/// A body that has come.
pub(super) struct Taken {
    /// It.
    pub(super) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Taken {
    /// A body that is there already.
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Taken {
        Taken { bytes: Bytes::copy_from_slice(text.as_bytes()), _room: None }
    }

    /// It as text.
    pub(super) fn text(&self) -> Result<&str, WireError> {
        std::str::from_utf8(&self.bytes)
            .map_err(|error| WireError::invalid(format!("body: it is not UTF-8: {error}")))
    }

    /// What the socket's request of this name would hold, read as strictly. Where the socket names
    /// its subscription by a number, the path does here.
    pub(super) fn as_request(&self, name: &str) -> Result<Request, WireError> {
        let text = self.text()?;
        let invalid = |text: String| WireError::invalid(format!("body: {text}"));
        if json_depth(text.as_bytes()) > LEVELS_MAX - 1 {
            return Err(invalid(format!("it is nested deeper than {} levels", LEVELS_MAX - 1)));
        }
        // One value and no more: else what follows would become part of the envelope.
        let value: &RawValue = serde_json::from_str(text)
            .map_err(|error| invalid(format!("it is not JSON: {error}")))?;
        let attributes = value.get().strip_prefix('{').map(str::trim_ascii_start);
        let message = match attributes {
            Some(rest) if NUMBERED.contains(&name) => {
                let comma = if rest == "}" { "" } else { "," };
                format!("{{\"{name}\":{{\"subscription\":0{comma}{rest}}}")
            }
            _ => format!("{{\"{name}\":{value}}}"),
        };
        let read = json::decode_request(&message);
        read.map(|read| read.request).map_err(|bad| in_body(name, bad.error))
    }
}

/// Requests that name their subscription by its number.
const NUMBERED: [&str; 2] = ["ack", "nack"];

/// The error of a message as the error of the body that became part of it.
fn in_body(name: &str, error: WireError) -> WireError {
    let message = match error.message.strip_prefix(name) {
        Some(rest) if rest.starts_with(".subscription: ") => {
            "subscription: the path names it: leave it out".to_owned()
        }
        Some(rest) if rest.starts_with(':') => format!("body{rest}"),
        Some(rest) => rest.trim_start_matches('.').to_owned(),
        None => return error,
    };
    WireError { message, ..error }
}

/// Takes the body of a request.
pub(super) async fn take(call: &Call, body: Incoming) -> Result<Taken, Refusal> {
    check_encoding(call)?;
    let bytes_max = call.house().limits.message_bytes_max;
    let announced = hyper::body::Body::size_hint(&body).lower();
    if usize::try_from(announced).map_or(true, |announced| announced > bytes_max) {
        return Err(too_large(&format!("{announced} bytes"), bytes_max));
    }
    let collected = collect(body, bytes_max, &call.door.bodies);
    match tokio::time::timeout(call.door.options.body_timeout, collected).await {
        Ok(taken) => taken,
        Err(_) => {
            let seconds = call.door.options.body_timeout.as_secs();
            let text = format!("body: it did not come within {seconds} seconds: send it faster");
            let error = WireError { retryable: true, ..WireError::invalid(text) };
            Err(Refusal::with_status(StatusCode::REQUEST_TIMEOUT, error).closing())
        }
    }
}

async fn collect(
    mut body: Incoming,
    bytes_max: usize,
    bodies: &Arc<Semaphore>,
) -> Result<Taken, Refusal> {
    let mut room: Option<OwnedSemaphorePermit> = None;
    let mut bytes = Bytes::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Refusal::from(WireError::invalid(format!("body: it did not come whole: {error}")))
                .closing()
        })?;
        // Trailers say nothing that we read.
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(too_large("more", bytes_max));
        }
        let more = take_room(bodies, data.len())?;
        match &mut room {
            Some(room) => room.merge(more),
            None => room = Some(more),
        }
        if bytes.is_empty() {
            // Mostly all of it: kept as it came.
            bytes = data;
        } else {
            let mut joined = BytesMut::from(bytes);
            joined.extend_from_slice(&data);
            bytes = joined.freeze();
        }
    }
    Ok(Taken { bytes, _room: room })
}

fn take_room(bodies: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    bodies.clone().try_acquire_many_owned(permits).map_err(|_| {
        let wait_ms = clock::random_between(NO_ROOM_MS.0, NO_ROOM_MS.1);
        let error =
            WireError::new(Code::Unavailable, "too many requests are being read: try again");
        Refusal::from(error.retry_after_ms(wait_ms)).closing()
    })
}

fn too_large(bytes: &str, bytes_max: usize) -> Refusal {
    let text = format!("body: {bytes}, at most {bytes_max} bytes are allowed");
    Refusal::from(WireError::new(Code::TooLarge, text)).closing()
}

fn check_encoding(call: &Call) -> Result<(), Refusal> {
    let mut codings = headers::elements(&call.head.headers, &header::CONTENT_ENCODING);
    if codings.all(|coding| coding.eq_ignore_ascii_case("identity")) {
        return Ok(());
    }
    let text =
        "content-encoding: this version of the broker takes plain bodies only: send identity";
    Err(WireError::new(Code::UnsupportedMediaType, text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_as_strictly_as_a_message() {
        let ok = Taken::of(r#" {"offset":57} "#).as_request("ack").unwrap();
        assert!(matches!(ok, Request::Ack(ack) if ack.offset.unwrap().get() == 57));
        for (text, begins) in [
            (r#"{"offset":57},"id":1"#, "body: it is not JSON"),
            (r#"{"offset":57,"subscription":1}"#, "subscription: the path names it"),
            ("{}", "offset: is missing"),
            (r#"{"offset":0}"#, "offset: "),
            (r#"{"ofset":1}"#, "ofset: "),
            ("[57]", "body: "),
            ("", "body: it is not JSON"),
            (r#"{"offset":null}"#, "offset: "),
        ] {
            let error = Taken::of(text).as_request("ack").unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument);
            assert!(error.message.starts_with(begins), "{text}: {}", error.message);
        }
        let deep = Taken::of(&"[".repeat(50));
        assert!(deep.as_request("ack").unwrap_err().message.contains("nested"));
    }
}
