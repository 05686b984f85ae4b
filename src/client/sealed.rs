//! Sealed events: data that the broker carries and cannot read (docs/encryption.md).
//!
//! - AES-256-GCM with a random nonce. What is sealed is the data and its content type; bound to them, so that neither
//!   can be moved to another event, are the id of the key and the event's topic, id, type, key and correlation.
//! - A key may seal 2^32 events (NIST SP 800-38D §8.3): add a new one to [`Keys`] long before. The newest seals, all open.
//! - An event is sealed once and sent again as it is: sealed twice it is another event to the broker, and a `conflict`.
//! - Secrets are overwritten when they are dropped and stand in no `Debug`.
//!
//! ```
//! # use tidings::client::sealed::{Key, Keys};
//! # use tidings_proto::{NewEvent, Topic};
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = Keys::new(vec![Key::make()])?;
//! let event = NewEvent {
//!     data: Some("{\"iban\":\"…\"}".into()),
//!     ..NewEvent::on(Topic::parse("payments.42")?)
//! };
//! let sealed = keys.seal(event)?; // publish it; of what a subscription gives, `keys.open(&event)?`
//! # Ok(())
//! # }
//! # example().unwrap();
//! ```

mod keys;
#[cfg(test)]
mod tests;

use aes_gcm::{Aes256Gcm, KeyInit, Tag, aead::AeadInOut};
use bytes::Bytes;
use tidings_proto::{Event, EventId, NewEvent, Offset, event::EventError};

pub use self::keys::{Key, Keys, KeysError};
use crate::clock;

/// The header that names the key of a sealed event.
pub const KEY_HEADER: &str = "sealkey";
/// The content type of a sealed event.
pub const CONTENT_TYPE: &str = "application/x.tidings.sealed";

/// The first byte of sealed data.
const VERSION: u8 = 1;
/// What the bound bytes begin with.
const LABEL: &[u8] = b"tidings.sealed.1";
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// What goes before the data in the plain text: whether there is any, and the length of its content type.
const HEAD_BYTES: usize = 3;

/// Why an event is not sealed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SealError {
    /// No broker would take it.
    #[error(transparent)]
    Event(#[from] EventError),
    /// It has been sealed.
    #[error("the event has the header {KEY_HEADER}: seal it once, and send it again as it is")]
    Sealed,
    /// More than the cipher takes: 64 GiB.
    #[error("data is larger than a cipher of AES-GCM takes: cut it into events")]
    TooLarge,
}

/// Why an event does not open.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// It names no key. Whoever may publish on the topic can send such a one: do not take it for one that was sealed.
    #[error("event {0} is not sealed: whoever publishes on its topic must seal")]
    NotSealed(Offset),
    /// Its key is not there.
    #[error("event {offset} is sealed with the key \"{key}\", which is not among the keys: add it")]
    UnknownKey {
        /// The event.
        offset: Offset,
        /// What it says of its key; control characters are left out.
        key: String,
    },
    /// It came without its data.
    #[error("event {0} came without its data, as max_data_bytes asks: read it by its offset")]
    LeftOut(Offset),
    /// What is sealed or bound is not what it was, or the key is another.
    #[error(
        "event {offset} does not open with the key \"{key}\": it was changed or moved since it was sealed, or the key of that id is another"
    )]
    Tampered {
        /// The event.
        offset: Offset,
        /// The id of the key.
        key: String,
    },
    /// Its envelope is of another version.
    #[error("event {0} is sealed in a form that is not known here: use a client of its version")]
    Version(Offset),
    /// Who sealed it has written what no event may be.
    #[error("event {offset} opens, but what is in it is no event's ({problem})")]
    Form {
        /// The event.
        offset: Offset,
        /// What is wrong with it.
        problem: String,
    },
}

