//! What must be known of the log besides its segments: `meta` and `manifest`.
//!
//! ```text
//! meta, 8192 bytes, two slots in blocks of their own, the one with the higher number counts:
//!   magic "TIDMETA\1" · number u64 · log id 16 · watermark u64 · lost from u64 · lost to u64 · checksum u32
//! manifest: magic "TIDMANI\2" · count u32 · (base u64, end u64, generation u32, records u32, segment id 16) × count
//!           · checksum u32
//! ```
//! - `meta` is written in place, so it needs no space: the watermark lazily, lost offsets before they are cut.
//! - `manifest` is replaced whole before a new segment is used, and before a file it named goes.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tidings_proto::LogId;

use crate::{
    Error,
    disk::{Disk, File, read_exact},
    record::{crc, u32_at, u64_at},
};

const META_MAGIC: &[u8; 8] = b"TIDMETA\x01";
const MANIFEST_MAGIC: &[u8; 8] = b"TIDMANI\x02";
/// What was written before segments could be rewritten or dropped: base and id alone.
const MANIFEST_MAGIC_1: &[u8; 8] = b"TIDMANI\x01";
const ENTRY_BYTES: usize = 40;
const ENTRY_BYTES_1: usize = 24;
const META_BYTES: usize = 2 * SLOT_BYTES;
/// A block of the disk: what a torn write spoils of one slot leaves the other.
const SLOT_BYTES: usize = 4096;
const SLOT_USED: usize = 56;
/// The file with the two slots.
pub(crate) const META: &str = "meta";
/// The file that names the segments.
pub(crate) const MANIFEST: &str = "manifest";

/// What a slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MetaState {
    number: u64,
    pub(crate) log: LogId,
    pub(crate) watermark: u64,
    /// Offsets that a torn tail could have held, being cut; 0, 0 when there are none.
    pub(crate) lost: (u64, u64),
}

/// The file `meta`.
#[derive(Debug)]
pub(crate) struct Meta {
    file: Arc<dyn File>,
    state: Mutex<MetaState>,
    /// The watermark that is noted, to be asked for while another is being written.
    noted: AtomicU64,
}

impl Meta {
    /// Makes it, durable with its name.
    pub(crate) fn create(disk: &dyn Disk, log: LogId) -> Result<Meta, Error> {
        let failed = |cause| Error::io("make", META, cause);
        let file = disk.create("meta.new").map_err(failed)?;
        file.write_all_at(&[0; META_BYTES], 0).map_err(failed)?;
        let state = MetaState { number: 0, log, watermark: 0, lost: (0, 0) };
        let meta = Meta { file, state: Mutex::new(state), noted: AtomicU64::new(0) };
        meta.update(|_| {}).map_err(failed)?;
        meta.file.sync_all().map_err(failed)?;
        disk.rename("meta.new", META).map_err(failed)?;
        disk.sync_dir("").map_err(failed)?;
        Ok(meta)
    }

    /// Reads it; `None` when it is not there.
    pub(crate) fn open(disk: &dyn Disk) -> Result<Option<Meta>, Error> {
        let file = match disk.open(META) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(Error::io("open", META, cause)),
        };
        // What is believed must be durable, not only in memory.
        file.sync_all().map_err(|cause| Error::io("sync", META, cause))?;
        let mut bytes = vec![0; META_BYTES];
        read_exact(&*file, &mut bytes, 0).map_err(|cause| Error::io("read", META, cause))?;
        let slots = bytes.chunks_exact(SLOT_BYTES).filter_map(read_slot);
        let newest = slots.max_by_key(|state| state.number);
        let problem = "neither of its slots holds";
        let corrupt = Error::Corrupt { path: META.to_owned(), position: 0, offset: 0, problem };
        let state = newest.ok_or(corrupt)?;
        let noted = AtomicU64::new(state.watermark);
        Ok(Some(Meta { file, state: Mutex::new(state), noted }))
    }

    pub(crate) fn state(&self) -> MetaState {
        *self.state.lock()
    }

    /// The watermark that is noted.
    pub(crate) fn noted(&self) -> u64 {
        self.noted.load(Ordering::SeqCst)
    }

    /// Writes the older slot and syncs it.
    pub(crate) fn update(&self, change: impl FnOnce(&mut MetaState)) -> io::Result<()> {
        let mut state = self.state.lock();
        let mut next = *state;
        change(&mut next);
        next.number += 1;
        let mut slot = Vec::with_capacity(SLOT_USED + 4);
        slot.extend_from_slice(META_MAGIC);
        slot.extend_from_slice(&next.number.to_le_bytes());
        slot.extend_from_slice(&next.log.to_bytes());
        for n in [next.watermark, next.lost.0, next.lost.1] {
            slot.extend_from_slice(&n.to_le_bytes());
        }
        let crc = crc(&[&slot]);
        slot.extend_from_slice(&crc.to_le_bytes());
        let at = if next.number.is_multiple_of(2) { 0 } else { SLOT_BYTES as u64 };
        self.file.write_all_at(&slot, at)?;
        self.file.sync_data()?;
        self.noted.store(next.watermark, Ordering::SeqCst);
        *state = next;
        Ok(())
    }
}

