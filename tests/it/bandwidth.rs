//! What spares a reader's line: `max_bytes_per_second`, `max_data_bytes`; and durables that nobody uses.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::util::{
    Broker, eventually, http,
    sse::Sse,
    ws::{Socket, offsets},
};

async fn publish(socket: &mut Socket, count: usize, data_bytes: usize, key: &str) -> Vec<u64> {
    let event = json!({"topic": "a", "key": key, "data": "x".repeat(data_bytes)});
    let answer = socket.call("publish_batch", json!({ "events": vec![event; count] })).await;
    let results = answer["published_batch"]["results"].as_array().unwrap();
    results.iter().map(|result| result["offset"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn g3_a_slow_line_gets_all_at_its_rate_and_others_are_not_held_up() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let all = publish(&mut publisher, 60, 1000, "k").await;
    let mut socket = Socket::open(&broker.public).await;
    let begun = Instant::now();
    let slow = json!({"filters": ["a"], "after": 0, "max_bytes_per_second": 50_000});
    socket.subscribe(slow).await;
    socket.subscribe(json!({"filters": ["a"], "after": 0})).await;
    let (mut slow, mut fast, mut frames) = (Vec::new(), Vec::new(), 0);
    let mut fast_took = None;
    while slow.len() < 60 {
        let batch = socket.events().await;
        let events = offsets(batch["events"].as_array().unwrap());
        if batch["subscription"] == 1 {
            frames += 1;
            slow.extend(events);
        } else {
            fast.extend(events);
            fast_took = Some(begun.elapsed());
        }
    }
    let took = begun.elapsed();
    assert_eq!((&slow, &fast), (&all, &all));
    // 60 KB and more at 50 KB/s; the last batch is not followed by its time.
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert!(fast_took.unwrap() < took / 2, "the other waited too: {fast_took:?} of {took:?}");
    assert!((3..=10).contains(&frames), "{frames} frames");
}

#[tokio::test]
async fn g3_what_comes_again_keeps_to_the_rate_too() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let all = publish(&mut publisher, 60, 1000, "k").await;
    let path = "/v1/subscriptions/d";
    let options = json!({"filters": ["a"], "start": "first", "max_bytes_per_second": 50_000});
    assert_eq!(http::put_json(&broker.public, path, &options).await.status, 201);
    let post = async |call: &str, body: Value| {
        http::post_json(&broker.public, &format!("{path}/{call}"), &body).await.json()
    };
    let fetched = post("fetch", json!({"limit": 100})).await;
    assert_eq!(offsets(fetched["events"].as_array().unwrap()), all);
    post("nack", json!({"offsets": all, "delay_ms": 0})).await;
    let mut socket = Socket::open(&broker.public).await;
    let mut options = options;
    options["durable"] = json!("d");
    let begun = Instant::now();
    assert_eq!(socket.subscribe(options).await["durable"], "d");
    let mut got = Vec::new();
    while got.len() < all.len() {
        let batch = socket.events().await;
        let events = offsets(batch["events"].as_array().unwrap());
        assert!(events.len() <= 12, "{} events of a kilobyte in a batch", events.len());
        for offset in &events {
            assert_eq!(batch["attempts"][offset.to_string()], 2);
        }
        got.extend(events);
    }
    assert_eq!(got, all);
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    // What was looked at and had to wait was no delivery.
    let state = http::get(&broker.public, path).await.json();
    assert_eq!(state["redelivered"], 60, "{state}");
}

#[tokio::test]
async fn g3_on_a_slow_line_the_newest_state_comes_first() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let mut socket = Socket::open(&broker.public).await;
    let options = json!({"filters": ["a"], "conflate_ms": 10, "max_bytes_per_second": 4000});
    socket.subscribe(options).await;
    socket.expect("caught_up").await;
    let mut last = 0;
    for _ in 0..50 {
        last = *publish(&mut publisher, 4, 1000, "state").await.last().unwrap();
    }
    let mut got = Vec::new();
    while got.last() != Some(&last) {
        let batch = socket.events().await;
        got.extend(offsets(batch["events"].as_array().unwrap()));
    }
    // 200 states of a kilobyte would take 50 s: nearly all are passed over.
    assert!(got.len() <= 10, "{got:?}");
}

