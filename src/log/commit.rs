//! The commit thread: one write and one fdatasync for everything that waits.
//!
//! - It alone owns the storage's [`Log`].
//! - The order of checks for a job: deduplication, then `expect_last`. A job is appended whole or not at all.
//! - The broker's own events ([`Controls::drain`]) ride in the same batch.
//! - After a commit, in this order: the tail, [`Controls::committed`], the committed cursor, the tickets.
//!   So whoever has its answer finds the event, and every state folded from it, already there.
//! - A failed write or sync latches: what was being written is indeterminate, later appends are refused.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use smallvec::SmallVec;
use tidings_proto::{Cursor, Offset, Timestamp, Topic};
use tidings_storage::{Error as StorageError, Flags, Log, NewRecord};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    AppendError, Committed, Health, Place, Shared,
    codec::{self, Likeness, Stored},
    faults,
    queue::Job,
    upkeep::Upkeep,
};
use crate::{clock, metrics};

/// The most events of one commit, and so of one atomic publish.
pub const BATCH_EVENTS_MAX: usize = 4096;
/// The most bytes of one commit; a single job may have more.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How often the thread looks after the log when nothing is published.
const IDLE: Duration = Duration::from_millis(500);

/// An event that waits to be appended, already encoded.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its topic.
    pub topic: Topic,
    /// Its key; empty when it has none.
    pub key: Box<[u8]>,
    /// Priority and marks.
    pub flags: Flags,
    /// The hash of publisher and id, when the publisher gave an id.
    pub dedupe: Option<u64>,
    /// The topic's last offset, if the publisher wants it checked.
    pub expect_last: Option<u64>,
    /// The encoded rest.
    pub body: Vec<u8>,
    /// How many bytes it will have in JSON beside those that are stored and its envelope: so the commit thread does not count.
    pub growth_bytes: usize,
}

impl Draft {
    /// What it costs to have it wait, in bytes.
    pub fn cost_bytes(&self) -> usize {
        const ENVELOPE_BYTES: usize = 256;
        ENVELOPE_BYTES + self.body.len() + self.key.len()
    }
}

/// What the broker appends for itself, and how it is told of commits. Called on the commit thread: must not block.
pub trait Controls: Send + Sync {
    /// The events to append with the next commit.
    fn drain(&self) -> Vec<Draft>;
    /// These events are durable, and nobody can read them yet; what [`Controls::drain`] gave is among them.
    fn committed(&self, events: &[Arc<Stored>]);
    /// They can be read: whoever waits for them may be told.
    fn readable(&self);
    /// What [`Controls::drain`] gave could not be appended.
    fn failed(&self, error: &AppendError);
    /// Nothing is drained any more.
    fn closed(&self);
}

pub(super) struct Committer {
    log: Log,
    shared: Arc<Shared>,
    controls: Arc<dyn Controls>,
    upkeep: Upkeep,
    last_time: Timestamp,
    last_watermark_ms: u64,
    appended: metrics::Appended,
}

/// The events of one publish: mostly one.
pub type Drafts = SmallVec<[Draft; 1]>;

/// A batch as it grows.
#[derive(Default)]
struct Staged {
    drafts: Vec<Draft>,
    /// Hashes of ids in this batch → index of the last draft that has it.
    ids: HashMap<u64, usize>,
    /// Index of a draft → index of the one before it with the same hash.
    same_hash: HashMap<usize, usize>,
    /// Topics of the first `topics_seen` drafts → index of the last on each. Filled when somebody asks: few do.
    topics: HashMap<Topic, usize>,
    topics_seen: usize,
}

/// Where an event of a job stands or will stand.
#[derive(Clone, Copy)]
enum Spot {
    Staged(usize),
    StagedBefore(usize),
    Known(Offset),
}

type Spots = SmallVec<[Spot; 1]>;

/// The units of one job.
type Admitted = SmallVec<[Result<Spots, AppendError>; 1]>;

/// Tells everybody that the thread has ended, also where it ended by a bug.
struct LastWords {
    shared: Arc<Shared>,
    controls: Arc<dyn Controls>,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        *self.shared.health.lock() = Health::Closed;
        // What waits is dropped, and so answered.
        drop(self.shared.queue.end());
        self.controls.closed();
    }
}

impl Committer {
    pub(super) fn new(
        log: Log,
        shared: Arc<Shared>,
        controls: Arc<dyn Controls>,
    ) -> std::io::Result<Committer> {
        let upkeep = Upkeep::start(shared.kept.clone())?;
        Ok(Committer::with(log, shared, controls, upkeep))
    }

