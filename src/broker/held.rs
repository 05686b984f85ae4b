//! A durable subscription that is in use: its state, and the sessions that are attached to it.
//!
//! - It is in memory while a session is attached, a lease runs or an ack waits for its commit; the ledger
//!   has it otherwise.
//! - `exclusive`: one holder, a session or the HTTP fetchers together; a newer one takes over.
//! - `mirror`: every session reads for itself from the floor; nothing is leased.

use std::{sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tidings_proto::{
    Cursor, Mode, Offset,
    control::{AckState, DurableSpec},
};

use super::{
    durable::{Cause, DurableState, Dying, Redelivery},
    error::AckError,
    interest::Entry,
    letters::Graves,
    selection::{Selection, has_expired},
};
use crate::{clock, log::Stored};

/// A durable subscription in use.
#[derive(Debug)]
pub struct Durable {
    /// How it was made.
    pub spec: Arc<DurableSpec>,
    /// When events come again.
    pub redelivery: Redelivery,
    graves: Arc<Graves>,
    held: Mutex<Held>,
}

/// What changes about it.
#[derive(Debug)]
pub struct Held {
    /// What is delivered and acknowledged.
    pub state: DurableState,
    holder: Holder,
    sessions: Vec<(Token, Arc<Entry>)>,
    last_token: Token,
    deleted: bool,
    /// Its state is to be in a commit before it may be put away.
    to_save: bool,
    /// What it has become by a change of its options.
    successor: Option<Arc<Durable>>,
    /// The floor that is on the disk: what sessions of a mirror are told.
    durable_floor: Cursor,
}

/// Names one attachment of a session to a durable.
pub type Token = u64;

/// Who gets the events of an exclusive durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// A session.
    Session(Token),
    /// Those who fetch over HTTP.
    Fetch,
}

/// What is acknowledged.
#[derive(Clone, Debug)]
pub enum Target {
    /// All up to and including this.
    UpTo(Offset),
    /// Just these.
    These(Vec<Offset>),
}

impl Durable {
    /// Takes it into use, as the ledger has it.
    pub(super) fn new(spec: Arc<DurableSpec>, acks: &AckState, graves: &Arc<Graves>) -> Durable {
        let redelivery = Redelivery {
            ack_wait_ms: spec.options.ack_wait_ms,
            backoff_ms: spec.options.backoff_ms.clone(),
        };
        let (wall_ms, now_ms) = (clock::now().as_millis(), clock::monotonic_ms());
        // What was due in the past is due now.
        let from_wall =
            |at: u64| at.checked_sub(wall_ms).map_or(0, |left| now_ms.saturating_add(left));
        let mut state = DurableState::restore(acks, from_wall);
        if spec.options.mode == Mode::Mirror {
            state.forget_leases();
        }
        set_limits(&mut state, &spec);
        let held = Held {
            durable_floor: state.floor(),
            state,
            holder: Holder::Nobody,
            sessions: Vec::new(),
            last_token: 0,
            deleted: false,
            to_save: false,
            successor: None,
        };
        Durable { spec, redelivery, graves: graves.clone(), held: Mutex::new(held) }
    }

    /// The same durable with changed options: its sessions are told and attach again, what it has
    /// delivered and acknowledged stays.
    pub fn changed(&self, spec: Arc<DurableSpec>) -> Arc<Durable> {
        let mut old = self.lock();
        old.state.release();
        let changed = Arc::new(Durable::new(spec, &AckState::default(), &self.graves));
        let mut new = changed.lock();
        new.state = old.state.clone();
        if changed.is_mirror() {
            new.state.forget_leases();
        }
        set_limits(&mut new.state, &changed.spec);
        new.durable_floor = old.durable_floor;
        drop(new);
        // From here on nothing is taken by the old one, so nothing is missing in the new one.
        old.deleted = true;
        old.successor = Some(changed.clone());
        old.wake_all();
        drop(old);
        changed.tell_graves();
        changed
    }

    /// What is to be remembered of it.
    pub fn to_ack_state(&self) -> AckState {
        self.ack_state_of(&self.lock().state)
    }

    fn ack_state_of(&self, state: &DurableState) -> AckState {
        let (wall_ms, now_ms) = (clock::now().as_millis(), clock::monotonic_ms());
        let to_wall = |at: u64| wall_ms.saturating_add(at.saturating_sub(now_ms));
        state.to_ack_state(&self.spec.name, self.spec.number, to_wall)
    }

    /// What a commit that begins now is to have of it: its state, and up to `letters_max` dead letters that
    /// the state counts as written. [`Durable::committed`] follows.
    pub(super) fn begin_commit(&self, letters_max: usize) -> (AckState, Vec<Dying>) {
        let mut held = self.lock();
        held.to_save = false;
        // What was deleted writes nothing more; what was changed writes as what it has become.
        let max = if held.deleted { 0 } else { letters_max };
        let letters = held.state.begin_burial(max).to_vec();
        let state = match letters.is_empty() {
            true => self.ack_state_of(&held.state),
            false => self.ack_state_of(&held.state.after_burial()),
        };
        (state, letters)
    }

