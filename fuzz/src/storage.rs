//! The files of a log, as storage/FORMAT.md says them.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use crc_fast::{CrcAlgorithm, Digest};
use tidings_proto::{Cursor, Topic};
use tidings_storage::{
    Error, Flags, Log, NewRecord, Opened, Options, Reader, Record, ScanLimit, SimDisk,
};

type Files = BTreeMap<String, Vec<u8>>;

const SEGMENT: &str = "log/00000000000000000001.log";
const PAGE_BYTES: usize = 4096;
const BATCH_HEADER_BYTES: usize = 64;
const RECORD_HEADER_BYTES: usize = 24;

fn open(disk: &SimDisk) -> Result<Opened, Error> {
    let lost_body = |from, to| format!("{from}-{to}").into_bytes();
    let options =
        Options { segment_bytes: 64 << 10, reserve_bytes: 4096, fill_segments: false, lost_body };
    Log::open(Arc::new(disk.clone()), options)
}

/// The files of a log without an event, and of one with some, and its records.
static LOGS: LazyLock<(Files, Files, BTreeMap<u64, Record>)> = LazyLock::new(|| {
    let disk = SimDisk::new(1);
    open(&disk).unwrap().log.close().unwrap();
    let empty = disk.files();
    let mut log = open(&disk).unwrap().log;
    for n in 0..6_u8 {
        let topic = Topic::parse(if n % 2 == 0 { "a" } else { "b.c" }).unwrap();
        let body = vec![n; usize::from(n) * 9];
        let record = |dedupe| NewRecord {
            topic: &topic,
            key: b"k",
            dedupe,
            flags: Flags::EMPTY,
            body: &body,
        };
        log.append(u64::from(n), &[record(None), record(Some(7))]).unwrap();
        log.sync().unwrap();
    }
    log.close().unwrap();
    let records = read(open(&disk).unwrap()).unwrap();
    (empty, disk.files(), records)
});

/// All that can be read; an error where something is damaged.
fn read(opened: Opened) -> Result<BTreeMap<u64, Record>, Error> {
    let reader: Reader = opened.reader;
    let mut found = BTreeMap::new();
    let mut cursor = Cursor::START;
    while cursor < reader.last() {
        let limit = ScanLimit { events: 100, bytes: 1 << 20 };
        let mut take = |record: Record| drop(found.insert(record.offset.get(), record));
        let next = reader.scan(cursor, reader.last(), None, limit, &mut take)?;
        assert!(next > cursor, "a scan that does not move");
        cursor = next;
    }
    for (offset, record) in &found {
        let one = reader.get(record.offset)?.unwrap();
        assert_eq!((one.offset.get(), &one), (*offset, record));
    }
    Ok(found)
}

/// An even first byte: changes (2 bytes of place, 1 of value, 1 of file) to the files of a log; each record that is read
/// then is the one that was written there. An odd one: the body of a batch, whose checksums are made to hold, or all of
/// them but one.
pub fn records(data: &[u8]) {
    match data.split_first() {
        Some((first, changes)) if first % 2 == 0 => damaged(changes),
        Some((first, body)) => made(*first, body),
        None => {}
    }
}

fn damaged(changes: &[u8]) {
    let (_, files, records) = &*LOGS;
    let mut files = files.clone();
    for change in changes.as_chunks::<4>().0 {
        let count = files.len();
        let Some(bytes) = files.values_mut().nth(usize::from(change[3]) % count) else { continue };
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= change[2];
        }
    }
    let Ok(found) = open(&SimDisk::with_files(1, &files)).and_then(read) else { return };
    for (offset, record) in found {
        // What recovery writes where something is lost stands behind all there was.
        let Some(written) = records.get(&offset) else {
            assert!(record.topic.is_own(), "{record:?}");
            continue;
        };
        assert_eq!(&record, written);
    }
}

/// The checksum of the first record does not hold.
const RECORD_SUM: u8 = 8;
/// That of the batch does not.
const BATCH_SUM: u8 = 16;

