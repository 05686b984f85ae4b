//! `order: "priority"`: higher priorities first, and nothing waits for ever.

use serde_json::{Value, json};

use crate::util::{
    Broker, http,
    ws::{Socket, offsets},
};

async fn publish(socket: &mut Socket, priority: &str, count: usize) -> Vec<u64> {
    publish_with(socket, priority, count, json!({})).await
}

async fn publish_with(socket: &mut Socket, priority: &str, count: usize, data: Value) -> Vec<u64> {
    let event = json!({"topic": "jobs", "priority": priority, "data": data});
    let mut all = Vec::new();
    for part in vec![event; count].chunks(1000) {
        let answer = socket.call("publish_batch", json!({ "events": part })).await;
        let results = answer["published_batch"]["results"].as_array().unwrap();
        all.extend(results.iter().map(|result| result["offset"].as_u64().unwrap()));
    }
    all
}

/// The first `count` of these lanes: higher ones first, and every sixteenth the oldest.
fn in_turn(lanes: &[&[u64]], count: usize) -> Vec<u64> {
    let mut waiting: Vec<u64> = lanes.concat();
    let next = |nth: usize| {
        let oldest = waiting.iter().position(|offset| Some(offset) == waiting.iter().min());
        waiting.remove(if nth.is_multiple_of(16) { oldest.unwrap() } else { 0 })
    };
    (1..=count).map(next).collect()
}

async fn attach(broker: &Broker, more: Value) -> Socket {
    let mut options =
        json!({"durable": "d", "filters": ["jobs"], "start": "first", "order": "priority"});
    for (name, value) in more.as_object().unwrap() {
        options[name] = value.clone();
    }
    let mut socket = Socket::open(&broker.public).await;
    assert_eq!(socket.subscribe(options).await["durable"], "d");
    socket
}

async fn ack(socket: &mut Socket, offsets: &[u64]) {
    let answer = socket.call("ack", json!({"subscription": 1, "offsets": offsets})).await;
    assert!(answer["acked"].is_object(), "{answer}");
}

/// Asks the durable over HTTP.
async fn post(broker: &Broker, call: &str, body: Value) -> Value {
    let path = format!("/v1/subscriptions/d/{call}");
    http::post_json(&broker.public, &path, &body).await.json()
}

#[tokio::test]
async fn g3_higher_priorities_overtake_a_backlog_and_every_sixteenth_is_the_oldest() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let low = publish(&mut publisher, "low", 5000).await;
    let normal = publish(&mut publisher, "normal", 20).await;
    let urgent = publish(&mut publisher, "urgent", 40).await;
    let mut socket = attach(&broker, json!({"max_in_flight": 100})).await;
    let mut got = Vec::new();
    while got.len() < 100 {
        let batch = socket.events().await;
        assert!(batch["after"].is_null() && batch["cursor"].is_null(), "{batch}");
        got.extend(offsets(batch["events"].as_array().unwrap()));
    }
    assert_eq!(got, in_turn(&[&urgent, &normal, &low], 100));
    // One that is urgent comes next, whatever waits.
    let now = publish(&mut publisher, "urgent", 1).await;
    ack(&mut socket, &got[..1]).await;
    assert_eq!(offsets(&socket.take(1).await), now);
}

#[tokio::test]
async fn g3_at_a_rate_batches_are_small_keep_the_order_and_let_what_is_urgent_overtake() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let kilobyte = || json!("x".repeat(1000));
    let low = publish_with(&mut publisher, "low", 200, kilobyte()).await;
    let normal = publish_with(&mut publisher, "normal", 5, kilobyte()).await;
    let urgent = publish_with(&mut publisher, "urgent", 40, kilobyte()).await;
    let mut socket = attach(&broker, json!({"max_bytes_per_second": 40_000})).await;
    let mut got = Vec::new();
    // A quarter of a second has 10,000 bytes.
    let next = async |socket: &mut Socket| {
        let batch = offsets(socket.events().await["events"].as_array().unwrap());
        assert!(batch.len() <= 10, "{} events of a kilobyte in a batch", batch.len());
        batch
    };
    while got.len() < 60 {
        got.extend(next(&mut socket).await);
    }
    assert_eq!(got, in_turn(&[&urgent, &normal, &low], got.len()));
    // Low ones wait for four seconds more. At most one batch is on its way.
    let now = publish(&mut publisher, "urgent", 1).await;
    let on_its_way = next(&mut socket).await;
    assert!(on_its_way.contains(&now[0]) || next(&mut socket).await.contains(&now[0]));
}

