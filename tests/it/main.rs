//! Black-box tests: the real binary over real sockets, one file a behaviour.
//!
//! Every broker has its own temporary directory and free ports; whatever a test waits for, it waits for the
//! event itself, with a deadline that only a broken broker reaches.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "tests fail by panicking, and own their machine's clock and files"
)]

mod util;

mod access;
mod attacks;
mod auth;
mod bad_input;
mod bandwidth;
mod bench;
mod cli;
mod compression;
mod crash;
mod dead;
mod disk;
mod documents;
mod doors;
mod durable;
mod durable_edges;
mod encodings;
mod examples;
mod http;
mod lanes;
mod manager;
mod operate;
mod pace;
mod parity;
mod presence;
mod prometheus;
mod protection;
mod publish;
mod real_input;
mod receipts;
mod request;
mod requests;
mod retention;
mod scheduled;
mod sealed;
mod selective;
mod shared;
mod slow_http;
mod slow_reader;
mod state;
mod stop;
mod strace;
mod subscribe;
mod throttled;
mod tls;
