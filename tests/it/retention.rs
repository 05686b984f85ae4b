//! Retention and erasure: what goes is told to those it concerns and to nobody else, and what is needed stays.

use std::path::Path;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::scheduled::in_ms;
use crate::util::{
    Broker, eventually,
    http::{self, Answer},
    sse::Sse,
    ws::{Socket, offsets},
};

/// Small segments, and a pass ten times a second.
const SMALL: [&str; 6] = [
    "--set",
    "log.segment_bytes=65536",
    "--set",
    "log.reserve_bytes=4096",
    "--set",
    "retention.every=100ms",
];

fn broker(more: &[&str]) -> Broker {
    let mut args = SMALL.to_vec();
    for setting in more {
        args.extend(["--set", setting]);
    }
    Broker::with(&args)
}

fn body(n: u64) -> String {
    format!("{n}-").repeat(4000 / (n.to_string().len() + 1))
}

/// Publishes that many events of about 4000 bytes, in turn on these topics; gives the offsets.
async fn publish(broker: &Broker, topics: &[&str], count: u64) -> Vec<u64> {
    let mut socket = Socket::open(&broker.public).await;
    let mut placed = Vec::new();
    for (n, topic) in (0..count).zip(topics.iter().cycle()) {
        placed.push(socket.publish(json!({"topic": topic, "data": body(n)})).await);
    }
    placed
}

async fn read(broker: &Broker, filter: &str, query: &str) -> Answer {
    let filter = filter.replace('>', "%3E");
    http::get(&broker.public, &format!("/v1/topics/{filter}/events?{query}")).await
}

/// The offsets of all there is.
async fn all(broker: &Broker, filter: &str) -> Vec<u64> {
    let mut found = Vec::new();
    let mut after = 0;
    loop {
        let page = read(broker, filter, &format!("after={after}&limit=1000")).await;
        if page.status == StatusCode::GONE {
            // Some went between two pages.
            (found, after) = (Vec::new(), 0);
            continue;
        }
        let page = page.json();
        let events = page["events"].as_array().unwrap();
        if events.is_empty() && page["cursor"] == page["last"] {
            return found;
        }
        found.extend(offsets(events));
        after = page["cursor"].as_u64().unwrap();
    }
}

async fn call(broker: &Broker, method: Method, path: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json")];
    http::request(&broker.public, method, path, &headers, body.to_string().as_bytes()).await
}

fn log_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir.join("log")).unwrap();
    files.filter_map(|file| file.unwrap().metadata().ok()).map(|data| data.len()).sum()
}

fn is_in_a_file(dir: &Path, needle: &[u8]) -> bool {
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if let Ok(bytes) = std::fs::read(&path)
                && bytes.windows(needle.len()).any(|window| window == needle)
            {
                return true;
            }
        }
    }
    false
}

#[tokio::test]
async fn g18_a_log_with_a_limit_stays_small_and_says_what_is_gone() {
    let mut broker = broker(&["retention.max_bytes=200000"]);
    let mut socket = Socket::open(&broker.public).await;
    let old = socket.publish(json!({"topic": "old", "data": 1})).await;
    publish(&broker, &["a"], 300).await;
    // What is kept, the active segment and the next; and what stands beside the events.
    let bound = 200_000 + 2 * 65_536 + 40_000;
    eventually("the log is small", async || log_bytes(&broker.dir) < bound).await;
    for _ in 0..2 {
        let gone = read(&broker, "a", "after=2").await;
        assert_eq!(gone.status, StatusCode::GONE, "{}", gone.text());
        assert_eq!(gone.json()["code"], "offset_gone");
        let skipped = read(&broker, "a", "after=2&on_gap=skip").await.json();
        assert_eq!(skipped["gap"]["reason"], "retention", "{skipped}");
        let first = skipped["gap"]["first"].as_u64().unwrap();
        assert!(offsets(skipped["events"].as_array().unwrap())[0] >= first, "{first}");
        let from_the_first = read(&broker, "a", "after=0&limit=1").await.json();
        assert!(offsets(from_the_first["events"].as_array().unwrap())[0] >= first, "{first}");
        assert_eq!(from_the_first["gap"], Value::Null);
        let mut socket = Socket::open(&broker.public).await;
        socket.subscribe(json!({"filters": ["a"], "after": 2})).await;
        let gap = socket.expect("gap").await;
        assert_eq!((&gap["requested"], &gap["reason"]), (&json!(2), &json!("retention")));
        let first = gap["first"].as_u64().unwrap();
        let events = socket.expect("events").await;
        assert_eq!(events["after"].as_u64(), Some(first - 1), "it goes on where the gap says");
        assert!(offsets(events["events"].as_array().unwrap())[0] >= first, "{first}");
        let mut stream = Sse::open(&broker.public, "/v1/topics/a/events?after=2", &[]).await;
        let told = stream.named("tidings.gap").await.json();
        assert_eq!(told["reason"], "retention");
        // No event of this one was ever there behind the position.
        assert_eq!(read(&broker, "never", "after=2").await.status, StatusCode::OK);
        assert_eq!(read(&broker, "old", &format!("after={old}")).await.status, StatusCode::OK);
        assert_eq!(all(&broker, "old").await, [0; 0]);
        let refused = socket.refused("publish", json!({"topic": "old", "expect_last": 0})).await;
        assert_eq!(refused["code"], "conflict", "it had an event once");
        broker.kill();
        broker.restart();
    }
    let mut socket = Socket::open(&broker.public).await;
    socket.publish(json!({"topic": "old", "data": 2, "expect_last": old})).await;
}

