//! `tidings serve`: runs a broker.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use super::exit::Usage;
use crate::config::Flags;

/// What `tidings serve` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The settings.
    #[command(flatten)]
    pub flags: Flags,
}

const EXAMPLES: &str = "\
Examples:
  tidings serve --demo
  tidings serve --data /var/lib/tidings --listen 127.0.0.1:8080 --config tidings.toml

Logs go to stderr; the environment variable TIDINGS_LOG says how much (default: info).";

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When the settings do not hold or the broker does not start.
pub fn run(args: Args) -> anyhow::Result<()> {
    log_to_stderr()?;
    // Whatever a library writes into the data directory is for nobody else either.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let config = args.flags.resolve()?;
    if let Err(error) = allow_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(crate::server::serve(config))
}

/// Every socket is an open file, and every sealed segment two: as many as the system lets us have.
pub(super) fn allow_open_files() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

/// Text for people, JSON lines for everything else.
fn log_to_stderr() -> anyhow::Result<()> {
    let filter = match std::env::var("TIDINGS_LOG") {
        Ok(text) => EnvFilter::try_new(&text)
            .map_err(|error| Usage::error(format!("TIDINGS_LOG=\"{text}\": {error}")))?,
        Err(_) => EnvFilter::new("info"),
    };
    // Where stderr is a file on a full disk, saying so there would panic.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    if std::io::stderr().is_terminal() {
        subscriber.init();
    } else {
        subscriber.json().init();
    }
    Ok(())
}
