//! What holds for any input: one function a target, called by libFuzzer (`fuzz_targets/`) with what it makes, and by
//! `tests/corpus.rs` with what it found worth keeping (`corpus/`).
//!
//! - A function panics where something does not hold. All of them: no input panics, or takes more memory than it may.
//! - They call what is public. Where a checksum or a signature would turn every change away, it is made anew.

mod door;
mod proto;
mod rooms;
mod storage;

pub use self::{
    door::Handshakes,
    proto::{acks, bodies, cloudevents, deflate, filter, json, msgpack, position, protobuf},
    rooms::{config, frames, token},
    storage::records,
};

/// A name, and what it is about.
pub type Target = (&'static str, fn(&[u8]));

/// The targets but `handshake`, which has a broker behind it: see [`Handshakes`].
pub const TARGETS: &[Target] = &[
    ("acks", acks),
    ("bodies", bodies),
    ("cloudevents", cloudevents),
    ("config", config),
    ("deflate", deflate),
    ("filter", filter),
    ("frames", frames),
    ("json", json),
    ("msgpack", msgpack),
    ("position", position),
    ("protobuf", protobuf),
    ("records", records),
    ("token", token),
];
