//! Where events are published ([`Topic`]) and what is asked for ([`Filter`]).
//!
//! - A topic is 1 to 14 tokens joined by `.`; a token is one or more of `A–Z a–z 0–9 _ - : @ =`.
//! - A user's topic has 200 bytes at most; one of the broker's own starts with `$` and carries a
//!   prefix before a user's topic, so it may be 232 bytes and 15 tokens long.
//! - A filter is a topic in which a token may be `*` (exactly one token) and the last may be `>`
//!   (one or more). Neither matches a first token that starts with `$`.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The most bytes a user's topic may have.
pub const TOPIC_BYTES_MAX: usize = 200;
/// The most tokens a user's topic may have.
pub const TOPIC_TOKENS_MAX: usize = 14;
/// The most bytes one of the broker's own topics may have: a prefix, a dot and a user's topic.
pub const OWN_TOPIC_BYTES_MAX: usize = 232;
/// The most filters one subscription may have.
pub const FILTERS_MAX: usize = 64;

/// Why a text is no topic or no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Nothing between two dots, or nothing at all.
    #[error("has an empty token: tokens are joined by single dots, as in tasks.42")]
    EmptyToken,
    /// A byte that no token may hold.
    #[error("has the character {0:?}: a token is made of A–Z a–z 0–9 _ - : @ =")]
    BadCharacter(char),
    /// More bytes than allowed.
    #[error("is longer than {TOPIC_BYTES_MAX} bytes")]
    TooLong,
    /// More tokens than allowed.
    #[error("has more than {TOPIC_TOKENS_MAX} tokens")]
    TooManyTokens,
    /// A `*` or `>` in a topic, or not as a whole token, or a `>` before the end.
    #[error(
        "has a wildcard where none may be: topics have none, in a filter * is a whole token and > the last one"
    )]
    Wildcard,
    /// More filters than one subscription may have, or none.
    #[error("must be 1 to {FILTERS_MAX} filters")]
    FilterCount,
}

