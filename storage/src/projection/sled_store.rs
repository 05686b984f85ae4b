//! A projection's store on disk, in sled.
//!
//! - Everything sled does happens on a helper thread, with a deadline, its panics caught. After a
//!   failed write, a panic or a timeout its handle is never used and never dropped: dropping
//!   flushes, and a flush after a failed one waits for ever.
//! - One tree, one writer, one batch per save: entries, W and the digest in it move together.
//! - Every value has its checksum, over its key too. The digest finds what checksums cannot:
//!   entries that are missing or of another time (sled reads a damaged metadata log up to the
//!   damage and says nothing).
//! - sled's cache is as small as it goes: each leaf is read once, at the start.
//!
//! Entry: key `01` + key; value `01` (version) + body + crc32c(key, version, body) in LE.
//! Checkpoint: key `00`; body: log id 16, schema u32, W u64, entries u64, digest u64, all LE.
//! Digest: the wrapping sum of a mixed CRC-64 of each stored entry, key and value.

use std::{
    collections::{BTreeMap, HashMap},
    mem::ManuallyDrop,
    path::{Path, PathBuf},
};

use sled::InlineArray;
use tidings_proto::{Cursor, LogId};

use super::{
    Change, Checkpoint, ENTRY_BYTES_MAX, Entry, ProjectionError, RebuildReason, Store,
    guard::guarded, place::Place,
};

/// 64 entries a leaf: 4.7 times faster than 1024 when few entries of many change.
type Db = sled::Db<64>;
/// A database that is dropped only where that is known to be safe.
type Handle = ManuallyDrop<Db>;

const CHECKPOINT_KEY: [u8; 1] = [0];
const ENTRY_PREFIX: u8 = 1;
const VALUE_VERSION: u8 = 1;
const CHECKPOINT_BYTES: usize = 16 + 4 + 8 + 8 + 8;
/// The least that sled takes.
const CACHE_BYTES: usize = 256;
/// After so many handles given up, each with up to 80 open files and a thread, no further one.
const GIVEN_UP_MAX: u32 = 4;

/// How long sled may take, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SledOptions {
    /// To open and read all, and to close. Default 10,000.
    pub open_ms_max: u64,
    /// To save one checkpoint. Default 60,000: 100,000 entries take about 1.2 s.
    pub save_ms_max: u64,
}

impl Default for SledOptions {
    fn default() -> SledOptions {
        SledOptions { open_ms_max: 10_000, save_ms_max: 60_000 }
    }
}

/// A [`Store`] on disk. Dropping it closes and seals it.
pub struct SledStore {
    place: Place,
    options: SledOptions,
    log: LogId,
    schema: u32,
    /// `None` after a failure, until cleared.
    db: Option<Handle>,
    sums: Sums,
    /// What was read at the start, until it is asked for.
    loaded: Option<Checkpoint>,
    given_up: u32,
}

/// A store, and whether it had to begin anew.
pub struct Opened {
    /// The store, ready for [`Store::load`].
    pub store: SledStore,
    /// Why it is empty, if it is: the log must be replayed from its start.
    pub rebuilt: Option<RebuildReason>,
}

impl SledStore {
    /// Opens the store `name` in `dir` for entries of `schema_version`, folded from the log `log`,
    /// which durably ends at `durable`. What is there but in doubt is put aside.
    ///
    /// # Errors
    /// When not even an empty store can be made: go on with [`MemoryStore::forgetful`].
    ///
    /// [`MemoryStore::forgetful`]: super::MemoryStore::forgetful
    pub fn open(
        dir: &Path,
        name: &str,
        schema_version: u32,
        log: LogId,
        durable: Cursor,
    ) -> Result<Opened, ProjectionError> {
        Self::open_with(dir, name, schema_version, log, durable, SledOptions::default())
    }

