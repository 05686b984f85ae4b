//! Events that were delivered as often as they may be: dying until their letter is in the log, dead from
//! then on, and alive again when they are redriven.
//!
//! ```text
//! delivered ── last delivery ended ──▶ dying ── looked up ──▶ addressed ── in the commit ──▶ dead
//!     ▲                                                                                       │
//!     └──────────────────────────────────── redriven ─────────────────────────────────────────┘
//! ```
//! - A dying event is outstanding: it holds the floor, and counts against `max_in_flight`.
//! - Only the commit that has the letter makes it dead. Where that fails it is dying as before.
//! - The newest [`DEAD_MAX`] of the dead are known one by one; older ones count as skipped, and are redriven when they
//!   are named.

mod erased;

use std::collections::{BTreeMap, BTreeSet};

use tidings_proto::control::{AckState, DeadLetter};

use super::{DurableState, Outstanding, Phase, RANGES_MAX};

/// The most dead events that one durable knows one by one.
pub(in crate::broker) const DEAD_MAX: usize = 1000;
/// The most bytes of a nack's reason that are kept.
const REASON_BYTES_MAX: usize = 512;
/// The most events whose reason is kept, in one durable.
const REASONS_MAX: usize = 1024;

/// What a durable knows of its dying and dead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dead {
    /// How often an event may be delivered; 0 is without limit.
    deliveries_max: u32,
    /// How many events may be outstanding; 0 is without limit.
    in_flight_max: usize,
    dying: BTreeMap<u64, Dying>,
    /// Their letters are in the commit that is being written.
    burying: Vec<Dying>,
    /// Offset to number of the letter; [`DEAD_MAX`] at most.
    dead: BTreeMap<u64, u64>,
    letters: u64,
    reasons: BTreeMap<u64, Box<str>>,
    /// Redriven, not yet let in.
    held_back: BTreeSet<u64>,
    /// Redriven, and not taken by a socket since.
    unseen: BTreeSet<u64>,
}

/// An event whose last delivery has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Dying {
    /// The event.
    pub offset: u64,
    /// How often it was delivered.
    pub attempts: u32,
    /// How the last delivery ended.
    pub cause: Cause,
    /// What the last nack said.
    pub reason: Option<Box<str>>,
    /// The number of its letter; 0 until it is in a commit.
    pub letter: u64,
    /// Where it stands and its id; `None` inside where it cannot be read, outside until somebody has looked.
    pub origin: Option<Option<(String, String)>>,
}

/// How the last delivery of an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Cause {
    /// It was nacked.
    Nack,
    /// Nobody acknowledged it in time.
    AckWait,
    /// The session that had it went or was superseded, or the broker was killed.
    Detached,
}

impl Cause {
    /// The word for it in letters and metrics.
    pub(in crate::broker) fn as_str(self) -> &'static str {
        match self {
            Cause::Nack => "nack",
            Cause::AckWait => "ack_wait",
            Cause::Detached => "detached",
        }
    }
}

impl Dead {
    pub(super) fn restore(&mut self, state: &AckState) {
        self.dead = state.dead.iter().copied().collect();
        self.unseen = state.redriven.iter().copied().collect();
        self.letters = state.letters;
    }

    /// The same where nothing is leased.
    pub(super) fn without_leases(self) -> Dead {
        let Dead { dead, letters, burying, .. } = self;
        Dead { dead, letters, burying, ..Dead::default() }
    }

    /// The same where what was redriven comes in its turn.
    pub(super) fn none_held_back(self) -> Dead {
        Dead { held_back: BTreeSet::new(), ..self }
    }

    /// The same where everything is to be delivered anew: those that die again get letters again.
    pub(super) fn after_reset(&self) -> Dead {
        let burying = self.burying.last().map_or(0, |dying| dying.letter);
        let (deliveries_max, in_flight_max) = (self.deliveries_max, self.in_flight_max);
        Dead {
            deliveries_max,
            in_flight_max,
            letters: self.letters.max(burying),
            ..Dead::default()
        }
    }

    /// The dead: offset and number of the letter.
    pub(super) fn letters(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.dead.iter().map(|(&offset, &letter)| (offset, letter))
    }

    /// How many letters were written.
    pub(super) fn count(&self) -> u64 {
        self.letters
    }

    /// Whether deliveries are counted against a limit.
    pub(super) fn is_limited(&self) -> bool {
        self.deliveries_max > 0
    }