impl Keys {
    /// The event with its data and content type sealed by the newest key. One without an id gets one, which is bound.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal(&self, event: NewEvent) -> Result<NewEvent, SealError> {
        self.seal_with(event, clock::seal_nonce())
    }

    fn seal_with(
        &self,
        mut event: NewEvent,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<NewEvent, SealError> {
        event.check()?;
        if event.headers.contains_key(KEY_HEADER) {
            return Err(SealError::Sealed);
        }
        if event.id.is_none() {
            event.id = Some(EventId::parse(&clock::event_id().to_string())?);
        }
        let key = self.newest();
        let bound = Bound {
            key_id: key.id(),
            topic: event.topic.as_str(),
            id: event.id.as_ref().map_or("", EventId::as_str),
            kind: &event.kind,
            key: event.key.as_deref(),
            correlation: event.correlation.as_deref(),
        };
        let mut out = vec![VERSION];
        out.extend_from_slice(&nonce);
        write_plain(event.datacontenttype.as_deref(), event.data.as_deref(), &mut out);
        let (_, plain) = out.split_at_mut(1 + NONCE_BYTES);
        let cipher = Aes256Gcm::new(key.secret().into());
        let tag = cipher.encrypt_inout_detached(&nonce.into(), &bound.bytes(), plain.into());
        out.extend_from_slice(&tag.map_err(|_| SealError::TooLarge)?);
        event.headers.insert(KEY_HEADER.to_owned(), key.id().to_owned());
        event.datacontenttype = Some(CONTENT_TYPE.to_owned());
        event.data = Some(Bytes::from(out));
        event.check()?;
        Ok(event)
    }

    /// The event as it was before it was sealed, with the key that it names.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, event: &Event) -> Result<Event, OpenError> {
        let offset = event.offset;
        let id = event.headers.get(KEY_HEADER).ok_or(OpenError::NotSealed(offset))?;
        let shown = || id.chars().filter(|c| !c.is_control()).collect();
        let key = self.find(id).ok_or_else(|| OpenError::UnknownKey { offset, key: shown() })?;
        let data = event.data.as_deref().ok_or(OpenError::LeftOut(offset))?;
        let tampered = || OpenError::Tampered { offset, key: shown() };
        let (version, rest) = data.split_first().ok_or_else(tampered)?;
        if *version != VERSION {
            return Err(OpenError::Version(offset));
        }
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(tampered)?;
        let (sealed, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(tampered)?;
        let bound = Bound {
            key_id: id,
            topic: event.topic.as_str(),
            id: &event.id,
            kind: &event.kind,
            key: event.key.as_deref(),
            correlation: event.correlation.as_deref(),
        };
        let cipher = Aes256Gcm::new(key.secret().into());
        let (mut plain, tag) = (sealed.to_vec(), Tag::from(*tag));
        let (nonce, aad) = ((*nonce).into(), bound.bytes());
        let opened = cipher.decrypt_inout_detached(&nonce, &aad, plain.as_mut_slice().into(), &tag);
        opened.map_err(|_| tampered())?;
        let form = |problem| OpenError::Form { offset, problem };
        let (datacontenttype, data) = read_plain(Bytes::from(plain)).map_err(form)?;
        // It is written and shown as what its content type says.
        let parts = NewEvent { datacontenttype, data, ..NewEvent::on(event.topic.clone()) };
        parts.check().map_err(|error| form(error.to_string()))?;
        let NewEvent { datacontenttype, data, .. } = parts;
        let mut event = Event { datacontenttype, data, ..event.clone() };
        event.headers.remove(KEY_HEADER);
        Ok(event)
    }
}

/// What is bound to the sealed bytes: with any other of these they do not open.
struct Bound<'a> {
    key_id: &'a str,
    topic: &'a str,
    id: &'a str,
    kind: &'a str,
    key: Option<&'a str>,
    correlation: Option<&'a str>,
}

impl Bound<'_> {
    /// The label, then each text behind its length in two bytes; none is as one that is empty, which no event may have.
    fn bytes(&self) -> Vec<u8> {
        let (key, correlation) = (self.key.unwrap_or(""), self.correlation.unwrap_or(""));
        let mut out = LABEL.to_vec();
        for text in [self.key_id, self.topic, self.id, self.kind, key, correlation] {
            push_text(text, &mut out);
        }
        out
    }
}

/// A text behind its length. What an event may have is shorter than two bytes say, and no broker delivers more: a text that
/// were cut here would have the length of the largest, which none has that was sealed.
fn push_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn write_plain(content_type: Option<&str>, data: Option<&[u8]>, out: &mut Vec<u8>) {
    let (content_type, bytes) = (content_type.unwrap_or(""), data.unwrap_or_default());
    out.reserve_exact(HEAD_BYTES + content_type.len() + bytes.len() + TAG_BYTES);
    out.push(u8::from(data.is_some()));
    push_text(content_type, out);
    out.extend_from_slice(bytes);
}

/// Content type and data of a plain text.
fn read_plain(plain: Bytes) -> Result<(Option<String>, Option<Bytes>), String> {
    let head = plain.first_chunk::<HEAD_BYTES>().ok_or("it is too short")?;
    let [has_data, high, low] = *head;
    let end = HEAD_BYTES + usize::from(u16::from_be_bytes([high, low]));
    let content_type = plain.get(HEAD_BYTES..end).ok_or("it is too short")?;
    let content_type = String::from_utf8(content_type.to_vec());
    let content_type = content_type.map_err(|_| "its content type is not UTF-8")?;
    let data = plain.slice(end..);
    let data = match has_data {
        0 if data.is_empty() => None,
        1 => Some(data),
        _ => return Err("it does not say whether there is data".to_owned()),
    };
    Ok((Some(content_type).filter(|it| !it.is_empty()), data))
}
