//! The settings of retention.

use tidings_proto::control::RetentionRule;

use super::{ConfigError, Values};
use crate::log::retention::{Options, Room, parse_age, parse_rule};

/// The most rules that may be configured.
const RULES_MAX: usize = 256;
/// The largest number that every client can read.
const NUMBER_MAX: u64 = (1 << 53) - 1;

impl Values {
    pub(super) fn retention(&self) -> Result<Options, ConfigError> {
        let max_events = self.number("retention.max_events", 0, NUMBER_MAX)?;
        let default = RetentionRule {
            max_age_ms: self.max_age()?,
            max_events: (max_events > 0).then_some(max_events),
            ..RetentionRule::default()
        };
        let key = "retention.rules";
        let texts = self.list(key);
        let rules = texts.iter().map(|text| parse_rule(text)).collect::<Option<Vec<_>>>();
        let rules =
            rules.filter(|rules| rules.len() <= RULES_MAX).ok_or_else(|| self.wrong(key))?;
        let is_twice = |n: usize| {
            let (before, rest) = rules.split_at(n);
            rest.first().is_some_and(|(filter, _)| before.iter().any(|(other, _)| other == filter))
        };
        if (0..rules.len()).any(is_twice) {
            return Err(self.wrong(key));
        }
        Ok(Options {
            every: self.duration("retention.every", 100, 3_600_000)?,
            pass_bytes: self.number("retention.pass_bytes", 65_536, 17_179_869_184)?,
            default,
            room: self.room()?,
            rules,
        })
    }

    fn max_age(&self) -> Result<Option<u64>, ConfigError> {
        let key = "retention.max_age";
        let text = self.text(key);
        if text.trim().is_empty() {
            return Ok(None);
        }
        parse_age(text.trim()).map(Some).ok_or_else(|| self.wrong(key))
    }

    fn room(&self) -> Result<Room, ConfigError> {
        let key = "retention.max_bytes";
        let text = self.text(key);
        let room = match text.trim().strip_suffix('%') {
            Some(percent) => {
                let percent = percent.parse().ok().filter(|percent| (1..=100).contains(percent));
                percent.map(Room::Percent)
            }
            None => match text.trim().parse() {
                Ok(0) => Some(Room::All),
                Ok(bytes) => (bytes <= NUMBER_MAX).then_some(Room::Bytes(bytes)),
                Err(_) => None,
            },
        };
        room.ok_or_else(|| self.wrong(key))
    }
}
