//! A disk in memory that loses what a real one may lose: for tests of crashes and faults.
//!
//! - What was written and not synced survives a crash in pieces of 512 bytes, any subset of them.
//! - Names, lengths and truncations that were not synced may be lost; changes of names survive in order.
//! - A crash can be set to come at any operation; from then on every call fails.
//! - Everything hangs on the seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{
    Error,
    disk::{Disk, File},
};

/// What survives of an unsynced write survives in pieces of this many bytes.
const PIECE_BYTES: usize = 512;
/// What is in memory for [`File::read_cached_at`] is so in pages of this many bytes.
const PAGE_BYTES: u64 = 4096;

/// Two of three pages are, without an order.
fn is_cached(page: u64) -> bool {
    !(page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(3)
}

/// A disk in memory.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    locked: Arc<AtomicBool>,
}

/// When calls fail without a crash.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The operation that fails, counted from 1.
    pub at: u64,
    /// Whether all later ones fail too.
    pub sticky: bool,
    /// How.
    pub kind: io::ErrorKind,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the last sync, in order.
    pending: Vec<Change>,
    next_inode: u64,
    random: u64,
    operations: u64,
    crash_at: Option<u64>,
    fault: Option<Fault>,
}

#[derive(Clone, Debug)]
enum Change {
    Set(String, u64),
    Remove(String),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: u64,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> SimDisk {
        let state = State { random: seed, ..State::default() };
        SimDisk { state: Arc::new(Mutex::new(state)), locked: Arc::default() }
    }

    /// A disk with these files, all durable.
    pub fn with_files(seed: u64, files: &BTreeMap<String, Vec<u8>>) -> SimDisk {
        let disk = SimDisk::new(seed);
        let mut state = disk.state.lock();
        for (name, bytes) in files {
            let inode = state.next_inode;
            state.next_inode += 1;
            let file = Inode { now: bytes.clone(), durable: bytes.clone(), dirty: BTreeSet::new() };
            state.files.insert(inode, file);
            state.names.insert(name.clone(), inode);
            state.durable_names.insert(name.clone(), inode);
        }
        drop(state);
        disk
    }

    /// The files as a reader sees them now.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state.lock();
        let bytes = |inode| state.files.get(inode).map(|file| file.now.clone()).unwrap_or_default();
        state.names.iter().map(|(name, inode)| (name.clone(), bytes(inode))).collect()
    }

    /// How many operations that change something, or sync, there have been.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Crashes at this operation, counted from 1: it and all later calls fail.
    pub fn crash_at(&self, operation: u64) {
        self.state.lock().crash_at = Some(operation);
    }

    /// Lets calls fail.
    pub fn fail(&self, fault: Option<Fault>) {
        self.state.lock().fault = fault;
    }

    /// What is left after the power went: a new disk.
    #[must_use]
    pub fn crash(&self, seed: u64) -> SimDisk {
        let state = self.state.lock();
        let mut random = seed;
        // How likely a piece or a change of names survives: nothing, little, half, most, all.
        let eighths = [0, 1, 4, 7, 8].get(below(&mut random, 5)).copied().unwrap_or(4);
        let mut names = state.durable_names.clone();
        for change in &state.pending {
            if below(&mut random, 8) >= eighths {
                break;
            }
            apply(&mut names, change);
        }
        let mut left = BTreeMap::new();
        for (name, inode) in names {
            if let Some(file) = state.files.get(&inode) {
                left.insert(name, survivors(file, eighths, &mut random));
            }
        }
        drop(state);
        SimDisk::with_files(next(&mut random), &left)
    }

    /// Counts an operation and fails it when it is its turn.
    fn operate(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.operations += 1;
        let operation = state.operations;
        if state.crash_at.is_some_and(|at| operation >= at) {
            return Err(io::Error::other("the power is gone"));
        }
        match state.fault {
            Some(fault) if operation == fault.at || (fault.sticky && operation > fault.at) => {
                Err(fault.kind.into())
            }
            _ => Ok(()),
        }
    }

    fn check_power(&self) -> io::Result<()> {
        let state = self.state.lock();
        match state.crash_at.is_some_and(|at| state.operations >= at) {
            true => Err(io::Error::other("the power is gone")),
            false => Ok(()),
        }
    }

    fn change(&self, change: Change) {
        let mut state = self.state.lock();
        apply(&mut state.names, &change);
        state.pending.push(change);
    }
}

fn apply(names: &mut BTreeMap<String, u64>, change: &Change) {
    match change {
        Change::Set(name, inode) => drop(names.insert(name.clone(), *inode)),
        Change::Remove(name) => drop(names.remove(name)),
    }
}

