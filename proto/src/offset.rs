//! Where an event stands: [`Offset`] names an event, [`Cursor`] the place behind it.
//!
//! - The first event of a log has offset 1; offsets rise and are never reused under one [`LogId`].
//! - `Cursor(n)` means "everything up to and including n is done"; `Cursor(0)` is before the first.
//! - Offsets stay at or below [`Offset::MAX`] = 2^53 − 1, so that a JavaScript number holds them.
//! - An offset means something only together with its log id: a [`Position`] is both.

use std::{fmt, num::NonZeroU64, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// The place of one event in the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Offset(NonZeroU64);

impl Offset {
    /// The first offset of every log.
    pub const FIRST: Offset = Offset(NonZeroU64::MIN);
    /// The highest offset there can be: 2^53 − 1, the largest integer a JavaScript number holds exactly.
    pub const MAX: u64 = (1 << 53) - 1;

    /// The offset `n`, or `None` when `n` is 0 or above [`Offset::MAX`].
    pub const fn new(n: u64) -> Option<Offset> {
        if n > Self::MAX {
            return None;
        }
        match NonZeroU64::new(n) {
            Some(n) => Some(Offset(n)),
            None => None,
        }
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The cursor that has this event behind it.
    pub const fn cursor(self) -> Cursor {
        Cursor(self.0.get())
    }

    /// The cursor right before this event.
    pub const fn before(self) -> Cursor {
        Cursor(self.0.get() - 1)
    }
}

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Offset, D::Error> {
        let n = u64::deserialize(deserializer)?;
        Offset::new(n).ok_or_else(|| {
            let given = de::Unexpected::Unsigned(n);
            de::Error::invalid_value(given, &"an offset from 1 to 9007199254740991")
        })
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place between two events: all up to and including this offset is done.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Cursor(u64);

impl Cursor {
    /// Before the first event.
    pub const START: Cursor = Cursor(0);

    /// The cursor behind offset `n`; numbers above [`Offset::MAX`] become that.
    pub const fn new(n: u64) -> Cursor {
        if n > Offset::MAX { Cursor(Offset::MAX) } else { Cursor(n) }
    }

    /// The number itself; 0 is before the first event.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The first offset that is not done yet, or the last there can be.
    pub const fn next(self) -> Offset {
        match Offset::new(self.0 + 1) {
            Some(offset) => offset,
            None => Offset(NonZeroU64::MIN.saturating_add(Offset::MAX - 1)),
        }
    }

    /// Whether the event at `offset` lies behind this cursor.
    pub const fn covers(self, offset: Offset) -> bool {
        offset.get() <= self.0
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cursor, D::Error> {
        let n = u64::deserialize(deserializer)?;
        if n > Offset::MAX {
            let given = de::Unexpected::Unsigned(n);
            return Err(de::Error::invalid_value(given, &"a cursor from 0 to 9007199254740991"));
        }
        Ok(Cursor(n))
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "..{}", self.0)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of a log: made with it, and anew when offsets of the old one could have been lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogId(Uuid);

impl LogId {
    /// A log id of these random bytes, marked as a UUID of version 4 (RFC 9562 §5.4).
    pub fn from_random(bytes: [u8; 16]) -> LogId {
        LogId(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// The sixteen bytes as stored.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// A log id as stored.
    pub const fn from_bytes(bytes: [u8; 16]) -> LogId {
        LogId(Uuid::from_bytes(bytes))
    }

    /// Whether a text names a log: its whole id, or the first eight hex digits.
    pub fn is_name(text: &str) -> bool {
        let is_short = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_short || (text.len() == 36 && Uuid::parse_str(text).is_ok())
    }

    /// The first eight hex digits: enough to tell two logs apart in a position string.
    pub fn short(self) -> String {
        let mut text = self.0.simple().to_string();
        text.truncate(8);
        text
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LogId {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<LogId, PositionError> {
        Uuid::parse_str(text).map(LogId).map_err(|_| PositionError(text.to_owned()))
    }
}

/// A cursor with, where it was given, the first eight hex digits of its log id: `57@9f3c21d0` or `57`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The place.
    pub cursor: Cursor,
    /// The log it belongs to, where the text said so; eight lower-case hex digits.
    pub log: Option<String>,
}

impl Position {
    /// The position `cursor` in the log `id`.
    pub fn of(cursor: Cursor, id: LogId) -> Position {
        Position { cursor, log: Some(id.short()) }
    }

    /// Whether this position may be used in the log `id`.
    pub fn fits(&self, id: LogId) -> bool {
        self.log.as_ref().is_none_or(|short| *short == id.short())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.log {
            Some(log) => write!(f, "{}@{log}", self.cursor),
            None => self.cursor.fmt(f),
        }
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Position, PositionError> {
        let wrong = || PositionError(text.chars().take(64).collect());
        let (number, log) = match text.split_once('@') {
            Some((number, log)) => (number, Some(log)),
            None => (text, None),
        };
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let number: u64 = number.parse().map_err(|_| wrong())?;
        if number > Offset::MAX {
            return Err(wrong());
        }
        let log = log.map(|log| {
            let hex = log.len() == 8 && log.bytes().all(|b| b.is_ascii_hexdigit());
            hex.then(|| log.to_ascii_lowercase()).ok_or_else(wrong)
        });
        Ok(Position { cursor: Cursor(number), log: log.transpose()? })
    }
}

/// An event named by its offset, where a client wants to with its log: `57` or `"57@9f3c21d0"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The place of the event.
    pub offset: Offset,
    /// The log it belongs to, where that was said; eight lower-case hex digits.
    pub log: Option<String>,
}

impl From<Offset> for Placed {
    fn from(offset: Offset) -> Placed {
        Placed { offset, log: None }
    }
}

impl Serialize for Placed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.log {
            None => self.offset.serialize(serializer),
            Some(log) => serializer.collect_str(&format_args!("{}@{log}", self.offset)),
        }
    }
}

impl FromStr for Placed {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Placed, PositionError> {
        let Position { cursor, log } = text.parse()?;
        let offset = Offset::new(cursor.0).ok_or_else(|| PositionError(text.to_owned()))?;
        Ok(Placed { offset, log })
    }
}

impl<'de> Deserialize<'de> for Placed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Placed, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Placed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an offset from 1 to 9007199254740991, or with its log as in \"57@9f3c21d0\"",
                )
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Placed, E> {
                let wrong = || de::Error::invalid_value(de::Unexpected::Unsigned(n), &self);
                Ok(Placed { offset: Offset::new(n).ok_or_else(wrong)?, log: None })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Placed, E> {
                // A number is a number, unless its log is said.
                let placed = text.contains('@').then(|| text.parse().ok()).flatten();
                placed.ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl Placed {
    /// The offsets of these events, and the log that they and `log` name, where any does.
    ///
    /// # Errors
    /// When they name several logs.
    pub fn of_one_log(
        placed: Vec<Placed>,
        log: Option<String>,
    ) -> Result<(Vec<Offset>, Option<String>), LogsError> {
        let mut one = log;
        let mut offsets = Vec::with_capacity(placed.len());
        for Placed { offset, log } in placed {
            if let Some(log) = log {
                let is_same = |one: &str| one.to_ascii_lowercase().starts_with(&log);
                if one.as_deref().is_some_and(|one| !is_same(one)) {
                    return Err(LogsError);
                }
                one.get_or_insert(log);
            }
            offsets.push(offset);
        }
        Ok((offsets, one))
    }
}

/// Offsets of several logs in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the offsets and log name several logs: all offsets of a request are of one")]
pub struct LogsError;

/// The text is no position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no position: give an offset (0 to 9007199254740991), or OFFSET@LOG with the first eight hex digits of the log id"
)]
pub struct PositionError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_round_trip() {
        for text in ["0", "57", "57@9f3c21d0", "9007199254740991"] {
            assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "-1",
            "+1",
            "1@",
            "1@9f3c21d",
            "1@9f3c21dz",
            "9007199254740992",
            "99999999999999999999",
            " 1",
        ] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_log_is_named_by_its_id_or_the_beginning_of_it() {
        for name in ["9f3c21d0", "9F3C21D0", "9f3c21d0-0000-4000-8000-000000000000"] {
            assert!(LogId::is_name(name), "{name}");
        }
        for name in [
            "",
            "nonsense",
            "9f3c21d",
            "9f3c21d00",
            "9f3c21d0-0000",
            "{9f3c21d0-0000-4000-8000-000000000000}",
        ] {
            assert!(!LogId::is_name(name), "{name}");
        }
    }

    #[test]
    fn numbers_above_the_last_offset_are_refused() {
        assert_eq!(serde_json::from_str::<Offset>("57").unwrap().get(), 57);
        assert_eq!(serde_json::from_str::<Cursor>("0").unwrap(), Cursor::START);
        for text in ["0", "9007199254740992", "-1", "null"] {
            assert!(serde_json::from_str::<Offset>(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Cursor>("9007199254740992").is_err());
    }

    #[test]
    fn an_event_may_be_named_with_its_log() {
        let read = |text: &str| serde_json::from_str::<Placed>(text);
        assert_eq!(read("57").unwrap(), "57".parse().unwrap());
        assert_eq!(read("\"57@9F3C21d0\"").unwrap().log.unwrap(), "9f3c21d0");
        for text in [
            "0",
            "-1",
            "5.5",
            "9007199254740992",
            "null",
            "[57]",
            "\"57\"",
            "\"0@9f3c21d0\"",
            "\"57@\"",
            "\"\"",
        ] {
            assert!(read(text).unwrap_err().to_string().contains("offset"), "{text}");
        }
        let log = || Some("9f3c21d0".to_owned());
        let placed = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        for (texts, beside, want) in [
            (&["1", "2"][..], None, Some(None)),
            (&["1", "2@9f3c21d0", "3"], None, Some(log())),
            (&["1"], log(), Some(log())),
            (
                &["1@9f3c21d0"],
                Some("9F3C21D0-0000".to_owned()),
                Some(Some("9F3C21D0-0000".to_owned())),
            ),
            (&["1@9f3c21d0", "2@00000000"], None, None),
            (&["1@00000000"], log(), None),
        ] {
            let one = Placed::of_one_log(placed(texts), beside);
            assert_eq!(one.ok().map(|(_, log)| log), want, "{texts:?}");
        }
    }

    #[test]
    fn an_offset_and_its_cursors_differ_by_one() {
        let offset = Offset::new(57).unwrap();
        assert_eq!(offset.before().next(), offset);
        assert!(offset.cursor().covers(offset));
        assert!(!offset.before().covers(offset));
        assert_eq!(Offset::new(0), None);
        assert_eq!(Offset::new(Offset::MAX + 1), None);
        assert_eq!(Cursor::new(u64::MAX).next().get(), Offset::MAX);
    }
}
