//! `tidings log`: looks into a data directory without a broker, also while one runs on it.
//!
//! - Nothing is written, no lock is taken.

use std::path::{Path, PathBuf};

use tidings_proto::{
    Cursor, Filter, Priority, Timestamp,
    wire::{json, stored},
};
use tidings_storage::{OsDisk, Record};

use super::{
    Globals,
    exit::{Corrupt, NotFound},
    output::Output,
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
    Verify(Verify),
    /// Write every event to stdout, the broker's own too, one JSON object a line.
    #[command(after_help = DUMP_EXAMPLES)]
    Dump(Dump),
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
pub struct Verify {
    /// The data directory.
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
}

/// What `tidings log dump` takes.
#[derive(Debug, clap::Args)]
pub struct Dump {
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

fn verify(args: &Verify, globals: &Globals) -> anyhow::Result<()> {
    let disk = open(&args.data)?;
    let mut findings = 0_usize;
    let mut report = |finding: tidings_storage::Finding| {
        findings += 1;
        globals.notice(&finding.to_string());
    };
    let verified = tidings_storage::verify(&disk, &mut report)?;
    let mut output = Output::stdout();
    let (segments, events, bytes) = (verified.segments, verified.events, verified.bytes);
    let line = match globals.json {
        true => format!(
            "{{\"segments\":{segments},\"events\":{events},\"bytes\":{bytes},\"findings\":{findings}}}"
        ),
        false => format!("{events} events in {segments} segments, {bytes} bytes: {findings} findings"),
    };
    output.line(line.as_bytes())?;
    output.flush()?;
    match findings {
        0 => Ok(()),
        n => Err(Corrupt(format!("{n} findings in {}, see above", args.data.display())).into()),
    }
}

fn dump(args: &Dump) -> anyhow::Result<()> {
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
    let body = stored::decode(&record.body)
        .map_err(|error| Corrupt(format!("the body of event {} cannot be read: {error}", record.offset)))?;
    let place = stored::Place {
        offset: record.offset,
        time: Timestamp::from_millis(record.time_ms),
        topic: record.topic.as_str(),
        key: std::str::from_utf8(&record.key).ok().filter(|key| !key.is_empty()),
        priority: Priority::from_bits(record.flags.priority()),
    };
    json::encode_event(&place, &body, out);
    Ok(())
}

/// Opens a data directory that must be there: looking makes none.
fn open(dir: &Path) -> anyhow::Result<OsDisk> {
    if !dir.is_dir() {
        let text = format!("{}", dir.display());
        return Err(anyhow::anyhow!(text).context(NotFound("there is no such data directory")));
    }
    Ok(OsDisk::open(dir)?)
}
