//! A projection equals a full replay, whatever becomes of what it stored (guarantee G9).

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test, which damages files behind the store's back"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use proptest::prelude::*;
use tempfile::TempDir;
use tidings_proto::{Cursor, Filter, Filters, LogId, Topic};
use tidings_storage::{
    Flags, Log, NewRecord, Opened, Options, Reader, Record, ScanLimit, SimDisk,
    projection::{
        Change, Checkpoint, ENTRY_BYTES_MAX, Entry, MemoryStore, Projection, ProjectionError,
        RebuildReason, Runner, SledOptions, SledStore, Store,
    },
};

/// Counts per key, with a chain over the offsets: applying a record twice, not at all or out of
/// order gives another state. A record with the body `-` removes its key.
#[derive(Default)]
struct Tally {
    held: BTreeMap<Vec<u8>, [u64; 2]>,
    changed: BTreeSet<Vec<u8>>,
}

impl Projection for Tally {
    const NAME: &'static str = "tally";
    const VERSION: u32 = 3;

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), ProjectionError> {
        let wrong = || ProjectionError::Entry(format!("{key:?}"));
        let (count, chain) = value.split_first_chunk().ok_or_else(wrong)?;
        let chain: [u8; 8] = chain.try_into().map_err(|_| wrong())?;
        self.held.insert(key.to_vec(), [u64::from_le_bytes(*count), u64::from_le_bytes(chain)]);
        Ok(())
    }

    fn apply(&mut self, record: &Record) {
        let key = record.key.to_vec();
        if record.body[..] == *b"-" {
            self.held.remove(&key);
        } else {
            let [count, chain] = self.held.entry(key.clone()).or_default();
            *count += 1;
            *chain = (*chain).wrapping_mul(31).wrapping_add(record.offset.get());
        }
        self.changed.insert(key);
    }

    fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|key| (key.clone(), self.held.get(&key).map(value))).collect()
    }

    fn entries(&self) -> Vec<Entry> {
        self.held.iter().map(|(key, held)| (key.clone(), value(held))).collect()
    }

    fn reset(&mut self) {
        *self = Tally::default();
    }
}

fn value([count, chain]: &[u64; 2]) -> Vec<u8> {
    [count.to_le_bytes(), chain.to_le_bytes()].concat()
}

/// A log, and a directory for the projections.
struct World {
    log: Log,
    reader: Reader,
    dir: TempDir,
    written: u64,
    options: SledOptions,
}

const OPTIONS: SledOptions = SledOptions { open_ms_max: 20_000, save_ms_max: 60_000 };
/// Where only the state counts, not whether the store was used.
const HASTY: SledOptions = SledOptions { open_ms_max: 500, ..OPTIONS };

impl World {
    fn new() -> World {
        let options =
            Options { segment_bytes: 4 << 20, reserve_bytes: 64 << 10, ..Options::default() };
        let Opened { log, reader, .. } = Log::open(Arc::new(SimDisk::new(1)), options).unwrap();
        World { log, reader, dir: tempfile::tempdir().unwrap(), written: 0, options: OPTIONS }
    }

    /// `n` more records, the same for every world; some of them not for the projection.
    fn grow(&mut self, n: u64) {
        let (ours, other) = (Topic::parse("$ours").unwrap(), Topic::parse("other").unwrap());
        let made: Vec<_> = (self.written..self.written + n)
            .map(|i| {
                let x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                let body: &[u8] = if x % 11 == 0 { b"-" } else { b"+" };
                let topic = if x % 5 == 0 { &other } else { &ours };
                (topic, format!("key-{:04}", x % 700), body)
            })
            .collect();
        for chunk in made.chunks(1000) {
            let records: Vec<_> = chunk
                .iter()
                .map(|(topic, key, body)| NewRecord {
                    topic,
                    key: key.as_bytes(),
                    dedupe: None,
                    flags: Flags::EMPTY,
                    body,
                })
                .collect();
            self.log.append(1, &records).unwrap();
        }
        self.log.sync().unwrap();
        self.written += n;
    }

