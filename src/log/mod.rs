//! The one log, async on top of storage: append and read, and a cursor that says what is committed.
//!
//! - One thread owns the storage and appends ([`commit`]); everybody else holds a [`LogHandle`].
//! - A [`Ticket`] means accepted; it resolves to [`Committed`] when the events are durable, or to an
//!   [`AppendError`]. Nothing above the durable watermark is ever read or delivered.
//! - What waits to be appended is bounded in bytes: the permit is taken before the work is queued.
//! - Reads come from the memory tail where it reaches back far enough; else from the page cache, here and now and
//!   a bounded step at a time; else from disk on the blocking pool, a bounded number at a time.
//!
//! The log never knows what a subscription is; the broker hands it [`Controls`] and is told of commits.

mod batch;
pub mod codec;
pub mod commit;
mod error;
mod faults;
mod marks;
mod queue;
pub mod retention;
pub mod tail;
mod ticket;
mod trims;
mod upkeep;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use parking_lot::Mutex;
use smallvec::smallvec;
use tidings_proto::{
    Cursor, Filter, Filters, LogId, Offset, Topic,
    message::{Gap, GapReason},
};
pub use tidings_storage::projection;
use tidings_storage::{Disk, OsDisk, Reader, ScanLimit, Trimmer};
pub use tidings_storage::{Error as StorageError, Record, TopicInfo};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

pub use self::{
    batch::{Batch, ReadLimit, Several, batch_bytes},
    codec::{Stored, draft},
    commit::{Controls, Draft, Drafts},
    error::{AppendError, ReadError},
    ticket::{Committed, Place, Ticket, Tickets},
};
use self::{
    commit::Committer,
    queue::{Job, Queue, Units},
    tail::Tail,
    ticket::Outcomes,
};
use crate::metrics;

/// How many damaged events one gap may be about; the next gap is about more.
const DAMAGE_LOOKS_MAX: usize = 10_000;
/// How far behind the end of the log a reader is asked whether its topics are rare.
const FAR: u64 = 2048;
/// How long an append may wait for room in the queue before it is refused.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// The settings of this room.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory.
    pub dir: PathBuf,
    /// How large a segment file is, in bytes.
    pub segment_bytes: u64,
    /// What a full disk leaves for the broker's own events, in bytes.
    pub reserve_bytes: u64,
    /// Whether segments are written full of zeros before they are used.
    pub fill_segments: bool,
    /// How many bytes of the newest events stay in memory.
    pub tail_bytes: usize,
    /// How many bytes may wait to be appended.
    pub queue_bytes: usize,
    /// How many reads from disk may run at a time.
    pub disk_reads: usize,
    /// How long events are kept.
    pub retention: retention::Options,
}

/// Everybody's handle on the log. Cheap to clone.
#[derive(Clone)]
pub struct LogHandle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogHandle({:?})", self.committed())
    }
}

pub(crate) struct Shared {
    pub(crate) reader: Reader,
    pub(crate) trimmer: Trimmer,
    /// Somebody wants the active segment sealed.
    pub(crate) seal: AtomicBool,
    /// Told whenever a chore beside the commit path is done.
    pub(crate) kept: watch::Sender<()>,
    pub(crate) queue: Queue,
    pub(crate) tail: Tail,
    pub(crate) committed: watch::Sender<Cursor>,
    pub(crate) health: Mutex<Health>,
    pub(crate) dir: PathBuf,
    room: Arc<Semaphore>,
    room_bytes: usize,
    disk_reads: Arc<Semaphore>,
}

/// Whether the log takes appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Writable,
    /// There is no space; it recovers by itself when there is.
    Full,
    /// A write or a sync failed; only a restart leaves this state. The text is the first cause.
    Latched(String),
    /// It is being closed.
    Closed,
}

/// The thread that owns the log; [`LogThread::close`] ends it.
pub struct LogThread {
    handle: LogHandle,
    thread: std::thread::JoinHandle<()>,
}

impl LogThread {
    /// Refuses what comes from now on, commits what is waiting, and closes the files. Blocks.
    pub fn close(self) {
        self.handle.shared.queue.close();
        if self.thread.join().is_err() {
            tracing::error!(
                "the commit thread panicked: the log is closed without its last watermark"
            );
        }
    }
}

/// Opens the log in `options.dir`. Appends work once [`LogOpener::start`] has been called.
///
/// # Errors
/// What the storage refuses, see [`StorageError`].
pub fn open(options: &Options) -> Result<LogOpener, StorageError> {
    open_on(Arc::new(OsDisk::open(&options.dir)?), options)
}

