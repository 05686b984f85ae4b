//! The newest events whose publishers wish for receipts, so that an ack of something new asks nobody.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tidings_proto::{Cursor, Offset};

/// How many are remembered.
const REMEMBERED_MAX: usize = 65_536;

/// The offsets of the newest of them.
#[derive(Debug)]
pub(in crate::broker) struct Flagged(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// All behind this are in `offsets`.
    after: Cursor,
    offsets: BTreeSet<u64>,
    max: usize,
}

impl Flagged {
    /// None is known up to here, and there is none behind.
    pub(in crate::broker) fn new(after: Cursor) -> Flagged {
        let inner = Inner { after, offsets: BTreeSet::new(), max: REMEMBERED_MAX };
        Flagged(Mutex::new(inner))
    }

    /// These are durable.
    pub(in crate::broker) fn add(&self, offsets: impl Iterator<Item = Offset>) {
        let mut offsets = offsets.peekable();
        if offsets.peek().is_none() {
            return;
        }
        let mut inner = self.0.lock();
        for offset in offsets {
            inner.offsets.insert(offset.get());
            if inner.offsets.len() > inner.max
                && let Some(oldest) = inner.offsets.pop_first()
            {
                inner.after = Cursor::new(oldest);
            }
        }
    }

    /// Up to `limit` of those in (`after`, `until`] that are remembered; and the cursor behind which all are.
    pub(in crate::broker) fn between(
        &self,
        after: Cursor,
        until: Cursor,
        limit: usize,
    ) -> (Vec<Offset>, Cursor) {
        use std::ops::Bound::{Excluded, Included};
        let inner = self.0.lock();
        if until <= after {
            return (Vec::new(), inner.after);
        }
        let range = inner.offsets.range((Excluded(after.get()), Included(until.get())));
        (range.take(limit).copied().filter_map(Offset::new).collect(), inner.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(n: u64) -> Offset {
        Offset::new(n).unwrap()
    }

    #[test]
    fn the_newest_are_remembered_and_it_says_which() {
        let flagged = Flagged::new(Cursor::new(10));
        flagged.0.lock().max = 3;
        flagged.add(std::iter::empty());
        flagged.add([12, 15].map(offset).into_iter());
        let between = |after, until, limit| {
            let (found, known) = flagged.between(Cursor::new(after), Cursor::new(until), limit);
            (found.into_iter().map(Offset::get).collect::<Vec<_>>(), known.get())
        };
        assert_eq!(between(10, 15, 9), (vec![12, 15], 10));
        assert_eq!((between(12, 14, 9).0, between(15, 3, 9).0), (vec![], vec![]));
        flagged.add([16, 17, 18].map(offset).into_iter());
        assert_eq!(between(10, 99, 9), (vec![16, 17, 18], 15));
        assert_eq!(between(15, 99, 2), (vec![16, 17], 15));
    }
}
