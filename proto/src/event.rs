//! An event: what is published ([`NewEvent`]) and what stands in the log ([`Event`]).
//!
//! - A [`NewEvent`] has no offset and no time; an [`Event`] always has both.
//! - `data` is bytes; `datacontenttype` says how to read them. JSON data is one valid JSON value of at
//!   most [`JSON_DEPTH_MAX`] levels and is kept byte for byte; `text/*` data is UTF-8.
//! - Every text has a bound in bytes, see the constants.

use std::{collections::BTreeMap, fmt, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Offset, Topic};

/// The most bytes an event id may have.
pub const ID_BYTES_MAX: usize = 200;
/// The most bytes a key may have.
pub const KEY_BYTES_MAX: usize = 200;
/// The most bytes `type`, `source`, `datacontenttype` and `correlation` may have, each.
pub const ATTRIBUTE_BYTES_MAX: usize = 1024;
/// The most headers an event may have.
pub const HEADERS_MAX: usize = 64;
/// The most bytes the names and values of all headers may have together.
pub const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// The most milliseconds `ttl_ms` may say: the largest whole number that every JSON reader holds exactly (RFC 8259 §6).
pub const TTL_MS_MAX: u64 = (1 << 53) - 1;
/// The most levels of nesting in JSON data.
pub const JSON_DEPTH_MAX: usize = 32;
/// The `type` of an event whose publisher named none.
pub const DEFAULT_TYPE: &str = "message";
/// The content type of JSON data.
pub const JSON: &str = "application/json";

/// A moment: milliseconds since 1970-01-01T00:00:00Z. Written in RFC 3339 with milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The latest moment: 9999-12-30T22:00:00Z, the last that jiff can write. What is later becomes this one.
    pub const MAX: Timestamp = Timestamp(253_402_207_200_000);

    /// The moment this many milliseconds after the epoch; later than [`Timestamp::MAX`] becomes that.
    pub const fn from_millis(ms: u64) -> Timestamp {
        if ms > Self::MAX.0 { Self::MAX } else { Timestamp(ms) }
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This moment and `ms` milliseconds more.
    pub const fn plus_millis(self, ms: u64) -> Timestamp {
        Timestamp::from_millis(self.0.saturating_add(ms))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(ms) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => Err(fmt::Error),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no moment in RFC 3339 from 1970 on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no time: give RFC 3339 from 1970 on, as in 2026-11-21T06:00:00Z")]
pub struct TimeError(String);

impl FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Timestamp, TimeError> {
        let wrong = || TimeError(text.chars().take(64).collect());
        if is_offset_a_day(text) {
            return Err(wrong());
        }
        match text.parse::<jiff::Timestamp>() {
            Ok(time) => {
                let ms = u64::try_from(time.as_millisecond()).map_err(|_| wrong())?;
                Ok(Timestamp::from_millis(ms))
            }
            Err(_) if is_behind_the_last(text) => Ok(Timestamp::MAX),
            Err(_) => Err(wrong()),
        }
    }
}

/// Whether it is one of the last hours of 9999, which jiff reads and does not count: 9999-12-31 stands for "never" in many places.
fn is_behind_the_last(text: &str) -> bool {
    let last_day = jiff::civil::date(9999, 12, 30);
    jiff::fmt::temporal::Pieces::parse(text).is_ok_and(|time| {
        time.date() >= last_day && time.time().is_some() && time.offset().is_some()
    })
}

/// Whether a time that parses is said to be a day or more off UTC, as no clock is (RFC 3339 §5.6: 23 hours at most).
fn is_offset_a_day(text: &str) -> bool {
    let time = text.split('[').next().unwrap_or_default();
    let behind_date = time.find(['T', 't', ' ']).and_then(|at| time.get(at..)).unwrap_or_default();
    let hours = behind_date.split(['+', '-']).nth(1).and_then(|offset| offset.get(..2));
    hours.and_then(|hours| hours.parse::<u8>().ok()).is_some_and(|hours| hours >= 24)
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How urgent an event is. `normal` is the default and is left out on the wire.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// May wait.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before normal ones.
    High,
    /// Before all others.
    Urgent,
}

impl Priority {
    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
            Priority::Urgent => "urgent",
        }
    }

    /// The two bits it is stored in: 0 is normal, so that a plain event has none set.
    pub const fn to_bits(self) -> u8 {
        match self {
            Priority::Normal => 0,
            Priority::Low => 1,
            Priority::High => 2,
            Priority::Urgent => 3,
        }
    }

    /// The priority stored in the two lowest of these bits.
    pub const fn from_bits(bits: u8) -> Priority {
        match bits & 3 {
            1 => Priority::Low,
            2 => Priority::High,
            3 => Priority::Urgent,
            _ => Priority::Normal,
        }
    }
}

