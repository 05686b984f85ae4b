//! Tokens: JWT by RFC 7519, checked as RFC 8725 asks.
//!
//! `sub` and `exp` are required, `nbf` is checked where given, clocks may differ by [`LEEWAY_S`] seconds.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;
use tidings_proto::Timestamp;

use super::{Grants, Identity, SUBJECT_BYTES_MAX, Secret, grant::GrantClaim};
use crate::clock;

/// How far clocks may differ, in seconds.
const LEEWAY_S: u64 = 30;
/// The most bytes a token may have.
const TOKEN_BYTES_MAX: usize = 8192;

/// Why a token does not hold.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// Its form, signature or time.
    #[error("{0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
    /// Longer than a token may be.
    #[error("it is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Its subject.
    #[error("its sub must have 1 to {SUBJECT_BYTES_MAX} bytes and no control characters")]
    Subject,
    /// Its grants.
    #[error("its claim tidings is wrong: {0}")]
    Grants(String),
}

/// Checks tokens of one key.
pub struct JwtVerifier {
    key: DecodingKey,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Seconds since the epoch; may have a fraction (RFC 7519 §2).
    exp: f64,
    #[serde(default)]
    tidings: GrantClaim,
}

impl JwtVerifier {
    pub(super) fn hs256(secret: &Secret) -> JwtVerifier {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_S;
        validation.validate_exp = true;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "sub"]);
        JwtVerifier { key: DecodingKey::from_secret(secret.reveal()), validation }
    }

    pub(super) fn verify(&self, token: &str) -> Result<Identity, JwtError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwtError::TooLong);
        }
        let claims = decode::<Claims>(token, &self.key, &self.validation)?.claims;
        let subject = claims.sub;
        if subject.is_empty()
            || subject.len() > SUBJECT_BYTES_MAX
            || subject.chars().any(char::is_control)
        {
            return Err(JwtError::Subject);
        }
        let grants = Grants::from_claim(&claims.tidings, &subject).map_err(JwtError::Grants)?;
        // As float conversions go this saturates; the library has refused what is no number.
        let expires_ms = (claims.exp * 1000.0) as u64;
        // Whoever was let in by the leeway stays as long as it lasts; all others go when their token does.
        let is_late = expires_ms <= clock::now().as_millis();
        let leeway_ms = if is_late { LEEWAY_S * 1000 } else { 0 };
        let expires = Timestamp::from_millis(expires_ms.saturating_add(leeway_ms));
        let limits = claims.tidings.limits;
        Ok(Identity { subject, grants, limits, expires: Some(expires) })
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

    fn token(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    fn verify(token: &str) -> Result<Identity, JwtError> {
        JwtVerifier::hs256(&Secret::new(SECRET.to_vec())).verify(token)
    }

    fn in_an_hour() -> u64 {
        crate::clock::now().as_millis() / 1000 + 3600
    }

    #[test]
    fn a_good_token_says_who_and_what() {
        let claims =
            json!({"sub": "alice", "exp": in_an_hour(), "tidings": {"publish": ["tasks.>"]}});
        let identity = verify(&token(Algorithm::HS256, SECRET, &claims)).unwrap();
        assert_eq!(identity.subject, "alice");
        assert!(identity.grants.may_publish(&tidings_proto::Topic::parse("tasks.1").unwrap()));
        assert!(!identity.grants.is_admin());
    }

    #[test]
    fn bad_tokens_are_refused() {
        let exp = in_an_hour();
        let good = json!({"sub": "alice", "exp": exp});
        let cases = [
            token(Algorithm::HS256, b"another secret of thirty-two bytes!!", &good),
            token(Algorithm::HS512, SECRET, &good),
            token(Algorithm::HS256, SECRET, &json!({"sub": "alice"})),
            token(Algorithm::HS256, SECRET, &json!({"exp": exp})),
            token(Algorithm::HS256, SECRET, &json!({"sub": "", "exp": exp})),
            token(Algorithm::HS256, SECRET, &json!({"sub": "alice", "exp": 1_000_000})),
            token(Algorithm::HS256, SECRET, &json!({"sub": "alice", "exp": exp, "nbf": exp})),
            token(
                Algorithm::HS256,
                SECRET,
                &json!({"sub": "alice", "exp": exp, "tidings": {"publish": ["a..b"]}}),
            ),
            // {"alg":"none"}.{"sub":"alice","exp":99999999999}.
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OTl9.".to_owned(),
            "x".repeat(TOKEN_BYTES_MAX + 1),
            String::new(),
        ];
        for case in cases {
            assert!(verify(&case).is_err(), "{case}");
        }
    }
}
