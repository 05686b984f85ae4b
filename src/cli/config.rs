//! `tidings config`: what a broker would run with, without running it.

use super::output::{Output, print};
use crate::config::{Flags, SETTINGS};

/// What `tidings config` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tidings config check --config tidings.toml
  tidings config show --set log.segment_bytes=16777216";

/// What can be done with settings.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Say whether a broker would take these settings; touches no data.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Flags),
    /// Show every setting with its value and where that comes from; secrets are not shown.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Flags),
}

const CHECK_EXAMPLES: &str = "\
Examples:
  tidings config check --config /etc/tidings/tidings.toml
  tidings config check --listen 0.0.0.0:8080 --insecure";

const SHOW_EXAMPLES: &str = "\
Examples:
  tidings config show
  tidings config show --config /etc/tidings/tidings.toml";

/// Checks or shows.
///
/// # Errors
/// When the settings do not hold; what is wrong and where it was given.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Check(flags) => {
            if let Some(files) = flags.resolve()?.tls {
                files.open()?;
            }
            print("the settings hold")
        }
        Command::Show(flags) => {
            let given = flags.given()?;
            let mut output = Output::stdout();
            let width = SETTINGS.iter().map(|setting| setting.key.len()).max().unwrap_or(0);
            for setting in SETTINGS {
                let line = match given.get(setting.key) {
                    Some((_, origin)) if setting.is_secret() => {
                        format!("{:width$} = (not shown)  # {origin}", setting.key)
                    }
                    Some((value, origin)) => {
                        format!("{:width$} = {value:?}  # {origin}", setting.key)
                    }
                    None => format!("{:width$} = {:?}", setting.key, setting.default),
                };
                output.line(line.as_bytes())?;
            }
            output.flush()
        }
    }
}
