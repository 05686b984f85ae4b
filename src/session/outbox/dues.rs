//! When subscriptions of a socket are to be looked at though nothing was announced: a lease ends, or a batch has waited
//! long enough. Asking all of them whenever the socket waits would cost more than what they have to say.

use std::collections::{BTreeSet, HashMap};

/// Moments in monotonic milliseconds, by subscription. One that has passed for nothing costs a look, and no more.
/// Nothing in memory while there is none.
#[derive(Debug, Default)]
pub(super) struct Dues(Option<Box<Moments>>);

#[derive(Debug, Default)]
struct Moments {
    by_number: HashMap<u32, u64>,
    order: BTreeSet<(u64, u32)>,
}

impl Dues {
    /// This one is to be looked at then.
    pub(super) fn set(&mut self, number: u32, due_ms: Option<u64>) {
        if due_ms.is_none() && self.0.is_none() {
            return;
        }
        let moments = self.0.get_or_insert_default();
        let before = match due_ms {
            Some(due_ms) => moments.by_number.insert(number, due_ms),
            None => moments.by_number.remove(&number),
        };
        if before == due_ms {
            return;
        }
        if let Some(before) = before {
            moments.order.remove(&(before, number));
        }
        moments.order.extend(due_ms.map(|due_ms| (due_ms, number)));
        if moments.order.is_empty() {
            self.0 = None;
        }
    }

    /// The next, and when.
    pub(super) fn first(&self) -> Option<(u64, u32)> {
        self.0.as_ref()?.order.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_is_the_earliest_that_still_holds() {
        let mut dues = Dues::default();
        assert_eq!(dues.first(), None);
        for (number, due_ms) in [(1, 50), (2, 30), (3, 40), (2, 60), (3, 40)] {
            dues.set(number, Some(due_ms));
        }
        assert_eq!(dues.first(), Some((40, 3)));
        dues.set(3, None);
        dues.set(9, None);
        assert_eq!(dues.first(), Some((50, 1)));
        dues.set(1, None);
        dues.set(2, None);
        assert_eq!(dues.first(), None);
        assert!(dues.0.is_none());
    }
}
