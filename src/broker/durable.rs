//! What a durable subscription has delivered and what of it is acknowledged. Pure: time is an argument,
//! in milliseconds on a clock that never jumps.
//!
//! Two numbers and two sets say everything:
//! - `cursor`: every event up to here has been looked at for delivery;
//! - `outstanding`: events that are delivered, or to be delivered again, and not acknowledged; those above the
//!   cursor are known from an earlier life and come in their turn;
//! - `acked`: ranges above the cursor that were acknowledged before (by an earlier session);
//! - so the floor is the cursor, or the place before the oldest outstanding event.
//!
//! Of the outstanding up to the cursor, `due` and `timers` say which are to be delivered again and when, so
//! that nothing is searched for.
//!
//! An event whose last delivery has ended is dying until its letter is in the log, see [`dead`].
//!
//! A mirrored durable leases nothing: its cursor *is* its floor and `acked` holds single acks above it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tidings_proto::Cursor;

pub(super) use self::dead::{Cause, Dying};
use self::{dead::Dead, due::Due, keys::Keys, ranges::RangeSet, skipped::Skipped};
use super::held::Token;
use crate::log::Stored;

mod dead;
mod due;
mod in_flight;
mod keys;
mod order;
mod ranges;
mod skipped;
mod stored;

/// The most separate ranges of acknowledged offsets that are remembered above the floor.
pub(super) const RANGES_MAX: usize = 16_384;

/// The state of one durable subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurableState {
    cursor: u64,
    outstanding: BTreeMap<u64, Outstanding>,
    /// Up to the cursor, to be delivered again now.
    due: Due,
    /// Up to the cursor, to be delivered again later: moment and offset.
    timers: BTreeSet<(u64, u64)>,
    /// On their way to the socket; may hold some that are not any more.
    sending: Vec<u64>,
    acked: RangeSet,
    /// Passed without an ack.
    skipped: Skipped,
    redelivered: u64,
    dead: Dead,
    keys: Keys,
    /// How often it was reset.
    generation: u64,
    /// Deliveries were counted that no commit has.
    uncounted: bool,
    /// Whether events above the cursor go out before those up to it, see [`order`].
    by_lane: bool,
}

/// An event that is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outstanding {
    /// How often it has been delivered.
    attempts: u32,
    phase: Phase,
    /// When a socket took it for the first time.
    delivered: Option<u64>,
    /// Who has it, or had it last.
    owner: Token,
    /// It was looked at for delivery: all up to the cursor were, those above it by their lane.
    taken: bool,
}

impl Outstanding {
    /// Known, and to come in its turn.
    fn waiting(attempts: u32, until: u64) -> Outstanding {
        let (delivered, owner, taken) = (None, 0, false);
        Outstanding { attempts, phase: Phase::Waiting(until), delivered, owner, taken }
    }

    /// It is on its way once more.
    fn goes_to(&mut self, owner: Token) {
        self.attempts = self.attempts.saturating_add(1);
        self.phase = Phase::Sending;
        self.owner = owner;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// On its way to the socket: the clock does not run yet.
    Sending,
    /// Delivered; comes again at this moment (`None`: never).
    Leased(Option<u64>),
    /// To be delivered again, not before this moment.
    Waiting(u64),
    /// Not to be delivered again: its letter is to be written.
    Dying,
}

impl Phase {
    fn is_with_session(self) -> bool {
        matches!(self, Phase::Sending | Phase::Leased(_))
    }
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

    /// The highest place of what was delivered or acknowledged.
    pub fn reach(&self) -> Cursor {
        let acked = self.acked.iter().next_back().map_or(0, |(_, last)| last);
        Cursor::new(self.cursor.max(acked))
    }

    /// How many events are not acknowledged and count against `max_in_flight`.
    pub fn outstanding(&self) -> usize {
        // Those above the cursor are let in one by one like new ones.
        let above = self.outstanding.range(self.cursor + 1..);
        let above = above.filter(|(_, event)| !event.taken).count();
        self.outstanding.len().saturating_sub(above + self.dead.held_back())
    }

    /// How many deliveries were not the first.
    pub fn redelivered(&self) -> u64 {
        self.redelivered
    }

    /// Whether this event is acknowledged.
    pub fn is_acked(&self, offset: u64) -> bool {
        match offset <= self.cursor {
            true => !self.outstanding.contains_key(&offset),
            false => self.acked.contains(offset),
        }
    }

    /// When the oldest of these that is not acknowledged was first delivered.
    pub fn delivered_ms(&self, offsets: impl std::ops::RangeBounds<u64>) -> Option<u64> {
        self.outstanding.range(offsets).next().and_then(|(_, event)| event.delivered)
    }

