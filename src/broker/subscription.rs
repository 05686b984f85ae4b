//! A subscription: a wish with a cursor. It is asked for what comes next and reads it from the log.
//!
//! ```text
//! CatchingUp(to) ── reached ──▶ Live ── nothing more ──▶ armed in the trie ── woken ──▶ Live
//! ```
//! - [`Subscription::next`] gives one delivery, or nothing: then the session's [`Ready`](super::interest::Ready)
//!   says when to ask again, or [`Subscription::next_due_ms`] does.
//! - Batches are chained: the `after` of each is the `cursor` of the one before.
//! - The cursor never passes what was not looked at.

mod again;
mod in_lanes;

use std::{sync::Arc, time::Duration};

use tidings_proto::{
    Cursor, Offset,
    message::{Gap, GapReason},
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Counted,
    bandwidth::{Bandwidth, replayed_bytes},
    conflate::Conflating,
    held::{Durable, Token},
    interest::Registration,
    pace::{LOOK, Pace, Step},
    presence::Hold as PresenceHold,
    selection::{Selection, has_expired},
    snapshot::Snapshot,
};
use crate::{
    clock,
    log::{Batch, LogHandle, ReadError, ReadLimit, Stored, codec::BATCH_ENVELOPE_BYTES},
    metrics,
};

/// The most bytes of one batch: beyond this a write gains nothing (measured: docs/decisions).
pub const BATCH_BYTES_MAX: usize = 32 * 1024;
/// The most events of one batch.
pub const BATCH_EVENTS_MAX: u32 = 1000;

/// How many steps without a match a subscription takes before others have their turn.
const LOOKS_A_TURN: u32 = 16;

/// One subscription of one session.
#[derive(Debug)]
pub struct Subscription {
    /// Its memberships of the topics it is listed on. Let go of first: who sees it gone sees them let go.
    presence: Option<Box<PresenceHold>>,
    number: u32,
    log: LogHandle,
    selection: Selection,
    registration: Registration,
    events_max: u32,
    phase: Phase,
    pending_gap: Option<Box<Gap>>,
    /// What had been taken out of the log when that was last looked at.
    trims: u64,
    /// Everything up to here has been looked at.
    cursor: Cursor,
    /// What the subscriber has been told of that.
    told: Cursor,
    durable: Option<Attachment>,
    counted: Counted,
    /// Events sent while catching up, where it began at a position; few bytes, as of all that an idle one keeps.
    replayed: Option<u32>,
    /// How many bytes of events that were there before were read and not asked for yet.
    replayed_bytes: u32,
    /// Where what is live may wait for more.
    pace: Option<Box<Pace>>,
    /// The state that comes first, as long as the cursor is in it.
    snapshot: Option<Arc<Snapshot>>,
    /// Where the subscriber's line is to be spared.
    bandwidth: Option<Box<Bandwidth>>,
    /// Its part of the bound of all large ones.
    _room: Option<Box<OwnedSemaphorePermit>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// What was in the log at the time of the subscribe is being sent.
    CatchingUp(Cursor),
    Live,
    /// Superseded or deleted: nothing more comes.
    Ended,
}

/// Whether what comes next waits for more.
enum Hold {
    /// It does not.
    Not,
    /// It does, and a wake or the time ends it.
    Armed,
    /// More has come meanwhile.
    Look,
}

/// What of a read goes out.
struct Taken {
    events: Vec<Arc<Stored>>,
    /// Those of them that were delivered before.
    attempts: Vec<(Offset, u32)>,
    /// Everything up to here is done with.
    passed: Cursor,
}

/// A session's hold on a durable; dropping it lets go.
#[derive(Debug)]
pub(super) struct Attachment {
    durable: Arc<Durable>,
    token: Token,
    /// The floor the session of a mirror was last told of.
    told_floor: Cursor,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.durable.detach(self.token);
    }
}

