//! Many durables that acknowledge what they get, beside the same deliveries without acks.
//!
//! - The first half of the time ephemeral subscriptions with the same filters get the same events; the second half
//!   the durables do, and acknowledge them. What a publish takes in both is compared.
//! - A disk that stalls now and then does so in one half or the other: the median of several rounds leaves that out.
//! - A publish waits for those who get it: not more than `--in-flight` events are not yet with everybody, so that a
//!   machine that is slower than the rate is measured at its own.

mod reader;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use futures_util::future::try_join_all;
use tokio::{sync::watch, task::JoinSet};

use self::reader::{Acks, Got, Line};
use super::{
    Amount,
    arrival::Total,
    at_least_one, data_bytes,
    http::Metrics,
    made::Made,
    paced::{self, Followers, Pace, Paced},
    progress::{Counter, Progress},
    publish::Template,
    report::{Report, latencies, per_second, round},
    socket::Socket,
    speech::Speech,
};
use crate::{cli::Globals, clock};

/// The topics of this load.
const TOPICS: &str = "bench.acks.";

/// What `tidings bench acks` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How many durables, each with one filter.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub durables: u64,
    /// How many sockets they are attached over.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = at_least_one())]
    pub connections: u64,
    /// How many topics the durables are spread over: an event gets to all on its topic.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = at_least_one())]
    pub topics: u64,
    /// How many deliveries a second are asked for; 0 is as many as go.
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    pub deliveries: u64,
    /// How a batch is acknowledged.
    #[arg(long, default_value = "cumulative", value_name = "KIND")]
    pub ack: Acks,
    /// Bytes of data of an event.
    #[arg(long, default_value_t = 200, value_name = "BYTES", value_parser = data_bytes())]
    pub size: usize,
    /// How many events may be under way to who gets them.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = at_least_one())]
    pub in_flight: u64,
    /// `linger_ms` of all subscriptions: how long a batch waits for more, so that there are fewer of them and fewer acks.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub linger_ms: u64,
    /// How long is published in a round: one half without acks, the other with them.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    pub seconds: u64,
    /// How often, with other durables each time: the ratios are the medians of all rounds.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,
    /// How the messages are written, of the publisher and of the subscribers.
    #[arg(long, default_value = "json", value_name = "ENCODING")]
    pub encoding: Speech,
    /// The broker's admin listener: says what the acks take in the log.
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  tidings bench acks --durables 1000 --connections 8 --admin http://127.0.0.1:9090
  tidings bench acks --ack selective --deliveries 0 --encoding protobuf --json
  tidings bench acks --seconds 20 --rounds 9

Every batch is acknowledged by one request once it has come, every event once. `acks` are the events that are
acknowledged for good. It fails when a delivery or an ack is missing. Its durables are forgotten at the end, also after
Ctrl-C; what is killed leaves those whose names begin with bench-acks.";

/// Durables did not get what was published, or what they acknowledged is not acknowledged.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{missing} of {wanted} deliveries are missing and {unacked} are not acknowledged{}",
    .why.as_deref().map_or_else(String::new, |why| format!(" ({why})"))
)]
struct Lost {
    missing: u64,
    wanted: u64,
    unacked: u64,
    /// Why the first socket was cut off, where one was.
    why: Option<String>,
}

/// One half.
struct Phase {
    published: Paced,
    got: Vec<Got>,
}

/// What acks have taken in the log: `$acks` events, and the bytes of their bodies.
#[derive(Clone, Copy)]
struct Stored {
    events: u64,
    bytes: u64,
}

