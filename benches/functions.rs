//! The functions that every event goes through: append, read, match, encode. `cargo bench --bench functions`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a measurement"
)]

use std::{hint::black_box, sync::Arc};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidings_proto::{
    Cursor, Filter, Filters, NewEvent, Offset, Priority, Timestamp, Topic,
    wire::{json, protobuf, stored},
};
use tidings_storage::{Flags, Log, NewRecord, Options, OsDisk, ScanLimit};
use uuid::Uuid;

/// Bytes of data of an event.
const DATA_BYTES: usize = 200;
/// Events of a batch: what 64 publishers with one in flight make.
const BATCH: usize = 64;

fn event(topic: &str) -> NewEvent {
    NewEvent {
        datacontenttype: Some("application/json".to_owned()),
        data: Some(Bytes::from(format!("\"{}\"", "x".repeat(DATA_BYTES - 2)))),
        ..NewEvent::on(Topic::parse(topic).unwrap())
    }
}

fn body() -> Vec<u8> {
    let (event, mut body) = (event("bench.0"), Vec::new());
    let draft = stored::Draft {
        event: &event,
        made_id: Some(Uuid::from_u64_pair(1, 2)),
        subject: "anonymous",
        expires: None,
    };
    stored::encode(&draft, &mut body);
    body
}

fn records<'a>(topics: &'a [Topic], body: &'a [u8]) -> Vec<NewRecord<'a>> {
    let record = |topic| NewRecord { topic, key: b"", dedupe: None, flags: Flags::EMPTY, body };
    topics.iter().map(record).collect()
}

fn topics(count: usize, of: usize) -> Vec<Topic> {
    (0..count).map(|n| Topic::parse(&format!("bench.{}", n % of)).unwrap()).collect()
}

/// A batch into the page cache, without the sync, which is the disk's.
fn append(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(OsDisk::open(&dir.path().join("data")).unwrap());
    let options = Options { segment_bytes: 1 << 30, ..Options::default() };
    let mut opened = Log::open(disk, options).unwrap();
    let (topics, body) = (topics(BATCH, 16), body());
    let records = records(&topics, &body);
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("64 events of 200 bytes", |b| {
        b.iter(|| black_box(opened.log.append(1, &records).unwrap()));
    });
    group.finish();
}

/// What is in the page cache, by reading on, as a client that resumes has it read.
fn read(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(OsDisk::open(&dir.path().join("data")).unwrap());
    let mut opened = Log::open(disk, Options::default()).unwrap();
    let (topics, body) = (topics(4096, 1000), body());
    for _ in 0..10 {
        opened.log.append(1, &records(&topics, &body)).unwrap();
    }
    opened.log.sync().unwrap();
    let limit = ScanLimit { events: 100, bytes: usize::MAX };
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Elements(100));
    for (name, filter) in
        [("100 events that match", "bench.*"), ("100 events of another", "bench.7")]
    {
        let filters = Filters::one(Filter::parse(filter).unwrap());
        group.bench_function(name, |b| {
            b.iter(|| {
                let (after, until) = (Cursor::new(20_000), Cursor::new(20_100));
                let visit = &mut |record| _ = black_box(record);
                opened.reader.scan(after, until, Some(&filters), limit, visit).unwrap()
            });
        });
    }
    group.finish();
}

fn matching(c: &mut Criterion) {
    let mut group = c.benchmark_group("match");
    for (name, filter) in
        [("literal", "app.user.42.inbox"), ("*", "app.user.*.inbox"), (">", "app.>")]
    {
        let filter = Filter::parse(filter).unwrap();
        group.bench_function(name, |b| b.iter(|| filter.matches(black_box("app.user.42.inbox"))));
    }
    let none = Filter::parse("app.group.*.inbox").unwrap();
    group.bench_function("no match", |b| b.iter(|| none.matches(black_box("app.user.42.inbox"))));
    group.finish();
}

fn encode(c: &mut Criterion) {
    let (new, bytes) = (event("bench.0"), body());
    let place = stored::Place {
        offset: Offset::new(123_456_789).unwrap(),
        time: Timestamp::from_millis(1_790_000_000_000),
        topic: new.topic.as_str(),
        key: None,
        priority: Priority::Normal,
    };
    let mut group = c.benchmark_group("encode");
    let mut out = Vec::new();
    group.bench_function("an event as JSON", |b| {
        b.iter(|| {
            out.clear();
            json::encode_event(&place, &stored::decode(&bytes).unwrap(), &mut out);
        });
    });
    group.bench_function("an event as Protobuf", |b| {
        b.iter(|| {
            out.clear();
            protobuf::encode_event(&place, &stored::decode(&bytes).unwrap(), &mut out);
        });
    });
    let text = format!(
        r#"{{"id":7,"publish":{{"topic":"bench.0","data":"{}"}}}}"#,
        "x".repeat(DATA_BYTES - 2)
    );
    group.bench_function("a publish read from JSON", |b| {
        b.iter(|| json::decode_request(black_box(&text)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, append, read, matching, encode);
criterion_main!(benches);
