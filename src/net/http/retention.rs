//! Retention and erasure over HTTP.

use hyper::{Response, StatusCode, body::Incoming};
use serde::{Deserialize, Serialize};
use tidings_proto::{Cursor, Offset, WireError, control::RetentionRule};

use super::{Body, Call, body, respond};
use crate::{
    net::problem::Refusal,
    session::{RuleInfo, Transport, parse_age},
};

/// A rule as it is told.
#[derive(Serialize)]
struct Row<'a> {
    filter: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_events: Option<u64>,
    compact: bool,
    configured: bool,
}

impl<'a> Row<'a> {
    fn of(info: &'a RuleInfo) -> Row<'a> {
        let age = |ms| humantime::format_duration(std::time::Duration::from_millis(ms)).to_string();
        Row {
            filter: info.filter.as_str(),
            max_age: info.rule.max_age_ms.map(age),
            max_bytes: info.rule.max_bytes,
            max_events: info.rule.max_events,
            compact: info.rule.compact,
            configured: info.configured,
        }
    }
}

#[derive(Serialize)]
struct Page<'a> {
    retention: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Erasure<'a> {
    topic: &'a str,
    upto: Cursor,
    erased: bool,
}

/// The body of a rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    #[serde(default, deserialize_with = "body::given")]
    max_age: Option<String>,
    #[serde(default, deserialize_with = "body::given")]
    max_bytes: Option<u64>,
    #[serde(default, deserialize_with = "body::given")]
    max_events: Option<u64>,
    #[serde(default)]
    compact: bool,
}

/// `GET /v1/retention`.
pub(super) fn list(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let rules = session.retention_rules()?;
    let retention = rules.iter().map(Row::of).collect();
    Ok(respond::of(StatusCode::OK, &Page { retention })?)
}

/// `GET /v1/retention/{filter}`.
pub(super) fn show(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let rule = session.retention_rule(&call.name)?;
    Ok(respond::of(StatusCode::OK, &Row::of(&rule))?)
}

/// `PUT /v1/retention/{filter}`.
pub(super) async fn put(call: &Call, body: Incoming) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let rule = rule(body::take(call, body).await?.text()?)?;
    let name = call.name.clone();
    let stored = call.to_the_end(async move {
        session.put_retention(&name, rule).await?;
        session.retention_rule(&name)
    });
    Ok(respond::of(StatusCode::OK, &Row::of(&stored.await?))?)
}

/// `DELETE /v1/retention/{filter}`.
pub(super) async fn delete(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let name = call.name.clone();
    call.to_the_end(async move { session.delete_retention(&name).await }).await?;
    let mut response = Response::new(Body::full(Vec::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// `DELETE /v1/topics/{topic}`.
pub(super) async fn erase(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let name = call.name.clone();
    let erased = call.to_the_end(async move { session.erase(&name).await }).await?;
    let status = if erased.done { StatusCode::OK } else { StatusCode::ACCEPTED };
    let erasure = Erasure { topic: &call.name, upto: erased.upto, erased: erased.done };
    Ok(respond::of(status, &erasure)?)
}

fn rule(text: &str) -> Result<RetentionRule, WireError> {
    let invalid = |problem: &str| Err(WireError::invalid(problem));
    let wish: Wish = body::object(text, "{\"max_age\":\"30d\"}")?;
    let max_age_ms = wish.max_age.as_deref().map(parse_age);
    if max_age_ms == Some(None) {
        return invalid("max_age: it must be a time from 1s to 100 years, as in \"30d\"");
    }
    let max_age_ms = max_age_ms.flatten();
    for (field, value) in [("max_bytes", wish.max_bytes), ("max_events", wish.max_events)] {
        if value.is_some_and(|value| !(1..=Offset::MAX).contains(&value)) {
            let text =
                format!("{field}: it must be 1 to {}; leave it out for no limit", Offset::MAX);
            return invalid(&text);
        }
    }
    let (max_bytes, max_events, compact) = (wish.max_bytes, wish.max_events, wish.compact);
    Ok(RetentionRule { max_age_ms, max_bytes, max_events, compact })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_and_what_is_wrong_is_named() {
        let read = rule(r#"{"max_age":"1h","max_events":5,"compact":true}"#).unwrap();
        assert_eq!(
            (read.max_age_ms, read.max_events, read.compact),
            (Some(3_600_000), Some(5), true)
        );
        assert_eq!(rule("{}").unwrap(), RetentionRule::default());
        for (text, name) in [
            ("[]", "body: "),
            ("", "body: "),
            ("{", "body: "),
            ("{} {}", "body: "),
            (r#"{"max_ages":"1h"}"#, "max_ages: unknown field"),
            (r#"{"max_age":5}"#, "max_age: invalid type: integer `5`, expected a string"),
            (r#"{"max_age":"1h","max_age":"1h"}"#, "max_age: is given twice"),
            (r#"{"compact":"yes"}"#, "compact: "),
            (r#"{"max_bytes":-1}"#, "max_bytes: invalid value"),
            (r#"{"max_age":"soon"}"#, "max_age: "),
            (r#"{"max_age":"1ms"}"#, "max_age: "),
            (r#"{"max_age":"101years"}"#, "max_age: "),
            (r#"{"max_age":"600000000years"}"#, "max_age: "),
            (r#"{"max_bytes":0}"#, "max_bytes: "),
            (r#"{"max_events":-1}"#, "max_events: "),
            (r#"{"max_events":null}"#, "max_events: "),
            (r#"{"max_age":null}"#, "max_age: "),
            (r#"{"max_events":9007199254740992}"#, "max_events: "),
        ] {
            let error = rule(text).unwrap_err();
            assert!(error.message.starts_with(name), "{text}: {}", error.message);
        }
    }
}
