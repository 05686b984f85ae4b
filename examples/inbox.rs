//! A user's inbox: notifications that wait while nobody looks, an unread count, and two devices in step.
//!
//! The inbox is a durable subscription in mode `mirror`: unread is its `lag`, reading is an `ack`, and every
//! device is told of it. `cargo run --example inbox [URL]`

#![allow(clippy::indexing_slicing, reason = "of a JSON value that is not there it gives null")]

mod common;

use anyhow::{Result, ensure};
use common::{connect, event, http, next, publish, run, to};
use serde_json::{Value, json};
use tidings::client::Delivery;
use tidings_proto::{Mode, Start, SubscribeOptions};

#[tokio::main]
async fn main() -> Result<()> {
    let user = format!("alice-{}", run());
    let (topic, inbox) = (format!("users.{user}.notifications"), format!("{user}-inbox"));
    let unread = async || -> Result<u64> {
        let state: Value =
            http()?.get(&format!("/v1/subscriptions/{inbox}")).await?.ok()?.json()?;
        Ok(state["lag"].as_u64().unwrap_or_default())
    };
    // The inbox is there before any device is: what comes meanwhile waits in it.
    let options = json!({"filters": [topic], "mode": "mirror", "start": "now"}).to_string();
    http()?.put(&format!("/v1/subscriptions/{inbox}"), options).await?.ok()?;
    let sender = connect().await?;
    let mut offsets = Vec::new();
    for (title, tag) in [("Build failed", "ci-7"), ("Bob mentioned you", "m-1"), ("Lunch?", "m-2")]
    {
        let data = json!({"title": title, "level": "info", "tag": tag});
        let mut notification = event(&topic, "notification", &data)?;
        notification.key = Some(tag.to_owned());
        offsets.push(publish(&sender, notification).await?);
    }
    println!("nobody looked, {} unread", unread().await?);
    ensure!(unread().await? == 3);

    let wish = SubscribeOptions {
        durable: Some(inbox.clone()),
        mode: Mode::Mirror,
        start: Start::Now,
        ..to(&[&topic])?
    };
    let (laptop, phone) = (connect().await?, connect().await?);
    let mut on_laptop = laptop.subscribe(wish.clone()).await?;
    let mut on_phone = phone.subscribe(wish).await?;
    for offset in &offsets {
        ensure!(next(&mut on_laptop).await?.offset == *offset);
        ensure!(next(&mut on_phone).await?.offset == *offset);
    }
    // The first two are read on the laptop; the phone is told.
    on_laptop.ack_many(offsets.iter().take(2).copied().collect()).await?;
    let floor = loop {
        if let Delivery::Acked(floor) = on_phone.next().await? {
            break floor;
        }
    };
    println!("read on the laptop up to {floor}, {} unread", unread().await?);
    ensure!(unread().await? == 1);
    Ok(())
}
