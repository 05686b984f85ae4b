//! The log on the real file system: its lock, its modes, its names.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests"
)]

mod support;

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use support::{Choices, Sample, options, read_all};
use tidings_proto::Cursor;
use tidings_storage::{Error, Log, OsDisk, dump, verify};

fn open(dir: &Path) -> Result<tidings_storage::Opened, Error> {
    Log::open(Arc::new(OsDisk::open(dir)?), options())
}

fn fill(opened: &mut tidings_storage::Opened, batches: u64) {
    let mut choices = Choices(9);
    for _ in 0..batches {
        let samples: Vec<Sample> = (0..5).map(|_| Sample::new(&mut choices, 2000)).collect();
        let records: Vec<_> = samples.iter().map(Sample::record).collect();
        opened.log.append(1, &records).unwrap();
        opened.log.sync().unwrap();
        opened.log.chores().into_iter().for_each(|chore| chore.run().unwrap());
    }
}

#[test]
fn a_log_is_written_closed_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut opened = open(&data).unwrap();
    let id = opened.reader.id();
    fill(&mut opened, 40);
    let all = read_all(&opened.reader).unwrap();
    opened.log.close().unwrap();
    let reopened = open(&data).unwrap();
    assert_eq!((reopened.reader.id(), read_all(&reopened.reader).unwrap()), (id, all.clone()));
    assert_eq!(reopened.recovery, tidings_storage::Recovery::default());
    let mut findings = Vec::new();
    let verified =
        verify(&OsDisk::look(&data).unwrap(), &mut |finding| findings.push(finding)).unwrap();
    assert_eq!((verified.events, verified.damaged, findings.len()), (all.len() as u64, 0, 0));
    let mut dumped = Vec::new();
    dump(&OsDisk::look(&data).unwrap(), Cursor::new(3), &mut |record| {
        dumped.push(record);
        true
    })
    .unwrap();
    assert_eq!(dumped, all.into_values().skip(3).collect::<Vec<_>>());
}

#[test]
fn g13_a_second_owner_is_refused_before_it_touches_anything() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let opened = open(&data).unwrap();
    let error = open(&data).unwrap_err();
    let Error::Locked { holder, .. } = &error else { panic!("{error}") };
    assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    opened.log.close().unwrap();
    open(&data).unwrap();
}

#[test]
fn s13_files_are_the_owners_alone_and_their_names_say_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut opened = open(&data).unwrap();
    fill(&mut opened, 30);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for entry in std::fs::read_dir(data.join("log")).unwrap().map(Result::unwrap) {
        assert_eq!(mode(&entry.path()), 0o600);
        let name = entry.file_name().into_string().unwrap();
        assert!(
            name == "next.log" || name[..20].bytes().all(|byte| byte.is_ascii_digit()),
            "{name}"
        );
    }
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&data, &link).unwrap();
    assert!(matches!(open(&link), Err(Error::Unsafe { .. })));
}

#[test]
fn a_segment_that_was_filled_is_written_and_read_like_another() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let filled = || {
        let options = tidings_storage::Options { fill_segments: true, ..options() };
        Log::open(Arc::new(OsDisk::open(&data).unwrap()), options).unwrap()
    };
    let mut opened = filled();
    fill(&mut opened, 200);
    assert!(opened.reader.segments() > 2);
    let all = read_all(&opened.reader).unwrap();
    let next = std::fs::metadata(data.join("log/next.log")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::blocks(&next) * 512, next.len());
    opened.log.close().unwrap();
    assert_eq!(read_all(&filled().reader).unwrap(), all);
}
