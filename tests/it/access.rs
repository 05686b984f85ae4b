//! Who may come in, as it changes while the broker runs: revocations, API keys, tickets, key sets; and who comes
//! without any of it.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::rustls;

use crate::{
    auth::{Guarded, SECRET, admin, guarded, now_s, signed, token, token_for},
    util::{
        Broker, binary, eventually,
        http::{self, Answer},
        raw,
        sse::Sse,
        ws::{Socket, offsets},
    },
};

/// How long a revocation may take to be in force.
const IN_FORCE: Duration = Duration::from_secs(5);

/// A token of alice's with an id.
fn named(jti: &str, grants: Value) -> String {
    let claims = json!({
        "sub": "alice", "jti": jti, "iat": now_s(), "exp": now_s() + 3600, "tidings": grants,
    });
    signed(Algorithm::HS256, SECRET, &claims)
}

fn everything() -> Value {
    json!({"publish": [">"], "subscribe": [">"], "durable": ["*"]})
}

async fn post(guarded: &Guarded, token: &str, path: &str, body: Value) -> Answer {
    guarded.request(token, Method::POST, path, &body.to_string()).await
}

async fn revoke(guarded: &Guarded, body: Value) -> Value {
    let answer = post(guarded, &admin(), "/v1/auth/revocations", body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    answer.json()
}

async fn stream(guarded: &Guarded, token: &str, path: &str) -> Sse {
    let bearer = format!("Bearer {token}");
    Sse::open(&guarded.broker.public, path, &[("authorization", &bearer)]).await
}

/// Reads to the end, which must be told as one of a token.
async fn ended_for_its_token(stream: &mut Sse) {
    let error = stream.named("tidings.error").await.json();
    assert_eq!(error["code"], "unauthenticated", "{error}");
    assert_eq!(stream.next().await, None, "it ends");
}

#[tokio::test]
async fn s3_a_revoked_token_ends_its_sessions_on_every_door_and_stays_revoked() {
    let mut guarded = guarded(&[]);
    let mut root = guarded.open(&admin()).await;
    root.subscribe(json!({"filters": ["x"], "durable": "d"})).await;
    let (mine, other) = (named("j1", everything()), named("j2", everything()));
    let mut idle = guarded.open(&mine).await;
    idle.subscribe(json!({"filters": ["a"]})).await;
    let mut by_connect = Socket::open(&guarded.broker.public).await;
    by_connect.call("connect", json!({ "token": mine })).await;
    let mut kept = guarded.open(&other).await;
    let mut events = stream(&guarded, &mine, "/v1/topics/a/events").await;
    let mut of_other = stream(&guarded, &other, "/v1/topics/a/events").await;
    let waiting = |method: Method, path: &'static str, body: &'static str| {
        let (address, bearer) = (guarded.broker.public.clone(), format!("Bearer {mine}"));
        tokio::spawn(async move {
            let headers = [("authorization", &*bearer), ("content-type", "application/json")];
            http::request(&address, method, path, &headers, body.as_bytes()).await
        })
    };
    let poll = waiting(Method::GET, "/v1/topics/a/events?wait=30s", "");
    let fetch = waiting(Method::POST, "/v1/subscriptions/d/fetch", "{\"wait\":\"30s\"}");
    let sessions =
        async || guarded.get(&admin(), "/v1/status").await.json()["sessions"]["http"] == 3;
    eventually("both wait", sessions).await;

    let until = "2999-01-01T00:00:00Z";
    let refused = post(&guarded, &other, "/v1/auth/revocations", json!({"jti": "j1"})).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text());
    let asked = Instant::now();
    assert_eq!(revoke(&guarded, json!({"jti": "j1", "until": until})).await["jti"], "j1");
    assert_eq!(idle.close_code().await, Some(4503));
    assert_eq!(by_connect.close_code().await, Some(4503));
    ended_for_its_token(&mut events).await;
    for answer in [poll.await.unwrap(), fetch.await.unwrap()] {
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text());
    }
    assert!(asked.elapsed() < IN_FORCE, "{:?}", asked.elapsed());

    let shut = async |guarded: &Guarded| {
        assert_eq!(guarded.get(&mine, "/v1/topics/a/events").await.status, 401);
        assert_eq!(stream(guarded, &mine, "/v1/topics/a/events").await.status, 401);
        assert_eq!(guarded.open(&mine).await.close_code().await, Some(4401));
        let mut socket = Socket::open(&guarded.broker.public).await;
        let error = socket.refused("connect", json!({ "token": mine })).await;
        assert_eq!(error["code"], "unauthenticated", "{error}");
        assert!(error["message"].as_str().unwrap().contains("revoked"), "{error}");
        let list = guarded.get(&admin(), "/v1/auth/revocations").await.json();
        assert_eq!(list["revocations"][0]["jti"], "j1", "{list}");
    };
    shut(&guarded).await;
    let error = kept.refused("refresh", json!({ "token": mine })).await;
    assert_eq!(error["code"], "unauthenticated", "{error}");
    kept.publish(json!({"topic": "a"})).await;
    assert!(of_other.event().await.is_some(), "another token of the same subject goes on");
    guarded.broker.kill();
    guarded.broker.restart();
    shut(&guarded).await;
    assert_eq!(guarded.get(&other, "/v1/topics/a/events").await.status, 200);
}

