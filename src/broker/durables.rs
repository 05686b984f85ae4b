//! Durable subscriptions as a resource: made, attached to, acknowledged, looked at, forgotten.

use std::{sync::Arc, time::Duration};

use smallvec::smallvec;
use tidings_proto::{
    Cursor, Filters, Offset, Position, Start, SubscribeOptions, Topic,
    control::{DurableSpec, SUBSCRIPTIONS_TOPIC, SubscriptionChange},
    subscribe::OnGap,
};
use tokio_util::sync::CancellationToken;

use super::{
    Broker, Durable, Target, Token, WAIT_MS_MAX,
    acks::AckTicket,
    bandwidth::Bandwidth,
    conflate::Conflating,
    error::{AckError, AppendError, CONTINUE, START_ELSEWHERE, SubscribeError},
    interest::Ready,
    ledger::LedgerEntry,
    options::check,
    pace::Pace,
    receipts::Step,
    selection::{Selection, has_expired, wants_same},
    subscription::{Parts, Subscription},
    with_log,
};
use crate::{
    clock,
    log::{Draft, ReadError, ReadLimit, codec},
};

/// How often durables that nobody uses are put away and the ledger is checkpointed.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// How many durables there may be.
#[derive(Clone, Copy, Debug)]
pub struct DurablesMax {
    /// Together.
    pub all: usize,
    /// Made by one subject.
    pub of_subject: usize,
}

/// Whether a durable was made or was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// Made.
    Created,
    /// There, with these or now these options.
    Kept,
}

/// Puts away what nobody uses, and checkpoints the ledger, until `stop`.
pub(super) async fn keep(broker: Arc<Broker>, stop: CancellationToken) {
    let mut every = tokio::time::interval(KEEP_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        broker.put_away();
        let controls = broker.controls.clone();
        if tokio::task::spawn_blocking(move || controls.checkpoint()).await.is_err() {
            tracing::error!("the ledger's checkpoint panicked");
        }
    }
}

impl Broker {
    pub(super) async fn subscribe_durable(
        &self,
        options: &SubscribeOptions,
        subject: &str,
        ready: Arc<Ready>,
        number: u32,
    ) -> Result<Subscription, SubscribeError> {
        let name = options.durable.clone().unwrap_or_default();
        self.ensure(&name, options, subject, false).await?;
        // Everything by this one object: a change meanwhile ends it, and the session is told.
        let durable = self.durable(&name)?;
        let filters = durable.spec.options.filters.clone();
        let floor = durable.lock().state.floor();
        if options.on_gap == OnGap::Error && self.log.trimmed(&filters, floor).is_some() {
            return Err(self.gone(&Position { cursor: floor, log: None }, CONTINUE));
        }
        let registration = self.interest.register(&filters, ready, number);
        let snapshot = self.state_of(&durable).await?;
        let trims = self.log.trims_version();
        let gap = self.pass_trimmed(&durable).await?;
        self.pass_expired(&durable).await?;
        let (token, floor) =
            durable.attach(registration.entry().clone(), options.lost_reader.as_deref());
        let cursor = floor;
        let pace = Pace::of(&durable.spec.options);
        let bandwidth = Bandwidth::of(&durable.spec.options);
        let parts = Parts {
            number,
            log: self.log.clone(),
            selection: Selection::of(&durable.spec.options),
            registration,
            batch_max: options.batch_max,
            cursor,
            gap,
            trims,
            durable: Some((durable, token)),
            counted: super::Counted::new(&self.attached),
            resumes: true,
            pace,
            snapshot,
            bandwidth,
        };
        Ok(Subscription::new(parts))
    }

