//! Events that wait for their moment: published once, in time, over kills; cancelled; refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::Method;
use serde_json::{Value, json};
use tidings_proto::Timestamp;

use crate::{
    auth::{admin, guarded, token},
    util::{Broker, eventually, http, random::Random, ws::Socket},
};

fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(elapsed.as_millis()).unwrap()
}

/// The moment after so many milliseconds, as the protocol writes it.
pub fn in_ms(ms: u64) -> String {
    Timestamp::from_millis(now_ms() + ms).to_string()
}

pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Schedules an event and gives what `scheduled` says.
async fn schedule(socket: &mut Socket, event: Value) -> Value {
    let answer = socket.call("publish", event).await;
    assert!(answer["scheduled"].is_object(), "not scheduled: {answer}");
    answer["scheduled"].clone()
}

async fn cancel_over_http(broker: &Broker, offset: &Value) -> http::Answer {
    let path = format!("/v1/scheduled/{offset}");
    http::request(&broker.public, Method::DELETE, &path, &[], b"").await
}

/// All events on a topic.
async fn all(broker: &Broker, topic: &str) -> Vec<Value> {
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let path = format!("/v1/topics/{topic}/events?after={after}&limit=1000");
        let page = http::get(&broker.public, &path).await.json();
        events.extend(page["events"].as_array().unwrap().iter().cloned());
        let cursor = page["cursor"].as_u64().unwrap();
        if cursor == after || page["events"].as_array().unwrap().is_empty() {
            return events;
        }
        after = cursor;
    }
}

async fn metric(broker: &Broker, line: &str) -> Option<f64> {
    let text = http::get(&broker.admin, "/metrics").await.text();
    text.lines().find_map(|found| found.strip_prefix(line))?.trim().parse().ok()
}

#[tokio::test]
async fn an_event_is_published_whole_when_it_is_due_and_not_before() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"filters": ["a"]})).await;
    let event = json!({
        "topic": "a", "id": "one", "type": "t", "key": "k", "priority": "high", "ttl_ms": 60_000,
        "correlation": "c", "headers": {"h": "1"}, "data": {"n": [1, 2.50, "ä"]},
        "deliver_at": in_ms(400),
    });
    let scheduled = schedule(&mut socket, event.clone()).await;
    assert_eq!((&scheduled["id"], &scheduled["duplicate"]), (&json!("one"), &Value::Null));
    assert_eq!(metric(&broker, "tidings_scheduled_events ").await, Some(1.0));
    let before = socket.publish(json!({"topic": "a", "data": "before"})).await;

    // The same again is the same, also when it has been published.
    let mut again = scheduled.clone();
    again["duplicate"] = json!(true);
    assert_eq!(schedule(&mut socket, event.clone()).await, again);
    let events = socket.take(2).await;
    assert_eq!(events[0]["offset"], before);
    let fired = &events[1];
    let due = Timestamp::from_millis(now_ms());
    let time: Timestamp = fired["time"].as_str().unwrap().parse().unwrap();
    let at: Timestamp = event["deliver_at"].as_str().unwrap().parse().unwrap();
    assert!(at <= time && time <= due, "due {at}, published {time}");
    let expires: Timestamp = fired["expires"].as_str().unwrap().parse().unwrap();
    let lives_ms = expires.as_millis() - time.as_millis();
    assert!((59_000..=60_000).contains(&lives_ms), "it lives {lives_ms} ms");
    for name in ["topic", "id", "type", "key", "priority", "correlation", "headers", "data"] {
        assert_eq!(fired[name], event[name], "{name}");
    }
    assert_eq!(schedule(&mut socket, event.clone()).await, again);
    assert_eq!(all(&broker, "a").await.len(), 2);

    // Under its id nothing else is published.
    for (name, value) in [("data", json!(1)), ("deliver_at", json!(in_ms(9)))] {
        let mut other = event.clone();
        other[name] = value;
        assert_eq!(socket.refused("publish", other).await["code"], "conflict", "{name}");
    }
    let mut now = event;
    now.as_object_mut().unwrap().remove("deliver_at");
    assert_eq!(socket.refused("publish", now).await["code"], "conflict");
    assert_eq!(metric(&broker, "tidings_scheduled_events ").await, Some(0.0));
    let fired = metric(&broker, "tidings_scheduled_ended_total{outcome=\"fired\"}").await;
    assert_eq!(fired, Some(1.0));
    assert_eq!(metric(&broker, "tidings_scheduled_lateness_seconds_count").await, Some(1.0));
}

