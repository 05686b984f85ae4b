//! What a subscriber selects beside its filters, and the pace it asks for, hold on every door.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hyper::Method;
use serde_json::{Value, json};

use crate::util::{
    Broker, http,
    sse::Sse,
    ws::{Socket, offsets},
};

/// A way to select: the options of a subscribe, the same as parameters of a request, and whether it wants an event.
struct Selection {
    options: Value,
    query: &'static str,
    wants: fn(&Value) -> bool,
}

const SELECTIONS: fn() -> [Selection; 8] = || {
    [
        Selection {
            options: json!({"headers": {"tenant": "7"}}),
            query: "header=tenant:7",
            wants: |event| event["headers"]["tenant"] == "7",
        },
        Selection {
            options: json!({"headers": {"tenant": "7", "kind": "x"}}),
            query: "header=tenant:7&header=kind:x",
            wants: |event| event["headers"]["tenant"] == "7" && event["headers"]["kind"] == "x",
        },
        Selection {
            options: json!({"headers": {"tenant": "New York +1"}}),
            query: "header=tenant:New+York%20%2B1",
            wants: |event| event["headers"]["tenant"] == "New York +1",
        },
        Selection {
            options: json!({"types": ["task.*"]}),
            query: "types=task.*",
            wants: |event| event["type"].as_str().is_some_and(|it| it.starts_with("task.")),
        },
        Selection {
            options: json!({"min_priority": "high"}),
            query: "min_priority=high",
            wants: |event| ["high", "urgent"].iter().any(|it| event["priority"] == *it),
        },
        Selection {
            options: json!({"content_types": ["text/*"]}),
            query: "content_types=text/*",
            wants: |event| media_type(event).starts_with("text/"),
        },
        Selection {
            options: json!({"content_types": ["text/plain"]}),
            query: "content_types=text/plain",
            wants: |event| media_type(event) == "text/plain",
        },
        Selection {
            options: json!({"content_types": ["Text/PLAIN", "image/*"]}),
            query: "content_types=Text/PLAIN,image/*",
            wants: |event| media_type(event) == "text/plain",
        },
    ]
};

/// The content type of an event without parameters, as it is compared.
fn media_type(event: &Value) -> String {
    let content_type = event["datacontenttype"].as_str().unwrap_or("application/json");
    content_type.split(';').next().unwrap().to_lowercase()
}

/// Events that differ in all that can be selected. The header's value is a whole one, and its name is as it is written.
fn mixed() -> Vec<Value> {
    let headers = [
        json!({"tenant": "7", "kind": "x", "more": "y"}),
        json!({"tenant": "7"}),
        json!({"tenant": "77", "kind": "x"}),
        json!({"Tenant": "7", "kind": "x"}),
        json!({"kind": "7", "tenant": "x"}),
        json!({"tenant": "New York +1"}),
        json!({"tenant": "New+York +1"}),
        json!({}),
    ];
    let mut events = Vec::new();
    for headers in headers {
        for (kind, priority) in [("task.started", "normal"), ("tasks", "high"), ("task.", "urgent")]
        {
            for text in ["text/plain", "text/plain; charset=utf-8", "Text/HTML", ""] {
                let mut event = json!({"topic": "a", "type": kind, "priority": priority,
                    "headers": headers, "data": "x"});
                if !text.is_empty() {
                    event["datacontenttype"] = json!(text);
                }
                events.push(event);
            }
        }
    }
    events
}

/// Publishes all of them; gives the offsets of those that are wanted.
async fn publish(publisher: &mut Socket, wants: fn(&Value) -> bool) -> Vec<u64> {
    let mut wanted = Vec::new();
    for event in mixed() {
        let is_wanted = wants(&event);
        let offset = publisher.publish(event).await;
        wanted.extend(is_wanted.then_some(offset));
    }
    assert!(!wanted.is_empty() && wanted.len() < mixed().len());
    wanted
}

