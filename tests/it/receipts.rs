//! Receipts as events: every ack of an event that wishes for them is told, once, to its publisher alone.

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method;
use serde_json::{Value, json};

use crate::{
    auth::{admin, guarded, token},
    util::{Broker, eventually, http, random::Random, ws::Socket},
};

async fn put(broker: &Broker, name: &str, options: Value) {
    let path = format!("/v1/subscriptions/{name}");
    let headers = [("content-type", "application/json")];
    let body = options.to_string();
    let made = http::request(&broker.public, Method::PUT, &path, &headers, body.as_bytes()).await;
    assert!(made.status.is_success(), "{}", made.text());
}

async fn ack(broker: &Broker, name: &str, ack: Value) {
    let path = format!("/v1/subscriptions/{name}/ack");
    let answer = http::post_json(&broker.public, &path, &ack).await;
    assert!(answer.status.is_success(), "{}", answer.text());
}

/// What the receipts on a topic say, in order: offset and subscription.
async fn told(broker: &Broker, topic: &str) -> Vec<(u64, String)> {
    // An ack is answered a moment before its commit may be read; a later publish is answered after.
    let marker = json!({"topic": "marker"});
    let marked = http::post_json(&broker.public, "/v1/events", &marker).await;
    assert!(marked.status.is_success(), "{}", marked.text());
    let (mut told, mut after) = (Vec::new(), 0);
    loop {
        let path = format!("/v1/topics/{topic}/events?after={after}&limit=1000");
        let page = http::get(&broker.public, &path).await.json();
        let events = page["events"].as_array().unwrap_or_else(|| panic!("{page}"));
        told.extend(events.iter().map(of_event));
        let cursor = page["cursor"].as_u64().unwrap();
        if events.is_empty() || cursor == after {
            return told;
        }
        after = cursor;
    }
}

fn of_event(event: &Value) -> (u64, String) {
    assert_eq!(event["type"], "receipt.acked", "{event}");
    let data = &event["data"];
    (data["offset"].as_u64().unwrap(), data["subscription"].as_str().unwrap().to_owned())
}

const MINE: &str = "%24receipts.anonymous";

#[tokio::test]
async fn an_ack_is_told_before_it_is_answered() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    publisher.subscribe(json!({"filters": ["$receipts.anonymous"]})).await;
    let options = json!({"durable": "d", "filters": ["a.*"], "start": "first"});
    let mut reader = Socket::open(&broker.public).await;
    let subscription = reader.subscribe(options).await["subscription"].clone();
    let mut offsets = Vec::new();
    for n in 0..6 {
        let event = json!({"topic": "a.1", "data": n, "receipts": n % 2 == 0});
        offsets.push(publisher.publish(event).await);
    }
    reader.take(6).await;
    // One of its own, then the floor over the others.
    let these = json!({"subscription": subscription, "offsets": [offsets[2], offsets[3]]});
    assert!(reader.call("ack", these.clone()).await["acked"].is_object());
    assert_eq!(told(&broker, MINE).await, [(offsets[2], "d".to_owned())]);
    let up_to = json!({"subscription": subscription, "offset": offsets[5]});
    for ack in [these, up_to.clone(), up_to] {
        assert!(reader.call("ack", ack).await["acked"].is_object());
    }
    let want = [offsets[2], offsets[0], offsets[4]].map(|offset| (offset, "d".to_owned()));
    assert_eq!(told(&broker, MINE).await, want);
    let pushed: Vec<_> = publisher.take(3).await.iter().map(of_event).collect();
    assert_eq!(pushed, want);
}

#[tokio::test]
async fn every_durable_that_it_matches_is_told_of_and_no_other() {
    let broker = Broker::start();
    put(&broker, "all", json!({"filters": ["a.>"]})).await;
    put(&broker, "types", json!({"filters": ["a.>"], "types": ["t"]})).await;
    put(&broker, "mirror", json!({"filters": ["a.1"], "mode": "mirror"})).await;
    put(&broker, "shared", json!({"filters": ["a.2"], "mode": "shared"})).await;
    let mut socket = Socket::open(&broker.public).await;
    let mut publish = async |topic: &str, kind: &str| {
        socket.publish(json!({"topic": topic, "type": kind, "receipts": true})).await
    };
    let (one, two, three) =
        (publish("a.1", "t").await, publish("a.2", "u").await, publish("b", "t").await);
    for name in ["all", "types", "mirror"] {
        ack(&broker, name, json!({"offset": three})).await;
    }
    // The mirror looks no further than what it matches; a cumulative ack is none of a shared one.
    ack(&broker, "shared", json!({"offsets": [one, two, three]})).await;
    let told: BTreeSet<_> = told(&broker, MINE).await.into_iter().collect();
    let want = [(one, "all"), (one, "types"), (one, "mirror"), (two, "all"), (two, "shared")];
    assert_eq!(told, want.map(|(offset, name)| (offset, name.to_owned())).into());
}

