//! Taking events out of the log: whole sealed segments dropped, others rewritten with what stays.
//!
//! - What stays keeps its offset; what goes leaves a hole.
//! - Order: the new segment and its index · `trimmed` · the manifest · then the old files go. So a crash anywhere
//!   leaves the old segment or the new one, and `trimmed` never says less than what is gone.
//! - Readers that hold the old segment read on in it: its file is open and only its name is gone.
//! - The active segment is never touched; the writer waits for one manifest at most, when it rolls.

mod older;
mod rewrite;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use parking_lot::Mutex;
use tidings_proto::{Cursor, Filters, Offset, Topic};

pub use self::older::Asked;
use self::rewrite::Rewrite;
use crate::{
    Error, Flags,
    disk::{Disk, Patience},
    index::{IndexFile, key_hash},
    manifest::{self, Name, Segments},
    reader::Shared,
    record::Found,
    recovery::last_time,
    segment::{self, Segment},
    trims::{Trim, Trims, Why},
};

/// How often what is known of a topic is looked at again where events of it are being committed meanwhile.
const RETRIES_MAX: usize = 1000;

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Keep,
    /// A rule of retention removes it: its readers get a gap.
    Trim,
    /// Its topic was erased: its readers get a gap, and the topic begins anew.
    Erase,
    /// It means nothing any more, to nobody.
    Pass,
}

/// An event that is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its place.
    pub offset: Offset,
    /// When it was appended, in milliseconds since the epoch.
    pub time_ms: u64,
    /// Its topic.
    pub topic: &'a str,
    /// Its key; empty for none.
    pub key: &'a [u8],
    /// Its marks.
    pub flags: Flags,
    /// The rest.
    pub body: &'a [u8],
}

/// A sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its first offset.
    pub base: u64,
    /// The first offset behind it.
    pub end: u64,
    /// How often it was rewritten.
    pub generation: u32,
    /// How many records it has.
    pub records: u32,
    /// How long its file is.
    pub bytes: u64,
}

impl Sealed {
    /// How many of its bytes so many of its records have, as if all were alike.
    pub fn bytes_of(&self, records: u64) -> u64 {
        let bytes = u128::from(self.bytes) * u128::from(records) / u128::from(self.records.max(1));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// What was taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Segments that are gone whole.
    pub dropped: u64,
    /// Segments that were rewritten.
    pub rewritten: u64,
    /// Events.
    pub events: u64,
    /// Bytes of files that the disk has back.
    pub bytes: u64,
}

impl std::ops::AddAssign for Removed {
    fn add_assign(&mut self, other: Removed) {
        self.dropped += other.dropped;
        self.rewritten += other.rewritten;
        self.events += other.events;
        self.bytes += other.bytes;
    }
}

/// Takes events out of sealed segments. One call works at a time, beside the writer and all readers.
#[derive(Debug)]
pub struct Trimmer {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    names: Arc<Mutex<Segments>>,
    /// Held as long as anything is taken out. True once it is not known which manifest the disk has.
    unsure: Mutex<bool>,
}

/// What goes of one topic.
#[derive(Clone, Copy, Debug, Default)]
struct Gone {
    count: u64,
    /// The first and last that go.
    first: u64,
    last: u64,
    /// The last that its readers are told of.
    told: u64,
    erased: bool,
}

type GoneOf = HashMap<Topic, Gone>;

impl Trimmer {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        shared: Arc<Shared>,
        names: Arc<Mutex<Segments>>,
    ) -> Trimmer {
        Trimmer { disk, shared, names, unsure: Mutex::new(false) }
    }

    /// The sealed segments that can be worked on, the oldest first: those whose index is written.
    pub fn sealed(&self) -> Vec<Sealed> {
        let names = self.names.lock().clone();
        let segments = self.shared.segments.read().clone();
        let sealed = names.iter().filter(|name| name.end > 0).filter_map(|name| {
            let segment = segments.iter().find(|segment| segment.base == name.base)?;
            Some(Sealed {
                base: name.base,
                end: name.end,
                generation: name.generation,
                records: segment.index.get()?.counts().records,
                bytes: segment.file.size().unwrap_or(0),
            })
        });
        sealed.collect()
    }

