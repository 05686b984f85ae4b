//! How long to wait before the next try: full jitter.
//!
//! - The n-th wait is a random time between 0 and `min · 2^n`, at most `max`: many clients that
//!   lost the same broker do not come back at the same moment.

use crate::clock;

/// The waits between tries.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    min_ms: u64,
    max_ms: u64,
    tries: u32,
}

impl Backoff {
    /// Begins with at most `min_ms` and ends with at most `max_ms`.
    pub(super) fn new(min_ms: u64, max_ms: u64) -> Backoff {
        Backoff { min_ms, max_ms, tries: 0 }
    }

    /// How long to wait now, in milliseconds.
    pub(super) fn next_ms(&mut self) -> u64 {
        let bound_ms = self.bound_ms();
        self.tries = self.tries.saturating_add(1);
        clock::random_between(0, bound_ms)
    }

    /// It worked: the next wait is a short one again.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }

    /// The most that the next wait can be.
    fn bound_ms(&self) -> u64 {
        self.min_ms
            .saturating_mul(1_u64.checked_shl(self.tries).unwrap_or(u64::MAX))
            .min(self.max_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_maximum() {
        let mut backoff = Backoff::new(100, 5_000);
        let mut bounds = Vec::new();
        for _ in 0..80 {
            bounds.push(backoff.bound_ms());
            assert!(backoff.next_ms() <= 5_000);
        }
        assert_eq!(bounds[..7], [100, 200, 400, 800, 1_600, 3_200, 5_000]);
        assert_eq!(bounds[79], 5_000);
        backoff.reset();
        assert_eq!(backoff.bound_ms(), 100);
    }
}
