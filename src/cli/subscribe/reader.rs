//! What `tidings sub` does with what it gets: writes it, hands it over, acknowledges it.
//!
//! - An event is acknowledged when its line has been handed to the reader of stdout, not before.
//! - Acks name the very events that were written: one that somebody else put off, and that
//!   therefore has not come yet, is not acknowledged along with those behind it.
//! - An event that does not open ends it: neither it nor what follows is written or acknowledged, what came before is.
//! - At most one ack is under way; what is written meanwhile goes into the next.

use std::{future::Future, io, pin::Pin};

use anyhow::{Context, anyhow};
use tidings_proto::{Cursor, Offset};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::{
    AckMode, Args,
    format::{Format, describe, write_event},
};
use crate::{
    cli::{
        Globals,
        output::{Output, shown},
        within,
    },
    client::{
        Client, Delivery, Error, Subscription,
        sealed::{Keys, OpenError},
    },
};

/// How many events are written before they are handed over and acknowledged.
const BATCH_MAX: usize = 256;
/// How many events one ack may name.
const ACK_MAX: usize = 4096;

/// Interrupts, which end the command well.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from here on.
    pub(super) fn new() -> anyhow::Result<Signals> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        Ok(Signals { interrupt, terminate })
    }

    /// The next of them.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Lines of stdin.
pub(super) type Lines = mpsc::Receiver<io::Result<Vec<u8>>>;

/// Writes what a subscription gives.
pub(super) struct Reader<'a> {
    args: &'a Args,
    globals: &'a Globals,
    format: Format,
    /// What opens events; without it they are written as they come.
    keys: Option<Keys>,
    /// Why an event did not open.
    unopened: Option<OpenError>,
    subscription: Subscription,
    output: Output,
    /// How many events have been written.
    written: u64,
    acks: Acks,
}

/// Whether there is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enough {
    Yes,
    No,
}

impl<'a> Reader<'a> {
    /// A reader that has written nothing.
    pub(super) fn new(
        args: &'a Args,
        globals: &'a Globals,
        format: Format,
        keys: Option<Keys>,
        subscription: Subscription,
    ) -> Reader<'a> {
        let acks = Acks { auto: args.ack_mode() == AckMode::Auto, ..Acks::default() };
        let output = Output::stdout();
        let (unopened, written) = (None, 0);
        Reader { args, globals, format, keys, unopened, subscription, output, written, acks }
    }

    /// Why it ended, where an event did not open.
    pub(super) fn unopened(&mut self) -> Option<OpenError> {
        self.unopened.take()
    }

    /// Writes until there is enough or a signal, and obeys these lines.
    pub(super) async fn read(
        &mut self,
        signals: &mut Signals,
        mut lines: Option<Lines>,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                () = signals.next() => return Ok(()),
                acked = self.acks.under_way() => {
                    self.acks.done(acked, self.globals)?;
                }
                line = next_line(&mut lines) => match line {
                    None => lines = None,
                    Some(line) => {
                        let line = line.context("cannot read stdin")?;
                        tokio::select! {
                            done = self.obey(&line) => done?,
                            () = signals.next() => return Ok(()),
                        }
                    }
                },
                delivery = self.subscription.next() => {
                    if self.write_batch(delivery?)? == Enough::Yes {
                        return Ok(());
                    }
                }
            }
            self.acks.begin(&self.subscription);
        }
    }

    /// Writes what is there now and hands it over.
    fn write_batch(&mut self, first: Delivery) -> anyhow::Result<Enough> {
        let mut enough = self.write(first);
        for _ in 1..BATCH_MAX {
            if !matches!(enough, Ok(Enough::No)) {
                break;
            }
            match self.subscription.try_next() {
                Some(delivery) => enough = self.write(delivery?),
                None => break,
            }
        }
        // What was written before a failure is handed over and acknowledged all the same.
        self.output.flush()?;
        self.acks.handed_over();
        enough
    }

    fn write(&mut self, delivery: Delivery) -> anyhow::Result<Enough> {
        match delivery {
            Delivery::Event { event, .. } => {
                let event = match self.keys.as_ref().map(|keys| keys.open(&event)) {
                    None => event,
                    Some(Ok(opened)) => opened,
                    Some(Err(error)) => {
                        self.unopened = Some(error);
                        return Ok(Enough::Yes);
                    }
                };
                let mut line = Vec::new();
                write_event(&event, self.format, &mut line);
                self.output.line(&line)?;
                self.acks.written(event.offset);
                self.written += 1;
                if self.args.count.is_some_and(|count| self.written >= count) {
                    return Ok(Enough::Yes);
                }
            }
            Delivery::CaughtUp(_) if self.args.until_caught_up => return Ok(Enough::Yes),
            Delivery::Gap(gap) => self.globals.notice(&describe(&gap)),
            Delivery::Superseded => {
                let name = self.args.durable.as_deref().unwrap_or("the subscription");
                return Err(anyhow!("another session has taken {name} over, or it was deleted"));
            }
            _ => {}
        }
        Ok(Enough::No)
    }

    /// Acknowledges or puts off what a line of stdin names.
    async fn obey(&mut self, line: &[u8]) -> anyhow::Result<()> {
        match parse_order(line) {
            Some(Order::Ack(offset)) => {
                self.subscription.ack_many(vec![offset]).await?;
            }
            Some(Order::Nack(offset)) => {
                self.subscription.nack(vec![offset], None, None).await?;
            }
            None => {
                let line = shown(&String::from_utf8_lossy(line));
                self.globals.notice(&format!("stdin: \"{line}\" is ignored: give 57 or nack 57"));
            }
        }
        Ok(())
    }

    /// Lets the last acks arrive and hangs up.
    pub(super) async fn finish(mut self, client: &Client) -> anyhow::Result<()> {
        self.output.flush()?;
        let patience = Some(self.globals.patience());
        loop {
            self.acks.begin(&self.subscription);
            if self.acks.under_way.is_none() {
                break;
            }
            let acked =
                within(patience, "no answer to the last ack", self.acks.under_way()).await?;
            self.acks.done(acked, self.globals)?;
        }
        client.close().await;
        Ok(())
    }
}

