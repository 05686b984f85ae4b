//! The writer: the one that appends. Not `Clone`; readers are made at [`Log::open`] and see what was synced.
//!
//! - One append is one batch and one write; [`Log::sync`] makes all appended batches durable and visible.
//! - The first failed write or sync latches: nothing is appended ever after, and no sync is tried again,
//!   because the system may call a second one a success although the first one's pages are gone.
//! - A full disk is met before anything is written, and does not latch.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tidings_proto::{Cursor, Offset, Topic};

use crate::{
    Error, NewRecord, Reader, Record, Recovery,
    active::POSITION_MAX,
    batch::{self, BATCH_RECORDS_MAX},
    chore::{Chore, Spare, Task},
    disk::{Disk, Patience},
    manifest::{self, Meta, Name, Segments},
    reader::Shared,
    record::Place,
    recovery::{self, TailState},
    segment::{PAGE_BYTES, Segment},
    trimmer::Trimmer,
};

/// How the log is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The size of a segment file, in bytes: 64 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// What a full disk leaves for batches of control records, in bytes; at most half a segment.
    pub reserve_bytes: u64,
    /// Whether a segment is written full of zeros before it is used: syncs are faster then, and every byte is
    /// written twice. The first segment of a log is not.
    pub fill_segments: bool,
    /// The body of the record that names lost offsets, first and last.
    pub lost_body: fn(u64, u64) -> Vec<u8>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 128 << 20,
            reserve_bytes: 64 << 20,
            fill_segments: false,
            lost_body: |_, _| Vec::new(),
        }
    }
}

/// A log that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The writer.
    pub log: Log,
    /// For reading; clone it freely.
    pub reader: Reader,
    /// For taking events out.
    pub trimmer: Trimmer,
    /// What the start found.
    pub recovery: Recovery,
}

/// The writer.
pub struct Log {
    disk: Arc<dyn Disk>,
    options: Options,
    shared: Arc<Shared>,
    meta: Arc<Meta>,
    /// What the manifest says; locked as long as it is being replaced.
    names: Arc<Mutex<Segments>>,
    active: Arc<Segment>,
    tail: TailState,
    spare: Arc<Spare>,
    /// How many bytes of the active segment are allocated.
    allocated: u64,
    /// An append found no space, and no segment has been made ready since.
    starved: bool,
    /// Sealed segments whose index file is not written, with the end of their data.
    unindexed: Vec<(Arc<Segment>, u64, Arc<AtomicBool>)>,
    /// What was appended since the last sync: topic → first, last, count.
    unsynced: HashMap<Topic, (Offset, Offset, u64)>,
    dirty: bool,
    latched: Option<String>,
    buffer: Vec<u8>,
    _lock: Box<dyn Send + Sync>,
}

/// An output buffer larger than this is given back.
const BUFFER_KEEP_BYTES: usize = 4 << 20;

