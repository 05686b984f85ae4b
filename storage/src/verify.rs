//! Looking at a data directory from outside: without the lock, without writing.

use tidings_proto::Cursor;

use crate::{
    Error, Record,
    active::Active,
    disk::{Disk, Patience},
    index::IndexFile,
    manifest::{self, Meta},
    scan::{is_zero_behind, look_behind, scan},
    segment::{self, PAGE_BYTES, Segment},
};

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: String,
    /// Where in it.
    pub position: u64,
    /// The offset that stands or should stand there; 0 when that cannot be said.
    pub offset: u64,
    /// What it is.
    pub problem: String,
    /// Whether events are damaged; else it mends itself at the next start.
    pub damage: bool,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Segments.
    pub segments: usize,
    /// Events, all of whose checksums were computed.
    pub events: u64,
    /// Bytes of events.
    pub bytes: u64,
    /// Findings that are damage.
    pub damaged: usize,
}

/// Reads everything and checks every checksum.
///
/// # Errors
/// When the directory cannot be read at all; damage is reported, not returned.
pub fn verify(disk: &dyn Disk, report: &mut dyn FnMut(Finding)) -> Result<Verified, Error> {
    let mut verified = Verified::default();
    let watermark = Meta::open(disk)?.map_or(0, |meta| meta.state().watermark);
    let names = manifest::read(disk)?;
    let last = names.len().saturating_sub(1);
    for (n, name) in names.iter().enumerate() {
        let base = name.base;
        let mut tell = |path: String, position, offset, problem: &str, damage| {
            verified.damaged += usize::from(damage);
            report(Finding { path, position, offset, problem: problem.to_owned(), damage });
        };
        let path = segment::path(base, name.generation);
        let Ok(file) = disk.open(&path) else {
            tell(path, 0, base, "it is missing", true);
            continue;
        };
        if segment::read_page(&*file) != Some((name.id, base)) {
            tell(path, 0, base, "its first page does not hold", true);
            continue;
        }
        let found = Segment::new(file, name);
        let mut active = Active::default();
        let end = scan(&found, &mut active)?;
        let is_short = match name.generation {
            0 if n < last => end.next < name.end,
            0 => end.next < watermark + 1,
            // Its last offsets may be holes.
            _ => active.records != name.records,
        };
        if is_short {
            tell(
                path.clone(),
                end.position,
                end.next,
                end.problem.unwrap_or("it ends too early"),
                true,
            );
        } else if n == last && !is_zero_behind(&found, end.position)? {
            // As a start would judge it.
            let (problem, damage) = match look_behind(&found, &end)?.was_durable {
                true => (end.problem.unwrap_or("it ends too early"), true),
                false => ("a torn tail; the next start cuts it", false),
            };
            tell(path.clone(), end.position, end.next, problem, damage);
        }
        let index = segment::index_path(base, name.generation);
        let is_whole = IndexFile::open(disk, &index, &name.id, base).is_some();
        if n < last && !is_whole {
            tell(index, 0, base, "it is missing or damaged; the next start makes it again", false);
        }
        verified.segments += 1;
        verified.events += u64::from(active.records);
        verified.bytes += end.position - PAGE_BYTES as u64;
    }
    Ok(verified)
}

/// Calls `visit` with every record after `after`, until it says stop.
///
/// # Errors
/// [`Error::Corrupt`] at the first damaged record below the watermark; the system's.
pub fn dump(
    disk: &dyn Disk,
    after: Cursor,
    visit: &mut dyn FnMut(Record) -> bool,
) -> Result<(), Error> {
    let names = manifest::read(disk)?;
    for name in &names {
        let base = name.base;
        if name.end > 0 && name.end <= after.get() + 1 {
            continue;
        }
        let path = segment::path(base, name.generation);
        let file = disk.open(&path).map_err(|cause| Error::io("open", &path, cause))?;
        let found = Segment::new(file, name);
        let mut active = Active::default();
        let end = scan(&found, &mut active)?;
        if end.next > base {
            let mut go_on = true;
            found.walk(PAGE_BYTES as u64, end.next - 1, Patience::Wait, &mut |record| {
                go_on = record.offset.get() <= after.get() || visit(record.record());
                go_on
            })?;
            if !go_on {
                return Ok(());
            }
        }
        let is_short = match name.generation {
            0 => end.next < name.end,
            _ => active.records != name.records,
        };
        if is_short {
            return Err(found.corrupt(
                end.position,
                end.next,
                end.problem.unwrap_or("it ends too early"),
            ));
        }
    }
    Ok(())
}
