//! What every door does alike: offsets that say their log, options that are refused by their name, where an answer goes
//! on, and streams that end in time to be opened again.

use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::util::{
    Broker,
    http::{self, Answer},
    sse::Sse,
    ws::{Socket, offsets},
};

/// A broker with events 1 to 6 on `a`, each of another type and content type, and the beginning of its log's id.
async fn broker() -> (Broker, String) {
    let broker = Broker::start();
    for n in 1..=6 {
        let (kind, content_type) = (format!("t{n}"), format!("text/x{n}"));
        let headers = [("tidings-type", kind.as_str()), ("content-type", &content_type)];
        let path = "/v1/topics/a/events";
        let made = http::request(&broker.public, Method::POST, path, &headers, b"x").await;
        assert_eq!(made.status, StatusCode::CREATED);
    }
    let status = http::get(&broker.public, "/v1/status").await.json();
    let short = status["log"]["id"].as_str().unwrap()[..8].to_owned();
    (broker, short)
}

async fn send(broker: &Broker, method: Method, path: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json")];
    http::request(&broker.public, method, path, &headers, body.to_string().as_bytes()).await
}

async fn put(broker: &Broker, name: &str, options: &Value) -> Answer {
    send(broker, Method::PUT, &format!("/v1/subscriptions/{name}"), options).await
}

/// The status, the code and the text of a problem.
fn problem(answer: &Answer) -> (u16, String, String) {
    let problem = answer.json();
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), text("code"), text("detail"))
}

fn in_an_hour() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let later = u64::try_from(now.as_millis()).unwrap() + 3_600_000;
    tidings_proto::Timestamp::from_millis(later).to_string()
}

