//! The ack box: acks that wait for the next commit, the newest state of each durable only.
//!
//! - Bounded by the number of durables that are in use.
//! - The commit thread drains it with every commit into one `$acks` event; whoever waits for its ack is
//!   answered when that event is durable.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tidings_proto::{
    Topic,
    control::{ACKS_TOPIC, AckState, AckStates},
};
use tokio::sync::oneshot;

use crate::{
    clock,
    log::{AppendError, Draft, codec},
};

/// Acks that wait for the next commit.
#[derive(Debug, Default)]
pub struct AckBox {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    states: HashMap<String, AckState>,
    waiting: Vec<Waiter>,
    /// Those whose acks are in the commit that is being written.
    writing: Vec<Waiter>,
    writing_names: Vec<String>,
}

type Waiter = oneshot::Sender<Result<(), AppendError>>;

/// Resolves when an ack is durable.
#[derive(Debug)]
pub struct AckTicket(oneshot::Receiver<Result<(), AppendError>>);

impl AckTicket {
    /// Waits for the commit.
    ///
    /// # Errors
    /// Why the ack could not be stored; the events will come again.
    pub async fn durable(self) -> Result<(), AppendError> {
        self.0.await.unwrap_or(Err(AppendError::Closed))
    }
}

impl AckBox {
    /// An empty box.
    pub fn new() -> Arc<AckBox> {
        Arc::new(AckBox::default())
    }

    /// Puts the newest state of a durable in. Call it with the durable's lock held, so that states stay in order.
    pub fn submit(&self, state: AckState) -> AckTicket {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.inner.lock();
        inner.states.insert(state.name.clone(), state);
        inner.waiting.push(sender);
        AckTicket(receiver)
    }

    /// Whether a state of this durable waits for a commit.
    pub fn holds(&self, name: &str) -> bool {
        let inner = self.inner.lock();
        inner.states.contains_key(name) || inner.writing_names.iter().any(|writing| writing == name)
    }

    pub(super) fn drain(&self) -> Option<Draft> {
        let mut inner = self.inner.lock();
        if inner.states.is_empty() {
            return None;
        }
        inner.writing = std::mem::take(&mut inner.waiting);
        let mut states: Vec<AckState> = std::mem::take(&mut inner.states).into_values().collect();
        note_names(&mut inner, &states);
        drop(inner);
        states.sort_by_key(|state| state.number);
        let topic = Topic::parse(ACKS_TOPIC).ok()?;
        let data = serde_json::to_vec(&AckStates { states }).ok()?;
        Some(codec::control(topic, "acks", data, clock::event_id()))
    }

    pub(super) fn finish(&self, outcome: &Result<(), AppendError>) {
        let waiters = {
            let mut inner = self.inner.lock();
            inner.writing_names.clear();
            std::mem::take(&mut inner.writing)
        };
        for waiter in waiters {
            let _ = waiter.send(outcome.clone());
        }
    }
}

fn note_names(inner: &mut Inner, states: &[AckState]) {
    inner.writing_names = states.iter().map(|state| state.name.clone()).collect();
}