    /// Everything up to `cursor` has been looked at; of it these events go out for the first time.
    /// Gives those of them that are to be sent to `owner`, with the number of the delivery: the others were
    /// acknowledged before, or are to wait.
    pub fn deliver_new(
        &mut self,
        offsets: &[u64],
        cursor: Cursor,
        now: u64,
        owner: Token,
    ) -> Vec<(u64, u32)> {
        let mut sent = Vec::with_capacity(offsets.len());
        let wanted: BTreeSet<u64> = offsets.iter().copied().collect();
        // Known from before and not among those that are wanted: expired, erased or no longer matching.
        let gone: Vec<u64> = self.above(cursor).filter(|at| !wanted.contains(at)).collect();
        for offset in gone {
            self.outstanding.remove(&offset);
            self.due.extend(self.keys.settled(offset));
        }
        self.dead.passed(self.cursor, cursor.get(), |offset| wanted.contains(&offset));
        for &offset in offsets {
            if offset <= self.cursor || self.acked.contains(offset) {
                continue;
            }
            let event = self.outstanding.entry(offset).or_insert(Outstanding::waiting(0, 0));
            if std::mem::replace(&mut event.taken, true) {
                continue;
            }
            match event.phase {
                // Known from an earlier life, or under another limit.
                _ if self.dead.is_last(event.attempts) => {
                    event.phase = self.dead.dies(offset, event.attempts, Cause::Detached);
                }
                Phase::Waiting(at) if at > now => drop(self.timers.insert((at, offset))),
                _ if !self.keys.is_free(offset, owner) => {
                    event.phase = Phase::Waiting(0);
                    self.keys.park(offset);
                }
                _ => {
                    event.goes_to(owner);
                    self.uncounted |= event.attempts > 1;
                    self.due.extend(self.keys.taken(offset, owner));
                    self.sending.push(offset);
                    sent.push((offset, event.attempts));
                }
            }
        }
        self.cursor = self.cursor.max(cursor.get());
        self.acked.remove_up_to(self.cursor);
        self.advance();
        sent
    }

    /// The events that are due again, oldest first, with the number of the delivery they now have: they go
    /// to `owner`.
    pub fn deliver_again(&mut self, now: u64, events_max: usize, owner: Token) -> Vec<(u64, u32)> {
        self.deliver_again_up_to(u8::MAX, now, events_max, owner)
    }

    /// The same for those of at most this rank, the lower ranks first.
    pub fn deliver_again_up_to(
        &mut self,
        rank_max: u8,
        now: u64,
        events_max: usize,
        owner: Token,
    ) -> Vec<(u64, u32)> {
        self.ripen(now);
        self.let_in();
        let mut again = Vec::new();
        while again.len() < events_max
            && let Some(offset) = self.due.pop(rank_max)
        {
            again.extend(self.go_again(offset, owner));
        }
        again
    }

    /// The same for this one, if it is due and may go.
    pub fn deliver_this_again(&mut self, offset: u64, owner: Token) -> Vec<(u64, u32)> {
        let is_due = self.due.remove(offset);
        is_due.then(|| self.go_again(offset, owner)).flatten().into_iter().collect()
    }

    /// One that was due goes out, unless it dies or has to wait for another of its key.
    fn go_again(&mut self, offset: u64, owner: Token) -> Option<(u64, u32)> {
        let event = self.outstanding.get_mut(&offset)?;
        if self.dead.is_last(event.attempts) {
            event.phase = self.dead.dies(offset, event.attempts, Cause::Detached);
            return None;
        }
        if !self.keys.is_free(offset, owner) {
            self.keys.park(offset);
            return None;
        }
        event.goes_to(owner);
        let attempts = event.attempts;
        // What waited for another of its key comes for the first time.
        if attempts > 1 {
            self.redelivered += 1;
            self.uncounted = true;
        }
        self.due.extend(self.keys.taken(offset, owner));
        self.sending.push(offset);
        Some((offset, attempts))
    }

    /// These were to go out and did not: they are due now, and it was no delivery.
    pub fn give_back(&mut self, offsets: impl IntoIterator<Item = u64>) {
        for offset in offsets {
            if let Some(event) = self.outstanding.get_mut(&offset)
                && event.phase == Phase::Sending
            {
                self.redelivered = self.redelivered.saturating_sub(u64::from(event.attempts > 1));
                event.attempts = event.attempts.saturating_sub(1);
                event.phase = Phase::Waiting(0);
                self.due.insert(offset);
                self.due.extend(self.keys.back(offset));
            }
        }
    }

