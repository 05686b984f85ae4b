//! Events taken out of the log: what stays keeps its offset and is found in every way; a crash or a failing call
//! anywhere leaves the segment as it was or as it was to be.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    missing_docs,
    reason = "tests"
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
};

use support::{Choices, Sample, open, read_all};
use tidings_proto::{Cursor, Filter, Filters, Offset, Topic};
use tidings_storage::{Error, Fate, Opened, ScanLimit, SimDisk, Why, sim::Fault, verify};

/// What is to be there, with the time of each.
type Model = BTreeMap<u64, (u64, Sample)>;

fn run_chores(opened: &mut Opened) {
    for chore in opened.log.chores() {
        chore.run().unwrap();
    }
}

/// A log of several sealed segments with their indexes, and an active one.
fn fill(disk: &SimDisk, seed: u64, batches: u64) -> Model {
    let mut model = Model::new();
    let mut choices = Choices(seed);
    let mut opened = open(disk).unwrap();
    for batch in 0..batches {
        let samples: Vec<Sample> =
            (0..=choices.below(8)).map(|_| Sample::new(&mut choices, 2000)).collect();
        let records: Vec<_> = samples.iter().map(Sample::record).collect();
        let first = opened.log.append(1000 + batch, &records).unwrap().get();
        opened.log.sync().unwrap();
        model.extend((first..).zip(samples).map(|(at, sample)| (at, (1000 + batch, sample))));
        run_chores(&mut opened);
    }
    opened.log.close().unwrap();
    model
}

/// What becomes of an offset in a step: mostly it goes.
fn fate_of(offset: u64, step: u64) -> Fate {
    match Choices(offset * 7919 + step).below(8) {
        0 | 1 => Fate::Keep,
        2 => Fate::Pass,
        _ => Fate::Trim,
    }
}

/// One step: a sealed segment dropped or rewritten. Gives what is gone then.
fn step(opened: &Opened, n: u64, model: &mut Model) -> Result<(), Error> {
    let sealed = opened.trimmer.sealed();
    let Some(chosen) = sealed.get(Choices(n).below(sealed.len().max(1) as u64) as usize) else {
        return Ok(());
    };
    let inside = chosen.base..chosen.end;
    if n.is_multiple_of(3) {
        opened.trimmer.drop_segments(&[chosen.base], n, &|_| Fate::Trim)?;
        model.retain(|offset, _| !inside.contains(offset));
    } else {
        opened.trimmer.rewrite(chosen.base, n, &mut |seen| fate_of(seen.offset.get(), n))?;
        model.retain(|offset, _| !inside.contains(offset) || fate_of(*offset, n) == Fate::Keep);
    }
    Ok(())
}

fn one(filter: &str) -> Filters {
    Filters::one(Filter::parse(filter).unwrap())
}

/// Everything that is asked of a log, against the model.
fn check(opened: &Opened, model: &Model, all: &Model, what: &str) {
    let reader = &opened.reader;
    let found: Model = read_all(reader)
        .unwrap()
        .iter()
        .map(|(at, record)| (*at, (record.time_ms, Sample::of(record))))
        .collect();
    assert_eq!(found, *model, "{what}");
    let first = model.keys().next().copied().unwrap_or(reader.last().get() + 1);
    assert_eq!(reader.first().get(), first, "{what}: the first there is");
    for at in 1..=reader.last().get() + 1 {
        let got = reader.get(Offset::new(at).unwrap()).unwrap();
        let want = model.get(&at).map(|(_, sample)| sample.clone());
        assert_eq!(got.as_ref().map(Sample::of), want, "{what}: {at}");
    }
    for filter in ["a", "b", "a.*", "c.>", ">"] {
        let parsed = Filter::parse(filter).unwrap();
        let matching: Vec<u64> = model
            .iter()
            .filter(|(_, (_, sample))| parsed.matches(sample.topic.as_str()))
            .map(|(at, _)| *at)
            .collect();
        let mut seen = Vec::new();
        let mut cursor = Cursor::START;
        while cursor < reader.last() {
            let limit = ScanLimit { events: 7, bytes: 1 << 20 };
            let filters = one(filter);
            cursor = reader
                .scan(cursor, reader.last(), Some(&filters), limit, &mut |record| {
                    seen.push(record.offset.get());
                })
                .unwrap();
        }
        assert_eq!(seen, matching, "{what}: scan {filter}");
        for after in [0, 5, reader.last().get() / 2] {
            let behind = matching.iter().filter(|at| **at > after).count() as u64;
            let cursor = Cursor::new(after);
            let count = reader.count(&one(filter), cursor, reader.last()).unwrap();
            assert_eq!(count, behind, "{what}: count {filter} behind {after}");
            let lag = reader.behind(&one(filter), cursor, &mut 100_000).unwrap();
            assert_eq!((lag.records, lag.exact), (behind, true), "{what}: lag {filter} {after}");
        }
    }
    check_topics(opened, model, all, what);
    check_ids(opened, model, what);
    for time in [0, 1003, 1010, 1030, 2000] {
        let want = model.iter().find(|(_, (at, _))| *at >= time).map(|(at, _)| *at);
        let cursor = reader.at_time(time).unwrap();
        let next = model.keys().find(|at| **at > cursor.get()).copied();
        assert_eq!(next, want, "{what}: the first at {time}");
    }
}

