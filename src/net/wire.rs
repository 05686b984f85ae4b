//! The stream of a connection: plain TCP, or TLS over it.
//!
//! - Plain, a socket's halves are TCP's own: no lock, no copy, nothing held while idle.
//! - What is written over TLS may wait encrypted in memory: whoever writes flushes.
//! - Under TLS lies [`Progress`], also for a socket: only there it shows that a byte has moved.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_rustls::TlsStream;

use super::progress::Progress;

/// A stream `S`, as it is or under TLS.
#[derive(Debug)]
pub enum Wire<S> {
    /// As it is.
    Plain(S),
    /// Under TLS.
    Tls(Box<TlsStream<S>>),
}

/// The reading half of a socket.
#[derive(Debug)]
pub enum ReadHalf {
    /// Of TCP.
    Plain(OwnedReadHalf),
    /// Of TLS.
    Tls(tokio::io::ReadHalf<TlsStream<Progress>>),
}

/// The writing half of a socket.
#[derive(Debug)]
pub enum WriteHalf {
    /// Of TCP.
    Plain(OwnedWriteHalf),
    /// Of TLS.
    Tls(tokio::io::WriteHalf<TlsStream<Progress>>),
}

impl Wire<Progress> {
    /// The TCP stream at the bottom.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream.tcp(),
            Wire::Tls(stream) => stream.get_ref().0.tcp(),
        }
    }

    /// Both halves, for one task: under TLS they share a lock. The plain ones watch over nothing.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Wire::Plain(stream) => {
                let (read, write) = stream.into_inner().into_split();
                (ReadHalf::Plain(read), WriteHalf::Plain(write))
            }
            Wire::Tls(stream) => {
                let (read, write) = tokio::io::split(*stream);
                (ReadHalf::Tls(read), WriteHalf::Tls(write))
            }
        }
    }
}

impl WriteHalf {
    /// Writes what is taken without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing is taken now, or why it failed.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            WriteHalf::Plain(stream) => stream.try_write(bytes),
            WriteHalf::Tls(stream) => {
                // Nobody is to be woken: whoever writes flushes, and waits for that.
                let mut context = Context::from_waker(Waker::noop());
                match Pin::new(stream).poll_write(&mut context, bytes) {
                    Poll::Ready(written) => written,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }
}

/// Does the same with either stream.
macro_rules! either {
    ($of:ident, $self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            $of::Plain($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            $of::Tls($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
        }
    };
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(Wire, self, stream => stream.poll_read(cx, buffer))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(Wire, self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(Wire, self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(Wire, self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(Wire, self, stream => stream.poll_shutdown(cx))
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(ReadHalf, self, stream => stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(WriteHalf, self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(WriteHalf, self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(WriteHalf, self, stream => stream.poll_shutdown(cx))
    }
}
