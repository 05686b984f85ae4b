//! A segment written anew: the same records at the same offsets, but for those that go.

use std::sync::Arc;

use tidings_proto::Topic;

use super::{Fate, GoneOf, Seen, note, seen, visit};
use crate::{
    Error,
    active::Active,
    batch,
    disk::{Disk, File},
    error::is_no_space,
    index::{self, IndexFile},
    manifest::Name,
    record::{Found, NewRecord, Place},
    segment::{self, PAGE_BYTES, Segment},
};

/// How large a batch of a rewritten segment becomes; a single record may have more.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_RECORDS: u32 = 4096;

/// A segment as it is written anew.
pub(super) struct Rewrite<'a> {
    disk: &'a dyn Disk,
    file: Arc<dyn File>,
    name: Name,
    pub(super) active: Active,
    pub(super) gone: GoneOf,
    buffer: Vec<u8>,
    first: u64,
    last: u64,
    count: u32,
    time_ms: u64,
    position: u64,
    previous: u32,
}

impl<'a> Rewrite<'a> {
    pub(super) fn new(disk: &'a dyn Disk, name: Name) -> Result<Rewrite<'a>, Error> {
        let path = segment::path(name.base, name.generation);
        let file = disk.create(&path).map_err(|cause| Error::io("make", &path, cause))?;
        Ok(Rewrite {
            disk,
            file,
            name,
            active: Active::default(),
            gone: GoneOf::new(),
            buffer: Vec::new(),
            first: 0,
            last: 0,
            count: 0,
            time_ms: 0,
            position: PAGE_BYTES as u64,
            previous: 0,
        })
    }

    pub(super) fn run(
        &mut self,
        old: &Segment,
        fate: &mut dyn FnMut(&Seen<'_>) -> Fate,
    ) -> Result<(), Error> {
        let page = segment::page(&self.name.id, self.name.base);
        self.file.write_all_at(&page, 0).map_err(|cause| self.failed(cause))?;
        let mut failed = None;
        visit(old, &mut |found| {
            let fate = fate(&seen(&found));
            let taken = match fate {
                Fate::Keep => self.take(&found),
                _ => {
                    let at = found.offset.get();
                    note(&mut self.gone, &Topic::of_record(found.topic), (at, at), 1, fate);
                    Ok(())
                }
            };
            failed = taken.err();
            failed.is_none()
        })?;
        match failed {
            Some(error) => Err(error),
            None => self.write_batch(),
        }
    }

    fn take(&mut self, found: &Found<'_>) -> Result<(), Error> {
        if self.count > 0 && (self.buffer.len() >= BATCH_BYTES || self.count >= BATCH_RECORDS) {
            self.write_batch()?;
        }
        if self.count == 0 {
            self.buffer.resize(batch::HEADER_BYTES, 0);
            self.first = found.offset.get();
        }
        let offset = found.offset.get();
        let position = self.position + self.buffer.len() as u64;
        let topic = Topic::of_record(found.topic);
        let record = NewRecord {
            topic: &topic,
            key: found.key,
            dedupe: found.dedupe,
            flags: found.flags,
            body: found.body,
        };
        let place = Place { segment: &self.name.id, base: self.name.base, offset };
        record.encode(&place, found.time_ms, &mut self.buffer);
        let rel = u32::try_from(offset.saturating_sub(self.name.base)).unwrap_or(u32::MAX);
        self.active.push(rel, position, found.time_ms, found.entry());
        (self.last, self.time_ms) = (offset, found.time_ms);
        self.count += 1;
        Ok(())
    }

    fn write_batch(&mut self) -> Result<(), Error> {
        if self.count == 0 {
            return Ok(());
        }
        let head = batch::Head {
            first: self.first,
            count: self.count,
            sparse: true,
            time_ms: self.time_ms,
            durable: self.last,
            previous: self.previous,
        };
        self.previous = batch::seal(&mut self.buffer, &self.name.id, &head);
        let written = self.file.write_all_at(&self.buffer, self.position);
        written.map_err(|cause| self.failed(cause))?;
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
        self.count = 0;
        Ok(())
    }

    /// Makes it durable with its index.
    pub(super) fn finish(self) -> Result<Segment, Error> {
        self.file.sync_all().map_err(|cause| self.failed(cause))?;
        let Name { base, generation, id, .. } = self.name;
        let path = segment::index_path(base, generation);
        let bytes = index::encode(&self.active, &id, base, self.position);
        // The name of the segment becomes durable with that of its index.
        index::write(self.disk, &path, &bytes).map_err(|cause| Error::io("write", &path, cause))?;
        let new = Segment::new(self.file, &self.name);
        let problem = "an index file just written does not hold";
        let opened = IndexFile::open(self.disk, &path, &id, base);
        let (index, _) = opened.ok_or_else(|| new.corrupt(0, base, problem))?;
        // Nobody else has it yet.
        let _ = new.index.set(index);
        *new.memory.write() = None;
        Ok(new)
    }

    fn failed(&self, cause: std::io::Error) -> Error {
        let operation = if is_no_space(&cause) { "find space for" } else { "write" };
        Error::io(operation, &segment::path(self.name.base, self.name.generation), cause)
    }
}