    /// Whether an event with so many deliveries is not to be delivered again.
    pub(super) fn is_last(&self, attempts: u32) -> bool {
        self.deliveries_max > 0 && attempts >= self.deliveries_max
    }

    /// The last delivery of this event has ended: gives the phase it is in now.
    pub(super) fn dies(&mut self, offset: u64, attempts: u32, cause: Cause) -> Phase {
        let dying = Dying { offset, attempts, cause, reason: None, letter: 0, origin: None };
        self.dying.insert(offset, dying);
        Phase::Dying
    }

    /// It was acknowledged.
    pub(super) fn forget(&mut self, offset: u64) {
        self.dying.remove(&offset);
        self.reasons.remove(&offset);
        self.held_back.remove(&offset);
        self.unseen.remove(&offset);
    }

    /// How many wait to be let in.
    pub(super) fn held_back(&self) -> usize {
        self.held_back.len()
    }

    /// Whether it was redriven and no socket has taken it since.
    pub(super) fn is_unseen(&self, offset: u64) -> bool {
        self.unseen.contains(&offset)
    }

    /// What was redriven behind `cursor` up to `until`, and not taken by a socket since.
    pub(super) fn unseen_behind(&self, cursor: u64, until: u64) -> Vec<u64> {
        let behind = self.unseen.range(cursor.saturating_add(1)..).copied();
        behind.take_while(|offset| *offset <= until).collect()
    }

    /// The cursor has passed what lies between these: nobody is to see it who is not among the wanted.
    pub(super) fn passed(&mut self, from: u64, to: u64, is_wanted: impl Fn(u64) -> bool) {
        for offset in self.unseen_behind(from, to) {
            if !is_wanted(offset) {
                self.unseen.remove(&offset);
            }
        }
    }

    /// It comes when there is room.
    pub(super) fn hold_back(&mut self, offset: u64) {
        self.held_back.insert(offset);
    }

    /// Redriven, and not taken by a socket since.
    pub(super) fn unseen(&self) -> impl Iterator<Item = u64> + '_ {
        self.unseen.iter().copied()
    }

    /// A socket has taken it.
    pub(super) fn seen(&mut self, offset: u64) {
        self.unseen.remove(&offset);
    }

    /// The commit has made it dead. Gives the one that is not known one by one any more.
    fn bury(&mut self, offset: u64, letter: u64) -> Option<u64> {
        self.dead.insert(offset, letter);
        self.letters = self.letters.max(letter);
        let is_over = self.dead.len() > DEAD_MAX;
        let oldest = self.dead.iter().min_by_key(|(_, letter)| **letter).filter(|_| is_over);
        let oldest = oldest.map(|(&oldest, _)| oldest)?;
        self.dead.remove(&oldest);
        Some(oldest)
    }
}

impl DurableState {
    /// How often an event may be delivered, and how many may be outstanding; 0 is without limit.
    pub fn set_limits(&mut self, deliveries_max: u32, in_flight_max: usize) {
        self.dead.deliveries_max = deliveries_max;
        self.dead.in_flight_max = in_flight_max;
    }

    /// A nack gave this reason: it is kept, cut to a bound, until the event is settled.
    pub fn keep_reason(&mut self, offset: u64, reason: &str) {
        if !self.outstanding.contains_key(&offset) {
            return;
        }
        let reasons = &mut self.dead.reasons;
        if reasons.len() >= REASONS_MAX && !reasons.contains_key(&offset) {
            reasons.pop_first();
        }
        let bytes = (0..=reason.len().min(REASON_BYTES_MAX)).rev();
        let cut = bytes.into_iter().find_map(|at| reason.get(..at)).unwrap_or_default();
        reasons.insert(offset, cut.into());
    }

    /// Whether the letter of this event is in the log, and it was not redriven since.
    pub fn is_dead(&self, offset: u64) -> bool {
        self.dead.dead.contains_key(&offset)
    }

    /// Whether this letter is of an event that is dead: the newest one of it, or of one that is not known one by one
    /// any more.
    pub fn is_about_dead(&self, letter: &DeadLetter) -> bool {
        match self.dead.dead.get(&letter.offset) {
            Some(newest) => *newest == letter.letter,
            None => self.is_skipped(letter.offset),
        }
    }

    /// The dead: offset and number of the letter.
    pub fn dead(&self) -> &BTreeMap<u64, u64> {
        &self.dead.dead
    }