async fn put(broker: &Broker, name: &str, options: &Value) {
    let path = format!("/v1/subscriptions/{name}");
    let headers = [("content-type", "application/json")];
    let body = options.to_string();
    let made = http::request(&broker.public, Method::PUT, &path, &headers, body.as_bytes()).await;
    assert_eq!(made.status, 201, "{}", made.text());
}

/// The options with what else is asked for.
fn with(mut options: Value, more: Value) -> Value {
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options
}

/// The next events of a stream.
async fn of_stream(stream: &mut Sse, count: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let event = stream.event().await.expect("the stream ended").json();
        seen.push(event["offset"].as_u64().unwrap());
    }
    seen
}

async fn holds(selection: Selection) {
    let Selection { options, query, wants } = selection;
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let durable = with(options.clone(), json!({"filters": ["a"], "start": "first"}));
    for name in ["by-socket", "by-stream", "by-fetch"] {
        put(&broker, name, &durable).await;
    }
    let mut wanted = publish(&mut publisher, wants).await;

    // What was there before, and then what comes.
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(with(options.clone(), json!({"filters": ["a"], "after": 0}))).await;
    let mut attached = Socket::open(&broker.public).await;
    attached.subscribe(with(durable.clone(), json!({"durable": "by-socket"}))).await;
    let path = format!("/v1/topics/a/events?after=0&{query}");
    let mut stream = Sse::open(&broker.public, &path, &[]).await;
    let path_of_durable = "/v1/subscriptions/by-stream/events";
    let mut durable_stream = Sse::open(&broker.public, path_of_durable, &[]).await;
    let fetch = async || {
        let body = json!({"limit": 1000, "wait": "10s"});
        let path = "/v1/subscriptions/by-fetch/fetch";
        let fetched = http::post_json(&broker.public, path, &body).await.json();
        offsets(fetched["events"].as_array().unwrap())
    };
    for round in 0..2 {
        let of_round = match round {
            0 => wanted.clone(),
            _ => publish(&mut publisher, wants).await,
        };
        let n = of_round.len();
        assert_eq!(offsets(&socket.take(n).await), of_round, "socket, {query}");
        assert_eq!(offsets(&attached.take(n).await), of_round, "durable on a socket, {query}");
        assert_eq!(of_stream(&mut stream, n).await, of_round, "stream, {query}");
        assert_eq!(of_stream(&mut durable_stream, n).await, of_round, "durable stream, {query}");
        assert_eq!(fetch().await, of_round, "fetch, {query}");
        if round > 0 {
            wanted.extend(of_round);
        }
    }
    let read = http::get(&broker.public, &format!("{path}&limit=1000")).await.json();
    assert_eq!(offsets(read["events"].as_array().unwrap()), wanted, "read, {query}");
    // What is not wanted is nothing that waits.
    let state = http::get(&broker.public, "/v1/subscriptions/by-fetch").await.json();
    assert_eq!(state["lag"].as_u64(), Some(wanted.len() as u64), "{state}");
}

#[tokio::test]
async fn selections_hold_on_every_door_for_what_was_there_and_what_comes() {
    for selection in SELECTIONS() {
        holds(selection).await;
    }
}

#[tokio::test]
async fn a_header_that_cannot_be_selected_is_refused_by_name_on_every_door() {
    let broker = Broker::start();
    let many: BTreeMap<String, &str> = (0..17).map(|n| (n.to_string(), "x")).collect();
    let mut socket = Socket::open(&broker.public).await;
    for more in [json!({}), json!({"durable": "d"})] {
        let options = with(more, json!({"filters": ["a"], "headers": many}));
        let error = socket.refused("subscribe", options).await;
        assert!(error["message"].as_str().unwrap().starts_with("headers: "), "{error}");
    }
    let headers = [("content-type", "application/json")];
    let body = json!({"filters": ["a"], "headers": many}).to_string();
    let path = "/v1/subscriptions/d";
    let put = http::request(&broker.public, Method::PUT, path, &headers, body.as_bytes()).await;
    assert_eq!(put.status, 400, "{}", put.text());
    for query in ["header=tenant", "header=:7"] {
        let path = format!("/v1/topics/a/events?after=0&{query}");
        let stream = Sse::open(&broker.public, &path, &[]).await;
        assert_eq!(stream.status, 400, "{query}");
    }
}

