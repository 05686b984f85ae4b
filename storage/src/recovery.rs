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
    batch::{self, BATCH_RECORDS_MAX, Header},
    catalog::Catalog,
    chore::NEXT,
    disk::{Disk, File, Patience, read_exact},
    error::is_no_space,
    index::{self, IndexFile, TopicEntry},
    manifest::{self, Meta, Segments},
    record::{self, Place, crc, padded},
    segment::{self, PAGE_BYTES, Segment},
};

/// The widest hole there can be: what one torn batch could have held, and room for starts that were cut off
/// themselves, each of which adds its own record.
const JUMP_MAX: u64 = 4 * BATCH_RECORDS_MAX as u64;

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
    remove_unused(disk, &names)?;
    let names = if names.is_empty() { first_segment(disk, options)? } else { names };
    let mut catalog = Catalog::default();
    let mut recovery = Recovery::default();
    let mut segments = Vec::with_capacity(names.len());
    let mut unindexed = Vec::new();
    let last = names.len().saturating_sub(1);
    for (n, (base, id)) in names.iter().enumerate() {
        let found = Arc::new(open_segment(disk, *base, id)?);
        if n < last {
            let next = names.get(n + 1).map_or(0, |(base, _)| *base);
            match open_sealed(disk, &found, next, &mut catalog)? {
                Sealed::Indexed => {}
                Sealed::Rebuilt => recovery.rebuilt_indexes += 1,
                Sealed::InMemory(data_end) => unindexed.push((found.clone(), data_end)),
            }
        }
        segments.push(found);
    }
    let Some(active) = segments.last().cloned() else {
        return Err(Error::Missing { path: segment::path(1) });
    };
    let mut tail = open_active(disk, &active, &meta, &mut recovery)?;
    let before = segments.iter().rev().nth(1).map_or(Ok(0), |sealed| last_time(sealed))?;
    tail.time_ms = tail.time_ms.max(before);
    if let Some((_, to)) = recovery.lost {
        append_lost(&active, options, &mut tail, to)?;
    }
    add_to_catalog(&active, &mut catalog)?;
    let allocated = allocate(&active, options)?;
    Ok(Recovered { meta, segments, names, catalog, tail, unindexed, allocated, recovery })
}

/// The first start in this directory.
fn begin(disk: &dyn Disk) -> Result<Meta, Error> {
    let names = disk.list("log").map_err(|cause| Error::io("list", "log", cause))?;
    let has_segments = names.iter().any(|name| segment::base_of(name).is_some());
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

/// Files that were being made when the process ended.
fn remove_unused(disk: &dyn Disk, names: &Segments) -> Result<(), Error> {
    let failed = |cause| Error::io("tidy", "log", cause);
    for name in disk.list("log").map_err(failed)? {
        let base = segment::base_of(&name);
        let unnamed = base.is_some_and(|base| !names.iter().any(|(named, _)| *named == base));
        if let (true, Some(base)) = (unnamed, base) {
            check_unused(disk, base)?;
        }
        if unnamed || name.ends_with(".new") || name == "next.log" {
            disk.remove(&format!("log/{name}")).map_err(failed)?;
        }
    }
    Ok(())
}

/// A segment that the manifest does not name was about to be used: it must hold nothing.
fn check_unused(disk: &dyn Disk, base: u64) -> Result<(), Error> {
    let path = segment::path(base);
    let file = disk.open(&path).map_err(|cause| Error::io("open", &path, cause))?;
    let unnamed = Segment::new(file, [0; 16], base);
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
    let names = vec![(1, id)];
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
    disk.rename(NEXT, &segment::path(base))?;
    disk.sync_dir("log")
}

fn open_segment(disk: &dyn Disk, base: u64, id: &[u8; 16]) -> Result<Segment, Error> {
    let path = segment::path(base);
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Missing { path });
        }
        Err(cause) => return Err(Error::io("open", &path, cause)),
    };
    match segment::read_page(&*file) {
        Some((own, own_base)) if own == *id && own_base == base => {
            Ok(Segment::new(file, *id, base))
        }
        other => {
            let problem = match other {
                Some(_) => "it is another log's segment",
                None => "its first page does not hold",
            };
            Err(Error::Corrupt { path, position: 0, offset: base, problem })
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
    next_base: u64,
    catalog: &mut Catalog,
) -> Result<Sealed, Error> {
    let path = segment::index_path(sealed.base);
    let check = |span: u64, data_end: u64| match sealed.base + span == next_base {
        true => Ok(()),
        false => {
            let problem = "it does not end where the next segment begins";
            Err(sealed.corrupt(data_end, next_base, problem))
        }
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
                    check(active.slots.len() as u64, end.position)?;
                    *sealed.memory.write() = Some(active);
                    add_to_catalog(sealed, catalog)?;
                    return Ok(Sealed::InMemory(end.position));
                }
                Err(error) => return Err(error),
            }
        }
    };
    check(u64::from(index.counts().span), index.data_end)?;
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