    /// Makes the durable, or changes its options.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub async fn put_durable(
        &self,
        name: &str,
        options: &SubscribeOptions,
        subject: &str,
    ) -> Result<PutOutcome, SubscribeError> {
        let options = SubscribeOptions { durable: Some(name.to_owned()), ..options.clone() };
        check(&options)?;
        self.ensure(name, &options, subject, true).await
    }

    /// The durable as the log has it; made when it is not there, changed when `change` allows it.
    async fn ensure(
        &self,
        name: &str,
        options: &SubscribeOptions,
        subject: &str,
        change: bool,
    ) -> Result<PutOutcome, SubscribeError> {
        self.idle.used(name);
        if self.is_kept(name, options, change)? {
            return Ok(PutOutcome::Kept);
        }
        let _one_at_a_time = self.changing.lock().await;
        if self.is_kept(name, options, change)? {
            return Ok(PutOutcome::Kept);
        }
        let found = self.controls.find(name);
        if found.is_none() {
            self.check_count(subject)?;
        }
        let (number, start, state_until) = match &found {
            Some(entry) => (entry.spec.number, entry.spec.start, entry.spec.state_until),
            None if options.last_per_key => {
                let (start, until) = (self.log.first().before(), self.log.committed());
                (self.controls.next_number(), start, Some(until))
            }
            None => (
                self.controls.next_number(),
                self.start_of(&start_with_log(options), &options.filters, START_ELSEWHERE).await?,
                None,
            ),
        };
        let spec = DurableSpec {
            name: name.to_owned(),
            number,
            options: stored_options(options),
            start,
            owner: subject.to_owned(),
            state_until,
            since: found.as_ref().and_then(|entry| entry.spec.since),
            wants_changed: found.as_ref().is_some_and(|it| !wants_same(&it.spec.options, options)),
        };
        self.record(&SubscriptionChange::Put(Box::new(spec.clone()))).await?;
        if let Some(saved) = self.change(spec) {
            // That nobody has failed by it is known over a kill, too. Where there is no room for that the change holds all
            // the same.
            drop(saved.await);
        }
        Ok(if found.is_some() { PutOutcome::Kept } else { PutOutcome::Created })
    }

    /// Whoever is attached by the old options attaches again. Another may have found it as it is now.
    fn change(&self, spec: DurableSpec) -> Option<AckTicket> {
        let mut durables = self.durables.lock();
        let old = durables.get_mut(&spec.name).filter(|old| old.spec.options != spec.options)?;
        let changed = old.changed(Arc::new(spec));
        *old = changed.clone();
        // What the old one had in the box is in the new one's state.
        let saved = self.acks.submit(&changed);
        drop(durables);
        self.log.nudge();
        Some(saved)
    }

    /// Whether one more may be made by this subject.
    fn check_count(&self, subject: &str) -> Result<(), SubscribeError> {
        let DurablesMax { all, of_subject } = self.durables_max;
        let setting = if self.controls.durables() >= all {
            (all, "limits.durables_max")
        } else if self.controls.durables_of(subject) >= of_subject {
            (of_subject, "limits.durables_per_subject")
        } else {
            return Ok(());
        };
        Err(SubscribeError::TooMany { max: setting.0, setting: setting.1 })
    }

    /// Whether the durable is there with these options. An error where it is not to be changed.
    fn is_kept(
        &self,
        name: &str,
        options: &SubscribeOptions,
        change: bool,
    ) -> Result<bool, SubscribeError> {
        let Some(entry) = self.controls.find(name) else { return Ok(false) };
        // What a session wants of gaps is its own; what is put is for those who say nothing: its streams.
        let is_other = change && entry.spec.options.on_gap != options.on_gap;
        match differs(&entry.spec.options, options) {
            None => Ok(!is_other),
            Some(_) if change => Ok(false),
            Some(differs) => Err(SubscribeError::Conflict { name: name.to_owned(), differs }),
        }
    }

    pub(super) async fn start_of(
        &self,
        start: &Start,
        filters: &Filters,
        elsewhere: &'static str,
    ) -> Result<Cursor, SubscribeError> {
        match start {
            Start::First => Ok(self.log.first().before()),
            Start::Now => Ok(self.log.committed()),
            Start::Since(time) => Ok(self.log.at_time(time.as_millis()).await?),
            Start::After(position) => match self.resume(position, filters) {
                (cursor, None) => Ok(cursor),
                (_, Some(_)) => Err(self.gone(position, elsewhere)),
            },
        }
    }

    /// Forgets a durable. False when there is none.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn delete_durable(&self, name: &str) -> Result<bool, AppendError> {
        self.delete_durable_if(name, |_| true).await
    }

    /// The same where this holds of it; nobody makes or changes it meanwhile.
    pub(super) async fn delete_durable_if(
        &self,
        name: &str,
        holds: impl FnOnce(&LedgerEntry) -> bool,
    ) -> Result<bool, AppendError> {
        let _one_at_a_time = self.changing.lock().await;
        let Some(entry) = self.controls.find(name).filter(holds) else { return Ok(false) };
        let change =
            SubscriptionChange::Deleted { name: name.to_owned(), number: entry.spec.number };
        self.record(&change).await?;
        self.idle.used(name);
        if let Some(durable) = self.durables.lock().remove(name) {
            durable.delete();
        }
        Ok(true)
    }

    pub(super) async fn record(&self, change: &SubscriptionChange) -> Result<(), AppendError> {
        let draft = draft_of(change).ok_or(AppendError::Indeterminate)?;
        self.log.append(smallvec![draft]).await?.await?;
        Ok(())
    }

    /// The durable of this name, taken into use.
    pub(super) fn durable(&self, name: &str) -> Result<Arc<Durable>, SubscribeError> {
        self.idle.used(name);
        self.take_into_use(name)
    }

    /// The same for the broker's own ends: nobody has used it.
    pub(super) fn take_into_use(&self, name: &str) -> Result<Arc<Durable>, SubscribeError> {
        let mut durables = self.durables.lock();
        if let Some(durable) = durables.get(name) {
            return Ok(durable.clone());
        }
        let entry =
            self.controls.find(name).ok_or_else(|| SubscribeError::Unknown(name.to_owned()))?;
        let paused = entry.is_paused();
        let durable = Arc::new(Durable::new(entry.spec, &entry.acks, paused, &self.graves));
        durables.insert(name.to_owned(), durable.clone());
        Ok(durable)
    }

    /// Takes acks; the answer waits for the commit. `from` is the session's attachment, `None` over HTTP.
    /// Gives the floor as it will be then.
    ///
    /// # Errors
    /// See [`AckError`].
    pub async fn ack(
        &self,
        durable: &Arc<Durable>,
        target: &Target,
        from: Option<Token>,
    ) -> Result<(AckTicket, Cursor), AckError> {
        let highest = match target {
            Target::UpTo(offset) => Some(*offset),
            Target::These(offsets) => offsets.iter().max().copied(),
        };
        self.check_last(highest)?;
        let mut covered = Cursor::START;
        let after = loop {
            let Step { wishes, part } = self.receipts_step(durable, target, covered).await?;
            let step = part.map(Target::UpTo);
            let after = durable.ack(step.as_ref().unwrap_or(target), from, wishes)?;
            let Some(part) = part else { break after };
            covered = part.cursor();
            // The rest with the next commit: one has so many receipts and no more.
            self.submit(durable)?.await?;
        };
        if durable.is_mirror() {
            self.raise_floor(durable).await?;
        }
        let floor = durable.lock().state.floor();
        let ticket = self.submit(durable)?;
        crate::metrics::acked(after);
        Ok((ticket, floor))
    }

    /// Nothing says to a mirror which of the events above its floor match: each of its sessions reads for
    /// itself. So the log is asked, from the floor on, until an event is found that is not acknowledged.
    async fn raise_floor(&self, durable: &Arc<Durable>) -> Result<(), ReadError> {
        let selection = Selection::of(&durable.spec.options);
        let filters = &durable.spec.options.filters;
        let conflating = Conflating::of(&self.log, &durable.spec.options, &selection);
        // Most acks stop at the first event; the others have a stretch before them.
        let mut events = if conflating.is_some() { 256 } else { 1 };
        loop {
            let (floor, last) = (durable.lock().state.floor(), self.log.committed());
            // Nor does it pass what is gone before somebody was told of that.
            let trimmed = self.log.trimmed(filters, floor);
            if trimmed.is_some_and(|(_, upto)| !durable.lock().has_told(upto)) {
                return Ok(());
            }
            let limit = ReadLimit { events, bytes: 1 << 20 };
            let batch = self.log.read(floor, last, filters, limit).await?;
            let now = clock::now();
            let mut wanted = batch.events;
            wanted.retain(|event| selection.wants(event) && !has_expired(event, now));
            if let Some(conflating) = &conflating {
                // What a newer one that is acknowledged has replaced was perhaps never sent.
                let reach = durable.lock().state.reach();
                wanted = conflating.newest(wanted, reach).await?;
            }
            let wanted: Vec<u64> = wanted.iter().map(|event| event.offset().get()).collect();
            let looked = batch.damaged.unwrap_or(batch.cursor);
            let moved = durable.lock().state.raise_floor(floor, &wanted, looked);
            if !moved || looked >= last {
                return Ok(());
            }
            events = 256;
        }
    }

    /// The floor of a mirror passes what has expired right behind it: nobody will be given that, and it would count as
    /// unread until somebody acknowledges another event. Where events are selected, none that has expired is counted.
    pub(super) async fn pass_expired(&self, durable: &Arc<Durable>) -> Result<(), ReadError> {
        let options = &durable.spec.options;
        if !durable.is_mirror() || !Selection::of(options).is_all() {
            return Ok(());
        }
        let (floor, last) = (durable.lock().state.floor(), self.log.committed());
        let first = ReadLimit { events: 1, bytes: 1 };
        let found = self.log.read(floor, last, &options.filters, first).await?;
        let now = clock::now();
        if !found.events.first().is_some_and(|event| has_expired(event, now)) {
            return Ok(());
        }
        self.raise_floor(durable).await?;
        if durable.lock().state.floor() > floor {
            // The sessions are told when it is durable; nobody waits for it.
            drop(self.submit(durable));
        }
        Ok(())
    }

    /// Lets events come again.
    ///
    /// # Errors
    /// See [`AckError`].
    pub fn nack(
        &self,
        durable: &Arc<Durable>,
        offsets: &[Offset],
        delay_ms: Option<u64>,
        reason: Option<&str>,
        from: Option<Token>,
    ) -> Result<AckTicket, AckError> {
        self.check_last(offsets.iter().max().copied())?;
        if delay_ms.is_some_and(|ms| ms > WAIT_MS_MAX) {
            return Err(AckError::TooLong { max_ms: WAIT_MS_MAX });
        }
        durable.nack(offsets, delay_ms, reason, from)?;
        let ticket = self.submit(durable)?;
        crate::metrics::nacked();
        Ok(ticket)
    }

    /// Puts the durable into the ack box: itself, or what it has become by a change.
    pub(super) fn submit(&self, durable: &Arc<Durable>) -> Result<AckTicket, AckError> {
        let spec = &durable.spec;
        let durables = self.durables.lock();
        let current = durables.get(&spec.name).filter(|current| current.spec.number == spec.number);
        let current = current.ok_or_else(|| AckError::Unknown(spec.name.clone()))?;
        let ticket = self.acks.submit(current);
        drop(durables);
        self.log.nudge();
        Ok(ticket)
    }

    fn check_last(&self, highest: Option<Offset>) -> Result<(), AckError> {
        let last = self.log.committed();
        match highest {
            Some(offset) if !last.covers(offset) => Err(AckError::AboveLast { offset, last }),
            _ => Ok(()),
        }
    }

    /// The durable of this name, for acks over HTTP.
    ///
    /// # Errors
    /// [`AckError::Unknown`].
    pub fn durable_by_name(&self, name: &str) -> Result<Arc<Durable>, AckError> {
        self.durable(name).map_err(|_| AckError::Unknown(name.to_owned()))
    }

    /// The options of the durable of this name.
    pub fn durable_options(&self, name: &str) -> Option<SubscribeOptions> {
        self.controls.find(name).map(|entry| entry.spec.options.clone())
    }

    /// Durables without sessions, leases and waiting acks are with the ledger alone. What was put away is
    /// in the ledger: the box holds a durable until its state is committed.
    pub(super) fn put_away(&self) {
        let mut durables = self.durables.lock();
        durables.retain(|_, durable| {
            // The box and every session hold it too.
            Arc::strong_count(durable) > 1 || !durable.lock().is_idle()
        });
        // Where very many were in use at a time.
        let few = durables.len().saturating_mul(4);
        durables.shrink_to(few);
    }
}