#[tokio::test]
async fn g18_a_rule_for_some_topics_touches_no_other_and_outlives_a_kill() {
    let mut broker = broker(&[]);
    let rule = json!({"max_events": 1});
    let put = call(&broker, Method::PUT, "/v1/retention/chat.%3E", &rule).await;
    assert_eq!(put.status, StatusCode::OK, "{}", put.text());
    assert_eq!(
        put.json(),
        json!({"filter": "chat.>", "max_events": 1, "compact": false, "configured": false})
    );
    let placed = publish(&broker, &["chat.a", "chat.b", "chat.a", "keep.b"], 240).await;
    let kept: Vec<u64> = placed.iter().copied().skip(3).step_by(4).collect();
    eventually("most of the chat is gone", async || all(&broker, "chat.>").await.len() < 60).await;
    assert_eq!(all(&broker, "keep.>").await, kept, "every other event is where it was");
    broker.kill();
    broker.restart();
    assert_eq!(all(&broker, "keep.>").await, kept);
    let untouched = read(&broker, "keep.>", "after=1&limit=1").await;
    assert_eq!(untouched.status, StatusCode::OK, "no gap for readers of what is there");
    assert_eq!(read(&broker, "chat.>", "after=1").await.status, StatusCode::GONE);
    assert_eq!(read(&broker, "chat.b", "after=1").await.status, StatusCode::GONE);
    let shown = http::get(&broker.public, "/v1/retention/chat.%3E").await;
    assert_eq!(shown.json()["max_events"], 1, "{}", shown.text());
    let deleted = call(&broker, Method::DELETE, "/v1/retention/chat.%3E", &json!(null)).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    let deleted = call(&broker, Method::DELETE, "/v1/retention/chat.%3E", &json!(null)).await;
    assert_eq!(deleted.status, StatusCode::NOT_FOUND);
    let rules = http::get(&broker.public, "/v1/retention").await.json();
    assert_eq!(rules["retention"].as_array().unwrap().len(), 1, "{rules}");
    assert_eq!(rules["retention"][0]["filter"], ">");
}

