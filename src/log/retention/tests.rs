use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use smallvec::smallvec;
use tidings_proto::{
    Cursor, Filter, NewEvent, Offset, Timestamp, Topic,
    control::{DeadLetter, RetentionRule},
    event::Expiry,
};
use tidings_storage::ScanLimit;

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

/// An empty log on a simulated disk.
fn log_with(retention: &Options) -> (LogHandle, Stepped) {
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
    (handle, opener.stepped(Arc::new(Nobody)))
}

fn publish(handle: &LogHandle, committer: &mut Stepped, event: &NewEvent) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let now = Timestamp::from_millis(clock::now().as_millis());
    let draft = codec::draft(event, clock::event_id(), "alice", now, false);
    drop(runtime.block_on(handle.append(smallvec![draft])).unwrap());
    committer.step();
}

/// A log with sealed segments, in each of which two of three events are on the topic `gone`; kept by keepers of which one
/// pass may rewrite so many bytes.
fn log_of_two_topics(pass_bytes: u64) -> (LogHandle, Stepped, Keeper) {
    log_in_turn(&["gone", "kept", "gone"], pass_bytes)
}

/// The same with these topics in turn.
fn log_in_turn(topics: &[&str], pass_bytes: u64) -> (LogHandle, Stepped, Keeper) {
    let retention = Options { pass_bytes, ..Options::nothing() };
    let (handle, mut committer) = log_with(&retention);
    for topic in topics.iter().cycle() {
        if handle.trimmer().sealed().len() == SEGMENTS {
            break;
        }
        let event = NewEvent {
            data: Some(vec![b'1'; 1000].into()),
            ..NewEvent::on(Topic::parse(topic).unwrap())
        };
        publish(&handle, &mut committer, &event);
    }
    let keeper = Keeper::new(&handle, &retention);
    (handle, committer, keeper)
}

