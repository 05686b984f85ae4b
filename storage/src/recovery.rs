//! What a start does with the files it finds. It trusts nothing but checksums, and may itself be cut off anywhere.
//!
//! 1. The manifest's segments must all be there; a segment it does not name was never used and is removed.
//! 2. Sealed segments: the index file is checked, or rebuilt from the segment.
//! 3. The active segment: batch after batch until one does not hold.
//! 4. What does not hold is a *torn tail*, if nothing of it can have been durable, and then it is cut; the log
//!    goes on above every offset it could have held, and a record says which those are. Otherwise it is
//!    *damage*, and the log does not open.
//! 5. The active segment is synced before anything is appended or read.

use std::{collections::HashMap, sync::Arc};

use tidings_proto::{LogId, Offset, Topic, control::LOST_TOPIC};

use crate::{
    Error, Flags, NewRecord, Options,
    active::Active,
    batch::{self, BATCH_RECORDS_MAX},
    catalog::Catalog,
    chore::NEXT,
    disk::{Disk, File, Patience},
    error::is_no_space,
    index::{self, IndexFile, TopicEntry},
    manifest::{self, Meta, Name, Segments},
    record::Place,
    scan::{End, is_zero_behind, look_behind, scan},
    segment::{self, PAGE_BYTES, Segment},
    trims::Trims,
};

/// What a start found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The log ended below its own watermark: it has a new id, since offsets of the old one are gone.
    pub log_id_changed: bool,
    /// The offsets that a torn tail could have held, first and last: they are not used again.
    pub lost: Option<(u64, u64)>,
    /// How many bytes of the active segment were cut.
    pub cut_bytes: u64,
    /// How many index files were rebuilt.
    pub rebuilt_indexes: usize,
}

/// What the log goes on with.
pub(crate) struct Recovered {
    pub(crate) meta: Meta,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) names: Segments,
    pub(crate) catalog: Catalog,
    pub(crate) trims: Trims,
    pub(crate) tail: TailState,
    /// Sealed segments whose index is in memory, because there was no space for its file, with the end
    /// of their data.
    pub(crate) unindexed: Vec<(Arc<Segment>, u64)>,
    /// How many bytes of the active segment are allocated.
    pub(crate) allocated: u64,
    pub(crate) recovery: Recovery,
}

/// Where the next batch goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailState {
    pub(crate) position: u64,
    pub(crate) next: u64,
    pub(crate) previous_crc: u32,
    /// When the last record was appended: time does not fall within a log.
    pub(crate) time_ms: u64,
}

pub(crate) fn recover(disk: &dyn Disk, options: &Options) -> Result<Recovered, Error> {
    // What is believed below must be durable, not only in the memory of a system whose process was killed.
    for dir in ["log", ""] {
        disk.sync_dir(dir).map_err(|cause| Error::io("sync", dir, cause))?;
    }
    let (meta, names) = match Meta::open(disk)? {
        Some(meta) => (meta, manifest::read(disk)?),
        None => (begin(disk)?, Vec::new()),
    };
    if names.is_empty() && meta.state().watermark > 0 {
        return Err(Error::Missing { path: manifest::MANIFEST.to_owned() });
    }
    // Nothing goes before all that the manifest names is known to be there.
    for name in &names {
        drop(open_segment(disk, name)?);
    }
    remove_unused(disk, &names)?;
    let trims = Trims::read(disk)?;
    let names = if names.is_empty() { first_segment(disk, options)? } else { names };
    let mut catalog = Catalog::default();
    let mut recovery = Recovery::default();
    let mut segments = Vec::with_capacity(names.len());
    let mut unindexed = Vec::new();
    let last = names.len().saturating_sub(1);
    for (n, name) in names.iter().enumerate() {
        let found = Arc::new(open_segment(disk, name)?);
        if n < last {
            match open_sealed(disk, &found, name, &mut catalog)? {
                Sealed::Indexed => {}
                Sealed::Rebuilt => recovery.rebuilt_indexes += 1,
                Sealed::InMemory(data_end) => unindexed.push((found.clone(), data_end)),
            }
        }
        segments.push(found);
    }
    let Some(active) = segments.last().cloned() else {
        return Err(Error::Missing { path: segment::path(1, 0) });
    };
    let mut tail = open_active(disk, &active, &meta, &mut recovery)?;
    let before = segments.iter().rev().nth(1).map_or(Ok(0), |sealed| last_time(sealed))?;
    tail.time_ms = tail.time_ms.max(before);
    if let Some((_, to)) = recovery.lost {
        append_lost(&active, options, &mut tail, to)?;
    }
    add_to_catalog(&active, &mut catalog)?;
    let allocated = allocate(&active, options)?;
    Ok(Recovered { meta, segments, names, catalog, trims, tail, unindexed, allocated, recovery })
}

