//! The moment of a publish, in the data of the event: how who gets it knows how long it took.

use std::time::Duration;

use anyhow::Context;

/// How many digits the moment has, in microseconds.
pub(super) const STAMP_DIGITS: usize = 16;
/// What stands before it.
pub(super) const STAMP: &str = "sent:";

/// What the data of an event begins with that is published at this moment.
pub(super) fn stamp(at: Duration) -> String {
    format!("{STAMP}{:0STAMP_DIGITS$}", at.as_micros())
}

/// When the first event of a batch was published. In every encoding its data holds the same text.
///
/// # Errors
/// When there is no stamp in it.
pub(super) fn stamp_of(payload: &[u8]) -> anyhow::Result<Duration> {
    let at = memchr::memmem::find(payload, STAMP.as_bytes());
    let stamped = at.and_then(|at| stamp_in(payload.get(at + STAMP.len()..)?));
    stamped.context("an event that this load did not publish")
}

/// The moment that these bytes, which follow [`STAMP`], begin with.
pub(super) fn stamp_in(bytes: &[u8]) -> Option<Duration> {
    number(bytes.get(..STAMP_DIGITS)?).map(Duration::from_micros)
}

/// A number in decimal digits and nothing else.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back() {
        let at = Duration::from_micros(1_234_567);
        let payload = format!("..\u{4}data\"{}xxxx\"..", stamp(at));
        assert_eq!(stamp_of(payload.as_bytes()).unwrap(), at);
        assert!(stamp_of(b"{\"data\":\"sent:12").is_err());
        assert!(stamp_of(b"{\"data\":\"sent:+234567890123456").is_err());
        assert!(stamp_of(b"{\"data\":\"somebody else\"").is_err());
    }
}
