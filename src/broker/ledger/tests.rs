//! The packed durables against a plain map of them.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::select};
use tidings_proto::{
    Filters, Mode, Priority, Start, SubscribeOptions, Timestamp,
    subscribe::{After, OnGap, Order, PartitionBy, Presence},
};

use super::{durables::Durables, *};

/// One thing that happens. Names and numbers are few, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Put { name: String, is_new: bool, options: Box<SubscribeOptions>, owner: String, start: u64 },
    Paused { name: String, other_life: bool, paused: bool },
    Deleted { name: String, other_life: bool },
    Acked { name: String, other_life: bool, state: AckState },
    Restored,
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{1,3}", "inbox-[0-9]{3}", "[0-9]"]
}

fn filters() -> impl Strategy<Value = Filters> {
    let filter = prop_oneof!["[abc]([.][abc]){0,4}", "users[.][0-9]{2}[.]inbox", "[ab*]([.][>])?"];
    vec(filter, 1..4).prop_map(|filters| {
        let filters = filters.iter().map(|filter| Filter::parse(filter).unwrap()).collect();
        Filters::new(filters).unwrap()
    })
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec("[a-zäß ]{0,8}", 0..3)
}

/// Now and then a number that is not the default.
fn number<T: Clone + std::fmt::Debug + 'static>(
    default: T,
    others: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = T> {
    prop_oneof![3 => Just(default), 1 => others]
}

fn any_u64(default: u64) -> impl Strategy<Value = u64> {
    number(default, any::<u64>())
}

fn any_u32(default: u32) -> impl Strategy<Value = u32> {
    number(default, any::<u32>())
}

prop_compose! {
    fn asked()(
        after in option::weighted(0.1, 0..1_u64 << 53),
        since in option::weighted(0.1, 0..1_u64 << 40),
        log in option::weighted(0.1, "[0-9a-f]{8}"),
        durable in option::weighted(0.1, "[a-z]{3}"),
        start in select(vec![Start::Now, Start::Now, Start::First, Start::Since(Timestamp::from_millis(5))]),
        presence in option::weighted(0.1, "[a-z\"]{3}"),
    ) -> SubscribeOptions {
        let position = |n: u64| tidings_proto::Position { cursor: Cursor::new(n), log: None };
        SubscribeOptions {
            after: after.map(|n| After(position(n))),
            since: since.map(Timestamp::from_millis),
            log, durable, start,
            presence: presence.map(|text| Presence { data: text.into() }),
            ..SubscribeOptions::to(Filters::one(Filter::parse("a").unwrap()))
        }
    }
}

prop_compose! {
    fn options()(
        asked in asked(),
        filters in filters(),
        (types, content_types) in (texts(), texts()),
        headers in proptest::collection::btree_map("[a-z]{1,3}", "[a-zä]{0,3}", 0..3),
        min_priority in option::weighted(0.3, select(vec![Priority::Low, Priority::Normal, Priority::High, Priority::Urgent])),
        mode in select(vec![Mode::Exclusive, Mode::Shared, Mode::Mirror]),
        partition_by in option::weighted(0.3, Just(PartitionBy::Key)),
        order in select(vec![Order::Log, Order::Priority]),
        on_gap in select(vec![OnGap::Continue, OnGap::Error]),
        last_per_key in prop::bool::weighted(0.1),
        (max_in_flight, max_deliveries, batch_max) in (any_u32(1000), any_u32(0), any_u32(256)),
        backoff_ms in vec(any::<u64>(), 0..3),
        (ack_wait_ms, idle_expiry_ms, conflate_ms) in (any_u64(30_000), any_u64(0), any_u64(0)),
        (linger_ms, max_bytes_per_second) in (any_u64(0), any_u64(0)),
        max_data_bytes in option::weighted(0.3, any::<u64>()),
    ) -> SubscribeOptions {
        SubscribeOptions {
            filters, types, content_types, headers, min_priority, mode, partition_by, order, on_gap, last_per_key,
            max_in_flight, max_deliveries, batch_max, backoff_ms, ack_wait_ms, idle_expiry_ms, conflate_ms, linger_ms,
            max_bytes_per_second, max_data_bytes,
            ..asked
        }
    }
}

/// Most durables have default options.
fn few_options() -> impl Strategy<Value = Box<SubscribeOptions>> {
    prop_oneof![2 => filters().prop_map(SubscribeOptions::to), 1 => options()].prop_map(Box::new)
}