    /// The socket of `owner` has taken everything that was on its way: now the clock runs.
    pub fn sent(&mut self, now: u64, redelivery: &Redelivery, owner: Token) {
        let at = (redelivery.ack_wait_ms > 0).then(|| now.saturating_add(redelivery.ack_wait_ms));
        for offset in std::mem::take(&mut self.sending) {
            if let Some(event) = self.outstanding.get_mut(&offset)
                && event.phase == Phase::Sending
            {
                if event.owner != owner {
                    self.sending.push(offset);
                    continue;
                }
                event.phase = Phase::Leased(at);
                event.delivered.get_or_insert(now);
                self.dead.seen(offset);
                self.timers.extend(at.map(|at| (at, offset)));
            }
        }
    }

    /// All sessions have gone or were superseded: everything they had is due at once.
    pub fn release(&mut self) {
        self.release_of(None);
    }

    /// A session has gone or was superseded: everything it had, or all sessions, is due at once.
    pub fn release_of(&mut self, owner: Option<Token>) {
        self.take_back(owner, true);
    }

    /// Its options change: everything is due at once. Nobody has failed, so what came for the last time dies of no such end.
    pub fn release_unfailed(&mut self) {
        self.take_back(None, false);
    }

    fn take_back(&mut self, owner: Option<Token>, counts: bool) {
        for (&offset, event) in &mut self.outstanding {
            match event.phase {
                Phase::Waiting(_) | Phase::Dying => continue,
                _ if owner.is_some_and(|owner| owner != event.owner) => continue,
                Phase::Leased(Some(at)) => drop(self.timers.remove(&(at, offset))),
                Phase::Leased(None) | Phase::Sending => {}
            }
            self.due.extend(self.keys.back(offset));
            self.uncounted |= self.dead.is_limited();
            if self.dead.is_last(event.attempts) {
                // Of what is being sent nobody can say that the last delivery took place.
                if counts && event.phase != Phase::Sending {
                    event.phase = self.dead.dies(offset, event.attempts, Cause::Detached);
                    continue;
                }
                event.attempts = event.attempts.saturating_sub(1);
            }
            event.phase = Phase::Waiting(0);
            self.due.insert(offset);
        }
        let outstanding = &self.outstanding;
        self.sending.retain(|offset| {
            outstanding.get(offset).is_some_and(|event| event.phase == Phase::Sending)
        });
    }

    /// From here on nothing is leased: the cursor is the floor, and what is above it is acknowledged or not.
    pub fn forget_leases(&mut self) {
        let (floor, ranges) = (self.floor(), self.acked_ranges());
        let dead = std::mem::take(&mut self.dead).without_leases();
        let (skipped, generation) = (std::mem::take(&mut self.skipped), self.generation);
        *self = DurableState { dead, skipped, generation, ..DurableState::new(floor) };
        for (first, last) in ranges {
            self.acked.insert(first, last);
        }
    }

    /// How often it was reset.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Everything up to and including `offset` is done, but for what was redriven and not seen since: of that, what
    /// had not had its turn is to be delivered as soon as there is room.
    pub fn ack_up_to(&mut self, offset: u64) {
        for unseen in self.dead.unseen_behind(self.cursor, offset) {
            let event = self.outstanding.entry(unseen).or_insert(Outstanding::waiting(0, 0));
            if !std::mem::replace(&mut event.taken, true) {
                self.dead.hold_back(unseen);
            }
        }
        let rest = self.outstanding.split_off(&(offset + 1));
        for (offset, event) in std::mem::replace(&mut self.outstanding, rest) {
            if self.dead.is_unseen(offset) {
                self.outstanding.insert(offset, event);
            } else {
                self.forget(offset, event.phase);
            }
        }
        self.cursor = self.cursor.max(offset);
        self.acked.remove_up_to(self.cursor);
        self.advance();
    }

    /// Just this event is done. False when too many ranges would have to be remembered.
    pub fn ack(&mut self, offset: u64) -> bool {
        let is_above = offset > self.cursor;
        if is_above && self.acked.len() >= RANGES_MAX && !self.acked.touches(offset) {
            return false;
        }
        match self.outstanding.remove(&offset) {
            Some(event) => self.forget(offset, event.phase),
            None => self.dead.forget(offset),
        }
        if is_above {
            self.acked.insert(offset, offset);
            self.advance();
        }
        true
    }

    /// Of these, what is not among `events` is gone, has expired or is not wanted: it needs no ack.
    pub fn ack_missing(&mut self, wanted: impl Iterator<Item = u64>, events: &[Arc<Stored>]) {
        let there: BTreeSet<u64> = events.iter().map(|event| event.offset().get()).collect();
        for offset in wanted.filter(|offset| !there.contains(offset)) {
            self.ack(offset);
        }
    }

