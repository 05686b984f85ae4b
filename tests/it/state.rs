//! `last_per_key`: the state as of now, then everything after, in one request.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::util::{
    Broker, eventually, http,
    sse::Sse,
    ws::{Socket, offsets},
};

/// Events on `doc.1` and `doc.2` with the keys `k0` to `k2`, and some without; gives what is the newest of each.
async fn history(socket: &mut Socket, rounds: u64) -> Vec<u64> {
    let mut newest = BTreeMap::new();
    for n in 0..rounds {
        for (topic, key) in
            [("doc.1", Some(n % 3)), ("doc.2", Some(n % 2)), ("doc.2", None), ("other", Some(1))]
        {
            let mut event = json!({"topic": topic, "data": n});
            if let Some(key) = key {
                event["key"] = json!(format!("k{key}"));
            }
            let offset = socket.publish(event).await;
            if topic != "other" {
                newest.insert((topic, key), offset);
            }
        }
    }
    let mut offsets: Vec<u64> = newest.into_values().collect();
    offsets.sort_unstable();
    offsets
}

fn wish(more: Value) -> Value {
    let mut options = json!({"filters": ["doc.*"], "last_per_key": true});
    for (name, value) in more.as_object().unwrap() {
        options[name] = value.clone();
    }
    options
}

#[tokio::test]
async fn g3_the_newest_of_every_key_comes_first_and_then_all_that_follows() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let state = history(&mut publisher, 20).await;
    let mut socket = Socket::open(&broker.public).await;
    let subscribed = socket.subscribe(wish(json!({"batch_max": 2}))).await;
    let mut cursor = subscribed["cursor"].clone();
    let mut got = Vec::new();
    while got.len() < state.len() {
        let batch = socket.events().await;
        assert_eq!(batch["after"], cursor, "the batches are a chain");
        cursor = batch["cursor"].clone();
        got.extend(offsets(batch["events"].as_array().unwrap()));
    }
    assert_eq!(got, state);
    loop {
        if socket.push().await["caught_up"].is_object() {
            break;
        }
    }
    // All that follows, also what a newer one replaces.
    let mut follow = Vec::new();
    for _ in 0..3 {
        follow.push(publisher.publish(json!({"topic": "doc.1", "key": "k0"})).await);
    }
    assert_eq!(offsets(&socket.take(3).await), follow);

    // Whoever goes away in the middle of the state goes on by the cursor alone.
    let mut other = Socket::open(&broker.public).await;
    let first = &got[..2];
    let after = *first.last().unwrap();
    other.subscribe(json!({"filters": ["doc.*"], "after": after})).await;
    let rest = other.take(state.len() - 2 + 3).await;
    let rest = offsets(&rest);
    assert!(state[2..].iter().all(|offset| rest.contains(offset)));
}

#[tokio::test]
async fn what_is_not_wanted_or_has_expired_is_no_state() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let kept = publisher.publish(json!({"topic": "doc.1", "key": "a", "type": "state"})).await;
    publisher.publish(json!({"topic": "doc.1", "key": "a", "type": "noise"})).await;
    let expired =
        json!({"topic": "doc.1", "key": "b", "type": "state", "expires": "2001-01-01T00:00:00Z"});
    publisher.publish(expired).await;
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(wish(json!({"types": ["state"]}))).await;
    assert_eq!(offsets(&socket.take(1).await), [kept]);
    assert!(socket.expect("caught_up").await["cursor"].as_u64() >= Some(kept));
}

#[tokio::test]
async fn a_durable_is_given_the_state_once_also_over_a_kill_and_by_fetches() {
    let mut broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let state = history(&mut publisher, 20).await;
    let options =
        json!({"filters": ["doc.*"], "last_per_key": true, "durable": "d", "batch_max": 2});
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(options.clone()).await;
    assert_eq!(offsets(&socket.take(2).await), state[..2]);
    let answer = socket.call("ack", json!({"subscription": 1, "offset": state[1]})).await;
    assert_eq!(answer["acked"]["cursor"], state[1]);
    broker.kill();
    broker.restart();
    let mut publisher = Socket::open(&broker.public).await;
    let later = publisher.publish(json!({"topic": "doc.1", "key": "k0"})).await;
    let body = json!({"limit": 2});
    let fetched = http::post_json(&broker.public, "/v1/subscriptions/d/fetch", &body).await.json();
    let fetched = offsets(fetched["events"].as_array().unwrap());
    // The newest of that key is above what was the state: it comes in its turn.
    let left: Vec<u64> = {
        let replaced =
            http::get(&broker.public, "/v1/topics/doc.1/events?after=0&limit=1000").await;
        let events = replaced.json()["events"].as_array().unwrap().clone();
        let of_key = events.iter().filter(|event| event["key"] == "k0");
        let old = offsets(&of_key.cloned().collect::<Vec<_>>());
        state[2..].iter().copied().filter(|offset| !old.contains(offset)).collect()
    };
    assert_eq!(fetched, left[..2]);
    let body = json!({"offset": fetched[1]});
    let acked = http::post_json(&broker.public, "/v1/subscriptions/d/ack", &body).await;
    assert_eq!(acked.status, 200, "{}", acked.text());
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(options).await;
    let rest = offsets(&socket.take(left.len() - 2 + 1).await);
    assert_eq!(rest, [&left[2..], &[later]].concat());
}

