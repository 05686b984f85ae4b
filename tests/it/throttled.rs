//! Delivery adapts itself to the line: a slow reader gets fewer and larger frames than a fast one, at the same publish rate,
//! and with `conflate_ms` the newest states before old ones.
//!
//! The publisher waits for the fast reader with every event, and lets a few bytes more pass on the slow lines: so how slow
//! they are is the same on every machine, and nothing here is measured in time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::util::{
    Broker,
    raw::{PING, PONG, Raw, TEXT, frame, read_frame},
    throttled::Throttled,
    ws::Socket,
};

const EVENTS: usize = 1000;
const KEYS: usize = 10;
/// What a slow line takes with every event that is published, of the more than 300 bytes that an event has.
const LINE_BYTES: usize = 16;
/// What it takes before, for the handshake and the answer to the subscribe.
const BEGIN_BYTES: usize = 2000;
/// The least that an event has on the wire.
const EVENT_BYTES_MIN: usize = 250;

/// Little waits in the kernel.
const SETTINGS: &[&str] = &["--set", "limits.send_buffer_bytes=4096"];

/// The events of a frame: what each says, in order.
type Frame = Vec<Value>;

/// Reads frames with events.
struct Reader {
    raw: Raw,
}

impl Reader {
    /// Subscribes behind the log's end, and is caught up.
    async fn open(address: &str, more: Value) -> Reader {
        let mut raw = Raw::open(address).await;
        let mut wish = json!({"filters": ["load"]});
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let subscribe = json!({"id": 1, "subscribe": wish});
        raw.write(&frame(TEXT, subscribe.to_string().as_bytes())).await;
        let mut reader = Reader { raw };
        while !reader.message().await["caught_up"].is_object() {}
        reader
    }

    /// The next message, however long that takes: a frame of a slow line is whole only when the publisher has gone on.
    async fn message(&mut self) -> Value {
        loop {
            let (first, payload) =
                read_frame(&mut self.raw.stream).await.expect("the socket ended");
            match first {
                TEXT => return serde_json::from_slice(&payload).unwrap(),
                // Who says nothing would be taken for gone.
                PING => self.raw.write(&frame(PONG, &payload)).await,
                _ => {}
            }
        }
    }

    async fn frame(&mut self) -> Frame {
        loop {
            let message = self.message().await;
            let events = message["events"]["events"].as_array();
            if let Some(events) = events.filter(|events| !events.is_empty()) {
                return events.clone();
            }
        }
    }

    /// Reads all up to the last event, and counts what comes.
    fn read_all(mut self, count: Arc<AtomicUsize>) -> JoinHandle<Vec<Frame>> {
        tokio::spawn(async move {
            let mut frames = Vec::new();
            loop {
                let frame = self.frame().await;
                count.fetch_add(frame.len(), Ordering::Relaxed);
                let is_last = number(frame.last().unwrap()) + 1 == EVENTS;
                frames.push(frame);
                if is_last {
                    return frames;
                }
            }
        })
    }
}

/// Which of all events it is.
fn number(event: &Value) -> usize {
    usize::try_from(event["data"]["n"].as_u64().unwrap()).unwrap()
}

fn numbers(frames: &[Frame]) -> Vec<usize> {
    frames.iter().flatten().map(number).collect()
}

/// Publishes all events, each when the fast reader has the one before, while two readers on slow lines follow: one that wants
/// all, and one that wants the newest states. Gives the frames of the fast one and of these two.
async fn publish_to_fast_and_slow() -> [Vec<Frame>; 3] {
    let broker = Broker::with(SETTINGS);
    let lines = [Throttled::before(&broker.public).await, Throttled::before(&broker.public).await];
    let counts: [Arc<AtomicUsize>; 2] = Default::default();
    let wishes = [json!({}), json!({"conflate_ms": 10})];
    let mut slow = Vec::new();
    for ((line, wish), count) in lines.iter().zip(wishes).zip(&counts) {
        line.allow(BEGIN_BYTES);
        slow.push(Reader::open(&line.address, wish).await.read_all(count.clone()));
    }
    let mut fast = Reader::open(&broker.public, json!({})).await;
    let mut publisher = Socket::open(&broker.public).await;
    let mut by_fast = Vec::new();
    for n in 0..EVENTS {
        let data = json!({"n": n, "state": "x".repeat(100)});
        let event = json!({"topic": "load", "key": format!("part-{}", n % KEYS), "data": data});
        publisher.publish(event).await;
        by_fast.push(fast.frame().await);
        for line in &lines {
            line.allow(LINE_BYTES);
        }
    }
    for count in &counts {
        let passed = count.load(Ordering::Relaxed);
        let most = (BEGIN_BYTES + EVENTS * LINE_BYTES) / EVENT_BYTES_MIN;
        assert!(passed <= most, "the line was not slow: {passed} events have passed, not {most}");
    }
    for line in &lines {
        line.open();
    }
    let [all, newest] = slow.try_into().unwrap();
    [by_fast, all.await.unwrap(), newest.await.unwrap()]
}

#[tokio::test]
async fn g3_a_slow_line_gets_fewer_and_larger_frames_and_the_newest_state_first() {
    let [fast, slow, newest] = publish_to_fast_and_slow().await;

    // Who keeps up has a frame an event; who does not has all of them, in far fewer.
    assert_eq!(numbers(&fast), (0..EVENTS).collect::<Vec<_>>());
    assert_eq!(fast.len(), EVENTS);
    assert_eq!(numbers(&slow), numbers(&fast));
    let largest = slow.iter().map(Vec::len).max().unwrap();
    eprintln!("{EVENTS} events: {} frames on the slow line, the largest has {largest}", slow.len());
    assert!(slow.len() * 4 <= fast.len(), "{} frames on the slow line", slow.len());
    assert!(largest >= 32, "the largest has {largest} events");

    // Of the states most old ones are passed over, at once and not at the end: where the line has room again, what comes is
    // what is newest then.
    let received = numbers(&newest);
    let mut by_key: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for event in newest.iter().flatten() {
        by_key.entry(event["key"].as_str().unwrap()).or_default().push(number(event));
    }
    eprintln!("{} states with conflate_ms, in {} frames", received.len(), newest.len());
    assert!(received.is_sorted(), "not in the order of the log: {received:?}");
    assert!(received.len() * 4 <= EVENTS, "{} states came", received.len());
    assert_eq!(by_key.len(), KEYS);
    for (key, states) in &by_key {
        assert!(states.len() * 4 <= EVENTS / KEYS, "{key} came {} times", states.len());
        assert!(states.last().unwrap() + KEYS >= EVENTS, "{key} is old: {states:?}");
    }
    for frame in &newest {
        let keys: BTreeSet<_> = frame.iter().map(|it| it["key"].as_str()).collect();
        assert_eq!(keys.len(), frame.len(), "a key comes twice in a frame");
    }
    let jumps = newest
        .windows(2)
        .filter(|pair| number(&pair[1][0]) > number(pair[0].last().unwrap()) + EVENTS / 20);
    assert!(jumps.count() >= 2, "old states were not passed over: {received:?}");
}