/// What a subscription sends.
#[derive(Debug)]
pub enum Delivery {
    /// Events.
    Events {
        /// The cursors before and behind the batch; `None` where events are not in the order of the log.
        range: Option<(Cursor, Cursor)>,
        /// The events.
        events: Vec<Arc<Stored>>,
        /// Those of them that were delivered before: offset and the number of this delivery.
        attempts: Vec<(Offset, u32)>,
        /// When the first of them became durable, where the subscription is live and that is known.
        durable_at: Option<Duration>,
    },
    /// The backlog has been sent.
    CaughtUp(Cursor),
    /// Events are gone.
    Gap(Gap),
    /// Another session has taken it over, or it was deleted. Nothing more comes.
    Superseded,
    /// Another session of a mirror has moved the floor.
    Acked(Cursor),
}

/// What a subscription is made of.
pub(super) struct Parts {
    pub(super) number: u32,
    pub(super) log: LogHandle,
    pub(super) selection: Selection,
    pub(super) registration: Registration,
    pub(super) batch_max: u32,
    pub(super) cursor: Cursor,
    pub(super) gap: Option<(Cursor, GapReason)>,
    /// What had been taken out of the log when the gap was looked for.
    pub(super) trims: u64,
    pub(super) durable: Option<(Arc<Durable>, Token)>,
    /// What counts it.
    pub(super) counted: Counted,
    /// Whether it begins at a position, and not with what comes from now on.
    pub(super) resumes: bool,
    /// Where what is live may wait for more.
    pub(super) pace: Option<Box<Pace>>,
    /// The state that comes first.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// Where the subscriber's line is to be spared.
    pub(super) bandwidth: Option<Box<Bandwidth>>,
}

impl Subscription {
    pub(super) fn new(parts: Parts) -> Subscription {
        let until = parts.log.committed();
        let pending_gap = parts.gap.map(|(requested, reason)| {
            Box::new(Gap {
                subscription: Some(parts.number),
                requested,
                first: super::first_after(&parts.log, requested, reason),
                last: until.get(),
                log: parts.log.id(),
                reason,
            })
        });
        let gathered = parts.snapshot.as_ref().map_or(0, |state| state.replayed_bytes);
        Subscription {
            presence: None,
            number: parts.number,
            log: parts.log,
            selection: parts.selection,
            registration: parts.registration,
            events_max: parts.batch_max.clamp(1, BATCH_EVENTS_MAX),
            phase: Phase::CatchingUp(until),
            pending_gap,
            trims: parts.trims,
            cursor: parts.cursor,
            told: parts.cursor,
            durable: parts.durable.map(|(durable, token)| Attachment {
                durable,
                token,
                told_floor: parts.cursor,
            }),
            counted: parts.counted,
            replayed: parts.resumes.then_some(0),
            replayed_bytes: u32::try_from(gathered).unwrap_or(u32::MAX),
            pace: parts.pace,
            snapshot: parts.snapshot,
            bandwidth: parts.bandwidth,
            _room: None,
        }
    }

    /// The same, listed on its topics.
    pub(super) fn listed(self, presence: PresenceHold) -> Subscription {
        Subscription { presence: Some(Box::new(presence)), ..self }
    }

    /// The same, with its part of a bound until it ends.
    pub fn within(self, room: Option<OwnedSemaphorePermit>) -> Subscription {
        Subscription { _room: room.map(Box::new), ..self }
    }

    /// Ends it on purpose: where it is listed, it leaves at once.
    pub fn unsubscribe(self) {
        if let Some(presence) = self.presence {
            presence.leave();
        }
    }

