//! Limits: how often something may be done, who is told, who is cut off, and whom a proxy is believed to speak for.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tidings::client::{Client, Options};
use tidings_proto::{NewEvent, Topic, message::Publish};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    auth::{admin, guarded, token},
    util::{
        Broker, PATIENCE, eventually, http,
        raw::{self, PING, Raw, TEXT, frame},
        sse::Sse,
        ws::Socket,
    },
};

const LIMITED: StatusCode = StatusCode::TOO_MANY_REQUESTS;
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
/// What a browser says of a foreign page: with CORS its origin, without it the relation to us alone.
const FOREIGN: [(&str, &str); 3] = [
    ("origin", "http://evil.example"),
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-site", "same-site"),
];

async fn publish_with(broker: &Broker, headers: &[(&str, &str)]) -> http::Answer {
    http::request(&broker.public, Method::POST, "/v1/topics/a/events", headers, b"1").await
}

/// The next event on `$audit` of this type.
async fn told(socket: &mut Socket, kind: &str) -> Value {
    loop {
        for event in socket.take(1).await {
            if event["type"] == kind {
                return event["data"].clone();
            }
        }
    }
}

#[tokio::test]
async fn s7_publishes_over_the_rate_are_refused_and_told_when_to_come_again() {
    let broker = Broker::with(&["--set", "limits.per_session=publishes=5/10"]);
    let mut socket = Socket::open(&broker.public).await;
    let began = Instant::now();
    let mut waits = Vec::new();
    for n in 0..40 {
        let answer = socket.call("publish", json!({"topic": "a", "data": n})).await;
        if answer["error"].is_object() {
            assert_eq!(answer["error"]["code"], "rate_limited", "{answer}");
            assert_eq!(answer["error"]["retryable"], true);
            waits.push(answer["error"]["retry_after_ms"].as_u64().unwrap());
        }
    }
    let most = 11 + 5 * (began.elapsed().as_millis() as usize).div_ceil(1000);
    let allowed = 40 - waits.len();
    assert!((10..=most).contains(&allowed), "{allowed} of at most {most}");
    assert!(waits.iter().all(|ms| (1..=200).contains(ms)), "{waits:?}");
    tokio::time::sleep(Duration::from_millis(*waits.last().unwrap())).await;
    socket.publish(json!({"topic": "a"})).await;
    // What is no publish has no such limit, and neither has another session.
    socket.subscribe(json!({"filters": ["a"]})).await;
    let mut other = Socket::open(&broker.public).await;
    other.publish(json!({"topic": "a"})).await;
    let metrics = http::get(&broker.admin, "/metrics").await.text();
    let counted = "tidings_rate_limited_total{scope=\"session\",kind=\"publishes\"}";
    assert!(metrics.contains(&format!("{counted} {}", waits.len())), "{metrics}");
}

#[tokio::test]
async fn what_follows_a_publish_that_is_to_be_sent_again_does_not_go_before_it() {
    let bounds = ["--set", "limits.message_bytes_max=1024", "--set", "limits.per_session=bytes=1"];
    let broker = Broker::with(&bounds);
    let mut socket = Socket::open(&broker.public).await;
    let message = |id: u32, follows: bool, bytes: usize| {
        let data = "x".repeat(bytes);
        json!({"id": id, "follows": follows, "publish": {"topic": "a", "data": data}})
    };
    let batch = json!({"id": 4, "follows": true, "publish_batch": {"events": [{"topic": "a"}]}});
    // The second is too large for what is left; all others are not.
    let messages = [message(1, false, 900), message(2, true, 900), message(3, true, 1)];
    let later = [batch, message(5, true, 1), message(6, false, 1), message(7, true, 1)];
    socket.send_together(&[&messages[..], &later[..]].concat()).await;
    let mut refused = BTreeMap::new();
    for _ in 1..=7 {
        let answer = socket.next().await.unwrap();
        let id = answer["reply"].as_u64().unwrap();
        refused.insert(id, answer["error"]["code"].as_str().map(str::to_owned));
        if let 3..=5 = id {
            let text = answer["error"]["message"].as_str().unwrap();
            assert!(text.starts_with("it follows a publish that was refused: "), "{answer}");
            assert_eq!(text.matches("it follows").count(), 1, "{answer}");
            assert!(answer["error"]["retry_after_ms"].is_u64(), "{answer}");
        }
    }
    let limited = Some("rate_limited".to_owned());
    let expected = [None, limited.clone(), limited.clone(), limited.clone(), limited, None, None];
    assert_eq!(refused.into_values().collect::<Vec<_>>(), expected);
    // What is refused for good holds up nothing.
    let wrong = json!({"id": 8, "publish": {"topic": "$audit"}});
    socket.send_together(&[wrong, message(9, true, 1)]).await;
    assert_eq!(socket.next().await.unwrap()["error"]["code"], "permission_denied");
    assert!(socket.next().await.unwrap()["published"].is_object());
}

#[tokio::test]
async fn publishes_of_a_client_keep_their_order_where_some_are_refused_for_a_while() {
    let bounds = ["limits.message_bytes_max=1024", "limits.per_session=bytes=20000/1024"];
    let broker = Broker::with(&["--set", bounds[0], "--set", bounds[1]]);
    let client = Client::connect(Options::to(broker.url())).await.unwrap();
    let mut handles = Vec::new();
    for n in 0..60 {
        let mut event = NewEvent::on(Topic::parse("a").unwrap());
        event.key = Some(n.to_string());
        // Each large one is refused again and again, where a small one is not.
        event.data = Some("1".repeat(if n % 2 == 0 { 800 } else { 10 }).into());
        handles.push(client.publish(Publish::of(event)).await.unwrap());
    }
    let mut last = 0;
    for handle in handles {
        let offset = handle.await.unwrap().offset.get();
        assert!(offset > last, "{offset} behind {last}");
        last = offset;
    }
    let metrics = http::get(&broker.admin, "/metrics").await.text();
    let limited = "tidings_rate_limited_total{scope=\"session\",kind=\"bytes\"}";
    assert!(metrics.contains(limited), "nothing was refused: {metrics}");
}

