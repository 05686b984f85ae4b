//! Commands to an agent: a queue that survives the agent, an interrupt that overtakes, answers that find back.
//!
//! The queue is a durable subscription with `order: "priority"`, one command at a time; what the agent had when it
//! died comes again. `cargo run --example agent_queue [URL]`

#![allow(clippy::indexing_slicing, reason = "of a JSON value that is not there it gives null")]

mod common;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{connect, event, json as data_of, next, publish, run, to};
use serde_json::json;
use tidings::client::REPLY_TO;
use tidings_proto::{Priority, Start, SubscribeOptions, Topic, message::Publish, subscribe::Order};

#[tokio::main]
async fn main() -> Result<()> {
    let id = run();
    let (commands, answers) = (format!("agents.{id}.commands"), format!("replies.{id}"));
    let wish = SubscribeOptions {
        durable: Some(format!("agent-{id}")),
        order: Order::Priority,
        max_in_flight: 1,
        start: Start::First,
        ..to(&[&commands])?
    };
    let person = connect().await?;
    for n in 1..=3 {
        publish(&person, event(&commands, "command.run", &json!({ "task": n }))?).await?;
    }
    // The agent takes the first command and dies with it.
    let agent = connect().await?;
    let mut queue = agent.subscribe(wish.clone()).await?;
    ensure!(data_of(&next(&mut queue).await?)?["task"] == 1);
    drop(queue);
    agent.close().await;

    let mut interrupt = event(&commands, "command.interrupt", &json!({"because": "wrong plan"}))?;
    interrupt.priority = Priority::Urgent;
    publish(&person, interrupt).await?;
    let agent = connect().await?;
    let working = async {
        let mut queue = agent.subscribe(wish).await?;
        let mut kinds = Vec::new();
        while kinds.len() < 5 {
            let command = next(&mut queue).await?;
            println!("{:<18} {}", command.kind, data_of(&command)?);
            if let Some(reply_to) = command.headers.get(REPLY_TO) {
                let mut answer = event(reply_to, "command.done", &data_of(&command)?)?;
                answer.correlation = command.correlation.clone();
                publish(&agent, answer).await?;
            }
            queue.ack_many(vec![command.offset]).await?;
            kinds.push(command.kind);
        }
        Ok::<_, anyhow::Error>(kinds)
    };
    let asking = async {
        let question = event(&commands, "command.status", &json!({"of": "all"}))?;
        let reply_to = Topic::parse(&answers)?;
        let wait = Duration::from_secs(20);
        Ok(person.request(Publish::of(question), &reply_to, wait).await?)
    };
    let (kinds, answer): (Result<Vec<String>>, Result<_>) = tokio::join!(working, asking);
    let kinds = kinds?;
    ensure!(data_of(&answer?)?["of"] == "all");
    // What it died with first takes the only place there is; then the interrupt, then the rest.
    let place = kinds.iter().position(|kind| kind == "command.interrupt");
    ensure!(place.context("the interrupt never came")? <= 1, "{kinds:?}");
    Ok(())
}
