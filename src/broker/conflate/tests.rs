use proptest::prelude::*;
use tidings_proto::Offset;
use tidings_storage::{Flags, Record};

use super::*;

/// An event on the topic `t0`, `t1`, … with the key `k0`, `k1`, … or none, and so large a body.
fn event(offset: u64, topic: u8, key: Option<u8>, bytes: usize) -> Arc<Stored> {
    Arc::new(Stored::new(Record {
        offset: Offset::new(offset).unwrap(),
        time_ms: 0,
        flags: Flags::default(),
        topic: Topic::parse(&format!("t{topic}")).unwrap(),
        key: key.map(|key| format!("k{key}").into()).unwrap_or_default(),
        dedupe: None,
        body: vec![0; bytes].into(),
    }))
}

/// What is sent of these, and after how many the batch was full.
fn gathered(events: &[Arc<Stored>], limit: ReadLimit) -> (Vec<u64>, usize, Gathered) {
    let mut gathered = Gathered::new(limit);
    let taken = events.iter().take_while(|event| gathered.take((*event).clone())).count();
    (gathered.events.keys().copied().collect(), taken, gathered)
}

/// The plain meaning: those without a key, and the last of every topic and key.
fn model(events: &[Arc<Stored>]) -> Vec<u64> {
    let is_last = |at: usize| {
        let is_same = |other: &Arc<Stored>| {
            other.topic() == events[at].topic() && other.key() == events[at].key()
        };
        events[at].key().is_none() || !events[at + 1..].iter().any(is_same)
    };
    (0..events.len()).filter(|&at| is_last(at)).map(|at| events[at].offset().get()).collect()
}

#[test]
fn the_last_of_every_topic_and_key_is_kept_in_the_order_of_the_log() {
    let limit = ReadLimit { events: 100, bytes: 1 << 20 };
    let events = [
        event(1, 0, Some(0), 9),
        event(2, 0, None, 9),
        event(4, 1, Some(0), 9),
        event(5, 0, Some(1), 9),
        event(7, 0, Some(0), 9),
        event(8, 0, None, 9),
        event(9, 0, Some(0), 9),
    ];
    let (kept, taken, gathered) = gathered(&events, limit);
    assert_eq!((kept, taken, gathered.replaced), (vec![2, 4, 5, 8, 9], 7, 2));
}

#[test]
fn a_full_batch_still_takes_what_replaces_and_ends_before_what_does_not() {
    let limit = ReadLimit { events: 2, bytes: 1 << 20 };
    let events = [
        event(1, 0, Some(0), 9),
        event(2, 0, Some(1), 9),
        event(3, 0, Some(0), 9),
        event(4, 0, None, 9),
        event(5, 0, Some(0), 9),
    ];
    let (kept, taken, _) = gathered(&events, limit);
    assert_eq!((kept, taken), (vec![2, 3], 3));
}

#[test]
fn a_state_larger_than_a_batch_is_conflated_where_it_is_alone() {
    let limit = ReadLimit { events: 10, bytes: 1000 };
    let events: Vec<_> = (1..=5).map(|n| event(n, 0, Some(0), 50_000)).collect();
    let (kept, taken, _) = gathered(&events, limit);
    assert_eq!((kept, taken), (vec![5], 5));
}

proptest! {
    #[test]
    fn a_batch_is_what_the_model_says(
        events in prop::collection::vec((0..3_u8, prop::option::of(0..4_u8), 1..4_u64), 0..60),
        events_max in 1..12_usize,
    ) {
        let mut offset = 0;
        let events: Vec<_> = events.into_iter().map(|(topic, key, step)| {
            offset += step;
            event(offset, topic, key, 10)
        }).collect();
        // The longest beginning of the log of which no shorter one is too much.
        let whole = (1..=events.len()).take_while(|&n| model(&events[..n]).len() <= events_max).count();
        let limit = ReadLimit { events: events_max, bytes: usize::MAX };
        let (kept, taken, gathered) = gathered(&events, limit);
        prop_assert_eq!(taken, whole);
        prop_assert_eq!(&kept, &model(&events[..whole]));
        prop_assert_eq!(gathered.replaced, whole - kept.len());
        prop_assert!(gathered.kept.len() <= kept.len());
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_and_never_empty(
        events in prop::collection::vec((prop::option::of(0..4_u8), 0..3000_usize), 1..60),
    ) {
        let events: Vec<_> = events.into_iter().zip(1..)
            .map(|((key, bytes), offset)| event(offset, 0, key, bytes)).collect();
        let limit = ReadLimit { events: 10, bytes: 4000 };
        let (kept, taken, gathered) = gathered(&events, limit);
        prop_assert!(taken > 0 && !kept.is_empty());
        prop_assert_eq!(&kept, &model(&events[..taken]));
        let bytes: usize = gathered.events.values().map(|event| event.batch_bytes()).sum();
        prop_assert_eq!(bytes, gathered.bytes);
        prop_assert!(bytes <= 2 * limit.bytes);
    }
}
