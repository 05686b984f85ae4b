//! Publishes from some connections, each with some in flight.

use tokio::task::JoinSet;

use super::{
    Amount, at_least_one,
    paced::{self, Pace},
    progress::Progress,
    report::{Report, latencies},
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
    /// How many events a second all of them publish together, at least one each; 0 is as many as go.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub rate: u64,
    /// How the messages are written.
    #[arg(long, default_value = "json", value_name = "ENCODING")]
    pub encoding: Speech,
}

const EXAMPLES: &str = "\
Examples:
  tidings bench pub --connections 64 --events 200000
  tidings bench pub --in-flight 1000 --events 500000 --encoding protobuf --json
  tidings bench pub --in-flight 1000 --rate 50000 --events 3000000 --seconds 60";

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
        let pace = Pace {
            template: Template::new(&args.amount, args.encoding, number),
            is_stamped: false,
            events: share(args.amount.events, args.connections, number),
            rate: match args.rate {
                0 => 0,
                rate => share(rate, args.connections, number).max(1),
            },
            in_flight: args.in_flight,
            followers: None,
            counter: progress.counter(),
            deadline,
        };
        publishers.spawn(super::answered_by(deadline, paced::publish(socket, pace)));
    }
    let mut all = latencies()?;
    let mut ended = begun;
    while let Some(done) = publishers.join_next().await {
        let paced = done??;
        all.add(paced.took)?;
        ended = ended.max(paced.ended);
    }
    let mut report = Report::default();
    report.begin("pub");
    report.set("encoding", args.encoding.name());
    report.set("connections", args.connections);
    report.set("in_flight", args.in_flight);
    if args.rate > 0 {
        report.set("asked_events_per_second", args.rate);
    }
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
