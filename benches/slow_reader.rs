//! What subscribers that never read do to publishers: the p99 of a publish with and without them, in one run.
//!
//! `cargo bench --bench slow_reader` starts a broker of its own and takes about half a minute.
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
    ws::Socket,
};

const ROUNDS: usize = 7;
const PUBLISHERS: usize = 8;
const EVENTS: usize = 1_000;
const SLEEPERS: usize = 20;

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

#[tokio::main]
async fn main() {
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
        let ratio = with.as_secs_f64() / without.as_secs_f64();
        println!(
            "round {round}: p99 {without:?} without, {with:?} with {SLEEPERS} sleepers: {ratio:.2}"
        );
        ratios.push(ratio);
    }
    println!("publish p99 with sleepers / without: {:.2} (median of {ROUNDS})", median(ratios));
}