impl Stored {
    fn since(self, before: Stored) -> Stored {
        Stored {
            events: self.events.saturating_sub(before.events),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

/// Both halves, with the same filters.
struct Round {
    made: Made,
    without: Phase,
    with: Phase,
    /// What the acks have taken.
    stored: Option<Stored>,
}

/// Measures.
pub(super) async fn run(
    args: &Args,
    globals: &Globals,
    progress: &Progress,
) -> anyhow::Result<Report> {
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        rounds.push(measure(args, globals, progress).await?);
    }
    report(args, &rounds)
}

async fn measure(args: &Args, globals: &Globals, progress: &Progress) -> anyhow::Result<Round> {
    // New ones each time: older ones would begin with what they have missed in this round's first half.
    let made = Made::named("acks", TOPICS, args.topics, args.durables);
    progress.begin("acks: subscribing", "subscriptions");
    let sockets = attach(args, globals, &made, None, progress).await?;
    progress.begin("acks: without acks", "deliveries");
    let without = phase(args, globals, &made, sockets, None, progress).await?;
    let with = made.forgotten_after(globals, async {
        progress.begin("acks: attaching", "durables");
        let sockets = attach(args, globals, &made, Some(args.ack), progress).await?;
        let before = stored(args, globals).await?;
        progress.begin("acks: with acks", "deliveries");
        let with = phase(args, globals, &made, sockets, Some(args.ack), progress).await?;
        let after = stored(args, globals).await?;
        Ok((with, before.zip(after).map(|(before, after)| after.since(before))))
    });
    let (with, stored) = with.await?;
    Ok(Round { made, without, with, stored })
}

/// What `$acks` has grown to, where the admin listener is known.
async fn stored(args: &Args, globals: &Globals) -> anyhow::Result<Option<Stored>> {
    let Some(admin) = &args.admin else { return Ok(None) };
    let metrics = Metrics::of(admin, globals).await?;
    let of = |what| metrics.value(&format!("append_{what}_total{{topic_root=\"$acks\"}}"));
    Ok(Some(Stored { events: of("events"), bytes: of("bytes") }))
}

/// Subscribes over all sockets, durably where there will be acks.
async fn attach(
    args: &Args,
    globals: &Globals,
    made: &Made,
    acks: Option<Acks>,
    progress: &Progress,
) -> anyhow::Result<Vec<(Socket, Vec<Line>)>> {
    let counter = progress.counter();
    let step = usize::try_from(args.connections).unwrap_or(usize::MAX);
    let sockets = (0..args.connections.min(made.count)).map(async |first| {
        let mut socket = Socket::open(globals, args.encoding).await?;
        let mut lines = Vec::new();
        for number in (first..made.count).step_by(step) {
            let mut options = made.options(number)?;
            options.linger_ms = args.linger_ms;
            options.durable = acks.map(|_| made.name(number));
            let subscription = socket.begin(options).await?;
            lines.push(Line::new(subscription, made.group(number)));
            counter.add(1);
        }
        anyhow::Ok((socket, lines))
    });
    try_join_all(sockets).await
}

/// Publishes for half of the time, and waits until everybody has everything.
async fn phase(
    args: &Args,
    globals: &Globals,
    made: &Made,
    sockets: Vec<(Socket, Vec<Line>)>,
    acks: Option<Acks>,
    progress: &Progress,
) -> anyhow::Result<Phase> {
    let publisher = Socket::open(globals, args.encoding).await?;
    let done = Arc::<AtomicU64>::default();
    let each = (made.count / made.groups).max(1);
    let deadline = clock::monotonic() + Duration::from_secs(args.seconds) / 2;
    let (total, published) = watch::channel(None);
    let mut readers = JoinSet::new();
    for (socket, lines) in sockets {
        let reader =
            reader::Reader::new(lines, made.groups, acks, done.clone(), progress.counter());
        readers.spawn(reader.read(socket, published.clone(), deadline));
    }
    let amount = Amount { events: 0, size: args.size, topics: made.groups, seconds: args.seconds };
    let pace = Pace {
        template: Template::new(&amount, args.encoding, 0).under(TOPICS),
        is_stamped: false,
        events: u64::MAX,
        rate: args.deliveries.div_ceil(each),
        in_flight: args.in_flight,
        followers: Some(Followers { done, each }),
        counter: Counter::default(),
        deadline,
    };
    let published = super::answered_by(deadline, paced::publish(publisher, pace)).await?;
    total.send_replace(Some(Total { events: published.events, at: clock::monotonic() }));
    let mut got = Vec::new();
    while let Some(one) = readers.join_next().await {
        got.push(one??);
    }
    Ok(Phase { published, got })
}

impl Phase {
    /// How many deliveries there had to be.
    fn wanted(&self, made: &Made) -> u64 {
        let of = |group| super::publish::share(self.published.events, made.groups, group);
        (0..made.groups).map(|group| of(group) * made.reach(group)).sum()
    }

    fn sum(&self, of: impl Fn(&Got) -> u64) -> u64 {
        self.got.iter().map(of).sum()
    }

    /// From the first publish to the last delivery or ack.
    fn took(&self) -> Duration {
        let last = self.got.iter().map(|got| got.last).max().unwrap_or_default();
        last.max(self.published.ended).saturating_sub(self.published.begun)
    }

    /// What is missing, where something is.
    fn verdict(&self, made: &Made, acks: bool) -> Option<Lost> {
        let (wanted, missing) = (self.wanted(made), self.sum(|got| got.missing));
        let unacked = match acks {
            true => self.sum(|got| got.deliveries.saturating_sub(got.acked)),
            false => 0,
        };
        let why = || self.got.iter().find_map(|got| got.cut_off.clone());
        (missing + unacked > 0).then(|| Lost { missing, wanted, unacked, why: why() })
    }
}

/// All rounds: sums, and the medians of how one half compares to the other.
fn report(args: &Args, rounds: &[Round]) -> anyhow::Result<Report> {
    let mut report = Report::default();
    report.begin("acks");
    report.set("encoding", args.encoding.name());
    report.set("ack", args.ack.name());
    report.set("durables", args.durables);
    report.set("connections", args.connections.min(args.durables));
    report.set("topics", args.topics.min(args.durables));
    report.set("size", args.size);
    report.set("linger_ms", args.linger_ms);
    report.set("rounds", args.rounds);
    report.set("asked_deliveries_per_second", args.deliveries);
    let with = || rounds.iter().map(|round| &round.with);
    let without = || rounds.iter().map(|round| &round.without);
    let sum = |of: fn(&Got) -> u64| with().map(|phase| phase.sum(of)).sum::<u64>();
    let took: Duration = with().map(Phase::took).sum();
    report.set("events", with().map(|phase| phase.published.events).sum::<u64>());
    report.rate("deliveries", sum(|got| got.deliveries), took);
    let acked = sum(|got| got.acked);
    report.set("acks", acked);
    report.set("acks_per_second", per_second(acked, took));
    report.set("ack_requests_per_second", per_second(sum(|got| got.requests), took));
    let mut acks = latencies()?;
    for got in with().flat_map(|phase| &phase.got) {
        acks.add(&got.took)?;
    }
    report.set("ack_p50_us", acks.value_at_quantile(0.5));
    report.set("ack_p99_us", acks.value_at_quantile(0.99));
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let of = |phase: &Phase| phase.published.took.value_at_quantile(quantile) as f64;
        report.set(&format!("publish_{name}_us"), median(with().map(of)) as u64);
        report.set(&format!("publish_{name}_us_without"), median(without().map(of)) as u64);
        let ratios = with().zip(without()).map(|(one, other)| of(one) / of(other).max(1.0));
        report.set(&format!("publish_{name}_ratio"), round(median(ratios.clone())));
        if rounds.len() > 1 {
            let all: Vec<f64> = ratios.map(round).collect();
            report.set(&format!("publish_{name}_ratios"), all);
        }
    }
    let deliveries = without().map(|phase| phase.sum(|got| got.deliveries)).sum();
    let took = without().map(Phase::took).sum();
    report.set("deliveries_per_second_without", per_second(deliveries, took));
    if rounds.iter().all(|round| round.stored.is_some()) {
        let stored = || rounds.iter().filter_map(|round| round.stored);
        let bytes: u64 = stored().map(|stored| stored.bytes).sum();
        report.set("ack_log_events", stored().map(|stored| stored.events).sum::<u64>());
        report.set("ack_log_bytes", bytes);
        report.set("log_bytes_per_ack", round(bytes as f64 / acked.max(1) as f64));
    }
    let verdicts = |round: &Round| {
        [(&round.without, false), (&round.with, true)]
            .map(|(phase, acks)| phase.verdict(&round.made, acks))
    };
    let lost: Vec<Lost> = rounds.iter().flat_map(verdicts).flatten().collect();
    report.set("missing", lost.iter().map(|lost| lost.missing).sum::<u64>());
    report.set("unacked", lost.iter().map(|lost| lost.unacked).sum::<u64>());
    report.set("redelivered", sum(|got| got.again));
    if let Some(lost) = lost.into_iter().next() {
        report.fail(lost);
    }
    Ok(report)
}

/// The middle one, or the lower of both in the middle; nought of none.
fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    let middle = all.len().saturating_sub(1) / 2;
    all.get(middle).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn got(deliveries: u64, missing: u64, acked: u64) -> Got {
        let took = latencies().unwrap();
        let last = Duration::from_secs(1);
        let cut_off = (missing > 0).then(|| "hung up".to_owned());
        Got { deliveries, missing, again: 0, acked, requests: acked, took, last, cut_off }
    }

