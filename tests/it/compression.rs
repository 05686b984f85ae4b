//! Batches of events that are compressed: for whoever asks, once for all, and with the same events in them.

use std::process::Stdio;

use serde_json::json;
use tidings_proto::{
    Cursor, Event, Filter, Filters, Position, SubscribeOptions,
    message::{Connect, Reply, Request, ServerMessage},
    subscribe::After,
};

use crate::util::{
    Broker, http,
    peer::{Peer, Speech},
    ws::Socket,
};

const EVENTS: usize = 500;

/// A broker with so many events like those of a log file.
async fn filled() -> Broker {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    for first in (0..EVENTS).step_by(100) {
        let events = (first..first + 100).map(|n| {
            let line =
                format!("2026-11-21T05:16:{:02} INFO request {n} done in {} ms", n % 60, n % 7);
            json!({"topic": "logs.web", "type": "line", "data": {"line": line, "host": "web-7"}})
        });
        let events: Vec<_> = events.collect();
        socket.call("publish_batch", json!({ "events": events })).await;
    }
    broker
}

async fn subscribe(peer: &mut Peer, filter: &str) {
    let filters = Filters::one(Filter::parse(filter).unwrap());
    let after = Some(After(Position { cursor: Cursor::START, log: None }));
    let options = SubscribeOptions { after, ..SubscribeOptions::to(filters) };
    let reply = peer.call(&Request::Subscribe(Box::new(options))).await.unwrap();
    assert!(matches!(reply, Reply::Subscribed(_)), "{reply:?}");
}

/// The events that there are at first.
async fn read_all(peer: &mut Peer, filter: &str) -> Vec<Event> {
    subscribe(peer, filter).await;
    let mut events = Vec::new();
    let mut cursor = Cursor::START;
    while events.len() < EVENTS {
        let batch = peer.events().await.unwrap();
        assert_eq!(batch.after, Some(cursor));
        cursor = batch.cursor.unwrap();
        events.extend(batch.events);
    }
    events.truncate(EVENTS);
    events
}

/// A counter of the broker.
async fn counter(broker: &Broker, series: &str) -> u64 {
    let metrics = http::get(&broker.admin, "/metrics").await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{series} ")));
    line.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

#[tokio::test]
async fn batches_come_compressed_with_the_same_events_in_every_encoding() {
    let broker = filled().await;
    let mut plain = Peer::open(&broker.public, Speech::Json, false).await.unwrap();
    let events = read_all(&mut plain, "logs.web").await;
    assert_eq!(plain.compressed, 0, "nobody asked");
    for speech in Speech::ALL {
        let mut whole = Peer::open(&broker.public, speech, false).await.unwrap();
        read_all(&mut whole, "logs.web").await;
        let mut peer = Peer::open(&broker.public, speech, true).await.unwrap();
        assert!(read_all(&mut peer, "logs.web").await == events, "{speech:?}");
        assert!(peer.compressed >= EVENTS / 256, "{speech:?}: {} batches", peer.compressed);
        let (bytes, of) = (peer.bytes, whole.bytes);
        assert!(3 * bytes < of, "{speech:?}: {bytes} bytes instead of {of}");
        // What comes alone is too small.
        let before = peer.compressed;
        Socket::open(&broker.public).await.publish(json!({"topic": "logs.web"})).await;
        loop {
            if let Some(event) = peer.events().await.unwrap().events.first() {
                assert!(event.data.is_none());
                break;
            }
        }
        assert_eq!(peer.compressed, before);
    }
}

#[tokio::test]
async fn a_batch_is_compressed_once_for_all_who_get_it() {
    const READERS: u64 = 20;
    let broker = filled().await;
    let made = "tidings_compressed_batches_total{result=\"made\"}";
    let mut batches = 0;
    for n in 0..READERS {
        let mut peer = Peer::open(&broker.public, Speech::Protobuf, true).await.unwrap();
        // Another filter, but the same events.
        read_all(&mut peer, if n % 2 == 0 { "logs.web" } else { "logs.>" }).await;
        batches = peer.compressed as u64;
    }
    assert_eq!(counter(&broker, made).await, batches);
    let shared = counter(&broker, "tidings_compressed_batches_total{result=\"shared\"}").await;
    assert_eq!(shared, (READERS - 1) * batches);
    assert!(counter(&broker, "tidings_compression_saved_bytes_total").await > READERS * 10_000);
}

#[tokio::test]
async fn the_answer_to_connect_says_from_where_on_it_is_compressed() {
    let broker = filled().await;
    let capabilities = http::get(&broker.public, "/v1/capabilities").await.json();
    assert_eq!(capabilities["compress"], json!(["deflate-raw"]));
    // What is not known is passed over.
    let mut socket = Socket::open(&broker.public).await;
    for (asked, chosen) in [
        (json!(["zstd", "deflate-raw"]), json!("deflate-raw")),
        (json!(["zstd"]), json!(null)),
        (json!([]), json!(null)),
    ] {
        let answer = socket.call("connect", json!({ "compress": asked })).await;
        assert_eq!(answer["connected"]["compress"], chosen);
    }
    // The last answer holds.
    let mut peer = Peer::open(&broker.public, Speech::Msgpack, true).await.unwrap();
    read_all(&mut peer, "logs.web").await;
    let before = peer.compressed;
    assert!(before > 0);
    while !matches!(peer.next().await.unwrap(), ServerMessage::Push(_)) {}
    let none = Connect { token: None, client: None, compress: Vec::new() };
    let reply = peer.call(&Request::Connect(none)).await.unwrap();
    assert!(matches!(reply, Reply::Connected(connected) if connected.compress.is_none()));
    read_all(&mut peer, "logs.>").await;
    assert_eq!(peer.compressed, before);
}

#[tokio::test]
async fn the_command_and_the_client_write_the_same_with_compression() {
    let broker = filled().await;
    let read = |more: &[&str]| {
        let mut command = broker.cli(&["sub", "logs.>", "--after", "first", "--until-caught-up"]);
        command.args(["--output", "json"]).args(more).stderr(Stdio::inherit());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let plain = read(&[]);
    assert_eq!(plain.lines().count(), EVENTS);
    let made = "tidings_compressed_batches_total{result=\"made\"}";
    assert_eq!(counter(&broker, made).await, 0);
    assert_eq!(read(&["--compress"]), plain);
    assert!(counter(&broker, made).await >= 2);
}
