//! A structure that changes: its state, and the patches behind it, in one request.
//!
//! Every part is an event whose key is its path; `last_per_key` gives the newest of each path and then all that
//! follows, so that whoever comes late has what those have who were there. `cargo run --example structure [URL]`

#![allow(clippy::indexing_slicing, reason = "of a JSON value that is not there it gives null")]

mod common;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use common::{connect, event, json as data_of, next, publish, run, to};
use serde_json::{Value, json};
use tidings::client::{Client, Subscription};
use tidings_proto::SubscribeOptions;

async fn change(client: &Client, topic: &str, path: &str, value: Value) -> Result<()> {
    let mut changed = event(topic, "structure.changed", &json!({ "value": value }))?;
    changed.key = Some(path.to_owned());
    publish(client, changed).await.map(drop)
}

/// Takes up changes until the path has this value.
async fn until(
    subscription: &mut Subscription,
    state: &mut BTreeMap<String, Value>,
    path: &str,
    value: &Value,
) -> Result<usize> {
    let mut taken = 0;
    while state.get(path) != Some(value) {
        let event = next(subscription).await?;
        let data = data_of(&event)?;
        state.insert(event.key.context("a change has its path as key")?, data["value"].clone());
        taken += 1;
    }
    Ok(taken)
}

#[tokio::main]
async fn main() -> Result<()> {
    let topic = format!("structures.{}", run());
    let (author, reader) = (connect().await?, connect().await?);
    let mut first = reader.subscribe(to(&[&topic])?).await?;
    for n in 0..50 {
        change(&author, &topic, &format!("/cells/{}", n % 5), json!(n)).await?;
    }
    change(&author, &topic, "/title", json!("Plan")).await?;
    let mut state = BTreeMap::new();
    let all = until(&mut first, &mut state, "/title", &json!("Plan")).await?;

    // Somebody comes late: the state is six events, not fifty-one.
    let late = connect().await?;
    let wish = SubscribeOptions { last_per_key: true, ..to(&[&topic])? };
    let mut second = late.subscribe(wish).await?;
    let mut of_late = BTreeMap::new();
    let few = until(&mut second, &mut of_late, "/title", &json!("Plan")).await?;
    println!("{all} changes made a state of {few}: {of_late:?}");
    ensure!((all, few) == (51, 6) && state == of_late);

    // From here on both see every change.
    change(&author, &topic, "/cells/0", json!("new")).await?;
    until(&mut first, &mut state, "/cells/0", &json!("new")).await?;
    until(&mut second, &mut of_late, "/cells/0", &json!("new")).await?;
    ensure!(state == of_late);
    Ok(())
}