    fn phase(got: Vec<Got>) -> Phase {
        let (begun, ended) = (Duration::ZERO, Duration::from_millis(500));
        Phase { published: Paced { events: 10, took: latencies().unwrap(), begun, ended }, got }
    }

    #[test]
    fn nothing_is_lost_when_everything_has_come_and_is_acknowledged() {
        // Ten events on three topics, four durables: 4 × 2 + 3 + 3.
        let made = Made::named("acks", TOPICS, 3, 4);
        let good = phase(vec![got(7, 0, 7), got(7, 0, 7)]);
        assert_eq!((good.wanted(&made), good.verdict(&made, true)), (14, None));
        assert_eq!(per_second(14, good.took()), 14.0);
        let without = phase(vec![got(14, 0, 0)]);
        assert_eq!(without.verdict(&made, false), None);
    }

    #[test]
    fn one_round_of_many_does_not_move_the_median() {
        assert_eq!(median([900.0, 1.0, 3.0].into_iter()), 3.0);
        assert_eq!(median([4.0, 2.0].into_iter()), 2.0);
        assert_eq!(median(std::iter::empty()), 0.0);
    }

    #[test]
    fn what_is_missing_or_not_acknowledged_is_told() {
        let made = Made::named("acks", TOPICS, 3, 4);
        let bad = phase(vec![got(5, 2, 5), got(7, 0, 4)]);
        let said = bad.verdict(&made, true).unwrap().to_string();
        assert_eq!(said, "2 of 14 deliveries are missing and 3 are not acknowledged (hung up)");
    }
}