/// The same on this disk.
pub(crate) fn open_on(disk: Arc<dyn Disk>, options: &Options) -> Result<LogOpener, StorageError> {
    let storage_options = tidings_storage::Options {
        segment_bytes: options.segment_bytes,
        reserve_bytes: options.reserve_bytes,
        fill_segments: options.fill_segments,
        lost_body: codec::lost_body,
    };
    let opened = tidings_storage::Log::open(disk, storage_options)?;
    let last = opened.reader.last();
    let room_bytes = options.queue_bytes.clamp(1, Semaphore::MAX_PERMITS);
    let shared = Shared {
        reader: opened.reader,
        trimmer: opened.trimmer,
        seal: AtomicBool::new(false),
        kept: watch::Sender::new(()),
        queue: Queue::new(),
        tail: Tail::new(last, options.tail_bytes),
        committed: watch::Sender::new(last),
        health: Mutex::new(Health::Writable),
        dir: options.dir.clone(),
        room: Arc::new(Semaphore::new(room_bytes)),
        room_bytes,
        disk_reads: Arc::new(Semaphore::new(options.disk_reads.max(1))),
    };
    let handle = LogHandle { shared: Arc::new(shared) };
    Ok(LogOpener { handle, log: opened.log, recovery: opened.recovery })
}

/// A log that is open and has no commit thread yet.
pub struct LogOpener {
    /// For reading.
    pub handle: LogHandle,
    log: tidings_storage::Log,
    /// What recovery did.
    pub recovery: tidings_storage::Recovery,
}

impl LogOpener {
    /// Starts the commit thread.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub fn start(self, controls: Arc<dyn Controls>) -> std::io::Result<LogThread> {
        let handle = self.handle.clone();
        let committer = Committer::new(self.log, handle.shared.clone(), controls)?;
        let thread = std::thread::Builder::new()
            .name("tidings-commit".to_owned())
            .spawn(move || committer.run())?;
        Ok(LogThread { handle, thread })
    }
}

impl LogHandle {
    /// Queues events to be appended in one batch: all or none.
    ///
    /// # Errors
    /// [`AppendError::Busy`] when there was no room for five seconds, [`AppendError::TooLarge`] when
    /// there never will be, and what [`Health`] says.
    pub async fn append(&self, drafts: Drafts) -> Result<Ticket, AppendError> {
        self.queue(smallvec![drafts]).await.map(Ticket)
    }

    /// Queues events of which each is appended for itself, in this order: what came together waits together, and is
    /// answered together.
    ///
    /// # Errors
    /// As [`LogHandle::append`], for all of them; [`AppendError::TooLarge`] for what together is more than one batch.
    pub async fn append_each(&self, units: Vec<Drafts>) -> Result<Tickets, AppendError> {
        let count = units.len();
        let outcomes = self.queue(units.into()).await?;
        Ok(Tickets { outcomes, count })
    }

