//! Drives a projection: restore, replay, apply, checkpoint.
//!
//! - After `open` the state is that of all records up to the log's watermark, whatever was stored.
//! - A record is applied once: those at or below `applied` are skipped.
//! - The cursor saved with a state is never below a record that is in it, or a replay would apply
//!   that record twice.
//! - Changes are kept until a save has succeeded. When they grow above [`PENDING_BYTES_MAX`], or
//!   after the second failure, they are dropped instead and the store is started anew and filled
//!   with all entries; then after 4, 8, 16 … failures again.

use std::collections::BTreeMap;

use tidings_proto::{Cursor, Filters};

use super::{Change, Projection, ProjectionError, Store, guard::caught};
use crate::{Reader, Record, ScanLimit};

/// The most bytes of changes kept for a later attempt to save them.
const PENDING_BYTES_MAX: usize = 64 << 20;
/// How much of the log one step of the replay looks at.
const REPLAY_STEP: ScanLimit = ScanLimit { events: 65_536, bytes: 16 << 20 };

/// How a runner came to its state.
#[derive(Debug, Default)]
pub struct Restored {
    /// How far the stored state went; the start when it was folded anew.
    pub from: Cursor,
    /// How many records were replayed after that.
    pub replayed: u64,
    /// Why what was stored could not be taken back, if it could not.
    pub failed: Option<ProjectionError>,
}

/// A projection with its store.
pub struct Runner<P> {
    projection: P,
    /// Away while a [`Save`] is under way.
    store: Option<Box<dyn Store>>,
    applied: Cursor,
    saved: Cursor,
    pending: Pending,
    failures: u32,
    restored: Restored,
}

impl<P: Projection> Runner<P> {
    /// Restores `projection` from `store`, then replays what matches `topics` in the rest of the
    /// log. Whatever is wrong with the store leads to a replay from the start.
    ///
    /// # Errors
    /// When the log cannot be read: without it there is no state to be trusted.
    pub fn open(
        mut projection: P,
        mut store: Box<dyn Store>,
        reader: &Reader,
        topics: &Filters,
    ) -> Result<Runner<P>, ProjectionError> {
        let until = reader.last();
        let mut restored = Restored::default();
        let mut pending = Pending::default();
        match restore(&mut projection, &mut *store, until) {
            Ok(from) => restored.from = from,
            Err(error) => {
                projection.reset();
                // What the store still holds must not be mixed with what comes now.
                pending.whole = store.clear().is_err();
                restored.failed = Some(error);
            }
        }
        let saved = restored.from;
        let mut runner = Runner {
            projection,
            store: Some(store),
            applied: saved,
            saved,
            pending,
            failures: 0,
            restored,
        };
        runner.replay(reader, topics, until)?;
        Ok(runner)
    }

    fn replay(
        &mut self,
        reader: &Reader,
        topics: &Filters,
        until: Cursor,
    ) -> Result<(), ProjectionError> {
        let mut at = self.applied;
        while at < until {
            let reached = reader.scan(at, until, Some(topics), REPLAY_STEP, &mut |record| {
                self.restored.replayed += u64::from(self.apply(&record));
            })?;
            if reached <= at {
                return Err(ProjectionError::Stuck(at));
            }
            at = reached;
            // The changes of a long replay are held here, where they have a bound.
            self.pending.add(self.projection.take_changes());
        }
        self.applied = self.applied.max(until);
        Ok(())
    }

    /// Folds one record in. Whether it was new.
    pub fn apply(&mut self, record: &Record) -> bool {
        let new = !self.applied.covers(record.offset);
        if new {
            self.projection.apply(record);
            self.applied = record.offset.cursor();
        }
        new
    }

    /// The state.
    pub fn projection(&self) -> &P {
        &self.projection
    }

    /// The state, to be asked for what changes it inside; what it holds changes by records only.
    pub fn projection_mut(&mut self) -> &mut P {
        &mut self.projection
    }

    /// All matching records up to here are in the state.
    pub fn applied(&self) -> Cursor {
        self.applied
    }

    /// The state as of here is in the store.
    pub fn saved(&self) -> Cursor {
        self.saved
    }

    /// How many times in a row saving failed or was put off after a failure.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// How the state came about.
    pub fn restored(&self) -> &Restored {
        &self.restored
    }

    /// Saves the state here and now; all matching records up to `upto` must have been applied.
    ///
    /// # Errors
    /// When it failed: nothing is lost, the next one tries again.
    pub fn checkpoint(&mut self, upto: Cursor) -> Result<(), ProjectionError> {
        match self.begin(upto) {
            Some(save) => self.finish(save.run()),
            None => Ok(()),
        }
    }

