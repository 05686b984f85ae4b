//! Retention and erasure: the rules that hold, passes beside everything else, and topics erased for good.
//!
//! - One thing at a time: a pass, or an erasure. What it needs of the disk runs on the blocking pool.
//! - Before events of `$acks` and `$subscriptions` go, the newest state of each durable that lies among them is written
//!   anew, so that the ledger can always be folded from what is left.
//! - An erasure is an event first, and then carried out; after a crash the next pass goes on with it.

mod erasing;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use smallvec::smallvec;
use tidings_proto::{
    Cursor, Filter, Filters, Offset, Topic,
    control::{DeadLetter, RETENTION_TOPIC, RetentionChange, RetentionRule, SubscriptionChange},
    message::GapReason,
};
use tokio_util::sync::CancellationToken;

use super::{
    Broker, Durable,
    controls::BrokerControls,
    durables::draft_of,
    error::AppendError,
    ledger::{LedgerEntry, Seen},
};
use crate::{
    clock,
    log::{
        Drafts, Health, LogHandle, ReadError, ReadLimit, StorageError, codec,
        retention::{Keeper, Needs, Options, Removed, Rules},
    },
    metrics,
};

/// The most rules that may be made over the protocol.
const RULES_MAX: usize = 256;
/// How long an erasure is waited for; after that the passes carry it out.
const ERASE_WAIT: Duration = Duration::from_secs(30);

/// The most durables of which a pass writes anew how they were made, that they are paused, or how far they are
/// acknowledged.
const CARRIED_MAX: usize = if cfg!(test) { 4 } else { 65_536 };
/// About how many bytes of them are appended at a time.
const CARRIED_BYTES: usize = 256 * 1024;

/// What retention needs to be carried out.
#[derive(Debug)]
pub(super) struct Retention {
    options: Options,
    /// A pass or an erasure is under way.
    turn: tokio::sync::Mutex<()>,
    /// Up to where the states of durables are being written anew, when that takes more than one pass.
    carrying: Mutex<Option<Cursor>>,
    keeper: Arc<Mutex<Keeper>>,
}

/// Why a rule was not changed or a topic not erased.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// Too many rules.
    #[error(
        "there are {RULES_MAX} rules of retention: delete one, or give fewer a filter that matches more"
    )]
    TooMany,
    /// The change could not be stored.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log could not be read or rewritten.
    #[error("the topic is not erased yet: {0}; the broker tries again by itself")]
    Storage(#[from] StorageError),
}

/// A rule that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// For what it matches.
    pub filter: Filter,
    /// What it says.
    pub rule: RetentionRule,
    /// Whether it is one of the settings, and not made over the protocol.
    pub configured: bool,
}

/// What became of an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased {
    /// Every event of the topic up to here is to go.
    pub upto: Cursor,
    /// Whether all have gone; if not, the broker goes on by itself.
    pub done: bool,
}

struct OfLedger<'a> {
    controls: &'a BrokerControls,
    stop: &'a CancellationToken,
}

impl Needs for OfLedger<'_> {
    fn is_dead(&self, letter: &DeadLetter) -> bool {
        let entry = self.controls.find(&letter.durable);
        entry.is_some_and(|entry| {
            let dead = (letter.offset, letter.letter);
            entry.spec.number == letter.life && entry.acks.dead.contains(&dead)
        })
    }

    fn is_listed(&self, topic: &str, join: Offset) -> bool {
        self.controls.is_listed(topic, join)
    }

    fn is_scheduled(&self, publish: Offset) -> bool {
        self.controls.with_scheduled(|pending| pending.due_ms(publish.get()).is_some())
    }

    fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }
}

impl Retention {
    pub(super) fn new(log: &LogHandle, options: &Options) -> Retention {
        Retention {
            options: options.clone(),
            turn: tokio::sync::Mutex::new(()),
            carrying: Mutex::default(),
            keeper: Arc::new(Mutex::new(Keeper::new(log, options))),
        }
    }

    /// Waits for what is under way; nothing is taken out from then on. Blocks.
    pub(super) fn stop(&self) {
        self.keeper.lock().stop();
    }
}

