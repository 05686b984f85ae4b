//! A durable subscription that is in use: its state, and the sessions that are attached to it.
//!
//! - It is in memory while a session is attached, a lease runs or an ack waits for its commit; the ledger
//!   has it otherwise.
//! - `exclusive`: one holder, a session or the HTTP fetchers together; a newer one takes over.
//! - `shared`: every session is a member and has its share of `max_in_flight`, the HTTP fetchers together have
//!   one. Whoever has room takes what comes next.
//! - `mirror`: every session reads for itself from the floor; nothing is leased.

mod acking;

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use tidings_proto::{
    Cursor, Mode, Offset,
    control::{AckState, DurableSpec},
    subscribe::{Order, PartitionBy},
};

use super::{
    durable::{Cause, DurableState, Dying, Redelivery},
    error::AckError,
    interest::Entry,
    lanes::Lanes,
    letters::Graves,
    members::Members,
    receipts::ReceiptQueue,
    snapshot::FirstState,
};
use crate::{
    clock,
    log::{Draft, Stored},
};

mod readers;
mod room;

pub use readers::FetchReader;

/// A durable subscription in use.
#[derive(Debug)]
pub struct Durable {
    /// How it was made.
    pub spec: Arc<DurableSpec>,
    /// When events come again.
    pub redelivery: Redelivery,
    /// What it has to tell publishers.
    pub(super) receipts: Arc<ReceiptQueue>,
    /// Of the events behind its floor none up to here is with receipts: an offset.
    no_receipts_until: AtomicU64,
    graves: Arc<Graves>,
    /// What it is given before all that follows, as long as that is being given out.
    pub(super) first_state: FirstState,
    held: Mutex<Held>,
}

/// What changes about it.
#[derive(Debug)]
pub struct Held {
    /// What is delivered and acknowledged.
    pub state: DurableState,
    holder: Holder,
    /// What is gone up to here was told to somebody.
    told_trimmed: Cursor,
    /// What waits, by priority; made when it is first asked for.
    lanes: Option<Box<Lanes>>,
    members: Members,
    last_token: Token,
    /// When the members look again, at the latest; `None`: when they are woken.
    alarm_ms: Option<u64>,
    deleted: bool,
    /// It begins elsewhere now: what those who were attached say of it is not about that.
    was_reset: bool,
    /// Nothing is delivered.
    paused: bool,
    /// What it has become by a change of its options.
    successor: Option<Arc<Durable>>,
    readers: readers::Readers,
    /// The floor that is on the disk: what sessions of a mirror are told.
    durable_floor: Cursor,
}

/// Names one attachment of a session to a durable; 0 is nobody's.
pub type Token = u64;