#[tokio::test]
async fn g18_durables_keep_their_state_when_the_segments_it_stood_in_are_gone() {
    let mut broker = broker(&["retention.max_bytes=100000"]);
    let mut socket = Socket::open(&broker.public).await;
    for n in 0..6 {
        socket.publish(json!({"topic": "job", "data": n})).await;
    }
    let dead =
        json!({"durable": "dying", "filters": ["job"], "start": "first", "max_deliveries": 1});
    socket.subscribe(dead).await;
    socket.take(6).await;
    let refused = json!({"subscription": 1, "offsets": [2], "reason": "no"});
    socket.call("nack", refused).await;
    let mut other = Socket::open(&broker.public).await;
    other.subscribe(json!({"durable": "idle", "filters": ["job"], "start": "first"})).await;
    other.take(6).await;
    other.call("ack", json!({"subscription": 1, "offset": 4})).await;
    drop((socket, other));
    let state = async |broker: &Broker, name: &str| {
        let shown = http::get(&broker.public, &format!("/v1/subscriptions/{name}")).await;
        assert_eq!(shown.status, 200, "{}", shown.text());
        shown.json()
    };
    // Those that its session left behind have died with it.
    eventually("all are dead", async || state(&broker, "dying").await["dead"] == 6).await;
    let before = [state(&broker, "idle").await, state(&broker, "dying").await];
    // Pass after pass the states are carried on, each time from another place.
    for _ in 0..6 {
        publish(&broker, &["a"], 60).await;
        eventually("the log is small", async || log_bytes(&broker.dir) < 350_000).await;
    }
    let is_gone = async || {
        let segments = std::fs::read_dir(broker.dir.join("log")).unwrap();
        let mut names = segments.map(|file| file.unwrap().file_name().into_string().unwrap());
        !names.any(|name| name == format!("{:020}.log", 1))
    };
    eventually("the first segment is gone as it was", is_gone).await;
    broker.kill();
    // Without a checkpoint all is folded from what is left of the log.
    std::fs::remove_dir_all(broker.dir.join("projections")).unwrap();
    broker.restart();
    for before in before {
        let after = state(&broker, before["name"].as_str().unwrap()).await;
        assert_eq!(after["cursor"], before["cursor"], "{after}");
        assert_eq!(after["dead"], before["dead"], "{after}");
        assert_eq!(after["options"], before["options"]);
    }
    let letters = http::get(&broker.public, "/v1/subscriptions/dying/dead").await.json();
    let letters = letters["dead"].as_array().unwrap();
    assert_eq!(letters.len(), 6, "letters that are needed stay: {letters:?}");
    assert!(letters.iter().any(|letter| letter["reason"] == "no"), "{letters:?}");

    // A redrive names what comes again.
    let job = Socket::open(&broker.public).await.publish(json!({"topic": "job"})).await;
    let post = async |call: &str, body: Value| {
        let path = format!("/v1/subscriptions/dying/{call}");
        http::post_json(&broker.public, &path, &body).await.json()
    };
    eventually("the new one is fetched", async || {
        let fetched = post("fetch", json!({"wait": "1s"})).await;
        offsets(fetched["events"].as_array().unwrap()) == [job]
    })
    .await;
    post("nack", json!({"offsets": [job]})).await;
    eventually("it is dead too", async || state(&broker, "dying").await["dead"] == 7).await;
    let redriven = post("redrive", json!({"offsets": [job, 2]})).await;
    assert_eq!(redriven, json!({"redriven": [job]}), "not what is gone");
    assert_eq!(post("redrive", json!({})).await, json!({"redriven": []}));
    assert_eq!(state(&broker, "dying").await["dead"], 0, "that is settled");
}

#[tokio::test]
async fn g18_a_durable_is_told_once_of_what_is_gone_and_its_floor_passes_it() {
    let broker = broker(&[]);
    let rule = call(&broker, Method::PUT, "/v1/retention/b", &json!({"max_events": 1})).await;
    assert_eq!(rule.status, StatusCode::OK);
    let mut socket = Socket::open(&broker.public).await;
    let options = json!({"durable": "d", "filters": ["b"], "start": "first"});
    socket.publish(json!({"topic": "b", "data": 0})).await;
    socket.subscribe(options.clone()).await;
    socket.take(1).await;
    let acked = socket.call("ack", json!({"subscription": 1, "offset": 1})).await;
    let floor = &acked["acked"]["cursor"];
    drop(socket);
    let placed = publish(&broker, &["b", "b", "c"], 240).await;
    eventually("most is gone", async || all(&broker, "b").await.len() < 40).await;
    call(&broker, Method::DELETE, "/v1/retention/b", &json!(null)).await;
    // Waits for the pass that is under way: from here on nothing goes.
    call(&broker, Method::DELETE, "/v1/topics/nothing", &json!(null)).await;
    let left = all(&broker, "b").await;
    assert!(placed.contains(&left[0]));
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(options.clone()).await;
    let gap = socket.expect("gap").await;
    assert_eq!((&gap["requested"], &gap["reason"]), (floor, &json!("retention")), "{gap}");
    assert_eq!(offsets(&socket.take(left.len()).await), left, "what is left comes");
    let last = left.last().unwrap();
    socket.call("ack", json!({"subscription": 1, "offset": last})).await;
    drop(socket);
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(options).await;
    let first = socket.push().await;
    assert!(first["gap"].is_null(), "told again: {first}");
}

