//! The receipts of one durable that wait for the commit of the acks they tell of.

use std::sync::Arc;

use parking_lot::Mutex;
use tidings_proto::{
    Topic,
    control::{RECEIPT_ACKED, ReceiptAcked},
};

use crate::{
    clock,
    log::{Draft, codec},
};

/// An event whose publisher wishes for receipts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Wish {
    /// The event.
    pub(in crate::broker) offset: u64,
    /// Where its publisher is told.
    pub(in crate::broker) topic: Topic,
}

/// What a durable has to tell publishers. Shared with what the durable becomes by a change.
#[derive(Debug, Default)]
pub(in crate::broker) struct ReceiptQueue(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Vec<Wish>,
    /// So many of them are in the commit that is being written.
    writing: usize,
}

impl ReceiptQueue {
    /// None wait.
    pub(in crate::broker) fn new() -> Arc<ReceiptQueue> {
        Arc::default()
    }

    /// These are acknowledged.
    pub(in crate::broker) fn add(&self, wishes: impl Iterator<Item = Wish>) {
        self.0.lock().waiting.extend(wishes);
    }

    /// How many wait.
    pub(in crate::broker) fn len(&self) -> usize {
        self.0.lock().waiting.len()
    }

    /// The receipts for a commit that begins now, of the durable of this name. [`ReceiptQueue::end`] follows.
    pub(in crate::broker) fn begin(&self, name: &str) -> Vec<Draft> {
        let mut inner = self.0.lock();
        inner.writing = inner.waiting.len();
        inner.waiting.iter().filter_map(|wish| draft(wish, name)).collect()
    }

    /// The commit is durable, or it has failed.
    pub(in crate::broker) fn end(&self, is_durable: bool) {
        let mut inner = self.0.lock();
        let written = std::mem::take(&mut inner.writing);
        if is_durable {
            inner.waiting.drain(..written);
            if inner.waiting.is_empty() {
                inner.waiting.shrink_to_fit();
            }
        }
    }
}

fn draft(wish: &Wish, name: &str) -> Option<Draft> {
    let receipt = ReceiptAcked { offset: wish.offset, subscription: name.to_owned() };
    let data = serde_json::to_vec(&receipt).ok()?;
    Some(codec::control(wish.topic.clone(), RECEIPT_ACKED, data, clock::event_id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(offsets: std::ops::Range<u64>) -> impl Iterator<Item = Wish> {
        offsets.map(|offset| Wish { offset, topic: Topic::parse("$receipts.a").unwrap() })
    }

    #[test]
    fn what_was_not_written_is_written_with_the_next_commit() {
        let queue = ReceiptQueue::new();
        queue.add(wishes(1..4));
        assert_eq!(queue.begin("d").len(), 3);
        // What comes while it is written is in the next one.
        queue.add(wishes(4..6));
        queue.end(false);
        assert_eq!((queue.len(), queue.begin("d").len()), (5, 5));
        queue.add(wishes(6..7));
        queue.end(true);
        assert_eq!((queue.len(), queue.begin("d").len()), (1, 1));
        queue.end(true);
        queue.end(true);
        assert!(queue.begin("d").is_empty());
    }
}
