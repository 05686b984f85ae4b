//! Segments: files of batches. The newest is active, the others are sealed.
//!
//! ```text
//! page 4096: magic "TIDLOG\0\1" · version u32 · segment id 16 · base u64 · checksum u32 · zeros
//! then batches, one behind the other; then zeros (only in the active segment)
//! ```
//! A segment's offsets begin at its base; no record spans two segments.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use parking_lot::RwLock;

use crate::{
    Error, Record,
    active::{Active, Slot},
    batch,
    disk::{File, Patience, read_exact},
    index::IndexFile,
    manifest::Name,
    record::{self, Found, crc, padded, u32_at, u64_at},
};

/// Where batches begin.
pub(crate) const PAGE_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"TIDLOG\0\x01";
const VERSION: u32 = 1;
/// How much is read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// A longer record is for those who may wait.
const NOW_BYTES_MAX: usize = 256 * 1024;

/// One segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: Arc<dyn File>,
    pub(crate) path: String,
    pub(crate) id: [u8; 16],
    pub(crate) base: u64,
    /// How often it was rewritten; its offsets need not be dense where it was.
    pub(crate) generation: u32,
    /// Its index in memory: of the active one, and of a sealed one until its file is written.
    pub(crate) memory: RwLock<Option<Active>>,
    pub(crate) index: OnceLock<IndexFile>,
}

/// The path of the segment that begins with `base` and was rewritten `generation` times.
pub(crate) fn path(base: u64, generation: u32) -> String {
    path_of(base, generation, "log")
}

/// The path of its index file.
pub(crate) fn index_path(base: u64, generation: u32) -> String {
    path_of(base, generation, "idx")
}

fn path_of(base: u64, generation: u32, kind: &str) -> String {
    match generation {
        0 => format!("log/{base:020}.{kind}"),
        _ => format!("log/{base:020}.{generation}.{kind}"),
    }
}

/// The base and generation in the name of a segment's file, or of its index file.
pub(crate) fn parse_name(name: &str, kind: &str) -> Option<(u64, u32)> {
    let stem = name.strip_suffix(kind)?.strip_suffix('.')?;
    let (base, generation) = match stem.split_once('.') {
        Some((base, generation)) => (base, generation.parse().ok()?),
        None => (stem, 0),
    };
    let is_base = base.len() == 20 && base.bytes().all(|byte| byte.is_ascii_digit());
    is_base.then(|| base.parse().ok())?.map(|base| (base, generation))
}

/// The first page of a segment.
pub(crate) fn page(id: &[u8; 16], base: u64) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE_BYTES);
    page.extend_from_slice(MAGIC);
    page.extend_from_slice(&VERSION.to_le_bytes());
    page.extend_from_slice(id);
    page.extend_from_slice(&base.to_le_bytes());
    let crc = crc(&[&page]);
    page.extend_from_slice(&crc.to_le_bytes());
    page.resize(PAGE_BYTES, 0);
    page
}

/// The id and base in a first page, if it is one.
pub(crate) fn read_page(file: &dyn File) -> Option<([u8; 16], u64)> {
    let mut page = vec![0; PAGE_BYTES];
    read_exact(file, &mut page, 0).ok()?;
    let holds = page.starts_with(MAGIC)
        && u32_at(&page, 8)? == VERSION
        && u32_at(&page, 36)? == crc(&[page.get(..36)?])
        && page.get(40..)?.iter().all(|byte| *byte == 0);
    holds.then_some((*page.get(12..28)?.first_chunk()?, u64_at(&page, 28)?))
}

impl Segment {
    pub(crate) fn new(file: Arc<dyn File>, name: &Name) -> Segment {
        Segment {
            file,
            path: path(name.base, name.generation),
            id: name.id,
            base: name.base,
            generation: name.generation,
            memory: RwLock::new(Some(Active::default())),
            index: OnceLock::new(),
        }
    }

    pub(crate) fn corrupt(&self, position: u64, offset: u64, problem: &'static str) -> Error {
        Error::Corrupt { path: self.path.clone(), position, offset, problem }
    }

    pub(crate) fn io(&self, operation: &'static str, cause: io::Error) -> Error {
        Error::io(operation, &self.path, cause)
    }

    /// A read of what must be there failed: a bad sector is damage, all else the system's trouble.
    fn read_failed(&self, position: u64, offset: u64, cause: io::Error) -> Error {
        match rustix::io::Errno::from_io_error(&cause) {
            Some(rustix::io::Errno::IO) => {
                self.corrupt(position, offset, "the disk cannot read it")
            }
            _ => self.io("read", cause),
        }
    }

    pub(crate) fn rel(&self, offset: u64) -> u32 {
        u32::try_from(offset.saturating_sub(self.base)).unwrap_or(u32::MAX)
    }

    /// Where the record of an offset stands.
    pub(crate) fn slot(&self, rel: u32, patience: Patience) -> Result<Slot, Error> {
        self.with_index(|memory| Ok(memory.slot(rel)), |file| file.slot(rel, patience))
    }

    /// The first record in `from..=to`, and where it stands.
    pub(crate) fn next_slot(
        &self,
        from: u32,
        to: u32,
        patience: Patience,
    ) -> Result<Option<(u32, u64)>, Error> {
        self.with_index(
            |memory| Ok(memory.next_slot(from, to)),
            |file| file.next_slot(from, to, patience),
        )
    }

