//! A connection that cannot be held for ever: [`Progress`] bounds its writes, [`Pulse`] its
//! requests.
//!
//! - A write that has moved no byte for the write timeout fails; any byte moved starts the time
//!   anew.
//! - Nothing is allocated and no timer runs while the peer takes what is written.
//! - A connection is in one of four phases, and [`Pulse`] says since when:
//!
//! ```text
//! Head ── request complete ──▶ Busy ── response handed over ──▶ Sending ── all written ──▶ Idle
//!   ▲                                                                                      │
//!   └──────────────────────────────────────── a byte ──────────────────────────────────────┘
//! ```
//! - An answer that closes the connection while its request is still coming is not cut by that: what comes is taken
//!   and thrown away for a while, since a reset would take the answer with it.
//! - While `Sending`, every byte written starts the time anew: who reads slowly is not idle. A
//!   next request that begins meanwhile has its time from the end of the answer on.

use std::{
    future::Future,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::Sleep,
};

use crate::{clock, session::outputs::Taker};

/// How long what the peer still sends is taken after the last answer.
const LINGER: Duration = Duration::from_secs(2);
/// How much of it, in bytes.
const LINGER_BYTES: usize = 16 << 20;
/// How much of that is taken at a time; it lies on the stack.
const LINGER_READ_BYTES: usize = 8 * 1024;

/// A TCP stream whose writes fail when the peer has stopped reading.
#[derive(Debug)]
pub struct Progress {
    stream: TcpStream,
    write_timeout: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Set once our end is closed.
    linger: Option<Box<Linger>>,
    pulse: Arc<Pulse>,
}

/// How long and how much is still taken behind an answer that closes the connection.
#[derive(Debug)]
struct Linger {
    until: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl Progress {
    /// Wraps a stream; what is read and written is noted in `pulse`.
    pub fn new(stream: TcpStream, write_timeout: Duration, pulse: Arc<Pulse>) -> Progress {
        Progress { stream, write_timeout, stalled: None, linger: None, pulse }
    }

    /// The TCP stream under it.
    pub fn tcp(&self) -> &TcpStream {
        &self.stream
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
            if let Poll::Ready(Ok(bytes @ 1..)) = written {
                self.pulse.moved(bytes);
            }
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(stalled.as_mut().poll(cx));
        let text = "the peer has taken no byte within the write timeout";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl Progress {
    /// Throws away what comes, until the peer has closed too, or long enough.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(linger) = &mut self.linger else { return Poll::Ready(Ok(())) };
        while linger.bytes_left > 0 && linger.until.as_mut().poll(cx).is_pending() {
            let mut buffer = [const { MaybeUninit::<u8>::uninit() }; LINGER_READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            // However it ends: there is nobody left to be told.
            if ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)).is_err()
                || buffer.filled().is_empty()
            {
                break;
            }
            linger.bytes_left = linger.bytes_left.saturating_sub(buffer.filled().len());
        }
        Poll::Ready(Ok(()))
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
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // hyper flushes the stream only once its own buffer is empty.
        self.pulse.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.pulse.lingers() {
                return Poll::Ready(Ok(()));
            }
            let until = Box::pin(tokio::time::sleep(LINGER));
            self.linger = Some(Box::new(Linger { until, bytes_left: LINGER_BYTES }));
        }
        self.linger(cx)
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The head of a request is awaited: the connection is new, or some of it has come.
    Head,
    /// A request is being answered.
    Busy,
    /// The answer is complete, but not all of it is written; since its last byte that was.
    Sending,
    /// Between two requests.
    Idle,
}

/// The phase of a connection and since when it has been in it.
#[derive(Debug)]
pub struct Pulse(Mutex<State>);

#[derive(Debug)]
struct State {
    phase: Phase,
    since_ms: u64,
    /// While sending: a byte of a next request has come.
    heard: bool,
    /// The answer that is sent is the last of the connection.
    is_last: bool,
    /// The room that the answer takes until all of it is written.
    room: Option<OwnedSemaphorePermit>,
    /// When the answer that is made may not go on.
    over: Option<Over>,
}

/// Ready when an answer may not go on.
pub struct Over {
    ending: Pin<Box<dyn Future<Output = ()> + Send>>,
    taker: Arc<Taker>,
}

impl Over {
    /// When this is, or somebody needs the place of what `taker` takes too slowly.
    pub fn when(over: impl Future<Output = ()> + Send + 'static, taker: Arc<Taker>) -> Over {
        let its = taker.clone();
        let ending = Box::pin(async move {
            tokio::select! {
                () = over => {}
                () = its.is_cut() => {}
            }
        });
        Over { ending, taker }
    }
}

impl std::fmt::Debug for Over {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Over")
    }
}

impl State {
    fn new(phase: Phase) -> State {
        let since_ms = clock::monotonic_ms();
        State { phase, since_ms, heard: false, is_last: false, room: None, over: None }
    }
}

impl Pulse {
    /// A connection that was just accepted: a head is awaited.
    pub fn new() -> Arc<Pulse> {
        Arc::new(Pulse(Mutex::new(State::new(Phase::Head))))
    }

    /// The phase and for how long.
    pub fn phase(&self) -> (Phase, Duration) {
        let state = self.0.lock();
        let for_ms = clock::monotonic_ms().saturating_sub(state.since_ms);
        (state.phase, Duration::from_millis(for_ms))
    }

