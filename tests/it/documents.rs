//! The documents of the doors: served as they are, and true of what the broker answers.
//!
//! - Answers are held to their schemas more strictly than a client would: an attribute that no schema names is a breach.

use std::time::{SystemTime, UNIX_EPOCH};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tidings_proto::{
    Timestamp,
    documents::{ASYNCAPI, OPENAPI},
};

use crate::{
    auth::{admin, guarded},
    util::{
        Broker,
        http::{self, Answer},
        sse::Sse,
        ws::Socket,
    },
};

const CLOUDEVENT: &str = "application/cloudevents+json";
const CLOUDEVENTS: &str = "application/cloudevents-batch+json";

/// A document in which every object has the attributes that are named and no others.
fn strict(text: &str) -> Value {
    fn close(schema: &mut Value) {
        if schema["type"] == "object"
            && schema["properties"].is_object()
            && schema.get("additionalProperties").is_none()
        {
            schema["additionalProperties"] = json!(false);
        }
        match schema {
            Value::Object(members) => members.values_mut().for_each(close),
            Value::Array(items) => items.iter_mut().for_each(close),
            _ => {}
        }
    }
    let mut document: Value = serde_json::from_str(text).unwrap();
    for kind in ["schemas", "messages"] {
        if let Some(schemas) = document["components"].get_mut(kind) {
            schemas.as_object_mut().unwrap().values_mut().for_each(close);
        }
    }
    document
}

/// What is wrong with a value by a schema that refers to the components of a document.
fn errors(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut schema = schema.clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let shown = validator.iter_errors(value).map(|it| format!("{}: {it}", it.instance_path()));
    shown.collect()
}

/// What a reference leads to.
fn followed<'a>(document: &'a Value, mut value: &'a Value) -> &'a Value {
    while let Some(reference) = value["$ref"].as_str() {
        value = document.pointer(reference.trim_start_matches('#')).unwrap();
    }
    value
}

/// The path of the document that this is one of.
fn path_of<'a>(document: &'a Value, path: &str) -> &'a str {
    let path = path.split('?').next().unwrap();
    let mut fitting: Vec<&str> = Vec::new();
    for known in document["paths"].as_object().unwrap().keys() {
        let (ours, theirs) = (path.split('/'), known.split('/'));
        let is_long = ours.clone().count() == theirs.clone().count();
        if is_long && ours.zip(theirs).all(|(a, b)| a == b || b.starts_with('{')) {
            fitting.push(known);
        }
    }
    fitting.sort_by_key(|known| known.matches('{').count());
    fitting.first().copied().unwrap_or_else(|| panic!("{path} is not documented"))
}

/// A moment that an event may wait for.
fn in_a_minute() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = Timestamp::from_millis(u64::try_from(now.as_millis()).unwrap());
    now.plus_millis(60_000).to_string()
}

/// A broker whose answers are looked at.
struct Checked {
    broker: Broker,
    document: Value,
}

impl Checked {
    fn start() -> Checked {
        Checked { broker: Broker::start(), document: strict(OPENAPI) }
    }

    /// Sends a request; its answer must have this status and be as the document says.
    async fn call(
        &self,
        want: u16,
        (method, path): (Method, &str),
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Value {
        let asked = method.clone();
        let answer = http::request(&self.broker.public, asked, path, headers, body.as_ref()).await;
        let what = format!("{method} {path}: {} {}", answer.status, answer.text());
        assert_eq!(answer.status.as_u16(), want, "{what}");
        self.check(&method, path, &answer, &what)
    }

    fn check(&self, method: &Method, path: &str, answer: &Answer, what: &str) -> Value {
        let document = &self.document;
        let call = &document["paths"][path_of(document, path)][method.as_str().to_lowercase()];
        let said = followed(document, &call["responses"][answer.status.as_str()]);
        assert!(said.is_object(), "not documented: {what}");
        for (name, header) in said["headers"].as_object().into_iter().flatten() {
            let is_needed = followed(document, header)["required"] == true;
            assert!(!is_needed || answer.headers.contains_key(name.as_str()), "{name}: {what}");
        }
        let Some(content) = said["content"].as_object() else {
            assert!(answer.body.is_empty(), "a body that is not documented: {what}");
            return Value::Null;
        };
        let kind = answer.header("content-type");
        let kind = content.get(kind).unwrap_or_else(|| panic!("{kind} is not documented: {what}"));
        let value = answer.json();
        let errors = errors(document, &kind["schema"], &value);
        assert!(errors.is_empty(), "{errors:#?} {what}");
        value
    }

    async fn get(&self, want: u16, path: &str, accept: &str) -> Value {
        self.call(want, (Method::GET, path), &[("accept", accept)], "").await
    }

    /// Sends JSON.
    async fn send(&self, want: u16, method: Method, path: &str, body: Value) -> Value {
        let headers = [("content-type", "application/json")];
        self.call(want, (method, path), &headers, body.to_string()).await
    }

    async fn post(&self, want: u16, path: &str, body: Value) -> Value {
        self.send(want, Method::POST, path, body).await
    }
}

#[tokio::test]
async fn the_documents_are_served_to_everybody_as_they_are() {
    let guarded = guarded(&[]);
    let public = &guarded.broker.public;
    let can = http::get(public, "/v1/capabilities").await.json();
    for (name, document) in [("openapi", OPENAPI), ("asyncapi", ASYNCAPI)] {
        let path = can["documents"][name].as_str().unwrap();
        let answer = http::get(public, path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.body == document.as_bytes(), "{path} is not the file");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("cache-control"), "no-cache");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let known = [("if-none-match", answer.header("etag"))];
        let again = http::request(public, Method::GET, path, &known, b"").await;
        assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(again.header("etag"), answer.header("etag"));
        assert_eq!(again.header("cache-control"), "no-cache");
        let head = http::request(public, Method::HEAD, path, &[], b"").await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
        assert_eq!(head.header("content-length"), document.len().to_string());
        let post = http::request(public, Method::POST, path, &[], b"").await;
        assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(http::get(public, &format!("{path}?x=1")).await.status, 400);
    }
}

