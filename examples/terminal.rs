//! Terminal output as events: many small writes, few frames, and every byte in its place, also for who looks in later.
//!
//! - On `terminals.<id>`, `terminal.output` has what was written as `text/plain`, control sequences and all; `terminal.closed`
//!   says `{"exit":0}` at the end.
//! - A viewer asks for `linger_ms` 30: the broker gathers what comes within 30 ms, so that a program that writes line by line
//!   costs a frame every 30 ms or 32 KiB and not one a line. Here it is a WebSocket as a browser has it, to see the frames.
//! - A terminal that is opened late reads the scroll-back from the log first.
//!
//! Run it: `cargo run --example terminal [URL]`, with a broker at URL, `http://127.0.0.1:8080` unless said.

#![allow(clippy::indexing_slicing, reason = "of a JSON value that is not there it gives null")]

mod common;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{connect, event, from_the_first, json as data_of, next, publish, run, url};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tidings::{client::Subscription, clock};
use tidings_proto::{NewEvent, Topic, message::Publish};
use tokio_tungstenite::{connect_async, tungstenite::Message};

const LINGER_MS: u64 = 30;
/// A batch of events ends at this size.
const FRAME_BYTES: usize = 32 * 1024;

/// A viewer by a WebSocket of its own.
struct Viewer {
    socket: tokio_tungstenite::WebSocketStream<
        tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>,
    >,
}

/// What a viewer has in the end.
#[derive(Default)]
struct Screen {
    bytes: Vec<u8>,
    frames: u64,
    frame_bytes: usize,
}

impl Viewer {
    /// Looks at a terminal from now on.
    async fn open(topic: &str) -> Result<Viewer> {
        let (socket, _) =
            connect_async(format!("{}/v1/ws", url().replacen("http", "ws", 1))).await?;
        let mut viewer = Viewer { socket };
        let wish = json!({"filters": [topic], "linger_ms": LINGER_MS});
        let wish = json!({"id": 1, "subscribe": wish}).to_string();
        viewer.socket.send(Message::text(wish)).await?;
        while !viewer.frame().await?.0["caught_up"].is_object() {}
        Ok(viewer)
    }

    /// The next message, and how large it was.
    async fn frame(&mut self) -> Result<(Value, usize)> {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(60), self.socket.next()).await;
            let message = message.context("nothing came in time")?.context("it has ended")??;
            if let Message::Text(text) = message {
                return Ok((serde_json::from_str(&text)?, text.len()));
            }
        }
    }

    /// Reads until the program has ended.
    async fn watch(mut self) -> Result<Screen> {
        let mut screen = Screen::default();
        loop {
            let (message, bytes) = self.frame().await?;
            let Some(events) = message["events"]["events"].as_array() else { continue };
            screen.frames += u64::from(!events.is_empty());
            screen.frame_bytes += bytes;
            for event in events {
                if event["type"] == "terminal.closed" {
                    return Ok(screen);
                }
                let output = event["data"].as_str().context("output is text")?;
                screen.bytes.extend_from_slice(output.as_bytes());
            }
        }
    }
}

/// The same from the log, by the client.
async fn scroll_back(mut terminal: Subscription) -> Result<Vec<u8>> {
    let mut screen = Vec::new();
    loop {
        let event = next(&mut terminal).await?;
        if event.kind == "terminal.closed" {
            ensure!(data_of(&event)?["exit"] == 0);
            return Ok(screen);
        }
        screen.extend_from_slice(event.data.as_deref().unwrap_or_default());
    }
}

/// A program that writes 500 lines and ends; gives what it wrote.
async fn program(topic: &str) -> Result<Vec<u8>> {
    let shell = connect().await?;
    let (mut written, mut handles) = (Vec::new(), Vec::new());
    for n in 0..500 {
        let text = format!("\x1b[3{}mline {n} äöü ✓\x1b[0m\r\n", n % 8);
        written.extend_from_slice(text.as_bytes());
        let output = NewEvent {
            kind: "terminal.output".to_owned(),
            datacontenttype: Some("text/plain".to_owned()),
            data: Some(text.into()),
            ..NewEvent::on(Topic::parse(topic)?)
        };
        // Not waited for one by one: they are appended in the order of the calls.
        handles.push(shell.publish(Publish::of(output)).await?);
    }
    for handle in handles {
        handle.await?;
    }
    publish(&shell, event(topic, "terminal.closed", &json!({"exit": 0}))?).await?;
    Ok(written)
}

#[tokio::main]
async fn main() -> Result<()> {
    let topic = format!("terminals.{}", run());
    let viewer = Viewer::open(&topic).await?;
    let begun = clock::monotonic_ms();
    let (written, live) = tokio::try_join!(program(&topic), viewer.watch())?;
    let took_ms = clock::monotonic_ms() - begun;
    println!("500 writes, {} bytes: {} frames in {took_ms} ms", written.len(), live.frames);
    ensure!(live.bytes == written, "the viewer has something else than was written");
    // A frame waits 30 ms for more, or is full.
    let full = u64::try_from(live.frame_bytes / FRAME_BYTES)?;
    ensure!(live.frames <= took_ms / LINGER_MS + 2 * full + 2, "{} frames", live.frames);

    let late = connect().await?.subscribe(from_the_first(&[&topic])?).await?;
    ensure!(scroll_back(late).await? == written, "the scroll-back is something else");
    Ok(())
}
