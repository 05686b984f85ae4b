//! What HTTP itself asks of every call: HEAD and OPTIONS, requests behind one another, a body that is announced first, and
//! paths that are written in other ways.

use std::collections::BTreeSet;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tidings_proto::documents::OPENAPI;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::util::{Broker, PATIENCE, http, ws::Socket};

/// Writes bytes and reads all that comes until the peer closes.
async fn exchange(address: &str, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let reading = stream.read_to_end(&mut all);
    tokio::time::timeout(PATIENCE, reading).await.expect("it did not close").unwrap();
    String::from_utf8(all).unwrap()
}

/// Reads one head.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("no answer");
        head.push(byte.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A broker in which every path of the document leads to something.
async fn broker() -> Broker {
    let broker = Broker::with(&["--demo"]);
    let mut socket = Socket::open(&broker.public).await;
    socket.publish(json!({"topic": "a", "data": 1})).await;
    for (method, path, body) in [
        (Method::PUT, "/v1/subscriptions/a", json!({"filters": ["a"], "start": "first"})),
        (Method::PUT, "/v1/retention/a", json!({"max_events": 5})),
    ] {
        let body = body.to_string();
        let made = http::request(&broker.public, method, path, &[], body.as_bytes()).await;
        assert!(made.status.is_success(), "{}", made.text());
    }
    broker
}

#[tokio::test]
async fn every_path_says_its_methods_and_takes_no_others() {
    let broker = broker().await;
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    for (path, calls) in document["paths"].as_object().unwrap() {
        let path = path
            .split('/')
            .map(|part| match part {
                "{offset}" => "1",
                part if part.starts_with('{') => "a",
                part => part,
            })
            .collect::<Vec<_>>()
            .join("/");
        let mut methods: BTreeSet<String> =
            calls.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        let has_head = methods.contains("HEAD");
        methods.insert("OPTIONS".to_owned());
        let options = http::request(&broker.public, Method::OPTIONS, &path, &[], b"").await;
        assert_eq!((options.status, options.body.len()), (StatusCode::NO_CONTENT, 0), "{path}");
        let allow = |text: &str| text.split(", ").map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(allow(options.header("allow")), methods, "{path}");
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"] {
            if methods.contains(method) {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let refused = http::request(&broker.public, method, &path, &[], b"").await;
            assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            assert_eq!(allow(refused.header("allow")), methods, "{path}");
        }
        if has_head {
            let get = http::get(&broker.public, &path).await;
            let head = http::request(&broker.public, Method::HEAD, &path, &[], b"").await;
            assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
            for name in ["content-type", "cache-control", "tidings-cursor", "tidings-log", "etag"] {
                assert_eq!(head.header(name), get.header(name), "{path} {name}");
            }
            assert!(!head.header("content-length").is_empty(), "{path}");
        }
    }
}

#[tokio::test]
async fn requests_behind_one_another_are_answered_in_their_order() {
    let broker = broker().await;
    let host = format!("host: {}\r\n", broker.public);
    let publish = "POST /v1/topics/a/events HTTP/1.1\r\ncontent-type: text/plain\r\n";
    let text = format!(
        "GET /v1/events/1 HTTP/1.1\r\n{host}\r\n\
         {publish}{host}content-length: 3\r\n\r\ntwo\
         HEAD /v1/events/1 HTTP/1.1\r\n{host}\r\n\
         {publish}{host}transfer-encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n\
         GET /v1/none HTTP/1.1\r\n{host}\r\n\
         GET /v1/topics/a/last HTTP/1.1\r\n{host}connection: close\r\n\r\n"
    );
    let all = exchange(&broker.public, &text).await;
    let statuses: Vec<&str> = all.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "201", "200", "201", "404", "200"], "{all}");
    assert!(all.ends_with('}') && all.contains(r#""data":"three""#), "{all}");
}

#[tokio::test]
async fn a_body_that_is_announced_is_asked_for_or_refused_unread() {
    let broker = Broker::with(&["--set", "limits.message_bytes_max=1024"]);
    let request = |bytes: usize, path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: text/plain\r\n\
             content-length: {bytes}\r\nexpect: 100-continue\r\n\r\n",
            broker.public
        )
    };
    let mut stream = TcpStream::connect(&broker.public).await.unwrap();
    stream.write_all(request(5, "/v1/topics/a/events").as_bytes()).await.unwrap();
    assert_eq!(head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 201 "));
    for (bytes, path, status) in [
        (1025, "/v1/topics/a/events", "413"),
        (5, "/v1/topics/a..b/events", "400"),
        (5, "/v1/none", "404"),
        (5, "/v1/status", "405"),
    ] {
        let mut stream = TcpStream::connect(&broker.public).await.unwrap();
        stream.write_all(request(bytes, path).as_bytes()).await.unwrap();
        let head = head(&mut stream).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
    }
}

#[tokio::test]
async fn a_path_is_decoded_once_and_taken_as_it_is() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    socket.publish(json!({"topic": "a.b", "data": 1})).await;
    for (topic, status) in [
        ("a.b", 200),
        ("%61.b", 200),
        ("a%2Eb", 200),
        ("a%2eb", 200),
        ("%61%2E%62", 200),
        ("A.b", 404),
        ("a%2Fb", 400),
        ("a%252Eb", 400),
        ("a.%zz", 400),
        ("a.%", 400),
        ("a.%00", 400),
        ("a.%FF", 400),
        ("a.%C3%A4", 400),
        ("a+b", 400),
        ("a%20b", 400),
        ("%2E%2E", 400),
    ] {
        let answer = http::get(&broker.public, &format!("/v1/topics/{topic}/last")).await;
        assert_eq!(answer.status, status, "{topic}: {}", answer.text());
    }
    for path in [
        "/v1/topics/",
        "/v1/topics/a.b/last/",
        "/v1/topics/a.b//last",
        "//v1/topics/a.b/last",
        "/v1/status/",
        "/v1/subscriptions/",
        "/v1//status",
        "/V1/status",
        "/v1/./status",
        "/v1/topics/../status",
        "/v1/topics%2Fa.b%2Flast",
        "/%76%31/status",
    ] {
        let answer = http::get(&broker.public, path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {}", answer.text());
    }
    for (limit, status) in [
        ("1", 200),
        ("1000", 200),
        ("0", 400),
        ("1001", 400),
        ("-1", 400),
        ("%2B1", 400),
        ("1.0", 400),
        ("1e2", 400),
        ("", 400),
        ("%31", 200),
        ("1&limit=1", 400),
    ] {
        for path in [
            "/v1/topics/a.b/events",
            "/v1/topics",
            "/v1/subscriptions",
            "/v1/auth/keys",
            "/v1/auth/revocations",
        ] {
            let answer = http::get(&broker.public, &format!("{path}?limit={limit}")).await;
            assert_eq!(answer.status, status, "{path} {limit}: {}", answer.text());
        }
    }
}