prop_compose! {
    fn state()(
        floor in 0..1_u64 << 53,
        generation in number(0, 1..3_u64),
        letters in number(0, 1..3_u64),
        ranges in number(vec![], vec((0..99_u64, 99..200_u64), 1..3)),
        attempts in number(vec![], vec((0..99_u64, any::<u32>()), 1..3)),
        delayed in number(vec![], vec((0..99_u64, any::<u64>()), 1..3)),
        dead in number(vec![], vec((0..99_u64, 0..9_u64), 1..3)),
        skipped in number(vec![], vec((0..99_u64, 99..200_u64), 1..3)),
        redriven in number(vec![], vec(0..99_u64, 1..3)),
    ) -> AckState {
        let floor = Cursor::new(floor);
        let (name, number) = (String::new(), 0);
        AckState {
            name, number, generation, floor, ranges, attempts, delayed, dead, letters, skipped, redriven,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let other = || prop::bool::weighted(0.1);
    let put = (name(), other(), few_options(), "[xy]{0,2}", 0..1_u64 << 53);
    prop_oneof![
        6 => put.prop_map(|(name, is_new, options, owner, start)| Step::Put { name, is_new, options, owner, start }),
        1 => (name(), other(), any::<bool>()).prop_map(|(name, other_life, paused)| Step::Paused { name, other_life, paused }),
        2 => (name(), other()).prop_map(|(name, other_life)| Step::Deleted { name, other_life }),
        4 => (name(), other(), state()).prop_map(|(name, other_life, state)| Step::Acked { name, other_life, state }),
        1 => Just(Step::Restored),
    ]
}

/// What a plain map makes of the same, and what a store has of the packed ones.
#[derive(Default)]
struct Model {
    entries: BTreeMap<String, LedgerEntry>,
    last_number: u64,
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Model {
    fn number_of(&self, name: &str, other_life: bool) -> u64 {
        let number = self.entries.get(name).map_or(0, |entry| entry.spec.number);
        if other_life { number.saturating_sub(1) } else { number }
    }

    fn take(&mut self, packed: &mut Durables, step: Step, at: u64) {
        match step {
            Step::Put { name, is_new, options, owner, start } => {
                let old = self.entries.get(&name).filter(|_| !is_new).cloned();
                let number = old.as_ref().map_or(self.last_number + 1, |old| old.spec.number);
                self.last_number = self.last_number.max(number);
                let (start, state_until) =
                    (Cursor::new(start), (start % 3 == 0).then_some(Cursor::new(start)));
                let spec = DurableSpec {
                    name: name.clone(),
                    number,
                    options: *options,
                    start,
                    owner,
                    state_until,
                    since: old.as_ref().and_then(|old| old.spec.since),
                    wants_changed: start.get() % 5 == 0,
                };
                packed.put(&spec, at);
                let since = if spec.wants_changed { Some(Cursor::new(at)) } else { spec.since };
                let spec = DurableSpec { since, wants_changed: false, ..spec };
                let floor = start;
                let fresh = AckState { name: name.clone(), number, floor, ..AckState::default() };
                let acks = old.as_ref().map_or_else(|| Arc::new(fresh), |old| old.acks.clone());
                let acked_at = old.as_ref().map_or(0, |old| old.places.1);
                let paused_at = old.map_or(0, |old| old.paused_at);
                let entry =
                    LedgerEntry { spec: Arc::new(spec), acks, places: (at, acked_at), paused_at };
                self.entries.insert(name, entry);
            }
            Step::Paused { name, other_life, paused } => {
                let number = self.number_of(&name, other_life);
                let paused_at = if paused { at } else { 0 };
                packed.pause(&name, number, paused_at);
                if let Some(entry) =
                    self.entries.get_mut(&name).filter(|entry| entry.spec.number == number)
                {
                    entry.paused_at = paused_at;
                }
            }
            Step::Deleted { name, other_life } => {
                let number = self.number_of(&name, other_life);
                packed.remove(&name, number);
                self.entries
                    .retain(|_, entry| entry.spec.name != name || entry.spec.number != number);
            }
            Step::Acked { name, other_life, state } => {
                let number = self.number_of(&name, other_life);
                packed.acknowledge(AckState { number, ..state.clone() }, at);
                // A number that is not this one's may be another's.
                let theirs = self.entries.values_mut().find(|entry| entry.spec.number == number);
                if let Some(entry) = theirs {
                    let state = AckState { name: entry.spec.name.clone(), number, ..state };
                    entry.acks = Arc::new(state);
                    entry.places.1 = at;
                }
            }
            Step::Restored => self.restore(packed),
        }
    }

    /// The packed ones as they come back from what they have stored.
    fn restore(&mut self, packed: &mut Durables) {
        for (key, value) in packed.take_changes() {
            match value {
                Some(value) => drop(self.stored.insert(key, value)),
                None => drop(self.stored.remove(&key)),
            }
        }
        let all: BTreeMap<_, _> = packed.entries().collect();
        assert_eq!(all, self.stored);
        *packed = Durables::default();
        // In any order.
        for (key, value) in self.stored.iter().rev() {
            assert!(packed.restore(key, value).unwrap());
        }
    }

    fn check(&self, packed: &Durables) {
        assert_eq!(packed.count(), self.entries.len());
        assert_eq!(list(packed, None), self.entries.values().cloned().collect::<Vec<_>>());
        for (name, entry) in &self.entries {
            assert_eq!(packed.get(name).as_ref(), Some(entry));
            let after: Vec<LedgerEntry> = list(packed, Some(name));
            assert_eq!(after.len(), self.entries.range(name.clone()..).count() - 1);
        }
        let of =
            |owner: &str| self.entries.values().filter(|entry| entry.spec.owner == owner).count();
        for owner in ["", "x", "y", "xy", "z"] {
            assert_eq!(packed.count_of(owner), of(owner), "{owner}");
        }
        for topic in ["a", "a.b", "c.a.b", "users.07.inbox"] {
            let matching = |entry: &&LedgerEntry| entry.spec.options.filters.matches(topic);
            let matching = self.entries.values().filter(matching).count();
            assert!(packed.matching_at_most(topic) >= matching, "{topic}");
        }
        let expiring = self.entries.values().filter(|entry| entry.spec.options.idle_expiry_ms > 0);
        let mut expiring: Vec<DurableSpec> = expiring.map(|entry| (*entry.spec).clone()).collect();
        expiring.sort_by_key(|spec| spec.number);
        assert_eq!(packed.expiring(0, usize::MAX), expiring);
        if let [_, rest @ ..] = &*expiring {
            let from = expiring[0].number + 1;
            assert_eq!(packed.expiring(from, 2), rest[..rest.len().min(2)]);
        }
    }
}

fn list(packed: &Durables, after: Option<&str>) -> Vec<LedgerEntry> {
    let mut found = Vec::new();
    let _ = packed.walk(after, |line| {
        found.extend(packed.entry(line));
        ControlFlow::Continue(())
    });
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_packed_ones_are_as_a_plain_map(steps in vec(step(), 0..120)) {
        let (mut packed, mut model) = (Durables::default(), Model::default());
        for (step, at) in steps.into_iter().zip(1..) {
            model.take(&mut packed, step, at);
        }
        model.check(&packed);
        model.restore(&mut packed);
        model.check(&packed);
    }

    #[test]
    fn every_option_comes_back(options in options(), before in options()) {
        let of = |options: &SubscribeOptions, name: &str, number| DurableSpec {
            name: name.to_owned(),
            number,
            options: options.clone(),
            start: Cursor::new(number * 3),
            owner: "alice".to_owned(),
            state_until: None,
            since: Some(Cursor::new(number * 2)).filter(|_| number == 5),
            wants_changed: false,
        };
        let (first, second) = (of(&before, "a1", 7), of(&options, "a2", 5));
        let mut bytes = Vec::new();
        let lines = (Line::of(&first, 9, 0), Line::of(&second, 4, 11));
        lines.0.write(&Line::default(), &mut bytes);
        lines.1.write(&lines.0, &mut bytes);
        let (mut line, mut rest) = (Line::default(), &*bytes);
        line.read(&mut rest).unwrap();
        prop_assert_eq!((&line, line.spec().unwrap()), (&lines.0, first));
        line.read(&mut rest).unwrap();
        prop_assert_eq!((&line, line.spec().unwrap()), (&lines.1, second));
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn hostile_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..200)) {
        let mut packed = Durables::default();
        for root in [&b"$durables"[..], b"$acks", b"$acks.more"] {
            let _ = packed.restore(&slots::key(root, 3), &bytes);
        }
        let _ = list(&packed, None);
    }
}

fn plain(n: u64) -> DurableSpec {
    DurableSpec {
        name: format!("inbox-{n:09}"),
        number: n + 1,
        options: SubscribeOptions::to(Filters::one(
            Filter::parse(&format!("users.u{n:06}.inbox")).unwrap(),
        )),
        start: Cursor::new(1_000_000_000 + n),
        owner: "alice".to_owned(),
        state_until: None,
        since: None,
        wants_changed: false,
    }
}

/// Many, so that blocks are split and joined again.
#[test]
fn blocks_are_split_and_joined() {
    let (mut packed, count) = (Durables::default(), 3000);
    // In an order that is not that of the names.
    let mixed = || (0..count).map(move |n| n * 1009 % count);
    mixed().for_each(|n| packed.put(&plain(n), 5));
    let blocks = packed.blocks();
    assert!((12..60).contains(&blocks), "{blocks}");
    for n in mixed().filter(|n| n % 50 > 0) {
        packed.remove(&plain(n).name, n + 1);
    }
    assert_eq!(packed.count(), 60);
    let names: Vec<u64> = list(&packed, None).iter().map(|entry| entry.spec.number - 1).collect();
    assert_eq!(names, (0..60).map(|n| n * 50).collect::<Vec<_>>());
    assert!(packed.blocks() <= blocks / 4, "{} of {blocks}", packed.blocks());
    mixed().for_each(|n| packed.remove(&plain(n).name, n + 1));
    assert_eq!((packed.blocks(), packed.count()), (0, 0));
    assert!(packed.take_changes().iter().all(|(_, value)| value.is_none()));
}

/// One durable may have more bytes than a block.
#[test]
fn a_large_durable_has_a_block_of_its_own() {
    let mut packed = Durables::default();
    (0..10).for_each(|n| packed.put(&plain(n), 5));
    let mut large = plain(5);
    large.options.types = (0..64).map(|n| format!("{n}").repeat(200)).collect();
    packed.put(&large, 6);
    assert!((2..=3).contains(&packed.blocks()));
    assert_eq!(*packed.get(&large.name).unwrap().spec, large);
    (0..10)
        .filter(|n| *n != 5)
        .for_each(|n| assert_eq!(*packed.get(&plain(n).name).unwrap().spec, plain(n)));
}

/// What a durable costs that nobody uses: the room that this takes, without what the allocator adds.
#[test]
fn a_durable_costs_few_bytes() {
    let (mut packed, count) = (Durables::default(), 20_000_u64);
    (0..count).for_each(|n| packed.put(&plain(n), 2_000_000_000 + n));
    for n in 0..count {
        let state =
            AckState { number: n + 1, floor: Cursor::new(3_000_000_000), ..AckState::default() };
        packed.acknowledge(state, 4_000_000_000);
    }
    let (bytes, stored) = (
        packed.room(),
        packed.entries().map(|(key, value)| key.len() + value.len()).sum::<usize>() as u64,
    );
    assert!(bytes / count < 60, "{} bytes a durable", bytes / count);
    assert!(stored / count < 40, "{} bytes a durable on disk", stored / count);
}

/// The stored form; it changes together with [`Ledger::VERSION`] only.
#[test]
fn the_bytes_do_not_change() {
    let mut packed = Durables::default();
    let mut other = plain(2);
    other.options.max_in_flight = 5;
    other.options.mode = Mode::Shared;
    packed.put(&plain(1), 70);
    packed.put(&other, 71);
    packed.pause(&other.name, 3, 72);
    let ranges = vec![(1_000_000_010, 1_000_000_012)];
    packed.acknowledge(
        AckState { number: 3, floor: Cursor::new(9), ranges, ..AckState::default() },
        73,
    );
    let stored: BTreeMap<String, Vec<u8>> =
        packed.entries().map(|(key, value)| (key.escape_ascii().to_string(), value)).collect();
    let bytes = |key: &str| stored.get(key).unwrap().escape_ascii().to_string();
    let zeros = "\\x00".repeat(7);
    let of = [
        bytes(&format!("$acks {zeros}\\x00")),
        bytes(&format!("$acks.more {zeros}\\x03")),
        bytes(&format!("$durables {zeros}\\x01")),
    ];
    assert_eq!(
        of,
        [
            r"\x02\x82\xa8\xd6\xb9\x07\x00\x03\xef\xa7\xd6\xb9\x07\x92\x01",
            r#"\n\x0c\x08\x03\x10\t\"\x06\x81\x94\xeb\xdc\x03\x02"#,
            concat!(
                r"\x00\x0finbox-000000001\x04\x82\xa8\xd6\xb9\x07\x8c\x01\x04\x05alice\x00\x13users.u000001.inbox",
                r"\x0e\x012\x02\x02\x02\tH\x04(\x01@\x05\x0c\x072.inbox",
            ),
        ]
    );
}
