//! Presence: who is subscribed to a topic, told in the log's order, true after a crash.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tidings::client::{self, Client};
use tidings_proto::{Filter, Filters, SubscribeOptions, subscribe::Presence};
use tokio::{sync::Notify, task::JoinSet};

use crate::util::{
    Broker, PATIENCE, eventually,
    http::{self, get},
    random::Random,
    sse::Sse,
    ws::{Socket, offsets},
};

const ROOM: &str = "rooms.1";
const NEWS: &str = "$presence.rooms.1";

/// A socket and the name of its session.
async fn session(broker: &Broker) -> (Socket, String) {
    let mut socket = Socket::open(&broker.public).await;
    let answer = socket.call("connect", json!({})).await;
    let session = answer["connected"]["session"].as_str().unwrap().to_owned();
    (socket, session)
}

/// A socket that is listed on the room with this data, the name of its session, and its subscription.
async fn member(broker: &Broker, data: Value) -> (Socket, String, Value) {
    let (mut socket, session) = session(broker).await;
    let options = json!({"filters": [ROOM], "presence": {"data": data}});
    let subscription = socket.subscribe(options).await["subscription"].clone();
    (socket, session, subscription)
}

/// A socket that reads the room and who comes and goes, from now on.
async fn watcher(broker: &Broker) -> Socket {
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"filters": [ROOM, NEWS]})).await;
    socket
}

async fn listed(broker: &Broker) -> Value {
    let answer = get(&broker.public, &format!("/v1/presence/{ROOM}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.json()
}

/// The sessions that are listed in the room.
async fn sessions(broker: &Broker) -> Vec<String> {
    let listed = listed(broker).await;
    let members = listed["members"].as_array().unwrap().clone();
    members.iter().map(|member| member["session"].as_str().unwrap().to_owned()).collect()
}

/// What an event says in short: `joined S`, `left S why`, or its data.
fn said(event: &Value) -> String {
    let data = &event["data"];
    let word = |name: &str| data[name].as_str().unwrap_or_else(|| panic!("no {name}: {event}"));
    match event["type"].as_str().unwrap() {
        "presence.joined" => format!("joined {}", word("session")),
        "presence.left" => format!("left {} {}", word("session"), word("reason")),
        _ => data.to_string(),
    }
}

/// Waits until the broker knows that a socket with one subscription has gone, of so many subscriptions before.
async fn gone(broker: &Broker, before: u64) {
    eventually("the subscription is gone", async || {
        let status = get(&broker.public, "/v1/status").await.json();
        status["subscriptions"]["ephemeral"] == before - 1
    })
    .await;
}

#[tokio::test]
async fn numbers_in_presence_data_keep_their_digits() {
    let broker = Broker::start();
    // As texts: whoever reads them as numbers may round them itself.
    let data = "[4.226819805803057e+103,7.983627106921452e-123,8.807131848421165e-51]";
    let mut socket = Socket::open(&broker.public).await;
    let subscribe = format!(
        "{{\"id\":1,\"subscribe\":{{\"filters\":[\"{ROOM}\"],\"presence\":{{\"data\":{data}}}}}}}"
    );
    socket.send_text(&subscribe).await;
    assert!(socket.answer(1).await["subscribed"].is_object());
    let listed = get(&broker.public, &format!("/v1/presence/{ROOM}")).await.text();
    assert!(listed.contains(data), "{listed}");
}

#[tokio::test]
async fn joins_and_leaves_stand_in_one_order_with_all_other_events() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker).await;
    let (mut bob, bob_name, subscription) = member(&broker, json!({"name": "Bob"})).await;
    assert_eq!(sessions(&broker).await, [&*bob_name], "an answered subscribe is listed");
    bob.publish(json!({"topic": ROOM, "data": 1})).await;
    // Who reads both sees its own join too.
    let (mut carol, carol_name) = session(&broker).await;
    carol.subscribe(json!({"filters": [NEWS, ROOM], "presence": {}})).await;
    let own = carol.take(1).await;
    assert_eq!(said(&own[0]), format!("joined {carol_name}"));
    assert_eq!(sessions(&broker).await, [bob_name.clone(), carol_name.clone()], "by their joins");

    bob.call("unsubscribe", json!({"subscription": subscription})).await;
    let events = watcher.take(4).await;
    carol.publish(json!({"topic": ROOM, "data": 2})).await;
    let events = [events, watcher.take(1).await].concat();
    assert_eq!(offsets(&events), [1, 2, 3, 4, 5]);
    let expected = [
        format!("joined {bob_name}"),
        "1".to_owned(),
        format!("joined {carol_name}"),
        format!("left {bob_name} left"),
        "2".to_owned(),
    ];
    assert_eq!(events.iter().map(said).collect::<Vec<_>>(), expected);
    let joined = &events[0];
    assert_eq!((&joined["topic"], &joined["key"]), (&json!(NEWS), &json!(bob_name)));
    assert_eq!(joined["data"]["subject"], "anonymous");
    assert_eq!(joined["data"]["data"], json!({"name": "Bob"}));
    assert_eq!(events[3]["data"]["since"], joined["data"]["since"]);
    assert_eq!(sessions(&broker).await, [carol_name]);
    let last = get(&broker.public, &format!("/v1/topics/{NEWS}/last?key={bob_name}")).await;
    assert_eq!(last.json()["type"], "presence.left", "the newest event of a key is its state");
    let mut late = Socket::open(&broker.public).await;
    late.subscribe(json!({"filters": [NEWS], "last_per_key": true})).await;
    assert_eq!(offsets(&late.take(2).await), [3, 4], "so one request gives list and news");
}

