//! The keys that tokens are signed with: from a secret, a PEM file, or a JSON Web Key Set (RFC 7517).
//!
//! - Each key has one algorithm, which a token never chooses: HS256, RS256, ES256 or EdDSA (Ed25519).
//! - A set is replaced as a whole by one that is good; what is wrong with a new one changes nothing.
//! - A key set has public keys only: one with a symmetric or private key is refused, since whoever reads it could sign. What
//!   else cannot be used in it is passed over (RFC 7517 §5): one odd key must not hold up the rotation of the others.

use base64::Engine;
use jsonwebtoken::{Algorithm, DecodingKey};
use pkcs1::der::{Decode, asn1::UintRef};
use serde_json::{Map, Value};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::{Secret, json};

/// The most keys one source may have.
const KEYS_MAX: usize = 64;
/// The most bytes a source of keys may have.
pub const KEYS_BYTES_MAX: usize = 256 * 1024;
/// How many keys a token without `kid` is held against.
const TRIED_MAX: usize = 8;
/// What an RSA key has at least and at most, in bits.
const RSA_BITS: (usize, usize) = (2048, 4096);

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Why a source of keys gives none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Too big.
    #[error("it has more than {KEYS_BYTES_MAX} bytes or {KEYS_MAX} keys")]
    TooMany,
    /// No PEM.
    #[error("it has no block BEGIN PUBLIC KEY, which is what openssl pkey -pubout writes")]
    NoPem,
    /// A private key where a public one belongs.
    #[error(
        "it has a private or secret key: give the broker the public one, which openssl pkey -pubout writes"
    )]
    Private,
    /// No key set.
    #[error("it is no JSON Web Key Set: {{\"keys\":[…]}}, with every name once")]
    NoSet,
    /// A key that is none of ours.
    #[error("key {0} is none of RSA (2048 to 4096 bits), P-256 or Ed25519")]
    Unusable(usize),
    /// Nothing in it can be used.
    #[error("it has no key for RS256 (2048 to 4096 bits), ES256 or EdDSA")]
    None,
}

/// A key and what it is for.
pub(super) struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Key {
    /// The key of HS256.
    pub(super) fn hs256(secret: &Secret) -> Key {
        let key = DecodingKey::from_secret(secret.reveal());
        Key { kid: None, algorithm: Algorithm::HS256, key }
    }

    /// Whether it signed this.
    pub(super) fn holds(&self, signature: &str, message: &[u8]) -> bool {
        let holds = jsonwebtoken::crypto::verify(signature, message, &self.key, self.algorithm);
        holds.unwrap_or(false)
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Key> {
        let modulus = without_zeros(modulus);
        let zeros = usize::try_from(modulus.first()?.leading_zeros()).ok()?;
        let bits = modulus.len() * 8 - zeros;
        let exponent = without_zeros(exponent);
        // 3 is the smallest, and the library takes 33 bits.
        let is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
        let is_fair = is_odd && exponent.len() <= 4 && exponent != [1];
        let key = DecodingKey::from_rsa_raw_components(modulus, exponent);
        let is_strong = (RSA_BITS.0..=RSA_BITS.1).contains(&bits);
        (is_strong && is_fair).then_some(Key { kid: None, algorithm: Algorithm::RS256, key })
    }

    /// The uncompressed point of P-256 (SEC 1 §2.3.3).
    fn p256(point: &[u8]) -> Option<Key> {
        let algorithm = Algorithm::ES256;
        Key { kid: None, algorithm, key: DecodingKey::from_ec_der(point) }.checked(point, 65)
    }

    fn ed25519(point: &[u8]) -> Option<Key> {
        let algorithm = Algorithm::EdDSA;
        Key { kid: None, algorithm, key: DecodingKey::from_ed_der(point) }.checked(point, 32)
    }

    /// It, if the point has so many bytes and is on its curve.
    fn checked(self, point: &[u8], bytes: usize) -> Option<Key> {
        if point.len() != bytes {
            return None;
        }
        // A point that is none makes this an error; the signature is one in form only.
        let signature = "A".repeat(86);
        let tried = jsonwebtoken::crypto::verify(&signature, b"", &self.key, self.algorithm);
        tried.is_ok().then_some(self)
    }
}

/// The keys of a key set.
pub(super) struct Set {
    pub(super) keys: Vec<Key>,
    /// How many others are of our kinds, and too weak, or wrong.
    pub(super) unusable: usize,
}

/// All keys of a broker.
#[derive(Default)]
pub(super) struct Keys {
    /// Of the settings.
    pub(super) fixed: Vec<Key>,
    /// Of the key set.
    pub(super) set: Vec<Key>,
}

impl Keys {
    /// Whether a key has this name.
    pub(super) fn has(&self, kid: &str) -> bool {
        self.fixed.iter().chain(&self.set).any(|key| key.kid.as_deref() == Some(kid))
    }

    /// Those that may have signed a token with this algorithm and `kid`. Where a key has that `kid`, it alone does.
    pub(super) fn candidates(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> impl Iterator<Item = &Key> {
        let all = || self.fixed.iter().chain(&self.set);
        let is_named = kid.is_some_and(|kid| self.has(kid));
        all()
            .filter(move |key| match (kid, &key.kid) {
                (Some(_), Some(_)) => key.kid.as_deref() == kid,
                (Some(_), None) => !is_named,
                (None, _) => true,
            })
            .filter(move |key| key.algorithm == algorithm)
            .take(TRIED_MAX)
    }
}

/// The public keys of a PEM file (RFC 7468), one or more.
pub(super) fn of_pem(text: &str) -> Result<Vec<Key>, KeyError> {
    if text.len() > KEYS_BYTES_MAX {
        return Err(KeyError::TooMany);
    }
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyError::Private);
    }
    let mut keys = Vec::new();
    for block in text.split("-----BEGIN PUBLIC KEY-----").skip(1) {
        let (body, _) = block.split_once("-----END PUBLIC KEY-----").ok_or(KeyError::NoPem)?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = base64::engine::general_purpose::STANDARD.decode(body);
        let der = der.map_err(|_| KeyError::NoPem)?;
        let number = keys.len() + 1;
        keys.push(of_spki(&der).ok_or(KeyError::Unusable(number))?);
        if keys.len() > KEYS_MAX {
            return Err(KeyError::TooMany);
        }
    }
    if keys.is_empty() { Err(KeyError::NoPem) } else { Ok(keys) }
}

