//! Tokens and API keys that hold, or hold no more: events on `$auth`, in force when they are committed.
//!
//! - The core knows no token: whoever calls says by which marks one is known.
//! - On a full disk they have the reserve. What is revoked and cannot be stored even so is in force all the same, until
//!   the broker ends, and whoever revoked it is told.

use std::collections::BTreeSet;

use tidings_proto::{
    Timestamp, Topic,
    control::{AUTH_TOPIC, ApiKey, AuthChange},
};
use tokio::sync::watch;

use super::{Broker, error::AppendError, ledger::Access};
use crate::{
    clock,
    log::{Draft, Drafts, codec},
};

/// The most tokens and subjects that may be revoked at a time.
const REVOCATIONS_MAX: usize = 100_000;
/// The most API keys there may be.
const API_KEYS_MAX: usize = 10_000;

/// How many changes are appended in one batch.
const CHANGES_TOGETHER: usize = 1000;

/// How often a change is tried again that was refused with publishes on a disk that has just become full.
const FULL_TRIES: u32 = 3;

const KEYS: &str = "key:";
const TOKENS: &str = "token:";
const SUBJECTS: &str = "subject:";

/// By what a token or an API key is known.
#[derive(Clone, Copy, Debug)]
pub struct Marks<'a> {
    /// Whose it is.
    pub subject: &'a str,
    /// When it was issued; one that does not say was issued before any moment.
    pub issued: Option<Timestamp>,
    /// The id of a token, where it has one.
    pub jti: Option<&'a str>,
    /// The id of an API key, where it is one.
    pub key: Option<&'a str>,
}

/// Why something was not revoked, or a key not made.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Too many revocations.
    #[error(
        "{REVOCATIONS_MAX} tokens and subjects are revoked, the most there may be: give until, so that they can be forgotten, or change the key that signs tokens"
    )]
    TooManyRevocations,
    /// Too many keys.
    #[error("there are {API_KEYS_MAX} API keys, the most there may be: revoke one")]
    TooManyKeys,
    /// The change could not be stored.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// What was revoked could not be stored.
    #[error(
        "it is revoked until the broker is started anew, and could not be stored: {0}; send it again when it can be"
    )]
    Unstored(AppendError),
}

/// What is revoked, and could not be stored: in force until the broker ends.
#[derive(Debug, Default)]
pub(super) struct Unstored {
    revoked: Access,
    keys: BTreeSet<String>,
}

impl Unstored {
    fn holds(&self, marks: &Marks<'_>) -> bool {
        is_revoked(&self.revoked, marks) || marks.key.is_some_and(|id| self.keys.contains(id))
    }

    fn is_full(&self, now: Timestamp) -> bool {
        let revoked = self.revoked.count(TOKENS, now) + self.revoked.count(SUBJECTS, now);
        revoked >= REVOCATIONS_MAX || self.keys.len() >= API_KEYS_MAX
    }

    fn take(&mut self, changes: Vec<AuthChange>) {
        for change in changes {
            match change {
                AuthChange::KeyRevoked { id } => drop(self.keys.insert(id)),
                AuthChange::KeyMade(_) => {}
                change => self.revoked.change(self.revoked.merged(change), clock::now()),
            }
        }
    }
}

/// Whether a token or subject with these marks is.
fn is_revoked(access: &Access, marks: &Marks<'_>) -> bool {
    let by_token = |jti: &str| access.get(&format!("{TOKENS}{jti}")).is_some();
    let by_subject = match access.get(&format!("{SUBJECTS}{}", marks.subject)) {
        Some(AuthChange::SubjectRevoked { before, .. }) => {
            marks.issued.is_none_or(|issued| issued < *before)
        }
        _ => false,
    };
    by_subject || marks.jti.is_some_and(by_token)
}

impl Broker {
    /// Whether what has these marks holds no more.
    pub fn is_revoked(&self, marks: &Marks<'_>) -> bool {
        let is_stored = self.controls.with_access(|access| {
            let is_gone = |id: &str| access.get(&format!("{KEYS}{id}")).is_none();
            is_revoked(access, marks) || marks.key.is_some_and(is_gone)
        });
        is_stored || self.controls.unstored().holds(marks)
    }

    /// A number that is another one after every change of what holds.
    pub fn access_version(&self) -> u64 {
        self.controls.access_version()
    }

    /// Announces every change of what holds.
    pub fn access_changes(&self) -> watch::Receiver<u64> {
        self.controls.access_changes()
    }

    /// The API key of this id.
    pub fn api_key(&self, id: &str) -> Option<ApiKey> {
        self.controls.with_access(|access| match access.get(&format!("{KEYS}{id}")) {
            Some(AuthChange::KeyMade(key)) => Some((**key).clone()),
            _ => None,
        })
    }