#[tokio::test]
async fn s7_a_subject_is_limited_over_every_door_together_and_answered_429() {
    let guarded = guarded(&["--set", "limits.per_subject=publishes=1/3"]);
    let broker = &guarded.broker;
    let grants = json!({"publish": ["a"]});
    let (alice, bob) = (token("alice", grants.clone()), token("bob", grants));
    let mut socket = guarded.open(&alice).await;
    socket.publish(json!({"topic": "a"})).await;
    let bearer = format!("Bearer {alice}");
    let mut refused = None;
    for _ in 0..10 {
        let answer = publish_with(broker, &[("authorization", &bearer)]).await;
        if answer.status == LIMITED {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("nothing was refused");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.json()["code"], "rate_limited");
    assert_eq!(socket.refused("publish", json!({"topic": "a"})).await["code"], "rate_limited");
    let bearer = format!("Bearer {bob}");
    assert_eq!(publish_with(broker, &[("authorization", &bearer)]).await.status, 201);
}

#[tokio::test]
async fn s7_a_proxy_is_believed_only_where_that_is_configured() {
    let limit = ["--set", "limits.per_ip=requests=1/3"];
    let from = async |broker: &Broker, ip: &str| {
        let mut statuses = Vec::new();
        for _ in 0..6 {
            statuses.push(publish_with(broker, &[("x-forwarded-for", ip)]).await.status);
        }
        statuses.iter().filter(|status| **status == LIMITED).count()
    };
    let alone = Broker::with(&limit);
    assert!(from(&alone, "192.0.2.1").await > 0);
    assert!(from(&alone, "192.0.2.2").await > 3, "a client has made itself another");
    let proxied =
        Broker::with(&[&limit[..], &["--set", "server.trusted_proxies=127.0.0.0/8"]].concat());
    assert!(from(&proxied, "192.0.2.1").await > 0);
    assert!((1..=3).contains(&from(&proxied, "192.0.2.2, 127.0.0.9").await));
    assert!((1..=3).contains(&from(&proxied, "192.0.2.1, 2001:db8::1").await));
    assert!(
        from(&proxied, "192.0.2.77, 2001:db8::2").await > 3,
        "what stands left is its own word"
    );
}

#[tokio::test]
async fn s7_who_shows_no_token_is_limited_by_address_on_every_path() {
    let guarded = guarded(&["--set", "limits.per_ip=requests=1/3"]);
    let broker = &guarded.broker;
    for (method, path) in [
        (Method::GET, "/v1/subscriptions"),
        (Method::GET, "/v1/capabilities"),
        (Method::GET, "/v1/openapi.json"),
        (Method::GET, "/nowhere"),
        (Method::PATCH, "/v1/events"),
        (Method::OPTIONS, "/v1/events"),
        (Method::GET, "/v1/ws"),
    ] {
        let mut statuses = Vec::new();
        for _ in 0..6 {
            let answer = http::request(&broker.public, method.clone(), path, &[], b"").await;
            assert!(answer.status != LIMITED || answer.header("retry-after") == "1");
            statuses.push(answer.status);
        }
        assert!(statuses.contains(&LIMITED), "{method} {path}: {statuses:?}");
    }
    eventually("there is room for a handshake", async || {
        let opened = Socket::try_open(&broker.public, "/v1/ws", &[]).await;
        let Ok(mut socket) = opened else { return false };
        for _ in 0..6 {
            socket.send(&json!({"id": 1, "ping": {}})).await;
        }
        socket.close_code().await == Some(4429)
    })
    .await;
}

#[tokio::test]
async fn s7_a_token_bounds_publishes_and_sessions_of_its_subject() {
    let guarded = guarded(&[]);
    let limits = json!({"publish": ["a"], "limits": {"publish_per_second": 2, "sessions": 2}});
    let alice = token("alice", limits);
    let mut one = guarded.open(&alice).await;
    let mut two = guarded.open(&alice).await;
    // An upgrade that is answered is no session yet.
    for socket in [&mut one, &mut two] {
        assert!(socket.call("ping", json!({})).await["pong"].is_object());
    }
    let mut three = guarded.open(&alice).await;
    assert_eq!(three.close_code().await, Some(4429));
    let outcomes = [(); 3].map(|()| json!({"topic": "a"}));
    let mut refused = 0;
    for event in outcomes {
        refused += usize::from(one.call("publish", event).await["error"].is_object());
    }
    assert_eq!(refused, 1, "two a second");
    drop(one);
    eventually("there is a place again", async || {
        let mut again = guarded.open(&alice).await;
        again.try_call("ping", json!({})).await.is_some_and(|answer| answer["pong"].is_object())
    })
    .await;
    // Also one that comes by a refresh.
    let (free, alone) = (token("bob", json!({})), token("bob", json!({"limits": {"sessions": 1}})));
    let mut bobs = [guarded.open(&free).await, guarded.open(&free).await];
    let refreshed = bobs[0].call("refresh", json!({ "token": alone })).await;
    assert!(refreshed["refreshed"].is_object(), "{refreshed}");
    let refused = bobs[1].refused("refresh", json!({ "token": alone })).await;
    assert_eq!(refused["code"], "rate_limited", "{refused}");
}

#[tokio::test]
async fn s7_the_client_waits_as_it_is_told_and_loses_nothing() {
    const EVENTS: u64 = 40;
    let broker = Broker::with(&["--set", "limits.per_session=publishes=20/10"]);
    let client = Client::connect(Options::to(broker.url())).await.unwrap();
    let began = Instant::now();
    let mut handles = Vec::new();
    for n in 0..EVENTS {
        let mut event = NewEvent::on(Topic::parse("a").unwrap());
        event.data = Some(n.to_string().into());
        handles.push(client.publish(Publish::of(event)).await.unwrap());
    }
    for handle in handles {
        tokio::time::timeout(PATIENCE, handle).await.unwrap().unwrap();
    }
    assert!(began.elapsed() >= Duration::from_millis(1400), "{:?}", began.elapsed());
    let read = http::get(&broker.public, "/v1/topics/a/events?limit=100").await.json();
    let mut data: Vec<u64> =
        read["events"].as_array().unwrap().iter().map(|it| it["data"].as_u64().unwrap()).collect();
    data.sort_unstable();
    assert_eq!(data, (0..EVENTS).collect::<Vec<_>>());
}

#[tokio::test]
async fn s7_a_flood_of_pings_is_cut_off() {
    let broker = Broker::with(&["--set", "limits.per_session=controls=10/50"]);
    let mut honest = Socket::open(&broker.public).await;
    let mut raw = Raw::open(&broker.public).await;
    for _ in 0..200 {
        raw.write(&frame(PING, b"x")).await;
    }
    assert_eq!(raw.close_code().await, Some(4429));
    honest.publish(json!({"topic": "a"})).await;
}

#[tokio::test]
async fn s7_who_goes_on_beyond_reason_is_cut_off_and_operators_are_told() {
    let guarded = guarded(&["--set", "limits.per_session=publishes=1/1"]);
    let mut operator = guarded.open(&admin()).await;
    operator.subscribe(json!({"filters": ["$audit"]})).await;
    let bearer =
        format!("authorization: Bearer {}\r\n", token("mallory", json!({"publish": ["a"]})));
    let upgrade = raw::upgrade(&guarded.broker.public, "/v1/ws", &bearer);
    let (mut stream, status, _) = raw::exchange(&guarded.broker.public, &upgrade).await;
    assert_eq!(status, 101);
    let (mut reader, mut writer) = stream.split();
    let flood = async {
        let message = frame(TEXT, br#"{"publish":{"topic":"a"}}"#);
        let some = message.repeat(1000);
        for _ in 0..20 {
            if writer.write_all(&some).await.is_err() {
                break;
            }
        }
    };
    let reading = async {
        let mut last = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            last.extend_from_slice(&buffer[..read]);
            let surplus = last.len().saturating_sub(64);
            last.drain(..surplus);
        }
        last
    };
    let (last, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(reading, flood) })
        .await
        .expect("it goes on for ever");
    let close = [&[raw::CLOSE, 14][..], &4429_u16.to_be_bytes(), b"rate limited"].concat();
    assert!(last.ends_with(&close), "{last:?}");
    let told = told(&mut operator, "limits.exceeded").await;
    assert_eq!(told["limit"], "publishes", "{told}");
    assert_eq!(told["subjects"]["mallory"], 1, "{told}");
    assert_eq!(told["addresses"]["127.0.0.1"], 1, "{told}");
}

