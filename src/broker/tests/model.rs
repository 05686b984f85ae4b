//! What the words of docs/protocol.md mean, over plain data: every event of the log and what became of it.
//!
//! It does not say what comes next: [`judge`] says whether what came was right, and whether something is owed.

use std::collections::{BTreeMap, BTreeSet};

mod judge;
mod words;

use Status::{Dead, Done, Dying, Held, Leased, Open, Sending};
pub(super) use words::{Item, Judged, Mode, Owner, Spec, Status};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    Session(Owner),
    Fetch,
}

/// A durable subscription.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub spec: Spec,
    /// The matching events, by offset.
    pub items: Vec<Item>,
    /// What the log has of it.
    saved: BTreeMap<u64, (Status, u32)>,
    saved_floor: u64,
    pub dirty: bool,
    holder: Holder,
    sockets: BTreeSet<Owner>,
    /// How far the sessions of a mirror have come.
    cursors: BTreeMap<Owner, u64>,
    pub paused: bool,
    /// Events up to here are a state that comes first.
    state_until: u64,
    since_oldest: u32,
}

impl Model {
    pub(super) fn new(spec: Spec, mut items: Vec<Item>, start: u64, state_until: u64) -> Model {
        items.retain(|item| item.topic < spec.topics);
        items.iter_mut().filter(|item| item.offset <= start).for_each(|item| item.status = Done);
        let mut model = Model {
            spec,
            items,
            saved: BTreeMap::new(),
            saved_floor: 0,
            dirty: true,
            holder: Holder::Nobody,
            sockets: BTreeSet::new(),
            cursors: BTreeMap::new(),
            paused: false,
            state_until,
            since_oldest: 0,
        };
        model.commit(true);
        model
    }

    pub(super) fn published(&mut self, item: Item) {
        if item.topic < self.spec.topics {
            self.items.push(item);
        }
    }

