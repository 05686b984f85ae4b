//! What a subscription wants beyond its filters: types, priority, content types, headers; and what has expired.
//!
//! - A content type is held against what is wanted by its media type: without parameters, whatever its case (RFC 9110
//!   §8.3.1). Nothing is copied for that: it is looked at once an event.

use tidings_proto::{Priority, SubscribeOptions, Timestamp};

use crate::log::Stored;

/// The most entries `types` and `content_types` may have, each.
pub(crate) const PATTERNS_MAX: usize = 64;

/// Beyond the filters. Nothing in memory for who wants all, as most do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection(Option<Box<Wishes>>);

#[derive(Clone, Debug)]
struct Wishes {
    types: Vec<String>,
    min_priority: Option<Priority>,
    content_types: Vec<String>,
    headers: Vec<(String, String)>,
}

impl Selection {
    pub(crate) fn of(options: &SubscribeOptions) -> Selection {
        let wishes = Wishes {
            types: options.types.clone(),
            min_priority: options.min_priority.filter(|priority| *priority > Priority::Low),
            content_types: options
                .content_types
                .iter()
                .map(|it| media_type(it).to_owned())
                .collect(),
            headers: options.headers.clone().into_iter().collect(),
        };
        let is_all = wishes.min_priority.is_none() && wishes.is_all_bodies();
        Selection((!is_all).then(|| Box::new(wishes)))
    }

    /// Whether it wants everything that the filters match.
    pub(crate) fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether this event is wanted. One that cannot be read is: its reader will say so.
    pub(crate) fn wants(&self, event: &Stored) -> bool {
        self.0.as_ref().is_none_or(|wishes| wishes.are_met(event))
    }
}

impl Wishes {
    /// Whether nothing in an event's body matters.
    fn is_all_bodies(&self) -> bool {
        self.types.is_empty() && self.content_types.is_empty() && self.headers.is_empty()
    }

    fn are_met(&self, event: &Stored) -> bool {
        if self.min_priority.is_some_and(|min| event.priority() < min) {
            return false;
        }
        if self.is_all_bodies() {
            return true;
        }
        let Ok(body) = event.body() else { return true };
        any_matches(&self.types, body.kind)
            && is_any_of(&self.content_types, body.datacontenttype.unwrap_or_default())
            && self.headers.iter().all(|(name, value)| {
                body.headers.into_iter().any(|(other, has)| other == name && has == value)
            })
    }
}

/// Whether subscriptions with these options want the same events.
pub(crate) fn wants_same(one: &SubscribeOptions, other: &SubscribeOptions) -> bool {
    one.filters == other.filters
        && one.types == other.types
        && one.min_priority == other.min_priority
        && one.content_types == other.content_types
        && one.headers == other.headers
}

/// Whether the event has expired; one that cannot be read has not.
pub(crate) fn has_expired(event: &Stored, now: Timestamp) -> bool {
    event.expires().ok().flatten().is_some_and(|expires| expires <= now)
}

/// Whether one of the patterns is the type, or is `prefix` + `*` with a type that begins so. None: all do.
fn any_matches(patterns: &[String], kind: &str) -> bool {
    patterns.is_empty()
        || patterns.iter().any(|pattern| match begun(pattern, '.') {
            Some(prefix) => kind.starts_with(prefix),
            None => pattern == kind,
        })
}

/// The same of media types and the content type of an event.
fn is_any_of(media_types: &[String], content_type: &str) -> bool {
    if media_types.is_empty() {
        return true;
    }
    let has = media_type(content_type).as_bytes();
    media_types.iter().any(|wanted| match begun(wanted, '/') {
        Some(prefix) => has
            .get(..prefix.len())
            .is_some_and(|begins| begins.eq_ignore_ascii_case(prefix.as_bytes())),
        None => has.eq_ignore_ascii_case(wanted.as_bytes()),
    })
}

/// What a pattern says that stands for all that begins so; `None` for one that stands for itself.
fn begun(pattern: &str, separator: char) -> Option<&str> {
    let begun = pattern.strip_suffix('*')?;
    (begun.is_empty() || begun.ends_with(separator)).then_some(begun)
}

