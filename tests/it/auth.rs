//! Tokens: who comes in, what each may do over every door, how a session ends with its token.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hyper::{Method, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::util::{
    Broker, binary,
    http::{self, Answer},
    raw,
    sse::Sse,
    ws::{Socket, offsets},
};

pub const SECRET: &str = "canary-secret-of-the-tests-that-nobody-may-print";

/// A broker that asks for tokens.
pub struct Guarded {
    pub broker: Broker,
    _secret: tempfile::NamedTempFile,
}

pub fn guarded(more: &[&str]) -> Guarded {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), format!("{SECRET}\n")).unwrap();
    let path = secret.path().to_str().unwrap();
    let mut args = vec!["--auth-jwt-hs256-secret-file", path];
    args.extend_from_slice(more);
    Guarded { broker: Broker::with(&args), _secret: secret }
}

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub fn signed(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(algorithm), claims, &key).unwrap()
}

/// A good token of this subject with these grants, for so many seconds.
pub fn token_for(subject: &str, grants: Value, seconds: u64) -> String {
    let claims = json!({"sub": subject, "exp": now_s() + seconds, "tidings": grants});
    signed(Algorithm::HS256, SECRET, &claims)
}

pub fn token(subject: &str, grants: Value) -> String {
    token_for(subject, grants, 3600)
}

pub fn admin() -> String {
    token("root", json!({"publish": [">"], "subscribe": [">"], "durable": ["*"], "admin": true}))
}

impl Guarded {
    /// A socket that brought this token with its upgrade.
    pub async fn open(&self, token: &str) -> Socket {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        Socket::try_open(&self.broker.public, "/v1/ws", &headers).await.unwrap()
    }

    pub async fn request(&self, token: &str, method: Method, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        http::request(&self.broker.public, method, path, &headers, body.as_bytes()).await
    }

    pub async fn get(&self, token: &str, path: &str) -> Answer {
        self.request(token, Method::GET, path, "").await
    }
}

/// Tokens that do not hold, each for its own reason.
fn bad_tokens() -> Vec<(&'static str, String)> {
    let exp = now_s() + 3600;
    let good = json!({"sub": "alice", "exp": exp, "tidings": {"publish": [">"]}});
    let hs = |claims: Value| signed(Algorithm::HS256, SECRET, &claims);
    let valid = hs(good.clone());
    let (head, rest) = valid.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    // {"alg":"none","typ":"JWT"}
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let mut flipped = signature.to_owned();
    let first = if flipped.starts_with('A') { "B" } else { "A" };
    flipped.replace_range(..1, first);
    vec![
        ("empty", String::new()),
        ("garbage", "garbage".to_owned()),
        ("of another secret", signed(Algorithm::HS256, "another secret, thirty-two bytes!", &good)),
        ("of another algorithm", signed(Algorithm::HS384, SECRET, &good)),
        ("of the algorithm none", format!("{none}.{payload}.")),
        ("of the algorithm none, signed", format!("{none}.{payload}.{signature}")),
        ("without a signature", format!("{head}.{payload}.")),
        ("with a wrong signature", format!("{head}.{payload}.{flipped}")),
        ("expired", hs(json!({"sub": "alice", "exp": now_s() - 120}))),
        ("not yet valid", hs(json!({"sub": "alice", "exp": exp, "nbf": now_s() + 600}))),
        ("without exp", hs(json!({"sub": "alice"}))),
        ("without sub", hs(json!({"exp": exp}))),
        ("with an empty sub", hs(json!({"sub": "", "exp": exp}))),
        ("with an exp of text", hs(json!({"sub": "alice", "exp": "never"}))),
        (
            "with a filter that is none",
            hs(json!({
                "sub": "alice", "exp": exp, "tidings": {"subscribe": ["a..b"]},
            })),
        ),
        (
            "with a durable grant that is none",
            hs(json!({
                "sub": "alice", "exp": exp, "tidings": {"durable": ["a*b"]},
            })),
        ),
        ("of 20 KiB", hs(json!({"sub": "alice", "exp": exp, "x": "y".repeat(20_000)}))),
    ]
}

#[tokio::test]
async fn s1_nothing_is_done_before_connect_and_without_it_the_socket_ends_with_4401() {
    let guarded = guarded(&["--set", "limits.connect_timeout=300ms"]);
    let mut root = guarded.open(&admin()).await;
    root.publish(json!({"topic": "a", "data": "secret"})).await;
    let started = Instant::now();
    let mut socket = Socket::open(&guarded.broker.public).await;
    for (name, body) in [
        ("publish", json!({"topic": "a"})),
        ("publish_batch", json!({"events": [{"topic": "a"}]})),
        ("subscribe", json!({"filters": ["a"], "after": 0})),
        ("subscribe", json!({"filters": ["a"], "durable": "d"})),
        ("ack", json!({"subscription": 1, "offset": 1})),
        ("nack", json!({"subscription": 1, "offsets": [1]})),
        ("unsubscribe", json!({"subscription": 1})),
        ("receipts", json!({"offset": 1})),
        ("refresh", json!({"token": admin()})),
    ] {
        let error = socket.refused(name, body).await;
        assert_eq!(error["code"], "unauthenticated", "{name}: {error}");
    }
    assert!(socket.so_far().await.is_empty());
    assert_eq!(socket.close_code().await, Some(4401));
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    // One that says nothing at all, and one that is plain.
    assert_eq!(Socket::open(&guarded.broker.public).await.close_code().await, Some(4401));
    let mut plain =
        Socket::try_open(&guarded.broker.public, "/v1/ws/a?after=0", &[]).await.unwrap();
    assert_eq!(plain.next().await, None, "not a word of the events");
    assert_eq!(plain.closed.map(|frame| u16::from(frame.code)), Some(4401));
    assert_eq!(root.publish(json!({"topic": "a"})).await, 2, "and nothing went in");
}