    /// [`SledStore::open`] with other deadlines.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(
        dir: &Path,
        name: &str,
        schema_version: u32,
        log: LogId,
        durable: Cursor,
        options: SledOptions,
    ) -> Result<Opened, ProjectionError> {
        let mut place = Place::new(dir, name, schema_version)?;
        let found = place.look_around()?;
        let mut store = SledStore {
            place,
            options,
            log,
            schema: schema_version,
            db: None,
            sums: Sums::default(),
            loaded: None,
            given_up: 0,
        };
        let doubt = match (found.current, found.stray) {
            (true, _) => match store.open_found(durable) {
                Ok(()) => return Ok(Opened { store, rebuilt: None }),
                Err(doubt) => doubt,
            },
            (false, Some(name)) => RebuildReason::OtherVersion(name),
            (false, None) => RebuildReason::Absent,
        };
        if found.current {
            store.place.retire(matches!(doubt, RebuildReason::TimedOut(_)));
        }
        store.create()?;
        Ok(Opened { store, rebuilt: Some(doubt) })
    }

    fn open_found(&mut self, durable: Cursor) -> Result<(), RebuildReason> {
        let failed = |error: ProjectionError| RebuildReason::Failed(error.to_string());
        if self.place.died_opening() {
            return Err(RebuildReason::DiedOpening);
        }
        if !self.place.unseal().map_err(failed)? {
            return Err(RebuildReason::Changed);
        }
        self.place.mark_opening().map_err(failed)?;
        let (path, log, schema) = (self.place.path(), self.log, self.schema);
        let read = guarded(self.options.open_ms_max, move || open(&path, log, schema, durable));
        self.place.unmark_opening();
        let (db, found) = read.map_err(RebuildReason::from)??;
        self.db = Some(db);
        self.sums = found.sums;
        self.loaded = Some(found.checkpoint);
        Ok(())
    }

    /// Makes an empty store with a checkpoint at the start of the log: one that later has none is
    /// known to be damaged.
    fn create(&mut self) -> Result<(), ProjectionError> {
        self.place.make()?;
        self.sums = Sums::default();
        self.loaded = Some(Checkpoint::default());
        self.place.mark_opening()?;
        let path = self.place.path();
        let checkpoint = self.stored_checkpoint(Cursor::START, &self.sums);
        let made = guarded(self.options.open_ms_max, move || {
            let db = ManuallyDrop::new(config(&path).open::<64>().map_err(sled("open"))?);
            db.insert(CHECKPOINT_KEY, checkpoint).map_err(sled("write"))?;
            db.flush().map_err(sled("flush"))?;
            Ok(db)
        });
        self.place.unmark_opening();
        match made.map_err(ProjectionError::from).flatten() {
            Ok(db) => self.db = Some(db),
            Err(error) => {
                // A database that did not open has nothing open either.
                let opened = !matches!(error, ProjectionError::Sled { action: "open", .. });
                self.given_up += u32::from(opened);
                return Err(error);
            }
        }
        Ok(())
    }

    fn stored_checkpoint(&self, applied: Cursor, sums: &Sums) -> Vec<u8> {
        let mut body = Vec::with_capacity(CHECKPOINT_BYTES);
        body.extend_from_slice(&self.log.to_bytes());
        body.extend_from_slice(&self.schema.to_le_bytes());
        body.extend_from_slice(&applied.get().to_le_bytes());
        body.extend_from_slice(&sums.count().to_le_bytes());
        body.extend_from_slice(&sums.digest.to_le_bytes());
        encode(&CHECKPOINT_KEY, &body)
    }

    /// Closes the database, if it is sound. Whether it was.
    fn close(&mut self) -> bool {
        let Some(db) = self.db.take() else { return false };
        // All of it was flushed by the save, so that dropping has nothing left that could fail.
        let closed = guarded(self.options.open_ms_max, move || drop(ManuallyDrop::into_inner(db)));
        if let Err(trouble) = &closed {
            tracing::warn!(?trouble, "the store of a projection did not close");
        }
        closed.is_ok()
    }
}

impl Store for SledStore {
    fn load(&mut self) -> Result<Checkpoint, ProjectionError> {
        if let Some(loaded) = self.loaded.take() {
            return Ok(loaded);
        }
        let db = self.db.take().ok_or(ProjectionError::Broken)?;
        let (log, schema) = (self.log, self.schema);
        let read = guarded(self.options.open_ms_max, move || {
            let found = read_all(&db, log, schema, Cursor::new(u64::MAX));
            (db, found)
        });
        // The handle of a read that failed is given up with it.
        let whole = |(db, found): (Handle, Result<Held, RebuildReason>)| match found {
            Ok(found) => Ok((db, found)),
            Err(doubt) => Err(ProjectionError::Entry(doubt.to_string())),
        };
        let read = read.map_err(ProjectionError::from).and_then(whole);
        let (db, found) = read.inspect_err(|_| self.given_up += 1)?;
        self.db = Some(db);
        Ok(found.checkpoint)
    }

