//! The queue of answers of one socket: from the conversation to the outbox, bounded in number and bytes.
//!
//! - A client that asks and does not read is not read any more once the bound is reached.
//! - Beyond `FREE_BYTES` each the answers of all sockets have one room together: where that is full a large answer is
//!   `unavailable`, and small ones wait for those before them.
//! - One sends and one receives, so each side has one waker. An idle queue holds no memory but itself: a channel
//!   of the runtime would cost an idle socket a kilobyte.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::{Mutex, MutexGuard};
use tidings_proto::message::Reply;
use tokio::sync::Semaphore;

use super::{
    no_room,
    outbox::Item,
    rates::{Kind, Meter},
};

/// How many answers may wait for a socket.
const ANSWERS_MAX: usize = 1024;
/// How many bytes they may have together, as far as they are known beforehand.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How many of them need no place in the room that all sockets have together.
const FREE_BYTES: usize = 16 << 10;

/// The end where answers go in; the queue ends with it.
pub struct Answers(Arc<Mutex<State>>);

/// The end where they come out.
pub struct AnswerQueue(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    items: VecDeque<Queued>,
    /// The bytes of those, and of those that were taken and are not answered yet.
    bytes: usize,
    /// No answer will come any more, or nobody takes them.
    is_over: bool,
    sender: Option<Waker>,
    receiver: Option<Waker>,
    /// The numbers of subscriptions that ended by themselves and that the conversation does not know of yet.
    ended: Vec<u32>,
    /// What the session has taken of its limits, once there is one.
    meter: Option<Arc<Meter>>,
    /// A permit for each byte of answers that wait, of all sockets.
    shared: Option<Arc<Semaphore>>,
}

/// An answer with its place in the queue's room.
pub(super) struct Queued {
    pub(super) item: Item,
    pub(super) room: Room,
}

/// A place in the queue's room, which is free again when this is dropped.
pub(super) struct Room {
    queue: Arc<Mutex<State>>,
    bytes: u32,
    /// So many permits are taken in the room of all sockets.
    is_shared: bool,
}

impl Room {
    /// Whether it is one in the room that all sockets have together.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }
}

/// What comes of asking for room.
enum Entry {
    /// There is, in the room of all sockets or without a place there.
    Room { is_shared: bool },
    /// What is before it must go first.
    Wait,
    /// All sockets together have too much, and nothing of this one's is before it.
    Full,
}

/// What [`AnswerQueue::try_recv`] finds.
pub(super) enum Next {
    /// The next answer.
    Answer(Queued),
    /// There is none now.
    None,
    /// None will come.
    Ended,
}

/// A queue for one socket; `shared` is the room of all of them.
pub fn channel(shared: Arc<Semaphore>) -> (Answers, AnswerQueue) {
    let state = Arc::new(Mutex::new(State { shared: Some(shared), ..State::default() }));
    (Answers(state.clone()), AnswerQueue(state))
}

impl Answers {
    /// Waits for room; false when nobody takes answers any more. One at a time: a second one that waits would
    /// take the place of the first.
    pub async fn send(&self, item: Item) -> bool {
        let mut item = Some(item);
        poll_fn(|context| self.poll_send(&mut item, context)).await
    }

    fn poll_send(&self, item: &mut Option<Item>, context: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.0.lock();
        if state.is_over {
            return Poll::Ready(false);
        }
        let bytes = item.as_ref().map_or(0, Item::cost_bytes);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let is_shared = match state.enter(bytes) {
            Entry::Room { is_shared } => is_shared,
            Entry::Wait => {
                state.sender = Some(context.waker().clone());
                return Poll::Pending;
            }
            Entry::Full => {
                item.iter_mut().for_each(Item::give_up);
                false
            }
        };
        if let Some(item) = item.take() {
            state.bytes += bytes as usize;
            let room = Room { queue: self.0.clone(), bytes, is_shared };
            state.items.push_back(Queued { item, room });
        }
        wake(state, |state| &mut state.receiver);
        Poll::Ready(true)
    }

    /// What is sent again from here on is this session's.
    pub(super) fn charge_to(&self, meter: Arc<Meter>) {
        self.0.lock().meter = Some(meter);
    }

    /// The subscriptions that have ended by themselves since the last call.
    pub(super) fn take_ended(&self) -> Vec<u32> {
        std::mem::take(&mut self.0.lock().ended)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_over = true;
        wake(state, |state| &mut state.receiver);
    }
}

