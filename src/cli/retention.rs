//! `tidings retention`: the rules of how long events are kept.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value};
use tidings_proto::Filter;

use super::{
    Globals, block_on,
    output::{Output, shown},
};

/// What `tidings retention` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tidings retention show
  tidings retention set 'chat.>' --max-age 30d";

/// The commands of `tidings retention`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the rules, or show the one of a filter.
    #[command(alias = "ls")]
    Show(ShowArgs),
    /// Make or change the rule of a filter.
    Set(SetArgs),
    /// Forget the rule of a filter: what is in the settings holds again.
    #[command(alias = "rm")]
    Delete(DeleteArgs),
}

/// What `tidings retention show` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub struct ShowArgs {
    /// Only the rule of this filter.
    #[arg(value_parser = parse_filter)]
    pub filter: Option<Filter>,
}

const SHOW_EXAMPLES: &str = "\
Examples:
  tidings retention show
  tidings retention show 'chat.>' --json";

/// What `tidings retention set` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = SET_EXAMPLES)]
pub struct SetArgs {
    /// The filter.
    #[arg(value_parser = parse_filter)]
    pub filter: Filter,
    /// Keep events no longer than this, as in 30d.
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<String>,
    /// Keep no more bytes.
    #[arg(long, value_name = "BYTES", value_parser = parse_whole)]
    pub max_bytes: Option<u64>,
    /// Keep no more events.
    #[arg(long, value_name = "EVENTS", value_parser = parse_whole)]
    pub max_events: Option<u64>,
    /// Keep only the last event of each topic and key.
    #[arg(long)]
    pub compact: bool,
}

const SET_EXAMPLES: &str = "\
Examples:
  tidings retention set 'chat.>' --max-age 30d --max-events 100000
  tidings retention set 'state.*' --compact";

/// What `tidings retention delete` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = DELETE_EXAMPLES)]
pub struct DeleteArgs {
    /// The filter.
    #[arg(value_parser = parse_filter)]
    pub filter: Filter,
}

const DELETE_EXAMPLES: &str = "\
Examples:
  tidings retention delete 'chat.>'
  tidings retention delete 'state.*' --quiet";

#[derive(Deserialize)]
struct Page {
    retention: Vec<Value>,
}

/// Carries out what was asked.
///
/// # Errors
/// When the broker does not answer, refuses, or there is no such rule.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    block_on(async {
        match &args.command {
            Command::Show(args) => show(args, globals).await,
            Command::Set(args) => set(args, globals).await,
            Command::Delete(args) => {
                globals.http()?.delete(&path_of(&args.filter)).await?.ok()?;
                globals.notice("forgotten");
                Ok(())
            }
        }
    })
}

async fn show(args: &ShowArgs, globals: &Globals) -> anyhow::Result<()> {
    let http = globals.http()?;
    let rules = match &args.filter {
        Some(filter) => vec![http.get(&path_of(filter)).await?.ok()?.json()?],
        None => http.get("/v1/retention").await?.ok()?.json::<Page>()?.retention,
    };
    let mut output = Output::stdout();
    for rule in &rules {
        write(rule, globals, &mut output)?;
    }
    output.flush()
}

fn parse_whole(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "give a whole number, without a unit".to_owned())
}

async fn set(args: &SetArgs, globals: &Globals) -> anyhow::Result<()> {
    let mut rule = Map::new();
    rule.extend(args.max_age.clone().map(|age| ("max_age".to_owned(), Value::from(age))));
    rule.extend(args.max_bytes.map(|bytes| ("max_bytes".to_owned(), Value::from(bytes))));
    rule.extend(args.max_events.map(|events| ("max_events".to_owned(), Value::from(events))));
    rule.insert("compact".to_owned(), Value::from(args.compact));
    let body = serde_json::to_string(&rule)?;
    let stored: Value = globals.http()?.put(&path_of(&args.filter), body).await?.ok()?.json()?;
    let mut output = Output::stdout();
    write(&stored, globals, &mut output)?;
    output.flush()
}

fn write(rule: &Value, globals: &Globals, output: &mut Output) -> anyhow::Result<()> {
    let line = if globals.json { serde_json::to_string(rule)? } else { line_of(rule) };
    output.line(line.as_bytes())
}

/// What a rule may bound.
const LIMITS: [&str; 3] = ["max_age", "max_bytes", "max_events"];

fn line_of(rule: &Value) -> String {
    let mut line = rule.get("filter").and_then(Value::as_str).map(shown).unwrap_or_default();
    for name in LIMITS {
        match rule.get(name) {
            Some(Value::String(text)) => line.push_str(&format!("  {name}={}", shown(text))),
            Some(number) => line.push_str(&format!("  {name}={number}")),
            None => {}
        }
    }
    let is = |name| rule.get(name) == Some(&Value::Bool(true));
    if is("compact") {
        line.push_str("  compact");
    }
    if LIMITS.iter().all(|name| rule.get(name).is_none()) && !is("compact") {
        line.push_str("  keeps all");
    }
    if is("configured") {
        line.push_str("  (settings)");
    }
    line
}

fn path_of(filter: &Filter) -> String {
    format!("/v1/retention/{}", utf8_percent_encode(filter.as_str(), NON_ALPHANUMERIC))
}

fn parse_filter(text: &str) -> Result<Filter, String> {
    Filter::parse(text).map_err(|error| error.to_string())
}