fn survivors(file: &Inode, eighths: usize, random: &mut u64) -> Vec<u8> {
    let mut bytes = file.durable.clone();
    if file.now.len() != bytes.len() && below(random, 8) < eighths {
        bytes.resize(file.now.len(), 0);
    }
    for piece in &file.dirty {
        if below(random, 8) >= eighths {
            continue;
        }
        let from = piece * PIECE_BYTES;
        let to = (from + PIECE_BYTES).min(bytes.len()).min(file.now.len());
        if let (Some(old), Some(new)) = (bytes.get_mut(from..to), file.now.get(from..to)) {
            old.copy_from_slice(new);
        }
    }
    bytes
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn below(state: &mut u64, n: usize) -> usize {
    usize::try_from(next(state) % (n as u64)).unwrap_or(0)
}

impl Disk for SimDisk {
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.check_power()?;
        let found = self.state.lock().names.get(path).copied();
        let inode = found.ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.operate()?;
        let inode = {
            let mut state = self.state.lock();
            state.next_inode += 1;
            let inode = state.next_inode;
            state.files.insert(inode, Inode::default());
            inode
        };
        self.change(Change::Set(path.to_owned(), inode));
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operate()?;
        let found = self.state.lock().names.get(from).copied();
        let inode = found.ok_or(io::ErrorKind::NotFound)?;
        self.change(Change::Set(to.to_owned(), inode));
        self.change(Change::Remove(from.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.operate()?;
        if !self.state.lock().names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(Change::Remove(path.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.check_power()?;
        let prefix = format!("{dir}/");
        let state = self.state.lock();
        Ok(state
            .names
            .keys()
            .filter_map(|name| name.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect())
    }

    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        self.operate()?;
        let mut state = self.state.lock();
        state.durable_names = state.names.clone();
        state.pending.clear();
        Ok(())
    }

    fn random_id(&self) -> io::Result<[u8; 16]> {
        let mut state = self.state.lock();
        let (low, high) = (next(&mut state.random), next(&mut state.random));
        Ok(((u128::from(high) << 64) | u128::from(low)).to_le_bytes())
    }

    fn lock(&self) -> Result<Box<dyn Send + Sync>, Error> {
        struct Guard(Arc<AtomicBool>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.store(false, Ordering::SeqCst);
            }
        }
        match self.locked.swap(true, Ordering::SeqCst) {
            true => Err(Error::Locked {
                path: "simulated".to_owned(),
                holder: "this process".to_owned(),
            }),
            false => Ok(Box::new(Guard(self.locked.clone()))),
        }
    }
}

impl SimFile {
    fn with<T>(&self, work: impl FnOnce(&mut Inode) -> T) -> io::Result<T> {
        let mut state = self.disk.state.lock();
        let file = state.files.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        Ok(work(file))
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.disk.check_power()?;
        self.with(|file| {
            let from = usize::try_from(position).unwrap_or(usize::MAX).min(file.now.len());
            let found = file.now.get(from..).unwrap_or_default();
            let n = found.len().min(buffer.len());
            if let (Some(to), Some(bytes)) = (buffer.get_mut(..n), found.get(..n)) {
                to.copy_from_slice(bytes);
            }
            n
        })
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let end = position + buffer.len() as u64;
        let missing = (position / PAGE_BYTES..=end / PAGE_BYTES).find(|page| !is_cached(*page));
        let cached = missing.map_or(end, |page| (page * PAGE_BYTES).clamp(position, end));
        match buffer.get_mut(..usize::try_from(cached - position).unwrap_or(0)) {
            Some(buffer) if !buffer.is_empty() => self.read_at(buffer, position),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let outcome = self.disk.operate();
        let from = usize::try_from(position).unwrap_or(usize::MAX);
        // A failing or interrupted write may have written any part of it.
        self.with(|file| {
            let to = from + bytes.len();
            if file.now.len() < to {
                file.now.resize(to, 0);
            }
            if let Some(slot) = file.now.get_mut(from..to) {
                slot.copy_from_slice(bytes);
            }
            file.dirty.extend(from / PIECE_BYTES..to.div_ceil(PIECE_BYTES));
        })?;
        outcome
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.operate()?;
        self.with(|file| {
            file.durable.clone_from(&file.now);
            file.dirty.clear();
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.operate()?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.with(|file| {
            if file.now.len() < len {
                file.now.resize(len, 0);
            }
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.operate()?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.with(|file| {
            let old = file.now.len();
            file.now.resize(len, 0);
            // What is cut reads as zeros should the file grow again.
            if len < old {
                file.dirty.extend(len / PIECE_BYTES..old.div_ceil(PIECE_BYTES));
            }
        })
    }

    fn size(&self) -> io::Result<u64> {
        self.disk.check_power()?;
        self.with(|file| file.now.len() as u64)
    }
}
