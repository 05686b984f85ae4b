//! The keys of sealed events, and how they stand in a file: one a line, the newest last.
//!
//! A line is `tds_`, the id, `_`, and 64 hexadecimal digits, which are the 32 bytes of the key. Empty lines and lines that
//! begin with `#` are passed over.

use std::fmt;

use zeroize::Zeroizing;

use crate::clock;

const BEGIN: &str = "tds_";
const SECRET_BYTES: usize = 32;
/// How many bytes the id of a made key has; it is shown in twice as many digits.
const MADE_ID_BYTES: usize = 8;
/// The most bytes an id may have.
const ID_BYTES_MAX: usize = 64;
/// Why there are no keys. Of the secrets it repeats nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// A line that is no key.
    #[error(
        "line {line} is no sealing key: tds_, an id, _ and 64 hexadecimal digits, as `tidings key make` writes them"
    )]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// An id that cannot be one.
    #[error("the id of a sealing key has 1 to {ID_BYTES_MAX} of A–Z a–z 0–9 _ - .")]
    Id,
    /// An id that two keys have.
    #[error("two sealing keys have the id {0}: an id is for one key, for ever")]
    Twice(String),
    /// Nothing.
    #[error("there is no sealing key in it: make one with `tidings key make`")]
    None,
    /// Too much.
    #[error(
        "there are more than {} sealing keys: take out the oldest, with which nothing is left to open",
        Keys::MAX
    )]
    TooMany,
}

/// A key that seals and opens events. All who have it can do both.
#[derive(Clone)]
pub struct Key {
    id: String,
    /// In one place of memory from beginning to end, which is overwritten.
    secret: Box<Zeroizing<[u8; SECRET_BYTES]>>,
}

impl Key {
    /// A new key with an id of its own.
    pub fn make() -> Key {
        let random = clock::secret_bytes();
        let id = random.iter().take(MADE_ID_BYTES).map(|byte| format!("{byte:02x}")).collect();
        Key { id, secret: Box::new(Zeroizing::new(clock::secret_bytes())) }
    }

    /// The key with this id and these bytes.
    ///
    /// # Errors
    /// [`KeysError::Id`].
    pub fn new(id: &str, secret: [u8; SECRET_BYTES]) -> Result<Key, KeysError> {
        let secret = Box::new(Zeroizing::new(secret));
        let is_one = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        match (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_one) {
            true => Ok(Key { id: id.to_owned(), secret }),
            false => Err(KeysError::Id),
        }
    }

    /// What names it; no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// All of it, as it stands in a file.
    pub fn line(&self) -> Zeroizing<String> {
        let bytes = BEGIN.len() + self.id.len() + 1 + 2 * SECRET_BYTES;
        // In memory that does not move, so that no copy stays.
        let mut line = Zeroizing::new(String::with_capacity(bytes));
        line.push_str(BEGIN);
        line.push_str(&self.id);
        line.push('_');
        for byte in self.secret.iter() {
            let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
            line.extend([digit(byte >> 4), digit(byte & 15)]);
        }
        line
    }

    pub(super) fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }

    fn of_line(line: &str) -> Option<Key> {
        let (id, digits) = line.strip_prefix(BEGIN)?.rsplit_once('_')?;
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        if digits.len() != 2 * SECRET_BYTES {
            return None;
        }
        let digit = |n: u8| u8::try_from(char::from(n).to_digit(16)?).ok();
        for (byte, [high, low]) in secret.iter_mut().zip(digits.as_bytes().as_chunks().0) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Key::new(id, *secret).ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Keys by their ids, at least one. The newest seals, all open.
#[derive(Clone, Debug)]
pub struct Keys {
    older: Vec<Key>,
    newest: Key,
}

impl Keys {
    /// The most there may be.
    pub const MAX: usize = 1024;

    /// These keys, of which the last is the newest.
    ///
    /// # Errors
    /// When there is none, there are more than [`Keys::MAX`], or two have one id.
    pub fn new(mut keys: Vec<Key>) -> Result<Keys, KeysError> {
        if keys.len() > Keys::MAX {
            return Err(KeysError::TooMany);
        }
        let newest = keys.pop().ok_or(KeysError::None)?;
        let mut ids: Vec<&str> = keys.iter().chain([&newest]).map(Key::id).collect();
        ids.sort_unstable();
        let twice = ids.windows(2).find(|pair| pair.first() == pair.last());
        if let Some(id) = twice.and_then(<[&str]>::first) {
            return Err(KeysError::Twice((*id).to_owned()));
        }
        Ok(Keys { older: keys, newest })
    }

    /// The keys of a file's text.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn parse(text: &str) -> Result<Keys, KeysError> {
        let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let keys = lines.map(|(line, text)| Key::of_line(text).ok_or(KeysError::Line { line }));
        Keys::new(keys.take(Keys::MAX + 1).collect::<Result<_, _>>()?)
    }

    /// The key that seals.
    pub fn newest(&self) -> &Key {
        &self.newest
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.older.len() + 1
    }

    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        [&self.newest].into_iter().chain(&self.older).find(|key| key.id() == id)
    }
}
