//! The [`Decoder`]: bytes of a peer in, messages out.
//!
//! - Header bytes are checked in their order, each group as soon as it is there.
//! - A whole message that arrives at once is copied once, into memory of its exact size.
//! - Ended, by a close or a violation, it holds no memory and takes none.

use std::mem;

use super::{
    CONTROL_BYTES_MAX, FrameError, Head, Limits, Message, Opcode, Payload, Role, apply_mask,
    may_be_sent,
};

/// Turns bytes into messages: [`Decoder::push`] what came, take with [`Decoder::next`].
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    limits: Limits,
    /// Bytes pushed; those before `input_at` are decoded. Empty whenever nothing is to be taken.
    input: Vec<u8>,
    input_at: usize,
    /// The header so far, while `frame` is none.
    head: Head,
    /// The frame whose payload is being received.
    frame: Option<Incoming>,
    /// The payload of a control frame so far.
    control: Vec<u8>,
    /// The message whose last frame has not ended.
    message: Option<Partial>,
    /// Set for good by the peer's close (`Ok`) or the first violation; all later bytes are ignored.
    ended: Option<Result<(), FrameError>>,
}

impl Decoder {
    /// A decoder that has seen nothing.
    pub fn new(role: Role, limits: Limits) -> Decoder {
        Decoder {
            role,
            limits,
            input: Vec::new(),
            input_at: 0,
            head: Head::default(),
            frame: None,
            control: Vec::new(),
            message: None,
            ended: None,
        }
    }

    /// What comes from here on has these limits.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Adds bytes from the peer. They stay until [`Decoder::next`] takes them: the caller bounds
    /// them by taking messages until there is none before it pushes more.
    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.ended.is_some() {
            return;
        }
        self.input.drain(..self.input_at);
        self.input_at = 0;
        self.input.extend_from_slice(bytes);
    }

    /// The next message, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// The peer's first violation, on this and every further call.
    #[expect(clippy::should_implement_trait, reason = "not an iterator: None means `push` more")]
    pub fn next(&mut self) -> Result<Option<Message>, FrameError> {
        let input = mem::take(&mut self.input);
        let at = mem::take(&mut self.input_at);
        let mut rest = input.get(at..).unwrap_or_default();
        let message = self.decode(&mut rest);
        if !rest.is_empty() {
            self.input_at = input.len() - rest.len();
            self.input = input;
        }
        message
    }

    /// Whether nothing is pending: no input, no part of a frame, no open message.
    pub fn is_idle(&self) -> bool {
        self.input.is_empty()
            && self.head.len == 0
            && self.frame.is_none()
            && self.message.is_none()
    }

    /// The heap memory held, in bytes; 0 while idle.
    pub fn held_bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |message| message.bytes.capacity());
        self.input.capacity() + self.control.capacity() + message
    }

    /// The next message from `input`, which loses what was decoded; all of it if none is complete.
    /// What was pushed comes first, so there must be none of it.
    pub(super) fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Message>, FrameError> {
        if let Some(ended) = self.ended {
            *input = &[];
            return ended.map(|()| None);
        }
        let message = self.advance(input);
        let ended = match &message {
            Err(error) => Some(Err(*error)),
            Ok(Some(Message::Close(_))) => Some(Ok(())),
            Ok(_) => None,
        };
        if ended.is_some() {
            // Free the memory, and leave no part of a frame that would make the end look unclean.
            *self = Decoder { ended, ..Decoder::new(self.role, self.limits) };
            *input = &[];
        }
        message
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Message>, FrameError> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.header(input)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            self.payload(&mut frame, input)?;
            if frame.left_bytes > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
            if let Some(message) = self.finish(&frame)? {
                return Ok(Some(message));
            }
        }
    }

    /// Takes header bytes; each group is checked as soon as it is there, in the order of the bytes.
    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, FrameError> {
        let Some(&[first, second]) = self.head.fill(2, input).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        let (opcode, fin) = self.check_start(first)?;
        self.check_mask(second)?;
        let short = usize::from(second & 0x7f);
        if opcode.is_control() && short > CONTROL_BYTES_MAX {
            return Err(FrameError::ControlTooLong);
        }
        let extended_bytes = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let bytes_max = self.limits.message_bytes_max;
        let Some(head) = self.head.fill(2 + extended_bytes, input) else { return Ok(None) };
        let left_bytes = match head.get(2..) {
            None | Some([]) => short,
            Some(extended) => check_length(extended, bytes_max)?,
        };
        if !opcode.is_control() {
            let before = self.message.as_ref().map_or(0, |message| message.bytes.len());
            if left_bytes > bytes_max.saturating_sub(before) {
                return Err(FrameError::TooBig(bytes_max));
            }
        }
        let mask = match self.role {
            Role::Client => [0; 4],
            Role::Server => {
                let head = self.head.fill(2 + extended_bytes + 4, input);
                match head.and_then(<[u8]>::last_chunk) {
                    Some(mask) => *mask,
                    None => return Ok(None),
                }
            }
        };
        self.head.len = 0;
        if !opcode.is_control() {
            self.message.get_or_insert_with(|| Partial::new(opcode)).fragments += 1;
        }
        Ok(Some(Incoming { opcode, fin, mask, left_bytes }))
    }

    fn check_start(&self, first: u8) -> Result<(Opcode, bool), FrameError> {
        if first & 0x70 != 0 {
            return Err(FrameError::ReservedBits);
        }
        let fin = first & 0x80 != 0;
        let opcode = Opcode::from_bits(first & 0x0f)?;
        match (opcode, &self.message) {
            (opcode, _) if opcode.is_control() && !fin => Err(FrameError::ControlFragmented),
            (Opcode::Continuation, None) => Err(FrameError::NothingToContinue),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(FrameError::StartInsideMessage),
            (Opcode::Continuation, Some(message))
                if message.fragments >= self.limits.fragments_max =>
            {
                Err(FrameError::TooManyFragments(self.limits.fragments_max))
            }
            _ => Ok((opcode, fin)),
        }
    }

    fn check_mask(&self, second: u8) -> Result<(), FrameError> {
        match (self.role, second & 0x80 != 0) {
            (Role::Server, false) => Err(FrameError::NotMasked),
            (Role::Client, true) => Err(FrameError::Masked),
            _ => Ok(()),
        }
    }

    /// Takes payload bytes of `frame`; unfinished text is checked at once, whole text in `finish`.
    fn payload(&mut self, frame: &mut Incoming, input: &mut &[u8]) -> Result<(), FrameError> {
        let (chunk, rest) = input.split_at(frame.left_bytes.min(input.len()));
        *input = rest;
        let Some(message) = self.message.as_mut().filter(|_| !frame.opcode.is_control()) else {
            let room_bytes = self.control.len() + frame.left_bytes;
            frame.append_to(&mut self.control, chunk, room_bytes);
            return Ok(());
        };
        // More frames may follow one that is not the last: room for just this one would be copied
        // again with each. The header was refused if the message could pass the limit.
        let room_bytes = if frame.fin {
            message.bytes.len() + frame.left_bytes
        } else {
            self.limits.message_bytes_max
        };
        frame.append_to(&mut message.bytes, chunk, room_bytes);
        let whole = frame.fin && frame.left_bytes == 0;
        if message.text && !whole { message.check_text() } else { Ok(()) }
    }

    /// What a frame makes whose payload is complete; `None` when its message goes on.
    fn finish(&mut self, frame: &Incoming) -> Result<Option<Message>, FrameError> {
        match frame.opcode {
            Opcode::Ping => Ok(Some(Message::Ping(self.take_control()))),
            Opcode::Pong => Ok(Some(Message::Pong(self.take_control()))),
            Opcode::Close => read_close(self.take_control().as_ref()).map(Some),
            _ if !frame.fin => Ok(None),
            _ => match self.message.take() {
                Some(message) if message.text => {
                    let text = String::from_utf8(message.bytes);
                    text.map(|text| Some(Message::Text(text))).map_err(|_| FrameError::NotUtf8)
                }
                message => Ok(message.map(|message| Message::Binary(message.bytes))),
            },
        }
    }

    fn take_control(&mut self) -> Payload {
        Payload(mem::take(&mut self.control).into_boxed_slice())
    }
}