    fn with(
        log: Log,
        shared: Arc<Shared>,
        controls: Arc<dyn Controls>,
        upkeep: Upkeep,
    ) -> Committer {
        // Time does not fall within a log, also where the clock was set back meanwhile.
        let last_time_ms = log.last_time_ms();
        Committer {
            log,
            shared,
            controls,
            upkeep,
            last_time: clock::now().max(Timestamp::from_millis(last_time_ms)),
            last_watermark_ms: 0,
            appended: metrics::Appended::new(),
        }
    }

    pub(super) fn run(mut self) {
        let _last_words =
            LastWords { shared: self.shared.clone(), controls: self.controls.clone() };
        loop {
            let work = self.shared.queue.take(BATCH_EVENTS_MAX, BATCH_BYTES_MAX, IDLE);
            self.commit_all(work.jobs);
            self.look_after();
            if work.last {
                break;
            }
        }
        self.close();
    }

    fn close(self) {
        drop(self.upkeep);
        if let Err(error) = self.log.close() {
            tracing::error!(%error, "the log was not closed cleanly; the next start recovers it");
        }
    }

    /// Seals the active segment for whoever wants to take events out of it.
    fn seal(&mut self) {
        match self.log.seal() {
            Ok(_) => self.log.chores().into_iter().for_each(|chore| self.upkeep.push(chore)),
            // The state of the log says so once; whoever waits asks again when something is done.
            Err(error @ (StorageError::Full { .. } | StorageError::Latched(_))) => {
                tracing::debug!(%error, "the active segment is not sealed yet");
            }
            Err(error) => drop(self.latch(&error, false)),
        }
    }

    fn look_after(&mut self) {
        for chore in self.log.chores() {
            self.upkeep.push(chore);
        }
        if self.shared.seal.swap(false, Ordering::SeqCst) {
            self.seal();
        }
        let is_full = *self.shared.health.lock() == Health::Full;
        if is_full && self.log.has_room() {
            self.set_health(Health::Writable);
        }
        let now_ms = clock::monotonic_ms();
        if now_ms >= self.last_watermark_ms + 1000 {
            self.last_watermark_ms = now_ms;
            if let Some(chore) = self.log.watermark_chore() {
                self.upkeep.push(chore);
            }
        }
    }

    /// On a full disk the broker's own events go by themselves: with publishes they would not find the reserve.
    fn commit_all(&mut self, jobs: Vec<Job>) {
        let is_full = *self.shared.health.lock() == Health::Full;
        if !is_full {
            return self.commit(jobs);
        }
        let (own, others): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(Job::is_own);
        if !own.is_empty() {
            self.commit(own);
        }
        self.commit(others);
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let started = clock::monotonic();
        let events = jobs.iter().flat_map(|job| &job.units).map(Drafts::len).sum();
        let mut staged = Staged { drafts: Vec::with_capacity(events), ..Staged::default() };
        let mut answers = Vec::with_capacity(jobs.len());
        let mut room: Option<OwnedSemaphorePermit> = None;
        for job in jobs {
            let units = job.units.into_iter();
            let spots: Admitted = units.map(|drafts| self.admit(drafts, &mut staged)).collect();
            answers.push((job.done, spots));
            match &mut room {
                Some(room) => room.merge(job.room),
                None => room = Some(job.room),
            }
        }
        let controls = self.controls.drain();
        let outcome = self.write(staged.drafts, controls);
        if let Ok(events) = &outcome {
            let appended =
                events.iter().map(|event| (event.topic().root(), event.record().body.len()));
            self.appended.add(appended);
            metrics::committed(events.len(), clock::monotonic().saturating_sub(started));
        }
        drop(room);
        let answer = |spots: Result<Spots, AppendError>| {
            spots.and_then(|spots| match &outcome {
                Ok(events) => Ok(places(&spots, events)),
                // Nothing new in it: the answer does not hang on this write.
                Err(_) if spots.iter().all(|spot| matches!(spot, Spot::Known(_))) => {
                    Ok(places(&spots, &[]))
                }
                Err(error) => Err(error.clone()),
            })
        };
        // The last first: a publisher waits for its oldest, and is woken once, when all of its answers are there.
        for (done, admitted) in answers.into_iter().rev() {
            // A publisher that has gone does not want to know.
            let _ = done.send(admitted.into_iter().map(answer).collect());
        }
    }

