//! `tidings bench`: loads a running broker and says what it did, in numbers that can be repeated.
//!
//! - The load generator speaks frames itself: requests are written from a template, answers and events are
//!   counted and not decoded, so that two cores measure the broker and not the client.
//! - Every load is bounded in events and, by `--seconds`, in time.
//! - `floor` measures what the machine allows without a broker: quote a figure as a ratio to it.

mod fanout;
mod floor;
mod idle;
mod publish;
mod report;
mod resume;
mod socket;

use std::time::Duration;

use super::{Globals, block_on};
use crate::clock;

/// What `tidings bench` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tidings bench pub --connections 64
  tidings bench pub --in-flight 1000 --events 500000
  tidings bench fanout --subscribers 1000 --events 20000
  tidings bench resume --events 1000000
  tidings bench floor --batch 1,64,1000 --dir .";

/// What can be measured.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Publishes, durable before the answer: events a second and how long an answer takes.
    Pub(publish::Args),
    /// Deliveries to many subscribers: deliveries a second and how long an event takes to all.
    Fanout(fanout::Args),
    /// Reading what was missed: events a second from the log to one subscriber.
    Resume(resume::Args),
    /// What a socket with one subscription costs while nothing happens, in resident memory.
    Idle(idle::Args),
    /// What the disk and the loopback of this machine allow, without a broker.
    Floor(floor::Args),
}

/// How much, and for how long at most.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Amount {
    /// How many events.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub events: u64,
    /// Bytes of data of an event.
    #[arg(long, default_value_t = 200, value_name = "BYTES")]
    pub size: usize,
    /// How many topics they are spread over.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub topics: u64,
    /// Stop after so many seconds whatever is left.
    #[arg(long, default_value_t = 60, value_name = "N")]
    pub seconds: u64,
}

impl Amount {
    /// When to stop, on the clock of [`clock::monotonic`].
    fn deadline(&self) -> Duration {
        clock::monotonic() + Duration::from_secs(self.seconds)
    }
}

/// Measures and writes the result.
///
/// # Errors
/// When the broker cannot be reached or refuses the load.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    let report = match &args.command {
        Command::Pub(args) => block_on(publish::run(args, globals))?,
        Command::Fanout(args) => block_on(fanout::run(args, globals))?,
        Command::Resume(args) => block_on(resume::run(args, globals))?,
        Command::Idle(args) => block_on(idle::run(args, globals))?,
        Command::Floor(args) => floor::run(args)?,
    };
    report.print(globals.json)
}
