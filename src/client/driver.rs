//! The task behind a client: owns the socket, keeps it up, and lets [`Core`] decide what is said.
//!
//! ```text
//! wait ─▶ connect ─▶ converse ── lost ──▶ wait …        refused for good, closed ──▶ end
//! ```
//! - Commands are taken in every state, so that nobody waits for the network to hand one over.
//! - Reading and writing never wait for each other; while a buffer is full nothing is read.
//! - Nothing heard for two ping intervals: the connection counts as lost.

use std::{pin::pin, sync::Arc, time::Duration};

use tidings_proto::{
    message::{Connected, Head, Push, Request, ServerMessage},
    wire::json,
};
use tokio::{
    io::{AsyncWriteExt, WriteHalf},
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    Error, Notice, Options, Shared,
    backoff::Backoff,
    core::{Command, Core, Transmit},
    dial::{Dialer, Stream},
    link::{Failure, Link, Lost, closed},
};
use crate::{
    clock,
    net::frame::{Frame, Message, OpenFrame, Payload, ReadError, encode},
};

/// How many bytes are encoded before they are written.
const OUT_BYTES_MAX: usize = 256 << 10;
/// How many commands are taken at a time before the socket has its turn.
const COMMANDS_MAX: usize = 256;
/// How long a connection must have lasted to count as a good one: the wait after it is short again.
const GOOD_AFTER_MS: u64 = 5_000;
/// The most that a broker's wish how long to wait before a new connection is followed.
const WAIT_MS_MAX: u64 = 300_000;
/// How long the last frames may take to leave.
const FAREWELL: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Driver {
    pub(super) dialer: Dialer,
    pub(super) options: Options,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) shared: Arc<Shared>,
    /// Told when the first connection is there.
    pub(super) first: Option<oneshot::Sender<()>>,
}

/// Why a conversation, or the client, ends.
enum Ending {
    Failure(Failure),
    /// The last handle is gone, or it was told to.
    Closed,
}

impl From<Lost> for Ending {
    fn from(lost: Lost) -> Ending {
        Ending::Failure(Failure::Retry(lost))
    }
}