/// A publish whose head has come and been looked at, and whose body comes later: gives the status of its answer.
async fn begun(guarded: &Guarded, token: &str) -> impl AsyncFnOnce() -> String {
    let mut stream = TcpStream::connect(&guarded.broker.public).await.unwrap();
    let head = format!(
        "POST /v1/topics/a/events HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
         connection: close\r\ncontent-length: 1\r\n\r\n",
        guarded.broker.public
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let let_in = async || guarded.get(&admin(), "/v1/status").await.json()["sessions"]["http"] == 2;
    eventually("it is let in", let_in).await;
    async move || {
        stream.write_all(b"1").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    }
}

#[tokio::test]
async fn s3_a_request_that_takes_long_is_held_to_the_token_when_it_is_done() {
    let guarded = guarded(&["--set", "auth.leeway=0s"]);
    let mine = named("j1", everything());
    let finish = begun(&guarded, &mine).await;
    revoke(&guarded, json!({"jti": "j1"})).await;
    assert_eq!(finish().await, "401", "it was revoked meanwhile");
    let short = token_for("alice", everything(), 3);
    let finish = begun(&guarded, &short).await;
    eventually("it has ended", async || !is_let_in(&guarded.broker, &short).await).await;
    assert_eq!(finish().await, "401", "it has ended meanwhile");
    let other = named("j2", everything());
    let finish = begun(&guarded, &other).await;
    assert_eq!(finish().await, "201");
    let read = guarded.get(&admin(), "/v1/topics/a/events").await.json();
    assert_eq!(read["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn s5_a_stranger_has_room_for_a_token_and_no_more() {
    let guarded = guarded(&[]);
    let publish = json!({"id": 2, "publish": {"topic": "a", "data": "x".repeat(500_000)}});
    let mut stranger = raw::Raw::open(&guarded.broker.public).await;
    stranger.write(&raw::frame(raw::TEXT, publish.to_string().as_bytes())).await;
    assert_eq!(stranger.close_code().await, Some(1009));
    // Who is let in has all of it, also in the same piece.
    let connect = json!({"id": 1, "connect": {"token": admin()}});
    let mut socket = Socket::open(&guarded.broker.public).await;
    socket.send_together(&[connect, publish]).await;
    assert!(socket.answer(2).await["published"].is_object());
    let mut by_upgrade = guarded.open(&admin()).await;
    by_upgrade.publish(json!({"topic": "a", "data": "x".repeat(500_000)})).await;
}

#[tokio::test]
async fn s3_who_publishes_without_end_is_out_when_it_is_in_the_log() {
    let guarded = guarded(&[]);
    let stored = async |topic: &str| {
        let path = format!("/v1/topics/{topic}/events?limit=1000&after=0");
        let page = guarded.get(&admin(), &path).await.json();
        let events: &Vec<Value> = page["events"].as_array().unwrap();
        offsets(events)
    };
    for n in 0..5 {
        let (jti, topic) = (format!("j{n}"), format!("a{n}"));
        let mut socket = guarded.open(&named(&jti, everything())).await;
        let on = topic.clone();
        let flood = tokio::spawn(async move {
            while socket.try_call("publish", json!({ "topic": on })).await.is_some() {}
            socket.closed.map(|frame| u16::from(frame.code))
        });
        eventually("it publishes", async || stored(&topic).await.len() > 20).await;
        revoke(&guarded, json!({ "jti": jti })).await;
        assert_eq!(flood.await.unwrap(), Some(4503));
        let revoked = *stored("$auth").await.last().unwrap();
        let late = stored(&topic).await.into_iter().filter(|offset| *offset > revoked).count();
        assert!(late <= 1, "{late} were published, and one was under way");
    }
}

#[tokio::test]
async fn s3_all_that_a_subject_was_given_is_revoked_and_what_comes_later_is_not() {
    let guarded = guarded(&[]);
    let of = |subject: &str, issued: Option<u64>| {
        let mut claims = json!({"sub": subject, "exp": now_s() + 3600, "tidings": everything()});
        if let Some(issued) = issued {
            claims["iat"] = json!(issued);
        }
        signed(Algorithm::HS256, SECRET, &claims)
    };
    let (old, unsaid, bobs) =
        (of("alice", Some(now_s() - 100)), of("alice", None), of("bob", Some(now_s() - 100)));
    let wish = json!({"name": "k", "subject": "alice", "grants": everything()});
    let key = post(&guarded, &admin(), "/v1/auth/keys", wish).await.json();
    let key = key["key"].as_str().unwrap();
    let mut sockets = Vec::new();
    for token in [&old, &unsaid, &key.to_owned()] {
        sockets.push(guarded.open(token).await);
    }
    let mut bob = guarded.open(&bobs).await;
    let revoked = revoke(&guarded, json!({"subject": "alice"})).await;
    assert_eq!(revoked["subject"], "alice", "{revoked}");
    for socket in &mut sockets {
        assert_eq!(socket.close_code().await, Some(4503));
    }
    for token in [&old, &unsaid, key] {
        assert_eq!(guarded.get(token, "/v1/topics/a/events").await.status, 401);
    }
    // Each key for itself: the revocation of the subject may be forgotten.
    assert_eq!(guarded.get(&admin(), "/v1/auth/keys").await.json()["keys"], json!([]));
    // Whoever signs a token later than that says so.
    let later = of("alice", Some(now_s() + 20));
    assert_eq!(guarded.get(&later, "/v1/topics/a/events").await.status, 200);
    bob.publish(json!({"topic": "a"})).await;
    // An earlier moment takes nothing back.
    revoke(&guarded, json!({"subject": "alice", "before": "2020-01-01T00:00:00Z"})).await;
    assert_eq!(guarded.get(&old, "/v1/topics/a/events").await.status, 401);
}

#[tokio::test]
async fn s1_a_refresh_ends_what_the_new_token_does_not_grant() {
    let guarded = guarded(&[]);
    let mut root = guarded.open(&admin()).await;
    let wide = json!({"publish": [">"], "subscribe": ["a", "b"], "durable": ["d", "e"]});
    let mut socket = guarded.open(&named("wide", wide)).await;
    socket.subscribe(json!({"filters": ["a"]})).await;
    socket.subscribe(json!({"filters": ["a", "b"], "presence": {"data": 1}})).await;
    socket.subscribe(json!({"filters": ["a"], "durable": "d", "start": "first"})).await;
    socket.subscribe(json!({"filters": ["a"], "durable": "e", "start": "first"})).await;
    let listed = async || {
        let page = guarded.get(&admin(), "/v1/presence/b").await.json();
        page["members"].as_array().unwrap().len()
    };
    assert_eq!(listed().await, 1);
    let narrow = named("narrow", json!({"subscribe": ["a"], "durable": ["e"]}));
    let before = socket.start("refresh", json!({ "token": narrow })).await;
    let answer = socket.answer(before).await;
    assert!(answer["refreshed"].is_object(), "{answer}");
    let mut told: Vec<String> = Vec::new();
    for message in socket.so_far().await {
        if let Some(text) = message["error"]["message"].as_str() {
            assert_eq!(message["error"]["code"], "permission_denied");
            told.push(text.chars().take("subscription N ends".len()).collect());
        }
    }
    told.sort();
    assert_eq!(told, ["subscription 2 ends", "subscription 3 ends"]);
    eventually("it is listed no more", async || listed().await == 0).await;
    for topic in ["b", "a"] {
        root.publish(json!({ "topic": topic })).await;
    }
    let mut by_subscription = Vec::new();
    while by_subscription.len() < 2 {
        let batch = socket.events().await;
        let topics = batch["events"].as_array().unwrap().iter().map(|event| &event["topic"]);
        assert!(topics.into_iter().all(|topic| topic == "a"), "{batch}");
        by_subscription.push(batch["subscription"].as_u64().unwrap());
    }
    by_subscription.sort_unstable();
    assert_eq!(by_subscription, [1, 4], "what is granted goes on");
    for number in [2, 3] {
        let gone = socket.refused("unsubscribe", json!({ "subscription": number })).await;
        assert_eq!(gone["code"], "not_found", "{gone}");
    }
    let ack = socket.refused("ack", json!({"subscription": 3, "offset": 1})).await;
    assert_eq!(ack["code"], "not_found", "{ack}");
}

#[tokio::test]
async fn an_api_key_opens_every_door_until_it_is_revoked() {
    let mut guarded = guarded(&[]);
    let grants =
        json!({"publish": ["builds.>"], "subscribe": ["builds.{sub}"], "durable": ["{sub}"]});
    let wish = json!({"name": "ci", "grants": grants});
    let user = token("alice", everything());
    for (method, path) in [
        (Method::POST, "/v1/auth/keys"),
        (Method::GET, "/v1/auth/keys"),
        (Method::DELETE, "/v1/auth/keys/x"),
        (Method::GET, "/v1/auth/revocations"),
        (Method::GET, "/v1/status"),
    ] {
        let refused = guarded.request(&user, method, path, &wish.to_string()).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}: {}", refused.text());
    }
    let made = post(&guarded, &admin(), "/v1/auth/keys", wish).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    let (made, second) = (made.json(), json!({"name": "second", "grants": {}}));
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let second = post(&guarded, &admin(), "/v1/auth/keys", second).await.json();
    guarded.broker.kill();
    guarded.broker.restart();
    let mut socket = guarded.open(key).await;
    socket.publish(json!({"topic": "builds.1"})).await;
    assert_eq!(socket.refused("publish", json!({"topic": "x"})).await["code"], "permission_denied");
    let connected = socket.call("connect", json!({})).await["connected"].clone();
    assert_eq!((&connected["subject"], &connected["token_expires"]), (&json!("ci"), &Value::Null));
    let mut events = stream(&guarded, key, "/v1/topics/builds.ci/events").await;
    assert_eq!(events.status, StatusCode::OK);
    assert_eq!(guarded.get(key, "/v1/topics/builds.other/events").await.status, 403);
    let list = guarded.get(&admin(), "/v1/auth/keys").await;
    assert_eq!(list.json()["keys"].as_array().unwrap().len(), 2);
    assert!(!list.text().contains("tdk_") && !list.text().contains("hash"), "{}", list.text());
    // The secret of one with the id of the other, and the like.
    let other = second["key"].as_str().unwrap();
    for wrong in
        [other.replace(second["id"].as_str().unwrap(), id), key[..key.len() - 1].to_owned()]
    {
        assert_eq!(guarded.get(&wrong, "/v1/topics/builds.ci/events").await.status, 401);
    }
    let asked = Instant::now();
    let path = format!("/v1/auth/keys/{id}");
    let gone = guarded.request(&admin(), Method::DELETE, &path, "").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(socket.close_code().await, Some(4503));
    ended_for_its_token(&mut events).await;
    assert!(asked.elapsed() < IN_FORCE, "{:?}", asked.elapsed());
    assert_eq!(guarded.get(key, "/v1/topics/builds.ci/events").await.status, 401);
    guarded.broker.kill();
    guarded.broker.restart();
    assert_eq!(guarded.get(key, "/v1/topics/builds.ci/events").await.status, 401);
    let list = guarded.get(&admin(), "/v1/auth/keys").await.json();
    assert_eq!(list["keys"].as_array().unwrap().len(), 1, "{list}");
}

#[tokio::test]
async fn s4_a_ticket_lets_a_browser_in_once() {
    let guarded = guarded(&[]);
    let address = &guarded.broker.public;
    let alice = named("j1", json!({"publish": ["a"], "subscribe": ["a"], "durable": ["d"]}));
    let issue = async |token: &str| {
        let given = post(&guarded, token, "/v1/tickets", json!({})).await;
        assert_eq!(given.status, StatusCode::CREATED, "{}", given.text());
        assert_eq!(given.json()["expires_in_ms"], 30_000);
        given.json()["ticket"].as_str().unwrap().to_owned()
    };
    assert_eq!(http::post_json(address, "/v1/tickets", &json!({})).await.status, 401);
    // A socket, a plain one, and streams; each ticket once.
    let ticket = issue(&alice).await;
    let path = format!("/v1/ws?ticket={ticket}");
    let mut socket = Socket::try_open(address, &path, &[]).await.unwrap();
    assert_eq!(socket.call("connect", json!({})).await["connected"]["subject"], "alice");
    socket.publish(json!({"topic": "a"})).await;
    let error = socket.refused("publish", json!({"topic": "b"})).await;
    assert_eq!(error["code"], "permission_denied", "{error}");
    let again = raw::upgrade(address, &path, "");
    assert_eq!(raw::exchange(address, &again).await.1, 401);
    let plain = format!("/v1/ws/a?after=0&ticket={}", issue(&alice).await);
    let mut plain = Socket::try_open(address, &plain, &[]).await.unwrap();
    assert_eq!(offsets(&plain.take(1).await), [1]);
    let put = json!({"filters": ["a"], "start": "first"}).to_string();
    guarded.request(&alice, Method::PUT, "/v1/subscriptions/d", &put).await;
    for path in
        ["/v1/topics/a/events?after=0", "/v1/events?topic=a&after=0", "/v1/subscriptions/d/events?"]
    {
        let path = format!("{path}&ticket={}", issue(&alice).await);
        let mut events = Sse::open(address, &path, &[]).await;
        assert_eq!(events.status, StatusCode::OK, "{path}");
        assert_eq!(events.event().await.unwrap().cursor(), 1);
        assert_eq!(Sse::open(address, &path, &[]).await.status, 401, "{path} again");
    }
    // A request that is refused for what it asks for does not use it up.
    let ticket = issue(&alice).await;
    for path in [
        "/v1/topics/a/events?aftr=0",
        "/v1/topics/a/events?after=x",
        "/v1/topics/a..b/events?after=0",
        "/v1/events?topic=a&limit=1",
        "/v1/events?after=0",
        "/v1/subscriptions/d/events?presence=x",
    ] {
        let refused = Sse::open(address, &format!("{path}&ticket={ticket}"), &[]).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path}");
    }
    let path = format!("/v1/topics/a/events?ticket={ticket}");
    assert_eq!(Sse::open(address, &path, &[]).await.status, StatusCode::OK);
    // Where a token can be sent it is; and only one of the two.
    let ticket = issue(&alice).await;
    let read = http::get(address, &format!("/v1/topics/a/events?ticket={ticket}")).await;
    assert_eq!(read.status, StatusCode::UNAUTHORIZED, "{}", read.text());
    let both = stream(&guarded, &alice, &format!("/v1/topics/a/events?ticket={ticket}")).await;
    assert_eq!(both.status, StatusCode::BAD_REQUEST);
    let bad = Sse::open(address, "/v1/topics/a/events?ticket=tkt_0", &[]).await;
    assert_eq!(bad.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bad.headers["www-authenticate"], "Bearer");
    // It is as good as its token, and so is the session that came of it.
    revoke(&guarded, json!({"jti": "j1"})).await;
    assert_eq!(socket.close_code().await, Some(4503));
    let path = format!("/v1/topics/a/events?ticket={ticket}");
    assert_eq!(Sse::open(address, &path, &[]).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn s1_somebody_without_a_token_may_do_what_the_settings_say_and_no_more() {
    let guarded = guarded(&[
        "--set",
        "auth.anonymous.subscribe=news.>",
        "--set",
        "auth.anonymous.publish=feedback",
    ]);
    let address = &guarded.broker.public;
    let mut root = guarded.open(&admin()).await;
    root.publish(json!({"topic": "news.1"})).await;
    let mut socket = Socket::open(address).await;
    socket.publish(json!({"topic": "feedback"})).await;
    for topic in ["news.1", "x", "$auth"] {
        let error = socket.refused("publish", json!({ "topic": topic })).await;
        assert_eq!(error["code"], "permission_denied", "{topic}: {error}");
    }
    socket.subscribe(json!({"filters": ["news.*"], "after": 0})).await;
    assert_eq!(offsets(&socket.take(1).await), [1]);
    for options in
        [json!({"filters": ["feedback"]}), json!({"filters": ["news.1"], "durable": "d"})]
    {
        let error = socket.refused("subscribe", options).await;
        assert_eq!(error["code"], "permission_denied", "{error}");
    }
    let connected = socket.call("connect", json!({})).await["connected"].clone();
    assert_eq!(connected["subject"], "anonymous", "{connected}");
    let late = socket.refused("connect", json!({"token": admin()})).await;
    assert_eq!(late["code"], "permission_denied", "nobody becomes somebody: {late}");
    // Who shows a token first is who they are.
    let mut alice = Socket::open(address).await;
    let connected = alice.call("connect", json!({"token": token("alice", json!({}))})).await;
    assert_eq!(connected["connected"]["subject"], "alice", "{connected}");
    assert_eq!(
        alice.refused("subscribe", json!({"filters": ["news.1"]})).await["code"],
        "permission_denied"
    );
    let mut plain = Socket::try_open(address, "/v1/ws/news.%3E?after=0", &[]).await.unwrap();
    assert_eq!(offsets(&plain.take(1).await), [1]);
    // One that everybody may not read waits for its token.
    let mut waits = Socket::try_open(address, "/v1/ws/feedback?after=0", &[]).await.unwrap();
    waits.call("connect", json!({"token": admin()})).await;
    assert_eq!(offsets(&waits.take(1).await), [2]);
    for (path, status) in [
        ("/v1/topics/news.1/events", 200),
        ("/v1/topics/feedback/events", 403),
        ("/v1/events/1", 200),
        ("/v1/events/2", 404),
        ("/v1/subscriptions/d", 403),
        ("/v1/status", 403),
        ("/v1/auth/keys", 403),
        ("/v1/topics/$auth/events", 403),
    ] {
        assert_eq!(http::get(address, path).await.status, status, "{path}");
    }
    let stream = Sse::open(address, "/v1/topics/news.1/events?after=0", &[]).await;
    assert_eq!(stream.status, StatusCode::OK);
    // A token that does not hold is refused, not ignored.
    assert_eq!(guarded.get("bad", "/v1/topics/news.1/events").await.status, 401);
    assert_eq!(guarded.open("bad").await.close_code().await, Some(4401));
    let can = http::get(address, "/v1/capabilities").await.json();
    assert_eq!((&can["auth"]["required"], &can["auth"]["tickets"]), (&json!(false), &json!(true)));
    // All of them together are one subject: the tickets of one would be those of all.
    let none = http::post_json(address, "/v1/tickets", &json!({})).await;
    assert_eq!(
        (none.status, &none.json()["code"]),
        (StatusCode::FORBIDDEN, &json!("permission_denied"))
    );
}

/// A connection that takes next to nothing, after this request.
async fn that_takes_nothing(guarded: &Guarded, request: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(guarded.broker.public.parse().unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn s3_who_reads_slowly_stays_in_no_longer_for_that() {
    // Without the limit that would cut off who pings so often.
    let guarded = guarded(&["--set", "limits.per_session=subscribes=5000"]);
    let mut root = guarded.open(&admin()).await;
    let backlog = 12 << 20;
    for _ in 0..backlog / 65_536 {
        root.publish(json!({"topic": "a", "data": "x".repeat(65_536)})).await;
    }
    drop(root);
    let sessions = async |kind: &str| {
        guarded.get(&admin(), "/v1/status").await.json()["sessions"][kind].as_u64().unwrap()
    };
    let address = &guarded.broker.public;
    let (revoked, short) = (named("j1", everything()), token_for("alice", everything(), 4));
    let ends = Instant::now() + Duration::from_secs(4);
    // Sockets that ask without end and take no answer, behind a backlog.
    let mut sockets = Vec::new();
    for token in [&revoked, &short] {
        let request =
            raw::upgrade(address, "/v1/ws", &format!("authorization: Bearer {token}\r\n"));
        let mut stream = that_takes_nothing(&guarded, &request).await;
        let subscribe = json!({"id": 1, "subscribe": {"filters": ["a"], "after": 0}});
        let mut sent = raw::frame(raw::TEXT, subscribe.to_string().as_bytes());
        for id in 2..3000 {
            let ping = json!({"id": id, "ping": {}}).to_string();
            sent.extend(raw::frame(raw::TEXT, ping.as_bytes()));
            sent.extend(raw::frame(raw::PING, b"?"));
        }
        stream.write_all(&sent).await.unwrap();
        sockets.push(stream);
    }
    let get = format!(
        "GET /v1/topics/a/events?after=0 HTTP/1.1\r\nhost: {address}\r\n\
         authorization: Bearer {revoked}\r\naccept: text/event-stream\r\n\r\n"
    );
    let mut events = that_takes_nothing(&guarded, &get).await;
    eventually("all are in", async || {
        sessions("websocket").await == 2 && sessions("sse").await == 1
    })
    .await;
    let asked = Instant::now();
    revoke(&guarded, json!({"jti": "j1"})).await;
    eventually("the revoked one is out", async || sessions("websocket").await < 2).await;
    assert!(asked.elapsed() < IN_FORCE, "{:?}", asked.elapsed());
    eventually("the expired one too", async || sessions("websocket").await == 0).await;
    assert!(Instant::now() < ends + IN_FORCE, "{:?} late", ends.elapsed());
    // Nobody reads what the stream would say before it ends: it is cut.
    eventually("the stream too", async || sessions("sse").await == 0).await;
    assert!(asked.elapsed() < IN_FORCE, "{:?}", asked.elapsed());
    let mut taken = Vec::new();
    let _ = events.read_to_end(&mut taken).await;
    assert!(taken.len() < backlog, "it goes on: {} bytes", taken.len());
}

#[tokio::test]
async fn s8_nobody_without_a_token_has_what_another_one_has() {
    let guarded =
        guarded(&["--set", "auth.anonymous.subscribe=a", "--set", "auth.anonymous.publish=a"]);
    let address = &guarded.broker.public;
    let mut root = guarded.open(&admin()).await;
    root.subscribe(json!({"filters": ["a"], "durable": "d"})).await;
    let later = json!({"topic": "a", "deliver_at": "2099-01-01T00:00:00Z"});
    let error = Socket::open(address).await.refused("publish", later).await;
    assert_eq!(error["code"], "invalid_argument", "too late, whoever it is: {error}");
    let soon = tidings_proto::Timestamp::from_millis(now_s() * 1000 + 600_000).to_string();
    let mut one = Socket::open(address).await;
    let scheduled = one.call("publish", json!({"topic": "a", "deliver_at": soon})).await;
    let at = scheduled["scheduled"]["offset"].as_u64().unwrap();
    let published = one.publish(json!({"topic": "a"})).await;
    // Another one of them, and the same: nobody can tell.
    let mut other = Socket::open(address).await;
    for socket in [&mut one, &mut other] {
        let error = socket.refused("cancel", json!({ "offset": at })).await;
        assert_eq!(error["code"], "not_found", "{error}");
        let error = socket.refused("receipts", json!({ "offset": published })).await;
        assert_eq!(error["code"], "not_found", "{error}");
        let error = socket.refused("subscribe", json!({"filters": ["$receipts.anonymous"]})).await;
        assert_eq!(error["code"], "permission_denied", "{error}");
        let error = socket.refused("publish", json!({"topic": "a", "receipts": true})).await;
        assert!(error["message"].as_str().unwrap().starts_with("receipts: "), "{error}");
    }
    assert_eq!(
        http::request(address, Method::DELETE, &format!("/v1/scheduled/{at}"), &[], b"")
            .await
            .status,
        404
    );
    assert_eq!(http::get(address, &format!("/v1/events/{published}/receipts")).await.status, 404);
    assert_eq!(root.call("cancel", json!({ "offset": at })).await["cancelled"]["offset"], at);
    // Nor is somebody with a token taken for them: no limit of a subject would bind that.
    let claims = json!({"sub": "anonymous", "exp": now_s() + 60, "tidings": everything()});
    let token = signed(Algorithm::HS256, SECRET, &claims);
    assert_eq!(guarded.get(&token, "/v1/topics/a/events").await.status, 401);
    for (key, field) in [
        (json!({"name": "n", "subject": "anonymous", "grants": everything()}), "subject: "),
        (json!({"name": "n", "grants": {"publsh": [">"]}}), "grants: "),
        (json!({"name": "n", "grants": {"limits": {"publish_per_sec": 5}}}), "grants: "),
    ] {
        let answer = post(&guarded, &admin(), "/v1/auth/keys", key).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.json()["detail"].as_str().unwrap().starts_with(field), "{}", answer.text());
    }
}

#[tokio::test]
async fn s7_strangers_ping_a_few_times_and_no_more() {
    let guarded = guarded(&[]);
    let mut stranger = raw::Raw::open(&guarded.broker.public).await;
    for _ in 0..16 {
        stranger.write(&raw::frame(raw::PING, b"?")).await;
        assert!(stranger.frame().await.is_some());
    }
    stranger.write(&raw::frame(raw::PING, b"?")).await;
    assert_eq!(stranger.close_code().await, Some(4429));
}

#[tokio::test]
async fn s3_what_is_revoked_outlives_retention_and_the_checkpoint() {
    let mut guarded = guarded(&[
        "--set",
        "log.segment_bytes=65536",
        "--set",
        "log.reserve_bytes=4096",
        "--set",
        "retention.every=100ms",
        "--set",
        "retention.max_events=20",
    ]);
    let tokens = ["j1", "j2"].map(|jti| named(jti, everything()));
    let [revoked, kept] = &tokens;
    revoke(&guarded, json!({"jti": "j1"})).await;
    let mut keys = Vec::new();
    for name in ["gone", "stays"] {
        let wish = json!({"name": name, "grants": everything()});
        keys.push(post(&guarded, &admin(), "/v1/auth/keys", wish).await.json());
    }
    let [gone, stays] = [0, 1].map(|n: usize| keys[n]["key"].as_str().unwrap().to_owned());
    let path = format!("/v1/auth/keys/{}", keys[0]["id"].as_str().unwrap());
    let mut root = guarded.open(&admin()).await;
    let mut fill = async || {
        for _ in 0..100 {
            root.publish(json!({"topic": "a", "data": "x".repeat(4000)})).await;
        }
    };
    fill().await;
    // In another segment than it was made in.
    assert_eq!(guarded.request(&admin(), Method::DELETE, &path, "").await.status, 204);
    fill().await;
    let first = async || guarded.get(&admin(), "/v1/topics?filter=a").await.json();
    let few = async || first().await["topics"][0]["count"].as_u64().unwrap() < 60;
    eventually("most of it has gone", few).await;
    for is_folded_anew in [false, true] {
        guarded.broker.kill();
        if is_folded_anew {
            std::fs::remove_dir_all(guarded.broker.dir.join("projections")).unwrap();
        }
        guarded.broker.restart();
        for (token, ok) in [(revoked, false), (kept, true), (&gone, false), (&stays, true)] {
            assert_eq!(is_let_in(&guarded.broker, token).await, ok, "{token} {is_folded_anew}");
        }
    }
    let events = guarded.get(&admin(), "/v1/topics/$auth/events?on_gap=skip").await.json();
    let kinds: Vec<&str> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["type"].as_str().unwrap())
        .collect();
    assert!(kinds.contains(&"auth.token_revoked") && kinds.contains(&"auth.key_made"), "{kinds:?}");
}

fn private(name: &str) -> Vec<u8> {
    use base64::Engine;
    let path = format!("{}/tests/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"));
    let pem = std::fs::read_to_string(path).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    base64::engine::general_purpose::STANDARD.decode(body).unwrap()
}

fn of_set(algorithm: Algorithm, kid: &str) -> String {
    let key = match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_der(&private("rsa")),
        Algorithm::ES256 => EncodingKey::from_ec_der(&private("ec")),
        _ => EncodingKey::from_ed_der(&private("ed")),
    };
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
    let claims = json!({"sub": "alice", "exp": now_s() + 3600, "tidings": everything()});
    encode(&header, &claims, &key).unwrap()
}

const SET: &str = include_str!("../keys/jwks.json");

async fn is_let_in(broker: &Broker, token: &str) -> bool {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer)];
    let path = "/v1/topics/a/events";
    let answer = http::request(&broker.public, Method::GET, path, &headers, b"").await;
    assert!([200, 401].contains(&answer.status.as_u16()), "{} {}", answer.status, answer.text());
    answer.status.is_success()
}

