//! One socket: bytes in, messages to the session; messages of the outbox, bytes out.
//!
//! - One task, two futures (reader and writer) that live as long as the socket and are never dropped half-way.
//!   What they own is boxed and what seldom runs too: a future keeps room for the largest it ever waits for.
//! - The reader holds no buffer while idle; the writer gives a large one back.
//! - A slow socket stays in the writer's write: its cursors lag, nothing accumulates but the kernel's buffer,
//!   which is bounded. Any byte taken within the write timeout keeps it alive; else the connection is cut.
//! - While nothing waits to be written, two ping intervals without a whole message end the socket.
//! - A message that has begun has a time to come whole, see `begun`, and a share of the room that there is for such.

mod begun;

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tidings_proto::{SubscribeOptions, message::Push};
use tokio::{io::AsyncWriteExt, sync::OwnedSemaphorePermit};

use self::begun::Begun;
use super::{
    frame::{self, Frame, Limits, Message, OpenFrame, Payload, ReadError, Reader, Role},
    progress::Progress,
    wire::{ReadHalf, Wire, WriteHalf},
};
use crate::{
    clock, metrics,
    session::{
        Greeting, House, Ready, Transport, answers,
        conversation::{CLOSE_UNAUTHENTICATED, Conversation, Proof, Verdict},
        encoding::Encoding,
        guests::Guest,
        outbox::{Filled, Frames, Outbox},
        outputs::Taker,
    },
};

/// An output buffer larger than this is given back after use.
const KEEP_BYTES: usize = 16 * 1024;
/// What a message may have before somebody is let in where a token is needed: it says no more than that.
const STRANGER_BYTES_MAX: usize = 64 * 1024;
/// How long the close handshake may take.
const CLOSE_WAIT: Duration = Duration::from_millis(1500);

const CLOSE_NORMAL: u16 = 1000;
const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_UNSUPPORTED: u16 = 1003;
const CLOSE_NO_ROOM: u16 = 1013;
const CLOSE_LATE: u16 = 4408;

/// A socket right after its handshake.
pub struct Start {
    /// The connection.
    pub stream: Wire<Progress>,
    /// What came behind the handshake.
    pub leftover: Bytes,
    /// What everybody shares.
    pub house: Arc<House>,
    /// What the upgrade request showed.
    pub proof: Option<Proof>,
    /// How its messages are written.
    pub encoding: Encoding,
    /// What to subscribe by itself (`/v1/ws/{filter}`).
    pub subscribe: Option<Box<SubscribeOptions>>,
    /// Who it is, as far as limits go.
    pub guest: Arc<Guest>,
    /// Its connection's place under the cap, which it keeps until it has ended.
    pub place: Arc<OwnedSemaphorePermit>,
}

/// What the reader gives.
type Read = Result<Option<Message>, ReadError>;

/// What a message leads to: how it goes on, or ends.
type Reaction = Result<Verdict, Ending>;

/// How a socket ends: the close code and reason to send, or nothing when the peer has gone.
type Ending = Option<(u16, String)>;

/// What reader and writer share.
struct Shared {
    ending: Mutex<Ending>,
    /// When the peer was last heard of, in monotonic milliseconds.
    heard_ms: AtomicU64,
    /// When the last ping went out that no pong has answered, in monotonic microseconds; 0 for none.
    pinged_us: AtomicU64,
}

impl Shared {
    /// A pong has come. Which ping it answers is not asked: one is out at a time.
    fn ponged(&self) {
        let pinged_us = self.pinged_us.swap(0, Ordering::Relaxed);
        if pinged_us > 0 {
            let pinged = Duration::from_micros(pinged_us);
            metrics::ponged(clock::monotonic().saturating_sub(pinged));
        }
    }
}

