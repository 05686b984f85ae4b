//! A subscriber that was away and reads what it missed.

use std::fmt::Write;

use anyhow::Context;
use tidings_proto::Filter;

use super::{
    Amount,
    report::Report,
    socket::{Socket, Speech},
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
    #[arg(long)]
    pub no_publish: bool,
    /// How often it is read.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub runs: u32,
}

const EXAMPLES: &str = "\
Examples:
  tidings bench resume --events 1000000 --seconds 300
  tidings bench resume --events 1000000 --topics 10000 --filter bench.77";

/// Measures.
pub(super) async fn run(args: &Args, globals: &Globals) -> anyhow::Result<Report> {
    let mut socket = Socket::open(globals).await?;
    if !args.no_publish {
        fill(&mut socket, &args.amount).await?;
    }
    let filter = args.filter.as_ref().map_or("bench.*", Filter::as_str);
    let mut report = Report::default();
    for _ in 0..args.runs {
        let mut reader = Socket::speaking(globals, args.encoding).await?;
        let begun = clock::monotonic();
        reader.subscribe_from_first(filter).await?;
        let (mut events, mut bytes, mut first) = (0, 0, None);
        'all: loop {
            while let Some(payload) = reader.input.frame()? {
                let Some(here) = args.encoding.events_or_end(payload)? else { break 'all };
                events += here;
                bytes += payload.len();
                first = first.or_else(|| Some(clock::monotonic().saturating_sub(begun)));
            }
            reader.input.more().await?;
        }
        let took = clock::monotonic().saturating_sub(begun);
        report.begin("resume");
        report.set("filter", filter);
        report.set("encoding", format!("{:?}", args.encoding).to_lowercase());
        report.set("bytes", bytes as u64);
        report.rate("events", events, took);
        report.set("first_us", first.map_or(0, |first| first.as_micros() as u64));
        report.set("total_us", took.as_micros() as u64);
    }
    Ok(report)
}

/// Publishes the events, a thousand in a request.
async fn fill(socket: &mut Socket, amount: &Amount) -> anyhow::Result<()> {
    let data = "x".repeat(amount.size);
    let topics = amount.topics.max(1);
    let mut sent = 0;
    while sent < amount.events {
        let batch = BATCH.min(amount.events - sent);
        let mut text = String::from("{\"id\":1,\"publish_batch\":{\"events\":[");
        for number in sent..sent + batch {
            let comma = if number > sent { "," } else { "" };
            let topic = number % topics;
            write!(text, "{comma}{{\"topic\":\"bench.{topic}\",\"data\":\"{data}\"}}")
                .context("no memory")?;
        }
        text.push_str("]}}");
        socket.call(&text).await?;
        sent += batch;
    }
    Ok(())
}
