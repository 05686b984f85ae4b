//! How many durables each subject has made, and about how many match a topic, without a name for each.

use std::{
    collections::{BTreeMap, HashSet, hash_map::RandomState},
    hash::{BuildHasher, Hash, Hasher},
};

use tidings_proto::topic::{filter_matches, literal_prefix};

/// How many bits of a count there are: as many durables as there may be.
const COUNT_BITS: u32 = 24;

/// How many durables each subject has: eight bytes a subject. Two subjects are taken for one with a
/// probability of 2⁻⁴⁰, by a hash that nobody can foretell.
#[derive(Debug, Default)]
pub(super) struct Owners {
    counts: HashSet<Count>,
    hasher: RandomState,
}

/// The hash of a subject, and behind it how many it has.
#[derive(Clone, Copy, Debug)]
struct Count(u64);

impl Count {
    fn subject(self) -> u64 {
        self.0 >> COUNT_BITS
    }

    fn count(self) -> u64 {
        self.0 & ((1 << COUNT_BITS) - 1)
    }
}

impl PartialEq for Count {
    fn eq(&self, other: &Count) -> bool {
        self.subject() == other.subject()
    }
}

impl Eq for Count {}

impl Hash for Count {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.subject());
    }
}

impl Owners {
    /// How many this subject has.
    pub(super) fn of(&self, subject: &str) -> usize {
        let count = self.counts.get(&self.none(subject)).map_or(0, |count| count.count());
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    /// It has one more.
    pub(super) fn add(&mut self, subject: &str) {
        let none = self.none(subject);
        let before = self.counts.take(&none).unwrap_or(none);
        // A count that is full stays so.
        let one = u64::from(before.count() < (1 << COUNT_BITS) - 1);
        self.counts.insert(Count(before.0 + one));
    }

    /// It has one less.
    pub(super) fn remove(&mut self, subject: &str) {
        let before = self.counts.take(&self.none(subject));
        if let Some(before) = before.filter(|before| before.count() > 1) {
            self.counts.insert(Count(before.0 - 1));
        }
    }

    fn none(&self, subject: &str) -> Count {
        Count(self.hasher.hash_one(subject) >> COUNT_BITS << COUNT_BITS)
    }
}

/// The most distinct wildcard filters that are looked at one by one.
const WILDCARDS_MAX: usize = 4096;
/// How many counters a row has. With a million filters each counter is about eight too high.
const ROW: usize = 1 << 17;

/// At most how many durables match a topic: never too few, and seldom too many.
///
/// - A filter without wildcards is counted by its hash, in two rows of counters of which the lower one holds.
/// - Wildcard filters are kept one by one as long as they are few; the others are counted by what all that they
///   match begins with.
#[derive(Debug, Default)]
pub(super) struct FilterCounts {
    /// By what all that they match begins with.
    wildcards: BTreeMap<Box<str>, BTreeMap<Box<str>, u32>>,
    distinct: usize,
    /// Two rows; made with the first filter.
    counters: Vec<u32>,
    hashers: [RandomState; 2],
}

impl FilterCounts {
    /// One more durable has this filter.
    pub(super) fn add(&mut self, filter: &str) {
        let prefix = literal_prefix(filter);
        if prefix.len() == filter.len() {
            return self.count(filter, u32::saturating_add);
        }
        if let Some(count) = self.wildcards.get_mut(prefix).and_then(|of| of.get_mut(filter)) {
            *count = count.saturating_add(1);
        } else if self.distinct < WILDCARDS_MAX {
            self.distinct += 1;
            self.wildcards.entry(prefix.into()).or_default().insert(filter.into(), 1);
        } else {
            self.count(prefix, u32::saturating_add);
        }
    }

    /// One less has it.
    pub(super) fn remove(&mut self, filter: &str) {
        let prefix = literal_prefix(filter);
        if prefix.len() == filter.len() {
            return self.count(filter, u32::saturating_sub);
        }
        let Some(of) = self.wildcards.get_mut(prefix) else {
            return self.count(prefix, u32::saturating_sub);
        };
        match of.get_mut(filter) {
            None => self.count(prefix, u32::saturating_sub),
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                of.remove(filter);
                self.distinct -= 1;
                if of.is_empty() {
                    self.wildcards.remove(prefix);
                }
            }
        }
    }

