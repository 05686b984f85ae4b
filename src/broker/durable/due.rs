//! The events that are to be delivered again now: by rank, and by offset within one.
//!
//! Without ranks (delivery in the order of the log) all have the same.

use std::collections::{BTreeMap, BTreeSet};

/// The last rank: there are four priorities.
const RANK_MAX: u8 = 3;

/// What is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    order: BTreeSet<(u8, u64)>,
    /// The ranks of outstanding events, due or not; 0 where there is none.
    ranks: BTreeMap<u64, u8>,
}

impl Due {
    /// An event that is about to be outstanding has this rank; 0 is the first to go.
    pub(super) fn note(&mut self, offset: u64, rank: u8) {
        if rank > 0 {
            self.ranks.insert(offset, rank);
        }
    }

    /// It is outstanding no longer.
    pub(super) fn forget(&mut self, offset: u64) {
        self.remove(offset);
        self.ranks.remove(&offset);
    }

    pub(super) fn insert(&mut self, offset: u64) {
        self.order.insert((self.rank(offset), offset));
    }

    pub(super) fn extend(&mut self, offsets: BTreeSet<u64>) {
        offsets.into_iter().for_each(|offset| self.insert(offset));
    }

    /// Takes out this one. False when it was not due.
    pub(super) fn remove(&mut self, offset: u64) -> bool {
        self.order.remove(&(self.rank(offset), offset))
    }

    /// Takes out the first, if its rank is at most this.
    pub(super) fn pop(&mut self, rank_max: u8) -> Option<u64> {
        let first = *self.order.first().filter(|(rank, _)| *rank <= rank_max)?;
        self.order.remove(&first);
        Some(first.1)
    }

    /// The lowest offset, whatever its rank.
    pub(super) fn oldest(&self) -> Option<u64> {
        let of_rank = |rank: u8| self.order.range((rank, 0)..=(rank, u64::MAX)).next();
        (0..=RANK_MAX).filter_map(of_rank).map(|(_, offset)| *offset).min()
    }

    /// All have the first rank.
    pub(super) fn forget_ranks(&mut self) {
        self.ranks.clear();
        self.order = std::mem::take(&mut self.order).into_iter().map(|(_, at)| (0, at)).collect();
    }

    /// The rank of the first.
    pub(super) fn first_rank(&self) -> Option<u8> {
        self.order.first().map(|(rank, _)| *rank)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn rank(&self, offset: u64) -> u8 {
        self.ranks.get(&offset).copied().unwrap_or(0)
    }
}
