//! Ephemeral subscriptions on sockets: where they begin, what they match, and that nothing is lost.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};

use crate::util::{
    Broker,
    random::Random,
    ws::{Socket, inboxes, offsets},
};

fn datas(events: &[Value]) -> Vec<&Value> {
    events.iter().map(|event| &event["data"]).collect()
}

#[tokio::test]
async fn a_subscription_begins_where_it_was_asked_to() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let log = socket.call("connect", json!({})).await["connected"]["log"].clone();
    let short = &log.as_str().unwrap()[..8];
    for n in 1..=5 {
        socket.publish(json!({"topic": "a", "data": n})).await;
    }
    let third = crate::util::http::get(&broker.public, "/v1/events/3").await.json();
    for (options, cursor, expected) in [
        (json!({"after": 0}), 0, vec![1, 2, 3, 4, 5]),
        (json!({"after": 3}), 3, vec![4, 5]),
        (json!({"after": 3, "log": log}), 3, vec![4, 5]),
        (json!({"after": 3, "log": short}), 3, vec![4, 5]),
        (json!({"after": format!("3@{short}")}), 3, vec![4, 5]),
        (json!({"after": "3"}), 3, vec![4, 5]),
        (json!({"after": 5}), 5, vec![]),
        (json!({}), 5, vec![]),
        (json!({"since": "2001-01-01T00:00:00Z"}), 0, vec![1, 2, 3, 4, 5]),
        (json!({"since": "2999-01-01T00:00:00Z"}), 5, vec![]),
    ] {
        let mut options = options;
        options["filters"] = json!(["a"]);
        let mut socket = Socket::open(&broker.public).await;
        let subscribed = socket.subscribe(options.clone()).await;
        assert_eq!(subscribed, json!({"subscription": 1, "cursor": cursor}), "{options}");
        if !expected.is_empty() {
            let batch = socket.expect("events").await;
            assert_eq!(offsets(batch["events"].as_array().unwrap()), expected, "{options}");
            assert_eq!((&batch["after"], &batch["cursor"]), (&json!(cursor), &json!(5)));
        }
        let caught_up = socket.expect("caught_up").await;
        assert_eq!(caught_up, json!({"subscription": 1, "cursor": 5}), "{options}");
    }
    let mut since = Socket::open(&broker.public).await;
    since.subscribe(json!({"filters": ["a"], "since": third["time"]})).await;
    let got = offsets(&since.take(1).await);
    assert!(got[0] <= 3 && got.contains(&3) && got.last() == Some(&5), "since its time: {got:?}");

    let mut now = Socket::open(&broker.public).await;
    now.subscribe(json!({"filters": ["a"]})).await;
    now.expect("caught_up").await;
    socket.publish(json!({"topic": "a", "data": 6})).await;
    let batch = now.expect("events").await;
    assert_eq!((&batch["after"], &batch["cursor"]), (&json!(5), &json!(6)));
    assert_eq!(offsets(batch["events"].as_array().unwrap()), [6]);
}

