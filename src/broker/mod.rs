//! The core: publish, subscribe, ack, nack, read, receipts, status. Everything else here is private.
//!
//! - The log is the truth; a subscription is a cursor, and delivery is a read.
//! - Acks, durable subscriptions and their deletion are events too, folded by the ledger.
//! - The core knows no transport, no token and no encoding: whoever calls it has the right to.

mod access;
mod acks;
mod audit;
mod bandwidth;
mod conflate;
mod controls;
mod dispatch;
mod durable;
mod durables;
pub mod error;
mod fetch;
mod held;
mod idle;
mod infos;
mod interest;
mod lag;
mod lanes;
mod leasing;
mod ledger;
mod letters;
mod members;
mod operate;
mod options;
mod pace;
mod presence;
mod publish;
mod reading;
mod receipts;
mod retention;
mod scheduled;
mod selection;
mod snapshot;
mod subscription;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tidings_proto::{
    Cursor, Filters, Offset, Position, SubscribeOptions, Timestamp,
    message::{Gap, GapReason},
    subscribe::OnGap,
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::bandwidth::replayed_bytes;
pub use self::{
    access::{AccessError, Marks},
    acks::AckTicket,
    durables::{DurablesMax, PutOutcome},
    fetch::{Fetched, Wanted},
    held::{Durable, FetchReader, Target, Token},
    infos::DurableInfo,
    interest::Ready,
    letters::PlacedLetter,
    options::kept_bytes,
    presence::Options as PresenceOptions,
    publish::{PublishTicket, Run, RunTicket},
    retention::{Erased, RetentionError, RuleInfo},
    subscription::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Delivery, Subscription},
};
use self::{
    acks::AckBox,
    bandwidth::Bandwidth,
    controls::BrokerControls,
    error::{ReadError, SubscribeError},
    idle::Idle,
    interest::Interest,
    lag::Lag,
    letters::Graves,
    options::check,
    pace::Pace,
    presence::Presence,
    scheduled::Schedule,
    selection::Selection,
    snapshot::{Snapshot, States},
    subscription::Parts,
};
use crate::{
    log::{self, Batch, LogHandle, LogThread, StorageError, Stored},
    metrics::{LagGauges, SubscriptionGauges},
};

/// The most events one durable may have in flight.
pub const MAX_IN_FLIGHT_MAX: u32 = 10_000;
/// The longest time any option of a subscription may name: 24 hours, in milliseconds.
pub const WAIT_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// How many events a read looks at in one step where only some of them are wanted.
const READ_STEP: usize = 256;
/// How many steps one request may take without having found anything.
const READ_TURNS_MAX: u32 = 64;

/// The broker. Shared by every session.
pub struct Broker {
    log: LogHandle,
    interest: Arc<Interest>,
    controls: Arc<BrokerControls>,
    acks: Arc<AckBox>,
    presence: Arc<Presence>,
    schedule: Arc<Schedule>,
    durables: Mutex<HashMap<String, Arc<Durable>>>,
    /// One durable is made or deleted at a time: its name is looked up and written in two steps.
    changing: tokio::sync::Mutex<()>,
    ephemeral: Arc<Counts>,
    attached: Arc<Counts>,
    lag: Lag,
    retention: retention::Retention,
    graves: Arc<Graves>,
    idle: Idle,
    durables_max: DurablesMax,
    states: States,
    stop: CancellationToken,
}

/// What stops the broker.
pub struct Running {
    thread: LogThread,
    broker: Arc<Broker>,
}

