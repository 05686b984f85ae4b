//! What random operations have found, as small as it gets: each was wrong once.

use tidings_proto::{
    Mode, Start, SubscribeOptions,
    subscribe::{Order, PartitionBy},
};

use super::{Case, NAME, Op, TOPICS, agree, filters};

fn exclusive() -> SubscribeOptions {
    SubscribeOptions {
        durable: Some(NAME.to_owned()),
        start: Start::First,
        max_in_flight: 3,
        ack_wait_ms: 0,
        batch_max: 4,
        ..SubscribeOptions::to(filters(&TOPICS[..2]))
    }
}

fn agrees(options: SubscribeOptions, ops: Vec<Op>) {
    agree(Case { options, before: 0, tail_bytes: 1 << 20, ops }).unwrap();
}

fn exclusive_on(topics: usize) -> SubscribeOptions {
    SubscribeOptions { filters: filters(&TOPICS[..topics]), ..exclusive() }
}

/// With so many events to begin with, and hardly any of them in memory.
fn agrees_from_disk(options: SubscribeOptions, before: u8, ops: &[Op]) {
    agree(Case { options, before, tail_bytes: 1, ops: ops.to_vec() }).unwrap();
}

fn publish(key: u8, priority: u8) -> Op {
    Op::Publish { topic: 0, key, priority, ttl_ms: None }
}

fn attach(slot: usize) -> Op {
    Op::Attach { slot }
}

fn pull(slot: usize) -> Op {
    Op::Pull { slot, turns: 3, sent: true }
}

/// Given out, and not taken by the socket yet.
fn unsent(slot: usize, turns: u8) -> Op {
    Op::Pull { slot, turns, sent: false }
}

fn publish_on(topic: u8) -> Op {
    Op::Publish { topic, key: 0, priority: 0, ttl_ms: None }
}

fn change(topics: u8, min_priority: Option<u8>, max_in_flight: u32) -> Op {
    Op::Change { topics, min_priority, max_in_flight, ack_wait_ms: 0 }
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
    let options = SubscribeOptions { max_deliveries: 2, ..exclusive() };
    let twice = [publish(0, 0), COMMIT, fetch(1), attach(0), fetch(1), SAVE, COMMIT];
    agrees(options, twice.into_iter().chain([KILL, fetch(1), COMMIT]).collect());
}

#[test]
fn a_fetch_counts_what_dies_against_the_limit() {
    let options = SubscribeOptions { max_deliveries: 1, max_in_flight: 2, ..exclusive() };
    let nack = Op::Nack { slot: 3, events: vec![1], delay_ms: Some(50) };
    let ops = [publish(0, 0), COMMIT, fetch(1), nack, publish(0, 0), publish(0, 0), publish(0, 0)];
    agrees(options.clone(), ops.clone().into_iter().chain([COMMIT, KILL, fetch(3)]).collect());
    // Nor is what waits for its moment left out.
    let options = SubscribeOptions { max_deliveries: 0, ..options };
    agrees(options, ops.into_iter().chain([COMMIT, KILL, fetch(3)]).collect());
}

#[test]
fn what_comes_again_goes_before_what_is_new_and_lower() {
    let options = SubscribeOptions { order: Order::Priority, ack_wait_ms: 10, ..exclusive() };
    let due = [publish(0, 1), COMMIT, fetch(1), publish(0, 2), publish(0, 0)];
    agrees(options, due.into_iter().chain([Op::Advance { ms: 10 }, COMMIT, fetch(2)]).collect());
}

#[test]
fn what_was_acknowledged_ahead_lets_nothing_new_go_before_what_comes_again() {
    let options = SubscribeOptions { order: Order::Priority, ack_wait_ms: 10, ..exclusive() };
    let known = [publish(0, 0), publish(0, 0), publish(0, 1), COMMIT];
    // The put of the durable is event 1.
    let acked = Op::Ack { slot: 3, events: vec![3], up_to: false };
    let ops = [acked, fetch(1), Op::Advance { ms: 10 }, fetch(1)];
    agrees(options.clone(), known.into_iter().chain(ops).collect());
    let later = [publish(0, 0), publish(0, 0), COMMIT, fetch(1), publish(0, 1), COMMIT];
    let acked = Op::Ack { slot: 3, events: vec![3], up_to: false };
    agrees(options, later.into_iter().chain([acked, Op::Advance { ms: 10 }, fetch(1)]).collect());
}