#[tokio::test]
async fn wildcards_match_tokens_and_never_the_brokers_own_topics() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let topics = ["a", "b", "a.b", "a.c", "b.b", "a.b.c", "a.b.c.d", "A.b", "a.b-c"];
    // Making a durable writes an event of the broker's own.
    socket.subscribe(json!({"filters": ["none"], "durable": "d"})).await;
    for topic in topics {
        socket.publish(json!({ "topic": topic })).await;
    }
    for (filters, expected) in [
        (vec!["a"], vec!["a"]),
        (vec!["*"], vec!["a", "b"]),
        (vec![">"], topics.to_vec()),
        (vec!["a.*"], vec!["a.b", "a.c", "a.b-c"]),
        (vec!["*.b"], vec!["a.b", "b.b", "A.b"]),
        (vec!["a.>"], vec!["a.b", "a.c", "a.b.c", "a.b.c.d", "a.b-c"]),
        (vec!["*.*.>"], vec!["a.b.c", "a.b.c.d"]),
        (vec!["a.*.c"], vec!["a.b.c"]),
        (vec!["*.b.>"], vec!["a.b.c", "a.b.c.d"]),
        (vec!["x", "b"], vec!["b"]),
        // Several that overlap deliver once.
        (
            vec!["a.>", "a.*", "*.b", "a.b"],
            vec!["a.b", "a.c", "b.b", "a.b.c", "a.b.c.d", "A.b", "a.b-c"],
        ),
        (vec![">", "a", "*"], topics.to_vec()),
    ] {
        let mut reader = Socket::open(&broker.public).await;
        reader.subscribe(json!({"filters": filters, "after": 0})).await;
        let end = "end.of.the.list.of.topics.of.this.test";
        let mut events = Vec::new();
        reader.subscribe(json!({"filters": [end]})).await;
        loop {
            let message = reader.push().await;
            if message["caught_up"]["subscription"] == 1 {
                break;
            }
            if let Some(batch) = message["events"]["events"].as_array() {
                events.extend(batch.iter().map(|event| event["topic"].clone()));
            }
        }
        assert_eq!(events, expected, "{filters:?}");
        let text = filters.iter().map(|f| f.replace('>', "%3E")).collect::<Vec<_>>();
        let path = format!("/v1/events?after=0&topic={}", text.join("&topic="));
        let read = crate::util::http::get(&broker.public, &path).await.json();
        let read: Vec<_> = read["events"].as_array().unwrap().iter().map(|e| &e["topic"]).collect();
        assert_eq!(read, expected, "{filters:?} over HTTP");
    }
}

#[tokio::test]
async fn types_priorities_and_content_types_select() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let events = json!([
        {"topic": "a", "data": 1},
        {"topic": "a", "data": 2, "type": "task.started", "priority": "low"},
        {"topic": "a", "data": 3, "type": "task.done", "priority": "high"},
        {"topic": "a", "data": 4, "type": "taskless", "priority": "urgent"},
        {"topic": "a", "data": 5, "type": "task", "priority": "normal"},
        {"topic": "a", "data": "6", "datacontenttype": "text/plain"},
        {"topic": "a", "data": "7", "datacontenttype": "text/html; charset=utf-8"},
        {"topic": "a", "data": "end", "type": "task.done", "priority": "urgent",
         "datacontenttype": "text/plain"},
    ]);
    socket.call("publish_batch", json!({ "events": events })).await;
    for (options, expected) in [
        (json!({"types": ["task.*"]}), vec![json!(2), json!(3)]),
        (json!({"types": ["task.done"]}), vec![json!(3)]),
        (json!({"types": ["task", "task.done"]}), vec![json!(3), json!(5)]),
        (
            json!({"types": ["message", "task.done"]}),
            vec![json!(1), json!(3), json!("6"), json!("7")],
        ),
        (json!({"min_priority": "high"}), vec![json!(3), json!(4)]),
        (json!({"min_priority": "urgent"}), vec![json!(4)]),
        (
            json!({"min_priority": "normal"}),
            vec![json!(1), json!(3), json!(4), json!(5), json!("6"), json!("7")],
        ),
        (json!({"min_priority": "high", "types": ["task.*"]}), vec![json!(3)]),
        (json!({"content_types": ["text/*"]}), vec![json!("6"), json!("7")]),
        (json!({"content_types": ["text/plain"]}), vec![json!("6")]),
    ] {
        let mut options = options;
        options["filters"] = json!(["a"]);
        options["after"] = json!(0);
        let mut reader = Socket::open(&broker.public).await;
        reader.subscribe(options.clone()).await;
        let mut events = Vec::new();
        while events.last().is_none_or(|event: &Value| event["data"] != "end") {
            events.extend(reader.take(1).await);
        }
        events.pop();
        let expected: Vec<_> = expected.iter().collect();
        assert_eq!(datas(&events), expected, "{options}");
    }
}

