use std::collections::BTreeSet;

use proptest::prelude::*;
use tidings_proto::Cursor;

use super::{super::Redelivery, *};

const REDELIVERY: Redelivery = Redelivery { ack_wait_ms: 100, backoff_ms: Vec::new() };

/// A state with these limits that has delivered the events 1 to `count`.
fn delivered(deliveries_max: u32, in_flight_max: usize, count: u64) -> DurableState {
    let mut state = DurableState::new(Cursor::START);
    state.set_limits(deliveries_max, in_flight_max);
    let events: Vec<u64> = (1..=count).collect();
    state.deliver_new(&events, Cursor::new(count), 0, 1);
    state.sent(0, &REDELIVERY, 1);
    state
}

/// The letters of a commit that is durable.
fn bury(state: &mut DurableState) -> Vec<Dying> {
    for offset in state.to_address(usize::MAX) {
        state.address(offset, Some(("a".to_owned(), offset.to_string())));
    }
    let letters = state.begin_burial(usize::MAX).to_vec();
    state.end_burial(true);
    letters
}

fn restarted(state: &DurableState, deliveries_max: u32) -> DurableState {
    let saved = state.to_ack_state("d", 1, |at| at);
    let mut state = DurableState::restore(&saved, |at| at);
    state.set_limits(deliveries_max, 0);
    state
}

#[test]
fn the_last_nack_kills_and_its_reason_is_kept() {
    let mut state = delivered(2, 0, 2);
    state.keep_reason(1, "bad");
    state.nack(1, None, 0, &REDELIVERY);
    assert_eq!(state.deliver_again(0, 10, 1), [(1, 2)]);
    state.sent(0, &REDELIVERY, 1);
    state.nack(1, Some(1000), 0, &REDELIVERY);
    assert!(state.has_dying(), "at once: it does not come again");
    assert_eq!((state.floor(), state.in_flight(), state.is_dead(1)), (Cursor::START, 1, false));
    assert_eq!(state.deliver_again(5000, 10, 1), [(2, 2)]);
    let letters = bury(&mut state);
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].cause, letters[0].attempts, letters[0].letter), (Cause::Nack, 2, 1));
    assert_eq!(letters[0].reason.as_deref(), Some("bad"));
    assert_eq!((state.floor(), state.is_dead(1)), (Cursor::new(1), true));
}

#[test]
fn a_lease_that_ends_kills_as_well() {
    let mut state = delivered(1, 0, 2);
    assert_eq!(state.deliver_again(100, 10, 1), []);
    assert!(bury(&mut state).iter().all(|dying| dying.cause == Cause::AckWait));
    assert_eq!(state.floor(), Cursor::new(2));

    let mut state = delivered(1, 0, 2);
    state.release();
    assert!(bury(&mut state).iter().all(|dying| dying.cause == Cause::Detached));
    assert_eq!((state.dead().len(), state.floor()), (2, Cursor::new(2)));
}

#[test]
fn what_no_socket_took_was_no_delivery() {
    let mut state = DurableState::new(Cursor::START);
    state.set_limits(1, 0);
    state.deliver_new(&[1], Cursor::new(1), 0, 1);
    state.release();
    assert!(!state.has_dying());
    assert_eq!(state.deliver_again(0, 10, 1), [(1, 1)]);
}

#[test]
fn a_commit_that_fails_kills_nobody() {
    let mut state = delivered(1, 0, 3);
    state.release();
    for offset in state.to_address(10) {
        state.address(offset, None);
    }
    assert_eq!(state.begin_burial(2).len(), 2);
    assert_eq!(state.after_burial().floor(), Cursor::new(2));
    assert_eq!((state.floor(), state.end_burial(false).len()), (Cursor::START, 0));
    assert!(!state.is_dead(1) && state.has_dying());
    // An ack that comes before the next try settles it; one that comes into a commit is too late.
    assert!(state.ack(1));
    let letters = state.begin_burial(10).to_vec();
    assert_eq!(letters.iter().map(|dying| dying.offset).collect::<Vec<_>>(), [2, 3]);
    assert!(state.ack(3));
    assert_eq!(state.end_burial(true).len(), 2);
    assert!(!state.is_dead(1) && state.is_dead(2) && state.is_dead(3));
    assert_eq!(state.floor(), Cursor::new(3));
}

#[test]
fn a_restart_remembers_the_dead_and_how_often_the_others_came() {
    let mut state = delivered(2, 0, 3);
    state.nack(2, None, 0, &REDELIVERY);
    state.deliver_again(0, 10, 1);
    state.sent(0, &REDELIVERY, 1);
    state.nack(2, None, 0, &REDELIVERY);
    bury(&mut state);
    state.nack(3, None, 0, &REDELIVERY);
    state.deliver_again(0, 10, 1);
    let mut state = restarted(&state, 2);
    assert!(state.is_dead(2) && state.is_acked(2));
    assert_eq!(state.deliver_new(&[1, 2, 3], Cursor::new(3), 0, 1), [(1, 1)]);
    let letters = bury(&mut state);
    assert_eq!((letters[0].offset, letters[0].letter), (3, 2), "it had come twice");
}

