//! What the words of docs/protocol.md mean: the log as a list, and what became of each event for one durable.
//!
//! It does not say what comes next: it says whether what came was right, and whether something is owed. Nobody is owed
//! what is *void*: gone, expired or replaced. When the broker finds that out is its own matter.

use std::{cmp::Reverse, collections::BTreeMap};

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
    pub(super) status: Status,
    pub(super) attempts: u32,
    pub(super) owner: Owner,
    pub(super) due: u64,
    pub(super) taken: bool,  // It had its turn.
    pub(super) unseen: bool, // Redriven, and no socket has taken it since.
    pub(super) free: bool,   // Redriven: its key counts no longer.
}

impl Item {
    fn anew(&self) -> Item {
        let Item { offset, topic, key, priority, at, expires, gone, .. } = *self;
        Item { offset, topic, key, priority, at, expires, gone, ..Item::default() }
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
    saved: (Vec<Item>, u64),     // As they come back after a kill, and `told`.
    life: Life,
}

/// What a kill, a reset and a change forget.
#[derive(Clone, Debug, Default)]
struct Life {
    holder: Owner,
    sockets: BTreeMap<Owner, (u64, u64)>, // How far each of a mirror has come, and its `told`.
    since_oldest: u32,
}

// What is said.
impl Model {
    pub(super) fn new(options: SubscribeOptions, items: Vec<Item>, state_until: u64) -> Model {
        let (saved, life) = ((items.clone(), 0), Life::default());
        Model { options, items, paused: false, state_until, told: 0, saved, life }
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
            }
            item.taken |= is_passed;
        }
    }

    pub(super) fn nack(&mut self, offset: u64, ms: Option<u64>, now: u64, from: Option<Owner>) {
        let Some(at) = self.at(offset) else { return };
        let (item, is_last) = (&self.items[at], self.is_last(&self.items[at]));
        let is_known = item.status == Open && (item.taken || item.attempts > 0);
        if !(is_known || item.owner().is_some()) || !self.may_settle(item.owner(), from) {
            return;
        }
        let steps = &self.options.backoff_ms;
        let step = steps.get(item.attempts.saturating_sub(1) as usize).or(steps.last()).copied();
        let item = &mut self.items[at];
        item.due = ms.or(step).filter(|ms| *ms > 0).map_or(0, |ms| now + ms);
        item.status = if is_last && item.taken { Dying } else { Open };
    }

    pub(super) fn redrive(&mut self, offset: u64) {
        for item in self.items.iter_mut().filter(|item| item.offset == offset) {
            let (status, taken, unseen, free, void) = (Held, true, true, true, item.void);
            *item = Item { status, taken, unseen, free, void, ..item.anew() };
        }
    }

    pub(super) fn reset(&mut self, floor: u64) {
        for item in &mut self.items {
            let taken = item.offset <= floor;
            *item = Item { status: if taken { Done } else { Open }, taken, ..item.anew() };
        }
        (self.state_until, self.told, self.life) = (0, 0, Life::default());
    }

    /// Other options hold, for all behind `cursor`: up to there everything had its turn.
    pub(super) fn change(&mut self, options: SubscribeOptions, cursor: u64) {
        self.end(|item| item.owner().is_some());
        let old = std::mem::replace(&mut self.options, options);
        self.life = Life::default();
        for at in 0..self.items.len() {
            let was = wants(&old, &self.items[at]);
            let is_wanted = self.wants(&self.items[at]);
            let item = &mut self.items[at];
            // What was wanted waits for its key.
            if !was && !item.taken && item.is_open() && item.offset <= cursor {
                (item.status, item.taken) = (Done, true);
            }
            // What was known of it may be known no more.
            let is_known = item.taken || item.attempts > 0;
            item.void = (is_known || was || item.void) && !is_wanted || is_known && item.void;
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
            Item { status, attempts, due, taken, ..item.anew() }
        };
        self.saved = (self.items.iter().map(save).collect(), self.told);
    }

    /// The broker was killed and started again.
    pub(super) fn restart(&mut self) {
        for (at, item) in self.items.iter_mut().enumerate() {
            let saved = self.saved.0.get(at).cloned().unwrap_or_else(|| item.anew());
            *item = Item { gone: item.gone, void: item.void, ..saved };
        }
        (self.told, self.life) = (self.saved.1, Life::default());
    }
}

// What is right.
impl Model {
    fn at(&self, offset: u64) -> Option<usize> {
        self.items.iter().position(|item| item.offset == offset)
    }

    pub(super) fn wants(&self, item: &Item) -> bool {
        wants(&self.options, item)
    }

    pub(super) fn is_its(&self, owner: Owner) -> bool {
        let is_held = self.options.mode != Mode::Exclusive || self.life.holder == owner;
        self.life.sockets.contains_key(&owner) && is_held
    }

