//! What a subscription wants beyond its filters: types, priority, content types, headers; and what has expired.

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
            content_types: options.content_types.clone(),
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
        any_matches(&self.types, body.kind, '.')
            && any_matches(&self.content_types, body.datacontenttype.unwrap_or_default(), '/')
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

/// Whether one of the patterns is the value, or is `prefix` + `*` with a value that begins so. None: all do.
fn any_matches(patterns: &[String], value: &str, separator: char) -> bool {
    patterns.is_empty()
        || patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) if prefix.is_empty() || prefix.ends_with(separator) => {
                value.starts_with(prefix)
            }
            _ => pattern == value,
        })
}

/// Whether it can match: it is not empty, and has no `*` but one at its end, behind a separator or alone.
pub(super) fn is_pattern(pattern: &str, separator: char) -> bool {
    let begun = pattern.strip_suffix('*');
    let begun = begun.filter(|begun| begun.is_empty() || begun.ends_with(separator));
    !pattern.is_empty() && !begun.unwrap_or(pattern).contains('*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_end_in_a_star_behind_a_separator() {
        let patterns =
            |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert!(any_matches(&[], "x", '.'));
        assert!(any_matches(&patterns(&["task.*"]), "task.progress", '.'));
        assert!(!any_matches(&patterns(&["task.*"]), "tasks", '.'));
        assert!(any_matches(&patterns(&["a", "b"]), "b", '.'));
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
        assert!(any_matches(&patterns(&["text/*"]), "text/plain", '/'));
    }
}
