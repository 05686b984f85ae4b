//! The same protocol in Protobuf: negotiated, and with the same events, errors and bytes as in JSON.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tidings_proto::{
    Cursor, Event, Filter, NewEvent, Position, SubscribeOptions, Topic,
    message::{Publish, Reply, Request, ServerMessage},
    subscribe::After,
    wire::{json as wire_json, protobuf},
};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

use crate::util::{Broker, PATIENCE, http, ws::Socket};

type Stream =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// A socket that speaks Protobuf.
async fn open(broker: &Broker) -> Stream {
    let mut request = format!("ws://{}/v1/ws", broker.public).into_client_request().unwrap();
    let offered = "tidings.v2.x, tidings.v1.protobuf, tidings.v1.json".parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", offered);
    let (stream, response) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "tidings.v1.protobuf");
    stream
}

async fn send(stream: &mut Stream, id: u32, request: &Request) {
    let mut frame = vec![0];
    protobuf::encode_request(Some(id), request, &mut frame);
    stream.send(Message::binary(frame)).await.unwrap();
}

/// The next message; `None` when the broker has closed, with the code.
async fn next(stream: &mut Stream) -> Result<ServerMessage, Option<u16>> {
    loop {
        let message = tokio::time::timeout(PATIENCE, stream.next()).await.expect("nothing came");
        match message {
            Some(Ok(Message::Binary(frame))) => {
                assert_eq!(frame[0], 0, "not said to be plain");
                return Ok(protobuf::decode_server_message(&frame[1..]).unwrap());
            }
            Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The answer to a request; events are kept in `events`.
async fn answer(stream: &mut Stream, events: &mut Vec<Event>) -> Reply {
    loop {
        match next(stream).await.unwrap() {
            ServerMessage::Reply(_, reply) => return reply,
            ServerMessage::Events(batch) => events.extend(batch.events),
            ServerMessage::Push(_) => {}
        }
    }
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

#[tokio::test]
async fn events_are_the_same_in_protobuf_and_json() {
    let broker = Broker::start();
    let mut stream = open(&broker).await;
    let mut events = Vec::new();
    let options = SubscribeOptions::to(tidings_proto::Filters::one(Filter::parse("a").unwrap()));
    let options = SubscribeOptions {
        after: Some(After(Position { cursor: Cursor::START, log: None })),
        ..options
    };
    send(&mut stream, 1, &Request::Subscribe(Box::new(options))).await;
    assert!(matches!(answer(&mut stream, &mut events).await, Reply::Subscribed(_)));
    for (n, event) in samples().into_iter().enumerate() {
        let publish = Request::Publish(Box::new(Publish::of(event)));
        send(&mut stream, 2, &publish).await;
        let Reply::Published(published) = answer(&mut stream, &mut events).await else {
            panic!("refused")
        };
        assert_eq!(published.offset.get(), n as u64 + 1);
    }
    let mut json = Socket::open(&broker.public).await;
    json.publish(json!({"topic": "a", "data": {"from": "json"}, "priority": "high"})).await;
    while events.len() < 5 {
        if let ServerMessage::Events(batch) = next(&mut stream).await.unwrap() {
            events.extend(batch.events);
        }
    }
    for event in &events {
        let answer = http::get(&broker.public, &format!("/v1/events/{}", event.offset)).await;
        let other = wire_json::decode_event(&answer.text()).unwrap();
        assert_eq!(*event, other);
    }
}

#[tokio::test]
async fn bad_frames_are_named_and_foreign_ones_end_the_socket() {
    let broker = Broker::start();
    let mut stream = open(&broker).await;
    // A compressed frame, nothing, and garbage: answered, and the socket lives.
    for frame in [&b"\x01abc"[..], b"", b"\x00\xff\xff\xff"] {
        stream.send(Message::binary(frame.to_vec())).await.unwrap();
        match next(&mut stream).await.unwrap() {
            ServerMessage::Push(tidings_proto::message::Push::Error(error)) => {
                assert_eq!(error.code.as_str(), "invalid_argument");
            }
            other => panic!("{other:?}"),
        }
    }
    send(&mut stream, 9, &Request::Ping).await;
    assert!(matches!(answer(&mut stream, &mut Vec::new()).await, Reply::Pong {}));
    stream.send(Message::text("{\"ping\":{}}")).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap_err(), Some(1003));
    let capabilities = http::get(&broker.public, "/v1/capabilities").await.json();
    assert_eq!(capabilities["encodings"], json!(["json", "protobuf"]));
}
