//! A WebSocket as cheap as can be: frames from templates out, frames counted in.
//!
//! - What goes out is masked with zeros, which RFC 6455 §5.3 does not allow a browser and which costs a load
//!   generator nothing.
//! - What comes in is taken apart by its headers alone; nobody but the broker is on the other side.

use std::time::Duration;

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::{cli::Globals, clock};
use tidings_proto::{
    Cursor, Filter, Filters, Position, SubscribeOptions,
    message::{Push, Reply, Request, ServerMessage},
    subscribe::After,
    wire::{json, msgpack, protobuf},
};

/// How much is read at a time.
const READ_BYTES: usize = 256 * 1024;
/// How long the broker may take to let somebody in.
const CONNECT_WAIT: Duration = Duration::from_secs(20);

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
const CLOSE: u8 = 0x88;

/// The byte before a message in a binary frame: it is not compressed.
const PLAIN: u8 = 0;

/// An open socket.
pub(super) struct Socket {
    pub(super) input: Input,
    pub(super) output: OwnedWriteHalf,
    speech: Speech,
}

/// The half that frames come from.
pub(super) struct Input {
    stream: OwnedReadHalf,
    bytes: Vec<u8>,
    /// What of `bytes` has been given.
    start: usize,
    /// A ping has come since the last pong.
    pinged: bool,
}

impl Socket {
    /// Connects and shows the token, if there is one.
    pub(super) async fn open(globals: &Globals) -> anyhow::Result<Socket> {
        Socket::speaking(globals, Speech::Json).await
    }

    /// The same in this encoding.
    pub(super) async fn speaking(globals: &Globals, speech: Speech) -> anyhow::Result<Socket> {
        let opened = tokio::time::timeout(CONNECT_WAIT, Socket::connect(globals, speech)).await;
        opened.context("the broker let nobody in within 20 s")?
    }

    async fn connect(globals: &Globals, speech: Speech) -> anyhow::Result<Socket> {
        let authority = authority(&globals.url)?;
        let mut stream = TcpStream::connect(&authority)
            .await
            .with_context(|| format!("cannot connect to {authority}"))?;
        stream.set_nodelay(true)?;
        let key = STANDARD.encode(clock::session_id().as_bytes());
        let token = match &globals.options()?.token {
            Some(token) => format!("authorization: Bearer {token}\r\n"),
            None => String::new(),
        };
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nhost: {authority}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\
             sec-websocket-protocol: {}\r\n{token}\r\n",
            speech.subprotocol()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::with_capacity(1024);
        let end = loop {
            if stream.read_buf(&mut bytes).await? == 0 {
                bail!("the broker hung up during the handshake");
            }
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned();
        if !head.starts_with("HTTP/1.1 101") {
            bail!("the broker does not upgrade: {}", head.lines().next().unwrap_or_default());
        }
        let (input, output) = stream.into_split();
        let input = Input { stream: input, bytes, start: end, pinged: false };
        Ok(Socket { input, output, speech })
    }

    /// Subscribes to everything from the first event on; the answer comes with the events.
    pub(super) async fn subscribe_from_first(&mut self, filter: &str) -> anyhow::Result<()> {
        let options = SubscribeOptions {
            after: Some(After(Position { cursor: Cursor::START, log: None })),
            ..SubscribeOptions::to(Filters::one(Filter::parse(filter)?))
        };
        let request = Request::Subscribe(Box::new(options));
        let (mut message, mut out) = (Vec::new(), Vec::new());
        match self.speech {
            Speech::Json => json::encode_request(Some(1), &request, &mut message),
            Speech::Msgpack => {
                message.push(PLAIN);
                msgpack::encode_request(Some(1), &request, &mut message);
            }
            Speech::Protobuf => {
                message.push(PLAIN);
                protobuf::encode_request(Some(1), &request, &mut message);
            }
        }
        frame_of(if self.speech == Speech::Json { TEXT } else { BINARY }, &message, &mut out);
        Ok(self.output.write_all(&out).await?)
    }

    /// Sends one message and waits for its answer.
    pub(super) async fn call(&mut self, message: &str) -> anyhow::Result<String> {
        let mut out = Vec::new();
        frame(message.as_bytes(), &mut out);
        self.output.write_all(&out).await?;
        loop {
            while let Some(payload) = self.input.frame()? {
                let text = String::from_utf8_lossy(payload);
                if text.starts_with("{\"reply\":") {
                    return match text.contains("\"error\"") {
                        true => bail!("the broker refuses: {text}"),
                        false => Ok(text.into_owned()),
                    };
                }
            }
            self.input.more().await?;
        }
    }
}

impl Input {
    /// Reads what is there. Cancel safe.
    pub(super) async fn more(&mut self) -> anyhow::Result<()> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.bytes).await? {
            0 => bail!("the broker hung up"),
            _ => Ok(()),
        }
    }

    /// Answers a ping, where one has come.
    pub(super) async fn answer_ping(&mut self, output: &mut OwnedWriteHalf) -> anyhow::Result<()> {
        const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
        if std::mem::take(&mut self.pinged) {
            output.write_all(&PONG).await?;
        }
        Ok(())
    }

    /// Gives the buffer back until more comes.
    pub(super) fn shrink(&mut self) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.shrink_to_fit();
    }

    /// The payload of the next frame that is whole; pings are passed over.
    pub(super) fn frame(&mut self) -> anyhow::Result<Option<&[u8]>> {
        loop {
            let rest = self.bytes.get(self.start..).unwrap_or_default();
            let Some((first, payload_at, length)) = head(rest) else { return Ok(None) };
            if rest.len() < payload_at + length {
                return Ok(None);
            }
            let from = self.start + payload_at;
            self.start = from + length;
            match first {
                TEXT | BINARY => return Ok(self.bytes.get(from..from + length)),
                PING => self.pinged = true,
                CLOSE => bail!("the broker closed the socket"),
                other => bail!("an unexpected frame: {other:#x}"),
            }
        }
    }
}

