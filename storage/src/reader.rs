//! The readers: as many as are wanted, on any thread. None sees past what was synced.
//!
//! - Every record's checksum is checked at every read.
//! - Reads by filter go through the postings when few records of a segment match, and through the whole
//!   segment when many do: the union of scattered reads costs more than reading on.
//! - No lock is held while a file is read.

mod lag;
mod lane;
mod last;

use std::{
    collections::{BTreeSet, hash_map},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use tidings_proto::{Cursor, Filter, Filters, LogId, Offset, Topic};

pub use self::lag::Behind;
use crate::{
    Error, Record, TopicInfo, catalog::Catalog, disk::Patience, record::Found, segment::Segment,
    trims::Trims,
};

/// The most names of topics that one read with a wildcard looks at; beyond that it scans.
const LOOKS_MAX: usize = 4096;
/// How many records a read with a wildcard goes through before it looks topics up.
const PROBE: u64 = 1024;
/// How many bytes of records a read that must not wait goes through, matching or not.
const NOW_BYTES_MAX: usize = 256 * 1024;
/// Postings are used when fewer than one in this many records of a segment match: a scattered read of one
/// record costs about as much as reading on over eight.
const SCAN_ABOVE_ONE_IN: u64 = 8;

/// What writer and readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    id: LogId,
    pub(crate) segments: RwLock<Vec<Arc<Segment>>>,
    pub(crate) catalog: RwLock<Catalog>,
    watermark: AtomicU64,
    first: AtomicU64,
    pub(crate) trims: RwLock<Trims>,
    pub(crate) trims_version: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        id: LogId,
        segments: Vec<Arc<Segment>>,
        catalog: Catalog,
        trims: Trims,
        watermark: u64,
    ) -> Shared {
        let shared = Shared {
            id,
            segments: RwLock::new(segments),
            catalog: RwLock::new(catalog),
            watermark: AtomicU64::new(watermark),
            first: AtomicU64::new(1),
            trims: RwLock::new(trims),
            trims_version: AtomicU64::new(0),
        };
        shared.note_first();
        shared
    }

    /// Looks where the first segment's first record is.
    pub(crate) fn note_first(&self) {
        let Some(segment) = self.segments.read().first().cloned() else { return };
        // An index that cannot be read now says it to whoever reads: the segment's beginning is no lie.
        let slot = segment.next_slot(0, u32::MAX, Patience::Wait).ok().flatten();
        let first = segment.base + slot.map_or(0, |(rel, _)| u64::from(rel));
        self.first.store(first, Ordering::SeqCst);
    }

    /// The last offset a topic ever had, as far as it is durable; `None` also after an erasure.
    pub(crate) fn last_ever(&self, topic: &str) -> Option<Offset> {
        let last = self.catalog.read().last(topic);
        last.max(self.trims.read().ever(topic))
    }

    pub(crate) fn watermark(&self) -> u64 {
        self.watermark.load(Ordering::Acquire)
    }

    /// Shows readers what was synced.
    pub(crate) fn commit(
        &self,
        topics: hash_map::Drain<'_, Topic, (Offset, Offset, u64)>,
        watermark: u64,
    ) {
        let mut catalog = self.catalog.write();
        for (topic, (first, last, count)) in topics {
            catalog.add(&topic, first, last, count);
        }
        drop(catalog);
        self.watermark.store(watermark, Ordering::Release);
    }
}