#[tokio::test]
async fn s7_tokens_that_do_not_hold_are_counted_and_those_that_do_are_let_in() {
    let guarded = guarded(&["--set", "limits.per_ip=failed_auth=1/5"]);
    let public = &guarded.broker.public;
    let mut operator = guarded.open(&admin()).await;
    operator.subscribe(json!({"filters": ["$audit"]})).await;
    let tried = async |token: &str| {
        let bearer = format!("Bearer {token}");
        http::request(public, Method::GET, "/v1/subscriptions", &[("authorization", &bearer)], b"")
            .await
    };
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(tried("canary-token-that-nobody-may-print").await.status);
    }
    assert!(statuses[..5].iter().all(|status| *status == StatusCode::UNAUTHORIZED), "{statuses:?}");
    assert!(statuses.contains(&LIMITED), "{statuses:?}");
    assert_eq!(tried(&token("alice", json!({}))).await.status, StatusCode::OK, "she did nothing");
    // Without a token nothing was tried.
    assert_eq!(http::get(public, "/v1/subscriptions").await.status, StatusCode::UNAUTHORIZED);
    let mut socket = Socket::open(public).await;
    let answer = socket.call("connect", json!({"token": "another-canary"})).await;
    assert_eq!(answer["error"]["code"], "rate_limited", "{answer}");
    assert_eq!(socket.close_code().await, Some(4429));
    let mut count = 0;
    while count < 11 {
        let told = told(&mut operator, "auth.failed").await;
        count += told["count"].as_u64().unwrap();
        assert!(told["addresses"]["127.0.0.1"].as_u64().unwrap() >= 1, "{told}");
        assert!(!told.to_string().contains("canary"), "{told}");
    }
    assert_eq!(count, 11);
}

#[tokio::test]
async fn s7_connections_that_come_too_fast_are_answered_429() {
    let broker = Broker::with(&["--set", "limits.per_ip=connects=1/5"]);
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(Socket::open(&broker.public).await);
    }
    let mut refused = None;
    for _ in 0..10 {
        let answer = http::get(&broker.public, "/v1/status").await;
        if answer.status == LIMITED {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("all were let in");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(refused.json()["code"], "rate_limited");
    assert_eq!(refused.header("x-content-type-options"), "nosniff");
    assert_eq!(http::get(&broker.admin, "/readyz").await.status, StatusCode::OK);
    sockets[0].publish(json!({"topic": "a"})).await;
}

#[tokio::test]
async fn s5_strangers_do_not_take_the_places_of_those_inside() {
    let broker = Broker::with(&[
        "--set",
        "limits.unauthenticated_max=3",
        "--set",
        "limits.header_timeout=2s",
    ]);
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(Socket::open(&broker.public).await);
        sockets.last_mut().unwrap().publish(json!({"topic": "a"})).await;
    }
    let mut strangers = Vec::new();
    for _ in 0..3 {
        strangers.push(TcpStream::connect(&broker.public).await.unwrap());
    }
    // All that has come is accepted in order.
    let answer = http::get(&broker.public, "/v1/status").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["code"], "unavailable");
    for socket in &mut sockets {
        socket.publish(json!({"topic": "a"})).await;
    }
    let room = async || http::get(&broker.public, "/v1/status").await.status == StatusCode::OK;
    eventually("strangers are cut, and there is room", room).await;
}

