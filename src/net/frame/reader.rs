//! The [`Reader`]: messages from a stream.
//!
//! - It asks the stream only when all bytes before are decoded, and takes at most 32 KiB at a time.
//! - All state is in the reader, none in its futures.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::{Decoder, FrameError, Limits, Message, Role};

/// What one read takes from the stream at most; it lies on the stack.
const READ_BYTES: usize = 32 * 1024;

/// Reads messages from a stream, see the module's rules.
///
/// It does not watch the clock: a message that has begun ([`Reader::is_idle`] is false) wants a
/// deadline of the owner, who may drop the future of [`Reader::next`] any time and loses no byte.
#[derive(Debug)]
pub struct Reader<R> {
    stream: R,
    decoder: Decoder,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// A reader of `stream`, after `leftover`: the bytes that came along with the handshake.
    pub fn new(stream: R, role: Role, limits: Limits, leftover: &[u8]) -> Reader<R> {
        let mut decoder = Decoder::new(role, limits);
        decoder.push(leftover);
        Reader { stream, decoder }
    }

    /// What comes from here on has these limits.
    pub fn limit(&mut self, limits: Limits) {
        self.decoder.limit(limits);
    }

    /// The next message, or `None` at the end of the stream between messages. Cancel safe.
    ///
    /// # Errors
    /// The peer's violation (again on every further call), a stream cut inside a message, or a
    /// failed read.
    pub async fn next(&mut self) -> Result<Option<Message>, ReadError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next message of what has been read already; `None` when more is to be read.
    ///
    /// # Errors
    /// The peer's violation, as of [`Reader::next`].
    pub fn ready(&mut self) -> Result<Option<Message>, ReadError> {
        Ok(self.decoder.next()?)
    }

    /// [`Reader::next`] as a poll.
    ///
    /// # Errors
    /// Those of [`Reader::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, ReadError>> {
        if let Some(message) = self.decoder.next()? {
            return Poll::Ready(Ok(Some(message)));
        }
        loop {
            // The buffer lives in this call only: neither the future nor the reader grows by it.
            let mut buffer = [const { MaybeUninit::<u8>::uninit() }; READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let mut bytes = buffer.filled();
            if bytes.is_empty() {
                let clean = self.decoder.is_idle();
                return Poll::Ready(if clean { Ok(None) } else { Err(ReadError::Cut) });
            }
            // The decoder's own input is empty here, so the bytes need no stop in it.
            let message = self.decoder.decode(&mut bytes)?;
            self.decoder.push(bytes);
            if let Some(message) = message {
                return Poll::Ready(Ok(Some(message)));
            }
        }
    }

    /// Whether no message, frame or header has been received in part and none waits to be taken.
    pub fn is_idle(&self) -> bool {
        self.decoder.is_idle()
    }

    /// The heap memory held, in bytes; 0 while idle.
    pub fn held_bytes(&self) -> usize {
        self.decoder.held_bytes()
    }
}

/// The reader has nothing more to give.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The peer broke the protocol or a limit; the connection is of no more use for reading.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended inside a frame or between the fragments of a message.
    #[error("the connection was cut inside a message: reconnect and send it again")]
    Cut,
    /// The stream itself failed.
    #[error("cannot read from the connection: reconnect")]
    Io(#[from] io::Error),
}

impl ReadError {
    /// The close code to send, where the peer may still hear it.
    pub const fn close_code(&self) -> Option<u16> {
        match self {
            ReadError::Frame(error) => Some(error.close_code()),
            ReadError::Cut | ReadError::Io(_) => None,
        }
    }
}
