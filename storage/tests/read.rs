//! Reads by filter, counts, times and ids, against plain models.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod support;

use proptest::prelude::*;
use support::{Choices, Sample, open, read_all};
use tidings_proto::{Cursor, Filter, Filters, Topic};
use tidings_storage::{Behind, Flags, NewRecord, Opened, ScanLimit, SimDisk};

/// A log of a few segments; times rise by 10 a batch.
fn filled(seed: u64, batches: u64, body_max: u64, index_files: bool) -> (SimDisk, Opened) {
    let disk = SimDisk::new(seed);
    let mut choices = Choices(seed);
    let mut opened = open(&disk).unwrap();
    for n in 0..batches {
        let samples: Vec<Sample> =
            (0..=choices.below(20)).map(|_| Sample::new(&mut choices, body_max)).collect();
        let records: Vec<_> = samples.iter().map(Sample::record).collect();
        opened.log.append(n * 10, &records).unwrap();
        opened.log.sync().unwrap();
        if index_files {
            opened.log.chores().into_iter().for_each(|chore| chore.run().unwrap());
        }
    }
    (disk, opened)
}

fn filters() -> impl Strategy<Value = Filters> {
    let filter =
        prop::sample::select(vec!["a", "b", "a.*", "a.>", ">", "*", "c.*.e", "nothing.>", "*.x"]);
    prop::collection::vec(filter, 1..4).prop_map(|texts| {
        Filters::new(texts.iter().map(|text| Filter::parse(text).unwrap()).collect()).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn a_filtered_scan_finds_what_a_plain_scan_and_the_matcher_find(
        seed in 1..1000_u64, filters in filters(), after in 0..400_u64, span in 0..600_u64, events in 1..80_usize, index_files: bool,
    ) {
        let (disk, opened) = filled(seed, 40, 900, index_files);
        let all = read_all(&opened.reader).unwrap();
        let (after, until) = (Cursor::new(after), Cursor::new(after + span));
        let wanted: Vec<u64> = all.values()
            .filter(|record| record.offset.get() > after.get() && record.offset.get() <= until.get())
            .filter(|record| filters.matches(record.topic.as_str()))
            .map(|record| record.offset.get())
            .collect();
        // Once more after a restart, when the indexes come from files or from a scan.
        drop(opened.log);
        let reopened = open(&disk).unwrap();
        for reader in [&opened.reader, &reopened.reader] {
            let mut found = Vec::new();
            let mut cursor = after;
            let end = until.min(reader.last());
            while cursor < end {
                let limit = ScanLimit { events, bytes: 1 << 20 };
                let mut cached = Vec::new();
                let at_once = reader.scan_cached(cursor, end, &filters, limit, &mut |record| cached.push(record.offset.get()));
                let next = match at_once {
                    Some(next) => {
                        found.append(&mut cached);
                        next
                    }
                    None => reader.scan(cursor, end, Some(&filters), limit, &mut |record| found.push(record.offset.get())).unwrap(),
                };
                prop_assert!(next > cursor, "a scan stands still at {:?}", cursor);
                cursor = next;
            }
            prop_assert_eq!(&found, &wanted);
            prop_assert_eq!(reader.count(&filters, after, until).unwrap(), wanted.len() as u64);
            // The four lanes are the same events, each with its priority.
            let mut of_lanes = Vec::new();
            for priority in 0..4 {
                let mut cursor = after;
                while cursor < end {
                    let (found, next) = reader.lane(cursor, end, &filters, priority, events).unwrap();
                    prop_assert!(next > cursor && found.len() <= events, "a lane stands still at {:?}", cursor);
                    prop_assert!(found.iter().all(|offset| all[&offset.get()].flags.priority() == priority));
                    of_lanes.extend(found.iter().map(|offset| offset.get()));
                    cursor = next;
                }
            }
            // And those with receipts.
            let (mut cursor, mut of_receipts) = (after, Vec::new());
            while cursor < end {
                let (found, next) = reader.with_receipts(cursor, end, &filters, events).unwrap();
                prop_assert!(next > cursor && found.len() <= events, "it stands still at {:?}", cursor);
                of_receipts.extend(found.iter().map(|offset| offset.get()));
                cursor = next;
            }
            let with_receipts = wanted.iter().copied().filter(|offset| all[offset].flags.receipts());
            prop_assert_eq!(of_receipts, with_receipts.collect::<Vec<_>>());
            of_lanes.sort_unstable();
            prop_assert_eq!(&of_lanes, &wanted);
            // What lies behind a cursor, with all the looks there are and with few.
            let mut behind = all.values().map(|record| (record.offset, &record.topic)).filter(|(offset, topic)| {
                offset.get() > after.get() && filters.matches(topic.as_str())
            }).map(|(offset, _)| offset);
            let (first, count) = (behind.next(), behind.count() as u64);
            let count = count + u64::from(first.is_some());
            let mut looks = usize::MAX;
            let found = reader.behind(&filters, after, &mut looks).unwrap();
            prop_assert_eq!(found, Behind { records: count, first, exact: true });
            let mut looks = events * 10;
            let found = reader.behind(&filters, after, &mut looks).unwrap();
            prop_assert!(found.records >= count, "{:?} of {}", found, count);
            prop_assert!(!found.exact || found.records == count);
        }
        prop_assert_eq!(read_all(&reopened.reader).unwrap(), all);
    }
}

#[test]
fn an_index_made_again_equals_the_one_written() {
    let (disk, opened) = filled(3, 80, 900, true);
    assert!(opened.reader.segments() > 2);
    opened.log.close().unwrap();
    let files = disk.files();
    let mut without = files.clone();
    without.retain(|name, _| !name.ends_with(".idx"));
    let rebuilt = SimDisk::with_files(1, &without);
    let opened = open(&rebuilt).unwrap();
    assert!(opened.recovery.rebuilt_indexes > 1);
    let again = rebuilt.files();
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".idx")) {
        assert_eq!(&again[name], bytes, "{name}");
    }
}

