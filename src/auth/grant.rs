//! What somebody may do.
//!
//! - `publish` and `subscribe` are filters; a subscribe filter must lie inside a granted one.
//! - `durable` is a name, or a prefix that ends in one `*`.
//! - `{sub}` in any of them stands for the subject as exactly one token: bytes outside `A–Z a–z 0–9 _ -`
//!   become `=HH`. The result is never parsed for wildcards of the subject's making.

use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::Value;
use tidings_proto::{Filter, Filters, Topic, topic::subject_token};

/// What somebody may do.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    publish: Vec<Filter>,
    subscribe: Vec<Filter>,
    durable: Vec<String>,
    admin: bool,
    /// `None`: of somebody without a token.
    subject_token: Option<String>,
}

/// The claim `tidings` of a token, and what an API key carries.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GrantClaim {
    pub(super) publish: Vec<String>,
    pub(super) subscribe: Vec<String>,
    pub(super) durable: Vec<String>,
    pub(super) admin: bool,
    pub(super) limits: TokenLimits,
}

/// How much somebody may do; what is absent has no limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TokenLimits {
    /// Events they may publish in a second.
    pub publish_per_second: Option<NonZeroU32>,
    /// Sessions they may have at a time.
    pub sessions: Option<NonZeroU32>,
}

/// The members of a claim, and of its limits.
const MEMBERS: [&str; 5] = ["publish", "subscribe", "durable", "admin", "limits"];
const LIMITS: [&str; 2] = ["publish_per_second", "sessions"];

impl GrantClaim {
    /// Reads the claim.
    pub(super) fn read(claim: &Value) -> Result<GrantClaim, String> {
        // serde would take a list of the members in order as well.
        if !claim.is_object() || claim.get("limits").is_some_and(|limits| !limits.is_object()) {
            return Err("it must be an object, and so must its limits".to_owned());
        }
        GrantClaim::deserialize(claim).map_err(|error| error.to_string())
    }

    /// The same where a name that means nothing is one that was mistyped: an API key is made for this broker alone.
    pub(super) fn read_strictly(claim: &Value) -> Result<GrantClaim, String> {
        let unknown = |value: Option<&Value>, known: &[&str]| {
            let names = value.and_then(Value::as_object).into_iter().flat_map(|it| it.keys());
            names.map(String::as_str).find(|name| !known.contains(name)).map(shown)
        };
        let name = unknown(Some(claim), &MEMBERS).or(unknown(claim.get("limits"), &LIMITS));
        match name {
            Some(name) => {
                Err(format!("there is no \"{name}\": give {MEMBERS:?}, limits {LIMITS:?}"))
            }
            None => GrantClaim::read(claim),
        }
    }
}

impl Grants {
    /// For everybody on an open broker.
    pub fn everything() -> Grants {
        let all: Vec<Filter> = Filter::parse(">").into_iter().collect();
        Grants {
            publish: all.clone(),
            subscribe: all,
            durable: vec!["*".to_owned()],
            admin: true,
            subject_token: None,
        }
    }

