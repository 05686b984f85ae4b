//! What the broker did beside what the model knows: whether what came was right, and whether something is owed.

use std::cmp::Reverse;

use tidings_proto::{Mode, subscribe::Order};

use super::{
    FETCHERS, Item, Judged, Model, Owner,
    Status::{Done, Dying, Held, Sending},
    has_expired,
};

impl Model {
    /// What is open: with `all` also what nobody is owed.
    fn open(&self, all: bool) -> impl Iterator<Item = &Item> {
        let counts = move |it: &Item| match all {
            true => self.wants(it) || it.taken,
            false => self.wants(it) && !it.void,
        };
        self.items.iter().filter(move |item| item.is_open() && counts(item))
    }

    /// Whether it may be left out for such a newer one of its topic and key.
    fn is_replaced(&self, item: &Item, by: impl Fn(&Item) -> bool) -> bool {
        let is_of_state = item.offset <= self.state_until;
        let conflates = self.options.conflate_ms > 0 && item.key > 0;
        let is_newer = |it: &&Item| it.offset > item.offset && it.has_slot(item) && self.wants(it);
        (is_of_state || conflates) && self.items.iter().filter(is_newer).any(by)
    }

    /// Whether it is no state, since a newer one that is gone may have had its key.
    fn is_trimmed(&self, item: &Item) -> bool {
        let is_newer = |it: &Item| it.gone && it.topic == item.topic && it.offset > item.offset;
        item.offset <= self.state_until && self.items.iter().any(is_newer)
    }

    /// What is void by now.
    pub(in super::super) fn look(&mut self, now: u64) {
        for at in 0..self.items.len() {
            let item = &self.items[at];
            let is_lost = item.gone || has_expired(item, now) || self.is_trimmed(item);
            let is_void = is_lost || self.is_replaced(item, |_| true);
            let item = &mut self.items[at];
            if is_void && !item.void {
                // The turn of the oldest may be spent on it.
                self.life.since_oldest = 0;
            }
            item.missed |= item.gone && !item.void;
            item.void |= is_void;
        }
    }

    /// Whether anybody may be given it: a state does not follow the one that has replaced it.
    fn is_there(&self, item: &Item, now: u64) -> bool {
        let is_left = |it: &Item| !it.gone && !has_expired(it, now);
        let was_sent = |it: &Item| is_left(it) && (!it.is_open() || it.taken && it.attempts > 0);
        let is_overtaken = self.options.conflate_ms > 0 && self.is_replaced(item, was_sent);
        self.wants(item) && item.is_open() && is_left(item) && !is_overtaken
    }

    fn is_young(&self, item: &Item, now: u64) -> bool {
        self.options.conflate_ms > 0 && item.at + self.options.conflate_ms > now
    }

    /// How many more this one may be given. What is void takes room until that is found: `all` counts it.
    fn room(&self, owner: Owner, is_new: bool, all: bool) -> usize {
        let max = self.options.max_in_flight as usize;
        // Also what waits for its time since before a kill, and is passed on the way.
        let is_out = |item: &&Item| item.taken || all && item.void && item.due > 0;
        let out = self.open(all).filter(is_out).filter(|item| item.status != Held).count();
        let room = if is_new { max.saturating_sub(out) } else { usize::MAX };
        let room = if self.paused { 0 } else { room };
        if self.options.mode != Mode::Shared {
            return room;
        }
        // Those who fetch are one member.
        let sockets = &self.life.sockets;
        let member = |of: Owner| if sockets.contains_key(&of) { of } else { FETCHERS };
        let counts = |item: &&Item| all || !item.gone;
        let with: Vec<Owner> =
            self.items.iter().filter(counts).filter_map(Item::owner).map(member).collect();
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
    pub(in super::super) fn passes(
        &mut self,
        owner: Owner,
        before: u64,
        again: bool,
        now: u64,
    ) -> Judged {
        let (has_lanes, is_all) = (self.options.order == Order::Priority, before == u64::MAX);
        let is_waiting =
            |it: &Item| it.is_due(u64::MAX) && (it.taken && again || self.wants(it) && !it.taken);
        let lane = |it: &Item| has_lanes.then_some(Reverse(it.priority));
        let mut turns: Vec<Item> = self.items.iter().filter(|it| is_waiting(it)).cloned().collect();
        turns.sort_by_key(|it| (lane(it), !it.taken, it.offset));
        // The window begins with what has not expired: what has, before it, is found when that is over.
        let has_young = turns.iter().any(|it| self.is_young(it, now));
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
            let is_early = self.is_young(item, now) || has_young && has_expired(item, now);
            if is_all && !item.taken && (!has_room || is_early) {
                continue;
            }
            let is_free = item.is_due(now) && !self.is_blocked(item, owner, true);
            let is_last = self.is_last(item);
            let may_wait = item.void || is_last || !is_free || item.taken && !has_room;
            ensure!(may_wait, "{owner} was not given {item:?}");
            // What has expired is missed by nobody.
            let is_missed = item.missed && !item.taken && !has_expired(item, now);
            let is_told = !is_missed || item.offset <= self.told;
            ensure!(is_told, "nobody was told that it is gone: {item:?}");
            let is_found = !item.taken || is_all && is_free && has_room;
            let dies = is_last && (item.taken || !item.void || has_lanes);
            // What is void and waits for its moment may be found to be so when that has come.
            let is_over = item.void && !item.maybe && item.is_due(now);
            let item =
                self.items.iter_mut().find(|it| it.offset == item.offset).expect("it is there");
            item.taken = true;
            item.status = match is_found {
                true if dies => Dying,
                true if is_over => Done,
                _ => item.status,
            };
        }
        Ok(())
    }

