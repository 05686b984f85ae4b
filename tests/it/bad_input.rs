//! What is malformed: it is named, it costs its own message or its own connection, never the broker.

use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::Message;

use crate::util::{
    Broker, PATIENCE, eventually, http,
    random::Random,
    raw::{self, BINARY, CLOSE, PING, Raw, TEXT, frame, head},
    ws::Socket,
};

const JSON: (&str, &str) = ("content-type", "application/json");
const EVENT_STREAM: (&str, &str) = ("accept", "text/event-stream");
/// What it is listed with is not said as it should be.
const STREAM_LISTED: &str = "/v1/topics/a/events?presence=%7B%22name%22:1%7D";

/// A publish over this socket and a look at the operators' door: all is well.
async fn assert_alive(broker: &Broker, socket: &mut Socket) {
    socket.publish(json!({"topic": "alive"})).await;
    assert_eq!(http::get(&broker.admin, "/livez").await.status, StatusCode::OK);
    assert_eq!(http::get(&broker.admin, "/readyz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn s6_each_malformed_message_is_answered_with_the_field_that_is_wrong() {
    let table = include_str!("../../proto/vectors/bad_request.json");
    let table: Vec<Value> = serde_json::from_str(table).unwrap();
    assert!(table.len() > 50);
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    for case in &table {
        let (name, text) = (&case["name"], case["json"].as_str().unwrap());
        socket.send_text(text).await;
        let answer = socket.next().await.expect("the socket ended");
        let error = &answer["error"];
        assert_eq!(error["code"], case["code"], "{name}: {answer}");
        assert_eq!(answer.get("reply"), case.get("id"), "{name}: {answer}");
        let field = case["field"].as_str().unwrap();
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("{field}:")), "{name}: not {field}: {message}");
        assert!(message.len() > field.len() + 5 && message.len() < 700, "{name}: {message}");
        assert_eq!(error["retryable"], false, "{name}");
        // The connection lives on, and the next good message works.
        assert!(socket.call("ping", json!({})).await["pong"].is_object(), "{name}");
    }
    assert_alive(&broker, &mut socket).await;
    let published = http::get(&broker.public, "/v1/topics").await.json();
    assert_eq!(published["topics"].as_array().unwrap().len(), 1, "nothing went in: {published}");
}

