//! `tidings topic`: operate on topics.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use tidings_proto::Topic;

use super::{Globals, block_on, output::Output};

/// What `tidings topic` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tidings topic delete users.42.profile --yes
  tidings topic delete users.42.profile --yes --json";

/// The commands of `tidings topic`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Erase every event of a topic for good.
    Delete(DeleteArgs),
}

/// What `tidings topic delete` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = DELETE_EXAMPLES)]
pub struct DeleteArgs {
    /// The topic.
    #[arg(value_parser = parse_topic)]
    pub topic: Topic,
    /// Say that it is meant: nothing brings the events back.
    #[arg(long, required = true)]
    pub yes: bool,
}

const DELETE_EXAMPLES: &str = "\
Examples:
  tidings topic delete users.42.profile --yes
  tidings topic delete users.42.profile --yes --json";

#[derive(Deserialize)]
struct Erased {
    upto: u64,
    erased: bool,
}

/// Carries out what was asked.
///
/// # Errors
/// When the broker does not answer or refuses.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    let Command::Delete(args) = &args.command;
    block_on(async {
        let path = utf8_percent_encode(args.topic.as_str(), NON_ALPHANUMERIC);
        let answer = globals.http()?.delete(&format!("/v1/topics/{path}")).await?.ok()?;
        let value: Value = answer.json()?;
        let line = match globals.json {
            true => value.to_string(),
            false => {
                let Erased { upto, erased } = serde_json::from_value(value)?;
                let state = if erased { "erased" } else { "being erased" };
                format!("{}  {state} up to {upto}", args.topic)
            }
        };
        let mut output = Output::stdout();
        output.line(line.as_bytes())?;
        output.flush()
    })
}

fn parse_topic(text: &str) -> Result<Topic, String> {
    Topic::parse(text).map_err(|error| error.to_string())
}