    /// Checks one job against the log and the batch so far, and adds what is new in it.
    fn admit(&self, drafts: Drafts, staged: &mut Staged) -> Result<Spots, AppendError> {
        if let Health::Latched(cause) = &*self.shared.health.lock() {
            return Err(AppendError::Latched(cause.clone()));
        }
        let mut spots: SmallVec<[Option<Spot>; 1]> = SmallVec::with_capacity(drafts.len());
        for draft in &drafts {
            spots.push(self.find(draft, staged)?);
        }
        let known = spots.iter().filter(|spot| spot.is_some()).count();
        if known == drafts.len() {
            return Ok(spots.into_iter().flatten().collect());
        }
        if known > 0 {
            return Err(AppendError::PartlyDuplicate);
        }
        check_own_ids(&drafts)?;
        for draft in &drafts {
            self.check_expectation(draft, staged)?;
        }
        Ok(drafts.into_iter().map(|draft| Spot::Staged(staged.push(draft))).collect())
    }

    /// Where the same publish already stands, if it does.
    fn find(&self, draft: &Draft, staged: &Staged) -> Result<Option<Spot>, AppendError> {
        let Some(hash) = draft.dedupe else { return Ok(None) };
        for (index, old) in staged.with_hash(hash) {
            match codec::compare(draft, old.into()) {
                Likeness::Other => {}
                Likeness::Same => return Ok(Some(Spot::StagedBefore(index))),
                Likeness::Differs => {
                    let offset = staged.offset(index, self.log.next_offset());
                    return Err(AppendError::IdReused { id: codec::id(draft), offset });
                }
            }
        }
        let candidates = self.log.find_dedupe(hash).map_err(|error| {
            tracing::error!(%error, "ids could not be looked up");
            AppendError::Latched(error.to_string())
        })?;
        for record in candidates {
            match codec::compare(draft, (&record).into()) {
                Likeness::Other => {}
                Likeness::Same => return Ok(Some(Spot::Known(record.offset))),
                Likeness::Differs => {
                    return Err(AppendError::IdReused {
                        id: codec::id(draft),
                        offset: record.offset,
                    });
                }
            }
        }
        Ok(None)
    }

    fn check_expectation(&self, draft: &Draft, staged: &mut Staged) -> Result<(), AppendError> {
        let Some(expected) = draft.expect_last else { return Ok(()) };
        let actual = match staged.last_on(&draft.topic) {
            Some(index) => staged.offset(index, self.log.next_offset()).get(),
            None => self.log.topic_last(&draft.topic).map_or(0, Offset::get),
        };
        match actual == expected {
            true => Ok(()),
            false => {
                Err(AppendError::Unexpected { topic: draft.topic.to_string(), expected, actual })
            }
        }
    }

    /// Appends and syncs; on a full disk the broker's own events still find room.
    fn write(
        &mut self,
        drafts: Vec<Draft>,
        controls: Vec<Draft>,
    ) -> Result<Vec<Arc<Stored>>, AppendError> {
        if drafts.is_empty() && controls.is_empty() {
            return Ok(Vec::new());
        }
        let had_controls = !controls.is_empty();
        let mut all = drafts;
        let publishes = all.len();
        all.extend(controls);
        match self.append(&all) {
            Ok(first) => {
                let finished = self.finish(all, first, had_controls);
                if publishes > 0 && finished.is_ok() && self.log.has_room() {
                    self.set_health(Health::Writable);
                }
                finished
            }
            Err(StorageError::Full { .. }) => {
                let controls = all.split_off(publishes);
                self.set_health(Health::Full);
                self.write_controls(controls);
                Err(AppendError::Full)
            }
            Err(StorageError::Batch { .. }) => {
                let bytes = all.iter().map(Draft::cost_bytes).sum();
                let error = AppendError::TooLarge { events: all.len(), bytes };
                if had_controls {
                    self.controls.failed(&error);
                }
                Err(error)
            }
            Err(error) => Err(self.latch(&error, had_controls)),
        }
    }

    /// The broker's own events alone, from the reserve.
    fn write_controls(&mut self, controls: Vec<Draft>) {
        if controls.is_empty() {
            return;
        }
        match self.append(&controls) {
            Ok(first) => {
                // The outcome has been told to those who wait for it.
                let _ = self.finish(controls, first, true);
            }
            Err(StorageError::Full { .. }) => self.controls.failed(&AppendError::Full),
            Err(error) => {
                let _ = self.latch(&error, true);
            }
        }
    }

    fn append(&mut self, drafts: &[Draft]) -> Result<Offset, StorageError> {
        self.last_time = self.last_time.max(clock::now());
        let records: Vec<NewRecord<'_>> = drafts.iter().map(record).collect();
        self.log.append(self.last_time.as_millis(), &records)
    }

