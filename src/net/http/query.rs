//! The parameters behind the `?`.
//!
//! - Decoded once, as forms are encoded: a plus is a space. Where no value has a space it stays a plus, so that
//!   `2026-11-21T07:00:00+01:00` and `application/cloudevents+json` may be written as they are.
//! - Unknown parameters are refused, and those given twice, but for `topic` and what selects events.
//! - Errors begin with the parameter's name.

use std::{borrow::Cow, str::FromStr, time::Duration};

use percent_encoding::percent_decode_str;
use tidings_proto::{Position, Timestamp, WireError};

use crate::session::shown;

/// Parameters that may be given more than once.
const REPEATED: [&str; 4] = ["topic", "types", "content_types", "header"];
/// Parameters of whose values none has a space: a plus is one.
const PLUS: [&str; 3] = ["since", "types", "content_types"];
/// The longest that a request may wait for an event.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30);
/// The most events or names one answer has.
pub(super) const LIMIT_MAX: usize = 1000;
/// How many it has when nothing is said.
pub(super) const LIMIT_DEFAULT: usize = 100;

/// The parameter of a ticket, where a token cannot be sent: on WebSockets and streams.
pub(super) const TICKET: &str = "ticket";

/// The ticket in the text behind the `?`. It is looked for before the other parameters are: whoever has none is told
/// nothing of them. No character of a ticket is ever encoded.
pub(super) fn ticket(raw: Option<&str>) -> Option<&str> {
    let mut pairs = raw.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == TICKET).map(|(_, ticket)| ticket)
}

/// Whether a parameter of this name stands behind the `?`, however it is encoded.
pub(super) fn has(raw: Option<&str>, name: &str) -> bool {
    let mut pairs = raw.unwrap_or_default().split('&');
    pairs.any(|pair| {
        let given = pair.split_once('=').map_or(pair, |(given, _)| given);
        percent_decode_str(given).eq(name.bytes())
    })
}

/// The refusal of both a ticket and a token.
pub(super) fn two_proofs() -> WireError {
    WireError::invalid("ticket: the request has a token as well: show one of the two")
}

/// The parameters of one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Takes the text behind the `?`; its parameters must be among `known`.
    pub(super) fn parse(raw: Option<&str>, known: &[&'static str]) -> Result<Query, WireError> {
        let mut pairs: Vec<(&'static str, String)> = Vec::new();
        for pair in raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded("query", name)?;
            if name == "token" {
                return Err(WireError::invalid(
                    "token: it is not taken from the query, which ends up in logs: \
                     send it as Authorization: Bearer, or get a ticket with POST /v1/tickets",
                ));
            }
            let Some(name) = known.iter().copied().find(|known| *known == name) else {
                return Err(unknown(&name, known));
            };
            let is_twice = pairs.iter().any(|(other, _)| *other == name);
            if is_twice && !REPEATED.contains(&name) {
                return Err(WireError::invalid(format!("{name}: it is given twice")));
            }
            pairs.push((name, decoded(name, value)?));
        }
        Ok(Query(pairs))
    }

    /// The value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(other, _)| *other == name).map(|(_, value)| value.as_str())
    }

    /// A value that parses by itself, with an error that says what it should be.
    pub(super) fn value<T: FromStr<Err: std::fmt::Display>>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, WireError> {
        let parse = |text: &str| {
            text.parse().map_err(|error| WireError::invalid(format!("{name}: {error}")))
        };
        self.get(name).map(parse).transpose()
    }

    /// A whole number without a sign.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, WireError> {
        let parse = |text: &str| {
            digits(text).ok_or_else(|| {
                let text = shown(text);
                WireError::invalid(format!(
                    "{name}: \"{text}\": it must be a whole number, 0 or more"
                ))
            })
        };
        self.get(name).map(parse).transpose()
    }

    /// `true` or `false`; `false` where nothing is said.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, WireError> {
        match self.get(name) {
            Some("true") => Ok(true),
            None | Some("false") => Ok(false),
            Some(text) => {
                let text = shown(text);
                Err(WireError::invalid(format!("{name}: \"{text}\": it must be true or false")))
            }
        }
    }

    /// `after`.
    pub(super) fn after(&self) -> Result<Option<Position>, WireError> {
        self.value("after")
    }

    /// `since`.
    pub(super) fn since(&self) -> Result<Option<Timestamp>, WireError> {
        self.value("since")
    }

    /// `limit`.
    pub(super) fn limit(&self) -> Result<usize, WireError> {
        match self.get("limit") {
            None => Ok(LIMIT_DEFAULT),
            Some(text) => limit_of(digits(text), text),
        }
    }

    /// `wait`.
    pub(super) fn wait(&self) -> Result<Option<Duration>, WireError> {
        self.get("wait").map(wait_of).transpose()
    }
}