#[tokio::test]
async fn s2_keys_come_from_a_set_that_is_read_again_and_the_last_good_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("jwks.json");
    std::fs::write(&set, SET).unwrap();
    let file = format!("auth.jwks_file={}", set.display());
    let broker = Broker::with(&["--set", &file, "--set", "auth.jwks_refresh=1s"]);
    for (algorithm, kid) in
        [(Algorithm::RS256, "rsa"), (Algorithm::ES256, "ec"), (Algorithm::EdDSA, "ed")]
    {
        assert!(is_let_in(&broker, &of_set(algorithm, kid)).await, "{kid}");
    }
    assert!(!is_let_in(&broker, &of_set(Algorithm::ES256, "rsa")).await);
    assert!(!is_let_in(&broker, &admin()).await, "nobody's secret");
    let readings = async |result: &str| {
        let metrics = http::get(&broker.admin, "/metrics").await.text();
        let line = format!("tidings_auth_key_sets_total{{result=\"{result}\"}} ");
        let count = metrics.lines().find_map(|it| it.strip_prefix(&line));
        count.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    std::fs::write(&set, "{\"keys\":[").unwrap();
    let before = readings("failed").await;
    eventually("the broken set was read", async || readings("failed").await > before).await;
    assert!(is_let_in(&broker, &of_set(Algorithm::ES256, "ec")).await, "the last good set stays");
    std::fs::write(&set, SET.replace("\"ec\"", "\"ec2\"")).unwrap();
    let new = of_set(Algorithm::ES256, "ec2");
    eventually("the new key is known", async || is_let_in(&broker, &new).await).await;
    assert!(!is_let_in(&broker, &of_set(Algorithm::ES256, "ec")).await, "and the old one is not");
}