    pub(super) fn from_claim(claim: &GrantClaim, subject: &str) -> Result<Grants, String> {
        let token = subject_token(subject);
        let filters = |texts: &[String]| {
            texts
                .iter()
                .map(|text| {
                    Filter::parse(&text.replace("{sub}", &token))
                        .map_err(|error| format!("\"{}\" {error}", shown(text)))
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let durable =
            claim.durable.iter().map(|text| text.replace("{sub}", &token)).collect::<Vec<_>>();
        if let Some(wrong) = durable
            .iter()
            .find(|text| text.trim_end_matches('*').contains('*') || text.ends_with("**"))
        {
            return Err(format!(
                "\"{}\" is no durable grant: give a name, or a prefix that ends in one *",
                shown(wrong)
            ));
        }
        Ok(Grants {
            publish: filters(&claim.publish)?,
            subscribe: filters(&claim.subscribe)?,
            durable,
            admin: claim.admin,
            subject_token: Some(token),
        })
    }

    /// For everybody who comes without a token: these filters to publish to and to read.
    ///
    /// # Errors
    /// Which of them is none.
    pub(super) fn anonymous(publish: &[String], subscribe: &[String]) -> Result<Grants, String> {
        let claim = GrantClaim {
            publish: publish.to_vec(),
            subscribe: subscribe.to_vec(),
            ..GrantClaim::default()
        };
        // They are many: nobody may read what is told to one of them.
        let grants = Grants::from_claim(&claim, super::ANONYMOUS)?;
        Ok(Grants { subject_token: None, ..grants })
    }

    /// Whether they may do what concerns everybody.
    pub fn is_admin(&self) -> bool {
        self.admin
    }

    /// Whether they may publish there. Nobody may on the broker's own topics.
    pub fn may_publish(&self, topic: &Topic) -> bool {
        !topic.is_own() && self.publish.iter().any(|filter| filter.matches(topic.as_str()))
    }

    /// The first of these filters that they may not read, if there is one.
    pub fn refused<'a>(&self, filters: &'a Filters) -> Option<&'a Filter> {
        filters.iter().find(|filter| !self.may_subscribe(filter))
    }

    /// Whether they may read what this filter matches.
    pub fn may_subscribe(&self, filter: &Filter) -> bool {
        match filter.as_str().strip_prefix('$') {
            None => self.subscribe.iter().any(|granted| granted.covers(filter)),
            Some(own) => self.may_read_own(own),
        }
    }

    /// The broker's own topics follow what they are about.
    fn may_read_own(&self, own: &str) -> bool {
        let (root, rest) = own.split_once('.').unwrap_or((own, ""));
        match root {
            "presence" => Filter::parse(rest).is_ok_and(|topic| self.may_subscribe(&topic)),
            "dead" => !rest.contains('.') && self.may_use_durable(rest),
            "receipts" => self.admin || self.subject_token.as_deref() == Some(rest),
            _ => self.admin,
        }
    }

    /// Whether they may attach to, acknowledge for and change the durable of this name.
    pub fn may_use_durable(&self, name: &str) -> bool {
        self.durable.iter().any(|granted| match granted.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == granted,
        })
    }
}

/// As much of somebody's text as belongs into an error.
pub fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(subject: &str, publish: &[&str], subscribe: &[&str], durable: &[&str]) -> Grants {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let claim = GrantClaim {
            publish: own(publish),
            subscribe: own(subscribe),
            durable: own(durable),
            ..GrantClaim::default()
        };
        Grants::from_claim(&claim, subject).unwrap()
    }

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    #[test]
    fn a_subscribe_filter_must_lie_inside_a_granted_one() {
        let grants = grants("alice", &["tasks.>"], &["tasks.*", "users.{sub}.>"], &["{sub}-*"]);
        assert!(
            grants.may_subscribe(&filter("tasks.42")) && grants.may_subscribe(&filter("tasks.*"))
        );
        assert!(
            grants.may_subscribe(&filter("users.alice.>"))
                && grants.may_subscribe(&filter("users.alice.a.b"))
        );
        for refused in [
            "tasks.>",
            ">",
            "users.*.x",
            "users.bob.>",
            "$acks",
            "$audit.>",
            "$presence",
            "$presence.>",
            "$presence.tasks.>",
            "$presence.users.bob.x",
        ] {
            assert!(!grants.may_subscribe(&filter(refused)), "{refused}");
        }
        for allowed in ["$presence.tasks.42", "$presence.tasks.*", "$presence.users.alice.>"] {
            assert!(grants.may_subscribe(&filter(allowed)), "{allowed}");
        }
        assert!(
            grants.may_subscribe(&filter("$dead.alice-inbox"))
                && !grants.may_subscribe(&filter("$dead.bob"))
        );
        assert!(
            grants.may_subscribe(&filter("$receipts.alice"))
                && !grants.may_subscribe(&filter("$receipts.bob"))
        );
        assert!(grants.may_use_durable("alice-inbox") && !grants.may_use_durable("alice"));
    }

    #[test]
    fn a_subject_is_one_token_and_brings_no_wildcard() {
        let grants = grants("a.b*>", &["users.{sub}"], &["users.{sub}.>"], &[]);
        assert!(grants.may_publish(&Topic::parse("users.a=2Eb=2A=3E").unwrap()));
        assert!(
            !grants.may_subscribe(&filter("users.a.b"))
                && !grants.may_subscribe(&filter("users.x.y"))
        );
    }

    #[test]
    fn nobody_publishes_to_the_brokers_own_topics() {
        for own in ["$acks", "$presence.a"] {
            assert!(!Grants::everything().may_publish(&Topic::parse(own).unwrap()), "{own}");
        }
        assert!(Grants::everything().may_publish(&Topic::parse("a").unwrap()));
    }
}
