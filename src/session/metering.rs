//! What a session takes of its limits, and how it is cut off.

use std::{sync::Arc, time::Duration};

use tidings_proto::WireError;

use super::{Session, Stored, rates::Kind};
use crate::clock;

/// How long after its commit an event counts as one that comes.
const LIVE_FOR: Duration = Duration::from_secs(5);

impl Session {
    /// Takes `cost` of what this session, its subject and its address may do.
    ///
    /// # Errors
    /// `rate_limited`, with when to come again.
    pub fn take(&self, kind: Kind, cost: u64) -> Result<(), WireError> {
        self.meter.take_granted(kind, cost, self.granted)
    }

    /// So many bytes of events were sent that were there before.
    pub fn replayed(&self, bytes: u64) {
        self.meter.charge(Kind::ReplayBytes, bytes);
    }

    /// Whether it goes on and on though it is refused: it is told to operators then, and to be cut off.
    pub fn is_beyond_reason(&self) -> bool {
        let Some(kind) = self.meter.beyond_reason() else { return false };
        self.cut_off(kind);
        true
    }

    /// Operators are told that it is cut off.
    pub fn cut_off(&self, kind: Kind) {
        self.house.audit.exceeded(kind, self.guest.ip(), Some(&self.identity.subject));
    }
}

/// How many bytes of these events are sent to who was not there when they came, or is late for them.
pub(crate) fn replayed_bytes(events: &[Arc<Stored>]) -> u64 {
    let now = clock::monotonic();
    let is_old = |event: &&Arc<Stored>| {
        event.durable_at().is_none_or(|since| now.saturating_sub(since) > LIVE_FOR)
    };
    let bytes = events.iter().filter(is_old).map(|event| event.record().body.len());
    u64::try_from(bytes.sum::<usize>()).unwrap_or(u64::MAX)
}
