//! Frames, tokens and settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    sync::LazyLock,
};

use serde_json::{Map, Value};
use tidings::{
    auth::{Authenticator, Options, Rules, Secret},
    config::Flags,
    net::frame::{Decoder, Frame, FrameError, Limits, Message, Role, encode},
};

/// Two bytes of settings, then what a peer sends: the same messages however it is cut, in bounded memory, and the same
/// when they are sent again.
pub fn frames(data: &[u8]) {
    let Some((&[settings, size], bytes)) = data.split_first_chunk() else { return };
    let role = if settings & 1 == 0 { Role::Server } else { Role::Client };
    let message_bytes_max = usize::from(size) * 64;
    let limits = Limits { message_bytes_max, fragments_max: 1 + u32::from(settings >> 4) };
    let whole = decode(role, limits, bytes, bytes.len().max(1));
    for piece in [1, 2 + usize::from(settings >> 1 & 7)] {
        assert_eq!(decode(role, limits, bytes, piece), whole, "in pieces of {piece}");
    }
    // In the shortest form, as the other end would send them.
    let mask = (role == Role::Server).then_some([1, 2, 3, 4]);
    let mut again = Vec::new();
    for message in &whole.0 {
        let frame = match message {
            Message::Text(text) => Frame::Text(text),
            Message::Binary(bytes) => Frame::Binary(bytes),
            Message::Ping(payload) => Frame::Ping(payload),
            Message::Pong(payload) => Frame::Pong(payload),
            Message::Close(None) => Frame::Close(None),
            Message::Close(Some((code, reason))) => Frame::Close(Some((*code, reason))),
        };
        encode(frame, mask, &mut again);
    }
    assert_eq!(decode(role, limits, &again, 7), (whole.0, None));
}

fn decode(
    role: Role,
    limits: Limits,
    bytes: &[u8],
    piece: usize,
) -> (Vec<Message>, Option<FrameError>) {
    let (mut decoder, mut messages) = (Decoder::new(role, limits), Vec::new());
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next(), Err(error), "a violation stays");
                    assert_eq!(decoder.held_bytes(), 0);
                    return (messages, Some(error));
                }
            }
        }
        // A message that has begun, and a control frame within it.
        assert!(decoder.held_bytes() <= limits.message_bytes_max + 125, "{}", decoder.held_bytes());
        assert!(!decoder.is_idle() || decoder.held_bytes() == 0);
    }
    (messages, None)
}

const SECRET: &str = "a secret of the targets, which has enough bytes";

static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let options = Options {
        hs256_secret: Some(Secret::new(SECRET.into())),
        rules: Rules { audiences: vec!["here".to_owned()], ..Rules::default() },
        ..Options::default()
    };
    Authenticator::new(&options).unwrap()
});

/// A token, or header and claims on two lines, which are signed with the broker's secret. What is accepted has a signature
/// and what every token must have, as a reader that is not ours reads it.
pub fn token(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    // Nobody can make a signature without the secret.
    assert!(AUTHENTICATOR.identify(Some(text), |_| None).is_err(), "{text}");
    let _ = AUTHENTICATOR.replace_set(text).map(|keys| assert!((1..=64).contains(&keys)));
    let Some((header, claims)) = text.split_once('\n') else { return };
    let message = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let algorithm = jsonwebtoken::Algorithm::HS256;
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    let token = format!("{message}.{signature}");
    if let Ok(identity) = AUTHENTICATOR.identify(Some(&token), |_| None) {
        let (header, claims) = (names(header), names(claims));
        assert_eq!(header["alg"], "HS256");
        for name in ["crit", "jku", "jwk", "x5u", "x5c", "b64", "zip"] {
            assert!(!header.contains_key(name), "{name}");
        }
        assert_eq!(claims["sub"].as_str(), Some(identity.subject.as_str()));
        assert!((1..=200).contains(&identity.subject.len()));
        assert!(claims["exp"].as_f64().unwrap() > 1_700_000_000.0, "one that has expired");
        let aud = &claims["aud"];
        let is_here = |aud: &Value| aud == "here";
        assert!(is_here(aud) || aud.as_array().is_some_and(|list| list.iter().any(is_here)));
    }
    // Another signature, which is none.
    let forged = format!("{message}.{}", base64url(&[7; 32]));
    assert!(AUTHENTICATOR.identify(Some(&forged), |_| None).is_err());
}

/// The members of an object, each of which must stand once.
fn names(text: &str) -> Map<String, Value> {
    let object: Map<String, Value> = serde_json::from_str(text).unwrap();
    // Written with each name once it cannot have lost one: as many strings are there as before.
    let pairs: BTreeMap<String, Value> = serde_json::from_str(text).unwrap();
    let unique: BTreeSet<&String> = pairs.keys().collect();
    assert_eq!(unique.len(), object.len());
    object
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for n in 0..=three.len() {
            out.push(char::from(DIGITS[(bits >> (18 - 6 * n) & 63) as usize]));
        }
    }
    out
}

/// A file of settings. What it says holds as flags too, and no secret of it is shown.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    // Settings that name files would have this one read whatever is there.
    if ["_file", "_cert", "_key"].iter().any(|name| text.contains(name)) || text.contains('\\') {
        return;
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(data).unwrap();
    let flags = Flags { config: Some(file.path().to_owned()), ..Flags::default() };
    let Ok(given) = flags.given() else { return };
    let secret = given.get("auth.hs256_secret").map(|(value, _)| value.clone());
    let of_file = flags.resolve();
    let set = given.iter().map(|(key, (value, _))| format!("{key}={value}")).collect();
    let of_flags = Flags { set, ..Flags::default() }.resolve();
    let shown = match (&of_file, &of_flags) {
        (Ok(one), Ok(other)) => {
            assert_eq!(format!("{one:?}"), format!("{other:?}"));
            format!("{one:?}")
        }
        (Err(one), Err(other)) => format!("{one} {one:?} {other} {other:?}"),
        (one, other) => panic!("{one:?} {other:?}"),
    };
    if let Some(secret) = secret.filter(|secret| secret.len() > 20) {
        assert!(!shown.contains(&secret), "{shown}");
    }
}
