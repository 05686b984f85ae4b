//! Events that wait for their moment.
//!
//! - A scheduled event is stored on `$scheduled`; the ledger knows which wait, so a start does too.
//! - When one is due, a single batch has the event and "fired": after a crash there are both or none. The same
//!   way "cancelled" ends it. While either is on its way to the log the event is claimed, so that there is
//!   never one after the other.
//! - What cannot be appended (a full disk) stays and is tried again.

mod pending;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tidings_proto::{
    Cursor, Offset, Timestamp, Topic,
    control::{SCHEDULE_CHANGE, SCHEDULED_TOPIC, ScheduleChange, ScheduleOutcome},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(super) use self::pending::Pending;
use super::{
    Broker,
    error::{CancelError, PublishError, ReadError},
};
use crate::{
    clock,
    log::{AppendError, Draft, Drafts, LogHandle, Stored, Ticket, codec},
    metrics,
};

/// How far ahead an event may be scheduled, in milliseconds: 30 days.
pub(super) const AHEAD_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;
/// How many events are fired at a time.
const FIRED_MAX: usize = 64;
/// The most bytes that are read for that, but for the event that passes it.
const FIRED_BYTES_MAX: usize = 1 << 20;
/// How long what could not be appended waits for the next attempt.
const RETRY: Duration = Duration::from_secs(1);
/// The longest sleep while an event waits: the wall clock may be set forward meanwhile, or the machine sleep.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// What is on its way to the log about events that wait.
#[derive(Debug)]
pub(super) struct Schedule {
    /// The most events that may wait.
    max: usize,
    /// How many are on their way to the log, to wait there.
    coming: Arc<AtomicUsize>,
    /// Those of which the end is on its way to the log; bounded by those that wait.
    claimed: Mutex<HashSet<u64>>,
    /// Another one may be the next.
    news: Notify,
}

/// A place among the events that wait, until the event is in the log.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Schedule {
    /// Nothing is on its way.
    pub(super) fn new(max: usize) -> Arc<Schedule> {
        let (coming, claimed) = (Arc::default(), Mutex::default());
        Arc::new(Schedule { max, coming, claimed, news: Notify::new() })
    }

    /// A place for one more than the `waiting`.
    pub(super) fn place(&self, waiting: usize) -> Result<Place, PublishError> {
        let coming = self.coming.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.coming.clone());
        match waiting.saturating_add(coming) < self.max {
            true => Ok(place),
            false => Err(PublishError::TooManyScheduled { max: self.max }),
        }
    }

    /// Something about events that wait is in the log.
    pub(super) fn committed(&self) {
        self.news.notify_one();
    }

    fn claim(&self, offset: u64) -> bool {
        self.claimed.lock().insert(offset)
    }

    /// The end of it is in the log, or will not come there.
    fn release(&self, offset: u64) {
        self.claimed.lock().remove(&offset);
    }
}

/// What there is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing, before somebody brings news.
    Idle,
    /// Something is due in so long.
    In(Duration),
    /// What is due could not be appended.
    Retry,
}

/// Appends every event that waits when it is due, until `stop`.
pub(super) async fn fire(broker: Arc<Broker>, stop: CancellationToken) {
    loop {
        let next = broker.fire_due().await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = broker.schedule.news.notified(), if next != Next::Retry => {}
            () = sleep(next) => {}
        }
    }
}

async fn sleep(next: Next) {
    match next {
        Next::Idle => std::future::pending().await,
        Next::In(wait) => tokio::time::sleep(wait).await,
        Next::Retry => tokio::time::sleep(RETRY).await,
    }
}

/// Why what is due was not appended.
#[derive(Debug, thiserror::Error)]
enum FireError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// An event that is due: its offset on `$scheduled`, and since when.
#[derive(Clone, Copy, Debug)]
struct Due {
    offset: u64,
    due_ms: u64,
}

impl Broker {
    /// How many events wait for their moment.
    pub fn scheduled(&self) -> usize {
        self.controls.with_scheduled(Pending::count)
    }

    /// Does not append an event that waits. `is_allowed` says of its publisher's subject whether they who ask may.
    /// What was cancelled before is cancelled.
    ///
    /// # Errors
    /// See [`CancelError`].
    pub async fn cancel(
        &self,
        offset: Offset,
        is_allowed: impl FnOnce(&str) -> bool,
    ) -> Result<(), CancelError> {
        let found = self.get(offset).await?.filter(|event| codec::is_scheduled(event.record()));
        let publisher = found.as_ref().and_then(|event| Some(event.body().ok()?.subject));
        if !publisher.is_some_and(is_allowed) {
            return Err(CancelError::Unknown(offset));
        }
        let waits =
            || self.controls.with_scheduled(|pending| pending.due_ms(offset.get()).is_some());
        if !self.schedule.claim(offset.get()) {
            return if waits() {
                Err(CancelError::Ending(offset))
            } else {
                self.ended(offset).await
            };
        }
        if !waits() {
            self.schedule.release(offset.get());
            return self.ended(offset).await;
        }
        let (log, schedule) = (self.log.clone(), self.schedule.clone());
        // The claim lasts until the log has it, also where who asks has gone.
        let cancelling = tokio::spawn(async move {
            let cancelled = end(&log, offset.get(), ScheduleOutcome::Cancelled).await;
            schedule.release(offset.get());
            // It may have become due meanwhile.
            schedule.committed();
            cancelled
        });
        cancelling.await.unwrap_or(Err(AppendError::Indeterminate))?;
        Ok(())
    }

