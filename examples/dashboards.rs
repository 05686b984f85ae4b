//! Several dashboards over many agents, in step: each sees the same events in the same order, whenever it was opened.
//!
//! - An agent says what it does on `agents.<id>`, as `agent.status` with the key `status`. A dashboard reads `agents.*`; of all
//!   agents it selects its own by a header.
//! - There is one order of all events. So a dashboard that is opened in the middle, one that was cut off and goes on behind
//!   the last event it has, and one that is opened when all is over, see what the first one has seen, event by event.
//! - One that shows only how things stand asks for `last_per_key`: the newest status of each agent.
//!
//! Run it: `cargo run --example dashboards [URL]`, with a broker at URL, `http://127.0.0.1:8080` unless said.

#![allow(clippy::indexing_slicing, reason = "of a JSON value that is not there it gives null")]

mod common;

use anyhow::{Context, Result, ensure};
use common::{
    backlog, behind, connect, event, from_the_first, json as data_of, next, publish, run, to,
};
use serde_json::json;
use tidings::client::Subscription;
use tidings_proto::{Event, Offset, SubscribeOptions};
use tokio::task::JoinSet;

const AGENTS: u64 = 5;
const STEPS: u64 = 40;
const ALL: usize = (AGENTS * STEPS) as usize;
const FLEET: &str = "fleet";

/// What a dashboard of this fleet asks for besides where it begins.
fn of_fleet(fleet: &str, wish: SubscribeOptions) -> SubscribeOptions {
    SubscribeOptions { headers: [(FLEET.to_owned(), fleet.to_owned())].into(), ..wish }
}

/// An agent that does something and says so.
async fn agent(fleet: String, n: u64) -> Result<()> {
    let client = connect().await?;
    for step in 0..STEPS {
        let status = if step + 1 < STEPS { "busy" } else { "idle" };
        let said = json!({"status": status, "message": format!("step {step}")});
        let mut said = event(&format!("agents.{fleet}-{n}"), "agent.status", &said)?;
        said.key = Some("status".to_owned());
        said.headers.insert(FLEET.to_owned(), fleet.clone());
        publish(&client, said).await?;
    }
    Ok(())
}

/// Watches until so many events have come in all.
async fn watch(dashboard: &mut Subscription, seen: &mut Vec<Event>, all: usize) -> Result<()> {
    while seen.len() < all {
        seen.push(next(dashboard).await?);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let fleet = run();
    let whole = of_fleet(&fleet, from_the_first(&["agents.*"])?);
    let mut opened_first = connect().await?.subscribe(whole.clone()).await?;
    let mut cut_off = connect().await?.subscribe(whole.clone()).await?;
    let mut agents = JoinSet::new();
    for n in 0..AGENTS {
        agents.spawn(agent(fleet.clone(), n));
    }
    let (mut by_first, mut by_cut_off, mut by_second) = (Vec::new(), Vec::new(), Vec::new());
    // In the middle another one is opened, and one loses its connection.
    watch(&mut opened_first, &mut by_first, ALL / 2).await?;
    let mut opened_second = connect().await?.subscribe(whole.clone()).await?;
    watch(&mut cut_off, &mut by_cut_off, ALL / 3).await?;
    drop(cut_off);
    while let Some(done) = agents.join_next().await {
        done??;
    }
    let last = by_cut_off.last().context("it has seen something")?.offset;
    let again = SubscribeOptions { after: Some(behind(last.cursor())), ..to(&["agents.*"])? };
    let mut again = connect().await?.subscribe(of_fleet(&fleet, again)).await?;
    watch(&mut opened_first, &mut by_first, ALL).await?;
    watch(&mut opened_second, &mut by_second, ALL).await?;
    watch(&mut again, &mut by_cut_off, ALL).await?;
    let by_last = backlog(&mut connect().await?.subscribe(whole).await?).await?;

    let offsets: Vec<Offset> = by_first.iter().map(|event| event.offset).collect();
    ensure!(
        offsets.is_sorted() && offsets.len() == ALL,
        "not in the order of the log: {offsets:?}"
    );
    for other in [&by_second, &by_cut_off, &by_last] {
        ensure!(*other == by_first, "two dashboards have seen different things");
    }
    println!("four dashboards saw the same {ALL} events of {AGENTS} agents in one order");

    let wish = SubscribeOptions { last_per_key: true, ..to(&["agents.*"])? };
    let state = backlog(&mut connect().await?.subscribe(of_fleet(&fleet, wish)).await?).await?;
    ensure!(state.len() as u64 == AGENTS, "{} states", state.len());
    for newest in &state {
        ensure!(data_of(newest)?["status"] == "idle", "an old status: {newest:?}");
    }
    Ok(())
}