// The server answers while the broker is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_keys_come_from_a_server_on_this_machine() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        for answer in ["HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_owned(), whole()] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let read = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            assert!(head.starts_with("GET /keys?x=1 HTTP/1.1\r\n"), "{head}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let url = format!("auth.jwks_url=http://127.0.0.1:{port}/keys?x=1");
    let broker = Broker::with(&["--set", &url, "--set", "auth.jwks_refresh=1s"]);
    let token = of_set(Algorithm::RS256, "rsa");
    eventually("the set has come", async || is_let_in(&broker, &token).await).await;
    server.await.unwrap();
    assert!(is_let_in(&broker, &token).await, "the server has gone, the set stays");
}

/// A server of key sets over TLS on this machine: each connection is given the next of these answers, the last for ever.
struct KeyServer {
    port: u16,
    cert: tempfile::NamedTempFile,
    asked: Arc<AtomicUsize>,
}

impl KeyServer {
    async fn start(answers: Vec<String>) -> KeyServer {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let cert = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(cert.path(), made.cert.pem()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.unwrap())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Whoever does not trust it hangs up.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = vec![0; 4096];
                if stream.read(&mut head).await.is_err() {
                    continue;
                }
                let at = counted.fetch_add(1, Ordering::SeqCst);
                let answer = answers.get(at).or(answers.last()).unwrap();
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        KeyServer { port, cert, asked }
    }