#[test]
fn a_nacked_event_whose_key_is_elsewhere_comes_when_its_delay_is_over() {
    let options = SubscribeOptions {
        mode: Mode::Shared,
        partition_by: Some(PartitionBy::Key),
        ..exclusive()
    };
    let nack = Op::Nack { slot: 0, events: vec![2], delay_ms: Some(5) };
    let ops = [attach(0), attach(1), publish(1, 0), publish(1, 0), COMMIT];
    let one = Op::Pull { slot: 1, turns: 1, sent: true };
    agrees(
        options,
        ops.into_iter().chain([one, fetch(1), nack, Op::Detach { slot: 1 }, pull(0)]).collect(),
    );
}

#[test]
fn a_member_whose_share_is_used_up_does_not_look_again_at_once() {
    let options = SubscribeOptions { mode: Mode::Shared, ..exclusive() };
    let members = (0..3).map(attach);
    let events = [publish(0, 0), publish(0, 0), publish(0, 0), COMMIT];
    let ops = [pull(0), pull(1), pull(2), Op::Detach { slot: 2 }, pull(0), pull(1)];
    agrees(options, members.chain(events).chain(ops).collect());
}

#[test]
fn a_fetch_goes_on_behind_what_was_replaced() {
    let options = SubscribeOptions { conflate_ms: 20, ..exclusive() };
    let twice = [publish(1, 0), COMMIT, publish(1, 0), fetch(1), attach(0), COMMIT];
    agrees(options, twice.into_iter().chain([pull(0), fetch(1)]).collect());
}

#[test]
fn what_dies_in_its_turn_does_not_end_what_comes_by_lanes() {
    let options = SubscribeOptions { order: Order::Priority, max_deliveries: 2, ..exclusive() };
    let one = Op::Pull { slot: 0, turns: 1, sent: true };
    let twice = [publish(0, 3), COMMIT, attach(0), one, fetch(1), publish(0, 1), SAVE, COMMIT];
    agrees(options, twice.into_iter().chain([KILL, fetch(1)]).collect());
}

#[test]
fn a_fetch_goes_on_in_the_room_of_what_it_finds_to_be_wanted_no_longer() {
    let options = SubscribeOptions { max_in_flight: 1, ..exclusive() };
    let of_other = publish_on(1);
    let narrowed = change(1, None, 1);
    let known = [of_other, COMMIT, publish(0, 0), COMMIT, attach(0), pull(0)];
    agrees(options.clone(), known.into_iter().chain([narrowed, fetch(1)]).collect());
    // Nor has expired.
    let options = SubscribeOptions { ack_wait_ms: 10, ..options };
    let expires = Op::Publish { topic: 0, key: 0, priority: 0, ttl_ms: Some(20) };
    let known = [expires, COMMIT, publish(0, 0), COMMIT, fetch(1), Op::Advance { ms: 30 }];
    agrees(options, known.into_iter().chain([fetch(1)]).collect());
}

#[test]
fn nothing_new_goes_before_what_comes_again_behind_what_has_expired() {
    let options = SubscribeOptions { ack_wait_ms: 10, batch_max: 1, ..exclusive() };
    let expires = Op::Publish { topic: 0, key: 0, priority: 0, ttl_ms: Some(20) };
    let known = [expires, publish(0, 0), COMMIT, attach(0), pull(0), publish(0, 0), COMMIT];
    for next in [fetch(1), Op::Pull { slot: 0, turns: 1, sent: true }] {
        let ops = known.clone().into_iter().chain([Op::Advance { ms: 30 }, next]);
        agrees(options.clone(), ops.collect());
    }
}

#[test]
fn the_floor_of_a_mirror_passes_nothing_that_is_gone_before_somebody_was_told() {
    let options = SubscribeOptions { mode: Mode::Mirror, ..exclusive() };
    let ack = Op::Ack { slot: 3, events: vec![0], up_to: false };
    let ops = [publish(0, 0), COMMIT, Op::Erase { topic: 0 }, ack, COMMIT];
    for next in [attach(0), fetch(1)] {
        let next = [next, pull(0), SAVE, COMMIT, KILL, attach(0), pull(0)];
        agrees(options.clone(), ops.clone().into_iter().chain(next).collect());
    }
}

#[test]
fn a_fetch_by_lanes_goes_on_behind_what_has_expired() {
    let options = SubscribeOptions { order: Order::Priority, ..exclusive() };
    let expires = Op::Publish { topic: 0, key: 0, priority: 3, ttl_ms: Some(20) };
    let ops = [expires, publish(0, 0), COMMIT, Op::Advance { ms: 30 }, fetch(1)];
    agrees(options.clone(), ops.into_iter().collect());
    // Nor is a session that finds such things due again told to look at once.
    let gone = [publish(0, 0), publish(0, 0), COMMIT, fetch(2), Op::Erase { topic: 0 }];
    let ops = gone.into_iter().chain([attach(0), attach(1), pull(1)]);
    agrees(SubscribeOptions { batch_max: 1, ..options }, ops.collect());
}

