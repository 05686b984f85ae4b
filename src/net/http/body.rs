//! The body of a request, within its bounds.
//!
//! - A length over the limit is refused before anything is read; without a length the bytes are
//!   counted.
//! - Memory grows with what has come, never with what was announced, and counts against the door's
//!   room.
//! - A body may be compressed by one coding. It is inflated up to the limit and one byte more, never further; small ones
//!   here, others on the blocking pool.
//! - A body that is not taken to its end closes the connection behind the answer.

use std::{io::Read, sync::Arc};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;
use tidings_proto::{
    Code, WireError,
    event::json_depth,
    message::Request,
    wire::{LEVELS_MAX, json},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Call, headers};
use crate::{
    clock, metrics,
    net::{
        coding::{self, Coding},
        problem::Refusal,
    },
    session::{internal, shown},
};

/// When to come again when there is no room for the body, in milliseconds.
const NO_ROOM_MS: (u64, u64) = (500, 1500);

/// What is inflated at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// A body that has no more than this is inflated here, up to so many times as much: in less than a millisecond.
const HERE_BYTES_MAX: usize = 16 * 1024;
const HERE_TIMES_MAX: usize = 4;

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
        read.map(|read| read.request).map_err(|bad| match bad.error.message.strip_prefix(name) {
            Some(rest) if rest.starts_with(".subscription: ") => {
                WireError::invalid("subscription: the path names it: leave it out")
            }
            _ => in_body(name, bad.error),
        })
    }
}

/// What errors call the body.
const BODY: &str = "body";

/// Requests that name their subscription by its number.
const NUMBERED: [&str; 2] = ["ack", "nack"];

/// For `deserialize_with` on an optional attribute of a body: what is there is no `null`.
pub(super) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A body that is written as an object; `example` is one. What is wrong with it says at which attribute.
pub(super) fn object<T: DeserializeOwned>(text: &str, example: &str) -> Result<T, WireError> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err(WireError::invalid(format!("body: it must be an object, as in {example}")));
    }
    json::decode_object(text, BODY).map_err(|error| in_body(BODY, error))
}

/// The error of a message, or of what stands at `name`, as the error of the body.
fn in_body(name: &str, error: WireError) -> WireError {
    let message = match error.message.strip_prefix(name) {
        Some(rest) if rest.starts_with(':') => format!("body{rest}"),
        Some(rest) => rest.trim_start_matches('.').to_owned(),
        None => return error,
    };
    WireError { message, ..error }
}

