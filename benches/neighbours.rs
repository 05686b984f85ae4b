//! What some subscribers do to the others, with and without them in one run: those that never read to the p99 of a
//! publish, and one on everything to the way of an event to the one of 10,000 subscriptions that wants it.
//!
//! `cargo bench --bench neighbours` starts brokers of its own and takes about a minute.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a measurement, with the clients of the tests"
)]

#[path = "../tests/it/util/mod.rs"]
mod util;

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use util::{
    Broker,
    raw::{Raw, TEXT, frame},
    ws::{Socket, inboxes},
};

const ROUNDS: usize = 7;
const PUBLISHERS: usize = 8;
const EVENTS: usize = 1_000;
const SLEEPERS: usize = 20;
/// Sockets that have the subscriptions, and how many each has.
const SOCKETS: usize = 20;
const EACH: usize = 500;

/// The latencies of publishes, one at a time from each of some publishers.
async fn publish(broker: &Broker) -> Vec<Duration> {
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        let address = broker.public.clone();
        publishers.spawn(async move {
            let mut socket = Socket::open(&address).await;
            let event = json!({"topic": "bench.slow", "data": "x".repeat(200)});
            let mut took = Vec::with_capacity(EVENTS);
            for _ in 0..EVENTS {
                let begun = Instant::now();
                socket.publish(event.clone()).await;
                took.push(begun.elapsed());
            }
            took
        });
    }
    publishers.join_all().await.concat()
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn ratio(with: Duration, without: Duration) -> f64 {
    with.as_secs_f64() / without.as_secs_f64()
}

async fn beside_sleepers() {
    let broker = Broker::start();
    publish(&broker).await;
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let without = p99(publish(&broker).await);
        let mut sleepers = Vec::new();
        for _ in 0..SLEEPERS {
            let mut sleeper = Raw::open(&broker.public).await;
            // From the first event on: more than any socket takes.
            let subscribe = json!({"id": 1, "subscribe": {"filters": ["bench.>"], "after": 0}});
            sleeper.write(&frame(TEXT, subscribe.to_string().as_bytes())).await;
            sleepers.push(sleeper);
        }
        let with = p99(publish(&broker).await);
        drop(sleepers);
        let ratio = ratio(with, without);
        println!(
            "round {round}: p99 {without:?} without, {with:?} with {SLEEPERS} sleepers: {ratio:.2}"
        );
        ratios.push(ratio);
    }
    println!("publish p99 with sleepers / without: {:.2} (median of {ROUNDS})", median(ratios));
}

/// How long events take from the publish to the subscriber of their topic, one at a time.
async fn deliver(publisher: &mut Socket, sockets: &mut [Socket]) -> Vec<Duration> {
    let mut took = Vec::with_capacity(EVENTS);
    for n in 0..EVENTS {
        // Another topic and socket each time: 7919 is a prime, so that it goes round all of them.
        let to = n * 7_919 % (SOCKETS * EACH);
        let begun = Instant::now();
        publisher.start("publish", json!({"topic": format!("user.{to}.inbox"), "data": n})).await;
        sockets[to / EACH].expect("events").await;
        took.push(begun.elapsed());
        publisher.next().await;
    }
    took
}

async fn beside_a_wildcard() {
    let broker = Broker::start();
    let mut sockets = inboxes(&broker.public, SOCKETS, EACH).await;
    let mut publisher = Socket::open(&broker.public).await;
    deliver(&mut publisher, &mut sockets).await;
    let mut ratios = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let mut without = deliver(&mut publisher, &mut sockets).await;
        let mut wildcard = Socket::open(&broker.public).await;
        wildcard.call("subscribe", json!({"filters": ["user.>"]})).await;
        let reading = tokio::spawn(async move { while wildcard.next().await.is_some() {} });
        let mut with = deliver(&mut publisher, &mut sockets).await;
        reading.abort();
        without.sort_unstable();
        with.sort_unstable();
        let p50 = (without[EVENTS / 2], with[EVENTS / 2]);
        let p99 = (p99(without), p99(with));
        let both = (ratio(p50.1, p50.0), ratio(p99.1, p99.0));
        println!(
            "round {round}: p50 {:?} without, {:?} with one on everything: {:.2}; p99 {:?}, {:?}: {:.2}",
            p50.0, p50.1, both.0, p99.0, p99.1, both.1
        );
        ratios.0.push(both.0);
        ratios.1.push(both.1);
    }
    println!(
        "publish to delivery beside a wildcard / without, of {} subscriptions: p50 {:.2}, p99 {:.2} (medians of {ROUNDS})",
        SOCKETS * EACH,
        median(ratios.0),
        median(ratios.1)
    );
}

#[tokio::main]
async fn main() {
    beside_sleepers().await;
    beside_a_wildcard().await;
}