    async fn queue(&self, units: Units) -> Result<oneshot::Receiver<Outcomes>, AppendError> {
        self.check_health()?;
        let (events, bytes) = queue::cost(&units);
        if events > commit::BATCH_EVENTS_MAX || bytes > self.shared.room_bytes {
            return Err(AppendError::TooLarge { events, bytes });
        }
        let room = self.room(bytes).await?;
        let (done, outcomes) = oneshot::channel();
        self.shared.queue.push(Job { units, done, room }).map_err(|_| AppendError::Closed)?;
        Ok(outcomes)
    }

    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, AppendError> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        if let Ok(permit) = self.shared.room.clone().try_acquire_many_owned(permits) {
            return Ok(permit);
        }
        let acquire = self.shared.room.clone().acquire_many_owned(permits);
        match tokio::time::timeout(ROOM_WAIT, acquire).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(AppendError::Closed),
            Err(_) => Err(AppendError::Busy),
        }
    }

    fn check_health(&self) -> Result<(), AppendError> {
        match &*self.shared.health.lock() {
            Health::Writable | Health::Full => Ok(()),
            Health::Latched(cause) => Err(AppendError::Latched(cause.clone())),
            Health::Closed => Err(AppendError::Closed),
        }
    }

    /// Asks the commit thread to drain [`Controls`] soon.
    pub fn nudge(&self) {
        self.shared.queue.nudge();
    }

    /// Whether it takes appends.
    pub fn health(&self) -> Health {
        self.shared.health.lock().clone()
    }

    /// Which log it is.
    pub fn id(&self) -> LogId {
        self.shared.reader.id()
    }

    /// The first offset there is, or the one the first event will get.
    pub fn first(&self) -> Offset {
        self.shared.reader.first()
    }

    /// Everything up to here is durable and may be read.
    pub fn committed(&self) -> Cursor {
        *self.shared.committed.borrow()
    }

    /// Announces every move of [`LogHandle::committed`].
    pub fn watch(&self) -> watch::Receiver<Cursor> {
        self.shared.committed.subscribe()
    }

    /// How many bytes the segments hold.
    pub fn bytes(&self) -> u64 {
        self.shared.reader.bytes()
    }

    /// How many bytes are free on its disk; `None` where the system does not say.
    pub fn disk_free_bytes(&self) -> Option<u64> {
        tidings_storage::free_bytes(&self.shared.dir)
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        self.shared.reader.segments()
    }

    /// Where the data lies.
    pub fn dir(&self) -> &std::path::Path {
        &self.shared.dir
    }

    /// The storage's reader, for projections.
    pub fn reader(&self) -> &Reader {
        &self.shared.reader
    }

    /// The newest events in memory.
    pub fn tail(&self) -> &Tail {
        &self.shared.tail
    }

    /// Events in (`after`, `until`] that match, in order, up to `limit`.
    ///
    /// # Errors
    /// What the storage finds, see [`StorageError`].
    pub async fn read(
        &self,
        after: Cursor,
        until: Cursor,
        filters: &Filters,
        limit: ReadLimit,
    ) -> Result<Batch, ReadError> {
        let until = until.min(self.committed());
        if until <= after {
            return Ok(Batch { events: Vec::new(), cursor: after, damaged: None });
        }
        // The postings know where a rare topic's events are; the memory would have to be gone through.
        let is_far = until.get() - after.get() > FAR;
        let by_postings = is_far && self.shared.reader.is_rare(filters);
        if !by_postings && let Some(batch) = self.shared.tail.read(after, until, filters, limit) {
            return Ok(batch);
        }
        let scan_limit = ScanLimit { events: limit.events, bytes: limit.bytes };
        if !by_postings && let Some(batch) = self.read_cached(after, until, filters, scan_limit) {
            // Whoever reads a long way in a loop gives way to all others after each step.
            tokio::task::yield_now().await;
            return Ok(batch);
        }
        // Up to where the tail begins only: from there on it is in memory.
        let until = match by_postings {
            true => until,
            false => self.shared.tail.begin().clamp(after, until),
        };
        let filters = filters.clone();
        self.on_disk(move |reader| {
            let mut events = Vec::new();
            let scanned = reader.scan(after, until, Some(&filters), scan_limit, &mut |record| {
                events.push(Arc::new(Stored::new(record)));
            });
            let offset = match &scanned {
                Err(StorageError::Corrupt { offset, .. }) => Offset::new(*offset),
                _ => None,
            };
            let (Err(error), Some(offset)) = (&scanned, offset) else {
                let batch = Batch { events, cursor: scanned?, damaged: None };
                return Ok(batch.within(limit.bytes));
            };
            if !events.is_empty() {
                // What is before it first: the next read meets it again.
                let batch = Batch { events, cursor: offset.before(), damaged: None };
                return Ok(batch.within(limit.bytes));
            }
            tracing::error!(%error, "events cannot be read; their readers get a gap");
            metrics::storage_failed("read", faults::kind(error));
            let end = reader.damage_end(offset, DAMAGE_LOOKS_MAX)?;
            Ok(Batch { events, cursor: offset.before(), damaged: Some(end) })
        })
        .await
    }

    /// What the system has in memory is read here and now: a turn on the blocking pool would cost more than the read.
    fn read_cached(
        &self,
        after: Cursor,
        until: Cursor,
        filters: &Filters,
        limit: ScanLimit,
    ) -> Option<Batch> {
        let mut events = Vec::new();
        let cursor =
            self.shared.reader.scan_cached(after, until, filters, limit, &mut |record| {
                events.push(Arc::new(Stored::new(record)));
            })?;
        Some(Batch { events, cursor, damaged: None }.within(limit.bytes))
    }

    /// The events at these offsets, in this order, until they have `bytes_max` together.
    ///
    /// # Errors
    /// What the storage finds, see [`StorageError`].
    pub async fn get_many(
        &self,
        offsets: Vec<Offset>,
        bytes_max: usize,
    ) -> Result<Several, ReadError> {
        let committed = self.committed();
        let mut several = Several::default();
        let mut offsets = offsets.into_iter().filter(|offset| committed.covers(*offset)).peekable();
        while let Some(offset) = offsets.next() {
            if several.bytes >= bytes_max {
                several.left.push(offset);
            } else if let Some(event) = self.shared.tail.get(offset) {
                several.push(event);
            } else {
                // Those that follow and are on disk alone are read with it.
                let mut old = vec![offset];
                while let Some(next) = offsets.next_if(|it| self.shared.tail.get(*it).is_none()) {
                    old.push(next);
                }
                several = self.on_disk(move |reader| several.read(reader, old, bytes_max)).await?;
            }
        }
        Ok(several)
    }

    /// The newest event on a topic, with this key where one is given; `None` also when a limit of retention has taken
    /// out newer ones, of which nobody can say whether one had the key.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] when one that may be it cannot be read; what else the storage finds.
    pub async fn last_on(
        &self,
        topic: Topic,
        key: Option<String>,
    ) -> Result<Option<Arc<Stored>>, ReadError> {
        let found = self
            .on_disk(move |reader| {
                match reader.last_on(&topic, key.as_deref().map(str::as_bytes)) {
                    Err(StorageError::Corrupt { offset, .. }) if offset > 0 => Ok(Err(offset)),
                    found => found.map(Ok),
                }
            })
            .await?;
        match found {
            Ok(record) => Ok(record
                .filter(|record| !self.trimmed_upto(&record.topic).covers(record.offset))
                .map(|record| Arc::new(Stored::new(record)))),
            Err(offset) => Err(Offset::new(offset).map_or(ReadError::Closed, ReadError::Damaged)),
        }
    }

    /// How the loss of what is damaged behind `requested` up to `until` is told.
    pub fn damage_gap(&self, requested: Cursor, until: Cursor) -> Gap {
        Gap {
            subscription: None,
            requested,
            first: until.next().get(),
            last: self.committed().get(),
            log: self.id(),
            reason: GapReason::Corrupt,
        }
    }

    /// What is known of a topic.
    pub fn topic(&self, topic: &str) -> Option<TopicInfo> {
        self.shared.reader.topic(topic)
    }

    /// The topics under a filter, by name, after the name `after`.
    pub fn topics(&self, filter: &Filter, after: Option<&str>, limit: usize) -> Vec<TopicInfo> {
        self.shared.reader.topics(filter, after, limit)
    }

    /// Fills in how many matching events lie in (place, `until`], for all places of all filters in one go.
    ///
    /// # Errors
    /// What the storage finds, see [`StorageError`].
    pub async fn count_behind(
        &self,
        mut places: HashMap<Filters, BTreeMap<Cursor, u64>>,
        until: Cursor,
    ) -> Result<HashMap<Filters, BTreeMap<Cursor, u64>>, ReadError> {
        if places.is_empty() {
            return Ok(places);
        }
        self.on_disk(move |reader| {
            for (filters, places) in &mut places {
                let (mut end, mut behind) = (until, 0);
                for (place, found) in places.iter_mut().rev() {
                    if *place < end {
                        behind += reader.count(filters, *place, end)?;
                        end = *place;
                    }
                    *found = behind;
                }
            }
            Ok(places)
        })
        .await
    }

    /// The cursor before the first event appended at or after this moment.
    ///
    /// # Errors
    /// What the storage finds, see [`StorageError`].
    pub async fn at_time(&self, time_ms: u64) -> Result<Cursor, ReadError> {
        self.on_disk(move |reader| reader.at_time(time_ms)).await
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let permit = self.shared.disk_reads.clone().acquire_owned().await;
        let permit = permit.map_err(|_| ReadError::Closed)?;
        let reader = self.shared.reader.clone();
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&reader);
            drop(permit);
            result
        });
        match done.await {
            Ok(result) => result.map_err(|cause| {
                metrics::storage_failed("read", faults::kind(&cause));
                ReadError::Storage(Arc::new(cause))
            }),
            Err(_) => Err(ReadError::Closed),
        }
    }
}

#[cfg(test)]
pub(crate) use self::commit::Stepped;
#[cfg(test)]
pub(crate) use tidings_storage::SimDisk;