#[test]
fn who_was_superseded_is_not_the_one_who_is_told_of_a_gap() {
    let options = SubscribeOptions { order: Order::Priority, ..exclusive() };
    let known = [publish(0, 0), publish(0, 0), COMMIT, attach(0), fetch(1)];
    let ops = [Op::Erase { topic: 0 }, pull(0), fetch(1)];
    agrees(options, known.into_iter().chain(ops).collect());
}

#[test]
fn what_is_redriven_and_gone_keeps_nothing_behind_it_waiting() {
    let options = SubscribeOptions { max_deliveries: 1, max_in_flight: 1, ..exclusive() };
    let other = publish_on(1);
    let die = [fetch(1), attach(0), attach(0), SAVE, COMMIT];
    let first = [other, COMMIT].into_iter().chain(die.clone());
    let second = [publish(0, 0), COMMIT].into_iter().chain(die);
    let both = first.chain(second).chain([Op::Erase { topic: 1 }, SAVE]);
    agrees(options, both.chain([fetch(1)]).collect());
}

#[test]
fn what_had_expired_before_it_went_is_missed_by_nobody() {
    let options = SubscribeOptions { order: Order::Priority, ..exclusive() };
    let short = Op::Publish { topic: 0, key: 0, priority: 0, ttl_ms: Some(1) };
    let ops = [short, publish(0, 0), attach(0), Op::Advance { ms: 1 }, COMMIT, pull(0)];
    agrees(options, ops.into_iter().chain([Op::Erase { topic: 0 }, pull(0)]).collect());
}

#[test]
fn an_event_that_is_erased_while_its_letter_is_written() {
    let options = SubscribeOptions {
        order: Order::Priority,
        max_deliveries: 2,
        max_in_flight: 5,
        batch_max: 1,
        ..exclusive()
    };
    let ops = vec![
        fetch(1),
        attach(0),
        fetch(1),
        Op::Erase { topic: 1 },
        KILL,
        fetch(1),
        Op::Erase { topic: 0 },
    ];
    agrees_from_disk(options, 24, &ops);
}

#[test]
fn a_state_of_which_one_has_expired_at_a_kill() {
    let options = SubscribeOptions {
        start: Start::Now,
        last_per_key: true,
        max_in_flight: 1,
        max_deliveries: 2,
        batch_max: 1,
        ..exclusive_on(1)
    };
    let one = unsent(0, 1);
    let expires = Op::Publish { topic: 0, key: 0, priority: 0, ttl_ms: Some(1) };
    let change = change(1, None, 2);
    let ops = vec![
        attach(0),
        one,
        expires,
        Op::Advance { ms: 1 },
        change,
        fetch(1),
        COMMIT,
        KILL,
        fetch(1),
    ];
    agrees_from_disk(options, 6, &ops);
}

#[test]
fn lanes_of_which_all_is_gone_end_behind_it() {
    let options = SubscribeOptions {
        mode: Mode::Shared,
        order: Order::Priority,
        max_in_flight: 5,
        batch_max: 1,
        ..exclusive_on(1)
    };
    let change = Op::Change { topics: 3, min_priority: None, max_in_flight: 1, ack_wait_ms: 10 };
    let one = Op::Pull { slot: 0, turns: 1, sent: true };
    let two = unsent(0, 2);
    let ops = [
        change,
        attach(0),
        one,
        Op::Advance { ms: 10 },
        Op::Retain { topic: None, events: 0 },
        two,
    ];
    agrees_from_disk(options, 24, &ops);
}

#[test]
fn what_waits_for_its_key_waits_on_behind_a_change() {
    let options = SubscribeOptions {
        mode: Mode::Shared,
        partition_by: Some(PartitionBy::Key),
        max_in_flight: 6,
        batch_max: 1,
        ..exclusive_on(3)
    };
    let change = change(1, None, 1);
    let ops = [
        publish(0, 0),
        publish(2, 0),
        publish(0, 0),
        attach(1),
        publish(0, 0),
        attach(0),
        publish(2, 0),
        COMMIT,
        unsent(0, 3),
        fetch(2),
        Op::Ack { slot: 0, events: vec![6], up_to: false },
        change,
    ];
    agrees_from_disk(options, 0, &ops);
}

