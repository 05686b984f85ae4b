//! The stream as hyper has it: what hyper answers by itself goes out as a problem.
//!
//! hyper refuses a head that it cannot read with an answer that has no body, and lets nobody change it. While no request is
//! under way nothing else is written, so what begins as an answer then is one of those.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::StatusCode;
use tidings_proto::WireError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    problem::Refusal,
    progress::{Progress, Pulse},
    wire::Wire,
};

/// How an answer begins.
const BEGINS: &[u8] = b"HTTP/1.1 ";

/// A stream for hyper.
pub(super) struct Voice {
    stream: Wire<Progress>,
    pulse: Arc<Pulse>,
    /// What is written instead of hyper's answer, and how much of it is.
    instead: Option<(Vec<u8>, usize)>,
}

impl Voice {
    pub(super) fn new(stream: Wire<Progress>, pulse: Arc<Pulse>) -> Voice {
        Voice { stream, pulse, instead: None }
    }

    /// The stream alone: no HTTP is spoken any more.
    pub(super) fn into_inner(self) -> Wire<Progress> {
        self.stream
    }

    /// Writes what is to be written instead of these slices, where they are hyper's own; `None` where they are not.
    fn poll_instead(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Option<Poll<io::Result<usize>>> {
        if self.instead.is_none() {
            let status = status(slices.iter().find(|slice| !slice.is_empty())?)?;
            if !self.pulse.is_between_requests() {
                return None;
            }
            self.instead = Some((answer(status), 0));
        }
        let (instead, at) = self.instead.as_mut()?;
        while let Some(rest) = instead.get(*at..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Pending => return Some(Poll::Pending),
                Poll::Ready(Ok(written @ 1..)) => *at += written,
                Poll::Ready(Ok(_)) => {
                    return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
            }
        }
        // hyper's own counts as written.
        Some(Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum())))
    }
}

/// The status of an answer that begins here.
fn status(bytes: &[u8]) -> Option<StatusCode> {
    let rest = bytes.strip_prefix(BEGINS)?;
    StatusCode::from_bytes(rest.get(..3)?).ok().filter(StatusCode::is_client_error)
}

fn answer(status: StatusCode) -> Vec<u8> {
    let text = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "head: it is too large: send fewer headers, or shorter ones"
        }
        StatusCode::URI_TOO_LONG => "path: it is too long",
        _ => "head: it is no request of HTTP/1.1",
    };
    Refusal::with_status(status, WireError::invalid(text)).whole().into_bytes()
}

impl AsyncRead for Voice {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Voice {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.poll_instead(cx, &[io::IoSlice::new(bytes)]) {
            Some(written) => written,
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.poll_instead(cx, slices) {
            Some(written) => written,
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