#[tokio::test]
async fn who_wants_something_else_now_tells_nothing_of_what_was_there_before() {
    let broker = Broker::start();
    put(&broker, "d", json!({"filters": ["a.>"]})).await;
    let mut socket = Socket::open(&broker.public).await;
    let event = json!({"topic": "a.1", "receipts": true});
    let before = socket.publish(event.clone()).await;
    put(&broker, "d", json!({"filters": ["a.1"]})).await;
    let after = socket.publish(event).await;
    ack(&broker, "d", json!({"offset": after})).await;
    assert_eq!(told(&broker, MINE).await, [(after, "d".to_owned())]);
    let listed = http::get(&broker.public, &format!("/v1/events/{before}/receipts")).await.json();
    assert_eq!(listed["receipts"], json!([]), "as the list says");
}

#[tokio::test]
async fn what_nobody_acknowledged_is_not_told() {
    let broker = Broker::start();
    put(&broker, "d", json!({"filters": ["a"], "max_deliveries": 1, "ack_wait_ms": 60_000})).await;
    let mut socket = Socket::open(&broker.public).await;
    let event = json!({"topic": "a", "receipts": true});
    let dead = socket.publish(event.clone()).await;
    let skipped = socket.publish(event.clone()).await;
    let fetch = async |limit: u64| {
        let body = json!({"limit": limit, "wait": "1s"});
        http::post_json(&broker.public, "/v1/subscriptions/d/fetch", &body).await.json()
    };
    assert_eq!(fetch(1).await["events"][0]["offset"], dead);
    let nack = json!({"offsets": [dead]});
    http::post_json(&broker.public, "/v1/subscriptions/d/nack", &nack).await;
    let is_dead = async || {
        let state = http::get(&broker.public, "/v1/subscriptions/d").await.json();
        state["dead"] == 1
    };
    eventually("it is dead", is_dead).await;
    let reset = async |to: Value| {
        let body = json!({"to": to});
        let answer = http::post_json(&broker.public, "/v1/subscriptions/d/reset", &body).await;
        assert!(answer.status.is_success(), "{}", answer.text());
    };
    reset(json!("now")).await;
    let last = socket.publish(event).await;
    assert_eq!(fetch(1).await["events"][0]["offset"], last);
    ack(&broker, "d", json!({"offset": last})).await;
    assert_eq!(told(&broker, MINE).await, [(last, "d".to_owned())], "{dead} {skipped}");
    // What was passed over and is acknowledged after all is told then.
    reset(json!(skipped - 1)).await;
    ack(&broker, "d", json!({"offsets": [skipped]})).await;
    assert_eq!(told(&broker, MINE).await.last(), Some(&(skipped, "d".to_owned())));
}

#[tokio::test]
async fn a_publisher_who_was_away_reads_them_later_also_by_a_durable() {
    let mut guarded = guarded(&[]);
    let grants = json!({"publish": [">"], "subscribe": [">"], "durable": ["{sub}:*"]});
    let (alice, bob) = (token("alice@x", grants.clone()), token("bob", grants));
    let mine = "$receipts.alice=40x";
    let mut socket = guarded.open(&alice).await;
    let durable = json!({"durable": "alice=40x:r", "filters": [mine]});
    socket.subscribe(durable.clone()).await;
    let mut reader = guarded.open(&bob).await;
    let options = json!({"durable": "bob:d", "filters": ["a"], "start": "first"});
    let subscription = reader.subscribe(options.clone()).await["subscription"].clone();
    let mut offsets = Vec::new();
    for _ in 0..3 {
        offsets.push(socket.publish(json!({"topic": "a", "receipts": true})).await);
    }
    drop(socket);
    let own = reader.publish(json!({"topic": "a", "receipts": true})).await;
    reader.take(4).await;
    reader.call("ack", json!({"subscription": subscription, "offset": offsets[1]})).await;
    guarded.broker.kill();
    guarded.broker.restart();
    let mut reader = guarded.open(&bob).await;
    let subscription = reader.subscribe(options).await["subscription"].clone();
    // Not delivered again yet, and acknowledged from memory.
    reader.call("ack", json!({"subscription": subscription, "offset": own})).await;
    for filter in [mine, "$receipts.>", "$receipts.*"] {
        let refused = reader.refused("subscribe", json!({"filters": [filter]})).await;
        assert_eq!(refused["code"], "permission_denied", "{filter}");
    }
    let mut watcher = guarded.open(&bob).await;
    watcher.subscribe(json!({"filters": ["$receipts.bob"], "after": 0})).await;
    assert_eq!(of_event(&watcher.take(1).await[0]), (own, "bob:d".to_owned()));

    let mut socket = guarded.open(&alice).await;
    let subscription = socket.subscribe(durable).await["subscription"].clone();
    let receipts = socket.take(3).await;
    let want: Vec<_> = offsets.iter().map(|offset| (*offset, "bob:d".to_owned())).collect();
    assert_eq!(receipts.iter().map(of_event).collect::<Vec<_>>(), want);
    let last = receipts[2]["offset"].clone();
    let acked = socket.call("ack", json!({"subscription": subscription, "offset": last})).await;
    assert!(acked["acked"].is_object(), "{acked}");
    let mut root = guarded.open(&admin()).await;
    root.subscribe(json!({"filters": [mine], "after": 0})).await;
    assert_eq!(root.take(3).await, receipts);
}

