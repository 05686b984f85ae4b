//! Dead letters: events that a durable was given as often as they may be.

use std::collections::BTreeSet;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::util::{
    Broker, eventually,
    http::{self, Answer},
    ws::{Socket, offsets},
};

/// A broker with events 1 to `count` on the topic `a`.
async fn broker_with(count: u64) -> (Broker, Socket) {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    for n in 1..=count {
        assert_eq!(
            socket.publish(json!({"topic": "a", "data": n, "id": format!("e{n}")})).await,
            n
        );
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
    (socket, subscribed)
}

async fn nack(socket: &mut Socket, offsets: &[u64], reason: &str) {
    let body = json!({"subscription": 1, "offsets": offsets, "reason": reason});
    let answer = socket.call("nack", body).await;
    assert!(answer["nacked"].is_object(), "{answer}");
}

async fn post(broker: &Broker, call: &str, body: Value) -> Answer {
    http::post_json(&broker.public, &format!("/v1/subscriptions/d/{call}"), &body).await
}

async fn get(broker: &Broker, path: &str) -> Value {
    let answer = http::get(&broker.public, path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

async fn state(broker: &Broker) -> Value {
    get(broker, "/v1/subscriptions/d").await
}

async fn dead(broker: &Broker) -> Vec<Value> {
    let page = get(broker, "/v1/subscriptions/d/dead").await;
    page["dead"].as_array().unwrap().clone()
}

async fn dead_are(broker: &Broker, wanted: &[u64]) {
    eventually("these are dead", async || offsets(&dead(broker).await) == wanted).await;
}

async fn letters(broker: &Broker) -> Vec<Value> {
    let page = get(broker, "/v1/topics/$dead.d/events?limit=1000").await;
    page["events"].as_array().unwrap().clone()
}

/// What the receipts of an event say of the durable `d`.
async fn receipt(broker: &Broker, offset: u64) -> Value {
    let receipts = get(broker, &format!("/v1/events/{offset}/receipts")).await;
    receipts["receipts"][0]["state"].clone()
}

async fn redrive(broker: &Broker, body: Value) -> Value {
    let answer = post(broker, "redrive", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["redriven"].clone()
}

#[tokio::test]
async fn an_event_that_is_nacked_as_often_as_may_be_is_dead() {
    let (mut broker, _) = broker_with(3).await;
    let (mut socket, _) = attach(&broker, json!({"max_deliveries": 3})).await;
    assert_eq!(offsets(&socket.take(3).await), [1, 2, 3]);
    let answer = socket.call("ack", json!({"subscription": 1, "offsets": [1, 3]})).await;
    assert_eq!(answer["acked"]["cursor"], 1);
    nack(&mut socket, &[2], "first").await;
    for reason in ["it does not parse", ""] {
        assert_eq!(offsets(&socket.take(1).await), [2]);
        if reason.is_empty() {
            // Without a reason of its own the one before stays.
            let body = json!({"subscription": 1, "offsets": [2]});
            assert!(socket.call("nack", body).await["nacked"].is_object());
        } else {
            nack(&mut socket, &[2], reason).await;
        }
    }
    dead_are(&broker, &[2]).await;
    for _ in 0..2 {
        let listed = dead(&broker).await;
        assert_eq!(listed.len(), 1);
        let one = &listed[0];
        assert_eq!(one["topic"], "a");
        assert_eq!(one["id"], "e2");
        assert_eq!(one["reason"], "it does not parse");
        assert_eq!(one["ended_by"], "nack");
        assert_eq!(one["attempts"], 3);
        assert_eq!(receipt(&broker, 2).await, "dead");
        assert_eq!(receipt(&broker, 1).await, "acked");
        let state = state(&broker).await;
        assert!(state["cursor"].as_u64() >= Some(3), "{state}");
        assert_eq!((&state["lag"], &state["dead"]), (&json!(0), &json!(1)));
        let letters = letters(&broker).await;
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0]["type"], "dead.lettered");
        assert_eq!(letters[0]["offset"], one["letter"]);
        assert_eq!(letters[0]["data"]["offset"], 2);
        assert_eq!(letters[0]["data"]["durable"], "d");
        assert_eq!(get(&broker, "/v1/events/2").await["data"], 2, "the event itself is there");
        broker.kill();
        broker.restart();
    }
    let metrics = http::get(&broker.admin, "/metrics").await;
    assert!(metrics.text().contains("tidings_dead_lettered_events_total{reason=\"nack\"} 0"));
}

#[tokio::test]
async fn an_event_that_nobody_acknowledges_in_time_is_dead() {
    let (broker, _) = broker_with(2).await;
    let options = json!({"max_deliveries": 2, "ack_wait_ms": 50, "backoff_ms": [1]});
    let (mut socket, _) = attach(&broker, options).await;
    assert_eq!(offsets(&socket.take(4).await), [1, 2, 1, 2]);
    dead_are(&broker, &[1, 2]).await;
    for one in dead(&broker).await {
        assert_eq!((&one["reason"], &one["attempts"]), (&json!("ack_wait"), &json!(2)));
    }
    assert!(state(&broker).await["cursor"].as_u64() >= Some(2));
    let metrics = http::get(&broker.admin, "/metrics").await;
    let line = "tidings_dead_lettered_events_total{reason=\"ack_wait\"} 2";
    assert!(metrics.text().contains(line), "{}", metrics.text());
}

#[tokio::test]
async fn a_session_that_goes_counts_as_often_as_it_comes_back() {
    let (mut broker, _) = broker_with(1).await;
    for attempt in 1..=2 {
        let (mut socket, _) = attach(&broker, json!({"max_deliveries": 3})).await;
        assert_eq!(offsets(&socket.take(1).await), [1]);
        let in_flight = async || state(&broker).await["in_flight"] == 1;
        eventually("the socket took it", in_flight).await;
        drop(socket);
        eventually("it is gone", async || state(&broker).await["sessions"] == 0).await;
        if attempt == 1 {
            assert_eq!(receipt(&broker, 1).await, "pending");
        }
    }
    // Whoever goes has the count remembered in the log, so that it is there after a stop.
    assert_eq!(broker.terminate().0, Some(0));
    broker.restart();
    let (mut socket, _) = attach(&broker, json!({"max_deliveries": 3})).await;
    let batch = socket.push().await["events"].clone();
    assert_eq!(batch["attempts"], json!({"1": 3}), "{batch}");
    drop(socket);
    dead_are(&broker, &[1]).await;
    assert_eq!(dead(&broker).await[0]["reason"], "detached");
}

#[tokio::test]
async fn nothing_dies_of_a_change_of_options() {
    let (broker, _) = broker_with(2).await;
    let put = async |more: Value| {
        let mut options = json!({"filters": ["a"], "start": "first", "max_deliveries": 1});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let headers = [("content-type", "application/json")];
        let (path, body) = ("/v1/subscriptions/d", options.to_string());
        let put = http::request(&broker.public, Method::PUT, path, &headers, body.as_bytes()).await;
        assert!(put.status.is_success(), "{}", put.text());
    };
    put(json!({})).await;
    let fetched = post(&broker, "fetch", json!({"wait": "10s"})).await.json();
    assert_eq!(offsets(fetched["events"].as_array().unwrap()), [1, 2]);
    put(json!({"max_in_flight": 500})).await;
    // Whoever had them may still say that they are done.
    let acked = post(&broker, "ack", json!({"offsets": [1]})).await;
    assert_eq!(acked.json()["cursor"], 1, "{}", acked.text());
    let fetched = post(&broker, "fetch", json!({"wait": "10s"})).await.json();
    assert_eq!(offsets(fetched["events"].as_array().unwrap()), [2]);
    let state = state(&broker).await;
    assert_eq!((&state["dead"], &state["in_flight"]), (&json!(0), &json!(1)), "{state}");
    // What is no longer wanted leaves no letter either.
    put(json!({"filters": ["b"]})).await;
    let letters = http::get(&broker.public, "/v1/topics/$dead.d/events").await.json();
    assert_eq!(letters["events"], json!([]), "{letters}");
}

#[tokio::test]
async fn fetchers_let_events_die_too() {
    let (broker, _) = broker_with(2).await;
    let options =
        json!({"filters": ["a"], "start": "first", "max_deliveries": 2, "ack_wait_ms": 60000});
    let path = "/v1/subscriptions/d";
    let headers = [("content-type", "application/json")];
    let body = options.to_string();
    let put = http::request(&broker.public, Method::PUT, path, &headers, body.as_bytes()).await;
    assert_eq!(put.status, StatusCode::CREATED, "{}", put.text());
    for _ in 0..2 {
        let fetched = post(&broker, "fetch", json!({"wait": "10s"})).await.json();
        assert_eq!(offsets(fetched["events"].as_array().unwrap()), [1, 2]);
        let reason = "x".repeat(10_000);
        let nacked = post(&broker, "nack", json!({"offsets": [1, 2], "reason": reason})).await;
        assert_eq!(nacked.status, 200, "{}", nacked.text());
    }
    dead_are(&broker, &[1, 2]).await;
    assert_eq!(dead(&broker).await[0]["reason"], "x".repeat(512), "a reason is bounded");
    let fetched = post(&broker, "fetch", json!({})).await.json();
    assert_eq!(fetched["events"], json!([]));
    // A lease that nobody is there to see ending ends all the same.
    assert_eq!(redrive(&broker, json!({"offsets": [1]})).await, json!([1]));
    let body = json!({"filters": ["a"], "max_deliveries": 1, "ack_wait_ms": 50}).to_string();
    let put = http::request(&broker.public, Method::PUT, path, &headers, body.as_bytes()).await;
    assert_eq!(put.status, 200, "{}", put.text());
    let fetched = post(&broker, "fetch", json!({})).await.json();
    assert_eq!(offsets(fetched["events"].as_array().unwrap()), [1]);
    eventually("it is dead again", async || receipt(&broker, 1).await == "dead").await;
    assert_eq!(offsets(&dead(&broker).await), [2, 1], "in the order of their letters");
}

#[tokio::test]
async fn what_is_dead_is_listed_page_by_page_and_redriven() {
    let (mut broker, publisher) = broker_with(5).await;
    let options = json!({"max_deliveries": 1, "max_in_flight": 10});
    let (mut socket, _) = attach(&broker, options.clone()).await;
    assert_eq!(socket.take(5).await.len(), 5);
    nack(&mut socket, &[1, 2, 3, 4, 5], "bad").await;
    dead_are(&broker, &[1, 2, 3, 4, 5]).await;
    let (mut after, mut listed) = (0, Vec::new());
    for _ in 0..3 {
        let path = format!("/v1/subscriptions/d/dead?limit=2&after={after}");
        let page = get(&broker, &path).await;
        listed.extend(offsets(page["dead"].as_array().unwrap()));
        after = page["cursor"].as_u64().unwrap_or(after);
    }
    assert_eq!(listed, [1, 2, 3, 4, 5]);

    assert_eq!(redrive(&broker, json!({"offsets": [2, 4, 9]})).await, json!([2, 4]));
    let again = socket.take(2).await;
    assert_eq!(offsets(&again), [2, 4], "to this session, as if for the first time");
    assert_eq!(again[0]["data"], 2);
    assert_eq!(receipt(&broker, 2).await, "in_flight");
    assert_eq!(state(&broker).await["lag"], 2);
    assert_eq!(offsets(&dead(&broker).await), [1, 3, 5]);
    let answer = socket.call("ack", json!({"subscription": 1, "offsets": [2]})).await;
    assert_eq!(answer["acked"]["cursor"], 3, "4 is open again");

    // A restart between: what was redriven is delivered, and nothing else of the dead.
    drop(socket);
    eventually("it is gone", async || state(&broker).await["sessions"] == 0).await;
    assert_eq!(redrive(&broker, json!({"offsets": [5]})).await, json!([5]));
    broker.kill();
    broker.restart();
    let (mut socket, subscribed) = attach(&broker, options.clone()).await;
    assert!([3, 4].contains(&subscribed["last_acked"].as_u64().unwrap()), "{subscribed}");
    // 4 was with the session that went: its one delivery has ended.
    assert_eq!(offsets(&socket.take(1).await), [5]);
    let answer = socket.call("ack", json!({"subscription": 1, "offsets": [5]})).await;
    assert!(answer["acked"].is_object(), "{answer}");
    eventually("4 is dead again", async || receipt(&broker, 4).await == "dead").await;
    assert_eq!(offsets(&dead(&broker).await), [1, 3, 4]);

    // All; others that read the topic see nothing of it.
    let mut publisher = {
        drop(publisher);
        Socket::open(&broker.public).await
    };
    let mut reader = Socket::open(&broker.public).await;
    reader.subscribe(json!({"filters": ["a"]})).await;
    assert_eq!(redrive(&broker, json!({})).await, json!([1, 3, 4]));
    assert_eq!(offsets(&socket.take(3).await), [1, 3, 4]);
    let answer = socket.call("ack", json!({"subscription": 1, "offsets": [1, 3, 4]})).await;
    assert!(answer["acked"]["cursor"].as_u64() >= Some(5), "{answer}");
    assert_eq!(dead(&broker).await, [] as [Value; 0]);
    for offset in 1..=5 {
        assert_eq!(receipt(&broker, offset).await, "acked", "{offset}");
    }
    let next = publisher.publish(json!({"topic": "a", "data": 6})).await;
    assert_eq!(offsets(&reader.take(1).await), [next]);
    assert_eq!(redrive(&broker, json!({})).await, json!([]));
}

/// A cumulative ack that is on its way while an event is redriven does not settle it.
#[tokio::test]
async fn what_is_redriven_comes_by_and_by_and_no_ack_covers_it_unseen() {
    let (broker, mut publisher) = broker_with(4).await;
    let (mut socket, _) = attach(&broker, json!({"max_deliveries": 1, "max_in_flight": 4})).await;
    assert_eq!(socket.take(4).await.len(), 4);
    nack(&mut socket, &[1, 2, 3, 4], "bad").await;
    dead_are(&broker, &[1, 2, 3, 4]).await;
    drop(socket);
    eventually("it is gone", async || state(&broker).await["sessions"] == 0).await;
    let last = publisher.publish(json!({"topic": "a"})).await;
    assert_eq!(redrive(&broker, json!({})).await, json!([1, 2, 3, 4]));
    let acked = post(&broker, "ack", json!({ "offset": last })).await;
    assert_eq!(acked.json()["cursor"], 0, "nobody has seen the redriven ones");
    let (mut socket, _) = attach(&broker, json!({"max_deliveries": 1, "max_in_flight": 4})).await;
    assert_eq!(offsets(&socket.take(4).await), [1, 2, 3, 4]);
    let acked = socket.call("ack", json!({"subscription": 1, "offset": 4})).await;
    assert!(acked["acked"]["cursor"].as_u64() >= Some(last), "{acked}");
}

#[tokio::test]
async fn options_that_do_not_go_together_are_refused() {
    let (broker, mut socket) = broker_with(1).await;
    for (field, value) in [("mode", json!("mirror")), ("filters", json!(["$dead.x"]))] {
        let mut options = json!({"durable": "d", "filters": ["a"], "max_deliveries": 2});
        options[field] = value;
        let error = socket.refused("subscribe", options).await;
        assert_eq!(error["code"], "invalid_argument", "{error}");
        assert!(error["message"].as_str().unwrap().contains("max_deliveries"), "{error}");
    }
    socket.subscribe(json!({"durable": "d", "filters": ["a"], "mode": "mirror"})).await;
    assert_eq!(post(&broker, "redrive", json!({})).await.status, StatusCode::CONFLICT);
    assert_eq!(dead(&broker).await, [] as [Value; 0]);
    assert_eq!(post(&broker, "redrive", json!({"offsets": []})).await.status, 400);
    let path = "/v1/subscriptions/nobody/";
    let missing = http::get(&broker.public, &format!("{path}dead")).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let missing = http::post_json(&broker.public, &format!("{path}redrive"), &json!({})).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let error = socket.refused("publish", json!({"topic": "$dead.d", "data": 1})).await;
    assert_eq!(error["code"], "permission_denied", "{error}");
}

#[tokio::test]
async fn dead_letters_are_followed_and_the_command_line_lists_them() {
    let (broker, _) = broker_with(2).await;
    let mut follower = Socket::open(&broker.public).await;
    follower.subscribe(json!({"filters": ["$dead.d"]})).await;
    let (mut socket, _) = attach(&broker, json!({"max_deliveries": 1})).await;
    assert_eq!(socket.take(2).await.len(), 2);
    nack(&mut socket, &[1, 2], "no\u{1b}[2J").await;
    let letters = follower.take(2).await;
    assert_eq!(letters[0]["data"]["offset"], 1);
    assert_eq!(letters[1]["topic"], "$dead.d");
    let cli = |args: &[&str]| {
        let output = broker.cli(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = cli(&["durable", "dead", "d"]);
    assert_eq!(text, "1  a  1 deliveries  no\\u{1b}[2J\n2  a  1 deliveries  no\\u{1b}[2J\n");
    let text = cli(&["durable", "dead", "d", "--json"]);
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["id"], "e1");
    assert_eq!(cli(&["durable", "dead", "d", "--redrive", "--offset", "2"]), "2  redriven\n");
    assert_eq!(offsets(&socket.take(1).await), [2]);
    assert_eq!(cli(&["durable", "dead", "d", "--redrive"]), "1  redriven\n");
    assert_eq!(cli(&["durable", "dead", "d"]), "");
    let missing = broker.cli(&["durable", "dead", "nobody"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(3));
}

/// Nacks whatever comes, without waiting for the answers, until `events_max` have come.
async fn nack_all(socket: &mut Socket, events_max: usize) {
    let mut seen = 0;
    while seen < events_max
        && let Some(message) = socket.next().await
    {
        let events = message["events"]["events"].as_array().cloned().unwrap_or_default();
        seen += events.len();
        if !events.is_empty() {
            let nack = json!({"subscription": 1, "offsets": offsets(&events)});
            socket.send(&json!({ "nack": nack })).await;
        }
    }
}

async fn lettered(broker: &Broker) -> Vec<u64> {
    let letters = letters(broker).await;
    letters.iter().map(|letter| letter["data"]["offset"].as_u64().unwrap()).collect()
}

/// Killed while events die: each of them is dead, with one letter, or still to come; none is lost.
#[tokio::test]
async fn g16_a_kill_leaves_each_event_dead_with_its_letter_or_pending() {
    const EVENTS: u64 = 150;
    let (mut broker, mut publisher) = broker_with(0).await;
    let batch: Vec<Value> = (0..EVENTS).map(|n| json!({"topic": "a", "data": n})).collect();
    publisher.call("publish_batch", json!({ "events": batch })).await;
    let options = json!({"max_deliveries": 2, "max_in_flight": 20});
    for kill in 1..=4 {
        let (mut socket, _) = attach(&broker, options.clone()).await;
        // Fewer than there are to come, so that the kill meets some on their way.
        nack_all(&mut socket, 15 * kill).await;
        broker.kill();
        broker.restart();
        let of = lettered(&broker).await;
        let dead: BTreeSet<u64> = of.iter().copied().collect();
        assert_eq!(of.len(), dead.len(), "one letter each");
        assert_eq!(state(&broker).await["dead"], dead.len());
        for offset in 1..=EVENTS {
            let state = receipt(&broker, offset).await;
            let wanted = if dead.contains(&offset) { "dead" } else { "pending" };
            assert_eq!(state, wanted, "{offset} after kill {kill}");
        }
        assert_eq!(state(&broker).await["lag"], EVENTS - dead.len() as u64);
    }
    let (mut socket, _) = attach(&broker, options.clone()).await;
    let nacking = tokio::spawn(async move { nack_all(&mut socket, usize::MAX).await });
    eventually("all are dead", async || state(&broker).await["lag"] == 0).await;
    nacking.abort();
    let mut all = lettered(&broker).await;
    all.sort_unstable();
    assert_eq!(all, (1..=EVENTS).collect::<Vec<u64>>(), "each has one letter");
}

/// The durable `d` of the topic `a`, from the first event on.
async fn put(broker: &Broker, more: Value) {
    let mut options = json!({"filters": ["a"], "start": "first"});
    for (name, value) in more.as_object().unwrap() {
        options[name] = value.clone();
    }
    let headers = [("content-type", "application/json")];
    let (path, body) = ("/v1/subscriptions/d", options.to_string());
    let put = http::request(&broker.public, Method::PUT, path, &headers, body.as_bytes()).await;
    assert!(put.status.is_success(), "{}", put.text());
}

#[tokio::test]
async fn deliveries_are_counted_where_nothing_is_said_of_them_also_over_a_stop() {
    let (mut broker, _) = broker_with(1).await;
    put(&broker, json!({"max_deliveries": 3, "ack_wait_ms": 50})).await;
    let fetch = async |broker: &Broker| {
        let fetched = post(broker, "fetch", json!({"wait": "30s"})).await.json();
        assert_eq!(offsets(fetched["events"].as_array().unwrap()), [1]);
        fetched["attempts"]["1"].clone()
    };
    // Nobody acknowledges, nacks or goes: each lease ends by itself.
    assert_eq!(fetch(&broker).await, Value::Null);
    assert_eq!(fetch(&broker).await, 2);
    assert_eq!(broker.terminate().0, Some(0));
    broker.restart();
    assert_eq!(fetch(&broker).await, 3);
    dead_are(&broker, &[1]).await;
}

#[tokio::test]
async fn what_is_dead_is_listed_and_redriven_however_many_there_are_and_after_a_reset() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let events = vec![json!({"topic": "a"}); 1050];
    for part in events.chunks(1000) {
        let answer = socket.call("publish_batch", json!({ "events": part })).await;
        assert!(answer["published_batch"].is_object(), "{answer}");
    }
    put(&broker, json!({"max_deliveries": 1, "ack_wait_ms": 60_000})).await;
    for (first, last) in [(1, 1000), (1001, 1050)] {
        let fetched = post(&broker, "fetch", json!({"limit": 1000})).await.json();
        let all: Vec<u64> = (first..=last).collect();
        assert_eq!(offsets(fetched["events"].as_array().unwrap()), all);
        post(&broker, "nack", json!({ "offsets": all })).await;
        let is_settled = async || state(&broker).await["lag"] == 1050 - last;
        eventually("they are dead", is_settled).await;
    }
    let listed = async || {
        let (mut all, mut after) = (Vec::new(), json!(0));
        loop {
            let path = format!("/v1/subscriptions/d/dead?limit=1000&after={after}");
            let page = get(&broker, &path).await;
            all.extend(offsets(page["dead"].as_array().unwrap()));
            match &page["cursor"] {
                Value::Null => return all,
                cursor => after = cursor.clone(),
            }
        }
    };
    let all: Vec<u64> = (1..=1050).collect();
    assert_eq!(listed().await, all);
    post(&broker, "reset", json!({"to": "now"})).await;
    assert_eq!((state(&broker).await["dead"].clone(), listed().await), (json!(0), all.clone()));
    let mut redriven: Vec<u64> = serde_json::from_value(redrive(&broker, json!({})).await).unwrap();
    redriven.sort_unstable();
    assert_eq!(redriven, all);
    assert_eq!(listed().await, [0; 0]);
    assert_eq!(state(&broker).await["lag"], 1050);
}

#[tokio::test]
async fn no_ack_covers_what_is_redriven_after_a_kill_either() {
    let (mut broker, _) = broker_with(3).await;
    put(&broker, json!({"max_deliveries": 1, "ack_wait_ms": 60_000})).await;
    let fetch = async |broker: &Broker| {
        let fetched = post(broker, "fetch", json!({})).await.json();
        offsets(fetched["events"].as_array().unwrap())
    };
    assert_eq!(fetch(&broker).await, [1, 2, 3]);
    post(&broker, "nack", json!({"offsets": [2]})).await;
    dead_are(&broker, &[2]).await;
    broker.kill();
    broker.restart();
    assert_eq!(redrive(&broker, json!({"offsets": [2]})).await, json!([2]));
    // Killed once more: that it was redriven is known.
    broker.kill();
    broker.restart();
    let acked = post(&broker, "ack", json!({"offset": 3})).await;
    assert_eq!(acked.json()["cursor"], 1, "{}", acked.text());
    assert_eq!(receipt(&broker, 2).await, "pending");
    assert_eq!(fetch(&broker).await, [2]);
    post(&broker, "ack", json!({"offset": 3})).await;
    assert_eq!(state(&broker).await["lag"], 0);
}