fn check_topics(opened: &Opened, model: &Model, all: &Model, what: &str) {
    let topics: BTreeSet<&Topic> = all.values().map(|(_, sample)| &sample.topic).collect();
    for topic in topics {
        let of = |model: &Model| -> Vec<u64> {
            let on = model.iter().filter(|(_, (_, sample))| sample.topic == *topic);
            on.map(|(at, _)| *at).collect()
        };
        let left = of(model);
        let info = opened.reader.topic(topic.as_str());
        assert_eq!(info.is_none(), left.is_empty(), "{what}: {topic}");
        if let Some(info) = info {
            let found = (info.first.get(), info.last.get(), info.count);
            assert_eq!(
                found,
                (left[0], *left.last().unwrap(), left.len() as u64),
                "{what}: {topic}"
            );
        }
        let newest = opened.reader.last_on(topic, None).unwrap();
        assert_eq!(newest.map(|record| record.offset.get()), left.last().copied(), "{what}");
        for len in 1..4 {
            let key = vec![b'k'; len];
            let want = left.iter().rfind(|at| model[at].1.key == key).copied();
            let found = opened.reader.last_on(topic, Some(&key)).unwrap();
            assert_eq!(found.map(|record| record.offset.get()), want, "{what}: {topic} key {len}");
        }
        let ever = of(all).last().copied();
        let last = opened.log.topic_last(topic).map(Offset::get);
        assert_eq!(last, ever, "{what}: the last offset {topic} ever had");
    }
}

fn check_ids(opened: &Opened, model: &Model, what: &str) {
    for hash in 0..50 {
        let mut want: Vec<u64> = model
            .iter()
            .filter(|(_, (_, sample))| sample.dedupe == Some(hash))
            .map(|(at, _)| *at)
            .collect();
        want.reverse();
        let found = opened.log.find_dedupe(hash).unwrap();
        let found: Vec<u64> = found.iter().map(|record| record.offset.get()).collect();
        assert_eq!(found, want, "{what}: id {hash}");
    }
}

/// Nothing goes that a reader of its topic is not told of, but for what means nothing to anybody.
fn check_told(opened: &Opened, model: &Model, all: &Model, untold: &BTreeSet<u64>) {
    for (at, (_, sample)) in all {
        if !model.contains_key(at) && !untold.contains(at) {
            let gone = opened.reader.trimmed(&one(sample.topic.as_str()), Cursor::new(at - 1));
            assert_eq!(
                gone.map(|(why, _)| why),
                Some(Why::Retention),
                "{at} on {} is gone",
                sample.topic
            );
        }
    }
}

#[test]
fn what_stays_is_found_in_every_way_and_what_goes_in_none() {
    for seed in 1..8 {
        let disk = SimDisk::new(seed);
        let all = fill(&disk, seed, 60);
        let mut model = all.clone();
        let mut untold = BTreeSet::new();
        let mut opened = open(&disk).unwrap();
        for n in 0..12 {
            let before = model.clone();
            step(&opened, seed * 100 + n, &mut model).unwrap();
            let passed = |at: &&u64| fate_of(**at, seed * 100 + n) == Fate::Pass;
            let gone = before.keys().filter(|at| !model.contains_key(at)).filter(passed);
            if !(seed * 100 + n).is_multiple_of(3) {
                untold.extend(gone.copied());
            }
            check(&opened, &model, &all, &format!("seed {seed} step {n}"));
            check_told(&opened, &model, &all, &untold);
            if n % 4 == 3 {
                drop(opened);
                opened = open(&disk).unwrap();
                check(&opened, &model, &all, &format!("seed {seed} step {n}, after a start"));
                check_told(&opened, &model, &all, &untold);
            }
        }
        drop(opened);
        let damage = verify(&disk, &mut |finding| panic!("{finding:?}")).unwrap();
        assert_eq!(damage.events, model.len() as u64);
        // Without any index file all of it is made again from the segments.
        let mut files = disk.files();
        files.retain(|name, _| !name.ends_with(".idx"));
        let opened = open(&SimDisk::with_files(seed, &files)).unwrap();
        check(&opened, &model, &all, &format!("seed {seed} without indexes"));
    }
}

