use std::{sync::Arc, time::Duration};

use tidings_proto::{Filter, Filters, Offset, Topic};
use tidings_storage::{Flags, Record};

use super::*;

fn pace(linger_ms: u64, conflate_ms: u64) -> Pace {
    let filters = Filters::one(Filter::parse("a").unwrap());
    *Pace::of(&SubscribeOptions { linger_ms, conflate_ms, ..SubscribeOptions::to(filters) })
        .unwrap()
}

/// Events of ten bytes: offset, when durable, whether urgent.
fn found(events: &[(u64, Option<u64>, bool)]) -> Batch {
    let events = events.iter().map(|&(offset, at_ms, is_urgent)| {
        let priority = if is_urgent { Priority::Urgent } else { Priority::Normal };
        let record = Record {
            offset: Offset::new(offset).unwrap(),
            time_ms: 0,
            flags: Flags::default().with_priority(priority.to_bits()),
            topic: Topic::parse("a").unwrap(),
            key: Default::default(),
            dedupe: None,
            body: vec![0; 10].into(),
        };
        let stored = Stored::new(record);
        Arc::new(match at_ms {
            Some(at) => stored.durable_since(Duration::from_millis(at)),
            None => stored,
        })
    });
    let events: Vec<_> = events.collect();
    let cursor = events.last().map_or(Cursor::START, |event| event.offset().cursor());
    Batch { events, cursor, damaged: None }
}

/// How much is still waited for, where it waits.
fn waits(step: Step) -> Option<u32> {
    match step {
        Step::Send => None,
        Step::Wait(_, enough) => Some(enough.events),
    }
}

#[test]
fn without_options_there_is_no_pace_and_the_larger_window_counts() {
    let filters = Filters::one(Filter::parse("a").unwrap());
    assert!(Pace::of(&SubscribeOptions::to(filters)).is_none());
    for (linger, conflate) in [(50, 20), (20, 50)] {
        let mut pace = pace(linger, conflate);
        assert!(waits(pace.look(&found(&[(1, Some(100), false)]), |_| true, 9, 100)).is_some());
        assert_eq!((pace.due_ms(), pace.conflates()), (Some(150), true));
    }
}

#[test]
fn the_wait_begins_with_the_first_event_that_is_wanted_and_ends_in_time() {
    let mut pace = pace(30, 0);
    let wants = |event: &Stored| event.offset().get() != 1;
    let first = found(&[(1, Some(80), true), (2, Some(100), false)]);
    assert_eq!(waits(pace.look(&first, wants, 9, 105)), Some(8));
    assert_eq!(pace.due_ms(), Some(130));
    assert_eq!(pace.look_from(Cursor::new(1), 110), Some(Cursor::new(2)), "it goes on from there");
    assert_eq!(waits(pace.look(&found(&[(3, Some(120), false)]), wants, 9, 120)), Some(7));
    assert_eq!(pace.due_ms(), Some(130), "the first one counts");
    assert_eq!(pace.look_from(Cursor::new(1), 129), Some(Cursor::new(3)));
    assert_eq!(pace.look_from(Cursor::new(1), 130), None, "it is due");
    assert_eq!(pace.due_ms(), None);
    assert_eq!(pace.look_from(Cursor::new(3), 131), Some(Cursor::new(3)), "and begins anew");
}

#[test]
fn what_is_late_enough_or_urgent_is_sent_at_once() {
    let normal = |offset| (offset, Some(100), false);
    for (events, why) in [
        (vec![(1, Some(70), false)], "late"),
        (vec![(1, None, false)], "from the disk"),
        (vec![normal(1), (2, Some(100), true)], "urgent"),
        (vec![normal(1), normal(2), normal(3)], "enough"),
        (vec![], "nothing"),
    ] {
        let mut pace = pace(30, 0);
        assert_eq!(pace.look(&found(&events), |_| true, 3, 100), Step::Send, "{why}");
        assert_eq!(pace.due_ms(), None, "{why}");
    }
}

#[test]
fn of_states_it_is_never_enough() {
    let mut pace = pace(0, 30);
    let many: Vec<_> = (1..=2000).map(|offset| (offset, Some(100), false)).collect();
    assert!(waits(pace.look(&found(&many), |_| true, 3, 100)).is_some());
    assert_eq!(pace.look_from(Cursor::new(2500), 101), Some(Cursor::new(2500)));
    assert_eq!(pace.due_ms(), None, "what waited was passed");
}