#[tokio::test]
async fn a_stream_is_listed_as_long_as_it_lasts() {
    let broker = Broker::with(&["--set", "limits.presence_grace=100ms"]);
    let mut watcher = watcher(&broker).await;
    let as_bob = "presence=%7B%22data%22:%7B%22name%22:%22Bob%22%7D%7D";
    let path = format!("/v1/topics/{ROOM}/events?{as_bob}");
    let stream = Sse::open(&broker.public, &path, &[]).await;
    let joined = watcher.take(1).await.remove(0);
    assert_eq!(joined["data"]["data"], json!({"name": "Bob"}));
    let bob = joined["key"].as_str().unwrap().to_owned();
    assert_eq!(sessions(&broker).await, [&*bob]);
    drop(stream);
    assert_eq!(said(&watcher.take(1).await[0]), format!("left {bob} gone"));

    // A stream of a durable, which has no data of its own to be listed with.
    let (path, put) = ("/v1/subscriptions/d", json!({"filters": [ROOM]}).to_string());
    let headers = [("content-type", "application/json")];
    http::request(&broker.public, Method::PUT, path, &headers, put.as_bytes()).await;
    let path = format!("/v1/subscriptions/d/events?{as_bob}");
    let _stream = Sse::open(&broker.public, &path, &[]).await;
    let joined = watcher.take(1).await.remove(0);
    assert_eq!(joined["data"]["data"], json!({"name": "Bob"}));
    for wrong in ["rooms.*/events?presence=%7B%7D", "rooms.1/events?presence=1"] {
        let path = format!("/v1/topics/{wrong}");
        let refused = Sse::open(&broker.public, &path, &[]).await;
        assert_eq!(refused.status, 400, "{wrong}");
    }
    assert_eq!(listed(&broker).await["members"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_list_is_the_same_over_every_door_and_says_where_its_news_begin() {
    let broker = Broker::start();
    let (mut alice, name, _) = member(&broker, json!({"n": 1.5, "deep": [[null]]})).await;
    let path = format!("/v1/presence/{ROOM}");
    let answer = get(&broker.public, &path).await;
    let over_http = answer.json();
    assert_eq!(over_http["topic"], ROOM);
    let member = &over_http["members"][0];
    assert_eq!((&member["session"], &member["subject"]), (&json!(name), &json!("anonymous")));
    assert_eq!(member["data"], json!({"n": 1.5, "deep": [[null]]}));
    assert!(member["since"].as_str().unwrap().ends_with('Z'), "{member}");
    let over_socket = alice.call("presence", json!({"topic": ROOM})).await;
    assert_eq!(over_socket["presence"], over_http);

    let output = broker.cli(&["presence", ROOM, "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), over_http);
    let output = broker.cli(&["presence", ROOM]).output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(line.starts_with("anonymous  ") && line.contains(&name), "{line}");
    assert_eq!(broker.cli(&["presence", "a.*"]).output().unwrap().status.code(), Some(2));

    // Nothing between the list and its news: the cursor of the answer is where they begin.
    let cursor = answer.header("tidings-cursor").to_owned();
    let (_bob, bob_name, _) = self::member(&broker, Value::Null).await;
    let news =
        get(&broker.public, &format!("/v1/topics/{NEWS}/events?after={cursor}")).await.json();
    let news: Vec<String> = news["events"].as_array().unwrap().iter().map(said).collect();
    assert_eq!(news, [format!("joined {bob_name}")]);
    assert!(listed(&broker).await["members"][1].get("data").is_none(), "no data is left out");

    let head = http::request(&broker.public, Method::HEAD, &path, &[], b"").await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(get(&broker.public, "/v1/presence/nobody").await.json()["members"], json!([]));
    let metrics = get(&broker.admin, "/metrics").await.text();
    for line in ["tidings_presence_members 2", "tidings_presence_joined_total 2"] {
        assert!(metrics.lines().any(|have| have == line), "no {line}\n{metrics}");
    }
}

#[tokio::test]
async fn who_comes_back_within_the_grace_has_never_left() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker).await;
    let (alice, name, _) = member(&broker, json!({"name": "Alice"})).await;
    let since = listed(&broker).await["members"][0]["since"].clone();
    drop(alice);
    gone(&broker, 2).await;
    assert_eq!(sessions(&broker).await, [&*name], "she is listed meanwhile");
    // Somebody else is no reason to take her for here.
    let (_bob, bob_name, _) = member(&broker, json!({"name": "Bob"})).await;
    let (mut alice, new_name, subscription) = member(&broker, json!({"name": "Alice"})).await;
    assert_ne!(new_name, name);
    alice.publish(json!({"topic": ROOM, "data": "back"})).await;
    let events = watcher.take(3).await;
    let expected = [format!("joined {name}"), format!("joined {bob_name}"), "\"back\"".to_owned()];
    assert_eq!(events.iter().map(said).collect::<Vec<_>>(), expected);
    let members = listed(&broker).await;
    assert_eq!(members["members"][0]["session"], name, "she keeps the name she joined with");
    assert_eq!(members["members"][0]["since"], since);
    // And leaves under it.
    alice.call("unsubscribe", json!({"subscription": subscription})).await;
    assert_eq!(said(&watcher.take(1).await[0]), format!("left {name} left"));
}

#[tokio::test]
async fn who_does_not_come_back_leaves_when_the_grace_is_over() {
    let broker = Broker::with(&["--set", "limits.presence_grace=200ms"]);
    let mut watcher = watcher(&broker).await;
    let (alice, name, _) = member(&broker, Value::Null).await;
    // Two subscriptions of one session are one member, and one that ends takes nobody away.
    let (mut bob, bob_name, first) = member(&broker, Value::Null).await;
    bob.subscribe(json!({"filters": [ROOM], "presence": {"data": null}})).await;
    bob.call("unsubscribe", json!({"subscription": first})).await;
    drop(alice);
    let events = watcher.take(3).await;
    let expected =
        [format!("joined {name}"), format!("joined {bob_name}"), format!("left {name} gone")];
    assert_eq!(events.iter().map(said).collect::<Vec<_>>(), expected);
    assert_eq!(sessions(&broker).await, [bob_name]);
    let metrics = get(&broker.admin, "/metrics").await.text();
    assert!(metrics.contains("tidings_presence_left_total{reason=\"gone\"} 1"), "{metrics}");
}

/// Alice and Bob are listed, the broker ends and begins again, and Alice alone comes back.
async fn over_a_restart(mut broker: Broker, end: impl FnOnce(&mut Broker)) {
    let (alice, alice_name, _) = member(&broker, json!({"name": "Alice", "x": 0.1})).await;
    let (bob, bob_name, _) = member(&broker, json!({"name": "Bob"})).await;
    let before = listed(&broker).await;
    end(&mut broker);
    drop((alice, bob));
    broker.restart();
    assert_eq!(listed(&broker).await, before, "the members are kept for a while");
    let (mut alice, _, subscription) = member(&broker, json!({"name": "Alice", "x": 0.1})).await;
    let mut watcher = Socket::open(&broker.public).await;
    watcher.subscribe(json!({"filters": [NEWS], "after": 0})).await;
    let events = watcher.take(3).await;
    let expected = [
        format!("joined {alice_name}"),
        format!("joined {bob_name}"),
        format!("left {bob_name} restart"),
    ];
    assert_eq!(events.iter().map(said).collect::<Vec<_>>(), expected);
    assert_eq!(events[2]["data"]["data"], json!({"name": "Bob"}));
    assert_eq!(sessions(&broker).await, [&*alice_name]);
    alice.call("unsubscribe", json!({"subscription": subscription})).await;
    assert_eq!(said(&watcher.take(1).await[0]), format!("left {alice_name} left"));
    assert!(sessions(&broker).await.is_empty());
}

const SOON: [&str; 4] =
    ["--set", "limits.presence_restart_grace=3s", "--set", "limits.presence_grace=100ms"];

#[tokio::test]
async fn g17_after_a_kill_who_is_not_back_leaves_and_who_is_has_never_left() {
    over_a_restart(Broker::with(&SOON), Broker::kill).await;
}

#[tokio::test]
async fn g17_after_a_stop_who_is_not_back_leaves_and_who_is_has_never_left() {
    let stop = |broker: &mut Broker| assert_eq!(broker.terminate().0, Some(0));
    over_a_restart(Broker::with(&SOON), stop).await;
}

#[tokio::test]
async fn a_ledger_that_is_lost_knows_the_members_from_the_log() {
    let mut broker = Broker::start();
    let (_alice, name, _) = member(&broker, Value::Null).await;
    let (mut bob, _, subscription) = member(&broker, json!("bob")).await;
    bob.call("unsubscribe", json!({"subscription": subscription})).await;
    eventually("bob has left", async || sessions(&broker).await.len() == 1).await;
    broker.terminate();
    std::fs::remove_dir_all(broker.dir.join("projections")).unwrap();
    broker.restart();
    assert_eq!(sessions(&broker).await, [name]);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_by_name() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let large = "x".repeat(1023);
    let deep: Value =
        serde_json::from_str(&format!("{}{}", "[".repeat(32), "]".repeat(32))).unwrap();
    for (options, field) in [
        (json!({"filters": ["rooms.*"], "presence": {}}), "presence: the filter rooms.*"),
        (json!({"filters": [ROOM, "a.>"], "presence": {}}), "presence: the filter a.>"),
        (json!({"filters": [NEWS], "presence": {}}), "presence: "),
        (json!({"filters": [ROOM], "presence": {"data": large}}), "presence.data: it has 1025"),
        (json!({"filters": [ROOM], "presence": {"data": deep}}), "presence.data: it is nested"),
        (json!({"filters": [ROOM], "presence": {"date": 1}}), "presence"),
        (json!({"filters": [ROOM], "presence": null}), "presence"),
        (json!({"filters": [NEWS], "durable": "d"}), "filters: $presence"),
    ] {
        let error = socket.refused("subscribe", options.clone()).await;
        assert_eq!(error["code"], "invalid_argument", "{options}: {error}");
        assert!(error["message"].as_str().unwrap().contains(field), "{options}: {error}");
    }
    let error = socket.refused("presence", json!({"topic": NEWS})).await;
    assert_eq!(error["code"], "invalid_argument", "{error}");
    for path in ["/v1/presence/a.*", "/v1/presence/$presence.a", "/v1/presence/a?limit=1"] {
        let answer = get(&broker.public, path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {}", answer.text());
    }
    let body = json!({"filters": [ROOM], "presence": {"data": 1}}).to_string();
    let put = http::request(
        &broker.public,
        Method::PUT,
        "/v1/subscriptions/d",
        &[("content-type", "application/json")],
        body.as_bytes(),
    )
    .await;
    assert_eq!(put.status, StatusCode::BAD_REQUEST, "{}", put.text());
    assert!(put.text().contains("presence: "), "{}", put.text());
    assert!(sessions(&broker).await.is_empty());
    let status = get(&broker.public, "/v1/status").await.json();
    assert_eq!(status["log"]["last"], 0, "nothing of it left a trace: {status}");

    let fits = json!({"filters": [ROOM], "presence": {"data": "x".repeat(1022)}});
    socket.subscribe(fits).await;
    let other = json!({"filters": ["rooms.2", ROOM], "presence": {"data": 1}});
    let error = socket.refused("subscribe", other).await;
    assert!(error["message"].as_str().unwrap().contains("presence.data: this session"), "{error}");
    assert_eq!(get(&broker.public, "/v1/presence/rooms.2").await.json()["members"], json!([]));
}

#[tokio::test]
async fn there_are_so_many_members_and_no_more_and_a_place_is_free_again() {
    let broker = Broker::with(&[
        "--set",
        "limits.presence_topic_members_max=2",
        "--set",
        "limits.presence_members_max=3",
    ]);
    let mut watcher = watcher(&broker).await;
    let (mut first, _, subscription) = member(&broker, json!(1)).await;
    let _second = member(&broker, json!(2)).await;
    let mut third = Socket::open(&broker.public).await;
    let on = |filters: Value| json!({"filters": filters, "presence": {"data": 3}});
    let error = third.refused("subscribe", on(json!([ROOM]))).await;
    assert_eq!(error["code"], "too_large", "{error}");
    assert!(error["message"].as_str().unwrap().contains("presence_topic_members_max"), "{error}");
    let error = third.refused("subscribe", on(json!(["a", "b"]))).await;
    assert!(error["message"].as_str().unwrap().contains("presence_members_max"), "{error}");
    third.subscribe(on(json!(["a"]))).await;
    first.call("unsubscribe", json!({"subscription": subscription})).await;
    watcher.take(3).await;
    third.subscribe(on(json!([ROOM]))).await;
    let joins = get(&broker.public, "/v1/topics/$presence.%3E/events").await.json();
    let topics: BTreeSet<&str> = joins["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["topic"].as_str().unwrap())
        .collect();
    assert_eq!(topics, BTreeSet::from(["$presence.a", NEWS]), "a refused subscribe joins nowhere");
}

#[tokio::test]
async fn who_reads_by_a_durable_is_listed_too() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker).await;
    let (mut alice, name) = session(&broker).await;
    let options = json!({"durable": "d", "filters": [ROOM], "presence": {"data": 1}});
    alice.subscribe(options.clone()).await;
    // What is taken over is not subscribed to any more.
    let (mut bob, bob_name) = session(&broker).await;
    let mut other = options.clone();
    other["presence"]["data"] = json!(2);
    bob.subscribe(other).await;
    let events = watcher.take(3).await;
    let expected =
        [format!("joined {name}"), format!("joined {bob_name}"), format!("left {name} left")];
    assert_eq!(events.iter().map(said).collect::<Vec<_>>(), expected);
    let state = get(&broker.public, "/v1/subscriptions/d").await.json();
    assert!(state["options"].get("presence").is_none(), "{state}");
    // The same durable without it is the same durable.
    bob.subscribe(json!({"durable": "d", "filters": [ROOM]})).await;
    assert_eq!(said(&watcher.take(1).await[0]), format!("left {bob_name} left"));
}

#[tokio::test]
async fn the_client_is_listed_again_by_itself() {
    let mut broker = Broker::start();
    let options = SubscribeOptions {
        presence: Some(Presence { data: json!({"name": "client"}) }),
        ..SubscribeOptions::to(Filters::one(Filter::parse(ROOM).unwrap()))
    };
    let client = Client::connect(client::Options::to(broker.url())).await.unwrap();
    let mut subscription = client.subscribe(options).await.unwrap();
    let before = listed(&broker).await;
    let name = sessions(&broker).await[0].clone();
    broker.kill();
    broker.restart();
    let mut watcher = watcher(&broker).await;
    watcher.publish(json!({"topic": ROOM, "data": "again"})).await;
    let came = async {
        loop {
            if let client::Delivery::Event { event, .. } = subscription.next().await.unwrap() {
                break event;
            }
        }
    };
    let event = tokio::time::timeout(PATIENCE, came).await.unwrap();
    assert_eq!(event.data.as_deref(), Some(&b"\"again\""[..]));
    assert_eq!(listed(&broker).await, before);
    subscription.unsubscribe().await.unwrap();
    let events = watcher.take(2).await;
    assert_eq!(said(&events[1]), format!("left {name} left"), "the client held its old place");
    assert_eq!(events[0]["data"], "again", "and nothing was said of that");
}

/// What those who come and go have done together.
#[derive(Default)]
struct Churn {
    steps: AtomicU64,
    /// Rings at every step.
    news: Notify,
    over: AtomicBool,
}

impl Churn {
    fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.news.notify_one();
    }

    async fn reach(&self, steps: u64) {
        while self.steps.load(Ordering::Relaxed) < steps {
            self.news.notified().await;
        }
    }
}

/// Subscribes, unsubscribes and hangs up at random, on three topics and with one of two data.
async fn come_and_go(address: String, churn: Arc<Churn>, client: u64) {
    let mut random = Random::new(client);
    while !churn.over.load(Ordering::Relaxed) {
        let Ok(mut socket) = Socket::try_open(&address, "/v1/ws", &[]).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let mut subscriptions = Vec::new();
        while random.below(8) > 0 && !churn.over.load(Ordering::Relaxed) {
            let answer = if random.below(3) > 0 || subscriptions.is_empty() {
                let filters = [format!("rooms.{}", random.below(3))];
                let options = json!({"filters": filters, "presence": {"data": client % 2}});
                socket.try_call("subscribe", options).await
            } else {
                let subscription: Value = subscriptions.swap_remove(0);
                socket.try_call("unsubscribe", json!({"subscription": subscription})).await
            };
            let Some(answer) = answer else { break };
            assert!(answer["error"].is_null(), "{answer}");
            if answer["subscribed"].is_object() {
                subscriptions.push(answer["subscribed"]["subscription"].clone());
            }
            churn.step();
        }
    }
}

/// The lists as they are now, each with its cursor: topic, cursor, sessions.
async fn lists(broker: &Broker) -> Vec<(String, u64, BTreeSet<String>)> {
    let mut lists = Vec::new();
    for n in 0..3 {
        let answer = get(&broker.public, &format!("/v1/presence/rooms.{n}")).await;
        let members = answer.json()["members"].as_array().unwrap().clone();
        let sessions = members.iter().map(|member| member["session"].as_str().unwrap().to_owned());
        let cursor = answer.header("tidings-cursor").parse().unwrap();
        lists.push((format!("$presence.rooms.{n}"), cursor, sessions.collect()));
    }
    lists
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g17_heavy_whoever_comes_and_goes_over_kills_every_list_is_what_the_log_says() {
    let mut broker = Broker::with(&[
        "--set",
        "limits.presence_grace=100ms",
        "--set",
        "limits.presence_restart_grace=300ms",
    ]);
    let churn = Arc::new(Churn::default());
    let mut clients = JoinSet::new();
    for client in 0..8 {
        clients.spawn(come_and_go(broker.public.clone(), churn.clone(), client));
    }
    let mut seen = Vec::new();
    for round in 1..=12 {
        churn.reach(round * 200).await;
        seen.extend(lists(&broker).await);
        if round % 4 == 0 {
            broker.kill();
            broker.restart();
            seen.extend(lists(&broker).await);
        }
    }
    churn.over.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    eventually("all have left", async || {
        lists(&broker).await.iter().all(|(_, _, sessions)| sessions.is_empty())
    })
    .await;

    let (mut after, mut left, mut restarts) = (0, 0, 0);
    let mut listed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    seen.sort_by_key(|(_, cursor, _)| *cursor);
    let mut seen = seen.into_iter().peekable();
    loop {
        let path = format!("/v1/events?topic=$presence.%3E&after={after}&limit=1000");
        let page = get(&broker.public, &path).await.json();
        for event in page["events"].as_array().unwrap() {
            let offset = event["offset"].as_u64().unwrap();
            while let Some((topic, cursor, sessions)) = seen.next_if(|seen| seen.1 < offset) {
                let expected = listed.get(&topic).cloned().unwrap_or_default();
                assert_eq!(sessions, expected, "{topic} as of {cursor}");
            }
            let topic = event["topic"].as_str().unwrap().to_owned();
            let session = event["data"]["session"].as_str().unwrap().to_owned();
            let there = listed.entry(topic).or_default();
            let is_new = match event["type"].as_str() {
                Some("presence.joined") => there.insert(session),
                _ => there.remove(&session),
            };
            assert!(is_new, "a join after a join, or a leave without one: {event}");
            left += u64::from(event["data"]["reason"] == "left");
            restarts += u64::from(event["data"]["reason"] == "restart");
        }
        after = page["cursor"].as_u64().unwrap();
        if after >= page["last"].as_u64().unwrap() {
            break;
        }
    }
    assert!(listed.values().all(BTreeSet::is_empty), "{listed:?}");
    assert!(seen.all(|(_, _, sessions)| sessions.is_empty()), "the lists after the last event");
    assert!(left > 0, "nobody unsubscribed");
    eprintln!("{left} unsubscribed, {restarts} did not come back after a start");
}
