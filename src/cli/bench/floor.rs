//! What the machine allows, without a broker: each part is what one of the other measurements cannot do without.
//!
//! | part | the floor of | what it does |
//! | --- | --- | --- |
//! | `disk` | `pub` | one write and one fdatasync for so many events |
//! | `publish` | `pub` | a server that does nothing but that, with clients who wait ([`server`]) |
//! | `fanout` | `fanout` | the same bytes to so many sockets |
//! | `paced` | `fanout --rate` | the same, some events a second, and how long each takes |
//! | `resume` | `resume` | the same bytes from a file to one socket |
//! | `idle` | `idle` | accepted sockets with a task each |

mod disk;
mod idle;
mod loopback;
mod paced;
mod resume;
mod server;

use std::{path::PathBuf, time::Duration};

use super::{
    at_least_one, data_bytes,
    progress::{Counter, Progress},
    report::Report,
};

/// What a record takes in the log beside its data, about.
const RECORD_OVERHEAD_BYTES: usize = 150;
/// What an event takes on the wire beside its data, about: in JSON, with the words of a batch.
const WIRE_OVERHEAD_BYTES: u64 = 217;
/// How much is written to a socket at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// What `tidings bench floor` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to measure [default: all of it].
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    pub only: Vec<Part>,
    /// Bytes of data of an event.
    #[arg(long, default_value_t = 200, value_name = "BYTES", value_parser = data_bytes())]
    pub size: usize,
    /// disk: how many events one sync covers; more than one by commas.
    #[arg(long, default_value = "1,64,1000", value_delimiter = ',', value_name = "N", value_parser = batch)]
    pub batch: Vec<usize>,
    /// publish: connections x in flight; more than one by commas.
    #[arg(long, default_value = "1x1,64x1,1x1000", value_delimiter = ',', value_name = "NxN", value_parser = clients)]
    pub clients: Vec<(usize, usize)>,
    /// disk, publish, resume: a directory on the disk to measure; a directory of its own is made in it and removed.
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub dir: PathBuf,
    /// fanout, paced: how many readers there are.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub subscribers: u32,
    /// fanout, paced, resume: bytes that one event takes on the wire, `wire_bytes` of the measurement that this is the
    /// floor of [default: about what it is in JSON].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(8..=64 << 20))]
    pub wire: Option<u64>,
    /// paced: how many events are sent a second.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// resume: how many bytes are read, `bytes` of the measurement.
    #[arg(long, default_value_t = 128 << 20, value_name = "BYTES", value_parser = at_least_one())]
    pub bytes: u64,
    /// idle: how many sockets are accepted.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// How long each measurement takes, in seconds; `idle` takes as long as it takes.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = at_least_one())]
    pub seconds: u64,
}

const EXAMPLES: &str = "\
Examples:
  tidings bench floor --dir /var/lib
  tidings bench floor --only fanout --subscribers 1000 --wire 417";

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// One write and one fdatasync.
    Disk,
    /// A server that does nothing but that.
    Publish,
    /// The same bytes to all readers.
    Fanout,
    /// The same, some events a second.
    Paced,
    /// Bytes of a file to one reader.
    Resume,
    /// Accepted sockets with a task each.
    Idle,
}

fn batch(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1_000_000) => Ok(n),
        _ => Err("give how many events, from 1 to 1000000".to_owned()),
    }
}

fn clients(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('x').and_then(|(n, m)| Some((n.parse().ok()?, m.parse().ok()?)));
    match parsed {
        Some((n @ 1..=10_000, m @ 1..=1_000_000)) => Ok((n, m)),
        _ => Err("give connections x in flight, as in 64x1".to_owned()),
    }
}

impl Args {
    fn measures(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Bytes of an event on the wire.
    fn wire(&self) -> u64 {
        self.wire.unwrap_or(self.size as u64 + WIRE_OVERHEAD_BYTES)
    }
}

/// Measures.
pub(super) fn run(args: &Args, progress: &Progress) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let begin = |what: String, counted| -> Counter {
        progress.begin(format!("floor: {what}"), counted);
        progress.counter()
    };
    // First: what the others leave in the allocator would hide what a socket takes.
    if args.measures(Part::Idle) {
        idle::measure(args, &mut report, &begin("idle".to_owned(), "sockets"))?;
    }
    for &batch in args.batch.iter().filter(|_| args.measures(Part::Disk)) {
        let counter = begin(format!("disk, {batch} a sync"), "events");
        disk::measure(args, batch, &mut report, &counter)?;
    }
    for &(connections, in_flight) in args.clients.iter().filter(|_| args.measures(Part::Publish)) {
        let counter = begin(format!("publish, {connections} x {in_flight}"), "events");
        let load = server::Load { connections, in_flight, size: args.size, limit: args.limit() };
        let (took, elapsed) = server::measure(args, load, &counter)?;
        report.begin("floor publish");
        report.set("connections", connections);
        report.set("in_flight", in_flight);
        report.set("size", args.size);
        report.rate("events", took.len(), elapsed);
        report.latencies(&took);
    }
    if args.measures(Part::Fanout) {
        loopback::measure(args, &mut report, &begin("fanout".to_owned(), "bytes"))?;
    }
    if args.measures(Part::Paced) {
        paced::measure(args, &mut report, &begin("paced".to_owned(), "deliveries"))?;
    }
    if args.measures(Part::Resume) {
        resume::measure(args, &mut report, &begin("resume".to_owned(), "bytes"))?;
    }
    Ok(report)
}
