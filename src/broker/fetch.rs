//! Events of a durable subscription over plain HTTP: leased to the subscription, not to the request.

use std::{sync::Arc, time::Duration};

use tidings_proto::{Cursor, Offset, Placed, message::Gap};

use super::{
    Broker,
    bandwidth::{refer, replayed_bytes},
    conflate::Conflating,
    error::SubscribeError,
    held::{Durable, FetchReader, Held, Token},
    interest::Ready,
    lanes,
    leasing::Leasing,
    selection::{Selection, has_expired},
    snapshot::Snapshot,
    subscription::BATCH_BYTES_MAX,
};
use crate::{
    clock,
    log::{Batch, ReadError, ReadLimit, Stored, batch_bytes},
};

/// The most bytes one fetch gives, but for the event that passes it.
const FETCH_BYTES_MAX: usize = 1 << 20;

/// What a fetch asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How many events at most.
    pub limit: usize,
    /// How long it waits for the first.
    pub wait: Duration,
    /// Who asks, where that is said.
    pub reader: Option<FetchReader>,
    /// Of a mirror: only what is behind this one. Each of its fetches gives all that is open, as far as there is room for it.
    pub after: Option<Placed>,
}

/// What a fetch found.
#[derive(Debug)]
pub struct Fetched {
    /// The events; leased for `ack_wait_ms`.
    pub events: Vec<Arc<Stored>>,
    /// Those of them that were delivered before.
    pub attempts: Vec<(Offset, u32)>,
    /// Everything up to here is acknowledged.
    pub floor: Cursor,
    /// What cannot be read and was passed over.
    pub gap: Option<Gap>,
    /// How many bytes of events that were there before were read for it, wanted or not.
    pub replayed_bytes: u64,
}

/// A fetcher's hold on a durable; dropping it lets go, but its leases run on.
struct Fetcher {
    durable: Arc<Durable>,
    token: Token,
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.durable.detach(self.token);
    }
}

impl Broker {
    /// The next events of a durable, waiting up to `wait` for the first.
    ///
    /// # Errors
    /// [`SubscribeError::Read`] when the log could not be read, [`SubscribeError::Unknown`] when there is none.
    pub async fn fetch(
        &self,
        name: &str,
        limit: usize,
        wait: Duration,
    ) -> Result<Fetched, SubscribeError> {
        let wanted = Wanted { limit, wait, reader: None, after: None };
        self.fetch_by(name, &wanted).await
    }

    /// The same for who says more.
    ///
    /// # Errors
    /// As [`Broker::fetch`], and [`SubscribeError::GoneOn`] when its reader reads over a socket or a stream by now.
    pub async fn fetch_by(&self, name: &str, wanted: &Wanted) -> Result<Fetched, SubscribeError> {
        let Wanted { limit, wait, .. } = *wanted;
        let reader = wanted.reader.as_ref();
        let durable = self.durable(name)?;
        let after = wanted.after.as_ref().map(|after| after.offset.cursor());
        if after.is_some() && !durable.is_mirror() {
            let problem = "only a mirror gives what it gave before: leave it out".to_owned();
            return Err(SubscribeError::Invalid { field: "after", problem });
        }
        let ready = Ready::new();
        let registration = self.interest.register(&durable.spec.options.filters, ready.clone(), 0);
        let snapshot = self.state_of(&durable).await?;
        let token = durable.attach_fetch(registration.entry().clone(), reader)?;
        let _fetcher = Fetcher { durable: durable.clone(), token };
        let deadline = tokio::time::Instant::now() + wait;
        let gone = self.pass_trimmed_once(&durable).await?;
        self.pass_expired(&durable).await?;
        let mut gone = gone.map(|(requested, reason)| self.gap(requested, reason));
        let mut replayed = snapshot.as_ref().map_or(0, |state| state.replayed_bytes);
        loop {
            while ready.pop().is_some() {}
            let (fetched, scanned) = match durable.is_by_priority() {
                true => self.fetch_lanes(&durable, token, limit).await?,
                false => self.fetch_now(&durable, token, snapshot.as_deref(), limit, after).await?,
            };
            let mut fetched = fetched;
            fetched.gap = gone.take().or(fetched.gap);
            replayed += fetched.replayed_bytes;
            fetched.replayed_bytes = replayed;
            if let Some(max) = durable.spec.options.max_data_bytes {
                refer(&mut fetched.events, max);
            }
            if durable.is_past(token, reader) {
                return Ok(Fetched { events: Vec::new(), attempts: Vec::new(), ..fetched });
            }
            let found = !fetched.events.is_empty() || fetched.gap.is_some();
            // A socket may have taken it over, or it is gone.
            if found || !durable.lock().is_fetched(durable.spec.options.mode) {
                return Ok(fetched);
            }
            let due = durable.next_due(&mut durable.lock(), token);
            if due == Some(0) {
                // What was due has expired or was replaced, and there is more.
                continue;
            }
            if tokio::time::Instant::now() >= deadline {
                return Ok(fetched);
            }
            // Without room only an ack or a due event is waited for; both announce themselves.
            let caught_up = scanned.is_none_or(|cursor| registration.arm(cursor));
            if !caught_up {
                continue;
            }
            let due_in =
                due.map(|due| Duration::from_millis(due.saturating_sub(clock::monotonic_ms())));
            let until = due_in
                .map_or(deadline, |due_in| deadline.min(tokio::time::Instant::now() + due_in));
            // The deadline is looked at above.
            let _ = tokio::time::timeout_at(until, ready.wait()).await;
        }
    }

