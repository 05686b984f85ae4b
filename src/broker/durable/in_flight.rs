//! Which events are with a session: on their way to it, or delivered and not acknowledged.

use super::{DurableState, Outstanding, Token};

impl DurableState {
    /// How many events are with a session.
    pub fn in_flight(&self) -> usize {
        self.outstanding.values().filter(|event| event.phase.is_with_session()).count()
    }

    /// The same without those whose time is over by now, though nobody has looked at that yet.
    pub fn in_flight_at(&self, now: u64) -> usize {
        let over = self.timers.range(..=(now, u64::MAX));
        self.in_flight() - over.filter(|(_, offset)| self.is_in_flight(*offset)).count()
    }

    /// How many of them are with this one.
    pub fn in_flight_of(&self, owner: Token) -> usize {
        let is_its = |event: &&Outstanding| event.owner == owner && event.phase.is_with_session();
        self.outstanding.values().filter(is_its).count()
    }

    /// How many of them are with none of these, which rise.
    pub fn in_flight_but(&self, owners: &[Token]) -> usize {
        let is_others = |event: &&Outstanding| {
            event.phase.is_with_session() && owners.binary_search(&event.owner).is_err()
        };
        self.outstanding.values().filter(is_others).count()
    }

    /// Whether this event is with another.
    pub fn is_elsewhere(&self, offset: u64, owner: Token) -> bool {
        let event = self.outstanding.get(&offset);
        event.is_some_and(|event| event.phase.is_with_session() && event.owner != owner)
    }

    /// Whether this event is with a session.
    pub fn is_in_flight(&self, offset: u64) -> bool {
        self.outstanding.get(&offset).is_some_and(|event| event.phase.is_with_session())
    }
}