    /// These were given to this one, in this order, with these numbers of the delivery.
    pub(in super::super) fn delivered(
        &mut self,
        owner: Owner,
        events: &[(u64, u32)],
        now: u64,
    ) -> Judged {
        let mut last = 0;
        for &(offset, attempts) in events {
            let Some(at) = self.at(offset) else { return Err(format!("{offset} is not there")) };
            let item = self.items[at].clone();
            let is_free = item.is_due(now) && !self.is_blocked(&item, owner, false);
            let is_in_order = self.options.order == Order::Priority || offset > last || !item.taken;
            // That it was delivered once is known as long as it waits for its moment.
            let may_forget = item.attempts == 1 && item.due > 0 && !item.taken && attempts == 1;
            let is_counted = item.attempts + 1 == attempts || may_forget;
            let is_its_turn = is_in_order && is_counted && !self.is_last(&item);
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
    pub(in super::super) fn nothing(&mut self, owner: Owner, now: u64) -> Judged {
        // Who has no room does not look further.
        if self.room(owner, true, true) > 0 {
            self.life.looked = self.items.last().map_or(0, |item| item.offset);
        }
        if self.options.mode != Mode::Mirror || self.paused {
            return self.passes(owner, u64::MAX, true, now);
        }
        let young = self.open(true).find(|item| self.is_young(item, now));
        self.mirrored(owner, &[], young.map_or(u64::MAX, |young| young.offset - 1), now)
    }

    /// Of a mirror, a session was given these, and nothing else up to `until`.
    pub(in super::super) fn mirrored(
        &mut self,
        to: Owner,
        events: &[u64],
        until: u64,
        now: u64,
    ) -> Judged {
        let (cursor, told) = self.life.sockets.get(&to).copied().unwrap_or_default();
        let until = until.max(events.last().copied().unwrap_or(0));
        for item in self.items.iter().filter(|item| item.offset <= until) {
            let is_new = item.offset > cursor && item.is_open() && self.wants(item);
            // What has expired is missed by nobody.
            let is_missed = item.missed && !has_expired(item, now) && item.offset > told;
            let may_lack = !is_new || item.void && !is_missed;
            let is_given = events.contains(&item.offset);
            let is_right = if is_given { is_new && self.is_there(item, now) } else { may_lack };
            ensure!(is_right && events.is_sorted(), "{to} was given {events:?}: {item:?}");
        }
        let last = self.items.last().map_or(0, |item| item.offset);
        self.life.sockets.insert(to, (cursor.max(until.min(last)), told));
        Ok(())
    }

    /// This one was told that something behind `after` is gone.
    pub(in super::super) fn gap(&mut self, owner: Owner, after: u64) -> Judged {
        let matches = |topic| self.options.filters.matches(topic);
        let is_lost = |item: &&Item| item.gone && item.offset > after && matches(item.topic);
        let lost = self.items.iter().rfind(is_lost).map_or(0, |item| item.offset);
        ensure!(lost > 0, "{owner} was told of a gap behind {after}");
        self.told = self.told.max(lost);
        self.life.sockets.entry(owner).and_modify(|(_, told)| *told = lost.max(*told));
        Ok(())
    }

    /// How many matching events are open, at least and at most; and between which offsets the floor is.
    pub(in super::super) fn lag(&self) -> ((u64, u64), (u64, u64)) {
        let most = self.open(true).filter(|item| self.wants(item) && !item.gone).count();
        let high = self.open(false).next().map_or(u64::MAX, |item| item.offset - 1);
        let is_mirror = self.options.mode == Mode::Mirror;
        // Lanes pass what is not wanted when its turn comes.
        let looked = if self.options.order == Order::Log { u64::MAX } else { self.life.looked };
        let is_passed = |item: &&Item| match item.is_open() {
            true => item.offset <= looked && !self.wants(item) && !item.taken && !item.void,
            false => item.taken || is_mirror,
        };
        let passed = self.items.iter().take_while(is_passed).filter(|item| !item.is_open());
        let low = passed.last().map_or(0, |item| item.offset);
        ((self.open(false).count() as u64, most as u64), (low, high))
    }
}
