//! Publishes from some connections, each with some in flight.

use std::{collections::VecDeque, io::Write, time::Duration};

use anyhow::bail;
use tokio::{io::AsyncWriteExt, task::JoinSet};

use super::{
    Amount,
    report::{Latencies, Report, latencies, note},
    socket::{Socket, frame},
};
use crate::{cli::Globals, clock};

/// What `tidings bench pub` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How much.
    #[command(flatten)]
    pub amount: Amount,
    /// How many connections publish.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub connections: u64,
    /// How many publishes each may have unanswered.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub in_flight: usize,
}

const EXAMPLES: &str = "\
Examples:
  tidings bench pub --connections 64 --events 200000
  tidings bench pub --in-flight 1000 --events 500000 --json";

/// Measures.
pub(super) async fn run(args: &Args, globals: &Globals) -> anyhow::Result<Report> {
    let connections = args.connections.max(1);
    let mut sockets = Vec::new();
    for _ in 0..connections {
        sockets.push(Socket::open(globals).await?);
    }
    let each = args.amount.events / connections;
    let mut publishers = JoinSet::new();
    let deadline = args.amount.deadline();
    let begun = clock::monotonic();
    for (number, socket) in sockets.into_iter().enumerate() {
        let template = Template::new(&args.amount, number as u64);
        publishers.spawn(publish(socket, template, each, args.in_flight.max(1), deadline));
    }
    let mut all = latencies()?;
    let mut ended = begun;
    while let Some(done) = publishers.join_next().await {
        let (took, at) = done??;
        all.add(took)?;
        ended = ended.max(at);
    }
    let mut report = Report::default();
    report.begin("pub");
    report.set("connections", connections);
    report.set("in_flight", args.in_flight);
    report.set("size", args.amount.size);
    report.set("topics", args.amount.topics);
    report.rate("events", all.len(), ended.saturating_sub(begun));
    report.latencies(&all);
    Ok(report)
}

/// Writes publish requests.
pub(super) struct Template {
    topics: u64,
    next_topic: u64,
    next_id: u32,
    data: String,
    text: Vec<u8>,
}

impl Template {
    /// Events of this size on these topics, beginning with one of its own.
    pub(super) fn new(amount: &Amount, first: u64) -> Template {
        let topics = amount.topics.max(1);
        Template {
            topics,
            next_topic: first % topics,
            next_id: 0,
            data: "x".repeat(amount.size),
            text: Vec::with_capacity(amount.size + 128),
        }
    }

    /// Appends the next request; the data begins with `stamp`, where there is one.
    pub(super) fn write(&mut self, stamp: &str, out: &mut Vec<u8>) {
        // The numbers of open requests differ as long as fewer than 2^31 are open.
        self.next_id = self.next_id % (u32::MAX / 2) + 1;
        self.text.clear();
        let filler = self.data.get(stamp.len().min(self.data.len())..).unwrap_or_default();
        // Writing to memory does not fail.
        let _ = write!(
            self.text,
            "{{\"id\":{},\"publish\":{{\"topic\":\"bench.{}\",\"data\":\"{stamp}{filler}\"}}}}",
            self.next_id, self.next_topic
        );
        self.next_topic = (self.next_topic + 1) % self.topics;
        frame(&self.text, out);
    }
}

/// Publishes with `in_flight` unanswered until all are answered or the time is over; gives how long each
/// took, and when the last answer came.
async fn publish(
    socket: Socket,
    mut template: Template,
    events: u64,
    in_flight: usize,
    deadline: Duration,
) -> anyhow::Result<(Latencies, Duration)> {
    let Socket { mut input, mut output, .. } = socket;
    let mut took = latencies()?;
    let mut open: VecDeque<Duration> = VecDeque::with_capacity(in_flight);
    let (mut out, mut written, mut sent) = (Vec::new(), 0, 0);
    let mut last = clock::monotonic();
    loop {
        if written == out.len() {
            out.clear();
            written = 0;
        }
        let now = clock::monotonic();
        let events = if now < deadline { events } else { sent };
        while sent < events && open.len() < in_flight {
            template.write("", &mut out);
            open.push_back(now);
            sent += 1;
        }
        if sent >= events && open.is_empty() {
            return Ok((took, last));
        }
        tokio::select! {
            more = input.more() => more?,
            n = output.write(out.get(written..).unwrap_or_default()), if written < out.len() => {
                written += n?;
            }
        }
        while let Some(answer) = input.frame()? {
            if memchr::memmem::find(answer, b"\"published\"").is_none() {
                bail!("not a publish's answer: {}", String::from_utf8_lossy(answer));
            }
            last = clock::monotonic();
            if let Some(sent) = open.pop_front() {
                note(&mut took, last.saturating_sub(sent));
            }
        }
    }
}
