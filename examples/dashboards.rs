//! Several dashboards over many agents, in step: each sees the same events in the same order, also the one that
//! was opened later. `cargo run --example dashboards [URL]`

mod common;

use anyhow::{Result, ensure};
use common::{connect, event, next, publish, run, to};
use serde_json::json;
use tidings::client::Subscription;
use tidings_proto::{Cursor, Offset, Position, SubscribeOptions, subscribe::After};

async fn watch(mut dashboard: Subscription, events: usize) -> Result<Vec<Offset>> {
    let mut seen = Vec::new();
    while seen.len() < events {
        seen.push(next(&mut dashboard).await?.offset);
    }
    Ok(seen)
}

#[tokio::main]
async fn main() -> Result<()> {
    let fleet = run();
    let filter = format!("fleet.{fleet}.>");
    let from_the_first = After(Position { cursor: Cursor::START, log: None });
    let wish = SubscribeOptions { after: Some(from_the_first), ..to(&[&filter])? };
    let opened_first = connect().await?.subscribe(wish.clone()).await?;
    let agents = (0..5).map(|agent: u32| {
        let fleet = fleet.clone();
        tokio::spawn(async move {
            let client = connect().await?;
            for n in 0..40 {
                let topic = format!("fleet.{fleet}.agent-{agent}.status");
                publish(&client, event(&topic, "agent.status", &json!({ "step": n }))?).await?;
            }
            Ok::<_, anyhow::Error>(())
        })
    });
    let agents: Vec<_> = agents.collect();
    let opened_second = connect().await?.subscribe(wish.clone()).await?;
    for agent in agents {
        agent.await??;
    }
    let opened_last = connect().await?.subscribe(wish).await?;
    let first = watch(opened_first, 200).await?;
    ensure!(first.is_sorted());
    ensure!(watch(opened_second, 200).await? == first && watch(opened_last, 200).await? == first);
    println!("three dashboards saw the same 200 events of five agents in one order");
    Ok(())
}
