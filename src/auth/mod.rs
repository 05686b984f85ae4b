//! Who somebody is and what they may do: a token goes in, an [`Identity`] with its [`Grants`] comes out.
//!
//! - An identity comes only from [`Authenticator::identify`], or from a ticket that one of those asked for.
//! - The algorithm is fixed by the configured key, never taken from the token (RFC 8725 §3.1).
//! - What is wrong is refused: a bad token is never nobody's.
//! - The room knows neither the broker nor a transport. What was revoked is asked by whoever calls.

mod api_key;
mod grant;
mod json;
mod jwt;
mod keys;
#[cfg(test)]
mod tests;
mod tickets;

use std::sync::Arc;

pub use api_key::{ApiKeyError, NewApiKey};
pub use grant::{Grants, TokenLimits, shown};
pub use jwt::{JTI_BYTES_MAX, JwtError, Rules, TOKEN_BYTES_MAX, is_name, is_subject};
pub use keys::{KEYS_BYTES_MAX, KeyError};
use parking_lot::RwLock;
use serde_json::Value;
pub use tickets::{TICKET_LIFE, Tickets, TooManyTickets};
use tidings_proto::{Timestamp, control::ApiKey};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use self::{
    grant::GrantClaim,
    keys::{Key, Keys},
};
use crate::clock;

/// The subject of everybody where no authentication is configured, and of those without a token.
pub const ANONYMOUS: &str = "anonymous";
/// The fewest bytes a secret of HS256 may have: as many as its hash (RFC 7518 §3.2). A shorter one can be guessed from any
/// token, by trying.
pub const HS256_SECRET_BYTES_MIN: usize = 32;
/// The most bytes a subject may have.
pub const SUBJECT_BYTES_MAX: usize = 200;

/// The settings of this room. Without any key the broker runs open.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The HS256 secret.
    pub hs256_secret: Option<Secret>,
    /// Public keys as a PEM file has them.
    pub public_keys: Option<String>,
    /// Whether a key set is looked up while the broker runs, see [`Authenticator::replace_set`].
    pub has_set: bool,
    /// What tokens are held to besides their signature.
    pub rules: Rules,
    /// What somebody without a token may publish to: filters.
    pub anonymous_publish: Vec<String>,
    /// What they may read: filters.
    pub anonymous_subscribe: Vec<String>,
}

impl Options {
    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.hs256_secret.is_none() && self.public_keys.is_none() && !self.has_set
    }
}

/// A secret: never shown, not even in a debug print; its memory is overwritten when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes of a secret.
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(Zeroizing::new(bytes))
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Somebody, and what they may do.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Who it is.
    pub subject: String,
    /// What they may do.
    pub grants: Grants,
    /// How much of it.
    pub limits: TokenLimits,
    /// When that ends.
    pub expires: Option<Timestamp>,
    /// What they came with.
    pub credential: Credential,
}

/// What somebody came with, as far as it is needed to revoke it. No part of it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Nothing.
    None,
    /// A token.
    Token {
        /// Its id.
        jti: Option<String>,
        /// When it was issued.
        issued: Option<Timestamp>,
    },
    /// An API key.
    Key {
        /// Its id.
        id: String,
        /// When it was made.
        made: Timestamp,
    },
}

impl Identity {
    /// Whether events that were published under this subject are their own: of those without a token nobody can tell.
    pub fn owns(&self, publisher: &str) -> bool {
        self.grants.is_admin() || (self.credential != Credential::None && self.subject == publisher)
    }

    /// Its subject, unless it is that of all who come without a token.
    pub fn name(&self) -> Option<&str> {
        Some(self.subject.as_str()).filter(|subject| *subject != ANONYMOUS)
    }

    fn anonymous(grants: Grants) -> Identity {
        Identity {
            subject: ANONYMOUS.to_owned(),
            grants,
            limits: TokenLimits::default(),
            expires: None,
            credential: Credential::None,
        }
    }
}

/// Tells who somebody is.
pub enum Authenticator {
    /// Everybody is [`ANONYMOUS`] and may do everything: one identity for all.
    Open(Arc<Identity>),
    /// By a token or an API key.
    Guarded(Guard),
}

/// What those with a token are held against, and who those without are.
pub struct Guard {
    keys: RwLock<Keys>,
    rules: Rules,
    anonymous: Option<Arc<Identity>>,
    /// A token named a key that is not known: a newer key set may have it.
    wanted: Notify,
}

