//! Which events wait for their moment, folded from the events on `$scheduled`: a part of the ledger.

use std::collections::{BTreeMap, BTreeSet};

use tidings_proto::control::SCHEDULED_TOPIC;

use crate::log::projection::{Change, Entry};

/// The events that wait, by offset and by moment.
#[derive(Debug, Default)]
pub(in crate::broker) struct Pending {
    /// Offset of what was stored → when it is due, in milliseconds since the epoch.
    due: BTreeMap<u64, u64>,
    by_time: BTreeSet<(u64, u64)>,
    /// What has changed since the changes were taken last.
    changed: BTreeSet<u64>,
}

impl Pending {
    /// What was stored at this offset is due at this moment.
    pub(in crate::broker) fn add(&mut self, offset: u64, due_ms: u64) {
        self.insert(offset, due_ms);
        self.changed.insert(offset);
    }

    /// It waits no more.
    pub(in crate::broker) fn remove(&mut self, offset: u64) {
        if let Some(due_ms) = self.due.remove(&offset) {
            self.by_time.remove(&(due_ms, offset));
            self.changed.insert(offset);
        }
    }

    /// When what was stored at this offset is due, while it waits.
    pub(in crate::broker) fn due_ms(&self, offset: u64) -> Option<u64> {
        self.due.get(&offset).copied()
    }

    /// How many wait.
    pub(in crate::broker) fn count(&self) -> usize {
        self.due.len()
    }

    /// All that wait, those that are due first before the others: when each is due, and its offset.
    pub(in crate::broker) fn by_time(&self) -> impl Iterator<Item = (u64, u64)> {
        self.by_time.iter().copied()
    }

    /// What has changed since the last call.
    pub(in crate::broker) fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed);
        let change = |offset: u64| {
            let due_ms = self.due.get(&offset);
            (key(offset), due_ms.and_then(|due_ms| serde_json::to_vec(due_ms).ok()))
        };
        changed.into_iter().map(change).collect()
    }

    /// All of it, to be stored.
    pub(in crate::broker) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.due
            .iter()
            .filter_map(|(offset, due_ms)| Some((key(*offset), serde_json::to_vec(due_ms).ok()?)))
    }

    /// Takes in an entry of [`Pending::entries`]; false where the key is of something else.
    ///
    /// # Errors
    /// What does not parse.
    pub(in crate::broker) fn restore(
        &mut self,
        key: &[u8],
        value: &[u8],
    ) -> Result<bool, serde_json::Error> {
        let of_ours =
            std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(SCHEDULED_TOPIC));
        let Some(offset) = of_ours.and_then(|rest| rest.trim_start().parse().ok()) else {
            return Ok(false);
        };
        self.insert(offset, serde_json::from_slice(value)?);
        Ok(true)
    }

    fn insert(&mut self, offset: u64, due_ms: u64) {
        if let Some(before) = self.due.insert(offset, due_ms) {
            self.by_time.remove(&(before, offset));
        }
        self.by_time.insert((due_ms, offset));
    }
}

/// No durable's name begins with `$`, no topic of presence with this.
fn key(offset: u64) -> Vec<u8> {
    format!("{SCHEDULED_TOPIC} {offset}").into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// What a checkpoint makes of the changes, one after the other.
    fn store(stored: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: Vec<Change>) {
        for (key, value) in changes {
            match value {
                Some(value) => stored.insert(key, value),
                None => stored.remove(&key),
            };
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map_that_survives_its_checkpoint(
            steps in vec((1_u64..40, proptest::option::of(0_u64..20), any::<bool>()), 0..200)
        ) {
            let (mut pending, mut model) = (Pending::default(), BTreeMap::new());
            let mut stored = BTreeMap::new();
            for (offset, due_ms, is_saved) in steps {
                match due_ms {
                    Some(due_ms) => {
                        pending.add(offset, due_ms);
                        model.insert(offset, due_ms);
                    }
                    None => {
                        pending.remove(offset);
                        model.remove(&offset);
                    }
                }
                if is_saved {
                    store(&mut stored, pending.take_changes());
                }
                let mut by_time: Vec<(u64, u64)> =
                    model.iter().map(|(offset, due_ms)| (*due_ms, *offset)).collect();
                by_time.sort_unstable();
                prop_assert_eq!(pending.by_time().collect::<Vec<_>>(), by_time);
                prop_assert_eq!(pending.count(), model.len());
            }
            store(&mut stored, pending.take_changes());
            let entries: BTreeMap<Vec<u8>, Vec<u8>> = pending.entries().collect();
            prop_assert_eq!(&stored, &entries);
            let mut restored = Pending::default();
            for (key, value) in &stored {
                prop_assert!(restored.restore(key, value).unwrap());
            }
            prop_assert_eq!(restored.due, model);
        }
    }

    #[test]
    fn other_entries_are_left_alone() {
        let mut pending = Pending::default();
        for key in ["inbox", "$last_number", "$presence.a 1", "$scheduled", "$scheduled x"] {
            assert!(!pending.restore(key.as_bytes(), b"1").unwrap(), "{key}");
        }
        assert!(pending.restore(b"$scheduled 1", b"soon").is_err());
        assert_eq!(pending.count(), 0);
    }
}
