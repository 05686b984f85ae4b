//! Whose answers were lost: who fetches over HTTP may say a name, and with the next fetch that the answer to the last
//! one did not come. What that had leased comes again at once then, as it does where a socket ends.

use std::{collections::VecDeque, sync::Arc};

use tidings_proto::Mode;

use super::{Durable, Held, Holder, Token};
use crate::broker::{error::SubscribeError, interest::Entry};

/// The most bytes the name of one may have.
const NAME_BYTES_MAX: usize = 64;
/// How many of those who fetched last are known by name, of a durable.
const READERS_MAX: usize = 64;

/// Who fetches, where that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchReader {
    /// Its name; there is one fetch at a time by this name, the newest.
    pub name: String,
    /// Whether the answer to its last fetch did not come.
    pub lost: bool,
}

impl FetchReader {
    /// What is wrong with the name of a reader.
    pub fn problem(name: &str) -> Option<String> {
        let is_name =
            (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
        (!is_name).then(|| format!("it has 1 to {NAME_BYTES_MAX} bytes, and no control characters"))
    }
}

/// Under which token each has fetched last; the oldest are forgotten.
#[derive(Debug, Default)]
pub(super) struct Readers(VecDeque<(Box<str>, Token)>);

impl Readers {
    /// Notes its fetch and gives its last one.
    fn fetches(&mut self, name: &str, token: Token) -> Option<Token> {
        let known = self.0.iter().position(|(known, _)| **known == *name);
        let last = known.and_then(|at| self.0.remove(at)).map(|(_, token)| token);
        if self.0.len() >= READERS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((name.into(), token));
        last
    }

    fn last_of(&self, name: &str) -> Option<Token> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, token)| *token)
    }
}

impl Held {
    /// This reader now reads by another token, and may have lost the answer to its last fetch.
    pub(super) fn reads_by(&mut self, token: Token, name: &str, lost: bool) {
        let Some(last) = self.readers.fetches(name, token) else { return };
        if lost {
            self.state.release_of(Some(last));
        }
        // That fetch may wait still, and ends then.
        self.wake_all();
    }

    /// Whether who fetched by this name now reads over a socket or a stream.
    fn has_gone_on(&self, name: &str) -> bool {
        self.readers.last_of(name).is_some_and(|token| self.members.is_socket(token))
    }
}

impl Durable {
    /// Somebody fetches over HTTP, maybe by this name: a socket that held it is superseded, other fetchers are not.
    ///
    /// # Errors
    /// [`SubscribeError::GoneOn`] where this reader has gone on over a socket or a stream, which still reads: then the
    /// request was on its way meanwhile, and nobody waits for its answer.
    pub fn attach_fetch(
        &self,
        entry: Arc<Entry>,
        reader: Option<&FetchReader>,
    ) -> Result<Token, SubscribeError> {
        let mut held = self.lock();
        if let Some(reader) = reader.filter(|reader| held.has_gone_on(&reader.name)) {
            return Err(SubscribeError::GoneOn { reader: reader.name.clone() });
        }
        if held.holder != Holder::Fetch && self.spec.options.mode == Mode::Exclusive {
            held.state.release();
            held.holder = Holder::Fetch;
            held.wake_all();
        }
        let token = held.next_token();
        held.members.add(token, entry, true);
        if let Some(reader) = reader {
            held.reads_by(token, &reader.name, reader.lost);
        }
        drop(held);
        self.tell_graves();
        Ok(token)
    }

    /// Whether its reader has begun another fetch since: then what this one has leased is given back, since nobody waits for
    /// it any more.
    pub fn is_past(&self, token: Token, reader: Option<&FetchReader>) -> bool {
        let Some(reader) = reader else { return false };
        let mut held = self.lock();
        let is_past = held.readers.last_of(&reader.name).is_some_and(|last| last != token);
        if is_past {
            held.state.release_of(Some(token));
            held.wake_all();
            drop(held);
            self.tell_graves();
        }
        is_past
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_fetch_of_each_is_known_and_of_so_many() {
        let mut readers = Readers::default();
        assert_eq!(readers.fetches("a", 1), None);
        assert_eq!(readers.fetches("b", 2), None);
        assert_eq!(readers.fetches("a", 3), Some(1));
        assert_eq!((readers.last_of("a"), readers.last_of("b")), (Some(3), Some(2)));
        for n in 0..READERS_MAX as u64 - 1 {
            readers.fetches(&format!("r{n}"), 10 + n);
        }
        assert_eq!((readers.last_of("a"), readers.last_of("b")), (Some(3), None));
        assert_eq!(readers.0.len(), READERS_MAX);
    }
}