#[tokio::test]
async fn connect_with_a_token_lets_in_and_says_as_whom() {
    let guarded = guarded(&["--set", "limits.connect_timeout=2s"]);
    let grants = json!({"publish": ["a"], "subscribe": ["a"]});
    let mut socket = Socket::open(&guarded.broker.public).await;
    let body = json!({"token": token("alice", grants.clone()), "client": "test/1"});
    let connected = socket.call("connect", body).await["connected"].clone();
    assert_eq!(connected["subject"], "alice", "{connected}");
    assert!(connected["token_expires"].is_string() && connected["session"].is_string());
    let server = connected["server"].as_str().unwrap();
    assert!(server.starts_with("tidings/"), "{server}");
    assert_eq!(socket.publish(json!({"topic": "a"})).await, 1);
    // The upgrade's own token makes connect optional.
    let mut by_header = guarded.open(&token("bob", grants.clone())).await;
    assert_eq!(by_header.publish(json!({"topic": "a"})).await, 2);
    let connected = by_header.call("connect", json!({})).await["connected"].clone();
    assert_eq!((&connected["subject"], &connected["last"]), (&json!("bob"), &json!(2)));
    // The plain socket is subscribed as soon as it is let in.
    let mut plain =
        Socket::try_open(&guarded.broker.public, "/v1/ws/a?after=0", &[]).await.unwrap();
    plain.call("connect", json!({"token": token("carol", grants)})).await;
    let batch = plain.events().await;
    let events = batch["events"].as_array().unwrap();
    assert_eq!(events[0]["source"], "urn:tidings:subject:alice");
    assert_eq!(events[1]["source"], "urn:tidings:subject:bob");
}

#[tokio::test]
async fn s2_bad_tokens_open_no_door() {
    let guarded = guarded(&[]);
    let address = &guarded.broker.public;
    for (what, token) in bad_tokens() {
        let mut socket = Socket::open(address).await;
        let error = socket.refused("connect", json!({ "token": token })).await;
        assert_eq!(error["code"], "unauthenticated", "{what}: {error}");
        let error = socket.refused("publish", json!({"topic": "a"})).await;
        assert_eq!(error["code"], "unauthenticated", "{what}: {error}");

        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        for (method, path) in [
            (Method::GET, "/v1/status"),
            (Method::GET, "/v1/topics/a/events"),
            (Method::POST, "/v1/topics/a/events"),
            (Method::GET, "/v1/subscriptions"),
        ] {
            // A head of 20 KiB is too big for HTTP before it is too big for a token.
            let answer = http::try_request(address, method, path, &headers, b"x").await;
            let Ok(answer) = answer else { continue };
            let expected = if what == "of 20 KiB" { 431 } else { 401 };
            assert_eq!(answer.status.as_u16(), expected, "{what}: {}", answer.text());
            if expected == 401 {
                assert_eq!(answer.json()["code"], "unauthenticated", "{what}");
                assert_eq!(answer.header("www-authenticate"), "Bearer", "{what}");
                assert!(token.is_empty() || !answer.text().contains(&token), "{what}: repeated");
            }
        }
        let upgraded = Socket::try_open(address, "/v1/ws", &headers).await;
        if let Ok(mut socket) = upgraded {
            while let Some(message) = socket.next().await {
                assert_eq!(message["error"]["code"], "unauthenticated", "{what}: {message}");
            }
            let code = socket.closed.map(|frame| u16::from(frame.code));
            assert_eq!(code, Some(4401), "{what}");
        }
        let stream = Sse::try_open(address, "/v1/topics/a/events", &headers).await;
        assert!(stream.is_err() || !stream.unwrap().status.is_success(), "{what}");
    }
    for path in ["/v1/status", "/v1/topics/a/events", "/v1/events/1", "/v1/subscriptions/d"] {
        let answer = http::get(address, path).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} without any token");
        assert_eq!(answer.json()["code"], "unauthenticated");
    }
    let basic = [("authorization", "Basic YTpi")];
    let answer = http::request(address, Method::GET, "/v1/status", &basic, b"").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let can = http::get(address, "/v1/capabilities").await;
    assert_eq!((can.status, &can.json()["auth"]["required"]), (StatusCode::OK, &json!(true)));
    let last = guarded.get(&admin(), "/v1/status").await.json()["log"]["last"].clone();
    assert_eq!(last, 0, "nothing went in");
}