    fn filters() -> Filters {
        Filters::one(Filter::parse("$ours").unwrap())
    }

    /// What a runner holds that has seen the whole log and no store.
    fn replayed(&self) -> Vec<Entry> {
        let store = Box::new(MemoryStore::forgetful());
        let runner = Runner::open(Tally::default(), store, &self.reader, &Self::filters()).unwrap();
        runner.projection().entries()
    }

    fn open(&self) -> (Runner<Tally>, Option<RebuildReason>) {
        self.open_as(self.reader.id(), Tally::VERSION, self.reader.last())
    }

    fn open_as(
        &self,
        log: LogId,
        version: u32,
        durable: Cursor,
    ) -> (Runner<Tally>, Option<RebuildReason>) {
        let dir = self.dir.path();
        let opened =
            SledStore::open_with(dir, Tally::NAME, version, log, durable, self.options).unwrap();
        let runner =
            Runner::open(Tally::default(), Box::new(opened.store), &self.reader, &Self::filters());
        (runner.unwrap(), opened.rebuilt)
    }

    /// Applies what is new, as the broker does.
    fn feed(&self, runner: &mut Runner<Tally>) -> Cursor {
        let (after, until) = (runner.applied(), self.reader.last());
        let limit = ScanLimit { events: usize::MAX, bytes: usize::MAX };
        let filters = Self::filters();
        let reached = self
            .reader
            .scan(after, until, Some(&filters), limit, &mut |record| _ = runner.apply(&record));
        assert_eq!(reached.unwrap(), until);
        until
    }

    /// Opens as a start does, compares with a replay, and saves; says why it was rebuilt.
    fn check(&self, what: &str) -> Option<RebuildReason> {
        let (mut runner, rebuilt) = self.open();
        assert_eq!(runner.projection().entries(), self.replayed(), "{what}: {rebuilt:?}");
        if rebuilt.is_some() {
            assert_eq!(runner.restored().from, Cursor::START, "{what}: {rebuilt:?}");
        }
        runner.checkpoint(self.reader.last()).unwrap();
        rebuilt
    }

    /// The directory of the store.
    fn store(&self) -> PathBuf {
        let names = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut stores = names.filter(|path| path.to_str().unwrap().contains("tally-v"));
        let store = stores.next().unwrap();
        assert_eq!(stores.next(), None);
        store
    }

    fn remove_seal(&self) {
        fs::remove_file(self.store().join("seal")).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries.flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            // A file of a store in use may go while it is copied.
            let _ = fs::copy(entry.path(), target);
        }
    }
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A world with a store of two checkpoints, cleanly closed, and more records behind it.
fn stopped() -> World {
    let mut world = World::new();
    world.grow(3000);
    let (mut runner, rebuilt) = world.open();
    assert_eq!(rebuilt, Some(RebuildReason::Absent));
    runner.checkpoint(world.reader.last()).unwrap();
    drop(runner);
    world.grow(2000);
    assert_eq!(world.check("grown"), None);
    world.grow(500);
    world
}

/// Runs the test `name` in a process of its own: a store that hangs keeps its open files, 80 of
/// them, and many of them are more than a process may have. Whether this is that process.
fn alone(name: &str) -> bool {
    if std::env::var("PROJECTION_ALONE").is_ok() {
        return true;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let child = child.args(["--exact", name]).env("PROJECTION_ALONE", "1").output().unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && told.contains("1 passed"), "{}: {told}", child.status);
    false
}