#[test]
fn topics_are_listed_and_counted() {
    let (_, opened) = filled(4, 60, 900, true);
    let all = read_all(&opened.reader).unwrap();
    let topics = opened.reader.topics(&Filter::parse(">").unwrap(), None, 100);
    assert_eq!(
        topics.iter().map(|info| info.topic.as_str()).collect::<Vec<_>>(),
        ["a", "a.x", "a.y", "b", "c.d.e"]
    );
    for info in &topics {
        let of_topic: Vec<u64> = all
            .values()
            .filter(|record| record.topic == info.topic)
            .map(|record| record.offset.get())
            .collect();
        assert_eq!(
            (info.first.get(), info.last.get(), info.count),
            (of_topic[0], *of_topic.last().unwrap(), of_topic.len() as u64)
        );
        assert_eq!(opened.log.topic_last(&info.topic), Some(info.last));
    }
    let page = opened.reader.topics(&Filter::parse("a.>").unwrap(), Some("a.x"), 100);
    assert_eq!(page.iter().map(|info| info.topic.as_str()).collect::<Vec<_>>(), ["a.y"]);
    assert_eq!(opened.reader.topics(&Filter::parse("b").unwrap(), None, 1).len(), 1);
    assert!(opened.reader.topic("zzz").is_none());
}

#[test]
fn a_time_gives_the_cursor_before_its_first_event() {
    let (disk, opened) = filled(6, 120, 900, true);
    let all = read_all(&opened.reader).unwrap();
    drop(opened.log);
    let reopened = open(&disk).unwrap();
    for time_ms in (0..1250).step_by(5) {
        let wanted = all
            .values()
            .find(|record| record.time_ms >= time_ms)
            .map_or(reopened.reader.last(), |record| record.offset.before());
        assert_eq!(opened.reader.at_time(time_ms).unwrap(), wanted, "{time_ms}");
        assert_eq!(reopened.reader.at_time(time_ms).unwrap(), wanted, "{time_ms}");
    }
}

