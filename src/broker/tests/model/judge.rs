//! Whether what came was right, and whether something is owed.

use super::{Done, Dying, Held, Item, Judged, Mode, Model, Owner, Sending};

impl Model {
    /// How many may be outstanding, or with this member, beyond those that are.
    fn room(&self, owner: Owner, is_new: bool) -> usize {
        if self.paused {
            return 0;
        }
        let mut room = usize::MAX;
        if is_new {
            let outstanding = self.open().filter(|item| item.taken && item.status != Held).count();
            room = self.spec.max_in_flight.saturating_sub(outstanding);
        }
        if self.spec.mode != Mode::Shared {
            return room;
        }
        let is_socket = |owner: Owner| self.sockets.contains(&owner);
        let fetchers =
            self.open().filter(|item| item.owner().is_some_and(|it| !is_socket(it))).count();
        let is_fetching = fetchers > 0 || !is_socket(owner);
        let members = (self.sockets.len() + usize::from(is_fetching)).max(1);
        let has = match is_socket(owner) {
            true => self.open().filter(|item| item.owner() == Some(owner)).count(),
            false => fetchers,
        };
        room.min((self.spec.max_in_flight / members).max(1).saturating_sub(has))
    }

    /// Whether another of its key must be settled first, or goes to somebody else.
    fn is_blocked(&self, item: &Item, owner: Owner, counts_free: bool) -> bool {
        self.spec.partitioned
            && (counts_free || !item.free)
            && self.open().any(|other| {
                let counts = other.offset != item.offset
                    && other.has_slot(item)
                    && (counts_free || !other.free);
                counts
                    && match other.owner() {
                        Some(has) => has != owner,
                        None => {
                            other.offset < item.offset && other.taken | (item.offset > other.offset)
                        }
                    }
            })
    }

    pub(super) fn is_last(&self, item: &Item) -> bool {
        self.spec.max_deliveries > 0 && item.attempts >= self.spec.max_deliveries
    }

    /// All up to here had their turn, though they were not delivered: there must be a reason.
    pub(in crate::broker::tests) fn pass(&mut self, until: u64, now: u64, owner: Owner) -> Judged {
        let passed: Vec<u64> = self
            .open()
            .filter(|item| !item.taken && item.offset <= until)
            .map(|item| item.offset)
            .collect();
        passed.into_iter().try_for_each(|offset| self.pass_one(offset, now, owner))
    }

    fn pass_one(&mut self, offset: u64, now: u64, owner: Owner) -> Judged {
        let Some(item) = self.at(offset).cloned() else { return Ok(()) };
        let status = if self.is_replaced(&item) {
            Done
        } else if self.is_last(&item) {
            Dying
        } else if !item.is_due(now) || self.is_blocked(&item, owner, true) {
            item.status
        } else {
            return Err(format!("{offset} was passed over: {item:?}"));
        };
        if let Some(item) = self.at(offset) {
            (item.taken, item.status) = (true, status);
        }
        Ok(())
    }

    /// These were given to a session or fetcher, in this order, with these numbers of the delivery.
    pub(in crate::broker::tests) fn delivered(
        &mut self,
        owner: Owner,
        events: &[(u64, u32)],
        now: u64,
    ) -> Judged {
        let mut last = 0;
        for &(offset, attempts) in events {
            let Some(item) = self.at(offset).cloned() else {
                return Err(format!("{offset} does not match"));
            };
            ensure!(!self.paused, "{offset} was delivered while paused");
            ensure!(
                item.is_open() && item.status != Dying && item.owner().is_none(),
                "{offset} came: {item:?}"
            );
            ensure!(item.is_due(now), "{offset} came before its time, {now}: {item:?}");
            ensure!(item.attempts + 1 == attempts, "{offset} came as number {attempts}: {item:?}");
            ensure!(!self.is_last(&item), "{offset} came too often: {item:?}");
            ensure!(
                !self.is_blocked(&item, owner, false),
                "{offset} came while its key was elsewhere or older ones open"
            );
            ensure!(
                self.spec.conflate_ms == 0
                    || !self.items.iter().any(|newer| newer.offset > offset
                        && newer.has_slot(&item)
                        && newer.taken
                        && newer.is_open()
                        && newer.attempts > 0),
                "{offset} came behind what has replaced it"
            );
            ensure!(
                self.spec.lanes
                    || offset > last
                    || item.taken != self.at(last).is_some_and(|item| item.taken),
                "{offset} came behind {last}"
            );
            if !item.taken {
                self.takes_turn(&item, owner, now)?;
            }
            ensure!(
                self.room(owner, !item.taken && item.status != Held) > 0,
                "{offset} came above the limit"
            );
            last = offset;
            if let Some(item) = self.at(offset) {
                (item.status, item.attempts, item.taken) = (Sending(owner), attempts, true);
            }
        }
        Ok(())
    }

