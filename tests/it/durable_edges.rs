//! Durable subscriptions where it is tight: full windows, changed options, mirrors with holes, large events.

use hyper::Method;
use serde_json::{Value, json};

use crate::util::{
    Broker, http,
    ws::{Socket, offsets},
};

async fn attach(broker: &Broker, options: Value) -> (Socket, Value) {
    let mut socket = Socket::open(&broker.public).await;
    let subscribed = socket.subscribe(options).await;
    (socket, subscribed)
}

async fn put(broker: &Broker, name: &str, options: Value) {
    let path = format!("/v1/subscriptions/{name}");
    let headers = [("content-type", "application/json")];
    let body = options.to_string();
    let answer = http::request(&broker.public, Method::PUT, &path, &headers, body.as_bytes()).await;
    assert!(answer.status.is_success(), "{}", answer.text());
}

async fn post(broker: &Broker, path: &str, body: Value) -> Value {
    let answer = http::post_json(&broker.public, &format!("/v1/subscriptions/{path}"), &body).await;
    assert!(answer.status.is_success(), "{}", answer.text());
    answer.json()
}

async fn floor(broker: &Broker, name: &str) -> u64 {
    let state = http::get(&broker.public, &format!("/v1/subscriptions/{name}")).await.json();
    state["cursor"].as_u64().unwrap()
}

#[tokio::test]
async fn a_window_full_of_nacked_events_opens_again_after_a_restart() {
    let mut broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let first = publisher.publish(json!({"topic": "a", "data": 1})).await;
    let options = json!({"durable": "d", "filters": ["a"], "start": "first", "max_in_flight": 1});
    let (mut socket, _) = attach(&broker, options.clone()).await;
    for attempts in [Value::Null, json!({first.to_string(): 2})] {
        let batch = socket.events().await;
        assert_eq!(batch["attempts"], attempts);
        let nack = json!({"subscription": 1, "offsets": [first]});
        assert!(socket.call("nack", nack).await["nacked"].is_object());
    }
    broker.kill();
    broker.restart();
    let (mut socket, _) = attach(&broker, options).await;
    let batch = socket.events().await;
    assert_eq!(offsets(batch["events"].as_array().unwrap()), [first]);
    assert!(batch["attempts"][first.to_string()].as_u64().unwrap() >= 3, "{batch}");
}

#[tokio::test]
async fn the_delay_of_a_first_nack_holds_over_a_restart() {
    let mut broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let slow = publisher.publish(json!({"topic": "a", "data": 1})).await;
    let options = json!({"durable": "d", "filters": ["a"], "start": "first"});
    let (mut socket, _) = attach(&broker, options.clone()).await;
    assert_eq!(offsets(&socket.take(1).await), [slow]);
    let nack = json!({"subscription": 1, "offsets": [slow], "delay_ms": 3_600_000});
    assert!(socket.call("nack", nack).await["nacked"].is_object());
    let refused = socket
        .refused("nack", json!({"subscription": 1, "offsets": [slow], "delay_ms": 86_400_001}))
        .await;
    assert_eq!(refused["code"], "invalid_argument");
    broker.kill();
    broker.restart();
    let (mut socket, _) = attach(&broker, options).await;
    let mut publisher = Socket::open(&broker.public).await;
    let next = publisher.publish(json!({"topic": "a", "data": 2})).await;
    assert_eq!(offsets(&socket.take(1).await), [next], "the delayed one came at once");
}

#[tokio::test]
async fn a_late_ack_of_a_session_from_before_a_change_moves_no_floor_back() {
    let mut broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    for n in 1..=20 {
        publisher.publish(json!({"topic": "a", "data": n})).await;
    }
    let options = json!({"durable": "d", "filters": ["a"], "start": "first"});
    let (mut early, _) = attach(&broker, options).await;
    early.take(20).await;
    early.call("ack", json!({"subscription": 1, "offset": 5})).await;
    let changed = json!({"filters": ["a"], "start": "first", "ack_wait_ms": 1000});
    put(&broker, "d", changed).await;
    early.expect("caught_up").await;
    early.expect("superseded").await;
    assert!(floor(&broker, "d").await >= 5, "the change took an ack back");
    let options = json!({"durable": "d", "filters": ["a"], "start": "first", "ack_wait_ms": 1000});
    let (mut late, _) = attach(&broker, options).await;
    late.take(15).await;
    let answer = late.call("ack", json!({"subscription": 1, "offset": 20})).await;
    let reached = answer["acked"]["cursor"].as_u64().unwrap();
    assert!(reached >= 20, "{answer}");
    let answer = early.call("ack", json!({"subscription": 1, "offset": 7})).await;
    assert_eq!(answer["error"]["code"], "not_found", "{answer}");
    broker.kill();
    broker.restart();
    assert_eq!(floor(&broker, "d").await, reached);
}

