//! Tokens: JWT by RFC 7519 in the compact form, checked as RFC 8725 asks.
//!
//! - The key and its algorithm are the broker's; of the header `alg` and `kid` are compared with them and no more. A
//!   header that brings or names a key, or asks for an extension (`crit`), is refused.
//! - Header and claims are objects in which every name stands once.
//! - `sub` and `exp` are required; `nbf`, `iat` and `jti` are checked where they are given, `iss` and `aud` where the
//!   settings name them. Clocks may differ by [`Rules::leeway`].
//! - Nothing of a token is repeated in an error but a grant that is none.

use std::time::Duration;

use base64::Engine;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use tidings_proto::Timestamp;

use super::{
    ANONYMOUS, Credential, Grants, Identity, SUBJECT_BYTES_MAX, grant::GrantClaim, json, keys::Keys,
};

/// The most bytes a token may have.
pub const TOKEN_BYTES_MAX: usize = 8192;
/// The most bytes the claim `jti` may have.
pub const JTI_BYTES_MAX: usize = 200;
/// Members of a header that bring a key, or say where one is.
const KEY_BRINGERS: [&str; 4] = ["jwk", "jku", "x5u", "x5c"];
/// Members of a header that make it another thing than a signed token of claims.
const CHANGERS: [&str; 5] = ["crit", "b64", "enc", "zip", "cty"];

/// Why a token does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Longer than a token may be.
    #[error("it is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not three parts of base64url.
    #[error("it is no JWT: three parts in base64url without padding, joined by dots")]
    Form,
    /// Its header or its claims.
    #[error("its {0} must be a JSON object with every name once")]
    Json(&'static str),
    /// Its header has a key or says where one is.
    #[error("its header has {0}: keys come from the broker's settings and never from a token")]
    BringsKey(&'static str),
    /// Its header asks for something else.
    #[error("its header has {0}, which is not understood here")]
    Extension(&'static str),
    /// It is for something else.
    #[error("its typ must be JWT or at+jwt, or left out")]
    Type,
    /// Its algorithm.
    #[error("its alg must be HS256, RS256, ES256 or EdDSA")]
    Algorithm,
    /// Its kid is no text.
    #[error("its kid must be a text")]
    Kid,
    /// No key.
    #[error("the broker has no key for its alg and kid")]
    Key,
    /// Its signature.
    #[error("its signature does not hold")]
    Signature,
    /// It has ended.
    #[error("it has expired: get a new one")]
    Expired,
    /// It has not begun.
    #[error("its {0} lies ahead: the clocks differ too much, or it is not valid yet")]
    Ahead(&'static str),
    /// A claim that is missing or of another form.
    #[error("its {claim} must be {want}")]
    Claim {
        /// Which.
        claim: &'static str,
        /// What it should be.
        want: &'static str,
    },
    /// It is from somebody else.
    #[error("its iss is not the issuer that the broker is set to")]
    Issuer,
    /// It is for somebody else.
    #[error("its aud does not name this broker")]
    Audience,
    /// Its subject.
    #[error(
        "its sub must have 1 to {SUBJECT_BYTES_MAX} bytes, no control characters, and not be \"{ANONYMOUS}\""
    )]
    Subject,
    /// Its grants.
    #[error("its claim tidings is wrong: {0}")]
    Grants(String),
}

/// What every token is held to besides its signature.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The issuer; empty: any, or none.
    pub issuer: String,
    /// The names of this broker, of which a token has one; empty: any, or none.
    pub audiences: Vec<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { issuer: String::new(), audiences: Vec::new(), leeway: Duration::from_secs(30) }
    }
}

/// What a header says that is compared.
struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
}

/// Whose token this is and what they may do.
pub(super) fn verify(
    token: &str,
    keys: &Keys,
    rules: &Rules,
    now: Timestamp,
) -> Result<Identity, JwtError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(JwtError::TooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(JwtError::Form)?;
    let (header, claims) = message.split_once('.').ok_or(JwtError::Form)?;
    if claims.contains('.') {
        return Err(JwtError::Form);
    }
    let (head, body) = (decode(header)?, decode(claims)?);
    decode(signature)?;
    let head = header_of(&json::object(&head).ok_or(JwtError::Json("header"))?)?;
    check_signature(&head, keys, message.as_bytes(), signature)?;
    let claims = json::object(&body).ok_or(JwtError::Json("claims"))?;
    rules.identity(&claims, now)
}

fn decode(part: &str) -> Result<Vec<u8>, JwtError> {
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part);
    decoded.map_err(|_| JwtError::Form)
}

