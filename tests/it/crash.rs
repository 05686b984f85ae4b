//! Killed and started again: what was acknowledged is there, under the offset that was given.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinSet};

use crate::util::{Broker, eventually, http, random::Random, ws::Socket};

const PUBLISHERS: u64 = 64;
const ROUNDS: usize = 30;

/// What the clients know of the broker, kept where a kill cannot reach it.
#[derive(Default)]
struct Witness {
    /// Offset to (publisher, number) of every answered publish.
    answered: Mutex<BTreeMap<u64, (u64, u64)>>,
    answers: AtomicU64,
    /// Rings at every answer.
    news: Notify,
    /// No publisher begins another event.
    over: AtomicBool,
}

impl Witness {
    fn saw(&self, offset: u64, what: (u64, u64)) {
        let before = self.answered.lock().insert(offset, what);
        assert!(before.is_none_or(|before| before == what), "offset {offset} given twice");
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.news.notify_one();
    }

    async fn answers_reach(&self, count: u64) {
        while self.answers.load(Ordering::Relaxed) < count {
            self.news.notified().await;
        }
    }
}

/// A connection, however long the broker is away.
async fn connect(address: &str) -> Socket {
    loop {
        if let Ok(socket) = Socket::try_open(address, "/v1/ws", &[]).await {
            return socket;
        }
        tokio::task::yield_now().await;
    }
}

/// Publishes numbered events, one at a time, each until it is answered.
async fn publish(address: String, witness: Arc<Witness>, publisher: u64) {
    let mut socket = connect(&address).await;
    for number in 0.. {
        if witness.over.load(Ordering::Relaxed) {
            return;
        }
        let event = json!({
            "topic": format!("load.{publisher}"),
            "id": format!("{publisher}-{number}"),
            "data": [publisher, number],
        });
        let answer = loop {
            match socket.try_call("publish", event.clone()).await {
                Some(answer) => break answer,
                None => socket = connect(&address).await,
            }
        };
        let offset = answer["published"]["offset"].as_u64();
        witness.saw(offset.unwrap_or_else(|| panic!("refused: {answer}")), (publisher, number));
    }
}

/// Reads the durable to its end and acknowledges; gives every event it was shown.
async fn audit(address: String, witness: Arc<Witness>) -> BTreeMap<u64, Value> {
    let mut shown = BTreeMap::new();
    let mut floor = 0;
    loop {
        let mut socket = connect(&address).await;
        let options = json!({"durable": "audit", "filters": ["load.>"], "start": "first"});
        let Some(answer) = socket.try_call("subscribe", options).await else { continue };
        let attached = answer["subscribed"]["last_acked"].as_u64();
        let attached = attached.unwrap_or_else(|| panic!("refused: {answer}"));
        assert!(attached >= floor, "the floor fell from {floor} to {attached}");
        let subscription = answer["subscribed"]["subscription"].clone();
        let mut expected_after = answer["subscribed"]["cursor"].clone();
        while let Some(message) = socket.next().await {
            assert!(message["gap"].is_null() && message["error"].is_null(), "{message}");
            let batch = &message["events"];
            if batch.is_object() {
                assert_eq!(batch["after"], expected_after, "the chain is broken");
                expected_after = batch["cursor"].clone();
                for event in batch["events"].as_array().unwrap() {
                    let offset = event["offset"].as_u64().unwrap();
                    let before = shown.insert(offset, event.clone());
                    assert!(
                        before.is_none_or(|before| before["data"] == event["data"]),
                        "offset {offset} has other content now"
                    );
                }
                let ack = json!({"subscription": subscription, "offset": batch["cursor"]});
                let Some(answer) = socket.try_call("ack", ack).await else { break };
                floor = answer["acked"]["cursor"].as_u64().unwrap();
            }
            let last = witness.answered.lock().keys().next_back().copied();
            if witness.over.load(Ordering::Acquire) && Some(floor) >= last {
                return shown;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_heavy_nothing_acknowledged_is_lost_over_30_kills_under_64_publishers() {
    let mut random = Random::new(30);
    let mut broker = Broker::with(&["--set", "log.segment_bytes=262144"]);
    let witness = Arc::new(Witness::default());
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish(broker.public.clone(), witness.clone(), publisher));
    }
    let auditor = tokio::spawn(audit(broker.public.clone(), witness.clone()));
    for _ in 0..ROUNDS {
        let so_far = witness.answers.load(Ordering::Relaxed);
        witness.answers_reach(so_far + 1 + random.below(2000)).await;
        broker.kill();
        broker.restart();
    }
    witness.over.store(true, Ordering::Release);
    while let Some(ended) = publishers.join_next().await {
        ended.unwrap();
    }
    // One more event, so that the auditor sees that it is over.
    let mut socket = Socket::open(&broker.public).await;
    let last = socket.publish(json!({"topic": "load.end", "data": "end"})).await;
    let shown = auditor.await.unwrap();

    let mut stored: BTreeMap<u64, Value> = BTreeMap::new();
    let mut after = 0;
    while after < last {
        let path = format!("/v1/topics/load.%3E/events?after={after}&limit=1000");
        let page = http::get(&broker.public, &path).await.json();
        for event in page["events"].as_array().unwrap() {
            let offset = event["offset"].as_u64().unwrap();
            assert!(offset > after, "{offset} after {after}");
            after = offset;
            stored.insert(offset, event.clone());
        }
        after = after.max(page["cursor"].as_u64().unwrap());
    }
    let answered = witness.answered.lock();
    assert!(answered.len() > 1000, "only {} publishes were answered", answered.len());
    let mut where_is: HashMap<&str, u64> = HashMap::new();
    for (offset, (publisher, number)) in answered.iter() {
        let event = stored.get(offset).unwrap_or_else(|| panic!("offset {offset} was lost"));
        assert_eq!(event["id"], format!("{publisher}-{number}"), "at offset {offset}");
        assert_eq!(event["data"], json!([publisher, number]));
        assert_eq!(event["topic"], format!("load.{publisher}"));
    }
    for (offset, event) in &stored {
        let twice = where_is.insert(event["id"].as_str().unwrap(), *offset);
        assert!(twice.is_none(), "{} is at {twice:?} and {offset}", event["id"]);
    }
    for (offset, event) in shown.iter().filter(|(offset, _)| **offset < last) {
        assert_eq!(Some(event), stored.get(offset), "what was delivered is not what is stored");
    }
    assert!(stored.keys().all(|offset| *offset == last || shown.contains_key(offset)));
}

/// Several kills while a log that is being recovered has hardly started: recovery is itself recovered.
#[tokio::test]
async fn a_broker_killed_while_it_starts_starts_again() {
    let mut random = Random::new(8);
    let mut broker = Broker::with(&["--set", "log.segment_bytes=65536"]);
    let mut socket = Socket::open(&broker.public).await;
    let mut last = 0;
    for number in 0..300 {
        last = socket
            .publish(json!({"topic": "a", "data": "x".repeat(1000), "id": number.to_string()}))
            .await;
    }
    broker.kill();
    for _ in 0..20 {
        let mut child = broker.command().stdout(std::process::Stdio::null()).spawn().unwrap();
        let wait = std::time::Duration::from_micros(random.below(60_000));
        tokio::time::sleep(wait).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    broker.restart();
    let read = async || http::get(&broker.public, "/v1/topics/a/events?limit=1000").await.json();
    let page = read().await;
    assert_eq!(page["events"].as_array().unwrap().len(), 300);
    assert_eq!(page["last"], last);
    eventually("it is ready", async || http::get(&broker.admin, "/readyz").await.status == 200)
        .await;
}
