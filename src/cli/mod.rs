//! The command line: what was typed, and one file a command.
//!
//! - Results go to stdout and nothing else does; notices and errors go to stderr.
//! - A reader of stdout that has gone ends the command quietly.
//! - How a command ended is its exit code, see [`exit`].

pub mod bench;
pub mod config;
pub mod durable;
pub mod exit;
pub mod health;
pub mod key;
pub mod log;
mod output;
pub mod presence;
pub mod publish;
pub mod receipts;
pub mod request;
pub mod retention;
mod sealing;
pub mod serve;
pub mod status;
mod stdin;
pub mod subscribe;
#[cfg(test)]
mod tests;
pub mod token;
pub mod topic;
pub mod version;

use std::{
    io::Write,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;

use self::exit::{TimedOut, Usage};
use crate::client::{Client, HttpClient, Notice, Options};

/// How long the broker may take where `--timeout` does not say.
const TIMEOUT: Duration = Duration::from_secs(10);

/// tidings: a persistent, event-sourced notification broker, and its client.
#[derive(Debug, clap::Parser)]
#[command(name = "tidings", version = version::VERSION, after_help = EXAMPLES)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tidings serve --demo
  tidings sub 'greetings.>' --after first

Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 denied, 5 unavailable or timeout,
6 conflict, 7 data corrupt, 75 data directory locked";

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run a broker.
    Serve(serve::Args),
    /// Publish events.
    Pub(Box<publish::Args>),
    /// Subscribe: write events to stdout as they come.
    Sub(Box<subscribe::Args>),
    /// Ask and wait for the answer.
    Request(request::Args),
    /// Show who has acknowledged an event.
    Receipts(receipts::Args),
    /// Show who is listed on a topic.
    Presence(presence::Args),
    /// Look at durable subscriptions and operate them.
    Durable(durable::Args),
    /// Show and change how long events are kept.
    Retention(retention::Args),
    /// Operate on topics.
    Topic(topic::Args),
    /// Make tokens, look into them, revoke them.
    Token(token::Args),
    /// Make, list and revoke API keys; make keys that seal events.
    Key(key::Args),
    /// Show how the broker is.
    Status(status::Args),
    /// Tell by the exit code whether a broker is ready.
    Health(health::Args),
    /// Check or show settings without running a broker.
    Config(Box<config::Args>),
    /// Look into a data directory without a broker.
    Log(log::Args),
    /// Load a running broker and measure it.
    Bench(bench::Args),
    /// Show the version.
    Version(version::Args),
}

/// What every command takes.
#[derive(Clone, clap::Args)]
pub struct Globals {
    /// The broker.
    #[arg(
        long,
        global = true,
        env = "TIDINGS_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub url: String,
    /// The token to show the broker.
    #[arg(
        long,
        global = true,
        env = "TIDINGS_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub token: Option<String>,
    /// A file with the token; outranks --token.
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A file with the certificates to trust, in PEM, instead of those that the system trusts.
    #[arg(long, global = true, env = "TIDINGS_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Write JSON, one object a line.
    #[arg(long, global = true)]
    pub json: bool,
    /// Write no notices to stderr.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// How long the broker may take to answer [default: 10s; `pub --lines`: for ever].
    #[arg(long, global = true, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
}

impl std::fmt::Debug for Globals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Globals").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Globals {
    /// How long the broker may take.
    fn patience(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    fn options(&self) -> anyhow::Result<Options> {
        let mut options = Options::to(self.url.clone());
        options.client_name = concat!("tidings-cli/", env!("CARGO_PKG_VERSION")).to_owned();
        options.token = self.token.clone().filter(|token| !token.is_empty());
        if let Some(path) = &self.token_file {
            let token = read_file(path).context("cannot read the token")?;
            let token = String::from_utf8(token).map(|token| token.trim().to_owned());
            match token {
                Ok(token) if !token.is_empty() => options.token = Some(token),
                _ => {
                    return Err(Usage::error(format!(
                        "{}: there is no token in it",
                        path.display()
                    )));
                }
            }
        }
        if let Some(path) = &self.ca {
            options.ca = Some(read_file(path).context("cannot read the certificates to trust")?);
        }
        if !self.quiet {
            options.on_notice = Some(Arc::new(notices()));
        }
        Ok(options)
    }

    /// Connects; `patience` is how long it may take, `None` for ever.
    async fn connect(&self, patience: Option<Duration>) -> anyhow::Result<Client> {
        connect(self.options()?, patience).await
    }

    fn http(&self) -> anyhow::Result<HttpClient> {
        Ok(HttpClient::new(&self.options()?, self.patience())?)
    }

    /// A line on stderr that is no error.
    fn notice(&self, text: &str) {
        if !self.quiet {
            to_stderr(text);
        }
    }
}

/// Connects as these options say; `patience` is how long it may take, `None` for ever.
async fn connect(options: Options, patience: Option<Duration>) -> anyhow::Result<Client> {
    let connecting = Client::connect(options);
    Ok(within(patience, "no connection to the broker", connecting).await??)
}

/// One line on stderr for each change of the connection.
fn notices() -> impl Fn(&Notice) + Send + Sync {
    let was_down = AtomicBool::new(false);
    move |notice| {
        let line = match notice {
            Notice::Lost { reason, was_there } => {
                was_down.store(true, Ordering::Relaxed);
                let what = if *was_there { "connection lost" } else { "cannot connect" };
                format!("{what} ({reason}), retrying")
            }
            Notice::Connected { again: true } => "connected again".to_owned(),
            Notice::Connected { again: false } if was_down.load(Ordering::Relaxed) => {
                "connected".to_owned()
            }
            Notice::Connected { again: false } => return,
        };
        to_stderr(&line);
    }
}

fn to_stderr(line: &str) {
    // Nobody may be reading: the command goes on all the same.
    let _ = writeln!(std::io::stderr().lock(), "tidings: {line}");
}

/// Waits for `future` as long as `patience` says.
async fn within<T>(
    patience: Option<Duration>,
    what: &'static str,
    future: impl Future<Output = T>,
) -> Result<T, TimedOut> {
    match patience {
        None => Ok(future.await),
        Some(wait) => tokio::time::timeout(wait, future).await.map_err(|_| TimedOut { what, wait }),
    }
}

/// Runs the asynchronous part of a command. What it blocks on, such as a slow reader of stdout,
/// does not block the connection, which lives on a thread of its own.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

#[expect(clippy::disallowed_methods, reason = "a file the caller names, not one of the log's")]
fn read_file(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).map_err(|cause| {
        let not_found = cause.kind() == std::io::ErrorKind::NotFound;
        let error = anyhow::Error::new(cause).context(format!("{}", path.display()));
        if not_found { error.context(exit::NotFound("there is no such file")) } else { error }
    })
}