/// The first start in this directory.
fn begin(disk: &dyn Disk) -> Result<Meta, Error> {
    let names = disk.list("log").map_err(|cause| Error::io("list", "log", cause))?;
    let has_segments = names.iter().any(|name| segment::parse_name(name, "log").is_some());
    if has_segments || disk.open(manifest::MANIFEST).is_ok() {
        let problem = "it is missing although there are segments or a manifest";
        return Err(Error::Corrupt {
            path: manifest::META.to_owned(),
            position: 0,
            offset: 0,
            problem,
        });
    }
    let id = disk.random_id().map_err(|cause| Error::io("make", "a log id", cause))?;
    Meta::create(disk, LogId::from_random(id))
}

/// Files that were being made when the process ended, or that had been replaced or dropped.
fn remove_unused(disk: &dyn Disk, names: &Segments) -> Result<(), Error> {
    let failed = |cause| Error::io("tidy", "log", cause);
    let is_named = |(base, generation)| {
        names.iter().any(|name| name.base == base && name.generation == generation)
    };
    for name in disk.list("log").map_err(failed)? {
        let segment = segment::parse_name(&name, "log").filter(|found| !is_named(*found));
        let index = segment::parse_name(&name, "idx").filter(|found| !is_named(*found));
        if let Some((base, generation)) = segment {
            // One that begins below the active segment was dropped, and one that was rewritten is in the manifest
            // in one generation or the other: neither is news to it.
            let is_older = names.last().is_some_and(|active| base < active.base);
            if generation == 0 && !is_older {
                check_unused(disk, base)?;
            } else if !is_older {
                let problem = "it was rewritten and the manifest does not know of it";
                let path = format!("log/{name}");
                return Err(Error::Corrupt { path, position: 0, offset: base, problem });
            }
        }
        let is_unfinished = name.ends_with(".new") || name == "next.log";
        if segment.is_some() || index.is_some() || is_unfinished {
            disk.remove(&format!("log/{name}")).map_err(failed)?;
        }
    }
    Ok(())
}

/// A segment that the manifest does not name was about to be used: it must hold nothing.
fn check_unused(disk: &dyn Disk, base: u64) -> Result<(), Error> {
    let path = segment::path(base, 0);
    let file = disk.open(&path).map_err(|cause| Error::io("open", &path, cause))?;
    let unnamed = Segment::new(file, &Name::active(base, [0; 16]));
    match is_zero_behind(&unnamed, PAGE_BYTES as u64)? {
        true => Ok(()),
        false => Err(unnamed.corrupt(
            PAGE_BYTES as u64,
            base,
            "it holds events and the manifest does not name it",
        )),
    }
}

fn first_segment(disk: &dyn Disk, options: &Options) -> Result<Segments, Error> {
    let failed = |cause| Error::io("make", "the first segment", cause);
    let id = disk.random_id().map_err(failed)?;
    let file = disk.create(NEXT).map_err(failed)?;
    file.allocate(options.segment_bytes).map_err(failed)?;
    install(disk, &*file, id, 1).map_err(failed)?;
    let names = vec![Name::active(1, id)];
    manifest::write(disk, &names).map_err(failed)?;
    Ok(names)
}

/// Gives an allocated `log/next.log` its first page and its name.
pub(crate) fn install(
    disk: &dyn Disk,
    file: &dyn File,
    id: [u8; 16],
    base: u64,
) -> std::io::Result<()> {
    file.write_all_at(&segment::page(&id, base), 0)?;
    file.sync_all()?;
    disk.rename(NEXT, &segment::path(base, 0))?;
    disk.sync_dir("log")
}

pub(crate) fn open_segment(disk: &dyn Disk, name: &Name) -> Result<Segment, Error> {
    let path = segment::path(name.base, name.generation);
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Missing { path });
        }
        Err(cause) => return Err(Error::io("open", &path, cause)),
    };
    match segment::read_page(&*file) {
        Some((id, base)) if id == name.id && base == name.base => Ok(Segment::new(file, name)),
        other => {
            let problem = match other {
                Some(_) => "it is another log's segment",
                None => "its first page does not hold",
            };
            Err(Error::Corrupt { path, position: 0, offset: name.base, problem })
        }
    }
}

/// How a sealed segment was found.
enum Sealed {
    Indexed,
    /// Its index file had to be made again.
    Rebuilt,
    /// And there was no space for it: the end of its data.
    InMemory(u64),
}