/// The data of an event, for those that are read at a rate.
const BYTES: usize = 1000;
const RATE: usize = 50_000;

/// Publishes so many states of a kilobyte, of one key; gives their offsets.
async fn states(publisher: &mut Socket, count: usize) -> Vec<u64> {
    let event = json!({"topic": "a", "key": "k", "data": "x".repeat(BYTES)});
    let answer = publisher.call("publish_batch", json!({ "events": vec![event; count] })).await;
    let results = answer["published_batch"]["results"].as_array().unwrap();
    results.iter().map(|result| result["offset"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn g3_a_rate_holds_on_sockets_streams_and_durables_and_a_read_has_none() {
    const COUNT: usize = 50;
    // What is sent takes a second at this rate; nothing waits behind the last batch, which is a quarter of that.
    let least = Duration::from_millis((COUNT * BYTES * 1000 / RATE) as u64 - 300);
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let durable = json!({"filters": ["a"], "start": "first", "max_bytes_per_second": RATE});
    for name in ["by-socket", "by-stream", "by-fetch"] {
        put(&broker, name, &durable).await;
    }
    let all = states(&mut publisher, COUNT).await;

    let begun = Instant::now();
    let mut socket = Socket::open(&broker.public).await;
    let wish = json!({"filters": ["a"], "after": 0, "max_bytes_per_second": RATE});
    socket.subscribe(wish).await;
    assert_eq!(offsets(&socket.take(COUNT).await), all);
    assert!(begun.elapsed() >= least, "a socket: {:?}", begun.elapsed());

    let begun = Instant::now();
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(with(durable, json!({"durable": "by-socket"}))).await;
    assert_eq!(offsets(&socket.take(COUNT).await), all);
    assert!(begun.elapsed() >= least, "a durable on a socket: {:?}", begun.elapsed());

    let path = format!("/v1/topics/a/events?after=0&max_bytes_per_second={RATE}");
    for path in [path.as_str(), "/v1/subscriptions/by-stream/events"] {
        let begun = Instant::now();
        let mut stream = Sse::open(&broker.public, path, &[]).await;
        assert_eq!(of_stream(&mut stream, COUNT).await, all);
        assert!(begun.elapsed() >= least, "{path}: {:?}", begun.elapsed());
    }

    // A fetch takes what there is; a read is paced by its reader and has no such parameter.
    let path = "/v1/subscriptions/by-fetch/fetch";
    let fetched = http::post_json(&broker.public, path, &json!({"limit": 1000})).await.json();
    assert!(fetched["events"].as_array().unwrap().len() > RATE / BYTES / 4, "it was slowed");
    for parameter in ["max_bytes_per_second=50000", "conflate_ms=5", "linger_ms=5"] {
        let path = format!("/v1/topics/a/events?{parameter}");
        let refused = http::get(&broker.public, &path).await;
        assert_eq!(refused.status, 400, "{parameter}");
    }
}

#[tokio::test]
async fn g3_a_stream_on_a_slow_line_gets_the_newest_state_first_as_a_socket_does() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let query = "conflate_ms=10&max_bytes_per_second=4000";
    let mut stream = Sse::open(&broker.public, &format!("/v1/topics/a/events?{query}"), &[]).await;
    stream.named("tidings.caught_up").await;
    let begun = Instant::now();
    let mut last = 0;
    for _ in 0..50 {
        last = *states(&mut publisher, 4).await.last().unwrap();
    }
    let mut got = Vec::new();
    while got.last() != Some(&last) {
        got.extend(of_stream(&mut stream, 1).await);
    }
    // 200 states of a kilobyte would take 50 s: all are passed over but four a second, and the first and last.
    let most = begun.elapsed().as_millis() as usize * 4000 / 1000 / BYTES + 3;
    assert!(got.len() <= most && got.len() <= 150, "{got:?} of at most {most}");
}