/// A content type without its parameters.
fn media_type(content_type: &str) -> &str {
    let end = content_type.find(';').unwrap_or(content_type.len());
    content_type.get(..end).unwrap_or_default().trim_ascii()
}

/// Whether it can match: it is not empty, and has no `*` but one at its end, behind a separator or alone.
pub(super) fn is_pattern(pattern: &str, separator: char) -> bool {
    !pattern.is_empty() && !begun(pattern, separator).unwrap_or(pattern).contains('*')
}

/// Whether it has parameters, which would not be looked at.
pub(super) fn has_parameters(pattern: &str) -> bool {
    pattern != media_type(pattern)
}

/// Whether it is a media type, all of one type, or all there are.
pub(super) fn is_media_type(pattern: &str) -> bool {
    pattern == "*"
        || pattern.split_once('/').is_some_and(|(kind, subtype)| {
            !kind.is_empty() && !subtype.is_empty() && !subtype.contains('/')
        })
}

#[cfg(test)]
mod tests {
    use tidings_proto::{Filter, Filters};

    use super::*;

    #[test]
    fn patterns_end_in_a_star_behind_a_separator() {
        let patterns =
            |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert!(any_matches(&[], "x"));
        assert!(any_matches(&patterns(&["task.*"]), "task.progress"));
        assert!(!any_matches(&patterns(&["task.*"]), "tasks"));
        assert!(
            !any_matches(&patterns(&["task.*"]), "Task.progress"),
            "a type is as it is written"
        );
        assert!(any_matches(&patterns(&["a", "b"]), "b"));
        for (pattern, matches) in [
            ("a", true),
            ("a.*", true),
            ("*", true),
            ("a.b.*", true),
            ("", false),
            ("a*", false),
            ("*.x", false),
            ("a.*.b", false),
            ("*.*", false),
            ("**", false),
        ] {
            assert_eq!(is_pattern(pattern, '.'), matches, "{pattern}");
        }
        assert!(is_pattern("text/*", '/') && !is_pattern("*/json", '/') && !is_pattern("*/*", '/'));
    }

    #[test]
    fn a_content_type_is_wanted_by_its_media_type() {
        let wants = |pattern: &str, has: &str| is_any_of(&[pattern.to_owned()], has);
        for has in [
            "application/json",
            "APPLICATION/JSON",
            "application/json; charset=utf-8",
            "Application/Json ;charset=\"a;b\"",
            "application/json;",
        ] {
            for pattern in ["application/json", "Application/JSON", "APPLICATION/*", "*"] {
                assert!(wants(pattern, has), "{pattern} {has}");
            }
            for pattern in ["application/jso", "application/json5", "text/*", "json/*"] {
                assert!(!wants(pattern, has), "{pattern} {has}");
            }
        }
        assert!(!wants("text/*", "text") && !wants("text/*", "") && !wants("a/b", ""));
        // A character of more than one byte, where the beginning would end.
        assert!(!wants("text/*", "text\u{2f00}") && wants("TEXT/*", "text/\u{2f00}"));
        assert!(is_any_of(&[], "") && wants("*", ""));
        assert!(!has_parameters("text/*") && has_parameters("text/plain; charset=utf-8"));
        for (pattern, is_one) in [
            ("*", true),
            ("text/*", true),
            ("application/vnd.a+json", true),
            ("json", false),
            ("/json", false),
            ("text/", false),
            ("/*", false),
            ("a/b/c", false),
            ("a/b/*", false),
        ] {
            assert_eq!(is_media_type(pattern), is_one, "{pattern}");
        }
        // One from before they were refused stands for its media type.
        let filters = Filters::one(Filter::parse("a").unwrap());
        let options = SubscribeOptions {
            content_types: vec!["text/plain; charset=utf-8".to_owned()],
            ..SubscribeOptions::to(filters)
        };
        let Some(wishes) = Selection::of(&options).0 else { panic!("it selects") };
        assert_eq!(wishes.content_types, ["text/plain"]);
    }
}