#[tokio::test]
async fn g18_an_erased_topic_is_in_no_file_and_begins_anew() {
    let mut broker = broker(&[]);
    let needle = "a-secret-that-must-go-4711";
    let mut socket = Socket::open(&broker.public).await;
    for n in 0..60 {
        let data = format!("{needle}-{}", body(n));
        socket.publish(json!({"topic": "user.7", "data": data})).await;
        socket.publish(json!({"topic": "user.8", "data": n})).await;
    }
    // What was stored to wait for its moment has the bytes, too.
    let later = json!({"topic": "user.7", "data": needle, "deliver_at": "2001-01-01T00:00:00Z"});
    let answer = socket.call("publish", later).await;
    assert!(answer["scheduled"].is_object(), "{answer}");
    eventually("it is published", async || all(&broker, "user.7").await.len() == 61).await;
    assert!(is_in_a_file(&broker.dir, needle.as_bytes()));
    let path = "/v1/topics/user.7";
    let erased = call(&broker, Method::DELETE, path, &json!(null)).await;
    assert_eq!(erased.status, StatusCode::OK, "{}", erased.text());
    assert_eq!(erased.json()["erased"], true);
    assert!(!is_in_a_file(&broker.dir, needle.as_bytes()), "its bytes are there still");
    for _ in 0..2 {
        assert_eq!(all(&broker, "user.7").await, [0; 0]);
        assert_eq!(all(&broker, "user.8").await.len(), 60);
        let gone = read(&broker, "user.7", "after=1&on_gap=skip").await.json();
        assert_eq!(gone["gap"]["reason"], "erased", "{gone}");
        assert_eq!(read(&broker, "user.8", "after=2").await.status, StatusCode::OK);
        broker.kill();
        broker.restart();
    }
    let mut socket = Socket::open(&broker.public).await;
    socket.publish(json!({"topic": "user.7", "data": 1, "expect_last": 0})).await;
    let own = call(&broker, Method::DELETE, "/v1/topics/$acks", &json!(null)).await;
    assert_eq!(own.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn g18_what_letters_say_of_erased_events_goes_with_them() {
    let mut broker = broker(&[]);
    let needle = |what: &str, n: u64| format!("a-secret-{what}-4711-{n}");
    let mut socket = Socket::open(&broker.public).await;
    for n in 0..3 {
        let event = json!({"topic": "user.7", "id": needle("id", n)});
        socket.publish(event).await;
    }
    let other = socket.publish(json!({"topic": "user.8", "id": "other"})).await;
    let options = json!({"filters": ["user.*"], "start": "first", "max_deliveries": 1, "ack_wait_ms": 60_000});
    let durable = "/v1/subscriptions/dying";
    let made = call(&broker, Method::PUT, durable, &options).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    let wish = json!({"limit": 10});
    let fetched = http::post_json(&broker.public, &format!("{durable}/fetch"), &wish).await.json();
    assert_eq!(offsets(fetched["events"].as_array().unwrap()).len(), 4);
    let nack = async |broker: &Broker, offset: u64, reason: &str| {
        let wish = json!({"offsets": [offset], "reason": reason});
        let nacked = http::post_json(&broker.public, &format!("{durable}/nack"), &wish).await;
        assert_eq!(nacked.status, StatusCode::OK, "{}", nacked.text());
    };
    for offset in [1, 2] {
        nack(&broker, offset, &needle("reason", offset)).await;
    }
    nack(&broker, other, "it stays").await;
    let shown = async |broker: &Broker| http::get(&broker.public, durable).await.json();
    eventually("three are dead", async || shown(&broker).await["dead"] == 3).await;
    let is_there =
        |broker: &Broker, what: &str| is_in_a_file(&broker.dir, needle(what, 1).as_bytes());
    assert!(is_there(&broker, "id") && is_there(&broker, "reason"));

    let erased = call(&broker, Method::DELETE, "/v1/topics/user.7", &json!(null)).await;
    assert_eq!(erased.json()["erased"], true, "{}", erased.text());
    // One is with somebody still: what they say of it is of nothing that there is.
    nack(&broker, 3, &needle("reason", 3)).await;
    let letters = async |broker: &Broker| {
        http::get(&broker.public, &format!("{durable}/dead")).await.json()["dead"].clone()
    };
    eventually("it is settled", async || shown(&broker).await["in_flight"] == 0).await;
    for _ in 0..2 {
        for secret in ["a-secret-id-4711", "a-secret-reason-4711"] {
            assert!(!is_in_a_file(&broker.dir, secret.as_bytes()), "{secret} is there still");
        }
        let left = letters(&broker).await;
        let left = left.as_array().unwrap();
        assert!(
            left.iter().any(|it| it["reason"] == "it stays" && it["id"] == "other"),
            "{left:?}"
        );
        assert!(left.iter().all(|it| it["offset"] == other || it["offset"] == 3), "{left:?}");
        assert_eq!(shown(&broker).await["dead"], left.len(), "as many as there are letters");
        let gone = read(&broker, "$dead.dying", "after=1&on_gap=skip").await.json();
        assert_eq!(gone["gap"]["reason"], "erased", "{gone}");
        broker.kill();
        broker.restart();
    }
}

#[tokio::test]
async fn g18_what_was_replaced_or_has_expired_goes_without_a_gap() {
    let broker = broker(&["retention.rules=state.> compact"]);
    let mut socket = Socket::open(&broker.public).await;
    let (mut newest, mut lasting) = (Vec::new(), Vec::new());
    for n in 0..150 {
        let key = format!("k{}", n % 5);
        let event = json!({"topic": "state.a", "key": key, "data": body(n)});
        let at = socket.publish(event).await;
        newest.push(at);
        let event = json!({"topic": "short", "data": body(n), "ttl_ms": 1000});
        socket.publish(event).await;
        if n % 10 == 0 {
            lasting.push(socket.publish(json!({"topic": "state.a", "data": n})).await);
        }
    }
    let newest = newest.split_off(145);
    // What is in the active segment is as it was.
    eventually("most is gone", async || all(&broker, "state.a").await.len() < 60).await;
    let left = all(&broker, "state.a").await;
    assert!(newest.iter().all(|at| left.contains(at)), "the last of each key is there");
    assert!(lasting.iter().all(|at| left.contains(at)), "what has no key is there");
    for topic in ["state.a", "short"] {
        assert_eq!(read(&broker, topic, "after=1").await.status, StatusCode::OK, "no gap");
    }
    let is_small = async || log_bytes(&broker.dir) < 6 * 65_536;
    eventually("what has expired takes no space", is_small).await;
}

/// The newest of a key, or of the topic, over each door; none where there is none.
async fn newest(broker: &Broker, key: Option<&str>) -> [Option<Value>; 2] {
    let query = key.map_or(String::new(), |key| format!("?key={key}"));
    let last = http::get(&broker.public, &format!("/v1/topics/st.1/last{query}")).await;
    let last = (last.status == StatusCode::OK).then(|| last.json()["data"].clone());
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"filters": ["st.1"], "last_per_key": true})).await;
    let mut state = None;
    loop {
        let push = socket.push().await;
        for event in push["events"]["events"].as_array().into_iter().flatten() {
            if key.is_none() || event["key"] == json!(key) {
                state = Some(event["data"].clone());
            }
        }
        if push["caught_up"].is_object() {
            return [last, state];
        }
    }
}

