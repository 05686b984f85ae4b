//! Frames to send: [`encode()`] for a payload at hand, [`OpenFrame`] for one written in place.
//!
//! - Every frame is a whole message in the shortest form of header; a mask only where one is given.
//! - Both append to a buffer, so that many frames can share one write.

use super::{CONTROL_BYTES_MAX, Head, Opcode, Payload, apply_mask, may_be_sent};

/// What to send: the types keep text UTF-8 and control frames short.
#[derive(Clone, Copy, Debug)]
pub enum Frame<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A request for a pong.
    Ping(&'a Payload),
    /// The answer to a ping.
    Pong(&'a Payload),
    /// The last frame: a code with a reason, of which at most 123 bytes are sent, cut between
    /// characters. A code that may not stand on the wire, such as 1005 or 1006, is sent as no code.
    Close(Option<(u16, &'a str)>),
}

/// Appends one frame to `out`: a header of 2, 4 or 10 bytes (and the mask), then the payload.
///
/// A server gives no `mask`, a client four fresh random bytes for each frame.
pub fn encode(frame: Frame<'_>, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let (opcode, code, payload) = match frame {
        Frame::Text(text) => (Opcode::Text, None, text.as_bytes()),
        Frame::Binary(bytes) => (Opcode::Binary, None, bytes),
        Frame::Ping(payload) => (Opcode::Ping, None, payload.as_ref()),
        Frame::Pong(payload) => (Opcode::Pong, None, payload.as_ref()),
        Frame::Close(Some((code, reason))) if may_be_sent(code) => {
            let reason = cut(reason, CONTROL_BYTES_MAX - 2);
            (Opcode::Close, Some(code.to_be_bytes()), reason.as_bytes())
        }
        Frame::Close(_) => (Opcode::Close, None, &[][..]),
    };
    let code = code.as_ref().map_or(&[][..], |code| code);
    let head = Head::of(opcode, code.len() + payload.len(), mask);
    out.reserve(head.as_slice().len() + code.len() + payload.len());
    out.extend_from_slice(head.as_slice());
    let payload_at = out.len();
    out.extend_from_slice(code);
    out.extend_from_slice(payload);
    mask_from(out, payload_at, mask);
}

/// A text or binary frame whose payload is written straight into the output, behind room for a
/// header.
///
/// The room is for the 4-byte header of payloads from 126 bytes to 64 KiB, where batches lie: these
/// are not moved when the header is set. A shorter payload moves down by 2 bytes, a longer up by 6.
#[derive(Debug)]
#[must_use = "the frame has no header until it is finished"]
pub struct OpenFrame {
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    start: usize,
    payload_at: usize,
}

impl OpenFrame {
    /// Begins a text frame at the end of `out`. What is appended to `out` must be UTF-8.
    pub fn text(mask: Option<[u8; 4]>, out: &mut Vec<u8>) -> OpenFrame {
        OpenFrame::begin(Opcode::Text, mask, out)
    }

    /// Begins a binary frame at the end of `out`.
    pub fn binary(mask: Option<[u8; 4]>, out: &mut Vec<u8>) -> OpenFrame {
        OpenFrame::begin(Opcode::Binary, mask, out)
    }

    fn begin(opcode: Opcode, mask: Option<[u8; 4]>, out: &mut Vec<u8>) -> OpenFrame {
        let start = out.len();
        let payload_at = start + 4 + mask.map_or(0, |mask| mask.len());
        out.resize(payload_at, 0);
        OpenFrame { opcode, mask, start, payload_at }
    }

    /// The payload written so far, in bytes.
    pub fn payload_bytes(&self, out: &[u8]) -> usize {
        out.len().saturating_sub(self.payload_at)
    }

    /// Sets the header: all of `out` since the beginning is the payload.
    pub fn finish(self, out: &mut Vec<u8>) {
        debug_assert!(out.len() >= self.payload_at, "the output was cut inside an open frame");
        debug_assert!(
            self.opcode != Opcode::Text
                || out.get(self.payload_at..).is_some_and(|text| std::str::from_utf8(text).is_ok()),
            "a text frame was filled with what is not UTF-8"
        );
        let head = Head::of(self.opcode, self.payload_bytes(out), self.mask);
        mask_from(out, self.payload_at, self.mask);
        let room = self.start.min(out.len())..self.payload_at.min(out.len());
        out.splice(room, head.as_slice().iter().copied());
    }

    /// Takes the frame and what was written of it back out of `out`.
    pub fn abandon(self, out: &mut Vec<u8>) {
        out.truncate(self.start);
    }
}

fn mask_from(out: &mut [u8], at: usize, mask: Option<[u8; 4]>) {
    if let (Some(mask), Some(payload)) = (mask, out.get_mut(at..)) {
        apply_mask(payload, mask);
    }
}

/// The longest beginning of `text` of at most `bytes_max` bytes that ends between characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    let ends = (0..=bytes_max.min(text.len())).rev();
    ends.into_iter().find_map(|end| text.get(..end)).unwrap_or_default()
}