    /// What there is now, and how far was looked; `None` when there was no room to look.
    async fn fetch_now(
        &self,
        durable: &Arc<Durable>,
        token: Token,
        snapshot: Option<&Snapshot>,
        limit: usize,
        after: Option<Cursor>,
    ) -> Result<(Fetched, Option<Cursor>), ReadError> {
        let mirror = durable.is_mirror();
        let (again, begin) = due_again(durable, token, limit);
        // Above the last event there is nothing to be behind.
        let mut cursor = begin.max(after.unwrap_or(begin).min(self.log.committed()));
        durable.tell_graves();
        let selection = Selection::of(&durable.spec.options);
        let mut leasing = Leasing::new(durable.clone(), &again);
        let offsets = again.iter().filter_map(|(offset, _)| Offset::new(*offset)).collect();
        let mut found = self.log.get_many(offsets, FETCH_BYTES_MAX).await?;
        let mut replayed = replayed_bytes(&found.events);
        if let Some(conflating) = self.conflating(durable, &selection) {
            let reach = durable.lock().state.reach();
            found.events = conflating.unreplaced(found.events, reach).await?;
        }
        let mut gap = (found.damaged.first())
            .map(|offset| self.log.damage_gap(offset.before(), offset.cursor()));
        let (mut events, more_due) = leasing.taken(found.events, &again, &found.left, &selection);
        let mut bytes = batch_bytes(&events);
        let mut attempts = again;
        // What has expired or is gone takes none any more; nothing new goes before what comes again.
        let room = if more_due { 0 } else { room_for_new(durable, token) };
        let mut room = room.min(limit.saturating_sub(events.len()));
        let committed = self.log.committed();
        while cursor < committed && room > 0 && bytes < FETCH_BYTES_MAX && gap.is_none() {
            let (mut batch, bytes_read) =
                self.read_for(durable, &selection, snapshot, cursor, committed, room).await?;
            replayed += bytes_read;
            let passed = batch.damaged.unwrap_or(batch.cursor);
            let Some(sent) = lease(durable, token, &batch.events, passed) else { break };
            batch.events.retain(|event| {
                sent.binary_search_by_key(&event.offset().get(), |(offset, _)| *offset).is_ok()
            });
            bytes += batch_bytes(&batch.events);
            // Given up from here on, they are due again.
            leasing.add(&sent);
            events.append(&mut batch.events);
            attempts.extend(sent);
            gap = batch.damaged.map(|until| self.log.damage_gap(batch.cursor, until));
            cursor = passed;
            room = limit.saturating_sub(events.len());
            if !mirror {
                room = room.min(durable.room(&durable.lock(), token));
            }
        }
        leasing.done();
        let mut held = durable.lock();
        if !mirror {
            held.sent(clock::monotonic_ms(), &durable.redelivery, token);
        }
        let floor = held.state.floor();
        drop(held);
        durable.tell_graves();
        let attempts = attempts_of(attempts, &events);
        let scanned = (room > 0 || more_due).then_some(cursor);
        Ok((Fetched { events, attempts, floor, gap, replayed_bytes: replayed }, scanned))
    }