#[test]
fn a_stored_state_comes_back_and_only_the_rest_is_replayed() {
    let mut world = stopped();
    let (runner, rebuilt) = world.open();
    assert_eq!(rebuilt, None);
    assert_eq!(runner.restored().from, Cursor::new(5000));
    assert!(runner.restored().replayed < 500, "{:?}", runner.restored());
    assert_eq!(runner.projection().entries(), world.replayed());
    assert_eq!(runner.applied(), Cursor::new(5500));
    drop(runner);

    // Applied live, some twice, and saved while more are applied.
    let (mut runner, _) = world.open();
    let mut records = Vec::new();
    world.grow(1000);
    let (after, until) = (Cursor::new(5400), world.reader.last());
    let limit = ScanLimit { events: usize::MAX, bytes: usize::MAX };
    let filters = World::filters();
    world
        .reader
        .scan(after, until, Some(&filters), limit, &mut |record| records.push(record))
        .unwrap();
    let (some, rest) = records.split_at(300);
    some.iter().for_each(|record| _ = runner.apply(record));
    let upto = some.last().unwrap().offset.cursor();
    let save = runner.begin(upto).unwrap();
    assert!(runner.begin(upto).is_none(), "one at a time");
    rest.iter().for_each(|record| _ = runner.apply(record));
    runner.finish(save.run()).unwrap();
    assert_eq!(runner.saved(), upto);
    drop(runner);
    let (runner, rebuilt) = world.open();
    assert_eq!((rebuilt, runner.restored().from), (None, upto));
    assert_eq!(runner.projection().entries(), world.replayed());
}

#[test]
fn a_store_that_does_not_fit_the_log_is_put_aside() {
    let world = stopped();
    let image = tempfile::tempdir().unwrap();
    copy(world.dir.path(), image.path());
    let fresh = || {
        fs::remove_dir_all(world.dir.path()).unwrap();
        copy(image.path(), world.dir.path());
    };
    let (id, version, end) = (world.reader.id(), Tally::VERSION, world.reader.last());
    let other = LogId::from_bytes([9; 16]);
    let cases = [
        (other, version, end, RebuildReason::ForeignLog(id)),
        (
            id,
            version,
            Cursor::new(4999),
            RebuildReason::AheadOfLog { stored: Cursor::new(5000), durable: Cursor::new(4999) },
        ),
    ];
    for (log, version, durable, reason) in cases {
        fresh();
        let (runner, rebuilt) = world.open_as(log, version, durable);
        assert_eq!(rebuilt, Some(reason));
        assert_eq!(runner.projection().entries(), world.replayed());
        drop(runner);
        assert!(world.dir.path().join("tally.old").is_dir());
    }

    fresh();
    let (runner, rebuilt) = world.open_as(id, version + 1, end);
    assert!(matches!(rebuilt, Some(RebuildReason::OtherVersion(name)) if name.contains("-v3-")));
    drop(runner);

    // The same entries under a directory of another version.
    fresh();
    let renamed = world.store().to_str().unwrap().replace("-v3-", "-v4-");
    fs::rename(world.store(), renamed).unwrap();
    let (_, rebuilt) = world.open_as(id, version + 1, end);
    assert_eq!(rebuilt, Some(RebuildReason::WrongSchema(version)));

    // The store knows no better, but the log ends before it: the runner sees that too.
    fresh();
    let mut short = World::new();
    short.grow(4000);
    copy(image.path(), short.dir.path());
    let (runner, rebuilt) = short.open_as(id, version, Cursor::new(6000));
    assert!(rebuilt.is_none() || id != short.reader.id());
    assert_eq!(runner.projection().entries(), short.replayed());
    assert!(runner.restored().failed.is_some() || rebuilt.is_some());
}