    fn save(&mut self, applied: Cursor, changes: &[Change]) -> Result<(), ProjectionError> {
        let longest =
            changes.iter().map(|(key, value)| key.len().max(value.as_ref().map_or(0, Vec::len)));
        if let Some(bytes) = longest.max().filter(|&bytes| bytes > ENTRY_BYTES_MAX) {
            return Err(ProjectionError::TooLarge(bytes));
        }
        let db = self.db.take().ok_or(ProjectionError::Broken)?;
        self.loaded = None;
        let mut batch = sled::Batch::default();
        let last: BTreeMap<_, _> = changes.iter().map(|(key, value)| (key, value)).collect();
        // From here on the sums run ahead of what is stored. When the save fails the store is
        // out of use, and they begin anew with it.
        for (key, value) in last {
            let key = stored_key(key);
            let value = value.as_ref().map(|body| encode(&key, body));
            self.sums.change(&key, value.as_deref());
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch.insert(CHECKPOINT_KEY, self.stored_checkpoint(applied, &self.sums));
        let saved = guarded(self.options.save_ms_max, move || {
            db.apply_batch(batch).map_err(sled("write"))?;
            db.flush().map_err(sled("flush"))?;
            Ok(db)
        });
        match saved.map_err(ProjectionError::from).flatten() {
            Ok(db) => self.db = Some(db),
            Err(error) => {
                self.given_up += 1;
                return Err(error);
            }
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<(), ProjectionError> {
        if self.given_up >= GIVEN_UP_MAX {
            return Err(ProjectionError::GaveUp(self.given_up));
        }
        let sound = self.close();
        self.place.retire(!sound);
        self.create()
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        if self.close()
            && let Err(error) = self.place.seal()
        {
            tracing::warn!(%error, "a store is left unsealed");
        }
    }
}

/// What is known of the stored entries without reading them again: a mixed CRC-64 of each, by the
/// CRC-64 of its key. Two keys of one CRC cost a rebuild at the next start and nothing else.
#[derive(Debug, Default)]
struct Sums {
    by_key: HashMap<u64, u64>,
    digest: u64,
}

impl Sums {
    fn change(&mut self, key: &[u8], value: Option<&[u8]>) {
        let name = crc_fast::crc64_nvme(key);
        let old = match value {
            Some(value) => {
                let sum = mix(name ^ mix(crc_fast::crc64_nvme(value)));
                self.digest = self.digest.wrapping_add(sum);
                self.by_key.insert(name, sum)
            }
            None => self.by_key.remove(&name),
        };
        self.digest = self.digest.wrapping_sub(old.unwrap_or(0));
    }

    fn count(&self) -> u64 {
        self.by_key.len() as u64
    }
}

/// What a store was found to hold.
struct Held {
    checkpoint: Checkpoint,
    sums: Sums,
}

fn open(
    path: &Path,
    log: LogId,
    schema: u32,
    durable: Cursor,
) -> Result<(Handle, Held), RebuildReason> {
    let opened = config(path).open::<64>();
    let db = ManuallyDrop::new(opened.map_err(|error| RebuildReason::Failed(error.to_string()))?);
    match read_all(&db, log, schema, durable) {
        Ok(found) => Ok((db, found)),
        Err(doubt) => {
            // Nothing was written, so that dropping writes nothing; it gives back 80 open files.
            drop(ManuallyDrop::into_inner(db));
            Err(doubt)
        }
    }
}

fn read_all(db: &Db, log: LogId, schema: u32, durable: Cursor) -> Result<Held, RebuildReason> {
    // Not dropped by a panic: an iterator flushes when it is dropped, and a second panic would
    // end the process.
    let mut iter = ManuallyDrop::new(db.iter());
    let held = read_items(&mut iter, log, schema, durable);
    drop(ManuallyDrop::into_inner(iter));
    held
}

fn read_items(
    iter: &mut sled::Iter<64>,
    log: LogId,
    schema: u32,
    durable: Cursor,
) -> Result<Held, RebuildReason> {
    let mut first = None;
    let mut sums = Sums::default();
    let mut entries = Vec::new();
    for item in iter {
        let (key, value) = item.map_err(|error| RebuildReason::Failed(error.to_string()))?;
        if first.is_none() {
            first = Some(read_checkpoint(&key, &value, log, schema, durable)?);
        } else {
            entries.push(read_entry(&key, &value)?);
            sums.change(&key, Some(&value));
        }
    }
    let (applied, count, digest) = first.ok_or(RebuildReason::NoCheckpoint)?;
    if (count, digest) != (entries.len() as u64, sums.digest) || count != sums.count() {
        return Err(RebuildReason::WrongDigest);
    }
    Ok(Held { checkpoint: Checkpoint { applied, entries }, sums })
}

fn read_entry(key: &InlineArray, value: &InlineArray) -> Result<Entry, RebuildReason> {
    let body = decode(key, value).ok_or(RebuildReason::DamagedEntry)?;
    match key.split_first() {
        Some((&ENTRY_PREFIX, key)) => Ok((key.to_vec(), body.to_vec())),
        _ => Err(RebuildReason::DamagedEntry),
    }
}

/// W, the number of entries and their digest, if this is the checkpoint and fits the log.
fn read_checkpoint(
    key: &[u8],
    value: &[u8],
    log: LogId,
    schema: u32,
    durable: Cursor,
) -> Result<(Cursor, u64, u64), RebuildReason> {
    if key != CHECKPOINT_KEY {
        return Err(RebuildReason::NoCheckpoint);
    }
    let body = decode(key, value).ok_or(RebuildReason::DamagedEntry)?;
    let fields = || {
        let (id, rest) = body.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (applied, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let digest = rest.try_into().ok()?;
        Some((*id, *version, *applied, *count, digest))
    };
    let (id, version, applied, count, digest) = fields().ok_or(RebuildReason::DamagedEntry)?;
    let (id, version) = (LogId::from_bytes(id), u32::from_le_bytes(version));
    if version != schema {
        return Err(RebuildReason::WrongSchema(version));
    }
    if id != log {
        return Err(RebuildReason::ForeignLog(id));
    }
    let stored = Cursor::new(u64::from_le_bytes(applied));
    if stored > durable {
        return Err(RebuildReason::AheadOfLog { stored, durable });
    }
    Ok((stored, u64::from_le_bytes(count), u64::from_le_bytes(digest)))
}

fn config(path: &Path) -> sled::Config {
    let path: PathBuf = path.to_owned();
    sled::Config::new().path(path).flush_every_ms(None).cache_capacity_bytes(CACHE_BYTES)
}

fn sled(action: &'static str) -> impl FnOnce(std::io::Error) -> ProjectionError {
    move |source| ProjectionError::Sled { action, source }
}

fn stored_key(key: &[u8]) -> Vec<u8> {
    [&[ENTRY_PREFIX], key].concat()
}

fn encode(stored_key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(body.len() + 5);
    value.push(VALUE_VERSION);
    value.extend_from_slice(body);
    let sum = checksum(stored_key, &value);
    value.extend_from_slice(&sum);
    value
}

fn decode<'a>(stored_key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (summed, sum) = value.split_last_chunk::<4>()?;
    let (&version, body) = summed.split_first()?;
    (version == VALUE_VERSION && checksum(stored_key, summed) == *sum).then_some(body)
}

fn checksum(stored_key: &[u8], summed: &[u8]) -> [u8; 4] {
    let mut sum = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    sum.update(stored_key);
    sum.update(summed);
    // A CRC-32 comes in the low half.
    (sum.finalize() as u32).to_le_bytes()
}

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014): CRCs alone are linear, and sums of them
/// would not see two values that change places.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_value_is_seen() {
        let key = stored_key(b"k");
        let value = encode(&key, b"body");
        assert_eq!(decode(&key, &value), Some(&b"body"[..]));
        assert_eq!(decode(&stored_key(b"l"), &value), None, "the key is part of it");
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&key, &bad), None, "bit {bit}");
        }
        for short in 0..value.len() {
            assert_eq!(decode(&key, &value[..short]), None);
        }
    }

    #[test]
    fn the_digest_follows_the_entries_not_the_way_there() {
        let of = |changes: &[(&[u8], Option<&[u8]>)]| {
            let mut sums = Sums::default();
            changes.iter().for_each(|(key, value)| sums.change(key, *value));
            (sums.count(), sums.digest)
        };
        let ab = of(&[(b"a", Some(b"1")), (b"b", Some(b"2"))]);
        assert_eq!(ab, of(&[(b"b", Some(b"1")), (b"a", Some(b"1")), (b"b", Some(b"2"))]));
        assert_eq!(
            ab,
            of(&[
                (b"c", None),
                (b"b", Some(b"2")),
                (b"c", Some(b"")),
                (b"a", Some(b"1")),
                (b"c", None)
            ])
        );
        assert_ne!(ab, of(&[(b"a", Some(b"2")), (b"b", Some(b"1"))]));
        assert_eq!(of(&[]), of(&[(b"a", Some(b"1")), (b"a", None)]));
    }
}