#[test]
fn a_rewritten_segment_that_lost_its_end_is_found() {
    let disk = SimDisk::new(3);
    fill(&disk, 3, 60);
    let opened = open(&disk).unwrap();
    let base = opened.trimmer.sealed()[1].base;
    opened.trimmer.rewrite(base, 1, &mut |seen| fate_of(seen.offset.get(), 1)).unwrap();
    drop(opened);
    let mut files = disk.files();
    files.retain(|name, _| !name.ends_with(".idx"));
    let log = files.get_mut(&format!("log/{base:020}.1.log")).unwrap();
    // Whole batches, as a file system may lose them: nothing but the count says so.
    log.truncate(4096);
    assert!(matches!(open(&SimDisk::with_files(1, &files)), Err(Error::Corrupt { .. })));
}

#[test]
fn a_reader_in_the_middle_of_a_segment_that_goes_reads_on() {
    let disk = SimDisk::new(5);
    let all = fill(&disk, 5, 40);
    let opened = open(&disk).unwrap();
    let sealed = opened.trimmer.sealed();
    let (mut seen, limit) = (Vec::new(), ScanLimit { events: usize::MAX, bytes: usize::MAX });
    let last = Cursor::new(sealed[0].end - 1);
    let reached = opened.reader.scan(Cursor::START, last, None, limit, &mut |record| {
        if seen.is_empty() {
            opened.trimmer.drop_segments(&[sealed[0].base], 1, &|_| Fate::Trim).unwrap();
        }
        seen.push(record.offset.get());
    });
    assert_eq!(reached.unwrap(), last);
    assert_eq!(seen, all.keys().copied().take_while(|at| *at < sealed[0].end).collect::<Vec<_>>());
    assert!(!disk.files().contains_key("log/00000000000000000001.log"));
}

#[test]
fn an_erased_topic_begins_anew_and_its_bytes_are_in_no_file() {
    let disk = SimDisk::new(9);
    let all = fill(&disk, 9, 40);
    let mut opened = open(&disk).unwrap();
    assert!(opened.log.seal().unwrap());
    run_chores(&mut opened);
    assert!(!opened.log.seal().unwrap(), "an empty one is not sealed");
    for sealed in opened.trimmer.sealed() {
        let erase = &mut |seen: &tidings_storage::Seen<'_>| match seen.topic {
            "a.x" => Fate::Erase,
            _ => Fate::Keep,
        };
        opened.trimmer.rewrite(sealed.base, 1, erase).unwrap();
    }
    let topic = Topic::parse("a.x").unwrap();
    assert_eq!(opened.log.topic_last(&topic), None);
    let erased = opened.reader.trimmed(&one("a.*"), Cursor::new(1));
    assert_eq!(erased.map(|(why, _)| why), Some(Why::Erased));
    assert_eq!(opened.reader.trimmed(&one("a.y"), Cursor::new(1)), None);
    let files = disk.files();
    for (_, sample) in all.values().filter(|(_, sample)| sample.topic == topic) {
        let Some(needle) = sample.body.get(..24) else { continue };
        for (name, bytes) in &files {
            assert!(!bytes.windows(24).any(|window| window == needle), "{name} has it still");
        }
    }
    drop(opened);
    let opened = open(&disk).unwrap();
    assert_eq!(opened.log.topic_last(&topic), None, "after a start");
}

#[test]
fn a_key_is_replaced_by_a_newer_one_wherever_that_is() {
    for seed in 1..5 {
        let disk = SimDisk::new(seed);
        let all = fill(&disk, seed, 60);
        let opened = open(&disk).unwrap();
        for sealed in opened.trimmer.sealed() {
            let want: Vec<u64> = all
                .range(sealed.base..sealed.end)
                .filter(|(at, (_, old))| {
                    !old.key.is_empty()
                        && old.topic.as_str() != "b"
                        && all
                            .range(*at + 1..)
                            .any(|(_, (_, new))| new.topic == old.topic && new.key == old.key)
                })
                .map(|(at, _)| *at)
                .collect();
            let found = opened.trimmer.replaced(sealed.base, &mut |topic| topic != "b").unwrap();
            let found: Vec<u64> = found.iter().map(|at| at.get()).collect();
            assert_eq!(found, want, "seed {seed}, segment {}", sealed.base);
        }
    }
}

