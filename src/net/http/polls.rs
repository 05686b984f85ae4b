//! Requests that wait for an event: how many there may be, in all and of one reader.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use tidings_proto::{Code, WireError};

use crate::{
    clock,
    net::problem::Refusal,
    session::{Session, rates::network},
};

/// When to come again where too many wait already, in milliseconds.
const CROWDED_MS: (u64, u64) = (1000, 5000);

/// All that wait at one door.
pub(in crate::net) struct Polls {
    max: usize,
    /// 0: no other than `max`.
    per_reader_max: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    /// Of those that wait, where a reader has a bound; so it has at most `max` entries.
    by_reader: HashMap<Reader, usize>,
}

/// Who waits: somebody with a name, or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reader {
    Subject(String),
    Network([u8; 8]),
}

/// One that waits, until it is dropped.
pub(super) struct Poll {
    polls: Arc<Polls>,
    reader: Option<Reader>,
}

impl Polls {
    /// So many may wait, and so many of one reader (0: as many).
    pub(in crate::net) fn new(max: usize, per_reader_max: usize) -> Arc<Polls> {
        Arc::new(Polls { max, per_reader_max, counts: Mutex::default() })
    }

    /// Lets a request of this session, which came from `ip`, wait.
    ///
    /// # Errors
    /// `rate_limited` when as many wait as may, of all or of this reader.
    pub(super) fn enter(self: &Arc<Polls>, session: &Session, ip: IpAddr) -> Result<Poll, Refusal> {
        let reader = (self.per_reader_max > 0).then(|| match session.identity().name() {
            Some(subject) => Reader::Subject(subject.to_owned()),
            None => Reader::Network(network(ip)),
        });
        self.admit(reader)
    }

    fn admit(self: &Arc<Polls>, reader: Option<Reader>) -> Result<Poll, Refusal> {
        let mut counts = self.counts.lock();
        if counts.all >= self.max {
            return Err(crowded("as many reads as may wait are waiting"));
        }
        if let Some(reader) = &reader {
            let count = counts.by_reader.entry(reader.clone()).or_default();
            if *count >= self.per_reader_max {
                return Err(crowded("as many reads of yours as may wait are waiting"));
            }
            *count += 1;
        }
        counts.all += 1;
        Ok(Poll { polls: self.clone(), reader })
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        let mut counts = self.polls.counts.lock();
        counts.all -= 1;
        if let Some(Entry::Occupied(mut count)) =
            self.reader.take().map(|it| counts.by_reader.entry(it))
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

fn crowded(why: &str) -> Refusal {
    let wait_ms = clock::random_between(CROWDED_MS.0, CROWDED_MS.1);
    let text = format!("wait: {why}: come again, or use a stream");
    WireError::new(Code::RateLimited, text).retry_after_ms(wait_ms).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Option<Reader> {
        Some(Reader::Subject("alice".to_owned()))
    }

    #[test]
    fn one_reader_takes_no_more_than_its_share_and_all_no_more_than_there_is() {
        let polls = Polls::new(3, 2);
        let here = Some(Reader::Network([1; 8]));
        let first = polls.admit(alice()).ok().unwrap();
        let _second = polls.admit(alice()).ok().unwrap();
        assert!(polls.admit(alice()).is_err(), "it has its share");
        let third = polls.admit(here.clone()).ok().unwrap();
        drop(first);
        assert!(polls.admit(here.clone()).is_ok());
        let _first = polls.admit(alice()).ok().unwrap();
        assert!(polls.admit(here.clone()).is_err(), "all places are taken");
        drop(third);
        assert!(polls.admit(here).is_ok());
        let counts = polls.counts.lock();
        assert_eq!((counts.all, counts.by_reader.len()), (2, 1));
    }
}
