//! `tidings health`: whether a broker takes publishes, as an exit code: for images without a shell.

use super::{
    Globals, block_on,
    exit::Unready,
    output::{Output, shown},
};
use crate::client::HttpClient;

/// What `tidings health` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The broker's admin listener.
    #[arg(
        long,
        env = "TIDINGS_ADMIN_URL",
        default_value = "http://127.0.0.1:9090",
        value_name = "URL"
    )]
    pub admin: String,
    /// Ask only whether the process answers, not whether it takes publishes.
    #[arg(long)]
    pub live: bool,
}

const EXAMPLES: &str = "\
Examples:
  tidings health
  tidings health --live --admin http://127.0.0.1:9090

Ends with 0 when all is well and with 5 when something is not, or nobody answers.";

/// Writes what was looked at, a line each.
///
/// # Errors
/// When the broker is not ready, or does not answer.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    block_on(async {
        let mut options = globals.options()?;
        options.url.clone_from(&args.admin);
        // The admin listener takes none, and whoever listens there instead is not to have it.
        options.token = None;
        let client = HttpClient::new(&options, globals.patience())?;
        let answer = client.get(if args.live { "/livez" } else { "/readyz?verbose" }).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status != 200 {
            let reasons: Vec<&str> = text.lines().filter(|line| line.starts_with("[-]")).collect();
            let said = if reasons.is_empty() { text.trim().to_owned() } else { reasons.join(", ") };
            return Err(anyhow::Error::new(Unready { status: answer.status, said: shown(&said) }));
        }
        let mut output = Output::stdout();
        for line in text.lines() {
            output.line(shown(line).as_bytes())?;
        }
        output.flush()
    })
}
