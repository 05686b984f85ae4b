//! What the words of docs/protocol.md mean: the log as a list, and what became of each event for one durable.
//!
//! It does not say what comes next: [`judge`] says whether what came was right, and whether something is owed. Nobody is
//! owed what is *void*: gone, expired or replaced. When the broker finds that out is its own matter.

mod judge;

use std::collections::BTreeMap;

use Status::{Dead, Done, Dying, Held, Leased, Open, Sending};
use tidings_proto::{Mode, Priority, SubscribeOptions, subscribe::Order};

pub(super) type Judged = Result<(), String>;
/// A session, or somebody who fetches: those are from [`FETCHERS`] on. 0 is nobody.
pub(super) type Owner = u64;
pub(super) const FETCHERS: Owner = 1 << 32;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Status {
    #[default]
    Open, // To be delivered, not before `due`.
    Held,    // Redriven: to be delivered when there is room.
    Sending, // On its way to `owner`.
    Leased,  // With `owner` until `due`.
    Dying,   // Its letter is to be written.
    Dead,
    Done,
}

/// An event of the log, and what became of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Item {
    pub(super) offset: u64,
    pub(super) topic: &'static str,
    pub(super) key: u8, // 0 is none.
    pub(super) priority: Priority,
    pub(super) at: u64,
    pub(super) expires: Option<u64>,
    pub(super) gone: bool, // Retention or an erasure has taken it out.
    pub(super) void: bool,
    pub(super) maybe: bool,  // Void or not: it was not wanted for a while.
    pub(super) missed: bool, // It is gone, and was not void before.
    pub(super) status: Status,
    pub(super) attempts: u32,
    pub(super) owner: Owner,
    pub(super) due: u64,
    pub(super) taken: bool,   // It had its turn.
    pub(super) unseen: bool,  // Redriven, and no socket has taken it since.
    pub(super) free: bool,    // Redriven: its key counts no longer.
    pub(super) skipped: bool, // A reset has passed it without an ack.
}

impl Item {
    fn anew(&self) -> Item {
        let Item { offset, topic, key, priority, at, expires, gone, missed, skipped, .. } = *self;
        Item { offset, topic, key, priority, at, expires, gone, missed, skipped, ..Item::default() }
    }
    fn owner(&self) -> Option<Owner> {
        matches!(self.status, Sending | Leased).then_some(self.owner)
    }
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.status, Done | Dead)
    }
    fn is_due(&self, now: u64) -> bool {
        self.status == Held || self.status == Open && self.due <= now
    }
    fn has_slot(&self, other: &Item) -> bool {
        (self.key, self.topic) == (other.key, other.topic)
    }
}

fn has_expired(item: &Item, now: u64) -> bool {
    item.expires.is_some_and(|at| at <= now)
}

fn wants(options: &SubscribeOptions, item: &Item) -> bool {
    let min = options.min_priority.unwrap_or(Priority::Low);
    options.filters.matches(item.topic) && item.priority >= min
}

/// A durable subscription.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) options: SubscribeOptions,
    pub(super) items: Vec<Item>, // By offset.
    pub(super) paused: bool,
    pub(super) state_until: u64, // Events up to here are a state that comes first.
    pub(super) told: u64,        // Up to here somebody was told of what is gone.
    pub(super) since: u64,       // Receipts are of what is behind here.
    saved: (Vec<Item>, u64),     // As they come back after a kill, and `told`.
    life: Life,
}

/// What a kill, a reset and a change forget.
#[derive(Clone, Debug, Default)]
struct Life {
    holder: Owner,
    sockets: BTreeMap<Owner, (u64, u64)>, // How far each of a mirror has come, and its `told`.
    since_oldest: u32,
    looked: u64, // Up to here there was nothing for somebody.
}

impl Model {
    pub(super) fn new(options: SubscribeOptions, items: Vec<Item>, state_until: u64) -> Model {
        let (saved, life) = ((items.clone(), 0), Life::default());
        Model { options, items, paused: false, state_until, told: 0, since: 0, saved, life }
    }

    pub(super) fn attach(&mut self, owner: Owner) {
        if self.options.mode == Mode::Exclusive {
            let is_ousted = self.life.holder < FETCHERS;
            self.end(|item| is_ousted && item.owner().is_some());
            self.life.holder = owner;
        }
        if owner < FETCHERS {
            self.life.sockets.insert(owner, (0, self.told));
        }
    }

