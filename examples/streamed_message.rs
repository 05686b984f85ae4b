//! Messages that are streamed in chunks: joined in the middle, gone on with behind a crash, and interrupted.
//!
//! On the topic of a session, `sessions.<id>` (any topic does):
//!
//! - `message.chunk` has the data `{"seq":0,"delta":"…","final":false}`. All chunks of a message have one `correlation`, the
//!   last one says `"final":true`. From the second on `start` says where the first one stands.
//! - A writer that stops before the end says why: its last chunk has an `error` and is not `final`.
//! - A chunk has the id `<correlation>:<seq>`, so that the broker keeps two writers from going on with one message: the
//!   second who says something else as chunk 3 is told `conflict`.
//! - Whoever comes late reads from the log what was said, and then what follows, by one subscription.
//! - Who speaks on `sessions.<id>` is told to stop as any agent is: `command.interrupt` on `agents.<id>.commands`, `urgent`.
//!
//! Run it: `cargo run --example streamed_message [URL]`, with a broker at URL, `http://127.0.0.1:8080` unless said.

#![allow(clippy::indexing_slicing, reason = "of a JSON value that is not there it gives null")]

mod common;

use anyhow::{Result, ensure};
use common::{
    backlog, connect, event, from_the_first, is_conflict, json as data_of, next, publish, run, to,
};
use serde_json::json;
use tidings::client::{Client, Subscription};
use tidings_proto::{Event, EventId, Offset, Priority, SubscribeOptions, message::Publish};

const WORDS: [&str; 6] = ["Events ", "are ", "kept, ", "so ", "nothing ", "is lost."];
/// How far the first writer gets.
const CUT: usize = 3;

/// Writes a message.
struct Writer {
    client: Client,
    topic: String,
    correlation: String,
    seq: u64,
    start: Option<Offset>,
}

impl Writer {
    async fn begin(topic: &str, correlation: &str) -> Result<Writer> {
        let client = connect().await?;
        let (topic, correlation) = (topic.to_owned(), correlation.to_owned());
        Ok(Writer { client, topic, correlation, seq: 0, start: None })
    }

    /// Goes on where the writer before was cut off: the log knows where that was.
    async fn resume(topic: &str, correlation: &str) -> Result<Writer> {
        let mut writer = Writer::begin(topic, correlation).await?;
        let mut there = writer.client.subscribe(from_the_first(&[topic])?).await?;
        for chunk in backlog(&mut there).await? {
            if chunk.correlation.as_deref() == Some(correlation) {
                writer.start.get_or_insert(chunk.offset);
                writer.seq += 1;
            }
        }
        Ok(writer)
    }

