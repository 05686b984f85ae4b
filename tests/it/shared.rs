//! Durable subscriptions whose sessions share the work.

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method;
use serde_json::{Value, json};

use crate::util::{
    Broker, http,
    ws::{Socket, offsets},
};

/// A member of the durable `d` on the topic `jobs`, with these options more.
async fn member(broker: &Broker, more: Value) -> Socket {
    let mut options =
        json!({"durable": "d", "filters": ["jobs"], "start": "first", "mode": "shared"});
    for (name, value) in more.as_object().unwrap() {
        options[name] = value.clone();
    }
    let mut socket = Socket::open(&broker.public).await;
    assert_eq!(socket.subscribe(options).await["durable"], "d");
    socket
}

async fn publish(socket: &mut Socket, from: u64, to: u64, key: impl Fn(u64) -> Value) {
    let events: Vec<Value> = (from..=to)
        .map(|n| {
            let mut event = json!({"topic": "jobs", "data": n});
            if let Value::String(key) = key(n) {
                event["key"] = json!(key);
            }
            event
        })
        .collect();
    let answer = socket.call("publish_batch", json!({ "events": events })).await;
    assert!(answer["published_batch"].is_object(), "{answer}");
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["data"].as_u64().unwrap()).collect()
}

async fn ack(socket: &mut Socket, events: &[Value]) {
    let answer = socket.call("ack", json!({"subscription": 1, "offsets": offsets(events)})).await;
    assert!(answer["acked"].is_object(), "{answer}");
}

async fn state(broker: &Broker) -> Value {
    http::get(&broker.public, "/v1/subscriptions/d").await.json()
}

#[tokio::test]
async fn g3_each_event_goes_to_one_member_and_all_are_done() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let mut members = Vec::new();
    for _ in 0..4 {
        members.push(member(&broker, json!({"max_in_flight": 40})).await);
    }
    publish(&mut publisher, 1, 400, |_| Value::Null).await;
    publish(&mut publisher, 401, 800, |_| Value::Null).await;
    let mut workers = Vec::new();
    let (done, mut seen) = tokio::sync::mpsc::unbounded_channel();
    for mut socket in members {
        let done = done.clone();
        workers.push(tokio::spawn(async move {
            loop {
                let batch = socket.events().await;
                let events = batch["events"].as_array().unwrap();
                assert!(events.len() <= 10, "its share is a quarter of 40");
                let answer = socket
                    .call("ack", json!({"subscription": 1, "offsets": offsets(events)}))
                    .await;
                assert!(answer["acked"].is_object(), "{answer}");
                if done.send(numbers(events)).is_err() {
                    return;
                }
            }
        }));
    }
    let mut got = BTreeSet::new();
    while got.len() < 800 {
        for n in seen.recv().await.unwrap() {
            assert!(got.insert(n), "{n} was delivered twice");
        }
    }
    workers.iter().for_each(tokio::task::JoinHandle::abort);
    let state = state(&broker).await;
    assert_eq!((&state["lag"], &state["redelivered"]), (&json!(0), &json!(0)), "{state}");
}

#[tokio::test]
async fn every_member_has_its_share_and_one_that_goes_leaves_it_to_the_others() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let mut first = member(&broker, json!({"max_in_flight": 10})).await;
    let mut second = member(&broker, json!({"max_in_flight": 10})).await;
    publish(&mut publisher, 1, 30, |_| Value::Null).await;
    let (of_first, of_second) = (first.take(5).await, second.take(5).await);
    let all: BTreeSet<u64> = numbers(&of_first).into_iter().chain(numbers(&of_second)).collect();
    assert_eq!(all, (1..=10).collect(), "ten are in flight, five with each");
    assert_eq!(state(&broker).await["in_flight"], 10);
    assert_eq!(first.events_so_far().await, Vec::<Value>::new(), "no more before an ack");

    // What one has it may not settle for the other.
    ack(&mut first, &of_second).await;
    assert_eq!(state(&broker).await["in_flight"], 10);
    let refused = first.refused("ack", json!({"subscription": 1, "offset": 10})).await;
    assert_eq!(refused["code"], "invalid_argument");
    assert!(refused["message"].as_str().unwrap().starts_with("offset: "), "{refused}");

    drop(second);
    // The leases of the one that went, and five more: all ten are its share now.
    let more = first.take(5).await;
    assert_eq!(numbers(&more), numbers(&of_second), "at once, without waiting for the leases");
    ack(&mut first, &of_first).await;
    ack(&mut first, &more).await;
    let mut rest = Vec::new();
    while rest.len() < 20 {
        let batch = first.events().await;
        let events = batch["events"].as_array().unwrap();
        ack(&mut first, events).await;
        rest.extend(numbers(events));
    }
    assert_eq!(rest, (11..=30).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_lease_that_ends_goes_to_a_member_that_sleeps() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let options = json!({"max_in_flight": 2, "ack_wait_ms": 300});
    let mut first = member(&broker, options.clone()).await;
    let mut second = member(&broker, options).await;
    publish(&mut publisher, 1, 1, |_| Value::Null).await;
    // Whoever gets it does nothing with it, and has no room for it again.
    let mut got = 0;
    for attempt in 1..=4_u64 {
        let (events, by) = tokio::select! {
            batch = first.events() => (batch, 1),
            batch = second.events() => (batch, 2),
        };
        got += 1;
        assert_eq!(numbers(events["events"].as_array().unwrap()), [1]);
        let attempts = &events["attempts"][events["events"][0]["offset"].to_string()];
        assert_eq!(attempts.as_u64().unwrap_or(1), attempt, "by {by}");
    }
    assert_eq!(got, 4);
}