/// Serves the socket until it ends. What is needed at the start alone is no part of the future.
pub fn run(start: Start) -> impl Future<Output = ()> + Send {
    let Start { stream, leftover, house, proof, encoding, subscribe, guest, place } = start;
    let (input, output) = stream.split();
    let message_bytes_max = house.limits.message_bytes_max;
    let limits = Limits::of_bytes(match house.needs_token() {
        true => message_bytes_max.min(STRANGER_BYTES_MAX),
        false => message_bytes_max,
    });
    let last_words = house.limits.write_timeout + CLOSE_WAIT;
    let (answers, queue) = answers::channel(house.answers.clone());
    let ready = Ready::new();
    let shared = Arc::new(Shared {
        ending: Mutex::new(None),
        heard_ms: AtomicU64::new(clock::monotonic_ms()),
        pinged_us: AtomicU64::new(0),
    });
    let greeting = Greeting::new(house.clone(), Transport::WebSocket, guest).speaking(encoding);
    let ears = Box::new(Ears {
        reader: Reader::new(input, Role::Server, limits, &leftover),
        begun: None,
        is_stranger: house.needs_token(),
        conversation: Conversation::new(greeting, answers, ready.clone(), subscribe),
        encoding,
        house: house.clone(),
        shared: shared.clone(),
    });
    let mouth = Box::new(Mouth {
        output,
        outbox: Outbox::new(queue, ready, house.clone(), encoding),
        house,
        shared,
        buffer: Buffer { bytes: Vec::new(), encoding },
        unanswered: false,
        pinged_ms: 0,
    });
    // It may be a small piece of a large buffer, which would stay as long as the socket.
    drop(leftover);
    let mut listening = Box::pin(ears.listen(proof.map(Box::new)));
    let mut speaking = Box::pin(mouth.speak());
    async move {
        let reader = tokio::select! {
            reader = &mut listening => reader,
            () = &mut speaking => None,
        };
        // Without a reader the peer has gone, or takes nothing: nobody is there for what is left.
        if let Some(reader) = reader {
            Box::pin(part(reader, speaking, last_words)).await;
        }
        drop(place);
    }
}

/// Says what is left to be said and the goodbye, within `last_words` however slowly the peer takes it; then reads on
/// until the peer has closed too, so that our close frame is not lost to a reset.
async fn part(
    mut reader: Box<Reader<ReadHalf>>,
    speaking: impl Future<Output = ()>,
    last_words: Duration,
) {
    if tokio::time::timeout(last_words, speaking).await.is_err() {
        return;
    }
    let rest = async { while let Ok(Some(_)) = reader.next().await {} };
    let _ = tokio::time::timeout(CLOSE_WAIT, rest).await;
}

/// The reading half.
struct Ears {
    reader: Reader<ReadHalf>,
    /// What of a message has come while the rest has not.
    begun: Option<Box<Begun>>,
    /// Its messages are bounded as those of somebody who has not been let in.
    is_stranger: bool,
    conversation: Conversation,
    encoding: Encoding,
    house: Arc<House>,
    shared: Arc<Shared>,
}

impl Ears {
    /// Until the end; gives the reader back where the peer is still there to be said goodbye to.
    async fn listen(
        mut self: Box<Self>,
        proof: Option<Box<Proof>>,
    ) -> Option<Box<Reader<ReadHalf>>> {
        // A socket may last; its token, and room for one, are not kept for that.
        let begun = Box::pin(self.conversation.begin(proof.map(|proof| *proof))).await;
        let ending = match begun {
            Verdict::GoOn => self.converse().await,
            other => ending(other),
        };
        let ending = ending?;
        self.conversation.closes_with(ending.0);
        *self.shared.ending.lock() = Some(ending);
        // Dropping the conversation ends the queue of answers, and so the writer once all have gone out.
        Some(Box::new(self.reader))
    }

    async fn converse(&mut self) -> Ending {
        let connect_by = tokio::time::Instant::now() + self.house.limits.connect_timeout;
        loop {
            if self.is_stranger && self.conversation.is_connected() {
                self.is_stranger = false;
                self.reader.limit(Limits::of_bytes(self.house.limits.message_bytes_max));
            }
            // What was read in one piece is taken before anything else is looked at: a piece is small.
            let message = match self.reader.ready() {
                Ok(None) => match self.flush().await {
                    Verdict::GoOn => match self.more(connect_by).await {
                        Ok(Some(message)) => message,
                        Ok(None) => continue,
                        Err(ending) => return ending,
                    },
                    other => return ending(other),
                },
                read => read,
            };
            let Some(reaction) = self.react(message) else { continue };
            match reaction.await {
                Ok(Verdict::GoOn) => {}
                Ok(other) => return ending(other),
                Err(ending) => return ending,
            }
        }
    }

