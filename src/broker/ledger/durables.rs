//! All durables there are, packed: most of them nobody uses, and a million of them are to cost little.
//!
//! - How they were made stands in blocks of a few KB, sorted by name, see [`block`](super::block); they are unpacked
//!   when somebody asks for one. A block that grows too large is split, one that has become small joins the next.
//! - How far they are acknowledged stands in [`Slots`], by number.
//! - The checkpoint has the blocks and the pages of the slots as they are here.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{
        Bound::{Excluded, Included, Unbounded},
        ControlFlow,
    },
    sync::Arc,
};

use tidings_proto::control::{AckState, DurableSpec};

use super::{
    LedgerEntry,
    block::{self, Walk},
    counts::{FilterCounts, Owners},
    line::{Line, Unreadable},
    slots::{Slots, key, of_key},
};
use crate::log::projection::{Change, Entry};

/// The most bytes of a block of more than one durable: about a hundred of them, gone through to find one. Half of it is
/// just below a size that the allocator has.
const BLOCK_BYTES_MAX: usize = 4000;
/// A block of fewer joins its neighbour where both together are small.
const BLOCK_BYTES_MIN: usize = 1024;
/// The most bytes that two blocks have as one: it takes many more until that is split again.
const JOINED_BYTES_MAX: usize = 3072;
const BLOCK_KEY: &[u8] = b"$durables";

/// All durables.
#[derive(Debug, Default)]
pub(super) struct Durables {
    /// The blocks by the first name in them.
    names: BTreeMap<Box<str>, u32>,
    blocks: BTreeMap<u32, Box<[u8]>>,
    last_block: u32,
    changed: BTreeSet<u32>,
    slots: Slots,
    count: usize,
    owners: Owners,
    filters: FilterCounts,
}

impl Durables {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many this subject has made.
    pub(super) fn count_of(&self, subject: &str) -> usize {
        self.owners.of(subject)
    }

    /// At most so many of them match this topic.
    pub(super) fn matching_at_most(&self, topic: &str) -> usize {
        self.filters.at_most(topic)
    }

    /// The durable of this name.
    pub(super) fn get(&self, name: &str) -> Option<LedgerEntry> {
        self.entry(&self.line(name)?)
    }

