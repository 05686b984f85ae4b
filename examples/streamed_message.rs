//! A message that is streamed in chunks: interrupted and gone on with, and whole for who comes late.
//!
//! All chunks have one `correlation` and a number; the last one says so. The writer goes on after a crash where
//! the log says it was: `expect_last` keeps two writers from going on at once.
//! `cargo run --example streamed_message [URL]`

#![allow(clippy::indexing_slicing, reason = "of a JSON value that is not there it gives null")]

mod common;

use anyhow::{Result, ensure};
use common::{connect, event, json as data_of, next, run, to};
use serde_json::json;
use tidings::client::{Client, Subscription};
use tidings_proto::{Position, SubscribeOptions, message::Publish, subscribe::After};

const WORDS: [&str; 6] = ["Events ", "are ", "kept, ", "so ", "nothing ", "is lost."];

/// Sends these chunks, each behind the one before; gives where the last one stands.
async fn send(
    client: &Client,
    topic: &str,
    chunks: std::ops::Range<usize>,
    mut last: u64,
) -> Result<u64> {
    for seq in chunks {
        let delta = WORDS.get(seq).copied().unwrap_or_default();
        let is_final = seq + 1 == WORDS.len();
        let data = json!({"seq": seq, "delta": delta, "final": is_final});
        let mut chunk = event(topic, "message.chunk", &data)?;
        chunk.correlation = Some("answer-1".to_owned());
        let publish = Publish { expect_last: Some(last), ..Publish::of(chunk) };
        last = client.publish(publish).await?.await?.offset.get();
    }
    Ok(last)
}

/// Puts the message together.
async fn read(mut chunks: Subscription) -> Result<String> {
    let mut text = String::new();
    let mut expected = 0;
    loop {
        let chunk = data_of(&next(&mut chunks).await?)?;
        ensure!(chunk["seq"] == expected, "a chunk is missing: {chunk}");
        expected += 1;
        text.push_str(chunk["delta"].as_str().unwrap_or_default());
        if chunk["final"] == true {
            return Ok(text);
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let topic = format!("messages.{}", run());
    let reader = connect().await?;
    let early = reader.subscribe(to(&[&topic])?).await?;
    let writer = connect().await?;
    let last = send(&writer, &topic, 0..3, 0).await?;
    // The writer is gone in the middle of it; another one goes on.
    writer.close().await;
    let other = connect().await?;
    send(&other, &topic, 3..WORDS.len(), last).await?;
    // A third that believes to be the writer still is refused.
    let refused = send(&connect().await?, &topic, 3..4, last).await;
    ensure!(refused.is_err(), "two writers went on");

    let from_the_first = Position { cursor: tidings_proto::Cursor::START, log: None };
    let wish = SubscribeOptions { after: Some(After(from_the_first)), ..to(&[&topic])? };
    let late = connect().await?.subscribe(wish).await?;
    let (early, late) = (read(early).await?, read(late).await?);
    println!("{early}");
    ensure!(early == WORDS.concat() && late == early);
    Ok(())
}
