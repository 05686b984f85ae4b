//! `tidings durable`: look at durable subscriptions and operate them.

use serde::Deserialize;
use serde_json::Value;
use tidings_proto::{Offset, topic::is_durable_name};

use super::{
    Globals, block_on,
    output::{Output, shown},
};

/// What `tidings durable` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tidings durable dead billing
  tidings durable dead billing --redrive";

/// The commands of `tidings durable`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the events it was given as often as may be and did not acknowledge.
    Dead(DeadArgs),
}

/// What `tidings durable dead` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = DEAD_EXAMPLES)]
pub struct DeadArgs {
    /// The durable subscription.
    #[arg(value_parser = parse_name)]
    pub name: String,
    /// Let them come again, to this subscription alone.
    #[arg(long)]
    pub redrive: bool,
    /// Only these events; may be given more than once.
    #[arg(long = "offset", requires = "redrive", value_parser = super::receipts::parse_offset)]
    pub offsets: Vec<Offset>,
}

const DEAD_EXAMPLES: &str = "\
Examples:
  tidings durable dead billing
  tidings durable dead billing --redrive
  tidings durable dead billing --redrive --offset 57 --offset 60";

#[derive(Deserialize)]
struct Page {
    dead: Vec<Value>,
    cursor: Option<u64>,
}

#[derive(Deserialize)]
struct Redriven {
    redriven: Vec<u64>,
}

/// Carries out what was asked.
///
/// # Errors
/// When the broker does not answer or there is no such subscription.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    let Command::Dead(args) = &args.command;
    block_on(async {
        match args.redrive {
            true => redrive(args, globals).await,
            false => list(&args.name, globals).await,
        }
    })
}

/// One line for each event.
async fn list(name: &str, globals: &Globals) -> anyhow::Result<()> {
    let http = globals.http()?;
    let mut output = Output::stdout();
    let (mut after, mut found) = (0, 0);
    loop {
        let path = format!("/v1/subscriptions/{name}/dead?after={after}&limit=1000");
        let page: Page = http.get(&path).await?.ok()?.json()?;
        for row in &page.dead {
            let line = if globals.json { serde_json::to_string(row)? } else { line_of(row) };
            output.line(line.as_bytes())?;
        }
        found += page.dead.len();
        match page.cursor {
            Some(cursor) if cursor > after => after = cursor,
            _ => break,
        }
    }
    if found == 0 {
        globals.notice("none of its events is dead");
    }
    output.flush()
}

/// One line for each event that comes again.
async fn redrive(args: &DeadArgs, globals: &Globals) -> anyhow::Result<()> {
    let body = match args.offsets.is_empty() {
        true => serde_json::json!({}),
        false => serde_json::json!({ "offsets": args.offsets }),
    };
    let path = format!("/v1/subscriptions/{}/redrive", args.name);
    let answer = globals.http()?.post(&path, body.to_string()).await?.ok()?;
    let redriven: Redriven = answer.json()?;
    if redriven.redriven.is_empty() {
        globals.notice("none of these events is dead");
    }
    let mut output = Output::stdout();
    for offset in redriven.redriven {
        let line = match globals.json {
            true => format!("{{\"redriven\":{offset}}}"),
            false => format!("{offset}  redriven"),
        };
        output.line(line.as_bytes())?;
    }
    output.flush()
}

fn line_of(row: &Value) -> String {
    let word = |name: &str| match row.get(name) {
        Some(Value::String(text)) => shown(text),
        Some(other) => other.to_string(),
        None => "-".to_owned(),
    };
    let (offset, topic, attempts) = (word("offset"), word("topic"), word("attempts"));
    format!("{offset}  {topic}  {attempts} deliveries  {}", word("reason"))
}

fn parse_name(text: &str) -> Result<String, String> {
    match is_durable_name(text) {
        true => Ok(text.to_owned()),
        false => Err("a name is one token of A–Z a–z 0–9 _ - : @ =, 64 bytes at most".to_owned()),
    }
}