#[test]
fn deleted_stale_and_half_opened_stores() {
    let mut world = World::new();
    world.grow(3000);
    world.check("first");
    let stale = tempfile::tempdir().unwrap();
    copy(world.dir.path(), stale.path());
    world.grow(4000);
    world.check("second");
    let image = tempfile::tempdir().unwrap();
    copy(world.dir.path(), image.path());
    world.grow(10);
    let fresh = |from: &TempDir| {
        fs::remove_dir_all(world.dir.path()).unwrap();
        copy(from.path(), world.dir.path());
    };

    fresh(&stale);
    assert_eq!(world.check("an older copy"), None);
    fresh(&image);
    fs::remove_dir_all(world.dir.path()).unwrap();
    assert_eq!(world.check("all deleted"), Some(RebuildReason::Absent));
    fresh(&image);
    fs::write(world.dir.path().join("tally.opening"), b"").unwrap();
    assert_eq!(world.check("died"), Some(RebuildReason::DiedOpening));
    assert_eq!(world.check("died, later"), None);
    fresh(&image);
    fs::remove_dir_all(world.store()).unwrap();
    fs::write(world.dir.path().join("tally-v3-sled-1.0.0-alpha.124.0"), b"a file").unwrap();
    assert!(world.check("a file in its place").is_some());

    // Every file alone from the older copy, and every file alone gone; with the seal and, as after
    // a kill, without it.
    for sealed in [true, false] {
        fresh(&image);
        let root = world.store();
        let used = files(&root).into_iter().filter(|path| {
            fs::metadata(path).unwrap().len() > 0 && path.file_name().unwrap() != "seal"
        });
        for path in used.collect::<Vec<_>>() {
            let old = stale.path().join(path.strip_prefix(world.dir.path()).unwrap());
            for replace in [true, false] {
                fresh(&image);
                let now = fs::read(&path).unwrap();
                fs::remove_file(&path).unwrap();
                if replace && old.exists() {
                    fs::copy(&old, &path).unwrap();
                }
                let same = fs::read(&path).is_ok_and(|then| then == now);
                if !sealed {
                    world.remove_seal();
                }
                let rebuilt = world.check(&format!("{path:?} {replace}"));
                assert!(!sealed || same || rebuilt == Some(RebuildReason::Changed), "{rebuilt:?}");
            }
        }
    }
}

#[test]
fn flipped_bytes_in_every_file() {
    if !alone("flipped_bytes_in_every_file") {
        return;
    }
    let mut world = stopped();
    world.options = HASTY;
    let image = tempfile::tempdir().unwrap();
    copy(world.dir.path(), image.path());
    let all = files(&world.store());
    for sealed in [true, false] {
        for path in &all {
            let name = path.strip_prefix(world.dir.path()).unwrap();
            let bytes = fs::read(image.path().join(name)).unwrap();
            if bytes.is_empty() || (!sealed && path.file_name().unwrap() == "seal") {
                continue;
            }
            let places: BTreeSet<_> = (0..8).map(|i| (bytes.len() - 1) * i / 7).collect();
            for (i, place) in places.into_iter().enumerate() {
                if sealed && i % 4 != 0 {
                    continue;
                }
                fs::remove_dir_all(world.dir.path()).unwrap();
                copy(image.path(), world.dir.path());
                let mut bad = bytes.clone();
                bad[place] ^= [0x01, 0x80, 0xff][i % 3];
                fs::write(path, bad).unwrap();
                if !sealed {
                    world.remove_seal();
                }
                let rebuilt = world.check(&format!("{path:?} byte {place} sealed {sealed}"));
                assert!(!sealed || rebuilt == Some(RebuildReason::Changed), "{rebuilt:?}");
            }
        }
    }
}

