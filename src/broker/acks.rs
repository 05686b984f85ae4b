//! The ack box: durables whose acks wait for the next commit, and who waits with them.
//!
//! - Bounded by the number of durables that are in use.
//! - The commit thread drains it with every commit into one `$acks` event with the newest state of each;
//!   whoever waits for its ack is answered when that event is durable.
//! - The dead letters that a state counts as written are in the same commit as the state, and so are the receipts
//!   of what it counts as acknowledged.

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
/// The most receipts of one commit, but for those of the first durable in it.
const RECEIPTS_MAX: usize = 1024;

/// Acks that wait for the next commit.
#[derive(Debug, Default)]
pub(super) struct AckBox {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the durable's number: another life of the name has another.
    durables: HashMap<u64, Arc<Durable>>,
    /// With the number of the durable.
    waiting: Vec<(u64, Waiter)>,
    /// Those whose acks are in the commit that is being written, with the floors it will have.
    writing: Vec<(u64, Waiter)>,
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
            inner.waiting.push((durable.spec.number, sender));
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
        let (mut drafts, mut written_letters) = (Vec::new(), 0);
        let (mut later, mut receipts) = (Vec::new(), 0);
        for durable in durables {
            let waiting = durable.receipts.len();
            if receipts > 0 && waiting > 0 && receipts + waiting > RECEIPTS_MAX {
                later.push(durable);
                continue;
            }
            let room = LETTERS_MAX.saturating_sub(written_letters);
            let (state, letters, of_receipts) = durable.begin_commit(room);
            written_letters += letters.len();
            drafts.extend(letters.iter().filter_map(|dying| letters::draft(&durable.spec, dying)));
            receipts += of_receipts.len();
            drafts.extend(of_receipts);
            floors.push((durable, state.floor));
            of_all.push(state);
        }
        self.inner.lock().written(floors, later);
        drafts.extend(acks_draft(of_all));
        drafts
    }

    /// Whether something waits for the next commit.
    pub(super) fn is_waiting(&self) -> bool {
        !self.inner.lock().durables.is_empty()
    }

    /// The commit has ended: everybody is told how.
    pub(super) fn finish(&self, outcome: &Result<(), AppendError>) {
        self.settle(outcome.is_ok());
        self.answer(outcome);
    }

    /// What is in the commit is durable, or not: the durables know it.
    pub(super) fn settle(&self, is_durable: bool) {
        let floors = std::mem::take(&mut self.inner.lock().floors);
        for (durable, floor) in floors {
            durable.receipts.end(is_durable);
            for cause in durable.committed(is_durable.then_some(floor)) {
                metrics::dead_lettered(cause.as_str());
            }
        }
    }

    /// Those who wait for the commit are told.
    pub(super) fn answer(&self, outcome: &Result<(), AppendError>) {
        let waiters = std::mem::take(&mut self.inner.lock().writing);
        for (_, waiter) in waiters {
            // Whoever has gone does not want to know.
            let _ = waiter.send(outcome.clone());
        }
    }
}

impl Inner {
    /// These are in the commit that is being written; those are in a later one, and who waits for them goes on
    /// waiting.
    fn written(&mut self, floors: Vec<(Arc<Durable>, Cursor)>, later: Vec<Arc<Durable>>) {
        self.floors = floors;
        for durable in later {
            let number = durable.spec.number;
            let of_it = self.writing.extract_if(.., |(of, _)| *of == number);
            self.waiting.extend(of_it);
            // What it has become meanwhile is there already.
            self.durables.entry(number).or_insert(durable);
        }
    }
}

fn acks_draft(states: Vec<AckState>) -> Option<Draft> {
    let topic = Topic::parse(ACKS_TOPIC).ok()?;
    let data = AckStates { states }.to_bytes();
    Some(codec::control_bytes(topic, "acks", data, clock::event_id()))
}

#[cfg(test)]
mod tests {
    use tidings_proto::{Filter, Filters, Start, SubscribeOptions, control::DurableSpec};

    use super::{super::letters::Graves, *};

    /// A durable whose events 1 to `count` are dying, their letters ready.
    fn dying(count: u64) -> Arc<Durable> {
        let filters = Filters::one(Filter::parse("a").unwrap());
        let options = SubscribeOptions {
            max_deliveries: 1,
            start: Start::First,
            ..SubscribeOptions::to(filters)
        };
        let spec = DurableSpec {
            name: "d".to_owned(),
            number: 1,
            options,
            start: Cursor::START,
            owner: "alice".to_owned(),
            state_until: None,
            since: None,
            wants_changed: false,
        };
        let graves = Arc::new(Graves::default());
        let durable = Arc::new(Durable::new(Arc::new(spec), &AckState::default(), false, &graves));
        let mut held = durable.lock();
        let events: Vec<u64> = (1..=count).collect();
        held.state.deliver_new(&events, Cursor::new(count), 0, 1);
        held.state.sent(0, &durable.redelivery, 1);
        held.state.release();
        for offset in events {
            held.state.address(offset, None);
        }
        drop(held);
        durable
    }

    fn topics(drafts: &[Draft]) -> (usize, usize) {
        let on = |topic: &str| drafts.iter().filter(|draft| draft.topic.as_str() == topic).count();
        (on("$dead.d"), on(ACKS_TOPIC))
    }

    #[test]
    fn letters_are_in_the_commit_that_counts_them_and_come_again_where_it_fails() {
        let (acks, durable) = (AckBox::new(), dying(300));
        let floor = || durable.lock().state.floor();
        for outcome in [Err(AppendError::Full), Ok(())] {
            drop(acks.submit(&durable));
            assert_eq!(topics(&acks.drain()), (LETTERS_MAX, 1));
            assert_eq!(floor(), Cursor::START, "not before it is durable");
            acks.finish(&outcome);
        }
        assert_eq!(floor(), Cursor::new(256));
        drop(acks.submit(&durable));
        assert_eq!(topics(&acks.drain()), (44, 1));
        acks.finish(&Ok(()));
        assert_eq!((floor(), durable.lock().state.dead().len()), (Cursor::new(300), 300));
    }

    #[test]
    fn a_change_while_letters_are_written_writes_none_twice() {
        let (acks, durable) = (AckBox::new(), dying(2));
        drop(acks.submit(&durable));
        assert_eq!(topics(&acks.drain()), (2, 1));
        let changed = durable.changed(durable.spec.clone());
        acks.finish(&Ok(()));
        drop(acks.submit(&changed));
        assert_eq!(topics(&acks.drain()), (0, 1));
        assert_eq!(changed.lock().state.floor(), Cursor::new(2));
    }
}
