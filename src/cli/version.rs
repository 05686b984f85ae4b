//! `tidings version`: which program this is.

use super::{Globals, output::print};

/// Version, commit and compiler, as `tidings --version` says them. The last two are `unknown` where the build could
/// not know them (`build.rs`).
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("BUILD_COMMIT"),
    ", rustc ",
    env!("BUILD_RUSTC"),
    ")"
);

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
    match globals.json {
        true => print(
            &serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"),
                "commit": env!("BUILD_COMMIT"),
                "rustc": env!("BUILD_RUSTC"),
            })
            .to_string(),
        ),
        false => print(&format!("tidings {VERSION}")),
    }
}
