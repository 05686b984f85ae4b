//! Runs one command, see `tidings --help`.

use std::process::ExitCode;

use clap::Parser;
use tidings::cli::{
    Cli, Command, bench, config, durable, exit, health, key, log, presence, publish, receipts,
    request, retention, serve, status, subscribe, token, topic, version,
};

/// Publishing makes on one thread what another drops, which the C library's allocator is slow at
/// (docs/performance.md).
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let Cli { globals, command } = Cli::parse();
    exit::code(match command {
        Command::Serve(args) => serve::run(args),
        Command::Pub(args) => publish::run(&args, &globals),
        Command::Sub(args) => subscribe::run(&args, &globals),
        Command::Durable(args) => durable::run(&args, &globals),
        Command::Request(args) => request::run(&args, &globals),
        Command::Retention(args) => retention::run(&args, &globals),
        Command::Topic(args) => topic::run(&args, &globals),
        Command::Token(args) => token::run(&args, &globals),
        Command::Key(args) => key::run(&args, &globals),
        Command::Receipts(args) => receipts::run(&args, &globals),
        Command::Presence(args) => presence::run(&args, &globals),
        Command::Status(args) => status::run(&args, &globals),
        Command::Health(args) => health::run(&args, &globals),
        Command::Config(args) => config::run(*args),
        Command::Log(args) => log::run(&args, &globals),
        Command::Bench(args) => bench::run(&args, &globals),
        Command::Version(args) => version::run(&args, &globals),
    })
}