#[test]
fn what_has_replaced_a_state_and_is_gone_holds_it_back_no_longer() {
    let options =
        SubscribeOptions { max_in_flight: 2, conflate_ms: 20, batch_max: 1, ..exclusive_on(1) };
    let other = publish_on(1);
    let ops = [
        publish(0, 0),
        publish(1, 0),
        other,
        Op::Erase { topic: 1 },
        publish(0, 0),
        publish(0, 0),
        publish(1, 0),
        Op::Retain { topic: None, events: 0 },
        Op::Ack { slot: 0, events: vec![0], up_to: false },
        attach(2),
        unsent(2, 2),
        fetch(2),
    ];
    agrees_from_disk(options, 0, &ops);
}

#[test]
fn two_that_were_redriven_before_and_behind_a_kill() {
    let options =
        SubscribeOptions { max_in_flight: 1, max_deliveries: 1, batch_max: 1, ..exclusive_on(1) };
    let other = |topic| Op::Publish { topic, key: 0, priority: 0, ttl_ms: None };
    let change = Op::Change { topics: 3, min_priority: None, max_in_flight: 2, ack_wait_ms: 10 };
    let ops = [
        other(2),
        change,
        other(0),
        COMMIT,
        fetch(2),
        Op::Advance { ms: 10 },
        COMMIT,
        Op::Redrive { event: Some(6) },
        Op::Erase { topic: 1 },
        KILL,
        attach(1),
        Op::Redrive { event: None },
        unsent(1, 1),
    ];
    agrees_from_disk(options, 0, &ops);
}

#[test]
fn lanes_whose_priorities_were_changed_and_changed_back() {
    let options = SubscribeOptions {
        order: Order::Priority,
        max_in_flight: 5,
        max_deliveries: 1,
        batch_max: 1,
        ..exclusive_on(1)
    };
    let change = |min_priority, max_in_flight| change(1, min_priority, max_in_flight);
    let high = Op::Publish { topic: 0, key: 0, priority: 2, ttl_ms: None };
    let ops = [high, change(Some(2), 2), fetch(2), change(None, 1)];
    agrees_from_disk(options, 24, &ops);
}

#[test]
fn a_state_of_a_mirror_whose_replacement_is_wanted_no_longer() {
    let options = SubscribeOptions {
        mode: Mode::Mirror,
        conflate_ms: 20,
        max_in_flight: 1,
        batch_max: 1,
        ..exclusive_on(1)
    };
    let change = change(1, Some(1), 1);
    let ops = [
        Op::Erase { topic: 0 },
        publish(2, 2),
        Op::Pause { paused: true },
        publish(0, 0),
        attach(0),
        Op::Pause { paused: false },
        publish(0, 0),
        publish(2, 0),
        publish(0, 0),
        COMMIT,
        Op::Ack { slot: 0, events: vec![0], up_to: false },
        change,
    ];
    agrees_from_disk(options, 0, &ops);
}

#[test]
fn lanes_that_die_are_gone_and_are_wanted_no_longer() {
    let options = SubscribeOptions {
        order: Order::Priority,
        max_in_flight: 10,
        max_deliveries: 1,
        batch_max: 4,
        ..exclusive()
    };
    let change = change(1, None, 1);
    let ops = [attach(1), pull(1), Op::Erase { topic: 0 }, attach(0), change];
    agrees_from_disk(options, 24, &ops);
}

#[test]
fn a_mirror_whose_floor_has_passed_what_had_expired() {
    let options =
        SubscribeOptions { mode: Mode::Mirror, max_in_flight: 1, batch_max: 1, ..exclusive_on(1) };
    let expires = Op::Publish { topic: 0, key: 0, priority: 0, ttl_ms: Some(1) };
    let ops = [
        expires,
        publish(0, 0),
        Op::Advance { ms: 1 },
        COMMIT,
        Op::Ack { slot: 3, events: vec![2], up_to: false },
        Op::Erase { topic: 0 },
        attach(0),
    ];
    agrees_from_disk(options, 0, &ops);
}

#[test]
fn what_a_fetch_leaves_to_the_one_that_has_its_key() {
    let options = SubscribeOptions {
        mode: Mode::Shared,
        partition_by: Some(PartitionBy::Key),
        max_in_flight: 6,
        batch_max: 1,
        ..exclusive()
    };
    let one = unsent(0, 1);
    let other = Op::Publish { topic: 1, key: 2, priority: 0, ttl_ms: None };
    let ops = [
        other.clone(),
        attach(0),
        Op::Erase { topic: 0 },
        one.clone(),
        publish(0, 0),
        other,
        Op::Retain { topic: None, events: 1 },
        fetch(2),
        one,
    ];
    agrees_from_disk(options, 0, &ops);
}

