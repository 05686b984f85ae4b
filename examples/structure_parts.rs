//! A structure whose parts change independently: the newest of each part is the state, and the last one wins.
//!
//! On `structures.<id>`, as the TypeScript client's `structure` writes and reads it:
//!
//! - `structure.changed` has the path of the part (JSON Pointer, RFC 6901) as its key, `/` for the whole, and the data
//!   `{"value":…}`; without a value the part is taken away.
//! - The newest event of each path, in the order of the log, is the state: `last_per_key` gives that and what follows.
//! - What depends on what is there is published as one batch with `expect_last` in its first event: all of it or, where
//!   somebody else was faster, nothing.
//!
//! Where the order of changes matters, as in a list that grows: `structure`.
//! Run it: `cargo run --example structure_parts [URL]`, with a broker at URL, `http://127.0.0.1:8080` unless said.

#![allow(clippy::indexing_slicing, reason = "of a JSON value that is not there it gives null")]

mod common;

use anyhow::{Context, Result, ensure};
use common::{backlog, connect, event, json as data_of, next, publish, publish_all, run, to};
use serde_json::{Map, Value, json};
use tidings::client::{Client, Subscription};
use tidings_proto::{Event, Offset, SubscribeOptions};

/// A structure as one of its readers sees it.
struct Parts {
    events: Subscription,
    state: Value,
    last: u64,
}

impl Parts {
    /// Opens it; also gives how many events that took.
    async fn open(topic: &str) -> Result<(Parts, usize)> {
        let wish = SubscribeOptions { last_per_key: true, ..to(&[topic])? };
        let mut events = connect().await?.subscribe(wish).await?;
        let there = backlog(&mut events).await?;
        let mut opened = Parts { events, state: Value::Null, last: 0 };
        for event in &there {
            opened.take(event)?;
        }
        Ok((opened, there.len()))
    }

    fn take(&mut self, event: &Event) -> Result<()> {
        self.last = event.offset.get();
        if event.kind == "structure.changed" {
            let path = event.key.as_deref().context("a change has its path as key")?;
            let names: Vec<_> = path.split('/').skip(1).filter(|_| path != "/").map(name).collect();
            put(&mut self.state, &names, data_of(event)?.get("value").cloned());
        }
        Ok(())
    }

    async fn take_to(&mut self, offset: Offset) -> Result<()> {
        while self.last < offset.get() {
            let event = next(&mut self.events).await?;
            self.take(&event)?;
        }
        Ok(())
    }
}

/// A name on a path, as it is without its escapes.
fn name(escaped: &str) -> String {
    escaped.replace("~1", "/").replace("~0", "~")
}

/// Replaces a part, or takes it away. What is missing on the way is made.
fn put(part: &mut Value, names: &[String], value: Option<Value>) {
    let Some((first, rest)) = names.split_first() else {
        *part = value.unwrap_or_default();
        return;
    };
    if !part.is_object() {
        *part = Map::new().into();
    }
    let Some(object) = part.as_object_mut() else { return };
    if rest.is_empty() && value.is_none() {
        object.remove(first);
    } else {
        put(object.entry(first).or_insert(Value::Null), rest, value);
    }
}

/// Sets a part, whatever is there.
async fn set(client: &Client, topic: &str, path: &str, value: Value) -> Result<Offset> {
    let mut changed = event(topic, "structure.changed", &json!({ "value": value }))?;
    changed.key = Some(path.to_owned());
    publish(client, changed).await
}

#[tokio::main]
async fn main() -> Result<()> {
    let topic = format!("structures.{}", run());
    let (mut reader, nothing) = Parts::open(&topic).await?;
    ensure!(nothing == 0);
    let author = connect().await?;
    let table = json!({"title": "Table", "cells": {"old": true}});
    set(&author, &topic, "/", table).await?;
    for n in 0..50 {
        set(&author, &topic, &format!("/cells/{}", n % 5), json!(n)).await?;
    }
    set(&author, &topic, "/names/a~1b", json!("a name with a slash")).await?;
    let mut gone = event(&topic, "structure.changed", &json!({}))?;
    gone.key = Some("/cells/old".to_owned());
    let last = publish(&author, gone).await?;
    reader.take_to(last).await?;
    let state = json!({
        "title": "Table",
        "cells": {"0": 45, "1": 46, "2": 47, "3": 48, "4": 49},
        "names": {"a/b": "a name with a slash"},
    });
    ensure!(reader.state == state, "{}", reader.state);

    // Somebody comes late: the state is the newest of eight paths, not fifty-three changes.
    let (mut late, few) = Parts::open(&topic).await?;
    println!("{few} of 53 changes are the state: {}", late.state);
    ensure!((few, &late.state) == (8, &state));

    // Two cells change places. Both have seen the same state, so only the first to say so does it.
    let swap = |expect_last: u64| {
        let cell = |n: &str, value: &Value| json!({"topic": topic, "type": "structure.changed", "key": n, "data": {"value": value}});
        let mut first = cell("/cells/0", &state["cells"]["1"]);
        first["expect_last"] = json!(expect_last);
        [first, cell("/cells/1", &state["cells"]["0"])]
    };
    let swapped = publish_all(&swap(reader.last)).await?.context("nobody else was there")?;
    ensure!(publish_all(&swap(late.last)).await?.is_none(), "they changed places twice");
    let last = *swapped.last().context("nothing was published")?;
    for who in [&mut reader, &mut late] {
        who.take_to(last).await?;
        let cells = &who.state["cells"];
        ensure!(cells["0"] == 46 && cells["1"] == 45, "{cells}");
    }
    ensure!(reader.state == late.state);
    Ok(())
}
