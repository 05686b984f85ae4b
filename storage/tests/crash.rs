//! Crashes at every operation of the disk: what was acknowledged is there afterwards, byte for byte.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    missing_docs,
    reason = "tests"
)]

mod support;

use std::collections::BTreeMap;

use support::{Choices, Sample, open, read_all};
use tidings_storage::{Error, SimDisk};

/// What is known outside of the log.
#[derive(Clone, Default)]
struct Outside {
    /// What a sync has confirmed.
    acknowledged: BTreeMap<u64, Sample>,
    /// The highest offset anybody was told.
    highest: u64,
}

/// Appends batches until the disk crashes or `batches` are done. True when it crashed.
fn work(
    disk: &SimDisk,
    choices: &mut Choices,
    batches: u64,
    outside: &mut Outside,
) -> Result<(), Error> {
    let mut opened = open(disk)?;
    let mut time_ms = 1;
    for _ in 0..batches {
        let samples: Vec<Sample> =
            (0..=choices.below(6)).map(|_| Sample::new(choices, 3000)).collect();
        let records: Vec<_> = samples.iter().map(Sample::record).collect();
        time_ms += choices.below(3);
        let first = opened.log.append(time_ms, &records)?.get();
        assert!(first > outside.highest, "{first} was handed out before");
        opened.log.sync()?;
        outside.highest = first + samples.len() as u64 - 1;
        outside.acknowledged.extend((first..).zip(samples));
        if choices.below(3) == 0 {
            for chore in opened.log.chores() {
                chore.run()?;
            }
            if let Some(chore) = opened.log.watermark_chore() {
                chore.run()?;
            }
        }
    }
    opened.log.close()
}

/// Opens what is left and compares it with what was acknowledged.
fn check(disk: &SimDisk, outside: &mut Outside) -> Result<(), Error> {
    let opened = open(disk)?;
    assert!(!opened.recovery.log_id_changed, "the log ended below its watermark");
    let found = read_all(&opened.reader).expect("what recovery took can be read");
    for (offset, sample) in &outside.acknowledged {
        let record = found.get(offset).unwrap_or_else(|| panic!("acknowledged {offset} is lost"));
        assert_eq!(Sample::of(record), *sample, "acknowledged {offset} is another");
    }
    // Dense, but for holes that a record names.
    let mut next = 1;
    for (offset, record) in &found {
        if *offset != next {
            assert_eq!(
                record.topic.as_str(),
                "$log.lost",
                "a hole before {offset} that nothing names"
            );
            assert_eq!(record.body, format!("{next}-{}", offset - 1).into_bytes());
        }
        next = offset + 1;
    }
    // What came back without having been acknowledged is now as good as acknowledged.
    outside.highest = outside.highest.max(opened.reader.last().get());
    for (offset, record) in &found {
        outside.acknowledged.entry(*offset).or_insert_with(|| Sample::of(record));
    }
    Ok(())
}

/// One life of a disk with a crash at each operation; gives how many crashes there were.
fn crash_everywhere(seed: u64, batches: u64) -> u64 {
    let whole = SimDisk::new(seed);
    work(&whole, &mut Choices(seed), batches, &mut Outside::default()).unwrap();
    let operations = whole.operations();
    for at in 1..=operations {
        for variant in 0..2 {
            let disk = SimDisk::new(seed);
            disk.crash_at(at);
            let mut outside = Outside::default();
            work(&disk, &mut Choices(seed), batches, &mut outside).expect_err("it crashes");
            recover_in_steps(&disk.crash(seed ^ at << 8 ^ variant), seed ^ at, &mut outside);
        }
    }
    operations * 2
}

/// Opens again and again, with crashes during recovery, then works on and crashes once more.
fn recover_in_steps(disk: &SimDisk, seed: u64, outside: &mut Outside) {
    let mut choices = Choices(seed);
    let mut disk = disk.clone();
    for _ in 0..2 {
        if choices.below(2) == 0 {
            let interrupted = disk.clone();
            interrupted.crash_at(interrupted.operations() + 1 + choices.below(8));
            // It may well get through.
            let _ = check(&interrupted, outside);
            disk = interrupted.crash(choices.below(u64::MAX));
        }
    }
    check(&disk, outside).expect("what a crash left opens");
    disk.crash_at(disk.operations() + 10 + choices.below(30));
    let _ = work(&disk, &mut choices, 8, outside);
    check(&disk.crash(choices.below(u64::MAX)), outside).expect("what a second crash left opens");
}

fn enumerate(crashes_min: u64) -> u64 {
    let mut crashes = 0;
    for seed in 1.. {
        crashes += crash_everywhere(seed * 7919, 60);
        if crashes >= crashes_min {
            break;
        }
    }
    crashes
}

#[test]
#[cfg(not(feature = "planted-no-sync"))]
fn g1_nothing_acknowledged_is_lost_at_ten_thousand_crash_points() {
    let crashes = enumerate(10_000);
    println!("{crashes} crash points, nothing acknowledged was lost");
}

/// The same without the sync must fail, or the test proves nothing.
#[test]
#[cfg(feature = "planted-no-sync")]
#[should_panic]
fn g1_planted_missing_sync_is_caught() {
    enumerate(10_000);
}