/// Passes until `stop`: at fixed times, and when a segment is full, so that a fast publisher fills no more between two of
/// them.
pub(super) async fn keep(broker: Arc<Broker>, stop: CancellationToken) {
    let mut every = tokio::time::interval(broker.retention.options.every);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut kept = broker.log.kept();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
            Ok(()) = kept.changed() => {
                // Where segments are small, not for each of them.
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(broker.retention.options.every / 10) => {}
                }
            }
        }
        kept.borrow_and_update();
        let begun = clock::monotonic();
        match broker.retention_pass().await {
            Ok(removed) => {
                let took = clock::monotonic().saturating_sub(begun);
                let freed = (removed.dropped, removed.rewritten, removed.bytes);
                metrics::retention_passed(took, freed, clock::now());
            }
            Err(error) => tracing::warn!(%error, "a pass of retention failed; the next goes on"),
        }
    }
}

impl Broker {
    /// The rules there are, by filter.
    pub fn retention_rules(&self) -> Vec<RuleInfo> {
        let mut rules: BTreeMap<String, RuleInfo> = BTreeMap::new();
        if let Ok(filter) = Filter::parse(">") {
            let rule = self.retention.options.default_rule(self.log.dir());
            rules.insert(filter.to_string(), RuleInfo { filter, rule, configured: true });
        }
        for (filter, rule) in self.retention.options.rules.iter().cloned() {
            rules.insert(filter.to_string(), RuleInfo { filter, rule, configured: true });
        }
        for (name, (filter, rule)) in self.controls.retention().rules {
            rules.insert(name, RuleInfo { filter, rule, configured: false });
        }
        rules.into_values().collect()
    }

    /// Makes or changes the rule for a filter.
    ///
    /// # Errors
    /// [`RetentionError::TooMany`]; when it could not be stored.
    pub async fn put_retention(
        &self,
        filter: Filter,
        rule: RetentionRule,
    ) -> Result<(), RetentionError> {
        let _one_at_a_time = self.changing.lock().await;
        let rules = self.controls.retention().rules;
        if rules.len() >= RULES_MAX && !rules.contains_key(filter.as_str()) {
            return Err(RetentionError::TooMany);
        }
        let key = filter.to_string();
        Ok(self.record_retention(&RetentionChange::Put { filter, rule }, &key).await?)
    }

    /// Forgets the rule for a filter, so that what is configured holds again. False when there is none.
    ///
    /// # Errors
    /// When that could not be stored.
    pub async fn delete_retention(&self, filter: Filter) -> Result<bool, RetentionError> {
        let _one_at_a_time = self.changing.lock().await;
        if !self.controls.retention().rules.contains_key(filter.as_str()) {
            return Ok(false);
        }
        let key = filter.to_string();
        self.record_retention(&RetentionChange::Deleted { filter }, &key).await?;
        Ok(true)
    }

    /// Erases every event of a topic up to now, for good.
    ///
    /// # Errors
    /// When that could not be stored, or not be carried out now.
    pub async fn erase(&self, topic: &Topic) -> Result<Erased, RetentionError> {
        let upto = self.log.committed();
        let change = RetentionChange::Erase { topic: topic.clone(), upto };
        self.record_retention(&change, &format!("erase:{topic}")).await?;
        let erasing = async {
            let _turn = self.retention.turn.lock().await;
            self.erase_now(topic, upto).await
        };
        match tokio::time::timeout(ERASE_WAIT, erasing).await {
            // The passes make room and carry it out.
            Ok(Err(RetentionError::Storage(error))) if error.is_no_space() => {
                tracing::warn!(%topic, %error, "a topic is not erased yet");
                Ok(Erased { upto, done: false })
            }
            Ok(done) => done.map(|_| Erased { upto, done: true }),
            Err(_) => Ok(Erased { upto, done: false }),
        }
    }

    async fn record_retention(
        &self,
        change: &RetentionChange,
        key: &str,
    ) -> Result<(), AppendError> {
        let (Ok(topic), Ok(data)) = (Topic::parse(RETENTION_TOPIC), serde_json::to_vec(change))
        else {
            return Err(AppendError::Indeterminate);
        };
        let kind = match change {
            RetentionChange::Put { .. } => "retention.put",
            RetentionChange::Deleted { .. } => "retention.deleted",
            RetentionChange::Erase { .. } => "topic.erased",
        };
        let mut draft = codec::control(topic, kind, data, clock::event_id());
        draft.key = key.as_bytes().into();
        self.log.append(smallvec![draft]).await?.await?;
        Ok(())
    }