/// A frame whose header is complete.
#[derive(Debug)]
struct Incoming {
    opcode: Opcode,
    fin: bool,
    /// The mask, turned so that its first byte belongs to the next payload byte.
    mask: [u8; 4],
    left_bytes: usize,
}

impl Incoming {
    /// Adds the next bytes of the payload to `buffer`, which grows to at most `room_bytes` and at
    /// most twice what it holds.
    fn append_to(&mut self, buffer: &mut Vec<u8>, chunk: &[u8], room_bytes: usize) {
        let (at, end) = (buffer.len(), buffer.len() + chunk.len());
        if buffer.capacity() < end {
            let capacity = (2 * buffer.capacity()).min(room_bytes).max(end);
            buffer.reserve_exact(capacity - at);
        }
        buffer.extend_from_slice(chunk);
        if self.mask != [0; 4] {
            apply_mask(buffer.get_mut(at..).unwrap_or_default(), self.mask);
            self.mask.rotate_left(chunk.len() % 4);
        }
        self.left_bytes -= chunk.len();
    }
}

/// A message that is not complete.
#[derive(Debug)]
struct Partial {
    text: bool,
    bytes: Vec<u8>,
    /// The bytes known to be UTF-8; after them stand at most 3 of a character that is not complete.
    checked_bytes: usize,
    fragments: u32,
}

impl Partial {
    fn new(opcode: Opcode) -> Partial {
        let text = opcode == Opcode::Text;
        Partial { text, bytes: Vec::new(), checked_bytes: 0, fragments: 0 }
    }

    fn check_text(&mut self) -> Result<(), FrameError> {
        let rest = self.bytes.get(self.checked_bytes..).unwrap_or_default();
        self.checked_bytes += match std::str::from_utf8(rest) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(FrameError::NotUtf8),
        };
        Ok(())
    }
}

/// The length in 2 or 8 bytes, as one of memory.
fn check_length(extended: &[u8], bytes_max: usize) -> Result<usize, FrameError> {
    let length = extended.iter().fold(0, |length: u64, byte| length << 8 | u64::from(*byte));
    if length >> 63 != 0 {
        return Err(FrameError::LengthTopBit);
    }
    let shortest = if extended.len() == 2 { 126 } else { 1 << 16 };
    if length < shortest {
        return Err(FrameError::LengthNotMinimal);
    }
    usize::try_from(length).map_err(|_| FrameError::TooBig(bytes_max))
}

fn read_close(body: &[u8]) -> Result<Message, FrameError> {
    match body {
        [] => Ok(Message::Close(None)),
        [_] => Err(FrameError::CloseTooShort),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(FrameError::CloseCode(code));
            }
            let reason = std::str::from_utf8(reason).map_err(|_| FrameError::NotUtf8)?;
            Ok(Message::Close(Some((code, reason.to_owned()))))
        }
    }
}
