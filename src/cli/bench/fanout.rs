//! One publisher, many subscribers that all get everything.

use std::time::Duration;

use anyhow::Context;
use tokio::{io::AsyncWriteExt, task::JoinSet};

use super::{
    Amount,
    publish::Template,
    report::{Latencies, Report, latencies, note},
    socket::{Socket, events_in},
};
use crate::{cli::Globals, clock};

/// How many digits the moment of a publish has in its data, in microseconds.
const STAMP_DIGITS: usize = 16;

/// What `tidings bench fanout` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How much.
    #[command(flatten)]
    pub amount: Amount,
    /// How many sockets subscribe.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub subscribers: u64,
    /// How many publishes may be unanswered.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub in_flight: usize,
    /// How many events are published a second; 0 is as many as go.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub rate: u64,
}

const EXAMPLES: &str = "\
Examples:
  tidings bench fanout --subscribers 100
  tidings bench fanout --subscribers 1000 --rate 50 --events 1000";

/// Measures.
pub(super) async fn run(args: &Args, globals: &Globals) -> anyhow::Result<Report> {
    let deadline = args.amount.deadline();
    let mut subscribers = JoinSet::new();
    for _ in 0..args.subscribers {
        let mut socket = Socket::open(globals).await?;
        socket.call(r#"{"id":1,"subscribe":{"filters":["bench.*"]}}"#).await?;
        subscribers.spawn(count(socket, args.amount.events, deadline));
    }
    let publisher = Socket::open(globals).await?;
    let begun = clock::monotonic();
    let published = publish(publisher, args, deadline).await?;
    let (mut delivered, mut all, mut ended) = (0, latencies()?, begun);
    while let Some(done) = subscribers.join_next().await {
        let (count, took, at) = done??;
        delivered += count;
        all.add(took)?;
        ended = ended.max(at);
    }
    let mut report = Report::default();
    report.begin("fanout");
    report.set("subscribers", args.subscribers);
    report.set("size", args.amount.size);
    report.set("events", published);
    report.rate("deliveries", delivered, ended.saturating_sub(begun));
    report.set("missing", (published * args.subscribers).saturating_sub(delivered));
    report.latencies(&all);
    Ok(report)
}

/// Publishes with the moment in the data; gives how many were answered.
async fn publish(socket: Socket, args: &Args, deadline: Duration) -> anyhow::Result<u64> {
    let Socket { mut input, mut output, .. } = socket;
    let mut template = Template::new(&args.amount, 0);
    let (mut out, mut written, mut sent, mut answered) = (Vec::new(), 0, 0_u64, 0_u64);
    let begun = clock::monotonic();
    let mut turn = tokio::time::interval(Duration::from_millis(1));
    loop {
        if written == out.len() {
            out.clear();
            written = 0;
        }
        let now = clock::monotonic();
        let events = if now < deadline { args.amount.events } else { sent };
        let due = match args.rate {
            0 => events,
            rate => events.min(due(now.saturating_sub(begun), rate)),
        };
        let room = (args.in_flight as u64).saturating_sub(sent - answered);
        for _ in 0..room.min(due.saturating_sub(sent)) {
            let stamp = format!("{:0STAMP_DIGITS$}", now.as_micros());
            template.write(&stamp, &mut out);
            sent += 1;
        }
        if sent >= events && answered >= sent {
            return Ok(answered);
        }
        tokio::select! {
            more = input.more() => more?,
            n = output.write(out.get(written..).unwrap_or_default()), if written < out.len() => {
                written += n?;
            }
            _ = turn.tick(), if args.rate > 0 => {}
        }
        while input.frame()?.is_some() {
            answered += 1;
        }
    }
}

/// How many events have been due after so long.
fn due(elapsed: Duration, rate: u64) -> u64 {
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    micros.saturating_mul(rate) / 1_000_000 + 1
}

/// Counts events until all are there; gives how long those that were looked at took, and the end.
async fn count(
    socket: Socket,
    events: u64,
    deadline: Duration,
) -> anyhow::Result<(u64, Latencies, Duration)> {
    let Socket { mut input, mut output, .. } = socket;
    let mut took = latencies()?;
    let (mut count, mut last) = (0, clock::monotonic());
    while count < events {
        let left = deadline.saturating_sub(clock::monotonic());
        match tokio::time::timeout(left, input.more()).await {
            Ok(more) => more?,
            Err(_) => break,
        }
        while let Some(payload) = input.frame()? {
            let here = events_in(payload);
            if here > 0 {
                count += here;
                last = clock::monotonic();
                // The oldest of the batch: it has waited longest.
                note(&mut took, last.saturating_sub(stamp_of(payload)?));
            }
        }
        input.answer_ping(&mut output).await?;
    }
    Ok((count, took, last))
}

/// When the first event of a batch was published.
fn stamp_of(payload: &[u8]) -> anyhow::Result<Duration> {
    const BEFORE: &[u8] = b"\"data\":\"";
    let at = memchr::memmem::find(payload, BEFORE).map(|at| at + BEFORE.len());
    let digits = at.and_then(|at| payload.get(at..at + STAMP_DIGITS));
    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    let micros = digits.and_then(|digits| digits.parse().ok());
    Ok(Duration::from_micros(micros.context("an event that this load did not publish")?))
}
