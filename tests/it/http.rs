//! HTTP: every call of the protocol, long polls, SSE, CloudEvents, the operators' door, and a change
//! of transport.

use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::util::{
    Broker, PATIENCE, eventually,
    http::{self, Answer},
    random::Random,
    raw,
    sse::Sse,
    ws::{Socket, offsets},
};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn get(broker: &Broker, path: &str) -> Answer {
    http::get(&broker.public, path).await
}

async fn call(broker: &Broker, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    http::request(&broker.public, method, path, headers, b"").await
}

/// A problem of this status and code, as RFC 9457 and the protocol want it; gives its text.
fn assert_problem(answer: &Answer, status: u16, code: &str) -> String {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{problem}");
    assert!(problem["title"].is_string() && problem["retryable"].is_boolean(), "{problem}");
    problem["detail"].as_str().unwrap().to_owned()
}

/// A broker with events 1 to `count`, on `a` and `b` in turns.
async fn broker_with(count: u64) -> (Broker, Socket) {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    for n in 1..=count {
        let topic = if n % 2 == 1 { "a" } else { "b" };
        socket.publish(json!({"topic": topic, "data": n})).await;
    }
    (broker, socket)
}

async fn log_id(broker: &Broker) -> String {
    get(broker, "/v1/status").await.json()["log"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_read_answers_events_and_where_the_next_one_begins() {
    let (broker, _) = broker_with(10).await;
    let log = log_id(&broker).await;
    let short = &log[..8];
    let after_other = "/v1/topics/a/events?after=3@00000000";
    for (path, expected, cursor) in [
        ("/v1/topics/a/events".to_owned(), vec![1, 3, 5, 7, 9], 10),
        ("/v1/topics/%3E/events".to_owned(), (1..=10).collect(), 10),
        ("/v1/topics/*/events?after=8".to_owned(), vec![9, 10], 10),
        ("/v1/topics/a/events?after=10".to_owned(), vec![], 10),
        (format!("/v1/topics/a/events?after=5@{short}"), vec![7, 9], 10),
        (format!("/v1/topics/a/events?after=5%40{short}"), vec![7, 9], 10),
        ("/v1/topics/none/events".to_owned(), vec![], 10),
        ("/v1/events?topic=a&topic=b&after=7".to_owned(), vec![8, 9, 10], 10),
        ("/v1/topics/a/events?since=2001-01-01T00:00:00Z".to_owned(), vec![1, 3, 5, 7, 9], 10),
        ("/v1/topics/a/events?since=2999-01-01T00:00:00Z".to_owned(), vec![], 10),
    ] {
        let answer = get(&broker, &path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
        let body = answer.json();
        assert_eq!(offsets(body["events"].as_array().unwrap()), expected, "{path}");
        assert_eq!(body["cursor"], cursor, "{path}");
        assert_eq!((&body["first"], &body["last"]), (&json!(1), &json!(10)), "{path}");
        assert_eq!(body["log"], log);
        assert!(body.get("gap").is_none(), "{body}");
        assert_eq!(answer.header("tidings-cursor"), cursor.to_string(), "{path}");
        assert_eq!(answer.header("tidings-log"), log);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    // Page by page, each from the cursor of the one before.
    let (mut cursor, mut all) = (0, Vec::new());
    loop {
        let path = format!("/v1/topics/a/events?limit=2&after={cursor}");
        let page = get(&broker, &path).await.json();
        let events = page["events"].as_array().unwrap();
        assert!(events.len() <= 2);
        cursor = page["cursor"].as_u64().unwrap();
        assert!(events.last().is_none_or(|event| event["offset"].as_u64().unwrap() <= cursor));
        all.extend(offsets(events));
        if events.is_empty() {
            break;
        }
    }
    assert_eq!(all, [1, 3, 5, 7, 9]);
    assert_problem(&get(&broker, after_other).await, 410, "offset_gone");
}

#[tokio::test]
async fn a_read_has_100_events_unless_said_otherwise_and_1000_at_most() {
    let (broker, mut socket) = broker_with(0).await;
    let events: Vec<Value> = (0..1500).map(|n| json!({"topic": "a", "data": n})).collect();
    let answer = socket.call("publish_batch", json!({ "events": events })).await;
    assert!(answer["published_batch"].is_object(), "{answer}");
    for (path, count) in [("", 100), ("?limit=1", 1), ("?limit=1000", 1000)] {
        let read = get(&broker, &format!("/v1/topics/a/events{path}")).await.json();
        assert_eq!(read["events"].as_array().unwrap().len(), count);
        assert_eq!(read["cursor"], count, "the cursor stops behind the last one");
    }
    let over = get(&broker, "/v1/topics/a/events?limit=1001").await;
    assert!(assert_problem(&over, 400, "invalid_argument").contains("limit"));
}

#[tokio::test]
async fn g4_a_read_of_what_is_not_there_is_gone_with_a_body_or_skips_with_a_word() {
    let (broker, _) = broker_with(4).await;
    let log = log_id(&broker).await;
    for path in [
        "/v1/topics/a/events?after=5",
        "/v1/topics/a/events?after=2@00000000",
        "/v1/events?topic=a&after=77",
        "/v1/events/2@00000000",
    ] {
        let answer = get(&broker, path).await;
        assert_problem(&answer, 410, "offset_gone");
        let problem = answer.json();
        assert_eq!(
            (&problem["first"], &problem["last"], &problem["log"]),
            (&json!(1), &json!(4), &json!(log)),
            "{path}"
        );
        if path.contains('?') {
            let skipped = get(&broker, &format!("{path}&on_gap=skip")).await;
            assert_eq!(skipped.status, StatusCode::OK, "{}", skipped.text());
            let skipped = skipped.json();
            assert_eq!(offsets(skipped["events"].as_array().unwrap()), [1, 3], "{path}");
            assert_eq!(skipped["gap"]["reason"], "log_changed", "{skipped}");
            assert_eq!(skipped["gap"]["first"], 1);
            assert!(skipped["gap"].get("subscription").is_none());
        }
    }
    // The resume error of SSE is the same, and without a word about it the stream goes on.
    let path = "/v1/topics/a/events?after=5";
    let refused = Sse::open(&broker.public, &format!("{path}&on_gap=error"), &[]).await;
    assert_eq!(refused.status, StatusCode::GONE);
    let mut stream = Sse::open(&broker.public, path, &[]).await;
    let gap = stream.named("tidings.gap").await.json();
    let expected =
        json!({"requested": 5, "first": 1, "last": 4, "log": log, "reason": "log_changed"});
    assert_eq!(gap, expected);
    assert_eq!(stream.event().await.unwrap().cursor(), 1);
}

#[tokio::test]
async fn a_long_poll_waits_and_answers_as_soon_as_something_comes() {
    let (broker, mut socket) = broker_with(2).await;
    let at_once = Instant::now();
    let full = get(&broker, "/v1/topics/a/events?wait=30s").await.json();
    assert_eq!(offsets(full["events"].as_array().unwrap()), [1]);
    assert!(at_once.elapsed() < Duration::from_secs(15), "it waited although there was something");

    let started = Instant::now();
    let empty = get(&broker, "/v1/topics/a/events?after=2&wait=300ms").await;
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
    assert_eq!((empty.status, &empty.json()["events"]), (StatusCode::OK, &json!([])));
    assert_eq!(empty.header("tidings-cursor"), "2");

    for (query, prefer) in [("&wait=30", ""), ("", "wait=30")] {
        let last = get(&broker, "/v1/status").await.json()["log"]["last"].clone();
        let path = format!("/v1/topics/a/events?after={last}{query}");
        let poll = tokio::spawn({
            let address = broker.public.clone();
            async move {
                let headers = [("prefer", prefer)];
                let headers = if prefer.is_empty() { &headers[..0] } else { &headers[..] };
                http::request(&address, Method::GET, &path, headers, b"").await
            }
        });
        let polls = async || get(&broker, "/v1/status").await.json()["sessions"]["http"] == 2;
        eventually("the poll is under way", polls).await;
        let started = Instant::now();
        socket.publish(json!({"topic": "b"})).await;
        let offset = socket.publish(json!({"topic": "a"})).await;
        let answer = poll.await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(15), "it waited to the end");
        assert_eq!(offsets(answer.json()["events"].as_array().unwrap()), [offset]);
        assert_eq!(answer.header("tidings-cursor"), offset.to_string());
    }
    for path in ["wait=31s", "wait=31", "wait=soon", "wait=-1"] {
        let refused = get(&broker, &format!("/v1/topics/a/events?{path}")).await;
        assert!(assert_problem(&refused, 400, "invalid_argument").contains("wait"));
    }
}

#[tokio::test]
async fn g3_sse_has_ids_to_resume_from_and_says_when_it_caught_up() {
    let (mut broker, mut socket) = broker_with(3).await;
    socket.publish(json!({"topic": "a", "type": "task.done", "data": {"x": 1}})).await;
    let log = log_id(&broker).await;
    let id = |offset: u64| format!("{offset}@{}", &log[..8]);
    let mut stream = Sse::open(&broker.public, "/v1/topics/a/events?after=0", &[]).await;
    assert_eq!(stream.status, StatusCode::OK);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("tidings-log", log.as_str()),
        ("tidings-cursor", "0"),
    ] {
        assert_eq!(stream.headers[name].to_str().unwrap(), value, "{name}");
    }
    let first = stream.next().await.unwrap();
    let retry: u64 = first.retry.unwrap().parse().unwrap();
    assert!((1000..=5000).contains(&retry), "{retry}");
    let mut events = Vec::new();
    let caught_up = loop {
        let block = stream.next().await.unwrap();
        if block.event.as_deref() == Some("tidings.caught_up") {
            break block;
        }
        assert!(block.is_event(), "{block:?}");
        events.push(block);
    };
    assert_eq!(caught_up.json()["cursor"], 4);
    let ids: Vec<_> = events.iter().map(|block| block.id.clone().unwrap()).collect();
    assert_eq!(ids, [id(1), id(3), id(4)]);
    let names: Vec<_> = events.iter().map(|block| block.event.as_deref()).collect();
    assert_eq!(names, [None, None, Some("task.done")], "left out for the type `message`");
    for block in &events {
        let one = get(&broker, &format!("/v1/events/{}", block.cursor())).await;
        assert_eq!(block.data.as_deref(), Some(one.text().as_str()), "the event as JSON");
    }
    let live = socket.publish(json!({"topic": "a"})).await;
    assert_eq!(stream.event().await.unwrap().id, Some(id(live)));

    // What the browser sends when it comes back outranks what the page asked for.
    for last in [id(3), "3".to_owned()] {
        let path = "/v1/topics/a/events?after=0";
        let headers = [("last-event-id", last.as_str())];
        let mut again = Sse::open(&broker.public, path, &headers).await;
        assert_eq!(again.event().await.unwrap().id, Some(id(4)), "{last}");
    }
    broker.kill();
    assert_eq!(stream.event().await, None);
    broker.restart();
    let headers = [("last-event-id", ids[0].as_str())];
    let mut again = Sse::open(&broker.public, "/v1/events?topic=a", &headers).await;
    assert_eq!(again.event().await.unwrap().id, Some(id(3)));
    let bad = Sse::open(&broker.public, "/v1/topics/a/events", &[("last-event-id", "x")]).await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    let other = [("last-event-id", "3@00000000")];
    let mut other = Sse::open(&broker.public, "/v1/topics/a/events", &other).await;
    assert_eq!(other.named("tidings.gap").await.json()["reason"], "log_changed");
}

#[tokio::test]
async fn sse_names_no_event_like_one_of_the_browsers_own() {
    let (broker, mut socket) = broker_with(0).await;
    let kinds = ["error", "open", "tidings.error", "message", "errors", "open.x"];
    for kind in kinds {
        socket.publish(json!({"topic": "b", "type": kind})).await;
    }
    let mut stream = Sse::open(&broker.public, "/v1/topics/b/events?after=0", &[]).await;
    for kind in kinds {
        let event = stream.event().await.unwrap();
        assert_eq!(event.json()["type"], kind, "it is in the data");
        let named = ["errors", "open.x"].contains(&kind).then_some(kind);
        assert_eq!(event.event.as_deref(), named, "an EventSource would take it for its own");
    }
}

#[tokio::test]
async fn sse_begins_now_has_one_line_a_data_and_moves_its_id_over_what_does_not_match() {
    let broker = Broker::with(&["--set", "limits.ping_interval=500ms"]);
    let mut socket = Socket::open(&broker.public).await;
    socket.publish(json!({"topic": "a", "data": "before"})).await;
    let mut stream = Sse::open(&broker.public, "/v1/topics/a/events", &[]).await;
    assert_eq!(stream.named("tidings.caught_up").await.json()["cursor"], 1);
    socket
        .send_text("{\"id\":9,\"publish\":{\"topic\":\"a\",\"data\":{\"a\":\r\n1,\n\"b\":2}}}")
        .await;
    socket.next().await;
    let block = stream.event().await.unwrap();
    assert_eq!(block.cursor(), 2, "from now on");
    assert!(block.data.as_ref().unwrap().contains("\"data\":{\"a\":  1, \"b\":2}"), "{block:?}");
    for _ in 0..5 {
        socket.publish(json!({"topic": "b"})).await;
    }
    loop {
        let block = stream.next().await.unwrap();
        assert!(block.data.is_none(), "nothing matched: {block:?}");
        if block.id.is_some() && block.cursor() == 7 {
            break;
        }
    }
}

#[tokio::test]
async fn sse_selects_like_a_subscription_and_takes_no_limit() {
    let (broker, mut socket) = broker_with(0).await;
    for (kind, priority) in [("x", "low"), ("task.a", "high"), ("task.b", "low"), ("y", "urgent")] {
        let event = json!({"topic": "a", "type": kind, "priority": priority});
        socket.publish(event).await;
    }
    for (query, expected) in [
        ("types=task.*", vec![2, 3]),
        ("types=x&types=y", vec![1, 4]),
        ("types=x,y", vec![1, 4]),
        ("min_priority=high", vec![2, 4]),
        ("min_priority=high&types=task.*", vec![2]),
    ] {
        let path = format!("/v1/topics/a/events?after=0&{query}");
        let read = get(&broker, &path).await.json();
        assert_eq!(offsets(read["events"].as_array().unwrap()), expected, "{query}");
        let mut stream = Sse::open(&broker.public, &path, &[]).await;
        for offset in expected {
            assert_eq!(stream.event().await.unwrap().cursor(), offset, "{query}");
        }
    }
    for query in ["limit=5", "wait=5s", "min_priority=top", "afer=1", "after=x"] {
        let path = format!("/v1/topics/a/events?{query}");
        assert_eq!(Sse::open(&broker.public, &path, &[]).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn cloudevents_go_in_and_out_in_all_modes() {
    let (broker, _) = broker_with(0).await;
    let post = async |path: &str, headers: &[(&str, &str)], body: &str| {
        http::request(&broker.public, Method::POST, path, headers, body.as_bytes()).await
    };
    let headers = [
        ("content-type", "application/xml"),
        ("ce-specversion", "1.0"),
        ("ce-id", "one"),
        ("ce-type", "task.done"),
        ("ce-source", "urn:x"),
        ("ce-subject", "the%20subject"),
        ("ce-time", "2026-01-01T00:00:00Z"),
        ("ce-myext", "\"quoted\""),
        ("ce-partitionkey", "k"),
        ("tidings-priority", "high"),
        ("tidings-correlation", "c"),
    ];
    let answer = post("/v1/topics/a/events", &headers, "<x/>").await;
    assert_eq!(
        (answer.status, answer.json()),
        (StatusCode::CREATED, json!({"offset": 1, "id": "one"}))
    );
    let event = get(&broker, "/v1/events/1").await.json();
    for (field, value) in [
        ("topic", json!("a")),
        ("id", json!("one")),
        ("type", json!("task.done")),
        ("source", json!("urn:x")),
        ("datacontenttype", json!("application/xml")),
        ("data_base64", json!("PHgvPg==")),
        ("key", json!("k")),
        ("priority", json!("high")),
        ("correlation", json!("c")),
        (
            "headers",
            json!({
                "subject": "the subject", "time": "2026-01-01T00:00:00Z", "myext": "quoted",
            }),
        ),
    ] {
        assert_eq!(event[field], value, "{field}: {event}");
    }
    let structured = json!({
        "specversion": "1.0", "id": "two", "type": "t", "source": "urn:y", "partitionkey": "k",
        "traceparent": "00-1", "datacontenttype": "text/plain", "data": "hello",
    });
    let headers = [("content-type", "application/cloudevents+json; charset=utf-8")];
    let answer = post("/v1/topics/b/events", &headers, &structured.to_string()).await;
    assert_eq!(answer.json(), json!({"offset": 2, "id": "two"}));
    let event = get(&broker, "/v1/events/2").await.json();
    assert_eq!((&event["data"], &event["key"]), (&json!("hello"), &json!("k")), "{event}");
    assert_eq!(event["headers"], json!({"traceparent": "00-1"}));

    let accept = [("accept", "application/cloudevents-batch+json")];
    let answer = call(&broker, Method::GET, "/v1/events?topic=%3E", &accept).await;
    assert_eq!(answer.header("content-type"), "application/cloudevents-batch+json");
    assert_eq!(answer.header("tidings-cursor"), "2");
    let out = answer.json();
    assert_eq!(out.as_array().unwrap().len(), 2);
    for (field, value) in [
        ("specversion", json!("1.0")),
        ("id", json!("two")),
        ("type", json!("t")),
        ("source", json!("urn:y")),
        ("subject", json!("b")),
        ("partitionkey", json!("k")),
        ("traceparent", json!("00-1")),
        ("data", json!("hello")),
    ] {
        assert_eq!(out[1][field], value, "{field}: {out}");
    }
    let sequence = &out[1]["sequence"];
    assert!(*sequence == json!("2") || *sequence == json!(2), "the offset: {out}");

    for (headers, body, code) in [
        (vec![("ce-specversion", "0.3")], "x", "invalid_argument"),
        (vec![("ce-id", "a"), ("idempotency-key", "b")], "x", "invalid_argument"),
        (vec![("ce-my_ext", "b")], "x", "invalid_argument"),
        (vec![("tidings-prioritty", "high")], "x", "invalid_argument"),
        (vec![("tidings-ttl-ms", "+5")], "x", "invalid_argument"),
        (
            vec![("tidings-ttl-ms", "5"), ("tidings-expires", "2999-01-01T00:00:00Z")],
            "x",
            "invalid_argument",
        ),
        (vec![JSON], "{", "invalid_argument"),
        (
            vec![("content-type", "text/plain"), ("content-encoding", "deflate")],
            "x",
            "unsupported_media_type",
        ),
        (
            vec![("content-type", "application/cloudevents+json")],
            "{\"specversion\":\"0.3\",\"id\":\"x\"}",
            "invalid_argument",
        ),
    ] {
        let answer = post("/v1/topics/a/events", &headers, body).await;
        let status = if code == "invalid_argument" { 400 } else { 415 };
        assert_problem(&answer, status, code);
    }
    let answer = post("/v1/events", &[("content-type", "text/plain")], "x").await;
    assert_problem(&answer, 415, "unsupported_media_type");
    assert_eq!(get(&broker, "/v1/status").await.json()["log"]["last"], 2, "nothing more went in");
}

#[tokio::test]
async fn an_event_is_shown_by_its_offset() {
    let (broker, _) = broker_with(3).await;
    let log = log_id(&broker).await;
    for path in ["/v1/events/2".to_owned(), format!("/v1/events/2@{}", &log[..8])] {
        let answer = get(&broker, &path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!((&answer.json()["offset"], &answer.json()["data"]), (&json!(2), &json!(2)));
        assert_eq!(answer.header("tidings-log"), log);
    }
    assert_problem(&get(&broker, "/v1/events/4").await, 404, "not_found");
    for offset in ["0", "x", "-1", "1.5", "9007199254740992", "2@", "2@xyz"] {
        let answer = get(&broker, &format!("/v1/events/{offset}")).await;
        assert_problem(&answer, 400, "invalid_argument");
    }
}

#[tokio::test]
async fn topics_are_listed_page_by_page_with_their_counts() {
    let (broker, mut socket) = broker_with(5).await;
    for topic in ["c.x", "c.y", "c.y.z"] {
        socket.publish(json!({ "topic": topic })).await;
    }
    let all = get(&broker, "/v1/topics").await.json();
    let expected = json!([
        {"name": "a", "first": 1, "last": 5, "count": 3},
        {"name": "b", "first": 2, "last": 4, "count": 2},
        {"name": "c.x", "first": 6, "last": 6, "count": 1},
        {"name": "c.y", "first": 7, "last": 7, "count": 1},
        {"name": "c.y.z", "first": 8, "last": 8, "count": 1},
    ]);
    assert_eq!(all["topics"], expected);
    let some = get(&broker, "/v1/topics?filter=c.*").await.json();
    assert_eq!(some["topics"], json!([expected[2], expected[3]]));
    let (mut cursor, mut pages) = (String::new(), Vec::new());
    for _ in 0..10 {
        let path = format!("/v1/topics?limit=2{cursor}");
        let page = get(&broker, &path).await.json();
        let topics = page["topics"].as_array().unwrap();
        assert!(topics.len() <= 2);
        pages.extend(topics.clone());
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(json!(pages), expected);
    for query in ["filter=a..b", "limit=0", "limit=1001", "fliter=a"] {
        let answer = get(&broker, &format!("/v1/topics?{query}")).await;
        assert_problem(&answer, 400, "invalid_argument");
    }
}

#[tokio::test]
async fn durables_are_made_listed_changed_and_forgotten() {
    let (broker, _) = broker_with(4).await;
    let put = async |name: &str, options: Value| {
        let path = format!("/v1/subscriptions/{name}");
        let body = options.to_string();
        http::request(&broker.public, Method::PUT, &path, &[JSON], body.as_bytes()).await
    };
    let made = put("one", json!({"filters": ["a"], "start": "first", "ack_wait_ms": 500})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    assert_eq!(made.json()["name"], "one");
    assert_eq!(put("two", json!({"filters": ["b"]})).await.status, StatusCode::CREATED);
    let again = put("one", json!({"filters": ["a"], "start": "first", "ack_wait_ms": 500})).await;
    assert_eq!(again.status, StatusCode::OK, "the same again: {}", again.text());
    let list = get(&broker, "/v1/subscriptions").await.json();
    let names: Vec<_> =
        list["subscriptions"].as_array().unwrap().iter().map(|durable| &durable["name"]).collect();
    assert_eq!(names, ["one", "two"]);
    let page = get(&broker, "/v1/subscriptions?limit=1").await.json();
    assert_eq!(page["subscriptions"].as_array().unwrap().len(), 1);
    let path = format!("/v1/subscriptions?limit=1&cursor={}", page["cursor"].as_str().unwrap());
    let last = get(&broker, &path).await.json();
    assert_eq!(last["subscriptions"][0]["name"], "two");
    assert!(last.get("cursor").is_none(), "a full page that is the last says so: {last}");
    let one = get(&broker, "/v1/subscriptions/one").await.json();
    assert_eq!((&one["cursor"], &one["lag"]), (&json!(0), &json!(2)), "{one}");
    assert_eq!(one["options"]["ack_wait_ms"], 500, "{one}");
    let gaps = |durable: &Value| durable["options"]["on_gap"].clone();
    for on_gap in ["error", "continue"] {
        let changed = put("two", json!({"filters": ["b"], "on_gap": on_gap})).await;
        assert_eq!(changed.status, StatusCode::OK, "{}", changed.text());
        let expected = if on_gap == "error" { json!("error") } else { Value::Null };
        assert_eq!(gaps(&changed.json()), expected, "{}", changed.text());
        assert_eq!(gaps(&get(&broker, "/v1/subscriptions/two").await.json()), expected);
    }
    let deleted = call(&broker, Method::DELETE, "/v1/subscriptions/one", &[]).await;
    assert_eq!((deleted.status, deleted.body.len()), (StatusCode::NO_CONTENT, 0));
    assert_problem(&get(&broker, "/v1/subscriptions/one").await, 404, "not_found");
    for (name, options) in [
        ("a.b", json!({"filters": ["a"]})),
        ("a%20b", json!({"filters": ["a"]})),
        (&"x".repeat(65), json!({"filters": ["a"]})),
        ("x", json!({"filters": []})),
        ("x", json!({"filters": ["a..b"]})),
        ("x", json!({"fliters": ["a"]})),
        ("x", json!({"filters": ["a"], "max_in_flight": 0})),
        ("x", json!({"filters": ["a"], "partition_by": "key"})),
        ("x", json!({"filters": ["a"], "after": 1})),
        ("x", json!({"filters": ["a"], "types": ["*.x"]})),
        ("x", json!({"filters": ["a"], "content_types": [""]})),
        ("x", json!({"filters": ["a"], "headers": {"": "x"}})),
        ("x", json!(["a"])),
        ("x", json!({"filters": ["a"], "durable": "y"})),
    ] {
        let answer = put(name, options.clone()).await;
        assert_problem(&answer, 400, "invalid_argument");
    }
}

#[tokio::test]
async fn a_stream_of_a_durable_is_a_session_like_a_socket() {
    let (broker, _) = broker_with(6).await;
    let mut socket = Socket::open(&broker.public).await;
    let options = json!({
        "durable": "d", "filters": ["a"], "start": "first", "max_in_flight": 2,
        "ack_wait_ms": 60_000,
    });
    socket.subscribe(options.clone()).await;
    assert_eq!(offsets(&socket.take(2).await), [1, 3]);
    let path = "/v1/subscriptions/d/events";
    let mut stream = Sse::open(&broker.public, path, &[]).await;
    assert_eq!(stream.status, StatusCode::OK);
    for offset in [1, 3] {
        assert_eq!(stream.event().await.unwrap().cursor(), offset, "what the socket had");
    }
    loop {
        if socket.push().await["superseded"].is_object() {
            break;
        }
    }
    let ack = json!({"offset": 3});
    let acked = http::post_json(&broker.public, "/v1/subscriptions/d/ack", &ack).await;
    assert_eq!(acked.json()["cursor"], 3, "{}", acked.text());
    assert_eq!(stream.event().await.unwrap().cursor(), 5, "the ack made room");
    let mut newer = Socket::open(&broker.public).await;
    newer.subscribe(options).await;
    assert_eq!(offsets(&newer.take(1).await), [5]);
    stream.named("tidings.superseded").await;
    assert_eq!(stream.next().await, None, "and it ends");
    let missing = Sse::open(&broker.public, "/v1/subscriptions/x/events", &[]).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn status_and_capabilities_say_what_is() {
    let (broker, mut socket) = broker_with(3).await;
    socket.subscribe(json!({"filters": ["a"]})).await;
    socket.subscribe(json!({"filters": ["a"], "durable": "d"})).await;
    let stream = Sse::open(&broker.public, "/v1/topics/a/events", &[]).await;
    let status = get(&broker, "/v1/status").await.json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    let log = &status["log"];
    assert!(log["id"].as_str().unwrap().parse::<uuid::Uuid>().is_ok());
    assert_eq!((&log["first"], &log["last"]), (&json!(1), &json!(4)), "three and the durable");
    assert!(log["bytes"].as_u64().unwrap() > 0);
    assert_eq!(status["sessions"], json!({"websocket": 1, "sse": 1, "http": 1}));
    assert_eq!(status["subscriptions"], json!({"ephemeral": 2, "durable": 1}));
    assert!(status["uptime_seconds"].as_u64().unwrap() < PATIENCE.as_secs());
    drop((stream, socket));
    let ended = async || {
        let status = get(&broker, "/v1/status").await.json();
        let sessions = json!({"websocket": 0, "sse": 0, "http": 1});
        status["sessions"] == sessions && status["subscriptions"]["ephemeral"] == 0
    };
    eventually("sessions and subscriptions that end are no longer counted", ended).await;
    let can = get(&broker, "/v1/capabilities").await.json();
    assert_eq!((&can["auth"]["required"], &can["auth"]["tickets"]), (&json!(false), &json!(false)));
    assert_eq!(can["modes"], json!(["exclusive", "shared", "mirror"]));
    let features = can["features"].as_array().unwrap();
    for option in ["last_per_key", "order", "partition_by", "linger_ms", "conflate_ms", "headers"] {
        assert!(features.contains(&json!(option)), "{option}: {can}");
    }
    assert!(features.is_sorted_by_key(|it| it.as_str().unwrap()), "{can}");
    for transport in ["websocket", "sse", "http"] {
        assert!(can["transports"].as_array().unwrap().contains(&json!(transport)), "{can}");
    }
}

#[tokio::test]
async fn wrong_paths_and_methods_are_told_what_there_is() {
    let (broker, _) = broker_with(1).await;
    for path in ["/", "/v2/events", "/v1/topics/a/b/events", "/v1/nothing", "/metrics", "/livez"] {
        assert_problem(&get(&broker, path).await, 404, "not_found");
    }
    for (method, path, allowed) in [
        (Method::PUT, "/v1/topics/a/events", "GET, POST"),
        (Method::POST, "/v1/events/1", "GET"),
        (Method::GET, "/v1/subscriptions/d/ack", "POST"),
        (Method::PATCH, "/v1/subscriptions/d", "PUT"),
        (Method::POST, "/v1/status", "GET"),
    ] {
        let answer = call(&broker, method.clone(), path, &[]).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        assert!(answer.header("allow").contains(allowed), "{path}: {}", answer.header("allow"));
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    for (method, path) in
        [(Method::GET, "/v1/retention/a"), (Method::POST, "/v1/subscriptions/d/reset")]
    {
        let answer = call(&broker, method, path, &[]).await;
        assert!(answer.status.is_client_error(), "never a silent success: {path}");
        assert!(
            ["not_found", "invalid_argument"].contains(&answer.json()["code"].as_str().unwrap())
        );
    }
    for path in ["/v1/status", "/v1/events/1", "/v1/topics"] {
        let answer = call(&broker, Method::HEAD, path, &[]).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0), "{path}");
        let length: usize = answer.header("content-length").parse().unwrap();
        assert_eq!(length, get(&broker, path).await.body.len(), "{path}");
    }
}

#[tokio::test]
async fn what_is_gone_is_told_as_the_form_can_go_on() {
    let (broker, _) = broker_with(1).await;
    for (accept, advice) in [
        ("application/json", "; say on_gap=skip"),
        ("application/cloudevents-batch+json", "; read JSON with on_gap=skip"),
    ] {
        let path = "/v1/topics/a/events?after=5";
        let gone = call(&broker, Method::GET, path, &[("accept", accept)]).await;
        let detail = assert_problem(&gone, 410, "offset_gone");
        assert!(detail.contains(advice), "{detail}");
    }
}

#[tokio::test]
async fn an_event_that_has_expired_is_shown_to_nobody() {
    let (broker, mut socket) = broker_with(0).await;
    for (expires, is_there) in [("2001-01-01T00:00:00Z", false), ("2999-01-01T00:00:00Z", true)] {
        let offset = socket.publish(json!({"topic": "a", "expires": expires})).await;
        let answer = get(&broker, &format!("/v1/events/{offset}")).await;
        match is_there {
            true => assert_eq!(answer.status, StatusCode::OK, "{}", answer.text()),
            false => drop(assert_problem(&answer, 404, "not_found")),
        }
    }
}

#[tokio::test]
async fn s4_pages_of_foreign_origins_stay_outside() {
    let broker = Broker::with(&["--allow-origin", "https://app.example"]);
    let own = format!("http://{}", broker.public);
    for (origin, status) in [
        ("https://app.example", 101),
        (own.as_str(), 101),
        ("https://evil.example", 403),
        ("https://app.example.evil.example", 403),
        ("https://evilapp.example", 403),
        ("http://app.example", 403),
        ("https://app.example:444", 403),
        ("null", 403),
    ] {
        let more = format!("origin: {origin}\r\n");
        let request = raw::upgrade(&broker.public, "/v1/ws", &more);
        let (_, got, head) = raw::exchange(&broker.public, &request).await;
        assert_eq!(got, status, "{origin}: {head}");
        let headers = [("origin", origin), ("content-type", "text/plain")];
        let path = "/v1/topics/a/events";
        let post = http::request(&broker.public, Method::POST, path, &headers, b"x").await;
        assert_eq!(post.status == StatusCode::FORBIDDEN, status == 403, "{origin}");
    }
    let headers = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,ce-id,tidings-key,authorization"),
    ];
    let preflight = call(&broker, Method::OPTIONS, "/v1/topics/a/events", &headers).await;
    assert!(preflight.status.is_success(), "{}", preflight.text());
    assert_eq!(preflight.header("access-control-allow-origin"), "https://app.example");
    assert!(preflight.header("access-control-allow-methods").contains("POST"));
    assert!(preflight.header("access-control-allow-headers").to_lowercase().contains("ce-id"));
    let read =
        call(&broker, Method::GET, "/v1/topics/a/events", &[("origin", "https://app.example")])
            .await;
    assert_eq!(read.header("access-control-allow-origin"), "https://app.example");
    let exposed = read.header("access-control-expose-headers").to_lowercase();
    for name in ["tidings-cursor", "tidings-log", "retry-after"] {
        assert!(exposed.contains(name), "{exposed}");
    }
    let foreign = [("origin", "https://evil.example")];
    let read = call(&broker, Method::GET, "/v1/topics/a/events", &foreign).await;
    assert_eq!(read.header("access-control-allow-origin"), "", "its page may not read it");
}

#[tokio::test]
async fn s10_the_operators_door_says_how_it_goes_and_nothing_else() {
    let (broker, mut socket) = broker_with(5).await;
    socket.subscribe(json!({"filters": ["a.secret-topic"], "after": 0})).await;
    socket.publish(json!({"topic": "a.secret-topic"})).await;
    socket.refused("publish", json!({"topic": "$x"})).await;
    for path in ["/livez", "/readyz", "/healthz", "/readyz?verbose"] {
        let answer = http::get(&broker.admin, path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
        assert!(answer.text().contains("ok"), "{}", answer.text());
    }
    let verbose = http::get(&broker.admin, "/readyz?verbose").await.text();
    for check in ["log", "disk", "stopping"] {
        assert!(verbose.contains(check), "{verbose}");
    }
    let metrics = http::get(&broker.admin, "/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain"));
    let text = metrics.text();
    let value = |series: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{series} ")));
        let value = line.and_then(|line| line.rsplit(' ').next()).map(|value| value.parse());
        value.unwrap_or_else(|| panic!("no {series} in\n{text}")).unwrap_or(f64::NAN)
    };
    assert_eq!(value("tidings_log_last_offset"), 6.0);
    assert_eq!(value("tidings_log_first_offset"), 1.0);
    let appended = text.lines().filter(|line| line.starts_with("tidings_append_events_total{"));
    let appended = appended.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    assert_eq!(appended.sum::<u64>(), 6);
    assert_eq!(value("tidings_ready"), 1.0);
    assert!(value("tidings_log_bytes") > 0.0);
    assert!(value("tidings_log_segments") >= 1.0);
    assert!(value("tidings_sync_duration_seconds_count") >= 1.0);
    assert_eq!(value("tidings_sessions{transport=\"websocket\",encoding=\"json\"}"), 1.0);
    let denied = "tidings_publish_requests_total{transport=\"websocket\",outcome=\"denied\"}";
    assert_eq!(value(denied), 1.0);
    assert!(!text.contains("secret-topic"), "no more of a topic than its first token in a label");
    for path in ["/v1/status", "/v1/topics/a/events", "/"] {
        assert_eq!(http::get(&broker.admin, path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let post = http::request(&broker.admin, Method::POST, "/livez", &[], b"").await;
    assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);
}

/// What one transport got, and where it stopped.
struct Leg {
    events: Vec<Value>,
    cursor: u64,
}

/// Reads some events after the cursor over this transport.
async fn leg(broker: &Broker, transport: u64, cursor: u64, log: &str, count: usize) -> Leg {
    let short = &log[..8];
    match transport {
        0 => {
            let mut socket = Socket::open(&broker.public).await;
            let options = json!({"filters": ["t.*"], "after": cursor, "log": log, "batch_max": 13});
            socket.subscribe(options).await;
            let (mut events, mut at) = (Vec::new(), cursor);
            while events.len() < count {
                let message = socket.push().await;
                let Some(batch) = message["events"].as_object() else { continue };
                assert_eq!(batch["after"], at);
                at = batch["cursor"].as_u64().unwrap();
                events.extend(batch["events"].as_array().unwrap().iter().cloned());
            }
            Leg { events, cursor: at }
        }
        1 | 2 => {
            let id = format!("{cursor}@{short}");
            // Resumed by a browser, or by whoever knows the cursor.
            let (path, headers) = match transport {
                1 => ("/v1/topics/t.*/events".to_owned(), vec![("last-event-id", id.as_str())]),
                _ => (format!("/v1/topics/t.*/events?after={id}"), vec![]),
            };
            let mut stream = Sse::open(&broker.public, &path, &headers).await;
            let (mut events, mut at) = (Vec::new(), cursor);
            while events.len() < count {
                let block = stream.next().await.unwrap();
                if block.is_event() {
                    events.push(block.json());
                }
                if block.id.is_some() {
                    at = block.cursor();
                }
            }
            Leg { events, cursor: at }
        }
        _ => {
            let path =
                format!("/v1/topics/t.*/events?after={cursor}@{short}&limit={count}&wait=20s");
            let answer = get(broker, &path).await;
            let cursor = answer.header("tidings-cursor").parse().unwrap();
            let body = answer.json();
            assert_eq!(body["cursor"], cursor);
            Leg { events: body["events"].as_array().unwrap().clone(), cursor }
        }
    }
}

#[tokio::test]
async fn g15_a_reader_changes_its_transport_in_mid_stream_and_misses_nothing() {
    const EVENTS: u64 = 1000;
    let broker = Broker::start();
    let log = log_id(&broker).await;
    let publisher = tokio::spawn({
        let address = broker.public.clone();
        async move {
            let mut socket = Socket::open(&address).await;
            for n in 0..EVENTS {
                // Every third is not for the reader.
                let topic = if n % 3 == 2 { "other".to_owned() } else { format!("t.{}", n % 4) };
                socket.publish(json!({"topic": topic, "data": {"n": n}})).await;
            }
            socket.publish(json!({"topic": "t.end"})).await;
        }
    });
    let mut random = Random::new(15);
    let (mut got, mut cursor, mut legs) = (Vec::new(), 0, 0);
    while got.last().is_none_or(|event: &Value| event["topic"] != "t.end") {
        // The first four in their order, then as it comes; a transport may follow itself.
        let transport = if legs < 4 { legs } else { random.below(4) };
        let count = match transport {
            // Near the end there may be fewer left than wanted.
            0..=2 => 1,
            _ => 1 + random.below(40),
        };
        let leg = leg(&broker, transport, cursor, &log, usize::try_from(count).unwrap()).await;
        assert!(leg.cursor >= cursor);
        assert!(leg.events.iter().all(|event| event["offset"].as_u64().unwrap() > cursor));
        got.extend(leg.events);
        cursor = leg.cursor;
        legs += 1;
    }
    publisher.await.unwrap();
    assert!(legs > 8, "it changed: {legs}");
    let mut reader = Socket::open(&broker.public).await;
    reader.subscribe(json!({"filters": ["t.*"], "after": 0})).await;
    let whole = reader.take(got.len()).await;
    assert_eq!(whole.len(), 668, "667 and the last");
    assert_eq!(got, whole, "the same events, byte for byte as JSON");
}

#[tokio::test]
async fn the_newest_event_of_a_topic_and_of_a_key_is_one_request_away() {
    let mut broker = Broker::with(&["--set", "log.segment_bytes=65536"]);
    let last = async |broker: &Broker, path: &str| {
        let answer = get(broker, &format!("/v1/topics/{path}")).await;
        let body = answer.json();
        (answer.status.as_u16(), body["data"].clone())
    };
    assert_eq!(last(&broker, "state/last").await.0, 404);
    let mut socket = crate::util::ws::Socket::open(&broker.public).await;
    for n in 0..300 {
        let key = format!("k{}", n % 7);
        let filler = "x".repeat(500);
        socket.publish(json!({"topic": "state", "key": key, "data": [n, filler]})).await;
        socket.publish(json!({"topic": "other", "key": "k1", "data": "other"})).await;
    }
    socket.publish(json!({"topic": "state", "data": "no key"})).await;
    let gone = json!({"topic": "state", "key": "gone", "data": 1, "ttl_ms": 1});
    let offset = socket.publish(gone).await;
    let check = async |broker: &Broker| {
        for key in 0..7 {
            let (status, data) = last(broker, &format!("state/last?key=k{key}")).await;
            let newest = (0..300).rev().find(|n| n % 7 == key).unwrap();
            assert_eq!((status, &data[0]), (200, &json!(newest)));
        }
        assert_eq!(last(broker, "other/last?key=k1").await, (200, json!("other")));
        assert_eq!(last(broker, "other/last?key=k2").await.0, 404);
        assert_eq!(last(broker, "nothing/last").await.0, 404);
        assert_eq!(last(broker, "state.*/last").await.0, 400);
        crate::util::eventually("the event expires", async || {
            last(broker, "state/last?key=gone").await.0 == 404
        })
        .await;
    };
    check(&broker).await;
    let newest = socket.publish(json!({"topic": "state", "data": "newest"})).await;
    assert!(newest > offset);
    let answer = get(&broker, "/v1/topics/state/last").await;
    assert_eq!(answer.json()["data"], "newest");
    assert!(answer.header("tidings-cursor").starts_with(&newest.to_string()));
    broker.kill();
    broker.restart();
    check(&broker).await;
}
