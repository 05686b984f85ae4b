//! `tidings log`: looks into a data directory without a broker, also while one runs on it.
//!
//! - Nothing is written, no lock is taken.

use std::path::{Path, PathBuf};

use serde_json::json;
use tidings_proto::{
    Cursor, Filter, Priority, Timestamp,
    wire::{json as wire, stored},
};
use tidings_storage::{Finding, OsDisk, Record, Verified};

use super::{
    Globals,
    exit::{Corrupt, NotFound},
    output::{Output, one_line},
};

/// What `tidings log` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to do with it.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tidings log verify --data /var/lib/tidings
  tidings log dump --data /var/lib/tidings --after 57";

/// What can be done with a data directory.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Read everything and check every checksum.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
    /// Write every event to stdout, the broker's own too, one JSON object a line.
    #[command(after_help = DUMP_EXAMPLES)]
    Dump(DumpArgs),
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  tidings log verify
  tidings log verify --data /var/lib/tidings --json";

const DUMP_EXAMPLES: &str = "\
Examples:
  tidings log dump --filter 'tasks.>'
  tidings log dump --data /var/lib/tidings --after 57 --filter '$acks'";

/// What `tidings log verify` takes.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The data directory.
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
}

/// What `tidings log dump` takes.
#[derive(Debug, clap::Args)]
pub struct DumpArgs {
    /// The data directory.
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// Begin after this offset.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub after: u64,
    /// Only events that match; may be given more than once.
    #[arg(long, value_name = "FILTER", value_parser = Filter::parse)]
    pub filter: Vec<Filter>,
}

/// Does it.
///
/// # Errors
/// When the directory cannot be read or what it holds is damaged.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    match &args.command {
        Command::Verify(args) => verify(args, globals),
        Command::Dump(args) => dump(args),
    }
}

fn verify(args: &VerifyArgs, globals: &Globals) -> anyhow::Result<()> {
    let disk = open(&args.data)?;
    let mut output = Output::stdout();
    let mut failed = None;
    let mut report = |finding: Finding| {
        let line = show_finding(&finding, globals.json);
        let written = output.line(line.as_bytes());
        failed = failed.take().or(written.err());
    };
    let verified = tidings_storage::verify(&disk, &mut report)?;
    if let Some(error) = failed {
        return Err(error);
    }
    output.line(show_verified(&verified, globals.json).as_bytes())?;
    output.flush()?;
    match verified.damaged {
        0 => Ok(()),
        n => {
            Err(Corrupt(format!("{} is damaged in {n} places, see above", args.data.display()))
                .into())
        }
    }
}

fn show_finding(finding: &Finding, json: bool) -> String {
    let Finding { path, position, offset, problem, damage } = finding;
    if json {
        let (position, offset) = (*position, *offset);
        return json!({
            "path": path, "position": position, "offset": offset, "problem": problem,
            "damage": damage,
        })
        .to_string();
    }
    let what = if *damage { "damaged" } else { "noted" };
    format!("{what}: {path} at byte {position} (offset {offset}): {problem}")
}

fn show_verified(verified: &Verified, json: bool) -> String {
    let Verified { segments, events, bytes, damaged } = verified;
    if json {
        return json!({
            "segments": segments, "events": events, "bytes": bytes, "damaged": damaged,
        })
        .to_string();
    }
    format!("{events} events, {bytes} bytes in {segments} segments; damaged in {damaged} places")
}

fn dump(args: &DumpArgs) -> anyhow::Result<()> {
    let disk = open(&args.data)?;
    let mut output = Output::stdout();
    let mut failed = None;
    let mut line = Vec::new();
    let mut visit = |record: Record| {
        let topic = record.topic.as_str();
        if !args.filter.is_empty() && !args.filter.iter().any(|filter| filter.matches(topic)) {
            return true;
        }
        line.clear();
        let written = write_record(&record, &mut line).and_then(|()| output.line(&line));
        failed = written.err();
        failed.is_none()
    };
    tidings_storage::dump(&disk, Cursor::new(args.after), &mut visit)?;
    if let Some(error) = failed {
        // What was written before is worth having.
        output.flush()?;
        return Err(error);
    }
    output.flush()
}

/// The event of a record as JSON.
fn write_record(record: &Record, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let body = stored::decode(&record.body).map_err(|error| {
        Corrupt(format!("the body of event {} cannot be read: {error}", record.offset))
    })?;
    let place = stored::Place {
        offset: record.offset,
        time: Timestamp::from_millis(record.time_ms),
        topic: record.topic.as_str(),
        key: std::str::from_utf8(&record.key).ok().filter(|key| !key.is_empty()),
        priority: Priority::from_bits(record.flags.priority()),
    };
    wire::encode_event(&place, &body, out);
    one_line(out);
    Ok(())
}

/// A data directory that must be there, to look at.
fn open(dir: &Path) -> anyhow::Result<OsDisk> {
    if !dir.join("log").is_dir() {
        let text = format!("{}", dir.display());
        return Err(
            anyhow::anyhow!(text).context(NotFound("there is no data directory of a broker"))
        );
    }
    Ok(OsDisk::look(dir)?)
}
