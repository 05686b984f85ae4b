//! Failing calls: the log latches at the first one, acknowledges nothing after it, and opens again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod support;

use std::{collections::BTreeMap, io::ErrorKind};

use support::{Choices, Sample, open, read_all};
use tidings_storage::{Error, Flags, NewRecord, SimDisk, sim::Fault};

/// Works through faults; gives what was acknowledged, and whether anything was after the log had latched.
fn work(disk: &SimDisk, seed: u64) -> BTreeMap<u64, Sample> {
    let mut acknowledged = BTreeMap::new();
    let mut choices = Choices(seed);
    let Ok(mut opened) = open(disk) else { return acknowledged };
    let mut latched = false;
    for _ in 0..60 {
        let samples: Vec<Sample> = (0..4).map(|_| Sample::new(&mut choices, 2500)).collect();
        let records: Vec<_> = samples.iter().map(Sample::record).collect();
        let appended =
            opened.log.append(1, &records).and_then(|first| opened.log.sync().map(|_| first));
        match appended {
            Ok(first) => {
                assert!(!latched, "acknowledged after a fault");
                acknowledged.extend((first.get()..).zip(samples));
            }
            Err(Error::Full { .. }) => {}
            Err(_) => {
                latched = true;
                assert!(
                    matches!(opened.log.sync(), Err(Error::Latched(_))),
                    "a sync was tried again"
                );
            }
        }
        for chore in opened.log.chores() {
            // What a chore cannot do is offered again.
            let _ = chore.run();
        }
        let read = read_all(&opened.reader).unwrap();
        assert!(acknowledged.keys().all(|offset| read.contains_key(offset)), "reads go on");
    }
    acknowledged
}

#[test]
fn g6_a_fault_at_any_call_loses_nothing_acknowledged_and_is_never_covered_up() {
    let whole = SimDisk::new(1);
    let all = work(&whole, 1);
    assert_eq!(all.len(), 240);
    let operations = whole.operations();
    for at in 1..=operations {
        for sticky in [false, true] {
            for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
                let disk = SimDisk::new(1);
                disk.fail(Some(Fault { at, sticky, kind }));
                let acknowledged = work(&disk, 1);
                disk.fail(None);
                let opened =
                    open(&disk).unwrap_or_else(|error| panic!("call {at}, {kind}: {error}"));
                let found = read_all(&opened.reader).unwrap();
                for (offset, sample) in &acknowledged {
                    assert_eq!(
                        found.get(offset).map(Sample::of).as_ref(),
                        Some(sample),
                        "call {at}, {kind}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_before_it_writes_keeps_a_reserve_and_recovers() {
    let disk = SimDisk::new(2);
    let mut opened = open(&disk).unwrap();
    let topic = tidings_proto::Topic::parse("a").unwrap();
    let body = vec![7; 3000];
    let data =
        NewRecord { topic: &topic, key: b"", dedupe: None, flags: Flags::EMPTY, body: &body };
    let control = NewRecord { flags: Flags::EMPTY.with_control(true), body: &body[..500], ..data };
    disk.fail(Some(Fault { at: disk.operations() + 1, sticky: false, kind: ErrorKind::Other }));
    disk.fail(None);
    // Every allocation of a new segment fails from here on.
    let mut last = 0;
    loop {
        let operations = disk.operations();
        disk.fail(Some(Fault { at: u64::MAX, sticky: true, kind: ErrorKind::StorageFull }));
        if opened.log.next_offset().get() > 18 {
            disk.fail(Some(Fault {
                at: operations + 1,
                sticky: false,
                kind: ErrorKind::StorageFull,
            }));
        }
        match opened.log.append(1, &[data]) {
            Ok(offset) => last = offset.get(),
            Err(error) => {
                assert!(matches!(error, Error::Full { .. }), "{error}");
                break;
            }
        }
        disk.fail(None);
        opened.log.sync().unwrap();
    }
    disk.fail(None);
    let offset = opened.log.append(1, &[control]).unwrap();
    assert_eq!(offset.get(), last + 1, "the reserve takes control records");
    opened.log.sync().unwrap();
    for _ in 0..5 {
        opened.log.append(1, &[data]).unwrap();
        opened.log.sync().unwrap();
    }
    assert_eq!(read_all(&opened.reader).unwrap().len() as u64, last + 6);
}

#[test]
fn batches_that_cannot_be_stored_are_refused_whole() {
    let disk = SimDisk::new(1);
    let mut opened = open(&disk).unwrap();
    let topic = tidings_proto::Topic::parse("a").unwrap();
    let long_key = [b'k'; 256];
    let record =
        NewRecord { topic: &topic, key: &long_key, dedupe: None, flags: Flags::EMPTY, body: b"" };
    assert!(matches!(opened.log.append(1, &[record]), Err(Error::Batch { .. })));
    assert!(matches!(opened.log.append(1, &[]), Err(Error::Batch { .. })));
    // One that is larger than a segment gets a segment of its own.
    let body = vec![1; 300_000];
    let large = NewRecord { key: b"", body: &body, ..record };
    // Also where the segment it does not fit into is empty.
    for _ in 0..2 {
        opened.log.append(1, &[large, large]).unwrap();
        opened.log.sync().unwrap();
    }
    let written = read_all(&opened.reader).unwrap();
    assert_eq!(written.len(), 4);
    drop(opened);
    let opened = open(&disk).unwrap();
    assert_eq!(read_all(&opened.reader).unwrap(), written);
}

/// A roll that finds no space at any of its calls, acks that go on, and a start afterwards.
#[test]
fn g6_a_roll_without_space_at_any_call_leaves_a_log_that_opens() {
    let topic = tidings_proto::Topic::parse("a").unwrap();
    let body = vec![1; 9_000];
    let data =
        NewRecord { topic: &topic, key: b"", dedupe: None, flags: Flags::EMPTY, body: &body };
    let control = NewRecord { flags: Flags::EMPTY.with_control(true), body: b"ack", ..data };
    for call in 1..40 {
        let disk = SimDisk::new(call);
        let mut opened = open(&disk).unwrap();
        let mut acknowledged = 0;
        let mut step = |opened: &mut tidings_storage::Opened, record: NewRecord<'_>| {
            let appended = opened.log.append(1, &[record]).and_then(|_| opened.log.sync());
            acknowledged = appended.as_ref().map_or(acknowledged, |cursor| cursor.get());
            appended.map(|_| ())
        };
        for _ in 0..5 {
            step(&mut opened, data).unwrap();
        }
        let at = disk.operations() + call;
        disk.fail(Some(Fault { at, sticky: false, kind: ErrorKind::StorageFull }));
        for _ in 0..6 {
            let refused = step(&mut opened, data).err();
            let latched =
                matches!(refused, Some(ref error) if !matches!(error, Error::Full { .. }));
            if latched {
                break;
            }
            let _ = step(&mut opened, control);
        }
        disk.fail(None);
        let _ = step(&mut opened, data);
        drop(opened);
        let opened = open(&disk).unwrap_or_else(|error| panic!("call {call}: {error}"));
        assert!(opened.reader.last().get() >= acknowledged, "call {call}");
        read_all(&opened.reader).unwrap();
    }
}
