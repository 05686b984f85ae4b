//! Every byte of a small log damaged once: found, or (the last batch only) dropped loudly; never a wrong event.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod support;

use std::collections::BTreeMap;

use support::{Choices, Sample, open, read_all};
use tidings_storage::{Record, SimDisk};

type Files = BTreeMap<String, Vec<u8>>;

struct Log {
    files: Files,
    events: BTreeMap<u64, Record>,
    /// The first offset of the last batch.
    last_batch: u64,
}

/// A log of a sealed segment with its index and an active one, 64 KiB of data in all, cleanly closed or killed.
fn small_log(clean: bool) -> Log {
    let disk = SimDisk::new(5);
    let mut choices = Choices(11);
    let mut opened = open(&disk).unwrap();
    let mut last_batch = 1;
    while opened.log.next_offset().get() < 60 || opened.reader.segments() < 2 {
        let samples: Vec<Sample> = (0..3).map(|_| Sample::new(&mut choices, 1500)).collect();
        let records: Vec<_> = samples.iter().map(Sample::record).collect();
        last_batch = opened.log.append(1, &records).unwrap().get();
        opened.log.sync().unwrap();
        opened.log.chores().into_iter().for_each(|chore| chore.run().unwrap());
    }
    let events = read_all(&opened.reader).unwrap();
    if clean {
        opened.log.close().unwrap();
    }
    let mut files = disk.files();
    // The zeros behind the end say nothing: a page of them is enough.
    for (name, bytes) in &mut files {
        if name.ends_with(".log") {
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            bytes.truncate((end + 1).next_multiple_of(8) + 512);
        }
    }
    Log { files, events, last_batch }
}

/// Opens the damaged files. What is read must be what was written; what is missing must have been said.
fn check(log: &Log, files: &Files, what: &str) {
    let disk = SimDisk::with_files(7, files);
    let Ok(opened) = open(&disk) else { return };
    let Ok(found) = read_all(&opened.reader) else { return };
    for (offset, record) in &found {
        match log.events.get(offset) {
            Some(written) => {
                assert_eq!(record, written, "{what}: offset {offset} is another event")
            }
            None => assert_eq!(
                record.topic.as_str(),
                "$log.lost",
                "{what}: offset {offset} was never written"
            ),
        }
    }
    for offset in log.events.keys().filter(|offset| !found.contains_key(offset)) {
        let said = opened.recovery.lost.is_some_and(|(from, to)| (from..=to).contains(offset));
        let said = said || opened.recovery.log_id_changed;
        assert!(said, "{what}: offset {offset} is gone and nothing says so");
        assert!(
            *offset >= log.last_batch || opened.recovery.log_id_changed,
            "{what}: offset {offset} was not in the last batch"
        );
    }
    if let Some((_, to)) = opened.recovery.lost {
        assert!(opened.log.next_offset().get() > to, "{what}: lost offsets are used again");
        assert!(
            to >= *log.events.keys().next_back().unwrap(),
            "{what}: an offset of the cut batch is used again"
        );
    }
}

#[test]
fn g7_a_manifest_that_is_gone_or_older_deletes_nothing() {
    let log = small_log(true);
    let segments = |files: &Files| files.keys().filter(|name| name.ends_with(".log")).count();
    // An older manifest: as it was with one segment.
    let one = SimDisk::new(5);
    drop(open(&one).unwrap());
    let mut older = log.files.clone();
    older.insert("manifest".to_owned(), one.files()["manifest"].clone());
    let mut gone = log.files.clone();
    gone.remove("manifest");
    for (files, what) in [(gone, "gone"), (older, "older")] {
        let disk = SimDisk::with_files(7, &files);
        assert!(open(&disk).is_err(), "{what}");
        assert_eq!(segments(&disk.files()), segments(&log.files), "{what}: a segment is deleted");
    }
}

#[test]
fn g7_every_byte_flipped_once_is_found_or_dropped_loudly() {
    for clean in [true, false] {
        let log = small_log(clean);
        let data: usize = log
            .files
            .iter()
            .filter(|(name, _)| name.ends_with(".log"))
            .map(|(_, bytes)| bytes.len())
            .sum();
        assert!(data >= 64 << 10, "only {data} bytes of segments");
        check(&log, &log.files, "undamaged");
        let mut files = log.files.clone();
        for name in log.files.keys() {
            for at in 0..log.files[name].len() {
                let mask = [0x01, 0x80, 0xff][at % 3];
                files.get_mut(name).unwrap()[at] ^= mask;
                check(&log, &files, &format!("{name} byte {at} ^ {mask:#x}, clean {clean}"));
                files.get_mut(name).unwrap()[at] ^= mask;
            }
        }
    }
}

#[test]
fn g7_a_file_cut_anywhere_is_found_or_dropped_loudly() {
    for clean in [true, false] {
        let log = small_log(clean);
        for name in log.files.keys() {
            let len = log.files[name].len();
            for cut in (0..len).step_by(61) {
                let mut files = log.files.clone();
                files.get_mut(name).unwrap().truncate(cut);
                check(&log, &files, &format!("{name} cut to {cut} of {len}"));
            }
        }
    }
}

#[test]
fn g7_blocks_zeroed_or_swapped_are_found() {
    let log = small_log(true);
    for name in log.files.keys().filter(|name| name.ends_with(".log")) {
        let blocks = log.files[name].len() / 512;
        for block in 0..blocks {
            let mut zeroed = log.files.clone();
            zeroed.get_mut(name).unwrap()[block * 512..(block + 1) * 512].fill(0);
            check(&log, &zeroed, &format!("{name} block {block} zeroed"));
            let mut swapped = log.files.clone();
            let other = (block * 7 + 3) % blocks;
            let bytes = swapped.get_mut(name).unwrap();
            for n in 0..512 {
                bytes.swap(block * 512 + n, other * 512 + n);
            }
            check(&log, &swapped, &format!("{name} blocks {block} and {other} swapped"));
        }
    }
}

#[test]
fn g7_a_segment_of_another_log_is_refused() {
    let log = small_log(true);
    let other = {
        let disk = SimDisk::new(99);
        let opened = open(&disk).unwrap();
        opened.log.close().unwrap();
        disk.files()
    };
    let name = log.files.keys().find(|name| name.ends_with("1.log")).unwrap();
    let mut files = log.files.clone();
    files.insert(name.clone(), other[name].clone());
    assert!(open(&SimDisk::with_files(1, &files)).is_err());
    files.remove(name);
    assert!(open(&SimDisk::with_files(1, &files)).is_err(), "a missing segment is said");
}