impl AnswerQueue {
    /// The next answer, or `None` when none will come. Cancel safe.
    pub(super) async fn recv(&mut self) -> Option<Queued> {
        poll_fn(|context| {
            let mut state = self.0.lock();
            match state.next() {
                Next::Answer(queued) => Poll::Ready(Some(queued)),
                Next::Ended => Poll::Ready(None),
                Next::None => {
                    state.receiver = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next answer, if there is one.
    pub(super) fn try_recv(&mut self) -> Next {
        self.0.lock().next()
    }

    /// So many bytes of events that were there before are sent. Charged at once: whoever goes then has had them.
    pub(super) fn replayed(&self, bytes: u64) {
        if bytes > 0
            && let Some(meter) = &self.0.lock().meter
        {
            meter.charge(Kind::ReplayBytes, bytes);
        }
    }

    /// Bounded by the subscriptions of the socket: they end once.
    pub(super) fn ended(&self, subscription: u32) {
        self.0.lock().ended.push(subscription);
    }
}

impl Drop for AnswerQueue {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_over = true;
        // Each of them gives its room back, for which it needs the lock.
        let items = std::mem::take(&mut state.items);
        wake(state, |state| &mut state.sender);
        drop(items);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.bytes -= self.bytes as usize;
        if let Some(shared) = state.shared.as_ref().filter(|_| self.is_shared) {
            shared.add_permits(self.bytes as usize);
        }
        wake(state, |state| &mut state.sender);
    }
}

impl State {
    fn enter(&self, bytes: u32) -> Entry {
        let is_first = self.bytes == 0;
        let all = self.bytes + bytes as usize;
        let has_room = is_first || all <= ANSWER_BYTES_MAX;
        if self.items.len() >= ANSWERS_MAX || !has_room {
            return Entry::Wait;
        }
        let Some(shared) = self.shared.as_ref().filter(|_| all > FREE_BYTES) else {
            return Entry::Room { is_shared: false };
        };
        match shared.try_acquire_many(bytes) {
            Ok(permits) => {
                // Given back with the room.
                permits.forget();
                Entry::Room { is_shared: true }
            }
            Err(_) if is_first => Entry::Full,
            Err(_) => Entry::Wait,
        }
    }

    fn next(&mut self) -> Next {
        match self.items.pop_front() {
            Some(queued) => {
                if self.items.is_empty() {
                    self.items = VecDeque::new();
                }
                Next::Answer(queued)
            }
            None if self.is_over => Next::Ended,
            None => Next::None,
        }
    }
}

/// Wakes the one who waits there, if somebody does, once the lock is free.
fn wake(mut state: MutexGuard<'_, State>, who: impl Fn(&mut State) -> &mut Option<Waker>) {
    let waker = who(&mut state).take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Item {
    /// About what it holds in memory while it waits, or will be when it is known.
    fn cost_bytes(&self) -> usize {
        const PLAIN: usize = 256;
        const RESULT: usize = 128;
        const MEMBER: usize = 1280;
        match self {
            Item::Pending(_, pending) => PLAIN + pending.results() * RESULT,
            Item::Reply(_, Reply::Receipts(receipts)) => PLAIN + receipts.receipts.len() * RESULT,
            Item::Reply(_, Reply::Presence(presence)) => PLAIN + presence.members.len() * MEMBER,
            Item::Reply(_, Reply::PublishedBatch { results }) => PLAIN + results.len() * RESULT,
            Item::Pong(payload) => PLAIN + payload.len(),
            Item::Reply(..) | Item::Subscribe(..) | Item::Unsubscribe(..) | Item::Push(_) => PLAIN,
        }
    }

    /// There is no room for it. Of what was done, which is never large, the answer stays.
    fn give_up(&mut self) {
        let Item::Reply(_, reply) = self else { return };
        if matches!(reply, Reply::Receipts(_) | Reply::Presence(_)) {
            *reply = Reply::Error(no_room());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    fn pong(bytes: usize) -> Item {
        Item::Pong(vec![7; bytes].into())
    }

    #[test]
    fn answers_come_in_order_and_the_last_is_followed_by_the_end() {
        let (answers, mut queue) = channel(Arc::new(Semaphore::new(8 << 20)));
        assert!(matches!(queue.try_recv(), Next::None));
        for bytes in 1..=3 {
            assert_eq!(answers.send(pong(bytes)).now_or_never(), Some(true));
        }
        drop(answers);
        for bytes in 1..=3 {
            let Some(Some(queued)) = queue.recv().now_or_never() else { panic!("it waits") };
            assert!(matches!(queued.item, Item::Pong(payload) if payload.len() == bytes));
        }
        assert!(queue.recv().now_or_never().unwrap().is_none());
        assert!(matches!(queue.try_recv(), Next::Ended));
        assert_eq!(queue.0.lock().bytes, 0);
    }

    #[test]
    fn who_waits_for_room_goes_on_when_it_is_given_back_and_not_before() {
        let (answers, mut queue) = channel(Arc::new(Semaphore::new(8 << 20)));
        let half = ANSWER_BYTES_MAX / 2;
        assert_eq!(answers.send(pong(half)).now_or_never(), Some(true));
        let mut waits = pin!(answers.send(pong(half)));
        assert_eq!(waits.as_mut().now_or_never(), None);
        let Next::Answer(Queued { item, room }) = queue.try_recv() else { panic!("none") };
        drop(item);
        assert_eq!(waits.as_mut().now_or_never(), None, "its answer is not known yet");
        drop(room);
        assert_eq!(waits.as_mut().now_or_never(), Some(true));
        // One that is too large for all of the room goes alone.
        while let Next::Answer(_) = queue.try_recv() {}
        assert_eq!(answers.send(pong(2 * ANSWER_BYTES_MAX)).now_or_never(), Some(true));
        assert_eq!(answers.send(pong(0)).now_or_never(), None);
    }

    #[test]
    fn s5_large_answers_have_a_room_together_and_give_it_back() {
        let shared = Arc::new(Semaphore::new(100_000));
        let (answers, mut queue) = channel(shared.clone());
        let (others, _others) = channel(shared.clone());
        assert_eq!(answers.send(pong(90_000)).now_or_never(), Some(true));
        assert!(shared.available_permits() < 10_000);
        // What is small needs none.
        assert_eq!(others.send(pong(1000)).now_or_never(), Some(true));
        let mut waits = pin!(others.send(pong(50_000)));
        assert_eq!(waits.as_mut().now_or_never(), None);
        drop(queue.try_recv());
        assert_eq!(shared.available_permits(), 100_000);
    }

    #[test]
    fn there_are_so_many_at_most_and_nothing_is_sent_to_nobody() {
        let (answers, queue) = channel(Arc::new(Semaphore::new(8 << 20)));
        for _ in 0..ANSWERS_MAX {
            assert_eq!(answers.send(pong(0)).now_or_never(), Some(true));
        }
        assert_eq!(answers.send(pong(0)).now_or_never(), None);
        drop(queue);
        assert_eq!(answers.send(pong(0)).now_or_never(), Some(false));
        assert_eq!(answers.0.lock().bytes, 0, "the room of those that waited is free");
    }

    #[test]
    fn s7_what_was_sent_again_is_owed_also_by_who_goes_at_once() {
        use crate::{auth::Authenticator, session::rates};
        let mut options = rates::Options::default();
        options.ip.set(Kind::ReplayBytes, Some(rates::Rate { per_second: 1, burst: 10 }));
        let limiter = rates::Limiter::new(options);
        let open = Authenticator::new(&crate::auth::Options::default()).unwrap();
        let identity = open.anonymous().unwrap();
        let meter = || Meter::new(&limiter, "10.0.0.1".parse().unwrap(), identity);
        let (answers, queue) = channel(Arc::new(Semaphore::new(8 << 20)));
        answers.charge_to(Arc::new(meter()));
        queue.replayed(10);
        drop((answers, queue));
        assert!(meter().take(Kind::ReplayBytes, 1).is_err());
    }

    #[tokio::test]
    async fn each_side_wakes_the_other() {
        let (answers, mut queue) = channel(Arc::new(Semaphore::new(8 << 20)));
        let sending = tokio::spawn(async move {
            for n in 0..100 {
                assert!(answers.send(pong(ANSWER_BYTES_MAX / 3 + n)).await);
            }
        });
        let mut taken = 0;
        while let Some(queued) = queue.recv().await {
            assert!(matches!(queued.item, Item::Pong(_)));
            taken += 1;
        }
        sending.await.unwrap();
        assert_eq!(taken, 100);
    }
}