    /// Up to `limit` API keys by id, after the id `after`.
    pub fn api_keys(&self, after: &str, limit: usize) -> Vec<ApiKey> {
        let after = format!("{KEYS}{after}");
        self.controls.with_access(|access| {
            let keys = access.under(KEYS, &after).filter_map(|change| match change {
                AuthChange::KeyMade(key) => Some((**key).clone()),
                _ => None,
            });
            keys.take(limit).collect()
        })
    }

    /// Up to `limit` revocations by [`AuthChange::key`], after the key `after`; those that have ended by themselves
    /// are left out.
    pub fn revocations(&self, after: &str, limit: usize) -> Vec<AuthChange> {
        let now = clock::now();
        self.controls.with_access(|access| {
            let all = access.under(SUBJECTS, after).chain(access.under(TOKENS, after));
            let holds = |change: &&AuthChange| change.until().is_none_or(|until| until > now);
            all.filter(holds).take(limit).cloned().collect()
        })
    }

    /// Has a change stored, and gives it as it holds with what was said before. It is in force when this comes back.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub async fn change_access(&self, mut change: AuthChange) -> Result<AuthChange, AccessError> {
        let _one_at_a_time = self.changing.lock().await;
        let now = clock::now();
        if let AuthChange::KeyMade(key) = &mut change {
            // Behind every revocation that was said before.
            key.made = now;
        }
        let merged = self.controls.with_access(|access| {
            if access.get(&change.key()).is_some() {
                return Ok(access.merged(change));
            }
            // All are gone through only where there may be too many: the ledger is locked meanwhile.
            let keys = || access.len() >= API_KEYS_MAX && access.count(KEYS, now) >= API_KEYS_MAX;
            let revoked = || access.count(TOKENS, now) + access.count(SUBJECTS, now);
            let revoked = || access.len() >= REVOCATIONS_MAX && revoked() >= REVOCATIONS_MAX;
            match &change {
                AuthChange::KeyMade(_) if keys() => Err(AccessError::TooManyKeys),
                AuthChange::TokenRevoked { .. } | AuthChange::SubjectRevoked { .. }
                    if revoked() =>
                {
                    Err(AccessError::TooManyRevocations)
                }
                _ => Ok(change),
            }
        })?;
        let mut changes = vec![merged.clone()];
        changes.extend(self.keys_that_go(&merged));
        match self.store(&changes).await {
            Ok(()) => Ok(merged),
            // It is on its way, or nobody is let in any more.
            Err(error @ AppendError::Closed) => Err(error.into()),
            Err(error) => match self.hold(changes) {
                true => {
                    let about = merged.key();
                    tracing::warn!(about, %error, "revoked until the broker ends: it is not stored");
                    Err(AccessError::Unstored(error))
                }
                false => Err(error.into()),
            },
        }
    }

    async fn store(&self, changes: &[AuthChange]) -> Result<(), AppendError> {
        for together in changes.chunks(CHANGES_TOGETHER) {
            let drafts = together.iter().map(draft_of).collect::<Option<Drafts>>();
            let drafts = drafts.ok_or(AppendError::Indeterminate)?;
            let mut tries = 0;
            loop {
                let ticket = self.log.append(drafts.clone()).await?;
                match ticket.await {
                    // Beside publishes when the disk was found full: by itself it has the reserve.
                    Err(AppendError::Full) if tries < FULL_TRIES => tries += 1,
                    stored => break stored.map(drop)?,
                }
            }
        }
        Ok(())
    }

    /// Holds what could not be stored in memory, where that revokes something and there is room for it.
    fn hold(&self, mut changes: Vec<AuthChange>) -> bool {
        changes.retain(|change| !matches!(change, AuthChange::KeyMade(_)));
        let mut unstored = self.controls.unstored();
        if changes.is_empty() || unstored.is_full(clock::now()) {
            return false;
        }
        unstored.take(changes);
        drop(unstored);
        self.controls.access_changed();
        true
    }

    /// The API keys that go with a subject's tokens. Each for itself: a key may have no end, and be there when the
    /// revocation of the subject is forgotten.
    fn keys_that_go(&self, change: &AuthChange) -> Vec<AuthChange> {
        let AuthChange::SubjectRevoked { subject, before, .. } = change else { return Vec::new() };
        self.controls.with_access(|access| {
            let keys = access.under(KEYS, "").filter_map(|change| match change {
                AuthChange::KeyMade(key) if key.subject == *subject && key.made < *before => {
                    Some(AuthChange::KeyRevoked { id: key.id.clone() })
                }
                _ => None,
            });
            keys.collect()
        })
    }
}

fn draft_of(change: &AuthChange) -> Option<Draft> {
    let data = serde_json::to_vec(change).ok()?;
    let topic = Topic::parse(AUTH_TOPIC).ok()?;
    let mut draft = codec::control(topic, change.kind(), data, clock::event_id());
    draft.key = change.key().into_bytes().into();
    Some(draft)
}