#[tokio::test]
async fn s4_a_token_in_the_address_is_refused_with_the_reason() {
    let guarded = guarded(&[]);
    let good = admin();
    for path in ["/v1/topics/a/events", "/v1/status"] {
        let answer = guarded.get(&good, &format!("{path}?token={good}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("token") && detail.contains("log"), "says why: {detail}");
        assert!(!detail.contains(&good), "and does not repeat it");
    }
    let path = format!("/v1/ws/a?token={good}");
    let request = raw::upgrade(&guarded.broker.public, &path, "");
    assert_eq!(raw::exchange(&guarded.broker.public, &request).await.1, 400);
}

#[tokio::test]
async fn s1_grants_are_checked_at_every_call_and_alike_over_both_doors() {
    let guarded = guarded(&[]);
    let root = admin();
    let mut admin_socket = guarded.open(&root).await;
    for topic in ["tasks.1", "tasks.1.x", "users.alice.n", "users.bob.n", "other"] {
        admin_socket.publish(json!({ "topic": topic })).await;
    }
    let alice = token(
        "alice",
        json!({
            "publish": ["tasks.*", "users.{sub}.>"],
            "subscribe": ["tasks.*", "users.{sub}.>"],
            "durable": ["{sub}-*", "shared"],
        }),
    );
    let mut socket = guarded.open(&alice).await;
    for (topic, may) in [
        ("tasks.1", true),
        ("tasks.1.x", false),
        ("tasks", false),
        ("users.alice.n", true),
        ("users.alice.n.m", true),
        ("users.alice", false),
        ("users.bob.n", false),
        ("users.Alice.n", false),
        ("other", false),
        ("$acks", false),
        ("$dead.alice-inbox", false),
    ] {
        let answer = socket.call("publish", json!({ "topic": topic })).await;
        assert_eq!(answer["published"].is_object(), may, "{topic}: {answer}");
        if !may {
            assert_eq!(answer["error"]["code"], "permission_denied", "{topic}: {answer}");
        }
        let path = format!("/v1/topics/{topic}/events");
        let over_http = guarded.request(&alice, Method::POST, &path, "1").await;
        let status = if may { StatusCode::CREATED } else { StatusCode::FORBIDDEN };
        assert_eq!(over_http.status, status, "{topic}: {}", over_http.text());
    }
    let mixed = json!({"events": [{"topic": "tasks.1"}, {"topic": "other"}]});
    assert_eq!(socket.refused("publish_batch", mixed).await["code"], "permission_denied");
    for (filter, may) in [
        ("tasks.1", true),
        ("tasks.*", true),
        ("tasks.>", false),
        ("*.1", false),
        (">", false),
        ("*", false),
        ("users.alice.>", true),
        ("users.alice.*", true),
        ("users.*.n", false),
        ("users.>", false),
        ("users.bob.>", false),
        ("other", false),
        ("$presence.tasks.1", true),
        ("$presence.other", false),
        ("$dead.alice-inbox", true),
        ("$dead.bob-inbox", false),
        ("$dead.>", false),
        ("$receipts.alice", true),
        ("$receipts.bob", false),
        ("$receipts.*", false),
        ("$audit", false),
        ("$auth", false),
        ("$acks", false),
        ("$subscriptions", false),
    ] {
        let answer = socket.call("subscribe", json!({"filters": [filter], "after": 0})).await;
        assert_eq!(answer["subscribed"].is_object(), may, "{filter}: {answer}");
        let encoded = filter.replace('>', "%3E");
        for path in [
            format!("/v1/topics/{encoded}/events"),
            format!("/v1/events?topic=tasks.1&topic={encoded}"),
            format!("/v1/topics?filter={encoded}"),
        ] {
            let read = guarded.get(&alice, &path).await;
            let status = if may { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(read.status, status, "{path}: {}", read.text());
        }
        let bearer = format!("Bearer {alice}");
        let headers = [("authorization", bearer.as_str())];
        let path = format!("/v1/topics/{encoded}/events");
        let stream = Sse::open(&guarded.broker.public, &path, &headers).await;
        assert_eq!(stream.status.is_success(), may, "{filter} as SSE");
        let path = format!("/v1/ws/{encoded}");
        let mut plain = Socket::try_open(&guarded.broker.public, &path, &headers).await.unwrap();
        let first = plain.next().await;
        let denied = first.as_ref().is_none_or(|message| message["error"].is_object());
        assert_eq!(denied, !may, "{filter} as a plain socket: {first:?}");
    }
}

#[tokio::test]
async fn s1_nobody_publishes_in_the_name_of_another_subject() {
    let guarded = guarded(&[]);
    let named =
        |subject: &str| json!({"topic": "a", "source": format!("urn:tidings:subject:{subject}")});
    let alice = token("alice", json!({"publish": ["a"], "subscribe": ["a"]}));
    let mut socket = guarded.open(&alice).await;
    for subject in ["bob", "alice2", "", "anonymous"] {
        let refused = socket.refused("publish", named(subject)).await;
        assert_eq!(refused["code"], "permission_denied", "{refused}");
        assert!(refused["message"].as_str().unwrap().starts_with("source: "), "{refused}");
        let later = json!({"topic": "a", "deliver_at": "2999-01-01T00:00:00Z", "source": named(subject)["source"]});
        assert_eq!(socket.refused("publish", later).await["code"], "permission_denied");
        let event = named(subject).to_string();
        let answer = guarded.request(&alice, Method::POST, "/v1/events", &event).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
    }
    for source in ["URN:Tidings:subject:bob", " urn:tidings:SUBJECT:bob"] {
        let refused = socket.refused("publish", json!({"topic": "a", "source": source})).await;
        assert_eq!(refused["code"], "permission_denied", "{refused}");
    }
    socket.publish(named("alice")).await;
    socket.publish(json!({"topic": "a", "source": "urn:sensor:7"})).await;
    guarded.open(&admin()).await.publish(named("bob")).await;
    socket.subscribe(json!({"filters": ["a"], "after": 0})).await;
    let sources: Vec<_> = socket.take(3).await.iter().map(|it| it["source"].clone()).collect();
    assert_eq!(sources, ["urn:tidings:subject:alice", "urn:sensor:7", "urn:tidings:subject:bob"]);
}

#[tokio::test]
async fn s8_nobody_learns_what_is_there_from_what_is_refused() {
    let guarded = guarded(&[]);
    let mut root = guarded.open(&admin()).await;
    let theirs = root.publish(json!({"topic": "theirs", "data": "secret"})).await;
    let mine = root.publish(json!({"topic": "mine"})).await;
    let alice = token("alice", json!({"publish": ["mine"], "subscribe": ["mine"]}));
    let mut socket = guarded.open(&alice).await;
    let own = socket.publish(json!({"topic": "mine"})).await;
    assert_eq!(guarded.get(&alice, &format!("/v1/events/{mine}")).await.status, StatusCode::OK);
    let shape = |answer: &Answer, offset: u64| {
        (answer.status, answer.text().replace(&offset.to_string(), "N"))
    };
    let nowhere = 777;
    for path in ["", "/receipts"] {
        let hidden = guarded.get(&alice, &format!("/v1/events/{theirs}{path}")).await;
        let missing = guarded.get(&alice, &format!("/v1/events/{nowhere}{path}")).await;
        assert_eq!(hidden.status, StatusCode::NOT_FOUND);
        assert_eq!(shape(&hidden, theirs), shape(&missing, nowhere));
    }
    // Receipts are the publisher's and the admin's, also of what one may read.
    for (offset, ok) in [(own, true), (mine, false), (theirs, false)] {
        let answer = guarded.get(&alice, &format!("/v1/events/{offset}/receipts")).await;
        assert_eq!(answer.status.is_success(), ok, "{offset}: {}", answer.text());
        let answer = socket.call("receipts", json!({ "offset": offset })).await;
        assert_eq!(answer["receipts"].is_object(), ok, "{offset}: {answer}");
        let answer = guarded.get(&admin(), &format!("/v1/events/{offset}/receipts")).await;
        assert_eq!(answer.status, StatusCode::OK, "the admin: {}", answer.text());
    }
    // Ids are known by subject: bob's is not alice's.
    let bob = token("bob", json!({"publish": ["mine"]}));
    let event = json!({"topic": "mine", "id": "same", "data": 1});
    let first = socket.publish(event.clone()).await;
    let mut bobs = guarded.open(&bob).await;
    assert!(bobs.publish(event.clone()).await > first, "another subject, another event");
    assert_eq!(socket.call("publish", event).await["published"]["duplicate"], true);
    let names = guarded.get(&alice, "/v1/topics?filter=mine").await.text();
    assert!(!names.contains("theirs"), "{names}");
}

#[tokio::test]
async fn s1_a_durable_needs_its_grant_and_todays_grants_for_its_filters() {
    let guarded = guarded(&[]);
    let mut root = guarded.open(&admin()).await;
    root.publish(json!({"topic": "a", "data": 1})).await;
    let durables = json!({"durable": ["{sub}-*", "shared"]});
    let with = |subscribe: Value| {
        let mut grants = durables.clone();
        grants["subscribe"] = subscribe;
        grants
    };
    let alice = token("alice", with(json!(["a"])));
    let mut socket = guarded.open(&alice).await;
    let options =
        |name: &str, filter: &str| json!({"durable": name, "filters": [filter], "start": "first"});
    for (name, filter, may) in [
        ("alice-inbox", "a", true),
        ("shared", "a", true),
        ("bob-inbox", "a", false),
        ("alice", "a", false),
        ("sharedx", "a", false),
        ("alice-other", "b", false),
    ] {
        let path = format!("/v1/subscriptions/{name}");
        let body = json!({"filters": [filter], "start": "first"}).to_string();
        let put = guarded.request(&alice, Method::PUT, &path, &body).await;
        let status = if may { StatusCode::CREATED } else { StatusCode::FORBIDDEN };
        assert_eq!(put.status, status, "{name} {filter}: {}", put.text());
        let answer = socket.call("subscribe", options(name, filter)).await;
        assert_eq!(answer["subscribed"].is_object(), may, "{name} {filter}: {answer}");
        if !may {
            assert_eq!(answer["error"]["code"], "permission_denied", "{answer}");
        }
    }
    assert_eq!(socket.take(1).await[0]["data"], 1);
    root.subscribe(options("bob-inbox", "a")).await;
    for (method, path, body) in [
        (Method::GET, "/v1/subscriptions/bob-inbox", ""),
        (Method::DELETE, "/v1/subscriptions/bob-inbox", ""),
        (Method::POST, "/v1/subscriptions/bob-inbox/fetch", "{}"),
        (Method::POST, "/v1/subscriptions/bob-inbox/ack", "{\"offset\":1}"),
        (Method::POST, "/v1/subscriptions/bob-inbox/nack", "{\"offsets\":[1]}"),
        (Method::GET, "/v1/subscriptions/bob-inbox/dead", ""),
        (Method::POST, "/v1/subscriptions/bob-inbox/redrive", "{}"),
        (Method::GET, "/v1/subscriptions/bob-inbox/events", ""),
    ] {
        let answer = guarded.request(&alice, method, path, body).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}: {}", answer.text());
        let missing = path.replace("bob-inbox", "bob-nothing");
        let other = guarded.get(&alice, &missing).await;
        assert!(other.status == StatusCode::FORBIDDEN || other.status == 405, "{missing}");
    }
    let list = guarded.get(&alice, "/v1/subscriptions").await.json();
    let names: Vec<_> =
        list["subscriptions"].as_array().unwrap().iter().map(|durable| &durable["name"]).collect();
    assert_eq!(names, ["alice-inbox", "shared"], "those they may use");

    // Rights as they are today, not as they were when it was made.
    let narrowed = token("alice", with(json!(["c"])));
    let mut later = guarded.open(&narrowed).await;
    let error = later.refused("subscribe", options("shared", "a")).await;
    assert_eq!(error["code"], "permission_denied", "attach: {error}");
    let path = "/v1/subscriptions/shared";
    let fetch = guarded.request(&narrowed, Method::POST, &format!("{path}/fetch"), "{}").await;
    assert_eq!(fetch.status, StatusCode::FORBIDDEN, "fetch: {}", fetch.text());
    let stream = guarded.get(&narrowed, &format!("{path}/events")).await;
    assert_eq!(stream.status, StatusCode::FORBIDDEN, "stream: {}", stream.text());
    for (call, body) in [("ack", "{\"offset\":1}"), ("nack", "{\"offsets\":[1]}")] {
        let answer =
            guarded.request(&narrowed, Method::POST, &format!("{path}/{call}"), body).await;
        assert_eq!(answer.status, StatusCode::OK, "{call} needs the durable grant alone");
    }
}

#[tokio::test]
async fn s1_a_subject_is_one_token_and_brings_no_wildcard() {
    let guarded = guarded(&[]);
    let grants = json!({"publish": ["u.{sub}"], "subscribe": ["u.{sub}.>"], "durable": ["{sub}"]});
    for (subject, topic, refused) in [
        ("a.b", "u.a=2Eb", "u.a.b"),
        ("*", "u.=2A", "u.x"),
        (">", "u.=3E", "u.x"),
        ("é", "u.=C3=A9", "u.x"),
        ("a=2Eb", "u.a=3D2Eb", "u.a=2Eb"),
        ("{sub}", "u.=7Bsub=7D", "u.x"),
    ] {
        let mut socket = guarded.open(&token(subject, grants.clone())).await;
        socket.publish(json!({ "topic": topic })).await;
        let error = socket.refused("publish", json!({ "topic": refused })).await;
        assert_eq!(error["code"], "permission_denied", "{subject}: {error}");
        for filter in ["u.>", "u.*.x", "u.x.y"] {
            let error = socket.refused("subscribe", json!({"filters": [filter]})).await;
            assert_eq!(error["code"], "permission_denied", "{subject} {filter}: {error}");
        }
        socket.subscribe(json!({"filters": [format!("{topic}.>")]})).await;
    }
}

#[tokio::test]
async fn s3_a_refresh_changes_the_rights_and_not_the_subject() {
    let guarded = guarded(&[]);
    let a = token("alice", json!({"publish": ["a"], "subscribe": ["a"]}));
    let mut socket = guarded.open(&a).await;
    socket.publish(json!({"topic": "a"})).await;
    assert_eq!(socket.refused("publish", json!({"topic": "b"})).await["code"], "permission_denied");
    let b = token_for("alice", json!({"publish": ["b"]}), 7200);
    let answer = socket.call("refresh", json!({ "token": b })).await;
    let expires: jiff::Timestamp =
        answer["refreshed"]["token_expires"].as_str().unwrap().parse().unwrap();
    let left = u64::try_from(expires.as_second()).unwrap() - now_s();
    assert!((7100..=7200).contains(&left), "{answer}");
    socket.publish(json!({"topic": "b"})).await;
    assert_eq!(socket.refused("publish", json!({"topic": "a"})).await["code"], "permission_denied");
    let bobs = token("bob", json!({"publish": [">"]}));
    for (what, token, code) in [
        ("another subject", bobs, "permission_denied"),
        ("garbage", "x".to_owned(), "unauthenticated"),
        ("expired", token_expired(), "unauthenticated"),
    ] {
        let error = socket.refused("refresh", json!({ "token": token })).await;
        assert_eq!(error["code"], code, "{what}: {error}");
        socket.publish(json!({"topic": "b"})).await;
        let error = socket.refused("publish", json!({"topic": "c"})).await;
        assert_eq!(error["code"], "permission_denied", "{what} widened nothing");
    }
}

fn token_expired() -> String {
    let claims = json!({"sub": "alice", "exp": now_s() - 120, "tidings": {"publish": [">"]}});
    signed(Algorithm::HS256, SECRET, &claims)
}

#[tokio::test]
async fn s3_a_session_ends_with_its_token_on_every_door() {
    const SECONDS: u64 = 3;
    let guarded = guarded(&[]);
    let grants = json!({"publish": ["a"], "subscribe": ["a"]});
    let short = token_for("alice", grants.clone(), SECONDS);
    let ends = now_s() + SECONDS;
    let mut ending = guarded.open(&short).await;
    let mut refreshed = guarded.open(&short).await;
    let bearer = format!("Bearer {short}");
    let headers = [("authorization", bearer.as_str())];
    let mut stream = Sse::open(&guarded.broker.public, "/v1/topics/a/events", &headers).await;
    assert_eq!(stream.status, StatusCode::OK);
    let poll = tokio::spawn({
        let (address, bearer) = (guarded.broker.public.clone(), bearer.clone());
        async move {
            let headers = [("authorization", bearer.as_str())];
            let path = "/v1/topics/a/events?wait=30s";
            http::request(&address, Method::GET, path, &headers, b"").await
        }
    });
    ending.subscribe(json!({"filters": ["a"]})).await;
    for socket in [&mut ending, &mut refreshed] {
        let in_ms = loop {
            let message = socket.push().await;
            if message["token_expiring"].is_object() {
                break message["token_expiring"]["in_ms"].as_u64().unwrap();
            }
        };
        assert!(in_ms <= SECONDS * 1000, "{in_ms}");
    }
    let longer = token("alice", grants);
    let answer = refreshed.call("refresh", json!({ "token": longer })).await;
    assert!(answer["refreshed"].is_object(), "{answer}");

    assert_eq!(ending.close_code().await, Some(4401));
    let after = now_s();
    assert!((ends - 1..=ends + 5).contains(&after), "at {after}, the token ended at {ends}");
    let in_ms = stream.named("tidings.token_expiring").await.json()["in_ms"].as_u64().unwrap();
    assert!(in_ms <= SECONDS * 1000, "{in_ms}");
    assert_eq!(stream.named("tidings.error").await.json()["code"], "unauthenticated");
    assert_eq!(stream.next().await, None, "it ends");
    assert!(now_s() <= ends + 5, "the stream outlived its token");
    assert!(poll.await.unwrap().json()["events"].as_array().unwrap().is_empty());
    assert!(now_s() <= ends + 5, "the poll outlived its token");
    refreshed.publish(json!({"topic": "a"})).await;
    assert!(refreshed.closed.is_none(), "a refresh in time keeps the session");
}

#[tokio::test]
async fn s9_neither_secret_nor_token_is_ever_written() {
    let dir = tempfile::tempdir().unwrap();
    let (log, secret) = (dir.path().join("log"), dir.path().join("secret"));
    std::fs::write(&secret, SECRET).unwrap();
    let args = ["--auth-jwt-hs256-secret-file", secret.to_str().unwrap()];
    let mut broker = Broker::at(dir.path(), &args);
    broker.kill();
    let mut command = broker.command();
    command.env("TIDINGS_LOG", "trace").stderr(std::fs::File::create(&log).unwrap());
    broker.run(command);
    let guarded = Guarded { broker, _secret: tempfile::NamedTempFile::new().unwrap() };
    let wish = r#"{"name":"k","grants":{}}"#;
    let made = guarded.request(&admin(), Method::POST, "/v1/auth/keys", wish).await.json();
    let key = made["key"].as_str().unwrap().to_owned();
    let mut tokens = vec![admin(), token_expired(), key];
    tokens.extend(bad_tokens().into_iter().map(|(_, token)| token).filter(|t| t.len() > 60));
    for token in &tokens {
        let mut socket = Socket::open(&guarded.broker.public).await;
        let answers = [
            socket.call("connect", json!({"token": token, "client": "x"})).await,
            socket.call("refresh", json!({ "token": token })).await,
            socket.call("publish", json!({"topic": "a"})).await,
        ];
        for answer in answers {
            assert!(!answer.to_string().contains(token.as_str()), "{answer}");
        }
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let address = &guarded.broker.public;
        let _ = http::try_request(address, Method::GET, "/v1/status", &headers, b"").await;
        if token.len() < 1000 {
            let path = format!("/v1/status?token={token}");
            let _ = http::try_request(address, Method::GET, &path, &headers, b"").await;
        }
    }
    // What stands in an address for a token, and what the log of events keeps of a key.
    let given = guarded.request(&admin(), Method::POST, "/v1/tickets", "").await.json();
    let ticket = given["ticket"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        let path = format!("/v1/topics/a/events?ticket={ticket}");
        let _ = Sse::try_open(&guarded.broker.public, &path, &[]).await;
        let path = format!("/v1/ws?ticket={ticket}");
        let _ = Socket::try_open(&guarded.broker.public, &path, &[]).await;
    }
    tokens.push(ticket);
    let mut texts = Vec::new();
    for topic in ["$auth", "$audit"] {
        let path = format!("/v1/topics/{topic}/events");
        texts.push(guarded.get(&admin(), &path).await.text());
    }
    assert!(texts[0].contains("auth.key_made"), "{}", texts[0]);
    texts.push(guarded.get(&admin(), "/v1/auth/keys").await.text());
    let metrics = http::get(&guarded.broker.admin, "/metrics").await.text();
    let mut broker = guarded.broker;
    broker.terminate();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.len() > 500, "the log was caught: {log}");
    assert!(!log.contains(SECRET) && !metrics.contains(SECRET));
    texts.extend([log, metrics]);
    for token in tokens {
        let signature = token.rsplit(['.', '_']).find(|part| part.len() > 20).unwrap();
        for text in &texts {
            assert!(!text.contains(&token) && !text.contains(signature), "a token was written");
        }
    }
}

/// Starts a broker that should not start; gives its exit code and what it said.
fn refused_to_start(args: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.arg("serve").arg("--data").arg(dir.path().join("data")).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it runs: {args:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("listening"), "{args:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn s11_an_open_broker_listens_on_loopback_only_unless_told_otherwise() {
    let loopback = "127.0.0.1:0";
    for (listen, admin) in [("0.0.0.0:0", loopback), (loopback, "0.0.0.0:0"), ("[::]:0", loopback)]
    {
        let (code, said) = refused_to_start(&["--listen", listen, "--admin", admin]);
        assert!(code.is_some_and(|code| code != 0), "{code:?}");
        assert!(said.contains("loopback") && said.contains("--insecure"), "what to do: {said}");
        assert!(said.len() < 1000 && !said.contains("panicked"), "a sentence: {said}");
    }
    let everywhere = |more: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Broker::at(dir.path(), more);
        broker.kill();
        broker.public = "0.0.0.0:0".to_owned();
        broker.restart();
        assert!(broker.public.starts_with("0.0.0.0:"), "{}", broker.public);
        broker.kill();
    };
    everywhere(&["--insecure"]);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), SECRET).unwrap();
    let secret = secret.path().to_str().unwrap();
    let behind = "server.tls_terminated_by_proxy=true";
    everywhere(&["--auth-jwt-hs256-secret-file", secret, "--set", behind]);
}

