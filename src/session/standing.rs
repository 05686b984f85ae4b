//! Whether a session may go on: its token has not ended, and was not revoked.
//!
//! - The end of a token is told from the wall clock once, when it is shown; from then on the monotonic clock decides, so
//!   that a clock that jumps keeps nobody in and throws nobody out.
//! - Who waits for long watches: what is revoked is told to all who watch when it is in the log.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tidings_proto::{Code, WireError};
use tokio::sync::watch;

use super::{House, Session, error};
use crate::{
    auth::{AuthError, Credential, Identity},
    broker::{Broker, Marks},
    clock,
};

/// How long before its end a token's end is announced at most, in milliseconds; else a tenth of what was left of it.
const EXPIRING_MS: u64 = 60_000;
/// How long at least, where that much is left.
const EXPIRING_MS_MIN: u64 = 2_000;

/// When an identity ends, on the monotonic clock in milliseconds.
pub(super) fn ends_ms(identity: &Identity) -> Option<u64> {
    let expires = identity.expires?;
    let left_ms = expires.as_millis().saturating_sub(clock::now().as_millis());
    Some(clock::monotonic_ms().saturating_add(left_ms))
}

/// When the end at `ends_ms` of a token that is shown now is to be announced.
pub fn warns_ms(ends_ms: u64) -> u64 {
    let left_ms = ends_ms.saturating_sub(clock::monotonic_ms());
    ends_ms - (left_ms / 10).clamp(EXPIRING_MS_MIN, EXPIRING_MS).min(left_ms)
}

/// Whether what somebody came with holds no more.
pub(super) fn is_revoked(broker: &Broker, identity: &Identity) -> bool {
    let subject = identity.subject.as_str();
    match &identity.credential {
        Credential::None => false,
        Credential::Token { jti, issued } => {
            let jti = jti.as_deref();
            broker.is_revoked(&Marks { subject, issued: *issued, jti, key: None })
        }
        Credential::Key { id, made } => {
            broker.is_revoked(&Marks { subject, issued: Some(*made), jti: None, key: Some(id) })
        }
    }
}

/// Watches over one session. Where nothing can be revoked it takes no memory of its own: most sockets are idle.
pub struct Standing(Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>);

impl Standing {
    /// Waits until what the session came with is revoked. May be given up and waited for again.
    pub async fn revoked(&mut self) {
        match &mut self.0 {
            Some(revoked) => revoked.as_mut().await,
            None => std::future::pending().await,
        }
        // Whoever asks again is told again.
        self.0 = Some(Box::pin(std::future::ready(())));
    }
}

/// Waits until what somebody came with is revoked; looks at once, and then at each change of what is.
async fn until_revoked(
    house: Arc<House>,
    identity: Arc<Identity>,
    mut changes: watch::Receiver<u64>,
) {
    while !is_revoked(&house.broker, &identity) {
        if changes.changed().await.is_err() {
            // The broker has stopped: nothing is revoked any more.
            return std::future::pending().await;
        }
    }
}

impl Session {
    /// Watches over it.
    pub fn standing(&self) -> Standing {
        if self.identity.credential == Credential::None {
            return Standing(None);
        }
        // First this, then a look: what is said in between is announced.
        let changes = self.broker().access_changes();
        let (house, identity) = (self.house.clone(), self.identity.clone());
        Standing(Some(Box::pin(until_revoked(house, identity, changes))))
    }

    /// Waits until it may not go on; `None` where nothing ends it.
    pub fn over(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let (mut standing, ends_ms) = (self.standing(), self.ends_ms);
        if standing.0.is_none() && ends_ms.is_none() {
            return None;
        }
        Some(async move {
            let left_ms = ends_ms.map(|at_ms| at_ms.saturating_sub(clock::monotonic_ms()));
            tokio::select! {
                () = standing.revoked() => {}
                () = clock::sleep(left_ms.map(Duration::from_millis)), if left_ms.is_some() => {}
            }
        })
    }

    /// When its token ends, on the monotonic clock in milliseconds.
    pub fn ends_ms(&self) -> Option<u64> {
        self.ends_ms
    }

    /// How long it may go on at most.
    pub(super) fn left(&self) -> Duration {
        let left_ms = self.ends_ms.map(|at_ms| at_ms.saturating_sub(clock::monotonic_ms()));
        left_ms.map_or(Duration::MAX, Duration::from_millis)
    }

    /// That what it came with holds, now: a request may have been under way for long.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub(super) fn check_standing(&self) -> Result<(), WireError> {
        if self.left().is_zero() {
            return Err(expired());
        }
        self.check_revoked()
    }

    /// That what it came with is not revoked. Costs a look at a number as long as nothing is.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub(super) fn check_revoked(&self) -> Result<(), WireError> {
        if self.identity.credential == Credential::None {
            return Ok(());
        }
        // First the number, then the look: what is said in between changes it.
        let changes = self.broker().access_version();
        if self.looked_at.load(Ordering::Relaxed) == changes {
            return Ok(());
        }
        if is_revoked(self.broker(), &self.identity) {
            return Err(revoked());
        }
        self.looked_at.store(changes, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for the outcome of `work`, but not longer than the session may go on.
    ///
    /// # Errors
    /// Those of the work; `unauthenticated` when the token was revoked meanwhile.
    pub(super) async fn unless_revoked<T>(
        &self,
        work: impl Future<Output = Result<T, WireError>>,
    ) -> Result<T, WireError> {
        let mut standing = self.standing();
        tokio::select! {
            biased;
            () = standing.revoked() => Err(revoked()),
            done = work => done,
        }
    }
}

/// What a session is told whose token has ended.
pub fn expired() -> WireError {
    WireError::new(Code::Unauthenticated, "the token has expired: get a new one")
}

/// What a session is told whose token was revoked.
pub fn revoked() -> WireError {
    error::of_auth(&AuthError::Revoked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::held;

    #[test]
    fn an_end_is_announced_a_tenth_before_it() {
        held::set(Some(5_000));
        for (left_ms, before_ms) in [
            (3_600_000, 60_000),
            (600_000, 60_000),
            (100_000, 10_000),
            (3_000, 2_000),
            (500, 500),
            (0, 0),
        ] {
            let ends_ms = 5_000 + left_ms;
            assert_eq!(ends_ms - warns_ms(ends_ms), before_ms, "{left_ms}");
        }
    }
}
