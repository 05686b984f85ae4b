//! What sockets cost the broker while nothing happens.

use std::time::Duration;

use anyhow::Context;

use tidings_proto::{Filter, Filters, SubscribeOptions};

use super::{at_least_one, progress::Progress, report::Report, socket::Socket, speech::Speech};
use crate::{
    cli::Globals,
    client::{Client, Subscription},
};

/// How long the broker may take to let somebody in over TLS.
const CONNECT_WAIT: Duration = Duration::from_secs(20);

/// What `tidings bench idle` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How many sockets, each with one subscription.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = at_least_one())]
    pub connections: u64,
    /// The broker's process, on this machine.
    #[arg(long, value_name = "PID")]
    pub pid: u32,
    /// How long to wait before looking, in seconds.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub settle: u64,
}

const EXAMPLES: &str = "\
Examples:
  tidings bench idle --pid $(pidof tidings)
  tidings bench idle --connections 5000 --pid 4711 --json

The broker may be one over TLS here: https://HOST:PORT, with --ca where its certificate is of your own.";

/// A socket that is held open, with its subscription.
enum Held {
    Plain { _socket: Box<Socket> },
    Tls { _client: Client, _subscription: Subscription },
}

impl Held {
    async fn open(globals: &Globals, topic: &str) -> anyhow::Result<Held> {
        if !globals.url.starts_with("https://") {
            let mut socket = Socket::open(globals, Speech::Json).await?;
            socket.subscribe(topic).await?;
            socket.input.shrink();
            return Ok(Held::Plain { _socket: Box::new(socket) });
        }
        let client = globals.connect(Some(CONNECT_WAIT)).await?;
        let options = SubscribeOptions::to(Filters::one(Filter::parse(topic)?));
        let subscription = client.subscribe(options).await?;
        Ok(Held::Tls { _client: client, _subscription: subscription })
    }
}

/// Measures.
pub(super) async fn run(
    args: &Args,
    globals: &Globals,
    progress: &Progress,
) -> anyhow::Result<Report> {
    let before = resident_bytes(args.pid)?;
    let mut sockets = Vec::new();
    progress.begin("idle", "sockets");
    let counter = progress.counter();
    for number in 0..args.connections {
        sockets.push(Held::open(globals, &format!("idle.{number}")).await?);
        counter.add(1);
    }
    tokio::time::sleep(Duration::from_secs(args.settle)).await;
    let after = resident_bytes(args.pid)?;
    let mut report = Report::default();
    report.begin("idle");
    each(&mut report, args.connections, before, after);
    Ok(report)
}

/// What each of so many sockets has added.
pub(super) fn each(report: &mut Report, sockets: u64, before: u64, after: u64) {
    report.set("connections", sockets);
    report.set("resident_bytes_before", before);
    report.set("resident_bytes_after", after);
    report.set("bytes_each", after.saturating_sub(before) / sockets.max(1));
}

/// Resident memory of a process, as Linux says it in `/proc/PID/status`.
pub(super) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    #[expect(clippy::disallowed_methods, reason = "the kernel's file, not the broker's")]
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("cannot look at the process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("the process has no resident memory")? * 1024)
}
