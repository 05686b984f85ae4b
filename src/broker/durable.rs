//! What a durable subscription has delivered and what of it is acknowledged. Pure: time is an argument.
//!
//! Two numbers and two sets say everything:
//! - `cursor`: every event up to here has been looked at for delivery;
//! - `outstanding`: events up to the cursor that are delivered, or to be delivered again, and not acknowledged;
//! - `acked`: ranges above the cursor that were acknowledged before (by an earlier session);
//! - so the floor is the cursor, or the place before the oldest outstanding event.
//!
//! A mirrored durable leases nothing: its cursor *is* its floor and `acked` holds single acks above it.

use std::{collections::BTreeMap, sync::Arc};

use tidings_proto::{Cursor, control::AckState};

use crate::log::Stored;

/// The most separate ranges of acknowledged offsets that are remembered above the floor.
pub(super) const RANGES_MAX: usize = 16_384;

/// The state of one durable subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurableState {
    cursor: u64,
    outstanding: BTreeMap<u64, Outstanding>,
    acked: RangeSet,
    redelivered: u64,
}

/// An event that is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outstanding {
    /// How often it has been delivered.
    attempts: u32,
    due: Due,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// On its way to the socket: the clock does not run yet.
    Sending,
    /// Delivered; comes again at this moment (0 as `ack_wait_ms`: never).
    Leased(u64),
    /// To be delivered again, not before this moment.
    Waiting(u64),
}

/// When an unacknowledged event comes again.
#[derive(Clone, Debug)]
pub struct Redelivery {
    /// After how long without an ack; 0 is never. Milliseconds.
    pub ack_wait_ms: u64,
    /// The wait before the second, third, … delivery; the last one stands for all later ones. Milliseconds.
    pub backoff_ms: Vec<u64>,
}

impl DurableState {
    /// A durable that has acknowledged everything up to `floor`.
    pub fn new(floor: Cursor) -> DurableState {
        DurableState { cursor: floor.get(), ..DurableState::default() }
    }

    /// The state as it was last acknowledged durably; `now_ms` on the same clock as in `to_ack_state`.
    pub fn restore(state: &AckState) -> DurableState {
        let mut restored = DurableState::new(state.floor);
        for &(first, last) in &state.ranges {
            restored.acked.insert(first, last);
        }
        for &(offset, attempts) in &state.attempts {
            let due = state
                .delayed
                .iter()
                .find(|(delayed, _)| *delayed == offset)
                .map_or(0, |(_, due)| *due);
            if offset > restored.cursor && !restored.acked.contains(offset) {
                restored
                    .outstanding
                    .insert(offset, Outstanding { attempts, due: Due::Waiting(due) });
            }
        }
        restored
    }

    /// What is to be remembered of it.
    pub fn to_ack_state(&self, name: &str, number: u64) -> AckState {
        let floor = self.floor();
        AckState {
            name: name.to_owned(),
            number,
            generation: 0,
            floor,
            ranges: self.acked_ranges(),
            attempts: self
                .outstanding
                .iter()
                .filter(|(_, event)| event.attempts >= 2)
                .map(|(&offset, event)| (offset, event.attempts))
                .collect(),
            delayed: self
                .outstanding
                .iter()
                .filter(|(_, event)| event.attempts >= 2)
                .filter_map(|(&offset, event)| match event.due {
                    Due::Waiting(due) if due > 0 => Some((offset, due)),
                    _ => None,
                })
                .collect(),
        }
    }

    /// Everything up to here is acknowledged.
    pub fn floor(&self) -> Cursor {
        match self.outstanding.first_key_value() {
            Some((&oldest, _)) if oldest <= self.cursor => Cursor::new(oldest - 1),
            _ => Cursor::new(self.cursor),
        }
    }

    /// Everything up to here has been looked at for delivery.
    pub fn cursor(&self) -> Cursor {
        Cursor::new(self.cursor)
    }

    /// How many events are not acknowledged and count against `max_in_flight`.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// How many of them are with a session.
    pub fn in_flight(&self) -> usize {
        self.outstanding.values().filter(|event| !matches!(event.due, Due::Waiting(_))).count()
    }

    /// How many deliveries were not the first.
    pub fn redelivered(&self) -> u64 {
        self.redelivered
    }

    /// The acknowledged ranges above the cursor.
    pub fn acked_above_cursor(&self) -> &RangeSet {
        &self.acked
    }

    /// Whether this event is acknowledged.
    pub fn is_acked(&self, offset: u64) -> bool {
        match offset <= self.cursor {
            true => !self.outstanding.contains_key(&offset),
            false => self.acked.contains(offset),
        }
    }

    /// Whether this event is with a session.
    pub fn is_in_flight(&self, offset: u64) -> bool {
        self.outstanding.get(&offset).is_some_and(|event| !matches!(event.due, Due::Waiting(_)))
    }

    /// Everything up to `cursor` has been looked at; of it these events go out for the first time.
    /// Gives those of them that are to be sent, with the number of the delivery: the others were
    /// acknowledged before, or are to wait.
    pub fn deliver_new(&mut self, offsets: &[u64], cursor: Cursor, now_ms: u64) -> Vec<(u64, u32)> {
        let mut sent = Vec::with_capacity(offsets.len());
        for &offset in offsets {
            if offset <= self.cursor || self.acked.contains(offset) {
                continue;
            }
            let event = self
                .outstanding
                .entry(offset)
                .or_insert(Outstanding { attempts: 0, due: Due::Waiting(0) });
            if matches!(event.due, Due::Waiting(at) if at <= now_ms) {
                event.attempts = event.attempts.saturating_add(1);
                event.due = Due::Sending;
                sent.push((offset, event.attempts));
            }
        }
        self.cursor = self.cursor.max(cursor.get());
        self.acked.remove_up_to(self.cursor);
        self.advance();
        sent
    }