#[tokio::test]
async fn what_is_published_and_read_is_answered_as_documented() {
    let checked = Checked::start();
    let a = "/v1/topics/a/events";
    checked.post(201, a, json!({"x": 1})).await;
    let attributes = [
        ("content-type", "text/plain"),
        ("idempotency-key", "one"),
        ("tidings-key", "k"),
        ("tidings-priority", "high"),
        ("tidings-ttl-ms", "600000"),
        ("tidings-correlation", "c"),
        ("ce-myext", "x"),
    ];
    for (status, body) in [(201, "hi"), (200, "hi"), (409, "ho")] {
        checked.call(status, (Method::POST, a), &attributes, body).await;
    }
    let at = [("tidings-deliver-at", "2999-01-01T00:00:00Z"), ("ce-id", "later")];
    checked.call(400, (Method::POST, a), &at, "x").await;
    let structured = [("content-type", CLOUDEVENT)];
    checked
        .call(201, (Method::POST, a), &structured, r#"{"specversion":"1.0","data":1,"other":"x"}"#)
        .await;
    checked
        .call(
            201,
            (Method::POST, "/v1/events"),
            &structured,
            r#"{"specversion":"1.0","subject":"b"}"#,
        )
        .await;
    let batch = r#"[{"specversion":"1.0","data":1,"partitionkey":"k"},{"specversion":"1.0","data_base64":"AP8="}]"#;
    checked.call(201, (Method::POST, a), &[("content-type", CLOUDEVENTS)], batch).await;
    let events = "/v1/events";
    checked.post(201, events, json!({"topic": "b.c", "data": [1], "receipts": true})).await;
    checked.post(201, events, json!([{"topic": "b"}, {"topic": "c"}])).await;
    let waits = json!({"topic": "a", "id": "w", "deliver_at": in_a_minute()});
    let offset = checked.post(202, events, waits.clone()).await["scheduled"]["offset"].clone();
    checked.post(200, events, waits).await;
    for (status, offset) in
        [(204, offset.to_string()), (404, "1".to_owned()), (400, "x".to_owned())]
    {
        let path = format!("/v1/scheduled/{offset}");
        checked.call(status, (Method::DELETE, &path), &[], "").await;
    }
    checked.call(415, (Method::POST, events), &[("content-type", "text/plain")], "x").await;
    checked.post(403, events, json!({"topic": "$x"})).await;
    checked.post(400, events, json!({"topi": "x"})).await;
    checked.call(403, (Method::POST, a), &[("origin", "http://evil.example")], "x").await;
    for accept in ["application/json", CLOUDEVENTS] {
        checked.get(200, "/v1/topics/%3E/events", accept).await;
        let wish = "topic=a&topic=b.*&limit=2&types=message,x&header=other:x&max_data_bytes=0";
        checked.get(200, &format!("/v1/events?{wish}"), accept).await;
        checked.get(410, "/v1/topics/a/events?after=999999", accept).await;
        checked.get(200, "/v1/topics/none/events?wait=20ms", accept).await;
    }
    for accept in ["application/json", CLOUDEVENT] {
        checked.get(200, "/v1/events/1", accept).await;
        checked.get(200, "/v1/topics/a/last?key=k", accept).await;
    }
    let json = "application/json";
    for (status, path) in [
        (200, "/v1/topics/a/events?after=999999&on_gap=skip"),
        (400, "/v1/topics/a/events?afer=1"),
        (403, "/v1/topics/$acks/events"),
        (404, "/v1/events/999999"),
        (410, "/v1/events/1@00000000"),
        (404, "/v1/topics/none/last"),
        (200, "/v1/events/1/receipts"),
        (200, "/v1/events/1/receipts?limit=1&cursor=a"),
        (400, "/v1/events/1/receipts?limit=0"),
        (200, "/v1/topics?filter=b.*&limit=1"),
        (200, "/v1/presence/a"),
        (200, "/v1/status"),
        (200, "/v1/capabilities"),
        (200, "/v1/openapi.json"),
        (404, "/"),
        (426, "/v1/ws"),
        (426, "/v1/ws/a"),
    ] {
        checked.get(status, path, json).await;
    }
}

#[tokio::test]
async fn durables_and_rules_are_answered_as_documented() {
    let checked = Checked::start();
    for n in 0..3 {
        checked.post(201, "/v1/topics/a/events", json!(n)).await;
    }
    let path = |call: &str| format!("/v1/subscriptions/d{call}");
    let options = json!({"filters": ["a"], "start": "first", "max_deliveries": 1});
    for status in [201, 200] {
        checked.send(status, Method::PUT, &path(""), options.clone()).await;
    }
    checked.send(400, Method::PUT, &path(""), json!({"filters": []})).await;
    let elsewhere = json!({"filters": ["a"], "start": "1@00000000"});
    checked.send(410, Method::PUT, "/v1/subscriptions/e", elsewhere).await;
    let mirror = json!({"filters": ["a"], "mode": "mirror"});
    checked.send(201, Method::PUT, "/v1/subscriptions/m", mirror).await;
    let fetched = checked.post(200, &path("/fetch"), json!({"limit": 2, "wait": "1s"})).await;
    let offsets: Vec<&Value> =
        fetched["events"].as_array().unwrap().iter().map(|event| &event["offset"]).collect();
    checked.post(200, &path("/nack"), json!({"offsets": [offsets[0]], "reason": "r"})).await;
    let dead = async || {
        let page = checked.get(200, &path("/dead"), "application/json").await;
        page["dead"].as_array().unwrap().len() == 1
    };
    crate::util::eventually("the letter is written", dead).await;
    for (status, call, body) in [
        (200, "/redrive", json!({})),
        (200, "/fetch", json!({})),
        (200, "/ack", json!({"offsets": [offsets[1]]})),
        (400, "/ack", json!({"offset": 1, "offsets": [1]})),
        (410, "/ack", json!({"offset": 1, "log": "00000000"})),
        (410, "/nack", json!({"offsets": [1], "log": "00000000"})),
        (200, "/pause", json!({})),
        (200, "/resume", json!({})),
        (200, "/reset", json!({"to": "first"})),
        (400, "/reset", json!({"to": "last"})),
    ] {
        checked.post(status, &path(call), body).await;
    }
    checked.post(409, "/v1/subscriptions/m/redrive", json!({})).await;
    checked.post(404, "/v1/subscriptions/none/ack", json!({"offset": 1})).await;
    let json = "application/json";
    for (status, path) in [(200, ""), (200, "?limit=1"), (200, "/d"), (404, "/none")] {
        checked.get(status, &format!("/v1/subscriptions{path}"), json).await;
    }
    let rule = json!({"max_age": "30d", "max_bytes": 5, "max_events": 5, "compact": true});
    checked.send(200, Method::PUT, "/v1/retention/a", rule).await;
    checked.get(200, "/v1/retention/a", json).await;
    checked.get(200, "/v1/retention", json).await;
    for (status, path) in [
        (204, "/v1/retention/a"),
        (404, "/v1/retention/a"),
        (404, "/v1/auth/keys/none"),
        (200, "/v1/topics/a"),
        (204, "/v1/subscriptions/d"),
        (404, "/v1/subscriptions/d"),
    ] {
        checked.call(status, (Method::DELETE, path), &[], "").await;
    }
}

#[tokio::test]
async fn revocations_and_keys_are_answered_as_documented() {
    let checked = Checked::start();
    let revocations = "/v1/auth/revocations";
    checked.post(201, revocations, json!({"jti": "t", "until": "2999-01-01T00:00:00Z"})).await;
    checked.post(201, revocations, json!({"subject": "alice"})).await;
    for body in [json!({}), json!({"jti": null}), json!({"jti": "t", "subject": "alice"})] {
        checked.post(400, revocations, body).await;
    }
    let wish = json!({"name": "ci", "grants": {"publish": ["a"], "limits": {"sessions": 5}}});
    let made = checked.post(201, "/v1/auth/keys", wish).await;
    checked.post(400, "/v1/auth/keys", json!({"name": "ci"})).await;
    checked.post(400, "/v1/tickets", json!({"x": 1})).await;
    checked.post(403, "/v1/tickets", json!({})).await;
    for path in [revocations, "/v1/auth/keys"] {
        for limit in ["", "?limit=1", "?limit=2"] {
            checked.get(200, &format!("{path}{limit}"), "application/json").await;
        }
        checked.get(400, &format!("{path}?x=1"), "application/json").await;
    }
    let path = format!("/v1/auth/keys/{}", made["id"].as_str().unwrap());
    for status in [204, 404] {
        checked.call(status, (Method::DELETE, &path), &[], "").await;
    }
}

#[tokio::test]
async fn tickets_are_answered_as_documented() {
    let checked = Checked { broker: guarded(&[]).broker, document: strict(OPENAPI) };
    let bearer = format!("Bearer {}", admin());
    let headers = [("authorization", bearer.as_str())];
    let ticket = checked.call(201, (Method::POST, "/v1/tickets"), &headers, "").await;
    let stream = format!("/v1/topics/a/events?ticket={}", ticket["ticket"].as_str().unwrap());
    let opened = Sse::open(&checked.broker.public, &stream, &[]).await;
    assert_eq!(opened.status, StatusCode::OK);
    let accept = "text/event-stream";
    for path in [stream.as_str(), "/v1/ws?ticket=tkt_x"] {
        let status = if path.starts_with("/v1/ws") { 426 } else { 401 };
        checked.get(status, path, accept).await;
    }
}

#[tokio::test]
async fn a_stream_says_what_is_documented() {
    let checked = Checked::start();
    let events = checked.document["components"]["schemas"]["Event"].clone();
    checked.post(201, "/v1/topics/a/events", json!({"x": 1})).await;
    let path = "/v1/topics/a/events?after=0";
    let mut stream = Sse::open(&checked.broker.public, path, &[]).await;
    let said = &checked.document["components"]["responses"]["Events"];
    let kind = stream.headers["content-type"].to_str().unwrap();
    assert!(said["content"][kind].is_object(), "{kind}");
    let event = stream.event().await.unwrap().json();
    assert_eq!(errors(&checked.document, &events, &event), [""; 0]);
}

#[tokio::test]
async fn a_socket_says_what_is_documented() {
    let broker = Broker::start();
    let document = strict(ASYNCAPI);
    let messages = document["components"]["messages"].as_object().unwrap().keys();
    let sent = messages.filter(|name| !name.starts_with("request_"));
    let payload = |name: &String| json!({"$ref": format!("#/components/messages/{name}/payload")});
    let any = json!({"oneOf": sent.map(payload).collect::<Vec<_>>()});
    let mut socket = Socket::open(&broker.public).await;
    for (name, body, kind) in [
        ("connect", json!({"client": "x/1"}), "connected"),
        ("publish", json!({"topic": "a", "key": "k", "data": {"x": 1}}), "published"),
        ("publish", json!({"topic": "a", "deliver_at": in_a_minute()}), "scheduled"),
        ("publish_batch", json!({"events": [{"topic": "a"}, {"topic": "b"}]}), "published_batch"),
        ("subscribe", json!({"filters": ["a"], "after": 0}), "subscribed"),
        ("subscribe", json!({"filters": ["a"], "durable": "d", "start": "first"}), "subscribed"),
        ("subscribe", json!({"filters": ["a"], "presence": {"data": 1}}), "subscribed"),
        ("subscribe", json!({"filters": ["a"], "after": "5@00000000"}), "subscribed"),
        ("ack", json!({"subscription": 2, "offset": 1}), "acked"),
        ("nack", json!({"subscription": 2, "offsets": [3]}), "nacked"),
        ("presence", json!({"topic": "a"}), "presence"),
        ("receipts", json!({"offset": 1}), "receipts"),
        ("cancel", json!({"offset": 2}), "cancelled"),
        ("refresh", json!({"token": "t"}), "refreshed"),
        ("unsubscribe", json!({"subscription": 1}), "unsubscribed"),
        ("unsubscribe", json!({"subscription": 9}), "error"),
        ("ping", json!({}), "pong"),
    ] {
        let answer = socket.call(name, body).await;
        assert!(answer[kind].is_object(), "{name}: {answer}");
        assert_eq!(errors(&document, &any, &answer), [""; 0], "{answer}");
    }
    socket.send(&json!({"ping": {}})).await;
    let mut missing = vec!["events", "caught_up", "gap", "pong"];
    while !missing.is_empty() {
        let push = socket.push().await;
        assert_eq!(errors(&document, &any, &push), [""; 0], "{push}");
        missing.retain(|kind| push[*kind].is_null());
    }
}