    /// What is open: with `all` also what nobody is owed.
    fn open(&self, all: bool) -> impl Iterator<Item = &Item> {
        let counts = move |it: &Item| match all {
            true => self.wants(it) || it.taken,
            false => self.wants(it) && !it.void,
        };
        self.items.iter().filter(move |item| item.is_open() && counts(item))
    }

    fn is_last(&self, item: &Item) -> bool {
        self.options.max_deliveries > 0 && item.attempts >= self.options.max_deliveries
    }

    /// Whether it may be left out for such a newer one of its topic and key.
    fn is_replaced(&self, item: &Item, by: impl Fn(&Item) -> bool) -> bool {
        let is_of_state = item.offset <= self.state_until;
        let conflates = self.options.conflate_ms > 0 && item.key > 0;
        let is_newer = |it: &&Item| it.offset > item.offset && it.has_slot(item) && self.wants(it);
        (is_of_state || conflates) && self.items.iter().filter(is_newer).any(by)
    }

    /// What is void by now.
    pub(super) fn look(&mut self, now: u64) {
        for at in 0..self.items.len() {
            let item = &self.items[at];
            let is_void = item.gone || has_expired(item, now) || self.is_replaced(item, |_| true);
            self.items[at].void |= is_void;
        }
    }

    /// Whether anybody may be given it: a state does not follow the one that has replaced it.
    fn is_there(&self, item: &Item, now: u64) -> bool {
        let was_sent = |it: &Item| !it.gone && (!it.is_open() || it.taken && it.attempts > 0);
        let is_overtaken = self.options.conflate_ms > 0 && self.is_replaced(item, was_sent);
        let is_left = !item.gone && !has_expired(item, now) && !is_overtaken;
        self.wants(item) && item.is_open() && is_left
    }

    fn is_young(&self, item: &Item, now: u64) -> bool {
        self.options.conflate_ms > 0 && item.at + self.options.conflate_ms > now
    }

    /// How many more this one may be given. What is void takes room until that is found: `all` counts it.
    fn room(&self, owner: Owner, is_new: bool, all: bool) -> usize {
        let max = self.options.max_in_flight as usize;
        let out = self.open(all).filter(|item| item.taken && item.status != Held).count();
        let room = if is_new { max.saturating_sub(out) } else { usize::MAX };
        let room = if self.paused { 0 } else { room };
        if self.options.mode != Mode::Shared {
            return room;
        }
        // Those who fetch are one member.
        let sockets = &self.life.sockets;
        let member = |of: Owner| if sockets.contains_key(&of) { of } else { FETCHERS };
        let with: Vec<Owner> = self.items.iter().filter_map(Item::owner).map(member).collect();
        let is_fetching = member(owner) == FETCHERS || with.contains(&FETCHERS);
        let share = (max / (sockets.len() + usize::from(is_fetching)).max(1)).max(1);
        let has = with.into_iter().filter(|other| *other == member(owner)).count();
        room.min(share.saturating_sub(has))
    }

    /// Whether another of its key must be settled first, or is with somebody else.
    fn is_blocked(&self, item: &Item, owner: Owner, all: bool) -> bool {
        let is_partitioned = self.options.partition_by.is_some() && item.key > 0;
        let comes_first = |it: &Item| match it.owner() {
            Some(has) => has != owner || all && item.taken,
            None => it.offset < item.offset,
        };
        let blocks = |it: &Item| (all || !it.free) && it.has_slot(item) && comes_first(it);
        let mut others = self.open(all).filter(|it| it.offset != item.offset);
        is_partitioned && (all || !item.free) && others.any(blocks)
    }

    /// What goes before this offset, and everything before the highest, is not given to this one now: there must be a
    /// reason. With `again` also for what had its turn.
    pub(super) fn passes(&mut self, owner: Owner, before: u64, again: bool, now: u64) -> Judged {
        let (has_lanes, is_all) = (self.options.order == Order::Priority, before == u64::MAX);
        let is_waiting =
            |it: &Item| it.is_due(u64::MAX) && (it.taken && again || self.wants(it) && !it.taken);
        let lane = |it: &Item| has_lanes.then_some(Reverse(it.priority));
        let mut turns: Vec<Item> = self.items.iter().filter(|it| is_waiting(it)).cloned().collect();
        turns.sort_by_key(|it| (lane(it), !it.taken, it.offset));
        for (n, item) in turns.iter().enumerate() {
            let oldest =
                turns[n..].iter().filter(|it| !it.taken && !it.void).map(|it| it.offset).min();
            let is_behind = !item.taken && item.offset >= before;
            if is_behind && !has_lanes
                || has_lanes && [oldest, Some(item.offset)].contains(&Some(before))
            {
                break;
            }
            let has_room = self.room(owner, !item.taken || item.status == Held, true) > 0;
            if is_all && !item.taken && (!has_room || self.is_young(item, now)) {
                continue;
            }
            let is_free = item.is_due(now) && !self.is_blocked(item, owner, true);
            let is_last = self.is_last(item);
            let may_wait = item.void || is_last || !is_free || item.taken && !has_room;
            ensure!(may_wait, "{owner} was not given {item:?}");
            // What has expired is missed by nobody.
            let is_missed = item.gone && !item.taken && !has_expired(item, now);
            let is_told = !is_missed || item.offset <= self.told;
            ensure!(is_told, "nobody was told that it is gone: {item:?}");
            let is_found = !item.taken || is_all && is_free && has_room;
            let dies = is_last && (item.taken || !item.void || has_lanes);
            let item =
                self.items.iter_mut().find(|it| it.offset == item.offset).expect("it is there");
            item.taken = true;
            item.status = match is_found {
                true if dies => Dying,
                true if item.void => Done,
                _ => item.status,
            };
        }
        Ok(())
    }

