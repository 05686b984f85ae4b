//! A socket in any encoding, compressed or not: frames by tokio-tungstenite, messages by the protocol's own crate.

use futures_util::{SinkExt, StreamExt};
use tidings_proto::{
    WireError,
    message::{Connect, Events, Reply, Request, ServerMessage},
    wire::{json, msgpack, protobuf},
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::PATIENCE;

/// The most bytes that a compressed batch may have without its compression.
const INFLATED_BYTES_MAX: usize = 1 << 20;

/// How the messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    Json,
    Msgpack,
    Protobuf,
}

impl Speech {
    pub const ALL: [Speech; 3] = [Speech::Json, Speech::Msgpack, Speech::Protobuf];

    fn subprotocol(self) -> &'static str {
        match self {
            Speech::Json => "tidings.v1.json",
            Speech::Msgpack => "tidings.v1.msgpack",
            Speech::Protobuf => "tidings.v1.protobuf",
        }
    }

    fn frame(self, id: u32, request: &Request) -> Message {
        let mut out = if self == Speech::Json { Vec::new() } else { vec![0] };
        match self {
            Speech::Json => json::encode_request(Some(id), request, &mut out),
            Speech::Msgpack => msgpack::encode_request(Some(id), request, &mut out),
            Speech::Protobuf => protobuf::encode_request(Some(id), request, &mut out),
        }
        match self {
            Speech::Json => Message::text(String::from_utf8(out).unwrap()),
            Speech::Msgpack | Speech::Protobuf => Message::binary(out),
        }
    }

    fn decode(self, plain: &[u8]) -> Result<ServerMessage, WireError> {
        match self {
            Speech::Json => json::decode_server_message(std::str::from_utf8(plain).unwrap()),
            Speech::Msgpack => msgpack::decode_server_message(plain),
            Speech::Protobuf => protobuf::decode_server_message(plain),
        }
    }

    fn decode_compressed(self, frame: &[u8]) -> Result<Events, WireError> {
        match self {
            Speech::Json => json::decode_compressed(frame, INFLATED_BYTES_MAX),
            Speech::Msgpack => msgpack::decode_compressed(frame, INFLATED_BYTES_MAX),
            Speech::Protobuf => protobuf::decode_compressed(frame, INFLATED_BYTES_MAX),
        }
    }
}

pub struct Peer {
    speech: Speech,
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    last_id: u32,
    /// How many batches have come compressed, and the bytes of all frames.
    pub compressed: usize,
    pub bytes: usize,
}

impl Peer {
    /// A socket on which the broker has said `connected`; `None` when the connection was cut before.
    pub async fn open(address: &str, speech: Speech, compress: bool) -> Option<Peer> {
        let mut request = format!("ws://{address}/v1/ws").into_client_request().unwrap();
        let offered = speech.subprotocol().parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", offered);
        let (stream, _) = tokio_tungstenite::connect_async(request).await.ok()?;
        let mut peer = Peer { speech, stream, last_id: 0, compressed: 0, bytes: 0 };
        let compress = if compress { vec!["deflate-raw".to_owned()] } else { Vec::new() };
        let chosen = compress.first().cloned();
        let connect = Connect { token: None, client: None, compress };
        let Reply::Connected(connected) = peer.call(&Request::Connect(connect)).await? else {
            panic!("it was not let in")
        };
        assert_eq!(connected.compress, chosen);
        Some(peer)
    }

    /// A request and its answer; what comes before it must be nothing. `None` when the connection was cut.
    pub async fn call(&mut self, request: &Request) -> Option<Reply> {
        self.last_id += 1;
        self.stream.send(self.speech.frame(self.last_id, request)).await.ok()?;
        match self.next().await? {
            ServerMessage::Reply(id, reply) if id == self.last_id => Some(reply),
            other => panic!("no answer: {other:?}"),
        }
    }

    /// The next message; `None` when the connection has ended or was cut.
    pub async fn next(&mut self) -> Option<ServerMessage> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.stream.next()).await;
            let message = next.expect("nothing came in time")?.ok()?;
            self.bytes += message.len();
            return Some(match (message, self.speech) {
                (Message::Text(text), Speech::Json) => self.speech.decode(text.as_bytes()).unwrap(),
                (Message::Binary(frame), speech) if frame[0] == 1 => {
                    self.compressed += 1;
                    ServerMessage::Events(speech.decode_compressed(&frame).unwrap())
                }
                (Message::Binary(frame), Speech::Msgpack | Speech::Protobuf) => {
                    assert_eq!(frame[0], 0);
                    self.speech.decode(&frame[1..]).unwrap()
                }
                (Message::Ping(_) | Message::Pong(_), _) => continue,
                (Message::Close(_), _) => return None,
                (other, speech) => panic!("{other:?} of a socket that speaks {speech:?}"),
            });
        }
    }

    /// The next batch of events; what is said besides is passed over.
    pub async fn events(&mut self) -> Option<Events> {
        loop {
            if let ServerMessage::Events(events) = self.next().await? {
                return Some(events);
            }
        }
    }
}