#[tokio::test]
async fn g3_batches_are_chained_while_others_publish() {
    const EACH: u64 = 400;
    let broker = Broker::start();
    let mut reader = Socket::open(&broker.public).await;
    reader.subscribe(json!({"filters": ["even.*"]})).await;
    let mut publishers = tokio::task::JoinSet::new();
    for who in 0..4 {
        let address = broker.public.clone();
        publishers.spawn(async move {
            let mut socket = Socket::open(&address).await;
            for n in 0..EACH {
                let topic = if n % 2 == 0 { "even" } else { "odd" };
                let event = json!({"topic": format!("{topic}.{who}"), "data": n});
                socket.start("publish", event).await;
            }
            let mut mine = Vec::new();
            for n in 0..EACH {
                let answer = socket.next().await.unwrap();
                if n % 2 == 0 {
                    mine.push((answer["published"]["offset"].as_u64().unwrap(), who, n));
                }
            }
            mine
        });
    }
    let mut cursor = 0;
    let mut got = Vec::new();
    while got.len() < 800 {
        let message = reader.push().await;
        if message["caught_up"].is_object() {
            assert_eq!(message["caught_up"]["cursor"], cursor);
            continue;
        }
        let batch = &message["events"];
        assert_eq!(batch["after"], cursor, "the chain is broken: {batch}");
        let next = batch["cursor"].as_u64().unwrap();
        assert!(next > cursor, "{batch}");
        for event in batch["events"].as_array().unwrap() {
            let offset = event["offset"].as_u64().unwrap();
            assert!(offset > cursor && offset <= next, "{offset} is not in ({cursor}, {next}]");
            cursor = offset;
            let who = event["topic"].as_str().unwrap().split('.').nth(1).unwrap();
            got.push((offset, who.parse::<u64>().unwrap(), event["data"].as_u64().unwrap()));
        }
        cursor = next;
    }
    let mut published: Vec<_> = publishers.join_all().await.into_iter().flatten().collect();
    published.sort_unstable();
    assert_eq!(got, published);
}

#[tokio::test]
async fn caught_up_is_said_once() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    for n in 0..300 {
        socket.start("publish", json!({"topic": "a", "data": n})).await;
    }
    for _ in 0..300 {
        socket.next().await;
    }
    let mut reader = Socket::open(&broker.public).await;
    reader.subscribe(json!({"filters": ["a"], "after": 0, "batch_max": 7})).await;
    let mut backlog = 0;
    loop {
        let message = reader.push().await;
        if let Some(caught_up) = message["caught_up"].as_object() {
            assert_eq!(caught_up["cursor"], 300);
            break;
        }
        let batch = message["events"]["events"].as_array().unwrap();
        assert!((1..=7).contains(&batch.len()), "{message}");
        backlog += batch.len();
    }
    assert_eq!(backlog, 300);
    for n in 0..20 {
        socket.publish(json!({"topic": "a", "data": n})).await;
        let message = reader.push().await;
        assert_eq!(message["events"]["events"][0]["data"], n, "{message}");
    }
    assert!(reader.so_far().await.is_empty());
}

