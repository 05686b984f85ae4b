//! Work beside the commit path: the log hands it out, whoever owns the log runs it on a helper thread.
//!
//! A chore that fails changes nothing: the log offers it again.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{
    Error,
    disk::{Disk, File},
    index::{self, IndexFile},
    manifest::{META, Meta},
    segment::{Segment, index_path},
};

/// A piece of work. May be run on any thread.
#[derive(Debug)]
#[must_use = "a chore does nothing until it is run"]
pub struct Chore(pub(crate) Task);

#[derive(Debug)]
pub(crate) enum Task {
    /// Make the next segment's file.
    Prepare { disk: Arc<dyn Disk>, spare: Arc<Spare>, bytes: u64 },
    /// Write the index file of a sealed segment.
    Index { disk: Arc<dyn Disk>, segment: Arc<Segment>, data_end: u64, busy: Arc<AtomicBool> },
    /// Note the watermark.
    Watermark { meta: Arc<Meta>, watermark: u64 },
}

/// The next segment's file, when it is ready.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    /// Locked as long as anything is done to `log/next.log`.
    file: Mutex<Option<(Arc<dyn File>, u64)>>,
    /// Its size; 0 while it is not there.
    ready_bytes: AtomicU64,
    busy: AtomicBool,
    /// Whether it is written full of zeros first.
    fill: bool,
    /// Somebody waits for it: what is not filled yet stays so.
    wanted: AtomicBool,
}

impl Chore {
    /// Does it.
    ///
    /// # Errors
    /// The disk's; the log offers the chore again.
    pub fn run(self) -> Result<(), Error> {
        match self.0 {
            Task::Prepare { disk, spare, bytes } => {
                let made = spare.prepare(&*disk, bytes);
                spare.busy.store(false, Ordering::SeqCst);
                made
            }
            Task::Index { disk, segment, data_end, busy } => {
                let written = write_index(&*disk, &segment, data_end);
                busy.store(false, Ordering::SeqCst);
                written
            }
            Task::Watermark { meta, watermark } => meta
                .update(|state| state.watermark = state.watermark.max(watermark))
                .map_err(|cause| Error::io("write", META, cause)),
        }
    }
}

impl Spare {
    pub(crate) fn new(fill: bool) -> Arc<Spare> {
        Arc::new(Spare { fill, ..Spare::default() })
    }

    /// Whether a chore to make it should be handed out; then it counts as under way.
    pub(crate) fn claim(&self) -> bool {
        self.ready_bytes.load(Ordering::SeqCst) == 0 && !self.busy.swap(true, Ordering::SeqCst)
    }

    /// Whether it is there with at least this size.
    pub(crate) fn is_ready(&self, bytes: u64) -> bool {
        self.ready_bytes.load(Ordering::SeqCst) >= bytes
    }

    /// Makes it here and now, where it is not there.
    pub(crate) fn make(&self, disk: &dyn Disk, bytes: u64) -> Result<(), Error> {
        self.ensure(&mut self.lock_soon(), disk, bytes, false)
    }

    /// Makes it beside the commit path, where there is time to fill it.
    fn prepare(&self, disk: &dyn Disk, bytes: u64) -> Result<(), Error> {
        self.ensure(&mut self.file.lock(), disk, bytes, self.fill)
    }

    /// The lock, without waiting for all of a file to be filled.
    fn lock_soon(&self) -> parking_lot::MutexGuard<'_, Option<(Arc<dyn File>, u64)>> {
        self.wanted.store(true, Ordering::SeqCst);
        let slot = self.file.lock();
        self.wanted.store(false, Ordering::SeqCst);
        slot
    }

    /// Makes it where it is not there, and gives it away: `install` gives it its name. Nobody makes the
    /// next one before that is done.
    pub(crate) fn take(
        &self,
        disk: &dyn Disk,
        bytes: u64,
        install: impl FnOnce(&dyn File) -> io::Result<()>,
    ) -> Result<(Arc<dyn File>, u64), Error> {
        let mut slot = self.lock_soon();
        self.ensure(&mut slot, disk, bytes, false)?;
        self.ready_bytes.store(0, Ordering::SeqCst);
        let taken = slot.take().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        install(&*taken.0).map_err(failed)?;
        Ok(taken)
    }

    fn ensure(
        &self,
        slot: &mut Option<(Arc<dyn File>, u64)>,
        disk: &dyn Disk,
        bytes: u64,
        fill: bool,
    ) -> Result<(), Error> {
        if slot.as_ref().is_some_and(|(_, len)| *len >= bytes) {
            return Ok(());
        }
        // A smaller one goes: a new file under the name, never the same file cut short.
        self.ready_bytes.store(0, Ordering::SeqCst);
        if slot.take().is_some() {
            disk.remove(NEXT).map_err(failed)?;
        }
        let file = disk.create(NEXT).map_err(failed)?;
        let filled = || if fill { write_zeros(&*file, bytes, &self.wanted) } else { Ok(()) };
        if let Err(cause) =
            file.allocate(bytes).and_then(|()| filled()).and_then(|()| file.sync_all())
        {
            // What was allocated of it is given back: others may need it more.
            let _ = disk.remove(NEXT);
            return Err(failed(cause));
        }
        *slot = Some((file, bytes));
        self.ready_bytes.store(bytes, Ordering::SeqCst);
        Ok(())
    }
}

/// The next segment's file before it has its name.
pub(crate) const NEXT: &str = "log/next.log";

/// Writes zeros: blocks that were written once need no entry in the file system's journal when they are written
/// again, and a sync is faster for it.
fn write_zeros(file: &dyn File, bytes: u64, enough: &AtomicBool) -> io::Result<()> {
    const PIECE_BYTES: usize = 1 << 20;
    let zeros = vec![0; PIECE_BYTES];
    for position in (0..bytes).step_by(PIECE_BYTES) {
        if enough.load(Ordering::SeqCst) {
            break;
        }
        let len = usize::try_from(bytes - position).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        file.write_all_at(zeros.get(..len).unwrap_or_default(), position)?;
    }
    Ok(())
}

fn failed(cause: io::Error) -> Error {
    Error::io("make", NEXT, cause)
}

fn write_index(disk: &dyn Disk, segment: &Segment, data_end: u64) -> Result<(), Error> {
    let path = index_path(segment.base, segment.generation);
    let failed = |cause| Error::io("write", &path, cause);
    let bytes = match &*segment.memory.read() {
        Some(active) => index::encode(active, &segment.id, segment.base, data_end),
        None => return Ok(()),
    };
    segment.file.set_len(data_end).map_err(failed)?;
    segment.file.sync_all().map_err(failed)?;
    index::write(disk, &path, &bytes).map_err(failed)?;
    let problem = "an index file just written does not hold";
    let opened = IndexFile::open(disk, &path, &segment.id, segment.base);
    let (index, _) = opened.ok_or_else(|| segment.corrupt(0, segment.base, problem))?;
    if segment.index.set(index).is_ok() {
        *segment.memory.write() = None;
    }
    Ok(())
}