/// Who gets the events of an exclusive durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
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
    pub(super) fn new(
        spec: Arc<DurableSpec>,
        acks: &AckState,
        paused: bool,
        graves: &Arc<Graves>,
    ) -> Durable {
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
            told_trimmed: Cursor::START,
            lanes: None,
            members: Members::default(),
            last_token: 0,
            alarm_ms: None,
            deleted: false,
            was_reset: false,
            paused,
            successor: None,
            readers: readers::Readers::default(),
        };
        Durable {
            spec,
            redelivery,
            receipts: ReceiptQueue::new(),
            no_receipts_until: AtomicU64::new(0),
            graves: graves.clone(),
            first_state: FirstState::default(),
            held: Mutex::new(held),
        }
    }

    /// The same durable with changed options: its sessions are told and attach again, what it has
    /// delivered and acknowledged stays.
    pub fn changed(&self, spec: Arc<DurableSpec>) -> Arc<Durable> {
        let mut old = self.lock();
        old.state.release_unfailed();
        let mut changed = Durable::new(spec, &AckState::default(), old.paused, &self.graves);
        changed.receipts = self.receipts.clone();
        let mut new = changed.lock();
        new.state = old.state.clone();
        if changed.is_mirror() {
            new.state.forget_leases();
        }
        let by = |durable: &Durable| durable.spec.options.partition_by;
        let is_ranked = changed.is_by_priority();
        if by(self) != by(&changed) || is_ranked && !self.is_by_priority() {
            // Of what was given out nobody knows the keys, or the lanes.
            new.state.look_again();
        }
        if !is_ranked {
            new.state.forget_ranks();
        }
        set_limits(&mut new.state, &changed.spec);
        new.durable_floor = old.durable_floor;
        drop(new);
        self.succeed_by(old, changed)
    }

    /// The same durable from `floor` on. Acks of sessions that were attached before are refused.
    pub fn reset(&self, floor: Cursor) -> Arc<Durable> {
        let mut old = self.lock();
        let spec = self.spec.clone();
        let mut reset = Durable::new(spec, &AckState::default(), old.paused, &self.graves);
        reset.receipts = self.receipts.clone();
        let mut new = reset.lock();
        new.state = old.state.after_reset(floor);
        new.durable_floor = floor;
        drop(new);
        old.was_reset = true;
        self.succeed_by(old, reset)
    }

    fn succeed_by(&self, mut old: MutexGuard<'_, Held>, next: Durable) -> Arc<Durable> {
        let next = Arc::new(next);
        // From here on nothing is taken by the old one, so nothing is missing in the new one.
        old.deleted = true;
        old.successor = Some(next.clone());
        old.wake_all();
        drop(old);
        next.tell_graves();
        next
    }

    /// Whether anything is delivered from here on.
    pub fn pause(&self, paused: bool) {
        let mut held = self.lock();
        held.paused = paused;
        held.wake_all();
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

    /// What a commit that begins now is to have of it: its state, up to `letters_max` dead letters that the
    /// state counts as written, and the receipts of what it counts as acknowledged. [`Durable::committed`]
    /// follows, and [`ReceiptQueue::end`].
    pub(super) fn begin_commit(&self, letters_max: usize) -> (AckState, Vec<Dying>, Vec<Draft>) {
        let mut held = self.lock();
        held.state.set_uncounted(false);
        // What was deleted writes nothing more; what was changed writes as what it has become.
        let max = if held.deleted { 0 } else { letters_max };
        let letters = held.state.begin_burial(max).to_vec();
        let state = match letters.is_empty() {
            true => self.ack_state_of(&held.state),
            false => self.ack_state_of(&held.state.after_burial()),
        };
        (state, letters, self.receipts.begin(&self.spec.name))
    }

    /// Of the events behind its floor none up to here is with receipts, as far as was looked.
    pub(super) fn no_receipts_until(&self) -> Cursor {
        Cursor::new(self.no_receipts_until.load(Ordering::Relaxed))
    }

    /// That was looked up, from the floor or [`Durable::no_receipts_until`] on.
    pub(super) fn found_no_receipts(&self, until: Cursor) {
        self.no_receipts_until.fetch_max(until.get(), Ordering::Relaxed);
    }

    /// The commit is durable, with this floor, or it has failed. Gives what died with it.
    pub(super) fn committed(&self, floor: Option<Cursor>) -> Vec<Cause> {
        let mut held = self.lock();
        if let Some(successor) = held.successor.clone() {
            drop(held);
            return successor.committed(floor);
        }
        let died = held.state.end_burial(floor.is_some());
        if floor.is_none() {
            // What it had counted is tried again.
            held.state.set_uncounted(true);
        }
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

    /// Has letters and counts of deliveries written, where some are to be.
    pub(super) fn tell_graves(&self) {
        if self.lock().has_news() {
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

    /// Whether higher priorities go first.
    pub fn is_by_priority(&self) -> bool {
        self.spec.options.order == Order::Priority
    }

    /// Whether its sessions share the events.
    pub fn is_shared(&self) -> bool {
        self.spec.options.mode == Mode::Shared
    }

    /// Its state, locked. Never hold it across an await.
    pub fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock()
    }

    /// A session attaches; of an exclusive durable it takes over what others had. It may be the reader by this name, to
    /// which the answer to its last fetch did not come.
    pub fn attach(&self, entry: Arc<Entry>, lost_reader: Option<&str>) -> (Token, Cursor) {
        let mut held = self.lock();
        let token = held.next_token();
        match self.spec.options.mode {
            Mode::Mirror => {}
            // The shares of the others are smaller now.
            Mode::Shared => held.wake_all(),
            Mode::Exclusive => {
                // What a fetcher has leased keeps running; what a socket had comes again at once.
                if held.holder != Holder::Fetch {
                    held.state.release();
                }
                held.holder = Holder::Session(token);
                held.wake_all();
            }
        }
        if let Some(name) = lost_reader {
            held.reads_by(token, name, true);
        }
        held.members.add(token, entry, false);
        let floor = held.state.floor();
        drop(held);
        self.tell_graves();
        (token, floor)
    }

    /// A session goes: what it had comes again at once.
    pub fn detach(&self, token: Token) {
        let mut held = self.lock();
        let is_socket = held.members.remove(token) == Some(false);
        if self.is_shared() {
            // The shares of the others are larger now.
            held.wake_all();
        }
        let is_releasing = match self.spec.options.mode {
            Mode::Mirror => false,
            Mode::Shared => is_socket,
            Mode::Exclusive => held.holder == Holder::Session(token),
        };
        if is_releasing {
            held.holder = Holder::Nobody;
            held.state.release_of(Some(token));
            held.wake_all();
        }
        drop(held);
        // How often they came is to be remembered, also where nobody comes back for long.
        self.tell_graves();
    }

    /// Everything up to `passed` has been looked at, and these of it are wanted: gives those that go to this
    /// session, with the number of the delivery.
    pub(super) fn deliver_new(
        &self,
        held: &mut Held,
        events: &[Arc<Stored>],
        passed: Cursor,
        token: Token,
    ) -> Vec<(u64, u32)> {
        if self.spec.options.partition_by == Some(PartitionBy::Key) {
            held.state.note_keys(events.iter().filter_map(|event| key_of(event)));
        }
        let offsets: Vec<u64> = events.iter().map(|event| event.offset().get()).collect();
        held.state.deliver_new(&offsets, passed, clock::monotonic_ms(), token)
    }

    /// It was deleted: every session on it is told.
    pub fn delete(&self) {
        let mut held = self.lock();
        held.deleted = true;
        held.wake_all();
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
                if self.is_elsewhere(&held, *offset, from) {
                    continue;
                }
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
        if let Some(lowest) = offsets.iter().min() {
            // Their receipts are looked for again.
            self.no_receipts_until.fetch_min(lowest.saturating_sub(1), Ordering::Relaxed);
        }
        held.wake_all();
        Ok(offsets)
    }

    /// Nobody may be attached: leases end all the same.
    pub(super) fn look_after(&self) {
        let mut held = self.lock();
        if held.members.is_empty() {
            held.state.ripen(clock::monotonic_ms());
        }
        drop(held);
        self.tell_graves();
    }

    /// Whether another member has it now: it is not this one's to settle.
    fn is_elsewhere(&self, held: &Held, offset: Offset, from: Option<Token>) -> bool {
        let from = from.filter(|_| self.is_shared());
        from.is_some_and(|token| held.state.is_elsewhere(offset.get(), token))
    }

    fn check_alive(&self, held: &Held) -> Result<(), AckError> {
        match (held.deleted, held.was_reset) {
            (_, true) => Err(AckError::Reset),
            (true, false) => Err(AckError::Unknown(self.spec.name.clone())),
            (false, false) => Ok(()),
        }
    }
}

/// An event's offset, and what stands for its topic and key. Two keys that have the same number only wait for each
/// other.
fn key_of(event: &Stored) -> Option<(u64, u64)> {
    let record = event.record();
    if record.key.is_empty() {
        return None;
    }
    let mut hasher = std::hash::DefaultHasher::new();
    (record.topic.as_str(), &record.key).hash(&mut hasher);
    Some((event.offset().get(), hasher.finish()))
}

fn set_limits(state: &mut DurableState, spec: &DurableSpec) {
    let in_flight_max = usize::try_from(spec.options.max_in_flight).unwrap_or(usize::MAX);
    state.set_limits(spec.options.max_deliveries, in_flight_max);
    state.set_by_lane(spec.options.order == Order::Priority);
}

impl Held {
    /// How many sessions are attached.
    pub fn sessions(&self) -> usize {
        self.members.len()
    }

    /// Whether somebody was told that what is up to here is gone.
    pub(super) fn has_told(&self, trimmed: Cursor) -> bool {
        trimmed <= self.told_trimmed
    }

    /// Whether nobody was told that what is up to here is gone; from here on somebody is.
    pub(super) fn is_news(&mut self, trimmed: Cursor) -> bool {
        let is_news = trimmed > self.told_trimmed;
        self.told_trimmed = self.told_trimmed.max(trimmed);
        is_news
    }

    /// Whether nothing is delivered.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether nobody uses it.
    pub fn is_idle(&self) -> bool {
        self.members.is_empty() && self.state.in_flight() == 0 && !self.has_news()
    }

    /// Whether it has something to write that nobody waits for: letters, or how often events were delivered.
    pub(super) fn has_news(&self) -> bool {
        self.state.has_dying() || self.state.is_uncounted()
    }

    /// Whether this session still gets its events.
    pub fn is_held_by(&self, token: Token, mode: Mode) -> bool {
        !self.deleted
            && match mode {
                Mode::Exclusive => self.holder == Holder::Session(token),
                Mode::Shared | Mode::Mirror => true,
            }
    }

    /// Whether those who fetch over HTTP still get its events.
    pub fn is_fetched(&self, mode: Mode) -> bool {
        !self.deleted && (mode != Mode::Exclusive || self.holder == Holder::Fetch)
    }

    /// Among how many the events are shared; those who fetch are one.
    pub fn members(&self) -> usize {
        let sockets = self.members.sockets();
        let fetching = sockets.len() < self.members.len() || self.state.in_flight_but(&sockets) > 0;
        let sockets = sockets.len();
        (sockets + usize::from(fetching)).max(1)
    }

    /// A socket has taken what was on its way: leases end then, also for those who sleep longer.
    pub fn sent(&mut self, now_ms: u64, redelivery: &Redelivery, token: Token) {
        self.state.sent(now_ms, redelivery, token);
        let due = self.state.next_due();
        if due.is_some_and(|due| self.alarm_ms.is_none_or(|alarm| due < alarm)) {
            self.alarm_ms = due;
            if self.members.len() > 1 {
                self.wake_all();
            }
        }
    }

    fn next_token(&mut self) -> Token {
        self.last_token += 1;
        self.last_token
    }

    /// The floor that is on the disk.
    pub fn durable_floor(&self) -> Cursor {
        self.durable_floor
    }

    fn may_ack(&self, from: Option<Token>) -> bool {
        match (from, self.holder) {
            (Some(token), Holder::Session(holder)) => token == holder,
            (Some(_), Holder::Fetch) => false,
            _ => true,
        }
    }

    pub(super) fn wake_all(&self) {
        self.members.wake_all();
    }
}