impl Log {
    /// Opens the log on this disk, making it when there is none.
    ///
    /// # Errors
    /// [`Error::Locked`] before anything is touched; [`Error::Corrupt`] and [`Error::Missing`] when what was
    /// durable is damaged; the system's.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<Opened, Error> {
        let lock = disk.lock()?;
        let segment_bytes = options.segment_bytes.clamp(64 << 10, 1 << 30);
        let reserve_bytes = options.reserve_bytes.min(segment_bytes / 2);
        let options = Options { segment_bytes, reserve_bytes, ..options };
        let found = recovery::recover(&*disk, &options)?;
        let Some(active) = found.segments.last().cloned() else {
            return Err(Error::Missing { path: crate::segment::path(1, 0) });
        };
        let watermark = found.tail.next - 1;
        let meta = Arc::new(found.meta);
        let shared =
            Shared::new(meta.state().log, found.segments, found.catalog, found.trims, watermark);
        let shared = Arc::new(shared);
        let reader = Reader::new(shared.clone());
        let names = Arc::new(Mutex::new(found.names));
        let trimmer = Trimmer::new(disk.clone(), shared.clone(), names.clone());
        let log = Log {
            disk,
            options,
            shared,
            meta,
            names,
            active,
            tail: found.tail,
            spare: Spare::new(options.fill_segments),
            allocated: found.allocated,
            starved: false,
            unindexed: found
                .unindexed
                .into_iter()
                .map(|(segment, end)| (segment, end, Arc::default()))
                .collect(),
            unsynced: HashMap::new(),
            dirty: false,
            latched: None,
            buffer: Vec::new(),
            _lock: lock,
        };
        Ok(Opened { log, reader, trimmer, recovery: found.recovery })
    }

    /// When the last record was appended, in milliseconds since the epoch; 0 when there is none.
    pub fn last_time_ms(&self) -> u64 {
        self.tail.time_ms
    }

    /// The offset the next record gets.
    pub fn next_offset(&self) -> Offset {
        Cursor::new(self.tail.next - 1).next()
    }

    /// Appends a batch, whole or not at all; gives the offset of its first record, the others follow it.
    /// `time_ms` must not be below that of the batch before.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::Batch`] with nothing written; [`Error::Latched`] and the system's.
    pub fn append(&mut self, time_ms: u64, records: &[NewRecord<'_>]) -> Result<Offset, Error> {
        self.check_latch()?;
        let bytes = check_batch(records, self.tail.next)?;
        let control = records.iter().all(|record| record.flags.control());
        self.make_room(bytes, control)?;
        let first = self.next_offset();
        self.encode(time_ms, records, bytes);
        if let Err(cause) = self.active.file.write_all_at(&self.buffer, self.tail.position) {
            return Err(self.latch(self.active.io("write", cause)));
        }
        self.index(time_ms, records);
        Ok(first)
    }

    /// Makes everything appended durable, and visible to readers.
    ///
    /// # Errors
    /// The system's, once; from then on [`Error::Latched`].
    pub fn sync(&mut self) -> Result<Cursor, Error> {
        self.check_latch()?;
        if self.dirty {
            #[cfg(not(feature = "planted-no-sync"))]
            if let Err(cause) = self.active.file.sync_data() {
                return Err(self.latch(self.active.io("sync", cause)));
            }
            self.dirty = false;
            self.shared.commit(self.unsynced.drain(), self.tail.next - 1);
        }
        Ok(Cursor::new(self.tail.next - 1))
    }

    /// The last offset a topic ever had, also when it is not synced yet or has been taken out; `None` where it never
    /// had one, or was erased.
    pub fn topic_last(&self, topic: &Topic) -> Option<Offset> {
        match self.unsynced.get(topic) {
            Some((_, last, _)) => Some(*last),
            None => self.shared.last_ever(topic.as_str()),
        }
    }

    /// The records appended with this hash, newest first, also when they are not synced yet.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn find_dedupe(&self, hash: u64) -> Result<Vec<Record>, Error> {
        // What a trimmer puts in the place of another has the same records, or those that are left.
        let segments = self.shared.segments.read();
        let mut found = Vec::new();
        for segment in segments.iter().rev() {
            let rels = segment
                .with_index(|memory| Ok(memory.find_dedupe(hash)), |file| file.find_dedupe(hash))?;
            for rel in rels {
                if let Some(position) = segment.slot(rel, Patience::Wait)?.position() {
                    found.push(segment.read(position, segment.base + u64::from(rel))?);
                }
            }
        }
        Ok(found)
    }

    /// Seals the active segment, so that events can be taken out of it. False when it has none.
    ///
    /// # Errors
    /// [`Error::Full`] when there is no space for the next; the system's, and then the log latches.
    pub fn seal(&mut self) -> Result<bool, Error> {
        self.check_latch()?;
        if self.tail.next == self.active.base {
            return Ok(false);
        }
        self.roll(self.options.segment_bytes).map(|()| true)
    }

    /// Work to be run beside the commit path; ask after each commit.
    pub fn chores(&mut self) -> Vec<Chore> {
        let mut chores = Vec::new();
        if self.latched.is_some() {
            return chores;
        }
        let bytes = self.options.segment_bytes;
        // Early enough to be ready when the reserve is touched.
        let until_reserve = self.allocated.saturating_sub(self.options.reserve_bytes);
        let is_wanted = self.starved || self.tail.position > until_reserve / 4 * 3;
        if is_wanted && self.spare.claim() {
            let (disk, spare) = (self.disk.clone(), self.spare.clone());
            chores.push(Chore(Task::Prepare { disk, spare, bytes }));
        }
        self.unindexed.retain(|(segment, _, _)| segment.index.get().is_none());
        for (segment, data_end, busy) in &self.unindexed {
            if !busy.swap(true, Ordering::SeqCst) {
                let (disk, segment, busy) = (self.disk.clone(), segment.clone(), busy.clone());
                chores.push(Chore(Task::Index { disk, segment, data_end: *data_end, busy }));
            }
        }
        chores
    }

    /// Whether there is space, as far as that is known: false from an [`Error::Full`] until the next
    /// segment has been made ready, which [`Log::chores`] tries again and again.
    pub fn has_room(&mut self) -> bool {
        self.starved &= !self.spare.is_ready(self.options.segment_bytes);
        !self.starved
    }

    /// The chore that notes the watermark, if it has moved; ask about once a second.
    pub fn watermark_chore(&mut self) -> Option<Chore> {
        let watermark = self.shared.watermark();
        let moved = watermark > self.meta.noted() && self.latched.is_none();
        moved.then(|| Chore(Task::Watermark { meta: self.meta.clone(), watermark }))
    }

    /// Syncs, notes the watermark, and lets go of the directory.
    ///
    /// # Errors
    /// The system's; the next start recovers.
    pub fn close(mut self) -> Result<(), Error> {
        if self.latched.is_some() {
            return Ok(());
        }
        self.sync()?;
        match self.watermark_chore() {
            Some(chore) => chore.run(),
            None => Ok(()),
        }
    }

    fn check_latch(&self) -> Result<(), Error> {
        match &self.latched {
            Some(cause) => Err(Error::Latched(cause.clone())),
            None => Ok(()),
        }
    }

    fn latch(&mut self, error: Error) -> Error {
        self.latched = Some(error.to_string());
        error
    }

    /// Sees to it that the batch fits into the active segment, rolling to a new one where it does not.
    fn make_room(&mut self, bytes: u64, control: bool) -> Result<(), Error> {
        let allocated = self.allocated;
        let end = self.tail.position + bytes;
        let span_left = u64::from(u32::MAX) - (self.tail.next - self.active.base);
        let fits = end <= allocated && span_left > BATCH_RECORDS_MAX as u64;
        // Once the reserve is touched, the next segment must be there.
        let reserve_untouched = end + self.options.reserve_bytes <= allocated;
        if fits && (reserve_untouched || control || self.spare.is_ready(self.options.segment_bytes))
        {
            return Ok(());
        }
        let wanted = self.options.segment_bytes.max(PAGE_BYTES as u64 + bytes);
        let made = if fits {
            self.spare.make(&*self.disk, self.options.segment_bytes)
        } else if self.tail.next == self.active.base {
            // A new segment would have the same base: this one, which is empty, is made larger.
            self.grow(wanted)
        } else {
            return self.roll(wanted);
        };
        made.map_err(|error| self.no_room(error, wanted))
    }

    fn grow(&mut self, wanted: u64) -> Result<(), Error> {
        let file = &self.active.file;
        let grown = file.allocate(wanted).and_then(|()| file.sync_all());
        grown.map_err(|cause| self.active.io("allocate", cause))?;
        self.allocated = wanted;
        Ok(())
    }

    /// No space is the disk's state; everything else is a failure that latches.
    fn no_room(&mut self, error: Error, wanted: u64) -> Error {
        match error.is_no_space() {
            true => {
                self.starved = true;
                Error::Full { needed_bytes: wanted, path: "the data directory".to_owned() }
            }
            false => self.latch(error),
        }
    }

    /// Seals the active segment and begins the next.
    fn roll(&mut self, wanted: u64) -> Result<(), Error> {
        self.sync()?;
        let base = self.tail.next;
        let failed = |cause| Error::io("begin", "the next segment", cause);
        let id = self.disk.random_id().map_err(failed).map_err(|error| self.latch(error))?;
        let disk = self.disk.clone();
        let installed =
            self.spare.take(&*disk, wanted, |file| recovery::install(&*disk, file, id, base));
        let (file, allocated) = installed.map_err(|error| self.no_room(error, wanted))?;
        let manifest = self.names.clone();
        let mut names = manifest.lock();
        let mut next = names.clone();
        next.iter_mut().rev().take(1).for_each(|sealed| sealed.end = base);
        let name = Name::active(base, id);
        next.push(name);
        if let Err(cause) = manifest::prepare(&*disk, &next) {
            // The manifest does not name it: it goes again, so that it takes no space.
            let _ = disk.remove(&crate::segment::path(base, 0));
            return Err(self.no_room(failed(cause), wanted));
        }
        // From here on it is not known which of the two the manifest names.
        manifest::replace(&*disk).map_err(failed).inspect_err(|error| {
            self.latched = Some(error.to_string());
        })?;
        self.allocated = allocated;
        *names = next;
        let next = Arc::new(Segment::new(file, &name));
        self.unindexed.push((self.active.clone(), self.tail.position, Arc::default()));
        self.shared.segments.write().push(next.clone());
        drop(names);
        self.active = next;
        let time_ms = self.tail.time_ms;
        self.tail = TailState { position: PAGE_BYTES as u64, next: base, previous_crc: 0, time_ms };
        Ok(())
    }

    fn encode(&mut self, time_ms: u64, records: &[NewRecord<'_>], bytes: u64) {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() > BUFFER_KEEP_BYTES {
            buffer = Vec::new();
        }
        buffer.clear();
        buffer.reserve(usize::try_from(bytes).unwrap_or(0));
        buffer.resize(batch::HEADER_BYTES, 0);
        for (offset, record) in (self.tail.next..).zip(records) {
            let place = Place { segment: &self.active.id, base: self.active.base, offset };
            record.encode(&place, time_ms, &mut buffer);
        }
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let durable = self.shared.watermark();
        let previous = self.tail.previous_crc;
        let head =
            batch::Head { first: self.tail.next, count, sparse: false, time_ms, durable, previous };
        self.tail.previous_crc = batch::seal(&mut buffer, &self.active.id, &head);
        self.buffer = buffer;
    }

    /// Notes what was just written.
    fn index(&mut self, time_ms: u64, records: &[NewRecord<'_>]) {
        let mut position = self.tail.position + batch::HEADER_BYTES as u64;
        if let Some(active) = &mut *self.active.memory.write() {
            for (record, offset) in records.iter().zip(self.tail.next..) {
                let rel = self.active.rel(offset);
                active.push(rel, position, time_ms, record.entry());
                position += record.stored_bytes() as u64;
            }
        }
        for (record, offset) in records.iter().zip(self.tail.next..) {
            let offset = Cursor::new(offset - 1).next();
            let entry = self.unsynced.entry(record.topic.clone()).or_insert((offset, offset, 0));
            (entry.1, entry.2) = (offset, entry.2 + 1);
        }
        self.tail.position += self.buffer.len() as u64;
        self.tail.next += records.len() as u64;
        self.tail.time_ms = time_ms;
        self.dirty = true;
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log({:?}, next {})", self.active.path, self.tail.next)
    }
}

/// The bytes of the batch with these records.
fn check_batch(records: &[NewRecord<'_>], next: u64) -> Result<u64, Error> {
    if records.is_empty() || records.len() > BATCH_RECORDS_MAX {
        return Err(Error::Batch { problem: "must have 1 to 65,536 records" });
    }
    if let Some(problem) = records.iter().find_map(NewRecord::problem) {
        return Err(Error::Batch { problem });
    }
    if next + records.len() as u64 > Offset::MAX {
        return Err(Error::Batch { problem: "would pass the highest offset, 2^53 − 1" });
    }
    let bytes = batch::HEADER_BYTES + records.iter().map(NewRecord::stored_bytes).sum::<usize>();
    match bytes as u64 > POSITION_MAX / 2 {
        true => Err(Error::Batch { problem: "has more than 1 GiB" }),
        false => Ok(bytes as u64),
    }
}