#[tokio::test]
async fn large_data_is_named_and_not_sent_on_every_door() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let small = publish(&mut publisher, 1, 10, "k").await[0];
    let large = publish(&mut publisher, 1, 5000, "k").await[0];
    let check = |events: &[Value], by: &str| {
        assert_eq!(offsets(events), [small, large], "{by}");
        assert_eq!(events[0]["data"], "x".repeat(10), "{by}");
        assert!(events[1]["data"].is_null(), "{by}");
        assert_eq!(events[1]["headers"]["dataref"], format!("/v1/events/{large}"), "{by}");
        assert_eq!(events[1]["key"], "k", "{by}");
    };
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"filters": ["a"], "after": 0, "max_data_bytes": 100})).await;
    check(&socket.take(2).await, "socket");
    let path = "/v1/topics/a/events?after=0&max_data_bytes=100";
    let read = http::get(&broker.public, path).await.json();
    check(read["events"].as_array().unwrap(), "read");
    let mut stream = Sse::open(&broker.public, path, &[]).await;
    let of_stream = [stream.event().await.unwrap().json(), stream.event().await.unwrap().json()];
    check(&of_stream, "stream");
    let durable =
        json!({"filters": ["a"], "durable": "d", "start": "first", "max_data_bytes": 100});
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(durable).await;
    check(&socket.take(2).await, "durable");
    let body = json!({});
    let fetched = http::post_json(&broker.public, "/v1/subscriptions/d/fetch", &body).await.json();
    check(fetched["events"].as_array().unwrap(), "fetch");
    // The reference leads to all of it.
    let whole = http::get(&broker.public, &format!("/v1/events/{large}")).await.json();
    assert_eq!(whole["data"], "x".repeat(5000));
    assert!(whole["headers"].is_null());
}

#[tokio::test]
async fn a_durable_that_nobody_uses_is_forgotten_and_that_is_told() {
    let broker = Broker::start();
    let mut audit = Socket::open(&broker.public).await;
    audit.subscribe(json!({"filters": ["$audit"], "after": 0})).await;
    let mut socket = Socket::open(&broker.public).await;
    let options = json!({"filters": ["a"], "durable": "d", "idle_expiry_ms": 1500});
    socket.subscribe(options).await;
    let kept = Socket::open(&broker.public)
        .await
        .subscribe(json!({"filters": ["a"], "durable": "kept"}))
        .await;
    assert_eq!(kept["durable"], "kept");
    let is_there = async || http::get(&broker.public, "/v1/subscriptions/d").await.status == 200;
    // As long as a session is there it stays, also far beyond the time.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(3500) {
        assert!(is_there().await);
        assert!(socket.call("ping", json!({})).await["pong"].is_object());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(socket);
    eventually("it is forgotten", async || !is_there().await).await;
    let told = audit.take(1).await;
    assert_eq!(told[0]["type"], "subscription.expired");
    assert_eq!(told[0]["data"]["durable"], "d");
    assert_eq!(http::get(&broker.public, "/v1/subscriptions/kept").await.status, 200);
}

#[tokio::test]
async fn what_is_out_of_range_is_refused_by_name() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    for (more, field) in [
        (json!({"max_bytes_per_second": 999}), "max_bytes_per_second"),
        (json!({"durable": "d", "idle_expiry_ms": 31_536_000_001_u64}), "idle_expiry_ms"),
        (json!({"idle_expiry_ms": 5}), "idle_expiry_ms"),
        (json!({"max_data_bytes": -1}), "subscribe.max_data_bytes"),
    ] {
        let mut options = json!({"filters": ["a"]});
        for (name, value) in more.as_object().unwrap() {
            options[name] = value.clone();
        }
        let error = socket.refused("subscribe", options).await;
        assert_eq!(error["code"], "invalid_argument");
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
    }
    for query in ["max_bytes_per_second=5000", "max_data_bytes=x"] {
        let read = http::get(&broker.public, &format!("/v1/topics/a/events?{query}")).await;
        assert_eq!(read.status, 400, "{query}");
    }
}
