//! Who may come in, as far as it is said while the broker runs: revocations and API keys.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Timestamp;

/// The topic of [`AuthChange`]; for the admin alone.
pub const AUTH_TOPIC: &str = "$auth";

/// Tokens were revoked, or an API key was made or revoked. The event's key is [`AuthChange::key`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthChange {
    /// The token of this id holds no more.
    TokenRevoked {
        /// Its claim `jti`.
        jti: String,
        /// When it ends by itself, after which this need not be known; absent: this is kept for ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// What was issued to a subject before a moment holds no more: tokens and API keys.
    SubjectRevoked {
        /// Who it is.
        subject: String,
        /// What was issued before.
        before: Timestamp,
        /// When the last of that ends by itself; absent: this is kept for ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// An API key was made.
    KeyMade(Box<ApiKey>),
    /// An API key holds no more.
    KeyRevoked {
        /// Its id.
        id: String,
    },
}

/// An API key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Names it: the part of the key that is no secret.
    pub id: String,
    /// What it is for, in somebody's words.
    pub name: String,
    /// Who comes with it.
    pub subject: String,
    /// SHA-256 of the whole key, in hexadecimal digits. The key has 256 random bits: nobody finds it from this.
    pub hash: String,
    /// What they may do, as in the claim `tidings` of a token.
    pub grants: Value,
    /// When it was made.
    pub made: Timestamp,
    /// When it ends; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl AuthChange {
    /// What it is about: of two changes with the same the newer one holds.
    pub fn key(&self) -> String {
        match self {
            AuthChange::TokenRevoked { jti, .. } => format!("token:{jti}"),
            AuthChange::SubjectRevoked { subject, .. } => format!("subject:{subject}"),
            AuthChange::KeyMade(key) => format!("key:{}", key.id),
            AuthChange::KeyRevoked { id } => format!("key:{id}"),
        }
    }

    /// The type of its event.
    pub fn kind(&self) -> &'static str {
        match self {
            AuthChange::TokenRevoked { .. } => "auth.token_revoked",
            AuthChange::SubjectRevoked { .. } => "auth.subject_revoked",
            AuthChange::KeyMade(_) => "auth.key_made",
            AuthChange::KeyRevoked { .. } => "auth.key_revoked",
        }
    }

    /// From when on it means nothing any more, if that ever comes. A key that has ended is still known, so that
    /// its owner is told why.
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            AuthChange::TokenRevoked { until, .. } | AuthChange::SubjectRevoked { until, .. } => {
                *until
            }
            AuthChange::KeyMade(_) | AuthChange::KeyRevoked { .. } => None,
        }
    }
}
