//! The same protocol in Protobuf and MessagePack: negotiated, and with the same events, errors and bytes
//! as in JSON.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tidings_proto::{
    Cursor, Event, Filter, Filters, NewEvent, Offset, Position, Start, SubscribeOptions, Topic,
    WireError,
    message::{Ack, Publish, Push, Reply, Request, ServerMessage},
    subscribe::{After, Presence},
    wire::{json as wire_json, msgpack, protobuf},
};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

use crate::util::{Broker, PATIENCE, http, ws::Socket};

type Stream =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// An encoding in binary frames.
#[derive(Clone, Copy)]
struct Codec {
    subprotocol: &'static str,
    /// What a client offers, in its own order.
    offered: &'static str,
    encode: fn(Option<u32>, &Request, &mut Vec<u8>),
    decode: fn(&[u8]) -> Result<ServerMessage, WireError>,
}

const PROTOBUF: Codec = Codec {
    subprotocol: "tidings.v1.protobuf",
    offered: "tidings.v2.x, tidings.v1.json, tidings.v1.msgpack, tidings.v1.protobuf",
    encode: protobuf::encode_request,
    decode: protobuf::decode_server_message,
};

const MSGPACK: Codec = Codec {
    subprotocol: "tidings.v1.msgpack",
    offered: "tidings.v1.json, tidings.v1.msgpack",
    encode: msgpack::encode_request,
    decode: msgpack::decode_server_message,
};

/// A socket that speaks it.
struct Peer {
    codec: Codec,
    stream: Stream,
    /// The events that have come, and the cursor behind them.
    events: Vec<Event>,
    cursor: Cursor,
}