#[test]
fn a_killed_store_damaged_anywhere_equals_a_replay() {
    if !alone("a_killed_store_damaged_anywhere_equals_a_replay") {
        return;
    }
    let mut world = World::new();
    let (mut runner, _) = world.open();
    // Growing and shrinking, with a metadata log of many frames and slots used again.
    for round in 0..12 {
        world.grow(if round % 3 == 0 { 1500 } else { 40 });
        let until = world.feed(&mut runner);
        runner.checkpoint(until).unwrap();
    }
    let image = tempfile::tempdir().unwrap();
    copy(world.dir.path(), image.path());
    drop(runner);
    world.grow(20);
    world.options = HASTY;
    let all: Vec<_> = files(image.path());
    let mut seed = 1_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let mut rebuilt = 0;
    for _ in 0..cases() {
        fs::remove_dir_all(world.dir.path()).unwrap();
        copy(image.path(), world.dir.path());
        let from = &all[random(all.len())];
        let mut bytes = fs::read(from).unwrap();
        if bytes.is_empty() {
            continue;
        }
        let place = random(bytes.len());
        match random(4) {
            0 => bytes.truncate(place),
            1 => bytes[place..].fill(0),
            _ => bytes[place] ^= 1 << random(8),
        }
        let name = from.strip_prefix(image.path()).unwrap();
        fs::write(world.dir.path().join(name), bytes).unwrap();
        rebuilt += u32::from(world.check(&format!("{name:?} at {place}")).is_some());
    }
    assert!(rebuilt > 0);
}

fn cases() -> usize {
    std::env::var("PROJECTION_CASES").map_or(200, |n| n.parse().unwrap())
}

#[test]
fn sound_entries_that_are_not_those_of_the_checkpoint() {
    type Db = sled::Db<64>;
    let world = stopped();
    let old = tempfile::tempdir().unwrap();
    copy(&world.store(), old.path());
    world.check("later");
    let image = tempfile::tempdir().unwrap();
    copy(world.dir.path(), image.path());
    let raw = |path: &Path| -> Db {
        let config = sled::Config::new().path(path).flush_every_ms(None);
        config.open::<64>().unwrap()
    };
    let before: Vec<_> = raw(old.path()).iter().map(Result::unwrap).collect();
    let now: Vec<_> = raw(&world.store()).iter().map(Result::unwrap).collect();
    let changed = before
        .iter()
        .position(|(key, value)| key[..] != [0] && now.iter().any(|(k, v)| k == key && v != value));
    let (changed, value) = &before[changed.unwrap()];
    type Meddle<'a> = &'a dyn Fn(&Db);
    let meddle: [(Meddle<'_>, RebuildReason); 6] = [
        (&|db| _ = db.insert(changed, value).unwrap(), RebuildReason::WrongDigest),
        (&|db| _ = db.remove(changed).unwrap(), RebuildReason::WrongDigest),
        (&|db| _ = db.insert([0], before[0].1.clone()).unwrap(), RebuildReason::WrongDigest),
        (&|db| _ = db.insert(changed, &now[0].1).unwrap(), RebuildReason::DamagedEntry),
        (&|db| _ = db.insert([2], value).unwrap(), RebuildReason::DamagedEntry),
        (&|db| _ = db.remove([0]).unwrap(), RebuildReason::NoCheckpoint),
    ];
    for (n, (meddle, reason)) in meddle.into_iter().enumerate() {
        fs::remove_dir_all(world.dir.path()).unwrap();
        copy(image.path(), world.dir.path());
        world.remove_seal();
        let db = raw(&world.store());
        meddle(&db);
        db.flush().unwrap();
        drop(db);
        assert_eq!(world.check(&format!("meddled {n}")), Some(reason), "{n}");
    }
}

#[test]
fn a_copy_taken_at_any_moment_equals_a_replay() {
    let mut world = World::new();
    world.grow(3000);
    let (mut runner, _) = world.open();
    let root = world.dir.path().to_owned();
    for round in 0..8 {
        let copies = tempfile::tempdir().unwrap();
        world.grow(700);
        let until = world.feed(&mut runner);
        // Not saved yet; in the midst of saving; saved.
        copy(&root, &copies.path().join("before"));
        let save = runner.begin(until).unwrap();
        let saving = std::thread::spawn(move || save.run());
        std::thread::sleep(Duration::from_millis(round));
        copy(&root, &copies.path().join("while"));
        runner.finish(saving.join().unwrap()).unwrap();
        copy(&root, &copies.path().join("after"));
        for (name, least) in [("before", None), ("while", None), ("after", Some(until))] {
            let mut killed = World::new();
            killed.grow(world.written);
            killed.dir = tempfile::tempdir().unwrap();
            copy(&copies.path().join(name), killed.dir.path());
            let (other, rebuilt) = killed.open_as(world.reader.id(), Tally::VERSION, until);
            assert_eq!(other.projection().entries(), world.replayed(), "{name} {round}");
            assert!(name == "while" || rebuilt.is_none(), "{name} {round}: {rebuilt:?}");
            assert!(least.is_none_or(|least| other.restored().from == least));
        }
    }
}

/// Not a test: what the next one starts as a process of its own, to be killed.
#[test]
#[ignore = "runs for ever; the test of kills starts it"]
fn saves_until_killed() {
    let Ok(dir) = std::env::var("PROJECTION_DIR") else { return };
    let mut world = World::new();
    world.grow(1000);
    let id = LogId::from_bytes([5; 16]);
    let opened = SledStore::open(Path::new(&dir), "tally", 3, id, Cursor::new(1 << 40)).unwrap();
    let filters = World::filters();
    let mut runner =
        Runner::open(Tally::default(), Box::new(opened.store), &world.reader, &filters).unwrap();
    loop {
        world.grow(97);
        let until = world.feed(&mut runner);
        runner.checkpoint(until).unwrap();
        println!("saved {until}");
    }
}

#[test]
fn a_kill_loses_no_checkpoint() {
    use std::io::{BufRead, BufReader};
    for round in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "saves_until_killed", "--nocapture"])
            .env("PROJECTION_DIR", dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let saved = |line: String| line.strip_prefix("saved ").map(|n| n.parse::<u64>().unwrap());
        let mut last = 0;
        for _ in 0..=round * 7 {
            last = lines.find_map(saved).unwrap();
        }
        std::thread::sleep(Duration::from_millis(round * 3));
        child.kill().unwrap();
        child.wait().unwrap();
        last = lines.filter_map(saved).last().unwrap_or(last);

        let mut world = World::new();
        world.grow(last + 500);
        world.dir = dir;
        let id = LogId::from_bytes([5; 16]);
        let (runner, rebuilt) = world.open_as(id, Tally::VERSION, world.reader.last());
        assert_eq!(rebuilt, None);
        assert!(runner.restored().from.get() >= last, "{last}: {:?}", runner.restored());
        assert_eq!(runner.projection().entries(), world.replayed());
    }
}

