//! A structure that two people edit at once: snapshots, patches (JSON Patch, RFC 6902), and one state for everybody.
//!
//! On `structures.<id>`:
//!
//! - `state.snapshot` has the whole structure as its data and the key `snapshot`; `state.patch` has a JSON Patch.
//! - A patch fits one state only. So it is published with `expect_last`, the offset of the last event that its editor has
//!   seen: where somebody else was faster it is refused as `conflict`, and made anew from what is there then.
//! - The key of a patch is its number since the newest snapshot: `patch-1`, `patch-2`. With the fifth comes a new snapshot,
//!   in the same batch, and the numbers begin again. So `last_per_key`, the newest event of each key in the order of the
//!   log, is what is left of older patches, the newest snapshot, and the patches behind it: whoever comes late has the state
//!   in one request of six events, however long the structure has been edited, and then what follows. A rule of retention
//!   with `compact` keeps no more than that of it.
//!
//! Where the parts of a structure are independent of each other: `structure_parts`.
//! Run it: `cargo run --example structure [URL]`, with a broker at URL, `http://127.0.0.1:8080` unless said.

#![allow(clippy::indexing_slicing, reason = "of a JSON value that is not there it gives null")]

mod common;

use anyhow::{Context, Result, ensure};
use common::{backlog, connect, json as data_of, next, publish_all, run, to};
use json_patch::Patch;
use serde_json::{Value, json};
use tidings::client::Subscription;
use tidings_proto::{Event, SubscribeOptions};

/// With so many patches comes a snapshot.
const PATCHES_MAX: u64 = 5;

/// A structure as one of its editors sees it.
struct Structure {
    topic: String,
    events: Subscription,
    /// The state; `None` before the first snapshot.
    state: Option<Value>,
    /// How many patches are in it since its snapshot.
    patches: u64,
    /// The offset of the last event that was taken up.
    last: u64,
}

impl Structure {
    /// Opens it; also gives how many events that took.
    async fn open(topic: &str) -> Result<(Structure, usize)> {
        let wish = SubscribeOptions { last_per_key: true, ..to(&[topic])? };
        let mut events = connect().await?.subscribe(wish).await?;
        let there = backlog(&mut events).await?;
        let mut opened =
            Structure { topic: topic.to_owned(), events, state: None, patches: 0, last: 0 };
        for event in &there {
            opened.take(event)?;
        }
        Ok((opened, there.len()))
    }

    /// Takes an event up.
    fn take(&mut self, event: &Event) -> Result<()> {
        self.last = event.offset.get();
        match event.kind.as_str() {
            "state.snapshot" => (self.state, self.patches) = (Some(data_of(event)?), 0),
            "state.patch" => {
                // Left over from before the newest snapshot, which follows.
                let Some(state) = &mut self.state else { return Ok(()) };
                self.patches += 1;
                ensure!(event.key == Some(format!("patch-{}", self.patches)), "a patch is missing");
                let patch: Patch = serde_json::from_value(data_of(event)?)?;
                json_patch::patch(state, &patch)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes up what comes, up to this offset.
    async fn take_to(&mut self, offset: u64) -> Result<()> {
        while self.last < offset {
            let event = next(&mut self.events).await?;
            self.take(&event)?;
        }
        Ok(())
    }

    /// Changes it: `change` makes a patch from what is there. Gives how often somebody else was faster.
    async fn edit(&mut self, change: impl Fn(&Value) -> Value) -> Result<u32> {
        let mut conflicts = 0;
        loop {
            let state = self.state.as_ref().context("there is nothing to change")?;
            let (patch, number) = (change(state), self.patches + 1);
            let mut events = vec![json!({
                "topic": self.topic, "type": "state.patch", "key": format!("patch-{number}"),
                "datacontenttype": "application/json-patch+json", "data": &patch, "expect_last": self.last,
            })];
            if number == PATCHES_MAX {
                let mut whole = state.clone();
                let patch: Patch = serde_json::from_value(patch)?;
                json_patch::patch(&mut whole, &patch)?;
                events.push(snapshot(&self.topic, &whole));
            }
            let Some(published) = publish_all(&events).await? else {
                conflicts += 1;
                // Whoever was faster comes by the subscription.
                self.take_to(self.last + 1).await?;
                continue;
            };
            let last = published.last().context("nothing was published")?;
            self.take_to(last.get()).await?;
            return Ok(conflicts);
        }
    }
}

fn snapshot(topic: &str, state: &Value) -> Value {
    json!({"topic": topic, "type": "state.snapshot", "key": "snapshot", "data": state})
}

/// Adds a line to the end of the list. It counts them too: an edit that was lost, or made from an old state, would show.
fn line(text: String) -> impl Fn(&Value) -> Value {
    move |state| {
        let lines = state["lines"].as_array().map_or(0, Vec::len);
        json!([
            {"op": "add", "path": "/lines/-", "value": text},
            {"op": "replace", "path": "/count", "value": lines + 1},
        ])
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let topic = format!("structures.{}", run());
    // Whoever is the first to publish on the topic makes it; a second one would be told `conflict`.
    let mut made = snapshot(&topic, &json!({"title": "Plan", "count": 0, "lines": []}));
    made["expect_last"] = json!(0);
    ensure!(publish_all(&[made.clone()]).await?.is_some(), "somebody else has made it");
    ensure!(publish_all(&[made]).await?.is_none(), "it was made twice");

    // Both have the same state. Alice is faster, so Bob's edit is refused, made anew behind hers, and none is lost.
    let (mut alice, _) = Structure::open(&topic).await?;
    let (mut bob, _) = Structure::open(&topic).await?;
    ensure!(alice.edit(line("alice began".to_owned())).await? == 0);
    ensure!(bob.edit(line("bob was slower".to_owned())).await? == 1);

    // Both at once.
    let by_alice = async {
        for n in 0..20 {
            alice.edit(line(format!("alice {n}"))).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let by_bob = async {
        for n in 0..20 {
            bob.edit(line(format!("bob {n}"))).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let (by_alice, by_bob) = tokio::join!(by_alice, by_bob);
    by_alice.and(by_bob)?;

    // Somebody comes late, and another edit reaches all three.
    let (mut carol, few) = Structure::open(&topic).await?;
    carol.edit(line("carol came late".to_owned())).await?;
    for who in [&mut alice, &mut bob] {
        who.take_to(carol.last).await?;
    }
    let state = carol.state.context("Carol has nothing")?;
    println!(
        "{few} events gave Carol the state of 42 edits; with hers it has {} lines",
        state["count"]
    );
    ensure!(few as u64 <= 1 + PATCHES_MAX, "{few} events");
    ensure!(alice.state.as_ref() == Some(&state) && bob.state.as_ref() == Some(&state));
    ensure!(state["count"] == 43 && state["lines"].as_array().map(Vec::len) == Some(43), "{state}");
    ensure!(state["lines"][1] == "bob was slower" && state["lines"][42] == "carol came late");
    Ok(())
}