#[test]
fn a_mirror_whose_floor_has_passed_what_was_replaced() {
    let options = SubscribeOptions {
        mode: Mode::Mirror,
        conflate_ms: 20,
        max_in_flight: 1,
        batch_max: 1,
        ..exclusive_on(1)
    };
    let change = Op::Change { topics: 1, min_priority: None, max_in_flight: 1, ack_wait_ms: 10 };
    let ops = [
        publish(1, 0),
        publish(1, 0),
        change,
        Op::Ack { slot: 3, events: vec![2], up_to: false },
        publish_on(1),
        Op::Retain { topic: None, events: 0 },
        attach(0),
    ];
    agrees_from_disk(options, 0, &ops);
}

#[test]
fn the_floor_of_lanes_waits_for_the_turn_of_what_is_not_wanted() {
    let options = SubscribeOptions {
        order: Order::Priority,
        max_in_flight: 5,
        max_deliveries: 1,
        batch_max: 1,
        ..exclusive_on(1)
    };
    let change = Op::Change { topics: 1, min_priority: Some(2), max_in_flight: 1, ack_wait_ms: 10 };
    let ops = [
        change,
        Op::Reset { to: Some(0) },
        publish(0, 2),
        COMMIT,
        fetch(1),
        Op::Advance { ms: 10 },
        COMMIT,
    ];
    agrees_from_disk(options, 24, &ops);
}

#[test]
fn a_nack_of_what_was_redriven_and_has_not_come_since() {
    let options = SubscribeOptions {
        order: Order::Priority,
        max_in_flight: 10,
        max_deliveries: 1,
        batch_max: 2,
        ..exclusive_on(1)
    };
    let ops = [
        attach(1),
        Op::Pull { slot: 1, turns: 4, sent: true },
        attach(0),
        COMMIT,
        Op::Redrive { event: None },
        fetch(1),
        Op::Nack { slot: 3, events: vec![9], delay_ms: Some(1) },
        COMMIT,
        KILL,
        fetch(4),
    ];
    agrees_from_disk(options, 24, &ops);
}

#[test]
fn the_turn_of_the_oldest_of_lanes_is_spent_on_what_is_gone() {
    let options = SubscribeOptions {
        mode: Mode::Shared,
        order: Order::Priority,
        max_in_flight: 15,
        batch_max: 2,
        ..exclusive_on(3)
    };
    let ops = [
        attach(0),
        unsent(0, 1),
        attach(1),
        fetch(3),
        fetch(2),
        unsent(1, 3),
        unsent(0, 2),
        Op::Ack { slot: 3, events: vec![13], up_to: false },
        Op::Publish { topic: 1, key: 0, priority: 3, ttl_ms: None },
        Op::Erase { topic: 0 },
        unsent(0, 2),
    ];
    agrees_from_disk(options, 24, &ops);
}

#[test]
fn a_last_delivery_before_a_kill_is_found_in_its_turn_unless_it_is_gone() {
    let lanes = SubscribeOptions { order: Order::Priority, batch_max: 1, ..exclusive_on(1) };
    let options = SubscribeOptions { max_in_flight: 5, max_deliveries: 2, ..lanes };
    let change = change(1, None, 1);
    let unsent = unsent(2, 1);
    let erase = |topic| Op::Erase { topic };
    let ops = [publish(0, 2), Op::Reset { to: Some(1) }, attach(2), unsent, fetch(1), erase(1)];
    let ops: Vec<Op> = ops.into_iter().chain([KILL, fetch(1), change.clone()]).collect();
    agrees_from_disk(options.clone(), 24, &ops);
    let options = SubscribeOptions { ack_wait_ms: 10, ..options };
    let twice = [fetch(1), Op::Advance { ms: 10 }, fetch(1), SAVE, COMMIT, KILL, erase(0)];
    let ops: Vec<Op> = twice.into_iter().chain([attach(0), change]).collect();
    agrees_from_disk(options, 24, &ops);
}

#[test]
fn lanes_wait_for_what_was_said_no_to_and_unwanted_for_a_while() {
    let lanes = SubscribeOptions { order: Order::Priority, batch_max: 1, ..exclusive_on(1) };
    let options = SubscribeOptions { max_in_flight: 10, ..lanes };
    let unsent = |turns| unsent(0, turns);
    let change = |min_priority, max_in_flight| change(1, min_priority, max_in_flight);
    let ops = [
        attach(0),
        unsent(3),
        unsent(5),
        Op::Nack { slot: 0, events: vec![9], delay_ms: Some(1) },
        change(Some(2), 1),
        KILL,
        change(None, 4),
        fetch(4),
    ];
    agrees_from_disk(options, 24, &ops);
}