#[test]
fn a_sled_that_never_comes_back_is_given_up_and_the_state_goes_on() {
    if !alone("a_sled_that_never_comes_back_is_given_up_and_the_state_goes_on") {
        return;
    }
    let mut world = stopped();
    let slow = SledOptions { save_ms_max: 0, ..OPTIONS };
    let (id, end) = (world.reader.id(), world.reader.last());
    let opened = SledStore::open_with(world.dir.path(), "tally", 3, id, end, slow).unwrap();
    assert_eq!(opened.rebuilt, None);
    let filters = World::filters();
    let mut runner =
        Runner::open(Tally::default(), Box::new(opened.store), &world.reader, &filters).unwrap();
    let mut seen = Vec::new();
    for _ in 0..40 {
        if let Err(error) = runner.checkpoint(world.reader.last()) {
            seen.push(error);
        }
    }
    assert!(matches!(seen[0], ProjectionError::TimedOut(0)), "{seen:?}");
    assert!(matches!(seen[1], ProjectionError::Broken), "{seen:?}");
    assert!(matches!(seen.last(), Some(ProjectionError::GaveUp(4))), "{seen:?}");
    assert_eq!(runner.failures(), 40);
    assert_eq!(runner.saved(), Cursor::new(5000));
    assert_eq!(runner.projection().entries(), world.replayed());
    drop(runner);
    world.grow(10);
    world.check("the next start");
}

