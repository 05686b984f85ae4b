//! The store without a disk.
//!
//! - Clones share what they hold, so that a test can open it again.
//! - A forgetful one holds nothing: the next start replays the log.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tidings_proto::Cursor;

use super::{Change, Checkpoint, ProjectionError, Store};

/// A [`Store`] in memory: for tests, and where the disk cannot be used.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    held: Arc<Mutex<Held>>,
    forgetful: bool,
}

#[derive(Debug, Default)]
struct Held {
    applied: Cursor,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// One that keeps nothing: what stands in for the disk when that cannot be used, without
    /// holding the state a second time.
    pub fn forgetful() -> MemoryStore {
        MemoryStore { forgetful: true, ..MemoryStore::default() }
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Checkpoint, ProjectionError> {
        let held = self.held.lock();
        let entries = held.entries.iter().map(|(key, value)| (key.clone(), value.clone()));
        Ok(Checkpoint { applied: held.applied, entries: entries.collect() })
    }

    fn save(&mut self, applied: Cursor, changes: &[Change]) -> Result<(), ProjectionError> {
        if self.forgetful {
            return Ok(());
        }
        let mut held = self.held.lock();
        held.applied = applied;
        for (key, value) in changes {
            match value {
                Some(value) => held.entries.insert(key.clone(), value.clone()),
                None => held.entries.remove(key),
            };
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<(), ProjectionError> {
        *self.held.lock() = Held::default();
        Ok(())
    }
}
