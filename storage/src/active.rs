//! The index of the active segment, in memory: where each record stands, and chains by topic.
//!
//! - 8 bytes an event: its position and marks, and the one before it on the same topic.
//! - Written once a batch by the one writer; readers look only up to their watermark.
//! - At seal it becomes an index file; until that is written it serves the sealed segment too.

use std::collections::HashMap;

use tidings_proto::Topic;

use crate::{index::key_hash, record::Flags};

/// A time is noted every so many events.
pub(crate) const TIME_EVERY: u32 = 4096;
const POSITION_BITS: u32 = 28;
const POSITION_MASK: u32 = (1 << POSITION_BITS) - 1;

/// Where a record stands in its segment, with its marks; 0 is a hole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) u32);

impl Slot {
    fn new(position: u64, flags: Flags) -> Slot {
        let eighth = u32::try_from(position / 8).unwrap_or(POSITION_MASK) & POSITION_MASK;
        Slot(eighth | flags.table_bits() << POSITION_BITS)
    }

    /// The byte in the file; `None` for an offset that holds no record.
    pub(crate) fn position(self) -> Option<u64> {
        let position = u64::from(self.0 & POSITION_MASK) * 8;
        (position > 0).then_some(position)
    }
}

impl Slot {
    /// The priority among its marks, 0 to 3.
    pub(crate) fn priority(self) -> u8 {
        u8::try_from(self.0 >> POSITION_BITS & 3).unwrap_or(0)
    }

    /// Whether its publisher wishes for receipts.
    pub(crate) fn receipts(self) -> bool {
        self.0 >> POSITION_BITS & 4 != 0
    }
}

/// The largest position a slot can hold.
pub(crate) const POSITION_MAX: u64 = POSITION_MASK as u64 * 8;

/// What of a record is looked up by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) topic: &'a str,
    pub(crate) key: &'a [u8],
    pub(crate) flags: Flags,
    pub(crate) dedupe: Option<u64>,
}

/// The index of a segment in memory.
#[derive(Debug, Default)]
pub(crate) struct Active {
    /// By rel.
    pub(crate) slots: Vec<Slot>,
    /// By rel: the record before on the same topic as rel + 1, or 0.
    previous: Vec<u32>,
    pub(crate) topics: HashMap<Topic, Chain>,
    /// (rel, time) of every [`TIME_EVERY`]th record.
    pub(crate) times: Vec<(u32, u64)>,
    dedupe: HashMap<u64, u32>,
    /// Hashes that were there already: two ids with one hash.
    dedupe_more: Vec<(u64, u32)>,
    /// [`key_hash`] of topic and key → the newest record that has it. Only a hint: the record says for certain.
    keys: HashMap<u64, u32>,
    /// Records, without holes.
    pub(crate) records: u32,
}

/// A topic's records in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) count: u32,
}

impl Active {
    /// Adds the record at `rel`, which is above all that were added before.
    pub(crate) fn push(&mut self, rel: u32, position: u64, time_ms: u64, entry: Entry<'_>) {
        let Entry { topic, key, flags, dedupe } = entry;
        let index = usize::try_from(rel).unwrap_or(usize::MAX);
        self.slots.resize(index, Slot::default());
        self.previous.resize(index, 0);
        self.slots.push(Slot::new(position, flags));
        let before = match self.topics.get_mut(topic) {
            Some(chain) => {
                let before = chain.last + 1;
                (chain.last, chain.count) = (rel, chain.count + 1);
                before
            }
            None => {
                self.topics
                    .insert(Topic::of_record(topic), Chain { first: rel, last: rel, count: 1 });
                0
            }
        };
        self.previous.push(before);
        if self.times.last().is_none_or(|(noted, _)| rel >= noted + TIME_EVERY) {
            self.times.push((rel, time_ms));
        }
        if let Some(hash) = dedupe
            && let Some(older) = self.dedupe.insert(hash, rel)
        {
            self.dedupe_more.push((hash, older));
        }
        if !key.is_empty() {
            self.keys.insert(key_hash(topic, key), rel);
        }
        self.records += 1;
    }

    pub(crate) fn slot(&self, rel: u32) -> Slot {
        usize::try_from(rel).ok().and_then(|rel| self.slots.get(rel)).copied().unwrap_or_default()
    }

