//! `tidings durable`: look at durable subscriptions and operate them.

use serde::Deserialize;
use serde_json::Value;
use tidings_proto::{Offset, Start, topic::is_durable_name};

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
  tidings durable ls
  tidings durable pause billing
  tidings durable reset billing --to first
  tidings durable dead billing --redrive";

/// The commands of `tidings durable`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the durable subscriptions and how far they are.
    Ls(LsArgs),
    /// Show one of them whole.
    #[command(after_help = INFO_EXAMPLES)]
    Info(NameArgs),
    /// Deliver nothing of it until it is resumed.
    #[command(after_help = PAUSE_EXAMPLES)]
    Pause(NameArgs),
    /// Let it go on after a pause.
    #[command(after_help = RESUME_EXAMPLES)]
    Resume(NameArgs),
    /// Let it go on from another place, back or forth.
    Reset(ResetArgs),
    /// Forget it.
    #[command(alias = "delete", after_help = RM_EXAMPLES)]
    Rm(NameArgs),
    /// List the events it was given as often as may be and did not acknowledge.
    Dead(DeadArgs),
}

/// What `tidings durable ls` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = LS_EXAMPLES)]
pub struct LsArgs {}

const LS_EXAMPLES: &str = "\
Examples:
  tidings durable ls
  tidings durable ls --json";

/// What `tidings durable info`, `pause`, `resume` and `rm` take.
#[derive(Debug, clap::Args)]
pub struct NameArgs {
    /// The durable subscription.
    #[arg(value_parser = parse_name)]
    pub name: String,
}

const INFO_EXAMPLES: &str = "\
Examples:
  tidings durable info billing
  tidings durable info alice-inbox --json";

const PAUSE_EXAMPLES: &str = "\
Examples:
  tidings durable pause billing
  tidings durable pause alice-inbox --json";

const RESUME_EXAMPLES: &str = "\
Examples:
  tidings durable resume billing
  tidings durable resume alice-inbox --json";

const RM_EXAMPLES: &str = "\
Examples:
  tidings durable rm billing
  tidings durable rm alice-inbox";

/// What `tidings durable reset` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = RESET_EXAMPLES)]
pub struct ResetArgs {
    /// The durable subscription.
    #[arg(value_parser = parse_name)]
    pub name: String,
    /// Where it goes on: `first`, `now`, after an offset (57 or 57@9f3c21d0), or at a time (RFC 3339).
    #[arg(long, value_parser = super::subscribe::parse_start)]
    pub to: Start,
}

const RESET_EXAMPLES: &str = "\
Examples:
  tidings durable reset billing --to first
  tidings durable reset billing --to 2026-11-21T06:00:00Z";

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
    block_on(async {
        match &args.command {
            Command::Ls(LsArgs {}) => list_all(globals).await,
            Command::Info(args) => info(&args.name, globals).await,
            Command::Pause(args) => pause(&args.name, true, globals).await,
            Command::Resume(args) => pause(&args.name, false, globals).await,
            Command::Reset(args) => reset(args, globals).await,
            Command::Rm(args) => forget(&args.name, globals).await,
            Command::Dead(args) if args.redrive => redrive(args, globals).await,
            Command::Dead(args) => list(&args.name, globals).await,
        }
    })
}

#[derive(Deserialize)]
struct States {
    subscriptions: Vec<Value>,
    cursor: Option<String>,
}

/// One line for each durable.
async fn list_all(globals: &Globals) -> anyhow::Result<()> {
    let http = globals.http()?;
    let mut output = Output::stdout();
    let mut path = "/v1/subscriptions?limit=1000".to_owned();
    let mut found = 0;
    loop {
        let page: States = http.get(&path).await?.ok()?.json()?;
        for state in &page.subscriptions {
            let line = if globals.json { serde_json::to_string(state)? } else { state_line(state) };
            output.line(line.as_bytes())?;
        }
        found += page.subscriptions.len();
        let Some(cursor) = page.cursor else { break };
        path = format!("/v1/subscriptions?limit=1000&cursor={cursor}");
    }
    if found == 0 {
        globals.notice("there are no durable subscriptions");
    }
    output.flush()
}

async fn info(name: &str, globals: &Globals) -> anyhow::Result<()> {
    let answer = globals.http()?.get(&format!("/v1/subscriptions/{name}")).await?.ok()?;
    let state: Value = answer.json()?;
    let mut output = Output::stdout();
    match globals.json {
        true => output.line(serde_json::to_string(&state)?.as_bytes())?,
        false => {
            for (field, value) in state.as_object().into_iter().flatten() {
                let text = value.as_str().map_or_else(|| value.to_string(), shown);
                output.line(format!("{field:<12} {text}").as_bytes())?;
            }
        }
    }
    output.flush()
}

async fn pause(name: &str, paused: bool, globals: &Globals) -> anyhow::Result<()> {
    let call = if paused { "pause" } else { "resume" };
    let path = format!("/v1/subscriptions/{name}/{call}");
    globals.http()?.post(&path, "{}".to_owned()).await?.ok()?;
    let mut output = Output::stdout();
    let line = match globals.json {
        true => format!("{{\"paused\":{paused}}}"),
        false => format!("{name}  {}", if paused { "paused" } else { "goes on" }),
    };
    output.line(line.as_bytes())?;
    output.flush()
}

async fn reset(args: &ResetArgs, globals: &Globals) -> anyhow::Result<()> {
    let path = format!("/v1/subscriptions/{}/reset", args.name);
    let body = serde_json::json!({ "to": args.to }).to_string();
    let answer: Value = globals.http()?.post(&path, body).await?.ok()?.json()?;
    let cursor = answer.get("cursor").and_then(Value::as_u64).unwrap_or_default();
    let mut output = Output::stdout();
    let line = match globals.json {
        true => serde_json::to_string(&answer)?,
        false => format!("{}  goes on after {cursor}", args.name),
    };
    output.line(line.as_bytes())?;
    output.flush()
}

async fn forget(name: &str, globals: &Globals) -> anyhow::Result<()> {
    globals.http()?.delete(&format!("/v1/subscriptions/{name}")).await?.ok()?;
    globals.notice(&format!("{name} is forgotten"));
    Ok(())
}

/// Name, floor, lag and what else there is to know at a glance.
fn state_line(state: &Value) -> String {
    let number = |name: &str| state.get(name).and_then(Value::as_u64).unwrap_or_default();
    let name = state.get("name").and_then(Value::as_str).map(shown).unwrap_or_default();
    let (cursor, lag, sessions) = (number("cursor"), number("lag"), number("sessions"));
    let more = if state.get("lag_at_least").is_some() { "+" } else { "" };
    let paused = if state.get("paused").is_some() { "  paused" } else { "" };
    let dead = match number("dead") {
        0 => String::new(),
        dead => format!("  {dead} dead"),
    };
    format!("{name}  at {cursor}  {lag}{more} to do  {sessions} sessions{dead}{paused}")
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
