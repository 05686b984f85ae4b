//! Commands to an agent: a queue that survives the agent, an interrupt that overtakes, answers that find back.
//!
//! - Commands are events of type `command.run` on `agents.<id>.commands`. The agent reads them by the durable `agent-<id>`
//!   with `order: "priority"`, one at a time; what it had when it died comes again, and says so.
//! - What the agent does it says on `agents.<id>`, as `agent.status` with the key `status`.
//! - `command.interrupt` is `urgent`, so that it overtakes all commands that wait; `command` in its data names the one that
//!   is meant. The queue has one place, which the running command has: so the agent hears interrupts beside it as well.
//! - An answer goes to the topic in the header `reply-to`, with the `correlation` of its question.
//!
//! Run it: `cargo run --example agent_queue [URL]`, with a broker at URL, `http://127.0.0.1:8080` unless said.

#![allow(clippy::indexing_slicing, reason = "of a JSON value that is not there it gives null")]

mod common;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use common::{connect, delivery, event, json as data_of, next, publish, run, to};
use serde_json::{Value, json};
use tidings::client::{Client, Delivery, REPLY_TO, Subscription};
use tidings_proto::{
    Event, EventId, Priority, Start, SubscribeOptions, Topic, message::Publish, subscribe::Order,
};

/// An agent at work.
struct Agent {
    client: Client,
    id: String,
    queue: Subscription,
    interrupts: Subscription,
}

impl Agent {
    async fn start(id: &str) -> Result<Agent> {
        let commands = format!("agents.{id}.commands");
        let queue = SubscribeOptions {
            durable: Some(format!("agent-{id}")),
            order: Order::Priority,
            max_in_flight: 1,
            start: Start::First,
            ..to(&[&commands])?
        };
        let interrupts =
            SubscribeOptions { types: vec!["command.interrupt".to_owned()], ..to(&[&commands])? };
        let client = connect().await?;
        let interrupts = client.subscribe(interrupts).await?;
        let queue = client.subscribe(queue).await?;
        Ok(Agent { client, id: id.to_owned(), queue, interrupts })
    }

    /// The next command, and the number of its delivery.
    async fn take(&mut self) -> Result<(Event, u32)> {
        loop {
            if let Delivery::Event { event, attempts } = delivery(&mut self.queue).await? {
                return Ok((event, attempts));
            }
        }
    }

    /// Says what it does, for all to see.
    async fn say(&self, status: &str, command: &Event) -> Result<()> {
        let said = json!({"status": status, "command": command.id});
        let mut said = event(&format!("agents.{}", self.id), "agent.status", &said)?;
        said.key = Some("status".to_owned());
        publish(&self.client, said).await.map(drop)
    }

    /// Carries a command out, unless it is interrupted; gives the type of the answer and what it says.
    async fn run(&mut self, command: &Event) -> Result<(&'static str, Value)> {
        self.say("busy", command).await?;
        let task = data_of(command)?;
        let has_no_end = task["takes"] == "for ever";
        let working = async move {
            if has_no_end {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(working);
        loop {
            tokio::select! {
                () = &mut working => return Ok(("command.done", task)),
                interrupt = next(&mut self.interrupts) => {
                    let said = data_of(&interrupt?)?;
                    if said["command"] == command.id {
                        return Ok(("command.interrupted", json!({"message": said["reason"]})));
                    }
                }
            }
        }
    }

    /// Answers a command, where somebody waits for it. Under one id, so that a command that comes again is answered once.
    async fn answer(&self, command: &Event, kind: &str, data: &Value) -> Result<()> {
        let Some(reply_to) = command.headers.get(REPLY_TO) else { return Ok(()) };
        // Whoever asks chooses the topic: the agent answers where answers are all there is.
        ensure!(reply_to.starts_with("replies."), "an answer is wanted on {reply_to}");
        let mut answer = event(reply_to, kind, data)?;
        answer.id = Some(EventId::parse(&format!("{}:reply", command.id))?);
        answer.correlation = command.correlation.clone();
        publish(&self.client, answer).await.map(drop)
    }

    /// Works through the queue until it is told to go home; gives what it did, in order.
    async fn work(mut self) -> Result<Vec<String>> {
        let mut done = Vec::new();
        loop {
            let (command, attempts) = self.take().await?;
            let again = if attempts > 1 { " again" } else { "" };
            println!("{:<18} {}{again}", command.kind, data_of(&command)?);
            if command.kind == "command.interrupt" {
                // What it stops was heard of beside the queue.
                done.push("interrupt".to_owned());
            } else {
                let (kind, said) = self.run(&command).await?;
                self.answer(&command, kind, &said).await?;
                done.push(format!("{} {kind}{again}", data_of(&command)?["task"]));
            }
            self.queue.ack_many(vec![command.offset]).await?;
            if data_of(&command)?["task"] == "go home" {
                return Ok(done);
            }
        }
    }
}

/// Waits until the agent says that it is busy with this command.
async fn busy_with(statuses: &mut Subscription, command: &str) -> Result<()> {
    loop {
        let said = data_of(&next(statuses).await?)?;
        if said["status"] == "busy" && said["command"] == command {
            return Ok(());
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let id = run();
    let commands = format!("agents.{id}.commands");
    let person = connect().await?;
    // While there is no agent, commands wait.
    let mut ids = Vec::new();
    for data in [json!({"task": 1}), json!({"task": 2, "takes": "for ever"}), json!({"task": 3})] {
        let command = event(&commands, "command.run", &data)?;
        let handle = person.publish(Publish::of(command)).await?;
        ids.push(handle.await?.id);
    }
    let [_, second, _] = &ids[..] else { bail!("there are three commands") };
    // An agent takes the first and dies with it.
    let mut agent = Agent::start(&id).await?;
    let (command, attempts) = agent.take().await?;
    ensure!((data_of(&command)?["task"].as_u64(), attempts) == (Some(1), 1));
    agent.client.close().await;

    let mut statuses = person.subscribe(to(&[&format!("agents.{id}")])?).await?;
    let working = Agent::start(&id).await?.work();
    let ordering = async {
        // The second would never end.
        busy_with(&mut statuses, second).await?;
        let why = json!({"command": second, "reason": "wrong plan"});
        let mut interrupt = event(&commands, "command.interrupt", &why)?;
        interrupt.priority = Priority::Urgent;
        publish(&person, interrupt).await?;
        let question = event(&commands, "command.run", &json!({"task": "report"}))?;
        let reply_to = Topic::parse(&format!("replies.{id}"))?;
        let answer =
            person.request(Publish::of(question), &reply_to, Duration::from_secs(60)).await?;
        ensure!(answer.kind == "command.done" && data_of(&answer)?["task"] == "report");
        let home = event(&commands, "command.run", &json!({"task": "go home"}))?;
        publish(&person, home).await.map(drop)
    };
    let (done, ordered): (Result<Vec<String>>, Result<()>) = tokio::join!(working, ordering);
    let done = done?;
    ordered?;
    let done: Vec<_> = done.iter().map(String::as_str).collect();
    let expected = [
        "1 command.done again",
        "2 command.interrupted",
        "interrupt",
        "3 command.done",
        "\"report\" command.done",
        "\"go home\" command.done",
    ];
    ensure!(done == expected, "{done:?}");
    // All of it is acknowledged: whoever is this agent next has nothing to do.
    let state = common::http()?.get(&format!("/v1/subscriptions/agent-{id}")).await?.ok()?;
    let state: Value = state.json()?;
    ensure!(state["lag"].as_u64().context("a queue has a lag")? == 0, "{state}");
    Ok(())
}