    /// What is to be waited for because of a message, if anything is. Boxed: what a message needs to be carried out is not
    /// kept by a socket that says nothing.
    fn react(&mut self, read: Read) -> Option<Pin<Box<dyn Future<Output = Reaction> + Send + '_>>> {
        let taken = match read {
            Ok(Some(Message::Text(text))) if !self.encoding.is_binary() => {
                self.conversation.text(&text)
            }
            Ok(Some(Message::Binary(frame))) if self.encoding.is_binary() => {
                self.conversation.binary(self.encoding, &frame)
            }
            other => return Some(Box::pin(self.control(other))),
        };
        match taken {
            Some(taken) => Some(Box::pin(async { Ok(self.conversation.carry_out(taken).await) })),
            None if self.conversation.is_full() => Some(Box::pin(self.give_way())),
            None => None,
        }
    }

    /// Waits for the next message; `None` where it is only late for something.
    async fn more(&mut self, connect_by: tokio::time::Instant) -> Result<Option<Read>, Ending> {
        let deadline = self.deadline(connect_by);
        // Who sends without end holds up none of these. A look costs less than to wait for them.
        if let Some(verdict) = self.conversation.is_revoked() {
            return Err(ending(verdict));
        }
        if self.house.stop.is_cancelled() {
            return Err(going_away());
        }
        if deadline.is_some_and(|deadline| deadline <= tokio::time::Instant::now())
            && let Some(ending) = Box::pin(self.late(connect_by)).await
        {
            return Err(Some(ending));
        }
        let (reader, begun, house) = (&mut self.reader, &mut self.begun, &*self.house);
        let message = tokio::select! {
            biased;
            whole = poll_fn(|cx| begun::poll_whole(reader, begun, house, cx)) => whole?,
            verdict = self.conversation.revoked() => return Err(ending(verdict)),
            () = self.house.stop.cancelled() => return Err(going_away()),
            // It is looked at above.
            () = sleep_until(deadline) => return Ok(None),
        };
        self.shared.heard_ms.store(clock::monotonic_ms(), Ordering::Relaxed);
        Ok(Some(message))
    }

    /// Who sends without end gives way: to its own answers, and to other sockets.
    async fn give_way(&mut self) -> Reaction {
        let verdict = self.flush().await;
        tokio::task::yield_now().await;
        Ok(verdict)
    }

    /// Has carried out what was taken and waits.
    async fn flush(&mut self) -> Verdict {
        match self.conversation.is_flushed() {
            true => Verdict::GoOn,
            false => Box::pin(self.conversation.flush()).await,
        }
    }

    /// What is no message of this socket's encoding, after what waits.
    async fn control(&mut self, read: Read) -> Reaction {
        match self.flush().await {
            Verdict::GoOn => {}
            other => return Ok(other),
        }
        match read {
            Ok(Some(Message::Text(_) | Message::Binary(_))) => {
                let kind = if self.encoding.is_binary() { "binary" } else { "text" };
                let subprotocol = self.encoding.subprotocol();
                let reason = format!("this socket speaks {subprotocol} in {kind} frames");
                Err(Some((CLOSE_UNSUPPORTED, reason)))
            }
            Ok(Some(Message::Ping(payload))) => {
                match self.conversation.control() {
                    Verdict::GoOn => {}
                    other => return Ok(other),
                }
                Ok(Box::pin(self.conversation.pong_of(payload.as_ref())).await)
            }
            Ok(Some(Message::Pong(_))) => {
                self.shared.ponged();
                Ok(self.conversation.control())
            }
            Ok(Some(Message::Close(code))) => {
                Err(Some((code.map_or(CLOSE_NORMAL, |(code, _)| code), String::new())))
            }
            Ok(None) => Err(None),
            Err(error) => Err(error.close_code().map(|code| (code, error.to_string()))),
        }
    }

    /// When something is late: the connect, or the end of the token.
    fn deadline(&self, connect_by: tokio::time::Instant) -> Option<tokio::time::Instant> {
        let connect = (!self.conversation.is_connected()).then_some(connect_by);
        let token = self.conversation.deadline_ms();
        let token = token.map(|at_ms| tokio::time::Instant::now() + until(at_ms));
        [connect, token].into_iter().flatten().min()
    }

    async fn late(&mut self, connect_by: tokio::time::Instant) -> Ending {
        if !self.conversation.is_connected() && tokio::time::Instant::now() >= connect_by {
            return Some((CLOSE_UNAUTHENTICATED, "no connect in time".to_owned()));
        }
        ending(self.conversation.time(clock::monotonic_ms()).await)
    }
}

