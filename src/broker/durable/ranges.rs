//! Sets of offsets that are mostly stretches.

use std::collections::BTreeMap;

/// Offsets as disjoint ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// How many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The ranges, rising: first and last offset.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(&first, &last)| (first, last))
    }

    pub(super) fn first(&self) -> Option<(u64, u64)> {
        self.0.first_key_value().map(|(&first, &last)| (first, last))
    }

    /// Whether `offset` is in one of them.
    pub(super) fn contains(&self, offset: u64) -> bool {
        self.0.range(..=offset).next_back().is_some_and(|(_, &last)| offset <= last)
    }

    /// Whether `offset` is in one of them or next to one.
    pub(super) fn touches(&self, offset: u64) -> bool {
        self.0
            .range(..=offset.saturating_add(1))
            .next_back()
            .is_some_and(|(_, &last)| offset <= last.saturating_add(1))
    }

    /// Adds a range.
    pub(super) fn insert(&mut self, mut first: u64, mut last: u64) {
        while let Some((&other_first, &other_last)) =
            self.0.range(..=last.saturating_add(1)).next_back()
        {
            if other_last.saturating_add(1) < first {
                break;
            }
            first = first.min(other_first);
            last = last.max(other_last);
            self.0.remove(&other_first);
        }
        self.0.insert(first, last);
    }

    /// Takes out one offset.
    pub(super) fn remove(&mut self, offset: u64) {
        let holds = self.0.range(..=offset).next_back().map(|(&first, &last)| (first, last));
        let Some((first, last)) = holds.filter(|&(_, last)| offset <= last) else { return };
        self.0.remove(&first);
        if first < offset {
            self.0.insert(first, offset - 1);
        }
        if last > offset {
            self.0.insert(offset + 1, last);
        }
    }

    /// Takes out everything up to and including `offset`.
    pub(super) fn remove_up_to(&mut self, offset: u64) {
        while let Some((first, last)) = self.first().filter(|&(first, _)| first <= offset) {
            self.0.remove(&first);
            if last > offset {
                self.0.insert(offset + 1, last);
            }
        }
    }

    /// Makes one of the two that are nearest to each other, with what lies between them.
    pub(super) fn join_nearest(&mut self) {
        let gaps =
            self.iter().zip(self.iter().skip(1)).map(|((_, last), (first, _))| (last, first));
        if let Some((last, first)) = gaps.min_by_key(|(last, first)| first - last) {
            self.insert(last, first);
        }
    }
}