/// Takes the body of a request.
pub(super) async fn take(call: &Call, body: Incoming) -> Result<Taken, Refusal> {
    let coding = coding(call)?;
    let bytes_max = call.house().limits.message_bytes_max;
    let announced = hyper::body::Body::size_hint(&body).lower();
    if usize::try_from(announced).map_or(true, |announced| announced > bytes_max) {
        return Err(too_large(&format!("{announced} bytes"), bytes_max));
    }
    let collected = collect(body, bytes_max, &call.door.bodies);
    match tokio::time::timeout(call.door.options.body_timeout, collected).await {
        Ok(taken) => match coding {
            None => taken,
            Some(coding) => inflated(call, coding, taken?).await,
        },
        Err(_) => {
            let limit = humantime::format_duration(call.door.options.body_timeout);
            let text = format!("body: it did not come within {limit}: send it faster");
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
        grow(&mut room, bodies, data.len())?;
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

/// Takes room for so many bytes more.
fn grow(
    room: &mut Option<OwnedSemaphorePermit>,
    bodies: &Arc<Semaphore>,
    bytes: usize,
) -> Result<(), Refusal> {
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    let more = bodies.clone().try_acquire_many_owned(permits).map_err(|_| no_room().closing())?;
    match room {
        Some(room) => room.merge(more),
        None => *room = Some(more),
    }
    Ok(())
}

fn no_room() -> Refusal {
    let wait_ms = clock::random_between(NO_ROOM_MS.0, NO_ROOM_MS.1);
    let error = WireError::new(Code::Unavailable, "too many requests are being read: try again");
    Refusal::from(error.retry_after_ms(wait_ms))
}

/// A body on its way from its coding.
struct Inflating {
    reader: Box<dyn Read + Send>,
    out: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
    bodies: Arc<Semaphore>,
    bytes_max: usize,
    coding: Coding,
}

impl Inflating {
    /// Goes on up to so many bytes; whether it is done.
    fn run(&mut self, upto: usize) -> Result<bool, Refusal> {
        let mut chunk = [0; CHUNK_BYTES];
        while self.out.len() < upto {
            // One byte more than is allowed tells what is too much.
            let room = chunk.len().min(self.bytes_max + 1 - self.out.len());
            let room = chunk.get_mut(..room).unwrap_or_default();
            let read = self.reader.read(room).map_err(|error| {
                let name = self.coding.as_str();
                WireError::invalid(format!("body: it is not whole {name}: {error}"))
            })?;
            if read == 0 {
                return Ok(true);
            }
            if self.out.len() + read > self.bytes_max {
                let text = format!(
                    "body: more than {} bytes when it is inflated, which are the most that are allowed",
                    self.bytes_max
                );
                return Err(WireError::new(Code::TooLarge, text).into());
            }
            grow(&mut self.room, &self.bodies, read)?;
            self.out.extend(room.iter().take(read));
        }
        Ok(false)
    }
}

/// A body without its coding. The compressed one is let go with its room.
async fn inflated(call: &Call, coding: Coding, taken: Taken) -> Result<Taken, Refusal> {
    let coded_bytes = taken.bytes.len();
    let reader = coding::reader(coding, taken.bytes.clone())
        .map_err(|error| internal(&format!("a decoder cannot be made: {error}")))?;
    let mut inflating = Inflating {
        reader,
        out: Vec::new(),
        room: None,
        bodies: call.door.bodies.clone(),
        bytes_max: call.house().limits.message_bytes_max,
        coding,
    };
    // Brotli may fill its window before it gives a byte.
    let here = coding != Coding::Brotli && coded_bytes <= HERE_BYTES_MAX;
    if !here || !inflating.run(HERE_TIMES_MAX * HERE_BYTES_MAX)? {
        let coders = call.door.coders.clone().acquire_owned();
        let permit = tokio::time::timeout(call.door.options.body_timeout, coders).await;
        let permit = permit.map_err(|_| no_room())?;
        let rest = tokio::task::spawn_blocking(move || {
            // Given back when it is done, also where the client has gone meanwhile.
            let _permit = permit;
            inflating.run(usize::MAX).map(|_| inflating)
        });
        inflating = rest.await.map_err(|_| internal("a decoder panicked"))??;
    }
    metrics::http_coded(coding.as_str(), "in", inflating.out.len(), coded_bytes);
    Ok(Taken { bytes: inflating.out.into(), _room: inflating.room })
}

fn too_large(bytes: &str, bytes_max: usize) -> Refusal {
    let text = format!("body: {bytes}, at most {bytes_max} bytes are allowed");
    Refusal::from(WireError::new(Code::TooLarge, text)).closing()
}

/// How the body is compressed, as `Content-Encoding` says.
fn coding(call: &Call) -> Result<Option<Coding>, Refusal> {
    let codings = &call.door.options.codings;
    let given = headers::elements(&call.head.headers, &header::CONTENT_ENCODING);
    let given: Vec<&str> =
        given.filter(|coding| !coding.eq_ignore_ascii_case("identity")).collect();
    let text = match given[..] {
        [] => return Ok(None),
        [name] => match Coding::named(name).filter(|coding| codings.has(*coding)) {
            Some(coding) => return Ok(Some(coding)),
            None => format!("content-encoding: {} is not taken", shown(name)),
        },
        _ => "content-encoding: one coding is taken, not several behind one another".to_owned(),
    };
    let names: Vec<_> = codings.iter().map(Coding::as_str).chain(["identity"]).collect();
    let names = names.join(", ");
    let error = WireError::new(Code::UnsupportedMediaType, format!("{text}: send {names}"));
    let names = HeaderValue::from_str(&names).unwrap_or(HeaderValue::from_static("identity"));
    Err(Refusal::from(error).header(header::ACCEPT_ENCODING, names))
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