impl Driver {
    /// Runs until the client is closed or refused for good.
    pub(super) async fn run(mut self) {
        let backoff = || Backoff::new(self.options.backoff_min_ms, self.options.backoff_max_ms);
        let mut core = Core::new(backoff());
        let why = self.keep_up(&mut core, backoff()).await;
        // The first reason stays; there is only this one.
        let _ = self.shared.stopped.set(why.clone());
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            core.handle_command(command);
        }
        core.end(&why);
    }

    async fn keep_up(&mut self, core: &mut Core, mut backoff: Backoff) -> Error {
        let mut wait_ms = 0;
        let (mut is_down, mut was_there) = (false, false);
        loop {
            let lost = match self.open(core, wait_ms).await {
                Err(Ending::Closed) => return Error::Closed,
                Err(Ending::Failure(Failure::Stop(why))) => return why,
                Err(Ending::Failure(Failure::Retry(lost))) => lost,
                Ok(link) => {
                    self.notice(&Notice::Connected { again: was_there });
                    (is_down, was_there) = (false, true);
                    let since_ms = clock::monotonic_ms();
                    let ending = self.converse(core, link).await;
                    core.handle_disconnect();
                    *self.shared.connected.lock() = None;
                    if clock::monotonic_ms().saturating_sub(since_ms) >= GOOD_AFTER_MS {
                        backoff.reset();
                    }
                    match ending {
                        Ending::Closed => return Error::Closed,
                        Ending::Failure(Failure::Stop(why)) => return why,
                        Ending::Failure(Failure::Retry(lost)) => lost,
                    }
                }
            };
            wait_ms = lost.after_ms.unwrap_or_else(|| backoff.next_ms()).min(WAIT_MS_MAX);
            if !is_down {
                self.notice(&Notice::Lost { reason: lost.reason, was_there });
                is_down = true;
            }
        }
    }

    fn notice(&self, notice: &Notice) {
        if let Some(on_notice) = &self.options.on_notice {
            on_notice(notice);
        }
    }

    /// Waits and connects, and takes commands meanwhile.
    async fn open(&mut self, core: &mut Core, wait_ms: u64) -> Result<Link, Ending> {
        let (dialer, options) = (&self.dialer, &self.options);
        let mut opening = pin!(async {
            sleep(Duration::from_millis(wait_ms)).await;
            match timeout(options.connect_timeout, Link::open(dialer, options)).await {
                Ok(opened) => opened,
                Err(_) => Err(Failure::Retry(Lost::because("no answer in time"))),
            }
        });
        let link = loop {
            tokio::select! {
                opened = &mut opening => break opened.map_err(Ending::Failure)?,
                command = self.commands.recv() => match command {
                    None | Some(Command::Close) => return Err(Ending::Closed),
                    Some(command) => core.handle_command(command),
                },
            }
        };
        core.handle_connected(link.connected.clone());
        *self.shared.connected.lock() = Some(link.connected.clone());
        if let Some(first) = self.first.take() {
            // Whoever connects may have given up.
            let _ = first.send(());
        }
        Ok(link)
    }

    async fn converse(&mut self, core: &mut Core, link: Link) -> Ending {
        let room = self.shared.room.clone();
        let mut talk = Talk::new(core, link);
        let mut was_blocked = false;
        let ending = loop {
            let now_ms = clock::monotonic_ms();
            let blocked = talk.core.is_blocked(now_ms);
            if was_blocked && !blocked {
                // While nothing was read nothing could be heard.
                talk.heard_ms = now_ms;
            }
            was_blocked = blocked;
            let awaits_room = blocked || talk.core.has_parked();
            talk.transmit(now_ms);
            let wake_ms = match talk.beat(now_ms, blocked) {
                Ok(wake_ms) => wake_ms,
                Err(lost) => return lost.into(),
            };
            let wake = sleep(Duration::from_millis(wake_ms.saturating_sub(now_ms)));
            tokio::select! {
                command = self.commands.recv() => match command {
                    None | Some(Command::Close) => break Ending::Closed,
                    Some(command) => {
                        if take_commands(talk.core, command, &mut self.commands) {
                            break Ending::Closed;
                        }
                    }
                },
                message = talk.link.reader.next(), if !blocked => {
                    if let Err(ending) = talk.handle(message) {
                        break ending;
                    }
                }
                written = push(&mut talk.link.writer, rest(&talk.out, talk.out_at)),
                    if talk.unflushed || talk.out_at < talk.out.len() =>
                {
                    match written {
                        Ok(bytes) if bytes > 0 => talk.handle_written(bytes),
                        Ok(_) if talk.unflushed => talk.unflushed = false,
                        Ok(_) => return Lost::because("the broker takes nothing more").into(),
                        Err(cause) => return Lost::because(cause).into(),
                    }
                }
                () = room.notified(), if awaits_room => {}
                () = wake => {}
            }
        };
        if matches!(ending, Ending::Closed) {
            encode(Frame::Close(Some((1000, ""))), Some(clock::frame_mask()), &mut talk.out);
        }
        // The peer may be gone already: then there is nobody to say it to.
        let _ = timeout(FAREWELL, talk.flush()).await;
        ending
    }
}

/// Takes this command and those that wait behind it; true when told to hang up.
fn take_commands(core: &mut Core, first: Command, commands: &mut mpsc::Receiver<Command>) -> bool {
    core.handle_command(first);
    for _ in 1..COMMANDS_MAX {
        match commands.try_recv() {
            Ok(Command::Close) => return true,
            Ok(command) => core.handle_command(command),
            Err(_) => return false,
        }
    }
    false
}

/// Writes some of the rest; where there is none, what the stream holds back of what was written. Cancel safe.
async fn push(writer: &mut WriteHalf<Stream>, rest: &[u8]) -> std::io::Result<usize> {
    match rest.is_empty() {
        true => writer.flush().await.map(|()| 0),
        false => writer.write(rest).await,
    }
}