    fn settings(&self, host: &str, with_ca: bool) -> Vec<String> {
        let url = format!("auth.jwks_url=https://{host}:{}/keys", self.port);
        let ca = format!("auth.jwks_ca={}", self.cert.path().display());
        let mut settings = vec![url, "auth.jwks_refresh=1s".to_owned()];
        settings.extend(with_ca.then_some(ca));
        settings
    }
}

fn set_all(settings: &[String]) -> Vec<&str> {
    settings.iter().flat_map(|setting| ["--set", setting]).collect()
}

// The server answers while the broker is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_keys_come_over_tls_from_who_is_trusted_and_from_nobody_it_sends_us_to() {
    let elsewhere = KeyServer::start(vec![whole()]).await;
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nlocation: https://localhost:{}/keys\r\ncontent-length: 0\r\n\r\n",
        elsewhere.port
    );
    let large = format!("{{\"keys\":[{}]}}", " ".repeat(300_000));
    let large = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{large}", large.len());
    let server = KeyServer::start(vec![redirect, large, whole()]).await;
    let token = of_set(Algorithm::ES256, "ec");
    let failed = async |broker: &Broker| {
        let metrics = http::get(&broker.admin, "/metrics").await.text();
        let line = "tidings_auth_key_sets_total{result=\"failed\"} ";
        let count = metrics.lines().find_map(|it| it.strip_prefix(line));
        count.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let broker = Broker::with(&set_all(&server.settings("localhost", true)));
    eventually("the set has come", async || is_let_in(&broker, &token).await).await;
    assert!(failed(&broker).await >= 2, "what is sent elsewhere, and what is too large");
    let asked = elsewhere.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 0, "a redirect is not followed");
    // Not by the system, and not for another name.
    for (host, with_ca) in [("localhost", false), ("127.0.0.1", true)] {
        let broker = Broker::with(&set_all(&server.settings(host, with_ca)));
        eventually("it was tried", async || failed(&broker).await >= 2).await;
        assert!(!is_let_in(&broker, &token).await, "{host} {with_ca}");
    }
}