/// A log of one batch with this body.
fn made(first: u8, body: &[u8]) {
    let mut files = LOGS.0.clone();
    let segment = files.get_mut(SEGMENT).unwrap();
    let mut body = body.to_vec();
    body.resize(body.len().div_ceil(8) * 8, 0);
    if PAGE_BYTES + BATCH_HEADER_BYTES + body.len() > segment.len() {
        return;
    }
    let id: [u8; 16] = segment[12..28].try_into().unwrap();
    let held = hold(&mut body, &id);
    if first & RECORD_SUM != 0 {
        body.iter_mut().skip(4).take(1).for_each(|byte| *byte ^= 1);
    }
    // So many records as there are, or one that is not.
    let count = held + u32::from(first & 2 != 0);
    let mut header = Vec::new();
    header.extend_from_slice(b"BATC");
    header
        .extend_from_slice(&u32::try_from(BATCH_HEADER_BYTES + body.len()).unwrap().to_le_bytes());
    header.extend_from_slice(&1_u64.to_le_bytes());
    header.extend_from_slice(&count.to_le_bytes());
    header.extend_from_slice(&[u8::from(first & 4 != 0), 0, 1, 0]);
    header.extend_from_slice(&[0; 20]);
    let sum = crc(&[&id, &body]) ^ u32::from(first & BATCH_SUM != 0);
    header.extend_from_slice(&sum.to_le_bytes());
    header.extend_from_slice(&crc(&[&id, &header]).to_le_bytes());
    header.resize(BATCH_HEADER_BYTES, 0);
    let rest = &mut segment[PAGE_BYTES..];
    rest[..BATCH_HEADER_BYTES].copy_from_slice(&header);
    rest[BATCH_HEADER_BYTES..][..body.len()].copy_from_slice(&body);
    let Ok(found) = open(&SimDisk::with_files(1, &files)).and_then(read) else { return };
    // A batch that is none counts as torn off: all that is there then says what may be lost.
    if (count == 0 || first & BATCH_SUM != 0)
        && found.values().all(|record| record.topic.as_str() == "$log.lost")
    {
        return;
    }
    assert!(first & BATCH_SUM == 0, "a batch whose checksum does not hold");
    assert!(held == 0 || first & RECORD_SUM == 0, "a record whose checksum does not hold");
    assert_eq!(found.len(), usize::try_from(count).unwrap(), "all or nothing");
    let numbers: Vec<_> = found.keys().copied().collect();
    assert_eq!(numbers, (1..=u64::from(count)).collect::<Vec<_>>());
    written_again(found);
}

/// Gives the records in a body the checksums that they should have; how many there are.
fn hold(body: &mut [u8], segment: &[u8; 16]) -> u32 {
    let (mut at, mut count) = (0, 0);
    while let Some(&len) = body.get(at..).and_then(<[u8]>::first_chunk) {
        let len = u32::from_le_bytes(len) as usize;
        let Some(record) = body.get_mut(at..at.saturating_add(len)) else { break };
        if len < RECORD_HEADER_BYTES {
            break;
        }
        let rel = u64::from(u32::from_le_bytes(record[8..12].try_into().unwrap()));
        let sum = crc(&[segment, &(1 + rel).to_le_bytes(), &record[8..]]);
        record[4..8].copy_from_slice(&sum.to_le_bytes());
        at += len.div_ceil(8) * 8;
        count += 1;
    }
    count
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    u32::try_from(digest.finalize()).unwrap()
}

/// Records that could be read can be written, and are the same.
fn written_again(found: BTreeMap<u64, Record>) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    for record in found.values() {
        let new = NewRecord {
            topic: &record.topic,
            key: &record.key,
            dedupe: record.dedupe,
            flags: record.flags,
            body: &record.body,
        };
        log.append(record.time_ms, &[new]).unwrap();
        log.sync().unwrap();
    }
    log.close().unwrap();
    let again = read(open(&disk).unwrap()).unwrap();
    // Time does not fall within a log, which sees to that.
    let timeless = |records: BTreeMap<u64, Record>| -> Vec<Record> {
        records.into_values().map(|record| Record { time_ms: 0, ..record }).collect()
    };
    assert_eq!(timeless(again), timeless(found));
}