#[test]
fn s9_settings_that_are_wrong_stop_the_start_and_show_no_secret() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    let empty = empty.path().to_str().unwrap();
    let blank = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(blank.path(), "  \t \n").unwrap();
    let blank = blank.path().to_str().unwrap();
    let short = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(short.path(), format!("{}\n", "s".repeat(31))).unwrap();
    let short = short.path().to_str().unwrap();
    let secret = format!("auth.hs256_secrt={SECRET}");
    for (args, word) in [
        (&["--auth-jwt-hs256-secret-file", "/nonexistent/secret"][..], "/nonexistent/secret"),
        (&["--auth-jwt-hs256-secret-file", empty], "hs256_secret_file"),
        (&["--auth-jwt-hs256-secret-file", blank], "hs256_secret_file"),
        (&["--auth-jwt-hs256-secret-file", short], "31 bytes, at least 32"),
        (&["--set", "auth.hs256_secret=too short a secret"], "auth.hs256_secret: "),
        (&["--set", "limits.ping_intervall=5s"], "limits.ping_interval"),
        (&["--set", "limits.ping_interval=soon"], "limits.ping_interval"),
        (&["--set", &secret], "auth.hs256_secret"),
        (&["--allow-origin", "not an origin"], "origin"),
    ] {
        let (code, said) = refused_to_start(args);
        assert!(code.is_some_and(|code| code != 0), "{args:?}: {code:?}");
        assert!(said.contains(word), "{args:?}: {said}");
        assert!(!said.contains(SECRET) && !said.contains("panicked"), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn g15_a_session_of_a_token_changes_its_door_with_the_same_rights_and_cursor() {
    let guarded = guarded(&[]);
    let grants = json!({"publish": ["a"], "subscribe": ["a"], "durable": ["d"]});
    let alice = token("alice", grants);
    let mut socket = guarded.open(&alice).await;
    for n in 1..=4 {
        socket.publish(json!({"topic": "a", "data": n})).await;
    }
    socket.subscribe(json!({"filters": ["a"], "after": 0, "batch_max": 1})).await;
    let batch = socket.events().await;
    let cursor = batch["cursor"].as_u64().unwrap();
    let path = format!("/v1/topics/a/events?after={cursor}");
    let read = guarded.get(&alice, &path).await.json();
    assert_eq!(offsets(read["events"].as_array().unwrap()), [2, 3, 4]);
    let bearer = format!("Bearer {alice}");
    let headers = [("authorization", bearer.as_str())];
    let mut stream = Sse::open(&guarded.broker.public, &path, &headers).await;
    assert_eq!(stream.event().await.unwrap().cursor(), 2);
}

#[tokio::test]
async fn s1_presence_follows_the_topic_and_names_the_subject() {
    let guarded = guarded(&[]);
    let alice =
        token("alice", json!({"publish": [">"], "subscribe": ["tasks.*", "users.{sub}.>"]}));
    let mut socket = guarded.open(&alice).await;
    for (topic, may) in
        [("tasks.1", true), ("users.alice.n", true), ("users.bob.n", false), ("tasks.1.x", false)]
    {
        let options = json!({"filters": [topic], "presence": {"data": 1}});
        let answer = socket.call("subscribe", options).await;
        assert_eq!(answer["subscribed"].is_object(), may, "{topic}: {answer}");
        let asked = socket.call("presence", json!({ "topic": topic })).await;
        assert_eq!(asked["presence"].is_object(), may, "{topic}: {asked}");
        let over_http = guarded.get(&alice, &format!("/v1/presence/{topic}")).await;
        let status = if may { StatusCode::OK } else { StatusCode::FORBIDDEN };
        assert_eq!(over_http.status, status, "{topic}: {}", over_http.text());
        if may {
            assert_eq!(over_http.json()["members"][0]["subject"], "alice");
        } else {
            assert_eq!(asked["error"]["code"], "permission_denied", "{asked}");
        }
    }
    for (filter, may) in [
        ("$presence.tasks.1", true),
        ("$presence.tasks.*", true),
        ("$presence.tasks.>", false),
        ("$presence.users.bob.n", false),
        ("$presence.>", false),
        ("$presence", false),
    ] {
        let answer = socket.call("subscribe", json!({"filters": [filter]})).await;
        assert_eq!(answer["subscribed"].is_object(), may, "{filter}: {answer}");
    }
    // A join is read by whoever may subscribe to its topic, and by nobody else.
    let bob = token("bob", json!({"subscribe": ["users.bob.>"]}));
    assert_eq!(guarded.get(&alice, "/v1/events/1").await.json()["type"], "presence.joined");
    assert_eq!(guarded.get(&bob, "/v1/events/1").await.status, StatusCode::NOT_FOUND);
    let mut root = guarded.open(&admin()).await;
    root.subscribe(json!({"filters": ["$presence.>"]})).await;
    for socket in [&mut root, &mut socket] {
        let refused = socket.refused("publish", json!({"topic": "$presence.tasks.1"})).await;
        assert_eq!(refused["code"], "permission_denied", "{refused}");
    }
    // With the same data, but somebody else: alice is not taken over.
    drop(socket);
    let mut other = guarded.open(&admin()).await;
    other.subscribe(json!({"filters": ["tasks.1"], "presence": {"data": 1}})).await;
    let listed = guarded.get(&alice, "/v1/presence/tasks.1").await.json();
    let subjects: Vec<&Value> =
        listed["members"].as_array().unwrap().iter().map(|member| &member["subject"]).collect();
    assert_eq!(subjects, ["alice", "root"]);
    let mut nobody = Socket::open(&guarded.broker.public).await;
    let refused = nobody.refused("presence", json!({"topic": "tasks.1"})).await;
    assert_eq!(refused["code"], "unauthenticated", "{refused}");
    assert_eq!(
        http::get(&guarded.broker.public, "/v1/presence/tasks.1").await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn s1_retention_and_erasure_are_for_the_admin() {
    let guarded = guarded(&[]);
    let user = token("alice", json!({"publish": [">"], "subscribe": [">"], "durable": ["*"]}));
    let calls = [
        (Method::GET, "/v1/retention"),
        (Method::GET, "/v1/retention/%3E"),
        (Method::PUT, "/v1/retention/a"),
        (Method::DELETE, "/v1/retention/a"),
        (Method::DELETE, "/v1/topics/a"),
    ];
    for (method, path) in calls {
        let mut statuses = Vec::new();
        for token in [&user, &admin()] {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", &*bearer)];
            let body = br#"{"compact":true}"#;
            let answer =
                http::request(&guarded.broker.public, method.clone(), path, &headers, body).await;
            statuses.push(answer.status);
        }
        assert_eq!(statuses[0], StatusCode::FORBIDDEN, "{method} {path}");
        assert!(statuses[1].is_success(), "{method} {path}: {}", statuses[1]);
    }
}

#[tokio::test]
async fn a_subject_makes_so_many_durables_and_no_more() {
    let guarded = guarded(&["--set", "limits.durables_per_subject=2"]);
    let grants = json!({"subscribe": ["a"], "durable": ["*"]});
    let (alice, bob) = (token("alice", grants.clone()), token("bob", grants));
    let subscribe = async |token: &str, name: &str| {
        let mut socket = guarded.open(token).await;
        socket.call("subscribe", json!({"filters": ["a"], "durable": name})).await
    };
    for name in ["a1", "a2"] {
        assert!(subscribe(&alice, name).await["subscribed"].is_object());
    }
    let refused = subscribe(&alice, "a3").await;
    assert_eq!(refused["error"]["code"], "too_large", "{refused}");
    let said = refused["error"]["message"].as_str().unwrap();
    assert!(said.contains("limits.durables_per_subject"), "{said}");
    // What is there is there, somebody else has a count of his own, and one that is gone makes room.
    assert!(subscribe(&alice, "a1").await["subscribed"].is_object());
    assert!(subscribe(&bob, "b1").await["subscribed"].is_object());
    let bearer = format!("Bearer {alice}");
    let headers = [("authorization", bearer.as_str())];
    let path = "/v1/subscriptions/a2";
    let gone = http::request(&guarded.broker.public, Method::DELETE, path, &headers, b"").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT, "{}", gone.text());
    assert!(subscribe(&alice, "a3").await["subscribed"].is_object());
}
