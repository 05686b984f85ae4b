use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tidings_proto::Cursor;

use super::{super::durable::Redelivery, *};

const REDELIVERY: Redelivery = Redelivery { ack_wait_ms: 100, backoff_ms: Vec::new() };

/// A log of ranks, of which some do not match; the offsets are 1, 2, ….
struct Log(Vec<Option<usize>>);

impl Log {
    fn committed(&self) -> Cursor {
        Cursor::new(self.0.len() as u64)
    }

    fn matching(&self) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.0.iter().enumerate().filter_map(|(n, rank)| Some((n as u64 + 1, (*rank)?)))
    }

    /// What a fill finds, a few at a time.
    fn fill(&self, fill: Fill, page: usize) -> (Vec<(usize, u64)>, Cursor) {
        let (from, only) = match fill {
            Fill::All(from) => (from, None),
            Fill::One(rank, from) => (from, Some(rank)),
        };
        let wanted = self
            .matching()
            .filter(|(offset, rank)| *offset > from.get() && only.is_none_or(|only| only == *rank));
        let found: Vec<(usize, u64)> =
            wanted.take(page).map(|(offset, rank)| (rank, offset)).collect();
        let is_all = found.len() < page;
        let last = found.last().map_or(0, |(_, offset)| *offset);
        (found, if is_all { self.committed() } else { Cursor::new(last) })
    }
}

/// As [`next`] does it.
fn picks(
    log: &Log,
    lanes: &mut Lanes,
    state: &mut DurableState,
    max: usize,
    page: usize,
) -> Vec<(u64, u8)> {
    loop {
        while let Some(fill) = lanes.to_fill(log.committed()) {
            let (found, at) = log.fill(fill, page);
            lanes.filled(fill, &found, at);
        }
        let picked = lanes.pick(max, log.committed(), state, None);
        let offsets: Vec<u64> = picked.iter().map(|(offset, _)| *offset).collect();
        let sent = state.deliver_new(&offsets, lanes.passed(), 0, 1);
        assert_eq!(sent.len(), picked.len(), "all that is picked is new");
        if !picked.is_empty() || lanes.to_fill(log.committed()).is_none() {
            return picked;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<Option<usize>>),
    Next { max: usize, page: usize },
    Ack { nth: usize },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let events = prop::collection::vec(prop::option::weighted(0.8, 0..4_usize), 1..30);
    prop_oneof![
        events.prop_map(Step::Publish),
        (1..20_usize, 1..10_usize).prop_map(|(max, page)| Step::Next { max, page }),
        (0..30_usize).prop_map(|nth| Step::Ack { nth }),
        Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Every event is picked once in a life, none before a better one that waits but every sixteenth, and what
    /// is acknowledged never again; the floor is below the first that is not.
    #[test]
    fn lanes_are_served_in_order_and_whole(steps in prop::collection::vec(step(), 1..40)) {
        let mut log = Log(Vec::new());
        let mut state = DurableState::new(Cursor::START);
        state.set_by_lane(true);
        let mut lanes = Lanes::new(Cursor::START);
        let (mut picked, mut acked) = (BTreeSet::new(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Publish(ranks) => log.0.extend(ranks),
                Step::Next { max, page } => {
                    let turn = lanes.turn;
                    let ranks: BTreeMap<u64, usize> = log.matching().collect();
                    for (n, (offset, rank)) in picks(&log, &mut lanes, &mut state, max, page).into_iter().enumerate() {
                        prop_assert_eq!(ranks[&offset], usize::from(rank));
                        let waiting = ranks.iter().filter(|(other, _)| !picked.contains(*other) && !acked.contains(*other));
                        let by_rank = waiting.clone().map(|(other, rank)| (*rank, *other)).min().unwrap();
                        let by_age = waiting.map(|(other, _)| *other).min().unwrap();
                        let nth = (turn + n as u32) % OLDEST_EVERY;
                        let want = if nth + 1 == OLDEST_EVERY { by_age } else { by_rank.1 };
                        prop_assert_eq!(offset, want);
                        picked.insert(offset);
                    }
                    state.sent(0, &REDELIVERY, 1);
                }
                Step::Ack { nth } => {
                    let open: Vec<u64> = picked.difference(&acked).copied().collect();
                    if let Some(offset) = open.get(nth) {
                        prop_assert!(state.ack(*offset));
                        acked.insert(*offset);
                    }
                }
                Step::Restart => {
                    let saved = state.to_ack_state("d", 1, |at| at);
                    state = DurableState::restore(&saved, |at| at);
                    state.set_by_lane(true);
                    lanes = Lanes::new(state.floor());
                    picked.clone_from(&acked);
                }
            }
            let open = log.matching().map(|(offset, _)| offset).find(|offset| !acked.contains(offset));
            let floor = state.floor().get();
            prop_assert!(open.is_none_or(|open| floor < open), "floor {} open {:?}", floor, open);
            for (offset, _) in log.matching() {
                prop_assert!(!acked.contains(&offset) || state.is_acked(offset));
            }
        }
        // In the end all is delivered and acknowledged, and nothing is left to remember.
        for _ in 0..200 {
            for (offset, _) in picks(&log, &mut lanes, &mut state, 50, 7) {
                prop_assert!(picked.insert(offset));
            }
        }
        let all: BTreeSet<u64> = log.matching().map(|(offset, _)| offset).collect();
        prop_assert_eq!(&picked, &all);
        for offset in all.difference(&acked) {
            state.ack(*offset);
        }
        prop_assert_eq!(state.floor(), log.committed());
    }
}

#[test]
fn what_comes_again_has_its_rank() {
    let mut state = DurableState::new(Cursor::START);
    state.set_by_lane(true);
    for (offset, rank) in [(1, 3), (2, 0), (3, 2)] {
        state.note_rank(offset, rank);
    }
    state.deliver_new(&[2, 3, 1], Cursor::START, 0, 1);
    state.sent(0, &REDELIVERY, 1);
    assert_eq!(state.floor(), Cursor::START);
    state.release();
    assert_eq!(state.due_rank(0), Some(0));
    assert_eq!(state.deliver_again_up_to(2, 0, 10, 1), [(2, 2), (3, 2)]);
    assert_eq!(state.due_rank(0), Some(3));
    state.ack(2);
    state.nack(3, None, 0, &REDELIVERY);
    assert_eq!(state.deliver_again(0, 10, 1), [(3, 3), (1, 2)]);
}