/// Why somebody is nobody.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No token where one is needed.
    #[error("a token is needed: send it in connect or as Authorization: Bearer")]
    Missing,
    /// A token that does not hold.
    #[error("the token was refused: {0}")]
    Token(#[from] JwtError),
    /// An API key that does not hold.
    #[error("the API key was refused: {0}")]
    ApiKey(#[from] ApiKeyError),
    /// It did hold, and was revoked.
    #[error("the token was revoked")]
    Revoked,
    /// A ticket that does not hold, or no more.
    #[error("the ticket was refused: it holds once and for 30 seconds; ask for another")]
    Ticket,
}

/// Why there is no authenticator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The public keys.
    #[error("auth.public_key_file: {0}")]
    PublicKeys(#[from] KeyError),
    /// What somebody without a token may do.
    #[error("auth.anonymous: {0}")]
    Anonymous(String),
}

impl Authenticator {
    /// What the options ask for.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn new(options: &Options) -> Result<Authenticator, OptionsError> {
        if options.is_open() {
            let everybody = Identity::anonymous(Grants::everything());
            return Ok(Authenticator::Open(Arc::new(everybody)));
        }
        let fixed = fixed_keys(options)?;
        let (publish, subscribe) = (&options.anonymous_publish, &options.anonymous_subscribe);
        let anonymous = Grants::anonymous(publish, subscribe).map_err(OptionsError::Anonymous)?;
        let may_anything = !publish.is_empty() || !subscribe.is_empty();
        Ok(Authenticator::Guarded(Guard {
            keys: RwLock::new(Keys { fixed, set: Vec::new() }),
            rules: options.rules.clone(),
            anonymous: may_anything.then(|| Arc::new(Identity::anonymous(anonymous))),
            wanted: Notify::new(),
        }))
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        matches!(self, Authenticator::Open(_))
    }

    /// Who somebody is without a token.
    pub fn anonymous(&self) -> Option<&Arc<Identity>> {
        match self {
            Authenticator::Open(everybody) => Some(everybody),
            Authenticator::Guarded(guard) => guard.anonymous.as_ref(),
        }
    }

    /// Who brings this token or API key; `find` looks up an API key by its id.
    ///
    /// # Errors
    /// Without a token where one is needed, or with one that does not hold.
    pub fn identify(
        &self,
        token: Option<&str>,
        find: impl FnOnce(&str) -> Option<ApiKey>,
    ) -> Result<Arc<Identity>, AuthError> {
        let guard = match self {
            Authenticator::Open(everybody) => return Ok(everybody.clone()),
            Authenticator::Guarded(guard) => guard,
        };
        let Some(token) = token else {
            return guard.anonymous.clone().ok_or(AuthError::Missing);
        };
        if api_key::is_api_key(token) {
            return Ok(Arc::new(api_key::verify(token, find, clock::now())?));
        }
        let verified = jwt::verify(token, &guard.keys.read(), &guard.rules, clock::now());
        if matches!(verified, Err(JwtError::Key)) {
            guard.wanted.notify_one();
        }
        Ok(Arc::new(verified?))
    }

    /// Takes the keys of a JSON Web Key Set in the place of those of the set before; says how many. Operators are told of
    /// keys that were passed over and should not have been.
    ///
    /// # Errors
    /// See [`KeyError`]; then those of before stay.
    pub fn replace_set(&self, text: &str) -> Result<usize, KeyError> {
        let keys::Set { keys, unusable } = keys::of_set(text)?;
        if unusable > 0 {
            tracing::warn!(
                unusable,
                "the key set of tokens has keys that are none of RSA (2048 to 4096 bits), P-256 or Ed25519: they are passed over"
            );
        }
        let count = keys.len();
        if let Authenticator::Guarded(guard) = self {
            guard.keys.write().set = keys;
        }
        Ok(count)
    }

    /// Takes the secret and the public keys of these options in the place of those of before.
    ///
    /// # Errors
    /// See [`OptionsError`]; then those of before stay.
    pub fn replace_keys(&self, options: &Options) -> Result<(), OptionsError> {
        let fixed = fixed_keys(options)?;
        if let Authenticator::Guarded(guard) = self {
            guard.keys.write().fixed = fixed;
        }
        Ok(())
    }

    /// Waits until a token has named a key that is not known.
    pub async fn key_wanted(&self) {
        match self {
            Authenticator::Open(_) => std::future::pending().await,
            Authenticator::Guarded(guard) => guard.wanted.notified().await,
        }
    }
}

/// The keys that are in the settings themselves.
fn fixed_keys(options: &Options) -> Result<Vec<Key>, KeyError> {
    let mut fixed: Vec<Key> = options.hs256_secret.iter().map(Key::hs256).collect();
    if let Some(text) = &options.public_keys {
        fixed.extend(keys::of_pem(text)?);
    }
    Ok(fixed)
}

/// What is wrong with grants that somebody wants to give to a subject; `None` where nothing is.
pub fn grants_problem(grants: &Value, subject: &str) -> Option<String> {
    let claim = GrantClaim::read_strictly(grants);
    claim.and_then(|claim| Grants::from_claim(&claim, subject)).err()
}