#[tokio::test]
async fn single_acks_of_a_mirror_move_its_floor_over_what_does_not_match() {
    let mut broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let mut mine = Vec::new();
    for n in 0..60 {
        let topic = if n % 3 == 0 { "mine" } else { "others" };
        let offset = publisher.publish(json!({"topic": topic, "data": n})).await;
        if n % 3 == 0 {
            mine.push(offset);
        }
    }
    let options =
        json!({"durable": "inbox", "filters": ["mine"], "start": "first", "mode": "mirror"});
    let (mut one, _) = attach(&broker, options.clone()).await;
    let (mut other, _) = attach(&broker, options.clone()).await;
    one.take(20).await;
    other.take(20).await;
    other.expect("caught_up").await;
    // All but the third, newest first: the floor stays before the third.
    for offset in mine.iter().rev().filter(|offset| **offset != mine[2]) {
        let ack = json!({"subscription": 1, "offsets": [offset]});
        assert!(one.call("ack", ack).await["acked"].is_object());
    }
    assert_eq!(floor(&broker, "inbox").await, mine[2] - 1);
    let answer = one.call("ack", json!({"subscription": 1, "offsets": [mine[2]]})).await;
    let end = answer["acked"]["cursor"].as_u64().unwrap();
    assert!(end >= mine[19], "{answer}");
    // The other tab is told, and what it is told is on the disk.
    while other.expect("acked").await["cursor"].as_u64().unwrap() < end {}
    broker.kill();
    broker.restart();
    assert!(floor(&broker, "inbox").await >= mine[19]);
    let (mut again, _) = attach(&broker, options).await;
    loop {
        let message = again.push().await;
        assert!(message["events"]["events"].as_array().is_none_or(Vec::is_empty), "{message}");
        if message["caught_up"].is_object() {
            break;
        }
    }
}

#[tokio::test]
async fn what_was_delivered_under_wider_filters_does_not_come_again_under_narrower_ones() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    publisher.publish(json!({"topic": "secret", "data": 1})).await;
    let open = publisher.publish(json!({"topic": "open", "data": 2})).await;
    let wide = json!({"durable": "d", "filters": ["secret", "open"], "start": "first"});
    let (mut socket, _) = attach(&broker, wide).await;
    socket.take(2).await;
    put(&broker, "d", json!({"filters": ["open"], "start": "first"})).await;
    let narrow = json!({"durable": "d", "filters": ["open"], "start": "first"});
    let (mut socket, _) = attach(&broker, narrow).await;
    assert_eq!(offsets(&socket.take(1).await), [open]);
    socket.call("ack", json!({"subscription": 1, "offsets": [open]})).await;
    assert!(floor(&broker, "d").await >= open, "the other one holds the floor");
}

#[tokio::test]
async fn redelivery_and_fetches_of_large_events_come_in_bounded_batches() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    for n in 0..40 {
        publisher
            .publish(json!({"topic": "a", "data": format!("{n}{}", "x".repeat(100_000))}))
            .await;
    }
    let options = json!({"durable": "d", "filters": ["a"], "start": "first", "batch_max": 1000});
    for _ in 0..2 {
        // The second session is given everything again.
        let (mut socket, _) = attach(&broker, options.clone()).await;
        let mut count = 0;
        while count < 40 {
            let text = socket.next_text().await;
            assert!(text.len() < 250_000, "one message of {} bytes", text.len());
            let message: Value = serde_json::from_str(&text).unwrap();
            count += message["events"]["events"].as_array().map_or(0, Vec::len);
        }
    }
    let fetched = post(&broker, "d/fetch", json!({"limit": 1000})).await;
    let count = fetched["events"].as_array().unwrap().len();
    assert!((5..20).contains(&count), "{count} events of 100 kB in one answer");
    let offsets = offsets(fetched["events"].as_array().unwrap());
    post(&broker, "d/ack", json!({"offsets": offsets})).await;
    let more = post(&broker, "d/fetch", json!({"limit": 1000})).await;
    assert!(!more["events"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_search_for_what_is_rare_says_how_far_it_is_and_lets_others_speak() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    for _ in 0..20 {
        let events: Vec<Value> = (0..1000).map(|n| json!({"topic": "a", "data": n})).collect();
        assert!(
            publisher.call("publish_batch", json!({"events": events})).await["published_batch"]
                .is_object()
        );
    }
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"filters": [">"], "types": ["rare"], "after": 0})).await;
    let mut cursors = Vec::new();
    loop {
        let message = socket.push().await;
        if message["caught_up"].is_object() {
            break;
        }
        assert_eq!(message["events"]["events"].as_array().unwrap().len(), 0);
        cursors.push(message["events"]["cursor"].as_u64().unwrap());
    }
    assert!(cursors.len() > 2 && cursors.is_sorted(), "{cursors:?}");
    // A read of one page looks at so much and says where it is.
    let mut after = 0;
    let mut reads = 0;
    while after < 20_000 {
        let path = format!("/v1/topics/a/events?types=rare&limit=1&after={after}");
        let page = http::get(&broker.public, &path).await.json();
        assert!(page["events"].as_array().unwrap().is_empty());
        after = page["cursor"].as_u64().unwrap();
        reads += 1;
    }
    assert!(reads < 10, "{reads} reads");
}

#[tokio::test]
async fn a_log_that_is_not_ours_is_noticed_by_acks() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    publisher.publish(json!({"topic": "a", "data": 1})).await;
    let options = json!({"durable": "d", "filters": ["a"], "start": "first"});
    let (mut socket, _) = attach(&broker, options).await;
    socket.take(1).await;
    let ack =
        json!({"subscription": 1, "offset": 1, "log": "00000000-0000-0000-0000-000000000000"});
    assert_eq!(socket.refused("ack", ack).await["code"], "offset_gone");
    assert_eq!(floor(&broker, "d").await, 0);
}

#[tokio::test]
async fn two_who_make_a_durable_at_the_same_time_are_both_attached() {
    let broker = Broker::start();
    let mut sockets = (Socket::open(&broker.public).await, Socket::open(&broker.public).await);
    for n in 0..100 {
        let topic = format!("a.{n}");
        let options = json!({"durable": format!("d{n}"), "filters": [topic], "mode": "mirror"});
        let (one, other) = &mut sockets;
        tokio::join!(one.subscribe(options.clone()), other.subscribe(options));
        let offset = one.publish(json!({"topic": topic})).await;
        assert_eq!(offsets(&one.take(1).await), [offset]);
        assert_eq!(offsets(&other.take(1).await), [offset]);
    }
}
