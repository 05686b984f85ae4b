//! Rules of retention: which one is a topic's, and how one is written.

use std::collections::BTreeMap;

use tidings_proto::{
    Filter, Offset,
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

/// The first tokens of topics that keep what the broker lives on, whatever a rule says.
const UNRULED: [&str; 7] =
    ["$acks", "$subscriptions", "$retention", "$auth", SCHEDULED_TOPIC, DEAD_ROOT, PRESENCE_ROOT];

/// Says why a rule for this filter would do nothing, if that is so.
///
/// # Errors
/// What is wrong, which names the filter.
pub fn check_ruled(filter: &Filter) -> Result<(), String> {
    let root = filter.as_str().split('.').next().unwrap_or_default();
    match UNRULED.contains(&root) {
        true => Err(format!(
            "{filter}: no rule holds for the broker's own topics under {root}: what the broker still needs of them stays, \
             and the rest goes by itself or as the rule for > says"
        )),
        false => Ok(()),
    }
}

/// Reads a rule as the settings have it: `chat.> max_age=30d max_bytes=1048576 max_events=1000 compact`.
///
/// # Errors
/// What is wrong, which names the word.
pub fn parse_rule(text: &str) -> Result<(Filter, RetentionRule), String> {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap_or_default();
    let filter = Filter::parse(name).map_err(|error| format!("{name}: {error}"))?;
    check_ruled(&filter)?;
    let mut rule = RetentionRule::default();
    for word in words {
        let wrong = |what: &str| format!("{word}: {what}");
        let is_twice = match word.split_once('=') {
            Some(("max_age", age)) => {
                let age = parse_age(age)
                    .ok_or_else(|| wrong("it must be a time from 1s to 100 years, as in 30d"))?;
                rule.max_age_ms.replace(age).is_some()
            }
            Some(("max_bytes", bytes)) => {
                rule.max_bytes.replace(limit(bytes).map_err(wrong)?).is_some()
            }
            Some(("max_events", events)) => {
                rule.max_events.replace(limit(events).map_err(wrong)?).is_some()
            }
            None if word == "compact" => std::mem::replace(&mut rule.compact, true),
            _ => return Err(wrong("a rule has max_age=, max_bytes=, max_events= and compact")),
        };
        if is_twice {
            return Err(wrong("it is said twice"));
        }
    }
    match rule == RetentionRule::default() {
        true => Err(format!("{filter}: say what holds, as in \"{filter} max_age=30d\"")),
        false => Ok((filter, rule)),
    }
}

fn limit(text: &str) -> Result<u64, &'static str> {
    let number = text.parse().ok().filter(|number| (1..=Offset::MAX).contains(number));
    number.ok_or("it must be 1 to 9007199254740991; leave it out for no limit")
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
        let of = texts.iter().map(|text| parse_rule(text).unwrap());
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
        for (text, named) in [
            ("", ""),
            ("a", "a: "),
            ("a max_age=0s", "max_age=0s: "),
            ("a max_age=soon", "max_age=soon: "),
            ("a max_age", "max_age: "),
            ("a max_bytes=0", "max_bytes=0: "),
            ("a max_events=0", "max_events=0: "),
            ("a max_events=9007199254740992", "max_events=9007199254740992: "),
            ("a max_events=-1", "max_events=-1: "),
            ("a max_events=1 max_events=2", "max_events=2: "),
            ("a max_bytes=1 max_bytes=1", "max_bytes=1: "),
            ("a max_age=1h max_age=2h", "max_age=2h: "),
            ("a compact max_events=1 compact", "compact: "),
            ("a compact=1", "compact=1: "),
            ("a..b compact", "a..b: "),
            ("a x=1", "x=1: "),
        ] {
            let problem = parse_rule(text).unwrap_err();
            assert!(problem.starts_with(named), "{text}: {problem}");
        }
        assert!(parse_rule("a max_bytes=1 max_events=9007199254740991").is_ok());
    }

    #[test]
    fn a_rule_is_refused_where_it_would_do_nothing_and_only_there() {
        let filters = ["$acks", "$subscriptions", "$retention", "$auth", "$scheduled"];
        let own = [
            "$dead.>",
            "$dead.a",
            "$presence.>",
            "$presence.a.b",
            "$receipts.>",
            "$audit",
            "$log.lost",
            "$log.>",
            "$later",
            "a",
            "*",
            ">",
        ];
        for name in filters.into_iter().chain(own) {
            let filter = Filter::parse(name).unwrap();
            let rule = RetentionRule { max_events: Some(1), ..RetentionRule::default() };
            let rules = [(name.to_owned(), (filter.clone(), rule))].into();
            let rules = Rules::new(rules, RetentionRule::default());
            let topic = name.replace('*', "a").replace('>', "lost");
            let is_ruled = matches!(rules.class(&topic), Class::Rule(_));
            assert_eq!(check_ruled(&filter).is_ok(), is_ruled, "{name}");
            let problem = parse_rule(&format!("{name} compact")).err();
            assert_eq!(problem.is_none(), is_ruled, "{problem:?}");
            assert!(problem.is_none_or(|problem| problem.starts_with(name)), "{name}");
        }
    }
}
