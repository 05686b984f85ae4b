//! Durable subscriptions: acks that stay, redelivery, takeover, mirrors, and the same over HTTP.

use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::util::{
    Broker, eventually,
    http::{self, Answer},
    sse::Sse,
    ws::{Socket, offsets},
};

/// A broker with events 1 to `count` on the topic `a`.
async fn broker_with(count: u64) -> (Broker, Socket) {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    for n in 1..=count {
        assert_eq!(socket.publish(json!({"topic": "a", "data": n})).await, n);
    }
    (broker, socket)
}

/// A session on the durable `d` of the topic `a`, with these options more.
async fn attach(broker: &Broker, more: Value) -> (Socket, Value) {
    let mut options = json!({"durable": "d", "filters": ["a"], "start": "first"});
    for (name, value) in more.as_object().unwrap() {
        options[name] = value.clone();
    }
    let mut socket = Socket::open(&broker.public).await;
    let subscribed = socket.subscribe(options).await;
    assert_eq!(subscribed["durable"], "d");
    (socket, subscribed)
}

/// Acknowledges and gives the floor.
async fn ack(socket: &mut Socket, what: Value) -> u64 {
    let mut body = what;
    body["subscription"] = json!(1);
    let answer = socket.call("ack", body).await;
    assert_eq!(answer["acked"]["subscription"], 1, "{answer}");
    answer["acked"]["cursor"].as_u64().unwrap()
}

async fn state(broker: &Broker) -> Value {
    let answer = http::get(&broker.public, "/v1/subscriptions/d").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn post(broker: &Broker, call: &str, body: Value) -> Answer {
    http::post_json(&broker.public, &format!("/v1/subscriptions/d/{call}"), &body).await
}

async fn fetch(broker: &Broker, body: Value) -> Value {
    let answer = post(broker, "fetch", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn put(broker: &Broker, options: Value) -> Answer {
    let headers = [("content-type", "application/json")];
    let body = options.to_string();
    let path = "/v1/subscriptions/d";
    http::request(&broker.public, Method::PUT, path, &headers, body.as_bytes()).await
}

/// What the receipts of an event say of the durable `d`.
async fn receipt(broker: &Broker, offset: u64) -> Value {
    let answer = http::get(&broker.public, &format!("/v1/events/{offset}/receipts")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["offset"], offset);
    let receipts = answer["receipts"].as_array().unwrap();
    let of_d = receipts.iter().find(|receipt| receipt["subscription"] == "d");
    of_d.map_or(Value::Null, |receipt| receipt["state"].clone())
}

#[tokio::test]
async fn a_durable_begins_where_it_was_asked_to() {
    let (broker, mut publisher) = broker_with(5).await;
    let third = http::get(&broker.public, "/v1/events/3").await.json();
    let time = third["time"].as_str().unwrap().to_owned();
    for (name, start, cursor) in [
        ("first", json!("first"), Some(0)),
        ("now", json!("now"), None),
        ("default", Value::Null, None),
        ("offset", json!(3), Some(3)),
        ("time", json!("2999-01-01T00:00:00Z"), None),
        ("early", json!("2001-01-01T00:00:00Z"), Some(0)),
    ] {
        let mut options = json!({"durable": name, "filters": ["a"], "start": start});
        if start.is_null() {
            options.as_object_mut().unwrap().remove("start");
        }
        let mut socket = Socket::open(&broker.public).await;
        let subscribed = socket.subscribe(options.clone()).await;
        assert_eq!(subscribed["last_acked"], subscribed["cursor"]);
        match cursor {
            Some(cursor) => {
                assert_eq!(subscribed["cursor"], cursor, "{name}");
                let expected: Vec<u64> = (cursor + 1..=5).collect();
                assert_eq!(offsets(&socket.take(expected.len()).await), expected, "{name}");
            }
            None => assert!(subscribed["cursor"].as_u64().unwrap() >= 5, "{name}"),
        }
        let next = publisher.publish(json!({"topic": "b"})).await;
        assert!(next > 5);
    }
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"durable": "at", "filters": ["a"], "start": time})).await;
    let got = offsets(&socket.take(1).await);
    assert!(got[0] <= 3 && got.contains(&3) && got.last() == Some(&5), "since its time: {got:?}");
}

#[tokio::test]
async fn g10_acks_of_both_kinds_survive_a_kill() {
    let (mut broker, _) = broker_with(10).await;
    let (mut socket, subscribed) = attach(&broker, json!({})).await;
    assert_eq!(subscribed["last_acked"], 0);
    assert_eq!(socket.take(10).await.len(), 10);
    assert_eq!(ack(&mut socket, json!({"offset": 3})).await, 3);
    assert_eq!(ack(&mut socket, json!({"offsets": [5, 7, 8]})).await, 3);
    for _ in 0..2 {
        broker.kill();
        broker.restart();
        let (mut socket, subscribed) = attach(&broker, json!({})).await;
        assert_eq!(subscribed["last_acked"], 3);
        assert_eq!(offsets(&socket.take(4).await), [4, 6, 9, 10]);
    }
    let (mut socket, _) = attach(&broker, json!({})).await;
    assert_eq!(ack(&mut socket, json!({"offsets": [4]})).await, 5, "the next ones were acked");
    assert_eq!(ack(&mut socket, json!({"offset": 6})).await, 8);
    broker.kill();
    broker.restart();
    let (mut socket, subscribed) = attach(&broker, json!({})).await;
    assert_eq!(subscribed["last_acked"], 8);
    assert_eq!(offsets(&socket.take(2).await), [9, 10]);
}

