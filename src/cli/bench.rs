//! `tidings bench`: loads a running broker and says what it did, in numbers that can be repeated.
//!
//! - The load generator speaks frames itself: requests are written from a template, answers and events are
//!   counted and not decoded, so that two cores measure the broker and not the client.
//! - Every load is bounded in events and, by `--seconds`, in time: what is unanswered then may come for ten seconds
//!   more.
//! - `floor` measures what the machine allows without a broker: quote a figure as a ratio to it.

mod acks;
mod agents;
mod arrival;
mod delivery;
mod durables;
mod fanout;
mod floor;
mod http;
mod idle;
mod made;
mod paced;
mod progress;
mod publish;
mod report;
mod resume;
mod socket;
mod speech;
mod stamp;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::progress::Progress;
use super::{Globals, block_on, exit::Unanswered};
use crate::clock;

/// How long what is under way may take when the time is over.
const LATE: Duration = Duration::from_secs(10);

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
  tidings bench acks --durables 1000
  tidings bench agents --agents 50 --rate 200 --dashboards 10
  tidings bench durables --durables 10000 --lag 100
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
    /// Acks of many durables: how many a second, and what they cost a publish.
    Acks(acks::Args),
    /// Agents and the dashboards that follow them: that nothing is lost, and how long a message takes.
    Agents(agents::Args),
    /// Many durables with a lag: how long listing them and attaching to one takes.
    Durables(durables::Args),
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
    #[arg(long, default_value_t = 200, value_name = "BYTES", value_parser = data_bytes())]
    pub size: usize,
    /// How many topics they are spread over.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_least_one())]
    pub topics: u64,
    /// Stop after so many seconds whatever is left.
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = at_least_one())]
    pub seconds: u64,
}

impl Amount {
    /// When to stop, on the clock of [`clock::monotonic`].
    fn deadline(&self) -> Duration {
        clock::monotonic().saturating_add(Duration::from_secs(self.seconds))
    }
}

/// A number of things of which none is nothing to measure.
fn at_least_one() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..)
}

/// How large the data of an event may be: 64 MiB, more than a broker takes.
fn data_bytes() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(0..=64 << 20)
}

/// Waits for a load that gets its last answers by the deadline, or a little later.
async fn answered_by<T>(
    deadline: Duration,
    load: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let wait = deadline.saturating_sub(clock::monotonic()).saturating_add(LATE);
    let late = |_| Unanswered { wait: Duration::from_secs(wait.as_secs_f64().round() as u64) };
    tokio::time::timeout(wait, load).await.map_err(late)?
}

/// Measures and writes the result.
///
/// # Errors
/// When the broker cannot be reached or refuses the load, and when deliveries are lost, acks or durables missing.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    // As many sockets as the system lets us have; where it does not, opening one says so.
    let _ = super::serve::allow_open_files();
    let progress = Progress::start(globals);
    let report = match &args.command {
        Command::Pub(args) => block_on(publish::run(args, globals, &progress)),
        Command::Fanout(args) => block_on(fanout::run(args, globals, &progress)),
        Command::Resume(args) => block_on(resume::run(args, globals, &progress)),
        Command::Acks(args) => block_on(acks::run(args, globals, &progress)),
        Command::Agents(args) => block_on(agents::run(args, globals, &progress)),
        Command::Durables(args) => block_on(durables::run(args, globals, &progress)),
        Command::Idle(args) => block_on(idle::run(args, globals, &progress)),
        Command::Floor(args) => floor::run(args, &progress),
    };
    drop(progress);
    report?.print(globals.json)
}
