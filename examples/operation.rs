//! An operation with progress, a retry, a deadline and a cancel.
//!
//! Progress has a key, so that a reader with `conflate_ms` sees the newest state and not every step. Whoever may
//! cancel publishes to the control topic, which the worker reads. `cargo run --example operation [URL]`

#![allow(clippy::indexing_slicing, reason = "of a JSON value that is not there it gives null")]

mod common;

use std::time::Duration;

use anyhow::{Result, ensure};
use common::{connect, event, json as data_of, next, publish, run, to};
use serde_json::json;
use tidings::client::Client;
use tidings_proto::{Event, SubscribeOptions};

/// How an attempt ended.
enum End {
    Failed,
    Cancelled,
    TimedOut,
}

/// Works in steps until it is done, told to stop, or late.
async fn attempt(client: &Client, topic: &str, n: u64, deadline: Duration) -> Result<End> {
    let mut control = client.subscribe(to(&[&format!("{topic}.control")])?).await?;
    let started = json!({"attempt": n, "deadline_ms": deadline.as_millis() as u64});
    publish(client, event(topic, "operation.started", &started)?).await?;
    let working = async {
        for done in 1..=10_u64 {
            let mut progress =
                event(topic, "operation.progress", &json!({"attempt": n, "done": done, "of": 10}))?;
            progress.key = Some("progress".to_owned());
            publish(client, progress).await?;
            if n == 1 && done == 4 {
                publish(client, event(topic, "operation.failed", &json!({"attempt": n}))?).await?;
                return Ok(End::Failed);
            }
        }
        // The rest takes longer than anybody wants to wait.
        std::future::pending::<Result<End>>().await
    };
    tokio::select! {
        end = tokio::time::timeout(deadline, working) => match end {
            Ok(end) => end,
            Err(_) => {
                publish(client, event(topic, "operation.timed_out", &json!({"attempt": n}))?).await?;
                Ok(End::TimedOut)
            }
        },
        asked = next(&mut control) => {
            ensure!(asked?.kind == "operation.cancel");
            publish(client, event(topic, "operation.cancelled", &json!({"attempt": n}))?).await?;
            Ok(End::Cancelled)
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let topic = format!("operations.{}", run());
    let (worker, viewer) = (connect().await?, connect().await?);
    let wish = SubscribeOptions { conflate_ms: 50, ..to(&[&topic])? };
    let mut seen = viewer.subscribe(wish).await?;
    let working = async {
        ensure!(matches!(attempt(&worker, &topic, 1, Duration::from_secs(5)).await?, End::Failed));
        let second = attempt(&worker, &topic, 2, Duration::from_millis(300)).await?;
        ensure!(matches!(second, End::TimedOut));
        let third = attempt(&worker, &topic, 3, Duration::from_secs(20)).await?;
        ensure!(matches!(third, End::Cancelled));
        Ok(())
    };
    let viewing = async {
        let (mut steps, mut asked) = (0, false);
        loop {
            let event: Event = next(&mut seen).await?;
            let data = data_of(&event)?;
            println!("{:<22} {data}", event.kind);
            match event.kind.as_str() {
                "operation.progress" => steps += 1,
                "operation.cancelled" => break,
                _ => {}
            }
            if data["attempt"] == 3 && !asked {
                asked = true;
                let cancel = event_on_control(&topic)?;
                publish(&viewer, cancel).await?;
            }
        }
        // Of 24 steps the newest are seen, not all.
        ensure!(steps < 24, "{steps} steps were seen");
        Ok(())
    };
    let (worked, viewed): (Result<()>, Result<()>) = tokio::join!(working, viewing);
    worked.and(viewed)
}

fn event_on_control(topic: &str) -> Result<tidings_proto::NewEvent> {
    event(&format!("{topic}.control"), "operation.cancel", &json!({}))
}
