//! A connection that cannot be held for ever: [`Progress`] bounds its writes, [`Pulse`] its
//! requests.
//!
//! - A write that has moved no byte for the write timeout fails; any byte moved starts the time
//!   anew.
//! - Nothing is allocated and no timer runs while the peer takes what is written.
//! - A connection is in one of three phases, and [`Pulse`] says since when:
//!
//! ```text
//! Head ── request complete ──▶ Busy ── response handed over ──▶ Idle ── a byte ──▶ Head
//! ```

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

use crate::clock;

/// A TCP stream whose writes fail when the peer has stopped reading.
#[derive(Debug)]
pub struct Progress {
    stream: TcpStream,
    write_timeout: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    pulse: Arc<Pulse>,
}

impl Progress {
    /// Wraps a stream; bytes read are noted in `pulse`.
    pub fn new(stream: TcpStream, write_timeout: Duration, pulse: Arc<Pulse>) -> Progress {
        Progress { stream, write_timeout, stalled: None, pulse }
    }

    /// The stream alone, for an owner that watches over it itself.
    pub fn into_inner(self) -> TcpStream {
        self.stream
    }

    fn watch(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(stalled.as_mut().poll(cx));
        let text = "the peer has taken no byte within the write timeout";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl AsyncRead for Progress {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.pulse.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Progress {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(written, cx)
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

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The head of a request is awaited: the connection is new, or some of it has come.
    Head,
    /// A request is being answered.
    Busy,
    /// Between two requests.
    Idle,
}

/// The phase of a connection and since when it has been in it.
#[derive(Debug)]
pub struct Pulse(Mutex<(Phase, u64)>);

impl Pulse {
    /// A connection that was just accepted: a head is awaited.
    pub fn new() -> Arc<Pulse> {
        Arc::new(Pulse(Mutex::new((Phase::Head, clock::monotonic_ms()))))
    }

    /// The phase and for how long.
    pub fn phase(&self) -> (Phase, Duration) {
        let (phase, since_ms) = *self.0.lock();
        (phase, Duration::from_millis(clock::monotonic_ms().saturating_sub(since_ms)))
    }

    /// A request is complete enough to be answered; it is over when the guard is dropped.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.enter(Phase::Busy);
        Busy(self.clone())
    }

    fn heard(&self) {
        let mut state = self.0.lock();
        if state.0 == Phase::Idle {
            *state = (Phase::Head, clock::monotonic_ms());
        }
    }

    fn enter(&self, phase: Phase) {
        *self.0.lock() = (phase, clock::monotonic_ms());
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Busy(Arc<Pulse>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpListener};

    use super::*;

    async fn pair(write_timeout: Duration) -> (Progress, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (Progress::new(stream, write_timeout, Pulse::new()), peer)
    }

    #[tokio::test]
    async fn a_write_that_moves_nothing_fails() {
        let (mut progress, _peer) = pair(Duration::from_millis(50)).await;
        let chunk = vec![0; 1 << 20];
        let error = loop {
            if let Err(error) = progress.write_all(&chunk).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_slow_reader_that_takes_something_is_kept() {
        let (mut progress, mut peer) = pair(Duration::from_millis(300)).await;
        let reading = tokio::spawn(async move {
            let (mut taken, mut buffer) = (0, vec![0; 1 << 20]);
            while let Ok(n @ 1..) = peer.read(&mut buffer).await {
                taken += n;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            taken
        });
        let chunk = vec![0; 16 << 20];
        progress.write_all(&chunk).await.unwrap();
        drop(progress);
        assert_eq!(reading.await.unwrap(), chunk.len());
    }

    #[tokio::test]
    async fn the_phases_follow_each_other() {
        let (mut progress, mut peer) = pair(Duration::from_secs(1)).await;
        let pulse = progress.pulse.clone();
        assert_eq!(pulse.phase().0, Phase::Head);
        let busy = pulse.busy();
        peer.write_all(b"x").await.unwrap();
        progress.read_u8().await.unwrap();
        assert_eq!(pulse.phase().0, Phase::Busy, "the body of a request is part of it");
        drop(busy);
        assert_eq!(pulse.phase().0, Phase::Idle);
        peer.write_all(b"x").await.unwrap();
        progress.read_u8().await.unwrap();
        assert_eq!(pulse.phase().0, Phase::Head);
    }
}
