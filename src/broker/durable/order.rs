//! When what comes again is due, and what delivery by lanes needs of the state: events above the cursor are
//! looked at before those up to it.

use super::{DurableState, RANGES_MAX};

/// How many separate ranges may be acknowledged above the floor before the oldest events go first: half of
/// what is remembered.
const AHEAD_MAX: usize = RANGES_MAX / 2;

impl DurableState {
    /// Whether events above the cursor may be delivered before those up to it.
    pub fn set_by_lane(&mut self, by_lane: bool) {
        self.by_lane = by_lane;
    }

    /// Whether this event was not looked at for delivery, nor acknowledged.
    pub fn is_new(&self, offset: u64) -> bool {
        let is_taken = self.outstanding.get(&offset).is_some_and(|event| event.taken);
        offset > self.cursor && !is_taken && !self.acked.contains(offset)
    }

    /// Whether so much is acknowledged ahead of the floor that it should rise first.
    pub fn is_far_ahead(&self) -> bool {
        self.acked.len() + self.outstanding.len() >= AHEAD_MAX
    }

    /// An event that is about to be delivered has this rank.
    pub fn note_rank(&mut self, offset: u64, rank: u8) {
        self.due.note(offset, rank);
    }

    /// What comes again has no rank any more: it comes in the order of the log.
    pub fn forget_ranks(&mut self) {
        self.due.forget_ranks();
    }

    /// The oldest of what is due again now.
    pub fn oldest_due(&self) -> Option<u64> {
        self.due.oldest()
    }

    /// The rank of what is due again now.
    pub fn due_rank(&mut self, now: u64) -> Option<u8> {
        self.ripen(now);
        self.let_in();
        self.due.first_rank()
    }

    /// When the next event is due again.
    pub fn next_due(&self) -> Option<u64> {
        match self.due.is_empty() && !self.may_let_in() {
            true => self.next_timer(),
            false => Some(0),
        }
    }

    /// When the next of those ends that are not due yet.
    pub fn next_timer(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }
}
