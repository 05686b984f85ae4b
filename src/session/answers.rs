//! The queue of answers of one socket: from the conversation to the outbox, bounded in number and bytes.
//!
//! A client that asks and does not read is not read any more once the bound is reached.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tidings_proto::message::Reply;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::outbox::Item;

/// How many answers may wait for a socket.
const ANSWERS_MAX: usize = 1024;
/// How many bytes they may have together, as far as they are known beforehand.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The end where answers go in.
#[derive(Clone)]
pub struct Answers {
    /// Boxed: the channel keeps room for 32 of them from the start, and most sockets are idle.
    queue: mpsc::Sender<Box<Queued>>,
    room: Arc<Semaphore>,
    ended: Ended,
    replayed: Arc<AtomicU64>,
}

/// The end where they come out.
pub struct AnswerQueue {
    queue: mpsc::Receiver<Box<Queued>>,
    ended: Ended,
    /// Bytes of events sent that were there before, which the conversation does not know of yet.
    replayed: Arc<AtomicU64>,
}

/// The numbers of subscriptions that ended by themselves and that the conversation does not know of yet.
type Ended = Arc<Mutex<Vec<u32>>>;

/// An answer with its place in the queue's room, which is free again when this is dropped.
pub(super) struct Queued {
    pub(super) item: Item,
    pub(super) room: OwnedSemaphorePermit,
}

/// A queue for one socket.
pub fn channel() -> (Answers, AnswerQueue) {
    let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
    let ended = Ended::default();
    let room = Arc::new(Semaphore::new(ANSWER_BYTES_MAX));
    let replayed = Arc::<AtomicU64>::default();
    let queue = AnswerQueue { queue: receiver, ended: ended.clone(), replayed: replayed.clone() };
    (Answers { queue: sender, room, ended, replayed }, queue)
}

impl Answers {
    /// Waits for room; false when nobody takes answers any more.
    pub async fn send(&self, item: Item) -> bool {
        let bytes = item.cost_bytes().clamp(1, ANSWER_BYTES_MAX);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = match self.room.clone().try_acquire_many_owned(permits) {
            Ok(room) => Ok(room),
            Err(_) => tokio::select! {
                room = self.room.clone().acquire_many_owned(permits) => room,
                () = self.queue.closed() => return false,
            },
        };
        match room {
            Ok(room) => self.queue.send(Box::new(Queued { item, room })).await.is_ok(),
            Err(_) => false,
        }
    }

    /// How many bytes of events that were there before have been sent since the last call.
    pub(super) fn take_replayed(&self) -> u64 {
        self.replayed.swap(0, Ordering::Relaxed)
    }

    /// The subscriptions that have ended by themselves since the last call.
    pub(super) fn take_ended(&self) -> Vec<u32> {
        std::mem::take(&mut self.ended.lock())
    }
}

impl AnswerQueue {
    pub(super) async fn recv(&mut self) -> Option<Box<Queued>> {
        self.queue.recv().await
    }

    pub(super) fn try_recv(&mut self) -> Result<Box<Queued>, mpsc::error::TryRecvError> {
        self.queue.try_recv()
    }

    /// So many bytes of events that were there before are sent.
    pub(super) fn replayed(&self, bytes: u64) {
        self.replayed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bounded by the subscriptions of the socket: they end once.
    pub(super) fn ended(&self, subscription: u32) {
        self.ended.lock().push(subscription);
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
}
