//! The embedded log of tidings: one writer, any number of readers, no runtime and no clock.
//!
//! Constraints, as numbers:
//! - offsets are 1 to 2^53 − 1, dense but for holes that a `$log.lost` record names, never reused;
//! - a batch has 1 to 65,536 records and is there whole or not at all; a record has 128 MiB at most;
//! - a segment file has 64 KiB to 1 GiB (128 MiB unless said), and more only for one batch that needs it;
//! - in memory: 8 bytes an event of the active segment, about 140 a topic, 2.3 a publish id, nothing for
//!   other events;
//! - a commit is one write and one `fdatasync`, of one file;
//! - every checksum is CRC-32C, seeded with where its bytes belong, and checked at every read.
//!
//! [`Log`] appends, [`Reader`] reads, [`Log::open`] recovers (`recovery`), [`verify()`] and [`dump`] look from outside.
//! `FORMAT.md` gives the files byte by byte.

mod active;
mod batch;
mod catalog;
mod chore;
mod disk;
mod error;
mod index;
mod log;
mod manifest;
pub mod projection;
mod reader;
mod record;
mod recovery;
mod scan;
mod segment;
pub mod sim;
mod trimmer;
mod trims;
mod verify;

pub use self::{
    batch::BATCH_RECORDS_MAX,
    catalog::TopicInfo,
    chore::Chore,
    disk::{Disk, File, OsDisk, free_bytes, total_bytes},
    error::Error,
    log::{Log, Opened, Options},
    reader::{Behind, Reader, ScanLimit},
    record::{Flags, NewRecord, Record},
    recovery::Recovery,
    sim::SimDisk,
    trimmer::{Asked, Fate, Removed, Sealed, Seen, Trimmer},
    trims::Why,
    verify::{Finding, Verified, dump, verify},
};
