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
async fn g3_what_lingers_is_sent_in_fewer_frames_and_all_of_it() {
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

/// A wake that is lost would be waited for.
#[tokio::test]
async fn no_batch_that_is_full_waits_while_many_publish() {
    const EACH: usize = 500;
    let broker = Broker::start();
    let options = json!({"linger_ms": LONG_MS, "batch_max": 10});
    let mut reader = live(&broker, json!(["a.>", "*.*"]), options).await;
    let mut publishers = tokio::task::JoinSet::new();
    for who in 0..4 {
        let address = broker.public.clone();
        publishers.spawn(async move {
            let mut socket = Socket::open(&address).await;
            for n in 0..EACH {
                socket.publish(json!({"topic": format!("a.{who}"), "data": n})).await;
            }
        });
    }
    let mut got = 0;
    while got < 4 * EACH {
        let begun = Instant::now();
        let batch = of(&reader.events().await);
        assert!(begun.elapsed() < LONG / 2, "it waited: {:?}", begun.elapsed());
        assert_eq!(batch.len(), 10, "{got}");
        got += batch.len();
    }
    publishers.join_all().await;
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

/// Publishes these at once, as one batch, and gives their offsets.
async fn publish_all(publisher: &mut Socket, events: Vec<Value>) -> Vec<u64> {
    let answer = publisher.call("publish_batch", json!({ "events": events })).await;
    offsets(answer["published_batch"]["results"].as_array().unwrap())
}

fn progress(key: &str, done: u64) -> Value {
    json!({"topic": "operations.1", "key": key, "data": {"done": done}})
}

async fn floor(broker: &Broker) -> u64 {
    let state = http::get(&broker.public, "/v1/subscriptions/d").await.json();
    state["cursor"].as_u64().unwrap()
}

/// A session on the durable `d` of all operations, that conflates.
async fn conflating(broker: &Broker, mode: &str) -> Socket {
    let mut socket = Socket::open(&broker.public).await;
    let mut options = json!({
        "durable": "d", "filters": ["operations.>"], "start": "first", "mode": mode,
        "conflate_ms": 50,
    });
    if mode != "mirror" {
        options["ack_wait_ms"] = json!(0);
    }
    socket.subscribe(options).await;
    socket
}

#[tokio::test]
async fn g3_of_fast_progress_the_last_state_always_arrives_and_little_else() {
    const EVENTS: u64 = 1000;
    let broker = Broker::start();
    let options = json!({"conflate_ms": 100, "batch_max": 5});
    let mut reader = live(&broker, json!(["operations.*"]), options).await;
    let address = broker.public.clone();
    let publisher = tokio::spawn(async move {
        let mut socket = Socket::open(&address).await;
        let mut every = tokio::time::interval(Duration::from_millis(1));
        for n in 1..=EVENTS {
            every.tick().await;
            let mut event = progress("progress", n);
            if n % 100 == 50 {
                event = json!({"topic": "operations.1", "data": {"line": n}});
            }
            socket.start("publish", event).await;
        }
        let mut last = 0;
        for _ in 0..EVENTS {
            let answer = socket.next().await.unwrap();
            last = last.max(answer["published"]["offset"].as_u64().unwrap());
        }
        last
    });
    let (mut done, mut lines, mut states, mut cursor) = (0, 0, 0, Value::Null);
    let mut before = 0;
    while done < EVENTS {
        let batch = reader.events().await;
        assert!(cursor.is_null() || batch["after"] == cursor, "the chain is broken: {batch}");
        cursor = batch["cursor"].clone();
        let events = batch["events"].as_array().unwrap();
        assert!(events.len() <= 5, "{batch}");
        for event in events {
            let offset = event["offset"].as_u64().unwrap();
            assert!(offset > before, "{batch}");
            before = offset;
            match event["data"]["done"].as_u64() {
                Some(now) => {
                    assert!(now > done, "an older state behind a newer one: {batch}");
                    done = now;
                    states += 1;
                }
                None => lines += 1,
            }
        }
    }
    let last = publisher.await.unwrap();
    assert_eq!((lines, &cursor), (EVENTS / 100, &json!(last)));
    assert!(states < EVENTS / 4, "{states} of {EVENTS} were sent");
    let metrics = http::get(&broker.admin, "/metrics").await.text();
    let left_out = format!("tidings_conflated_events_total {}", EVENTS - lines - states);
    assert!(metrics.contains(&left_out), "{left_out}");

    // Whoever comes later is told the state once, and all that has no key.
    let mut late = Socket::open(&broker.public).await;
    late.subscribe(json!({"filters": ["operations.*"], "after": 0, "conflate_ms": 100})).await;
    let batch = late.expect("events").await;
    assert_eq!(batch["events"].as_array().unwrap().len() as u64, EVENTS / 100 + 1);
    assert_eq!((&batch["cursor"], of(&batch).last()), (&json!(last), Some(&last)));
    assert_eq!(late.expect("caught_up").await["cursor"], last);
    let path = "/v1/topics/operations.1/events?after=0&conflate_ms=100";
    let mut stream = Sse::open(&broker.public, path, &[]).await;
    for offset in of(&batch) {
        assert_eq!(stream.event().await.unwrap().cursor(), offset);
    }
    // And one that does not conflate is told all.
    let mut all = Socket::open(&broker.public).await;
    all.subscribe(json!({"filters": ["operations.*"], "after": 0})).await;
    assert_eq!(all.take(EVENTS as usize).await.len() as u64, EVENTS);
}

#[tokio::test]
async fn a_key_is_one_of_its_topic_and_an_urgent_event_ends_the_window() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let options = json!({"conflate_ms": 60_000, "linger_ms": 1});
    let mut reader = live(&broker, json!([">"]), options).await;
    let begun = Instant::now();
    for _ in 0..2 {
        let event = |topic: &str, key: Value, priority: &str| {
            let mut event = json!({"topic": topic, "priority": priority});
            if !key.is_null() {
                event["key"] = key;
            }
            event
        };
        let events = vec![
            event("a", json!("k"), "normal"),
            event("b", json!("k"), "normal"),
            event("a", json!("l"), "normal"),
            event("a", Value::Null, "normal"),
            event("a", json!("k"), "high"),
            event("a", Value::Null, "normal"),
        ];
        let sent = publish_all(&mut publisher, events).await;
        let urgent = publisher.publish(event("b", Value::Null, "urgent")).await;
        let expected = [sent[1], sent[2], sent[3], sent[4], sent[5], urgent];
        assert_eq!(of(&reader.events().await), expected);
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "it waited: {:?}", begun.elapsed());
}

#[tokio::test]
async fn the_floor_of_a_durable_passes_what_was_conflated_also_after_a_kill() {
    for mode in ["exclusive", "mirror"] {
        let mut broker = Broker::start();
        let mut publisher = Socket::open(&broker.public).await;
        let mut events: Vec<Value> =
            (0..900).map(|n| progress(["a", "b", "c"][n % 3], 1)).collect();
        events.insert(100, json!({"topic": "operations.2", "data": "no key"}));
        let sent = publish_all(&mut publisher, events).await;
        let mut reader = conflating(&broker, mode).await;
        let batch = reader.events().await;
        let expected = [sent[100], sent[898], sent[899], sent[900]];
        assert_eq!(of(&batch), expected, "{mode}");
        assert!(floor(&broker).await < sent[100], "{mode}: nothing that was sent is acknowledged");
        broker.kill();
        broker.restart();
        let mut reader = conflating(&broker, mode).await;
        assert_eq!(of(&reader.events().await), expected, "{mode}: not acknowledged");
        for (n, offset) in expected.into_iter().enumerate() {
            let ack = json!({"subscription": 1, "offsets": [offset]});
            let answer = reader.call("ack", ack).await;
            let cursor = answer["acked"]["cursor"].as_u64().unwrap();
            let all = n + 1 == expected.len();
            assert_eq!(cursor >= sent[900], all, "{mode}: {n}: {answer}");
        }
        broker.kill();
        broker.restart();
        assert!(floor(&broker).await >= sent[900], "{mode}");
        let mut reader = conflating(&broker, mode).await;
        let mut publisher = Socket::open(&broker.public).await;
        let next = publish_all(&mut publisher, vec![progress("a", 2), progress("a", 3)]).await;
        assert_eq!(of(&reader.events().await), [next[1]], "{mode}: only what is new");
    }
}

#[tokio::test]
async fn a_state_never_comes_again_behind_one_that_has_replaced_it() {
    let mut broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let mut reader = conflating(&broker, "exclusive").await;
    let hurry = |mut event: Value| {
        event["priority"] = json!("urgent");
        event
    };
    let old = publisher.publish(hurry(progress("a", 1))).await;
    assert_eq!(of(&reader.events().await), [old]);
    let filler: Vec<Value> =
        (0..400).map(|n| json!({"topic": "operations.3", "data": n})).collect();
    let filler = publish_all(&mut publisher, filler).await;
    let mut got = Vec::new();
    while got.len() < filler.len() {
        got.extend(of(&reader.events().await));
    }
    assert_eq!(got, filler);
    let new = publisher.publish(hurry(progress("a", 2))).await;
    assert_eq!(of(&reader.events().await), [new]);
    reader.call("ack", json!({"subscription": 1, "offsets": [new]})).await;
    // Many batches lie between the two, and the newer one is done.
    broker.kill();
    broker.restart();
    let mut reader = conflating(&broker, "exclusive").await;
    let mut got = Vec::new();
    while got.len() < filler.len() {
        got.extend(of(&reader.events().await));
    }
    assert_eq!(got, filler, "{old} is replaced by {new}");
    // The same within one life: what is asked for again is not what has been replaced.
    let mut publisher = Socket::open(&broker.public).await;
    let one = publisher.publish(hurry(progress("b", 1))).await;
    assert_eq!(of(&reader.events().await), [one]);
    let two = publisher.publish(hurry(progress("b", 2))).await;
    assert_eq!(of(&reader.events().await), [two]);
    reader.call("nack", json!({"subscription": 1, "offsets": [one, two]})).await;
    let batch = reader.events().await;
    assert_eq!((of(&batch), &batch["attempts"]), (vec![two], &json!({two.to_string(): 2})));
    let mut all = filler;
    all.push(two);
    let answer = reader.call("ack", json!({"subscription": 1, "offsets": all})).await;
    assert!(answer["acked"]["cursor"].as_u64().unwrap() >= two, "{answer}");
}

#[tokio::test]
async fn what_has_expired_replaces_nothing_that_comes_again() {
    for mode in ["exclusive", "shared", "mirror"] {
        let broker = Broker::start();
        let mut publisher = Socket::open(&broker.public).await;
        let mut reader = conflating(&broker, mode).await;
        let old = publisher.publish(progress("a", 1)).await;
        assert_eq!(of(&reader.events().await), [old]);
        // The newer one expires before anybody gets it.
        let act = async |action: &str| {
            let path = format!("/v1/subscriptions/d/{action}");
            let done = http::post_json(&broker.public, &path, &json!({})).await;
            assert_eq!(done.status, 200, "{}", done.text());
        };
        act("pause").await;
        let mut newer = progress("a", 2);
        newer["ttl_ms"] = json!(1);
        let newer = publisher.publish(newer).await;
        while http::get(&broker.public, &format!("/v1/events/{newer}")).await.status != 404 {}
        if mode != "mirror" {
            reader.call("nack", json!({"subscription": 1, "offsets": [old]})).await;
            act("resume").await;
            let batch = reader.events().await;
            assert_eq!((of(&batch), &batch["attempts"]), (vec![old], &json!({old.to_string(): 2})));
            continue;
        }
        let other = publisher.publish(progress("b", 1)).await;
        act("resume").await;
        assert_eq!(of(&reader.events().await), [other]);
        let answer = reader.call("ack", json!({"subscription": 1, "offsets": [other]})).await;
        assert!(answer["acked"]["cursor"].as_u64().unwrap() < old, "{answer}");
        let mut late = conflating(&broker, mode).await;
        assert_eq!(of(&late.events().await), [old]);
    }
}

#[tokio::test]
async fn a_fetch_of_a_conflating_durable_gives_the_last_states() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let options = json!({"filters": ["operations.>"], "start": "first", "conflate_ms": 60_000});
    assert_eq!(put(&broker, options).await.status, 201);
    let events = (1..=300).map(|n| progress(["a", "b"][n as usize % 2], n)).collect();
    let sent = publish_all(&mut publisher, events).await;
    let fetch = json!({"limit": 5});
    let fetched = http::post_json(&broker.public, "/v1/subscriptions/d/fetch", &fetch).await.json();
    assert_eq!(of(&fetched), sent[298..]);
    let ack = json!({"offsets": sent[298..]});
    let acked = http::post_json(&broker.public, "/v1/subscriptions/d/ack", &ack).await.json();
    assert!(acked["cursor"].as_u64().unwrap() >= sent[299], "{acked}");
}
