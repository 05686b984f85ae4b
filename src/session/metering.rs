//! What a session takes of its limits, and how it is cut off.

use tidings_proto::WireError;

use super::{Session, rates::Kind};

impl Session {
    /// Takes `cost` of what this session, its subject and its address may do.
    ///
    /// # Errors
    /// `rate_limited`, with when to come again.
    pub fn take(&self, kind: Kind, cost: u64) -> Result<(), WireError> {
        self.meter.take_granted(kind, cost, self.granted)
    }

    /// So many bytes of events were read that were there before, whether they were wanted or not.
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