#[tokio::test]
async fn s6_requests_that_make_no_sense_are_refused_by_name() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let filters_65: Vec<String> = (0..65).map(|n| format!("t.{n}")).collect();
    let offsets_4097: Vec<u64> = (1..=4097).collect();
    let tokens_15 = vec!["t"; 15].join(".");
    let batch_4097: Vec<Value> = (0..4097).map(|_| json!({"topic": "a"})).collect();
    for (request, body, field, code) in [
        ("publish", json!({"topic": tokens_15}), "topic", "invalid_argument"),
        ("publish", json!({"topic": "a..b"}), "topic", "invalid_argument"),
        ("publish", json!({"topic": ".a"}), "topic", "invalid_argument"),
        ("publish", json!({"topic": "a."}), "topic", "invalid_argument"),
        ("publish", json!({"topic": "a/b"}), "topic", "invalid_argument"),
        ("publish", json!({"topic": "ä"}), "topic", "invalid_argument"),
        ("publish", json!({"topic": "a\u{0}"}), "topic", "invalid_argument"),
        ("publish", json!({"topic": "a.>"}), "topic", "invalid_argument"),
        ("publish", json!({"topic": "a", "key": "\u{7}"}), "key", "invalid_argument"),
        ("publish", json!({"topic": "a", "type": "x".repeat(1025)}), "type", "invalid_argument"),
        ("publish_batch", json!({"events": []}), "events", "invalid_argument"),
        ("publish_batch", json!({"events": batch_4097}), "", "too_large"),
        ("subscribe", json!({"filters": []}), "filters", "invalid_argument"),
        ("subscribe", json!({"filters": filters_65}), "filters", "invalid_argument"),
        ("subscribe", json!({"filters": ["a.>.b"]}), "filters", "invalid_argument"),
        ("subscribe", json!({"filters": ["a*"]}), "filters", "invalid_argument"),
        ("subscribe", json!({"filters": ["a", ""]}), "filters", "invalid_argument"),
        ("subscribe", json!({"filters": ["a"], "after": -1}), "after", "invalid_argument"),
        ("subscribe", json!({"filters": ["a"], "after": 1.5}), "after", "invalid_argument"),
        ("subscribe", json!({"filters": ["a"], "after": "x"}), "after", "invalid_argument"),
        ("subscribe", json!({"filters": ["a"], "after": "5@123"}), "after", "invalid_argument"),
        (
            "subscribe",
            json!({"filters": ["a"], "after": 9_007_199_254_740_992_u64}),
            "after",
            "invalid_argument",
        ),
        ("subscribe", json!({"filters": ["a"], "since": "now"}), "since", "invalid_argument"),
        (
            "subscribe",
            json!({"filters": ["a"], "after": 1, "since": "2026-01-01T00:00:00Z"}),
            "since",
            "invalid_argument",
        ),
        (
            "subscribe",
            json!({"filters": ["a"], "min_priority": "top"}),
            "min_priority",
            "invalid_argument",
        ),
        ("subscribe", json!({"filters": ["a"], "types": "x"}), "types", "invalid_argument"),
        ("subscribe", json!({"filters": ["a"], "batch_max": 0}), "batch_max", "invalid_argument"),
        (
            "subscribe",
            json!({"filters": ["a"], "batch_max": 1001}),
            "batch_max",
            "invalid_argument",
        ),
        (
            "subscribe",
            json!({"filters": ["a"], "linger_ms": 10_001}),
            "linger_ms",
            "invalid_argument",
        ),
        ("subscribe", json!({"filters": ["a"], "linger_ms": -1}), "linger_ms", "invalid_argument"),
        (
            "subscribe",
            json!({"filters": ["a"], "conflate_ms": 60_001}),
            "conflate_ms",
            "invalid_argument",
        ),
        ("subscribe", json!({"filters": ["a"], "on_gap": "ignore"}), "on_gap", "invalid_argument"),
        ("subscribe", json!({"filters": ["a"], "types": ["a*"]}), "types", "invalid_argument"),
        ("subscribe", json!({"filters": ["a"], "types": [""]}), "types", "invalid_argument"),
        (
            "subscribe",
            json!({"filters": ["a"], "content_types": ["*/json"]}),
            "content_types",
            "invalid_argument",
        ),
        (
            "subscribe",
            json!({"filters": ["a"], "headers": {"": "x"}}),
            "headers",
            "invalid_argument",
        ),
        ("subscribe", json!({"filters": ["a"], "log": "9f3c21d0"}), "log", "invalid_argument"),
        (
            "subscribe",
            json!({"filters": ["a"], "log": "9f3c21d0", "since": "2026-01-01T00:00:00Z"}),
            "log",
            "invalid_argument",
        ),
        (
            "subscribe",
            json!({"filters": ["a"], "log": "9f3c21d0", "durable": "d"}),
            "log",
            "invalid_argument",
        ),
        ("subscribe", json!({"filters": ["a"], "durable": "a.b"}), "durable", "invalid_argument"),
        ("subscribe", json!({"filters": ["a"], "durable": ""}), "durable", "invalid_argument"),
        (
            "subscribe",
            json!({"filters": ["a"], "durable": "x".repeat(65)}),
            "durable",
            "invalid_argument",
        ),
        (
            "subscribe",
            json!({"filters": ["a"], "durable": "d", "start": "last"}),
            "start",
            "invalid_argument",
        ),
        (
            "subscribe",
            json!({"filters": ["a"], "durable": "d", "max_in_flight": 0}),
            "max_in_flight",
            "invalid_argument",
        ),
        (
            "subscribe",
            json!({"filters": ["a"], "durable": "d", "max_in_flight": 65_537}),
            "max_in_flight",
            "invalid_argument",
        ),
        (
            "subscribe",
            json!({"filters": ["a"], "durable": "d", "ack_wait_ms": 86_400_001}),
            "ack_wait_ms",
            "invalid_argument",
        ),
        ("subscribe", json!({"filters": ["a"], "mode": "all"}), "mode", "invalid_argument"),
        ("ack", json!({"subscription": 1, "offsets": offsets_4097}), "offsets", "too_large"),
        ("unsubscribe", json!({"subscription": 9}), "subscription", "not_found"),
        ("unsubscribe", json!({}), "subscription", "invalid_argument"),
        ("receipts", json!({"offset": 0}), "offset", "invalid_argument"),
        ("receipts", json!({"offset": 5}), "offset", "not_found"),
        ("presence", json!({"topic": "$acks"}), "topic", "invalid_argument"),
        ("presence", json!({"topic": "a b"}), "topic", "invalid_argument"),
    ] {
        let error = socket.refused(request, body.clone()).await;
        let what =
            format!("{request} {}: {error}", &body.to_string()[..body.to_string().len().min(200)]);
        assert_eq!(error["code"], code, "{what}");
        assert!(error["message"].as_str().unwrap().contains(field), "{what}");
    }
    assert_alive(&broker, &mut socket).await;
    let status = http::get(&broker.public, "/v1/status").await.json();
    assert_eq!(status["log"]["last"], 1, "nothing of it left a trace: {status}");
}