/// The writing half.
struct Mouth {
    output: WriteHalf,
    outbox: Outbox,
    house: Arc<House>,
    shared: Arc<Shared>,
    buffer: Buffer,
    /// A ping is out, and nothing has kept the peer from answering it.
    unanswered: bool,
    /// When it went out, in monotonic milliseconds.
    pinged_ms: u64,
}

impl Mouth {
    async fn speak(mut self: Box<Self>) {
        loop {
            let filled = self.outbox.fill(&mut self.buffer).await;
            match filled {
                Filled::Frames => {}
                Filled::Tick if self.is_silent() => return,
                Filled::Tick => {
                    frame::encode(Frame::Ping(&Payload::default()), None, &mut self.buffer.bytes)
                }
                Filled::Ended => return Box::pin(self.farewell()).await,
            }
            if !self.write().await {
                return;
            }
            if filled == Filled::Frames {
                self.outbox.sent();
            }
        }
    }

    /// When it is time for a ping: whether nothing was heard for two intervals, in the last of which
    /// a ping was out. Else the next one goes out now.
    fn is_silent(&mut self) -> bool {
        let heard_ms = self.shared.heard_ms.load(Ordering::Relaxed);
        let now_ms = clock::monotonic_ms();
        let long_ms = 2 * millis(self.house.limits.ping_interval);
        let is_long_ago = now_ms.saturating_sub(heard_ms) >= long_ms;
        if self.unanswered && heard_ms < self.pinged_ms && is_long_ago {
            return true;
        }
        (self.unanswered, self.pinged_ms) = (true, now_ms);
        let now_us = u64::try_from(clock::monotonic().as_micros()).unwrap_or(u64::MAX);
        // One that is unanswered keeps its time: a late pong is late since then.
        let _ =
            self.shared.pinged_us.compare_exchange(0, now_us, Ordering::Relaxed, Ordering::Relaxed);
        false
    }

    async fn farewell(mut self: Box<Self>) {
        let ending = self.shared.ending.lock().take();
        let Some((code, reason)) = ending else { return };
        if code == CLOSE_GOING_AWAY && self.house.stop.is_cancelled() {
            let push = Push::Goodbye {
                code: "shutting_down".to_owned(),
                reconnect_after_ms: clock::random_between(200, 2000),
            };
            let encoding = self.buffer.encoding;
            self.buffer.message(|out| encoding.push(&push, out));
        }
        frame::encode(Frame::Close(Some((code, &reason))), None, &mut self.buffer.bytes);
        let _ = tokio::time::timeout(CLOSE_WAIT, self.write()).await;
        let _ = tokio::time::timeout(CLOSE_WAIT, self.output.shutdown()).await;
    }

    /// Writes the buffer; false when the socket is gone or takes nothing.
    async fn write(&mut self) -> bool {
        let began_ms = clock::monotonic_ms();
        let written = self.output.try_write(&self.buffer.bytes).unwrap_or(0);
        // Boxed: who takes everything at once keeps no room for waiting.
        if written < self.buffer.bytes.len() && !Box::pin(self.write_slowly(written)).await {
            return false;
        }
        if !self.flush().await {
            return false;
        }
        if clock::monotonic_ms() - began_ms >= millis(self.house.limits.ping_interval) {
            // While it waited the write timeout was the heartbeat: the peer is asked anew.
            self.unanswered = false;
        }
        self.buffer.bytes.clear();
        if self.buffer.bytes.capacity() > KEEP_BYTES {
            self.buffer.bytes = Vec::new();
        }
        true
    }