    /// One pass: what the rules say, and erasures that were cut off.
    pub(super) async fn retention_pass(&self) -> Result<Removed, RetentionError> {
        let _turn = self.retention.turn.lock().await;
        let mut removed = Removed::default();
        let passed = self.pass().await;
        // After what makes room, and none of them holds up the next pass for ever.
        for (topic, upto) in self.controls.retention().erased.into_values() {
            let erasing = tokio::time::timeout(ERASE_WAIT, self.erase_now(&topic, upto)).await;
            match erasing {
                Ok(Ok(done)) => removed += done,
                Ok(Err(error)) => tracing::warn!(%topic, %error, "a topic is not erased yet"),
                Err(_) => tracing::warn!(%topic, "a topic is not erased yet: it takes long"),
            }
        }
        removed += passed?;
        Ok(removed)
    }

    /// What the rules say.
    async fn pass(&self) -> Result<Removed, RetentionError> {
        let mut removed = Removed::default();
        let of = self.retention_rules().into_iter();
        let rules = of.map(|info| (info.filter.to_string(), (info.filter, info.rule))).collect();
        let rules = Rules::new(rules, RetentionRule::default());
        let mut plan = self.with_keeper(move |keeper| keeper.plan(rules)).await?;
        if plan.seal {
            self.log.seal();
        }
        if plan.is_empty() {
            return Ok(removed);
        }
        let begun = self.retention.carrying.lock().take();
        if begun.is_some() {
            // What was begun is ended first: else it would begin anew with all that has come since.
            plan.carry_at_most(begun);
        }
        if self.log.health() == Health::Full {
            plan.carry_least();
        }
        if plan.carry > Cursor::START && !self.carry_forward(plan.carry).await? {
            *self.retention.carrying.lock() = Some(plan.carry);
            plan.carry_at_most(None);
        }
        let (controls, stop) = (self.controls.clone(), self.stop.clone());
        let carrying_out = self.with_keeper(move |keeper| {
            keeper.carry_out(&plan, &OfLedger { controls: &controls, stop: &stop })
        });
        removed += carrying_out.await?;
        Ok(removed)
    }