#[test]
fn what_has_expired_before_a_window_is_found_when_that_is_over() {
    let shared = SubscribeOptions { mode: Mode::Shared, conflate_ms: 20, ..exclusive_on(1) };
    let options = SubscribeOptions { max_in_flight: 1, batch_max: 1, ..shared };
    let unsent = unsent(0, 1);
    let ops = [
        Op::Publish { topic: 0, key: 0, priority: 0, ttl_ms: Some(1) },
        fetch(1),
        attach(0),
        unsent.clone(),
        COMMIT,
        publish(0, 0),
        Op::Advance { ms: 20 },
        COMMIT,
        unsent,
    ];
    agrees(options, ops.to_vec());
}

#[test]
fn what_was_given_and_unwanted_for_a_while_may_be_passed_by_the_time_of_a_kill() {
    let shared = SubscribeOptions { mode: Mode::Shared, ..exclusive_on(2) };
    let options = SubscribeOptions { max_in_flight: 2, batch_max: 1, ..shared };
    let change = |topics| change(topics, None, 1);
    let on_other = publish_on(1);
    let ops = [on_other, COMMIT, fetch(1), change(1), publish(0, 0), COMMIT, fetch(1)];
    agrees(options, ops.into_iter().chain([publish(0, 0), change(2), KILL]).collect());
}

#[test]
fn what_is_left_of_a_topic_whose_newest_is_gone_is_no_state() {
    let state = SubscribeOptions { last_per_key: true, start: Start::Now, ..exclusive_on(3) };
    let options = SubscribeOptions { max_in_flight: 1, batch_max: 1, ..state };
    let on_other = publish_on(2);
    let erase = |topic| Op::Erase { topic };
    let retain = Op::Retain { topic: None, events: 0 };
    let ops = [erase(0), on_other, erase(1), publish(0, 0), retain, fetch(1)];
    agrees_from_disk(options, 6, &ops);
}

#[test]
fn what_dies_in_its_turn_is_dead_when_it_is_put_away_at_once() {
    let options = SubscribeOptions {
        max_deliveries: 2,
        max_in_flight: 1,
        batch_max: 1,
        conflate_ms: 20,
        ..exclusive_on(1)
    };
    let unsent = |slot| unsent(slot, 1);
    let mut ops = vec![publish(0, 0); 5];
    ops.extend([
        COMMIT,
        attach(1),
        unsent(1),
        attach(2),
        unsent(2),
        COMMIT,
        KILL,
        fetch(1),
        Op::PutAway,
    ]);
    agrees(options, ops);
}

#[test]
fn the_turn_of_the_oldest_waits_until_there_is_room_for_it() {
    let lanes = SubscribeOptions { order: Order::Priority, mode: Mode::Shared, ..exclusive_on(3) };
    let options = SubscribeOptions { max_in_flight: 15, batch_max: 3, ..lanes };
    let ops = [
        attach(2),
        unsent(2, 5),
        unsent(2, 1),
        Op::Nack { slot: 2, events: vec![4], delay_ms: None },
        attach(1),
        unsent(1, 1),
        Op::Ack { slot: 2, events: vec![13], up_to: false },
        fetch(1),
    ];
    agrees_from_disk(options, 24, &ops);
}

#[test]
fn what_dies_at_an_attach_is_dead_when_it_is_put_away_at_once() {
    let options =
        SubscribeOptions { max_deliveries: 2, max_in_flight: 3, batch_max: 2, ..exclusive_on(2) };
    let on = |topic| Op::Publish { topic, key: 0, priority: 0, ttl_ms: None };
    let ops = [
        on(1),
        Op::Read { from: None, last_per_key: false },
        on(2),
        on(0),
        on(0),
        Op::Erase { topic: 1 },
        on(0),
        fetch(1),
        change(1, None, 1),
        on(0),
        fetch(1),
        Op::Retain { topic: None, events: 1 },
        attach(1),
        unsent(1, 1),
        attach(0),
        COMMIT,
        KILL,
        attach(0),
        Op::PutAway,
        KILL,
    ];
    agrees(options, ops.to_vec());
}

#[test]
fn that_it_was_delivered_once_is_forgotten_when_its_delay_is_over() {
    let lanes = SubscribeOptions { mode: Mode::Shared, order: Order::Priority, ..exclusive_on(2) };
    let options = SubscribeOptions { max_in_flight: 5, batch_max: 1, ..lanes };
    let ops = [
        attach(1),
        unsent(1, 2),
        Op::Nack { slot: 1, events: vec![4], delay_ms: Some(1) },
        COMMIT,
        Op::Advance { ms: 2 },
        KILL,
        change(2, None, 2),
        Op::PutAway,
        fetch(2),
    ];
    agrees_from_disk(options, 24, &ops);
}