#[test]
fn redriven_events_come_as_room_allows_and_are_counted_anew() {
    let mut state = delivered(1, 2, 4);
    state.release();
    bury(&mut state);
    assert_eq!((state.floor(), state.outstanding()), (Cursor::new(4), 0));
    assert!(state.redrive(2) && state.redrive(3) && state.redrive(4));
    assert!(!state.redrive(2) && !state.redrive(9), "only what is dead");
    assert_eq!((state.floor(), state.outstanding()), (Cursor::new(1), 0));
    state.ack_up_to(4);
    assert_eq!(state.floor(), Cursor::new(1), "no ack covers what was not seen again");
    assert_eq!(state.deliver_again(0, 10, 1), [(2, 1), (3, 1)]);
    state.sent(0, &REDELIVERY, 1);
    assert_eq!(state.next_due(), Some(100));
    assert!(state.ack(2));
    assert_eq!(state.deliver_again(0, 10, 1), [(4, 1)]);
    state.ack_up_to(4);
    assert_eq!(state.floor(), Cursor::new(3), "4 is on its way");
    state.sent(0, &REDELIVERY, 1);
    state.ack_up_to(4);
    assert_eq!(state.floor(), Cursor::new(4));
}

#[test]
fn the_dead_and_the_reasons_are_bounded() {
    let mut state = delivered(1, 0, 1200);
    for offset in 1..=1200 {
        state.keep_reason(offset, &"ü".repeat(600));
    }
    state.release();
    let letters = bury(&mut state);
    assert_eq!((letters.len(), state.floor()), (1200, Cursor::new(1200)));
    assert_eq!(letters.iter().filter(|dying| dying.reason.is_some()).count(), 1024);
    assert!(letters.iter().flat_map(|dying| &dying.reason).all(|reason| reason.len() == 512));
    assert_eq!(state.dead().len(), DEAD_MAX);
    assert!(!state.is_dead(200) && state.is_dead(201), "the newest are known");
}

#[derive(Clone, Debug)]
enum Step {
    Deliver { upto: u64 },
    Sent,
    Ack(u64),
    AckUpTo(u64),
    Nack(u64),
    Again(u64),
    Release,
    Bury { is_durable: bool, ack: Option<u64> },
    Redrive(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..40_u64).prop_map(|upto| Step::Deliver { upto }),
        Just(Step::Sent),
        (1..40_u64).prop_map(Step::Ack),
        (1..40_u64).prop_map(Step::AckUpTo),
        (1..40_u64).prop_map(Step::Nack),
        (0..1000_u64).prop_map(Step::Again),
        Just(Step::Release),
        (any::<bool>(), prop::option::of(1..40_u64))
            .prop_map(|(is_durable, ack)| Step::Bury { is_durable, ack }),
        (1..40_u64).prop_map(Step::Redrive),
        Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// The model is the set of acknowledged events and the letters that were written. The floor never passes
    /// an event that is neither acknowledged nor dead; nothing that is one of them is delivered; and nobody
    /// dies before it was delivered as often as it may be.
    #[test]
    fn the_floor_passes_only_what_is_acknowledged_or_dead(
        limit in 1..3_u32,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut state = DurableState::new(Cursor::START);
        state.set_limits(limit, 0);
        let (mut acked, mut dead, mut unseen) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut on_the_way: Vec<u64> = Vec::new();
        for step in steps {
            match step {
                Step::Deliver { upto } => {
                    let new: Vec<u64> = (state.cursor().get() + 1..=upto).collect();
                    let sent = state.deliver_new(&new, Cursor::new(upto), 0, 1);
                    for (offset, attempts) in sent {
                        prop_assert!(!acked.contains(&offset) && !dead.contains(&offset));
                        prop_assert!(attempts <= limit);
                        on_the_way.push(offset);
                    }
                }
                Step::Again(now_ms) => {
                    for (offset, attempts) in state.deliver_again(now_ms, 5, 1) {
                        prop_assert!(!acked.contains(&offset) && !dead.contains(&offset));
                        prop_assert!(attempts <= limit);
                        on_the_way.push(offset);
                    }
                }
                Step::Sent => {
                    state.sent(0, &REDELIVERY, 1);
                    unseen.retain(|offset| !on_the_way.contains(offset));
                    on_the_way.clear();
                }
                Step::Ack(offset) => {
                    prop_assert!(state.ack(offset));
                    unseen.remove(&offset);
                    acked.insert(offset);
                }
                Step::AckUpTo(offset) => {
                    state.ack_up_to(offset);
                    acked.extend((1..=offset).filter(|offset| !unseen.contains(offset)));
                }
                Step::Nack(offset) => state.nack(offset, Some(10), 0, &REDELIVERY),
                Step::Release => {
                    state.release();
                    on_the_way.clear();
                }
                Step::Bury { is_durable, ack } => {
                    for offset in state.to_address(3) {
                        state.address(offset, None);
                    }
                    let letters = state.begin_burial(2).to_vec();
                    if let Some(offset) = ack {
                        prop_assert!(state.ack(offset));
                        unseen.remove(&offset);
                        acked.insert(offset);
                    }
                    state.end_burial(is_durable);
                    for dying in letters.iter().filter(|_| is_durable) {
                        prop_assert!(dying.attempts >= limit);
                        prop_assert!(dead.insert(dying.offset), "a second letter");
                    }
                }
                Step::Redrive(offset) => {
                    let is_redriven = dead.remove(&offset);
                    prop_assert_eq!(state.redrive(offset), is_redriven);
                    if is_redriven {
                        prop_assert!(!state.is_acked(offset));
                        acked.remove(&offset);
                        unseen.insert(offset);
                        on_the_way.retain(|other| *other != offset);
                    }
                }
                Step::Restart => {
                    state = restarted(&state, limit);
                    on_the_way.clear();
                }
            }
            for offset in 1..=state.floor().get() {
                prop_assert!(acked.contains(&offset) || dead.contains(&offset), "{} is lost", offset);
            }
            for offset in &dead {
                prop_assert!(state.is_dead(*offset) && state.is_acked(*offset));
            }
        }
    }
}