#[tokio::test]
async fn s5_an_address_has_a_cap_also_behind_a_proxy() {
    let broker = Broker::with(&[
        "--set",
        "limits.connections_per_ip=2",
        "--set",
        "server.trusted_proxies=127.0.0.1",
        "--set",
        "server.proxy_header=forwarded",
    ]);
    let open = async |ip: &str| {
        let forwarded = format!("for={ip}");
        Socket::try_open(&broker.public, "/v1/ws", &[("forwarded", &forwarded)]).await
    };
    let one = open("192.0.2.1").await.unwrap();
    let _two = open("192.0.2.1").await.unwrap();
    assert!(open("192.0.2.1").await.err().unwrap().contains("503"));
    let _other = open("192.0.2.2").await.unwrap();
    // A stream takes a place too, as long as it lasts.
    let stream = async |ip: &str| {
        let forwarded = format!("for={ip}");
        Sse::open(&broker.public, "/v1/topics/a/events", &[("forwarded", &forwarded)]).await
    };
    let streams = [stream("192.0.2.3").await, stream("192.0.2.3").await];
    assert_eq!(streams.each_ref().map(|stream| stream.status.as_u16()), [200, 200]);
    assert_eq!(stream("192.0.2.3").await.status, 503);
    drop(streams);
    eventually("they are gone", async || stream("192.0.2.3").await.status == 200).await;
    drop(one);
    eventually("there is room", async || open("192.0.2.1").await.is_ok()).await;
}

/// A broker with 30 KB of events, of which an address may read 4 KB at once and 1 KB a second again.
async fn with_a_past() -> Broker {
    let broker = Broker::with(&[
        "--set",
        "limits.message_bytes_max=4096",
        "--set",
        "limits.per_ip=replay_bytes=1000/4096",
    ]);
    let mut socket = Socket::open(&broker.public).await;
    for _ in 0..30 {
        socket.publish(json!({"topic": "a", "data": "x".repeat(1000)})).await;
    }
    broker
}

#[tokio::test]
async fn s7_who_reads_the_past_again_and_again_waits() {
    let mut broker = with_a_past().await;
    // Events that have just come are no past.
    let mut live = Socket::open(&broker.public).await;
    live.subscribe(json!({"filters": ["a"], "after": 0})).await;
    live.take(30).await;
    live.subscribe(json!({"filters": ["a"]})).await;
    broker.terminate();
    broker.restart();
    let mut socket = Socket::open(&broker.public).await;
    let past = json!({"filters": ["a"], "after": 0});
    socket.subscribe(past.clone()).await;
    socket.take(30).await;
    // Also from another socket, when this one says nothing more.
    let mut other = Socket::open(&broker.public).await;
    let first = other.refused("subscribe", past.clone()).await;
    assert_eq!(first["code"], "rate_limited", "{first}");
    // 30 KB, of which 4 KB were there.
    let wait_ms = first["retry_after_ms"].as_u64().unwrap();
    assert!((20_000..=40_000).contains(&wait_ms), "{wait_ms}");
    let read = http::get(&broker.public, "/v1/topics/a/events").await;
    assert_eq!(read.status, LIMITED, "the same over another door");
    for path in ["/v1/events/1", "/v1/topics/a/last"] {
        assert_eq!(http::get(&broker.public, path).await.status, LIMITED, "{path}");
    }
    // What comes goes on.
    let offset = socket.publish(json!({"topic": "a"})).await;
    let events = socket.take(1).await;
    assert_eq!(events[0]["offset"], offset);
}

#[tokio::test]
async fn s7_who_has_the_past_searched_for_nothing_waits_too() {
    let mut broker = with_a_past().await;
    let nothing = json!({"filters": ["a"], "after": 0, "types": ["never"]});
    for wanted in [
        nothing.clone(),
        json!({"filters": ["a"], "after": 0, "types": ["never"], "conflate_ms": 1}),
    ] {
        broker.terminate();
        broker.restart();
        let mut socket = Socket::open(&broker.public).await;
        socket.subscribe(wanted).await;
        while !socket.push().await["caught_up"].is_object() {}
        let refused = socket.refused("subscribe", nothing.clone()).await;
        assert_eq!(refused["code"], "rate_limited", "{refused}");
    }
    for query in ["types=never", "types=never&last_per_key=true"] {
        broker.terminate();
        broker.restart();
        let path = format!("/v1/topics/a/events?{query}");
        let read = http::get(&broker.public, &path).await;
        assert_eq!(read.json()["events"], json!([]));
        assert_eq!(http::get(&broker.public, &path).await.status, LIMITED, "{query}");
    }
    for options in [
        json!({"start": "first"}),
        json!({"start": "first", "conflate_ms": 1}),
        json!({"last_per_key": true}),
    ] {
        broker.terminate();
        broker.restart();
        let mut put = json!({"filters": ["a"], "types": ["never"]});
        put.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let (path, headers) = ("/v1/subscriptions/none", [("content-type", "application/json")]);
        let body = put.to_string();
        let made =
            http::request(&broker.public, Method::PUT, path, &headers, body.as_bytes()).await;
        assert_eq!(made.status, 201, "{}", made.text());
        // Its lag was counted, which is charged, too.
        broker.terminate();
        broker.restart();
        let fetch = async || {
            http::post_json(&broker.public, "/v1/subscriptions/none/fetch", &json!({})).await
        };
        assert_eq!(fetch().await.json()["events"], json!([]), "{put}");
        assert_eq!(fetch().await.status, LIMITED, "{put}");
        http::request(&broker.public, Method::DELETE, path, &[], b"").await;
    }
    broker.terminate();
    broker.restart();
    let mut stream =
        Sse::open(&broker.public, "/v1/topics/a/events?types=never&after=0", &[]).await;
    stream.named("tidings.caught_up").await;
    let refused = http::get(&broker.public, "/v1/topics/a/events").await;
    assert_eq!(refused.status, LIMITED, "{}", refused.text());
}