/// Where a scan ended.
pub(crate) struct End {
    pub(crate) position: u64,
    pub(crate) next: u64,
    pub(crate) previous_crc: u32,
    /// When the last batch was appended; 0 when there is none.
    pub(crate) time_ms: u64,
    /// Why it did not go on.
    pub(crate) problem: Option<&'static str>,
}

/// Reads a segment batch by batch into an index, until the file ends or a batch does not hold.
pub(crate) fn scan(segment: &Segment, active: &mut Active) -> Result<End, Error> {
    let len = segment.file.size().map_err(|cause| segment.io("measure", cause))?;
    let mut end = End {
        position: PAGE_BYTES as u64,
        next: segment.base,
        previous_crc: 0,
        time_ms: 0,
        problem: None,
    };
    let mut bytes = Vec::new();
    while end.position < len {
        let mut head = [0; batch::HEADER_BYTES];
        let readable = read_exact(&*segment.file, &mut head, end.position);
        let header = readable.ok().and_then(|()| Header::decode(&head, &segment.id));
        if header.is_none() && Header::is_of_other_version(&head, &segment.id) {
            let problem = "another version of tidings wrote it";
            return Err(segment.corrupt(end.position, end.next, problem));
        }
        let problem = match &header {
            None => Some("no batch begins here"),
            Some(header) => problem_of(header, &end, len),
        };
        let (Some(header), None) = (header, problem) else {
            end.problem = problem.or(Some("no batch begins here"));
            return Ok(end);
        };
        let body_len = usize::try_from(header.len).unwrap_or(0).saturating_sub(batch::HEADER_BYTES);
        bytes.resize(body_len, 0);
        let at = end.position + batch::HEADER_BYTES as u64;
        read_exact(&*segment.file, &mut bytes, at).map_err(|cause| segment.io("read", cause))?;
        if crc(&[&segment.id, &bytes]) != header.body_crc {
            end.problem = Some("a batch's checksum does not hold");
            return Ok(end);
        }
        // Its checksum holds, so it is whole: what is wrong with it was written so.
        add_batch(segment, active, &header, &bytes, at)
            .map_err(|problem| segment.corrupt(end.position, end.next, problem))?;
        end.position += u64::from(header.len);
        end.next = header.last() + 1;
        end.previous_crc = header.header_crc;
        end.time_ms = header.time_ms;
    }
    Ok(end)
}

fn problem_of(header: &Header, end: &End, len: u64) -> Option<&'static str> {
    let jump = header.first.checked_sub(end.next);
    if header.previous != end.previous_crc {
        Some("a batch does not follow the one before it")
    } else if jump.is_none_or(|jump| jump > JUMP_MAX) {
        Some("a batch has offsets that cannot stand here")
    } else if (header.len as usize) < batch::HEADER_BYTES
        || u64::from(header.len) > len - end.position
    {
        Some("a batch is longer than its file")
    } else {
        None
    }
}