/// Opens the log and starts the core. Call it within a tokio runtime. The durables `shown` have metrics of
/// their own; a name may end in `*`. At most `scheduled_max` events wait for their moment, and all states
/// (`last_per_key`) that are being given out have `slots_max` topics and keys together.
///
/// # Errors
/// What the storage refuses, see [`StorageError`].
pub fn start(
    options: &log::Options,
    durables_max: DurablesMax,
    shown: Vec<String>,
    presence: PresenceOptions,
    scheduled_max: usize,
    slots_max: usize,
) -> Result<(Arc<Broker>, Running), StartError> {
    let begun = crate::clock::monotonic();
    let opener = log::open(options)?;
    let took = crate::clock::monotonic().saturating_sub(begun);
    crate::metrics::recovered(took, opener.recovery.cut_bytes);
    let handle = opener.handle.clone();
    let acks = AckBox::new();
    let presence = Presence::new(presence, handle.clone());
    let schedule = Schedule::new(scheduled_max);
    let controls = BrokerControls::open(&handle, acks.clone(), presence.clone(), schedule.clone())?;
    let recovery = &opener.recovery;
    if let Some((from, to)) = recovery.lost {
        tracing::warn!(
            from,
            to,
            "a torn tail was cut: none of it was acknowledged, and its offsets are not used again"
        );
    }
    let thread = opener.start(controls.clone()).map_err(StartError::Thread)?;
    let states = States::new(slots_max);
    let parts = (handle, controls, acks, presence.clone(), schedule, states);
    let (broker, stop) = assemble(parts, durables_max, shown, &options.retention);
    tokio::spawn(idle::watch(broker.clone(), stop.clone()));
    tokio::spawn(retention::keep(broker.clone(), stop.clone()));
    tokio::spawn(durables::keep(broker.clone(), stop.clone()));
    tokio::spawn(presence::keep(presence, stop.clone()));
    tokio::spawn(letters::write(broker.clone(), stop.clone()));
    tokio::spawn(scheduled::fire(broker.clone(), stop.clone()));
    tokio::spawn(lag::watch(broker.clone(), stop));
    Ok((broker.clone(), Running { thread, broker }))
}

/// What the core is put together from.
type Rooms = (LogHandle, Arc<BrokerControls>, Arc<AckBox>, Arc<Presence>, Arc<Schedule>, States);

/// The core over a log whose commits somebody makes, and what stops it. Wakes whom they concern.
fn assemble(
    (log, controls, acks, presence, schedule, states): Rooms,
    durables_max: DurablesMax,
    shown: Vec<String>,
    retention: &log::retention::Options,
) -> (Arc<Broker>, CancellationToken) {
    let stop = CancellationToken::new();
    let interest = Interest::new(log.committed());
    let broker = Arc::new(Broker {
        log: log.clone(),
        interest: interest.clone(),
        controls,
        acks,
        presence,
        schedule,
        durables: Mutex::new(HashMap::new()),
        changing: tokio::sync::Mutex::new(()),
        ephemeral: Arc::default(),
        attached: Arc::default(),
        lag: Lag::new(shown),
        retention: retention::Retention::new(&log, retention),
        graves: Arc::default(),
        idle: Idle::default(),
        durables_max,
        states,
        stop: stop.clone(),
    });
    tokio::spawn(dispatch::run(log, interest, stop.clone()));
    (broker, stop)
}

