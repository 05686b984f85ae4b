//! Publishes from some connections, each with some in flight.

use std::{collections::VecDeque, time::Duration};

use tokio::{io::AsyncWriteExt, task::JoinSet};

use super::{
    Amount, at_least_one,
    progress::{Counter, Progress},
    report::{Latencies, Report, latencies, note},
    socket::Socket,
    speech::{Publish, Speech},
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
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_least_one())]
    pub connections: u64,
    /// How many publishes each may have unanswered.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_least_one())]
    pub in_flight: u64,
    /// How the messages are written.
    #[arg(long, default_value = "json", value_name = "ENCODING")]
    pub encoding: Speech,
}

const EXAMPLES: &str = "\
Examples:
  tidings bench pub --connections 64 --events 200000
  tidings bench pub --in-flight 1000 --events 500000 --encoding protobuf --json";

/// Measures.
pub(super) async fn run(
    args: &Args,
    globals: &Globals,
    progress: &Progress,
) -> anyhow::Result<Report> {
    progress.begin("pub", "events");
    let mut sockets = Vec::new();
    for _ in 0..args.connections {
        sockets.push(Socket::open(globals, args.encoding).await?);
    }
    let mut publishers = JoinSet::new();
    let deadline = args.amount.deadline();
    let begun = clock::monotonic();
    for (number, socket) in (0..).zip(sockets) {
        let load = Load {
            template: Template::new(&args.amount, args.encoding, number),
            events: share(args.amount.events, args.connections, number),
            in_flight: args.in_flight,
            deadline,
            counter: progress.counter(),
        };
        publishers.spawn(super::answered_by(deadline, publish(socket, load)));
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
    report.set("encoding", args.encoding.name());
    report.set("connections", args.connections);
    report.set("in_flight", args.in_flight);
    report.set("size", args.amount.size);
    report.set("topics", args.amount.topics);
    report.rate("events", all.len(), ended.saturating_sub(begun));
    report.latencies(&all);
    Ok(report)
}

/// How many of all events the connection of this number publishes.
pub(super) fn share(events: u64, connections: u64, number: u64) -> u64 {
    let connections = connections.max(1);
    events / connections + u64::from(number < events % connections)
}

/// Writes publish requests.
pub(super) struct Template {
    speech: Speech,
    /// What stands before a topic's number.
    before: &'static str,
    topics: u64,
    next_topic: u64,
    next_id: u32,
    data: String,
    topic: String,
    message: Vec<u8>,
}

impl Template {
    /// Events of this size on these topics, beginning with one of its own.
    pub(super) fn new(amount: &Amount, speech: Speech, first: u64) -> Template {
        let topics = amount.topics.max(1);
        Template {
            speech,
            before: "bench.",
            topics,
            next_topic: first % topics,
            next_id: 0,
            data: "x".repeat(amount.size),
            topic: String::new(),
            message: Vec::with_capacity(amount.size + 128),
        }
    }

    /// The same on topics that begin so, with a dot at the end.
    pub(super) fn under(self, before: &'static str) -> Template {
        Template { before, ..self }
    }

    /// Appends the next request; the data begins with `stamp`, where there is one.
    pub(super) fn write(&mut self, stamp: &str, out: &mut Vec<u8>) {
        use std::fmt::Write;
        // The numbers of open requests differ as long as fewer than 2^31 are open.
        self.next_id = self.next_id % (u32::MAX / 2) + 1;
        self.topic.clear();
        // Writing to memory does not fail.
        let _ = write!(self.topic, "{}{}", self.before, self.next_topic);
        let filler = self.data.get(stamp.len().min(self.data.len())..).unwrap_or_default();
        let publish = Publish { id: self.next_id, topic: &self.topic, stamp, filler };
        self.speech.write_publish(&publish, &mut self.message, out);
        self.next_topic = (self.next_topic + 1) % self.topics;
    }
}

/// What one connection does.
struct Load {
    template: Template,
    events: u64,
    in_flight: u64,
    deadline: Duration,
    counter: Counter,
}

/// Publishes with `in_flight` unanswered until all are answered or the time is over; gives how long each
/// took, and when the last answer came.
async fn publish(socket: Socket, mut load: Load) -> anyhow::Result<(Latencies, Duration)> {
    let Socket { mut input, mut output, speech } = socket;
    let mut took = latencies()?;
    let mut open: VecDeque<Duration> = VecDeque::new();
    let (mut out, mut written, mut sent) = (Vec::new(), 0, 0);
    let mut last = clock::monotonic();
    loop {
        if written == out.len() {
            out.clear();
            written = 0;
        }
        let now = clock::monotonic();
        let events = if now < load.deadline { load.events } else { sent };
        while sent < events && (open.len() as u64) < load.in_flight {
            load.template.write("", &mut out);
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
        let mut answered = 0;
        while let Some(answer) = input.frame()? {
            if !speech.is_published(answer)? {
                continue;
            }
            answered += 1;
            last = clock::monotonic();
            if let Some(sent) = open.pop_front() {
                note(&mut took, last.saturating_sub(sent));
            }
        }
        load.counter.add(answered);
        input.pong_into(&mut out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_publish_all_events_between_them() {
        for (events, connections) in [(100_000, 64), (7, 7), (3, 5), (0, 2), (1, 1)] {
            let shares = (0..connections).map(|number| share(events, connections, number));
            assert_eq!(shares.clone().sum::<u64>(), events);
            assert!(shares.clone().max().unwrap() - shares.min().unwrap() <= 1);
        }
    }

    #[test]
    fn a_template_goes_round_its_topics_and_keeps_the_size() {
        let amount = Amount { events: 9, size: 50, topics: 3, seconds: 1 };
        let mut template = Template::new(&amount, Speech::Json, 2);
        let mut texts = Vec::new();
        for stamp in ["", "sent:1", ""] {
            let mut out = Vec::new();
            template.write(stamp, &mut out);
            texts.push(String::from_utf8_lossy(&out).into_owned());
        }
        for (text, topic) in texts.iter().zip([2, 0, 1]) {
            assert!(text.contains(&format!("\"bench.{topic}\"")), "{text}");
            let data = text.split("\"data\":\"").nth(1).unwrap();
            assert_eq!(data.trim_end_matches("\"}}").len(), 50);
        }
    }
}
