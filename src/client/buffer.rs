//! What a subscription has received and nobody has taken yet.
//!
//! - The connection puts in whole batches and looks [`Buffer::is_full`] before it reads more: so
//!   there are never more than the bound and one batch; of a durable that leases, never more than
//!   its `max_in_flight`.
//! - One taker; every item is taken once. [`Buffer::next`] is cancel safe.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Delivery, Error};

/// The most bytes of data that wait before the socket is no longer read: 1 MiB, as in the other
/// clients.
pub(super) const BUFFER_BYTES_MAX: usize = 1 << 20;
/// What an event takes beside its data, about.
const ENVELOPE_BYTES: usize = 512;

/// See the module.
#[derive(Debug)]
pub(super) struct Buffer {
    events_max: usize,
    state: Mutex<State>,
    /// Something was put in, or nothing more will be.
    filled: Notify,
    /// There is room again; shared by all subscriptions of a client.
    room: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Delivery>,
    bytes: usize,
    /// Nothing more comes, for this reason.
    ended: Option<Error>,
    /// Nobody takes any more.
    abandoned: bool,
}

impl State {
    fn pop(&mut self) -> Option<Delivery> {
        let item = self.items.pop_front()?;
        self.bytes = self.bytes.saturating_sub(cost_bytes(&item));
        Some(item)
    }
}

impl Buffer {
    /// An empty one that is full with `events_max` items.
    pub(super) fn new(events_max: usize, room: Arc<Notify>) -> Buffer {
        Buffer { events_max, state: Mutex::default(), filled: Notify::new(), room }
    }

    /// Puts items in, in order.
    pub(super) fn push(&self, items: impl IntoIterator<Item = Delivery>) {
        let mut state = self.state.lock();
        if state.abandoned || state.ended.is_some() {
            return;
        }
        for item in items {
            state.bytes += cost_bytes(&item);
            state.items.push_back(item);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Takes out the events and what was said of them: they will come again.
    pub(super) fn forget_events(&self) {
        let mut state = self.state.lock();
        state.items.retain(|item| {
            !matches!(item, Delivery::Event { .. } | Delivery::CaughtUp(_) | Delivery::Acked(_))
        });
        state.bytes = state.items.iter().map(cost_bytes).sum();
    }

    /// Whether no more should be read before something is taken.
    pub(super) fn is_full(&self) -> bool {
        let state = self.state.lock();
        let full = state.items.len() >= self.events_max || state.bytes >= BUFFER_BYTES_MAX;
        full && !state.abandoned
    }

    /// Whether everything has been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().items.is_empty()
    }

    /// Nothing more comes; what is here can still be taken. The first reason stays.
    pub(super) fn end(&self, why: Error) {
        self.state.lock().ended.get_or_insert(why);
        self.filled.notify_one();
    }

    /// Nobody takes any more.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        state.abandoned = true;
        state.items = VecDeque::new();
        drop(state);
        self.room.notify_one();
    }

    /// Whether nobody takes any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.state.lock().abandoned
    }

    /// The next item, if there is one now.
    pub(super) fn try_next(&self) -> Option<Result<Delivery, Error>> {
        let mut state = self.state.lock();
        let was_full = state.items.len() >= self.events_max || state.bytes >= BUFFER_BYTES_MAX;
        let Some(item) = state.pop() else { return state.ended.clone().map(Err) };
        // Announced at each step down from the bound and at the end: who waits looks again.
        let announce = was_full || state.items.is_empty();
        drop(state);
        if announce {
            self.room.notify_one();
        }
        Some(Ok(item))
    }

    /// The next item.
    ///
    /// # Errors
    /// Why nothing more comes, on this and every further call.
    pub(super) async fn next(&self) -> Result<Delivery, Error> {
        loop {
            if let Some(item) = self.try_next() {
                return item;
            }
            self.filled.notified().await;
        }
    }
}

fn cost_bytes(item: &Delivery) -> usize {
    match item {
        Delivery::Event { event, .. } => {
            ENVELOPE_BYTES + event.data.as_ref().map_or(0, bytes::Bytes::len)
        }
        _ => ENVELOPE_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidings_proto::Cursor;

    use super::*;

    fn item(n: u64) -> Delivery {
        Delivery::CaughtUp(Cursor::new(n))
    }

    #[tokio::test]
    async fn a_full_buffer_announces_room_and_ends_after_the_last_item() {
        let room = Arc::new(Notify::new());
        let buffer = Buffer::new(2, room.clone());
        buffer.push([item(1), item(2), item(3)]);
        assert!(buffer.is_full());
        buffer.end(Error::Ended);
        buffer.end(Error::Closed);
        buffer.push([item(4)]);
        assert_eq!(buffer.next().await.unwrap(), item(1));
        tokio::time::timeout(Duration::from_secs(5), room.notified()).await.unwrap();
        assert!(buffer.is_full());
        assert_eq!(buffer.next().await.unwrap(), item(2));
        assert!(!buffer.is_full());
        assert_eq!(buffer.next().await.unwrap(), item(3));
        assert!(matches!(buffer.next().await, Err(Error::Ended)));
        assert!(matches!(buffer.next().await, Err(Error::Ended)));
    }

    #[tokio::test]
    async fn a_taker_that_waits_is_woken() {
        let buffer = Arc::new(Buffer::new(2, Arc::default()));
        let taker = tokio::spawn({
            let buffer = buffer.clone();
            async move { buffer.next().await }
        });
        tokio::task::yield_now().await;
        buffer.push([item(7)]);
        assert_eq!(taker.await.unwrap().unwrap(), item(7));
        buffer.abandon();
        buffer.push([item(8), item(9)]);
        assert!(buffer.is_empty() && buffer.is_abandoned() && !buffer.is_full());
    }
}