    /// The first offset that no sealed segment holds.
    pub fn sealed_end(&self) -> u64 {
        self.names.lock().last().map_or(1, |active| active.base)
    }

    /// The topics in a sealed segment with how many events they have there.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such segment; the system's.
    pub fn topics(&self, base: u64) -> Result<Vec<(Topic, u64)>, Error> {
        let segment = self.find(base)?;
        let entries = index_of(&segment)?.topics();
        let entries = entries.map_err(|cause| segment.io("read the index of", cause))?;
        let topics = entries
            .into_iter()
            .filter_map(|entry| Some((Topic::parse(&entry.name).ok()?, u64::from(entry.count))));
        Ok(topics.collect())
    }

    /// When the last event of a sealed segment was appended, in milliseconds since the epoch.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such segment; the system's.
    pub fn last_time_ms(&self, base: u64) -> Result<u64, Error> {
        last_time(&*self.find(base)?)
    }

    /// What the clock for ages said when events were last taken out; 0 when none ever were.
    pub fn clock_ms(&self) -> u64 {
        self.shared.trims.read().clock_ms
    }

    /// Drops these sealed segments, whole. `fate` says of each topic in them why it goes.
    ///
    /// # Errors
    /// [`Error::Missing`] when one is not there; the system's: then nothing is gone, or after a failure to replace
    /// the manifest it shows at the next start.
    pub fn drop_segments(
        &self,
        bases: &[u64],
        clock_ms: u64,
        fate: &dyn Fn(&str) -> Fate,
    ) -> Result<Removed, Error> {
        let mut unsure = self.unsure.lock();
        let (mut old, mut gone) = (Vec::new(), GoneOf::new());
        let mut removed = Removed::default();
        for base in bases {
            let segment = self.find(*base)?;
            let index = index_of(&segment)?;
            let entries = index.topics();
            for entry in entries.map_err(|cause| segment.io("read the index of", cause))? {
                let Ok(topic) = Topic::parse(&entry.name) else { continue };
                let fate = fate(topic.as_str());
                let first = segment.base + u64::from(entry.first);
                let last = segment.base + u64::from(entry.last);
                note(&mut gone, &topic, (first, last), u64::from(entry.count), fate);
            }
            removed.dropped += 1;
            removed.events += u64::from(index.counts().records);
            removed.bytes += segment.file.size().unwrap_or(0);
            old.push(segment);
        }
        self.replace(&mut unsure, &old, None, &gone, clock_ms)?;
        Ok(removed)
    }

