//! WebSocket frames (RFC 6455 §5): [`Decoder`], [`encode()`] without I/O, [`Reader`] for streams.
//!
//! - Cancel safe: every byte taken from the stream is kept in the reader; drop its futures freely.
//! - An idle reader holds no heap memory. A busy one holds at most twice the bytes it has received,
//!   and never memory for bytes that a header merely claims.
//! - A message is bounded in bytes and in fragments ([`Limits`]), a control frame by the protocol.
//! - The first violation ends the stream: the same [`FrameError`] comes again ever after, with the
//!   close code to send. Which error it is does not depend on how the bytes were cut.
//! - Nothing is answered here: pings and closes are delivered, at once also between fragments.
//! - Text is UTF-8, checked as it arrives; a fault fails the message before its end.
//! - After the peer's close, all that follows is read and thrown away until the stream ends.
//!
//! ```text
//! +---------------------+--------------------+-----------------+-----------+---------+
//! | fin 1 · rsv 3 · op 4| mask 1 · length 7  | length 0/2/8 B  | mask 0/4 B| payload |
//! +---------------------+--------------------+-----------------+-----------+---------+
//! length 126: the next 2 bytes say it; 127: the next 8; big-endian, in the shortest form
//! ```

mod decode;
mod encode;
mod reader;
#[cfg(test)]
mod tests;

pub use decode::Decoder;
pub use encode::{Frame, OpenFrame, encode};
pub use reader::{ReadError, Reader};

/// The most bytes the payload of a ping, pong or close may have (RFC 6455 §5.5).
pub const CONTROL_BYTES_MAX: usize = 125;
/// The most frames one message may be cut into, unless said otherwise in [`Limits`].
pub const FRAGMENTS_MAX: u32 = 1024;
/// The longest header: 2 bytes, 8 of length, 4 of mask.
const HEADER_BYTES_MAX: usize = 14;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The broker: frames that come in must be masked.
    Server,
    /// A client: frames that come in must not be masked.
    Client,
}

/// What a message may cost before it ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes a text or binary message may have over all its fragments; more is 1009.
    pub message_bytes_max: usize,
    /// The most frames it may come in, empty ones counted; more is 1008.
    pub fragments_max: u32,
}

impl Limits {
    /// Messages of at most this many bytes in at most [`FRAGMENTS_MAX`] fragments.
    pub const fn of_bytes(message_bytes_max: usize) -> Limits {
        Limits { message_bytes_max, fragments_max: FRAGMENTS_MAX }
    }
}

/// A whole message, or a control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A text message, all fragments joined.
    Text(String),
    /// A binary message, all fragments joined.
    Binary(Vec<u8>),
    /// The peer wants a pong with the same payload.
    Ping(Payload),
    /// The answer to a ping, or sent unasked as a sign of life.
    Pong(Payload),
    /// The peer's last frame: code and reason, where it gave any. The code may be echoed.
    Close(Option<(u16, String)>),
}

/// The payload of a ping or pong: at most [`CONTROL_BYTES_MAX`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload(Box<[u8]>);

