//! Who somebody is and what they may do: a token goes in, an [`Identity`] with its [`Grants`] comes out.
//!
//! - An identity comes only from [`Authenticator::identify`].
//! - The algorithm is fixed by the configured key, never taken from the token (RFC 8725 §3.1).
//! - The room knows neither the broker nor a transport.

mod grant;
mod jwt;

use std::sync::Arc;

pub use grant::{Grants, TokenLimits};
pub use jwt::JwtError;
use tidings_proto::Timestamp;

use self::jwt::JwtVerifier;

/// The subject of everybody where no authentication is configured.
pub const ANONYMOUS: &str = "anonymous";
/// The most bytes a subject may have.
pub const SUBJECT_BYTES_MAX: usize = 200;

/// The settings of this room.
#[derive(Clone, Default)]
pub struct Options {
    /// The HS256 secret; without it the broker runs open.
    pub hs256_secret: Option<Secret>,
}

/// A secret: never shown, not even in a debug print.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes of a secret.
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(bytes)
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
}

/// Tells who somebody is.
pub enum Authenticator {
    /// Everybody is [`ANONYMOUS`] and may do everything: one identity for all.
    Open(Arc<Identity>),
    /// By a JWT.
    Jwt(Box<JwtVerifier>),
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
}

impl Authenticator {
    /// What the options ask for.
    pub fn new(options: &Options) -> Authenticator {
        match &options.hs256_secret {
            None => Authenticator::Open(Arc::new(Identity {
                subject: ANONYMOUS.to_owned(),
                grants: Grants::everything(),
                limits: TokenLimits::default(),
                expires: None,
            })),
            Some(secret) => Authenticator::Jwt(Box::new(JwtVerifier::hs256(secret))),
        }
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        matches!(self, Authenticator::Open(_))
    }

    /// Who brings this token.
    ///
    /// # Errors
    /// Without a token where one is needed, or with one that does not hold.
    pub fn identify(&self, token: Option<&str>) -> Result<Arc<Identity>, AuthError> {
        match self {
            Authenticator::Open(everybody) => Ok(everybody.clone()),
            Authenticator::Jwt(verifier) => {
                Ok(Arc::new(verifier.verify(token.ok_or(AuthError::Missing)?)?))
            }
        }
    }
}
