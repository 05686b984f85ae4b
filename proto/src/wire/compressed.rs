//! A batch of events with its array of events compressed, by `deflate-raw` (RFC 1951), the one compression there is.
//!
//! ```text
//! +--------+---------------------------+--------------------------------+------------------------------+
//! | 1 (u8) | bytes of the header (u32) | the batch without its events   | its array of events, deflated|
//! +--------+---------------------------+--------------------------------+------------------------------+
//! ```
//! - The length is little-endian; the header is a message in the encoding of the socket, not compressed.
//! - The array is that of the encoding: a list in JSON and MessagePack, in Protobuf the fields `events` of
//!   `Events` one after another. Nothing in it is of one session alone, so that all who get the same events
//!   can be sent the same bytes.
//! - What comes out is bounded before it is there ([`inflate`]).

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::invalid;
use crate::{
    Event, WireError,
    message::{Events, ServerMessage},
};

/// The name of the compression in `connect` and its answer.
pub const DEFLATE_RAW: &str = "deflate-raw";
/// The byte that a frame with a compressed batch begins with.
pub const COMPRESSED: u8 = 1;
/// The byte that all other binary frames begin with where the encoding is not JSON.
pub const PLAIN: u8 = 0;

/// What a batch must save to be sent compressed: one part in this many.
const WORTH: usize = 10;

/// Compresses; keeps its memory (about 300 KB) for the next time.
#[derive(Debug)]
pub struct Deflater(Compress);

impl Default for Deflater {
    fn default() -> Deflater {
        // The fastest level: batches are small, and a higher one costs several times as much for a tenth.
        Deflater(Compress::new(Compression::fast(), false))
    }
}

impl Deflater {
    /// The bytes compressed, or `None` where that would not make them a tenth smaller.
    pub fn deflate(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.0.reset();
        let mut out = Vec::new();
        out.reserve_exact(bytes.len() - bytes.len() / WORTH);
        // With all of the input and no room to grow it is either done at once or not worth it.
        match self.0.compress_vec(bytes, &mut out, FlushCompress::Finish) {
            Ok(Status::StreamEnd) => {
                out.shrink_to_fit();
                Some(out)
            }
            Ok(_) | Err(_) => None,
        }
    }
}

/// What [`Deflater::deflate`] was given; never more than `bytes_max` bytes of it are made.
///
/// # Errors
/// When the bytes are not what it makes, or would come to more.
pub fn inflate(deflated: &[u8], bytes_max: usize) -> Result<Vec<u8>, WireError> {
    const GUESS: usize = 4;
    let broken = || invalid("events", "are not compressed by deflate-raw");
    // One byte more than may come tells what is too much.
    let room_max = bytes_max.saturating_add(1);
    let mut inflater = Decompress::new(false);
    let mut out = Vec::new();
    out.reserve_exact(deflated.len().saturating_mul(GUESS).min(room_max));
    loop {
        let taken = usize::try_from(inflater.total_in()).map_err(|_| broken())?;
        let rest = deflated.get(taken..).unwrap_or_default();
        let status = inflater.decompress_vec(rest, &mut out, FlushDecompress::None);
        let status = status.map_err(|_| broken())?;
        if out.len() > bytes_max {
            let text = format!("have more than {bytes_max} bytes when they are inflated");
            return Err(invalid("events", &text));
        }
        if status == Status::StreamEnd {
            let is_whole = inflater.total_in() == deflated.len() as u64;
            return if is_whole { Ok(out) } else { Err(broken()) };
        }
        if out.len() < out.capacity() {
            // There was room, so it is the input that ended.
            return Err(broken());
        }
        out.reserve_exact(out.capacity().clamp(1, room_max - out.len()));
    }
}

/// Appends a frame's payload: `header` writes the batch without its events, `deflated` is its array.
pub fn encode(deflated: &[u8], out: &mut Vec<u8>, header: impl FnOnce(&mut Vec<u8>)) {
    out.push(COMPRESSED);
    let place = out.len()..out.len() + size_of::<u32>();
    out.extend_from_slice(&[0; size_of::<u32>()]);
    header(out);
    // A header has no events in it, and so never that many bytes.
    let len = u32::try_from(out.len() - place.end).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(place) {
        place.copy_from_slice(&len.to_le_bytes());
    }
    out.extend_from_slice(deflated);
}

/// Reads what [`encode`] has written, with the readers of an encoding for a message and for an array.
pub(super) fn decode(
    frame: &[u8],
    bytes_max: usize,
    message: impl FnOnce(&[u8]) -> Result<ServerMessage, WireError>,
    array: impl FnOnce(&[u8]) -> Result<Vec<Event>, WireError>,
) -> Result<Events, WireError> {
    let wrong = |text: &str| invalid("message", text);
    let Some((&COMPRESSED, rest)) = frame.split_first() else {
        return Err(wrong("does not begin with the byte 1, as a compressed batch does"));
    };
    let parts = rest.split_first_chunk().and_then(|(len, rest)| {
        rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)
    });
    let (header, deflated) = parts.ok_or_else(|| wrong("is shorter than its header"))?;
    match message(header)? {
        ServerMessage::Events(batch) if batch.events.is_empty() => {
            Ok(Events { events: array(&inflate(deflated, bytes_max)?)?, ..batch })
        }
        _ => Err(wrong("has a header that is no batch without events")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        Deflater::default().deflate(bytes).unwrap()
    }

    #[test]
    fn what_is_deflated_is_inflated_up_to_the_bound_and_not_a_byte_beyond() {
        let text = "tidings ".repeat(5000);
        let mut deflater = Deflater::default();
        for len in [64, 100, 1000, text.len()] {
            let bytes = &text.as_bytes()[..len];
            let deflated = deflater.deflate(bytes).unwrap();
            assert!(deflated.len() < len - len / WORTH + 1);
            assert_eq!(deflated, deflate(bytes), "what came before leaves no trace");
            assert_eq!(inflate(&deflated, len).unwrap(), bytes);
            assert_eq!(inflate(&deflated, usize::MAX).unwrap(), bytes);
            let error = inflate(&deflated, len - 1).unwrap_err();
            assert!(error.message.starts_with("events: have more than"), "{error}");
        }
    }

    #[test]
    fn little_that_becomes_much_is_refused_before_it_is_much() {
        let bomb = deflate(&vec![0; 64 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert!(inflate(&bomb, 1000).is_err());
    }

    #[test]
    fn what_does_not_get_smaller_stays_as_it_is() {
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        });
        let noise: Vec<u8> = noise.take(4096).collect();
        assert_eq!(Deflater::default().deflate(&noise), None);
        assert_eq!(Deflater::default().deflate(b""), None);
    }

    #[test]
    fn what_is_cut_or_has_more_behind_it_is_refused() {
        let bytes = "tidings ".repeat(100);
        let deflated = deflate(bytes.as_bytes());
        for cut in 0..deflated.len() {
            assert!(inflate(&deflated[..cut], 1 << 20).is_err(), "cut at {cut}");
        }
        assert!(inflate(&[&deflated[..], b"x"].concat(), 1 << 20).is_err());
    }
}