    /// Whether letters are to be written.
    pub fn has_dying(&self) -> bool {
        !self.dead.dying.is_empty() || !self.dead.burying.is_empty()
    }

    /// What is dying, oldest first.
    #[cfg(test)]
    pub fn dying(&self) -> impl Iterator<Item = u64> {
        self.dead.dying.values().map(|dying| dying.offset)
    }

    /// Some of the dying that nobody has looked up, oldest first.
    pub fn to_address(&self, max: usize) -> Vec<u64> {
        let dying = self.dead.dying.values().filter(|dying| dying.origin.is_none());
        dying.take(max).map(|dying| dying.offset).collect()
    }

    /// Topic and id of a dying event, `None` where it cannot be read: its letter can be written.
    pub fn address(&mut self, offset: u64, origin: Option<(String, String)>) {
        if let Some(dying) = self.dead.dying.get_mut(&offset) {
            dying.origin = Some(origin);
        }
    }

    /// Takes up to `max` of the dying into the commit that begins now. Gives their letters; what is to be
    /// remembered then is what [`DurableState::after_burial`] says.
    pub(in crate::broker) fn begin_burial(&mut self, max: usize) -> &[Dying] {
        let ready = self.dead.dying.values().filter(|dying| dying.origin.is_some());
        let offsets: Vec<u64> = ready.take(max).map(|dying| dying.offset).collect();
        let dead = &mut self.dead;
        let mut letter = dead.letters;
        for mut dying in offsets.iter().filter_map(|offset| dead.dying.remove(offset)) {
            letter += 1;
            dying.letter = letter;
            dying.reason = dead.reasons.get(&dying.offset).cloned();
            dead.burying.push(dying);
        }
        &self.dead.burying
    }

    /// The state as it is when the commit that has the letters is durable.
    pub fn after_burial(&self) -> DurableState {
        let mut after = self.clone();
        after.end_burial(true);
        after
    }

    /// The commit is durable, or has failed. Gives what died.
    pub(in crate::broker) fn end_burial(&mut self, is_durable: bool) -> Vec<Cause> {
        let burying = std::mem::take(&mut self.dead.burying);
        let mut died = Vec::new();
        for dying in burying {
            let offset = dying.offset;
            if is_durable {
                died.push(dying.cause);
                // Also where an ack came meanwhile: the letter is written.
                self.ack(offset);
                if let Some(oldest) = self.dead.bury(offset, dying.letter) {
                    self.skipped.insert(oldest, oldest);
                }
            } else if self.outstanding.contains_key(&offset) {
                self.dead.dying.insert(offset, dying);
            }
        }
        died
    }

    /// An event that is dead or was skipped is to be delivered again, as if for the first time. False when it is
    /// neither, or when too many ranges would have to be remembered.
    pub fn redrive(&mut self, offset: u64) -> bool {
        let ranges = self.acked.len() + self.outstanding.len();
        let is_passed = self.is_dead(offset) || self.is_skipped(offset);
        if ranges.max(self.dead.unseen.len()) >= RANGES_MAX || !is_passed {
            return false;
        }
        self.dead.dead.remove(&offset);
        self.skipped.remove(offset);
        self.dead.unseen.insert(offset);
        let is_above = offset > self.cursor;
        if is_above {
            self.acked.remove(offset);
        }
        if is_above && !self.by_lane {
            // It comes in its turn.
            return true;
        }
        // Its lane has passed it.
        self.outstanding.insert(offset, Outstanding { taken: true, ..Outstanding::waiting(0, 0) });
        self.dead.held_back.insert(offset);
        true
    }

    /// How many may be outstanding.
    fn in_flight_max(&self) -> usize {
        match self.dead.in_flight_max {
            0 => usize::MAX,
            max => max,
        }
    }

    /// Whether something was redriven that there is room for.
    pub(super) fn may_let_in(&self) -> bool {
        !self.dead.held_back.is_empty() && self.outstanding() < self.in_flight_max()
    }

    /// Lets in what was redriven, as far as there is room.
    pub(super) fn let_in(&mut self) {
        if self.dead.held_back.is_empty() {
            return;
        }
        for _ in self.outstanding()..self.in_flight_max() {
            let Some(offset) = self.dead.held_back.pop_first() else { return };
            self.due.insert(offset);
        }
    }
}

#[cfg(test)]
mod tests;