#[test]
fn a_sled_whose_files_vanish_is_started_anew_and_filled() {
    let mut world = stopped();
    let (mut runner, _) = world.open();
    fs::remove_dir_all(world.store()).unwrap();
    // Files that are open go on working until sled makes the next one.
    let mut failed = 0;
    for _ in 0..400 {
        world.grow(1000);
        let until = world.feed(&mut runner);
        let before = failed;
        failed += u32::from(runner.checkpoint(until).is_err());
        if failed > 0 && failed == before {
            break;
        }
    }
    assert_eq!(failed, 2, "a failure, a second one, then anew");
    assert_eq!(runner.saved(), world.reader.last());
    drop(runner);
    assert_eq!(world.check("started anew"), None);
}

/// Fails, panics, or saves and says it failed, as it is told.
struct Flaky {
    inner: MemoryStore,
    script: Arc<Mutex<Vec<u8>>>,
}

impl Flaky {
    fn act(&mut self, work: impl Fn(&mut MemoryStore)) -> Result<(), ProjectionError> {
        let step = self.script.lock().pop().unwrap_or(0);
        match step {
            1 => return Err(ProjectionError::Broken),
            2 => std::panic::resume_unwind(Box::new("told to")),
            _ => work(&mut self.inner),
        }
        if step == 3 { Err(ProjectionError::TimedOut(1)) } else { Ok(()) }
    }
}

impl Store for Flaky {
    fn load(&mut self) -> Result<Checkpoint, ProjectionError> {
        let step = self.script.lock().pop().unwrap_or(0);
        if step == 1 { Err(ProjectionError::Broken) } else { self.inner.load() }
    }

    fn save(&mut self, applied: Cursor, changes: &[Change]) -> Result<(), ProjectionError> {
        self.act(|store| store.save(applied, changes).unwrap())
    }

    fn clear(&mut self) -> Result<(), ProjectionError> {
        self.act(|store| store.clear().unwrap())
    }
}

fn sorted(mut checkpoint: Checkpoint) -> Checkpoint {
    checkpoint.entries.sort();
    checkpoint
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn what_is_saved_in_the_end_is_the_state_whatever_failed(
        script in prop::collection::vec(0_u8..4, 0..24),
        steps in prop::collection::vec(0_u64..60, 1..12),
    ) {
        let mut world = World::new();
        world.grow(200);
        let inner = MemoryStore::new();
        // What lies there from another life must not be mixed in when loading fails.
        let mut first = Runner::open(
            Tally::default(), Box::new(inner.clone()), &world.reader, &World::filters()).unwrap();
        first.checkpoint(world.reader.last()).unwrap();
        let script = Arc::new(Mutex::new(script));
        let store = Flaky { inner: inner.clone(), script: script.clone() };
        // The store's own panics at open are the disk store's to catch, not the runner's.
        if script.lock().iter().rev().nth(1) == Some(&2) {
            script.lock().push(0);
        }
        let mut runner = Runner::open(
            Tally::default(), Box::new(store), &world.reader, &World::filters()).unwrap();
        for step in steps {
            world.grow(step + 1);
            let until = world.feed(&mut runner);
            if step % 2 == 0 {
                let _ = runner.checkpoint(until);
            } else if let Some(save) = runner.begin(until) {
                // More comes while it is saved, and is asked for.
                world.grow(step);
                let until = world.feed(&mut runner);
                prop_assert!(runner.begin(until).is_none());
                let _ = runner.finish(save.run());
            }
            prop_assert_eq!(runner.projection().entries(), world.replayed());
        }
        script.lock().clear();
        for _ in 0..64 {
            let _ = runner.checkpoint(world.reader.last());
        }
        prop_assert_eq!(runner.saved(), world.reader.last());
        let held = inner.clone().load().unwrap();
        prop_assert_eq!(held.entries, runner.projection().entries());
    }
}