    /// A head is awaited from here on.
    pub fn begins(&self) {
        self.enter(Phase::Head);
    }

    /// A request is complete enough to be answered; it is over when the guard is dropped.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.enter(Phase::Busy);
        Busy(self.clone())
    }

    /// The answer that is made is the last: the connection closes behind it, whatever still comes.
    pub fn closes(&self) {
        self.0.lock().is_last = true;
    }

    /// The answer that is made has this room; it is free again when the last byte is written, or the connection gone.
    pub fn takes(&self, room: OwnedSemaphorePermit) {
        self.0.lock().room = Some(room);
    }

    /// The answer that is being made may go on until then.
    pub fn lasts(&self, over: Over) {
        self.0.lock().over = Some(over);
    }

    /// Ready when the answer that is being made may not go on. To be polled anew once that is said.
    pub fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0.lock().over {
            Some(over) => over.ending.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// Whether no request is under way, and no answer.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.0.lock().phase, Phase::Head | Phase::Idle)
    }

    /// Whether something may still come when our end is closed: behind a last answer, or a head that was refused.
    fn lingers(&self) -> bool {
        let state = self.0.lock();
        state.is_last || state.phase == Phase::Head
    }

    /// A byte was read.
    fn heard(&self) {
        let mut state = self.0.lock();
        match state.phase {
            Phase::Idle => *state = State::new(Phase::Head),
            Phase::Sending => state.heard = true,
            Phase::Head | Phase::Busy => {}
        }
    }

    /// So many bytes were written.
    fn moved(&self, bytes: usize) {
        let mut state = self.0.lock();
        if let Some(over) = &state.over {
            over.taker.took(bytes);
        }
        if state.phase == Phase::Sending {
            state.since_ms = clock::monotonic_ms();
        }
    }

    /// Everything was written.
    fn flushed(&self) {
        let mut state = self.0.lock();
        if state.phase == Phase::Sending {
            let phase = if state.heard { Phase::Head } else { Phase::Idle };
            *state = State { is_last: state.is_last, ..State::new(phase) };
        }
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.0.lock();
        *state = State { is_last: state.is_last, room: state.room.take(), ..State::new(phase) };
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Busy(Arc<Pulse>);

impl Drop for Busy {
    fn drop(&mut self) {
        // hyper drops a body once it has buffered it, which is long before a slow peer has it.
        self.0.enter(Phase::Sending);
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
        assert_eq!(pulse.phase().0, Phase::Sending);
        progress.flush().await.unwrap();
        assert_eq!(pulse.phase().0, Phase::Idle);
        peer.write_all(b"x").await.unwrap();
        progress.read_u8().await.unwrap();
        assert_eq!(pulse.phase().0, Phase::Head);
    }

    #[tokio::test]
    async fn a_head_that_comes_while_an_answer_is_sent_has_its_time_from_the_end_of_that() {
        const WAIT: Duration = Duration::from_millis(300);
        let (mut progress, mut peer) = pair(Duration::from_secs(1)).await;
        let pulse = progress.pulse.clone();
        drop(pulse.busy());
        peer.write_all(b"x").await.unwrap();
        progress.read_u8().await.unwrap();
        tokio::time::sleep(WAIT).await;
        assert!(pulse.phase().1 >= WAIT);
        progress.write_all(b"x").await.unwrap();
        let (phase, since) = pulse.phase();
        assert!(phase == Phase::Sending && since < WAIT, "{phase:?} {since:?}");
        tokio::time::sleep(WAIT).await;
        progress.flush().await.unwrap();
        let (phase, since) = pulse.phase();
        assert!(phase == Phase::Head && since < WAIT, "{phase:?} {since:?}");
    }

    /// A body that ends its request when it is dropped, as the broker's does.
    struct Guarded(http_body_util::Full<bytes::Bytes>, #[expect(dead_code)] Busy);

    impl hyper::body::Body for Guarded {
        type Data = bytes::Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, Self::Error>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_end_stream()
        }

        fn size_hint(&self) -> hyper::body::SizeHint {
            self.0.size_hint()
        }
    }

    #[tokio::test]
    async fn an_answer_of_hyper_is_being_sent_until_its_last_byte_is_written() {
        const BYTES: usize = 16 << 20;
        let (progress, mut peer) = pair(Duration::from_secs(60)).await;
        let pulse = progress.pulse.clone();
        let service_pulse = pulse.clone();
        let service = hyper::service::service_fn(move |_| {
            let body = http_body_util::Full::from(vec![b'x'; BYTES]);
            let body = Guarded(body, service_pulse.busy());
            async move { Ok::<_, std::convert::Infallible>(hyper::Response::new(body)) }
        });
        let io = hyper_util::rt::TokioIo::new(progress);
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        peer.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let (mut taken, mut buffer) = (0, vec![0; 1 << 16]);
        while taken < BYTES / 4 {
            taken += peer.read(&mut buffer).await.unwrap();
        }
        assert_eq!(pulse.phase().0, Phase::Sending, "there is more than the kernel takes");
        peer.write_all(b"GET / HT").await.unwrap();
        while taken < BYTES {
            taken += peer.read(&mut buffer).await.unwrap();
        }
        while pulse.phase().0 == Phase::Sending {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(pulse.phase().0, Phase::Head, "half a head has come");
    }
}