    /// As many durables as this at most match the topic.
    pub(super) fn at_most(&self, topic: &str) -> usize {
        let mut found = u64::from(self.counted(topic));
        let ends = topic.match_indices('.').map(|(dot, _)| dot + 1);
        for end in std::iter::once(0).chain(ends) {
            let prefix = topic.get(..end).unwrap_or_default();
            found += u64::from(self.counted(prefix));
            let of = self.wildcards.get(prefix).into_iter().flatten();
            let matching = of.filter(|(filter, _)| filter_matches(filter, topic));
            found += matching.map(|(_, count)| u64::from(*count)).sum::<u64>();
        }
        usize::try_from(found).unwrap_or(usize::MAX)
    }

    fn counted(&self, text: &str) -> u32 {
        let counters = self.places(text).map(|place| self.counters.get(place).copied());
        counters.into_iter().flatten().min().unwrap_or(0)
    }

    fn count(&mut self, text: &str, change: impl Fn(u32, u32) -> u32) {
        if self.counters.is_empty() {
            self.counters = vec![0; 2 * ROW];
        }
        for place in self.places(text) {
            if let Some(counter) = self.counters.get_mut(place) {
                *counter = change(*counter, 1);
            }
        }
    }

    /// One in each row.
    fn places(&self, text: &str) -> [usize; 2] {
        let [first, second] = &self.hashers;
        let place =
            |hasher: &RandomState| usize::try_from(hasher.hash_one(text) % ROW as u64).unwrap_or(0);
        [place(first), ROW + place(second)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn subjects_are_counted_and_gone_with_their_last() {
        let mut owners = Owners::default();
        ["a", "b", "a"].into_iter().for_each(|subject| owners.add(subject));
        assert_eq!((owners.of("a"), owners.of("b"), owners.of("c")), (2, 1, 0));
        ["a", "a", "a", "b"].into_iter().for_each(|subject| owners.remove(subject));
        assert!(owners.counts.is_empty());
    }

    #[test]
    fn wildcards_that_are_too_many_are_still_counted() {
        let mut counts = FilterCounts::default();
        let of = |n: usize| format!("a.t{n}.*");
        (0..WILDCARDS_MAX + 10).for_each(|n| counts.add(&of(n)));
        assert_eq!(counts.distinct, WILDCARDS_MAX);
        for n in [0, WILDCARDS_MAX - 1, WILDCARDS_MAX + 9] {
            assert_eq!(counts.at_most(&format!("a.t{n}.x")), 1, "{n}");
        }
        (0..3).for_each(|_| counts.add("a.*"));
        assert_eq!(counts.at_most("a.x"), 3);
        // A place is free, so that one filter is counted both ways.
        counts.remove(&of(0));
        counts.add("a.*");
        assert_eq!(counts.at_most("a.x"), 4);
        (0..4).for_each(|_| counts.remove("a.*"));
        (1..WILDCARDS_MAX + 10).for_each(|n| counts.remove(&of(n)));
        assert_eq!((counts.at_most("a.x"), counts.at_most("a.t5000.x")), (0, 0));
        assert!(counts.wildcards.is_empty() && counts.distinct == 0);
        assert!(counts.counters.iter().all(|counter| *counter == 0));
    }

    proptest! {
        #[test]
        fn never_too_few(filters in vec("[ab*]([.][ab*]){0,2}([.]>)?", 0..40), topic in "[ab]([.][ab]){0,3}") {
            let mut counts = FilterCounts::default();
            filters.iter().for_each(|filter| counts.add(filter));
            let matching = filters.iter().filter(|filter| filter_matches(filter, &topic)).count();
            prop_assert_eq!(counts.at_most(&topic), matching);
            filters.iter().for_each(|filter| counts.remove(filter));
            prop_assert_eq!(counts.at_most(&topic), 0);
        }
    }
}