#[tokio::test]
async fn s2_keys_in_files_are_read_anew_and_the_last_good_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    std::fs::write(file("secret"), SECRET).unwrap();
    std::fs::write(file("pem"), include_str!("../keys/ec.pub.pem")).unwrap();
    std::fs::write(file("set"), SET.replace("\"ed\"", "\"ed0\"")).unwrap();
    let settings = [
        format!("auth.hs256_secret_file={}", file("secret").display()),
        format!("auth.public_key_file={}", file("pem").display()),
        format!("auth.jwks_file={}", file("set").display()),
        "auth.jwks_refresh=24h".to_owned(),
    ];
    let broker = Broker::with(&set_all(&settings));
    let reads = async |result: &str, times: u32| {
        let metrics = http::get(&broker.admin, "/metrics").await.text();
        metrics.contains(&format!("tidings_auth_key_reads_total{{result=\"{result}\"}} {times}\n"))
    };
    let (old, new) = (admin(), {
        let claims = json!({"sub": "root", "exp": now_s() + 3600, "tidings": everything()});
        signed(Algorithm::HS256, "another secret, of thirty-two bytes", &claims)
    });
    let of_pem = of_set(Algorithm::RS256, "unnamed");
    let ed = of_set(Algorithm::EdDSA, "ed");
    let mut session = Socket::open(&broker.public).await;
    session.call("connect", json!({ "token": old })).await;
    // A file that is only half written has a secret that is too short.
    std::fs::write(file("secret"), "another secret").unwrap();
    broker.signal(Signal::HUP);
    eventually("it is refused", async || reads("refused", 1).await).await;
    // One of them is no good: none is taken.
    std::fs::write(file("secret"), "another secret, of thirty-two bytes\n").unwrap();
    std::fs::write(file("pem"), "no PEM").unwrap();
    broker.signal(Signal::HUP);
    eventually("they are refused", async || reads("refused", 2).await).await;
    assert!(is_let_in(&broker, &old).await && !is_let_in(&broker, &new).await);
    std::fs::write(file("pem"), include_str!("../keys/rsa.pub.pem")).unwrap();
    std::fs::write(file("set"), SET).unwrap();
    broker.signal(Signal::HUP);
    eventually("they are read", async || reads("ok", 1).await).await;
    assert!(!is_let_in(&broker, &old).await && is_let_in(&broker, &new).await);
    assert!(is_let_in(&broker, &of_pem).await);
    eventually("the set too", async || is_let_in(&broker, &ed).await).await;
    session.publish(json!({"topic": "a"})).await;
}