/// Reads the log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// Where a scan stops.
#[derive(Clone, Copy, Debug)]
pub struct ScanLimit {
    /// After this many events.
    pub events: usize,
    /// Once their bodies, keys and topics have this many bytes.
    pub bytes: usize,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Reader {
        Reader { shared }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Which log it is.
    pub fn id(&self) -> LogId {
        self.shared.id
    }

    /// The first offset there is, or the one the first record will get.
    pub fn first(&self) -> Offset {
        Cursor::new(self.shared.first.load(Ordering::SeqCst).saturating_sub(1)).next()
    }

    /// Everything up to here is durable.
    pub fn last(&self) -> Cursor {
        Cursor::new(self.shared.watermark())
    }

    /// How many bytes the segment files have.
    pub fn bytes(&self) -> u64 {
        self.segments_now().iter().map(|segment| segment.file.size().unwrap_or(0)).sum()
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        self.shared.segments.read().len()
    }

    /// The record at `offset`; `None` when there is none, or none that is durable.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is damaged; the system's.
    pub fn get(&self, offset: Offset) -> Result<Option<Record>, Error> {
        if offset.get() > self.shared.watermark() {
            return Ok(None);
        }
        let segments = self.segments_now();
        let Some(segment) = segments.iter().rev().find(|segment| segment.base <= offset.get())
        else {
            return Ok(None);
        };
        match segment.slot(segment.rel(offset.get()), Patience::Wait)?.position() {
            Some(position) => segment.read(position, offset.get()).map(Some),
            None => Ok(None),
        }
    }

    /// Calls `visit` with the records in (`after`, `until`] that match, by offset; gives how far it has looked:
    /// `until`, or less when a limit was reached. Control records are visited like all others.
    ///
    /// # Errors
    /// [`Error::Corrupt`] at the first damaged record, which it names: all before it have been visited;
    /// the system's.
    pub fn scan(
        &self,
        after: Cursor,
        until: Cursor,
        filters: Option<&Filters>,
        limit: ScanLimit,
        visit: &mut dyn FnMut(Record),
    ) -> Result<Cursor, Error> {
        let until = until.min(self.last());
        let mut run = Run::new(filters, limit, Patience::Wait, after, visit);
        let segments = self.segments_now();
        let Some(filters) = filters else { return run.over(&segments, until) };
        if filters.iter().any(|filter| filter.literal().is_none()) {
            // Where a wildcard matches much, reading on finds enough before its topics are looked up.
            let near = until.min(Cursor::new(after.get() + PROBE));
            let reached = run.over(&segments, near)?;
            if run.is_full() || reached >= until {
                return Ok(reached);
            }
        }
        run.topics = self.shared.catalog.read().resolve(filters, LOOKS_MAX);
        run.over(&segments, until)
    }

    /// The same without waiting for the disk, as far as what is in the system's memory goes; `None` when that is
    /// not far, or when there are better ways than reading on: [`Reader::scan`] is the answer then, also to
    /// damage. What `visit` got is to be thrown away with a `None`.
    pub fn scan_cached(
        &self,
        after: Cursor,
        until: Cursor,
        filters: &Filters,
        limit: ScanLimit,
        visit: &mut dyn FnMut(Record),
    ) -> Option<Cursor> {
        let until = until.min(self.last());
        let near = until.min(Cursor::new(after.get() + PROBE));
        let mut run = Run::new(Some(filters), limit, Patience::Now, after, visit);
        let reached = run.over(&self.segments_now(), near);
        let cursor = match reached {
            Ok(reached) => reached,
            // What was found before is good.
            Err(_) if run.events > 0 => run.cursor,
            Err(_) => return None,
        };
        // Where little matches the postings find more of it than reading on.
        let looked = cursor.get().saturating_sub(after.get());
        let is_dense = run.events as u64 * SCAN_ABOVE_ONE_IN >= looked;
        (cursor >= until || (run.events > 0 && is_dense)).then_some(cursor)
    }

    /// Whether a few literal topics are all that is asked for, and few of the log's records are theirs.
    pub fn is_rare(&self, filters: &Filters) -> bool {
        let catalog = self.shared.catalog.read();
        let mut matching = 0;
        for filter in filters {
            let Some(topic) = filter.literal() else { return false };
            matching += catalog.get(topic.as_str()).map_or(0, |info| info.count);
        }
        matching * SCAN_ABOVE_ONE_IN < self.last().get().saturating_sub(self.first().before().get())
    }

    /// How far the damage goes that begins at `offset`: the cursor before the first record behind it
    /// that can be read. Looks at `looks` records at most, as one behind the other may be damaged.
    ///
    /// # Errors
    /// The system's.
    pub fn damage_end(&self, offset: Offset, looks: usize) -> Result<Cursor, Error> {
        let mut end = offset.cursor();
        for _ in 0..looks {
            let next = end.next();
            if next.get() > self.shared.watermark() {
                break;
            }
            match self.get(next) {
                Ok(_) => break,
                Err(Error::Corrupt { .. }) => end = next.cursor(),
                Err(error) => return Err(error),
            }
        }
        Ok(end)
    }

    /// What is known of a topic.
    pub fn topic(&self, topic: &str) -> Option<TopicInfo> {
        self.shared.catalog.read().get(topic)
    }

    /// Up to `limit` topics under a filter, by name, after the name `after`.
    pub fn topics(&self, filter: &Filter, after: Option<&str>, limit: usize) -> Vec<TopicInfo> {
        let catalog = self.shared.catalog.read();
        catalog
            .list(filter, after)
            .take(limit)
            .filter_map(|topic| catalog.get(topic.as_str()))
            .collect()
    }

    /// How many records in (`after`, `until`] match, by the postings alone.
    ///
    /// # Errors
    /// The system's, reading an index.
    pub fn count(&self, filters: &Filters, after: Cursor, until: Cursor) -> Result<u64, Error> {
        let until = until.min(self.last());
        let topics = self.shared.catalog.read().resolve(filters, usize::MAX).unwrap_or_default();
        let mut count = 0;
        for (segment, from, end) in spans(&self.segments_now(), after, until) {
            let (from, to) = (segment.rel(from), segment.rel(end));
            for topic in &topics {
                let topic = topic.as_str();
                count += segment.with_index(
                    |memory| Ok(memory.postings(topic, from, to).len() as u64),
                    |file| Ok(u64::from(file.count(topic, from, to)?)),
                )?;
            }
        }
        Ok(count)
    }

    /// The cursor before the first record at or after this moment, in milliseconds since the epoch.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a record on the way is damaged; the system's.
    pub fn at_time(&self, time_ms: u64) -> Result<Cursor, Error> {
        let mut start = self.first().before();
        for segment in self.segments_now().iter().rev() {
            let noted = segment.with_index(
                |memory| {
                    Ok(memory
                        .times
                        .iter()
                        .take_while(|(_, time)| *time < time_ms)
                        .last()
                        .map(|(rel, _)| *rel))
                },
                |file| file.time_before(time_ms),
            )?;
            if let Some(rel) = noted {
                start = Cursor::new(segment.base + u64::from(rel));
                break;
            }
        }
        let mut found = None;
        let mut cursor = start;
        while found.is_none() && cursor < self.last() {
            let step = ScanLimit { events: 8192, bytes: 8 << 20 };
            cursor = self.scan(cursor, self.last(), None, step, &mut |record| {
                if found.is_none() && record.time_ms >= time_ms {
                    found = Some(record.offset.before());
                }
            })?;
        }
        Ok(found.unwrap_or_else(|| self.last()))
    }

    fn segments_now(&self) -> Vec<Arc<Segment>> {
        self.shared.segments.read().clone()
    }
}

/// The segments that (`after`, `until`] reaches into, and from where up to where it does.
fn spans(
    segments: &[Arc<Segment>],
    after: Cursor,
    until: Cursor,
) -> impl Iterator<Item = (&Arc<Segment>, u64, u64)> {
    segments.iter().enumerate().filter_map(move |(n, segment)| {
        let end = segments.get(n + 1).map_or(u64::MAX, |next| next.base - 1).min(until.get());
        let from = segment.base.max(after.get() + 1);
        (from <= end).then_some((segment, from, end))
    })
}

/// One scan on its way.
struct Run<'a> {
    filters: Option<&'a Filters>,
    /// The topics that match, when they are few enough to know.
    topics: Option<BTreeSet<Topic>>,
    limit: ScanLimit,
    patience: Patience,
    events: usize,
    bytes: usize,
    /// Of all records that were looked at.
    looked_bytes: usize,
    cursor: Cursor,
    visit: &'a mut dyn FnMut(Record),
}

