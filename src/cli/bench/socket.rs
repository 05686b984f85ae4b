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

use super::speech::Speech;
use crate::{cli::Globals, client, clock};
use tidings_proto::{
    Cursor, Filter, Filters, Position, SubscribeOptions,
    message::{Reply, Request, ServerMessage},
    subscribe::After,
};

/// How much is read at a time.
const READ_BYTES: usize = 256 * 1024;
/// How long the broker may take to let somebody in.
const CONNECT_WAIT: Duration = Duration::from_secs(20);

pub(super) const TEXT: u8 = 0x81;
pub(super) const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
const CLOSE: u8 = 0x88;

/// The broker wants no more of this socket.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct CutOff(&'static str);

/// An open socket.
pub(super) struct Socket {
    pub(super) input: Input,
    pub(super) output: OwnedWriteHalf,
    pub(super) speech: Speech,
}

/// The half that frames come from.
pub(super) struct Input {
    stream: OwnedReadHalf,
    bytes: Vec<u8>,
    /// What of `bytes` has been given.
    start: usize,
    /// How many bytes have come behind the handshake.
    received: u64,
    /// A ping has come since the last pong.
    pinged: bool,
}

impl Socket {
    /// Connects, in this encoding, and shows the token, if there is one.
    pub(super) async fn open(globals: &Globals, speech: Speech) -> anyhow::Result<Socket> {
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
        let received = (bytes.len() - end) as u64;
        let input = Input { stream: input, bytes, start: end, received, pinged: false };
        Ok(Socket { input, output, speech })
    }

    /// Subscribes to everything from the first event on; the answer comes with the events.
    pub(super) async fn subscribe_from_first(&mut self, filter: &str) -> anyhow::Result<()> {
        let options = SubscribeOptions {
            after: Some(After(Position { cursor: Cursor::START, log: None })),
            ..SubscribeOptions::to(Filters::one(Filter::parse(filter)?))
        };
        self.ask(&Request::Subscribe(Box::new(options))).await
    }

    /// Subscribes to what comes from now on, and waits until that holds.
    pub(super) async fn subscribe(&mut self, filter: &str) -> anyhow::Result<()> {
        let options = SubscribeOptions::to(Filters::one(Filter::parse(filter)?));
        self.begin(options).await.map(drop)
    }

    /// Subscribes, and waits until that holds; gives the number of the subscription.
    pub(super) async fn begin(&mut self, options: SubscribeOptions) -> anyhow::Result<u32> {
        self.ask(&Request::Subscribe(Box::new(options))).await?;
        match self.answer().await? {
            Reply::Subscribed(subscribed) => Ok(subscribed.subscription),
            other => bail!("not a subscribe's answer: {other:?}"),
        }
    }

    async fn ask(&mut self, request: &Request) -> anyhow::Result<()> {
        let mut out = Vec::new();
        self.speech.write_request(1, request, &mut out);
        Ok(self.output.write_all(&out).await?)
    }

    /// Sends one message in JSON and waits for its answer.
    pub(super) async fn call(&mut self, message: &str) -> anyhow::Result<()> {
        let mut out = Vec::new();
        frame_of(TEXT, message.as_bytes(), &mut out);
        self.output.write_all(&out).await?;
        self.answer().await.map(drop)
    }

    /// Waits for an answer that does not refuse.
    async fn answer(&mut self) -> anyhow::Result<Reply> {
        loop {
            while let Some(payload) = self.input.frame()? {
                match self.speech.decode(payload)? {
                    ServerMessage::Reply(_, Reply::Error(error)) => {
                        return Err(client::Error::Refused(Box::new(error)).into());
                    }
                    ServerMessage::Reply(_, reply) => return Ok(reply),
                    ServerMessage::Events(_) | ServerMessage::Push(_) => {}
                }
            }
            self.input.more().await?;
        }
    }
}

impl Input {
    /// Reads what is there. Cancel safe.
    pub(super) async fn more(&mut self) -> anyhow::Result<()> {
        self.shrink();
        loop {
            self.stream.readable().await?;
            let mut large = spare::take();
            large.extend_from_slice(&self.bytes);
            large.reserve(READ_BYTES / 2);
            match self.stream.try_read_buf(&mut large) {
                Ok(0) => return Err(CutOff("the broker hung up").into()),
                Ok(n) => {
                    self.received += n as u64;
                    self.bytes = large;
                    return Ok(());
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => spare::give(large),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How many bytes have come behind the handshake: messages, and what frames them.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Answers a ping, where one has come.
    pub(super) async fn answer_ping(&mut self, output: &mut OwnedWriteHalf) -> anyhow::Result<()> {
        let mut pong = Vec::new();
        self.pong_into(&mut pong);
        Ok(output.write_all(&pong).await?)
    }

    /// Appends the answer to a ping, where one has come: for who has frames under way.
    pub(super) fn pong_into(&mut self, out: &mut Vec<u8>) {
        const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
        if std::mem::take(&mut self.pinged) {
            out.extend_from_slice(&PONG);
        }
    }

    /// Gives the buffer back until more comes, but for the part of a frame.
    pub(super) fn shrink(&mut self) {
        let rest = self.bytes.get(self.start..).unwrap_or_default().to_vec();
        self.start = 0;
        spare::give(std::mem::replace(&mut self.bytes, rest));
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
                CLOSE => return Err(CutOff("the broker closed the socket").into()),
                other => bail!("an unexpected frame: {other:#x}"),
            }
        }
    }
}

/// Large buffers that the sockets of a thread share: each reads what is there and takes it apart at once. One for
/// each socket would be more memory than the caches hold, and what is measured would be that.
mod spare {
    use std::cell::RefCell;

    use super::READ_BYTES;

    /// How many are kept for later.
    const KEPT_MAX: usize = 4;

    thread_local! {
        static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    }

    /// An empty one with room for so much.
    pub(super) fn take() -> Vec<u8> {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        spare.unwrap_or_else(|| Vec::with_capacity(READ_BYTES))
    }

    /// Keeps it, where it is large and there are not enough.
    pub(super) fn give(mut buffer: Vec<u8>) {
        SPARE.with_borrow_mut(|spare| {
            if buffer.capacity() >= READ_BYTES && spare.len() < KEPT_MAX {
                buffer.clear();
                spare.push(buffer);
            }
        });
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

/// Appends a frame with a mask of zeros.
pub(super) fn frame_of(first: u8, payload: &[u8], out: &mut Vec<u8>) {
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
pub(super) fn authority(url: &str) -> anyhow::Result<String> {
    let rest = url
        .strip_prefix("http://")
        .context("give the broker as http://HOST:PORT: this load has no TLS")?;
    let authority = rest.trim_end_matches('/');
    Ok(match authority.contains(':') {
        true => authority.to_owned(),
        false => format!("{authority}:80"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_all_lengths_are_read() {
        for length in [0_usize, 125, 126, 65_535, 65_536] {
            let mut out = Vec::new();
            frame_of(TEXT, &vec![b'x'; length], &mut out);
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
}
