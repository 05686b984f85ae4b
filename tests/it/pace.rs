//! How live subscriptions are paced: `linger_ms` gathers, `conflate_ms` leaves out what a newer state has replaced.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use crate::util::{
    Broker, http,
    sse::Sse,
    ws::{Socket, offsets},
};

/// The longest there is: what comes well before it has not waited for it.
const LONG_MS: u64 = 10_000;
const LONG: Duration = Duration::from_millis(LONG_MS);

/// A live subscription to these topics, with these options more.
async fn live(broker: &Broker, filters: Value, more: Value) -> Socket {
    let mut options = more;
    options["filters"] = filters;
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(options).await;
    socket.expect("caught_up").await;
    socket
}

async fn put(broker: &Broker, options: Value) -> http::Answer {
    let headers = [("content-type", "application/json")];
    let body = options.to_string();
    http::request(&broker.public, Method::PUT, "/v1/subscriptions/d", &headers, body.as_bytes())
        .await
}

fn of(batch: &Value) -> Vec<u64> {
    offsets(batch["events"].as_array().unwrap())
}

#[tokio::test]
async fn what_lingers_is_sent_in_fewer_frames_and_all_of_it() {
    const EVENTS: usize = 250;
    let broker = Broker::start();
    let mut eager = live(&broker, json!(["terminals.*"]), json!({})).await;
    let mut patient = live(&broker, json!(["terminals.*"]), json!({"linger_ms": 200})).await;
    let address = broker.public.clone();
    let publisher = tokio::spawn(async move {
        let mut socket = Socket::open(&address).await;
        // The pace of a terminal.
        let mut every = tokio::time::interval(Duration::from_millis(4));
        for n in 0..EVENTS {
            every.tick().await;
            let event = json!({
                "topic": format!("terminals.{}", n % 2), "data": format!("line {n}\n"),
                "datacontenttype": "text/plain",
            });
            socket.publish(event).await;
        }
    });
    let mut frames = [0, 0];
    for (socket, frames) in [&mut eager, &mut patient].into_iter().zip(&mut frames) {
        let (mut next, mut cursor) = (0, Value::Null);
        while next < EVENTS {
            let batch = socket.events().await;
            assert!(cursor.is_null() || batch["after"] == cursor, "the chain is broken: {batch}");
            cursor = batch["cursor"].clone();
            *frames += 1;
            for event in batch["events"].as_array().unwrap() {
                assert_eq!(event["data"], format!("line {next}\n"));
                next += 1;
            }
        }
        assert_eq!(next, EVENTS);
    }
    publisher.await.unwrap();
    let [eager, patient] = frames;
    assert!(patient * 4 < eager, "{patient} frames that lingered, {eager} that did not");
}