impl<'a> Run<'a> {
    fn new(
        filters: Option<&'a Filters>,
        limit: ScanLimit,
        patience: Patience,
        cursor: Cursor,
        visit: &'a mut dyn FnMut(Record),
    ) -> Run<'a> {
        let (events, bytes, looked_bytes) = (0, 0, 0);
        Run { filters, topics: None, limit, patience, events, bytes, looked_bytes, cursor, visit }
    }

    fn is_full(&self) -> bool {
        self.events >= self.limit.events
            || self.bytes >= self.limit.bytes
            || (self.patience == Patience::Now && self.looked_bytes >= NOW_BYTES_MAX)
    }

    /// What matches behind the cursor up to `until`; gives how far it has looked.
    fn over(&mut self, segments: &[Arc<Segment>], until: Cursor) -> Result<Cursor, Error> {
        for (segment, from, end) in spans(segments, self.cursor, until) {
            self.segment(segment, from, end)?;
            if self.is_full() {
                return Ok(self.cursor);
            }
            self.cursor = Cursor::new(end);
        }
        Ok(self.cursor.max(until))
    }

    /// What matches in one segment, from `from` up to `end`.
    fn segment(&mut self, segment: &Segment, from: u64, end: u64) -> Result<(), Error> {
        if let Some(topics) = self.topics.take() {
            let few = self.is_few(segment, &topics);
            let result = match few {
                Ok(true) => self.by_postings(segment, from, end, &topics),
                Ok(false) => self.by_reading(segment, from, end),
                Err(error) => Err(error),
            };
            self.topics = Some(topics);
            return result;
        }
        self.by_reading(segment, from, end)
    }

    fn is_few(&self, segment: &Segment, topics: &BTreeSet<Topic>) -> Result<bool, Error> {
        if topics.is_empty() {
            return Ok(true);
        }
        let mut matching = 0_u64;
        let mut records = 0;
        for topic in topics {
            let topic = topic.as_str();
            let (count, all) = segment.with_index(
                |memory| {
                    Ok((memory.topics.get(topic).map_or(0, |chain| chain.count), memory.records))
                },
                |file| Ok((file.topic_count(topic)?, file.counts().records)),
            )?;
            matching += u64::from(count);
            records = u64::from(all);
        }
        Ok(matching * SCAN_ABOVE_ONE_IN < records)
    }

    fn by_postings(
        &mut self,
        segment: &Segment,
        from: u64,
        end: u64,
        topics: &BTreeSet<Topic>,
    ) -> Result<(), Error> {
        let left = self.limit.events - self.events;
        let (from, to) = (segment.rel(from), segment.rel(end));
        let mut rels = Vec::new();
        for topic in topics {
            let topic = topic.as_str();
            let found = segment.with_index(
                |memory| Ok(memory.postings(topic, from, to)),
                |file| file.postings(topic, from, to, left),
            )?;
            rels.extend(found);
        }
        rels.sort_unstable();
        for rel in rels {
            let offset = segment.base + u64::from(rel);
            if let Some(position) = segment.slot(rel, self.patience)?.position() {
                match segment.read(position, offset) {
                    Ok(record) if topics.contains(&record.topic) => self.take(record),
                    // The index leads astray, or there is damage: reading on tells which.
                    Ok(_) | Err(Error::Corrupt { .. }) => {
                        let next = self.cursor.get().max(segment.base + u64::from(from) - 1) + 1;
                        return self.by_reading(segment, next, end);
                    }
                    Err(error) => return Err(error),
                }
                if self.is_full() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn by_reading(&mut self, segment: &Segment, from: u64, end: u64) -> Result<(), Error> {
        let (from, to) = (segment.rel(from), segment.rel(end));
        let next = segment.next_slot(from, to, self.patience)?;
        let Some((_, position)) = next else { return Ok(()) };
        // A rewritten one may end with holes: behind its last record there is nothing to be read.
        let last = segment.index.get().and_then(|index| index.last_rel());
        let end = last.map_or(end, |last| end.min(segment.base + u64::from(last)));
        let patience = self.patience;
        match segment.walk(position, end, patience, &mut |found| self.look(&found)) {
            // Where one record ends the next begins: behind damage only the index knows the way.
            Err(Error::Corrupt { .. }) if patience == Patience::Wait => self.by_index(segment, end),
            walked => walked,
        }
    }

    /// The same, each record by its place in the index: so damage has an offset.
    fn by_index(&mut self, segment: &Segment, end: u64) -> Result<(), Error> {
        let mut from = segment.rel(self.cursor.get().max(segment.base - 1) + 1);
        let to = segment.rel(end);
        while let Some((rel, position)) = segment.next_slot(from, to, self.patience)? {
            let record = segment.read(position, segment.base + u64::from(rel))?;
            if self.matches(record.topic.as_str()) {
                self.take(record);
            } else {
                self.cursor = record.offset.cursor();
            }
            if self.is_full() || rel >= to {
                break;
            }
            from = rel + 1;
        }
        Ok(())
    }

    /// Takes the record if it matches; false when that is enough.
    fn look(&mut self, found: &Found<'_>) -> bool {
        self.looked_bytes += found.bytes();
        if self.matches(found.topic) {
            self.take(found.record());
        } else {
            self.cursor = found.offset.cursor();
        }
        !self.is_full()
    }

    fn matches(&self, topic: &str) -> bool {
        self.filters.is_none_or(|filters| filters.matches(topic))
    }

    fn take(&mut self, record: Record) {
        self.events += 1;
        self.bytes += record.body.len() + record.key.len() + record.topic.as_str().len();
        self.cursor = record.offset.cursor();
        (self.visit)(record);
    }
}