fn read_slot(bytes: &[u8]) -> Option<MetaState> {
    let used = bytes.get(..SLOT_USED)?;
    let holds = used.starts_with(META_MAGIC) && u32_at(bytes, SLOT_USED)? == crc(&[used]);
    holds.then_some(MetaState {
        number: u64_at(bytes, 8)?,
        log: LogId::from_bytes(*bytes.get(16..32)?.first_chunk()?),
        watermark: u64_at(bytes, 32)?,
        lost: (u64_at(bytes, 40)?, u64_at(bytes, 48)?),
    })
}

/// A segment that belongs to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) base: u64,
    /// The first offset behind it; 0 of the active one.
    pub(crate) end: u64,
    /// How often it was rewritten: part of its files' names.
    pub(crate) generation: u32,
    /// How many records a rewritten one has; not said of others.
    pub(crate) records: u32,
    pub(crate) id: [u8; 16],
}

impl Name {
    /// A new segment, which is active.
    pub(crate) fn active(base: u64, id: [u8; 16]) -> Name {
        Name { base, end: 0, generation: 0, records: 0, id }
    }
}

/// The segments that belong to the log, by base.
pub(crate) type Segments = Vec<Name>;

/// Replaces the manifest; durable when this returns.
pub(crate) fn write(disk: &dyn Disk, segments: &Segments) -> io::Result<()> {
    prepare(disk, segments)?;
    replace(disk)
}

/// Writes the next manifest beside the one that holds.
pub(crate) fn prepare(disk: &dyn Disk, segments: &Segments) -> io::Result<()> {
    let mut bytes = MANIFEST_MAGIC.to_vec();
    bytes.extend_from_slice(&u32::try_from(segments.len()).unwrap_or(u32::MAX).to_le_bytes());
    for name in segments {
        bytes.extend_from_slice(&name.base.to_le_bytes());
        bytes.extend_from_slice(&name.end.to_le_bytes());
        bytes.extend_from_slice(&name.generation.to_le_bytes());
        bytes.extend_from_slice(&name.records.to_le_bytes());
        bytes.extend_from_slice(&name.id);
    }
    let crc = crc(&[&bytes]);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let file = disk.create("manifest.new")?;
    file.write_all_at(&bytes, 0)?;
    file.sync_all()
}

/// Puts the prepared manifest in the place of the old one. When this fails either of them may hold.
pub(crate) fn replace(disk: &dyn Disk) -> io::Result<()> {
    disk.rename("manifest.new", MANIFEST)?;
    disk.sync_dir("")
}

/// Reads the manifest; none is an empty one.
pub(crate) fn read(disk: &dyn Disk) -> Result<Segments, Error> {
    let file = match disk.open(MANIFEST) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::io("open", MANIFEST, cause)),
    };
    let failed = |cause| Error::io("read", MANIFEST, cause);
    file.sync_all().map_err(failed)?;
    let mut bytes = vec![0; usize::try_from(file.size().map_err(failed)?).unwrap_or(0)];
    read_exact(&*file, &mut bytes, 0).map_err(failed)?;
    parse(&bytes).ok_or_else(|| Error::Corrupt {
        path: MANIFEST.to_owned(),
        position: 0,
        offset: 0,
        problem: "its checksum does not hold",
    })
}

fn parse(bytes: &[u8]) -> Option<Segments> {
    let used = bytes.get(..bytes.len().checked_sub(4)?)?;
    if u32_at(bytes, used.len())? != crc(&[used]) {
        return None;
    }
    if used.starts_with(MANIFEST_MAGIC_1) {
        return parse_1(used);
    }
    if !used.starts_with(MANIFEST_MAGIC) {
        return None;
    }
    let entries = used.get(12..)?.chunks_exact(ENTRY_BYTES);
    let name = |entry: &[u8]| {
        Some(Name {
            base: u64_at(entry, 0)?,
            end: u64_at(entry, 8)?,
            generation: u32_at(entry, 16)?,
            records: u32_at(entry, 20)?,
            id: *entry.get(24..)?.first_chunk()?,
        })
    };
    entries.map(name).collect()
}

/// The form without ends: each segment ends where the next begins.
fn parse_1(used: &[u8]) -> Option<Segments> {
    let entries = used.get(12..)?.chunks_exact(ENTRY_BYTES_1);
    let name =
        |entry: &[u8]| Some(Name::active(u64_at(entry, 0)?, *entry.get(8..)?.first_chunk()?));
    let mut names: Segments = entries.map(name).collect::<Option<_>>()?;
    let bases: Vec<u64> = names.iter().skip(1).map(|next| next.base).collect();
    for (name, next) in names.iter_mut().zip(bases) {
        name.end = next;
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_the_first_form_is_read() {
        let mut bytes = MANIFEST_MAGIC_1.to_vec();
        bytes.extend_from_slice(&2_u32.to_le_bytes());
        for (base, id) in [(1_u64, [7; 16]), (58, [8; 16])] {
            bytes.extend_from_slice(&base.to_le_bytes());
            bytes.extend_from_slice(&id);
        }
        let crc = crc(&[&bytes]);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let first = Name { end: 58, ..Name::active(1, [7; 16]) };
        assert_eq!(parse(&bytes), Some(vec![first, Name::active(58, [8; 16])]));
    }
}