#[tokio::test]
async fn an_offset_may_say_its_log_wherever_one_is_named_over_http() {
    let (broker, log) = broker().await;
    let made = put(&broker, "d", &json!({"filters": ["a"], "start": format!("0@{log}")})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    let path = |call: &str| format!("/v1/subscriptions/d/{call}");
    let later = json!({"topic": "a", "deliver_at": in_an_hour()});
    let waits = send(&broker, Method::POST, "/v1/events", &later).await.json();
    let waits = waits["scheduled"]["offset"].clone();
    let at = |log: &str, offset: u64| format!("{offset}@{log}");
    // The right log comes last: what it does is not to be done before.
    for (named, want) in [("00000000", 410), (&log, 200)] {
        for (call, body) in [
            ("ack", json!({"offset": at(named, 2)})),
            ("ack", json!({"offsets": [at(named, 3), 4]})),
            ("nack", json!({"offsets": [5, at(named, 6)]})),
            ("redrive", json!({"offsets": [at(named, 5)]})),
            ("reset", json!({"to": at(named, 2)})),
        ] {
            let answer = send(&broker, Method::POST, &path(call), &body).await;
            assert_eq!(answer.status, want, "{call} {body}: {}", answer.text());
            assert!(want == 200 || problem(&answer).1 == "offset_gone");
            let state = http::get(&broker.public, "/v1/subscriptions/d").await.json();
            assert!(want == 200 || state["cursor"] == 0, "{state}");
        }
        for (method, path) in [
            (Method::GET, format!("/v1/events/{}", at(named, 2))),
            (Method::GET, format!("/v1/events/{}/receipts", at(named, 2))),
            (Method::GET, format!("/v1/topics/a/events?after={}", at(named, 2))),
            (Method::GET, format!("/v1/subscriptions/d/dead?after={}", at(named, 2))),
            (Method::DELETE, format!("/v1/scheduled/{}@{named}", waits)),
        ] {
            let answer = send(&broker, method.clone(), &path, &json!({})).await;
            let want = if method == Method::DELETE && want == 200 { 204 } else { want };
            assert_eq!(answer.status, want, "{method} {path}: {}", answer.text());
        }
    }
    let several = json!({"offsets": [format!("1@{log}"), "2@00000000"]});
    for call in ["ack", "nack", "redrive"] {
        let (status, code, detail) =
            problem(&send(&broker, Method::POST, &path(call), &several).await);
        assert_eq!((status, code.as_str()), (400, "invalid_argument"), "{call}: {detail}");
        assert!(detail.contains("several logs"), "{detail}");
    }
    let beside = json!({"offset": format!("1@{log}"), "log": "00000000"});
    assert_eq!(send(&broker, Method::POST, &path("ack"), &beside).await.status, 400);
    for nonsense in ["nonsense", "", "9f3c21d0x"] {
        let body = json!({"offset": 1, "log": nonsense});
        let (status, _, detail) = problem(&send(&broker, Method::POST, &path("ack"), &body).await);
        assert!(status == 400 && detail.starts_with("log: "), "{detail}");
    }
    for wrong in ["0", &at(&log, 0), "x", "1@", "-1"] {
        let path = format!("/v1/scheduled/{wrong}");
        let answer = send(&broker, Method::DELETE, &path, &json!({})).await;
        assert!(problem(&answer).2.starts_with("offset: "), "{wrong}: {}", answer.text());
    }
}

#[tokio::test]
async fn an_offset_may_say_its_log_over_the_socket_too() {
    let (broker, log) = broker().await;
    let mut socket = Socket::open(&broker.public).await;
    let durable = json!({"durable": "d", "filters": ["a"], "start": "first"});
    socket.subscribe(durable).await;
    let later = json!({"topic": "a", "deliver_at": in_an_hour()});
    let waits = socket.call("publish", later).await["scheduled"]["offset"].clone();
    for named in ["00000000", &log] {
        let at = |offset: u64| format!("{offset}@{named}");
        for (name, body, kind) in [
            ("ack", json!({"subscription": 1, "offset": at(1)}), "acked"),
            ("ack", json!({"subscription": 1, "offsets": [at(2), 3]}), "acked"),
            ("nack", json!({"subscription": 1, "offsets": [at(4)]}), "nacked"),
            ("receipts", json!({"offset": at(1)}), "receipts"),
            ("cancel", json!({"offset": format!("{waits}@{named}")}), "cancelled"),
        ] {
            let answer = socket.call(name, body.clone()).await;
            match named == log {
                true => assert!(answer[kind].is_object(), "{body}: {answer}"),
                false => assert_eq!(answer["error"]["code"], "offset_gone", "{body}: {answer}"),
            }
        }
    }
    // A durable begins in the log that is named beside its start, as an ephemeral subscription does.
    for (options, code) in [
        (json!({"durable": "e", "filters": ["a"], "start": 2, "log": "00000000"}), "offset_gone"),
        (
            json!({"durable": "e", "filters": ["a"], "start": 2, "log": "nonsense"}),
            "invalid_argument",
        ),
        (json!({"filters": ["a"], "after": 2, "log": "nonsense"}), "invalid_argument"),
    ] {
        let answer = socket.call("subscribe", options).await;
        assert_eq!(answer["error"]["code"], code, "{answer}");
    }
    let begun = json!({"durable": "e", "filters": ["a"], "start": 2, "log": log});
    assert_eq!(socket.call("subscribe", begun).await["subscribed"]["cursor"], 2);
}

#[tokio::test]
async fn what_a_durable_does_not_take_is_refused_by_its_name_on_both_doors() {
    let (broker, _) = broker().await;
    let mut socket = Socket::open(&broker.public).await;
    for (options, name) in [
        (json!({"filters": ["a"], "batch_max": 5}), "batch_max: "),
        (json!({"filters": ["a"], "log": "nonsense"}), "log: "),
        (json!({"filters": ["a"], "start": 1, "log": "00000000"}), "log: "),
        (json!({"filters": ["a"], "presence": {}}), "presence: "),
    ] {
        let (status, code, detail) = problem(&put(&broker, "d", &options).await);
        assert_eq!((status, code.as_str()), (400, "invalid_argument"), "{options}: {detail}");
        assert!(detail.starts_with(name), "{options}: {detail}");
    }
    // What there is nothing to acknowledge of is refused, and what nobody reads.
    for own in ["$presence.a", "$x.y", "$auth", "$log.lost", "$x"] {
        let options = json!({"filters": ["a", own]});
        let (status, _, detail) = problem(&put(&broker, "d", &options).await);
        assert!(status == 400 && detail.starts_with("filters: "), "{own}: {detail}");
        let options = json!({"durable": "d", "filters": ["a", own]});
        let error = socket.call("subscribe", options).await["error"].clone();
        assert_eq!(error["code"], "invalid_argument", "{own}: {error}");
        assert_eq!(error["message"], detail, "the same on both doors");
    }
    for own in ["$acks", "$subscriptions", "$scheduled"] {
        assert_eq!(put(&broker, "d", &json!({"filters": [own]})).await.status, 403, "{own}");
    }
    assert_eq!(http::get(&broker.public, "/v1/subscriptions/d").await.status, 404);
    for own in ["$dead.x", "$receipts.x", "$audit"] {
        let name = own.trim_start_matches('$').replace('.', "-");
        assert_eq!(put(&broker, &name, &json!({"filters": [own]})).await.status, 201, "{own}");
    }
    // Who makes or resets one is not told of how to subscribe.
    let reset = "/v1/subscriptions/audit/reset";
    for (method, path, body, advice) in [
        (
            Method::PUT,
            "/v1/subscriptions/d",
            json!({"filters": ["a"], "start": 99}),
            "let start be",
        ),
        (Method::POST, reset, json!({"to": 99}), "let to be"),
    ] {
        let (status, code, detail) = problem(&send(&broker, method, path, &body).await);
        assert_eq!((status, code.as_str()), (410, "offset_gone"));
        assert!(detail.contains(advice) && !detail.contains("subscribe"), "{detail}");
    }
}

#[tokio::test]
async fn types_and_content_types_are_lists_in_one_way() {
    let (broker, _) = broker().await;
    for (query, want) in [
        ("types=t1,t3&types=t5", vec![1, 3, 5]),
        ("types=t1%2Ct3", vec![1, 3]),
        ("content_types=text/x1,text/x3&content_types=text/x5", vec![1, 3, 5]),
        ("content_types=text%2Fx2", vec![2]),
        ("types=t1,t2&content_types=text/x2,text/x3", vec![2]),
        ("content_types=text/*", (1..=6).collect()),
    ] {
        let path = format!("/v1/topics/a/events?after=0&{query}");
        let read = http::get(&broker.public, &path).await.json();
        assert_eq!(offsets(read["events"].as_array().unwrap()), want, "{query}");
        let mut stream = Sse::open(&broker.public, &path, &[]).await;
        let mut streamed = Vec::new();
        while streamed.len() < want.len() {
            streamed.push(stream.event().await.unwrap().cursor());
        }
        assert_eq!(streamed, want, "{query}");
    }
    for (query, field) in [("content_types=text/*,", "content_types: "), ("types=,", "types: ")] {
        let path = format!("/v1/topics/a/events?{query}");
        let refused = http::get(&broker.public, &path).await;
        assert_eq!(refused.status, 400, "an empty one matches nothing: {query}");
        assert!(
            refused.json()["detail"].as_str().unwrap().starts_with(field),
            "{}",
            refused.text()
        );
    }
}

#[tokio::test]
async fn every_read_says_where_it_goes_on_and_in_which_log() {
    let (broker, log) = broker().await;
    put(&broker, "d", &json!({"filters": ["a"], "start": "first"})).await;
    let stream = ("accept", "text/event-stream");
    let batch = ("accept", "application/cloudevents-batch+json");
    for (method, path, header, cursor) in [
        // Behind what was made of the durable.
        (Method::GET, "/v1/topics/a/events", None, "7"),
        (Method::GET, "/v1/topics/a/events?limit=2", None, "2"),
        (Method::GET, "/v1/topics/a/events?limit=2", Some(batch), "2"),
        (Method::GET, "/v1/topics/a/events?after=6&wait=20ms", None, "7"),
        (Method::GET, "/v1/events?topic=a&topic=b&after=3", None, "7"),
        (Method::GET, "/v1/topics/a/events?after=3", Some(stream), "3"),
        (Method::GET, "/v1/events?topic=a&after=3", Some(stream), "3"),
        (Method::GET, "/v1/events/4", None, "4"),
        (Method::HEAD, "/v1/events/4", None, "4"),
        (Method::GET, "/v1/topics/a/last", None, "6"),
        (Method::HEAD, "/v1/topics/a/last", None, "6"),
        (Method::GET, "/v1/presence/a", None, "7"),
        (Method::POST, "/v1/subscriptions/d/fetch", None, "0"),
        (Method::GET, "/v1/subscriptions/d/events", Some(stream), "0"),
    ] {
        let headers: Vec<_> = header.into_iter().collect();
        let address = &broker.public;
        let answer = http::open(address, method.clone(), path, &headers, b"").await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{method} {path}");
        let given = |name: &str| answer.headers()[name].to_str().unwrap();
        assert_eq!(given("tidings-cursor"), cursor, "{method} {path}");
        assert!(given("tidings-log").starts_with(&log), "{method} {path}");
    }
}

#[tokio::test]
async fn a_stream_ends_after_a_time_of_its_own_and_goes_on_where_it_was() {
    const STREAMS: usize = 12;
    let broker = Broker::with(&["--set", "limits.stream_max=600ms"]);
    let mut socket = Socket::open(&broker.public).await;
    let mut lasted = Vec::new();
    let mut retries = Vec::new();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..STREAMS {
        let address = broker.public.clone();
        readers.spawn(async move {
            let begun = Instant::now();
            let mut stream = Sse::open(&address, "/v1/topics/a/events", &[]).await;
            let (mut retry, mut last_words) = (None, Vec::new());
            while let Some(block) = stream.next().await {
                retry = retry.or(block.retry.clone());
                last_words = block.comments;
            }
            (begun.elapsed(), retry.unwrap(), last_words)
        });
    }
    while let Some(ended) = readers.join_next().await {
        let (took, retry, last_words) = ended.unwrap();
        assert!(took >= Duration::from_millis(300), "{took:?}");
        assert_eq!(last_words, ["come again"]);
        lasted.push(took.as_millis());
        retries.push(retry);
    }
    let spread = lasted.iter().max().unwrap() - lasted.iter().min().unwrap();
    assert!(spread > 10, "all at once: {lasted:?}");
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() > STREAMS / 2, "all come again at once: {retries:?}");

    // A reader that comes again with its last id misses nothing, though events come all the time.
    let path = "/v1/topics/a/events";
    let mut stream = Sse::open(&broker.public, path, &[]).await;
    let (mut seen, mut published, mut opened) = (Vec::new(), 0, 1);
    let mut last_id = "0".to_owned();
    while opened < 4 {
        let events: Vec<_> =
            (published..published + 20).map(|n| json!({"topic": "a", "data": n})).collect();
        socket.call("publish_batch", json!({ "events": events })).await;
        published += 20;
        while seen.len() < published {
            let Some(block) = stream.event().await else {
                let headers = [("last-event-id", last_id.as_str())];
                stream = Sse::open(&broker.public, path, &headers).await;
                opened += 1;
                continue;
            };
            seen.push(block.json()["data"].as_u64().unwrap());
            last_id = block.id.unwrap();
        }
    }
    assert_eq!(seen, (0..published as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_stream_of_a_durable_does_not_end_by_itself() {
    let broker = Broker::with(&["--set", "limits.stream_max=100ms"]);
    put(&broker, "d", &json!({"filters": ["a"], "start": "first"})).await;
    let mut of_filter = Sse::open(&broker.public, "/v1/topics/a/events", &[]).await;
    let mut of_durable = Sse::open(&broker.public, "/v1/subscriptions/d/events", &[]).await;
    assert_eq!(of_filter.event().await, None, "longer than any stream may last");
    assert_eq!(send(&broker, Method::POST, "/v1/topics/a/events", &json!(1)).await.status, 201);
    assert_eq!(of_durable.event().await.unwrap().cursor(), 2);
}