    /// These were given to this one, in this order, with these numbers of the delivery.
    pub(super) fn delivered(&mut self, owner: Owner, events: &[(u64, u32)], now: u64) -> Judged {
        let mut last = 0;
        for &(offset, attempts) in events {
            let Some(at) = self.at(offset) else { return Err(format!("{offset} is not there")) };
            let item = self.items[at].clone();
            let is_free = item.is_due(now) && !self.is_blocked(&item, owner, false);
            let is_in_order = self.options.order == Order::Priority || offset > last || !item.taken;
            let is_its_turn = is_in_order && item.attempts + 1 == attempts && !self.is_last(&item);
            let is_right = self.is_there(&item, now) && is_free && is_its_turn;
            ensure!(is_right, "{owner} was given number {attempts} of {item:?} behind {last}");
            if !item.taken {
                self.passes(owner, offset, self.options.conflate_ms == 0, now)?;
                let waits = |it: &Item| !it.taken && it.offset < offset;
                let is_oldest = !self.open(false).any(waits);
                self.life.since_oldest = if is_oldest { 0 } else { self.life.since_oldest + 1 };
                ensure!(self.life.since_oldest < 16, "the oldest waits too long");
            }
            let has_room = self.room(owner, !item.taken, false) > 0;
            ensure!(has_room, "{owner} was given too much: {item:?}");
            let item = &mut self.items[at];
            (item.status, item.owner, item.attempts) = (Sending, owner, attempts);
            (item.taken, item.void, last) = (true, false, offset);
        }
        Ok(())
    }

    /// There is nothing for this one now.
    pub(super) fn nothing(&mut self, owner: Owner, now: u64) -> Judged {
        if self.options.mode != Mode::Mirror || self.paused {
            return self.passes(owner, u64::MAX, true, now);
        }
        let young = self.open(true).find(|item| self.is_young(item, now));
        self.mirrored(owner, &[], young.map_or(u64::MAX, |young| young.offset - 1), now)
    }

    /// Of a mirror, a session was given these, and nothing else up to `until`.
    pub(super) fn mirrored(&mut self, to: Owner, events: &[u64], until: u64, now: u64) -> Judged {
        let (cursor, told) = self.life.sockets.get(&to).copied().unwrap_or_default();
        let until = until.max(events.last().copied().unwrap_or(0));
        for item in self.items.iter().filter(|item| item.offset <= until) {
            let is_new = item.offset > cursor && item.is_open() && self.wants(item);
            let may_lack = !is_new || item.void && (!item.gone || item.offset <= told);
            let is_given = events.contains(&item.offset);
            let is_right = if is_given { is_new && self.is_there(item, now) } else { may_lack };
            ensure!(is_right && events.is_sorted(), "{to} was given {events:?}: {item:?}");
        }
        let last = self.items.last().map_or(0, |item| item.offset);
        self.life.sockets.insert(to, (cursor.max(until.min(last)), told));
        Ok(())
    }

    /// This one was told that something behind `after` is gone.
    pub(super) fn gap(&mut self, owner: Owner, after: u64) -> Judged {
        let matches = |topic| self.options.filters.matches(topic);
        let is_lost = |item: &&Item| item.gone && item.offset > after && matches(item.topic);
        let lost = self.items.iter().rfind(is_lost).map_or(0, |item| item.offset);
        ensure!(lost > 0, "{owner} was told of a gap behind {after}");
        self.told = self.told.max(lost);
        self.life.sockets.entry(owner).and_modify(|(_, told)| *told = lost.max(*told));
        Ok(())
    }

    /// How many matching events are open, at least and at most; and between which offsets the floor is.
    pub(super) fn lag(&self) -> ((u64, u64), (u64, u64)) {
        let most = self.open(true).filter(|item| self.wants(item) && !item.gone).count();
        let high = self.open(false).next().map_or(u64::MAX, |item| item.offset - 1);
        let is_mirror = self.options.mode == Mode::Mirror;
        let is_passed = |item: &&Item| match item.is_open() {
            true => !self.wants(item) && !item.taken && !item.void,
            false => item.taken || is_mirror,
        };
        let passed = self.items.iter().take_while(is_passed).filter(|item| !item.is_open());
        let low = passed.last().map_or(0, |item| item.offset);
        ((self.open(false).count() as u64, most as u64), (low, high))
    }
}
