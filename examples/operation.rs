//! Operations: one that fails, passes its deadline, and completes when it is tried again; and one that is cancelled.
//!
//! On `operations.<id>`:
//!
//! - `operation.started` has the number of the `attempt`, `of` how much there is to do, and a `deadline` (RFC 3339) where
//!   there is one. A retry is `operation.started` again, with the next number.
//! - `operation.progress` says how much is `done`. Its key is `progress`, so that whoever comes late, or reads slowly with
//!   `conflate_ms`, gets the newest and not every step.
//! - One of `operation.completed`, `.failed`, `.timed_out` and `.cancelled` ends the attempt.
//! - Whoever may cancel it publishes `operation.cancel` on `operations.<id>.control`, which the worker reads.
//!
//! Run it: `cargo run --example operation [URL]`, with a broker at URL, `http://127.0.0.1:8080` unless said.

#![allow(clippy::indexing_slicing, reason = "of a JSON value that is not there it gives null")]

mod common;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{backlog, behind, connect, event, json as data_of, next, publish, run, to};
use serde_json::{Value, json};
use tidings::{
    client::{Client, Subscription},
    clock,
};
use tidings_proto::{SubscribeOptions, Timestamp};

/// How much there is to do.
const STEPS: u64 = 10;

/// What becomes of an attempt if nobody stops it.
#[derive(Clone, Copy)]
enum Fate {
    /// It fails behind this step.
    Fails(u64),
    /// It gets stuck behind this step.
    Sticks(u64),
    Completes,
}

/// Works at an operation until it is done, has failed, is late, or somebody wants it to stop.
async fn attempt(
    client: &Client,
    topic: &str,
    number: u64,
    patience: Duration,
    fate: Fate,
) -> Result<()> {
    let deadline = clock::now().plus_millis(u64::try_from(patience.as_millis())?);
    let started = json!({"attempt": number, "of": STEPS, "deadline": deadline});
    let started = publish(client, event(topic, "operation.started", &started)?).await?;
    // From the start on: what was asked of an earlier attempt is not meant, and nothing that is asked of this one is missed.
    let control = SubscribeOptions {
        after: Some(behind(started.cursor())),
        types: vec!["operation.cancel".to_owned()],
        ..to(&[&format!("{topic}.control")])?
    };
    let mut control = client.subscribe(control).await?;
    let working = async {
        for done in 1..=STEPS {
            let progress = json!({"attempt": number, "done": done, "of": STEPS});
            let mut progress = event(topic, "operation.progress", &progress)?;
            progress.key = Some("progress".to_owned());
            publish(client, progress).await?;
            match fate {
                Fate::Fails(at) if at == done => {
                    return Ok(("operation.failed", json!({"message": "the disk is full"})));
                }
                Fate::Sticks(at) if at == done => std::future::pending().await,
                _ => {}
            }
        }
        Ok::<_, anyhow::Error>(("operation.completed", json!({"result": {"rows": 200}})))
    };
    let (kind, mut said) = tokio::select! {
        end = tokio::time::timeout(patience, working) => match end {
            Ok(end) => end?,
            Err(_) => ("operation.timed_out", json!({})),
        },
        asked = next(&mut control) => {
            ("operation.cancelled", json!({"reason": data_of(&asked?)?["reason"]}))
        }
    };
    said["attempt"] = json!(number);
    publish(client, event(topic, kind, &said)?).await?;
    Ok(())
}

/// What a viewer has seen of an operation.
#[derive(Default)]
struct Seen {
    /// What was said beside progress, with the number of the attempt.
    said: Vec<(String, u64)>,
    /// How much was done in the present attempt.
    done: u64,
    last: Value,
}