    /// Writes a sealed segment anew with those of its events that stay; drops it where none does.
    ///
    /// # Errors
    /// [`Error::Missing`] when it is not there, [`Error::Corrupt`] when it is damaged: then it stays as it is;
    /// the system's, as with [`Trimmer::drop_segments`].
    pub fn rewrite(
        &self,
        base: u64,
        clock_ms: u64,
        fate: &mut dyn FnMut(&Seen<'_>) -> Fate,
    ) -> Result<Removed, Error> {
        let mut unsure = self.unsure.lock();
        if *unsure {
            return Err(unsure_error());
        }
        let old = self.find(base)?;
        let end =
            self.names.lock().iter().find(|name| name.base == base).map_or(0, |name| name.end);
        let generation = old.generation.saturating_add(1);
        let id = self.disk.random_id().map_err(|cause| old.io("rewrite", cause))?;
        let name = Name { base, end, generation, records: 0, id };
        let mut rewrite = Rewrite::new(&*self.disk, name)?;
        let written = rewrite.run(&old, fate);
        let (records, gone) = match written {
            Ok(()) => (rewrite.active.records, std::mem::take(&mut rewrite.gone)),
            Err(error) => {
                self.forget(base, generation);
                return Err(error);
            }
        };
        let events = gone.values().map(|gone| gone.count).sum();
        if events == 0 {
            self.forget(base, generation);
            return Ok(Removed::default());
        }
        let before = old.file.size().unwrap_or(0);
        if records == 0 {
            self.forget(base, generation);
            self.replace(&mut unsure, &[old], None, &gone, clock_ms)?;
            return Ok(Removed { dropped: 1, rewritten: 0, events, bytes: before });
        }
        let new = match rewrite.finish() {
            Ok(new) => new,
            Err(error) => {
                self.forget(base, generation);
                return Err(error);
            }
        };
        let bytes = before.saturating_sub(new.file.size().unwrap_or(0));
        let name = Name { records, ..name };
        self.replace(&mut unsure, &[old], Some((Arc::new(new), name)), &gone, clock_ms)?;
        Ok(Removed { dropped: 0, rewritten: 1, events, bytes })
    }

    /// For each of these events of a sealed segment, whether a newer one has its topic and key. `wanted` says
    /// which topics are asked for. Gives the offsets of those that have been replaced, rising.
    ///
    /// # Errors
    /// As with [`Trimmer::rewrite`].
    pub fn replaced(
        &self,
        base: u64,
        wanted: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Vec<Offset>, Error> {
        let segment = self.find(base)?;
        // By the bytes themselves: of two keys with one hash neither replaces the other.
        let mut newest: HashMap<(Box<str>, Box<[u8]>), u64> = HashMap::new();
        let mut replaced = Vec::new();
        visit(&segment, &mut |found| {
            if !found.key.is_empty() && wanted(found.topic) {
                let key = (found.topic.into(), found.key.into());
                let older = newest.insert(key, found.offset.get());
                replaced.extend(older.and_then(Offset::new));
            }
            true
        })?;
        self.replaced_later(base, &newest, &mut replaced)?;
        replaced.sort_unstable();
        Ok(replaced)
    }

    /// Those of a segment's newest that have newer ones in later segments.
    fn replaced_later(
        &self,
        base: u64,
        newest: &HashMap<(Box<str>, Box<[u8]>), u64>,
        replaced: &mut Vec<Offset>,
    ) -> Result<(), Error> {
        let mut waiting: HashMap<u64, (&str, &[u8], u64)> = newest
            .iter()
            .map(|((topic, key), offset)| (key_hash(topic, key), (&**topic, &**key, *offset)))
            .collect();
        let watermark = self.shared.watermark();
        let later = self.shared.segments.read().clone();
        for segment in later.iter().filter(|segment| segment.base > base) {
            let hints: Vec<(u64, u32)> = match segment.index.get() {
                Some(file) => {
                    let keys =
                        file.keys().map_err(|cause| segment.io("read the index of", cause))?;
                    keys.into_iter().filter(|(hash, _)| waiting.contains_key(hash)).collect()
                }
                None => {
                    let memory = segment.memory.read();
                    let find = |hash: &u64| Some((*hash, memory.as_ref()?.find_key(*hash)?));
                    waiting.keys().filter_map(find).collect()
                }
            };
            for (hash, rel) in hints {
                let offset = segment.base + u64::from(rel);
                let Some(position) = segment.slot(rel, Patience::Wait)?.position() else {
                    continue;
                };
                if offset > watermark {
                    continue;
                }
                let record = segment.read(position, offset)?;
                if let Some((topic, key, older)) = waiting.get(&hash).copied()
                    && record.topic.as_str() == topic
                    && record.key[..] == *key
                {
                    replaced.extend(Offset::new(older));
                    waiting.remove(&hash);
                }
            }
        }
        Ok(())
    }

    /// Calls `visit` with every event of a sealed segment, until it says stop.
    ///
    /// # Errors
    /// As with [`Trimmer::rewrite`].
    pub fn visit(
        &self,
        base: u64,
        visit_one: &mut dyn FnMut(&Seen<'_>) -> bool,
    ) -> Result<(), Error> {
        visit(&*self.find(base)?, &mut |found| visit_one(&seen(&found)))
    }

    fn find(&self, base: u64) -> Result<Arc<Segment>, Error> {
        let segments = self.shared.segments.read();
        // The last one is active.
        let sealed = segments.split_last().map(|(_, sealed)| sealed).unwrap_or_default();
        let found = sealed.iter().find(|segment| segment.base == base).cloned();
        found.ok_or_else(|| Error::Missing { path: segment::path(base, 0) })
    }

    /// Removes what was written of a segment that is not used.
    fn forget(&self, base: u64, generation: u32) {
        // Where that fails the next start does it.
        let _ = self.disk.remove(&segment::index_path(base, generation));
        let _ = self.disk.remove(&segment::path(base, generation));
    }

    /// Puts `new` in the place of the old segments, or nothing.
    fn replace(
        &self,
        unsure: &mut bool,
        old: &[Arc<Segment>],
        new: Option<(Arc<Segment>, Name)>,
        gone: &GoneOf,
        clock_ms: u64,
    ) -> Result<(), Error> {
        if *unsure {
            return Err(unsure_error());
        }
        let forget = || {
            if let Some((_, name)) = &new {
                self.forget(name.base, name.generation);
            }
        };
        let trims = self.trims_with(gone, clock_ms);
        if let Some(trims) = &trims {
            let written = trims.write(&*self.disk);
            written.map_err(|cause| Error::io("write", crate::trims::TRIMMED, cause)).inspect_err(
                // Whichever of the two holds, it says no less than what is gone.
                |_| forget(),
            )?;
        }
        let is_old = |base: u64| old.iter().any(|segment| segment.base == base);
        let mut names = self.names.lock();
        let mut next: Segments = names.iter().filter(|name| !is_old(name.base)).copied().collect();
        next.extend(new.as_ref().map(|(_, name)| *name));
        next.sort_unstable_by_key(|name| name.base);
        let failed = |cause| Error::io("replace", manifest::MANIFEST, cause);
        manifest::prepare(&*self.disk, &next).map_err(failed).inspect_err(|_| forget())?;
        // From here on it is not known which of the two the disk has: no file goes, whatever comes.
        manifest::replace(&*self.disk).map_err(failed).inspect_err(|_| *unsure = true)?;
        *names = next;
        // Readers learn first that something is gone, then it is.
        if let Some(trims) = trims {
            *self.shared.trims.write() = trims;
            self.shared.trims_version.fetch_add(1, Ordering::SeqCst);
        }
        let mut segments = self.shared.segments.write();
        segments.retain(|segment| !is_old(segment.base));
        segments.extend(new.map(|(segment, _)| segment));
        segments.sort_unstable_by_key(|segment| segment.base);
        drop(segments);
        drop(names);
        self.shared.note_first();
        let counted = gone.iter().map(|(topic, gone)| self.forget_events(topic, gone));
        // One topic that cannot be looked up now keeps neither the others nor the files.
        let counted: Vec<Result<(), Error>> = counted.collect();
        for segment in old {
            self.forget(segment.base, segment.generation);
        }
        self.disk.sync_dir("log").map_err(|cause| Error::io("sync", "log", cause))?;
        counted.into_iter().collect()
    }

    /// What will be known of what is gone; `None` where that does not change.
    fn trims_with(&self, gone: &GoneOf, clock_ms: u64) -> Option<Trims> {
        let current = self.shared.trims.read();
        let catalog = self.shared.catalog.read();
        let mut next: Option<Trims> = None;
        for (topic, gone) in gone {
            let old = current.get(topic.as_str());
            let is_last = catalog.last(topic.as_str()).is_none_or(|last| last.get() <= gone.last);
            if gone.told == 0 && !is_last {
                continue;
            }
            let (upto, ever) = old.map_or((0, 0), |old| (old.upto, old.ever));
            let why = match (gone.told > 0, old) {
                (false, Some(old)) => old.why,
                _ if gone.erased => Why::Erased,
                _ => Why::Retention,
            };
            let ever = if gone.erased { 0 } else { ever.max(gone.last) };
            let trim = Trim { upto: upto.max(gone.told), ever, why };
            next.get_or_insert_with(|| current.clone()).put(topic, trim);
        }
        if let Some(next) = &mut next {
            next.clock_ms = clock_ms.max(current.clock_ms);
        }
        next
    }

    /// Takes what is gone out of what is known of the topic.
    fn forget_events(&self, topic: &Topic, gone: &Gone) -> Result<(), Error> {
        let segments = self.shared.segments.read().clone();
        for _ in 0..RETRIES_MAX {
            let Some(seen) = self.shared.catalog.read().get(topic.as_str()) else { return Ok(()) };
            let left = seen.count.saturating_sub(gone.count);
            // What is not durable yet has not been counted.
            let until = seen.last.get().max(self.shared.watermark());
            let first = match left > 0 && seen.first.get() <= gone.last {
                true => edge(&segments, topic.as_str(), until, true)?,
                false => Some(seen.first),
            };
            let last = match left > 0 && seen.last.get() <= gone.last {
                true => edge(&segments, topic.as_str(), until, false)?,
                false => Some(seen.last),
            };
            let edges = first.zip(last).filter(|_| left > 0);
            let mut catalog = self.shared.catalog.write();
            // Committed meanwhile: what was found is of before.
            if catalog.get(topic.as_str()).is_some_and(|now| now != seen) {
                continue;
            }
            catalog.set(topic, edges.map(|(first, last)| (first, last, left)));
            return Ok(());
        }
        Ok(())
    }
}

/// The topic's first or last record up to `until`.
fn edge(
    segments: &[Arc<Segment>],
    topic: &str,
    until: u64,
    first: bool,
) -> Result<Option<Offset>, Error> {
    let in_one = |segment: &Arc<Segment>| -> Result<Option<Offset>, Error> {
        if segment.base > until {
            return Ok(None);
        }
        let to = segment.rel(until);
        let rel = segment.with_index(
            |memory| {
                let chain = memory.topics.get(topic);
                let rel = chain.map(|chain| if first { chain.first } else { chain.last });
                // Beyond that nothing is durable yet.
                Ok(rel.filter(|rel| *rel <= to))
            },
            |file| file.edge(topic, first),
        )?;
        let offset = rel.map(|rel| segment.base + u64::from(rel));
        Ok(offset.filter(|offset| *offset <= until).and_then(Offset::new))
    };
    let mut forward = segments.iter();
    loop {
        let next = if first { forward.next() } else { forward.next_back() };
        let Some(segment) = next else { return Ok(None) };
        let found = in_one(segment)?;
        if found.is_some() {
            return Ok(found);
        }
    }
}

fn note(gone: &mut GoneOf, topic: &Topic, (first, last): (u64, u64), count: u64, fate: Fate) {
    if !gone.contains_key(topic.as_str()) {
        gone.insert(topic.clone(), Gone { first, ..Gone::default() });
    }
    let Some(of_topic) = gone.get_mut(topic.as_str()) else { return };
    of_topic.count += count;
    of_topic.first = of_topic.first.min(first);
    of_topic.last = of_topic.last.max(last);
    if matches!(fate, Fate::Trim | Fate::Erase) {
        of_topic.told = of_topic.told.max(last);
    }
    of_topic.erased |= fate == Fate::Erase;
}

fn index_of(segment: &Segment) -> Result<&IndexFile, Error> {
    let index = segment.index.get();
    index.ok_or_else(|| segment.corrupt(0, segment.base, "its index is not written yet"))
}

fn unsure_error() -> Error {
    let cause = "an earlier replacement of the manifest failed: restart to have it looked at anew";
    Error::io("replace", manifest::MANIFEST, std::io::Error::other(cause))
}

fn seen<'a>(found: &Found<'a>) -> Seen<'a> {
    Seen {
        offset: found.offset,
        time_ms: found.time_ms,
        topic: found.topic,
        key: found.key,
        flags: found.flags,
        body: found.body,
    }
}

fn visit(segment: &Segment, visit: &mut dyn FnMut(Found<'_>) -> bool) -> Result<(), Error> {
    let Some(last) = segment.last_rel()? else { return Ok(()) };
    let Some((_, position)) = segment.next_slot(0, last, Patience::Wait)? else { return Ok(()) };
    segment.walk(position, segment.base + u64::from(last), Patience::Wait, visit)
}

impl crate::Reader {
    /// Changes whenever events were taken out that readers are told of.
    pub fn trims_version(&self) -> u64 {
        self.shared().trims_version.load(Ordering::SeqCst)
    }

    /// The highest offset on the topic that a limit or an erasure took out. Segments go by halves, so older events may
    /// be left: they say nothing of what was the newest.
    pub fn trimmed_upto(&self, topic: &str) -> Cursor {
        self.shared().trims.read().upto(topic)
    }

    /// Why something behind `after` that matches was taken out, if it was, and the highest offset of that.
    pub fn trimmed(&self, filters: &Filters, after: Cursor) -> Option<(Why, Cursor)> {
        self.shared().trims.read().behind(filters, after)
    }
}