impl FromStr for Priority {
    type Err = EventError;

    fn from_str(text: &str) -> Result<Priority, EventError> {
        match text {
            "low" => Ok(Priority::Low),
            "normal" => Ok(Priority::Normal),
            "high" => Ok(Priority::High),
            "urgent" => Ok(Priority::Urgent),
            _ => Err(EventError::Priority(text.chars().take(64).collect())),
        }
    }
}

/// The id of an event: 1 to [`ID_BYTES_MAX`] bytes without control characters. Names a publish for deduplication.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EventId(Box<str>);

impl EventId {
    /// Takes an id.
    ///
    /// # Errors
    /// [`EventError::Text`] when it is empty, too long or holds control characters.
    pub fn parse(text: &str) -> Result<EventId, EventError> {
        text_of("id", text, ID_BYTES_MAX)?;
        if text.is_empty() {
            return Err(EventError::Empty { field: "id" });
        }
        Ok(EventId(text.into()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the bytes of `data` are, read off `datacontenttype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// One JSON value: embedded in JSON as it is.
    Json,
    /// UTF-8 text: a string in JSON.
    Text,
    /// Anything else: `data_base64` in JSON.
    Binary,
}

impl Data {
    /// How data of this content type (RFC 9110 §8.3.1; parameters ignored) is read.
    pub fn of(content_type: &str) -> Data {
        if content_type == JSON {
            return Data::Json;
        }
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let lower = essence.to_ascii_lowercase();
        if lower == JSON || lower == "text/json" || lower.ends_with("+json") {
            Data::Json
        } else if lower.starts_with("text/") {
            Data::Text
        } else {
            Data::Binary
        }
    }
}

/// What a publisher gives: an event without its place and time.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// Where it is published.
    pub topic: Topic,
    /// The publisher's id; without one the broker makes a UUIDv7 and does not deduplicate.
    pub id: Option<EventId>,
    /// CloudEvents `type`.
    pub kind: String,
    /// CloudEvents `source`; without one it is made from the session's subject.
    pub source: Option<String>,
    /// How to read `data`.
    pub datacontenttype: Option<String>,
    /// The payload.
    pub data: Option<Bytes>,
    /// The entity the event is about.
    pub key: Option<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// When it stops being delivered.
    pub expires: Option<Expiry>,
    /// What it belongs to.
    pub correlation: Option<String>,
    /// The publisher's own attributes.
    pub headers: BTreeMap<String, String>,
}

/// When an event stops being delivered, as its publisher said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// At this moment.
    At(Timestamp),
    /// This many milliseconds after the append.
    TtlMs(u64),
}

impl NewEvent {
    /// An event of type `message` on `topic` with nothing else.
    pub fn on(topic: Topic) -> NewEvent {
        NewEvent {
            topic,
            id: None,
            kind: DEFAULT_TYPE.to_owned(),
            source: None,
            datacontenttype: None,
            data: None,
            key: None,
            priority: Priority::Normal,
            expires: None,
            correlation: None,
            headers: BTreeMap::new(),
        }
    }

    /// Checks the bounds of every attribute and that `data` is what `datacontenttype` says.
    ///
    /// # Errors
    /// The first thing that does not hold; its text names the field.
    pub fn check(&self) -> Result<(), EventError> {
        self.check_with(check_json)
    }

    /// As [`NewEvent::check`], for data that is valid JSON where its content type says that it is JSON.
    pub(crate) fn check_parsed(&self) -> Result<(), EventError> {
        self.check_with(check_depth)
    }

    fn check_with(
        &self,
        check_json: fn(&[u8]) -> Result<(), EventError>,
    ) -> Result<(), EventError> {
        text_of("type", &self.kind, ATTRIBUTE_BYTES_MAX)?;
        if self.kind.is_empty() {
            return Err(EventError::Empty { field: "type" });
        }
        let attributes = [
            ("source", &self.source, ATTRIBUTE_BYTES_MAX),
            ("datacontenttype", &self.datacontenttype, ATTRIBUTE_BYTES_MAX),
            ("key", &self.key, KEY_BYTES_MAX),
            ("correlation", &self.correlation, ATTRIBUTE_BYTES_MAX),
        ];
        for (field, value, bytes_max) in attributes {
            if let Some(value) = value {
                text_of(field, value, bytes_max)?;
                if value.is_empty() {
                    return Err(EventError::Empty { field });
                }
            }
        }
        if matches!(self.expires, Some(Expiry::TtlMs(ms)) if ms > TTL_MS_MAX) {
            return Err(EventError::TtlTooLong);
        }
        self.check_headers()?;
        self.check_data(check_json)
    }

    fn check_headers(&self) -> Result<(), EventError> {
        if self.headers.len() > HEADERS_MAX {
            return Err(EventError::TooManyHeaders);
        }
        let bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > HEADERS_BYTES_MAX {
            return Err(EventError::HeadersTooLong);
        }
        match self.headers.keys().any(String::is_empty) {
            true => Err(EventError::Empty { field: "headers" }),
            false => Ok(()),
        }
    }

    fn check_data(
        &self,
        check_json: fn(&[u8]) -> Result<(), EventError>,
    ) -> Result<(), EventError> {
        let Some(data) = &self.data else { return Ok(()) };
        match Data::of(self.datacontenttype.as_deref().unwrap_or(JSON)) {
            Data::Json => check_json(data),
            Data::Text => match std::str::from_utf8(data) {
                Ok(_) => Ok(()),
                Err(cause) => Err(EventError::NotText(cause)),
            },
            Data::Binary => Ok(()),
        }
    }
}

/// One immutable entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its place.
    pub offset: Offset,
    /// Where it was published.
    pub topic: Topic,
    /// The publisher's id or the broker's.
    pub id: String,
    /// CloudEvents `type`.
    pub kind: String,
    /// CloudEvents `source`.
    pub source: String,
    /// When it was appended.
    pub time: Timestamp,
    /// How to read `data`.
    pub datacontenttype: Option<String>,
    /// The payload.
    pub data: Option<Bytes>,
    /// The entity it is about.
    pub key: Option<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// When it stops being delivered.
    pub expires: Option<Timestamp>,
    /// What it belongs to.
    pub correlation: Option<String>,
    /// The publisher's own attributes.
    pub headers: BTreeMap<String, String>,
}

/// What is wrong with an event.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EventError {
    /// A text that is too long.
    #[error("{field} has {bytes} bytes: at most {bytes_max} are allowed")]
    TooLong {
        /// The attribute.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// Its bound.
        bytes_max: usize,
    },
    /// A text with control characters.
    #[error("{field} has a control character: leave it out")]
    Text {
        /// The attribute.
        field: &'static str,
    },
    /// A text that must not be empty.
    #[error("{field} is empty: leave it out or give it a value")]
    Empty {
        /// The attribute.
        field: &'static str,
    },
    /// No such priority.
    #[error("priority is \"{0}\": it must be low, normal, high or urgent")]
    Priority(String),
    /// A time to live that not every encoding and client can hold.
    #[error("ttl_ms: at most {TTL_MS_MAX} are allowed")]
    TtlTooLong,
    /// Too many headers.
    #[error("headers: at most {HEADERS_MAX} are allowed")]
    TooManyHeaders,
    /// Headers that are too long together.
    #[error("headers: names and values may have {HEADERS_BYTES_MAX} bytes together")]
    HeadersTooLong,
    /// Data that its content type calls JSON but is not.
    #[error("data is not JSON, as datacontenttype says it is: {0}")]
    NotJson(String),
    /// JSON data that is nested too deep.
    #[error("data is nested deeper than {JSON_DEPTH_MAX} levels")]
    TooDeep,
    /// Data that its content type calls text but is not UTF-8.
    #[error("data is not UTF-8, as datacontenttype says it is: {0}")]
    NotText(std::str::Utf8Error),
}

fn text_of(field: &'static str, value: &str, bytes_max: usize) -> Result<(), EventError> {
    if value.len() > bytes_max {
        return Err(EventError::TooLong { field, bytes: value.len(), bytes_max });
    }
    match value.chars().any(char::is_control) {
        true => Err(EventError::Text { field }),
        false => Ok(()),
    }
}

fn check_json(data: &[u8]) -> Result<(), EventError> {
    // Depth first: the parser of a raw value recurses.
    check_depth(data)?;
    match serde_json::from_slice::<&serde_json::value::RawValue>(data) {
        Ok(_) => Ok(()),
        Err(cause) => Err(EventError::NotJson(cause.to_string())),
    }
}

fn check_depth(data: &[u8]) -> Result<(), EventError> {
    if json_depth(data) > JSON_DEPTH_MAX { Err(EventError::TooDeep) } else { Ok(()) }
}

/// How deep the arrays and objects of a JSON text are nested; exact for valid JSON.
pub fn json_depth(text: &[u8]) -> usize {
    let (mut rest, mut depth, mut deepest) = (text, 0_usize, 0);
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'"' => rest = behind_string(behind),
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// What follows the string that has begun before these bytes. Most of a JSON text is strings: they are passed over
/// many bytes at a time.
fn behind_string(mut rest: &[u8]) -> &[u8] {
    loop {
        let Some(at) = memchr::memchr2(b'"', b'\\', rest) else { return &[] };
        let is_end = rest.get(at) == Some(&b'"');
        // A backslash takes the next byte with it.
        rest = rest.get(at + if is_end { 1 } else { 2 }..).unwrap_or_default();
        if is_end {
            return rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(content_type: &str, data: &'static [u8]) -> NewEvent {
        NewEvent {
            datacontenttype: Some(content_type.to_owned()),
            data: Some(Bytes::from_static(data)),
            ..NewEvent::on(Topic::parse("a").unwrap())
        }
    }

    #[test]
    fn data_must_be_what_its_content_type_says() {
        assert_eq!(event(JSON, b"{\"a\":[1,2.50]}").check(), Ok(()));
        assert_eq!(event("application/vnd.x+json; v=1", b"1").check(), Ok(()));
        assert!(matches!(event(JSON, b"{a}").check(), Err(EventError::NotJson(_))));
        assert!(matches!(event("text/plain", b"\xff").check(), Err(EventError::NotText(_))));
        assert_eq!(event("image/png", b"\xff").check(), Ok(()));
    }

    #[test]
    fn a_time_to_live_is_a_number_that_everybody_can_read() {
        let living = |ms| NewEvent { expires: Some(Expiry::TtlMs(ms)), ..event(JSON, b"1") };
        assert_eq!(living(TTL_MS_MAX).check(), Ok(()));
        assert_eq!(living(TTL_MS_MAX + 1).check(), Err(EventError::TtlTooLong));
    }

    /// Byte after byte, as the format says it.
    fn naive_depth(text: &[u8]) -> usize {
        let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
        for &byte in text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                b'[' | b'{' if !in_string => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        deepest
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4096))]
        #[test]
        fn strings_that_are_passed_over_hide_no_level(text in r#"["\\\[\]\{\}a]{0,40}"#) {
            proptest::prop_assert_eq!(json_depth(text.as_bytes()), naive_depth(text.as_bytes()));
        }
    }

    #[test]
    fn json_may_be_nested_only_so_deep() {
        let nested = |n: usize| Bytes::from("[".repeat(n) + &"]".repeat(n));
        let mut event = event(JSON, b"1");
        event.data = Some(nested(JSON_DEPTH_MAX));
        assert_eq!(event.check(), Ok(()));
        event.data = Some(nested(JSON_DEPTH_MAX + 1));
        assert_eq!(event.check(), Err(EventError::TooDeep));
        assert_eq!(json_depth(br#"{"a":"[[[\"[[["}"#), 1);
    }

    #[test]
    fn times_are_written_with_milliseconds() {
        let time: Timestamp = "2026-11-21T06:16:00.123+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-21T05:16:00.123Z");
        for offset in ["+23:59", "-23:59", "+00:00"] {
            assert!(
                format!("2026-11-21T06:16:00{offset}").parse::<Timestamp>().is_ok(),
                "{offset}"
            );
        }
        for offset in ["+24:00", "-24:00", "+25:00", "-25:59"] {
            for separator in ["T", "t", " "] {
                let text = format!("2026-11-21{separator}06:16:00{offset}");
                assert!(text.parse::<Timestamp>().is_err(), "{text}");
            }
        }
        assert_eq!(Timestamp::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-30T22:00:00.000Z");
        for late in
            ["9999-12-30T22:00:00.001Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999-08:00"]
        {
            assert_eq!(late.parse(), Ok(Timestamp::MAX), "{late}");
        }
        for wrong in
            ["9999-12-31", "9999-12-31T23:59:59", "9999-12-32T00:00:00Z", "10000-01-01T00:00:00Z"]
        {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
        assert!("1969-01-01T00:00:00Z".parse::<Timestamp>().is_err());
    }
}
