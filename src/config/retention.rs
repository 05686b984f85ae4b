//! The settings of retention.

use tidings_proto::{Filter, control::RetentionRule};

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
        let of_rules = |problem: String| ConfigError::Rules { origin: self.origin(key), problem };
        let mut rules: Vec<(Filter, RetentionRule)> = Vec::new();
        for text in self.list(key) {
            let (filter, rule) = parse_rule(&text).map_err(of_rules)?;
            if rules.iter().any(|(other, _)| *other == filter) {
                return Err(of_rules(format!("{filter}: there are two rules for it")));
            }
            rules.push((filter, rule));
        }
        if rules.len() > RULES_MAX {
            return Err(of_rules(format!(
                "{} rules: at most {RULES_MAX} are allowed",
                rules.len()
            )));
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
