//! How long somebody waits for what was published: until all is there, or nothing comes any more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

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

/// When the last of many that wait has got something. Who waits long for its first is one of very many, as long as
/// others get theirs.
#[derive(Clone, Debug, Default)]
pub(super) struct Newest(Arc<AtomicU64>);

impl Newest {
    /// One has got something at this moment.
    pub(super) fn came(&self, at: Duration) {
        self.0.fetch_max(u64::try_from(at.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When the last came to any of them.
    pub(super) fn at(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
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

    #[test]
    fn who_waits_goes_by_what_any_of_them_got_last() {
        let newest = Newest::default();
        let other = newest.clone();
        other.came(Duration::from_secs(7));
        newest.came(Duration::from_secs(3));
        assert_eq!(newest.at(), Duration::from_secs(7));
    }
}