#[tokio::test]
async fn an_ack_of_very_many_tells_of_each() {
    const COUNT: u64 = 3000;
    let broker = Broker::with(&["--set", "log.segment_bytes=65536"]);
    for name in ["d", "e", "f"] {
        put(&broker, name, json!({"filters": ["a", "b"], "start": "first"})).await;
    }
    let mut socket = Socket::open(&broker.public).await;
    let mut last = 0;
    for _ in 0..COUNT / 100 {
        let event = json!({"topic": "a", "receipts": true});
        let other = json!({"topic": "b"});
        let events: Vec<_> = (0..100).flat_map(|_| [event.clone(), other.clone()]).collect();
        let answer = socket.call("publish_batch", json!({"events": events})).await;
        let results = answer["published_batch"]["results"].as_array().unwrap();
        last = results[199]["offset"].as_u64().unwrap();
    }
    let mut broker = broker;
    let up_to = json!({"offset": last});
    let half = json!({"offset": last / 2});
    ack(&broker, "f", half).await;
    tokio::join!(ack(&broker, "d", up_to.clone()), ack(&broker, "e", up_to.clone()));
    // After a restart the index of the log knows which they are.
    assert_eq!(broker.terminate().0, Some(0));
    broker.restart();
    ack(&broker, "f", up_to).await;
    let mut counts: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for (offset, name) in told(&broker, MINE).await {
        assert!(counts.entry(name).or_default().insert(offset), "{offset} was told of twice");
    }
    let counts: Vec<usize> = counts.values().map(BTreeSet::len).collect();
    assert_eq!(counts, [3000; 3]);
}

#[tokio::test]
async fn what_too_many_would_tell_of_is_refused() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let event = json!({"topic": "a", "receipts": true});
    for n in 0..100 {
        put(&broker, &format!("d{n}"), json!({"filters": ["a"]})).await;
    }
    socket.publish(event.clone()).await;
    put(&broker, "one-more", json!({"filters": ["*"]})).await;
    let refused = socket.refused("publish", event.clone()).await;
    assert_eq!(refused["code"], "invalid_argument");
    let message = refused["message"].as_str().unwrap();
    assert!(message.starts_with("receipts: more than 100 durable"), "{refused}");
    let batch = json!({"events": [{"topic": "b"}, event]});
    assert_eq!(socket.refused("publish_batch", batch).await["code"], "invalid_argument");
    socket.publish(json!({"topic": "a"})).await;
}

#[tokio::test]
async fn a_scheduled_event_wishes_for_them_too() {
    let broker = Broker::start();
    put(&broker, "d", json!({"filters": ["a"]})).await;
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"filters": ["a"]})).await;
    let at = "2001-01-01T00:00:00Z";
    let event = json!({"topic": "a", "receipts": true, "deliver_at": at});
    assert!(socket.call("publish", event).await["scheduled"].is_object());
    let offset = socket.take(1).await[0]["offset"].as_u64().unwrap();
    ack(&broker, "d", json!({"offset": offset})).await;
    assert_eq!(told(&broker, MINE).await, [(offset, "d".to_owned())]);
}

/// A connection, however long the broker is away.
async fn connect(address: &str) -> Socket {
    loop {
        if let Ok(socket) = Socket::try_open(address, "/v1/ws", &[]).await {
            return socket;
        }
        tokio::task::yield_now().await;
    }
}