async fn next_line(lines: &mut Option<Lines>) -> Option<io::Result<Vec<u8>>> {
    match lines {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}

type Acked = Result<Option<Cursor>, Error>;

/// What is written and not acknowledged.
#[derive(Default)]
struct Acks {
    auto: bool,
    /// Written, perhaps not handed over.
    written: Vec<Offset>,
    /// Handed over, not acknowledged.
    due: Vec<Offset>,
    under_way: Option<Pin<Box<dyn Future<Output = Acked> + Send>>>,
}

impl Acks {
    fn written(&mut self, offset: Offset) {
        if self.auto {
            self.written.push(offset);
        }
    }

    fn handed_over(&mut self) {
        self.due.append(&mut self.written);
    }

    /// Begins an ack if there is something to acknowledge and none is under way.
    fn begin(&mut self, subscription: &Subscription) {
        if self.under_way.is_none() && !self.due.is_empty() {
            let rest = self.due.split_off(self.due.len().min(ACK_MAX));
            let offsets = std::mem::replace(&mut self.due, rest);
            self.under_way = Some(Box::pin(subscription.ack_many(offsets)));
        }
    }

    /// The answer to the ack under way. Cancel safe.
    async fn under_way(&mut self) -> Acked {
        match &mut self.under_way {
            Some(ack) => ack.await,
            None => std::future::pending().await,
        }
    }

    fn done(&mut self, acked: Acked, globals: &Globals) -> anyhow::Result<()> {
        self.under_way = None;
        match acked {
            Ok(_) => Ok(()),
            // The subscription says itself why it has ended.
            Err(Error::Ended) => Ok(()),
            Err(Error::Refused(error)) if error.code == tidings_proto::Code::Conflict => {
                // It was reset meanwhile: what was written comes again.
                globals.notice(&format!("an ack was refused: {error}"));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What a line of stdin says about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Ack(Offset),
    Nack(Offset),
}

fn parse_order(line: &[u8]) -> Option<Order> {
    let text = std::str::from_utf8(line).ok()?.trim();
    let offset = |text: &str| text.trim().parse().ok().and_then(Offset::new);
    match text.strip_prefix("nack ") {
        Some(text) => offset(text).map(Order::Nack),
        None => offset(text.strip_prefix("ack ").unwrap_or(text)).map(Order::Ack),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdin_names_events() {
        let offset = Offset::new(57).unwrap();
        assert_eq!(parse_order(b"57\r"), Some(Order::Ack(offset)));
        assert_eq!(parse_order(b"ack 57"), Some(Order::Ack(offset)));
        assert_eq!(parse_order(b" nack 57 "), Some(Order::Nack(offset)));
        for line in [&b""[..], b"0", b"nack", b"x", b"\xff"] {
            assert_eq!(parse_order(line), None);
        }
    }
}