    /// Up to here nothing is left of what was to be delivered: what was is settled, but for letters to be written.
    pub fn pass_gone(&mut self, until: Cursor) {
        let gone = self.outstanding.range(..=until.get());
        let gone = gone.filter(|(_, event)| event.phase != Phase::Dying).map(|(at, _)| *at);
        for offset in gone.collect::<Vec<u64>>() {
            self.ack(offset);
        }
        self.deliver_new(&[], until, 0, 0);
    }

    /// Whether deliveries were counted that no commit has.
    pub fn is_uncounted(&self) -> bool {
        self.uncounted
    }

    /// Whether the counts of now are not in a commit.
    pub fn set_uncounted(&mut self, uncounted: bool) {
        self.uncounted = uncounted;
    }

    /// Everything behind the floor up to `looked` has been looked at and only `wanted` matches, rising:
    /// the floor of a mirror goes up to the first of them that is not acknowledged. True when it moved.
    pub fn raise_floor(&mut self, floor: Cursor, wanted: &[u64], looked: Cursor) -> bool {
        if self.cursor != floor.get() {
            return false;
        }
        let open = wanted.iter().find(|offset| !self.acked.contains(**offset));
        let to = open.map_or(looked.get(), |offset| offset - 1);
        self.cursor = self.cursor.max(to);
        self.acked.remove_up_to(self.cursor);
        self.advance();
        self.cursor > floor.get()
    }

    /// This event comes again after `delay_ms`, or after what the backoff says; unless it has come as often
    /// as it may, or was redriven and has not come since.
    pub fn nack(&mut self, offset: u64, delay_ms: Option<u64>, now: u64, redelivery: &Redelivery) {
        let Some(event) = self.outstanding.get_mut(&offset) else { return };
        let before = event.phase;
        // Whoever had it before it was redriven says nothing of the delivery that is to come.
        let is_to_come = self.dead.is_unseen(offset) && !before.is_with_session();
        if before == Phase::Dying || is_to_come {
            return;
        }
        if before.is_with_session() {
            self.due.extend(self.keys.back(offset));
        }
        // What is above the cursor dies when it comes in its turn.
        let is_taken = offset <= self.cursor || event.taken;
        if is_taken && self.dead.is_last(event.attempts) {
            event.phase = self.dead.dies(offset, event.attempts, Cause::Nack);
            self.forget_time(offset, before);
            return;
        }
        let wait_ms = delay_ms.unwrap_or_else(|| redelivery.backoff(event.attempts));
        let at = if wait_ms == 0 { 0 } else { now.saturating_add(wait_ms) };
        event.phase = Phase::Waiting(at);
        self.forget_time(offset, before);
        self.keys.unpark(offset);
        if !is_taken {
            return;
        }
        match at {
            0 => self.due.insert(offset),
            at => drop(self.timers.insert((at, offset))),
        }
    }

    /// What was to come again by now is due, or dies.
    pub fn ripen(&mut self, now: u64) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, offset)) = self.timers.pop_first()
        {
            let Some(event) = self.outstanding.get_mut(&offset) else { continue };
            if event.phase.is_with_session() {
                self.due.extend(self.keys.back(offset));
                self.uncounted |= self.dead.is_limited();
            }
            if event.phase.is_with_session() && self.dead.is_last(event.attempts) {
                event.phase = self.dead.dies(offset, event.attempts, Cause::AckWait);
                continue;
            }
            event.phase = Phase::Waiting(0);
            self.due.insert(offset);
        }
    }

    /// It is settled.
    fn forget(&mut self, offset: u64, phase: Phase) {
        self.forget_time(offset, phase);
        self.dead.forget(offset);
        self.due.forget(offset);
        self.due.extend(self.keys.settled(offset));
    }

    fn forget_time(&mut self, offset: u64, phase: Phase) {
        match phase {
            Phase::Leased(Some(at)) => drop(self.timers.remove(&(at, offset))),
            Phase::Waiting(at) => {
                self.timers.remove(&(at, offset));
                self.due.remove(offset);
            }
            Phase::Leased(None) | Phase::Sending | Phase::Dying => {}
        }
    }

    /// The outstanding above the cursor that were not looked at, up to `until`.
    fn above(&self, until: Cursor) -> impl Iterator<Item = u64> + '_ {
        let until = until.get().max(self.cursor);
        let above = self.outstanding.range(self.cursor + 1..until.saturating_add(1));
        above.filter(|(_, event)| !event.taken).map(|(offset, _)| *offset)
    }

    /// What is acknowledged above the floor: between the outstanding events, and above the cursor.
    fn acked_ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        let mut next = self.floor().get() + 1;
        for &offset in self.outstanding.keys().take_while(|&&offset| offset <= self.cursor) {
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

#[cfg(test)]
mod tests;