/// A SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
fn of_spki(der: &[u8]) -> Option<Key> {
    let info = SubjectPublicKeyInfoRef::from_der(der).ok()?;
    let bits = info.subject_public_key.as_bytes()?;
    match info.algorithm.oid {
        RSA => {
            let key = pkcs1::RsaPublicKey::from_der(bits).ok()?;
            let bytes = |number: &UintRef<'_>| number.as_bytes().to_vec();
            Key::rsa(&bytes(&key.modulus), &bytes(&key.public_exponent))
        }
        EC if info.algorithm.parameters_oid().is_ok_and(|curve| curve == P256) => Key::p256(bits),
        ED25519 => Key::ed25519(bits),
        _ => None,
    }
}

/// The keys of a key set that are for signatures we know; others are passed over.
pub(super) fn of_set(text: &str) -> Result<Set, KeyError> {
    if text.len() > KEYS_BYTES_MAX {
        return Err(KeyError::TooMany);
    }
    let set = json::object(text.as_bytes()).ok_or(KeyError::NoSet)?;
    let Some(Value::Array(list)) = set.get("keys") else { return Err(KeyError::NoSet) };
    if list.len() > KEYS_MAX {
        return Err(KeyError::TooMany);
    }
    let mut set = Set { keys: Vec::new(), unusable: 0 };
    for jwk in list {
        let Value::Object(jwk) = jwk else { return Err(KeyError::NoSet) };
        if jwk.contains_key("d") || jwk.contains_key("k") {
            return Err(KeyError::Private);
        }
        match of_jwk(jwk) {
            Some(Some(key)) => set.keys.push(key),
            Some(None) => set.unusable += 1,
            None => {}
        }
    }
    if set.keys.is_empty() { Err(KeyError::None) } else { Ok(set) }
}

