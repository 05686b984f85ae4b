//! A subscriber that was away and reads what it missed.

use std::{fmt::Write, time::Duration};

use anyhow::Context;
use tidings_proto::Filter;

use super::{
    Amount,
    progress::{Counter, Progress},
    report::Report,
    socket::Socket,
    speech::Speech,
};
use crate::{cli::Globals, clock};

/// How many events one request publishes.
const BATCH: u64 = 1000;

/// What `tidings bench resume` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How much there is in the log.
    #[command(flatten)]
    pub amount: Amount,
    /// What is missed [default: everything that is published].
    #[arg(long, value_name = "FILTER", value_parser = Filter::parse)]
    pub filter: Option<Filter>,
    /// How the reader's messages are written.
    #[arg(long, default_value = "json", value_name = "ENCODING")]
    pub encoding: Speech,
    /// Publish nothing: read what is there.
    #[arg(long, conflicts_with_all = ["events", "size", "topics"])]
    pub no_publish: bool,
    /// How often it is read.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
}

const EXAMPLES: &str = "\
Examples:
  tidings bench resume --events 1000000 --seconds 300
  tidings bench resume --events 1000000 --topics 10000 --filter bench.77

Publishing takes half of --seconds at most. A reading that is stopped by --seconds says `complete false`; those
behind it are left out.";

/// Measures.
pub(super) async fn run(
    args: &Args,
    globals: &Globals,
    progress: &Progress,
) -> anyhow::Result<Report> {
    let begun = clock::monotonic();
    let deadline = args.amount.deadline();
    if !args.no_publish {
        progress.begin("resume: publishing", "events");
        let mut socket = Socket::open(globals, Speech::Json).await?;
        let half = begun + deadline.saturating_sub(begun) / 2;
        let filling = fill(&mut socket, "bench.", &args.amount, half, progress.counter());
        super::answered_by(half, filling).await?;
    }
    let filter = args.filter.as_ref().map_or("bench.*", Filter::as_str);
    let mut report = Report::default();
    for run in 1..=args.runs {
        progress.begin(format!("resume: reading {run} of {}", args.runs), "events");
        let mut reader = Socket::open(globals, args.encoding).await?;
        let read = read(&mut reader, filter, deadline, &progress.counter()).await?;
        report.begin("resume");
        report.set("filter", filter);
        report.set("encoding", args.encoding.name());
        report.set("complete", read.is_complete);
        report.wire(read.bytes, read.events);
        report.rate("events", read.events, read.took);
        report.set("first_us", read.first.map_or(0, micros));
        report.set("total_us", micros(read.took));
        if !read.is_complete {
            break;
        }
    }
    Ok(report)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What one reading gave.
struct Read {
    events: u64,
    bytes: u64,
    /// When the first frame of events had come.
    first: Option<Duration>,
    took: Duration,
    /// Whether the broker has said that all have come.
    is_complete: bool,
}

/// Reads until the broker says that all have come, or until the time is over.
async fn read(
    reader: &mut Socket,
    filter: &str,
    deadline: Duration,
    counter: &Counter,
) -> anyhow::Result<Read> {
    let before = reader.input.received();
    let begun = clock::monotonic();
    let mut read =
        Read { events: 0, bytes: 0, first: None, took: Duration::ZERO, is_complete: false };
    reader.subscribe_from_first(filter).await?;
    'all: loop {
        while let Some(payload) = reader.input.frame()? {
            let Some(here) = reader.speech.events_or_end(payload)? else {
                read.is_complete = true;
                break 'all;
            };
            if here > 0 {
                read.events += here;
                counter.add(here);
                read.first = read.first.or_else(|| Some(clock::monotonic().saturating_sub(begun)));
            }
        }
        reader.input.answer_ping(&mut reader.output).await?;
        let left = deadline.saturating_sub(clock::monotonic());
        match tokio::time::timeout(left, reader.input.more()).await {
            // What is there all the time is no reason to go on.
            Ok(more) if !left.is_zero() => more?,
            Ok(_) | Err(_) => break,
        }
    }
    read.took = clock::monotonic().saturating_sub(begun);
    read.bytes = reader.input.received() - before;
    Ok(read)
}

/// Publishes the events on topics that begin with `before`, a thousand in a request, until the time is over; gives
/// how many.
pub(super) async fn fill(
    socket: &mut Socket,
    before: &str,
    amount: &Amount,
    deadline: Duration,
    counter: Counter,
) -> anyhow::Result<u64> {
    let data = "x".repeat(amount.size);
    let topics = amount.topics.max(1);
    let mut sent = 0;
    while sent < amount.events && clock::monotonic() < deadline {
        let batch = BATCH.min(amount.events - sent);
        let mut text = String::from("{\"id\":1,\"publish_batch\":{\"events\":[");
        for number in sent..sent + batch {
            let comma = if number > sent { "," } else { "" };
            let topic = number % topics;
            write!(text, "{comma}{{\"topic\":\"{before}{topic}\",\"data\":\"{data}\"}}")
                .context("no memory")?;
        }
        text.push_str("]}}");
        socket.call(&text).await?;
        sent += batch;
        counter.add(batch);
    }
    Ok(sent)
}