/// Takes a sealed segment.
fn open_sealed(
    disk: &dyn Disk,
    sealed: &Segment,
    name: &Name,
    catalog: &mut Catalog,
) -> Result<Sealed, Error> {
    let path = segment::index_path(sealed.base, sealed.generation);
    let check = |span: u64, records: u32, data_end: u64| {
        let end = sealed.base + span;
        // Of a rewritten one the last offsets may be holes: what it must have is all its records.
        let is_whole = match sealed.generation {
            0 => end == name.end,
            _ => records == name.records && end <= name.end,
        };
        let problem = "it does not end where the manifest says";
        if is_whole { Ok(()) } else { Err(sealed.corrupt(data_end, end, problem)) }
    };
    let mut found = Sealed::Indexed;
    let (index, topics) = match IndexFile::open(disk, &path, &sealed.id, sealed.base) {
        Some(opened) => opened,
        None => {
            let (active, end) = read_sealed(sealed, &path)?;
            match write_index(disk, sealed, &active, end.position, &path) {
                Ok(opened) => {
                    found = Sealed::Rebuilt;
                    opened
                }
                Err(error) if error.is_no_space() => {
                    tracing::warn!(%error, "the index stays in memory until there is space");
                    check(active.slots.len() as u64, active.records, end.position)?;
                    *sealed.memory.write() = Some(active);
                    add_to_catalog(sealed, catalog)?;
                    return Ok(Sealed::InMemory(end.position));
                }
                Err(error) => return Err(error),
            }
        }
    };
    let counts = index.counts();
    check(u64::from(counts.span), counts.records, index.data_end)?;
    for TopicEntry { name, first, last, count } in &topics {
        if let (Ok(topic), Some((first, last))) =
            (Topic::parse(name), offsets(sealed.base, *first, *last))
        {
            catalog.add(&topic, first, last, u64::from(*count));
        }
    }
    // Nobody else has it yet.
    let _ = sealed.index.set(index);
    Ok(found)
}

fn offsets(base: u64, first: u32, last: u32) -> Option<(Offset, Offset)> {
    Some((Offset::new(base + u64::from(first))?, Offset::new(base + u64::from(last))?))
}

/// Reads a sealed segment whole: its index is missing or damaged.
fn read_sealed(sealed: &Segment, path: &str) -> Result<(Active, End), Error> {
    tracing::warn!(path, "an index file is missing or damaged and is made again from its segment");
    let mut active = Active::default();
    let end = scan(sealed, &mut active)?;
    match end.problem {
        Some(problem) if !is_zero_behind(sealed, end.position)? => {
            Err(sealed.corrupt(end.position, end.next, problem))
        }
        _ => Ok((active, end)),
    }
}

fn write_index(
    disk: &dyn Disk,
    sealed: &Segment,
    active: &Active,
    data_end: u64,
    path: &str,
) -> Result<(IndexFile, Vec<TopicEntry>), Error> {
    let bytes = index::encode(active, &sealed.id, sealed.base, data_end);
    index::write(disk, path, &bytes).map_err(|cause| Error::io("write", path, cause))?;
    let problem = "an index file just written does not hold";
    IndexFile::open(disk, path, &sealed.id, sealed.base)
        .ok_or_else(|| sealed.corrupt(0, sealed.base, problem))
}

/// Takes the active segment, cuts its torn tail, and makes it durable.
fn open_active(
    disk: &dyn Disk,
    segment: &Segment,
    meta: &Meta,
    recovery: &mut Recovery,
) -> Result<TailState, Error> {
    // After a failed sync the memory may hold what the disk does not: the disk is asked.
    segment.file.sync_all().map_err(|cause| segment.io("sync", cause))?;
    segment.file.drop_cache().map_err(|cause| segment.io("read anew", cause))?;
    let mut active = Active::default();
    let end = scan(segment, &mut active)?;
    *segment.memory.write() = Some(active);
    let state = meta.state();
    let problem = end.problem.unwrap_or("it ends here");
    let clean = is_zero_behind(segment, end.position)?;
    let tail = TailState {
        position: end.position,
        next: end.next,
        previous_crc: end.previous_crc,
        time_ms: end.time_ms,
    };
    if !clean {
        let torn = look_behind(segment, &end)?;
        if torn.was_durable || end.next <= state.watermark {
            return Err(segment.corrupt(end.position, end.next, problem));
        }
        recovery.cut_bytes = torn.bytes;
        let to = torn.last.unwrap_or(end.next + BATCH_RECORDS_MAX as u64 - 1);
        let lost = (end.next, to.max(state.lost.1));
        meta.update(|meta| meta.lost = lost)
            .map_err(|cause| Error::io("write", manifest::META, cause))?;
        cut(segment, end.position)?;
    } else if end.next <= state.watermark {
        // Nothing is damaged, it is gone: what was delivered under these offsets means nothing any more.
        tracing::error!(
            ends = end.next - 1,
            watermark = state.watermark,
            "the log ends below its watermark: it gets a new id"
        );
        let id = disk.random_id().map_err(|cause| Error::io("make", "a log id", cause))?;
        let renew = |meta: &mut manifest::MetaState| {
            (meta.log, meta.watermark, meta.lost) = (LogId::from_random(id), end.next - 1, (0, 0));
        };
        meta.update(renew).map_err(|cause| Error::io("write", manifest::META, cause))?;
        recovery.log_id_changed = true;
    }
    let state = meta.state();
    if state.lost.1 >= tail.next {
        recovery.lost = Some((tail.next, state.lost.1));
    }
    Ok(tail)
}