fn whole() -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{SET}", SET.len())
}

#[tokio::test]
async fn s2_tokens_are_held_to_the_issuer_and_the_audience_of_the_settings() {
    let guarded = guarded(&["--set", "auth.issuer=me", "--set", "auth.audiences=tidings, other"]);
    for (iss, aud, ok) in [
        (Some("me"), Some(json!("tidings")), true),
        (Some("me"), Some(json!(["x", "other"])), true),
        (Some("me"), Some(json!("x")), false),
        (Some("me"), None, false),
        (Some("you"), Some(json!("tidings")), false),
        (None, Some(json!("tidings")), false),
    ] {
        let mut claims = json!({"sub": "alice", "exp": now_s() + 3600, "tidings": everything()});
        let claimed = [("iss", iss.map(|iss| json!(iss))), ("aud", aud.clone())];
        for (name, value) in claimed.into_iter().filter_map(|(name, it)| Some((name, it?))) {
            claims[name] = value;
        }
        let token = signed(Algorithm::HS256, SECRET, &claims);
        assert_eq!(is_let_in(&guarded.broker, &token).await, ok, "{iss:?} {aud:?}");
    }
}

/// What a command says on stdout, and its exit code.
fn run(guarded: &Guarded, token: &str, args: &[&str], input: &str) -> (String, Option<i32>) {
    let mut command = Command::new(binary());
    command.args(args).env("TIDINGS_URL", guarded.broker.url()).env("TIDINGS_TOKEN", token);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (String::from_utf8(output.stdout).unwrap().trim_end().to_owned(), output.status.code())
}