    /// The same of a durable with lanes.
    async fn fetch_lanes(
        &self,
        durable: &Arc<Durable>,
        token: Token,
        limit: usize,
    ) -> Result<(Fetched, Option<Cursor>), ReadError> {
        let mode = durable.spec.options.mode;
        let is_its = |held: &Held| held.is_fetched(mode);
        let selection = Selection::of(&durable.spec.options);
        let (next, taken) = loop {
            let found = lanes::next(&self.log, durable, token, limit, is_its).await?;
            let lanes::Next::Events(next) = found else {
                let floor = durable.lock().state.floor();
                let (events, attempts) = (Vec::new(), Vec::new());
                let fetched = Fetched { events, attempts, floor, gap: None, replayed_bytes: 0 };
                return Ok((fetched, None));
            };
            let leasing = Leasing::new(durable.clone(), &next);
            durable.tell_graves();
            let taken =
                lanes::read_taken(&self.log, leasing, &next, FETCH_BYTES_MAX, &selection).await?;
            if next.is_empty() || !taken.events.is_empty() || taken.damaged.is_some() {
                break (next, taken);
            }
            // All of it has expired or is gone, and there may be more behind it.
            tokio::task::yield_now().await;
        };
        let lanes::Taken { events, damaged } = taken;
        let gap = damaged.map(|at| self.log.damage_gap(at.before(), at.cursor()));
        let mut held = durable.lock();
        held.sent(clock::monotonic_ms(), &durable.redelivery, token);
        let floor = held.state.floor();
        let has_room = durable.room(&held, token) > 0;
        let passed = held.lanes().passed();
        drop(held);
        let attempts = attempts_of(next, &events);
        let replayed_bytes = replayed_bytes(&events);
        let fetched = Fetched { events, attempts, floor, gap, replayed_bytes };
        Ok((fetched, has_room.then_some(passed)))
    }

    fn conflating<'a>(
        &'a self,
        durable: &'a Durable,
        selection: &'a Selection,
    ) -> Option<Conflating<'a>> {
        Conflating::of(&self.log, &durable.spec.options, selection)
    }

    /// New events for a fetch: those that are wanted, and how many bytes of what was there before were read for them.
    async fn read_for(
        &self,
        durable: &Durable,
        selection: &Selection,
        snapshot: Option<&Snapshot>,
        after: Cursor,
        until: Cursor,
        events: usize,
    ) -> Result<(Batch, u64), ReadError> {
        if let Some(snapshot) = snapshot.filter(|snapshot| after < snapshot.until()) {
            let limit = ReadLimit { events, bytes: BATCH_BYTES_MAX };
            let mut batch = snapshot.next(&self.log, after, limit).await?;
            let replayed = replayed_bytes(&batch.events);
            // Since it was gathered.
            let now = clock::now();
            batch.events.retain(|event| !has_expired(event, now));
            return Ok((batch, replayed));
        }
        if let Some(conflating) = self.conflating(durable, selection) {
            let limit = ReadLimit { events, bytes: FETCH_BYTES_MAX };
            let (mut batch, replayed) = conflating.next(after, until, limit).await?;
            let reach = durable.lock().state.reach();
            batch.events = conflating.unreplaced(batch.events, reach).await?;
            return Ok((batch, replayed));
        }
        let limit = ReadLimit { events, bytes: BATCH_BYTES_MAX };
        let mut batch = self.log.read(after, until, &durable.spec.options.filters, limit).await?;
        let (replayed, now) = (replayed_bytes(&batch.events), clock::now());
        batch.events.retain(|event| selection.wants(event) && !has_expired(event, now));
        Ok((batch, replayed))
    }
}

/// What is due again goes to this one, as far as it has room; and behind which place the new begins.
fn due_again(durable: &Durable, token: Token, limit: usize) -> (Vec<(u64, u32)>, Cursor) {
    let mut held = durable.lock();
    if durable.is_mirror() {
        return (Vec::new(), held.state.floor());
    }
    let most = limit.min(durable.room_again(&held, token));
    let again = held.state.deliver_again(clock::monotonic_ms(), most, token);
    (again, held.state.cursor())
}

/// How many new events this one may be given.
fn room_for_new(durable: &Durable, token: Token) -> usize {
    let held = durable.lock();
    match durable.is_mirror() && !held.is_paused() {
        true => usize::MAX,
        false => durable.room(&held, token),
    }
}

/// Of what was sent, what is not sent for the first time.
fn attempts_of(sent: Vec<(u64, u32)>, events: &[Arc<Stored>]) -> Vec<(Offset, u32)> {
    let is_there = |at: u64| events.iter().any(|event| event.offset().get() == at);
    let again = sent.into_iter().filter(|(offset, n)| *n >= 2 && is_there(*offset));
    again.filter_map(|(offset, n)| Some((Offset::new(offset)?, n))).collect()
}

/// Notes new events as delivered; `None` when a socket has taken the durable over.
fn lease(
    durable: &Durable,
    token: Token,
    events: &[Arc<Stored>],
    passed: Cursor,
) -> Option<Vec<(u64, u32)>> {
    let mut held = durable.lock();
    if durable.is_mirror() {
        let offsets = events.iter().map(|event| event.offset().get());
        let open = offsets.filter(|&offset| !held.state.is_acked(offset));
        return Some(open.map(|offset| (offset, 1)).collect());
    }
    held.is_fetched(durable.spec.options.mode)
        .then(|| durable.deliver_new(&mut held, events, passed, token))
}
