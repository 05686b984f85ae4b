//! The catalog: every topic with its first and last offset and its count. In memory, rebuilt from the indexes.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
};

use tidings_proto::{Filter, Filters, Offset, Topic};

/// What is known of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub topic: Topic,
    /// Its first event there is.
    pub first: Offset,
    /// Its last event.
    pub last: Offset,
    /// How many events it has.
    pub count: u64,
}

#[derive(Clone, Copy, Debug)]
struct Stats {
    first: Offset,
    last: Offset,
    count: u64,
}

/// All topics.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    stats: HashMap<Topic, Stats>,
    /// The same names in order, sharing their text.
    names: BTreeSet<Topic>,
}

impl Catalog {
    /// Adds `count` events of a topic from `first` to `last`, later than all it has.
    pub(crate) fn add(&mut self, topic: &Topic, first: Offset, last: Offset, count: u64) {
        match self.stats.get_mut(topic) {
            Some(stats) => {
                stats.last = stats.last.max(last);
                stats.count += count;
            }
            None => {
                self.stats.insert(topic.clone(), Stats { first, last, count });
                self.names.insert(topic.clone());
            }
        }
    }

    /// What a topic has now, after events were taken out; `None` when it has none.
    pub(crate) fn set(&mut self, topic: &Topic, now: Option<(Offset, Offset, u64)>) {
        match now {
            Some((first, last, count)) => {
                self.stats.insert(topic.clone(), Stats { first, last, count });
                self.names.insert(topic.clone());
            }
            None => {
                self.stats.remove(topic.as_str());
                self.names.remove(topic.as_str());
            }
        }
    }

    pub(crate) fn get(&self, topic: &str) -> Option<TopicInfo> {
        let (topic, stats) = self.stats.get_key_value(topic)?;
        Some(TopicInfo {
            topic: topic.clone(),
            first: stats.first,
            last: stats.last,
            count: stats.count,
        })
    }

    pub(crate) fn last(&self, topic: &str) -> Option<Offset> {
        self.stats.get(topic).map(|stats| stats.last)
    }

    /// The topics under a filter, by name, after the name `after`.
    pub(crate) fn list<'a>(
        &'a self,
        filter: &'a Filter,
        after: Option<&str>,
    ) -> impl Iterator<Item = &'a Topic> + use<'a> {
        let prefix = filter.literal_prefix();
        let from: Bound<&str> = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        // A filter such as a.> has the prefix "a."; a literal one is its own.
        let from = if filter.is_literal() && after.is_none() {
            Bound::Included(filter.as_str())
        } else {
            from
        };
        self.names
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(move |topic| topic.as_str().starts_with(prefix))
            .filter(move |topic| filter.matches(topic.as_str()))
    }

    /// Gives the topics of a filter among the next `looks` names after the name `after`; and the name to go
    /// on after, where there may be more.
    pub(crate) fn page(
        &self,
        filter: &Filter,
        after: Option<&Topic>,
        looks: usize,
        found: &mut impl FnMut(TopicInfo),
    ) -> Option<Topic> {
        let prefix = filter.literal_prefix();
        let from = after.map_or(Bound::Included(prefix), |name| Bound::Excluded(name.as_str()));
        let names = self.names.range::<str, _>((from, Bound::Unbounded));
        let mut looked = 0;
        for name in names.take_while(|name| name.as_str().starts_with(prefix)) {
            looked += 1;
            if filter.matches(name.as_str()) {
                self.get(name.as_str()).map(&mut *found);
            }
            if looked >= looks {
                return Some(name.clone());
            }
        }
        None
    }

    /// The topics that any of the filters matches; `None` when more than `looks_max` names would have to be looked at.
    pub(crate) fn resolve(&self, filters: &Filters, looks_max: usize) -> Option<BTreeSet<Topic>> {
        let mut found = BTreeSet::new();
        let mut looks = 0;
        for filter in filters {
            if let Some(literal) = filter.literal() {
                found.extend(
                    self.stats.get_key_value(literal.as_str()).map(|(topic, _)| topic.clone()),
                );
                continue;
            }
            let prefix = filter.literal_prefix();
            let names = self.names.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
            for topic in names.take_while(|topic| topic.as_str().starts_with(prefix)) {
                looks += 1;
                if looks > looks_max {
                    return None;
                }
                if filter.matches(topic.as_str()) {
                    found.insert(topic.clone());
                }
            }
        }
        Some(found)
    }
}
