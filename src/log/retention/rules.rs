//! Rules of retention: which one is a topic's, and how one is written.

use std::collections::BTreeMap;

use tidings_proto::{
    Filter,
    control::{DEAD_ROOT, LOST_TOPIC, PRESENCE_ROOT, RetentionRule, SCHEDULED_TOPIC},
};

/// What holds for a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The rule with this index.
    Rule(usize),
    /// States of acknowledgement: only the newest of each durable means anything.
    Acks,
    /// Letters of dead events: as the default rule says, but for those that are still dead.
    Dead,
    /// Who came and went: as the default rule says, but for the joins of those who are there.
    Presence,
    /// What waits for its moment, and that it has come: as the default rule says, but for what still waits.
    Scheduled,
    /// Only a look at each event says whether it still means something.
    Careful,
}

/// All rules, the most specific first; the last one is that for everything.
#[derive(Debug, PartialEq, Eq)]
pub struct Rules {
    list: Vec<(Filter, RetentionRule)>,
    default: RetentionRule,
}

impl Rules {
    /// The rules by filter, and the one for all that no filter matches.
    pub fn new(mut of: BTreeMap<String, (Filter, RetentionRule)>, default: RetentionRule) -> Rules {
        // What is for everything is for the broker's own topics as well, which no filter matches unnamed.
        let default = of.remove(">").map_or(default, |(_, rule)| rule);
        let mut list: Vec<(Filter, RetentionRule)> = of.into_values().collect();
        list.sort_by_cached_key(|(filter, _)| specificity(filter));
        Rules { list, default }
    }

    pub(super) fn count(&self) -> usize {
        self.list.len() + 1
    }

    pub(super) fn get(&self, index: usize) -> &RetentionRule {
        self.list.get(index).map_or(&self.default, |(_, rule)| rule)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &RetentionRule> {
        self.list.iter().map(|(_, rule)| rule).chain([&self.default])
    }

    pub(super) fn class(&self, topic: &str) -> Class {
        let named = self.list.iter().position(|(filter, _)| filter.matches(topic));
        let default = self.list.len();
        if !topic.starts_with('$') {
            return Class::Rule(named.unwrap_or(default));
        }
        match (topic.split('.').next().unwrap_or_default(), named) {
            ("$acks", _) => Class::Acks,
            ("$subscriptions" | "$retention" | "$auth", _) => Class::Careful,
            (SCHEDULED_TOPIC, _) => Class::Scheduled,
            (DEAD_ROOT, _) => Class::Dead,
            (PRESENCE_ROOT, _) => Class::Presence,
            (_, Some(named)) => Class::Rule(named),
            ("$receipts" | "$audit", None) => Class::Rule(default),
            _ if topic == LOST_TOPIC => Class::Rule(default),
            // What is folded from it is not known here: it stays until a rule names it.
            _ => Class::Careful,
        }
    }

    /// The rule for everything that has none of its own.
    pub(super) fn default_index(&self) -> usize {
        self.list.len()
    }
}

/// What sorts before is more specific: token by token from the left, a name before `*` before `>`.
fn specificity(filter: &Filter) -> (Vec<u8>, String) {
    let rank = |token: &str| match token {
        ">" => 2,
        "*" => 1,
        _ => 0,
    };
    (filter.as_str().split('.').map(rank).collect(), filter.as_str().to_owned())
}

/// Reads a rule as the settings have it: `chat.> max_age=30d max_bytes=1048576 max_events=1000 compact`.
pub fn parse_rule(text: &str) -> Option<(Filter, RetentionRule)> {
    let mut words = text.split_whitespace();
    let filter = Filter::parse(words.next()?).ok()?;
    let mut rule = RetentionRule::default();
    let mut said = 0;
    for word in words {
        match word.split_once('=') {
            Some(("max_age", age)) => rule.max_age_ms = Some(parse_age(age)?),
            Some(("max_bytes", bytes)) => rule.max_bytes = Some(bytes.parse().ok()?),
            Some(("max_events", events)) => rule.max_events = Some(events.parse().ok()?),
            None if word == "compact" => rule.compact = true,
            _ => return None,
        }
        said += 1;
    }
    (said > 0).then_some((filter, rule))
}

/// The greatest age of a rule: a hundred years.
const AGE_MS_MAX: u64 = 100 * 366 * 24 * 3600 * 1000;

/// Reads an age, `7d` or `1h 30m`, in milliseconds; at least a second and at most a hundred years.
pub fn parse_age(text: &str) -> Option<u64> {
    let age = humantime::parse_duration(text).ok()?;
    u64::try_from(age.as_millis()).ok().filter(|ms| (1000..=AGE_MS_MAX).contains(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Rules {
        let of = texts.iter().filter_map(|text| parse_rule(text));
        let of = of.map(|(filter, rule)| (filter.to_string(), (filter, rule)));
        Rules::new(of.collect(), RetentionRule::default())
    }

    #[test]
    fn the_most_specific_rule_is_a_topics_own() {
        let rules = rules(&[
            "> max_events=1",
            "a.> max_events=2",
            "a.* max_events=3",
            "a.b max_events=4",
            "*.b max_events=5",
            "$dead.> max_events=6",
        ]);
        let events = |topic: &str| match rules.class(topic) {
            Class::Rule(index) => rules.get(index).max_events,
            _ => None,
        };
        for (topic, want) in [("a.b", 4), ("a.c", 3), ("a.b.c", 2), ("x.b", 5), ("x", 1)] {
            assert_eq!(events(topic), Some(want), "{topic}");
        }
    }

    #[test]
    fn what_the_broker_lives_on_is_under_no_rule_for_everything() {
        let rules = rules(&["> max_events=1"]);
        assert_eq!(rules.class("$acks"), Class::Acks);
        assert_eq!(rules.class("$dead.a"), Class::Dead);
        assert_eq!(rules.class("$presence.a"), Class::Presence);
        assert_eq!(rules.class("$scheduled"), Class::Scheduled);
        for topic in ["$subscriptions", "$retention", "$auth", "$later"] {
            assert_eq!(rules.class(topic), Class::Careful, "{topic}");
        }
        assert_eq!(rules.class("$log.lost"), Class::Rule(rules.default_index()));
    }

    #[test]
    fn a_rule_says_something_and_nothing_unknown() {
        let (filter, rule) = parse_rule("a.> max_age=1h compact").unwrap();
        assert_eq!(
            (filter.as_str(), rule.max_age_ms, rule.compact),
            ("a.>", Some(3_600_000), true)
        );
        for text in ["", "a", "a max_age=0s", "a max_age", "a compact=1", "a..b compact", "a x=1"] {
            assert_eq!(parse_rule(text), None, "{text}");
        }
    }
}