    /// The session's number for it.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Where it stands.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    fn events_max(&self) -> usize {
        usize::try_from(self.events_max).unwrap_or(usize::MAX)
    }

    /// How much the next batch has at most. What comes again is taken before it is known how large it is: no more
    /// events than may be in so many bytes.
    fn batch_limit(&self) -> ReadLimit {
        let bytes = self.bandwidth.as_ref().map_or(BATCH_BYTES_MAX, |it| it.batch_bytes());
        let events = self.events_max().min(bytes.div_ceil(BATCH_ENVELOPE_BYTES));
        ReadLimit { events, bytes }
    }

    /// The durable it is attached to.
    pub fn durable(&self) -> Option<(&Arc<Durable>, Token)> {
        self.durable.as_ref().map(|attachment| (&attachment.durable, attachment.token))
    }

    /// Says to the session that there may be something to do.
    pub fn wake(&self) {
        self.registration.entry().wake();
    }

    fn has_replayed(&mut self, bytes: u64) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.replayed_bytes = self.replayed_bytes.saturating_add(bytes);
    }

    /// How many bytes of events that were there before were read for it since this was asked last, wanted or not.
    pub fn take_replayed_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.replayed_bytes).into()
    }

    /// What to send next; `None` when there is nothing now.
    ///
    /// # Errors
    /// The log could not be read; the cursor has not moved.
    pub async fn next(&mut self) -> Result<Option<Delivery>, ReadError> {
        let waits = self.bandwidth.as_mut().is_some_and(|it| it.must_wait(clock::monotonic_ms()));
        if waits && !self.is_lost() {
            return Ok(None);
        }
        let mut delivery = self.next_delivery().await?;
        if let (Some(bandwidth), Some(Delivery::Events { events, .. })) =
            (&mut self.bandwidth, &mut delivery)
        {
            bandwidth.take(events, clock::monotonic_ms());
        }
        Ok(delivery)
    }

    /// Whether it is a durable's, and somebody else has that now.
    fn is_lost(&self) -> bool {
        self.durable.as_ref().is_some_and(|Attachment { durable, token, .. }| {
            !durable.lock().is_held_by(*token, durable.spec.options.mode)
        })
    }

    async fn next_delivery(&mut self) -> Result<Option<Delivery>, ReadError> {
        if self.phase == Phase::Ended {
            return Ok(None);
        }
        if let Some(gap) = self.pending_gap.take() {
            return Ok(Some(Delivery::Gap(*gap)));
        }
        if self.durable.as_ref().is_some_and(|attachment| attachment.durable.is_by_priority()) {
            return Box::pin(self.next_in_lanes()).await;
        }
        if let Some(delivery) = self.next_of_durable().await? {
            return Ok(Some(delivery));
        }
        if let Some(first) = self.registration.take_first_match() {
            self.cursor = self.cursor.max(first.before());
        }
        for _ in 0..LOOKS_A_TURN {
            let events_max = self.room().min(self.events_max());
            if events_max == 0 {
                self.pace.iter_mut().for_each(|pace| pace.reset());
                return Ok(None);
            }
            // One for both: what comes after the look was not looked at.
            let committed = self.log.committed();
            match self.hold(committed, events_max).await? {
                Hold::Not => {}
                Hold::Armed => return Ok(None),
                Hold::Look => {
                    tokio::task::yield_now().await;
                    continue;
                }
            }
            let batch = self.read(committed, events_max).await?;
            if let Some(gap) = self.trimmed() {
                return Ok(Some(Delivery::Gap(gap)));
            }
            let looked = batch.damaged.unwrap_or(batch.cursor);
            let Some(Taken { events, attempts, passed }) = self.take(batch.events, looked) else {
                return Ok(Some(self.end()));
            };
            self.cursor = passed;
            if batch.damaged.is_some() && passed == looked {
                self.told = passed;
                return Ok(Some(Delivery::Gap(self.damage(batch.cursor, passed))));
            }
            if !events.is_empty() {
                return Ok(Some(self.tell(events, attempts)));
            }
            if let Some(delivery) = self.caught_up() {
                return Ok(Some(delivery));
            }
            if self.cursor >= committed && self.registration.arm(self.cursor) {
                return Ok(None);
            }
            tokio::task::yield_now().await;
        }
        if self.pace.as_ref().is_some_and(|pace| pace.due_ms().is_some()) {
            // So much is coming that what waits could not be armed yet: others first.
            self.wake();
            return Ok(None);
        }
        // A long stretch without a match: the subscriber is told how far it goes, so that it need not be
        // gone through again, and the others have their turn.
        Ok(Some(self.tell(Vec::new(), Vec::new())))
    }

    /// The next batch.
    async fn read(&mut self, until: Cursor, events_max: usize) -> Result<Batch, ReadError> {
        let limit = ReadLimit { events: events_max, ..self.batch_limit() };
        let passed = self.snapshot.take_if(|snapshot| self.cursor >= snapshot.until());
        if let (Some(_), Some(attachment)) = (passed, &self.durable) {
            attachment.durable.first_state.is_done().await;
        }
        if let Some(snapshot) = &self.snapshot {
            return Box::pin(snapshot.next(&self.log, self.cursor, limit)).await;
        }
        let Some(conflating) = self.conflating() else {
            let filters = self.registration.filters();
            let batch = self.log.read(self.cursor, until, filters, limit).await?;
            if self.phase != Phase::Live {
                self.has_replayed(replayed_bytes(&batch.events));
            }
            return Ok(batch);
        };
        // Boxed: those who do not conflate keep no room for it.
        let (mut batch, replayed) = Box::pin(conflating.next(self.cursor, until, limit)).await?;
        if let Some(attachment) = &self.durable {
            let reach = attachment.durable.lock().state.reach();
            batch.events = Box::pin(conflating.unreplaced(batch.events, reach)).await?;
        }
        if self.phase != Phase::Live {
            self.has_replayed(replayed);
        }
        Ok(batch)
    }

    fn conflating(&self) -> Option<Conflating<'_>> {
        self.pace.as_ref().filter(|pace| pace.conflates()).map(|_| Conflating {
            log: &self.log,
            filters: self.registration.filters(),
            selection: &self.selection,
        })
    }

    /// Whether what comes next waits for more; the cursor stays before it then.
    async fn hold(&mut self, committed: Cursor, events_max: usize) -> Result<Hold, ReadError> {
        let Some(pace) = self.pace.as_mut().filter(|_| self.phase == Phase::Live) else {
            return Ok(Hold::Not);
        };
        let now_ms = clock::monotonic_ms();
        let Some(from) = pace.look_from(self.cursor, now_ms) else { return Ok(Hold::Not) };
        let found = self.log.read(from, committed, self.registration.filters(), LOOK).await?;
        let now = clock::now();
        let wants = |event: &Stored| self.selection.wants(event) && !has_expired(event, now);
        let Step::Wait(looked, enough) = pace.look(&found, wants, events_max, now_ms) else {
            return Ok(Hold::Not);
        };
        let is_armed = looked >= committed && self.registration.arm_quietly(looked, enough);
        Ok(if is_armed { Hold::Armed } else { Hold::Look })
    }

    /// While nothing matches: brings the subscriber's cursor up to what has been looked at.
    pub fn idle(&mut self) -> Option<Delivery> {
        let has_lanes = self.durable.as_ref().is_some_and(|it| it.durable.is_by_priority());
        if self.phase != Phase::Live || has_lanes {
            return None;
        }
        if let Some(passed) = self.registration.passed() {
            self.cursor = self.cursor.max(passed);
        }
        (self.cursor > self.told).then(|| self.tell(Vec::new(), Vec::new()))
    }

    /// The socket has taken everything that was given.
    pub fn sent(&self) {
        if let Some(attachment) =
            self.durable.as_ref().filter(|attachment| !attachment.durable.is_mirror())
        {
            let durable = &attachment.durable;
            let mut held = durable.lock();
            // Whoever has taken it over has leases of its own.
            if held.is_held_by(attachment.token, durable.spec.options.mode) {
                held.sent(clock::monotonic_ms(), &durable.redelivery, attachment.token);
            }
        }
    }

    /// When to ask again though nothing was announced, in monotonic milliseconds: a lease ends, or what waits
    /// for more has waited long enough.
    pub fn next_due_ms(&self) -> Option<u64> {
        let batch = self.pace.as_ref().and_then(|pace| pace.due_ms());
        let lease = self.durable_due_ms();
        let free = self.bandwidth.as_ref().and_then(|bandwidth| bandwidth.due_ms());
        // What is due earlier cannot be sent before.
        free.or_else(|| [batch, lease].into_iter().flatten().min())
    }

    /// How many events may go out.
    fn room(&self) -> usize {
        let Some(Attachment { durable, token, .. }) = &self.durable else { return usize::MAX };
        let held = durable.lock();
        match durable.is_mirror() && !held.is_paused() {
            true => usize::MAX,
            false => durable.room(&held, *token),
        }
    }

    /// Those of the events that are wanted, noted as delivered; everything up to `looked` has been looked at.
    /// `None` when the durable was taken over meanwhile.
    fn take(&self, mut events: Vec<Arc<Stored>>, looked: Cursor) -> Option<Taken> {
        let now = clock::now();
        events.retain(|event| self.selection.wants(event) && !has_expired(event, now));
        let Some(Attachment { durable, token, .. }) = &self.durable else {
            return Some(Taken { events, attempts: Vec::new(), passed: looked });
        };
        let mut held = durable.lock();
        if durable.is_mirror() {
            events.retain(|event| !held.state.is_acked(event.offset().get()));
            return Some(Taken { events, attempts: Vec::new(), passed: looked });
        }
        if !held.is_held_by(*token, durable.spec.options.mode) {
            return None;
        }
        let mut passed = looked;
        if durable.is_shared() {
            // The others have read the same: each takes a part.
            let part = events.len().div_ceil(held.members());
            if part < events.len() {
                events.truncate(part);
                passed = events.last().map_or(looked, |last| last.offset().cursor());
            }
        }
        let sent = durable.deliver_new(&mut held, &events, passed, *token);
        drop(held);
        durable.tell_graves();
        let is_sent = |event: &Stored| {
            sent.binary_search_by_key(&event.offset().get(), |(offset, _)| *offset).is_ok()
        };
        events.retain(|event| is_sent(event));
        Some(Taken { events, attempts: attempts_of(&sent), passed })
    }

    fn tell(&mut self, events: Vec<Arc<Stored>>, attempts: Vec<(Offset, u32)>) -> Delivery {
        let after = self.told;
        self.told = self.cursor;
        let mut durable_at = None;
        match (self.phase, &mut self.replayed) {
            // What waited on purpose says nothing of how long a delivery takes.
            (Phase::Live, _) if self.pace.is_some() => {}
            (Phase::Live, _) => durable_at = events.first().and_then(|event| event.durable_at()),
            (Phase::CatchingUp(_), Some(sent)) => {
                *sent = sent.saturating_add(u32::try_from(events.len()).unwrap_or(u32::MAX));
            }
            _ => {}
        }
        let range = Some((after, self.cursor));
        Delivery::Events { range, events, attempts, durable_at }
    }

    /// Once the backlog is sent: first the cursor if it moved, then the news.
    fn caught_up(&mut self) -> Option<Delivery> {
        match self.phase {
            Phase::CatchingUp(until) if self.cursor >= until => {
                if self.cursor > self.told {
                    return Some(self.tell(Vec::new(), Vec::new()));
                }
                self.phase = Phase::Live;
                self.counted.goes_live();
                self.replayed.take().into_iter().for_each(|sent| metrics::replayed(sent.into()));
                Some(Delivery::CaughtUp(self.cursor))
            }
            _ => None,
        }
    }

    fn end(&mut self) -> Delivery {
        self.phase = Phase::Ended;
        Delivery::Superseded
    }

    /// What was taken out behind the cursor meanwhile: what was just read may lack it, and is read again.
    fn trimmed(&mut self) -> Option<Gap> {
        let version = self.log.trims_version();
        if std::mem::replace(&mut self.trims, version) == version {
            return None;
        }
        let requested = self.cursor;
        let (reason, upto) = self.log.trimmed(self.registration.filters(), requested)?;
        if let Some(attachment) = &self.durable {
            attachment.durable.lock().is_news(upto);
        }
        Some(Gap {
            subscription: Some(self.number),
            requested,
            first: super::first_after(&self.log, requested, reason),
            last: self.log.committed().get(),
            log: self.log.id(),
            reason,
        })
    }

    fn damage(&self, requested: Cursor, until: Cursor) -> Gap {
        Gap { subscription: Some(self.number), ..self.log.damage_gap(requested, until) }
    }
}

/// Those that were delivered before: they alone carry their count.
fn attempts_of(sent: &[(u64, u32)]) -> Vec<(Offset, u32)> {
    sent.iter()
        .filter(|(_, attempts)| *attempts >= 2)
        .filter_map(|&(offset, attempts)| Some((Offset::new(offset)?, attempts)))
        .collect()
}