/// A number of events or names; `shown_as` is what was written.
pub(super) fn limit_of(limit: Option<u64>, shown_as: &str) -> Result<usize, WireError> {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    limit.filter(|limit| (1..=LIMIT_MAX).contains(limit)).ok_or_else(|| {
        WireError::invalid(format!("limit: \"{}\": it must be 1 to {LIMIT_MAX}", shown(shown_as)))
    })
}

/// A number without a sign, which `parse` would take.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A time to wait: a number of seconds, or as in `500ms` or `10s`.
pub(super) fn wait_of(text: &str) -> Result<Duration, WireError> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wait = if is_number {
        text.parse().ok().map(Duration::from_secs)
    } else {
        humantime::parse_duration(text).ok()
    };
    wait.filter(|wait| *wait <= WAIT_MAX).ok_or_else(|| {
        let text = shown(text);
        WireError::invalid(format!("wait: \"{text}\": it must be a time up to 30s, as in 10s"))
    })
}

fn decoded(name: &str, raw: &str) -> Result<String, WireError> {
    let spaced: Cow<'_, str> =
        if PLUS.contains(&name) { raw.into() } else { raw.replace('+', " ").into() };
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(WireError::invalid(format!("{name}: it is not UTF-8 once decoded"))),
    }
}

fn unknown(name: &str, known: &[&'static str]) -> WireError {
    let name = shown(name);
    WireError::invalid(match known {
        [] => format!("{name}: there is no such parameter; this call takes none"),
        _ => format!("{name}: there is no such parameter; there are {}", known.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 8] =
        ["topic", "types", "content_types", "header", "after", "since", "limit", "wait"];

    fn parse(raw: &str) -> Result<Query, WireError> {
        Query::parse(Some(raw), &KNOWN)
    }

    fn refused(raw: &str) -> String {
        parse(raw).unwrap_err().message
    }

    #[test]
    fn a_ticket_is_found_as_it_is() {
        for (raw, want) in [
            ("ticket=tkt_1", Some("tkt_1")),
            ("after=1&ticket=tkt_1", Some("tkt_1")),
            ("ticket", None),
            ("tickets=x&after=ticket=1", None),
            ("", None),
        ] {
            assert_eq!(ticket(Some(raw)), want, "{raw}");
        }
        assert_eq!(ticket(None), None);
    }

    #[test]
    fn values_are_decoded_once() {
        let query =
            parse("topic=a.%3E&topic=b%252E&after=57%409f3c21d0&&limit=7&wait=1500ms").unwrap();
        assert_eq!(query.all("topic").collect::<Vec<_>>(), ["a.>", "b%2E"]);
        assert_eq!(query.after().unwrap().unwrap().to_string(), "57@9f3c21d0");
        assert_eq!(query.limit().unwrap(), 7);
        assert_eq!(query.wait().unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(Query::parse(None, &[]).unwrap(), Query(Vec::new()));
    }

    #[test]
    fn what_has_no_spaces_may_be_written_with_its_plus() {
        let query = parse("since=2026-11-21T07:00:00+01:00&content_types=a/b+json").unwrap();
        assert_eq!(query.since().unwrap().unwrap().to_string(), "2026-11-21T06:00:00.000Z");
        assert_eq!(query.get("content_types"), Some("a/b+json"));
    }

    #[test]
    fn a_plus_is_a_space_as_forms_write_it() {
        let query = parse("header=from:New+York&header=to:1%2B1%20=+2").unwrap();
        assert_eq!(query.all("header").collect::<Vec<_>>(), ["from:New York", "to:1+1 = 2"]);
        // Of what has neither, it is wrong as before.
        assert!(parse("limit=+5").unwrap().limit().is_err());
        assert!(parse("after=+5").unwrap().after().is_err());
    }

    #[test]
    fn the_defaults_hold_where_nothing_is_said() {
        let query = parse("").unwrap();
        assert_eq!(query.limit().unwrap(), LIMIT_DEFAULT);
        assert_eq!(query.wait().unwrap(), None);
        assert_eq!(query.after().unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (raw, name) in [
            ("afer=1", "afer: there is no such parameter; there are topic, "),
            ("after=1&after=2", "after: it is given twice"),
            ("token=abc", "token: it is not taken from the query"),
            ("topic=%FF", "topic: it is not UTF-8"),
        ] {
            assert!(refused(raw).starts_with(name), "{raw}: {}", refused(raw));
        }
        for raw in [
            "limit=0",
            "limit=1001",
            "limit=",
            "limit=-1",
            "limit=+5",
            "limit=99999999999999999999",
        ] {
            assert!(
                parse(raw).unwrap().limit().unwrap_err().message.starts_with("limit: "),
                "{raw}"
            );
        }
        for raw in ["wait=31s", "wait=31", "wait=", "wait=soon", "wait=-1"] {
            assert!(parse(raw).unwrap().wait().unwrap_err().message.starts_with("wait: "), "{raw}");
        }
        assert!(parse("after=x").unwrap().after().unwrap_err().message.starts_with("after: "));
        assert!(parse("since=x").unwrap().since().unwrap_err().message.starts_with("since: "));
    }
}
