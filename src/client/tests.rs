//! The client against a broker that says what the test tells it to; its WebSocket is another one
//! than ours.

use std::{future::Future, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tidings_proto::{Code, Filter, Filters, NewEvent, Offset, Topic, event::JSON};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::*;

const LOG: &str = "9f3c21d0-0000-4000-8000-000000000001";

/// Everything here is over in far less, unless it hangs.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it hangs")
}

struct Broker(TcpListener);

impl Broker {
    async fn start() -> (Broker, Options) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut options = Options::to(format!("http://{}", listener.local_addr().unwrap()));
        options.backoff_max_ms = 20;
        (Broker(listener), options)
    }

    /// The next connection, up to `connected`.
    async fn accept(&self) -> Peer {
        self.accept_with(25_000, 1 << 20).await
    }

    async fn accept_with(&self, ping_interval_ms: u64, max_message_bytes: u64) -> Peer {
        let (stream, _) = soon(self.0.accept()).await.unwrap();
        let subprotocol =
            |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
                let value = "tidings.v1.json".parse().unwrap();
                response.headers_mut().insert("sec-websocket-protocol", value);
                Ok(response)
            };
        let socket = tokio_tungstenite::accept_hdr_async(stream, subprotocol).await.unwrap();
        let mut peer = Peer(socket);
        let (id, connect) = peer.request("connect").await;
        assert!(connect["client"].as_str().unwrap().starts_with("tidings-rust/"));
        let connected = json!({
            "session": "s", "subject": "alice", "log": LOG, "first": 1, "last": 0, "server": "test",
            "ping_interval_ms": ping_interval_ms, "max_message_bytes": max_message_bytes,
        });
        peer.send(json!({ "reply": id, "connected": connected })).await;
        peer
    }

    /// A client and its first connection.
    async fn connected() -> (Broker, Client, Peer) {
        let (broker, options) = Broker::start().await;
        let (client, peer) = tokio::join!(Client::connect(options), broker.accept());
        (broker, client.unwrap(), peer)
    }
}

struct Peer(WebSocketStream<TcpStream>);

impl Peer {
    async fn message(&mut self) -> Value {
        loop {
            match soon(self.0.next()).await.unwrap().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next request, which must be of this kind: its id and what it asks for.
    async fn request(&mut self, kind: &str) -> (Value, Value) {
        let message = self.message().await;
        let asked = message.get(kind).unwrap_or_else(|| panic!("no {kind}: {message}"));
        (message["id"].clone(), asked.clone())
    }

    async fn send(&mut self, message: Value) {
        soon(self.0.send(Message::text(message.to_string()))).await.unwrap();
    }

    async fn published(&mut self, id: &Value, offset: u64) {
        self.send(json!({ "reply": id, "published": { "offset": offset, "id": "x" } })).await;
    }

    async fn subscribed(&mut self, number: u32, cursor: u64) -> Value {
        let (id, asked) = self.request("subscribe").await;
        let subscribed = json!({ "subscription": number, "cursor": cursor });
        self.send(json!({ "reply": id, "subscribed": subscribed })).await;
        asked
    }

    async fn events(&mut self, number: u32, after: u64, cursor: u64, offsets: &[u64]) {
        let event = |offset: &u64| {
            json!({
                "offset": offset, "topic": "a.b", "id": offset.to_string(), "type": "message",
                "source": "s", "time": "2026-11-21T05:16:00.123Z",
            })
        };
        let events: Vec<_> = offsets.iter().map(event).collect();
        let batch =
            json!({ "subscription": number, "after": after, "cursor": cursor, "events": events });
        self.send(json!({ "events": batch })).await;
    }

    async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "why".into() };
        self.0.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = soon(self.0.next()).await {}
    }
}

fn event(n: u64) -> Publish {
    let topic = Topic::parse("a.b").unwrap();
    Publish::of(NewEvent {
        datacontenttype: Some(JSON.to_owned()),
        data: Some(n.to_string().into()),
        ..NewEvent::on(topic)
    })
}

fn wish() -> SubscribeOptions {
    SubscribeOptions::to(Filters::one(Filter::parse("a.>").unwrap()))
}