    pub(super) fn detach(&mut self, owner: Owner) {
        self.end(|item| item.owner() == Some(owner));
        self.life.sockets.remove(&owner);
        self.life.holder = if self.life.holder == owner { 0 } else { self.life.holder };
    }

    pub(super) fn ripen(&mut self, now: u64) {
        let has_time = |item: &Item| item.status == Leased || item.status == Open && item.taken;
        self.end(|item| has_time(item) && item.due <= now);
    }

    /// Deliveries and waits end. Of what was not sent nobody can say that it was delivered.
    fn end(&mut self, ends: impl Fn(&Item) -> bool) {
        let max = self.options.max_deliveries;
        for item in self.items.iter_mut().filter(|item| ends(item)) {
            let is_last = max > 0 && item.attempts >= max;
            item.attempts -= u32::from(is_last && item.status == Sending);
            item.status = if is_last && item.status == Leased { Dying } else { Open };
            item.due = 0;
        }
    }

    pub(super) fn sent(&mut self, owner: Owner, now: u64) {
        let is_its = |item: &&mut Item| item.status == Sending && item.owner == owner;
        for item in self.items.iter_mut().filter(is_its) {
            let wait_ms = self.options.ack_wait_ms;
            item.due = if wait_ms > 0 { now + wait_ms } else { u64::MAX };
            (item.status, item.unseen) = (Leased, false);
        }
    }

    /// Whether this one may say something of what is with another, or with this one.
    pub(super) fn may_settle(&self, has: Option<Owner>, from: Option<Owner>) -> bool {
        let holder = Some(self.life.holder).filter(|holder| *holder > 0);
        let is_shared = self.options.mode == Mode::Shared;
        from.is_none()
            || [holder, has.filter(|_| is_shared)].iter().all(|it| it.is_none() || *it == from)
    }

    pub(super) fn ack(&mut self, offsets: &[u64], up_to: bool, from: Option<Owner>) {
        for at in 0..self.items.len() {
            let may_settle = self.may_settle(self.items[at].owner(), from);
            let item = &mut self.items[at];
            let is_passed = up_to && item.offset <= offsets[0] && may_settle;
            let is_named = is_passed && !item.unseen || !up_to && offsets.contains(&item.offset);
            if is_named && may_settle && item.is_open() {
                item.status = Done;
            } else if is_passed && item.unseen && item.status == Open && !item.taken {
                (item.status, item.free) = (Held, true);
            }
            item.taken |= is_passed;
        }
    }

    pub(super) fn nack(&mut self, offset: u64, ms: Option<u64>, now: u64, from: Option<Owner>) {
        let Some(at) = self.at(offset) else { return };
        let (item, is_last) = (&self.items[at], self.is_last(&self.items[at]));
        let is_known = item.status == Open && (item.taken || item.attempts > 0) && !item.unseen;
        if !(is_known || item.owner().is_some()) || !self.may_settle(item.owner(), from) {
            return;
        }
        let steps = &self.options.backoff_ms;
        let step = steps.get(item.attempts.saturating_sub(1) as usize).or(steps.last()).copied();
        let item = &mut self.items[at];
        item.due = ms.or(step).filter(|ms| *ms > 0).map_or(0, |ms| now + ms);
        item.status = if is_last && item.taken { Dying } else { Open };
    }

    /// Behind `cursor` it comes in its turn, but for lanes, which have passed it.
    pub(super) fn redrive(&mut self, offset: u64, cursor: u64) {
        let is_passed = offset <= cursor || self.options.order == Order::Priority;
        for item in self.items.iter_mut().filter(|item| item.offset == offset) {
            let (taken, unseen, free, void) = (is_passed, true, is_passed, item.void);
            let (status, skipped) = (if is_passed { Held } else { Open }, false);
            *item = Item { status, taken, unseen, free, void, skipped, ..item.anew() };
        }
    }

    pub(super) fn reset(&mut self, floor: u64) {
        for item in &mut self.items {
            let taken = item.offset <= floor;
            // Of what was gone a letter may be in the log that a kill came before.
            let skipped = taken && (item.skipped || item.gone || item.status != Done);
            *item = Item { status: if taken { Done } else { Open }, taken, skipped, ..item.anew() };
        }
        (self.state_until, self.told, self.life) = (0, 0, Life::default());
    }

