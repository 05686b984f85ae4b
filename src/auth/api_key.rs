//! API keys: `tdk_`, an id of 16 hexadecimal digits, `_`, and 64 more that are the secret.
//!
//! - The broker keeps the SHA-256 of the whole: the secret has 256 random bits, so that a slow hash would add nothing.
//! - Hashes are compared in constant time. An id that nobody knows takes as long and says the same as a wrong secret.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tidings_proto::{Timestamp, control::ApiKey};
use zeroize::Zeroizing;

use super::{Credential, Grants, Identity, grant::GrantClaim};
use crate::clock;

const BEGIN: &str = "tdk_";
const ID_DIGITS: usize = 16;
const SECRET_DIGITS: usize = 64;

/// Why an API key does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// None of ours, or revoked.
    #[error("the broker does not know it; it may have been revoked")]
    Unknown,
    /// It has ended.
    #[error("it has expired: make a new one")]
    Expired,
}

/// A new API key, to be shown once.
pub struct NewApiKey {
    /// Names it.
    pub id: String,
    /// All of it.
    pub text: Zeroizing<String>,
    /// What the broker keeps of it.
    pub hash: String,
}

impl NewApiKey {
    /// Makes one.
    pub fn make() -> NewApiKey {
        let (id, secret) = (clock::secret_bytes(), Zeroizing::new(clock::secret_bytes()));
        let mut id = hex(&id);
        id.truncate(ID_DIGITS);
        let text = Zeroizing::new(format!("{BEGIN}{id}_{}", &*Zeroizing::new(hex(&*secret))));
        let hash = hash(&text);
        NewApiKey { id, text, hash }
    }
}

/// Whether this is meant as an API key: no JWT begins so.
pub(super) fn is_api_key(text: &str) -> bool {
    text.starts_with(BEGIN)
}

/// Whose key this is and what they may do; `find` looks one up by its id.
pub(super) fn verify(
    text: &str,
    find: impl FnOnce(&str) -> Option<ApiKey>,
    now: Timestamp,
) -> Result<Identity, ApiKeyError> {
    let id = id_of(text);
    let found = id.and_then(find);
    let given = hash(text);
    let known = found.as_ref().map_or("", |key| key.hash.as_str());
    let is_equal: bool = given.as_bytes().ct_eq(known.as_bytes()).into();
    let key = found.filter(|_| is_equal).ok_or(ApiKeyError::Unknown)?;
    if key.expires.is_some_and(|expires| expires <= now) {
        return Err(ApiKeyError::Expired);
    }
    // They were looked at when the key was made.
    let claim = GrantClaim::read(&key.grants).map_err(|_| ApiKeyError::Unknown)?;
    let grants = Grants::from_claim(&claim, &key.subject).map_err(|_| ApiKeyError::Unknown)?;
    let credential = Credential::Key { id: key.id, made: key.made };
    Ok(Identity {
        subject: key.subject,
        grants,
        limits: claim.limits,
        expires: key.expires,
        credential,
    })
}

fn id_of(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix(BEGIN)?.split_once('_')?;
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let fits = id.len() == ID_DIGITS && secret.len() == SECRET_DIGITS;
    (fits && is_hex(id) && is_hex(secret)).then_some(id)
}

/// SHA-256 in hexadecimal digits.
pub(super) fn hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |n: u8| DIGITS.get(usize::from(n)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(key: &NewApiKey, expires: Option<u64>) -> ApiKey {
        ApiKey {
            id: key.id.clone(),
            name: "ci".to_owned(),
            subject: "ci".to_owned(),
            hash: key.hash.clone(),
            grants: json!({"publish": ["builds.>"]}),
            made: Timestamp::from_millis(1000),
            expires: expires.map(Timestamp::from_millis),
        }
    }

    #[test]
    fn a_key_is_known_by_its_id_and_holds_by_its_secret() {
        let (key, other) = (NewApiKey::make(), NewApiKey::make());
        assert_ne!(key.id, other.id);
        let verify = |text: &str, expires, now| {
            let find = |id: &str| (id == key.id).then(|| stored(&key, expires));
            verify(text, find, Timestamp::from_millis(now))
        };
        let identity = verify(&key.text, Some(3000), 2000).unwrap();
        assert_eq!(identity.subject, "ci");
        assert_eq!(identity.expires, Some(Timestamp::from_millis(3000)));
        assert!(identity.grants.may_publish(&tidings_proto::Topic::parse("builds.1").unwrap()));
        assert_eq!(verify(&key.text, Some(3000), 3000).unwrap_err(), ApiKeyError::Expired);
        let wrong = key.text.replace(&key.id, &other.id);
        let swapped = other.text.replace(&other.id, &key.id);
        let mut cases = vec![wrong, swapped, other.text.to_string(), key.text.to_uppercase()];
        cases.push(key.text[..key.text.len() - 1].to_owned());
        cases.push(format!("{}0", *key.text));
        cases.extend(["tdk_", "tdk__", "tdk_x_y", "", "tdk_0000000000000000_"].map(str::to_owned));
        for text in cases {
            assert_eq!(verify(&text, None, 2000).unwrap_err(), ApiKeyError::Unknown, "{text}");
        }
    }

    #[test]
    fn a_hash_is_sha_256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hash(""), empty);
        assert!(!NewApiKey::make().hash.is_empty());
    }
}
