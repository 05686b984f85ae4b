//! The ack box: durables whose acks wait for the next commit, and who waits with them.
//!
//! - Bounded by the number of durables that are in use.
//! - The commit thread drains it with every commit into one `$acks` event with the newest state of each;
//!   whoever waits for its ack is answered when that event is durable.
//! - The dead letters that a state counts as written are in the same commit as the state.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tidings_proto::{
    Cursor, Topic,
    control::{ACKS_TOPIC, AckState, AckStates},
};
use tokio::sync::oneshot;

use super::{held::Durable, letters};
use crate::{
    clock,
    log::{AppendError, Draft, codec},
    metrics,
};

/// The most dead letters of one commit.
const LETTERS_MAX: usize = 256;

/// Acks that wait for the next commit.
#[derive(Debug, Default)]
pub(super) struct AckBox {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the durable's number: another life of the name has another.
    durables: HashMap<u64, Arc<Durable>>,
    waiting: Vec<Waiter>,
    /// Those whose acks are in the commit that is being written, with the floors it will have.
    writing: Vec<Waiter>,
    floors: Vec<(Arc<Durable>, Cursor)>,
    /// Nothing is committed any more.
    closed: bool,
}

type Waiter = oneshot::Sender<Result<(), AppendError>>;

/// Resolves when an ack is durable.
#[derive(Debug)]
pub struct AckTicket(oneshot::Receiver<Result<(), AppendError>>);

impl Future for AckTicket {
    /// Why the ack could not be stored: the events will come again.
    type Output = Result<(), AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(outcome.unwrap_or(Err(AppendError::Closed)))
    }
}

impl AckBox {
    /// An empty box.
    pub(super) fn new() -> Arc<AckBox> {
        Arc::new(AckBox::default())
    }

    /// The state of this durable, as it is when the next commit begins, is to be in that commit.
    pub(super) fn submit(&self, durable: &Arc<Durable>) -> AckTicket {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.inner.lock();
        if !inner.closed {
            inner.durables.insert(durable.spec.number, durable.clone());
            inner.waiting.push(sender);
        }
        AckTicket(receiver)
    }

    /// The commit thread has gone: whoever waits is told, and whoever comes.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        // Dropped senders say so.
        inner.waiting.clear();
        inner.durables.clear();
    }

    pub(super) fn drain(&self) -> Vec<Draft> {
        let durables = {
            let mut inner = self.inner.lock();
            if inner.durables.is_empty() {
                return Vec::new();
            }
            inner.writing = std::mem::take(&mut inner.waiting);
            std::mem::take(&mut inner.durables)
        };
        let mut durables: Vec<Arc<Durable>> = durables.into_values().collect();
        durables.sort_by_key(|durable| durable.spec.number);
        let mut of_all = Vec::with_capacity(durables.len());
        let mut floors = Vec::with_capacity(durables.len());
        let mut drafts = Vec::new();
        for durable in durables {
            let room = LETTERS_MAX.saturating_sub(drafts.len());
            let (state, letters) = durable.begin_commit(room);
            drafts.extend(letters.iter().filter_map(|dying| letters::draft(&durable.spec, dying)));
            floors.push((durable, state.floor));
            of_all.push(state);
        }
        self.inner.lock().floors = floors;
        drafts.extend(acks_draft(of_all));
        drafts
    }

    pub(super) fn finish(&self, outcome: &Result<(), AppendError>) {
        let (waiters, floors) = {
            let mut inner = self.inner.lock();
            (std::mem::take(&mut inner.writing), std::mem::take(&mut inner.floors))
        };
        for (durable, floor) in floors {
            for cause in durable.committed(outcome.is_ok().then_some(floor)) {
                metrics::dead_lettered(cause.as_str());
            }
        }
        for waiter in waiters {
            // Whoever has gone does not want to know.
            let _ = waiter.send(outcome.clone());
        }
    }
}

fn acks_draft(states: Vec<AckState>) -> Option<Draft> {
    let topic = Topic::parse(ACKS_TOPIC).ok()?;
    let data = serde_json::to_vec(&AckStates { states }).ok()?;
    Some(codec::control(topic, "acks", data, clock::event_id()))
}