fn add_batch(
    segment: &Segment,
    active: &mut Active,
    header: &Header,
    body: &[u8],
    at: u64,
) -> Result<(), &'static str> {
    let mut from = 0;
    for n in 0..header.count {
        let bytes = body.get(from..).unwrap_or_default();
        let offset = header.first + u64::from(n);
        let found = record::decode(bytes, &segment.id, segment.base, Some(offset))?;
        let rel = segment.rel(offset);
        active.push(rel, at + from as u64, found.time_ms, found.entry());
        from += padded(record::len_of(bytes).unwrap_or(0));
    }
    if from == body.len() { Ok(()) } else { Err("a batch has bytes behind its records") }
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

/// Whether only zeros stand behind `position`.
pub(crate) fn is_zero_behind(segment: &Segment, position: u64) -> Result<bool, Error> {
    let mut zero = true;
    visit_behind(segment, position, &mut |_, bytes| {
        zero = bytes.iter().all(|byte| *byte == 0);
        zero
    })?;
    Ok(zero)
}

/// What stands behind the end of the log.
pub(crate) struct Torn {
    /// A batch behind says that something from the end on was durable.
    pub(crate) was_durable: bool,
    /// The last offset that any batch found there could have held, when the first of them tells.
    last: Option<u64>,
    bytes: u64,
}

pub(crate) fn look_behind(segment: &Segment, end: &End) -> Result<Torn, Error> {
    let mut torn = Torn { was_durable: false, last: None, bytes: 0 };
    let mut known_from_start = false;
    visit_behind(segment, end.position, &mut |at, bytes| {
        for (n, window) in bytes.windows(batch::HEADER_BYTES).enumerate().step_by(8) {
            let Some(header) = Header::decode(window, &segment.id) else { continue };
            if header.first < end.next {
                continue;
            }
            torn.was_durable |= header.durable >= end.next;
            known_from_start |= at + n as u64 == end.position;
            torn.last = torn.last.max(Some(header.last()));
        }
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            torn.bytes = at + last as u64 + 1 - end.position;
        }
        true
    })?;
    // Without the first header nothing says how much it held.
    if !known_from_start {
        torn.last = torn.last.max(Some(end.next + BATCH_RECORDS_MAX as u64 - 1));
    }
    Ok(torn)
}

/// Calls `visit` with what stands behind `position`, in pieces that overlap by one header, until it says stop.
fn visit_behind(
    segment: &Segment,
    position: u64,
    visit: &mut dyn FnMut(u64, &[u8]) -> bool,
) -> Result<(), Error> {
    const PIECE_BYTES: u64 = 1 << 20;
    let len = segment.file.size().map_err(|cause| segment.io("measure", cause))?;
    let mut at = position;
    while at < len {
        let piece = (len - at).min(PIECE_BYTES + batch::HEADER_BYTES as u64);
        let mut bytes = vec![0; usize::try_from(piece).unwrap_or(0)];
        read_exact(&*segment.file, &mut bytes, at).map_err(|cause| segment.io("read", cause))?;
        if !visit(at, &bytes) || piece <= PIECE_BYTES {
            break;
        }
        at += PIECE_BYTES;
    }
    Ok(())
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
    let header_crc =
        batch::seal(&mut bytes, &segment.id, offset, 1, time_ms, tail.next - 1, tail.previous_crc);
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
fn last_time(segment: &Segment) -> Result<u64, Error> {
    let span = segment.with_index(
        |memory| Ok(u32::try_from(memory.slots.len()).unwrap_or(u32::MAX)),
        |file| Ok(file.counts().span),
    )?;
    for rel in (0..span).rev() {
        if let Some(position) = segment.slot(rel, Patience::Wait)?.position() {
            return match segment.read(position, segment.base + u64::from(rel)) {
                Ok(record) => Ok(record.time_ms),
                // Its readers are told of that; the clock will be above it.
                Err(Error::Corrupt { .. }) => Ok(0),
                Err(error) => Err(error),
            };
        }
    }
    Ok(0)
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
