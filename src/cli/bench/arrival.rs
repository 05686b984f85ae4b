//! How long somebody waits for what was published: until all is there, or nothing comes any more.

use std::time::Duration;

use super::LATE;

/// For how long nothing may come after the last publish while something is missing.
const QUIET: Duration = Duration::from_secs(5);

/// All that was published, once that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Total {
    /// How many events.
    pub(super) events: u64,
    /// When the last was answered.
    pub(super) at: Duration,
}

/// When nothing more is waited for.
pub(super) fn give_up_at(total: Total, last: Duration, deadline: Duration) -> Duration {
    let late = total.at.max(deadline).saturating_add(LATE);
    total.at.max(last).saturating_add(QUIET).min(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_while_something_comes_and_not_for_ever() {
        let seconds = Duration::from_secs;
        let total = Total { events: 1, at: seconds(20) };
        assert_eq!(give_up_at(total, seconds(3), seconds(60)), seconds(25));
        assert_eq!(give_up_at(total, seconds(40), seconds(60)), seconds(45));
        assert_eq!(give_up_at(total, seconds(69), seconds(60)), seconds(70));
        // The publisher itself came late.
        assert_eq!(give_up_at(total, seconds(24), seconds(10)), seconds(29));
    }
}