#[tokio::test]
async fn g18_an_older_value_does_not_come_back_when_the_newest_has_expired_and_gone() {
    let mut broker = broker(&[]);
    let mut socket = Socket::open(&broker.public).await;
    let value = |data: &str, key: &str| json!({"topic": "st.1", "data": data, "key": key});
    let kept = socket.publish(value("b1", "B")).await;
    socket.publish(value("a1", "A")).await;
    publish(&broker, &["fill.0"], 30).await;
    let short = |n: u64| json!({"topic": "fill.1", "data": body(n), "ttl_ms": 1500});
    let mut events: Vec<Value> = (0..10).map(short).collect();
    let mut newer = value("a2", "A");
    newer["ttl_ms"] = json!(1500);
    events.push(newer);
    events.extend((10..40).map(short));
    let placed = socket.call("publish_batch", json!({"events": events})).await;
    let newer = placed["published_batch"]["results"][10]["offset"].as_u64().unwrap();
    assert_eq!(newest(&broker, Some("A")).await, [Some(json!("a2")), Some(json!("a2"))]);
    publish(&broker, &["fill.2"], 60).await;
    eventually("it has expired", async || newest(&broker, Some("A")).await == [None, None]).await;
    // Of the segments that it stood in most is gone.
    let is_gone = async || read(&broker, "fill.1", "after=0").await.json()["events"] == json!([]);
    let is_rewritten = async || {
        let topics = http::get(&broker.public, "/v1/topics?filter=fill.1").await.json();
        is_gone().await && topics["topics"][0]["count"].as_u64().is_none_or(|count| count < 20)
    };
    eventually("most has gone", is_rewritten).await;
    for _ in 0..2 {
        assert_eq!(newest(&broker, Some("A")).await, [None, None], "a1 is back");
        assert_eq!(newest(&broker, Some("B")).await, [Some(json!("b1")), Some(json!("b1"))]);
        assert_eq!(newest(&broker, None).await[0], None, "an older event of the topic is back");
        let topics = http::get(&broker.public, "/v1/topics?filter=st.1").await.json();
        assert_eq!(topics["topics"][0]["last"], newer, "{topics}");
        assert_eq!(all(&broker, "st.1").await, [kept, kept + 1], "what lasts is read as ever");
        broker.kill();
        broker.restart();
    }
}