/// The event of a change; `None` never.
pub(super) fn draft_of(change: &SubscriptionChange) -> Option<Draft> {
    let topic = Topic::parse(SUBSCRIPTIONS_TOPIC).ok()?;
    let data = serde_json::to_vec(change).ok()?;
    let kind = match change {
        SubscriptionChange::Put(_) => "subscription.put",
        SubscriptionChange::Paused { .. } => "subscription.paused",
        SubscriptionChange::Deleted { .. } => "subscription.deleted",
    };
    Some(codec::control(topic, kind, data, clock::event_id()))
}

/// Where it is to begin, in the log that is named beside it.
fn start_with_log(options: &SubscribeOptions) -> Start {
    match &options.start {
        Start::After(position) => Start::After(with_log(position, options.log.as_deref())),
        start => start.clone(),
    }
}

/// The options as they are kept: what a durable is, not where it was asked to begin.
fn stored_options(options: &SubscribeOptions) -> SubscribeOptions {
    SubscribeOptions {
        after: None,
        since: None,
        log: None,
        durable: None,
        start: Start::Now,
        last_per_key: false,
        presence: None,
        lost_reader: None,
        batch_max: SubscribeOptions::to(options.filters.clone()).batch_max,
        ..options.clone()
    }
}

/// Which option that makes a durable what it is differs.
fn differs(old: &SubscribeOptions, new: &SubscribeOptions) -> Option<&'static str> {
    [
        ("filters", old.filters != new.filters),
        ("mode", old.mode != new.mode),
        ("partition_by", old.partition_by != new.partition_by),
        ("order", old.order != new.order),
        ("headers", old.headers != new.headers),
        ("idle_expiry_ms", old.idle_expiry_ms != new.idle_expiry_ms),
        ("max_data_bytes", old.max_data_bytes != new.max_data_bytes),
        ("max_bytes_per_second", old.max_bytes_per_second != new.max_bytes_per_second),
        ("types", old.types != new.types),
        ("min_priority", old.min_priority != new.min_priority),
        ("content_types", old.content_types != new.content_types),
        ("max_in_flight", old.max_in_flight != new.max_in_flight),
        ("ack_wait_ms", old.ack_wait_ms != new.ack_wait_ms),
        ("max_deliveries", old.max_deliveries != new.max_deliveries),
        ("backoff_ms", old.backoff_ms != new.backoff_ms),
        ("linger_ms", old.linger_ms != new.linger_ms),
        ("conflate_ms", old.conflate_ms != new.conflate_ms),
    ]
    .into_iter()
    .find(|(_, differs)| *differs)
    .map(|(name, _)| name)
}