/// Where an event is published. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Parses a topic, a user's or one of the broker's own.
    ///
    /// # Errors
    /// What the text breaks, see [`TopicError`].
    pub fn parse(text: &str) -> Result<Topic, TopicError> {
        check(text, false)?;
        Ok(Topic(Arc::from(text)))
    }

    /// The topic of a record: it was parsed before it was appended, so it is not checked again. Only for text whose
    /// checksum held.
    pub fn of_record(text: &str) -> Topic {
        Topic(Arc::from(text))
    }

    /// The text of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of the broker's own: its first token starts with `$`.
    pub fn is_own(&self) -> bool {
        self.0.starts_with('$')
    }

    /// The first token.
    pub fn root(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What is asked for: a topic, or one with wildcards.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter(Arc<str>);

impl Filter {
    /// Parses a filter.
    ///
    /// # Errors
    /// What the text breaks, see [`TopicError`].
    pub fn parse(text: &str) -> Result<Filter, TopicError> {
        check(text, true)?;
        Ok(Filter(Arc::from(text)))
    }

    /// The text of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names one topic only.
    pub fn is_literal(&self) -> bool {
        !self.0.split('.').any(|token| token == "*" || token == ">")
    }

    /// The topic it names, if it has no wildcard.
    pub fn literal(&self) -> Option<Topic> {
        self.is_literal().then(|| Topic(self.0.clone()))
    }

    /// The text before the first wildcard token, with its dot: what every match begins with.
    pub fn literal_prefix(&self) -> &str {
        literal_prefix(&self.0)
    }

    /// Whether `topic` matches.
    pub fn matches(&self, topic: &str) -> bool {
        filter_matches(&self.0, topic)
    }

    /// Whether every topic that `other` matches is matched by this filter too.
    pub fn covers(&self, other: &Filter) -> bool {
        let mut theirs = other.0.split('.');
        let mut first = true;
        for mine in self.0.split('.') {
            let Some(their) = theirs.next() else { return false };
            if first && their.starts_with('$') && mine != their {
                return false;
            }
            first = false;
            match (mine, their) {
                (">", _) => return true,
                (_, ">") => return false,
                ("*", _) => {}
                (mine, their) if mine == their => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }
}

/// 1 to 64 filters: an event matches when any of them does. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Filters(Arc<[Filter]>);

impl Filters {
    /// Takes the filters of one subscription.
    ///
    /// # Errors
    /// [`TopicError::FilterCount`] when there are none or more than [`FILTERS_MAX`].
    pub fn new(filters: Vec<Filter>) -> Result<Filters, TopicError> {
        if filters.is_empty() || filters.len() > FILTERS_MAX {
            return Err(TopicError::FilterCount);
        }
        Ok(Filters(filters.into()))
    }

    /// Just this one.
    pub fn one(filter: Filter) -> Filters {
        Filters(Arc::from([filter]))
    }

    /// Whether any of them matches.
    pub fn matches(&self, topic: &str) -> bool {
        self.0.iter().any(|filter| filter.matches(topic))
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Filter> {
        self.0.iter()
    }

    /// How many they are: 1 to 64.
    #[expect(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<'a> IntoIterator for &'a Filters {
    type Item = &'a Filter;
    type IntoIter = std::slice::Iter<'a, Filter>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// The same as [`Filter::literal_prefix`] of the text of a filter.
pub fn literal_prefix(filter: &str) -> &str {
    let mut end = 0;
    for token in filter.split_inclusive('.') {
        if matches!(token.trim_end_matches('.'), "*" | ">") {
            break;
        }
        end += token.len();
    }
    filter.get(..end).unwrap_or_default()
}

/// The same as [`Filter::matches`] of the text of a filter.
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    if *filter == *topic {
        return true;
    }
    // Without a star the text alone says it: this is asked of every event for every subscription.
    if !filter.contains('*') {
        return match filter.strip_suffix('>') {
            None => false,
            Some("") => !topic.starts_with('$'),
            Some(before) => topic.len() > before.len() && topic.starts_with(before),
        };
    }
    let mut tokens = topic.split('.');
    let mut first = true;
    for want in filter.split('.') {
        let Some(have) = tokens.next() else { return false };
        if first && have.starts_with('$') && have != want {
            return false;
        }
        first = false;
        match want {
            ">" => return true,
            "*" => {}
            literal if literal == have => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

fn check(text: &str, wildcards: bool) -> Result<(), TopicError> {
    let own = text.starts_with('$');
    let (bytes_max, tokens_max) = if own {
        (OWN_TOPIC_BYTES_MAX, TOPIC_TOKENS_MAX + 1)
    } else {
        (TOPIC_BYTES_MAX, TOPIC_TOKENS_MAX)
    };
    if text.len() > bytes_max {
        return Err(TopicError::TooLong);
    }
    let mut tokens = text.split('.').enumerate().peekable();
    while let Some((n, token)) = tokens.next() {
        if n >= tokens_max {
            return Err(TopicError::TooManyTokens);
        }
        let bare = if n == 0 { token.strip_prefix('$').unwrap_or(token) } else { token };
        match bare {
            "" => return Err(TopicError::EmptyToken),
            "*" if wildcards && !own => {}
            "*" if wildcards && n > 0 => {}
            ">" if wildcards && tokens.peek().is_none() && (n > 0 || !own) => {}
            _ => check_token(bare)?,
        }
    }
    Ok(())
}

fn check_token(token: &str) -> Result<(), TopicError> {
    match token.chars().find(|&c| !is_token_char(c)) {
        None => Ok(()),
        Some('*' | '>') => Err(TopicError::Wildcard),
        Some(c) => Err(TopicError::BadCharacter(c)),
    }
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '@' | '=')
}

/// A subject as exactly one token: bytes other than `A–Z a–z 0–9 _ -` become `=HH`.
pub fn subject_token(subject: &str) -> String {
    use fmt::Write;
    let mut token = String::with_capacity(subject.len());
    for byte in subject.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => token.push(char::from(byte)),
            // Writing to a String cannot fail.
            other => drop(write!(token, "={other:02X}")),
        }
    }
    token
}

/// Whether `text` is one token, as the name of a durable subscription must be, of at most 64 bytes.
pub fn is_durable_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(is_token_char)
}

macro_rules! text_word {
    ($word:ident) => {
        impl fmt::Debug for $word {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Display for $word {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $word {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl Serialize for $word {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $word {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$word, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                $word::parse(&text).map_err(|error| {
                    let shown: String = text.chars().take(64).collect();
                    de::Error::custom(format!("\"{shown}\" {error}"))
                })
            }
        }
    };
}
text_word!(Topic);
text_word!(Filter);

impl Serialize for Filters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Filters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Filters, D::Error> {
        Filters::new(Vec::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the words of the definition say, without any cleverness.
    fn naive(filter: &[&str], topic: &[&str], first: bool) -> bool {
        match (filter, topic) {
            ([], []) => true,
            ([">"], [have, ..]) => !(first && have.starts_with('$')),
            (["*", f @ ..], [have, t @ ..]) => {
                !(first && have.starts_with('$')) && naive(f, t, false)
            }
            ([want, f @ ..], [have, t @ ..]) => want == have && naive(f, t, false),
            _ => false,
        }
    }

    fn topic() -> impl Strategy<Value = String> {
        (prop::bool::weighted(0.1), prop::collection::vec("[ab]{1,2}", 1..5))
            .prop_map(|(own, tokens)| format!("{}{}", if own { "$" } else { "" }, tokens.join(".")))
    }

    fn filter() -> impl Strategy<Value = String> {
        let token = prop_oneof![3 => "[ab]{1,2}".boxed(), 2 => Just("*".to_owned()).boxed()];
        (prop::bool::weighted(0.1), prop::collection::vec(token, 0..4), prop::bool::ANY)
            .prop_filter_map("a filter", |(own, mut tokens, rest)| {
                if rest {
                    tokens.push(">".to_owned());
                }
                let text = format!("{}{}", if own { "$" } else { "" }, tokens.join("."));
                Filter::parse(&text).ok().map(|_| text)
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn a_filter_matches_what_the_naive_matcher_matches(filter in filter(), topic in topic()) {
            let f: Vec<&str> = filter.split('.').collect();
            let t: Vec<&str> = topic.split('.').collect();
            let parsed = Filter::parse(&filter).unwrap();
            prop_assert_eq!(parsed.matches(&topic), naive(&f, &t, true));
            if parsed.matches(&topic) {
                let prefix = parsed.literal_prefix();
                let begins = topic.starts_with(prefix) || prefix == format!("{topic}.");
                prop_assert!(begins, "{} begins {}", prefix, topic);
            }
        }

        #[test]
        fn a_covering_filter_matches_all_that_the_covered_one_does(a in filter(), b in filter(), topic in topic()) {
            let (a, b) = (Filter::parse(&a).unwrap(), Filter::parse(&b).unwrap());
            if a.covers(&b) && b.matches(&topic) {
                prop_assert!(a.matches(&topic), "{a} covers {b} but does not match {topic}");
            }
            prop_assert!(a.covers(&a));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = Topic::parse(&text);
            let _ = Filter::parse(&text);
        }
    }

    #[test]
    fn topics_are_checked() {
        for text in ["a", "tasks.42", "users.alice.inbox", "a:b@c=d_e-f", "$acks", &"a".repeat(200)]
        {
            assert!(Topic::parse(text).is_ok(), "{text}");
        }
        let many = ["a"; 15].join(".");
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "ä",
            "a/b",
            "*",
            "a.>",
            "$",
            "a.$b",
            &"a".repeat(201),
            &many,
        ] {
            assert!(Topic::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn filters_are_checked() {
        for text in ["a", "*", ">", "a.*", "a.>", "*.b", "$presence.>", "$dead.*"] {
            assert!(Filter::parse(text).is_ok(), "{text}");
        }
        for text in ["", "a*", "a.>.b", ">.a", "**", "$*", "$>", "a.", "a.b>"] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
    }
}
