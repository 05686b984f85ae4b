//! Who may do what, generated, against rules that are written down a second time as plainly as can be: what a filter
//! matches is found by going through all topics there are.

use serde_json::json;
use tidings_proto::{Filter, Topic};

use super::super::{Grants, grant::GrantClaim};
use crate::clock;

/// The tokens of all topics: the subject's own, another's, and one that no grant names.
const TOKENS: [&str; 4] = ["alice", "bob", "a", "z"];
const PAIRS: usize = 20_000;

/// Whether a topic is matched, token by token.
fn matches(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        ([">"], rest) => !rest.is_empty(),
        (["*", filter @ ..], [_, topic @ ..]) => matches(filter, topic),
        ([name, filter @ ..], [token, topic @ ..]) => name == token && matches(filter, topic),
        ([], []) => true,
        _ => false,
    }
}

/// All topics of up to four tokens: one more than any filter here has.
fn topics() -> Vec<Vec<&'static str>> {
    let mut all: Vec<Vec<&str>> = TOKENS.iter().map(|token| vec![*token]).collect();
    let mut last = all.clone();
    for _ in 0..3 {
        let longer = last.iter().flat_map(|topic| {
            TOKENS.iter().map(move |token| [topic.as_slice(), &[*token]].concat())
        });
        last = longer.collect();
        all.extend(last.clone());
    }
    all
}

fn tokens(text: &str) -> Vec<&str> {
    text.split('.').collect()
}

fn filled(grants: &[String]) -> Vec<String> {
    grants.iter().map(|grant| grant.replace("{sub}", "alice")).collect()
}

/// Whether one of the grants has everything that the filter matches.
fn covers(grants: &[String], filter: &str, topics: &[Vec<&str>]) -> bool {
    let filter = tokens(filter);
    filled(grants).iter().any(|grant| {
        let grant = tokens(grant);
        topics.iter().all(|topic| !matches(&filter, topic) || matches(&grant, topic))
    })
}

fn has_durable(grants: &[String], name: &str) -> bool {
    filled(grants).iter().any(|grant| match grant.split_once('*') {
        Some((prefix, _)) => name.starts_with(prefix),
        None => name == grant,
    })
}

fn may_subscribe(grants: &Generated, filter: &str, topics: &[Vec<&str>]) -> bool {
    match filter.split_once('.').unwrap_or((filter, "")) {
        ("$presence", "") => false,
        ("$presence", rest) => covers(&grants.subscribe, rest, topics),
        ("$dead", name) => !name.contains('.') && has_durable(&grants.durable, name),
        ("$receipts", who) => who == "alice" || grants.admin,
        (own, _) if own.starts_with('$') => grants.admin,
        _ => covers(&grants.subscribe, filter, topics),
    }
}

struct Generated {
    publish: Vec<String>,
    subscribe: Vec<String>,
    durable: Vec<String>,
    admin: bool,
}

fn pick<'a>(from: &[&'a str]) -> &'a str {
    let last = u64::try_from(from.len() - 1).unwrap();
    from[usize::try_from(clock::random_between(0, last)).unwrap()]
}

fn several(make: impl Fn() -> String) -> Vec<String> {
    (0..clock::random_between(0, 3)).map(|_| make()).collect()
}

fn filter(words: &[&str]) -> String {
    let mut filter: Vec<&str> = (0..clock::random_between(1, 3)).map(|_| pick(words)).collect();
    if clock::random_between(0, 2) == 0 {
        filter.pop();
        filter.push(">");
    }
    filter.join(".")
}

fn generated() -> Generated {
    let words = ["alice", "bob", "a", "*", "{sub}"];
    let durables = ["{sub}", "{sub}:*", "alice-*", "*", "bob", "b*"];
    Generated {
        publish: several(|| filter(&words)),
        subscribe: several(|| filter(&words)),
        durable: several(|| pick(&durables).to_owned()),
        admin: clock::random_between(0, 7) == 0,
    }
}

fn asked() -> String {
    let filter = filter(&["alice", "bob", "a", "z", "*"]);
    match clock::random_between(0, 7) {
        0 => format!("$presence.{filter}"),
        1 => format!("$dead.{}", pick(&["alice", "alice:x", "bob", "*"])),
        2 => format!("$receipts.{}", pick(&["alice", "bob", "*", "alice.x"])),
        3 => pick(&["$audit", "$auth", "$presence", "$dead", "$receipts", "$x.a", "$acks"])
            .to_owned(),
        _ => filter,
    }
}

#[test]
fn s1_twenty_thousand_grants_and_wishes_are_decided_as_the_plain_rules_say() {
    let topics = topics();
    let (mut allowed, mut refused) = (0, 0);
    for _ in 0..PAIRS {
        let of = generated();
        let claim = json!({
            "publish": of.publish, "subscribe": of.subscribe, "durable": of.durable, "admin": of.admin,
        });
        let grants = Grants::from_claim(&GrantClaim::read(&claim).unwrap(), "alice").unwrap();
        let wish = asked();
        let may = grants.may_subscribe(&Filter::parse(&wish).unwrap());
        assert_eq!(may, may_subscribe(&of, &wish, &topics), "read {wish} with {claim}");
        let name = pick(&["alice", "alice:x", "alice-x", "bob", "bobby", "x"]);
        assert_eq!(
            grants.may_use_durable(name),
            has_durable(&of.durable, name),
            "{name} with {claim}"
        );
        let topic = topics
            [usize::try_from(clock::random_between(0, topics.len() as u64 - 1)).unwrap()]
        .join(".");
        let granted = filled(&of.publish);
        let publishes = granted.iter().any(|grant| matches(&tokens(grant), &tokens(&topic)));
        assert_eq!(
            grants.may_publish(&Topic::parse(&topic).unwrap()),
            publishes,
            "{topic} with {claim}"
        );
        let own = Topic::parse(&format!("$dead.{topic}"));
        assert!(own.is_err() || !grants.may_publish(&own.unwrap()), "nobody publishes there");
        *(if may { &mut allowed } else { &mut refused }) += 1;
    }
    assert!(allowed > PAIRS / 20 && refused > PAIRS / 20, "{allowed} allowed, {refused} refused");
}