    fn at(&mut self, offset: u64) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.offset == offset)
    }

    fn open(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.is_open())
    }

    /// Whether it may be left out: a newer one of its topic and key is there.
    fn is_replaced(&self, item: &Item) -> bool {
        (self.spec.conflate_ms > 0 && item.key > 0 || item.offset <= self.state_until)
            && self.items.iter().any(|newer| {
                let same = if item.key > 0 {
                    newer.has_slot(item)
                } else {
                    newer.key == 0 && newer.topic == item.topic
                };
                newer.offset > item.offset && same
            })
    }

    pub(super) fn attach(&mut self, owner: Owner) {
        match self.spec.mode {
            Mode::Exclusive => {
                if self.holder != Holder::Fetch {
                    self.release(None);
                }
                self.holder = Holder::Session(owner);
            }
            Mode::Shared => {}
            Mode::Mirror => drop(self.cursors.insert(owner, 0)),
        }
        self.sockets.insert(owner);
    }

    pub(super) fn attach_fetch(&mut self) {
        if self.spec.mode == Mode::Exclusive && self.holder != Holder::Fetch {
            self.release(None);
            self.holder = Holder::Fetch;
        }
    }

    pub(super) fn detach(&mut self, owner: Owner) {
        let had = self.sockets.remove(&owner);
        let releases = match self.spec.mode {
            Mode::Exclusive => self.holder == Holder::Session(owner),
            Mode::Shared => had,
            Mode::Mirror => false,
        };
        if releases {
            self.holder = Holder::Nobody;
            self.dirty |= self.spec.max_deliveries > 0
                && self.items.iter().any(|item| item.owner() == Some(owner));
            self.release(Some(owner));
        }
    }

    pub(super) fn is_holder(&self, owner: Owner) -> bool {
        self.sockets.contains(&owner)
            && (self.spec.mode != Mode::Exclusive || self.holder == Holder::Session(owner))
    }

    fn release(&mut self, of: Option<Owner>) {
        let max = self.spec.max_deliveries;
        for item in self
            .items
            .iter_mut()
            .filter(|item| item.owner().is_some_and(|owner| of.is_none_or(|of| of == owner)))
        {
            let is_last = max > 0 && item.attempts >= max;
            match item.status {
                // Nobody can say that it was delivered.
                Sending(_) if is_last => {
                    (item.attempts, item.status) = (item.attempts - 1, Open(0))
                }
                _ if is_last => item.status = Dying,
                _ => item.status = Open(0),
            }
        }
    }

    pub(super) fn ripen(&mut self, now: u64) {
        let max = self.spec.max_deliveries;
        for item in &mut self.items {
            if matches!(item.status, Leased(_, Some(at)) if at <= now) {
                item.status = if max > 0 && item.attempts >= max { Dying } else { Open(0) };
            } else if item.taken && matches!(item.status, Open(at) if at <= now) {
                item.status = Open(0);
            }
        }
    }

    pub(super) fn sent(&mut self, owner: Owner, now: u64) {
        let at = (self.spec.ack_wait_ms > 0).then_some(now + self.spec.ack_wait_ms);
        for item in self.items.iter_mut().filter(|item| item.status == Sending(owner)) {
            (item.status, item.unseen) = (Leased(owner, at), false);
        }
    }

    pub(super) fn may_settle(&self, from: Option<Owner>) -> bool {
        match (from, self.holder) {
            (Some(from), Holder::Session(holder)) => from == holder,
            (Some(_), Holder::Fetch) => false,
            _ => true,
        }
    }

    fn is_elsewhere(&self, item: &Item, from: Option<Owner>) -> bool {
        self.spec.mode == Mode::Shared
            && from.is_some()
            && item.owner().is_some_and(|owner| Some(owner) != from)
    }

    pub(super) fn ack(&mut self, offsets: &[u64], up_to: bool, from: Option<Owner>) {
        self.dirty = true;
        if !self.may_settle(from) {
            return;
        }
        for index in 0..self.items.len() {
            let item = &self.items[index];
            let named = if up_to {
                item.offset <= offsets[0] && !item.unseen
            } else {
                offsets.contains(&item.offset)
            };
            if named && item.is_open() && !self.is_elsewhere(item, from) {
                self.items[index].status = Done;
            }
            self.items[index].taken |= up_to && self.items[index].offset <= offsets[0];
        }
        if self.spec.mode == Mode::Mirror {
            let settled = self.items.iter_mut().take_while(|item| !item.is_open());
            settled.for_each(|item| item.taken = true);
        }
    }

    pub(super) fn nack(
        &mut self,
        offsets: &[u64],
        delay_ms: Option<u64>,
        now: u64,
        from: Option<Owner>,
    ) {
        self.dirty = true;
        if !self.may_settle(from) || self.spec.mode == Mode::Mirror {
            return;
        }
        for offset in offsets {
            let Some(item) = self.at(*offset).cloned() else { continue };
            let is_known = item.owner().is_some()
                || matches!(item.status, Open(_)) && (item.taken || item.attempts > 0);
            if !is_known || self.is_elsewhere(&item, from) {
                continue;
            }
            let is_last = self.is_last(&item) && item.taken;
            let steps = &self.spec.backoff_ms;
            let step = steps
                .get(item.attempts.saturating_sub(1) as usize)
                .or(steps.last())
                .copied()
                .unwrap_or(0);
            let wait = delay_ms.unwrap_or(step);
            let status = if is_last { Dying } else { Open(if wait == 0 { 0 } else { now + wait }) };
            if let Some(item) = self.at(*offset) {
                item.status = status;
            }
        }
    }

    pub(super) fn redrive(&mut self, offsets: Option<&[u64]>) -> Vec<u64> {
        self.dirty = true;
        let mut redriven = Vec::new();
        for item in self.items.iter_mut().filter(|item| {
            item.status == Dead && offsets.is_none_or(|these| these.contains(&item.offset))
        }) {
            (item.status, item.attempts, item.taken, item.unseen, item.free) =
                (Held, 0, true, true, true);
            redriven.push(item.offset);
        }
        redriven
    }

    pub(super) fn reset(&mut self, floor: u64) {
        for item in &mut self.items {
            let status = if item.offset <= floor { Done } else { Open(0) };
            *item = Item {
                status,
                taken: status == Done,
                ..Item::new(item.offset, item.topic, item.key, item.priority, item.at)
            };
        }
        (self.state_until, self.holder, self.since_oldest) = (0, Holder::Nobody, 0);
        self.sockets.clear();
        self.commit(true);
    }

    /// A commit: letters are written, and what was said is in the log.
    pub(super) fn commit(&mut self, anyway: bool) {
        let is_dying = self.items.iter().any(|item| item.status == Dying);
        if !(self.dirty || is_dying || anyway) {
            return;
        }
        self.items
            .iter_mut()
            .filter(|item| item.status == Dying)
            .for_each(|item| item.status = Dead);
        let limited = self.spec.max_deliveries > 0;
        let kept = |item: &Item| {
            let counts = item.attempts >= if limited && item.owner().is_none() { 1 } else { 2 };
            let delayed = matches!(item.status, Open(at) if at > 0);
            let status = if !item.is_open() || delayed { item.status } else { Open(0) };
            (item.offset, (status, if counts || delayed { item.attempts } else { 0 }))
        };
        self.saved = self.items.iter().map(kept).collect();
        (self.dirty, self.saved_floor) = (false, self.lag().1.0);
    }

    /// The broker was killed and started again.
    pub(super) fn restart(&mut self) {
        for item in &mut self.items {
            let (status, attempts) = self.saved.get(&item.offset).copied().unwrap_or((Open(0), 0));
            *item = Item {
                status,
                attempts,
                taken: item.offset <= self.saved_floor,
                ..Item::new(item.offset, item.topic, item.key, item.priority, item.at)
            };
        }
        (self.holder, self.since_oldest, self.dirty) = (Holder::Nobody, 0, false);
        self.sockets.clear();
    }
}