#[test]
fn what_waits_for_its_moment_unwanted_for_a_while_may_come_after_a_kill() {
    let options = SubscribeOptions { max_in_flight: 2, max_deliveries: 2, ..exclusive_on(1) };
    let options = SubscribeOptions { batch_max: 1, conflate_ms: 20, ..options };
    let change = |min_priority, max_in_flight| change(1, min_priority, max_in_flight);
    let unsent = |slot| unsent(slot, 2);
    let on_other = || publish_on(1);
    let ops = [
        publish(0, 0),
        attach(2),
        on_other(),
        on_other(),
        on_other(),
        Op::Pause { paused: true },
        publish(0, 0),
        Op::Pause { paused: false },
        unsent(2),
        Op::Nack { slot: 2, events: vec![6], delay_ms: Some(1) },
        change(Some(1), 1),
        change(None, 2),
        KILL,
        attach(1),
        unsent(1),
    ];
    agrees(options, ops.to_vec());
}

#[test]
fn what_has_expired_replaces_nothing_for_whoever_takes_over() {
    let conflating = SubscribeOptions { conflate_ms: 20, ..exclusive_on(1) };
    let options = SubscribeOptions { max_in_flight: 1, batch_max: 1, ..conflating };
    let ops = [
        publish_on(2),
        Op::Erase { topic: 2 },
        publish(2, 0),
        Op::Publish { topic: 0, key: 2, priority: 0, ttl_ms: Some(1) },
        Op::Retain { topic: None, events: 1 },
        Op::Advance { ms: 1 },
        attach(0),
        attach(0),
    ];
    agrees_from_disk(options, 0, &ops);
}

#[test]
fn what_is_wanted_again_after_a_kill_may_die_where_nothing_replaces_it_any_more() {
    let conflating = SubscribeOptions { conflate_ms: 20, ..exclusive_on(1) };
    let shared = SubscribeOptions { mode: Mode::Shared, max_deliveries: 2, ..conflating };
    let options = SubscribeOptions { max_in_flight: 1, batch_max: 1, ..shared };
    let ops = [
        publish(1, 1),
        Op::PutAway,
        fetch(1),
        change(1, None, 2),
        publish(1, 0),
        fetch(1),
        Op::Erase { topic: 1 },
        Op::Advance { ms: 20 },
        KILL,
        change(1, Some(1), 1),
        fetch(1),
        COMMIT,
    ];
    agrees_from_disk(options, 0, &ops);
}

#[test]
fn what_died_in_its_turn_though_it_is_replaced_takes_room_until_its_letter_is_written() {
    let conflating = SubscribeOptions { conflate_ms: 20, ..exclusive_on(1) };
    let options = SubscribeOptions { max_in_flight: 1, max_deliveries: 2, ..conflating };
    let options = SubscribeOptions { batch_max: 1, ..options };
    let given_twice =
        [publish(2, 0), COMMIT, publish(0, 0), attach(1), publish(2, 0), unsent(1, 1)];
    let killed = [fetch(1), COMMIT, Op::Advance { ms: 20 }, KILL];
    for looks in [vec![fetch(1)], vec![attach(1), unsent(1, 2)]] {
        let ops = given_twice.iter().chain(&killed).chain(&looks);
        agrees_from_disk(options.clone(), 0, &ops.cloned().collect::<Vec<_>>());
    }
}

#[test]
fn what_came_for_the_last_time_before_a_change_comes_once_more_also_over_a_kill() {
    let options = SubscribeOptions { max_deliveries: 2, ..exclusive_on(1) };
    let twice = [publish(0, 0), COMMIT, fetch(1), attach(0), fetch(1), SAVE, COMMIT];
    let changed = [change(1, None, 2), KILL, fetch(1), COMMIT];
    agrees(options, twice.into_iter().chain(changed).collect());
}

#[test]
fn a_letter_that_was_written_before_a_kill_about_what_is_gone_is_there_behind_a_reset() {
    let options = SubscribeOptions { max_deliveries: 1, ack_wait_ms: 10, ..exclusive_on(3) };
    let lanes = SubscribeOptions { order: Order::Priority, max_in_flight: 5, ..options };
    let ops = [
        fetch(1),
        attach(0),
        attach(0),
        Op::Retain { topic: Some(2), events: 0 },
        SAVE,
        COMMIT,
        KILL,
        fetch(1),
        Op::Reset { to: None },
    ];
    agrees_from_disk(SubscribeOptions { batch_max: 1, ..lanes }, 24, &ops);
}

