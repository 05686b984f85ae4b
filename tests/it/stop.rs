//! SIGTERM: what was begun is finished or refused, everybody is told, nothing acknowledged is lost.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::util::{
    Broker, eventually, http,
    raw::{Raw, TEXT, frame},
    sse::Sse,
    ws::Socket,
};

const PUBLISHERS: u64 = 32;
const IN_FLIGHT: usize = 16;

/// How a publisher fared.
#[derive(Default)]
struct Fate {
    /// Offset to id.
    answered: BTreeMap<u64, String>,
    /// Refused, or not answered before the connection ended in good order.
    failed: BTreeSet<String>,
}

/// Publishes with several in flight until the broker says goodbye.
async fn publish(address: String, publisher: u64, answers: Arc<Semaphore>) -> Fate {
    let mut socket = Socket::open(&address).await;
    let mut fate = Fate::default();
    let mut open: HashMap<u64, String> = HashMap::new();
    let mut number = 0;
    let mut told = false;
    loop {
        while !told && open.len() < IN_FLIGHT {
            let id = format!("{publisher}-{number}");
            number += 1;
            let event = json!({"topic": "stop.test", "id": id, "data": number});
            match socket.try_start("publish", event).await {
                Some(request) => drop(open.insert(u64::from(request), id)),
                None => break,
            }
        }
        let Some(message) = socket.next().await else { break };
        if message["goodbye"].is_object() {
            let hint = message["goodbye"]["reconnect_after_ms"].as_u64().unwrap();
            assert!((200..=2000).contains(&hint), "{message}");
            assert_eq!(message["goodbye"]["code"], "shutting_down");
            told = true;
            continue;
        }
        let id = open.remove(&message["reply"].as_u64().unwrap()).unwrap();
        if let Some(offset) = message["published"]["offset"].as_u64() {
            answers.add_permits(1);
            fate.answered.insert(offset, id);
        } else {
            assert_eq!(message["error"]["code"], "unavailable", "{message}");
            assert_eq!(message["error"]["retryable"], true);
            fate.failed.insert(id);
        }
    }
    assert!(told, "it was not told");
    assert_eq!(socket.closed.as_ref().map(|frame| u16::from(frame.code)), Some(1001));
    // All answers come before the close: what is open was never taken.
    fate.failed.extend(open.into_values());
    fate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g14_a_stop_under_load_answers_or_fails_everything_and_loses_nothing() {
    let mut broker = Broker::start();
    let answers = Arc::new(Semaphore::new(0));
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish(broker.public.clone(), publisher, answers.clone()));
    }
    let mut listener = Socket::open(&broker.public).await;
    listener.subscribe(json!({"filters": ["stop.>"]})).await;
    let listener = tokio::spawn(async move { listener.close_code().await });
    let mut stream = Sse::open(&broker.public, "/v1/topics/stop.test/events?after=0", &[]).await;
    let _ = answers.acquire_many(3000).await.unwrap();

    let (code, took) = broker.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let mut answered = BTreeMap::new();
    let mut failed = BTreeSet::new();
    while let Some(fate) = publishers.join_next().await {
        let fate = fate.unwrap();
        answered.extend(fate.answered);
        failed.extend(fate.failed);
    }
    assert!(answered.len() >= 3000);
    assert_eq!(listener.await.unwrap(), Some(1001));
    let mut streamed = 0;
    while stream.event().await.is_some() {
        streamed += 1;
    }
    assert!(streamed > 0, "the stream ended before it began");

    broker.restart();
    let mut stored = BTreeMap::new();
    let mut after = 0;
    loop {
        let path = format!("/v1/topics/stop.test/events?after={after}&limit=1000");
        let page = http::get(&broker.public, &path).await.json();
        for event in page["events"].as_array().unwrap() {
            let id = event["id"].as_str().unwrap().to_owned();
            stored.insert(event["offset"].as_u64().unwrap(), id);
        }
        after = page["cursor"].as_u64().unwrap();
        if page["last"].as_u64() == Some(after) {
            break;
        }
    }
    assert_eq!(stored, answered, "what is stored is not what was answered");
    assert!(stored.values().all(|id| !failed.contains(id)), "a failed publish is in the log");
}

/// A broker with a subscriber who takes nothing of what waits for it.
async fn with_a_stuck_reader(args: &[&str]) -> (Broker, Raw) {
    let broker = Broker::with(args);
    let mut stuck = Raw::open(&broker.public).await;
    let subscribe = json!({"id": 1, "subscribe": {"filters": ["big"], "after": 0}}).to_string();
    stuck.write(&frame(TEXT, subscribe.as_bytes())).await;
    let mut socket = Socket::open(&broker.public).await;
    for _ in 0..20 {
        socket.publish(json!({"topic": "big", "data": "x".repeat(900_000)})).await;
    }
    (broker, stuck)
}

#[tokio::test]
async fn a_stop_waits_for_a_stuck_reader_only_so_long() {
    // Besides that it has the last sync to do, which may take seconds on a slow disk.
    let (mut broker, _stuck) = with_a_stuck_reader(&["--set", "server.stop_timeout=1s"]).await;
    let (code, took) = broker.terminate();
    assert_eq!(code, Some(0));
    assert!((1..10).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let (mut broker, _stuck) = with_a_stuck_reader(&[]).await;
    broker.signal(Signal::TERM);
    eventually("it says that it is stopping", async || {
        let answer =
            http::try_request(&broker.admin, hyper::Method::GET, "/readyz", &[], b"").await;
        answer.is_ok_and(|answer| answer.status == 503 && answer.text().contains("shutting down"))
    })
    .await;
    let asked = Instant::now();
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    broker.restart();
    let page = http::get(&broker.public, "/v1/topics/big/events?limit=1").await;
    assert_eq!(page.json()["last"], 20);
}
