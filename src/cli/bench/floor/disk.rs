//! The disk alone, and files as the log has them.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::JoinHandle,
};

use anyhow::Context;
use tidings_storage::{Disk, File, OsDisk};

use super::{Args, RECORD_OVERHEAD_BYTES};
use crate::{
    cli::bench::{
        progress::Counter,
        report::{Report, latencies, note},
    },
    clock,
};

/// How large a file is: a segment of the log.
pub(super) const FILE_BYTES: u64 = 128 << 20;

/// A directory of its own, which goes with this value.
pub(super) struct Scratch {
    dir: PathBuf,
    disk: Arc<OsDisk>,
}

impl Scratch {
    pub(super) fn new(args: &Args) -> anyhow::Result<Scratch> {
        let dir = args.dir.join(format!("tidings-floor-{}", std::process::id()));
        let disk = OsDisk::open(&dir).with_context(|| format!("cannot write to {}", dir.display()));
        Ok(Scratch { disk: Arc::new(disk?), dir })
    }

    pub(super) fn disk(&self) -> &OsDisk {
        &self.disk
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            crate::cli::to_stderr(&format!("cannot remove {}: {error}", self.dir.display()));
        }
    }
}

/// Files that are written one behind the other. While one is written the next is made by a thread of its own, as
/// the log does it: allocated, and no block of it written yet, for a block that was written before is written
/// faster. At most three are there at a time.
pub(super) struct Files {
    /// `None` once no more are wanted.
    made: Option<Receiver<std::io::Result<Arc<dyn File>>>>,
    maker: Option<JoinHandle<()>>,
    file: Arc<dyn File>,
    position: u64,
    /// How long each becomes.
    file_bytes: u64,
}

impl Files {
    /// Makes the first one, and has the second one made.
    pub(super) fn new(scratch: &Scratch, file_bytes: u64) -> anyhow::Result<Files> {
        let disk = scratch.disk.clone();
        // A file is handed over when it is asked for: no more than one is made beforehand.
        let (make, made) = sync_channel(0);
        let maker = std::thread::Builder::new().spawn(move || {
            for number in 0_u64.. {
                let file = new_file(&disk, &name(number), file_bytes);
                let is_made = file.is_ok();
                // The one before the last is written no more: the last has been asked for since.
                if let Some(old) = number.checked_sub(2) {
                    let _ = disk.remove(&name(old));
                }
                if make.send(file).is_err() || !is_made {
                    return;
                }
            }
        })?;
        let file = made.recv().context("no file is made")??;
        Ok(Files { made: Some(made), maker: Some(maker), file, position: 0, file_bytes })
    }

    /// Writes at the end, in a new file where this one is full, and syncs.
    pub(super) fn append(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if self.position + bytes.len() as u64 > self.file_bytes {
            let next = self.made.as_ref().and_then(|made| made.recv().ok());
            self.file = next.context("no file is made")??;
            self.position = 0;
        }
        self.file.write_all_at(bytes, self.position)?;
        self.file.sync_data()?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.made = None;
        // It would make a file in a directory that is removed next.
        if let Some(maker) = self.maker.take() {
            let _ = maker.join();
        }
    }
}

fn name(number: u64) -> String {
    format!("floor-{number}")
}

fn new_file(disk: &OsDisk, name: &str, file_bytes: u64) -> std::io::Result<Arc<dyn File>> {
    let file = disk.create(name)?;
    file.allocate(file_bytes)?;
    file.sync_all()?;
    Ok(file)
}

/// One write and one fdatasync for each batch.
pub(super) fn measure(
    args: &Args,
    batch: usize,
    report: &mut Report,
    counter: &Counter,
) -> anyhow::Result<()> {
    let scratch = Scratch::new(args)?;
    let mut files = Files::new(&scratch, FILE_BYTES)?;
    let bytes = vec![7; batch.saturating_mul(args.size.saturating_add(RECORD_OVERHEAD_BYTES))];
    let mut took = latencies()?;
    let begun = clock::monotonic();
    let mut before = begun;
    while before.saturating_sub(begun) < args.limit() {
        files.append(&bytes)?;
        let now = clock::monotonic();
        note(&mut took, now.saturating_sub(before));
        before = now;
        counter.add(batch as u64);
    }
    report.begin("floor disk");
    report.set("batch", batch);
    report.set("size", args.size);
    report.rate("events", took.len() * batch as u64, before.saturating_sub(begun));
    report.latencies(&took);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_follow_one_another_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(OsDisk::open(&dir.path().join("scratch")).unwrap());
        let scratch = Scratch { dir: dir.path().join("scratch"), disk };
        // Each has room for two.
        let mut files = Files::new(&scratch, 2 << 20).unwrap();
        for n in 0..8 {
            let bytes = vec![n; 1 << 20];
            files.append(&bytes).unwrap();
            let begin = u64::from(n % 2) << 20;
            assert_eq!(files.position, begin + (1 << 20));
            let mut read = vec![0; 1 << 20];
            assert_eq!(files.file.read_at(&mut read, begin).unwrap(), bytes.len());
            assert_eq!(read, bytes);
        }
        let there = std::fs::read_dir(&scratch.dir).unwrap();
        let names = there.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let floors = names.filter(|name| name.starts_with("floor-")).count();
        assert!(floors <= 3, "{floors} files");
        drop((files, scratch));
        assert!(!dir.path().join("scratch").exists());
    }
}