#[tokio::test]
async fn what_comes_again_has_its_lane_over_a_change_of_options() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let low = publish(&mut publisher, "low", 40).await;
    let put = async |more: Value| {
        let mut options = json!({"filters": ["jobs"], "start": "first"});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = http::put_json(&broker.public, "/v1/subscriptions/d", &options).await;
        assert!(answer.status.is_success(), "{}", answer.text());
    };
    // All there is, with whoever asks: what comes again and what is new are two answers.
    let fetch_all = async || {
        let mut all = Vec::new();
        loop {
            let answer = post(&broker, "fetch", json!({"limit": 100})).await;
            let some = offsets(answer["events"].as_array().unwrap());
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    };
    let mut urgent = Vec::new();
    for (nth, more) in [
        json!({}),
        // From the order of the log to lanes, from lanes to lanes, and back.
        json!({"order": "priority"}),
        json!({"order": "priority", "max_in_flight": 999}),
        json!({"order": "priority", "ack_wait_ms": 60_000}),
    ]
    .into_iter()
    .enumerate()
    {
        put(more).await;
        if nth > 0 {
            urgent.extend(publish(&mut publisher, "urgent", 1).await);
        }
        assert_eq!(fetch_all().await, in_turn(&[&urgent, &low], 40 + nth), "change {nth}");
    }
    put(json!({})).await;
    assert_eq!(fetch_all().await, [low, urgent].concat());
}

#[tokio::test]
async fn g3_nothing_is_lost_or_repeated_over_kills() {
    let mut broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let mut all = Vec::new();
    for (priority, count) in
        [("low", 60), ("high", 50), ("normal", 70), ("urgent", 30), ("low", 40)]
    {
        all.extend(publish(&mut publisher, priority, count).await);
    }
    all.sort_unstable();
    let mut done = Vec::new();
    while done.len() < all.len() {
        let mut socket = attach(&broker, json!({"max_in_flight": 40})).await;
        let mut batch = socket.take(20.min(all.len() - done.len())).await;
        batch.truncate(20);
        let batch = offsets(&batch);
        for offset in &batch {
            assert!(!done.contains(offset), "{offset} was acknowledged");
        }
        ack(&mut socket, &batch).await;
        done.extend(batch);
        broker.kill();
        broker.restart();
    }
    done.sort_unstable();
    assert_eq!(done, all);
    let state = http::get(&broker.public, "/v1/subscriptions/d").await.json();
    assert_eq!(state["lag"], 0, "{state}");
}

#[tokio::test]
async fn what_comes_again_has_its_lane_and_fetches_and_members_have_lanes_too() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let urgent = publish(&mut publisher, "urgent", 1).await;
    let normal = publish(&mut publisher, "normal", 3).await;
    let mut socket = attach(&broker, json!({"max_in_flight": 2})).await;
    assert_eq!(offsets(&socket.take(2).await), [urgent[0], normal[0]]);
    let nack = json!({"subscription": 1, "offsets": [urgent[0]], "delay_ms": 0});
    assert!(socket.call("nack", nack).await["nacked"].is_object());
    ack(&mut socket, &normal[..1]).await;
    let batch = socket.events().await;
    assert_eq!(batch["events"][0]["offset"], urgent[0]);
    assert_eq!(batch["attempts"][urgent[0].to_string()], 2);
    drop(socket);
    let fetch = async |limit: u64| {
        let body = json!({ "limit": limit });
        let answer = http::post_json(&broker.public, "/v1/subscriptions/d/fetch", &body).await;
        offsets(answer.json()["events"].as_array().unwrap())
    };
    let high = publish(&mut publisher, "high", 1).await;
    // What the socket had comes again, in its lane; it takes all the room, so nothing new comes before.
    assert_eq!(fetch(1).await, urgent);
    assert_eq!(fetch(1).await, normal[1..2]);
    assert_eq!(fetch(1).await, [0; 0]);
    let done = json!({ "offsets": urgent });
    let answer = http::post_json(&broker.public, "/v1/subscriptions/d/ack", &done).await;
    assert_eq!(answer.status, 200);
    assert_eq!(fetch(1).await, high);
    let refused =
        http::post_json(&broker.public, "/v1/subscriptions/d/ack", &json!({"offset": high[0]}))
            .await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.json()["detail"].as_str().unwrap().starts_with("offset: "),
        "{}",
        refused.text()
    );
}