impl Peer {
    async fn open(broker: &Broker, codec: Codec) -> Peer {
        let mut request = format!("ws://{}/v1/ws", broker.public).into_client_request().unwrap();
        let offered = codec.offered.parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", offered);
        let (stream, response) = tokio_tungstenite::connect_async(request).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], codec.subprotocol);
        Peer { codec, stream, events: Vec::new(), cursor: Cursor::START }
    }

    async fn send(&mut self, frame: impl AsRef<[u8]>) {
        self.stream.send(Message::binary(frame.as_ref().to_vec())).await.unwrap();
    }

    /// The next frame; when the broker has closed, the code.
    async fn frame(&mut self) -> Result<Vec<u8>, Option<u16>> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.stream.next()).await;
            match message.expect("nothing came") {
                Some(Ok(Message::Binary(frame))) => return Ok(frame.to_vec()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next message; events are kept.
    async fn next(&mut self) -> ServerMessage {
        let frame = self.frame().await.unwrap();
        assert_eq!(frame[0], 0, "not said to be plain");
        let message = (self.codec.decode)(&frame[1..]).unwrap();
        if let ServerMessage::Events(batch) = &message {
            self.events.extend(batch.events.clone());
            self.cursor = batch.cursor.unwrap();
        }
        message
    }

    /// Sends a request and waits for its answer.
    async fn call(&mut self, request: Request) -> Reply {
        let mut frame = vec![0];
        (self.codec.encode)(Some(7), &request, &mut frame);
        self.send(frame).await;
        loop {
            if let ServerMessage::Reply(id, reply) = self.next().await {
                assert_eq!(id, 7);
                return reply;
            }
        }
    }

    /// Subscribes to the topic `a` from a cursor on.
    async fn subscribe(&mut self, after: Cursor) {
        let options = SubscribeOptions {
            after: Some(After(Position { cursor: after, log: None })),
            ..to_a()
        };
        let reply = self.call(Request::Subscribe(Box::new(options))).await;
        assert!(matches!(reply, Reply::Subscribed(_)), "{reply:?}");
    }

    async fn publish(&mut self, event: NewEvent) -> Offset {
        match self.call(Request::Publish(Box::new(Publish::of(event)))).await {
            Reply::Published(published) => published.offset,
            other => panic!("{other:?}"),
        }
    }

    /// Reads until so many events have come.
    async fn take(&mut self, count: usize) {
        while self.events.len() < count {
            self.next().await;
        }
    }
}

fn to_a() -> SubscribeOptions {
    SubscribeOptions::to(Filters::one(Filter::parse("a").unwrap()))
}

fn samples() -> Vec<NewEvent> {
    let topic = || Topic::parse("a").unwrap();
    let event = |kind: &str, data: &'static [u8]| NewEvent {
        datacontenttype: Some(kind.to_owned()),
        data: Some(bytes::Bytes::from_static(data)),
        key: Some("k".to_owned()),
        headers: [("traceparent".to_owned(), "00-ab".to_owned())].into(),
        ..NewEvent::on(topic())
    };
    vec![
        NewEvent::on(topic()),
        event("application/json", br#"{"b":1, "a" : [ 1.50 ,2e3]}"#),
        event("text/plain", "gr\u{fc}\u{df}e \u{1f600}".as_bytes()),
        event("image/png", b"\x89PNG\x00\xff"),
    ]
}

async fn events_are_those_of_json(codec: Codec) {
    let broker = Broker::start();
    let mut peer = Peer::open(&broker, codec).await;
    peer.subscribe(Cursor::START).await;
    for (n, event) in samples().into_iter().enumerate() {
        assert_eq!(peer.publish(event).await.get(), n as u64 + 1);
    }
    let batch = samples().into_iter().map(Publish::of).collect();
    let Reply::PublishedBatch { results } = peer.call(Request::PublishBatch(batch)).await else {
        panic!("refused")
    };
    assert_eq!(results.len(), 4);
    let mut json = Socket::open(&broker.public).await;
    json.publish(json!({"topic": "a", "data": {"from": "json"}, "priority": "high"})).await;
    peer.take(9).await;
    for event in &peer.events {
        let answer = http::get(&broker.public, &format!("/v1/events/{}", event.offset)).await;
        let other = wire_json::decode_event(&answer.text()).unwrap();
        assert_eq!(*event, other);
    }
}

#[tokio::test]
async fn events_are_the_same_in_protobuf_and_json() {
    events_are_those_of_json(PROTOBUF).await;
}

#[tokio::test]
async fn events_are_the_same_in_msgpack_and_json() {
    events_are_those_of_json(MSGPACK).await;
}

#[tokio::test]
async fn a_subscriber_resumes_in_another_encoding() {
    let broker = Broker::start();
    let mut publisher = Peer::open(&broker, MSGPACK).await;
    let mut cursor = Cursor::START;
    for (round, codec) in [MSGPACK, PROTOBUF, MSGPACK].into_iter().enumerate() {
        for event in samples() {
            publisher.publish(event).await;
        }
        let mut peer = Peer::open(&broker, codec).await;
        peer.subscribe(cursor).await;
        peer.take(4).await;
        let offsets: Vec<_> = peer.events.iter().map(|event| event.offset.get()).collect();
        let first = round as u64 * 4 + 1;
        assert_eq!(offsets, Vec::from_iter(first..first + 4));
        cursor = peer.cursor;
    }
}

async fn acks_move_the_cursor_of(codec: Codec) {
    let broker = Broker::start();
    let options =
        || SubscribeOptions { durable: Some("inbox".to_owned()), start: Start::First, ..to_a() };
    let mut peer = Peer::open(&broker, codec).await;
    for event in samples() {
        peer.publish(event).await;
    }
    let Reply::Subscribed(begun) = peer.call(Request::Subscribe(Box::new(options()))).await else {
        panic!("refused")
    };
    peer.take(4).await;
    let third = peer.events[2].offset;
    let ack = Ack {
        subscription: Some(begun.subscription),
        offset: Some(third),
        offsets: None,
        log: None,
    };
    let Reply::Acked(acked) = peer.call(Request::Ack(ack)).await else { panic!("refused") };
    assert_eq!(acked.cursor, third.cursor());
    // A session that takes it over goes on there, and the older one is told.
    let mut newer = Peer::open(&broker, codec).await;
    let Reply::Subscribed(begun) = newer.call(Request::Subscribe(Box::new(options()))).await else {
        panic!("refused")
    };
    assert_eq!(begun.last_acked, Some(third.cursor()));
    newer.take(1).await;
    assert_eq!(newer.events[0].offset, third.cursor().next());
    loop {
        if let ServerMessage::Push(Push::Superseded { .. }) = peer.next().await {
            break;
        }
    }
}

#[tokio::test]
async fn acks_in_protobuf_move_the_cursor() {
    acks_move_the_cursor_of(PROTOBUF).await;
}

#[tokio::test]
async fn acks_in_msgpack_move_the_cursor() {
    acks_move_the_cursor_of(MSGPACK).await;
}

/// Listed with data of every kind, and the list as the peer and HTTP give it.
async fn presence_is_that_of_json(codec: Codec) {
    let broker = Broker::start();
    let data = json!({"name": "Zoë", "n": [1, -2, 1.5, null, true], "deep": {"a": {}}});
    for (n, data) in [data, json!(null), json!("text")].into_iter().enumerate() {
        let mut peer = Peer::open(&broker, codec).await;
        let topic = Topic::parse(&format!("a.{n}")).unwrap();
        let filters = Filters::one(Filter::parse(topic.as_str()).unwrap());
        let presence = Some(Presence { data: data.clone() });
        let options = SubscribeOptions { presence, ..SubscribeOptions::to(filters) };
        let reply = peer.call(Request::Subscribe(Box::new(options))).await;
        assert!(matches!(reply, Reply::Subscribed(_)), "{reply:?}");
        let request = Request::Presence { topic: topic.clone() };
        let Reply::Presence(presence) = peer.call(request).await else { panic!("refused") };
        assert_eq!(presence.members[0].data, data);
        let answer = http::get(&broker.public, &format!("/v1/presence/{topic}")).await;
        assert_eq!(presence, serde_json::from_slice(&answer.body).unwrap());
        let own = Request::Presence { topic: Topic::parse("$presence.a").unwrap() };
        assert!(matches!(peer.call(own).await, Reply::Error(_)));
    }
}

#[tokio::test]
async fn presence_is_the_same_in_every_encoding() {
    presence_is_that_of_json(PROTOBUF).await;
    presence_is_that_of_json(MSGPACK).await;
}

async fn bad_frames_are_named(codec: Codec) {
    let broker = Broker::start();
    let mut peer = Peer::open(&broker, codec).await;
    // A compressed frame, nothing, and garbage: answered, and the socket lives.
    for frame in [&b"\x01abc"[..], b"", b"\x00", b"\x00\xff\xff\xff", b"\x00{\"ping\":{}}"] {
        peer.send(frame).await;
        match peer.next().await {
            ServerMessage::Push(Push::Error(error)) => {
                assert_eq!(error.code.as_str(), "invalid_argument");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(peer.call(Request::Ping).await, Reply::Pong {}));
    peer.stream.send(Message::text("{\"ping\":{}}")).await.unwrap();
    assert_eq!(peer.frame().await.unwrap_err(), Some(1003));
}

#[tokio::test]
async fn bad_frames_are_named_and_foreign_ones_end_the_socket() {
    bad_frames_are_named(PROTOBUF).await;
    bad_frames_are_named(MSGPACK).await;
}

/// Byte by byte as the specification of MessagePack has it, with none of our code on this side.
#[tokio::test]
async fn msgpack_is_what_other_implementations_write() {
    let broker = Broker::start();
    let mut peer = Peer::open(&broker, MSGPACK).await;
    peer.send(b"\x00\x82\xa2id\x05\xa4ping\x80").await;
    assert_eq!(peer.frame().await.unwrap(), b"\x00\x82\xa5reply\x05\xa4pong\x80");
    // Longer forms than needed, another order, and a text where the data is text.
    peer.send(
        b"\x00\xde\x00\x02\xd9\x07publish\x83\xa4data\xa2hi\xafdatacontenttype\xaatext/plain\
          \xa5topic\xdb\x00\x00\x00\x01a\xa2id\xcf\x00\x00\x00\x00\x00\x00\x00\x06",
    )
    .await;
    let frame = peer.frame().await.unwrap();
    assert!(
        frame.starts_with(b"\x00\x82\xa5reply\x06\xa9published\x82\xa6offset\x01\xa2id\xd9\x24")
    );
    let event = http::get(&broker.public, "/v1/events/1").await.json();
    assert_eq!(event["data"], "hi");
    // An error names the attribute and carries the id.
    peer.send(b"\x00\x82\xa2id\x07\xa7publish\x81\xa5topic\xc4\x01a").await;
    let ServerMessage::Reply(7, Reply::Error(error)) = peer.next().await else { panic!() };
    assert!(error.message.starts_with("publish.topic: "), "{error}");
}

#[tokio::test]
async fn the_encodings_are_told_and_chosen_in_our_order() {
    let broker = Broker::start();
    let capabilities = http::get(&broker.public, "/v1/capabilities").await.json();
    assert_eq!(capabilities["encodings"], json!(["protobuf", "msgpack", "json"]));
    let subprotocols = ["tidings.v1.protobuf", "tidings.v1.msgpack", "tidings.v1.json"];
    assert_eq!(capabilities["subprotocols"], json!(subprotocols));
}

async fn events_are_scheduled_and_cancelled(codec: Codec) {
    let broker = Broker::start();
    let mut peer = Peer::open(&broker, codec).await;
    let at = |text: &str| Publish {
        deliver_at: Some(text.parse().unwrap()),
        ..Publish::of(NewEvent { id: None, ..NewEvent::on(Topic::parse("a").unwrap()) })
    };
    let publish = Request::Publish(Box::new(at("2001-01-01T00:00:00Z")));
    let Reply::Scheduled(scheduled) = peer.call(publish).await else { panic!() };
    peer.subscribe(Cursor::START).await;
    while peer.events.is_empty() {
        peer.next().await;
    }
    assert_eq!(peer.events[0].id.as_str(), scheduled.id);
    let cancel = Request::Cancel { offset: scheduled.offset.into() };
    let Reply::Error(error) = peer.call(cancel).await else { panic!() };
    assert_eq!(error.code.as_str(), "conflict");
    let Reply::Error(error) =
        peer.call(Request::PublishBatch(vec![at("2001-01-01T00:00:00Z")])).await
    else {
        panic!()
    };
    assert!(error.message.starts_with("events[0].deliver_at: "), "{error}");
    let tomorrow = crate::scheduled::in_ms(crate::scheduled::DAY_MS);
    let Reply::Scheduled(scheduled) = peer.call(Request::Publish(Box::new(at(&tomorrow)))).await
    else {
        panic!()
    };
    let cancel = Request::Cancel { offset: scheduled.offset.into() };
    assert_eq!(peer.call(cancel).await, Reply::Cancelled { offset: scheduled.offset });
}

#[tokio::test]
async fn events_are_scheduled_and_cancelled_in_every_encoding() {
    events_are_scheduled_and_cancelled(PROTOBUF).await;
    events_are_scheduled_and_cancelled(MSGPACK).await;
}