/// What was there before and after the step that was cut off.
fn work(disk: &SimDisk, seed: u64, all: &Model) -> (Model, Model) {
    let mut before = all.clone();
    let Ok(opened) = open(disk) else { return (before.clone(), before) };
    for n in 0..5 {
        let mut after = before.clone();
        // The model says what it would be.
        let sealed = opened.trimmer.sealed();
        let worked = step(&opened, seed + n, &mut after);
        if worked.is_err() {
            let chosen = sealed[Choices(seed + n).below(sealed.len() as u64) as usize];
            let inside = chosen.base..chosen.end;
            let stays =
                |at: &u64| !(seed + n).is_multiple_of(3) && fate_of(*at, seed + n) == Fate::Keep;
            after = before.clone();
            after.retain(|at, _| !inside.contains(at) || stays(at));
            return (before, after);
        }
        before = after;
    }
    (before.clone(), before)
}

fn check_one_of(disk: &SimDisk, before: &Model, after: &Model, what: &str) {
    let opened = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = read_all(&opened.reader).unwrap();
    let is = |model: &Model| {
        found.len() == model.len()
            && found.iter().all(|(at, record)| {
                model.get(at).is_some_and(|(_, sample)| *sample == Sample::of(record))
            })
    };
    assert!(is(before) || is(after), "{what}: neither the old nor the new");
    assert!(opened.recovery.lost.is_none() && !opened.recovery.log_id_changed, "{what}");
    for sample in [before, after].iter().flat_map(|model| model.values()).map(|(_, sample)| sample)
    {
        let last = opened.log.topic_last(&sample.topic);
        assert!(last.is_some(), "{what}: {} is forgotten", sample.topic);
    }
    let mut reopened = opened;
    let mut model: Model =
        found.iter().map(|(at, record)| (*at, (record.time_ms, Sample::of(record)))).collect();
    // It goes on: more is written, more is taken out.
    let topic = Topic::parse("b").unwrap();
    let more = Sample { topic, key: vec![], dedupe: None, body: vec![1; 50] };
    let offset = reopened.log.append(5000, &[more.record()]).unwrap().get();
    reopened.log.sync().unwrap();
    model.insert(offset, (5000, more));
    step(&reopened, 1, &mut model).unwrap();
    step(&reopened, 3, &mut model).unwrap();
    assert_eq!(read_all(&reopened.reader).unwrap().len(), model.len(), "{what}: it goes on");
}

#[test]
fn a_crash_at_any_call_leaves_the_old_segment_or_the_new_one() {
    let mut crashes = 0;
    for seed in [10, 21, 32] {
        let base = SimDisk::new(seed);
        let all = fill(&base, seed, 40);
        let files = base.files();
        let whole = SimDisk::with_files(seed, &files);
        work(&whole, seed, &all);
        for at in 1..=whole.operations() {
            for variant in 0..3 {
                let disk = SimDisk::with_files(seed, &files);
                disk.crash_at(at);
                let (before, after) = work(&disk, seed, &all);
                let left = disk.crash(seed ^ at << 8 ^ variant);
                check_one_of(&left, &before, &after, &format!("seed {seed} call {at}.{variant}"));
                crashes += 1;
            }
        }
    }
    println!("{crashes} crash points");
}

#[test]
fn a_failing_call_leaves_a_log_that_reads_writes_and_opens() {
    let seed = 43;
    let base = SimDisk::new(seed);
    let all = fill(&base, seed, 40);
    let files = base.files();
    let whole = SimDisk::with_files(seed, &files);
    drop(open(&whole).unwrap());
    let opening = whole.operations();
    let whole = SimDisk::with_files(seed, &files);
    work(&whole, seed, &all);
    for at in opening + 1..=whole.operations() {
        for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
            for sticky in [false, true] {
                let disk = SimDisk::with_files(seed, &files);
                disk.fail(Some(Fault { at, sticky, kind }));
                let (before, after) = work(&disk, seed, &all);
                disk.fail(None);
                let what = format!("call {at} {kind} {sticky}");
                check_one_of(&disk, &before, &after, &what);
            }
        }
    }
}