#[test]
fn a_time_is_found_behind_a_torn_tail_and_after_a_start() {
    let disk = SimDisk::new(3);
    let topic = tidings_proto::Topic::parse("a").unwrap();
    let record =
        NewRecord { topic: &topic, key: b"", dedupe: None, flags: Flags::EMPTY, body: b"x" };
    let mut opened = open(&disk).unwrap();
    for time in [100, 150, 200] {
        opened.log.append(time, &[record]).unwrap();
        opened.log.sync().unwrap();
    }
    // A tail that is torn: the record that names what is lost stands behind all that is there.
    opened.log.append(300, &[record]).unwrap();
    drop(opened);
    let mut files = disk.files();
    let bytes = files.get_mut("log/00000000000000000001.log").unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end] ^= 1;
    let opened = open(&SimDisk::with_files(4, &files)).unwrap();
    assert!(opened.recovery.lost.is_some());
    assert_eq!(opened.log.last_time_ms(), 200);
    assert_eq!(opened.reader.at_time(150).unwrap().get(), 1);
    assert_eq!(opened.reader.at_time(200).unwrap().get(), 2);
}

#[test]
fn ids_are_found_in_every_segment_newest_first() {
    let (disk, opened) = filled(8, 120, 900, true);
    let all = read_all(&opened.reader).unwrap();
    let check = |log: &tidings_storage::Log| {
        for hash in 0..60 {
            let mut wanted: Vec<u64> = all
                .values()
                .filter(|record| record.dedupe == Some(hash))
                .map(|record| record.offset.get())
                .collect();
            wanted.reverse();
            let found: Vec<u64> =
                log.find_dedupe(hash).unwrap().iter().map(|record| record.offset.get()).collect();
            assert_eq!(found, wanted, "{hash}");
        }
    };
    check(&opened.log);
    drop(opened);
    check(&open(&disk).unwrap().log);
}

#[test]
fn nothing_is_visible_before_it_is_synced() {
    let mut opened = open(&SimDisk::new(1)).unwrap();
    let topic = Topic::parse("a").unwrap();
    let record =
        NewRecord { topic: &topic, key: b"", dedupe: Some(1), flags: Flags::EMPTY, body: b"x" };
    let offset = opened.log.append(1, &[record]).unwrap();
    assert_eq!(opened.reader.get(offset).unwrap(), None);
    assert_eq!((opened.reader.last(), opened.reader.topic("a")), (Cursor::START, None));
    assert_eq!(
        (opened.log.topic_last(&topic), opened.log.find_dedupe(1).unwrap().len()),
        (Some(offset), 1)
    );
    assert_eq!(opened.log.sync().unwrap(), offset.cursor());
    assert_eq!(opened.reader.get(offset).unwrap().unwrap().body, "x");
}

#[test]
fn the_newest_event_of_a_topic_and_of_a_key_is_found() {
    for index_files in [false, true] {
        let (disk, mut opened) = filled(11, 120, 900, index_files);
        let all = read_all(&opened.reader).unwrap();
        // Not durable: nobody sees it, and it hides nothing.
        let newer = all.values().find(|record| !record.key.is_empty()).unwrap();
        opened
            .log
            .append(
                9_999,
                &[NewRecord {
                    topic: &newer.topic,
                    key: &newer.key,
                    dedupe: None,
                    flags: Flags::EMPTY,
                    body: b"not yet",
                }],
            )
            .unwrap();
        let check = |reader: &tidings_storage::Reader| {
            let all = read_all(reader).unwrap();
            let mut wanted: std::collections::BTreeMap<(Topic, Option<Vec<u8>>), _> =
                std::collections::BTreeMap::new();
            for record in all.values() {
                let key = (!record.key.is_empty()).then(|| record.key.to_vec());
                for key in [None, key] {
                    wanted.insert((record.topic.clone(), key), record);
                }
            }
            assert!(wanted.len() > 10);
            for ((topic, key), record) in &wanted {
                let found = reader.last_on(topic, key.as_deref()).unwrap();
                assert_eq!(found.as_ref(), Some(*record), "{topic} {key:?}");
                assert_eq!(reader.last_on(topic, Some(b"no such key")).unwrap(), None);
            }
            let unknown = Topic::parse("unknown").unwrap();
            assert_eq!(reader.last_on(&unknown, None).unwrap(), None);
        };
        check(&opened.reader);
        drop(opened.log);
        // A whole batch stays, also one that nobody was told of: now it is the newest.
        check(&open(&disk).unwrap().reader);
    }
}