fn header_of(header: &Map<String, Value>) -> Result<Header, JwtError> {
    if let Some(name) = KEY_BRINGERS.into_iter().find(|name| header.contains_key(*name)) {
        return Err(JwtError::BringsKey(name));
    }
    if let Some(name) = CHANGERS.into_iter().find(|name| header.contains_key(*name)) {
        return Err(JwtError::Extension(name));
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(typ)) if is_token_type(typ) => {}
        Some(_) => return Err(JwtError::Type),
    }
    // As written: a name in other letters is another one.
    let algorithm = match header.get("alg").and_then(Value::as_str) {
        Some("HS256") => Algorithm::HS256,
        Some("RS256") => Algorithm::RS256,
        Some("ES256") => Algorithm::ES256,
        // RFC 9864 names the curve.
        Some("EdDSA" | "Ed25519") => Algorithm::EdDSA,
        _ => return Err(JwtError::Algorithm),
    };
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.clone()),
        Some(_) => return Err(JwtError::Kid),
    };
    Ok(Header { algorithm, kid })
}

/// Without regard to case, and with or without the family (RFC 7515 §4.1.9).
fn is_token_type(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    ["jwt", "at+jwt"].contains(&typ.strip_prefix("application/").unwrap_or(&typ))
}

fn check_signature(
    head: &Header,
    keys: &Keys,
    message: &[u8],
    signature: &str,
) -> Result<(), JwtError> {
    let kid = head.kid.as_deref();
    let mut is_held = false;
    for key in keys.candidates(head.algorithm, kid) {
        if key.holds(signature, message) {
            return Ok(());
        }
        is_held = true;
    }
    // One whose key is named and not known may be signed with a new key, whatever it was held against.
    let is_of_ours = is_held && kid.is_none_or(|kid| keys.has(kid));
    Err(if is_of_ours { JwtError::Signature } else { JwtError::Key })
}

impl Rules {
    fn identity(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Identity, JwtError> {
        let expires = time(claims, "exp")?
            .ok_or(JwtError::Claim { claim: "exp", want: "there: a token ends" })?;
        let leeway_ms = u64::try_from(self.leeway.as_millis()).unwrap_or(u64::MAX);
        let latest = now.plus_millis(leeway_ms);
        // Whoever is let in by the leeway stays as long as it lasts; all others go when their token does.
        let ends = match expires <= now {
            true => expires.plus_millis(leeway_ms),
            false => expires,
        };
        if ends <= now {
            return Err(JwtError::Expired);
        }
        if time(claims, "nbf")?.is_some_and(|from| from > latest) {
            return Err(JwtError::Ahead("nbf"));
        }
        let issued = time(claims, "iat")?;
        if issued.is_some_and(|issued| issued > latest) {
            return Err(JwtError::Ahead("iat"));
        }
        self.check_parties(claims)?;
        let subject = match claims.get("sub") {
            Some(Value::String(subject)) if is_subject(subject) => subject.clone(),
            _ => return Err(JwtError::Subject),
        };
        let jti = match claims.get("jti") {
            None => None,
            Some(Value::String(jti)) if is_name(jti, JTI_BYTES_MAX) => Some(jti.clone()),
            Some(_) => {
                let want = "a text of 1 to 200 bytes without control characters";
                return Err(JwtError::Claim { claim: "jti", want });
            }
        };
        let claim = match claims.get("tidings") {
            None => GrantClaim::default(),
            Some(claim) => GrantClaim::read(claim).map_err(JwtError::Grants)?,
        };
        let grants = Grants::from_claim(&claim, &subject).map_err(JwtError::Grants)?;
        let credential = Credential::Token { jti, issued };
        Ok(Identity { subject, grants, limits: claim.limits, expires: Some(ends), credential })
    }

    fn check_parties(&self, claims: &Map<String, Value>) -> Result<(), JwtError> {
        if !self.issuer.is_empty()
            && claims.get("iss").and_then(Value::as_str) != Some(self.issuer.as_str())
        {
            return Err(JwtError::Issuer);
        }
        let names_us = |name: &Value| {
            name.as_str().is_some_and(|name| self.audiences.iter().any(|us| us == name))
        };
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(names)) => names.iter().any(names_us),
            Some(name) => names_us(name),
            None => false,
        };
        match self.audiences.is_empty() || is_for_us {
            true => Ok(()),
            false => Err(JwtError::Audience),
        }
    }
}

/// A NumericDate (RFC 7519 §2): seconds since the epoch, which may have a fraction.
fn time(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<Timestamp>, JwtError> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    let last_s = Timestamp::MAX.as_millis() as f64 / 1000.0;
    match value.as_f64() {
        Some(seconds) if (0.0..=last_s).contains(&seconds) => {
            Ok(Some(Timestamp::from_millis((seconds * 1000.0) as u64)))
        }
        _ => Err(JwtError::Claim { claim, want: "a number of seconds from 1970 to 9999" }),
    }
}

/// Whether this may be a subject; who comes without a token has a name that nobody else may have.
pub fn is_subject(text: &str) -> bool {
    is_name(text, SUBJECT_BYTES_MAX) && text != ANONYMOUS
}

/// Whether it has 1 to `bytes_max` bytes and no control characters.
pub fn is_name(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control)
}