#[tokio::test]
async fn s6_requests_over_http_that_are_malformed_are_problems_by_name() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
    let deep_event = format!("{{\"topic\":\"a\",\"data\":{deep}}}");
    let abyss = "[".repeat(200_000);
    for (method, path, headers, body, status, field) in [
        ("POST", "/v1/topics/a..b/events", &[][..], "x", 400, "topic"),
        ("POST", "/v1/topics/a%20b/events", &[], "x", 400, "topic"),
        ("POST", "/v1/topics/a%2Fb/events", &[], "x", 400, "topic"),
        ("POST", "/v1/topics/a.*/events", &[], "x", 400, "topic"),
        ("POST", "/v1/topics/%FF/events", &[], "x", 400, "UTF-8"),
        ("POST", "/v1/topics/a/events?after=1", &[], "x", 400, "after"),
        ("POST", "/v1/topics/a/events", &[JSON], "{", 400, "data"),
        ("POST", "/v1/topics/a/events", &[JSON], "{\"a\":1}x", 400, "data"),
        ("POST", "/v1/topics/a/events", &[JSON], "\u{feff}{}", 400, "data"),
        ("POST", "/v1/topics/a/events", &[JSON], &deep, 400, "data"),
        ("POST", "/v1/topics/a/events", &[JSON], &abyss, 400, "data"),
        (
            "POST",
            "/v1/topics/a/events",
            &[("tidings-priority", "top")],
            "x",
            400,
            "tidings-priority",
        ),
        (
            "POST",
            "/v1/topics/a/events",
            &[("tidings-expires", "soon")],
            "x",
            400,
            "tidings-expires",
        ),
        (
            "POST",
            "/v1/topics/a/events",
            &[("tidings-expect-last", "-1")],
            "x",
            400,
            "tidings-expect-last",
        ),
        (
            "POST",
            "/v1/topics/a/events",
            &[("tidings-deliver-at", "2999-01-01T00:00:00Z")],
            "x",
            400,
            "deliver_at",
        ),
        (
            "POST",
            "/v1/topics/a/events",
            &[("content-encoding", "deflate")],
            "x",
            415,
            "content-encoding",
        ),
        ("POST", "/v1/topics/a/events", &[("content-encoding", "gzip")], "x", 400, "body"),
        ("POST", "/v1/events", &[JSON], "", 400, ""),
        ("POST", "/v1/events", &[JSON], "{\"data\":1}", 400, "topic"),
        ("POST", "/v1/events", &[JSON], "{\"topic\":\"a\",\"tpye\":\"x\"}", 400, "tpye"),
        ("POST", "/v1/events", &[JSON], "[{\"topic\":\"a\"},{\"topic\":7}]", 400, "[1].topic"),
        ("POST", "/v1/events", &[JSON], &deep_event, 400, "data"),
        ("POST", "/v1/events", &[JSON], &abyss, 400, "nested"),
        ("POST", "/v1/events", &[("content-type", "text/csv")], "a", 415, "content-type"),
        ("GET", "/v1/topics/a..b/events", &[], "", 400, "filter"),
        ("GET", "/v1/topics/a.%3E.b/events", &[], "", 400, "filter"),
        ("GET", "/v1/topics/a/events?after=", &[], "", 400, "after"),
        ("GET", "/v1/topics/a/events?after=-1", &[], "", 400, "after"),
        ("GET", "/v1/topics/a/events?after=1&after=1", &[], "", 400, "after"),
        ("GET", "/v1/topics/a/events?limit=0", &[], "", 400, "limit"),
        ("GET", "/v1/topics/a/events?limit=x", &[], "", 400, "limit"),
        ("GET", "/v1/topics/a/events?since=x", &[], "", 400, "since"),
        ("GET", "/v1/topics/a/events?on_gap=x", &[], "", 400, "on_gap"),
        ("GET", "/v1/topics/a/events?types=a*", &[], "", 400, "types"),
        ("GET", "/v1/topics/a/events?types=a,", &[], "", 400, "types"),
        ("GET", "/v1/topics/a/events?types=*.x", &[EVENT_STREAM], "", 400, "types"),
        ("GET", "/v1/topics/a/events?content_types=*/json", &[], "", 400, "content_types"),
        ("GET", "/v1/topics/a/events?content_types=json", &[], "", 400, "content_types: \"json\""),
        ("GET", "/v1/topics/a/events?content_types=", &[EVENT_STREAM], "", 400, "content_types"),
        ("GET", "/v1/topics/a/events?header=:x", &[EVENT_STREAM], "", 400, "header"),
        ("GET", "/v1/topics/a/events?min_priority=x", &[], "", 400, "min_priority"),
        ("GET", "/v1/topics/a/events?lmit=1", &[], "", 400, "lmit"),
        ("GET", "/v1/topics/a/events?token=x", &[], "", 400, "token"),
        ("GET", "/v1/events", &[], "", 400, "topic"),
        ("GET", "/v1/events?topic=a..b", &[], "", 400, "topic"),
        ("GET", "/v1/topics?filter=", &[], "", 400, "filter"),
        ("PUT", "/v1/subscriptions/d", &[JSON], "", 400, ""),
        ("PUT", "/v1/subscriptions/d", &[JSON], "{}", 400, "filters"),
        ("PUT", "/v1/subscriptions/d", &[JSON], "{\"filters\":[\"a b\"]}", 400, "filters"),
        ("PUT", "/v1/subscriptions/d", &[JSON], "{\"filters\":[\"a\"],\"x\":1}", 400, "x"),
        ("POST", "/v1/subscriptions/d/fetch", &[JSON], "{\"limt\":1}", 400, "limt"),
        ("POST", "/v1/subscriptions/d/fetch", &[JSON], "{\"limit\":0}", 400, "limit"),
        ("POST", "/v1/subscriptions/d/fetch", &[JSON], "{\"wait\":\"31s\"}", 400, "wait"),
        ("POST", "/v1/subscriptions/d/ack", &[JSON], "{\"offset\":0}", 400, "offset"),
        ("POST", "/v1/subscriptions/d/ack", &[JSON], "{\"offset\":1},\"id\":2", 400, ""),
        ("POST", "/v1/subscriptions/d/ack", &[JSON], &abyss, 400, "nested"),
        ("POST", "/v1/subscriptions/d/nack", &[JSON], "{\"offsets\":1}", 400, "offsets"),
        ("POST", "/v1/subscriptions/d/fetch", &[JSON], "{\"limit\":-1}", 400, "limit: "),
        ("POST", "/v1/subscriptions/d/fetch", &[JSON], "{\"wait\":true}", 400, "wait: it must be"),
        ("POST", "/v1/subscriptions/d/redrive", &[JSON], "{\"offsets\":\"x\"}", 400, "offsets: "),
        ("POST", "/v1/subscriptions/d/redrive", &[JSON], "{\"offsets\":[-1]}", 400, "offsets[0]: "),
        ("POST", "/v1/subscriptions/d/reset", &[JSON], "{\"to\":[1]}", 400, "to: "),
        ("POST", "/v1/subscriptions/d/pause", &[JSON], "{\"to\":1}", 400, "body: "),
        ("PUT", "/v1/retention/a", &[JSON], "{\"max_bytes\":-1}", 400, "max_bytes: "),
        ("PUT", "/v1/retention/a", &[JSON], "{\"compact\":\"yes\"}", 400, "compact: "),
        ("PUT", "/v1/retention/a", &[JSON], "{\"max_age\":5}", 400, "max_age: "),
        ("PUT", "/v1/retention/a", &[JSON], "{\"subscription\":5}", 400, "subscription: unknown"),
        ("POST", "/v1/auth/revocations", &[JSON], "{\"jti\":5}", 400, "jti: "),
        ("POST", "/v1/auth/keys", &[JSON], "{\"name\":\"a\"}", 400, "grants: is missing"),
        ("GET", STREAM_LISTED, &[EVENT_STREAM], "", 400, "presence.name: "),
    ] {
        let method: Method = method.parse().unwrap();
        let what = format!("{method} {path} {headers:?} {}", &body[..body.len().min(60)]);
        let answer = http::request(&broker.public, method, path, headers, body.as_bytes()).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
        let problem = answer.json();
        let code = if status == 415 { "unsupported_media_type" } else { "invalid_argument" };
        assert_eq!(problem["code"], code, "{what}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(field) && !detail.is_empty(), "{what}: not {field}: {detail}");
        assert!(answer.body.len() < 2000, "{what}: an error is short");
    }
    assert_alive(&broker, &mut socket).await;
    let status = http::get(&broker.public, "/v1/status").await.json();
    assert_eq!(status["log"]["last"], 1, "nothing of it left a trace: {status}");
}

