//! A user's inbox: notifications that wait while nobody looks, an unread count, and two devices in step.
//!
//! - A notification is an event on `users.<id>.notifications` with the data `{"title","body","level","actions","link","icon",
//!   "tag"}`, as much of it as there is to say. `priority` says how urgent it is, `expires` until when it matters, and its
//!   key is its `tag`: a newer one takes the place of the older.
//! - The inbox is the durable subscription `<id>-inbox` in mode `mirror`. Unread is its `lag`, to read is an `ack`, and every
//!   device is told of it.
//!
//! Run it: `cargo run --example inbox [URL]`, with a broker at URL, `http://127.0.0.1:8080` unless said.

#![allow(clippy::indexing_slicing, reason = "of a JSON value that is not there it gives null")]

mod common;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use common::{connect, delivery, event, http, json as data_of, next, publish, run, to};
use serde_json::{Value, json};
use tidings::client::{Client, Delivery, Subscription};
use tidings_proto::{
    Event, Mode, NewEvent, Offset, Priority, Start, SubscribeOptions, event::Expiry,
};

/// A notification: what it says, and how urgent that is.
fn notification(topic: &str, priority: Priority, data: &Value) -> Result<NewEvent> {
    let mut notification = event(topic, "notification", data)?;
    notification.key = data["tag"].as_str().map(str::to_owned);
    notification.priority = priority;
    Ok(notification)
}

/// What was notified while no device was there; gives where it stands.
async fn while_away(sender: &Client, topic: &str, approvals: &str) -> Result<Vec<Offset>> {
    let approve = json!({"label": "Approve", "topic": approvals, "data": {"approved": true}});
    let of_build = |title: &str, level: &str| json!({"title": title, "level": level, "tag": "ci-7", "link": "/builds/7"});
    let ask = json!({"title": "Deploy?", "body": "Version 7 is ready.", "level": "warning", "tag": "deploy-7",
        "actions": [approve]});
    let mut lunch = notification(
        topic,
        Priority::Low,
        &json!({"title": "Lunch?", "level": "info", "tag": "lunch"}),
    )?;
    lunch.expires = Some(Expiry::TtlMs(3_600_000));
    let all = [
        notification(topic, Priority::High, &of_build("Build 7 failed", "error"))?,
        notification(topic, Priority::Urgent, &ask)?,
        lunch,
        notification(topic, Priority::Normal, &of_build("Build 7 is mended", "success"))?,
    ];
    let mut offsets = Vec::new();
    for notification in all {
        offsets.push(publish(sender, notification).await?);
    }
    Ok(offsets)
}

/// What a device shows: of each tag the newest.
async fn shown(inbox: &mut Subscription, offsets: &[Offset]) -> Result<BTreeMap<String, Event>> {
    let mut shown = BTreeMap::new();
    for offset in offsets {
        let notification = next(inbox).await?;
        ensure!(notification.offset == *offset, "another one than was sent: {notification:?}");
        let tag = notification.key.clone().context("its tag is its key")?;
        shown.insert(tag, notification);
    }
    Ok(shown)
}

/// Waits until another device has read everything up to `last`.
async fn told(inbox: &mut Subscription, last: Offset) -> Result<()> {
    loop {
        if let Delivery::Acked(floor) = delivery(inbox).await? {
            ensure!(floor.covers(last), "only up to {floor} is read");
            return Ok(());
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let user = format!("alice-{}", run());
    let (topic, inbox) = (format!("users.{user}.notifications"), format!("{user}-inbox"));
    let approvals = format!("approvals.{user}");
    let unread = async || -> Result<u64> {
        let state = http()?.get(&format!("/v1/subscriptions/{inbox}")).await?.ok()?;
        state.json::<Value>()?["lag"].as_u64().context("an inbox has a lag")
    };
    // The inbox is there before any device is: what comes meanwhile waits in it.
    let options = json!({"filters": [topic], "mode": "mirror", "start": "first"}).to_string();
    http()?.put(&format!("/v1/subscriptions/{inbox}"), options).await?.ok()?;
    let sender = connect().await?;
    let offsets = while_away(&sender, &topic, &approvals).await?;
    println!("nobody looked, {} unread", unread().await?);
    ensure!(unread().await? == 4);

    let wish = SubscribeOptions {
        durable: Some(inbox.clone()),
        mode: Mode::Mirror,
        start: Start::First,
        ..to(&[&topic])?
    };
    let (laptop, phone) = (connect().await?, connect().await?);
    let mut on_laptop = laptop.subscribe(wish.clone()).await?;
    let mut on_phone = phone.subscribe(wish.clone()).await?;
    let seen = shown(&mut on_laptop, &offsets).await?;
    ensure!(seen == shown(&mut on_phone, &offsets).await?, "the devices show different things");
    let title = |tag: &str| anyhow::Ok(data_of(&seen[tag])?["title"].clone());
    ensure!(seen.len() == 3 && title("ci-7")? == "Build 7 is mended");
    ensure!(seen["deploy-7"].priority == Priority::Urgent && seen["lunch"].expires.is_some());

    // A button of the second one is pressed: its data goes to its topic.
    let mut approved = laptop.subscribe(to(&[&approvals])?).await?;
    let action = &data_of(&seen["deploy-7"])?["actions"][0];
    let onto = action["topic"].as_str().context("a button has a topic")?;
    publish(&phone, event(onto, "notification.action", &action["data"])?).await?;
    ensure!(data_of(&next(&mut approved).await?)?["approved"] == true);

    // The first two are read on the laptop; the phone is told.
    on_laptop.ack_many(offsets.iter().take(2).copied().collect()).await?;
    told(&mut on_phone, *offsets.get(1).context("there are four")?).await?;
    println!("two were read on the laptop, {} unread", unread().await?);
    ensure!(unread().await? == 2);

    // A third device has what is unread, and what comes reaches all three. The phone reads it all.
    let mut on_tablet = connect().await?.subscribe(wish).await?;
    let fifth = json!({"title": "Bob mentioned you", "level": "info", "tag": "m-1"});
    let last = publish(&sender, notification(&topic, Priority::Normal, &fifth)?).await?;
    let left: Vec<_> = offsets.into_iter().skip(2).chain([last]).collect();
    ensure!(shown(&mut on_tablet, &left).await?.len() == 3);
    for device in [&mut on_laptop, &mut on_phone] {
        ensure!(next(device).await?.offset == last);
    }
    on_phone.ack(last).await?;
    for device in [&mut on_laptop, &mut on_tablet] {
        told(device, last).await?;
    }
    println!("the phone has read all, {} unread", unread().await?);
    ensure!(unread().await? == 0);
    Ok(())
}
