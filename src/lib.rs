//! tidings: a persistent, event-sourced notification broker.
//!
//! The log is the truth, everything else is a projection of it. A subscription is a cursor, and delivery
//! is a read. Two verbs at the bottom, *append* and *read*, and one thing that moves: the cursor.
//!
//! ```text
//! socket ─▶ net ─▶ session ─▶ broker ─▶ log ─▶ storage         publish: bytes → message → rights → append
//!    ▲       │        │          │        │
//!    └───────┴────────┴── read ◀─┴─ wake ◀┴─ committed          delivery: commit → wake → read after cursor → socket
//! ```
//!
//! Imports go down only; `tests/architecture.rs` holds the floors. `docs/architecture.md` walks through them.

pub mod auth;
pub mod broker;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod log;
pub mod metrics;
pub mod net;
pub mod server;
pub mod session;