/// Reads a durable to its end and acknowledges in stretches and one by one; gives how far.
async fn acknowledge(address: String, last: u64, seed: u64) {
    let mut random = Random::new(seed);
    loop {
        let mut socket = connect(&address).await;
        let options = json!({"durable": "d", "filters": ["a"], "batch_max": 20});
        let Some(answer) = socket.try_call("subscribe", options).await else { continue };
        let subscription = answer["subscribed"]["subscription"].clone();
        if answer["subscribed"]["last_acked"].as_u64() >= Some(last) {
            return;
        }
        while let Some(message) = socket.next().await {
            let events = message["events"]["events"].as_array().cloned().unwrap_or_default();
            let Some(end) = events.last().map(|event| event["offset"].clone()) else { continue };
            let mut ack = json!({"subscription": subscription, "offset": end});
            if random.below(2) == 0 {
                let mut offsets: Vec<_> =
                    events.iter().map(|event| event["offset"].clone()).collect();
                offsets.reverse();
                ack = json!({"subscription": subscription, "offsets": offsets});
            }
            let Some(answer) = socket.try_call("ack", ack).await else { break };
            assert!(answer["acked"].is_object(), "{answer}");
            if answer["acked"]["cursor"].as_u64() >= Some(last) {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_ack_is_told_once_over_kills() {
    let mut random = Random::new(26);
    let mut broker = Broker::with(&["--set", "log.segment_bytes=65536"]);
    put(&broker, "d", json!({"filters": ["a"], "start": "first"})).await;
    let mut socket = Socket::open(&broker.public).await;
    let (mut wishing, mut last) = (BTreeSet::new(), 0);
    for n in 0..1500 {
        let receipts = n % 3 > 0;
        let event = json!({"topic": "a", "data": "x".repeat(100), "receipts": receipts});
        last = socket.publish(event).await;
        if receipts {
            wishing.insert(last);
        }
    }
    let reading = tokio::spawn(acknowledge(broker.public.clone(), last, 3));
    let mut kills = 0;
    while !reading.is_finished() {
        // At any moment: what is between two kills is the broker's business.
        tokio::time::sleep(std::time::Duration::from_millis(20 + random.below(60))).await;
        broker.kill();
        broker.restart();
        kills += 1;
    }
    reading.await.unwrap();
    let told = told(&broker, MINE).await;
    let offsets: BTreeSet<u64> = told.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, wishing, "after {kills} kills");
    assert_eq!(told.len(), offsets.len(), "some were told twice");
}

#[tokio::test]
async fn who_has_acknowledged_an_event_is_read_in_pages() {
    let broker = Broker::start();
    let names: Vec<String> = (0..1003).map(|n| format!("d{n:04}")).collect();
    for name in &names {
        put(&broker, name, json!({"filters": ["a"], "start": "first"})).await;
    }
    // Neither of these has a say in it.
    put(&broker, "d0000x", json!({"filters": ["b"], "start": "first"})).await;
    put(&broker, "d0001x", json!({"filters": ["a"], "start": "first", "types": ["x"]})).await;
    let mut socket = Socket::open(&broker.public).await;
    let offset = socket.publish(json!({"topic": "a"})).await;
    ack(&broker, "d0001", json!({"offset": offset})).await;
    let page = async |query: &str| {
        let path = format!("/v1/events/{offset}/receipts{query}");
        let page = http::get(&broker.public, &path).await.json();
        let receipts = page["receipts"].as_array().unwrap_or_else(|| panic!("{page}")).clone();
        let names = receipts.iter().map(|it| it["subscription"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), page["cursor"].clone(), receipts)
    };
    let (first, cursor, receipts) = page("").await;
    assert_eq!((&first[..], &cursor), (&names[..100], &json!("d0099")), "100 unless said");
    assert_eq!(
        (&receipts[0]["state"], &receipts[1]["state"]),
        (&json!("pending"), &json!("acked"))
    );
    for limit in [1000, 334, 1003 / 17] {
        let (mut all, mut behind) = (Vec::new(), String::new());
        loop {
            let (some, cursor, _) = page(&format!("?limit={limit}{behind}")).await;
            assert!(some.len() <= limit && !some.is_empty(), "{} of {limit}", some.len());
            all.extend(some);
            let Some(cursor) = cursor.as_str() else { break };
            behind = format!("&cursor={cursor}");
        }
        assert_eq!(all, names, "in pages of {limit}");
    }
    for limit in ["0", "1001", "x"] {
        let path = format!("/v1/events/{offset}/receipts?limit={limit}");
        let refused = http::get(&broker.public, &path).await;
        assert_eq!(refused.status, 400, "{}", refused.text());
    }
    // A socket is told of as many as a page may have.
    let answer = socket.call("receipts", json!({"offset": offset})).await;
    let told = answer["receipts"]["receipts"].as_array().unwrap();
    assert_eq!((told.len(), &told[999]["subscription"]), (1000, &json!("d0999")));
    let rest = page("?limit=1000&cursor=d0999").await;
    assert_eq!((&rest.0[..], rest.1), (&names[1000..], Value::Null));
    let listed = broker.cli(&["receipts", &offset.to_string()]).output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), names.len());
}