#[tokio::test]
async fn g10_an_ack_is_answered_when_it_is_on_disk() {
    let (mut broker, _) = broker_with(12).await;
    for n in 1..=12 {
        let (mut socket, subscribed) = attach(&broker, json!({})).await;
        assert_eq!(subscribed["last_acked"], n - 1);
        let floor = ack(&mut socket, json!({"offset": n})).await;
        // Behind the last one the floor goes on over what does not match.
        assert!(floor == n || n == 12 && floor > n, "{floor} instead of {n}");
        broker.kill();
        broker.restart();
    }
    let state = state(&broker).await;
    assert_eq!((state["lag"].as_u64(), state["cursor"].as_u64() >= Some(12)), (Some(0), true));
}

#[tokio::test]
async fn g10_a_floor_moves_forward_only() {
    let (mut broker, _) = broker_with(10).await;
    let (mut socket, _) = attach(&broker, json!({})).await;
    socket.take(10).await;
    assert_eq!(ack(&mut socket, json!({"offset": 6})).await, 6);
    assert_eq!(ack(&mut socket, json!({"offset": 2})).await, 6);
    assert_eq!(ack(&mut socket, json!({"offsets": [1, 3]})).await, 6);
    assert_eq!(post(&broker, "ack", json!({"offset": 1})).await.json()["cursor"], 6);
    let answer = socket.call("nack", json!({"subscription": 1, "offsets": [2]})).await;
    assert_eq!(answer["nacked"], json!({"subscription": 1}), "a nack of an acked one is nothing");
    assert_eq!(state(&broker).await["cursor"], 6);
    broker.kill();
    broker.restart();
    assert_eq!(state(&broker).await["cursor"], 6);
    let (mut socket, _) = attach(&broker, json!({})).await;
    assert_eq!(offsets(&socket.take(4).await), [7, 8, 9, 10]);
}