    /// The commit is durable, with this floor, or it has failed. Gives what died with it.
    pub(super) fn committed(&self, floor: Option<Cursor>) -> Vec<Cause> {
        let mut held = self.lock();
        if let Some(successor) = held.successor.clone() {
            drop(held);
            return successor.committed(floor);
        }
        let died = held.state.end_burial(floor.is_some());
        if let Some(floor) = floor {
            self.floor_is_durable(&mut held, floor);
        }
        if !died.is_empty() {
            // There is room for more in flight now.
            held.wake_all();
        }
        drop(held);
        if floor.is_some() {
            // There may be more letters than one commit takes.
            self.tell_graves();
        }
        died
    }

    /// Has letters written, where some are to be.
    pub(super) fn tell_graves(&self) {
        if self.lock().state.has_dying() {
            self.graves.tell(&self.spec.name);
        }
    }

    /// An ack state with this floor is on the disk now.
    fn floor_is_durable(&self, held: &mut Held, floor: Cursor) {
        if floor > held.durable_floor {
            held.durable_floor = floor;
            if self.is_mirror() {
                held.wake_all();
            }
        }
    }

    /// Whether every session sees every event.
    pub fn is_mirror(&self) -> bool {
        self.spec.options.mode == Mode::Mirror
    }

    /// Its state, locked. Never hold it across an await.
    pub fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock()
    }

    /// A session attaches; of an exclusive durable it takes over what others had.
    pub fn attach(&self, entry: Arc<Entry>) -> (Token, Cursor) {
        let mut held = self.lock();
        held.last_token += 1;
        let token = held.last_token;
        if !self.is_mirror() {
            // What a fetcher has leased keeps running; what a socket had comes again at once.
            if held.holder != Holder::Fetch {
                held.state.release();
            }
            held.holder = Holder::Session(token);
            held.wake_all();
        }
        held.sessions.push((token, entry));
        let floor = held.state.floor();
        drop(held);
        self.tell_graves();
        (token, floor)
    }

    /// A session goes: what it had comes again at once.
    pub fn detach(&self, token: Token) {
        let mut held = self.lock();
        held.sessions.retain(|(other, _)| *other != token);
        if held.holder == Holder::Session(token) {
            held.holder = Holder::Nobody;
            let had = held.state.in_flight();
            held.state.release();
            if had > 0 && self.spec.options.max_deliveries > 0 {
                // How often they came is to be remembered, also where nobody comes back for long.
                held.to_save = true;
                self.graves.tell(&self.spec.name);
            }
        }
    }

    /// Somebody fetches over HTTP: a socket that held it is superseded, other fetchers are not.
    pub fn attach_fetch(&self, entry: Arc<Entry>) -> Token {
        let mut held = self.lock();
        if held.holder != Holder::Fetch && !self.is_mirror() {
            held.state.release();
            held.holder = Holder::Fetch;
            held.wake_all();
        }
        held.last_token += 1;
        let token = held.last_token;
        held.sessions.push((token, entry));
        drop(held);
        self.tell_graves();
        token
    }

    /// It was deleted: every session on it is told.
    pub fn delete(&self) {
        let mut held = self.lock();
        held.deleted = true;
        held.wake_all();
    }

    /// Takes acks. `from` is the session's token, or `None` over HTTP. Gives how long after its first
    /// delivery the oldest of the events is acknowledged, where that is known.
    ///
    /// # Errors
    /// [`AckError::Unknown`] when it was deleted or changed meanwhile; [`AckError::TooManyRanges`], with
    /// nothing taken beyond the bound.
    pub fn ack(&self, target: &Target, from: Option<Token>) -> Result<Option<Duration>, AckError> {
        let mut held = self.lock();
        self.check_alive(&held)?;
        if !held.may_ack(from) {
            return Ok(None);
        }
        let delivered_ms = match target {
            Target::UpTo(offset) => held.state.delivered_ms(..=offset.get()),
            Target::These(offsets) => offsets
                .iter()
                .min()
                .and_then(|oldest| held.state.delivered_ms(oldest.get()..=oldest.get())),
        };
        match target {
            Target::UpTo(offset) => held.state.ack_up_to(offset.get()),
            Target::These(offsets) => {
                for offset in offsets {
                    if !held.state.ack(offset.get()) {
                        return Err(AckError::TooManyRanges { max: super::durable::RANGES_MAX });
                    }
                }
            }
        }
        // There may be room for more in flight now.
        held.wake_all();
        let after_ms = delivered_ms.map(|then| clock::monotonic_ms().saturating_sub(then));
        Ok(after_ms.map(Duration::from_millis))
    }

    /// Lets events come again.
    ///
    /// # Errors
    /// [`AckError::Unknown`] when it was deleted or changed meanwhile.
    pub fn nack(
        &self,
        offsets: &[Offset],
        delay_ms: Option<u64>,
        reason: Option<&str>,
        from: Option<Token>,
    ) -> Result<(), AckError> {
        let mut held = self.lock();
        self.check_alive(&held)?;
        if held.may_ack(from) {
            let now_ms = clock::monotonic_ms();
            for offset in offsets {
                if let Some(reason) = reason {
                    held.state.keep_reason(offset.get(), reason);
                }
                held.state.nack(offset.get(), delay_ms, now_ms, &self.redelivery);
            }
            held.wake_all();
            drop(held);
            self.tell_graves();
        }
        Ok(())
    }

    /// Dead events are to be delivered again, all of them or these. Gives those that are.
    ///
    /// # Errors
    /// [`AckError::Unknown`] when it was deleted or changed meanwhile.
    pub(super) fn redrive(&self, offsets: Option<&[Offset]>) -> Result<Vec<u64>, AckError> {
        let mut held = self.lock();
        self.check_alive(&held)?;
        let mut offsets: Vec<u64> = match offsets {
            Some(offsets) => offsets.iter().map(|offset| offset.get()).collect(),
            None => held.state.dead().keys().copied().collect(),
        };
        offsets.retain(|offset| held.state.redrive(*offset));
        held.wake_all();
        Ok(offsets)
    }

    /// Nobody may be attached: leases end all the same.
    pub(super) fn look_after(&self) {
        let mut held = self.lock();
        if held.sessions.is_empty() {
            held.state.ripen(clock::monotonic_ms());
        }
        drop(held);
        self.tell_graves();
    }

    fn check_alive(&self, held: &Held) -> Result<(), AckError> {
        match held.deleted {
            true => Err(AckError::Unknown(self.spec.name.clone())),
            false => Ok(()),
        }
    }
}