    /// Its last record, where it is sealed.
    pub(crate) fn last_rel(&self) -> Result<Option<u32>, Error> {
        self.with_index(|memory| Ok(memory.last_rel()), |file| Ok(file.last_rel()))
    }

    /// Asks the index in memory, or the one on disk.
    pub(crate) fn with_index<T>(
        &self,
        memory: impl FnOnce(&Active) -> io::Result<T>,
        file: impl FnOnce(&IndexFile) -> io::Result<T>,
    ) -> Result<T, Error> {
        if let Some(index) = self.index.get() {
            return file(index).map_err(|cause| self.io("read the index of", cause));
        }
        let guard = self.memory.read();
        match (&*guard, self.index.get()) {
            (Some(active), _) => {
                memory(active).map_err(|cause| self.io("read the index of", cause))
            }
            (None, Some(index)) => file(index).map_err(|cause| self.io("read the index of", cause)),
            (None, None) => Err(self.corrupt(0, self.base, "its index is nowhere")),
        }
    }

    /// The record at `offset`, which stands at `position`.
    pub(crate) fn read(&self, position: u64, offset: u64) -> Result<Record, Error> {
        let mut head = [0; 512];
        let n = read_some(&*self.file, &mut head, position, Patience::Wait)
            .map_err(|cause| self.read_failed(position, offset, cause))?;
        let head = head.get(..n).unwrap_or_default();
        let Some(len) = record::len_of(head) else {
            return Err(self.corrupt(position, offset, "no record begins here"));
        };
        let decode = |bytes: &[u8]| {
            record::decode(bytes, &self.id, self.base, Some(offset))
                .map(|found| found.record())
                .map_err(|problem| self.corrupt(position, offset, problem))
        };
        if len <= head.len() {
            return decode(head);
        }
        // The claimed length is bounded by what the file has.
        let end = self.file.size().map_err(|cause| self.io("measure", cause))?;
        if position + len as u64 > end {
            return Err(self.corrupt(position, offset, "a record ends behind its file"));
        }
        let mut bytes = vec![0; len];
        read_exact(&*self.file, &mut bytes, position)
            .map_err(|cause| self.read_failed(position, offset, cause))?;
        decode(&bytes)
    }

    /// Calls `visit` with each record from `position` on, until it says stop or `until` was passed.
    pub(crate) fn walk(
        &self,
        position: u64,
        until: u64,
        patience: Patience,
        visit: &mut dyn FnMut(Found<'_>) -> bool,
    ) -> Result<(), Error> {
        let mut window = Window { bytes: Vec::new(), start: position, patience };
        let mut at = position;
        loop {
            let word = window.get(self, at, 4)?;
            if u32_at(word, 0) == Some(batch::MAGIC) {
                at += batch::HEADER_BYTES as u64;
                continue;
            }
            let len =
                record::len_of(word).ok_or_else(|| self.corrupt(at, 0, "no record begins here"))?;
            let bytes = window.get(self, at, len)?;
            let found = record::decode(bytes, &self.id, self.base, None)
                .map_err(|problem| self.corrupt(at, 0, problem))?;
            let offset = found.offset.get();
            if offset > until || !visit(found) || offset == until {
                return Ok(());
            }
            at += padded(len) as u64;
        }
    }
}

/// A part of a file in memory that follows the reader.
struct Window {
    bytes: Vec<u8>,
    start: u64,
    patience: Patience,
}

impl Window {
    fn get(&mut self, segment: &Segment, at: u64, len: usize) -> Result<&[u8], Error> {
        let inside = |window: &Window| {
            let from = usize::try_from(at.checked_sub(window.start)?).ok()?;
            let to = from.checked_add(len)?;
            (to <= window.bytes.len()).then_some(from..to)
        };
        let range = match inside(self) {
            Some(range) => range,
            None => {
                let end = segment.file.size().map_err(|cause| segment.io("measure", cause))?;
                let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
                if len > left {
                    return Err(segment.corrupt(at, 0, "a record ends behind its file"));
                }
                if self.patience == Patience::Now && len > NOW_BYTES_MAX {
                    return Err(segment.io("read", io::ErrorKind::WouldBlock.into()));
                }
                self.bytes.resize(len.max(CHUNK_BYTES).min(left), 0);
                // A segment that is being sealed loses the zeros behind its last batch meanwhile:
                // fewer bytes than were measured are no fault while the record is among them.
                let read = read_some(&*segment.file, &mut self.bytes, at, self.patience)
                    .map_err(|cause| segment.read_failed(at, 0, cause))?;
                self.bytes.truncate(read);
                self.start = at;
                if len > read {
                    return Err(match self.patience {
                        Patience::Wait => segment.corrupt(at, 0, "a record ends behind its file"),
                        Patience::Now => segment.io("read", io::ErrorKind::WouldBlock.into()),
                    });
                }
                0..len
            }
        };
        Ok(self.bytes.get(range).unwrap_or_default())
    }
}

fn read_some(
    file: &dyn File,
    buffer: &mut [u8],
    position: u64,
    patience: Patience,
) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match patience.read_at(file, rest, position + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            // What is in memory may be enough.
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock && filled > 0 => break,
            Err(cause) => return Err(cause),
        }
    }
    Ok(filled)
}
