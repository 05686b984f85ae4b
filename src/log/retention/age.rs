//! The clock that ages are measured by: the system's, but never far ahead of what it was.
//!
//! - It follows the system's clock by at most a day an hour, so a clock that is set wrong for an hour costs the events
//!   of a day, not all of them. It never runs ahead of it.
//! - At a start it goes on where it was when events were last taken out, or where the log begins.

use std::time::Duration;

/// How much faster than time passes it may follow.
const FOLLOW: u64 = 24;

/// The clock.
#[derive(Debug)]
pub(super) struct AgeClock {
    now_ms: u64,
    read_at: Duration,
}

impl AgeClock {
    /// Where it was, as far as that is known, read at a moment of the monotonic clock.
    pub(super) fn new(known_ms: u64, wall_ms: u64, monotonic: Duration) -> AgeClock {
        AgeClock { now_ms: known_ms.min(wall_ms), read_at: monotonic }
    }

    /// What it says, in milliseconds since the epoch.
    pub(super) fn read(&mut self, wall_ms: u64, monotonic: Duration) -> u64 {
        let passed = monotonic.saturating_sub(self.read_at).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.read_at = monotonic;
        self.now_ms = wall_ms.min(self.now_ms.saturating_add(passed.saturating_mul(FOLLOW)));
        self.now_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn at(hours: u64) -> Duration {
        Duration::from_millis(hours * HOUR)
    }

    #[test]
    fn a_jump_ahead_is_followed_slowly_and_a_jump_back_at_once() {
        let mut clock = AgeClock::new(1000 * HOUR, 1000 * HOUR, at(0));
        assert_eq!(clock.read(1001 * HOUR, at(1)), 1001 * HOUR);
        let wrong = 90_000 * HOUR;
        assert_eq!(clock.read(wrong, at(2)), 1025 * HOUR);
        assert_eq!(clock.read(wrong, at(3)), 1049 * HOUR);
        assert_eq!(clock.read(1004 * HOUR, at(4)), 1004 * HOUR);
    }

    #[test]
    fn a_broker_that_was_off_catches_up() {
        let mut clock = AgeClock::new(1000 * HOUR, 1100 * HOUR, at(0));
        assert_eq!(clock.read(1100 * HOUR, at(0)), 1000 * HOUR);
        assert_eq!(clock.read(1105 * HOUR, at(5)), 1105 * HOUR);
    }
}