/// Watches an operation until this is said; `on_progress` is told how much is done.
async fn watch(
    operation: &mut Subscription,
    until: &str,
    on_progress: impl AsyncFn(u64) -> Result<()>,
) -> Result<Seen> {
    let mut seen = Seen::default();
    while seen.said.last().is_none_or(|(kind, _)| kind != until) {
        let event = next(operation).await?;
        let data = data_of(&event)?;
        println!("{:<22} {data}", event.kind);
        if event.kind == "operation.progress" {
            // A reader that keeps up sees every step.
            ensure!(data["done"] == seen.done + 1, "behind {}: {data}", seen.done);
            seen.done += 1;
            on_progress(seen.done).await?;
        } else {
            if event.kind == "operation.started" {
                let deadline: Timestamp = data["deadline"].as_str().unwrap_or_default().parse()?;
                ensure!(deadline > Timestamp::from_millis(0) && data["of"] == STEPS);
                seen.done = 0;
            }
            let attempt = data["attempt"].as_u64().context("the attempt has a number")?;
            seen.said.push((event.kind, attempt));
            seen.last = data;
        }
    }
    Ok(seen)
}

/// Tried three times: it fails, gets stuck and passes its deadline, and completes.
async fn tried_again(worker: &Client, viewer: &Client) -> Result<()> {
    let topic = format!("operations.{}", run());
    let mut operation = viewer.subscribe(to(&[&topic])?).await?;
    let long = Duration::from_secs(60);
    let working = async {
        attempt(worker, &topic, 1, long, Fate::Fails(4)).await?;
        attempt(worker, &topic, 2, Duration::from_millis(300), Fate::Sticks(2)).await?;
        attempt(worker, &topic, 3, long, Fate::Completes).await
    };
    let watching = watch(&mut operation, "operation.completed", async |_| Ok(()));
    let (worked, seen) = tokio::join!(working, watching);
    worked?;
    let seen = seen?;
    let said: Vec<_> = seen.said.iter().map(|(kind, number)| (kind.as_str(), *number)).collect();
    let expected = [
        ("operation.started", 1),
        ("operation.failed", 1),
        ("operation.started", 2),
        ("operation.timed_out", 2),
        ("operation.started", 3),
        ("operation.completed", 3),
    ];
    ensure!(said == expected, "{said:?}");
    ensure!(seen.done == STEPS && seen.last["result"]["rows"] == 200, "{}", seen.last);

    // Whoever comes late gets how it stands: of all progress the newest, and of what has no key the newest too.
    let wish = SubscribeOptions { last_per_key: true, ..to(&[&topic])? };
    let [progress, end] = &backlog(&mut viewer.subscribe(wish).await?).await?[..] else {
        anyhow::bail!("the state of an operation is two events")
    };
    ensure!(data_of(progress)?["done"] == STEPS && end.kind == "operation.completed");
    Ok(())
}

/// Cancelled by who watches it, when it has come half of the way.
async fn cancelled(worker: &Client, viewer: &Client) -> Result<()> {
    let topic = format!("operations.{}", run());
    let mut operation = viewer.subscribe(to(&[&topic])?).await?;
    let working = attempt(worker, &topic, 1, Duration::from_secs(60), Fate::Sticks(STEPS / 2));
    let watching = watch(&mut operation, "operation.cancelled", async |done| {
        if done == STEPS / 2 {
            let why = json!({"reason": "not needed any more"});
            publish(viewer, event(&format!("{topic}.control"), "operation.cancel", &why)?).await?;
        }
        Ok(())
    });
    let (worked, seen) = tokio::join!(working, watching);
    worked?;
    let seen = seen?;
    let kinds: Vec<_> = seen.said.iter().map(|(kind, _)| kind.as_str()).collect();
    ensure!(kinds == ["operation.started", "operation.cancelled"], "{kinds:?}");
    ensure!(seen.done == STEPS / 2 && seen.last["reason"] == "not needed any more");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let (worker, viewer) = (connect().await?, connect().await?);
    tried_again(&worker, &viewer).await?;
    cancelled(&worker, &viewer).await
}