#[tokio::test]
async fn g18_an_older_value_does_not_come_back_when_a_limit_has_taken_the_newest() {
    let mut broker = broker(&["retention.rules=st.> max_events=10", "retention.every=2s"]);
    let mut socket = Socket::open(&broker.public).await;
    let value = |data: &str| json!({"topic": "st.1", "data": data, "key": "A"});
    let older = socket.publish(value("a1")).await;
    // The segment that it stands in has just been rewritten and rests; that of the newer one goes whole.
    publish(&broker, &["fill", "wrong"], 30).await;
    call(&broker, Method::DELETE, "/v1/topics/wrong", &json!(null)).await;
    publish(&broker, &["st.2"], 20).await;
    let newer = socket.publish(value("a2")).await;
    publish(&broker, &["st.2"], 60).await;
    let is_gone = async || !all(&broker, "st.1").await.contains(&newer);
    eventually("the newer one is gone", is_gone).await;
    for _ in 0..2 {
        assert_eq!(all(&broker, "st.1").await, [older], "it is not taken out yet");
        assert_eq!(newest(&broker, Some("A")).await, [None, None], "a1 is back");
        assert_eq!(newest(&broker, None).await, [None, None], "a1 is back");
        broker.kill();
        broker.restart();
    }
    socket = Socket::open(&broker.public).await;
    socket.publish(value("a3")).await;
    assert_eq!(newest(&broker, Some("A")).await, [Some(json!("a3")), Some(json!("a3"))]);
}

#[tokio::test]
async fn g18_a_rule_for_a_few_events_among_many_is_kept_too() {
    let rules = "retention.rules=few.a max_events=10, few.b max_age=1s";
    let broker = broker(&[rules]);
    let topics = ["few.a", "few.b", "many.1", "many.2", "many.3", "many.4"];
    publish(&broker, &topics, 240).await;
    eventually("old ones go", async || all(&broker, "few.b").await.is_empty()).await;
    let count = async || all(&broker, "few.a").await.len();
    // And up to a segment more: the one that is written has not gone by.
    eventually("those beyond the limit go", async || count().await <= 10 + 16).await;
    assert!(count().await >= 10);
    assert_eq!(all(&broker, "many.*").await.len(), 160);
}