#[tokio::test]
async fn fetchers_are_a_member_too() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let mut socket = member(&broker, json!({"max_in_flight": 8})).await;
    let fetch = |limit: u64| {
        let address = broker.public.clone();
        async move {
            let body = json!({ "limit": limit });
            let answer = http::post_json(&address, "/v1/subscriptions/d/fetch", &body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.json()["events"].as_array().unwrap().clone()
        }
    };
    publish(&mut publisher, 1, 8, |_| Value::Null).await;
    let by_socket = socket.take(8).await;
    assert_eq!(
        fetch(10).await,
        Vec::<Value>::new(),
        "all are with the socket, nothing is taken from it"
    );
    ack(&mut socket, &by_socket).await;
    let fetched = fetch(1).await;
    assert_eq!(fetched.len(), 0, "there is nothing new");
    publish(&mut publisher, 9, 10, |_| Value::Null).await;
    let more = socket.take(2).await;
    ack(&mut socket, &more).await;
    drop(socket);
    publish(&mut publisher, 11, 14, |_| Value::Null).await;
    let fetched = fetch(2).await;
    assert_eq!(numbers(&fetched), [11, 12]);
    let body = json!({"offsets": offsets(&fetched)});
    let answer = http::post_json(&broker.public, "/v1/subscriptions/d/ack", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut socket = member(&broker, json!({"max_in_flight": 8})).await;
    assert_eq!(numbers(&socket.take(2).await), [13, 14]);
}

/// Who gets what, with a random one acknowledging now and then: of one key nobody overtakes.
#[tokio::test]
async fn g3_events_of_one_key_stay_in_order_among_members() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let options = json!({"max_in_flight": 30, "partition_by": "key"});
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(member(&broker, options.clone()).await);
    }
    publish(&mut publisher, 1, 300, |n| json!(format!("k{}", n % 7))).await;
    let (done, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let mut workers = Vec::new();
    for (who, mut socket) in members.into_iter().enumerate() {
        let done = done.clone();
        workers.push(tokio::spawn(async move {
            loop {
                let batch = socket.events().await;
                let events = batch["events"].as_array().unwrap();
                done.send((who, numbers(events))).unwrap();
                ack(&mut socket, events).await;
            }
        }));
    }
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut count, mut by) = (0, BTreeSet::new());
    while count < 300 {
        let (who, events) = seen.recv().await.unwrap();
        by.insert(who);
        for n in events {
            let before = last.insert(n % 7, n);
            assert!(before.is_none_or(|before| before < n), "{n} after {before:?}");
            count += 1;
        }
    }
    assert!(by.len() > 1, "one did it all");
    workers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn what_was_given_out_keeps_the_order_of_a_key_that_comes_to_count() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    drop(member(&broker, json!({})).await);
    publish(&mut publisher, 1, 10, |_| json!("k")).await;
    let fetch = async || {
        let (path, body) = ("/v1/subscriptions/d/fetch", json!({"limit": 8}));
        let fetched = http::post_json(&broker.public, path, &body).await.json();
        numbers(fetched["events"].as_array().unwrap())
    };
    assert_eq!(fetch().await, [1, 2, 3, 4, 5, 6, 7, 8]);
    let mut options = json!({"filters": ["jobs"], "mode": "shared", "partition_by": "key"});
    let (path, headers) = ("/v1/subscriptions/d", [("content-type", "application/json")]);
    let body = options.to_string();
    let put = http::request(&broker.public, Method::PUT, path, &headers, body.as_bytes()).await;
    assert_eq!(put.status, 200, "{}", put.text());
    assert_eq!(fetch().await, [1, 2, 3, 4, 5, 6, 7, 8], "it was changed, so they come again");
    // The others of that key wait for these, and only what has another one comes.
    options.as_object_mut().unwrap().remove("filters");
    let mut other = member(&broker, options).await;
    publish(&mut publisher, 11, 11, |_| json!("another")).await;
    assert_eq!(numbers(&other.take(1).await), [11]);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    for (options, field) in [
        (json!({"filters": ["a"], "mode": "shared"}), "mode"),
        (json!({"filters": ["a"], "durable": "d", "partition_by": "key"}), "partition_by"),
        (
            json!({"filters": ["a"], "durable": "d", "mode": "shared", "partition_by": "topic"}),
            "subscribe.partition_by",
        ),
    ] {
        let error = socket.refused("subscribe", options).await;
        assert_eq!(error["code"], "invalid_argument");
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
    }
}