#[tokio::test]
async fn g4_a_cursor_of_another_log_or_above_the_last_event_is_a_gap() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let log = socket.call("connect", json!({})).await["connected"]["log"].clone();
    for (events, cases) in [
        (0, vec![json!({"after": 1})]),
        (
            3,
            vec![
                json!({"after": 4}),
                json!({"after": 9_007_199_254_740_991_u64}),
                json!({"after": 2, "log": "00000000-0000-4000-8000-000000000000"}),
                json!({"after": "2@00000000"}),
                json!({"after": 9, "log": log}),
            ],
        ),
    ] {
        for n in 0..events {
            socket.publish(json!({"topic": "a", "data": n})).await;
        }
        for options in cases {
            let mut options = options;
            options["filters"] = json!(["a"]);
            let mut reader = Socket::open(&broker.public).await;
            reader.subscribe(options.clone()).await;
            let gap = reader.expect("gap").await;
            let requested = match &options["after"] {
                Value::String(text) => json!(text[..1].parse::<u64>().unwrap()),
                number => number.clone(),
            };
            let expected = json!({
                "subscription": 1, "requested": requested, "first": 1, "last": events,
                "log": log, "reason": "log_changed",
            });
            assert_eq!(gap, expected, "{options}");
            if events > 0 {
                let batch = reader.expect("events").await;
                assert_eq!(offsets(batch["events"].as_array().unwrap()), [1, 2, 3], "{options}");
            }
            reader.expect("caught_up").await;

            options["on_gap"] = json!("error");
            let error = reader.refused("subscribe", options.clone()).await;
            assert_eq!(error["code"], "offset_gone", "{options}");
            assert_eq!(
                (&error["first"], &error["last"], &error["log"]),
                (&json!(1), &json!(events), &log),
                "{error}"
            );
        }
    }
    let mut reader = Socket::open(&broker.public).await;
    let options = json!({"filters": ["a"], "after": 0, "on_gap": "error"});
    assert_eq!(reader.subscribe(options).await["cursor"], 0, "0 is never a gap");
}

#[tokio::test]
async fn g3_an_idle_cursor_moves_over_what_does_not_match() {
    let broker = Broker::with(&["--set", "limits.ping_interval=500ms"]);
    let mut socket = Socket::open(&broker.public).await;
    let mut reader = Socket::open(&broker.public).await;
    let subscribed = reader.subscribe(json!({"filters": ["a"]})).await;
    assert_eq!(subscribed["cursor"], 0);
    reader.expect("caught_up").await;
    for n in 1..=20 {
        socket.publish(json!({"topic": "b", "data": n})).await;
    }
    let mut cursor = 0;
    while cursor < 20 {
        let batch = reader.expect("events").await;
        assert_eq!(batch["events"], json!([]), "{batch}");
        assert_eq!(batch["after"], cursor, "{batch}");
        let next = batch["cursor"].as_u64().unwrap();
        assert!(next > cursor, "an empty batch says something new: {batch}");
        cursor = next;
    }
    assert_eq!(cursor, 20, "never past what there is");
    socket.publish(json!({"topic": "a"})).await;
    let batch = reader.expect("events").await;
    assert_eq!((&batch["after"], &batch["cursor"]), (&json!(20), &json!(21)));

    // The cursor that was told is one to come back with.
    let mut again = Socket::open(&broker.public).await;
    again.subscribe(json!({"filters": ["a"], "after": cursor})).await;
    assert_eq!(offsets(&again.take(1).await), [21]);
}

#[tokio::test]
async fn an_ended_subscription_is_silent_and_its_number_is_not_used_again() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let mut reader = Socket::open(&broker.public).await;
    assert_eq!(reader.subscribe(json!({"filters": ["a"]})).await["subscription"], 1);
    assert_eq!(reader.subscribe(json!({"filters": ["a", "end"]})).await["subscription"], 2);
    let answer = reader.call("unsubscribe", json!({"subscription": 1})).await;
    assert_eq!(answer["unsubscribed"], json!({"subscription": 1}));
    reader.so_far().await;
    for _ in 0..10 {
        socket.publish(json!({"topic": "a"})).await;
    }
    socket.publish(json!({"topic": "end"})).await;
    let mut seen = 0;
    while seen < 11 {
        let message = reader.push().await;
        if let Some(batch) = message["events"].as_object() {
            assert_eq!(batch["subscription"], 2, "{message}");
            seen += batch["events"].as_array().unwrap().len();
        }
    }
    let error = reader.refused("unsubscribe", json!({"subscription": 1})).await;
    assert_eq!(error["code"], "not_found", "{error}");
    assert_eq!(reader.subscribe(json!({"filters": ["a"]})).await["subscription"], 3);
}