/// Cuts off what stands behind the end, durably.
fn cut(segment: &Segment, position: u64) -> Result<(), Error> {
    let failed = |cause| segment.io("cut", cause);
    segment.file.set_len(position).map_err(failed)?;
    segment.file.sync_all().map_err(failed)
}

/// Allocates the active segment anew: it may have been cut, copied without its holes, or made with another
/// size. Gives what it has. On a full disk that is what it had.
fn allocate(segment: &Segment, options: &Options) -> Result<u64, Error> {
    let failed = |cause| segment.io("allocate", cause);
    let len = segment.file.size().map_err(failed)?;
    match segment.file.allocate(len.max(options.segment_bytes)) {
        Ok(()) => segment.file.sync_all().map_err(failed)?,
        Err(cause) if is_no_space(&cause) => {}
        Err(cause) => return Err(failed(cause)),
    }
    segment.file.size().map_err(failed)
}

/// Appends the record that names the lost offsets, behind them.
fn append_lost(
    segment: &Segment,
    options: &Options,
    tail: &mut TailState,
    to: u64,
) -> Result<(), Error> {
    let Ok(topic) = Topic::parse(LOST_TOPIC) else {
        return Err(segment.corrupt(tail.position, tail.next, "a fixed topic name is wrong"));
    };
    let body = (options.lost_body)(tail.next, to);
    let new = NewRecord {
        topic: &topic,
        key: b"",
        dedupe: None,
        flags: Flags::EMPTY.with_control(true),
        body: &body,
    };
    let offset = to + 1;
    let time_ms = tail.time_ms;
    let mut bytes = vec![0; batch::HEADER_BYTES];
    new.encode(&Place { segment: &segment.id, base: segment.base, offset }, time_ms, &mut bytes);
    let head = batch::Head {
        first: offset,
        count: 1,
        sparse: false,
        time_ms,
        durable: tail.next - 1,
        previous: tail.previous_crc,
    };
    let header_crc = batch::seal(&mut bytes, &segment.id, &head);
    segment.file.write_all_at(&bytes, tail.position).map_err(|cause| segment.io("write", cause))?;
    segment.file.sync_all().map_err(|cause| segment.io("sync", cause))?;
    let at = tail.position + batch::HEADER_BYTES as u64;
    if let Some(active) = &mut *segment.memory.write() {
        active.push(segment.rel(offset), at, time_ms, new.entry());
    }
    *tail = TailState {
        position: tail.position + bytes.len() as u64,
        next: offset + 1,
        previous_crc: header_crc,
        time_ms,
    };
    Ok(())
}

/// When the last record of a sealed segment was appended.
pub(crate) fn last_time(segment: &Segment) -> Result<u64, Error> {
    let Some(rel) = segment.last_rel()? else { return Ok(0) };
    let Some(position) = segment.slot(rel, Patience::Wait)?.position() else { return Ok(0) };
    match segment.read(position, segment.base + u64::from(rel)) {
        Ok(record) => Ok(record.time_ms),
        // Its readers are told of that; the clock will be above it.
        Err(Error::Corrupt { .. }) => Ok(0),
        Err(error) => Err(error),
    }
}

fn add_to_catalog(active: &Segment, catalog: &mut Catalog) -> Result<(), Error> {
    let memory = active.memory.read();
    let chains: HashMap<_, _> =
        memory.as_ref().map(|index| index.topics.clone()).unwrap_or_default();
    for (topic, chain) in chains {
        if let Some((first, last)) = offsets(active.base, chain.first, chain.last) {
            catalog.add(&topic, first, last, u64::from(chain.count));
        }
    }
    Ok(())
}