#[test]
fn a_store_whose_entries_cannot_be_read_is_emptied_and_filled() {
    let mut world = World::new();
    world.grow(300);
    let mut inner = MemoryStore::new();
    let good = |key: &str| (key.as_bytes().to_vec(), Some(value(&[7, 7])));
    let bad = (b"zzz".to_vec(), Some(b"no tally".to_vec()));
    let changes = [good("key-0001"), good("of another life"), bad];
    inner.save(Cursor::new(100), &changes).unwrap();
    let (store, filters) = (Box::new(inner.clone()), World::filters());
    let mut runner = Runner::open(Tally::default(), store, &world.reader, &filters).unwrap();
    assert!(matches!(runner.restored().failed, Some(ProjectionError::Entry(_))));
    assert_eq!(runner.restored().from, Cursor::START);
    assert_eq!(runner.projection().entries(), world.replayed());
    runner.checkpoint(world.reader.last()).unwrap();
    assert_eq!(inner.load().unwrap().entries, world.replayed());
}

#[derive(Clone, Debug)]
enum Step {
    Save(Vec<(u16, Option<u8>)>),
    Reopen,
    Kill,
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0_u16..400, prop::option::weighted(0.8, any::<u8>()));
    prop_oneof![
        6 => prop::collection::vec(change, 0..200).prop_map(Step::Save),
        2 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        1 => Just(Step::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn sled_holds_what_memory_holds(steps in prop::collection::vec(step(), 1..12)) {
        let id = LogId::from_bytes([1; 16]);
        let mut dir = tempfile::tempdir().unwrap();
        let open = |dir: &TempDir| {
            SledStore::open_with(dir.path(), "p", 1, id, Cursor::new(1000), OPTIONS).unwrap()
        };
        let (mut sled, mut memory) = (open(&dir).store, MemoryStore::new());
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Save(changes) => {
                    let changes: Vec<Change> = changes.into_iter().map(|(key, value)| {
                        let value = value.map(|len| vec![len; usize::from(len) * 3]);
                        (key.to_be_bytes().repeat(1 + usize::from(key % 7)), value)
                    }).collect();
                    let applied = Cursor::new(n as u64 + 1);
                    sled.save(applied, &changes).unwrap();
                    memory.save(applied, &changes).unwrap();
                }
                Step::Reopen => {
                    drop(sled);
                    let opened = open(&dir);
                    prop_assert_eq!(opened.rebuilt, None);
                    sled = opened.store;
                }
                Step::Kill => {
                    let other = tempfile::tempdir().unwrap();
                    copy(dir.path(), other.path());
                    let opened = open(&other);
                    prop_assert_eq!(opened.rebuilt, None);
                    (sled, dir) = (opened.store, other);
                }
                Step::Clear => {
                    sled.clear().unwrap();
                    memory.clear().unwrap();
                }
            }
            prop_assert_eq!(sorted(sled.load().unwrap()), memory.load().unwrap());
        }
    }
}

#[test]
fn entries_above_the_limit_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let id = LogId::from_bytes([1; 16]);
    let mut store = SledStore::open(dir.path(), "p", 1, id, Cursor::START).unwrap().store;
    let most = vec![7; ENTRY_BYTES_MAX];
    store.save(Cursor::START, &[(most.clone(), Some(most.clone()))]).unwrap();
    let too_much = vec![0; ENTRY_BYTES_MAX + 1];
    for change in [(b"k".to_vec(), Some(too_much.clone())), (too_much, None)] {
        let refused = store.save(Cursor::START, &[(b"x".to_vec(), Some(vec![])), change]);
        assert!(matches!(refused, Err(ProjectionError::TooLarge(n)) if n == ENTRY_BYTES_MAX + 1));
    }
    assert_eq!(store.load().unwrap().entries, [(most.clone(), most)]);
}
