//! What sockets cost the broker while nothing happens.

use std::time::Duration;

use anyhow::Context;

use super::{report::Report, socket::Socket};
use crate::cli::Globals;

/// What `tidings bench idle` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How many sockets, each with one subscription.
    #[arg(long, default_value_t = 1000, value_name = "N")]
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
  tidings bench idle --connections 5000 --pid 4711 --json";

/// Measures.
pub(super) async fn run(args: &Args, globals: &Globals) -> anyhow::Result<Report> {
    let before = resident_bytes(args.pid)?;
    let mut sockets = Vec::new();
    for number in 0..args.connections {
        let mut socket = Socket::open(globals).await?;
        socket
            .call(&format!("{{\"id\":1,\"subscribe\":{{\"filters\":[\"idle.{number}\"]}}}}"))
            .await?;
        socket.input.shrink();
        sockets.push(socket);
    }
    tokio::time::sleep(Duration::from_secs(args.settle)).await;
    let after = resident_bytes(args.pid)?;
    let each = after.saturating_sub(before) / args.connections.max(1);
    let mut report = Report::default();
    report.begin("idle");
    report.set("connections", args.connections);
    report.set("resident_bytes_before", before);
    report.set("resident_bytes_after", after);
    report.set("bytes_each", each);
    Ok(report)
}

/// Resident memory of a process, as Linux says it in `/proc/PID/status`.
fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    #[expect(clippy::disallowed_methods, reason = "the kernel's file, not the broker's")]
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("cannot look at the process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("the process has no resident memory")? * 1024)
}
