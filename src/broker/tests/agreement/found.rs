//! What random operations have found, as small as it gets: each was wrong once.

use super::{super::model::Mode, Case, Op, Spec, agree};

fn exclusive() -> Spec {
    Spec {
        mode: Mode::Exclusive,
        partitioned: false,
        lanes: false,
        conflate_ms: 0,
        topics: 2,
        max_in_flight: 3,
        ack_wait_ms: 0,
        max_deliveries: 0,
        backoff_ms: Vec::new(),
    }
}

fn agrees(spec: Spec, ops: Vec<Op>) {
    agree(Case { spec, batch_max: 4, last_per_key: false, before: 0, tail_bytes: 1 << 20, ops })
        .unwrap();
}

fn publish(key: u8, priority: u8) -> Op {
    Op::Publish { topic: 0, key, priority }
}

fn attach(slot: usize) -> Op {
    Op::Attach { slot }
}

fn pull(slot: usize) -> Op {
    Op::Pull { slot, turns: 3, sent: true }
}

fn fetch(limit: usize) -> Op {
    Op::Fetch { limit }
}

const COMMIT: Op = Op::Commit;
const KILL: Op = Op::Kill { seed: 0 };
/// A redrive of nothing: the state goes into the next commit.
const SAVE: Op = Op::Redrive { event: None };

#[test]
fn what_a_fetch_finds_to_be_dead_gets_its_letter_at_once() {
    let spec = Spec { max_deliveries: 2, ..exclusive() };
    let twice = [publish(0, 0), COMMIT, fetch(1), attach(0), fetch(1), SAVE, COMMIT];
    agrees(spec, twice.into_iter().chain([KILL, fetch(1), COMMIT]).collect());
}

#[test]
fn a_fetch_counts_what_dies_against_the_limit() {
    let spec = Spec { max_deliveries: 1, max_in_flight: 2, ..exclusive() };
    let nack = Op::Nack { slot: 3, events: vec![1], delay_ms: Some(50) };
    let ops = [publish(0, 0), COMMIT, fetch(1), nack, publish(0, 0), publish(0, 0), publish(0, 0)];
    agrees(spec.clone(), ops.clone().into_iter().chain([COMMIT, KILL, fetch(3)]).collect());
    // Nor is what waits for its moment left out.
    let spec = Spec { max_deliveries: 0, ..spec };
    agrees(spec, ops.into_iter().chain([COMMIT, KILL, fetch(3)]).collect());
}

#[test]
fn what_comes_again_goes_before_what_is_new_and_lower() {
    let spec = Spec { lanes: true, ack_wait_ms: 10, ..exclusive() };
    let due = [publish(0, 1), COMMIT, fetch(1), publish(0, 2), publish(0, 0)];
    agrees(spec, due.into_iter().chain([Op::Advance { ms: 10 }, COMMIT, fetch(2)]).collect());
}

#[test]
fn what_was_acknowledged_ahead_lets_nothing_new_go_before_what_comes_again() {
    let spec = Spec { lanes: true, ack_wait_ms: 10, ..exclusive() };
    let known = [publish(0, 0), publish(0, 0), publish(0, 1), COMMIT];
    // The put of the durable is event 1.
    let acked = Op::Ack { slot: 3, events: vec![3], up_to: false };
    let ops = [acked, fetch(1), Op::Advance { ms: 10 }, fetch(1)];
    agrees(spec.clone(), known.into_iter().chain(ops).collect());
    let later = [publish(0, 0), publish(0, 0), COMMIT, fetch(1), publish(0, 1), COMMIT];
    let acked = Op::Ack { slot: 3, events: vec![3], up_to: false };
    agrees(spec, later.into_iter().chain([acked, Op::Advance { ms: 10 }, fetch(1)]).collect());
}

#[test]
fn a_nacked_event_whose_key_is_elsewhere_comes_when_its_delay_is_over() {
    let spec = Spec { mode: Mode::Shared, partitioned: true, ..exclusive() };
    let nack = Op::Nack { slot: 0, events: vec![2], delay_ms: Some(5) };
    let ops = [attach(0), attach(1), publish(1, 0), publish(1, 0), COMMIT];
    let one = Op::Pull { slot: 1, turns: 1, sent: true };
    agrees(
        spec,
        ops.into_iter().chain([one, fetch(1), nack, Op::Detach { slot: 1 }, pull(0)]).collect(),
    );
}

#[test]
fn a_member_whose_share_is_used_up_does_not_look_again_at_once() {
    let spec = Spec { mode: Mode::Shared, ..exclusive() };
    let members = (0..3).map(attach);
    let events = [publish(0, 0), publish(0, 0), publish(0, 0), COMMIT];
    let ops = [pull(0), pull(1), pull(2), Op::Detach { slot: 2 }, pull(0), pull(1)];
    agrees(spec, members.chain(events).chain(ops).collect());
}

#[test]
fn a_fetch_goes_on_behind_what_was_replaced() {
    let spec = Spec { conflate_ms: 20, ..exclusive() };
    let twice = [publish(1, 0), COMMIT, publish(1, 0), fetch(1), attach(0), COMMIT];
    agrees(spec, twice.into_iter().chain([pull(0), fetch(1)]).collect());
}

#[test]
fn what_dies_in_its_turn_does_not_end_what_comes_by_lanes() {
    let spec = Spec { lanes: true, max_deliveries: 2, ..exclusive() };
    let one = Op::Pull { slot: 0, turns: 1, sent: true };
    let twice = [publish(0, 3), COMMIT, attach(0), one, fetch(1), publish(0, 1), SAVE, COMMIT];
    agrees(spec, twice.into_iter().chain([KILL, fetch(1)]).collect());
}