    fn finish(
        &mut self,
        drafts: Vec<Draft>,
        first: Offset,
        had_controls: bool,
    ) -> Result<Vec<Arc<Stored>>, AppendError> {
        let started = clock::monotonic();
        let cursor = match self.log.sync() {
            Ok(cursor) => cursor,
            Err(error) => return Err(self.latch(&error, had_controls)),
        };
        let durable_at = clock::monotonic();
        metrics::synced(durable_at.saturating_sub(started));
        let time = self.last_time;
        let mut next = first;
        let mut events = Vec::with_capacity(drafts.len());
        for draft in drafts {
            events.push(Arc::new(Stored::of(draft, next, time).durable_since(durable_at)));
            next = next.cursor().next();
        }
        self.publish(&events, cursor);
        Ok(events)
    }

    fn publish(&self, events: &[Arc<Stored>], cursor: Cursor) {
        self.shared.tail.push(events);
        self.controls.committed(events);
        self.shared.committed.send_replace(cursor);
        self.controls.readable();
    }

    fn set_health(&self, health: Health) {
        let mut current = self.shared.health.lock();
        if *current != health {
            tracing::warn!(from = ?*current, to = ?health, "the log's state changed");
            *current = health;
        }
    }

    fn latch(&self, error: &StorageError, had_controls: bool) -> AppendError {
        tracing::error!(%error, "the log refuses writes from now on; restart when the disk is mended");
        let (op, kind) = faults::op_and_kind(error);
        metrics::storage_failed(op, kind);
        self.set_health(Health::Latched(error.to_string()));
        if had_controls {
            self.controls.failed(&AppendError::Indeterminate);
        }
        AppendError::Indeterminate
    }
}

impl Staged {
    fn push(&mut self, draft: Draft) -> usize {
        let index = self.drafts.len();
        if let Some(hash) = draft.dedupe
            && let Some(before) = self.ids.insert(hash, index)
        {
            self.same_hash.insert(index, before);
        }
        self.drafts.push(draft);
        index
    }

    /// The drafts that have this hash, the last first.
    fn with_hash(&self, hash: u64) -> impl Iterator<Item = (usize, &Draft)> {
        std::iter::successors(self.ids.get(&hash).copied(), |index| {
            self.same_hash.get(index).copied()
        })
        .filter_map(|index| Some((index, self.drafts.get(index)?)))
    }

    /// The index of the last draft on this topic.
    fn last_on(&mut self, topic: &Topic) -> Option<usize> {
        for (index, draft) in self.drafts.iter().enumerate().skip(self.topics_seen) {
            self.topics.insert(draft.topic.clone(), index);
        }
        self.topics_seen = self.drafts.len();
        self.topics.get(topic).copied()
    }

    /// The offset the draft at `index` will get.
    fn offset(&self, index: usize, next: Offset) -> Offset {
        Cursor::new(next.before().get() + u64::try_from(index).unwrap_or(u64::MAX)).next()
    }
}

/// A batch that names one id twice is no batch.
fn check_own_ids(drafts: &[Draft]) -> Result<(), AppendError> {
    if drafts.len() < 2 {
        return Ok(());
    }
    let mut seen: HashMap<u64, SmallVec<[&Draft; 1]>> = HashMap::new();
    for draft in drafts {
        let Some(hash) = draft.dedupe else { continue };
        let same_hash = seen.entry(hash).or_default();
        if same_hash.iter().any(|old| codec::compare(draft, (*old).into()) != Likeness::Other) {
            return Err(AppendError::TwiceInBatch(codec::id(draft)));
        }
        same_hash.push(draft);
    }
    Ok(())
}

fn record(draft: &Draft) -> NewRecord<'_> {
    NewRecord {
        topic: &draft.topic,
        key: &draft.key,
        dedupe: draft.dedupe,
        flags: draft.flags,
        body: &draft.body,
    }
}

fn places(spots: &[Spot], events: &[Arc<Stored>]) -> Committed {
    let offset_of = |index: usize| events.get(index).map_or(Offset::FIRST, |event| event.offset());
    let place = |spot: &Spot| match *spot {
        Spot::Staged(index) => Place { offset: offset_of(index), duplicate: false },
        Spot::StagedBefore(index) => Place { offset: offset_of(index), duplicate: true },
        Spot::Known(offset) => Place { offset, duplicate: true },
    };
    Committed { places: spots.iter().map(place).collect() }
}

#[cfg(test)]
mod stepped;
#[cfg(test)]
pub(crate) use stepped::Stepped;