#[tokio::test]
async fn what_comes_again_has_its_turn_as_the_oldest() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let low = publish(&mut publisher, "low", 1).await;
    drop(attach(&broker, json!({})).await);
    let fetch = async || {
        offsets(post(&broker, "fetch", json!({"limit": 1})).await["events"].as_array().unwrap())
    };
    assert_eq!(fetch().await, low);
    post(&broker, "nack", json!({"offsets": low, "delay_ms": 0})).await;
    publish(&mut publisher, "urgent", 40).await;
    for nth in 1.. {
        assert!(nth <= 16, "it has not come");
        let got = fetch().await;
        post(&broker, "ack", json!({"offsets": got})).await;
        if got == low {
            break;
        }
    }
}

#[tokio::test]
async fn what_is_urgent_and_comes_again_and_again_holds_up_nobody_for_ever() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let low = publish(&mut publisher, "low", 1).await;
    let urgent = publish(&mut publisher, "urgent", 1).await;
    drop(attach(&broker, json!({})).await);
    for nth in 1.. {
        assert!(nth <= 17, "it has not come");
        let fetched = post(&broker, "fetch", json!({"limit": 1})).await;
        let got = offsets(fetched["events"].as_array().unwrap());
        if got == low {
            break;
        }
        assert_eq!(got, urgent);
        post(&broker, "nack", json!({"offsets": got, "delay_ms": 0})).await;
    }
}

#[tokio::test]
async fn members_share_lanes() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let low = publish(&mut publisher, "low", 100).await;
    let high = publish(&mut publisher, "high", 10).await;
    let options = json!({"max_in_flight": 20, "mode": "shared"});
    let mut first = attach(&broker, options.clone()).await;
    let mut got = offsets(&first.take(20).await);
    assert!(high.iter().all(|offset| got.contains(offset)));
    let mut second = attach(&broker, options).await;
    ack(&mut first, &got).await;
    while got.len() < 110 {
        let (batch, socket) = tokio::select! {
            batch = first.events() => (batch, &mut first),
            batch = second.events() => (batch, &mut second),
        };
        let batch = offsets(batch["events"].as_array().unwrap());
        ack(socket, &batch).await;
        got.extend(batch);
    }
    got.sort_unstable();
    assert_eq!(got, [low, high].concat());
}

#[tokio::test]
async fn what_contradicts_lanes_is_refused_by_name() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    for (more, field) in [
        (json!({"durable": "d", "mode": "mirror"}), "mode"),
        (json!({"durable": "d", "mode": "shared", "partition_by": "key"}), "partition_by"),
        (json!({"durable": "d", "conflate_ms": 5}), "conflate_ms"),
        (json!({"durable": "d", "linger_ms": 5}), "linger_ms"),
        (json!({"durable": "d", "last_per_key": true}), "last_per_key"),
        (json!({}), "order"),
    ] {
        let mut options = json!({"filters": ["a"], "order": "priority"});
        for (name, value) in more.as_object().unwrap() {
            options[name] = value.clone();
        }
        let error = socket.refused("subscribe", options).await;
        assert_eq!(error["code"], "invalid_argument");
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
    }
}

#[tokio::test]
async fn a_lease_that_ends_with_every_share_full_comes_again() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let only = publish(&mut publisher, "normal", 1).await;
    let options = json!({"mode": "shared", "max_in_flight": 1, "ack_wait_ms": 100});
    let mut socket = attach(&broker, options).await;
    assert_eq!(offsets(&socket.take(1).await), only);
    // It does nothing with it, and has no room for more: the same one comes again all the same.
    for attempt in 2..=3 {
        let batch = socket.events().await;
        assert_eq!(batch["attempts"][only[0].to_string()], attempt);
    }
    ack(&mut socket, &only).await;
}