    async fn with_keeper<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Keeper) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, RetentionError> {
        let keeper = self.retention.keeper.clone();
        let done = tokio::task::spawn_blocking(move || work(&mut keeper.lock())).await;
        match done {
            Ok(done) => Ok(done?),
            Err(_) => Err(RetentionError::Append(AppendError::Indeterminate)),
        }
    }

    /// Writes the newest states of durables that stand up to here anew, of [`CARRIED_MAX`] at most. False where there
    /// are more, or one has changed in this very moment: then nothing that has such states may go yet.
    async fn carry_forward(&self, upto: Cursor) -> Result<bool, RetentionError> {
        let is_old = |place: u64| place > 0 && place <= upto.get();
        // A fold knows nothing of a pause or a state that stands before all that says how the durable was made.
        let is_due = |at: u64, made: u64| is_old(at) || (at > 0 && at < made);
        let mut left = CARRIED_MAX;
        let put = |entry: LedgerEntry| SubscriptionChange::Put(Box::new((*entry.spec).clone()));
        self.carry_changes(&mut left, |seen| is_old(seen.line.made_at()), put).await?;
        let pause_is_due = |seen: &Seen<'_>| is_due(seen.line.paused_at(), seen.line.made_at());
        let state_is_due = |seen: &Seen<'_>| {
            let (made, acked) = seen.places();
            is_due(acked, made)
        };
        let paused = |entry: LedgerEntry| SubscriptionChange::Paused {
            name: entry.spec.name.clone(),
            number: entry.spec.number,
            paused: true,
        };
        self.carry_changes(&mut left, pause_is_due, paused).await?;
        let mut after = None;
        while left > 0 {
            let (found, last) = self.controls.page(after.as_deref(), left, state_is_due);
            left = left.saturating_sub(found.len());
            let mut tickets = Vec::with_capacity(found.len());
            for entry in found {
                let Ok(durable) = self.take_into_use(&entry.spec.name) else { continue };
                tickets.extend(self.submit(&durable).ok());
            }
            for ticket in tickets {
                ticket.await?;
            }
            after = last;
            if after.is_none() {
                break;
            }
            // Those that were read in for this are put away again: not all at a time.
            self.put_away();
            tokio::task::yield_now().await;
        }
        // Neither what stands in what goes, nor what a fold would pass over by what was carried.
        let is_left = |seen: &Seen<'_>| {
            is_old(seen.line.made_at()) || pause_is_due(seen) || state_is_due(seen)
        };
        Ok(!self.controls.any(is_left).await)
    }

    /// Appends this change of each durable that is due, many at a time, up to `left`; takes them from it.
    async fn carry_changes(
        &self,
        left: &mut usize,
        is_due: impl Fn(&Seen<'_>) -> bool,
        change: impl Fn(LedgerEntry) -> SubscriptionChange,
    ) -> Result<(), AppendError> {
        let mut after = None;
        while *left > 0 {
            // Nobody changes or deletes one between a look at it and what is written of it.
            let one_at_a_time = self.changing.lock().await;
            let (found, last) = self.controls.page(after.as_deref(), *left, &is_due);
            *left = left.saturating_sub(found.len());
            let mut drafts = Drafts::new();
            let mut bytes = 0;
            for entry in found {
                let draft = draft_of(&change(entry)).ok_or(AppendError::Indeterminate)?;
                bytes += draft.cost_bytes();
                drafts.push(draft);
                if bytes >= CARRIED_BYTES {
                    self.log.append(std::mem::take(&mut drafts)).await?.await?;
                    bytes = 0;
                }
            }
            if !drafts.is_empty() {
                self.log.append(drafts).await?.await?;
            }
            drop(one_at_a_time);
            after = last;
            if after.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// What of a durable's events was taken out below its floor, and moves the floor over it, as far as nothing
    /// is left there.
    pub(super) async fn pass_trimmed(
        &self,
        durable: &Arc<Durable>,
    ) -> Result<Option<(Cursor, GapReason)>, ReadError> {
        let Some((floor, reason, upto)) = self.trimmed_of(durable).await? else { return Ok(None) };
        durable.lock().is_news(upto);
        Ok(Some((floor, reason)))
    }

    /// The same for those who fetch: each loss is told to one of them, once.
    pub(super) async fn pass_trimmed_once(
        &self,
        durable: &Arc<Durable>,
    ) -> Result<Option<(Cursor, GapReason)>, ReadError> {
        let Some((floor, reason, upto)) = self.trimmed_of(durable).await? else { return Ok(None) };
        Ok(durable.lock().is_news(upto).then_some((floor, reason)))
    }

    async fn trimmed_of(
        &self,
        durable: &Arc<Durable>,
    ) -> Result<Option<(Cursor, GapReason, Cursor)>, ReadError> {
        let floor = durable.lock().state.floor();
        let filters = &durable.spec.options.filters;
        let Some((reason, upto)) = self.log.trimmed(filters, floor) else { return Ok(None) };
        let until = self.passable(filters, floor, upto).await?;
        if until > floor {
            let mut held = durable.lock();
            match durable.is_mirror() {
                true => drop(held.state.raise_floor(floor, &[], until)),
                false => held.state.pass_gone(until),
            }
            drop(held);
            // Whoever waits for it learns of it with the next ack.
            drop(self.submit(durable));
        }
        Ok(Some((floor, reason, upto)))
    }

    /// How far from `floor` up to `upto` there is nothing left that matches.
    async fn passable(
        &self,
        filters: &Filters,
        floor: Cursor,
        upto: Cursor,
    ) -> Result<Cursor, ReadError> {
        let mut cursor = floor;
        while cursor < upto {
            let limit = ReadLimit { events: 1, bytes: 1 };
            let batch = self.log.read(cursor, upto, filters, limit).await?;
            if let Some(first) = batch.events.first() {
                return Ok(first.offset().before());
            }
            if batch.damaged.is_some() || batch.cursor <= cursor {
                return Ok(cursor);
            }
            cursor = batch.cursor;
        }
        Ok(upto)
    }
}