#[tokio::test]
async fn s6_twenty_bad_messages_in_a_row_end_the_connection_with_4500() {
    let broker = Broker::start();
    let mut other = Socket::open(&broker.public).await;
    let mut socket = Socket::open(&broker.public).await;
    for round in 0..3 {
        for n in 0..19 {
            socket.send_text(if n % 2 == 0 { "{" } else { r#"{"id":1,"pong":{}}"# }).await;
            let answer = socket.next().await.unwrap();
            assert_eq!(answer["error"]["code"], "invalid_argument", "{answer}");
        }
        // One good message, and the count begins anew.
        socket.call("ping", json!({})).await;
        assert!(socket.closed.is_none(), "round {round}");
    }
    for _ in 0..20 {
        socket.send_text("no JSON").await;
    }
    let mut answers = 0;
    while let Some(answer) = socket.next().await {
        assert_eq!(answer["error"]["code"], "invalid_argument");
        answers += 1;
    }
    assert_eq!(answers, 20, "each is answered");
    assert_eq!(socket.closed.map(|frame| u16::from(frame.code)), Some(4500));
    assert_alive(&broker, &mut other).await;
}

#[tokio::test]
async fn s6_a_binary_frame_ends_the_connection_with_1003() {
    let broker = Broker::start();
    let mut other = Socket::open(&broker.public).await;
    let mut socket = Socket::open(&broker.public).await;
    socket.send_raw(Message::binary(&b"{\"id\":1,\"ping\":{}}"[..])).await;
    assert_eq!(socket.close_code().await, Some(1003));
    assert_alive(&broker, &mut other).await;
}

/// A publish message of exactly this many bytes.
fn message_of(bytes: usize) -> String {
    let (begin, end) = (r#"{"id":1,"publish":{"topic":"a","data":""#, r#""}}"#);
    format!("{begin}{}{end}", "x".repeat(bytes - begin.len() - end.len()))
}

#[tokio::test]
async fn s5_a_message_may_have_the_limit_and_not_a_byte_more() {
    const MAX: usize = 4096;
    let broker = Broker::with(&["--set", "limits.message_bytes_max=4096"]);
    let mut other = Socket::open(&broker.public).await;
    let mut socket = Socket::open(&broker.public).await;
    let connected = socket.call("connect", json!({})).await;
    assert_eq!(connected["connected"]["max_message_bytes"], MAX);
    socket.send_text(&message_of(MAX)).await;
    assert!(socket.next().await.unwrap()["published"].is_object());
    socket.send_text(&message_of(MAX + 1)).await;
    assert_eq!(socket.close_code().await, Some(1009));

    let path = "/v1/topics/a/events";
    for (bytes, status) in [(MAX, 201), (MAX + 1, 413), (1 << 22, 413)] {
        let body = vec![b'x'; bytes];
        let answer = http::try_request(&broker.public, Method::POST, path, &[], &body).await;
        match answer {
            Ok(answer) => assert_eq!(answer.status.as_u16(), status, "{bytes}"),
            // The broker need not read what it refuses, so the client may fail to send it.
            Err(error) => assert!(bytes > MAX + 1, "{bytes}: {error}"),
        }
    }
    // A length that is only claimed is refused before anything is sent.
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 99999999999\r\n\r\n",
        broker.public
    );
    let (_, status, head) = raw::exchange(&broker.public, &request).await;
    assert_eq!(status, 413, "{head}");
    assert!(head.contains("application/problem+json"), "{head}");
    // Without a length the bytes are counted as they come.
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\n\r\n800\r\n{}\r\n\
         800\r\n{}\r\n1\r\ny\r\n",
        broker.public,
        "x".repeat(0x800),
        "x".repeat(0x800)
    );
    let (_, status, head) = raw::exchange(&broker.public, &request).await;
    assert_eq!(status, 413, "{head}");
    assert_alive(&broker, &mut other).await;
}

#[tokio::test]
async fn s4_the_subprotocol_is_negotiated_exactly() {
    let broker = Broker::start();
    for (offered, status, chosen) in [
        ("", 101, None),
        ("sec-websocket-protocol: tidings.v1.json\r\n", 101, Some("tidings.v1.json")),
        ("sec-websocket-protocol: x, tidings.v1.json\r\n", 101, Some("tidings.v1.json")),
        (
            "sec-websocket-protocol: x\r\nsec-websocket-protocol: tidings.v1.json\r\n",
            101,
            Some("tidings.v1.json"),
        ),
        ("sec-websocket-protocol: tidings.v2.json\r\n", 400, None),
        ("sec-websocket-protocol: tidings.v1.jsonx, mqtt\r\n", 400, None),
        ("sec-websocket-protocol: TIDINGS.V1.JSON\r\n", 400, None),
    ] {
        let request = raw::upgrade(&broker.public, "/v1/ws", offered);
        let (_, got, head) = raw::exchange(&broker.public, &request).await;
        assert_eq!(got, status, "{offered}: {head}");
        let said = head.to_lowercase().lines().find_map(|line| {
            line.strip_prefix("sec-websocket-protocol:").map(|value| value.trim().to_owned())
        });
        assert_eq!(said.as_deref(), chosen, "{offered}: {head}");
        assert!(!head.to_lowercase().contains("permessage-deflate"), "{head}");
    }
}

#[tokio::test]
async fn s6_a_handshake_that_is_none_is_refused() {
    let broker = Broker::start();
    let good = raw::upgrade(&broker.public, "/v1/ws", "");
    let mut other = Socket::open(&broker.public).await;
    for (old, new, status) in [
        ("sec-websocket-version: 13", "sec-websocket-version: 8", 426),
        ("sec-websocket-version: 13\r\n", "", 426),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "!!!!", 400),
        ("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("connection: Upgrade", "connection: close", 426),
        ("upgrade: websocket", "upgrade: h2c", 426),
        ("GET", "POST", 405),
        ("HTTP/1.1\r\n", "HTTP/1.1\r\nhost: twice\r\n", 400),
        ("connection: Upgrade", "content-length: 5\r\nconnection: Upgrade", 400),
    ] {
        let request = good.replace(old, new);
        assert_ne!(request, good);
        let (_, got, head) = raw::exchange(&broker.public, &request).await;
        assert_eq!(got, status, "{new}: {head}");
        if new.contains("version: 8") {
            assert!(head.to_lowercase().contains("sec-websocket-version: 13"), "{head}");
        }
    }
    assert_alive(&broker, &mut other).await;
}

/// The longest message in these tests, so that what is too long for it can go a byte at a time.
const SMALL: &str = "limits.message_bytes_max=4096";

/// What of RFC 6455 a client may break, and the code it is told; for messages of at most [`SMALL`].
fn violations() -> Vec<(&'static str, Vec<u8>, u16)> {
    let ping = br#"{"id":1,"ping":{}}"#;
    let with = |mut head: Vec<u8>, rest: &[u8]| {
        head.extend_from_slice(rest);
        head
    };
    let join = |frames: &[Vec<u8>]| frames.concat();
    let claims = |bytes: u64| {
        let mask = [1, 2, 3, 4];
        [&[TEXT, 0xff][..], &bytes.to_be_bytes(), &mask].concat()
    };
    vec![
        ("a frame without mask", with(head(TEXT, false, ping.len() as u64), ping), 1002),
        ("a ping without mask", head(PING, false, 0), 1002),
        ("a close without mask", with(head(CLOSE, false, 2), &[0x03, 0xe8]), 1002),
        ("the first reserved bit", frame(0xc1, ping), 1002),
        ("the second reserved bit", frame(0xa1, ping), 1002),
        ("the third reserved bit", frame(0x91, ping), 1002),
        ("a reserved bit on a ping", frame(0xc9, b""), 1002),
        ("opcode 3", frame(0x83, ping), 1002),
        ("opcode 7", frame(0x87, b""), 1002),
        ("opcode 11", frame(0x8b, b""), 1002),
        ("opcode 15", frame(0x8f, b""), 1002),
        ("a ping in two frames", frame(0x09, b"x"), 1002),
        ("a ping of 126 bytes", frame(PING, &[b'x'; 126]), 1002),
        ("a pong of 126 bytes", frame(0x8a, &[b'x'; 126]), 1002),
        ("a close of 126 bytes", frame(CLOSE, &with(vec![0x03, 0xe8], &[b'x'; 124])), 1002),
        ("a close of one byte", frame(CLOSE, &[3]), 1002),
        ("a close with code 1005", frame(CLOSE, &1005_u16.to_be_bytes()), 1002),
        ("a close with code 999", frame(CLOSE, &999_u16.to_be_bytes()), 1002),
        ("a close with a reason that is no text", frame(CLOSE, &[0x03, 0xe8, 0xff]), 1007),
        ("a continuation of nothing", frame(0x80, ping), 1002),
        ("a message inside a message", join(&[frame(0x01, b"{"), frame(TEXT, ping)]), 1002),
        ("two beginnings", join(&[frame(0x01, b"{"), frame(0x01, ping)]), 1002),
        ("a length with its top bit set", claims(1 << 63 | 1), 1002),
        ("a length of 2^62", claims(1 << 62), 1009),
        ("a length of 2^32", claims(1 << 32), 1009),
        ("a length of 60 MiB", claims(60 << 20), 1009),
        ("a length in more bytes than it needs", [0x81, 0xfe, 0, 5, 1, 2, 3, 4].to_vec(), 1002),
        ("text that is no UTF-8", frame(TEXT, b"\"\xff\""), 1007),
        ("text that ends within a character", frame(TEXT, b"\"\xc3"), 1007),
        (
            "text that ends within a character over frames",
            join(&[frame(0x01, b"\"\xe2"), frame(0x00, b"\x82"), frame(0x80, b"")]),
            1007,
        ),
        ("a surrogate", frame(TEXT, b"\"\xed\xa0\x80\""), 1007),
        ("no UTF-8 over two frames", join(&[frame(0x01, b"\"\xc3"), frame(0x80, b"\x28\"")]), 1007),
        ("binary", frame(BINARY, ping), 1003),
        (
            "fragments without end",
            frame(0x01, b"").into_iter().chain(frame(0x00, b"").repeat(1500)).collect(),
            1008,
        ),
        ("a message that is too long", frame(TEXT, &[b' '; 4097]), 1009),
        (
            "fragments that are too long together",
            join(&[
                frame(0x01, &[b' '; 2000]),
                frame(0x00, &[b' '; 2000]),
                frame(0x80, &[b' '; 97]),
            ]),
            1009,
        ),
    ]
}

#[tokio::test]
async fn s6_a_violation_of_the_framing_costs_its_own_connection_only() {
    let broker = Broker::with(&["--set", SMALL]);
    let mut other = Socket::open(&broker.public).await;
    other.subscribe(json!({"filters": ["alive"]})).await;
    other.expect("caught_up").await;
    for (what, bytes, code) in violations() {
        let mut whole = Raw::open(&broker.public).await;
        whole.write(&bytes).await;
        assert_eq!(whole.close_code().await, Some(code), "{what}");
        // The same, a byte a segment.
        let mut raw = Raw::open(&broker.public).await;
        raw.stream.set_nodelay(true).unwrap();
        for byte in &bytes {
            raw.write(&[*byte]).await;
        }
        assert_eq!(raw.close_code().await, Some(code), "{what}, byte by byte");
        assert_alive(&broker, &mut other).await;
        assert_eq!(other.take(1).await.len(), 1, "{what}");
    }
}

#[tokio::test]
async fn s5_pings_of_one_who_does_not_read_are_not_read_either() {
    const PING_BYTES: usize = 6 + 125;
    // Without the limit that would cut it off sooner.
    let broker = Broker::with(&["--set", "limits.per_session=subscribes=5000"]);
    let mut other = Socket::open(&broker.public).await;
    let before = broker.resident_bytes();
    let Raw { stream } = Raw::open(&broker.public).await;
    let (read, mut write) = stream.into_split();
    let pings: Vec<u8> = frame(PING, &[7; 125]).repeat(1000);
    assert_eq!(pings.len(), PING_BYTES * 1000);
    let mut sent = 0;
    // The kernel's buffers fill up, then the broker's bounded queue of answers, and then it takes no more.
    loop {
        let next = &pings[sent % pings.len()..];
        match tokio::time::timeout(Duration::from_secs(1), write.write(next)).await {
            Ok(written) => sent += written.unwrap(),
            Err(_) => break,
        }
        assert!(sent < 256 << 20, "it reads on and on");
    }
    assert_alive(&broker, &mut other).await;
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes for {sent} bytes of pings");
    // Once it reads it has its pongs, each of them, and the socket is as good as before.
    let finish = tokio::spawn(async move {
        let rest = &pings[sent % PING_BYTES..PING_BYTES];
        write.write_all(if sent % PING_BYTES == 0 { b"" } else { rest }).await.unwrap();
        write.write_all(&frame(TEXT, br#"{"id":1,"ping":{}}"#)).await.unwrap();
        write
    });
    let mut reader = BufReader::with_capacity(1 << 16, read);
    let mut pongs = 0;
    let answer = loop {
        match tokio::time::timeout(PATIENCE, raw::read_frame(&mut reader)).await.unwrap().unwrap() {
            (0x8a, payload) => assert_eq!(payload, [7; 125]),
            (PING, _) => continue,
            (_, payload) => break payload,
        }
        pongs += 1;
    };
    assert_eq!(answer, br#"{"reply":1,"pong":{}}"#);
    assert_eq!(pongs, sent.div_ceil(PING_BYTES));
    drop(finish.await.unwrap());
    assert_alive(&broker, &mut other).await;
}

#[tokio::test]
async fn what_the_framing_allows_works() {
    let broker = Broker::start();
    let mut raw = Raw::open(&broker.public).await;
    // A message in pieces, a ping between them, and the cut within a character.
    let message = r#"{"id":1,"publish":{"topic":"a","data":"é😀"}}"#.as_bytes();
    let cut = message.len() - 5;
    raw.write(&frame(0x01, &message[..10])).await;
    raw.write(&frame(PING, b"are you there")).await;
    raw.write(&frame(0x00, b"")).await;
    raw.write(&frame(0x00, &message[10..cut])).await;
    assert_eq!(raw.frame().await, Some((0x8a, b"are you there".to_vec())), "at once");
    raw.write(&frame(0x80, &message[cut..])).await;
    let (first, payload) = raw.frame().await.unwrap();
    assert_eq!(first, TEXT, "one whole text frame, not masked");
    let answer: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(answer["published"]["offset"], 1, "{answer}");
    // A pong nobody asked for, an empty ping, a ping of 125 bytes.
    raw.write(&frame(0x8a, b"x")).await;
    raw.write(&frame(PING, b"")).await;
    raw.write(&frame(PING, &[7; 125])).await;
    assert_eq!(raw.frame().await, Some((0x8a, Vec::new())));
    assert_eq!(raw.frame().await, Some((0x8a, vec![7; 125])));
    // The close is answered with its code.
    raw.write(&frame(CLOSE, &1000_u16.to_be_bytes())).await;
    assert_eq!(raw.close_code().await, Some(1000));
    let event = http::get(&broker.public, "/v1/events/1").await.json();
    assert_eq!(event["data"], "é😀");
}

#[tokio::test]
async fn s5_a_length_that_is_only_claimed_costs_no_memory() {
    const CONNECTIONS: usize = 300;
    let broker = Broker::start();
    let mut other = Socket::open(&broker.public).await;
    let mut open = Vec::new();
    for claims in [false, true] {
        let before = broker.resident_bytes();
        for _ in 0..CONNECTIONS {
            let mut raw = Raw::open(&broker.public).await;
            if claims {
                // Within the limit of a message, so it is waited for.
                let mut bytes = head(TEXT, true, 1_000_000);
                bytes.extend_from_slice(b"mask and a few bytes");
                raw.write(&bytes).await;
            }
            open.push(raw);
        }
        assert_alive(&broker, &mut other).await;
        let grown = broker.resident_bytes().saturating_sub(before);
        let each = grown / CONNECTIONS as u64;
        assert!(each < 100_000, "{each} bytes a connection, claims: {claims}");
    }
    let request = format!(
        "POST /v1/topics/a/events HTTP/1.1\r\nhost: {}\r\ncontent-length: 1000000\r\n\r\nfew",
        broker.public
    );
    let before = broker.resident_bytes();
    let mut posts = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(&broker.public).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        posts.push(stream);
    }
    assert_alive(&broker, &mut other).await;
    let each = broker.resident_bytes().saturating_sub(before) / CONNECTIONS as u64;
    assert!(each < 100_000, "{each} bytes a request");
}

#[tokio::test]
async fn s6_heads_that_could_be_read_in_two_ways_are_refused() {
    let broker = Broker::start();
    let mut other = Socket::open(&broker.public).await;
    let host = format!("host: {}\r\n", broker.public);
    let post = "POST /v1/topics/smuggled/events HTTP/1.1\r\n";
    for request in [
        format!("{post}{host}content-length: 1\r\ncontent-length: 2\r\n\r\nxx"),
        format!("{post}{host}transfer-encoding: chunked, gzip\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        format!("{post}{host}{host}content-length: 1\r\n\r\nx"),
        format!("{post}content-length: 1\r\n\r\nx"),
        format!("{post}{host}content-length: +1\r\n\r\nx"),
        format!("{post}{host}content-length: 1\r\nx y: z\r\n\r\nx"),
        format!("{post}{host}x: y\r\n folded\r\ncontent-length: 1\r\n\r\nx"),
        format!("{post}{host}transfer-encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n"),
        format!("POST  /v1/topics/smuggled/events HTTP/1.1\r\n{host}\r\n"),
        format!("GET /v1/status HTTP/3.7\r\n{host}\r\n"),
        format!("GET /v1/status HTTP/1.1\r\n{host}x: {}\r\n\r\n", "y".repeat(100_000)),
        format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(100_000)),
        format!("GET /v1/status HTTP/1.1\r\n{host}{}\r\n", "x: y\r\n".repeat(500)),
    ] {
        let mut stream = TcpStream::connect(&broker.public).await.unwrap();
        // It may hang up before all is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        let read = read.unwrap_or_else(|_| panic!("kept open after {request:.200}"));
        let answer = String::from_utf8_lossy(&answer);
        // Behind a reset the answer may be lost; what counts is that nothing was taken.
        if read.is_ok() {
            assert!(answer.starts_with("HTTP/1.1 4"), "{request:.200}: {answer}");
        }
    }
    assert_alive(&broker, &mut other).await;
    let topics = http::get(&broker.public, "/v1/topics").await.text();
    assert!(!topics.contains("smuggled"), "{topics}");
}

#[tokio::test]
async fn s6_transfer_encoding_with_a_length_is_never_two_requests() {
    let broker = Broker::start();
    let request = format!(
        "POST /v1/topics/outer/events HTTP/1.1\r\nhost: {0}\r\ncontent-length: 6\r\n\
         transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/topics/inner/events HTTP/1.1\r\n\
         host: {0}\r\n\r\n",
        broker.public
    );
    let mut stream = TcpStream::connect(&broker.public).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("the connection was kept");
    let answer = String::from_utf8_lossy(&answer);
    // RFC 9112 §6.1: refused, or read by the chunks alone; the connection ends either way, so that
    // nothing that follows is taken for a request.
    let status = answer.split(' ').nth(1).unwrap();
    assert!(["400", "201"].contains(&status), "{answer}");
    assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "nothing more is read: {answer}");
}

#[tokio::test]
async fn s5_a_head_that_does_not_come_is_not_waited_for() {
    let broker = Broker::start();
    let mut other = Socket::open(&broker.public).await;
    let mut slow = Vec::new();
    for begin in ["", "GET /v1/sta", "GET /v1/status HTTP/1.1\r\nhost: localhost\r\n"] {
        let mut stream = TcpStream::connect(&broker.public).await.unwrap();
        stream.write_all(begin.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let started = Instant::now();
    for mut stream in slow {
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        let _ = tokio::time::timeout(PATIENCE, read).await.expect("it was waited for");
        let took = started.elapsed();
        assert!((4..20).contains(&took.as_secs()), "{took:?} instead of 5 s");
    }
    assert_alive(&broker, &mut other).await;
}

#[tokio::test]
async fn a_socket_that_is_silent_for_two_pings_is_closed_and_one_that_answers_lives() {
    let broker = Broker::with(&["--set", "limits.ping_interval=200ms"]);
    let mut silent = Raw::open(&broker.public).await;
    let started = Instant::now();
    let mut pings = 0;
    while let Some((first, _)) = silent.frame().await {
        assert!([PING, CLOSE].contains(&first), "{first:#x}");
        pings += u32::from(first == PING);
    }
    let took = started.elapsed().as_millis();
    assert!(pings >= 1 && (400..5_000).contains(&took), "{pings} pings, {took} ms");
    // Bytes that make no whole message are no sign of life.
    let mut dribbling = Raw::open(&broker.public).await;
    let message = frame(TEXT, message_of(4000).as_bytes());
    let mut sent = 0;
    let ended = loop {
        match tokio::time::timeout(Duration::from_millis(20), dribbling.frame()).await {
            Ok(None) => break true,
            Ok(Some(_)) => {}
            Err(_) => {
                dribbling.write(&message[sent..=sent]).await;
                sent += 1;
            }
        }
        if sent > 250 {
            break false;
        }
    };
    assert!(ended, "{sent} bytes kept it alive");
    // A pong answers a ping, and so does a message.
    let mut polite = Raw::open(&broker.public).await;
    let mut wordy = Raw::open(&broker.public).await;
    for _ in 0..10 {
        let (first, payload) = polite.frame().await.expect("it was closed");
        assert_eq!(first, PING);
        polite.write(&frame(0x8a, &payload)).await;
        wordy.write(&frame(TEXT, b"{\"ping\":{}}")).await;
        let answered = async {
            while wordy.frame().await.expect("it was closed") != (TEXT, b"{\"pong\":{}}".to_vec()) {
            }
        };
        answered.await;
    }
    assert_alive(&broker, &mut Socket::open(&broker.public).await).await;
}

#[tokio::test]
async fn s5_connections_over_the_cap_are_answered_503_and_come_in_when_there_is_room() {
    let broker = Broker::with(&["--set", "server.connections_max=5"]);
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(Socket::open(&broker.public).await);
    }
    for _ in 0..20 {
        let answer = http::get(&broker.public, "/v1/status").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.json()["code"], "unavailable");
        assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    }
    assert_eq!(http::get(&broker.admin, "/readyz").await.status, StatusCode::OK, "its own cap");
    sockets.pop();
    let room = async || http::get(&broker.public, "/v1/status").await.status == StatusCode::OK;
    eventually("there is room again", room).await;
    assert_alive(&broker, &mut sockets[0]).await;
}

/// Some message of the protocol, which is then damaged.
fn damaged(random: &mut Random) -> Vec<u8> {
    let good = [
        r#"{"id":1,"publish":{"topic":"a.b","data":{"x":[1,2.5,"é"]},"id":"x","ttl_ms":5}}"#,
        r#"{"id":2,"subscribe":{"filters":["a.*","b.>"],"after":0,"types":["x.*"]}}"#,
        r#"{"id":3,"subscribe":{"durable":"d","filters":["a"],"start":"first"}}"#,
        r#"{"id":4,"ack":{"subscription":1,"offsets":[1,2,3]}}"#,
        r#"{"id":5,"publish_batch":{"events":[{"topic":"a"},{"topic":"b","data_base64":"AA=="}]}}"#,
        r#"{"id":6,"connect":{"client":"x"}}"#,
    ];
    let mut bytes = random.pick(&good).as_bytes().to_vec();
    for _ in 0..=random.below(4) {
        let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
        match random.below(5) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes.truncate(at.max(1)),
            2 => bytes.insert(at, *random.pick(b"{}[]\",:\\0-e.\x00\xff")),
            3 => drop(bytes.remove(at)),
            _ => {
                let piece = bytes[at..].to_vec();
                bytes.extend_from_slice(&piece);
            }
        }
        if bytes.is_empty() {
            bytes.push(b'{');
        }
    }
    bytes
}

/// Sends these bytes, says that no more come, and reads to the end.
async fn throw(mut stream: TcpStream, bytes: &[u8], what: &str) {
    // The broker may hang up at any byte.
    let _ = tokio::time::timeout(PATIENCE, stream.write_all(bytes)).await.expect("it hangs");
    let _ = stream.shutdown().await;
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    let _ = tokio::time::timeout(PATIENCE, read)
        .await
        .unwrap_or_else(|_| panic!("{what}: the connection stays: {bytes:?}"));
}

#[tokio::test]
async fn s6_no_bytes_kill_the_broker() {
    let mut broker = Broker::start();
    let mut other = Socket::open(&broker.public).await;
    let mut random = Random::new(6455);
    let pid = broker.pid();
    for case in 0..500_u64 {
        let count = usize::try_from(random.below(400)).unwrap();
        let noise = random.bytes(count);
        match case % 5 {
            0 => {
                let stream = TcpStream::connect(&broker.public).await.unwrap();
                throw(stream, &noise, "noise").await;
            }
            1 => {
                let good = raw::upgrade(&broker.public, "/v1/ws", "").into_bytes();
                let mut bytes = good.clone();
                for _ in 0..=random.below(6) {
                    let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
                    bytes[at] = random.next() as u8;
                }
                bytes.extend_from_slice(&noise);
                let stream = TcpStream::connect(&broker.public).await.unwrap();
                throw(stream, &bytes, "a damaged head").await;
            }
            2 => {
                let raw = Raw::open(&broker.public).await;
                throw(raw.stream, &noise, "noise as frames").await;
            }
            3 => {
                let raw = Raw::open(&broker.public).await;
                let mut bytes = Vec::new();
                for _ in 0..8 {
                    let text = damaged(&mut random);
                    let text = String::from_utf8_lossy(&text);
                    bytes.extend(frame(TEXT, text.as_bytes()));
                }
                throw(raw.stream, &bytes, "damaged messages").await;
            }
            _ => {
                let stream = TcpStream::connect(&broker.public).await.unwrap();
                let body = damaged(&mut random);
                let path = *random.pick(&[
                    "/v1/events",
                    "/v1/topics/a/events",
                    "/v1/subscriptions/d/ack",
                    "/v1/subscriptions/d/fetch",
                ]);
                let mut bytes = format!(
                    "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                     connection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                )
                .into_bytes();
                bytes.extend(body);
                throw(stream, &bytes, "a damaged body").await;
            }
        }
        if case % 50 == 0 {
            assert_alive(&broker, &mut other).await;
        }
    }
    assert_alive(&broker, &mut other).await;
    assert_eq!(broker.pid(), pid);
    // What did get in can be read, here and after a restart.
    for _ in 0..2 {
        let all = http::get(&broker.public, "/v1/topics/%3E/events?limit=1000").await;
        assert_eq!(all.status, StatusCode::OK, "{}", all.text());
        broker.kill();
        broker.restart();
    }
}

#[tokio::test]
async fn s6_a_client_that_hangs_up_in_the_middle_costs_nothing() {
    let broker = Broker::start();
    let mut other = Socket::open(&broker.public).await;
    for cut in 1..60 {
        let mut raw = Raw::open(&broker.public).await;
        let bytes = frame(TEXT, message_of(120).as_bytes());
        raw.write(&bytes[..cut * 2]).await;
    }
    for _ in 0..20 {
        let socket = Socket::try_open(&broker.public, "/v1/ws/a", &[]).await.unwrap();
        drop(socket);
    }
    let gone = async || {
        let status = http::get(&broker.public, "/v1/status").await.json();
        status["sessions"]["websocket"] == 1
    };
    eventually("the sessions are gone", gone).await;
    assert_alive(&broker, &mut other).await;
}