#[tokio::test]
async fn the_commands_make_tokens_and_keys_and_revoke_them() {
    let guarded = guarded(&[]);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), format!("{SECRET}\n")).unwrap();
    let file = secret.path().to_str().unwrap();
    let create = |subject: &str, more: &[&str]| {
        let args = [&["token", "create", subject, "--secret-file", file], more].concat();
        let (token, code) = run(&guarded, "", &args, "");
        assert_eq!((code, token.matches('.').count()), (Some(0), 2), "{token}");
        token
    };
    let root = create("root", &["--publish", ">", "--subscribe", ">", "--durable", "*", "--admin"]);
    let alice = create("alice", &["--subscribe", "users.{sub}.>", "--ttl", "10m"]);
    assert_eq!(guarded.get(&alice, "/v1/topics/users.alice.x/events").await.status, 200);
    assert_eq!(guarded.get(&alice, "/v1/topics/users.bob.x/events").await.status, 403);
    assert_eq!(guarded.get(&alice, "/v1/status").await.status, 403);
    let (shown, code) = run(&guarded, "", &["token", "inspect"], &alice);
    assert_eq!(code, Some(0));
    for part in ["alice", "users.{sub}.>", "HS256", "(in 9m"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let (said, code) = run(&guarded, &root, &["token", "revoke", "-"], &alice);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(guarded.get(&alice, "/v1/topics/users.alice.x/events").await.status, 401);
    let (_, code) = run(&guarded, &root, &["token", "revoke", "--subject", "bob"], "");
    assert_eq!(code, Some(0));
    let list = guarded.get(&root, "/v1/auth/revocations").await.json();
    let list = list["revocations"].as_array().unwrap();
    assert_eq!(list.len(), 2, "{list:?}");
    assert!(list.iter().any(|it| it["jti"].is_string() && it["until"].is_string()), "{list:?}");

    let (key, code) = run(&guarded, &root, &["key", "add", "ci", "--publish", "builds.>"], "");
    assert_eq!((code, key.starts_with("tdk_")), (Some(0), true), "{key}");
    let publish = post(&guarded, &key, "/v1/topics/builds.1/events", json!(1)).await;
    assert_eq!(publish.status, StatusCode::CREATED, "{}", publish.text());
    let (rows, code) = run(&guarded, &root, &["key", "ls"], "");
    assert_eq!((code, rows.lines().count()), (Some(0), 1), "{rows}");
    let id = rows.split(' ').next().unwrap();
    assert!(key.contains(id) && !rows.contains(&key), "{rows}");
    assert_eq!(run(&guarded, &root, &["key", "revoke", id], "").1, Some(0));
    assert_eq!(run(&guarded, &root, &["key", "revoke", id], "").1, Some(3), "not found");
    assert_eq!(run(&guarded, &key, &["key", "ls"], "").1, Some(4), "denied");
    assert_eq!(run(&guarded, &root, &["token", "inspect"], "x.y").1, Some(2));
}