impl Payload {
    /// These bytes as a payload, or `None` when there are more than [`CONTROL_BYTES_MAX`].
    pub fn new(bytes: &[u8]) -> Option<Payload> {
        (bytes.len() <= CONTROL_BYTES_MAX).then(|| Payload(bytes.into()))
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The peer broke the protocol or a limit: send a close with [`FrameError::close_code`], hang up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// One of the three reserved bits is set.
    #[error("a frame has a reserved bit set: send without extensions, such as permessage-deflate")]
    ReservedBits,
    /// The opcode is none of 0, 1, 2, 8, 9, 10.
    #[error("the frame opcode {0} is unknown: send text, binary, ping, pong or close")]
    UnknownOpcode(u8),
    /// A ping, pong or close without the final bit.
    #[error("a control frame is fragmented: send it in one frame")]
    ControlFragmented,
    /// A ping, pong or close of more than [`CONTROL_BYTES_MAX`] bytes.
    #[error("a control frame has more than 125 bytes: shorten it")]
    ControlTooLong,
    /// A continuation frame while no message is open.
    #[error("a continuation frame belongs to no message: begin with a text or binary frame")]
    NothingToContinue,
    /// A text or binary frame while a message is open.
    #[error("a new message begins inside a fragmented one: finish that one first")]
    StartInsideMessage,
    /// A client's frame without a mask.
    #[error("a client's frame is not masked: mask every frame")]
    NotMasked,
    /// A server's frame with a mask.
    #[error("a server's frame is masked: send frames without a mask")]
    Masked,
    /// A 64-bit length with the top bit set.
    #[error("a frame length has its top bit set: lengths are at most 2^63 - 1")]
    LengthTopBit,
    /// A length in more bytes than it needs (RFC 6455 §5.2 wants the fewest).
    #[error("a frame length is not in its shortest form: use the fewest bytes")]
    LengthNotMinimal,
    /// A close of one byte.
    #[error("a close frame has one byte: send none, or a code of two bytes and a reason")]
    CloseTooShort,
    /// A close with a code that may not stand on the wire.
    #[error("the close code {0} may not be sent: use 1000 to 1003, 1007 to 1014 or 3000 to 4999")]
    CloseCode(u16),
    /// Text, or the reason of a close, is not UTF-8.
    #[error("text is not valid UTF-8: send other bytes as a binary message")]
    NotUtf8,
    /// The message would have more bytes than [`Limits::message_bytes_max`].
    #[error("the message has more than {0} bytes: send smaller ones")]
    TooBig(usize),
    /// The message has more frames than [`Limits::fragments_max`].
    #[error("the message comes in more than {0} fragments: send larger ones")]
    TooManyFragments(u32),
}

impl FrameError {
    /// The close code that tells the peer (RFC 6455 §7.4.1): 1002, 1007, 1008 or 1009.
    pub const fn close_code(self) -> u16 {
        match self {
            FrameError::NotUtf8 => 1007,
            FrameError::TooManyFragments(_) => 1008,
            FrameError::TooBig(_) => 1009,
            _ => 1002,
        }
    }
}

/// Whether a close code may stand on the wire: RFC 6455 §7.4, and 1012 to 1014 of IANA's registry.
const fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The frame types of RFC 6455 §5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Result<Opcode, FrameError> {
        match bits {
            0 => Ok(Opcode::Continuation),
            1 => Ok(Opcode::Text),
            2 => Ok(Opcode::Binary),
            8 => Ok(Opcode::Close),
            9 => Ok(Opcode::Ping),
            10 => Ok(Opcode::Pong),
            other => Err(FrameError::UnknownOpcode(other)),
        }
    }

    const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// A frame header, whole or in part.
#[derive(Debug, Default)]
struct Head {
    bytes: [u8; HEADER_BYTES_MAX],
    len: usize,
}

impl Head {
    /// The header of an unfragmented frame.
    fn of(opcode: Opcode, payload_bytes: usize, mask: Option<[u8; 4]>) -> Head {
        let masked = if mask.is_some() { 0x80 } else { 0 };
        let mut head = Head::default();
        head.push(&[0x80 | opcode as u8]);
        match (u8::try_from(payload_bytes), u16::try_from(payload_bytes)) {
            (Ok(short @ ..=125), _) => head.push(&[masked | short]),
            (_, Ok(medium)) => {
                head.push(&[masked | 126]);
                head.push(&medium.to_be_bytes());
            }
            _ => {
                head.push(&[masked | 127]);
                head.push(&(payload_bytes as u64).to_be_bytes());
            }
        }
        head.push(mask.as_ref().map_or(&[], |mask| mask));
        head
    }

    fn push(&mut self, bytes: &[u8]) {
        for (slot, byte) in self.bytes.iter_mut().skip(self.len).zip(bytes) {
            *slot = *byte;
            self.len += 1;
        }
    }

    /// Takes bytes from `input` until there are `bytes`; these, or `None` when `input` ran out.
    fn fill(&mut self, bytes: usize, input: &mut &[u8]) -> Option<&[u8]> {
        let (taken, rest) = input.split_at(bytes.saturating_sub(self.len).min(input.len()));
        self.push(taken);
        *input = rest;
        self.bytes.get(..bytes).filter(|_| self.len >= bytes)
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Masks or unmasks: both are the same XOR. Eight bytes a step, which the compiler widens further.
fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for eight in words {
        *eight = (u64::from_ne_bytes(*eight) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}