    /// Looks at them by name, after the name `after`, until `look` has enough.
    pub(super) fn walk(
        &self,
        after: Option<&str>,
        mut look: impl FnMut(&Line) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let after = after.unwrap_or_default();
        let first = self.names.range::<str, _>((Unbounded, Included(after))).next_back();
        let first = first.map_or("", |(name, _)| name);
        for (_, id) in self.names.range::<str, _>((Included(first), Unbounded)) {
            let Some(bytes) = self.blocks.get(id) else { continue };
            let mut walk = Walk::new(bytes);
            while let Some(line) = walk.step() {
                if line.name() > after {
                    look(line)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// What stands on this line, unpacked.
    pub(super) fn entry(&self, line: &Line) -> Option<LedgerEntry> {
        let spec = spec_of(line)?;
        let (acks, acked_at) = self.slots.acks(spec.number);
        let acks = AckState { name: spec.name.clone(), ..acks };
        Some(LedgerEntry {
            spec: Arc::new(spec),
            acks: Arc::new(acks),
            places: (line.made_at(), acked_at),
            paused_at: line.paused_at(),
        })
    }

    /// Where the newest event stands that says how far the durable of this line is acknowledged; 0 where none does.
    pub(super) fn acked_at(&self, line: &Line) -> u64 {
        self.slots.acked_at(line.number())
    }

    /// In how many bytes it is packed how far the durable of this line is acknowledged, beyond its floor.
    pub(super) fn acks_bytes(&self, line: &Line) -> usize {
        self.slots.more_bytes(line.number())
    }

    /// How up to `limit` of those were made that are forgotten when nobody uses them, by number, from this number on.
    pub(super) fn expiring(&self, from: u64, limit: usize) -> Vec<DurableSpec> {
        let numbers = self.slots.expiring(from).take(limit);
        numbers.filter_map(|number| spec_of(&self.line_of(number)?)).collect()
    }

    /// It was made so, or changed, by the event at `at`. Of a life that goes on all else stays.
    pub(super) fn put(&mut self, spec: &DurableSpec, at: u64) {
        let old = self.line(&spec.name);
        let same = old.as_ref().filter(|old| old.number() == spec.number);
        let line = Line::of(spec, at, same.map_or(0, Line::paused_at));
        if same.is_none() {
            self.slots.add(spec.number, spec.start);
        }
        if let Some(earlier) = old.as_ref().filter(|old| old.number() != spec.number) {
            self.slots.remove(earlier.number());
        }
        if let Some(old) = &old {
            self.uncount(old);
        }
        self.counted(&line);
        self.write(line.name(), Some(&line));
    }

    /// It is paused since the event at `paused_at`, or goes on where that is 0.
    pub(super) fn pause(&mut self, name: &str, number: u64, paused_at: u64) {
        let old = self.line(name).filter(|line| line.number() == number);
        if let Some(mut line) = old {
            line.set_paused_at(paused_at);
            self.write(name, Some(&line));
        }
    }

    /// It is forgotten.
    pub(super) fn remove(&mut self, name: &str, number: u64) {
        let old = self.line(name).filter(|line| line.number() == number);
        if let Some(old) = old {
            self.uncount(&old);
            self.slots.remove(number);
            self.write(name, None);
        }
    }

    /// It is acknowledged so far, as the event at `at` says. What is said of an earlier life of the name is passed
    /// over.
    pub(super) fn acknowledge(&mut self, state: AckState, at: u64) {
        self.slots.acknowledge(state, at);
    }

    fn counted(&mut self, line: &Line) {
        self.count += 1;
        self.owners.add(line.owner());
        line.filters().for_each(|filter| self.filters.add(filter));
    }

    fn uncount(&mut self, line: &Line) {
        self.count -= 1;
        self.owners.remove(line.owner());
        line.filters().for_each(|filter| self.filters.remove(filter));
    }

    fn line(&self, name: &str) -> Option<Line> {
        let (_, id) = self.block_of(name)?;
        let found = Walk::new(self.blocks.get(&id)?).find(|line| line.name() >= name)?;
        (found.name() == name).then_some(found)
    }

    fn line_of(&self, number: u64) -> Option<Line> {
        let bytes = self.blocks.get(&self.slots.block(number)?)?;
        Walk::new(bytes).find(|line| line.number() == number)
    }

    /// The block that has this name or would have it, and the first name in it.
    fn block_of(&self, name: &str) -> Option<(&str, u32)> {
        let before = self.names.range::<str, _>((Unbounded, Included(name))).next_back();
        let (first, id) = before.or_else(|| self.names.first_key_value())?;
        Some((first, *id))
    }

    /// Writes the line of this name, or takes it away.
    fn write(&mut self, name: &str, put: Option<&Line>) {
        let found = self.block_of(name).map(|(first, id)| (Box::<str>::from(first), id));
        let (first, id) = found.unwrap_or_else(|| (name.into(), self.new_block()));
        let old = self.blocks.get(&id).map(|bytes| &**bytes).unwrap_or_default();
        let bytes = block::splice(old, name, put);
        if let Some(line) = put {
            self.slots.stands(line.number(), id, line.expires());
        }
        if *first >= *name {
            // It is or was the first of the block.
            self.names.remove(&first);
            if let Some(first) = Walk::new(&bytes).step() {
                self.names.insert(first.name().into(), id);
            }
        }
        self.store(id, bytes);
        self.balance(id);
    }

    fn new_block(&mut self) -> u32 {
        loop {
            self.last_block = self.last_block.wrapping_add(1);
            if !self.blocks.contains_key(&self.last_block) && self.last_block != u32::MAX {
                return self.last_block;
            }
        }
    }

    fn store(&mut self, id: u32, bytes: Vec<u8>) {
        self.changed.insert(id);
        match bytes.is_empty() {
            true => drop(self.blocks.remove(&id)),
            false => drop(self.blocks.insert(id, bytes.into())),
        }
    }

    /// Splits a block as long as it is too large, or joins it with the next one where it is small.
    fn balance(&mut self, id: u32) {
        let Some(bytes) = self.blocks.get(&id) else { return };
        if bytes.len() > BLOCK_BYTES_MAX
            && let Some((left, right)) = block::split(bytes)
        {
            let new = self.new_block();
            if let Some(first) = Walk::new(&right).step() {
                self.names.insert(first.name().into(), new);
            }
            self.moved(&right, new);
            self.store(id, left);
            self.store(new, right);
            self.balance(id);
            self.balance(new);
        } else if bytes.len() < BLOCK_BYTES_MIN {
            self.join_next(id);
        }
    }

    fn join_next(&mut self, id: u32) {
        let Some(left) = self.blocks.get(&id) else { return };
        let Some(first) = Walk::new(left).step().map(|line| line.name().to_owned()) else { return };
        let next = self.names.range::<str, _>((Excluded(&*first), Unbounded)).next();
        let Some((name, next)) = next.map(|(name, id)| (name.clone(), *id)) else { return };
        let Some(right) = self.blocks.get(&next) else { return };
        if left.len() + right.len() <= JOINED_BYTES_MAX {
            let joined = block::join(left, right);
            self.names.remove(&name);
            self.moved(&joined, id);
            self.store(id, joined);
            self.store(next, Vec::new());
        }
    }

    /// These lines stand in this block now.
    fn moved(&mut self, bytes: &[u8], id: u32) {
        let mut walk = Walk::new(bytes);
        while let Some(line) = walk.step() {
            self.slots.stands(line.number(), id, line.expires());
        }
    }

    /// What has changed since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = self.slots.take_changes();
        for id in std::mem::take(&mut self.changed) {
            let bytes = self.blocks.get(&id).map(|bytes| bytes.to_vec());
            changes.push((key(BLOCK_KEY, id.into()), bytes));
        }
        changes
    }

    /// All of it, to be stored.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        let blocks = self.blocks.iter();
        let blocks = blocks.map(|(id, bytes)| (key(BLOCK_KEY, (*id).into()), bytes.to_vec()));
        self.slots.entries().chain(blocks)
    }

    /// Takes in an entry of [`Durables::entries`]; false where the key is of something else.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub(super) fn restore(&mut self, entry: &[u8], value: &[u8]) -> Result<bool, Unreadable> {
        let Some(id) = of_key(BLOCK_KEY, entry) else { return self.slots.restore(entry, value) };
        let id = u32::try_from(id).map_err(|_| Unreadable::Form)?;
        let mut first = None;
        block::check(value, |line| {
            first.get_or_insert_with(|| Box::from(line.name()));
            self.counted(line);
            self.slots.stands(line.number(), id, line.expires());
        })?;
        self.names.insert(first.ok_or(Unreadable::Form)?, id);
        self.last_block = self.last_block.max(id);
        self.blocks.insert(id, value.into());
        Ok(true)
    }

    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        assert_eq!(self.blocks.len(), self.names.len());
        self.blocks.len()
    }

    /// How many bytes all of it takes, about.
    #[cfg(test)]
    pub(super) fn room(&self) -> u64 {
        let blocks: usize = self.blocks.values().map(|bytes| bytes.len()).sum();
        let each = 2 * (size_of::<Box<str>>() + size_of::<u32>()) + 32;
        (blocks + each * self.blocks.len()) as u64 + self.slots.room()
    }
}

/// How the durable of this line was made.
fn spec_of(line: &Line) -> Option<DurableSpec> {
    match line.spec() {
        Ok(spec) => Some(spec),
        Err(error) => {
            tracing::error!(durable = line.name(), %error, "a durable cannot be unpacked");
            None
        }
    }
}