    /// Up to `count` slots from `from` on; fewer at the end.
    pub(crate) fn slots(&self, from: u32, count: u32) -> Vec<Slot> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let slots = self.slots.get(from..).unwrap_or_default();
        slots.iter().take(usize::try_from(count).unwrap_or(usize::MAX)).copied().collect()
    }

    /// The first record in `from..=to`, and where it stands.
    pub(crate) fn next_slot(&self, from: u32, to: u32) -> Option<(u32, u64)> {
        let (start, end) = (usize::try_from(from).ok()?, usize::try_from(to).ok()?);
        let end = end.saturating_add(1).min(self.slots.len());
        let slots = self.slots.get(start..end)?;
        slots.iter().zip(from..).find_map(|(slot, rel)| Some((rel, slot.position()?)))
    }

    /// The last record.
    pub(crate) fn last_rel(&self) -> Option<u32> {
        let last = self.slots.iter().rposition(|slot| slot.position().is_some())?;
        u32::try_from(last).ok()
    }

    /// How many offsets it spans, holes included.
    pub(crate) fn span(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// How many records a topic has from `from` on, and the first of them. Where that takes more than `steps`
    /// it is as many as there can be, without the first, and false.
    pub(crate) fn count_from(
        &self,
        topic: &str,
        from: u32,
        steps: usize,
    ) -> (u32, Option<u32>, bool) {
        let Some(chain) = self.topics.get(topic) else { return (0, None, true) };
        if chain.first >= from {
            return (chain.count, Some(chain.first), true);
        }
        let (mut count, mut first, mut next) = (0, None, chain.last + 1);
        while let Some(rel) = next.checked_sub(1).filter(|rel| *rel >= from) {
            (count, first) = (count + 1, Some(rel));
            if usize::try_from(count).unwrap_or(usize::MAX) > steps {
                return (chain.count.min(chain.last - from + 1), None, false);
            }
            let previous = usize::try_from(rel).ok().and_then(|rel| self.previous.get(rel));
            next = previous.copied().unwrap_or(0);
        }
        (count, first, true)
    }

    /// A topic's records in `from..=to`, rising.
    pub(crate) fn postings(&self, topic: &str, from: u32, to: u32) -> Vec<u32> {
        let mut found = Vec::new();
        let mut next = self.topics.get(topic).map_or(0, |chain| chain.last + 1);
        while let Some(rel) = next.checked_sub(1).filter(|rel| *rel >= from) {
            if rel <= to {
                found.push(rel);
            }
            next = usize::try_from(rel)
                .ok()
                .and_then(|rel| self.previous.get(rel))
                .copied()
                .unwrap_or(0);
        }
        found.reverse();
        found
    }

    /// Up to `limit` of a topic's records below `below`, falling. `below` is one of them, or above them all.
    pub(crate) fn postings_back(&self, topic: &str, below: u32, limit: usize) -> Vec<u32> {
        let before = |rel: u32| usize::try_from(rel).ok().and_then(|rel| self.previous.get(rel));
        let first = match before(below) {
            Some(previous) => previous.checked_sub(1),
            None => self.topics.get(topic).map(|chain| chain.last),
        };
        let next = |rel: &u32| before(*rel).and_then(|previous| previous.checked_sub(1));
        std::iter::successors(first, next).take(limit).collect()
    }

    /// Records with this hash, newest first.
    pub(crate) fn find_dedupe(&self, hash: u64) -> Vec<u32> {
        let mut found: Vec<u32> = self.dedupe.get(&hash).copied().into_iter().collect();
        found.extend(
            self.dedupe_more.iter().rev().filter(|(other, _)| *other == hash).map(|(_, rel)| *rel),
        );
        found
    }

    /// The newest record with this [`key_hash`].
    pub(crate) fn find_key(&self, hash: u64) -> Option<u32> {
        self.keys.get(&hash).copied()
    }

    /// All key hashes with their newest records, by hash.
    pub(crate) fn keys_sorted(&self) -> Vec<(u64, u32)> {
        let mut all: Vec<_> = self.keys.iter().map(|(hash, rel)| (*hash, *rel)).collect();
        all.sort_unstable();
        all
    }

    /// All hashes with their records, by hash.
    pub(crate) fn dedupe_sorted(&self) -> Vec<(u64, u32)> {
        let mut all: Vec<_> = self.dedupe.iter().map(|(hash, rel)| (*hash, *rel)).collect();
        all.extend(&self.dedupe_more);
        all.sort_unstable();
        all
    }
}