#[tokio::test]
async fn a_socket_has_as_many_subscriptions_as_it_may_and_no_more() {
    let broker = Broker::with(&["--set", "limits.subscriptions_max=3"]);
    let mut socket = Socket::open(&broker.public).await;
    for number in 1..=3 {
        assert_eq!(socket.subscribe(json!({"filters": ["a"]})).await["subscription"], number);
    }
    let error = socket.refused("subscribe", json!({"filters": ["a"]})).await;
    assert_eq!(error["code"], "too_large", "{error}");
    socket.call("unsubscribe", json!({"subscription": 2})).await;
    let again = socket.subscribe(json!({"filters": ["b"]})).await;
    socket.publish(json!({"topic": "b"})).await;
    let batch = socket.events().await;
    assert_eq!(batch["subscription"], again["subscription"]);
}

#[tokio::test]
async fn subscribed_comes_before_anything_of_the_subscription() {
    let broker = Broker::start();
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = tokio::spawn({
        let (address, stop) = (broker.public.clone(), stop.clone());
        async move {
            let mut socket = Socket::open(&address).await;
            while !stop.load(Ordering::Relaxed) {
                socket.publish(json!({"topic": "a"})).await;
            }
        }
    });
    for _ in 0..30 {
        let mut reader = Socket::open(&broker.public).await;
        for _ in 0..4 {
            reader.start("subscribe", json!({"filters": ["a"], "after": 0})).await;
            reader.start("subscribe", json!({"filters": ["a"]})).await;
        }
        let mut known = Vec::new();
        while known.len() < 8 {
            let message = reader.next().await.unwrap();
            if let Some(subscribed) = message["subscribed"].as_object() {
                known.push(subscribed["subscription"].clone());
            } else {
                let about = message.as_object().unwrap().values().next().unwrap();
                assert!(known.contains(&about["subscription"]), "{message}");
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    publisher.await.unwrap();
}

#[tokio::test]
async fn a_plain_socket_of_a_filter_subscribes_by_itself() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    for n in 1..=4 {
        let topic = if n % 2 == 0 { "a.x" } else { "b" };
        socket.publish(json!({"topic": topic, "data": n})).await;
    }
    let mut plain = Socket::try_open(&broker.public, "/v1/ws/a.%3E?after=0", &[]).await.unwrap();
    let batch = plain.expect("events").await;
    assert_eq!((&batch["subscription"], &batch["after"]), (&json!(1), &json!(0)));
    assert_eq!(offsets(batch["events"].as_array().unwrap()), [2, 4]);
    plain.expect("caught_up").await;
    let mut now = Socket::try_open(&broker.public, "/v1/ws/a.%3E", &[]).await.unwrap();
    assert_eq!(now.expect("caught_up").await["cursor"], 4);
    let mut later = Socket::try_open(&broker.public, "/v1/ws/a.*?after=2", &[]).await.unwrap();
    assert_eq!(offsets(&later.take(1).await), [4]);
    socket.publish(json!({"topic": "a.y"})).await;
    for reader in [&mut plain, &mut now] {
        let batch = reader.expect("events").await;
        assert_eq!(offsets(batch["events"].as_array().unwrap()), [5]);
    }
    for path in ["/v1/ws/a..b", "/v1/ws/a%2Fb", "/v1/ws/a?after=x", "/v1/ws/a?afetr=1"] {
        let refused = Socket::try_open(&broker.public, path, &[]).await.err();
        assert!(refused.as_deref().is_some_and(|said| said.contains("400")), "{path}: {refused:?}");
    }
}

#[tokio::test]
async fn g3_a_reader_resumes_over_reconnects_and_restarts_without_loss() {
    let mut broker = Broker::start();
    let mut got: Vec<Value> = Vec::new();
    let mut cursor = 0;
    let log = {
        let mut socket = Socket::open(&broker.public).await;
        socket.call("connect", json!({})).await["connected"]["log"].clone()
    };
    for life in 0..4 {
        let mut socket = Socket::open(&broker.public).await;
        for n in 0..100 {
            socket.start("publish", json!({"topic": "a", "data": life * 100 + n})).await;
        }
        for _ in 0..100 {
            assert!(socket.next().await.unwrap()["published"].is_object());
        }
        for part in 0..3 {
            let mut reader = Socket::open(&broker.public).await;
            let options = json!({"filters": ["a"], "after": cursor, "log": log, "batch_max": 9});
            reader.subscribe(options).await;
            // Not all of it: the rest comes to the next one.
            for _ in 0..=part {
                let batch = reader.events().await;
                assert_eq!(batch["after"], cursor);
                cursor = batch["cursor"].as_u64().unwrap();
                got.extend(batch["events"].as_array().unwrap().iter().cloned());
            }
        }
        broker.kill();
        broker.restart();
    }
    let mut reader = Socket::open(&broker.public).await;
    reader.subscribe(json!({"filters": ["a"], "after": cursor, "log": log})).await;
    while got.len() < 400 {
        got.extend(reader.take(1).await);
    }
    let expected: Vec<u64> = (0..400).collect();
    assert_eq!(got.iter().map(|e| e["data"].as_u64().unwrap()).collect::<Vec<_>>(), expected);
    assert_eq!(offsets(&got), (1..=400).collect::<Vec<_>>());
}

#[tokio::test]
async fn g12_two_subscribers_see_the_same_order() {
    const COUNT: usize = 800;
    let broker = Broker::start();
    let mut readers = Vec::new();
    for filters in [json!(["a.*"]), json!([">"])] {
        let mut reader = Socket::open(&broker.public).await;
        reader.subscribe(json!({ "filters": filters })).await;
        readers.push(reader);
    }
    let mut publishers = tokio::task::JoinSet::new();
    for who in 0..8 {
        let address = broker.public.clone();
        publishers.spawn(async move {
            let mut socket = Socket::open(&address).await;
            for n in 0..COUNT / 8 {
                let event = json!({"topic": format!("a.{who}"), "data": [who, n]});
                socket.start("publish", event).await;
            }
            for _ in 0..COUNT / 8 {
                socket.next().await.unwrap();
            }
        });
    }
    publishers.join_all().await;
    let [mut one, mut other] = <[Socket; 2]>::try_from(readers).ok().unwrap();
    let (one, other) = (one.take(COUNT).await, other.take(COUNT).await);
    assert_eq!(one, other);
    let mut next = HashMap::new();
    for event in &one {
        let n = next.entry(event["data"][0].to_string()).or_insert(0);
        assert_eq!(event["data"][1], *n, "a publisher's own order: {event}");
        *n += 1;
    }
}

/// How many topics the events of the handover test go round.
const TOPICS: u64 = 7;

fn topic_of(offset: u64) -> String {
    format!("t.{}", offset % TOPICS)
}

/// One reader that comes and goes at random cursors; `head` is the last offset that was answered.
async fn come_and_go(address: String, seed: u64, head: Arc<AtomicU64>, events_max: u64) -> usize {
    let mut random = Random::new(seed);
    let (mut seen, mut cursor) = (0, None);
    while head.load(Ordering::Relaxed) < events_max || cursor.is_none() {
        let wanted: Vec<u64> = match random.below(3) {
            0 => vec![random.below(TOPICS)],
            1 => vec![random.below(TOPICS), random.below(TOPICS)],
            _ => (0..TOPICS).collect(),
        };
        let filters: Vec<_> = match wanted.len() as u64 {
            TOPICS => vec!["t.*".to_owned()],
            _ => wanted.iter().map(|&topic| topic_of(topic)).collect(),
        };
        let last = head.load(Ordering::Relaxed);
        // Half of them right at the head, where catching up turns into being live.
        let begin = match (cursor, random.below(4)) {
            (Some(cursor), 0) => cursor,
            (_, 1) => random.below(last + 1),
            _ => last.saturating_sub(random.below(20)),
        };
        let mut socket = Socket::open(&address).await;
        socket.subscribe(json!({"filters": filters, "after": begin})).await;
        let mut at = begin;
        for _ in 0..=random.below(12) {
            if at + TOPICS > events_max {
                // Perhaps nothing more comes that matches.
                break;
            }
            let batch = loop {
                let message = socket.push().await;
                if message["events"].is_object() {
                    break message["events"].clone();
                }
                assert!(message["caught_up"].is_object(), "{message}");
            };
            assert_eq!(batch["after"], at, "seed {seed}, {filters:?} from {begin}");
            let next = batch["cursor"].as_u64().unwrap();
            let expected: Vec<u64> =
                (at + 1..=next).filter(|offset| wanted.contains(&(offset % TOPICS))).collect();
            let events = batch["events"].as_array().unwrap();
            assert_eq!(offsets(events), expected, "seed {seed}, {filters:?} in ({at}, {next}]");
            for event in events {
                assert_eq!(event["data"], event["offset"], "seed {seed}");
            }
            seen += events.len();
            at = next;
        }
        cursor = Some(at);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_heavy_nothing_is_lost_where_catching_up_turns_into_being_live() {
    const EVENTS: u64 = 30_000;
    const WINDOW: u64 = 200;
    // Little of it in memory and small segments: those who come late read from the disk.
    let broker =
        Broker::with(&["--set", "log.tail_bytes=65536", "--set", "log.segment_bytes=65536"]);
    let head = Arc::new(AtomicU64::new(0));
    let mut readers = tokio::task::JoinSet::new();
    for seed in 0..50 {
        readers.spawn(come_and_go(broker.public.clone(), seed, head.clone(), EVENTS));
    }
    let mut socket = Socket::open(&broker.public).await;
    for n in 1..=EVENTS + WINDOW {
        if n <= EVENTS {
            socket.start("publish", json!({"topic": topic_of(n), "data": n})).await;
        }
        if n > WINDOW {
            let answer = socket.next().await.unwrap();
            assert_eq!(answer["published"]["offset"], n - WINDOW, "{answer}");
            head.store(n - WINDOW, Ordering::Relaxed);
        }
    }
    let seen: Vec<usize> = readers.join_all().await;
    assert!(seen.iter().all(|seen| *seen > 0), "each saw something: {seen:?}");
    assert!(seen.iter().sum::<usize>() > 10_000, "the race was run: {seen:?}");
}

/// How many subscriptions were woken since the start.
async fn wakes(broker: &Broker) -> u64 {
    let metrics = crate::util::http::get(&broker.admin, "/metrics").await.text();
    let line = metrics.lines().find(|line| line.starts_with("tidings_subscription_wakes_total "));
    line.and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_event_wakes_only_who_wants_it() {
    const SOCKETS: usize = 20;
    const EACH: usize = 500;
    let broker = Broker::start();
    let mut sockets = inboxes(&broker.public, SOCKETS, EACH).await;
    let mut publisher = Socket::open(&broker.public).await;
    let before = wakes(&broker).await;
    for n in [7_777, 0, 9_999] {
        publisher.publish(json!({"topic": format!("user.{n}.inbox"), "data": n})).await;
        let batch = sockets[n / EACH].expect("events").await;
        assert_eq!(batch["events"][0]["data"], n);
    }
    publisher.publish(json!({"topic": "user.10000.inbox"})).await;
    publisher.publish(json!({"topic": "user.7777"})).await;
    publisher.publish(json!({"topic": "user.1.inbox"})).await;
    sockets[0].expect("events").await;
    assert_eq!(wakes(&broker).await - before, 4, "of {} subscriptions", SOCKETS * EACH);
}
