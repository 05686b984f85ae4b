//! The keys of outstanding events, where those of one key must not be with two sessions at a time.
//!
//! An event is *free* for a session when no event of its key is with another session and none that is older
//! waits. What is not free is *parked*: it is looked at again whenever something of its key is taken, comes
//! back or is settled. So nothing is searched for, and no timer is needed.

use std::collections::{BTreeMap, BTreeSet};

use super::super::held::Token;

/// The keys of the outstanding events; empty where nothing is partitioned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    /// Offset to key.
    of: BTreeMap<u64, u64>,
    keys: BTreeMap<u64, Key>,
}

/// The outstanding events of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Key {
    /// Who has those that are in flight.
    owner: Token,
    in_flight: usize,
    /// Those that are not.
    waiting: BTreeSet<u64>,
    /// Those of them that nobody asks for until something changes.
    parked: BTreeSet<u64>,
}

impl Keys {
    /// An event that is about to be outstanding has this key.
    pub(super) fn note(&mut self, offset: u64, key: u64) {
        if self.of.insert(offset, key).is_none() {
            self.keys.entry(key).or_default().waiting.insert(offset);
        }
    }

    /// Whether this session may have it.
    pub(super) fn is_free(&self, offset: u64, session: Token) -> bool {
        self.key(offset).is_none_or(|key| {
            let is_elsewhere = key.in_flight > 0 && key.owner != session;
            !is_elsewhere && key.waiting.first().is_none_or(|oldest| *oldest >= offset)
        })
    }

    /// It is not free: it is put aside.
    pub(super) fn park(&mut self, offset: u64) {
        if let Some(key) = self.of.get(&offset).and_then(|key| self.keys.get_mut(key)) {
            key.parked.insert(offset);
        }
    }

    /// It is not asked for before a moment that is known.
    pub(super) fn unpark(&mut self, offset: u64) {
        if let Some(key) = self.of.get(&offset).and_then(|key| self.keys.get_mut(key)) {
            key.parked.remove(&offset);
        }
    }

    /// The session has it. Gives what of its key is to be looked at again, as do the following.
    pub(super) fn taken(&mut self, offset: u64, session: Token) -> BTreeSet<u64> {
        let Some(key) = self.of.get(&offset).and_then(|key| self.keys.get_mut(key)) else {
            return BTreeSet::new();
        };
        key.owner = session;
        key.in_flight += usize::from(key.waiting.remove(&offset));
        key.parked.remove(&offset);
        std::mem::take(&mut key.parked)
    }

    /// The session has it no longer, and it is not settled.
    pub(super) fn back(&mut self, offset: u64) -> BTreeSet<u64> {
        let Some(key) = self.of.get(&offset).and_then(|key| self.keys.get_mut(key)) else {
            return BTreeSet::new();
        };
        if key.waiting.insert(offset) {
            key.in_flight = key.in_flight.saturating_sub(1);
        }
        std::mem::take(&mut key.parked)
    }

    /// It is outstanding no longer.
    pub(super) fn settled(&mut self, offset: u64) -> BTreeSet<u64> {
        let Some(name) = self.of.remove(&offset) else { return BTreeSet::new() };
        let Some(key) = self.keys.get_mut(&name) else { return BTreeSet::new() };
        if !key.waiting.remove(&offset) {
            key.in_flight = key.in_flight.saturating_sub(1);
        }
        key.parked.remove(&offset);
        let parked = std::mem::take(&mut key.parked);
        if key.in_flight == 0 && key.waiting.is_empty() {
            self.keys.remove(&name);
        }
        parked
    }

    fn key(&self, offset: u64) -> Option<&Key> {
        self.of.get(&offset).and_then(|key| self.keys.get(key))
    }
}

impl super::DurableState {
    /// Events that are about to be delivered for the first time have these keys: offset and key.
    pub fn note_keys(&mut self, keys: impl Iterator<Item = (u64, u64)>) {
        for (offset, key) in keys {
            if offset > self.cursor && !self.acked.contains(offset) {
                self.keys.note(offset, key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