#[test]
fn what_a_mirror_was_told_is_gone_holds_its_floor_again_behind_a_change_of_its_filters() {
    let options = SubscribeOptions { mode: Mode::Mirror, batch_max: 1, ..exclusive_on(2) };
    let ops = [
        publish(0, 0),
        attach(0),
        Op::Erase { topic: 0 },
        unsent(0, 1),
        change(1, None, 3),
        Op::Ack { slot: 3, events: vec![1], up_to: false },
    ];
    agrees(options, ops.to_vec());
}

#[test]
fn a_nacked_state_that_was_replaced_takes_room_until_its_time_also_over_a_kill() {
    let states = SubscribeOptions { start: Start::Now, last_per_key: true, ..exclusive_on(2) };
    let shared = SubscribeOptions { mode: Mode::Shared, max_in_flight: 2, ..states };
    let ops = [
        fetch(2),
        Op::Nack { slot: 3, events: vec![1], delay_ms: Some(1) },
        COMMIT,
        KILL,
        attach(0),
        fetch(1),
        attach(1),
        Op::Publish { topic: 1, key: 1, priority: 0, ttl_ms: None },
        COMMIT,
        unsent(0, 1),
    ];
    agrees_from_disk(SubscribeOptions { batch_max: 1, ..shared }, 6, &ops);
}

#[test]
fn what_a_mirror_has_passed_before_a_kill_is_told_no_more_after_a_change() {
    let options = SubscribeOptions { mode: Mode::Mirror, max_in_flight: 1, ..exclusive_on(1) };
    let told = [publish(0, 0), Op::Erase { topic: 0 }, attach(0), Op::PutAway, KILL];
    agrees(options, told.into_iter().chain([change(2, None, 1), attach(0)]).collect());
}

#[test]
fn the_floor_of_lanes_waits_for_what_is_not_wanted_behind_what_there_is_no_room_for() {
    let lanes = SubscribeOptions { mode: Mode::Shared, order: Order::Priority, ..exclusive_on(1) };
    let options = SubscribeOptions { max_in_flight: 5, max_deliveries: 1, batch_max: 1, ..lanes };
    let narrowed =
        Op::Change { topics: 2, min_priority: Some(1), max_in_flight: 4, ack_wait_ms: 10 };
    let known = [narrowed, Op::Reset { to: None }, publish(0, 1), publish_on(1), publish(0, 1)];
    // The two that are given are the share of one member, the second behind what is not wanted.
    let ops =
        [COMMIT, attach(1), attach(0), pull(0), Op::Advance { ms: 10 }, Op::Erase { topic: 0 }];
    agrees_from_disk(options, 0, &[known.to_vec(), ops.to_vec()].concat());
}

#[test]
fn what_came_for_the_last_time_and_is_unwanted_when_lanes_pass_it_is_no_dead() {
    let change = |topics, ack_wait_ms| Op::Change {
        topics,
        min_priority: None,
        max_in_flight: 1,
        ack_wait_ms,
    };
    agrees_from_disk(
        SubscribeOptions {
            order: Order::Priority,
            max_in_flight: 5,
            max_deliveries: 3,
            batch_max: 1,
            ..exclusive_on(3)
        },
        24,
        &[
            Op::Retain { topic: None, events: 0 },
            publish_on(2),
            attach(0),
            Op::Commit,
            unsent(0, 1),
            attach(0),
            fetch(1),
            Op::Commit,
            Op::Kill { seed: 0 },
            change(1, 0),
            attach(0),
            change(1, 10),
        ],
    );
}

#[test]
fn what_waited_for_its_moment_before_it_was_put_away_may_be_found_replaced_when_that_has_come() {
    agrees_from_disk(
        SubscribeOptions {
            mode: Mode::Shared,
            max_in_flight: 1,
            backoff_ms: vec![1],
            conflate_ms: 20,
            batch_max: 1,
            idle_expiry_ms: 0,
            ..exclusive_on(1)
        },
        0,
        &[
            Op::Redrive { event: None },
            publish_on(2),
            Op::Commit,
            Op::Reset { to: None },
            change(3, None, 2),
            Op::Erase { topic: 0 },
            Op::Publish { topic: 0, key: 2, priority: 0, ttl_ms: None },
            publish_on(2),
            Op::Erase { topic: 2 },
            fetch(1),
            Op::Nack { slot: 3, events: vec![8], delay_ms: None },
            publish_on(1),
            publish_on(0),
            Op::Publish { topic: 0, key: 2, priority: 0, ttl_ms: None },
            Op::PutAway,
            attach(1),
            unsent(1, 1),
        ],
    );
}