fn rest(out: &[u8], at: usize) -> &[u8] {
    out.get(at..).unwrap_or_default()
}

/// One connection while it lasts.
struct Talk<'a> {
    core: &'a mut Core,
    link: Link,
    /// Frames to be written; those before `out_at` are.
    out: Vec<u8>,
    out_at: usize,
    /// All of them are, but under TLS some may wait encrypted.
    unflushed: bool,
    /// When the broker was last heard of, and when it last took something, in monotonic
    /// milliseconds.
    heard_ms: u64,
    told_ms: u64,
    /// A ping has gone out since the broker was last heard of.
    pinged: bool,
    /// The broker says that it will close, and when to come back.
    goodbye_ms: Option<u64>,
}

impl<'a> Talk<'a> {
    fn new(core: &'a mut Core, link: Link) -> Talk<'a> {
        let now_ms = clock::monotonic_ms();
        Talk {
            core,
            link,
            out: Vec::new(),
            out_at: 0,
            unflushed: false,
            heard_ms: now_ms,
            told_ms: now_ms,
            pinged: false,
            goodbye_ms: None,
        }
    }

    /// Encodes what is to be said, up to the bound. After a goodbye it waits for the next
    /// connection.
    fn transmit(&mut self, now_ms: u64) {
        let bytes_max = self.link.connected.max_message_bytes;
        while self.goodbye_ms.is_none() && self.out.len() - self.out_at < OUT_BYTES_MAX {
            let Some(transmit) = self.core.poll_transmit(now_ms) else { return };
            let frame = OpenFrame::text(Some(clock::frame_mask()), &mut self.out);
            match transmit {
                Transmit::Request(id, request) => {
                    json::encode_request(id, &request, &mut self.out);
                }
                Transmit::Publish(id, follows, request) => {
                    json::encode_request(Head { id: Some(id), follows }, request, &mut self.out);
                    let bytes = frame.payload_bytes(&self.out);
                    if u64::try_from(bytes).unwrap_or(u64::MAX) > bytes_max {
                        frame.abandon(&mut self.out);
                        self.core.refuse_as_too_large(id, bytes, bytes_max);
                        continue;
                    }
                }
            }
            frame.finish(&mut self.out);
        }
    }

    /// Keeps both sides sure of each other; when to look again, in monotonic milliseconds.
    fn beat(&mut self, now_ms: u64, blocked: bool) -> Result<u64, Lost> {
        let interval_ms = self.link.connected.ping_interval_ms.max(100);
        let beat_ms = if blocked {
            // Nothing is read, so nothing can be heard: only say that we are there.
            let due_ms = self.told_ms.saturating_add(interval_ms);
            if due_ms <= now_ms {
                let pong = Payload::default();
                encode(Frame::Pong(&pong), Some(clock::frame_mask()), &mut self.out);
                self.told_ms = now_ms;
            }
            self.told_ms.saturating_add(interval_ms)
        } else if now_ms >= self.heard_ms.saturating_add(2 * interval_ms) {
            return Err(Lost::because("the broker has been silent for two ping intervals"));
        } else {
            let due_ms = self.heard_ms.saturating_add(interval_ms);
            if due_ms <= now_ms && !self.pinged {
                self.say(None, &Request::Ping);
                self.pinged = true;
            }
            if self.pinged { due_ms.saturating_add(interval_ms) } else { due_ms }
        };
        // What the core waits for cannot be sent while the buffer is full: look when it is not.
        let has_room = self.out.len() - self.out_at < OUT_BYTES_MAX && self.goodbye_ms.is_none();
        let core_ms = self.core.wake_ms().filter(|_| has_room).unwrap_or(u64::MAX);
        Ok(beat_ms.min(core_ms.max(now_ms)))
    }

    fn say(&mut self, id: Option<u32>, request: &Request) {
        let frame = OpenFrame::text(Some(clock::frame_mask()), &mut self.out);
        json::encode_request(id, request, &mut self.out);
        frame.finish(&mut self.out);
    }

    fn handle_written(&mut self, bytes: usize) {
        self.out_at += bytes;
        self.told_ms = clock::monotonic_ms();
        if self.out_at >= self.out.len() {
            self.out.clear();
            self.out_at = 0;
            self.unflushed = self.link.is_tls;
        } else if self.out_at >= OUT_BYTES_MAX {
            self.out.drain(..self.out_at);
            self.out_at = 0;
        }
    }

    fn handle(&mut self, message: Result<Option<Message>, ReadError>) -> Result<(), Ending> {
        self.heard_ms = clock::monotonic_ms();
        self.pinged = false;
        match message {
            Ok(Some(Message::Text(text))) => self.handle_text(&text),
            Ok(Some(Message::Ping(payload))) => {
                encode(Frame::Pong(&payload), Some(clock::frame_mask()), &mut self.out);
                Ok(())
            }
            Ok(Some(Message::Pong(_))) => Ok(()),
            Ok(Some(Message::Binary(frame))) => self.handle_compressed(&frame),
            Ok(Some(Message::Close(close))) => {
                let code = close.as_ref().map(|(code, _)| (*code, ""));
                encode(Frame::Close(code), Some(clock::frame_mask()), &mut self.out);
                Err(Ending::Failure(closed(close, self.goodbye_ms)))
            }
            Ok(None) => {
                let reason = "the broker hung up".to_owned();
                Err(Lost { reason, after_ms: self.goodbye_ms }.into())
            }
            Err(error) => {
                if let Some(code) = error.close_code() {
                    let mask = Some(clock::frame_mask());
                    encode(Frame::Close(Some((code, ""))), mask, &mut self.out);
                }
                Err(Lost::because(error).into())
            }
        }
    }

    fn handle_text(&mut self, text: &str) -> Result<(), Ending> {
        match json::decode_server_message(text) {
            Ok(ServerMessage::Push(Push::Goodbye { reconnect_after_ms, .. })) => {
                self.goodbye_ms = Some(reconnect_after_ms);
            }
            Ok(message) => self.core.handle_message(message, clock::monotonic_ms()),
            // A later broker may push what is not known here, but somebody waits for these.
            Err(error) if is_awaited(text) => return Err(stop(&error.message)),
            Err(_) => {}
        }
        Ok(())
    }

    /// A batch whose events are compressed: nothing else comes in a binary frame.
    fn handle_compressed(&mut self, frame: &[u8]) -> Result<(), Ending> {
        let Connected { compress, max_message_bytes, .. } = &self.link.connected;
        if compress.is_none() {
            return Err(stop("a binary message, though it was asked for JSON"));
        }
        let bytes_max = usize::try_from(*max_message_bytes).unwrap_or(usize::MAX);
        let batch = json::decode_compressed(frame, bytes_max);
        let batch = batch.map_err(|error| stop(&error.message))?;
        self.core.handle_message(ServerMessage::Events(batch), clock::monotonic_ms());
        Ok(())
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        self.link.writer.write_all(rest(&self.out, self.out_at)).await?;
        self.link.writer.shutdown().await
    }
}

fn stop(what: &str) -> Ending {
    Ending::Failure(Failure::Stop(Error::Protocol(what.to_owned())))
}

/// Whether a message that cannot be read is an answer or a batch, or no message at all.
fn is_awaited(text: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Probe {
        reply: Option<serde::de::IgnoredAny>,
        events: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_str::<Probe>(text) {
        Ok(probe) => probe.reply.is_some() || probe.events.is_some(),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_broker_pushes_is_skipped_but_no_answer_is() {
        assert!(!is_awaited(r#"{"weather":{"sunny":true}}"#));
        assert!(is_awaited(r#"{"reply":1,"scheduled":{}}"#));
        assert!(is_awaited(r#"{"events":{}}"#));
        assert!(is_awaited("gibberish"));
    }
}