    /// It comes for the first time, or for the first time in this life: nothing before it waits.
    fn takes_turn(&mut self, item: &Item, owner: Owner, now: u64) -> Judged {
        self.leave_out(now);
        // The oldest may have its turn before what comes again.
        let is_oldest =
            self.open().find(|item| !item.taken).map(|it| it.offset) == Some(item.offset);
        let waits = self.open().find(|other| {
            // What is replaced takes the place of something that is due, in a fetch.
            let ranks = match self.spec.lanes {
                true => other.priority >= item.priority && !is_oldest,
                false => self.spec.conflate_ms == 0,
            };
            ranks && other.taken && self.is_next(other, owner, now)
        });
        ensure!(waits.is_none(), "{} came for the first time before {waits:?}", item.offset);
        if !self.spec.lanes {
            return self.pass(item.offset - 1, now, owner);
        }
        loop {
            let new = || self.open().filter(|item| !item.taken);
            let best = new()
                .max_by_key(|item| (item.priority, u64::MAX - item.offset))
                .map(|item| item.offset);
            let oldest = new().next().map(|item| item.offset);
            if best == Some(item.offset) || oldest == Some(item.offset) {
                self.since_oldest =
                    if oldest == Some(item.offset) { 0 } else { self.since_oldest + 1 };
                ensure!(self.since_oldest < 16, "the oldest waits too long");
                return Ok(());
            }
            self.pass_one(best.unwrap_or(0), now, owner)?;
        }
    }

    /// This one was told that there is nothing: what has its turn now waits for something.
    pub(in crate::broker::tests) fn nothing(&mut self, owner: Owner, now: u64) -> Judged {
        self.leave_out(now);
        let again = self.room(owner, false) > 0;
        let again = self.open().find(|item| again && item.taken && self.is_next(item, owner, now));
        ensure!(again.is_none(), "{owner} was not given {again:?}");
        let mut new: Vec<Item> = self.open().filter(|item| !item.taken).cloned().collect();
        if self.spec.lanes {
            new.sort_by_key(|item| std::cmp::Reverse(item.priority));
        }
        for item in new {
            let waits = self.spec.conflate_ms > 0 && item.at + self.spec.conflate_ms > now;
            if waits || self.room(owner, true) == 0 {
                break;
            }
            self.pass_one(item.offset, now, owner)?;
        }
        Ok(())
    }

    /// Whether this one, which had its turn, should go to this owner now.
    fn is_next(&self, item: &Item, owner: Owner, now: u64) -> bool {
        let has_room = item.status != Held || self.room(owner, true) > 0;
        // Who has the older ones of a key is given those behind them when something of it is settled.
        let is_behind = self.spec.partitioned
            && self.open().any(|other| other.has_slot(item) && other.owner().is_some());
        let is_free = !is_behind && !self.is_blocked(item, owner, true);
        has_room && item.is_due(now) && !self.is_last(item) && is_free
    }

    /// Nobody is given again what a newer one, of those that had their turn, has replaced.
    fn leave_out(&mut self, now: u64) {
        if self.paused || self.spec.conflate_ms == 0 {
            return;
        }
        let had_turn = |item: &&Item| item.taken || !item.is_open();
        let reach = self.items.iter().rfind(had_turn).map_or(0, |item| item.offset);
        for index in 0..self.items.len() {
            let (item, newer) = (&self.items[index], &self.items[index + 1..]);
            let mut newer = newer.iter().take_while(|newer| newer.offset <= reach);
            if item.taken && item.is_due(now) && newer.any(|newer| newer.has_slot(item)) {
                self.items[index].status = Done;
            }
        }
    }

    /// Of a mirror, this came to a session.
    pub(in crate::broker::tests) fn mirrored(
        &mut self,
        owner: Owner,
        events: &[u64],
        until: u64,
    ) -> Judged {
        let Some(cursor) = self.cursors.get(&owner).copied() else {
            return Err("nobody's".to_owned());
        };
        let last = self.items.last().map_or(0, |item| item.offset);
        let until = until.min(last).max(events.last().copied().unwrap_or(0));
        let open = self
            .open()
            .map(|item| item.offset)
            .filter(|offset| *offset > cursor && *offset <= until);
        let expected: Vec<u64> = open.collect();
        ensure!(events == expected, "a mirror was given {events:?} instead of {expected:?}");
        self.cursors.insert(owner, until.max(cursor));
        Ok(())
    }

    /// How many matching events are open, at least and at most; and between which offsets the floor is.
    pub(in crate::broker::tests) fn lag(&self) -> ((u64, u64), (u64, u64)) {
        let (mut least, mut most, mut low, mut high) = (0, 0, 0, u64::MAX);
        let mut is_prefix = true;
        for item in &self.items {
            let maybe = self.is_replaced(item);
            if item.is_open() {
                (least, most) = (least + u64::from(!maybe), most + 1);
                if !maybe {
                    high = high.min(item.offset - 1);
                }
            }
            if item.is_open() || !item.taken {
                is_prefix = false;
            } else if is_prefix {
                low = item.offset;
            }
        }
        ((least, most), (low, high))
    }
}