#[tokio::test]
async fn what_the_broker_keeps_for_itself_counts_against_the_limit_of_the_disk() {
    const MAX: u64 = 1 << 20;
    let broker = broker(&[&format!("retention.max_bytes={MAX}")]);
    let kept = publish(&broker, &["kept"], 20).await;
    let mut socket = Socket::open(&broker.public).await;
    // Three times the limit, of which nothing is needed any more.
    for n in 0..400 {
        let later = json!({"topic": "later", "data": body(n), "deliver_at": in_ms(3_600_000)});
        let answer = socket.call("publish", later).await;
        let offset = &answer["scheduled"]["offset"];
        let answer = socket.call("cancel", json!({"offset": offset})).await;
        assert!(answer["cancelled"].is_object(), "{answer}");
        let options =
            json!({"filters": ["room"], "presence": {"data": {"text": "x".repeat(3000)}}});
        let answer = socket.call("subscribe", options).await;
        let subscription = &answer["subscribed"]["subscription"];
        socket.call("unsubscribe", json!({"subscription": subscription})).await;
    }
    let bytes = async || {
        let status = http::get(&broker.public, "/v1/status").await.json();
        status["log"]["bytes"].as_u64().unwrap()
    };
    let is_small = async || bytes().await <= MAX / 4 + 20 * 4200 + 2 * 65536;
    eventually("it has gone", is_small).await;
    assert_eq!(all(&broker, "kept").await, kept, "what users published is far below the limit");
}

#[tokio::test]
async fn a_rule_that_is_wrong_is_refused_with_its_field() {
    let broker = broker(&[]);
    for (path, rule, needle) in [
        ("/v1/retention/a", json!({"max_age": "soon"}), "max_age"),
        ("/v1/retention/a", json!({"max_bytes": 0}), "max_bytes"),
        ("/v1/retention/a", json!({"older": 1}), "older"),
        ("/v1/retention/a..b", json!({"compact": true}), "filter"),
        ("/v1/retention/a", json!([1]), "body"),
        // Of these what the broker still needs stays: a rule would do nothing.
        ("/v1/retention/$acks", json!({"max_events": 1}), "filter: $acks"),
        ("/v1/retention/$dead.%3E", json!({"max_age": "1d"}), "filter: $dead.>"),
        ("/v1/retention/$presence.a", json!({}), "filter: $presence.a"),
        ("/v1/retention/$scheduled", json!({"compact": true}), "filter: $scheduled"),
    ] {
        let refused = call(&broker, Method::PUT, path, &rule).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path} {rule}");
        assert!(refused.text().contains(needle), "{}", refused.text());
    }
    assert_eq!(http::get(&broker.public, "/v1/retention/a").await.status, StatusCode::NOT_FOUND);
    for filter in ["$receipts.%3E", "$audit"] {
        let path = format!("/v1/retention/{filter}");
        let put = call(&broker, Method::PUT, &path, &json!({"max_age": "1d"})).await;
        assert_eq!(put.status, StatusCode::OK, "{}", put.text());
    }
}

#[tokio::test]
async fn g18_old_events_go_also_where_few_come() {
    let broker = broker(&["retention.rules=old max_age=2s"]);
    let mut socket = Socket::open(&broker.public).await;
    socket.publish(json!({"topic": "old", "data": 1})).await;
    let kept = socket.publish(json!({"topic": "kept", "data": 1})).await;
    // The segment they are in is sealed for it, and is rewritten once more than half of it may go.
    for n in 0..3 {
        socket.publish(json!({"topic": "old", "data": n})).await;
    }
    eventually("they are gone", async || all(&broker, "old").await.is_empty()).await;
    assert_eq!(all(&broker, "kept").await, [kept]);
}

#[tokio::test]
async fn g18_a_live_reader_that_is_overtaken_is_told_before_what_follows() {
    let broker = broker(&["retention.max_bytes=70000"]);
    publish(&broker, &["a"], 12).await;
    let mut socket = Socket::open(&broker.public).await;
    let options = json!({"filters": ["a"], "durable": "d", "start": "first", "max_in_flight": 1});
    socket.subscribe(options).await;
    let first = socket.take(1).await;
    // Its one place is taken: it reads no further while everything behind it goes.
    publish(&broker, &["a"], 120).await;
    eventually("the log is small", async || log_bytes(&broker.dir) < 400_000).await;
    let ack = json!({"subscription": 1, "offset": offsets(&first)[0]});
    socket.start("ack", ack).await;
    let gap = socket.expect("gap").await;
    assert_eq!(gap["reason"], "retention", "{gap}");
    let next = socket.take(1).await;
    assert!(offsets(&next)[0] > offsets(&first)[0] + 12, "{next:?}");
}