    /// The events that are due again, oldest first, with the number of the delivery they now have.
    pub fn deliver_again(&mut self, now_ms: u64, events_max: usize) -> Vec<(u64, u32)> {
        let mut due = Vec::new();
        for (&offset, event) in &mut self.outstanding {
            let is_due = match event.due {
                Due::Waiting(at) => at <= now_ms,
                Due::Leased(at) => at != 0 && at <= now_ms,
                Due::Sending => false,
            };
            // What lies above the cursor has not been looked at in this life: it is read in its turn.
            if is_due && offset <= self.cursor {
                event.attempts = event.attempts.saturating_add(1);
                event.due = Due::Sending;
                due.push((offset, event.attempts));
                if due.len() >= events_max {
                    break;
                }
            }
        }
        self.redelivered += u64::try_from(due.len()).unwrap_or(u64::MAX);
        due
    }

    /// The socket has taken everything that was on its way: now the clock runs.
    pub fn sent(&mut self, now_ms: u64, redelivery: &Redelivery) {
        for event in self.outstanding.values_mut().filter(|event| event.due == Due::Sending) {
            event.due = match redelivery.ack_wait_ms {
                0 => Due::Leased(0),
                wait_ms => Due::Leased(now_ms.saturating_add(wait_ms)),
            };
        }
    }

    /// When the next event is due again, in milliseconds on the caller's clock.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.outstanding
            .range(..=self.cursor)
            .filter_map(|(_, event)| match event.due {
                Due::Waiting(at) => Some(at),
                Due::Leased(at) if at != 0 => Some(at),
                Due::Leased(_) | Due::Sending => None,
            })
            .min()
    }

    /// The session has gone or was superseded: everything it had is due at once.
    pub fn release(&mut self) {
        for event in self.outstanding.values_mut() {
            if !matches!(event.due, Due::Waiting(_)) {
                event.due = Due::Waiting(0);
            }
        }
    }

    /// Everything up to and including `offset` is done.
    pub fn ack_up_to(&mut self, offset: u64) {
        self.outstanding = self.outstanding.split_off(&(offset + 1));
        self.cursor = self.cursor.max(offset);
        self.acked.remove_up_to(self.cursor);
        self.advance();
    }

    /// Just this event is done. False when too many ranges would have to be remembered.
    pub fn ack(&mut self, offset: u64) -> bool {
        self.outstanding.remove(&offset);
        if offset > self.cursor {
            if self.acked.len() >= RANGES_MAX && !self.acked.touches(offset) {
                return false;
            }
            self.acked.insert(offset, offset);
            self.advance();
        }
        true
    }

    /// Of these, what is not among `events` is gone or has expired and needs no ack.
    pub fn ack_missing(&mut self, wanted: &[(u64, u32)], events: &[Arc<Stored>]) {
        for (offset, _) in wanted {
            if !events.iter().any(|event| event.offset().get() == *offset) {
                self.ack(*offset);
            }
        }
    }

    /// These events come again after `delay_ms`, or after what the backoff says.
    pub fn nack(
        &mut self,
        offset: u64,
        delay_ms: Option<u64>,
        now_ms: u64,
        redelivery: &Redelivery,
    ) {
        if let Some(event) = self.outstanding.get_mut(&offset) {
            let wait_ms = delay_ms.unwrap_or_else(|| redelivery.backoff(event.attempts));
            event.due = Due::Waiting(now_ms.saturating_add(wait_ms));
        }
    }

    /// What is acknowledged above the floor: between the outstanding events, and above the cursor.
    fn acked_ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        let mut next = self.floor().get() + 1;
        for &offset in self.outstanding.keys().filter(|&&offset| offset <= self.cursor) {
            if offset > next {
                ranges.push((next, offset - 1));
            }
            next = offset + 1;
        }
        if next <= self.cursor {
            ranges.push((next, self.cursor));
        }
        ranges.extend(self.acked.iter());
        ranges
    }

    /// Takes up ranges that now touch the cursor.
    fn advance(&mut self) {
        while let Some((first, last)) = self.acked.first() {
            if first > self.cursor + 1 {
                break;
            }
            self.cursor = self.cursor.max(last);
            self.acked.remove_up_to(self.cursor);
        }
    }
}

impl Redelivery {
    /// How long to wait after this many deliveries.
    fn backoff(&self, attempts: u32) -> u64 {
        let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        self.backoff_ms.get(index).or(self.backoff_ms.last()).copied().unwrap_or(0)
    }
}

/// Offsets as disjoint ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, rising: first and last offset.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(&first, &last)| (first, last))
    }

    fn first(&self) -> Option<(u64, u64)> {
        self.0.first_key_value().map(|(&first, &last)| (first, last))
    }

    /// Whether `offset` is in one of them.
    pub fn contains(&self, offset: u64) -> bool {
        self.0.range(..=offset).next_back().is_some_and(|(_, &last)| offset <= last)
    }

    /// Whether `offset` is in one of them or next to one.
    fn touches(&self, offset: u64) -> bool {
        self.0
            .range(..=offset.saturating_add(1))
            .next_back()
            .is_some_and(|(_, &last)| offset <= last.saturating_add(1))
    }

    /// Adds a range.
    pub fn insert(&mut self, mut first: u64, mut last: u64) {
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

    /// Takes out everything up to and including `offset`.
    fn remove_up_to(&mut self, offset: u64) {
        while let Some((first, last)) = self.first().filter(|&(first, _)| first <= offset) {
            self.0.remove(&first);
            if last > offset {
                self.0.insert(offset + 1, last);
            }
        }
    }
}

#[cfg(test)]
mod tests;
