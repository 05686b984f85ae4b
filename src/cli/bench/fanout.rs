//! One publisher, many subscribers that all get everything.

mod subscriber;

use std::time::Duration;

use tokio::{sync::watch, task::JoinSet};

use self::subscriber::Got;
use super::{
    Amount,
    arrival::{Newest, Total},
    at_least_one,
    paced::{self, Pace},
    progress::{Counter, Progress},
    publish::Template,
    report::{Report, latencies},
    socket::Socket,
    speech::Speech,
    stamp::{STAMP, STAMP_DIGITS},
};
use crate::{
    cli::{Globals, exit::Usage},
    clock,
};

/// What `tidings bench fanout` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How much.
    #[command(flatten)]
    pub amount: Amount,
    /// How many sockets subscribe.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = at_least_one())]
    pub subscribers: u64,
    /// How many publishes may be unanswered.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = at_least_one())]
    pub in_flight: u64,
    /// How many events are published a second; 0 is as many as go.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub rate: u64,
    /// How the messages are written, of the publisher and of the subscribers.
    #[arg(long, default_value = "json", value_name = "ENCODING")]
    pub encoding: Speech,
}

const EXAMPLES: &str = "\
Examples:
  tidings bench fanout --subscribers 100
  tidings bench fanout --subscribers 1000 --rate 50 --events 1000

The data of an event begins with the moment of its publish, so that --size is 21 at least. It fails when a
delivery is missing: when a subscriber is cut off, or none of them gets anything for 5 seconds after the last publish.";

/// Subscribers did not get what was published.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{missing} of {wanted} deliveries are missing: {behind} of {subscribers} subscribers did not get \
     everything, of which {cut_off} were cut off{}",
    .why.as_deref().map_or_else(String::new, |why| format!(" ({why})"))
)]
pub(super) struct Lost {
    /// How many deliveries.
    missing: u64,
    /// Of how many.
    wanted: u64,
    /// How many subscribers lack some.
    behind: u64,
    /// Of how many.
    subscribers: u64,
    /// How many of them the broker hung up on.
    cut_off: u64,
    /// Why the first of those.
    why: Option<String>,
}

/// Measures.
pub(super) async fn run(
    args: &Args,
    globals: &Globals,
    progress: &Progress,
) -> anyhow::Result<Report> {
    if args.amount.size < STAMP.len() + STAMP_DIGITS {
        return Err(Usage::error(format!(
            "--size is {}: give {} or more, an event says when it was published",
            args.amount.size,
            STAMP.len() + STAMP_DIGITS
        )));
    }
    progress.begin("fanout", "deliveries");
    let mut subscribers = JoinSet::new();
    let (total, published) = watch::channel(None);
    let newest = Newest::default();
    let mut sockets = Vec::new();
    for _ in 0..args.subscribers {
        let mut socket = Socket::open(globals, args.encoding).await?;
        socket.subscribe("bench.*").await?;
        sockets.push(socket);
    }
    let publisher = Socket::open(globals, args.encoding).await?;
    let deadline = args.amount.deadline();
    for socket in sockets {
        let counter = progress.counter();
        let (published, newest) = (published.clone(), newest.clone());
        subscribers.spawn(subscriber::read(socket, published, deadline, newest, counter));
    }
    let begun = clock::monotonic();
    let pace = Pace {
        template: Template::new(&args.amount, args.encoding, 0),
        is_stamped: true,
        events: args.amount.events,
        rate: args.rate,
        in_flight: args.in_flight,
        followers: None,
        counter: Counter::default(),
        deadline,
    };
    let published = super::answered_by(deadline, paced::publish(publisher, pace)).await?;
    let events = published.events;
    total.send_replace(Some(Total { events, at: clock::monotonic() }));
    let mut all = Vec::new();
    while let Some(got) = subscribers.join_next().await {
        all.push(got??);
    }
    report(args, events, begun, all)
}

fn report(args: &Args, published: u64, begun: Duration, all: Vec<Got>) -> anyhow::Result<Report> {
    let lost = verdict(published, &all);
    let (mut delivered, mut bytes, mut took, mut ended) = (0, 0, latencies()?, begun);
    for got in all {
        delivered += got.events;
        bytes += got.bytes;
        took.add(got.took)?;
        ended = ended.max(got.last);
    }
    let mut report = Report::default();
    report.begin("fanout");
    report.set("encoding", args.encoding.name());
    report.set("subscribers", args.subscribers);
    report.set("size", args.amount.size);
    report.set("events", published);
    report.rate("deliveries", delivered, ended.saturating_sub(begun));
    report.set("missing", lost.as_ref().map_or(0, |lost| lost.missing));
    report.set("cut_off", lost.as_ref().map_or(0, |lost| lost.cut_off));
    report.wire(bytes, delivered);
    report.latencies(&took);
    if let Some(lost) = lost {
        report.fail(lost);
    }
    Ok(report)
}

/// What is missing, where something is.
fn verdict(published: u64, all: &[Got]) -> Option<Lost> {
    let short = |got: &&Got| got.events < published;
    let missing = all.iter().map(|got| published.saturating_sub(got.events)).sum();
    let cut_off = || all.iter().filter(short).filter_map(|got| got.cut_off.as_ref());
    (missing > 0).then(|| Lost {
        missing,
        wanted: published * all.len() as u64,
        behind: all.iter().filter(short).count() as u64,
        subscribers: all.len() as u64,
        cut_off: cut_off().count() as u64,
        why: cut_off().next().cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn got(events: u64, cut_off: Option<&str>) -> Got {
        let cut_off = cut_off.map(str::to_owned);
        let last = Duration::from_secs(1);
        Got { events, bytes: 340 * events, took: latencies().unwrap(), last, cut_off }
    }

    #[test]
    fn nothing_is_lost_when_everybody_has_everything() {
        assert_eq!(verdict(10, &[got(10, None), got(10, None)]), None);
        // Who was cut off behind the last event has everything.
        assert_eq!(verdict(10, &[got(10, Some("hung up"))]), None);
        assert_eq!(verdict(0, &[got(0, None)]), None);
    }

    #[test]
    fn what_one_got_too_often_makes_up_for_nothing_that_another_lacks() {
        let lost = verdict(10, &[got(12, None), got(7, Some("hung up")), got(9, None)]).unwrap();
        assert_eq!((lost.missing, lost.wanted, lost.behind, lost.cut_off), (4, 30, 2, 1));
        let said = lost.to_string();
        assert!(said.contains("4 of 30") && said.ends_with("1 were cut off (hung up)"), "{said}");
    }

    #[test]
    fn the_bytes_of_a_delivery_are_those_that_came() {
        use clap::{Args as _, FromArgMatches};
        let command = Args::augment_args(clap::Command::new("fanout"));
        let args = Args::from_arg_matches(&command.get_matches_from(["fanout"])).unwrap();
        let report = report(&args, 10, Duration::ZERO, vec![got(10, None), got(10, None)]).unwrap();
        assert_eq!(report.last("wire_bytes"), Some(340.into()));
        assert_eq!(report.last("deliveries_per_second"), Some(20.0.into()));
    }
}
