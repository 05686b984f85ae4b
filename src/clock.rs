//! The only file that asks the machine for the time and for random numbers.
//!
//! Wall time ([`now`]) is what events carry; elapsed time ([`monotonic_ms`]) is what timers use, so that
//! a clock that jumps moves no deadline.
//!
//! Random numbers come from a generator per thread, seeded by the system and made for cryptography: asking the
//! system for each event would be a call into the kernel per event.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use rand::Rng;
use tidings_proto::Timestamp;
use uuid::Uuid;

/// The wall clock, in milliseconds since the epoch; a clock before 1970 reads as 1970.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn now() -> Timestamp {
    #[cfg(test)]
    if let Some(ms) = held::ms() {
        return Timestamp::from_millis(held::EPOCH_MS + ms);
    }
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ms =
        since_epoch.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
    Timestamp::from_millis(ms)
}

/// Milliseconds since the process first asked; never goes back.
pub fn monotonic_ms() -> u64 {
    u64::try_from(monotonic().as_millis()).unwrap_or(u64::MAX)
}

/// The time since the process first asked; never goes back.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn monotonic() -> Duration {
    #[cfg(test)]
    if let Some(ms) = held::ms() {
        return Duration::from_millis(ms);
    }
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    Instant::now().duration_since(start)
}

/// Waits so long; without a time for ever. Boxed, so that who waits for no moment keeps no room for a timer.
pub async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => Box::pin(tokio::time::sleep(duration)).await,
        None => std::future::pending().await,
    }
}

/// A new event id: a UUID of version 7 (RFC 9562 §5.7), so that ids rise with time.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn event_id() -> Uuid {
    Uuid::now_v7()
}

/// A new name for a session.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn session_id() -> Uuid {
    Uuid::new_v4()
}

/// A random number from `low` to `high`, both included; `low` when `high` is not above it.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn random_between(low: u64, high: u64) -> u64 {
    if high <= low { low } else { rand::rng().random_range(low..=high) }
}

/// Random bytes for a secret.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn secret_bytes() -> [u8; 32] {
    rand::rng().random()
}

/// Twelve random bytes, the nonce of one sealed event.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn seal_nonce() -> [u8; 12] {
    rand::rng().random()
}

/// Four random bytes, the mask of one WebSocket frame (RFC 6455 §5.3).
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn frame_mask() -> [u8; 4] {
    rand::rng().random()
}

#[cfg(test)]
pub(crate) mod held {
    //! The time of one thread, held by a test: it goes on when the test says so.

    use std::cell::Cell;

    /// The wall clock at the beginning.
    pub(super) const EPOCH_MS: u64 = 1_800_000_000_000;

    thread_local! {
        static MS: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// From here on it is this late on this thread; `None`: as late as the machine says.
    pub(crate) fn set(ms: Option<u64>) {
        MS.set(ms);
    }

    /// How late it is, where that is held.
    pub(crate) fn ms() -> Option<u64> {
        MS.get()
    }
}