#[tokio::test]
async fn acks_that_cannot_be_meant_are_refused() {
    let (broker, _) = broker_with(3).await;
    let (mut socket, _) = attach(&broker, json!({})).await;
    socket.take(3).await;
    assert_eq!(socket.subscribe(json!({"filters": ["a"]})).await["subscription"], 2);
    let above = 1_u64 << 40;
    for (name, body, code) in [
        ("ack", json!({"subscription": 1, "offset": above}), "invalid_argument"),
        ("ack", json!({"subscription": 1, "offsets": [1, above]}), "invalid_argument"),
        ("nack", json!({"subscription": 1, "offsets": [above]}), "invalid_argument"),
        ("ack", json!({"subscription": 2, "offset": 1}), "invalid_argument"),
        ("nack", json!({"subscription": 2, "offsets": [1]}), "invalid_argument"),
        ("ack", json!({"subscription": 7, "offset": 1}), "not_found"),
        ("nack", json!({"subscription": 7, "offsets": [1]}), "not_found"),
        ("ack", json!({"subscription": 1, "offset": 1, "offsets": [1]}), "invalid_argument"),
        ("ack", json!({"subscription": 1}), "invalid_argument"),
        ("ack", json!({"subscription": 1, "offsets": []}), "invalid_argument"),
        ("nack", json!({"subscription": 1, "offsets": []}), "invalid_argument"),
        ("ack", json!({"subscription": 1, "offset": 0}), "invalid_argument"),
    ] {
        let error = socket.refused(name, body.clone()).await;
        assert_eq!(error["code"], code, "{name} {body}: {error}");
    }
    for (call, body, status) in [
        ("ack", json!({"offset": above}), 400),
        ("ack", json!({"offsets": [above]}), 400),
        ("nack", json!({"offsets": [above]}), 400),
        ("ack", json!({}), 400),
        ("ack", json!({"offset": 1, "log": "00000000-0000-4000-8000-000000000000"}), 410),
        ("nack", json!({"offsets": [1], "log": "00000000"}), 410),
    ] {
        let answer = post(&broker, call, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{call} {body}: {}", answer.text());
    }
    let one = json!({"offset": 1});
    let unknown = http::post_json(&broker.public, "/v1/subscriptions/x/ack", &one).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(state(&broker).await["cursor"], 0, "nothing of it was taken");
}

#[tokio::test]
async fn g10_what_is_acked_before_it_was_delivered_is_not_delivered() {
    let (mut broker, mut publisher) = broker_with(8).await;
    let other = publisher.publish(json!({"topic": "b"})).await;
    let (mut socket, _) = attach(&broker, json!({"max_in_flight": 1})).await;
    assert_eq!(offsets(&socket.take(1).await), [1]);
    // One that does not match, one ahead of delivery, one that is next in turn.
    assert_eq!(ack(&mut socket, json!({"offsets": [other, 6, 2]})).await, 0);
    assert_eq!(ack(&mut socket, json!({"offset": 3})).await, 3);
    assert_eq!(offsets(&socket.take(1).await), [4]);
    broker.kill();
    broker.restart();
    let (mut socket, subscribed) = attach(&broker, json!({"max_in_flight": 1})).await;
    assert_eq!(subscribed["last_acked"], 3);
    for offset in [4, 5, 7, 8] {
        assert_eq!(offsets(&socket.take(1).await), [offset]);
        ack(&mut socket, json!({"offsets": [offset]})).await;
    }
    assert_eq!(state(&broker).await["lag"], 0);
}

#[tokio::test]
async fn no_more_than_max_in_flight_are_out_and_an_ack_makes_room() {
    let (broker, mut publisher) = broker_with(10).await;
    let (mut socket, _) = attach(&broker, json!({"max_in_flight": 3})).await;
    assert_eq!(offsets(&socket.take(3).await), [1, 2, 3]);
    publisher.publish(json!({"topic": "a"})).await;
    // A second subscription of the same socket shows that its turn came and went.
    socket.subscribe(json!({"filters": ["a"], "after": 0})).await;
    let mut seen = 0;
    while seen < 11 {
        let message = socket.push().await;
        if let Some(batch) = message["events"].as_object() {
            assert_eq!(batch["subscription"], 2, "more than three: {message}");
            seen += batch["events"].as_array().unwrap().len();
        }
    }
    assert_eq!(state(&broker).await["in_flight"], 3);
    socket.call("unsubscribe", json!({"subscription": 2})).await;
    socket.so_far().await;
    ack(&mut socket, json!({"offsets": [2]})).await;
    assert_eq!(offsets(&socket.take(1).await), [4]);
    ack(&mut socket, json!({"offset": 3})).await;
    assert_eq!(offsets(&socket.take(2).await), [5, 6]);
    assert_eq!(state(&broker).await["in_flight"], 3);
}

#[tokio::test]
async fn g3_what_is_not_acked_in_time_comes_again_with_its_count() {
    let (broker, _) = broker_with(3).await;
    let (mut socket, _) = attach(&broker, json!({"ack_wait_ms": 150})).await;
    let first = socket.events().await;
    let sent = Instant::now();
    assert_eq!(offsets(first["events"].as_array().unwrap()), [1, 2, 3]);
    assert!(first.get("attempts").is_none(), "{first}");
    ack(&mut socket, json!({"offsets": [2]})).await;
    for attempts in 2..=4_u64 {
        let again = socket.events().await;
        assert_eq!(offsets(again["events"].as_array().unwrap()), [1, 3]);
        assert_eq!(again["attempts"], json!({"1": attempts, "3": attempts}));
    }
    assert!(sent.elapsed() >= Duration::from_millis(440), "too early: {:?}", sent.elapsed());
    assert!(state(&broker).await["redelivered"].as_u64().unwrap() >= 6);
    ack(&mut socket, json!({"offset": 3})).await;
    socket.subscribe(json!({"filters": ["a"], "after": 0})).await;
    assert_eq!(state(&broker).await["in_flight"], 0);
    assert_eq!(receipt(&broker, 1).await, "acked");
}

#[tokio::test]
async fn attempts_are_remembered_over_a_kill() {
    let (mut broker, _) = broker_with(2).await;
    let (mut socket, _) = attach(&broker, json!({"ack_wait_ms": 100})).await;
    let mut attempts = 1;
    while attempts < 3 {
        let batch = socket.events().await;
        attempts = batch["attempts"]["1"].as_u64().unwrap_or(1);
    }
    // An ack writes the state down.
    ack(&mut socket, json!({"offsets": [2]})).await;
    broker.kill();
    broker.restart();
    let (mut socket, _) = attach(&broker, json!({"ack_wait_ms": 100})).await;
    let batch = socket.events().await;
    assert!(batch["attempts"]["1"].as_u64().unwrap() >= 3, "{batch}");
    assert_eq!(offsets(batch["events"].as_array().unwrap()), [1]);
}

#[tokio::test]
async fn a_nacked_event_comes_again_after_its_delay() {
    let (broker, _) = broker_with(4).await;
    let (mut socket, _) = attach(&broker, json!({"backoff_ms": [200, 400]})).await;
    socket.take(4).await;
    for (body, delay_ms, attempts) in [
        (json!({"offsets": [2, 3], "delay_ms": 0}), 0, 2),
        (json!({"offsets": [2, 3], "delay_ms": 300, "reason": "later"}), 300, 3),
        (json!({"offsets": [2, 3]}), 400, 4),
    ] {
        let mut nack = body;
        nack["subscription"] = json!(1);
        let asked = Instant::now();
        let answer = socket.call("nack", nack).await;
        assert_eq!(answer["nacked"], json!({"subscription": 1}), "{answer}");
        let again = socket.events().await;
        let took = asked.elapsed();
        assert_eq!(offsets(again["events"].as_array().unwrap()), [2, 3]);
        assert_eq!(again["attempts"], json!({"2": attempts, "3": attempts}));
        assert!(took >= Duration::from_millis(delay_ms), "{took:?} instead of {delay_ms} ms");
        assert!(took < Duration::from_secs(20), "that was the lease, not the nack: {took:?}");
    }
    assert!(ack(&mut socket, json!({"offset": 4})).await >= 4);
    assert_eq!(state(&broker).await["lag"], 0);
}

#[tokio::test]
async fn g3_a_newer_session_takes_an_exclusive_durable_over_with_all_that_is_unacked() {
    let (broker, mut publisher) = broker_with(6).await;
    let (mut old, _) = attach(&broker, json!({})).await;
    old.take(6).await;
    old.subscribe(json!({"filters": ["b"]})).await;
    ack(&mut old, json!({"offset": 2})).await;
    ack(&mut old, json!({"offsets": [5]})).await;
    let (mut new, subscribed) = attach(&broker, json!({})).await;
    assert_eq!(subscribed["last_acked"], 2);
    let batch = new.events().await;
    assert_eq!(offsets(batch["events"].as_array().unwrap()), [3, 4, 6]);
    assert_eq!(batch["attempts"], json!({"3": 2, "4": 2, "6": 2}));
    loop {
        let message = old.push().await;
        if message["superseded"].is_object() {
            assert_eq!(message["superseded"], json!({"subscription": 1}));
            break;
        }
    }
    // An ack of the old one is nothing now, and the socket with its other subscription lives on.
    let late = old.call("ack", json!({"subscription": 1, "offset": 6})).await;
    assert!(late["acked"].is_object() || late["error"].is_object(), "{late}");
    assert_eq!(state(&broker).await["cursor"], 2);
    publisher.publish(json!({"topic": "b", "data": "still"})).await;
    publisher.publish(json!({"topic": "a"})).await;
    assert_eq!(old.take(1).await[0]["data"], "still");
    assert_eq!(new.take(1).await[0]["topic"], "a");
    assert_eq!(state(&broker).await["sessions"], 1);
    assert!(ack(&mut new, json!({"offset": 6})).await >= 6);
}

#[tokio::test]
async fn g3_what_a_lost_session_had_comes_to_the_next_at_once() {
    let (broker, _) = broker_with(3).await;
    for round in 0..3 {
        let asked = Instant::now();
        let (mut socket, _) = attach(&broker, json!({})).await;
        let batch = socket.events().await;
        assert_eq!(offsets(batch["events"].as_array().unwrap()), [1, 2, 3], "round {round}");
        assert!(asked.elapsed() < Duration::from_secs(20), "waited for the lease");
        match round {
            // Gone without a word, gone politely, subscription ended.
            0 => drop(socket),
            1 => {
                socket.call("unsubscribe", json!({"subscription": 1})).await;
                assert_eq!(state(&broker).await["in_flight"], 0);
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_a_fetch_of_a_mirror_has_no_room_for_is_behind_what_it_gave() {
    let broker = Broker::start();
    let (mut socket, _) = attach(&broker, json!({"mode": "mirror"})).await;
    for n in 1..=5 {
        socket.publish(json!({"topic": "a", "data": n})).await;
    }
    let page = async |body: Value| {
        let fetched = fetch(&broker, body).await;
        offsets(fetched["events"].as_array().unwrap())
    };
    let first = page(json!({"limit": 2})).await;
    assert_eq!(page(json!({"limit": 2})).await, first, "each gives all that is open");
    let second = page(json!({"limit": 2, "after": first[1]})).await;
    let log = http::get(&broker.public, "/v1/topics/a/events").await.json()["log"].clone();
    let placed = format!("{}@{}", second[1], &log.as_str().unwrap()[..8]);
    let third = page(json!({"limit": 2, "after": placed})).await;
    let all = [&first[..], &second[..], &third[..]].concat();
    assert_eq!(all.len(), 5, "{all:?}");
    assert!(all.is_sorted(), "{all:?}");
    assert!(page(json!({"after": third[0]})).await.is_empty());
    assert!(page(json!({"after": 1_000_000})).await.is_empty());
    // Nor is what is acknowledged given again, wherever it begins.
    assert_eq!(post(&broker, "ack", json!({"offset": second[0]})).await.status, 200);
    assert_eq!(page(json!({"after": first[0]})).await, [second[1], third[0]]);
    // What others are given once has no such page.
    socket.subscribe(json!({"durable": "e", "filters": ["a"]})).await;
    let path = "/v1/subscriptions/e/fetch";
    let refused = http::post_json(&broker.public, path, &json!({"after": 1})).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("after: only a mirror"), "{}", refused.text());
}

#[tokio::test]
async fn g10_a_mirror_shows_all_to_all_and_has_one_floor() {
    let (mut broker, mut publisher) = broker_with(4).await;
    let mirror = json!({"mode": "mirror"});
    let (mut one, _) = attach(&broker, mirror.clone()).await;
    let (mut other, _) = attach(&broker, mirror.clone()).await;
    for reader in [&mut one, &mut other] {
        assert_eq!(offsets(&reader.take(4).await), [1, 2, 3, 4], "all to each");
        reader.expect("caught_up").await;
    }
    let fifth = publisher.publish(json!({"topic": "a"})).await;
    for reader in [&mut one, &mut other] {
        let batch = reader.events().await;
        assert_eq!(offsets(batch["events"].as_array().unwrap()), [fifth]);
        assert!(batch.get("attempts").is_none(), "{batch}");
    }
    assert_eq!(state(&broker).await["sessions"], 2);
    assert_eq!(ack(&mut one, json!({"offset": 2})).await, 2);
    for reader in [&mut other, &mut one] {
        let acked = reader.expect("acked").await;
        assert_eq!(acked, json!({"subscription": 1, "cursor": 2}));
    }
    assert_eq!(ack(&mut other, json!({"offsets": [4]})).await, 2);
    assert_eq!(state(&broker).await["lag"], 2);
    // Up to before the next event that matches: what is between them is nobody's business.
    assert_eq!(ack(&mut other, json!({"offset": 3})).await, fifth - 1);
    for reader in [&mut other, &mut one] {
        assert_eq!(reader.expect("acked").await["cursor"], fifth - 1);
    }
    broker.kill();
    broker.restart();
    let (mut again, subscribed) = attach(&broker, mirror).await;
    assert_eq!(subscribed["last_acked"], fifth - 1);
    assert_eq!(offsets(&again.take(1).await), [fifth]);
}

/// Waits until this event has expired.
async fn expired(broker: &Broker, offset: u64) {
    eventually("it expires", async || {
        http::get(&broker.public, &format!("/v1/events/{offset}")).await.status == 404
    })
    .await;
}

/// The next floor that this session is told of.
async fn told_floor(socket: &mut Socket) -> u64 {
    loop {
        if let Some(cursor) = socket.push().await["acked"]["cursor"].as_u64() {
            return cursor;
        }
    }
}

#[tokio::test]
async fn what_has_expired_in_an_inbox_counts_until_somebody_begins_to_look() {
    let (mut broker, mut publisher) = broker_with(0).await;
    let mirror = json!({"mode": "mirror"});
    let (mut one, _) = attach(&broker, mirror.clone()).await;
    let brief = json!({"topic": "a", "ttl_ms": 200});
    let first = publisher.publish(brief.clone()).await;
    let second = publisher.publish(brief.clone()).await;
    let unread = publisher.publish(json!({"topic": "a"})).await;
    let behind = publisher.publish(brief.clone()).await;
    for offset in [first, second, behind] {
        expired(&broker, offset).await;
    }
    assert_eq!(state(&broker).await["lag"], 4);
    let (mut other, subscribed) = attach(&broker, mirror).await;
    assert_eq!(subscribed["cursor"], unread - 1);
    assert_eq!(offsets(&other.take(1).await), [unread]);
    assert_eq!(state(&broker).await["lag"], 2, "but for what is behind the first that is unread");
    assert_eq!(told_floor(&mut one).await, unread - 1);
    assert!(ack(&mut one, json!({"offset": unread})).await >= behind);
    assert_eq!(state(&broker).await["lag"], 0);

    let last = publisher.publish(brief).await;
    expired(&broker, last).await;
    assert_eq!(state(&broker).await["lag"], 1);
    let fetched = fetch(&broker, json!({})).await;
    assert_eq!(fetched["events"], json!([]));
    assert!(fetched["cursor"].as_u64().unwrap() >= last, "{fetched}");
    assert_eq!(state(&broker).await["lag"], 0);
    while told_floor(&mut one).await < last {}
    broker.kill();
    broker.restart();
    assert_eq!(state(&broker).await["lag"], 0, "it is durable when it is told");
}

#[tokio::test]
async fn lag_and_receipts_say_how_far_a_durable_is() {
    let (broker, mut publisher) = broker_with(4).await;
    assert_eq!(put(&broker, json!({"filters": ["a"], "start": 1})).await.status, 201);
    let other = json!({"filters": ["b.*"], "start": "first"}).to_string();
    let headers = [("content-type", "application/json")];
    let path = "/v1/subscriptions/other";
    http::request(&broker.public, Method::PUT, path, &headers, other.as_bytes()).await;
    publisher.publish(json!({"topic": "b"})).await;
    let before = state(&broker).await;
    assert_eq!(
        (&before["name"], &before["cursor"], &before["lag"], &before["in_flight"]),
        (&json!("d"), &json!(1), &json!(3), &json!(0)),
        "{before}"
    );
    assert_eq!((&before["sessions"], &before["redelivered"]), (&json!(0), &json!(0)));
    assert_eq!(receipt(&broker, 1).await, Value::Null, "before it began");
    assert_eq!(receipt(&broker, 2).await, "pending");
    let (mut socket, _) = attach(&broker, json!({"max_in_flight": 1000})).await;
    socket.take(3).await;
    assert_eq!(receipt(&broker, 3).await, "in_flight");
    assert_eq!(state(&broker).await["in_flight"], 3);
    ack(&mut socket, json!({"offsets": [3]})).await;
    assert_eq!(receipt(&broker, 2).await, "in_flight");
    assert_eq!(receipt(&broker, 3).await, "acked");
    let after = state(&broker).await;
    assert_eq!(
        (&after["lag"], &after["in_flight"], &after["sessions"]),
        (&json!(2), &json!(2), &json!(1))
    );
    let over_socket = publisher.call("receipts", json!({"offset": 3})).await;
    let over_http = http::get(&broker.public, "/v1/events/3/receipts").await.json();
    assert_eq!(over_socket["receipts"], over_http);
    assert_eq!(over_http["receipts"], json!([{"subscription": "d", "state": "acked"}]));
    for offset in ["0", "x", "1000000"] {
        let answer = http::get(&broker.public, &format!("/v1/events/{offset}/receipts")).await;
        let expected = if offset == "1000000" { 404 } else { 400 };
        assert_eq!(answer.status.as_u16(), expected, "{offset}: {}", answer.text());
    }
    let list = http::get(&broker.public, "/v1/subscriptions").await.json();
    let names: Vec<_> =
        list["subscriptions"].as_array().unwrap().iter().map(|d| d["name"].clone()).collect();
    assert_eq!(names, ["d", "other"]);
}

#[tokio::test]
async fn g15_a_durable_goes_on_over_http_where_the_socket_left_it() {
    let (broker, _) = broker_with(9).await;
    let (mut socket, _) = attach(&broker, json!({"max_in_flight": 3})).await;
    assert_eq!(offsets(&socket.take(3).await), [1, 2, 3]);
    ack(&mut socket, json!({"offset": 2})).await;
    assert_eq!(offsets(&socket.take(2).await), [4, 5]);
    // A fetch is a session like another: it supersedes the socket and gets what that had.
    let fetched = fetch(&broker, json!({"limit": 2})).await;
    assert_eq!(offsets(fetched["events"].as_array().unwrap()), [3, 4]);
    assert_eq!(fetched["attempts"], json!({"3": 2, "4": 2}));
    loop {
        if socket.push().await["superseded"] == json!({"subscription": 1}) {
            break;
        }
    }
    // The next one goes on behind it; then there is no room.
    let fetched = fetch(&broker, json!({"limit": 100})).await;
    assert_eq!(offsets(fetched["events"].as_array().unwrap()), [5]);
    assert_eq!(fetch(&broker, json!({})).await["events"], json!([]));
    let answer = post(&broker, "ack", json!({"offset": 4})).await;
    assert_eq!((answer.status, &answer.json()["cursor"]), (StatusCode::OK, &json!(4)));
    let fetched = fetch(&broker, json!({"limit": 1})).await;
    assert_eq!(offsets(fetched["events"].as_array().unwrap()), [6]);
    assert!(fetched.get("attempts").is_none(), "{fetched}");
    let nacked = post(&broker, "nack", json!({"offsets": [5], "delay_ms": 0})).await;
    assert_eq!(nacked.status, StatusCode::OK, "{}", nacked.text());
    let fetched = fetch(&broker, json!({"limit": 1})).await;
    assert_eq!(offsets(fetched["events"].as_array().unwrap()), [5]);
    assert_eq!(fetched["attempts"], json!({"5": 3}));
    assert_eq!(post(&broker, "ack", json!({"offsets": [5, 6]})).await.json()["cursor"], 6);
    // And back to a socket: nothing was lost, nothing acknowledged comes again.
    let (mut socket, subscribed) = attach(&broker, json!({"max_in_flight": 3})).await;
    assert_eq!(subscribed["last_acked"], 6);
    assert_eq!(offsets(&socket.take(3).await), [7, 8, 9]);
    // And as SSE, which is a session too.
    drop(socket);
    let mut sse = Sse::open(&broker.public, "/v1/subscriptions/d/events", &[]).await;
    for offset in 7..=9 {
        assert_eq!(sse.event().await.unwrap().cursor(), offset);
    }
    assert_eq!(post(&broker, "ack", json!({"offset": 9})).await.json()["cursor"], 9);
    assert_eq!(state(&broker).await["lag"], 0);
}

#[tokio::test]
async fn who_closes_the_writing_side_of_a_fetch_is_gone_and_is_given_nothing() {
    let (broker, mut socket) = broker_with(0).await;
    assert_eq!(put(&broker, json!({"filters": ["a"], "start": "first"})).await.status, 201);
    let mut waiting = TcpStream::connect(&broker.public).await.unwrap();
    let body = r#"{"wait":"30s"}"#;
    let request = format!(
        "POST /v1/subscriptions/d/fetch HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        broker.public,
        body.len()
    );
    waiting.write_all(request.as_bytes()).await.unwrap();
    eventually("it waits", async || state(&broker).await["sessions"] == 1).await;
    waiting.shutdown().await.unwrap();
    let mut answer = Vec::new();
    waiting.read_to_end(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "");
    assert_eq!(state(&broker).await["sessions"], 0);
    let published = socket.publish(json!({"topic": "a"})).await;
    let fetched = fetch(&broker, json!({})).await;
    assert_eq!(offsets(fetched["events"].as_array().unwrap()), [published]);
    assert!(fetched.get("attempts").is_none(), "leased to nobody: {fetched}");
}

#[tokio::test]
async fn leases_of_a_fetch_run_on_when_a_socket_takes_over() {
    let (broker, _) = broker_with(3).await;
    let options = json!({"filters": ["a"], "start": "first", "ack_wait_ms": 700});
    assert_eq!(put(&broker, options).await.status, 201);
    let asked = Instant::now();
    let fetched = fetch(&broker, json!({"limit": 2})).await;
    assert_eq!(offsets(fetched["events"].as_array().unwrap()), [1, 2]);
    let (mut socket, _) = attach(&broker, json!({"ack_wait_ms": 700})).await;
    assert_eq!(offsets(&socket.take(1).await), [3], "the others are leased");
    // Acknowledged over HTTP, the first does not come again; the second does, once its lease ends.
    assert_eq!(post(&broker, "ack", json!({"offset": 1})).await.status, 200);
    let batch = socket.events().await;
    assert_eq!(offsets(batch["events"].as_array().unwrap())[0], 2);
    assert!(asked.elapsed() >= Duration::from_millis(700), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_fetch_waits_for_the_next_event_and_an_answer_lost_comes_again() {
    let (broker, mut publisher) = broker_with(1).await;
    let options = json!({"filters": ["a"], "start": "first", "ack_wait_ms": 200});
    assert_eq!(put(&broker, options).await.status, 201);
    let first = fetch(&broker, json!({"limit": 5})).await;
    assert_eq!(offsets(first["events"].as_array().unwrap()), [1]);
    // Nothing new: the lease of the first ends while the second waits.
    let again = fetch(&broker, json!({"limit": 5, "wait": "20s"})).await;
    assert_eq!(offsets(again["events"].as_array().unwrap()), [1]);
    assert_eq!(again["attempts"], json!({"1": 2}));
    post(&broker, "ack", json!({"offset": 1})).await;
    let waiting = tokio::spawn({
        let address = broker.public.clone();
        async move {
            let body = json!({"limit": 5, "wait": "30s"});
            http::post_json(&address, "/v1/subscriptions/d/fetch", &body).await
        }
    });
    let attached = async || state(&broker).await["sessions"] == 1;
    eventually("the fetch waits", attached).await;
    let asked = Instant::now();
    let offset = publisher.publish(json!({"topic": "a"})).await;
    let fetched = waiting.await.unwrap().json();
    assert_eq!(offsets(fetched["events"].as_array().unwrap()), [offset]);
    assert!(asked.elapsed() < Duration::from_secs(15), "it waited to the end");
    post(&broker, "ack", json!({ "offset": offset })).await;
    let asked = Instant::now();
    let empty = fetch(&broker, json!({"wait": "300ms"})).await;
    assert_eq!(empty["events"], json!([]));
    assert!(asked.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_fetch_whose_answer_was_lost_is_given_again_at_once_to_who_says_so() {
    for mode in ["exclusive", "shared"] {
        let (broker, mut publisher) = broker_with(6).await;
        let options = json!({"filters": ["a"], "start": "first", "mode": mode});
        assert_eq!(put(&broker, options).await.status, 201);
        let by = |reader: &str, lost: bool| json!({"limit": 2, "reader": reader, "lost": lost});
        let of = |fetched: &Value| offsets(fetched["events"].as_array().unwrap());
        // Of one that is not known nothing comes again.
        assert_eq!(of(&fetch(&broker, by("one", true)).await), [1, 2]);
        assert_eq!(of(&fetch(&broker, by("other", false)).await), [3, 4]);
        assert_eq!(of(&fetch(&broker, by("one", false)).await), [5, 6]);
        let again = fetch(&broker, by("one", true)).await;
        assert_eq!(of(&again), [5, 6], "not what it had before, nor another's");
        assert_eq!(again["attempts"], json!({"5": 2, "6": 2}));
        // One that still waits is ended by the next of the same name, and takes nothing.
        let waiting = {
            let address = broker.public.clone();
            let body = json!({"limit": 2, "reader": "one", "wait": "30s"});
            let path = "/v1/subscriptions/d/fetch";
            tokio::spawn(async move { http::post_json(&address, path, &body).await.json() })
        };
        eventually("it waits", async || state(&broker).await["sessions"] == 1).await;
        let lost = tokio::spawn({
            let address = broker.public.clone();
            let body = json!({"limit": 2, "reader": "one", "lost": true, "wait": "30s"});
            let path = "/v1/subscriptions/d/fetch";
            async move { http::post_json(&address, path, &body).await.json() }
        });
        assert!(of(&waiting.await.unwrap()).is_empty(), "{mode}");
        let next = publisher.publish(json!({"topic": "a"})).await;
        assert_eq!(of(&lost.await.unwrap()), [next], "{mode}");
        assert_eq!(state(&broker).await["in_flight"], 7, "{mode}");
    }
}

#[tokio::test]
async fn what_a_lost_answer_had_leased_comes_again_at_once_over_a_socket_or_stream() {
    for (mode, door) in
        ["exclusive", "shared"].into_iter().flat_map(|mode| [(mode, "socket"), (mode, "stream")])
    {
        let (broker, _publisher) = broker_with(6).await;
        let options = json!({"filters": ["a"], "start": "first", "mode": mode});
        assert_eq!(put(&broker, options).await.status, 201);
        for (reader, offsets_of) in [("one", [1, 2]), ("other", [3, 4])] {
            let fetched = fetch(&broker, json!({"limit": 2, "reader": reader})).await;
            assert_eq!(offsets(fetched["events"].as_array().unwrap()), offsets_of);
        }
        let mut given = Vec::new();
        if door == "stream" {
            let path = "/v1/subscriptions/d/events?lost_reader=other";
            let mut stream = Sse::open(&broker.public, path, &[]).await;
            for _ in 0..4 {
                given.push(stream.event().await.unwrap().json()["offset"].as_u64().unwrap());
            }
        } else {
            let (mut socket, _) =
                attach(&broker, json!({"mode": mode, "lost_reader": "other"})).await;
            given = offsets(&socket.take(4).await);
        }
        assert_eq!(given, [3, 4, 5, 6], "{mode} over a {door}, and not what another has");
    }
}

#[tokio::test]
async fn a_fetch_that_its_reader_has_left_behind_supersedes_nothing() {
    for (mode, door) in
        ["exclusive", "shared"].into_iter().flat_map(|mode| [(mode, "socket"), (mode, "stream")])
    {
        let (broker, mut publisher) = broker_with(2).await;
        let options = json!({"filters": ["a"], "start": "first", "mode": mode});
        assert_eq!(put(&broker, options).await.status, 201);
        fetch(&broker, json!({"limit": 2, "reader": "one"})).await;
        let late = async || {
            let body = json!({"limit": 9, "reader": "one", "lost": true});
            http::post_json(&broker.public, "/v1/subscriptions/d/fetch", &body).await
        };
        let refused = if door == "stream" {
            let path = "/v1/subscriptions/d/events?lost_reader=one";
            let mut stream = Sse::open(&broker.public, path, &[]).await;
            for offset in [1, 2] {
                assert_eq!(stream.event().await.unwrap().json()["offset"], offset);
            }
            let refused = late().await;
            let next = publisher.publish(json!({"topic": "a"})).await;
            assert_eq!(stream.event().await.unwrap().json()["offset"], next, "{mode}");
            refused
        } else {
            let (mut socket, _) =
                attach(&broker, json!({"mode": mode, "lost_reader": "one"})).await;
            assert_eq!(offsets(&socket.take(2).await), [1, 2]);
            let refused = late().await;
            let next = publisher.publish(json!({"topic": "a"})).await;
            assert_eq!(offsets(&socket.take(1).await), [next], "{mode}");
            refused
        };
        assert_eq!(refused.status, 409, "{mode} over a {door}: {}", refused.text());
        assert_eq!(refused.json()["code"], "conflict");
        assert!(refused.text().contains("fetch by another name"), "{}", refused.text());
        // Once that one is gone it may fetch again.
        eventually("it has gone", async || state(&broker).await["sessions"] == 0).await;
        let fetched = fetch(&broker, json!({"limit": 9, "reader": "one", "lost": true})).await;
        assert_eq!(fetched["events"].as_array().unwrap().len(), 3, "{mode} {door}");
    }
}

#[tokio::test]
async fn who_has_lost_an_answer_says_its_name_and_the_durable() {
    let (broker, mut socket) = broker_with(0).await;
    let durable = json!({"filters": ["a"], "durable": "d", "lost_reader": "x".repeat(65)});
    for words in [durable, json!({"filters": ["a"], "lost_reader": "one"})] {
        let refused = socket.refused("subscribe", words).await;
        assert_eq!(refused["code"], "invalid_argument", "{refused}");
        assert!(refused["message"].as_str().unwrap().starts_with("lost_reader: "), "{refused}");
    }
    let path = "/v1/subscriptions/d/events?lost_reader=";
    let refused = http::get(&broker.public, path).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("lost_reader: it has 1 to 64 bytes"), "{}", refused.text());
    let kept = put(&broker, json!({"filters": ["a"], "lost_reader": "one"})).await;
    assert_eq!(kept.status, 400);
    assert!(kept.text().contains("lost_reader: it belongs to a socket"), "{}", kept.text());
}

#[tokio::test]
async fn a_start_that_is_none_is_refused_by_its_name() {
    let (broker, _) = broker_with(3).await;
    let place = "start: \\\"yesterday\\\" is no position: give an offset";
    for (start, status, text) in [
        (json!("yesterday"), 400, place),
        (
            json!(99),
            410,
            "99 is above the last event: the log begins at 1 and ends at 3; let start be",
        ),
    ] {
        let answer = put(&broker, json!({"filters": ["a"], "start": start})).await;
        assert_eq!(answer.status, status);
        assert!(answer.text().contains(text), "{}", answer.text());
    }
}

#[tokio::test]
async fn other_options_are_a_conflict_and_put_changes_them() {
    let (broker, mut publisher) = broker_with(3).await;
    let (mut socket, _) = attach(&broker, json!({})).await;
    socket.take(3).await;
    ack(&mut socket, json!({"offset": 2})).await;
    let mut other = Socket::open(&broker.public).await;
    for (field, value) in [
        ("filters", json!(["b"])),
        ("mode", json!("mirror")),
        ("ack_wait_ms", json!(5)),
        ("max_in_flight", json!(5)),
        ("max_deliveries", json!(5)),
        ("types", json!(["x"])),
        ("min_priority", json!("high")),
        ("linger_ms", json!(5)),
        ("conflate_ms", json!(5)),
    ] {
        let mut options = json!({"durable": "d", "filters": ["a"]});
        options[field] = value;
        let error = other.refused("subscribe", options).await;
        assert_eq!(error["code"], "conflict", "{field}: {error}");
        assert!(error["message"].as_str().unwrap().contains(field), "{error}");
    }
    for (field, value) in [("after", json!(1))] {
        let mut options = json!({"durable": "e", "filters": ["a"]});
        options[field] = value;
        let error = other.refused("subscribe", options).await;
        assert_eq!(error["code"], "invalid_argument", "{field}: {error}");
        assert!(error["message"].as_str().unwrap().contains(field), "{error}");
    }
    // Where it is to start is asked of a new one only.
    other.subscribe(json!({"durable": "d", "filters": ["a"], "start": "now"})).await;
    assert_eq!(offsets(&other.take(1).await), [3]);

    publisher.publish(json!({"topic": "b", "data": "b"})).await;
    let answer = put(&broker, json!({"filters": ["b"]})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let changed = state(&broker).await;
    assert_eq!(changed["cursor"], 2, "the floor is kept");
    assert_eq!(changed["options"]["filters"], json!(["b"]), "{changed}");
    loop {
        if other.push().await["superseded"].is_object() {
            break;
        }
    }
    let mut again = Socket::open(&broker.public).await;
    again.subscribe(json!({"durable": "d", "filters": ["b"]})).await;
    assert_eq!(again.take(1).await[0]["data"], "b", "and the new filters hold above it");
}

#[tokio::test]
async fn a_deleted_durable_is_gone_and_its_name_begins_anew() {
    let (mut broker, _) = broker_with(4).await;
    let (mut socket, _) = attach(&broker, json!({})).await;
    socket.take(4).await;
    ack(&mut socket, json!({"offset": 3})).await;
    let path = "/v1/subscriptions/d";
    let deleted = http::request(&broker.public, Method::DELETE, path, &[], b"").await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT, "{}", deleted.text());
    loop {
        if socket.push().await["superseded"] == json!({"subscription": 1}) {
            break;
        }
    }
    for life in 0..2 {
        assert_eq!(http::get(&broker.public, path).await.status, StatusCode::NOT_FOUND, "{life}");
        let again = http::request(&broker.public, Method::DELETE, path, &[], b"").await;
        assert_eq!(again.status, StatusCode::NOT_FOUND, "{life}");
        assert_eq!(post(&broker, "fetch", json!({})).await.status, StatusCode::NOT_FOUND);
        assert_eq!(post(&broker, "ack", json!({"offset": 1})).await.status, StatusCode::NOT_FOUND);
        broker.kill();
        broker.restart();
    }
    let (mut socket, subscribed) = attach(&broker, json!({})).await;
    assert_eq!(subscribed["last_acked"], 0, "acks of the old one say nothing of this one");
    assert_eq!(offsets(&socket.take(4).await), [1, 2, 3, 4]);
}

#[tokio::test]
async fn the_brokers_own_records_are_never_delivered() {
    let (broker, mut publisher) = broker_with(2).await;
    let (mut socket, _) = attach(&broker, json!({})).await;
    socket.take(2).await;
    ack(&mut socket, json!({"offset": 2})).await;
    let last = publisher.publish(json!({"topic": "end"})).await;
    assert!(last >= 5, "the subscription and the ack took offsets of their own: {last}");
    let mut reader = Socket::open(&broker.public).await;
    reader.subscribe(json!({"filters": [">"], "after": 0})).await;
    assert_eq!(offsets(&reader.events_until("end").await), [1, 2]);
    let all = http::get(&broker.public, "/v1/events?topic=%3E&limit=1000").await.json();
    assert_eq!(offsets(all["events"].as_array().unwrap()), [1, 2, last]);
    for offset in 3..last {
        let answer = http::get(&broker.public, &format!("/v1/events/{offset}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{offset}: {}", answer.text());
    }
    for filter in ["$acks", "$subscriptions", "$scheduled", "$acks.x", "$acks.>"] {
        let error = reader.refused("subscribe", json!({"filters": [filter], "after": 0})).await;
        assert_eq!(error["code"], "permission_denied", "{filter}: {error}");
        let path = format!("/v1/topics/{}/events", filter.replace('>', "%3E"));
        assert_eq!(http::get(&broker.public, &path).await.status, StatusCode::FORBIDDEN);
        let durable = json!({"durable": "x", "filters": [filter]});
        assert_eq!(reader.refused("subscribe", durable).await["code"], "permission_denied");
    }
    let topics = http::get(&broker.public, "/v1/topics").await;
    assert!(!topics.text().contains('$'), "{}", topics.text());
}
