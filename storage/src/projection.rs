//! State folded from the log that outlives a restart, and may be thrown away at any time.
//!
//! - The log is the only truth. Deleting, damaging or replacing what a projection has stored costs
//!   a replay, never an answer: on any doubt the store is put aside and the state folded anew.
//! - What is stored is "the state as of the cursor W"; W is written with it in one atomic batch,
//!   together with the log's id, the schema version, and a digest over all entries.
//! - A store that fails, panics or hangs takes nobody with it: the state is in memory, the changes
//!   are kept until they are saved, and after repeated failure the store is started anew.
//! - Not on the publish path: saving happens about every 10 s, off the writer's thread.
//!
//! [`Projection`] is what folds, [`Runner`] drives it, [`Store`] is where it is kept: [`SledStore`]
//! on disk, [`MemoryStore`] in tests and where the disk cannot be used.

mod guard;
mod memory;
mod place;
mod runner;
mod sled_store;

use std::{io, path::PathBuf};

use tidings_proto::{Cursor, LogId};

pub use self::{
    memory::MemoryStore,
    runner::{Restored, Runner, Save, Saved},
    sled_store::{Opened, SledOptions, SledStore},
};

/// The most bytes one key or one value may have.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// A key with its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// A key with its new value, or `None` where it is gone.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// State folded from records. Same records, same state: `apply` looks at nothing else.
pub trait Projection: Send {
    /// Names its files: one to 32 of `a–z 0–9 _`.
    const NAME: &'static str;
    /// The version of its entries. Another version on disk is put aside and folded anew.
    const VERSION: u32;

    /// Takes back one entry as [`Projection::take_changes`] once gave it, in any order.
    /// That is no change.
    ///
    /// # Errors
    /// [`ProjectionError::Entry`] when it cannot be read: all is then folded anew.
    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), ProjectionError>;

    /// Folds one record in. Records come in the order of their offsets, each once.
    fn apply(&mut self, record: &crate::Record);

    /// What is new since it was asked last, each key once. Keys and values have
    /// [`ENTRY_BYTES_MAX`] bytes at most.
    fn take_changes(&mut self) -> Vec<Change>;

    /// All entries: what an empty store is filled with. Leaves the changes as they are.
    fn entries(&self) -> Vec<Entry>;

    /// Becomes what it was before the first record.
    fn reset(&mut self);
}

/// What a store holds: the entries as of `applied`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// All records up to here are in.
    pub applied: Cursor,
    /// Every entry, by key.
    pub entries: Vec<Entry>,
}

/// What a projection remembers between starts.
pub trait Store: Send {
    /// What was saved last.
    ///
    /// # Errors
    /// When it cannot be had; [`Store::clear`] and a replay are the way on.
    fn load(&mut self) -> Result<Checkpoint, ProjectionError>;

    /// Makes `changes` and `applied` durable together, or neither. Of two changes of one key the
    /// later one counts.
    ///
    /// # Errors
    /// When that failed; it may be tried again, with at least the same changes.
    fn save(&mut self, applied: Cursor, changes: &[Change]) -> Result<(), ProjectionError>;

    /// Starts anew, empty.
    ///
    /// # Errors
    /// When that failed; it may be tried again.
    fn clear(&mut self) -> Result<(), ProjectionError>;
}

/// Why what was on disk is not used. Each costs a replay of the log and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildReason {
    /// There was nothing: the first start, or it was deleted.
    #[error("nothing was stored")]
    Absent,
    /// Only other versions were there.
    #[error("it was stored by another version, in {0}")]
    OtherVersion(String),
    /// The process ended while opening it the last time.
    #[error("the last start ended while opening it")]
    DiedOpening,
    /// The files are not what was left at the last clean stop.
    #[error("its files changed after the last clean stop")]
    Changed,
    /// The store answered with an error.
    #[error("it cannot be opened: {0}")]
    Failed(String),
    /// The store panicked.
    #[error("opening it panicked: {0}")]
    Panicked(String),
    /// The store did not come back in time.
    #[error("opening it took longer than {0} ms")]
    TimedOut(u64),
    /// There is no checkpoint in it.
    #[error("it has no checkpoint")]
    NoCheckpoint,
    /// It knows of records that the log does not have.
    #[error("it is at offset {stored}, the log ends at {durable}")]
    AheadOfLog {
        /// The cursor in the store.
        stored: Cursor,
        /// Where the log durably ends.
        durable: Cursor,
    },
    /// It was folded from another log.
    #[error("it belongs to the log {0}")]
    ForeignLog(LogId),
    /// Its entries are of another version.
    #[error("its entries are of version {0}")]
    WrongSchema(u32),
    /// An entry's checksum or form is wrong.
    #[error("an entry is damaged")]
    DamagedEntry,
    /// The entries, each of them sound, are not those of the checkpoint.
    #[error("its entries are not those of its checkpoint")]
    WrongDigest,
}

/// What goes wrong with a projection. None of it loses anything: the log has it all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// The log could not be read.
    #[error("the log cannot be read for a projection: {0}")]
    Log(#[from] crate::Error),
    /// The log's scan came to a halt.
    #[error("the log's scan stands still behind offset {0}: run `tidings log verify`")]
    Stuck(Cursor),
    /// An entry that the projection cannot read, in its words.
    #[error("an entry of a projection cannot be read: {0}")]
    Entry(String),
    /// A key or value above the limit.
    #[error("a projection's entry has {0} bytes, {ENTRY_BYTES_MAX} is the most for key and value")]
    TooLarge(usize),
    /// No name for a projection.
    #[error("\"{0}\" is no name for a projection: use 1 to 32 of a–z 0–9 _")]
    Name(String),
    /// A directory or file could not be made, read or moved.
    #[error("{path}: {source}: check space and permissions; it may be deleted, the log has it all")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// sled answered with an error.
    #[error("sled failed to {action}: {source}; tried again at the next checkpoint")]
    Sled {
        /// What was asked of it.
        action: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The store panicked.
    #[error("the store of a projection panicked: {0}; tried again at the next checkpoint")]
    Panicked(String),
    /// The store did not come back in time.
    #[error("the store of a projection did not answer within {0} ms; tried again with a new one")]
    TimedOut(u64),
    /// An earlier failure left the store unusable.
    #[error("the store of a projection is out of use after an earlier failure, until started anew")]
    Broken,
    /// Failed too often in this process.
    #[error("the store of a projection failed {0} times: it is not used until the next start")]
    GaveUp(u32),
}