#[tokio::test]
async fn s7_what_a_durable_fetches_again_and_again_is_counted() {
    let mut broker = with_a_past().await;
    broker.terminate();
    broker.restart();
    let put = json!({"filters": ["a"], "start": "first"}).to_string();
    let headers = [("content-type", "application/json")];
    let path = "/v1/subscriptions/d";
    let made = http::request(&broker.public, Method::PUT, path, &headers, put.as_bytes()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let fetch = async || {
        let path = "/v1/subscriptions/d/fetch";
        http::post_json(&broker.public, path, &json!({"limit": 20})).await
    };
    assert_eq!(fetch().await.json()["events"].as_array().unwrap().len(), 20);
    let refused = fetch().await;
    assert_eq!(refused.status, LIMITED, "{}", refused.text());
    // 20 KB, of which 4 KB were there.
    let wait_s: u64 = refused.header("retry-after").parse().unwrap();
    assert!((12..=30).contains(&wait_s), "{wait_s}");
}

#[tokio::test]
async fn s7_what_is_published_together_is_allowed_together() {
    let broker = Broker::with(&["--set", "limits.per_session=publishes=40/10"]);
    let mut socket = Socket::open(&broker.public).await;
    let events = vec![json!({"topic": "a"}); 30];
    // More than there ever is at a time: it is paid off behind.
    let first = socket.call("publish_batch", json!({ "events": events })).await;
    assert_eq!(first["published_batch"]["results"].as_array().unwrap().len(), 30, "{first}");
    let mut waits = 0;
    loop {
        let answer = socket.call("publish_batch", json!({ "events": events })).await;
        let Some(wait_ms) = answer["error"]["retry_after_ms"].as_u64() else {
            assert!(answer["published_batch"].is_object(), "{answer}");
            break;
        };
        assert!((1..=750).contains(&wait_ms), "{answer}");
        waits += 1;
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
    assert!((1..=2).contains(&waits), "it waited as it was told, and {waits} times");
    let read = http::get(&broker.public, "/v1/topics/a/events").await.json();
    assert_eq!(read["events"].as_array().unwrap().len(), 60, "none was published by half");
}

#[tokio::test]
async fn s4_an_open_broker_on_loopback_has_no_name_that_a_page_could_have() {
    let status = async |broker: &Broker, host: &str| {
        let request = format!("GET /v1/topics HTTP/1.1\r\nhost: {host}\r\n\r\n");
        raw::exchange(&broker.public, &request).await.1
    };
    let broker = Broker::with(&["--allow-origin", "http://app.example:8080"]);
    let port = broker.public.split_once(':').unwrap().1;
    for host in ["localhost", "127.0.0.1", "[::1]", "a.localhost"] {
        assert_eq!(status(&broker, &format!("{host}:{port}")).await, 200, "{host}");
    }
    assert_eq!(status(&broker, "app.example:8080").await, 200, "it is allowed");
    // A page of that name may let it point to this machine, and is of the same origin then.
    for host in [format!("evil.example:{port}"), "localhost.evil.example".to_owned()] {
        assert_eq!(status(&broker, &host).await, 403, "{host}");
    }
    let evil = format!("host: {}", broker.public);
    let upgrade = raw::upgrade(&broker.public, "/v1/ws", "").replace(&evil, "host: evil.example");
    assert_eq!(raw::exchange(&broker.public, &upgrade).await.1, 403);
    // Where a token is needed its page has none.
    assert_eq!(status(&guarded(&[]).broker, "broker.example").await, 401);
}

#[tokio::test]
async fn s4_what_anybody_may_do_is_done_by_no_page_under_a_name_of_its_own() {
    for grant in ["auth.anonymous.subscribe=news.>", "auth.anonymous.publish=news.>"] {
        let guarded = guarded(&["--set", grant, "--allow-origin", "https://news.example"]);
        let address = &guarded.broker.public;
        // The page's own name, which it lets point to this machine: to its browser it is the page's own origin.
        let rebound = |request: String| {
            let own = format!("host: {address}");
            request.replace(&own, "host: evil.example\r\norigin: http://evil.example")
        };
        let publish = format!(
            "POST /v1/topics/news.a/events HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1\r\n\r\n1"
        );
        let read = format!("GET /v1/topics/news.a/events HTTP/1.1\r\nhost: {address}\r\n\r\n");
        for request in [publish, read, raw::upgrade(address, "/v1/ws", "")] {
            let (_, status, head) = raw::exchange(address, &rebound(request)).await;
            assert_eq!(status, 403, "{grant}: {head}");
        }
        // The name that it is called by through a proxy on this machine is told it, as its page's origin.
        let ours = raw::upgrade(address, "/v1/ws", "origin: https://news.example\r\n");
        let ours = ours.replace(&format!("host: {address}"), "host: news.example");
        assert_eq!(raw::exchange(address, &ours).await.1, 101, "{grant}");
    }
}

#[tokio::test]
async fn s4_a_foreign_page_takes_no_durable_over() {
    let broker = Broker::start();
    let mut worker = Socket::open(&broker.public).await;
    worker.subscribe(json!({"filters": ["a"], "durable": "d"})).await;
    let path = "/v1/subscriptions/d/events";
    for foreign in FOREIGN {
        assert_eq!(Sse::open(&broker.public, path, &[foreign]).await.status, 403, "{foreign:?}");
        // An image asks for no stream, and is given one all the same.
        let image = http::request(&broker.public, Method::GET, path, &[foreign], b"").await;
        assert_eq!(image.status, 403, "{foreign:?}");
    }
    let offset = worker.publish(json!({"topic": "a"})).await;
    assert_eq!(worker.take(1).await[0]["offset"], offset, "it is the worker's");
    let own = format!("http://{}", broker.public);
    for own in [("origin", own.as_str()), ("sec-fetch-site", "same-origin")] {
        assert_eq!(Sse::open(&broker.public, path, &[own]).await.status, 200, "{own:?}");
    }
}

#[tokio::test]
async fn s4_a_foreign_page_is_listed_nowhere() {
    let broker = Broker::with(&["--allow-origin", "https://app.example"]);
    let paths = ["/v1/topics/room/events?presence={}", "/v1/events?topic=room&pres%65nce={}"];
    for (path, foreign) in paths.into_iter().flat_map(|path| FOREIGN.map(|it| (path, it))) {
        let stream = Sse::open(&broker.public, path, &[foreign]).await;
        assert_eq!(stream.status, 403, "{path} {foreign:?}");
    }
    let last = async || http::get(&broker.public, "/v1/status").await.json()["log"]["last"].clone();
    assert_eq!(last().await, 0, "nothing was written");
    // It may read, though its browser keeps what it gets from it.
    let plain = Sse::open(&broker.public, "/v1/topics/room/events", &[FOREIGN[1]]).await;
    assert_eq!(plain.status, 200);
    let own = Sse::open(&broker.public, paths[0], &[("sec-fetch-site", "same-origin")]).await;
    let allowed = Sse::open(&broker.public, paths[1], &[("origin", "https://app.example")]).await;
    assert_eq!([own.status, allowed.status], [200, 200]);
    eventually("both are listed", async || last().await == 2).await;
}

#[tokio::test]
async fn s5_a_page_of_durables_is_bounded_in_bytes() {
    const COUNT: usize = 300;
    let broker = Broker::start();
    // As much as the options of one may have; what lies behind it is counted by topics.
    let filters: Vec<_> = (0..64).map(|n| format!("a.{n}.{}", "x".repeat(120))).collect();
    let body = json!({ "filters": filters }).to_string();
    assert!((8000..9000).contains(&body.len()), "{}", body.len());
    for n in 0..COUNT {
        let path = format!("/v1/subscriptions/d{n:03}");
        let put = http::request(&broker.public, Method::PUT, &path, &JSON, body.as_bytes()).await;
        assert_eq!(put.status, 201, "{}", put.text());
    }
    let (mut names, mut pages, mut more) = (Vec::new(), 0, String::new());
    loop {
        let path = format!("/v1/subscriptions?limit=1000{more}");
        let answer = http::get(&broker.public, &path).await;
        assert!(answer.body.len() < 1_200_000, "{} bytes", answer.body.len());
        let page = answer.json();
        let of_page = page["subscriptions"].as_array().unwrap();
        names.extend(of_page.iter().map(|it| it["name"].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(cursor) = page["cursor"].as_str() else { break };
        assert!(!of_page.is_empty() && answer.body.len() > 1_000_000, "a page is full");
        more = format!("&cursor={cursor}");
    }
    let all: Vec<_> = (0..COUNT).map(|n| format!("d{n:03}")).collect();
    assert_eq!((names, pages), (all, 3));
}

#[tokio::test]
async fn s5_a_page_of_durables_ends_where_much_was_read_for_it_and_that_is_charged() {
    let limits = "limits.per_subject=replay_bytes=1/1";
    let guarded = guarded(&["--set", limits, "--set", "log.tail_bytes=65536"]);
    let token = |name| token(name, json!({"durable": ["*"], "subscribe": ["a"]}));
    let (root, alice, bob) = (admin(), token("alice"), token("bob"));
    let mut socket = guarded.open(&root).await;
    let events = vec![json!({"topic": "a", "type": "b"}); 2500];
    for _ in 0..4 {
        let answer = socket.call("publish_batch", json!({ "events": events })).await;
        assert!(answer["published_batch"].is_object(), "{answer}");
    }
    for n in 0..15 {
        let path = format!("/v1/subscriptions/d{n:02}");
        let body = json!({"filters": ["a"], "types": ["b"], "start": "first"}).to_string();
        let put = guarded.request(&bob, Method::PUT, &path, &body).await;
        assert_eq!(put.status, 201, "{}", put.text());
    }
    let page = guarded.get(&root, "/v1/subscriptions").await.json();
    let of_page = page["subscriptions"].as_array().unwrap();
    assert!(of_page.len() == 10 && of_page.iter().all(|it| it["lag"] == 10_000), "{page}");
    assert_eq!(page["cursor"], "d09");
    for path in ["/v1/subscriptions", "/v1/subscriptions/d00"] {
        assert_eq!(guarded.get(&root, path).await.status, LIMITED, "{path}");
    }
    let rest = guarded.get(&alice, "/v1/subscriptions?cursor=d09").await.json();
    assert_eq!(rest["subscriptions"].as_array().unwrap().len(), 5, "{rest}");
    assert!(rest["cursor"].is_null(), "{rest}");
    assert_eq!(guarded.get(&alice, "/v1/subscriptions/d00").await.status, LIMITED);
}

#[tokio::test]
async fn s5_batches_and_answers_are_bounded_by_what_they_are_in_json() {
    const EVENTS: usize = 300;
    const DATA: usize = 4_000;
    let (memory, disk) = ("log.tail_bytes=25165824", "log.tail_bytes=65536");
    // In JSON they have six times as many bytes, and a third more.
    let (text, binary) = (("text/plain", 1, 6 * DATA), ("image/png", 255, DATA / 3 * 4));
    for (tail, (content_type, byte, grown)) in
        [(memory, text), (disk, text), (memory, binary), (disk, binary)]
    {
        let broker = Broker::with(&["--set", tail]);
        for _ in 0..EVENTS {
            let headers = [("content-type", content_type)];
            let data = [byte; DATA];
            let path = "/v1/topics/a/events";
            let answer = http::request(&broker.public, Method::POST, path, &headers, &data).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        let is_right = |bytes: usize, max: usize| {
            let whole = EVENTS * grown < max;
            // What fills it comes in steps of a batch.
            assert!(bytes < max + 50_000 + grown && (whole || bytes > max / 2), "{bytes} of {max}");
        };
        let read = http::get(&broker.public, "/v1/topics/a/events?limit=1000").await;
        is_right(read.body.len(), 1 << 20);
        let options = json!({"filters": ["a"], "start": "first", "max_in_flight": 1000});
        let put = http::put_json(&broker.public, "/v1/subscriptions/d", &options).await;
        assert_eq!(put.status, 201, "{}", put.text());
        let path = "/v1/subscriptions/d/fetch";
        let fetched = http::post_json(&broker.public, path, &json!({"limit": 1000})).await;
        is_right(fetched.body.len(), 1 << 20);
        let mut socket = Socket::open(&broker.public).await;
        socket.subscribe(json!({"filters": ["a"], "after": 0})).await;
        let mut taken = 0;
        while taken < EVENTS {
            let text = socket.next_text().await;
            let message: Value = serde_json::from_str(&text).unwrap();
            let events = message["events"]["events"].as_array().map_or(0, Vec::len);
            taken += events;
            assert!(text.len() < 35_000 + grown, "a batch of {} bytes", text.len());
            assert!(events < 2 || taken == EVENTS || text.len() > 16_000, "{} bytes", text.len());
        }
    }
}

#[tokio::test]
async fn s5_what_a_subscription_keeps_is_bounded_on_every_door() {
    let broker = Broker::start();
    let types: Vec<_> = (0..64).map(|n| format!("{n}.{}", "x".repeat(126))).collect();
    let mut socket = Socket::open(&broker.public).await;
    let error = socket.refused("subscribe", json!({"filters": ["a"], "types": types})).await;
    let is_named = |text: &Value| text.as_str().unwrap().starts_with("types: ");
    assert!(error["code"] == "invalid_argument" && is_named(&error["message"]), "{error}");
    let body = json!({"filters": ["a"], "types": types}).to_string();
    let put = "/v1/subscriptions/d";
    let read = format!("/v1/topics/a/events?types={}", types.join(","));
    for (method, path, body) in [(Method::PUT, put, body.as_str()), (Method::GET, &read, "")] {
        let answer = http::request(&broker.public, method, path, &JSON, body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(is_named(&answer.json()["detail"]), "{}", answer.text());
    }
}

#[tokio::test]
async fn s5_large_subscriptions_have_a_bound_together_and_small_ones_always_come_in() {
    let broker = Broker::with(&["--set", "limits.subscriptions_bytes_max=1048576"]);
    let filters = |n: u32| -> Vec<String> {
        (0..64).map(|filter| format!("f{n}-{filter}{}", ".x".repeat(13))).collect()
    };
    let mut socket = Socket::open(&broker.public).await;
    // Each counts 64 × 14 tokens: 0.29 MB.
    for n in 0..3 {
        socket.subscribe(json!({ "filters": filters(n) })).await;
    }
    let mut other = Socket::open(&broker.public).await;
    for options in [json!({}), json!({"durable": "d"})] {
        let mut options = options;
        options["filters"] = json!(filters(3));
        let error = other.refused("subscribe", options).await;
        assert_eq!((&error["code"], &error["retryable"]), (&json!("unavailable"), &json!(true)));
        assert!(error["message"].as_str().unwrap().contains("subscriptions_bytes_max"), "{error}");
    }
    let topics = filters(3).iter().map(|filter| format!("topic={filter}&")).collect::<String>();
    let read = format!("/v1/events?{topics}");
    assert_eq!(Sse::open(&broker.public, &read, &[]).await.status, 503);
    assert_eq!(http::get(&broker.public, &format!("{read}wait=1s")).await.status, 503);
    assert_eq!(http::get(&broker.public, &read).await.status, 200, "it waits for nothing");
    other.subscribe(json!({"filters": ["a.b.c", "d.>"]})).await;
    let offset = other.publish(json!({"topic": "a.b.c"})).await;
    assert_eq!(other.take(1).await[0]["offset"], offset);
    // What has ended makes room.
    socket.call("unsubscribe", json!({"subscription": 1})).await;
    other.subscribe(json!({ "filters": filters(3) })).await;
    drop(socket);
    eventually("the connection's have ended", async || {
        Sse::open(&broker.public, &read, &[]).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn s7_one_reader_has_its_share_of_the_requests_that_wait() {
    let guarded = guarded(&["--set", "limits.long_polls_per_subject=1"]);
    let grants = json!({"subscribe": ["a"], "publish": ["a"]});
    let [alice, bob] = ["alice", "bob"].map(|name| token(name, grants.clone()));
    let read = async |token: &str, query: &str| {
        let path = format!("/v1/topics/a/events?{query}");
        guarded.request(token, Method::GET, &path, "").await
    };
    let waits = async {
        loop {
            let answer = read(&alice, "wait=30s").await;
            // One of the others was there a moment before.
            if answer.status != LIMITED {
                return answer;
            }
        }
    };
    let publishes_when_it_waits = async {
        eventually("a second read of the same subject is refused", async || {
            let refused = read(&alice, "wait=1ms").await;
            refused.status == LIMITED && refused.headers.contains_key("retry-after")
        })
        .await;
        assert_eq!(read(&bob, "wait=1ms").await.status, StatusCode::OK, "others have their own");
        guarded.request(&bob, Method::POST, "/v1/topics/a/events", "1").await.status
    };
    let (answer, published) = tokio::join!(waits, publishes_when_it_waits);
    assert_eq!((answer.status, published), (StatusCode::OK, StatusCode::CREATED));
    assert_eq!(answer.json()["events"].as_array().unwrap().len(), 1);
    let again = async || read(&alice, "wait=1ms&after=1").await.status == StatusCode::OK;
    eventually("its place is free again", again).await;
}

#[tokio::test]
async fn s7_a_broker_for_strangers_lets_the_honest_be() {
    let broker = Broker::with(&["--set", "limits.profile=public"]);
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"filters": ["a"]})).await;
    for _ in 0..200 {
        socket.publish(json!({"topic": "a", "data": "x".repeat(1000)})).await;
    }
    assert_eq!(socket.take(200).await.len(), 200);
    for _ in 0..50 {
        assert_eq!(http::get(&broker.public, "/v1/topics/a/events").await.status, 200);
    }
    // And who floods it is told so.
    let mut refused = None;
    for _ in 0..20 {
        let events = vec![json!({"topic": "a"}); 1000];
        let answer = socket.call("publish_batch", json!({ "events": events })).await;
        refused = refused.or(answer["error"]["code"].as_str().map(str::to_owned));
    }
    assert_eq!(refused.as_deref(), Some("rate_limited"));
}

#[tokio::test]
async fn s7_operators_are_told_what_an_admin_does() {
    let guarded = guarded(&[]);
    let (public, admin) = (&guarded.broker.public, admin());
    let mut operator = guarded.open(&admin).await;
    operator.subscribe(json!({"filters": ["$audit"]})).await;
    let bearer = format!("Bearer {admin}");
    let ask = async |method: Method, path: &str, body: &str| {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let answer = http::request(public, method, path, &headers, body.as_bytes()).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text());
    };
    ask(Method::PUT, "/v1/retention/a.%3E", r#"{"max_age":"1h"}"#).await;
    ask(Method::DELETE, "/v1/retention/a.%3E", "").await;
    ask(Method::POST, "/v1/topics/b/events", "1").await;
    ask(Method::DELETE, "/v1/topics/b", "").await;
    ask(Method::PUT, "/v1/subscriptions/d", r#"{"filters":["a"]}"#).await;
    ask(Method::POST, "/v1/subscriptions/d/reset", r#"{"to":"now"}"#).await;
    ask(Method::DELETE, "/v1/subscriptions/d", "").await;
    for (kind, name, of) in [
        ("retention.changed", "filter", "a.>"),
        ("retention.deleted", "filter", "a.>"),
        ("topic.erased", "topic", "b"),
        ("subscription.reset", "durable", "d"),
        ("subscription.deleted", "durable", "d"),
    ] {
        let told = told(&mut operator, kind).await;
        assert_eq!(told, json!({"by": "root", "address": "127.0.0.1", name: of}), "{kind}");
    }
}

#[tokio::test]
async fn s5_an_answer_is_read_though_its_request_was_not() {
    let broker = Broker::with(&["--set", "limits.message_bytes_max=1024"]);
    let body = vec![b'x'; 3 << 20];
    for n in 0..10 {
        // Announced, and not.
        let framing = match n % 2 {
            0 => format!("content-length: {}", body.len()),
            _ => "transfer-encoding: chunked".to_owned(),
        };
        let head = format!(
            "POST /v1/topics/a/events HTTP/1.1\r\nhost: {}\r\n{framing}\r\n\r\n",
            broker.public
        );
        let mut stream = TcpStream::connect(&broker.public).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        if n % 2 == 1 {
            stream.write_all(format!("{:x}\r\n", body.len()).as_bytes()).await.unwrap();
        }
        stream.write_all(&body).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(read.is_ok() && answer.starts_with("HTTP/1.1 413 "), "{n}: {read:?} {answer}");
        assert!(answer.contains("\"code\":\"too_large\""), "{answer}");
    }
}

#[tokio::test]
async fn s4_a_cookie_proves_nothing() {
    let guarded = guarded(&[]);
    let public = &guarded.broker.public;
    let cookie = format!("token={0}; authorization=Bearer%20{0}", admin());
    let answer =
        http::request(public, Method::GET, "/v1/status", &[("cookie", &cookie)], b"").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let mut socket =
        Socket::try_open(public, "/v1/ws", &[("cookie", cookie.as_str())]).await.unwrap();
    let refused = socket.refused("publish", json!({"topic": "a"})).await;
    assert_eq!(refused["code"], "unauthenticated");
}

#[tokio::test]
async fn s6_a_head_that_is_none_is_answered_with_a_problem() {
    let broker = Broker::start();
    let host = &broker.public;
    let good = format!("GET /v1/capabilities HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let large = format!("GET / HTTP/1.1\r\nhost: {host}\r\nx: {}\r\n\r\n", "y".repeat(40_000));
    for (request, status, detail) in [
        ("nonsense\r\n\r\n".to_owned(), 400, "head: "),
        (format!("GET / HTTP/9.9\r\nhost: {host}\r\n\r\n"), 400, "head: "),
        (format!("GET / HTTP/1.1\r\nbad header\r\nhost: {host}\r\n\r\n"), 400, "head: "),
        (large, 431, "head: "),
        // Behind a request that is answered, in one piece.
        (format!("{good}nonsense\r\n\r\n"), 400, "head: "),
    ] {
        let mut stream = TcpStream::connect(&broker.public).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answers = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answers)).await.unwrap();
        assert!(read.is_ok(), "{read:?}");
        let answers = String::from_utf8(answers).unwrap();
        let is_second = request.starts_with(&good);
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1 + usize::from(is_second), "{answers}");
        let (_, refusal) = answers.rsplit_once("HTTP/1.1 ").unwrap();
        let (head, body) = refusal.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&status.to_string()), "{request:.40}: {answers}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        let problem: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&problem["status"], &problem["code"]),
            (&json!(status), &json!("invalid_argument"))
        );
        assert!(problem["detail"].as_str().unwrap().starts_with(detail), "{problem}");
    }
}

#[tokio::test]
async fn s6_a_body_that_is_coded_for_its_way_is_not_taken_as_it_came() {
    let broker = Broker::start();
    let post = async |codings: &str| {
        let request = format!(
            "POST /v1/topics/a/events HTTP/1.1\r\nhost: {}\r\n{codings}\r\n1\r\nx\r\n0\r\n\r\n",
            broker.public
        );
        let (_, status, head) = raw::exchange(&broker.public, &request).await;
        (status, head.to_lowercase().contains("connection: close"))
    };
    for codings in [
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
        "Transfer-Encoding: Identity,Chunked\r\n",
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
    ] {
        assert_eq!(post(codings).await, (501, true), "{codings}");
    }
    assert_eq!(post("transfer-encoding: Chunked\r\n").await, (201, false));
    let topic = http::get(&broker.public, "/v1/topics/a/events").await.json();
    assert_eq!(topic["events"].as_array().unwrap().len(), 1, "{topic}");
}

#[tokio::test]
async fn s5_a_message_that_has_begun_is_waited_for_only_so_long() {
    // A frame of which half has come, and a first one of which the next does not: there a pong may come in between.
    let half = raw::frame(TEXT, &[b'x'; 1000])[..500].to_vec();
    for (begun, ping_interval) in [(half, "30s"), (frame(0x01, b"{"), "200ms")] {
        let ping_interval = format!("limits.ping_interval={ping_interval}");
        let broker = Broker::with(&["--set", "limits.body_timeout=1s", "--set", &ping_interval]);
        let mut socket = Raw::open(&broker.public).await;
        // What is there whole before it has a time of its own.
        socket.write(&frame(TEXT, br#"{"id":1,"ping":{}}"#)).await;
        assert!(socket.frame().await.is_some());
        let since = Instant::now();
        socket.write(&begun).await;
        let code = loop {
            match socket.frame().await.expect("it is cut without a word") {
                // Who answers pings is there, and gets no more time for that.
                (PING, payload) => socket.write(&frame(raw::PONG, &payload)).await,
                (raw::CLOSE, payload) => break u16::from_be_bytes([payload[0], payload[1]]),
                _ => {}
            }
        };
        assert_eq!(code, 4408);
        assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    }
}

#[tokio::test]
async fn s10_the_operators_door_answers_to_no_name_that_a_page_could_have() {
    let broker = Broker::start();
    for (host, status) in
        [("evil.example", 403), ("localhost:9090", 200), ("127.0.0.1", 200), ("[::1]:9090", 200)]
    {
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let (_, answered, head) = raw::exchange(&broker.admin, &request).await;
        assert_eq!(answered, status, "{host}: {head}");
    }
}
