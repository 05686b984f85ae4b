use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const REDELIVERY: Redelivery = Redelivery { ack_wait_ms: 100, backoff_ms: Vec::new() };

fn offsets(sent: &[(u64, u32)]) -> Vec<u64> {
    sent.iter().map(|(offset, _)| *offset).collect()
}

#[test]
fn events_come_again_after_the_ack_wait_with_their_count() {
    let mut state = DurableState::new(Cursor::new(10));
    assert_eq!(offsets(&state.deliver_new(&[12, 15], Cursor::new(20), 0, 1)), [12, 15]);
    assert_eq!((state.floor(), state.in_flight()), (Cursor::new(11), 2));
    // The clock runs from when the socket has taken it.
    assert_eq!(state.deliver_again(1_000, 10, 1), []);
    state.sent(1_000, &REDELIVERY, 1);
    assert_eq!(state.next_due(), Some(1_100));
    assert_eq!(state.deliver_again(1_099, 10, 1), []);
    assert!(state.ack(12));
    assert_eq!(state.deliver_again(1_100, 10, 1), [(15, 2)]);
    assert_eq!((state.floor(), state.redelivered()), (Cursor::new(14), 1));
    state.ack_up_to(15);
    assert_eq!((state.floor(), state.outstanding()), (Cursor::new(20), 0));
}

#[test]
fn a_nack_waits_for_its_delay_or_the_backoff() {
    let redelivery = Redelivery { ack_wait_ms: 0, backoff_ms: vec![10, 50] };
    let mut state = DurableState::new(Cursor::START);
    state.deliver_new(&[1, 2], Cursor::new(2), 0, 1);
    state.sent(0, &redelivery, 1);
    assert_eq!(state.next_due(), None);
    state.nack(1, None, 0, &redelivery);
    state.nack(2, Some(5), 0, &redelivery);
    assert_eq!(state.deliver_again(9, 10, 1), [(2, 2)]);
    assert_eq!(state.deliver_again(10, 10, 1), [(1, 2)]);
    state.nack(1, None, 100, &redelivery);
    assert_eq!(state.next_due(), Some(150));
}

#[test]
fn what_a_session_had_is_due_at_once_when_it_goes() {
    let mut state = DurableState::new(Cursor::START);
    state.deliver_new(&[1, 2, 3], Cursor::new(3), 0, 1);
    state.sent(0, &REDELIVERY, 1);
    state.release();
    assert_eq!(offsets(&state.deliver_again(0, 2, 1)), [1, 2]);
    assert_eq!(offsets(&state.deliver_again(0, 2, 1)), [3]);
}

#[test]
fn acks_ahead_of_delivery_are_kept_and_passed_over() {
    let mut state = DurableState::new(Cursor::START);
    assert!(state.ack(3) && state.ack(5));
    assert_eq!(state.floor(), Cursor::START);
    assert_eq!(offsets(&state.deliver_new(&[1, 3, 5, 6], Cursor::new(6), 0, 1)), [1, 6]);
    state.ack_up_to(5);
    assert_eq!(state.floor(), Cursor::new(5));
    assert!(state.ack(6));
    assert_eq!(state.floor(), Cursor::new(6));
}

#[derive(Clone, Debug)]
enum Step {
    Deliver { upto: u64 },
    Ack(u64),
    AckUpTo(u64),
    Nack(u64),
    Again(u64),
    Release,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..60_u64).prop_map(|upto| Step::Deliver { upto }),
        (1..60_u64).prop_map(Step::Ack),
        (1..60_u64).prop_map(Step::AckUpTo),
        (1..60_u64).prop_map(Step::Nack),
        (0..1000_u64).prop_map(Step::Again),
        Just(Step::Release),
        Just(Step::Restart),
    ]
}

/// All offsets that match: the multiples of `every`. Fixed for a run.
fn matching(every: u64, after: u64, upto: u64) -> Vec<u64> {
    (after + 1..=upto).filter(|offset| offset % every == 0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// The model is the set of acknowledged offsets. The floor never falls, never passes a matching event
    /// that is not acknowledged, and an acknowledged event is never sent again.
    #[test]
    fn the_floor_agrees_with_a_set_of_acks(every in 1..4_u64, steps in prop::collection::vec(step(), 1..60)) {
        let mut state = DurableState::new(Cursor::START);
        let mut acked: BTreeSet<u64> = BTreeSet::new();
        let mut floor = 0;
        for step in steps {
            match step {
                Step::Deliver { upto } => {
                    let upto = upto.max(state.cursor().get());
                    let new = matching(every, state.cursor().get(), upto);
                    for (offset, _) in state.deliver_new(&new, Cursor::new(upto), 0, 1) {
                        prop_assert!(!acked.contains(&offset), "{} was acknowledged", offset);
                    }
                }
                Step::Ack(offset) => {
                    prop_assert!(state.ack(offset));
                    acked.insert(offset);
                }
                Step::AckUpTo(offset) => {
                    state.ack_up_to(offset);
                    acked.extend(1..=offset);
                }
                Step::Nack(offset) => state.nack(offset, Some(10), 0, &REDELIVERY),
                Step::Again(now_ms) => {
                    for (offset, attempts) in state.deliver_again(now_ms, 5, 1) {
                        prop_assert!(!acked.contains(&offset) && attempts >= 2);
                    }
                    state.sent(now_ms, &REDELIVERY, 1);
                }
                Step::Release => state.release(),
                Step::Restart => {
                    let saved = state.to_ack_state("d", 1, |at| at);
                    state = DurableState::restore(&saved, |at| at);
                    prop_assert_eq!(state.floor(), saved.floor);
                }
            }
            let now = state.floor().get();
            prop_assert!(now >= floor, "the floor fell from {} to {}", floor, now);
            floor = now;
            for offset in matching(every, 0, 60) {
                let done = acked.contains(&offset);
                prop_assert_eq!(state.is_acked(offset), done, "{} floor {}", offset, floor);
                prop_assert!(done || offset > floor);
            }
        }
    }

    #[test]
    fn ranges_agree_with_a_set(inserts in prop::collection::vec((1..60_u64, 0..6_u64), 0..20), cut in 0..60_u64) {
        let mut ranges = RangeSet::default();
        let mut model = BTreeSet::new();
        for (first, more) in inserts {
            ranges.insert(first, first + more);
            model.extend(first..=first + more);
        }
        ranges.remove_up_to(cut);
        model.retain(|offset| *offset > cut);
        for offset in 0..70 {
            prop_assert_eq!(ranges.contains(offset), model.contains(&offset));
        }
        let listed: Vec<(u64, u64)> = ranges.iter().collect();
        for pair in listed.windows(2) {
            prop_assert!(pair[0].1 + 1 < pair[1].0, "ranges touch: {:?}", listed);
        }
    }
}