    /// The first part of [`Runner::checkpoint`], short: what is to be saved. [`Save::run`] does the
    /// long part on whatever thread, while records go on to be applied; hand its result to
    /// [`Runner::finish`]. `None` when there is nothing to save, a save is under way, or it is too
    /// early to try again.
    pub fn begin(&mut self, upto: Cursor) -> Option<Save> {
        self.applied = self.applied.max(upto);
        self.pending.add(self.projection.take_changes());
        let nothing = self.pending.is_empty() && self.applied == self.saved;
        if nothing || self.store.is_none() {
            return None;
        }
        if self.failures > 2 && !self.failures.is_power_of_two() {
            self.failures = self.failures.saturating_add(1);
            return None;
        }
        let store = self.store.take()?;
        let anew = self.pending.whole || self.failures >= 2;
        let pending = std::mem::take(&mut self.pending);
        let changes = match anew {
            true => self
                .projection
                .entries()
                .into_iter()
                .map(|(key, value)| (key, Some(value)))
                .collect(),
            false => pending.changes.into_iter().collect(),
        };
        Some(Save { store, applied: self.applied, changes, anew })
    }

    /// Takes in how a save went.
    ///
    /// # Errors
    /// When it failed: its changes are kept for the next one.
    pub fn finish(&mut self, saved: Saved) -> Result<(), ProjectionError> {
        let Saved { save, outcome } = saved;
        self.store = Some(save.store);
        match &outcome {
            Ok(()) => {
                self.saved = save.applied;
                self.failures = 0;
            }
            Err(_) => {
                self.failures = self.failures.saturating_add(1);
                // A store that was to be cleared may be empty by now.
                self.pending.whole |= save.anew;
                self.pending.add_older(save.changes);
            }
        }
        outcome
    }
}

/// A checkpoint to be saved. Must come back by way of [`Runner::finish`]; if it is dropped instead,
/// nothing is saved any more, and the next start replays more.
#[must_use = "run it, then hand the result to Runner::finish"]
pub struct Save {
    store: Box<dyn Store>,
    applied: Cursor,
    changes: Vec<Change>,
    /// The changes are all entries, for a store to be cleared first.
    anew: bool,
}

impl Save {
    /// Saves; takes as long as the disk does. Does not panic.
    pub fn run(mut self) -> Saved {
        let outcome = caught(|| {
            if self.anew {
                self.store.clear()?;
            }
            self.store.save(self.applied, &self.changes)
        });
        let outcome = outcome.map_err(ProjectionError::from).flatten();
        Saved { save: self, outcome }
    }
}

/// A save that was run.
#[must_use = "hand it to Runner::finish"]
pub struct Saved {
    save: Save,
    outcome: Result<(), ProjectionError>,
}

/// Changes that are not saved yet.
#[derive(Default)]
struct Pending {
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
    /// There are more than are kept here: only all entries will do.
    whole: bool,
}

impl Pending {
    fn add(&mut self, changes: Vec<Change>) {
        for (key, value) in changes {
            self.put(key, value);
        }
    }

    /// Adds changes from before those that are here.
    fn add_older(&mut self, changes: Vec<Change>) {
        for (key, value) in changes {
            if !self.changes.contains_key(&key) {
                self.put(key, value);
            }
        }
    }

    fn put(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        if self.whole {
            return;
        }
        let (key_bytes, value_bytes) = (key.len(), value.as_ref().map_or(0, Vec::len));
        self.bytes += value_bytes;
        match self.changes.insert(key, value) {
            Some(old) => self.bytes -= old.map_or(0, |old| old.len()),
            None => self.bytes += key_bytes,
        }
        if self.bytes > PENDING_BYTES_MAX {
            *self = Pending { whole: true, ..Pending::default() };
        }
    }

    fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.whole
    }
}

fn restore<P: Projection>(
    projection: &mut P,
    store: &mut dyn Store,
    until: Cursor,
) -> Result<Cursor, ProjectionError> {
    let checkpoint = store.load()?;
    if checkpoint.applied > until {
        return Err(ProjectionError::Entry(format!(
            "it is as of offset {}, the log ends at {until}",
            checkpoint.applied
        )));
    }
    for (key, value) in checkpoint.entries {
        projection.restore(&key, &value)?;
    }
    Ok(checkpoint.applied)
}