    /// Publishes the next chunk. False where another writer has said something else there.
    async fn write(&mut self, delta: &str, is_final: bool, error: Option<&str>) -> Result<bool> {
        let mut data = json!({"seq": self.seq, "delta": delta, "final": is_final});
        if let Some(start) = self.start {
            data["start"] = json!(start);
        }
        if let Some(error) = error {
            data["error"] = json!(error);
        }
        let mut chunk = event(&self.topic, "message.chunk", &data)?;
        chunk.id = Some(EventId::parse(&format!("{}:{}", self.correlation, self.seq))?);
        chunk.correlation = Some(self.correlation.clone());
        match self.client.publish(Publish::of(chunk)).await?.await {
            Ok(published) => {
                self.start.get_or_insert(published.offset);
                self.seq += 1;
                Ok(true)
            }
            Err(error) if is_conflict(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// A message as far as a reader has it.
#[derive(Debug, Default, PartialEq)]
struct Message {
    text: String,
    chunks: u64,
    is_whole: bool,
    error: Option<String>,
}

impl Message {
    /// Adds the next chunk of this message; chunks of others are passed over.
    fn take(&mut self, correlation: &str, chunk: &Event) -> Result<()> {
        if chunk.correlation.as_deref() != Some(correlation) {
            return Ok(());
        }
        let data = data_of(chunk)?;
        ensure!(data["seq"] == self.chunks && self.error.is_none(), "not the next chunk: {data}");
        self.chunks += 1;
        self.text.push_str(data["delta"].as_str().unwrap_or_default());
        self.error = data["error"].as_str().map(str::to_owned);
        self.is_whole = data["final"] == true && self.error.is_none();
        Ok(())
    }

    /// Reads on to the end of the message, or to where its writer stopped.
    async fn read(mut self, correlation: &str, chunks: &mut Subscription) -> Result<Message> {
        while !self.is_whole && self.error.is_none() {
            let chunk = next(chunks).await?;
            self.take(correlation, &chunk)?;
        }
        Ok(self)
    }
}

/// Joins a session in the middle of a message: what was said of it, and the subscription that brings the rest.
async fn join(topic: &str, correlation: &str) -> Result<(Message, Subscription)> {
    let mut chunks = connect().await?.subscribe(from_the_first(&[topic])?).await?;
    let mut message = Message::default();
    for chunk in backlog(&mut chunks).await? {
        message.take(correlation, &chunk)?;
    }
    Ok((message, chunks))
}

/// The writer is gone in the middle, somebody joins, and another writer goes on.
async fn cut_off(topic: &str, early: &mut Subscription) -> Result<()> {
    let id = &format!("answer-1-{topic}");
    let mut writer = Writer::begin(topic, id).await?;
    for word in WORDS.iter().take(CUT) {
        ensure!(writer.write(word, false, None).await?);
    }
    writer.client.close().await;
    let (so_far, mut late) = join(topic, id).await?;
    println!("joined at: {}", so_far.text);
    ensure!(so_far.text == WORDS[..CUT].concat() && !so_far.is_whole, "{so_far:?}");

    let mut writer = Writer::resume(topic, id).await?;
    let mut third = Writer::resume(topic, id).await?;
    for (n, word) in WORDS.iter().enumerate().skip(CUT) {
        ensure!(writer.write(word, n + 1 == WORDS.len(), None).await?);
        // It believes to be the one who goes on, too.
        ensure!(!third.write("but ", false, None).await?, "two writers went on");
    }
    let by_early = Message::default().read(id, early).await?;
    let by_late = so_far.read(id, &mut late).await?;
    println!("then:      {}", by_late.text);
    ensure!(by_late.is_whole && by_late.text == WORDS.concat(), "{by_late:?}");
    ensure!(by_early == by_late);
    Ok(())
}

/// Somebody joins in the middle, has heard enough, and interrupts.
async fn interrupted(topic: &str, agent: &str, early: &mut Subscription) -> Result<()> {
    let id = &format!("answer-2-{topic}");
    let commands = format!("agents.{agent}.commands");
    let mut writer = Writer::begin(topic, id).await?;
    let wish =
        SubscribeOptions { types: vec!["command.interrupt".to_owned()], ..to(&[&commands])? };
    let mut interrupts = writer.client.subscribe(wish).await?;
    for word in WORDS.iter().take(CUT) {
        ensure!(writer.write(word, false, None).await?);
    }
    let writing = async {
        // It thinks about the next word, for ever if nobody interrupts.
        let interrupt = data_of(&next(&mut interrupts).await?)?;
        let why = interrupt["reason"].as_str().unwrap_or("interrupted");
        ensure!(writer.write("", false, Some(why)).await?, "the last chunk was another's");
        Ok(())
    };
    let listening = async {
        let (so_far, mut late) = join(topic, id).await?;
        ensure!(so_far.text == WORDS[..CUT].concat() && so_far.error.is_none(), "{so_far:?}");
        let why = json!({"reason": "thank you, that is enough"});
        let mut interrupt = event(&commands, "command.interrupt", &why)?;
        interrupt.priority = Priority::Urgent;
        publish(&connect().await?, interrupt).await?;
        so_far.read(id, &mut late).await
    };
    let (written, by_late): (Result<()>, Result<Message>) = tokio::join!(writing, listening);
    written?;
    let by_late = by_late?;
    println!("stopped:   {} ({})", by_late.text, by_late.error.as_deref().unwrap_or_default());
    ensure!(by_late.text == WORDS[..CUT].concat() && !by_late.is_whole, "{by_late:?}");
    ensure!(by_late.error.as_deref() == Some("thank you, that is enough"), "{by_late:?}");
    ensure!(Message::default().read(id, early).await? == by_late);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let id = run();
    let topic = format!("sessions.{id}");
    let mut early = connect().await?.subscribe(to(&[&topic])?).await?;
    cut_off(&topic, &mut early).await?;
    interrupted(&topic, &id, &mut early).await
}