    /// How an event that waits no more ended.
    async fn ended(&self, offset: Offset) -> Result<(), CancelError> {
        match outcome_of(&self.log, offset).await? {
            (Some(ScheduleOutcome::Cancelled), _) => Ok(()),
            (Some(ScheduleOutcome::Fired), event) => Err(CancelError::TooLate { offset, event }),
            (Some(ScheduleOutcome::Lost), _) => Err(CancelError::Unknown(offset)),
            (None, _) => Err(CancelError::Ending(offset)),
        }
    }

    /// Appends what is due.
    async fn fire_due(&self) -> Next {
        loop {
            let now = clock::now();
            let due = self.claim_due(now);
            if due.is_empty() {
                return self.next_due(now);
            }
            let fired = self.fire_claimed(&due).await;
            for one in &due {
                self.schedule.release(one.offset);
            }
            if let Err(error) = fired {
                tracing::warn!(%error, "scheduled events are not published yet; it is tried again");
                return Next::Retry;
            }
        }
    }

    fn claim_due(&self, now: Timestamp) -> Vec<Due> {
        self.controls.with_scheduled(|pending| {
            pending
                .by_time()
                .take_while(|(due_ms, _)| *due_ms <= now.as_millis())
                .filter(|(_, offset)| self.schedule.claim(*offset))
                .take(FIRED_MAX)
                .map(|(due_ms, offset)| Due { offset, due_ms })
                .collect()
        })
    }

    /// Whatever is due now is claimed, and whoever has claimed it tells the news.
    fn next_due(&self, now: Timestamp) -> Next {
        let next = self.controls.with_scheduled(|pending| {
            pending.by_time().find(|(due_ms, _)| *due_ms > now.as_millis())
        });
        let wait_ms = next.map(|(due_ms, _)| due_ms.saturating_sub(now.as_millis()));
        wait_ms.map_or(Next::Idle, |ms| Next::In(Duration::from_millis(ms).min(SLEEP_MAX)))
    }

    /// Appends these in order. Comes back when none of them is on its way any more: only then may they be
    /// claimed again.
    async fn fire_claimed(&self, due: &[Due]) -> Result<(), FireError> {
        let mut offsets: Vec<Offset> = due.iter().filter_map(|it| Offset::new(it.offset)).collect();
        offsets.sort_unstable();
        // The ledger has them a moment before they may be read.
        let highest = offsets.last().map_or(Cursor::START, |offset| offset.cursor());
        let readable = self.log.watch().wait_for(|committed| *committed >= highest).await.is_ok();
        if !readable {
            return Err(ReadError::Closed.into());
        }
        let found = self.log.get_many(offsets, FIRED_BYTES_MAX).await?;
        let (mut queued, mut failed) = (Vec::with_capacity(due.len()), None);
        for one in due {
            let is_it = |offset: Offset| offset.get() == one.offset;
            if found.left.iter().any(|offset| is_it(*offset)) {
                // Those behind it wait with it, so that all come in the order of their moments.
                break;
            }
            let event = found.events.iter().find(|event| is_it(event.offset()));
            match self.fire_one(one, event).await {
                Ok((ticket, outcome)) => queued.push((one, ticket, outcome)),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        for (one, ticket, outcome) in queued {
            if let Err(error) = ticket.await {
                failed = Some(error);
                continue;
            }
            let late_ms = clock::now().as_millis().saturating_sub(one.due_ms);
            let late = (outcome == ScheduleOutcome::Fired).then(|| Duration::from_millis(late_ms));
            metrics::schedule_ended(outcome.as_str(), late);
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Queues the event together with its end.
    async fn fire_one(
        &self,
        due: &Due,
        event: Option<&Arc<Stored>>,
    ) -> Result<(Ticket, ScheduleOutcome), AppendError> {
        // Its time to live begins here.
        let fired = event.and_then(|event| codec::fire(event.record(), clock::now()));
        let outcome = match fired {
            Some(_) => ScheduleOutcome::Fired,
            None => ScheduleOutcome::Lost,
        };
        if fired.is_none() {
            tracing::error!(
                offset = due.offset,
                "a scheduled event cannot be read: it is not published"
            );
        }
        let drafts: Drafts = fired.into_iter().chain(change(due.offset, outcome)).collect();
        Ok((self.log.append(drafts).await?, outcome))
    }
}

/// How what was stored at this offset to wait has ended, where it has, and the place before the note of that: where it was
/// published, that is its event.
pub(super) async fn outcome_of(
    log: &LogHandle,
    offset: Offset,
) -> Result<(Option<ScheduleOutcome>, Cursor), ReadError> {
    let Ok(topic) = Topic::parse(SCHEDULED_TOPIC) else { return Ok((None, Cursor::START)) };
    let Some(change) = log.last_on(topic, Some(offset.to_string())).await? else {
        return Ok((None, Cursor::START));
    };
    let data = codec::control_data(change.record()).unwrap_or_default();
    let outcome = serde_json::from_slice::<ScheduleChange>(&data).map(|change| change.outcome);
    // What cannot be read is published no more.
    Ok((Some(outcome.unwrap_or(ScheduleOutcome::Lost)), change.offset().before()))
}

/// Has the end of an event that waits appended.
async fn end(log: &LogHandle, offset: u64, outcome: ScheduleOutcome) -> Result<(), AppendError> {
    let drafts: Drafts = change(offset, outcome).into_iter().collect();
    log.append(drafts).await?.await?;
    metrics::schedule_ended(outcome.as_str(), None);
    Ok(())
}

fn change(scheduled: u64, outcome: ScheduleOutcome) -> Option<Draft> {
    let data = serde_json::to_vec(&ScheduleChange { scheduled, outcome }).ok()?;
    let topic = Topic::parse(SCHEDULED_TOPIC).ok()?;
    let mut draft = codec::control(topic, SCHEDULE_CHANGE, data, clock::event_id());
    // So the end of each is found.
    draft.key = scheduled.to_string().into_bytes().into();
    Some(draft)
}