#[tokio::test]
async fn what_is_stored_of_it_is_for_nobody() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"filters": [">"]})).await;
    let event = json!({"topic": "a", "data": "secret", "deliver_at": in_ms(DAY_MS)});
    let scheduled = schedule(&mut socket, event).await;
    let answer = http::get(&broker.public, &format!("/v1/events/{}", scheduled["offset"])).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    for filter in ["$scheduled", "$scheduled.>"] {
        let refused = socket.refused("subscribe", json!({"filters": [filter]})).await;
        assert_eq!(refused["code"], "permission_denied", "{filter}");
    }
    let last = socket.publish(json!({"topic": "b"})).await;
    assert_eq!(socket.take(1).await[0]["offset"], last);
}

#[tokio::test]
async fn an_event_due_in_the_past_is_published_at_once() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"filters": ["a"]})).await;
    schedule(&mut socket, json!({"topic": "a", "deliver_at": "2001-01-01T00:00:00Z"})).await;
    schedule(&mut socket, json!({"topic": "a", "data": 2, "deliver_at": in_ms(0)})).await;
    let events = socket.take(2).await;
    assert!(events[0]["data"].is_null() && events[1]["data"] == 2, "{events:?}");
    assert!(events[0]["id"].as_str().unwrap().len() == 36);
}

#[tokio::test]
async fn events_come_in_the_order_of_their_moments() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"filters": ["a"]})).await;
    let begin = now_ms() + 500;
    for n in [5, 1, 4, 0, 3, 2] {
        let at = Timestamp::from_millis(begin + 60 * n).to_string();
        schedule(&mut socket, json!({"topic": "a", "data": n, "deliver_at": at})).await;
    }
    let events = socket.take(6).await;
    let order: Vec<u64> = events.iter().map(|event| event["data"].as_u64().unwrap()).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn over_http_it_is_scheduled_and_cancelled() {
    let mut broker = Broker::start();
    let at = in_ms(DAY_MS);
    let headers = [
        ("content-type", "image/png"),
        ("tidings-deliver-at", at.as_str()),
        ("idempotency-key", "one"),
    ];
    let plain = async |broker: &Broker| {
        let path = "/v1/topics/a/events";
        http::request(&broker.public, Method::POST, path, &headers, b"\x00\xff").await
    };
    let first = plain(&broker).await;
    assert_eq!(first.status, 202, "{}", first.text());
    let offset = first.json()["scheduled"]["offset"].clone();
    assert_eq!(first.json(), json!({"scheduled": {"offset": offset, "id": "one"}}));
    let again = plain(&broker).await;
    assert_eq!((again.status.as_u16(), &again.json()["scheduled"]["offset"]), (200, &offset));

    for _ in 0..2 {
        let cancelled = cancel_over_http(&broker, &offset).await;
        assert_eq!((cancelled.status.as_u16(), cancelled.text().as_str()), (204, ""));
    }
    assert_eq!(metric(&broker, "tidings_scheduled_events ").await, Some(0.0));
    // Whoever sends it again is not told that it waits.
    broker.kill();
    broker.restart();
    let again = plain(&broker).await;
    assert_eq!((again.status.as_u16(), &again.json()["code"]), (409, &json!("conflict")));
    let text = again.json()["detail"].as_str().unwrap().to_owned();
    assert!(text.starts_with("id: \"one\"") && text.contains("cancelled"), "{text}");
    let mut socket = Socket::open(&broker.public).await;
    let same = json!({"topic": "a", "id": "one", "data_base64": "AP8=", "datacontenttype": "image/png",
        "deliver_at": at});
    let error = socket.refused("publish", same).await;
    assert_eq!((&error["code"], &error["message"]), (&json!("conflict"), &json!(text)));
    socket.subscribe(json!({"filters": ["a"]})).await;
    let event = json!({"topic": "a", "data": "soon", "deliver_at": in_ms(100)});
    let soon = http::post_json(&broker.public, "/v1/events", &event).await;
    assert_eq!(soon.status, 202, "{}", soon.text());
    assert_eq!(socket.take(1).await[0]["data"], "soon");
    let late = cancel_over_http(&broker, &soon.json()["scheduled"]["offset"]).await;
    assert_eq!((late.status.as_u16(), &late.json()["code"]), (409, &json!("conflict")));
    assert!(late.text().contains("has been published, as event"), "{}", late.text());

    let published = socket.publish(json!({"topic": "b"})).await;
    for (offset, status) in [(json!(published), 404), (json!(999), 404), (json!(0), 400)] {
        let refused = cancel_over_http(&broker, &offset).await;
        assert_eq!(refused.status, status, "{offset}: {}", refused.text());
    }
    let other = http::request(&broker.public, Method::GET, "/v1/scheduled/1", &[], b"").await;
    assert_eq!((other.status.as_u16(), other.header("allow")), (405, "DELETE, OPTIONS"));
}