/// All on the topic `gone` may go.
fn rules() -> Rules {
    Rules::new([none_of("gone")].into(), RetentionRule::default())
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

/// A rule by which nothing of this topic stays.
fn none_of(topic: &str) -> (String, (Filter, RetentionRule)) {
    let filter = Filter::parse(topic).unwrap();
    let rule = RetentionRule { max_events: Some(0), ..RetentionRule::default() };
    (filter.to_string(), (filter, rule))
}

#[test]
fn a_rule_for_a_few_events_of_each_segment_is_kept_as_well_and_costs_one_rewrite_of_each() {
    let (handle, _committer, mut keeper) = log_in_turn(&["gone", "kept", "kept", "late"], 1);
    let done = passes(&mut keeper);
    // One a pass, as no more is left for them.
    assert_eq!(done.len(), SEGMENTS, "{done:?}");
    let is_left = |topic: &str| {
        handle.trimmer().sealed().iter().any(|it| {
            let topics = handle.trimmer().topics(it.base).unwrap();
            topics.iter().any(|(name, count)| name.as_str() == topic && *count > 0)
        })
    };
    assert!(!is_left("gone") && is_left("kept") && is_left("late"));
    // Another rule for what is in the same segments waits until they have rested.
    let both = || Rules::new([none_of("gone"), none_of("late")].into(), RetentionRule::default());
    let begun = keeper.passes;
    while is_left("late") {
        let plan = keeper.plan(both()).unwrap();
        keeper.carry_out(&plan, &Nobody).unwrap();
        assert!(keeper.passes < begun + 100, "it never goes");
    }
    assert!(keeper.passes >= begun + super::REST_PASSES, "{} passes", keeper.passes - begun);
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

/// An event of which nothing but this matters: its topic, key and type, 0 to 2 each, and whether it has expired.
type Sample = (u8, u8, u8, bool);

fn sample() -> impl Strategy<Value = Sample> {
    (0..2_u8, 0..3_u8, 0..2_u8, proptest::bool::weighted(0.75))
}

/// A log of these segments, and one more that is active.
fn log_of(segments: &[Vec<Sample>]) -> (LogHandle, Stepped, Keeper) {
    let retention = Options::nothing();
    let (handle, mut committer) = log_with(&retention);
    for segment in segments {
        for (topic, key, kind, has_expired) in segment {
            let event = NewEvent {
                key: (*key > 0).then(|| format!("k{key}")),
                kind: format!("type{kind}"),
                expires: has_expired.then(|| Expiry::At(Timestamp::from_millis(1))),
                ..NewEvent::on(Topic::parse(&format!("t.{topic}")).unwrap())
            };
            publish(&handle, &mut committer, &event);
        }
        handle.seal();
        committer.step();
    }
    let keeper = Keeper::new(&handle, &retention);
    (handle, committer, keeper)
}

/// What a subscription to one topic and key, or to all of a topic, has as its newest: to one type or to both.
type Asked = (String, Option<String>, Option<String>);

/// The newest of what may be asked for, where it has not expired; and how many events there are that have.
fn newest(handle: &LogHandle) -> (BTreeMap<Asked, u64>, usize) {
    let (mut newest, mut expired) = (BTreeMap::new(), 0);
    let all = ScanLimit { events: usize::MAX, bytes: usize::MAX };
    let reader = handle.reader();
    let mut visit = |record: super::super::Record| {
        let topic = record.topic.to_string();
        let key = String::from_utf8(record.key.to_vec()).unwrap();
        let kind = codec::kind_of(&record.body).unwrap().0.to_owned();
        let has_expired = codec::expires_of(&record.body).is_some();
        expired += usize::from(has_expired);
        for asked in [(Some(&key), Some(&kind)), (Some(&key), None), (None, None)] {
            let asked = (topic.clone(), asked.0.cloned(), asked.1.cloned());
            newest.insert(asked, (record.offset.get(), has_expired));
        }
    };
    reader.scan(Cursor::START, handle.committed(), None, all, &mut visit).unwrap();
    let there = newest.into_iter().filter(|(_, (_, has_expired))| !has_expired);
    (there.map(|(asked, (offset, _))| (asked, offset)).collect(), expired)
}

/// Passes without a rule, in which each segment was looked into.
fn passes_without_rules(keeper: &mut Keeper, segments: usize) {
    for _ in 0..segments * 2 + 2 {
        let plan = keeper.plan(Rules::new(BTreeMap::new(), RetentionRule::default())).unwrap();
        keeper.carry_out(&plan, &Nobody).unwrap();
    }
}

proptest! {
    #[test]
    fn what_has_expired_does_not_give_way_to_what_is_older(
        segments in proptest::collection::vec(proptest::collection::vec(sample(), 1..10), 1..5),
    ) {
        let (handle, _committer, mut keeper) = log_of(&segments);
        let (before, _) = newest(&handle);
        passes_without_rules(&mut keeper, segments.len());
        prop_assert_eq!(newest(&handle).0, before);
    }
}

#[test]
fn one_that_has_expired_covers_what_is_older_for_all_that_follow_it() {
    // What lasts, and behind it, in one segment and in others, what has expired: of one type, then of another.
    let lasting = (0, 1, 0, false);
    let of = |kind| vec![(0, 1, kind, true); 5];
    for (segments, left) in [
        (vec![[vec![lasting], of(0)].concat()], 1),
        (vec![vec![lasting], of(0)], 1),
        // The last one of the topic, too: what stands in older segments is not looked at for that.
        (vec![vec![lasting], of(0), of(0)], 2),
        (vec![vec![lasting], of(0), [of(1), of(0), of(1)].concat()], 2),
        // Nothing lasts: none is needed.
        (vec![of(0), of(1), of(0)], 0),
        // Another key, or none: of the topic the last one is needed, and of the key none.
        (vec![vec![(0, 2, 0, false)], of(0), of(0)], 1),
        (vec![vec![(0, 0, 0, false)], of(0), vec![(0, 2, 0, false)]], 0),
    ] {
        let (handle, _committer, mut keeper) = log_of(&segments);
        let (before, _) = newest(&handle);
        passes_without_rules(&mut keeper, segments.len());
        let (after, expired) = newest(&handle);
        assert_eq!(after, before, "{segments:?}");
        assert_eq!(expired, left, "{segments:?}");
    }
}