    /// Writes what is left of the buffer behind what was written of it; any byte taken starts the time anew.
    async fn write_slowly(&mut self, written: usize) -> bool {
        // The socket is slow: what it has not taken is held exactly, however long that is.
        if written > 0 {
            self.buffer.bytes.drain(..written);
            self.buffer.bytes.shrink_to_fit();
        }
        let mut rest = &self.buffer.bytes[..];
        let mut slow = metrics::Slow::new(rest.len());
        let taker = self.outbox.taker();
        while !rest.is_empty() {
            let write = self.output.write(rest);
            let write = tokio::time::timeout(self.house.limits.write_timeout, write);
            let written = match &taker {
                None => write.await,
                Some(taker) => unless_cut(taker, write).await,
            };
            match written {
                Ok(Ok(n)) if n > 0 => {
                    rest = rest.get(n..).unwrap_or_default();
                    slow.took(n);
                    taker.iter().for_each(|taker| taker.took(n));
                }
                // Within a frame no close frame can be sent: the connection is cut, the client resumes.
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }

    /// What a layer of encryption holds back is not sent until it is asked to; a plain socket holds nothing back.
    /// Without a limit of its own: under that layer [`Progress`] watches every byte, and any one taken is enough.
    async fn flush(&mut self) -> bool {
        match self.output.flush().now_or_never() {
            Some(flushed) => flushed.is_ok(),
            None => Box::pin(self.output.flush()).await.is_ok(),
        }
    }
}

/// What comes of a write, or nothing written where somebody else needs the place more.
async fn unless_cut<E>(
    taker: &Taker,
    write: impl Future<Output = Result<io::Result<usize>, E>>,
) -> Result<io::Result<usize>, E> {
    tokio::select! {
        written = write => written,
        () = taker.is_cut() => Ok(Ok(0)),
    }
}

/// Frames as they are put together.
struct Buffer {
    bytes: Vec<u8>,
    encoding: Encoding,
}

impl Frames for Buffer {
    fn message(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let out = &mut self.bytes;
        let frame = match self.encoding.is_binary() {
            true => OpenFrame::binary(None, out),
            false => OpenFrame::text(None, out),
        };
        self.encoding.begin(out);
        write(out);
        frame.finish(out);
    }

    fn compressed(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let frame = OpenFrame::binary(None, &mut self.bytes);
        write(&mut self.bytes);
        frame.finish(&mut self.bytes);
    }

    fn pong(&mut self, payload: &[u8]) {
        // What came as a payload goes as one.
        let payload = Payload::new(payload).unwrap_or_default();
        frame::encode(Frame::Pong(&payload), None, &mut self.bytes);
    }

    fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn rest(&mut self) {
        self.bytes = Vec::new();
    }
}

/// How it ends after this verdict.
fn ending(verdict: Verdict) -> Ending {
    match verdict {
        Verdict::Close(code, reason) => Some((code, reason.to_owned())),
        Verdict::GoOn | Verdict::Gone => None,
    }
}

fn going_away() -> Ending {
    Some((CLOSE_GOING_AWAY, "shutting down".to_owned()))
}

/// Boxed, and made before it is waited for: who waits for no moment keeps no room for a timer, and nobody for the moment.
fn sleep_until(deadline: Option<tokio::time::Instant>) -> impl Future<Output = ()> {
    let sleep = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
    async move {
        match sleep {
            Some(sleep) => sleep.await,
            None => std::future::pending().await,
        }
    }
}

fn until(at_ms: u64) -> Duration {
    Duration::from_millis(at_ms.saturating_sub(clock::monotonic_ms()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Somebody who takes a byte now and then would have all day otherwise.
    #[tokio::test]
    async fn s3_last_words_are_said_only_so_long_however_slowly_they_are_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let (read, _write) = stream.into_split();
        let limits = Limits::of_bytes(1024);
        let reader = Box::new(Reader::new(ReadHalf::Plain(read), Role::Server, limits, b""));
        let last_words = Duration::from_millis(50);
        let parted = part(reader, std::future::pending(), last_words);
        let parted = tokio::time::timeout(Duration::from_secs(30), parted).await;
        assert!(parted.is_ok(), "it is still being said");
    }
}