#[tokio::test]
async fn a_stream_has_it_too_and_resumes_without() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let state = history(&mut publisher, 10).await;
    let path = "/v1/topics/doc.*/events?last_per_key=true";
    let mut stream = Sse::open(&broker.public, path, &[]).await;
    let mut got = Vec::new();
    while got.len() < state.len() {
        got.push(stream.event().await.unwrap().json()["offset"].as_u64().unwrap());
    }
    assert_eq!(got, state);
    let last = state.last().unwrap().to_string();
    let mut again = Sse::open(&broker.public, path, &[("last-event-id", &last)]).await;
    let next = publisher.publish(json!({"topic": "doc.1", "key": "k0"})).await;
    assert_eq!(again.event().await.unwrap().json()["offset"], next);
}

#[tokio::test]
async fn what_contradicts_it_is_refused_by_name() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    for more in [
        json!({"after": 0}),
        json!({"since": "2026-01-01T00:00:00Z"}),
        json!({"durable": "d", "start": "first"}),
        json!({"durable": "d", "mode": "mirror"}),
    ] {
        let error = socket.refused("subscribe", wish(more)).await;
        assert_eq!(error["code"], "invalid_argument");
        assert!(error["message"].as_str().unwrap().starts_with("last_per_key: "), "{error}");
    }
    let since = "/v1/topics/a/events?last_per_key=true&since=2026-01-01T00:00:00Z";
    let read = http::get(&broker.public, since).await;
    assert_eq!(read.status, 400);
    assert!(read.json()["detail"].as_str().unwrap().starts_with("last_per_key: "));
}

#[tokio::test]
async fn g3_pages_of_a_state_give_the_newest_of_every_key() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let mut state = history(&mut publisher, 20).await;
    let page = async |more: &str| {
        let path = format!("/v1/topics/doc.*/events?last_per_key=true{more}");
        http::get(&broker.public, &path).await.json()
    };
    let first = page("&limit=2").await;
    let mut got = offsets(first["events"].as_array().unwrap());
    assert_eq!((&got[..], &first["cursor"]), (&state[..2], &json!(state[1])));
    // One that was given, and one that is still to be given, are replaced between two pages: each comes once more or once.
    let mut replaced = Vec::new();
    for at in [state[0], state[3]] {
        let event = http::get(&broker.public, &format!("/v1/events/{at}")).await.json();
        let newer = json!({"topic": event["topic"], "key": event["key"], "data": "newer"});
        replaced.push(publisher.publish(newer).await);
    }
    state.remove(3);
    state.extend(&replaced);
    let mut after = first["cursor"].clone();
    loop {
        let next = page(&format!("&limit=2&after={after}")).await;
        got.extend(offsets(next["events"].as_array().unwrap()));
        after = next["cursor"].clone();
        if after == next["last"] {
            break;
        }
    }
    assert_eq!(got, state);
    // With nothing there it waits, and what comes is its state.
    let rest = format!("&after={after}&wait=10s");
    let (waited, placed) =
        tokio::join!(page(&rest), publisher.publish(json!({"topic": "doc.1", "key": "k0"})),);
    assert_eq!(offsets(waited["events"].as_array().unwrap()), [placed]);
}

#[tokio::test]
async fn states_that_are_being_given_out_have_a_room_together() {
    let broker = Broker::with(&["--set", "limits.state_slots=1000"]);
    let mut publisher = Socket::open(&broker.public).await;
    let event = |n: u64| json!({"topic": "doc.1", "key": format!("k{n}"), "data": "x".repeat(500)});
    let events: Vec<Value> = (0..600).map(event).collect();
    publisher.call("publish_batch", json!({"events": events})).await;
    // Takes two minutes to be given out.
    let mut slow = Socket::open(&broker.public).await;
    slow.subscribe(wish(json!({"batch_max": 1, "max_bytes_per_second": 5000}))).await;
    slow.take(1).await;
    let mut other = Socket::open(&broker.public).await;
    for more in [json!({}), json!({"durable": "d"})] {
        let error = other.refused("subscribe", wish(more)).await;
        assert_eq!((&error["code"], &error["retryable"]), (&json!("unavailable"), &json!(true)));
        assert!(error["retry_after_ms"].as_u64() > Some(0), "{error}");
        assert!(error["message"].as_str().unwrap().contains("limits.state_slots"), "{error}");
    }
    let path = "/v1/topics/doc.*/events?last_per_key=true";
    assert_eq!(Sse::open(&broker.public, path, &[]).await.status, 503);
    let none = json!({"filters": ["nothing"], "last_per_key": true});
    assert!(other.subscribe(none).await["cursor"].is_u64(), "a small one has room");
    drop(slow);
    let has_room = async || Sse::open(&broker.public, path, &[]).await.status == 200;
    eventually("there is room again", has_room).await;
    // Once it has been given out, its room is another's, though the subscription lasts.
    let mut lasting = Vec::new();
    for _ in 0..3 {
        let mut socket = Socket::open(&broker.public).await;
        let begun = async || {
            let answer = socket.call("subscribe", wish(json!({}))).await;
            answer["subscribed"].is_object()
        };
        eventually("it has room", begun).await;
        assert_eq!(socket.take(600).await.len(), 600);
        socket.expect("caught_up").await;
        lasting.push(socket);
    }
}
