//! What a durable has passed without an ack: by a reset, or as dead letters that are not known one by one any more.

use tidings_proto::Cursor;

use super::{DurableState, ranges::RangeSet};

/// The most ranges that are remembered. Beyond that the two that are nearest become one, with what lies between them.
const SKIPPED_MAX: usize = 64;

/// Offsets that were passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Skipped(RangeSet);

impl Skipped {
    /// Those of these ranges.
    pub(super) fn of(ranges: &[(u64, u64)]) -> Skipped {
        let mut skipped = Skipped::default();
        ranges.iter().for_each(|&(first, last)| skipped.insert(first, last));
        skipped
    }

    /// The ranges, rising: first and last offset.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.0.iter()
    }

    /// These are passed.
    pub(super) fn insert(&mut self, first: u64, last: u64) {
        self.0.insert(first, last);
        if self.0.len() > SKIPPED_MAX {
            self.0.join_nearest();
        }
    }

    /// This one is to be delivered after all.
    pub(super) fn remove(&mut self, offset: u64) {
        self.0.remove(offset);
        // In two where it was one.
        if self.0.len() > SKIPPED_MAX {
            self.0.join_nearest();
        }
    }
}

impl DurableState {
    /// Whether this event was passed, and neither acknowledged nor is it known to be dead.
    pub fn is_skipped(&self, offset: u64) -> bool {
        self.skipped.0.contains(offset) && self.is_acked(offset)
    }

    /// The same durable from `floor` on, whatever was delivered and acknowledged: what it has passed is known, and
    /// how many letters were written.
    pub fn after_reset(&self, floor: Cursor) -> DurableState {
        let (dead, generation) = (self.dead.after_reset(), self.generation + 1);
        let (skipped, by_lane) = (self.skipped_by_reset(floor), self.by_lane);
        DurableState { dead, skipped, generation, by_lane, ..DurableState::new(floor) }
    }

    /// What is passed when it goes on from `floor`: what it had passed, what is dead, and what is not acknowledged.
    fn skipped_by_reset(&self, floor: Cursor) -> Skipped {
        let floor = floor.get();
        let mut skipped = Skipped::default();
        let mut pass = |first: u64, last: u64| {
            if first <= last.min(floor) {
                skipped.insert(first, last.min(floor));
            }
        };
        self.skipped.iter().for_each(|(first, last)| pass(first, last));
        self.dead.letters().for_each(|(offset, _)| pass(offset, offset));
        let mut next = self.floor().get() + 1;
        for (first, last) in self.acked_ranges() {
            pass(next, first - 1);
            next = last.saturating_add(1);
        }
        pass(next, floor);
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_ranges_become_one_where_there_are_too_many() {
        let mut skipped = Skipped::default();
        (0..64).for_each(|n| skipped.insert(n * 10 + 1, n * 10 + 2));
        assert_eq!(skipped.iter().count(), SKIPPED_MAX);
        skipped.insert(635, 635);
        assert_eq!(skipped.iter().count(), SKIPPED_MAX);
        // 632 and 635 are nearer than any others, which are nine apart.
        assert_eq!(skipped.iter().next_back(), Some((631, 635)));
        skipped.remove(1);
        assert_eq!(skipped.iter().next(), Some((2, 2)));
        // In two where it was one, which are the nearest again.
        skipped.remove(633);
        assert_eq!(skipped.iter().next_back(), Some((631, 635)));
        assert_eq!(Skipped::of(&skipped.iter().collect::<Vec<_>>()), skipped);
    }

    #[test]
    fn a_reset_skips_what_was_not_acknowledged_and_one_back_brings_it_again() {
        let mut state = DurableState::new(Cursor::new(10));
        state.deliver_new(&[11, 12, 13, 14], Cursor::new(14), 0, 1);
        state.ack(12);
        let ahead = state.after_reset(Cursor::new(20));
        assert_eq!(ahead.skipped.iter().collect::<Vec<_>>(), [(11, 11), (13, 20)]);
        let is = |state: &DurableState, offset| (state.is_acked(offset), state.is_skipped(offset));
        assert_eq!(
            [10, 11, 12, 13, 21].map(|offset| is(&ahead, offset)),
            [(true, false), (true, true), (true, false), (true, true), (false, false),]
        );
        let back = ahead.after_reset(Cursor::new(12));
        assert_eq!(back.skipped.iter().collect::<Vec<_>>(), [(11, 11)]);
        assert_eq!(is(&back, 13), (false, false));
    }
}