/// Why the core did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The storage's reason.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The ledger could not be folded.
    #[error("the ledger of durable subscriptions could not be read: {0}")]
    Ledger(#[from] log::projection::ProjectionError),
    /// The system has no thread to give.
    #[error("no thread for the log: {0}")]
    Thread(#[source] std::io::Error),
    /// A fixed name that does not parse: a bug.
    #[error("a fixed topic name is wrong: {0}")]
    Topic(#[from] tidings_proto::topic::TopicError),
}

impl Running {
    /// The broker is about to end its sessions: whoever is listed somewhere stays so over a restart.
    pub fn stopping(&self) {
        self.broker.presence.stopping();
    }

    /// Refuses what comes from now on, commits what waits, writes the last checkpoint, closes the log.
    pub async fn stop(self) {
        let Running { thread, broker } = self;
        broker.stop.cancel();
        broker.save_counts();
        let closed = tokio::task::spawn_blocking(move || {
            broker.retention.stop();
            thread.close();
            broker.controls.checkpoint();
        });
        if closed.await.is_err() {
            tracing::error!("closing the log panicked");
        }
    }
}

/// A read for one request: no subscription stays behind.
#[derive(Debug)]
pub struct Read {
    /// The events and how far was looked.
    pub batch: Batch,
    /// What of the wish is gone.
    pub gap: Option<Gap>,
    /// How many bytes of events that were there before were read for it, wanted or not.
    pub replayed_bytes: u64,
}

/// Where a read or an ephemeral subscription begins.
#[derive(Clone, Debug)]
pub enum From {
    /// After this.
    After(Position),
    /// With what was appended at or after this moment.
    Since(Timestamp),
    /// With what comes from now on.
    Now,
}

impl Broker {
    /// The log, for what it says of itself.
    pub fn log(&self) -> &LogHandle {
        &self.log
    }

    /// Subscribes. `number` is the session's number for it; `ready` is told when it has something to do.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub async fn subscribe(
        &self,
        options: &SubscribeOptions,
        subject: &str,
        ready: Arc<Ready>,
        number: u32,
    ) -> Result<Subscription, SubscribeError> {
        check(options)?;
        if options.durable.is_some() {
            return self.subscribe_durable(options, subject, ready, number).await;
        }
        let from = match (&options.after, options.since) {
            (Some(after), _) => From::After(with_log(&after.0, options.log.as_deref())),
            (None, Some(time)) => From::Since(time),
            (None, None) if options.last_per_key => {
                From::After(Position { cursor: Cursor::START, log: None })
            }
            (None, None) => From::Now,
        };
        // Register first: what is committed from here on is announced.
        let registration = self.interest.register(&options.filters, ready, number);
        let trims = self.log.trims_version();
        let (cursor, gap) = self.begin(&from, &options.filters).await?;
        crate::metrics::resumed(match (&from, gap) {
            (From::Now, _) => "from_now",
            (_, None) => "exact",
            (_, Some((_, GapReason::LogChanged))) => "log_changed",
            (_, Some(_)) => "gap",
        });
        if let (Some((cursor, _)), OnGap::Error) = (gap, options.on_gap) {
            let requested = match from {
                From::After(position) => position,
                _ => Position { cursor, log: None },
            };
            return Err(self.gone(&requested, error::CONTINUE));
        }
        let selection = Selection::of(options);
        let snapshot = match options.last_per_key {
            true => Some(self.snapshot(&options.filters, &selection, cursor).await?),
            false => None,
        };
        let parts = Parts {
            number,
            log: self.log.clone(),
            selection,
            snapshot,
            registration,
            batch_max: options.batch_max,
            cursor,
            gap,
            trims,
            durable: None,
            counted: Counted::new(&self.ephemeral),
            resumes: !matches!(from, From::Now),
            pace: Pace::of(options),
            bandwidth: Bandwidth::of(options),
        };
        Ok(Subscription::new(parts))
    }

    /// The state of everything up to now.
    async fn snapshot(
        &self,
        filters: &Filters,
        selection: &Selection,
        after: Cursor,
    ) -> Result<Arc<Snapshot>, SubscribeError> {
        let until = self.log.committed();
        let states = &self.states;
        let gathering = Snapshot::gather(&self.log, states, filters, selection, after, until);
        Ok(Arc::new(gathering.await?))
    }

    /// One event.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] where it cannot be read; the storage's.
    pub async fn get(&self, offset: Offset) -> Result<Option<Arc<Stored>>, ReadError> {
        loop {
            let mut found = self.log.get_many(vec![offset], usize::MAX).await?;
            // It has left the memory in that moment.
            if !found.left.is_empty() {
                continue;
            }
            return match found.damaged.is_empty() {
                true => Ok(found.events.pop()),
                false => Err(ReadError::Damaged(offset)),
            };
        }
    }

    /// The newest event on a topic, with this key where one is given; `None` also when it has expired.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] where it cannot be read; the storage's.
    pub async fn last_on(
        &self,
        topic: &tidings_proto::Topic,
        key: Option<&str>,
    ) -> Result<Option<Arc<Stored>>, ReadError> {
        let found = self.log.last_on(topic.clone(), key.map(str::to_owned)).await?;
        Ok(found.filter(|event| !selection::has_expired(event, crate::clock::now())))
    }

    /// How many subscriptions there are: ephemeral ones, durables.
    pub fn subscription_counts(&self) -> (usize, usize) {
        let ephemeral = self.ephemeral.gauges();
        (ephemeral.catching_up + ephemeral.live, self.controls.durables())
    }

    /// Ephemeral subscriptions, those of durables, and how many durables nobody uses.
    pub fn subscription_gauges(&self) -> (SubscriptionGauges, SubscriptionGauges, usize) {
        let in_use: Vec<Arc<Durable>> = self.durables.lock().values().cloned().collect();
        let used = in_use.iter().filter(|durable| durable.lock().sessions() > 0).count();
        let idle = self.controls.durables().saturating_sub(used);
        (self.ephemeral.gauges(), self.attached.gauges(), idle)
    }

    /// How durables lag; `None` until all have been looked at once.
    pub fn lag(&self) -> Option<LagGauges> {
        self.lag.found()
    }

    /// How far the ledger is folded.
    pub fn ledger_applied(&self) -> Cursor {
        self.controls.applied()
    }

    /// Where a read begins, and what is gone of it.
    async fn begin(
        &self,
        from: &From,
        filters: &Filters,
    ) -> Result<(Cursor, Option<(Cursor, GapReason)>), ReadError> {
        match from {
            From::Now => Ok((self.log.committed(), None)),
            From::Since(time) => Ok((self.log.at_time(time.as_millis()).await?, None)),
            From::After(position) => Ok(self.resume(position, filters)),
        }
    }

    /// 0 is "from the first there is" and never a gap.
    fn resume(
        &self,
        position: &Position,
        filters: &Filters,
    ) -> (Cursor, Option<(Cursor, GapReason)>) {
        let first = self.log.first().before();
        let cursor = position.cursor;
        if cursor == Cursor::START {
            (first, None)
        } else if !position.fits(self.log.id()) || cursor > self.log.committed() {
            (first, Some((cursor, GapReason::LogChanged)))
        } else {
            match self.log.trimmed(filters, cursor) {
                Some((reason, _)) => (cursor.max(first), Some((cursor, reason))),
                None => (cursor, None),
            }
        }
    }

    fn gap(&self, requested: Cursor, reason: GapReason) -> Gap {
        Gap {
            subscription: None,
            requested,
            first: first_after(&self.log, requested, reason),
            last: self.log.committed().get(),
            log: self.log.id(),
            reason,
        }
    }

    /// There is nothing behind this position to go on with.
    fn gone(&self, position: &Position, hint: &'static str) -> SubscribeError {
        let (first, last) = (self.log.first().get(), self.log.committed().get());
        let log = self.log.id();
        match position.fits(log) {
            true => SubscribeError::Gone { requested: position.cursor, first, last, hint },
            false => {
                SubscribeError::OtherLog { position: position.clone(), log, first, last, hint }
            }
        }
    }
}

/// Where delivery goes on after a gap: events that were left behind the position still come.
fn first_after(log: &LogHandle, requested: Cursor, reason: GapReason) -> u64 {
    match reason {
        GapReason::LogChanged => log.first().get(),
        _ => log.first().max(requested.next()).get(),
    }
}

/// How many subscriptions of a kind there are, by what they do.
#[derive(Debug, Default)]
struct Counts {
    catching_up: AtomicUsize,
    live: AtomicUsize,
}

impl Counts {
    fn gauges(&self) -> SubscriptionGauges {
        SubscriptionGauges {
            catching_up: self.catching_up.load(Ordering::Relaxed),
            live: self.live.load(Ordering::Relaxed),
        }
    }
}

/// Counts a subscription as long as it lives.
#[derive(Debug)]
struct Counted {
    counts: Arc<Counts>,
    is_live: bool,
}

impl Counted {
    fn new(counts: &Arc<Counts>) -> Counted {
        counts.catching_up.fetch_add(1, Ordering::Relaxed);
        Counted { counts: counts.clone(), is_live: false }
    }

    /// It has been sent what was there.
    fn goes_live(&mut self) {
        if !std::mem::replace(&mut self.is_live, true) {
            self.counts.catching_up.fetch_sub(1, Ordering::Relaxed);
            self.counts.live.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let count = if self.is_live { &self.counts.live } else { &self.counts.catching_up };
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The position with the log that was named beside it.
fn with_log(position: &Position, log: Option<&str>) -> Position {
    let named = log.map(|log| log.chars().take(8).collect::<String>().to_ascii_lowercase());
    Position { cursor: position.cursor, log: position.log.clone().or(named) }
}

/// Filters that no subscriber may name: their records are never delivered.
pub const NEVER_DELIVERED: [&str; 3] = ["$acks", "$subscriptions", "$scheduled"];

/// Whether a filter asks for what is never delivered.
pub fn is_never_delivered(filters: &Filters) -> bool {
    filters.iter().any(|filter| {
        let root = filter.as_str().split('.').next().unwrap_or_default();
        NEVER_DELIVERED.contains(&root)
    })
}

#[cfg(test)]
mod tests;