#[tokio::test]
async fn what_cannot_wait_is_refused_with_its_field() {
    let broker = Broker::with(&["--set", "limits.scheduled=2"]);
    let mut socket = Socket::open(&broker.public).await;
    let at = in_ms(DAY_MS);
    for (event, field) in [
        (json!({"topic": "a", "deliver_at": in_ms(30 * DAY_MS + 60_000)}), "deliver_at"),
        (json!({"topic": "a", "deliver_at": at, "expect_last": 0}), "expect_last"),
        (json!({"topic": "a", "deliver_at": at, "expires": in_ms(1000)}), "expires"),
    ] {
        let refused = socket.refused("publish", event).await;
        let text = refused["message"].as_str().unwrap();
        assert!(refused["code"] == "invalid_argument" && text.starts_with(field), "{refused}");
    }
    let batch = json!([{"topic": "a"}, {"topic": "a", "deliver_at": at}]);
    let refused = socket.refused("publish_batch", json!({"events": batch})).await;
    assert!(refused["message"].as_str().unwrap().starts_with("events[1].deliver_at"), "{refused}");
    let refused = http::post_json(&broker.public, "/v1/events", &batch).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    let refused = socket.refused("publish", json!({"topic": "$a", "deliver_at": at})).await;
    assert_eq!(refused["code"], "permission_denied");

    let first =
        schedule(&mut socket, json!({"topic": "a", "deliver_at": in_ms(29 * DAY_MS)})).await;
    schedule(&mut socket, json!({"topic": "a", "deliver_at": at})).await;
    let refused = socket.refused("publish", json!({"topic": "a", "deliver_at": at})).await;
    assert_eq!(refused["code"], "too_large");
    assert!(refused["message"].as_str().unwrap().contains("limits.scheduled"), "{refused}");
    let answer = socket.call("cancel", json!({"offset": first["offset"]})).await;
    assert_eq!(answer["cancelled"], json!({"offset": first["offset"]}));
    schedule(&mut socket, json!({"topic": "a", "deliver_at": at})).await;
    assert!(all(&broker, "a").await.is_empty());
}

#[tokio::test]
async fn its_publisher_and_the_admin_cancel_it_and_nobody_else() {
    let guarded = guarded(&[]);
    let grants = json!({"publish": [">"], "subscribe": [">"], "durable": ["*"]});
    let mut alice = guarded.open(&token("alice", grants.clone())).await;
    let mut bob = guarded.open(&token("bob", grants)).await;
    let mut root = guarded.open(&admin()).await;
    for canceller in [&mut alice, &mut root] {
        let event = json!({"topic": "a", "deliver_at": in_ms(DAY_MS)});
        let offset = schedule(canceller, event).await["offset"].clone();
        let refused = bob.refused("cancel", json!({"offset": offset})).await;
        assert_eq!(refused["code"], "not_found", "{refused}");
    }
    let event = json!({"topic": "a", "deliver_at": in_ms(DAY_MS)});
    let offset = schedule(&mut bob, event).await["offset"].clone();
    assert_eq!(alice.refused("cancel", json!({"offset": offset})).await["code"], "not_found");
    assert!(root.call("cancel", json!({"offset": offset})).await["cancelled"].is_object());
    assert!(bob.call("cancel", json!({"offset": offset})).await["cancelled"].is_object());
    // The event is its publisher's, not of whoever lets it go.
    alice.subscribe(json!({"filters": ["b"]})).await;
    schedule(&mut bob, json!({"topic": "b", "deliver_at": in_ms(50)})).await;
    assert_eq!(alice.take(1).await[0]["source"], "urn:tidings:subject:bob");
}