fn offset(n: u64) -> Offset {
    Offset::new(n).unwrap()
}

async fn next_offset(subscription: &mut Subscription) -> u64 {
    match soon(subscription.next()).await.unwrap() {
        Delivery::Event { event, .. } => event.offset.get(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_lost_connection_gets_all_unanswered_again_in_order_under_the_same_ids() {
    let (broker, client, mut peer) = Broker::connected().await;
    let mut handles = Vec::new();
    for n in 1..=3 {
        handles.push(client.publish(event(n)).await.unwrap());
    }
    let mut ids = Vec::new();
    for n in 1..=3 {
        let (id, publish) = peer.request("publish").await;
        assert_eq!(publish["data"], n);
        ids.push(publish["id"].clone());
        if n == 1 {
            peer.published(&id, 1).await;
        }
    }
    let first = handles.remove(0);
    assert_eq!(first.id(), ids[0].as_str().unwrap());
    assert_eq!(soon(first).await.unwrap().offset.get(), 1);
    drop(peer);
    handles.push(client.publish(event(4)).await.unwrap());
    let mut peer = broker.accept().await;
    for n in 2..=4_u64 {
        let (id, publish) = peer.request("publish").await;
        assert_eq!(publish["data"], n);
        if let Some(before) = ids.get(usize::try_from(n).unwrap() - 1) {
            assert_eq!(publish["id"], *before, "the broker must recognise it");
        }
        peer.published(&id, n).await;
    }
    for (n, handle) in (2..).zip(handles) {
        assert_eq!(soon(handle).await.unwrap().offset.get(), n);
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again_from_there_on_and_what_does_not_is_said() {
    let (_broker, client, mut peer) = Broker::connected().await;
    let mut handles = Vec::new();
    let mut requests = Vec::new();
    for n in 1..=3 {
        handles.push(client.publish(event(n)).await.unwrap());
        requests.push(peer.request("publish").await.0);
    }
    let full = json!({
        "code": "unavailable", "message": "full", "retryable": true, "retry_after_ms": 30,
    });
    peer.send(json!({ "reply": requests[1], "error": full })).await;
    peer.send(json!({ "reply": requests[2], "error": full })).await;
    // Last, so that the others have been heard when its handle says no.
    let error = json!({ "code": "conflict", "message": "no", "retryable": false });
    peer.send(json!({ "reply": requests[0], "error": error })).await;
    let refused = soon(handles.remove(0)).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(error) if error.code == Code::Conflict));
    handles.push(client.publish(event(4)).await.unwrap());
    for n in 2..=4 {
        let (id, publish) = peer.request("publish").await;
        assert_eq!(publish["data"], n);
        peer.published(&id, n).await;
    }
    for handle in handles {
        soon(handle).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let (broker, options) = Broker::start().await;
    let (client, mut peer) =
        tokio::join!(Client::connect(options), broker.accept_with(25_000, 1_000));
    let client = client.unwrap();
    let mut large = event(1);
    large.event.data = Some(format!("\"{}\"", "x".repeat(1_000)).into());
    let large = client.publish(large).await.unwrap();
    let small = client.publish(event(2)).await.unwrap();
    let error = soon(large).await.unwrap_err();
    assert!(matches!(error, Error::Refused(error) if error.code == Code::TooLarge));
    let (id, publish) = peer.request("publish").await;
    assert_eq!(publish["data"], 2);
    peer.published(&id, 1).await;
    soon(small).await.unwrap();
}

#[tokio::test]
async fn a_subscription_goes_on_where_it_was_and_nothing_comes_twice() {
    let (broker, client, mut peer) = Broker::connected().await;
    let (subscription, asked) = tokio::join!(client.subscribe(wish()), peer.subscribed(1, 10));
    let mut subscription = subscription.unwrap();
    assert_eq!(asked, json!({ "filters": ["a.>"] }));
    peer.events(1, 10, 15, &[11, 14]).await;
    assert_eq!(next_offset(&mut subscription).await, 11);
    drop(peer);
    let mut peer = broker.accept().await;
    let asked = peer.subscribed(7, 15).await;
    assert_eq!(asked, json!({ "filters": ["a.>"], "after": 15, "log": LOG }));
    peer.events(7, 15, 16, &[14, 16]).await;
    assert_eq!(next_offset(&mut subscription).await, 14, "received before, taken now");
    assert_eq!(next_offset(&mut subscription).await, 16);
    // A batch that leaves a hole: everything from our own cursor is asked for again.
    peer.events(7, 18, 20, &[20]).await;
    assert_eq!(peer.request("unsubscribe").await.1, json!({ "subscription": 7 }));
    assert_eq!(peer.subscribed(8, 16).await["after"], 16);
    peer.events(8, 16, 20, &[17, 20]).await;
    assert_eq!(next_offset(&mut subscription).await, 17);
    peer.send(json!({ "caught_up": { "subscription": 8, "cursor": 20 } })).await;
    assert_eq!(next_offset(&mut subscription).await, 20);
    assert!(matches!(soon(subscription.next()).await.unwrap(), Delivery::CaughtUp(_)));
    drop(subscription);
    assert_eq!(peer.request("unsubscribe").await.1, json!({ "subscription": 8 }));
}

#[tokio::test]
async fn acks_of_a_durable_survive_the_connection_and_what_was_not_taken_comes_once() {
    let (broker, client, mut peer) = Broker::connected().await;
    let durable = SubscribeOptions { durable: Some("inbox".to_owned()), ..wish() };
    let (subscription, _) = tokio::join!(client.subscribe(durable), peer.subscribed(1, 0));
    let mut subscription = subscription.unwrap();
    peer.events(1, 0, 2, &[1, 2]).await;
    assert_eq!(next_offset(&mut subscription).await, 1);
    let acked = tokio::spawn(subscription.ack(offset(1)));
    let (_, ack) = peer.request("ack").await;
    assert_eq!(ack, json!({ "subscription": 1, "offset": 1 }));
    drop(peer);
    let mut peer = broker.accept().await;
    assert_eq!(peer.subscribed(4, 0).await["durable"], "inbox");
    let (id, ack) = peer.request("ack").await;
    assert_eq!(ack, json!({ "subscription": 4, "offset": 1 }));
    peer.send(json!({ "reply": id, "acked": { "subscription": 4, "cursor": 1 } })).await;
    assert_eq!(soon(acked).await.unwrap().unwrap().unwrap().get(), 1);
    peer.events(4, 0, 2, &[2]).await;
    assert_eq!(next_offset(&mut subscription).await, 2);
    peer.send(json!({ "superseded": { "subscription": 4 } })).await;
    assert_eq!(soon(subscription.next()).await.unwrap(), Delivery::Superseded);
    assert!(matches!(soon(subscription.next()).await, Err(Error::Ended)));
    assert!(matches!(
        soon(subscription.nack(vec![offset(2)], None, None)).await,
        Err(Error::Ended)
    ));
}

#[tokio::test]
async fn nobody_reads_while_nobody_takes_but_answers_are_not_held_up_for_ever() {
    let (_broker, client, mut peer) = Broker::connected().await;
    let (subscription, _) = tokio::join!(client.subscribe(wish()), peer.subscribed(1, 0));
    let mut subscription = subscription.unwrap();
    // More than the buffer and every buffer of the kernel hold.
    let mut sent = 0;
    loop {
        let offsets: Vec<u64> = (sent + 1..=sent + 100).collect();
        let sending = peer.events(1, sent, sent + 100, &offsets);
        if tokio::time::timeout(Duration::from_millis(500), sending).await.is_err() {
            break;
        }
        sent += 100;
        assert!(sent < 1_000_000, "the client reads without bound");
    }
    // Who waits for an answer before taking more gets it: the subscription makes way.
    let waiting = tokio::spawn(client.publish(event(1)).await.unwrap());
    let mut draining = tokio::spawn(async move {
        loop {
            let message = peer.message().await;
            if message.get("publish").is_some() {
                peer.published(&message["id"], 1).await;
            } else if message.get("subscribe").is_some() {
                return (message, peer);
            }
        }
    });
    soon(waiting).await.unwrap().unwrap();
    // Only when everything received has been taken the subscription comes back, behind it.
    let mut last = 0;
    let (message, mut peer) = loop {
        tokio::select! {
            biased;
            returned = &mut draining => break returned.unwrap(),
            next = next_offset(&mut subscription) => {
                assert_eq!(next, last + 1);
                last = next;
            }
        }
    };
    assert!(last >= 1_000);
    assert_eq!(message["subscribe"]["after"], last);
    let subscribed = json!({ "subscription": 2, "cursor": last });
    peer.send(json!({ "reply": message["id"], "subscribed": subscribed })).await;
    peer.events(2, last, last + 1, &[last + 1]).await;
    assert_eq!(next_offset(&mut subscription).await, last + 1);
}

#[tokio::test]
async fn a_silent_broker_is_asked_and_then_left() {
    let (broker, options) = Broker::start().await;
    let (client, mut peer) =
        tokio::join!(Client::connect(options), broker.accept_with(150, 1 << 20));
    let client = client.unwrap();
    assert_eq!(peer.message().await, json!({ "ping": {} }));
    peer.send(json!({ "pong": {} })).await;
    assert_eq!(
        peer.message().await,
        json!({ "ping": {} }),
        "it goes on as long as there are answers"
    );
    let _silent = peer;
    let mut peer = broker.accept().await;
    let handle = client.publish(event(1)).await.unwrap();
    let (id, _) = peer.request("publish").await;
    peer.published(&id, 1).await;
    soon(handle).await.unwrap();
}

#[tokio::test]
async fn a_goodbye_is_a_pause_and_a_refusal_the_end() {
    let (broker, client, mut peer) = Broker::connected().await;
    let goodbye = json!({ "code": "shutting_down", "reconnect_after_ms": 300 });
    peer.send(json!({ "goodbye": goodbye })).await;
    let since = clock::monotonic();
    peer.close(1001).await;
    let peer = broker.accept().await;
    assert!(clock::monotonic() - since >= Duration::from_millis(290));
    let handle = client.publish(event(1)).await.unwrap();
    let mut options = wish();
    options.durable = Some("inbox".to_owned());
    let subscribing = tokio::spawn({
        let client = client.clone();
        async move { client.subscribe(options).await }
    });
    peer.close(4503).await;
    assert!(matches!(soon(handle).await, Err(Error::ClosedByBroker { code: 4503, .. })));
    assert!(matches!(soon(subscribing).await.unwrap(), Err(Error::ClosedByBroker { .. })));
    soon(client.commands.closed()).await;
    let late = client.publish(event(2)).await;
    assert!(matches!(late, Err(Error::ClosedByBroker { .. })));
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_not_shown_again() {
    let (broker, mut options) = Broker::start().await;
    options.token = Some("secret".to_owned());
    let refuse = async {
        let (mut stream, _) = broker.0.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let bytes = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await.unwrap();
        let request = String::from_utf8(request[..bytes].to_vec()).unwrap();
        assert!(request.contains("authorization: Bearer secret"), "{request}");
        let body = r#"{"code":"unauthenticated","detail":"the token has expired"}"#;
        let answer = format!("HTTP/1.1 401 No\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await.unwrap();
    };
    let (client, ()) = soon(async { tokio::join!(Client::connect(options), refuse) }).await;
    let error = client.unwrap_err();
    assert_eq!(error.to_string(), "unauthenticated: the token has expired");
}

#[tokio::test]
async fn a_client_that_is_closed_says_so_to_both_sides() {
    let (_broker, client, mut peer) = Broker::connected().await;
    assert_eq!(client.connected().unwrap().subject, "alice");
    let handle = client.publish(event(1)).await.unwrap();
    peer.request("publish").await;
    let (closed, ()) = tokio::join!(
        async {
            loop {
                if let Message::Close(frame) = soon(peer.0.next()).await.unwrap().unwrap() {
                    break frame;
                }
            }
        },
        client.close()
    );
    assert_eq!(u16::from(closed.unwrap().code), 1000);
    assert!(matches!(soon(handle).await, Err(Error::Closed)));
    assert!(matches!(client.subscribe(wish()).await, Err(Error::Closed)));
}