/// First byte, where the payload begins, and its length.
fn head(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (payload_at, length) = match second {
        126 => (4, u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
        short => (2, u64::from(short)),
    };
    Some((first, payload_at, usize::try_from(length).ok()?))
}

/// Appends a text frame with a mask of zeros.
pub(super) fn frame(payload: &[u8], out: &mut Vec<u8>) {
    frame_of(TEXT, payload, out);
}

fn frame_of(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    const MASKED: u8 = 0x80;
    out.push(first);
    match payload.len() {
        short @ 0..=125 => out.push(MASKED | u8::try_from(short).unwrap_or_default()),
        length => match u16::try_from(length) {
            Ok(length) => {
                out.push(MASKED | 126);
                out.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                out.push(MASKED | 127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        },
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// `HOST:PORT` of the broker's address.
fn authority(url: &str) -> anyhow::Result<String> {
    let rest = url.strip_prefix("http://").context("give the broker as http://HOST:PORT")?;
    let authority = rest.trim_end_matches('/');
    Ok(match authority.contains(':') {
        true => authority.to_owned(),
        false => format!("{authority}:80"),
    })
}

/// How a reader's messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Speech {
    /// JSON.
    Json,
    /// MessagePack.
    Msgpack,
    /// Protobuf.
    Protobuf,
}

impl Speech {
    fn subprotocol(self) -> &'static str {
        match self {
            Speech::Json => "tidings.v1.json",
            Speech::Msgpack => "tidings.v1.msgpack",
            Speech::Protobuf => "tidings.v1.protobuf",
        }
    }

    /// How many events a message holds; `None` when it says that all have come.
    pub(super) fn events_or_end(self, payload: &[u8]) -> anyhow::Result<Option<u64>> {
        let message = payload.get(1..).unwrap_or_default();
        let other = match self {
            Speech::Json if payload.starts_with(b"{\"caught_up\"") => return Ok(None),
            Speech::Json => return Ok(Some(events_in(payload))),
            Speech::Msgpack if message.starts_with(PACKED_BATCH) => {
                return Ok(Some(packed_events(message)));
            }
            Speech::Msgpack => msgpack::decode_server_message(message)?,
            // A batch is a message whose only field is 2; its events are that one's fields 4.
            Speech::Protobuf if message.first() == Some(&BATCH) => {
                return Ok(Some(batch_events(payload)));
            }
            Speech::Protobuf => protobuf::decode_server_message(message)?,
        };
        match other {
            ServerMessage::Push(Push::CaughtUp { .. }) => Ok(None),
            ServerMessage::Reply(_, Reply::Error(error)) => bail!("refused: {error}"),
            _ => Ok(Some(0)),
        }
    }
}

/// How a batch in MessagePack begins: a map of one attribute, `events`.
const PACKED_BATCH: &[u8] = b"\x81\xa6events";
/// What stands before the number of events in it: the attribute `events` of the batch, a long list.
const PACKED_EVENTS: &[u8] = b"\xa6events\xdd";

/// How many events a batch in MessagePack holds, as it says itself.
fn packed_events(message: &[u8]) -> u64 {
    let at = memchr::memmem::find(message, PACKED_EVENTS);
    let number = at.and_then(|at| message.get(at + PACKED_EVENTS.len()..)?.first_chunk());
    number.map_or(0, |number| u32::from_be_bytes(*number).into())
}

/// The key of `ServerMessage.events`: field 2, of a length.
const BATCH: u8 = 0x12;
/// The key of `Events.events`: field 4, of a length.
const EVENT: u64 = 0x22;

/// How many events a batch in Protobuf holds, gone through field by field.
fn batch_events(frame: &[u8]) -> u64 {
    let mut rest = frame.get(2..).unwrap_or_default();
    let mut count = 0;
    // The length of the batch.
    varint(&mut rest);
    while let Some(key) = varint(&mut rest) {
        let value = varint(&mut rest).unwrap_or_default();
        if key & 7 == 2 {
            rest = usize::try_from(value).ok().and_then(|at| rest.get(at..)).unwrap_or_default();
            count += u64::from(key == EVENT);
        }
    }
    count
}

/// Takes a number off the front (Protobuf's base-128 varint).
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// How many events a frame of events holds.
pub(super) fn events_in(payload: &[u8]) -> u64 {
    // Every event begins so, and within a string the quotes would be escaped.
    memchr::memmem::find_iter(payload, b"{\"offset\":").count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_all_lengths_are_read() {
        for length in [0_usize, 125, 126, 65_535, 65_536] {
            let mut out = Vec::new();
            frame(&vec![b'x'; length], &mut out);
            // The broker's frames are the same without the mask.
            let mask_at = out.len() - length - 4;
            let mut unmasked = out.clone();
            unmasked.drain(mask_at..mask_at + 4);
            unmasked[1] &= 0x7f;
            assert_eq!(head(&unmasked), Some((TEXT, mask_at, length)));
        }
        assert_eq!(head(&[TEXT]), None);
        assert_eq!(head(&[TEXT, 126, 1]), None);
    }

    #[test]
    fn events_are_counted_in_every_encoding() {
        let header = tidings_proto::wire::BatchHeader {
            subscription: 1,
            after: Some(Cursor::new(300)),
            cursor: Some(Cursor::new(70_000)),
            attempts: &[],
        };
        let event = vec![7; 300];
        let mut frame = vec![PLAIN];
        protobuf::encode_events(&header, std::iter::repeat_n(&event[..], 77), &mut frame);
        assert_eq!(Speech::Protobuf.events_or_end(&frame).unwrap(), Some(77));
        let mut frame = vec![PLAIN];
        msgpack::encode_events(&header, std::iter::repeat_n(&event[..], 77), &mut frame);
        assert_eq!(Speech::Msgpack.events_or_end(&frame).unwrap(), Some(77));
        let mut frame = vec![PLAIN];
        let push = Push::CaughtUp { subscription: 1, cursor: Cursor::new(300) };
        msgpack::encode_push(&push, &mut frame);
        assert_eq!(Speech::Msgpack.events_or_end(&frame).unwrap(), None);
    }

    #[test]
    fn events_are_counted_by_their_beginning() {
        let payload = br#"{"events":{"subscription":1,"events":[{"offset":1,"data":"{\"offset\":9"},{"offset":2}]}}"#;
        assert_eq!(events_in(payload), 2);
    }
}