#[tokio::test]
async fn a_restart_knows_what_waits() {
    let mut broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let mut offsets = Vec::new();
    for n in 0..3 {
        let event = json!({"topic": "a", "data": n, "deliver_at": in_ms(DAY_MS)});
        offsets.push(schedule(&mut socket, event).await["offset"].clone());
    }
    let soon = json!({"topic": "a", "id": "soon", "deliver_at": in_ms(300)});
    let at = schedule(&mut socket, soon.clone()).await["offset"].clone();
    assert_eq!(broker.terminate().0, Some(0));
    broker.restart();
    assert_eq!(cancel_over_http(&broker, &offsets[0]).await.status, 204);
    broker.kill();
    // What is due while nobody is there is published by whoever is there next.
    tokio::time::sleep(Duration::from_millis(300)).await;
    broker.restart();
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"filters": ["a"], "after": 0})).await;
    assert_eq!(socket.take(1).await[0]["id"], "soon");
    assert_eq!(schedule(&mut socket, soon).await["offset"], at);
    for offset in &offsets {
        assert_eq!(cancel_over_http(&broker, offset).await.status, 204);
    }
    assert_eq!(cancel_over_http(&broker, &at).await.status, 409);
    // Without the checkpoint the log says the same.
    assert_eq!(broker.terminate().0, Some(0));
    std::fs::remove_dir_all(broker.dir.join("projections")).unwrap();
    broker.restart();
    assert_eq!(metric(&broker, "tidings_scheduled_events ").await, Some(0.0));
    assert_eq!(all(&broker, "a").await.len(), 1);
}

#[tokio::test]
async fn the_command_line_schedules() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"filters": ["a"]})).await;
    let late = broker.cli(&["pub", "a", "later", "--at", &in_ms(DAY_MS)]).output().unwrap();
    let offset: u64 = String::from_utf8(late.stdout).unwrap().trim().parse().unwrap();
    assert_eq!(cancel_over_http(&broker, &json!(offset)).await.status, 204);
    let soon = broker.cli(&["pub", "a", "soon", "--in", "200ms"]).output().unwrap();
    assert!(soon.status.success(), "{soon:?}");
    assert_eq!(socket.take(1).await[0]["data"], "soon");
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

/// What somebody was told of each event: whether its cancel came in time.
type Told = BTreeMap<u64, Option<bool>>;

/// Schedules events and cancels every fourth, each until it is answered, also by a broker that comes back.
async fn schedule_all(address: String, count: u64, seed: u64) -> Told {
    let mut random = Random::new(seed);
    let mut socket = connect(&address).await;
    let mut told = Told::new();
    for n in 0..count {
        let event = json!({
            "topic": "load", "id": n.to_string(), "data": n, "deliver_at": in_ms(random.below(1500)),
        });
        let offset = loop {
            match socket.try_call("publish", event.clone()).await {
                Some(answer) if answer["scheduled"].is_object() => {
                    break answer["scheduled"]["offset"].clone();
                }
                Some(answer) => panic!("refused: {answer}"),
                None => socket = connect(&address).await,
            }
        };
        if n % 4 > 0 {
            told.insert(n, None);
            continue;
        }
        let in_time = loop {
            match socket.try_call("cancel", json!({"offset": offset})).await {
                Some(answer) if answer["cancelled"].is_object() => break true,
                Some(answer) => {
                    assert_eq!(answer["error"]["code"], "conflict", "{answer}");
                    let text = answer["error"]["message"].as_str().unwrap();
                    if text.contains("has been published") {
                        break false;
                    }
                }
                None => socket = connect(&address).await,
            }
        };
        told.insert(n, Some(in_time));
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_published_once_or_cancelled_over_kills() {
    const COUNT: u64 = 600;
    let mut random = Random::new(16);
    let mut broker = Broker::with(&["--set", "log.segment_bytes=65536"]);
    let scheduling = tokio::spawn(schedule_all(broker.public.clone(), COUNT, 7));
    let mut kills = 0;
    while !scheduling.is_finished() || kills < 20 {
        // At any moment: what is between two kills is the broker's business.
        tokio::time::sleep(Duration::from_millis(random.below(200))).await;
        broker.kill();
        broker.restart();
        kills += 1;
    }
    let told = scheduling.await.unwrap();
    let is_over = async || metric(&broker, "tidings_scheduled_events ").await == Some(0.0);
    eventually("nothing waits any more", is_over).await;
    let published = all(&broker, "load").await;
    let numbers: BTreeSet<u64> =
        published.iter().map(|event| event["data"].as_u64().unwrap()).collect();
    assert_eq!(numbers.len(), published.len(), "an event was published twice");
    for (number, in_time) in &told {
        assert_eq!(numbers.contains(number), *in_time != Some(true), "{number}: {in_time:?}");
    }
    assert_eq!(told.len() as u64, COUNT);
    let cancelled = told.values().filter(|in_time| **in_time == Some(true)).count();
    assert!(cancelled > 10, "only {cancelled} were cancelled");
}
