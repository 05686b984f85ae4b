use std::sync::Arc;

use proptest::prelude::*;
use smallvec::smallvec;
use tidings_proto::{
    Filter, NewEvent, Offset, Timestamp, Topic,
    control::{DeadLetter, RetentionRule},
};

use super::{Keeper, Needs, Options, Removed, Rules, is_over};
use crate::{
    clock,
    log::{
        self, AppendError, Controls, Draft, LogHandle, SimDisk, Stepped, Stored, codec, open_on,
    },
};

proptest! {
    #[test]
    fn a_limit_keeps_half_of_it_and_no_more_than_it_or_one_segment(
        segments in proptest::collection::vec(1_u64..100, 1..50),
        max in 1_u64..1000,
        active in 0_u64..100,
    ) {
        let active = active.min(max.div_ceil(2) - 1);
        let mut newer = active;
        for size in &segments {
            if is_over(newer, newer + size, max) {
                break;
            }
            newer += size;
        }
        let all = active + segments.iter().sum::<u64>();
        prop_assert!(newer >= all.min(max.div_ceil(2)), "of {all} only {newer} are kept");
        let largest = segments.iter().max().copied().unwrap_or(0);
        prop_assert!(newer < max.div_ceil(2).saturating_add(largest).max(max + 1), "{newer} are kept");
    }
}

/// A log that nobody else has anything to say to.
struct Nobody;

impl Controls for Nobody {
    fn drain(&self) -> Vec<Draft> {
        Vec::new()
    }
    fn committed(&self, _: &[Arc<Stored>]) {}
    fn readable(&self) {}
    fn failed(&self, _: &AppendError) {}
    fn closed(&self) {}
}

impl Needs for Nobody {
    fn is_dead(&self, _: &DeadLetter) -> bool {
        false
    }
    fn is_listed(&self, _: &str, _: Offset) -> bool {
        false
    }
    fn is_scheduled(&self, _: Offset) -> bool {
        false
    }
    fn is_stopping(&self) -> bool {
        false
    }
}

const SEGMENT_BYTES: u64 = 64 << 10;
const SEGMENTS: usize = 12;

/// A log with sealed segments, in each of which two of three events are on the topic `gone`; kept by keepers of which one
/// pass may rewrite so many bytes.
fn log_of_two_topics(pass_bytes: u64) -> (LogHandle, Stepped, Keeper) {
    let retention = Options { pass_bytes, ..Options::nothing() };
    let options = log::Options {
        dir: "simulated".into(),
        segment_bytes: SEGMENT_BYTES,
        reserve_bytes: 0,
        fill_segments: false,
        tail_bytes: 1 << 20,
        queue_bytes: 1 << 20,
        disk_reads: 1,
        retention: retention.clone(),
    };
    let opener = open_on(Arc::new(SimDisk::new(1)), &options).unwrap();
    let handle = opener.handle.clone();
    let mut committer = opener.stepped(Arc::new(Nobody));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for topic in ["gone", "kept", "gone"].iter().cycle() {
        if handle.trimmer().sealed().len() == SEGMENTS {
            break;
        }
        let event = NewEvent {
            data: Some(vec![b'1'; 1000].into()),
            ..NewEvent::on(Topic::parse(topic).unwrap())
        };
        let now = Timestamp::from_millis(clock::now().as_millis());
        let draft = codec::draft(&event, clock::event_id(), "alice", now, false);
        drop(runtime.block_on(handle.append(smallvec![draft])).unwrap());
        committer.step();
    }
    let keeper = Keeper::new(&handle, &retention);
    (handle, committer, keeper)
}

/// All on the topic `gone` may go.
fn rules() -> Rules {
    let filter = Filter::parse("gone").unwrap();
    let rule = RetentionRule { max_events: Some(0), ..RetentionRule::default() };
    let rules = [(filter.to_string(), (filter, rule))].into();
    Rules::new(rules, RetentionRule::default())
}

/// Passes until there is nothing to do: of each the bytes of the segments that it rewrote, and what it took out.
fn passes(keeper: &mut Keeper) -> Vec<(Vec<u64>, Removed)> {
    let mut done = Vec::new();
    loop {
        let plan = keeper.plan(rules()).unwrap();
        if plan.is_empty() {
            return done;
        }
        assert!(plan.work.iter().all(|work| !work.whole), "a segment has events that stay");
        let bytes = plan.work.iter().map(|work| work.sealed.bytes).collect();
        done.push((bytes, keeper.carry_out(&plan, &Nobody).unwrap()));
    }
}

#[test]
fn a_pass_rewrites_no_more_than_it_may_and_those_after_it_the_rest() {
    let pass_bytes = SEGMENT_BYTES * 5 / 2;
    let (handle, _committer, mut keeper) = log_of_two_topics(pass_bytes);
    let passes = passes(&mut keeper);
    for (bytes, removed) in &passes {
        let (last, before) = bytes.split_last().unwrap();
        assert!(before.iter().sum::<u64>() < pass_bytes, "{bytes:?} in one pass");
        assert!(*last <= SEGMENT_BYTES);
        assert_eq!((removed.rewritten, removed.dropped), (bytes.len() as u64, 0));
    }
    // Two and a half segments a pass: three each.
    let counts: Vec<_> = passes.iter().map(|(bytes, _)| bytes.len()).collect();
    assert_eq!(counts, [3, 3, 3, 3]);
    let sealed_end = handle.trimmer().sealed_end();
    let gone = handle.topic("gone").unwrap();
    assert!(gone.first.get() >= sealed_end, "events are left in {gone:?}, before {sealed_end}");
}

#[test]
fn a_pass_rewrites_one_segment_however_little_it_may() {
    let (_handle, _committer, mut keeper) = log_of_two_topics(1);
    let passes = passes(&mut keeper);
    assert_eq!(passes.len(), SEGMENTS);
    assert!(passes.iter().all(|(bytes, removed)| bytes.len() == 1 && removed.events > 0));
}
