//! `tidings version`: which program this is.

use super::{Globals, output::print};

/// What `tidings version` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

const EXAMPLES: &str = "\
Examples:
  tidings version
  tidings version --json";

/// Writes the version.
///
/// # Errors
/// When stdout cannot be written.
pub fn run(_: &Args, globals: &Globals) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    match globals.json {
        true => print(&format!("{{\"version\":\"{version}\"}}")),
        false => print(&format!("tidings {version}")),
    }
}