#[tokio::test]
async fn a_batch_waits_its_time_and_no_longer() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let mut reader = live(&broker, json!(["a"]), json!({"linger_ms": 1500})).await;
    for round in 0..2 {
        let begun = Instant::now();
        let first = publisher.publish(json!({"topic": "a", "data": 1})).await;
        let second = publisher.publish(json!({"topic": "a", "data": 2})).await;
        assert_eq!(of(&reader.events().await), [first, second], "{round}");
        assert!(begun.elapsed() >= Duration::from_millis(1490), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn enough_events_enough_bytes_or_an_urgent_one_end_the_wait() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let patience = json!({"linger_ms": LONG_MS, "batch_max": 5});
    let mut few = live(&broker, json!(["few"]), patience).await;
    let mut large = live(&broker, json!(["large"]), json!({"linger_ms": LONG_MS})).await;
    let mut urgent = live(&broker, json!(["urgent.>"]), json!({"linger_ms": LONG_MS})).await;
    let options = json!({"linger_ms": LONG_MS, "types": ["x"], "batch_max": 5});
    let mut chosen = live(&broker, json!(["few", "urgent.>"]), options).await;
    let begun = Instant::now();
    for _ in 0..2 {
        let mut sent = Vec::new();
        for n in 0..5 {
            sent.push(publisher.publish(json!({"topic": "few", "data": n})).await);
        }
        assert_eq!(of(&few.events().await), sent);
        sent.clear();
        for n in 0..4 {
            let event = json!({"topic": "large", "data": format!("{n}{}", "x".repeat(9000))});
            sent.push(publisher.publish(event).await);
        }
        assert_eq!(of(&large.events().await), sent);
        sent.clear();
        for (topic, priority) in [("a", "normal"), ("b", "high"), ("c", "urgent")] {
            let event = json!({"topic": format!("urgent.{topic}"), "priority": priority});
            sent.push(publisher.publish(event).await);
        }
        assert_eq!(of(&urgent.events().await), sent);
    }
    // What is not wanted ends nobody's wait, be it urgent.
    let wanted = publisher.publish(json!({"topic": "few", "type": "x"})).await;
    publisher.publish(json!({"topic": "urgent.d", "priority": "urgent"})).await;
    assert!(chosen.so_far().await.is_empty());
    let hurry = json!({"topic": "urgent.d", "priority": "urgent", "type": "x"});
    let hurry = publisher.publish(hurry).await;
    assert_eq!(of(&chosen.events().await), [wanted, hurry]);
    assert!(begun.elapsed() < LONG, "it waited: {:?}", begun.elapsed());
}

#[tokio::test]
async fn catching_up_waits_for_nothing_and_streams_linger_too() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    for n in 1..=3 {
        publisher.publish(json!({"topic": "a", "data": n})).await;
    }
    let begun = Instant::now();
    let options = json!({"filters": ["a"], "after": 0, "linger_ms": LONG_MS});
    let mut reader = Socket::open(&broker.public).await;
    reader.subscribe(options).await;
    assert_eq!(of(&reader.expect("events").await), [1, 2, 3]);
    reader.expect("caught_up").await;
    let path = format!("/v1/topics/a/events?after=0&linger_ms={LONG_MS}");
    let mut stream = Sse::open(&broker.public, &path, &[]).await;
    for offset in 1..=3 {
        assert_eq!(stream.event().await.unwrap().cursor(), offset);
    }
    stream.named("tidings.caught_up").await;
    publisher.publish(json!({"topic": "a", "data": 4})).await;
    publisher.publish(json!({"topic": "a", "data": 5, "priority": "urgent"})).await;
    assert_eq!(of(&reader.events().await), [4, 5]);
    for offset in 4..=5 {
        assert_eq!(stream.event().await.unwrap().cursor(), offset);
    }
    assert!(begun.elapsed() < LONG, "it waited: {:?}", begun.elapsed());
    let answer = http::get(&broker.public, "/v1/topics/a/events?linger_ms=5").await;
    assert_eq!((answer.status.as_u16(), answer.text().contains("linger_ms")), (400, true));
}

#[tokio::test]
async fn a_durable_lingers_as_it_was_made_and_redelivers_at_once() {
    let broker = Broker::start();
    let options =
        json!({"filters": ["a"], "start": "first", "linger_ms": LONG_MS, "max_in_flight": 4});
    assert_eq!(put(&broker, options.clone()).await.status, 201);
    let mut publisher = Socket::open(&broker.public).await;
    let mut reader = Socket::open(&broker.public).await;
    let mut attach = options;
    attach["durable"] = json!("d");
    let mut other = attach.clone();
    other["linger_ms"] = json!(5);
    let error = reader.refused("subscribe", other).await;
    assert_eq!(error["code"], "conflict", "{error}");
    assert!(error["message"].as_str().unwrap().contains("linger_ms"), "{error}");
    reader.subscribe(attach).await;
    // Making it took an offset.
    reader.expect("events").await;
    reader.expect("caught_up").await;
    let begun = Instant::now();
    let mut sent = Vec::new();
    for n in 0..2 {
        sent.push(publisher.publish(json!({"topic": "a", "data": n})).await);
    }
    sent.push(publisher.publish(json!({"topic": "a", "priority": "urgent"})).await);
    assert_eq!(of(&reader.events().await), sent);
    reader.call("nack", json!({"subscription": 1, "offsets": [sent[1]]})).await;
    assert_eq!(of(&reader.events().await), [sent[1]], "what comes again does not linger");
    // There is room for one more: a batch that can get no larger is not kept back.
    let last = publisher.publish(json!({"topic": "a", "data": "last"})).await;
    assert_eq!(of(&reader.events().await), [last]);
    assert!(begun.elapsed() < LONG, "it waited: {:?}", begun.elapsed());
    reader.call("ack", json!({"subscription": 1, "offset": last})).await;
}