/// `None` for a key that is for something else; `Some(None)` for one that should be ours and cannot be.
fn of_jwk(jwk: &Map<String, Value>) -> Option<Option<Key>> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let is_for_signatures = match (jwk.get("use"), jwk.get("key_ops")) {
        (Some(used), _) => used == "sig",
        (None, Some(Value::Array(ops))) => ops.iter().any(|op| op == "verify"),
        (None, ops) => ops.is_none(),
    };
    let algorithm = match (text("kty")?, text("crv")) {
        ("RSA", _) => "RS256",
        ("EC", Some("P-256")) => "ES256",
        ("OKP", Some("Ed25519")) => "EdDSA",
        _ => return None,
    };
    // RFC 9864 names the curve.
    let is_other = |name: &Value| name != algorithm && !(algorithm == "EdDSA" && name == "Ed25519");
    if !is_for_signatures || jwk.get("alg").is_some_and(is_other) {
        return None;
    }
    let bytes =
        |name: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let key = || match algorithm {
        "RS256" => Key::rsa(&bytes("n")?, &bytes("e")?),
        "ES256" => Key::p256(&[vec![4], bytes("x")?, bytes("y")?].concat()),
        _ => Key::ed25519(&bytes("x")?),
    };
    let kid = text("kid").map(str::to_owned);
    Some(key().map(|key| Key { kid, ..key }))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// Key pairs that are for tests alone, as PKCS #8 and as SubjectPublicKeyInfo.
    pub(in crate::auth) const RSA_PUBLIC: &str = include_str!("../../tests/keys/rsa.pub.pem");
    pub(in crate::auth) const EC_PUBLIC: &str = include_str!("../../tests/keys/ec.pub.pem");
    pub(in crate::auth) const ED_PUBLIC: &str = include_str!("../../tests/keys/ed.pub.pem");
    pub(in crate::auth) const SET: &str = include_str!("../../tests/keys/jwks.json");
    const WEAK: &str = include_str!("../../tests/keys/weak.pub.pem");
    const OTHER_CURVE: &str = include_str!("../../tests/keys/p384.pub.pem");

    fn algorithms(keys: &[Key]) -> Vec<Algorithm> {
        keys.iter().map(|key| key.algorithm).collect()
    }

    #[test]
    fn a_pem_file_says_which_algorithm_each_key_is_for() {
        let all = [RSA_PUBLIC, EC_PUBLIC, ED_PUBLIC].join("\n");
        let want = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
        assert_eq!(algorithms(&of_pem(&all).unwrap()), want);
        let flipped = EC_PUBLIC.replacen('E', "F", 20);
        for (text, error) in [
            ("", KeyError::NoPem),
            ("-----BEGIN PUBLIC KEY-----", KeyError::NoPem),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", KeyError::Unusable(1)),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", KeyError::Private),
            ("-----BEGIN RSA PRIVATE KEY-----\n", KeyError::Private),
            (WEAK, KeyError::Unusable(1)),
            (OTHER_CURVE, KeyError::Unusable(1)),
        ] {
            assert_eq!(of_pem(text).err(), Some(error), "{text}");
        }
        assert!(of_pem(&flipped).is_err(), "a point that is not on its curve");
    }

    #[test]
    fn a_set_gives_its_keys_for_signatures() {
        let keys = of_set(SET).unwrap().keys;
        let named: Vec<_> =
            keys.iter().map(|key| (key.kid.as_deref().unwrap(), key.algorithm)).collect();
        let (rs, es, ed) = (Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA);
        assert_eq!(named, [("rsa", rs), ("ec", es), ("ed", ed)]);
        let set: Value = serde_json::from_str(SET).unwrap();
        let with = |n: usize, name: &str, value: Value| {
            let mut set = set.clone();
            set["keys"][n][name] = value;
            of_set(&set.to_string()).map(|set| (set.keys.len(), set.unusable))
        };
        for (n, name, value, want) in [
            (0, "use", json!("enc"), Ok((2, 0))),
            (0, "alg", json!("RS512"), Ok((2, 0))),
            (0, "alg", json!("HS256"), Ok((2, 0))),
            (2, "alg", json!("Ed25519"), Ok((3, 0))),
            (1, "crv", json!("P-384"), Ok((2, 0))),
            (1, "kty", json!("oct"), Ok((2, 0))),
            (0, "kty", json!(null), Ok((2, 0))),
            (0, "k", json!("c2VjcmV0"), Err(KeyError::Private)),
            (1, "d", json!("AQ"), Err(KeyError::Private)),
            (0, "n", json!("AQAB"), Ok((2, 1))),
            (0, "e", json!("AQ"), Ok((2, 1))),
            (1, "x", json!("AQ"), Ok((2, 1))),
            (1, "y", set["keys"][1]["x"].clone(), Ok((2, 1))),
            (2, "x", json!("AQ"), Ok((2, 1))),
            (2, "x", json!(5), Ok((2, 1))),
        ] {
            assert_eq!(with(n, name, value.clone()), want, "{n} {name} {value}");
        }
        for (text, error) in [
            ("", KeyError::NoSet),
            ("[]", KeyError::NoSet),
            (r#"{"keys":[5]}"#, KeyError::NoSet),
            (r#"{"keys":[],"keys":[]}"#, KeyError::NoSet),
            (r#"{"keys":[]}"#, KeyError::None),
        ] {
            assert_eq!(of_set(text).err(), Some(error), "{text}");
        }
        let many = json!({"keys": vec![json!({"kty": "RSA"}); KEYS_MAX + 1]}).to_string();
        assert_eq!(of_set(&many).err(), Some(KeyError::TooMany));
    }

    #[test]
    fn a_kid_that_a_key_has_is_that_keys_alone() {
        let keys = Keys { fixed: of_pem(RSA_PUBLIC).unwrap(), set: of_set(SET).unwrap().keys };
        let count = |algorithm, kid| keys.candidates(algorithm, kid).count();
        assert_eq!(count(Algorithm::RS256, Some("rsa")), 1, "that of the set");
        assert_eq!(count(Algorithm::RS256, Some("other")), 1, "the one without a name");
        assert_eq!(count(Algorithm::RS256, None), 2);
        assert_eq!(count(Algorithm::ES256, Some("rsa")), 0, "a kid of another algorithm");
        assert_eq!(count(Algorithm::HS256, None), 0);
    }
}
