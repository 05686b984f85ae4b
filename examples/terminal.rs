//! Terminal output as events: many small writes, few frames, and every byte in its place.
//!
//! `linger_ms` gathers what is written within 30 ms into one batch; a terminal that is opened late reads the
//! scroll-back first. `cargo run --example terminal [URL]`

mod common;

use anyhow::{Result, ensure};
use common::{connect, next, run, to};
use tidings::client::Subscription;
use tidings_proto::{
    Cursor, NewEvent, Position, SubscribeOptions, Topic, message::Publish, subscribe::After,
};

/// Reads until there is as much as was written.
async fn screen(mut terminal: Subscription, bytes: usize) -> Result<Vec<u8>> {
    let mut screen = Vec::new();
    while screen.len() < bytes {
        screen.extend_from_slice(next(&mut terminal).await?.data.as_deref().unwrap_or_default());
    }
    Ok(screen)
}

#[tokio::main]
async fn main() -> Result<()> {
    let topic = format!("terminals.{}", run());
    let (shell, viewer) = (connect().await?, connect().await?);
    let live = SubscribeOptions { linger_ms: 30, ..to(&[&topic])? };
    let live = viewer.subscribe(live).await?;
    let mut written = Vec::new();
    let mut handles = Vec::new();
    for n in 0..500 {
        let text = format!("\x1b[3{}mline {n} äöü ✓\x1b[0m\r\n", n % 8);
        written.extend_from_slice(text.as_bytes());
        let output = NewEvent {
            kind: "terminal.output".to_owned(),
            datacontenttype: Some("text/plain".to_owned()),
            data: Some(text.into()),
            ..NewEvent::on(Topic::parse(&topic)?)
        };
        // Not waited for one by one: they are appended in the order of the calls.
        handles.push(shell.publish(Publish::of(output)).await?);
    }
    for handle in handles {
        handle.await?;
    }
    let from_the_first = After(Position { cursor: Cursor::START, log: None });
    let late = SubscribeOptions { after: Some(from_the_first), ..to(&[&topic])? };
    let late = viewer.subscribe(late).await?;
    let (live, late) = (screen(live, written.len()).await?, screen(late, written.len()).await?);
    println!("{} bytes, the same on both", live.len());
    ensure!(live == written && late == written);
    Ok(())
}