#[tokio::test]
async fn g18_an_erasure_that_was_cut_off_goes_on_after_a_kill() {
    let mut broker = broker(&["retention.every=1h"]);
    let needle = "another-secret-that-must-go-0815";
    let mut socket = Socket::open(&broker.public).await;
    for n in 0..60 {
        let data = format!("{needle}-{}", body(n));
        socket.publish(json!({"topic": "user.7", "data": data})).await;
    }
    let address = broker.public.clone();
    let erasing = tokio::spawn(async move {
        let headers = [("content-type", "application/json")];
        http::try_request(&address, Method::DELETE, "/v1/topics/user.7", &headers, b"").await
    });
    // Its event is in the log; how far it got is not known.
    let control = async || {
        let status = http::get(&broker.public, "/v1/status").await.json();
        status["log"]["last"].as_u64().unwrap() > 60
    };
    eventually("it has begun", control).await;
    broker.kill();
    let _ = erasing.await;
    broker.restart();
    // The first pass comes with the start.
    eventually("it is done", async || !is_in_a_file(&broker.dir, needle.as_bytes())).await;
    assert_eq!(all(&broker, "user.7").await, [0; 0]);
}

#[tokio::test]
async fn rules_are_shown_set_and_deleted_and_topics_erased_by_commands() {
    let broker = broker(&[]);
    let run = |args: &[&str]| {
        let output = broker.cli(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let set =
        run(&["retention", "set", "chat.>", "--max-age", "30d", "--max-events", "5", "--compact"]);
    assert_eq!(set, (Some(0), "chat.>  max_age=30days  max_events=5  compact\n".to_owned()));
    let (code, shown) = run(&["retention", "show"]);
    assert!(
        code == Some(0) && shown.lines().count() == 2 && shown.contains("(settings)"),
        "{shown}"
    );
    assert_eq!(run(&["retention", "show", "chat.>", "--json"]).0, Some(0));
    let all = run(&["retention", "set", "chat.>"]);
    assert_eq!(all, (Some(0), "chat.>  keeps all\n".to_owned()));
    let unit = broker.cli(&["retention", "set", "chat.>", "--max-bytes", "1GB"]).output().unwrap();
    let said = String::from_utf8(unit.stderr).unwrap();
    assert!(said.contains("give a whole number, without a unit"), "{said}");
    assert_eq!(run(&["retention", "delete", "chat.>"]).0, Some(0));
    assert_eq!(run(&["retention", "delete", "chat.>"]).0, Some(3), "it is not there any more");
    let mut socket = Socket::open(&broker.public).await;
    let at = socket.publish(json!({"topic": "a", "data": 1})).await;
    assert_eq!(run(&["topic", "delete", "a"]).0, Some(2), "only with --yes");
    let (code, erased) = run(&["topic", "delete", "a", "--yes"]);
    assert_eq!((code, erased.starts_with("a  erased up to ")), (Some(0), true), "{erased}");
    assert_eq!(read(&broker, "a", "after=0").await.json()["events"], json!([]), "{at}");
}

#[tokio::test]
async fn g18_a_durable_whose_making_alone_is_carried_on_keeps_its_acks() {
    let mut broker = broker(&["retention.max_bytes=200000"]);
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"durable": "d", "filters": ["job"], "start": "first"})).await;
    let job = socket.publish(json!({"topic": "job", "data": 1})).await;
    socket.take(1).await;
    // The ack stands a segment behind what says how the durable was made.
    publish(&broker, &["a"], 20).await;
    socket.call("ack", json!({"subscription": 1, "offset": job})).await;
    drop(socket);
    // And so does the pause, a segment behind that.
    publish(&broker, &["a"], 20).await;
    let path = "/v1/subscriptions/d/pause";
    assert_eq!(http::post_json(&broker.public, path, &json!({})).await.status, 200);
    let shown = http::get(&broker.public, "/v1/subscriptions/d").await.json();
    publish(&broker, &["a"], 40).await;
    let first = broker.dir.join(format!("log/{:020}.log", 1));
    eventually("the first segment is gone", async || !first.exists()).await;
    broker.kill();
    std::fs::remove_dir_all(broker.dir.join("projections")).unwrap();
    broker.restart();
    let after = http::get(&broker.public, "/v1/subscriptions/d").await.json();
    assert_eq!(after["cursor"], shown["cursor"], "{after}");
    assert_eq!(after["paused"], true, "{after}");
    assert!(after["cursor"].as_u64() >= Some(job), "{after}");
}