    /// Other options hold, for all that was not passed: what was not wanted is `done` where it had its turn. Of what is gone
    /// whoever looks now is told, as other filters may have found more.
    pub(super) fn change(&mut self, options: SubscribeOptions, done: impl Fn(u64) -> bool) {
        // Nobody has failed: what came for the last time comes once more.
        let out = self.items.iter_mut().filter(|item| item.status == Leased);
        out.for_each(|item| item.status = Sending);
        self.end(|item| item.owner().is_some());
        let old = std::mem::replace(&mut self.options, options);
        (self.told, self.life) = (0, Life::default());
        for at in 0..self.items.len() {
            let was = wants(&old, &self.items[at]);
            let is_wanted = self.wants(&self.items[at]);
            // Given for the last time before a kill: its turn finds that, and lanes are not told apart by what came next.
            let was_last = self.is_last(&self.items[at]) && !self.items[at].gone;
            let dies = was && was_last && self.options.order == Order::Priority;
            let is_mirror = self.options.mode == Mode::Mirror;
            let item = &mut self.items[at];
            // What the floor of a mirror has passed is over, also where a kill came since.
            if (!item.taken || is_mirror) && item.is_open() && done(item.offset) {
                (item.status, item.taken) = (if dies { Dead } else { Done }, true);
            }
            // What was known of it may be known no more, or has waited all the while.
            let is_known = item.taken || item.attempts > 0;
            item.void = (is_known || was || item.void) && !is_wanted || is_known && item.void;
            item.maybe = item.void && is_wanted;
        }
    }

    /// A commit: letters are written, and what was said is in the log; everything up to `cursor` had its turn.
    pub(super) fn commit(&mut self, floor: u64, cursor: u64) {
        let dying = |item: &&mut Item| item.status == Dying;
        self.items.iter_mut().filter(dying).for_each(|item| item.status = Dead);
        let is_limited = self.options.max_deliveries > 0;
        let save = |item: &Item| {
            let counts = item.attempts >= if is_limited && item.owner().is_none() { 1 } else { 2 };
            let due = if item.status == Open { item.due } else { 0 };
            let attempts = if counts || due > 0 { item.attempts } else { 0 };
            let taken = item.offset <= floor;
            let is_passed = item.offset <= cursor && !self.wants(item) && !item.taken;
            let status = match item.is_open() {
                true if is_passed => Done,
                true => Open,
                false => item.status,
            };
            let unseen = item.unseen && status == Open;
            Item { status, attempts, due, taken, unseen, ..item.anew() }
        };
        self.saved = (self.items.iter().map(save).collect(), self.told);
    }

    /// What is in the log is all there is; how often events were delivered is.
    pub(super) fn put_away(&mut self) {
        let least = if self.options.max_deliveries > 0 { 1 } else { 2 };
        for (saved, item) in self.saved.0.iter_mut().zip(&self.items) {
            if item.is_open() && item.attempts >= least {
                saved.attempts = item.attempts;
            }
        }
        self.restart();
    }

    /// The broker was killed and started again.
    pub(super) fn restart(&mut self) {
        for (at, item) in self.items.iter_mut().enumerate() {
            let saved = self.saved.0.get(at).cloned().unwrap_or_else(|| item.anew());
            let Item { gone, missed, void, maybe, .. } = *item;
            *item = Item { gone, missed, void, maybe, ..saved };
        }
        (self.told, self.life) = (self.saved.1, Life::default());
    }

    fn at(&self, offset: u64) -> Option<usize> {
        self.items.iter().position(|item| item.offset == offset)
    }

    pub(super) fn wants(&self, item: &Item) -> bool {
        wants(&self.options, item)
    }

    fn is_last(&self, item: &Item) -> bool {
        self.options.max_deliveries > 0 && item.attempts >= self.options.max_deliveries
    }

    pub(super) fn is_its(&self, owner: Owner) -> bool {
        let is_held = self.options.mode != Mode::Exclusive || self.life.holder == owner;
        self.life.sockets.contains_key(&owner) && is_held
    }
}
