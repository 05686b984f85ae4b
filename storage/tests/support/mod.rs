//! What the tests of the log share: small logs on simulated disks.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "a test's helper"
)]

use std::{collections::BTreeMap, sync::Arc};

use tidings_proto::{Cursor, Topic};
use tidings_storage::{
    Error, Flags, Log, NewRecord, Opened, Options, Reader, Record, ScanLimit, SimDisk,
};

pub const SEGMENT_BYTES: u64 = 64 << 10;

/// A small, seeded source of choices (SplitMix64).
pub struct Choices(pub u64);

impl Choices {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

pub fn options() -> Options {
    let lost_body = |from, to| format!("{from}-{to}").into_bytes();
    Options { segment_bytes: SEGMENT_BYTES, reserve_bytes: 4096, fill_segments: false, lost_body }
}

pub fn open(disk: &SimDisk) -> Result<Opened, Error> {
    Log::open(Arc::new(disk.clone()), options())
}

/// An event of a test: enough to tell it from every other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub topic: Topic,
    pub key: Vec<u8>,
    pub dedupe: Option<u64>,
    pub body: Vec<u8>,
}

impl Sample {
    pub fn new(choices: &mut Choices, body_max: u64) -> Sample {
        let topic = ["a", "b", "a.x", "a.y", "c.d.e"][choices.below(5) as usize];
        let len = choices.below(body_max);
        Sample {
            topic: Topic::parse(topic).unwrap(),
            key: vec![b'k'; choices.below(4) as usize],
            dedupe: (choices.below(3) == 0).then(|| choices.below(50)),
            body: (0..len).map(|_| choices.below(256) as u8).collect(),
        }
    }

    pub fn record(&self) -> NewRecord<'_> {
        NewRecord {
            topic: &self.topic,
            key: &self.key,
            dedupe: self.dedupe,
            flags: Flags::EMPTY
                .with_priority((self.body.len() % 4) as u8)
                .with_receipts(self.body.len().is_multiple_of(3)),
            body: &self.body,
        }
    }

    pub fn of(record: &Record) -> Sample {
        Sample {
            topic: record.topic.clone(),
            key: record.key.to_vec(),
            dedupe: record.dedupe,
            body: record.body.to_vec(),
        }
    }
}

/// Everything that can be read, by offset.
pub fn read_all(reader: &Reader) -> Result<BTreeMap<u64, Record>, Error> {
    let mut found = BTreeMap::new();
    let mut cursor = Cursor::START;
    while cursor < reader.last() {
        let limit = ScanLimit { events: 100, bytes: 1 << 20 };
        cursor = reader.scan(cursor, reader.last(), None, limit, &mut |record| {
            found.insert(record.offset.get(), record);
        })?;
    }
    Ok(found)
}