fn set_limits(state: &mut DurableState, spec: &DurableSpec) {
    let in_flight_max = usize::try_from(spec.options.max_in_flight).unwrap_or(usize::MAX);
    state.set_limits(spec.options.max_deliveries, in_flight_max);
}

/// Events of a durable that are being read for another delivery. Where that is given up half-way they are
/// due as before.
#[derive(Debug)]
pub(super) struct Leasing {
    durable: Arc<Durable>,
    offsets: Vec<u64>,
}

impl Leasing {
    /// These were given by [`DurableState::deliver_again`].
    pub(super) fn new(durable: Arc<Durable>, again: &[(u64, u32)]) -> Leasing {
        Leasing { durable, offsets: again.iter().map(|(offset, _)| *offset).collect() }
    }

    /// These are being read too.
    pub(super) fn add(&mut self, sent: &[(u64, u32)]) {
        self.offsets.extend(sent.iter().map(|(offset, _)| *offset));
    }

    /// All are on their way.
    pub(super) fn done(&mut self) {
        self.offsets.clear();
    }

    /// These of them were found, and these not looked at. Gives those that are still wanted, and whether
    /// more are due now.
    pub(super) fn taken(
        &mut self,
        mut events: Vec<Arc<Stored>>,
        again: &[(u64, u32)],
        left: &[Offset],
        selection: &Selection,
    ) -> (Vec<Arc<Stored>>, bool) {
        let now = clock::now();
        let filters = &self.durable.spec.options.filters;
        // What was delivered under other filters is not for whoever has these.
        events.retain(|event| {
            filters.matches(event.topic().as_str())
                && selection.wants(event)
                && !has_expired(event, now)
        });
        let looked = again.len().saturating_sub(left.len());
        let looked_at = again.get(..looked).unwrap_or(again);
        let mut held = self.durable.lock();
        held.state.ack_missing(looked_at, &events);
        held.state.give_back(left.iter().map(|offset| offset.get()));
        let more_due = held.state.next_due() == Some(0);
        drop(held);
        self.offsets = events.iter().map(|event| event.offset().get()).collect();
        (events, more_due)
    }
}

impl Drop for Leasing {
    fn drop(&mut self) {
        if !self.offsets.is_empty() {
            let mut held = self.durable.lock();
            held.state.give_back(self.offsets.drain(..));
            held.wake_all();
        }
    }
}

impl Held {
    /// How many sessions are attached.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Whether nobody uses it.
    pub fn is_idle(&self) -> bool {
        let is_saved = !self.to_save && !self.state.has_dying();
        self.sessions.is_empty() && self.state.in_flight() == 0 && is_saved
    }

    /// Whether this session still gets its events.
    pub fn is_held_by(&self, token: Token, mirror: bool) -> bool {
        !self.deleted && (mirror || self.holder == Holder::Session(token))
    }

    /// The floor that is on the disk.
    pub fn durable_floor(&self) -> Cursor {
        self.durable_floor
    }

    /// Who gets the events.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    fn may_ack(&self, from: Option<Token>) -> bool {
        match (from, self.holder) {
            (Some(token), Holder::Session(holder)) => token == holder,
            (Some(_), Holder::Fetch) => false,
            _ => true,
        }
    }

    fn wake_all(&self) {
        for (_, entry) in &self.sessions {
            entry.wake();
        }
    }
}
