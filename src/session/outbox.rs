//! What goes to a socket: answers and deliveries, taken when the socket can take them.
//!
//! - Nothing is pushed in here but answers, and those through a bounded queue; events are read from the log
//!   at the moment there is room for them.
//! - Subscriptions take turns, one batch each.
//! - `subscribed` goes out before anything of its subscription.
//! - [`Outbox::fill`] must be run to its end: a batch once taken is on its way.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use tidings_proto::{
    LogId, Offset, WireError,
    message::{Acked, Gap, GapReason, Push, Reply, RequestId},
    wire::BatchHeader,
};
use tokio::time::Interval;

use self::{
    dues::Dues,
    large::{Large, Parked, admission, is_waiting},
};
use super::{
    House, Publishing, PublishingRun, Transport,
    answers::{AnswerQueue, Next, Queued, Room},
    encoding::Encoding,
    internal,
    numbered::Numbered,
    of_append, of_read,
    outputs::{self, Taker},
};
use crate::{
    broker::{AckTicket, Delivery, Ready, Subscription},
    clock,
    log::{ReadError, Stored},
    metrics,
};

mod dues;
mod large;

/// Once this many bytes are there they are written: with one batch more than this, what a socket that takes
/// nothing holds stays below 48 KiB.
const FILL_BYTES: usize = 16 * 1024;

/// Something to send.
pub enum Item {
    /// An answer.
    Reply(RequestId, Reply),
    /// An answer that waits for a commit.
    Pending(Option<RequestId>, Pending),
    /// A subscription that begins, with its answer.
    Subscribe(Option<(RequestId, Reply)>, Box<Subscription>),
    /// A subscription that ends.
    Unsubscribe(Option<RequestId>, u32),
    /// Something nobody asked for.
    Push(Push),
    /// The answer to a ping of the transport's own; the transport frames it.
    Pong(Box<[u8]>),
}

/// An answer that is not known yet; a future of it.
pub struct Pending {
    of: Of,
    results: usize,
}

enum Of {
    Publish { ticket: Publishing, form: Form },
    Run(PublishingRun),
    Ack { ticket: AckTicket, reply: Option<Box<Reply>> },
}

/// How a publish is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Where its event stands.
    One,
    /// Where each of its events stands.
    Batch,
    /// Where its event waits for its moment.
    Scheduled,
}

impl Pending {
    /// Of a publish of so many events.
    pub fn published(ticket: Publishing, events: usize, form: Form) -> Pending {
        Pending { of: Of::Publish { ticket, form }, results: events }
    }

    /// Of publishes that are answered each for itself.
    pub fn run(run: PublishingRun) -> Pending {
        Pending { results: run.publishes(), of: Of::Run(run) }
    }

    /// Of an ack or nack.
    pub fn acked(ticket: AckTicket, reply: Reply) -> Pending {
        Pending { of: Of::Ack { ticket, reply: Some(Box::new(reply)) }, results: 1 }
    }

    /// How many results it will have.
    pub(super) fn results(&self) -> usize {
        self.results
    }
}

/// What [`Pending`] comes to.
pub enum Outcome {
    /// An answer to the one request.
    One(Reply),
    /// An answer to each.
    Each(<PublishingRun as Future>::Output),
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        Poll::Ready(Outcome::One(match &mut self.of {
            Of::Publish { ticket, form } => {
                published(ready!(Pin::new(ticket).poll(context)), *form)
            }
            Of::Run(run) => {
                return Poll::Ready(Outcome::Each(ready!(Pin::new(run).poll(context))));
            }
            Of::Ack { ticket, reply } => match ready!(Pin::new(ticket).poll(context)) {
                Ok(()) => match reply.take() {
                    Some(reply) => *reply,
                    None => Reply::Error(internal("an answer that was taken twice")),
                },
                Err(error) => Reply::Error(of_append(&error)),
            },
        }))
    }
}

fn published(outcome: <Publishing as Future>::Output, form: Form) -> Reply {
    match outcome {
        Ok(results) if form == Form::Batch => Reply::PublishedBatch { results: results.into_vec() },
        Ok(mut results) => match results.pop() {
            Some(place) if form == Form::Scheduled => Reply::Scheduled(place),
            Some(place) => Reply::Published(place),
            None => Reply::Error(internal("a publish without a result")),
        },
        Err(error) => Reply::Error(error),
    }
}

/// Where messages go: the transport frames them.
pub trait Frames {
    /// One message, written by `write`.
    fn message(&mut self, write: impl FnOnce(&mut Vec<u8>));
    /// A compressed batch, written by `write` as the payload of a binary frame.
    fn compressed(&mut self, write: impl FnOnce(&mut Vec<u8>));
    /// The transport's own pong.
    fn pong(&mut self, payload: &[u8]);
    /// How many bytes wait to be written.
    fn bytes(&self) -> usize;
    /// Nothing waits to be written, maybe for long: the memory is not kept for that.
    fn rest(&mut self);
}

/// Why [`Outbox::fill`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// There is something to write.
    Frames,
    /// It is time for a ping.
    Tick,
    /// All answers have gone out and none will come.
    Ended,
}

/// The answer that is next and not known yet.
struct Waiting {
    id: Option<RequestId>,
    pending: Pending,
    _room: Room,
}

/// One socket's outbox.
pub struct Outbox {
    answers: AnswerQueue,
    pending: Option<Waiting>,
    subscriptions: Numbered<Box<Subscription>>,
    dues: Dues,
    /// Those that something is written of.
    writing: Vec<u32>,
    ready: Arc<Ready>,
    tick: Interval,
    house: Arc<House>,
    encoding: Encoding,
    /// Whether the client was told that batches may come compressed.
    compresses: bool,
    ended: bool,
    /// When the first live event of what is being written became durable, on the monotonic clock.
    durable_at: Option<Duration>,
    /// What is large and being written.
    large: Option<Box<Large>>,
}

impl Outbox {
    /// An outbox for these answers and for the subscriptions that announce themselves in `ready`.
    pub fn new(
        answers: AnswerQueue,
        ready: Arc<Ready>,
        house: Arc<House>,
        encoding: Encoding,
    ) -> Outbox {
        let ping_interval = house.limits.ping_interval;
        let start = tokio::time::Instant::now() + ping_interval;
        let mut tick = tokio::time::interval_at(start, ping_interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Outbox {
            house,
            encoding,
            compresses: false,
            answers,
            pending: None,
            subscriptions: Numbered::default(),
            dues: Dues::default(),
            writing: Vec::new(),
            ready,
            tick,
            ended: false,
            durable_at: None,
            large: None,
        }
    }

    /// Waits until there is something to send and puts it in `frames`.
    pub async fn fill(&mut self, frames: &mut impl Frames) -> Filled {
        loop {
            self.take_answers(frames);
            // Once no answer comes any more the conversation is over, and with it the right to be told.
            while !self.ended && frames.bytes() < FILL_BYTES && !self.house.stop.is_cancelled() {
                if is_waiting(self.large.as_deref()) {
                    // Those behind it wait too: it goes out first.
                    if !Box::pin(self.go_on(frames)).await {
                        break;
                    }
                } else {
                    let Some(number) = self.ready.pop() else { break };
                    // Boxed: an idle socket keeps no room for a read, nor for what it gives.
                    Box::pin(self.deliver(number, frames)).await;
                }
                self.take_answers(frames);
            }
            if frames.bytes() > 0 {
                return Filled::Frames;
            }
            if self.ended && self.pending.is_none() {
                return Filled::Ended;
            }
            frames.rest();
            if self.wait(frames).await {
                return Filled::Tick;
            }
        }
    }

    /// The socket has taken everything.
    pub fn sent(&mut self) {
        for number in std::mem::take(&mut self.writing) {
            let Some(subscription) = self.subscriptions.get(number) else { continue };
            subscription.sent();
            self.dues.set(number, subscription.next_due_ms());
        }
        if let Some(durable_at) = self.durable_at.take() {
            metrics::delivery_took(Transport::WebSocket.as_str(), durable_at);
        }
        // What still waits keeps its turn.
        self.large = self.large.take().filter(|large| large.waiting.is_some());
        if let Some(large) = &mut self.large {
            (large.batches, large.answers) = (Vec::new(), Vec::new());
        }
    }

    /// Who takes what is written, where somebody may need its place more.
    pub fn taker(&self) -> Option<Arc<Taker>> {
        let large = self.large.as_ref().filter(|large| !large.batches.is_empty());
        large.map(|large| large.taker.clone())
    }

    /// Waits for a reason to look again; true when it is time for a ping. When the broker stops, the conversation ends and
    /// with it the answers: that wakes whoever waits here.
    async fn wait(&mut self, frames: &mut impl Frames) -> bool {
        let due = self.dues.first();
        let due_in = due
            .map(|(at_ms, _)| Duration::from_millis(at_ms.saturating_sub(clock::monotonic_ms())));
        let waits = self.pending.is_some();
        let stopped = self.house.stop.is_cancelled();
        let is_parked = is_waiting(self.large.as_deref());
        tokio::select! {
            biased;
            outcome = outcome(&mut self.pending), if waits => {
                let id = self.pending.take().and_then(|waiting| waiting.id);
                write_outcome(self.encoding, id, outcome, frames);
            }
            item = self.answers.recv(), if !waits && !self.ended => match item {
                Some(queued) => self.take(queued, frames),
                None => self.ended = true,
            },
            () = admission(&mut self.large), if is_parked && !stopped => {}
            () = self.ready.wait(), if !stopped && !is_parked => {}
            () = clock::sleep(due_in), if due_in.is_some() && !stopped && !is_parked => {
                if let Some((_, number)) = due {
                    self.ready.push(number);
                }
            }
            _ = self.tick.tick() => {
                self.move_idle_cursors(frames);
                return true;
            }
        }
        false
    }

    /// The answers that are known, in order.
    fn take_answers(&mut self, frames: &mut impl Frames) {
        while frames.bytes() < FILL_BYTES {
            if let Some(waiting) = &mut self.pending {
                let Some(outcome) = (&mut waiting.pending).now_or_never() else { return };
                write_outcome(self.encoding, waiting.id, outcome, frames);
                self.pending = None;
            }
            match self.answers.try_recv() {
                Next::Answer(queued) => self.take(queued, frames),
                Next::None => return,
                Next::Ended => {
                    self.ended = true;
                    return;
                }
            }
        }
    }

    fn take(&mut self, queued: Queued, frames: &mut impl Frames) {
        let Queued { item, room } = queued;
        match item {
            Item::Reply(id, reply) => {
                if room.is_shared() {
                    self.large.get_or_insert_default().answers.push(room);
                }
                if let Reply::Connected(connected) = &reply {
                    // From the moment at which the client knows it.
                    self.compresses = connected.compress.is_some();
                }
                write_reply(self.encoding, Some(id), &reply, frames);
            }
            Item::Pending(id, pending) => {
                self.pending = Some(Waiting { id, pending, _room: room });
            }
            Item::Subscribe(reply, subscription) => {
                if let Some((id, reply)) = reply {
                    write_reply(self.encoding, Some(id), &reply, frames);
                }
                subscription.wake();
                self.subscriptions.insert(subscription.number(), subscription);
            }
            Item::Unsubscribe(id, number) => {
                if let Some(subscription) = self.subscriptions.remove(number) {
                    subscription.unsubscribe();
                }
                self.dues.set(number, None);
                write_reply(
                    self.encoding,
                    id,
                    &Reply::Unsubscribed { subscription: number },
                    frames,
                );
            }
            Item::Push(push) => frames.message(|out| self.encoding.push(&push, out)),
            Item::Pong(payload) => frames.pong(&payload),
        }
    }

    /// One turn of one subscription.
    async fn deliver(&mut self, number: u32, frames: &mut impl Frames) {
        let Some(subscription) = self.subscriptions.get_mut(number) else { return };
        let next = subscription.next().await;
        let replayed = subscription.take_replayed_bytes();
        if replayed > 0 {
            self.answers.replayed(replayed);
        }
        match next {
            Ok(Some(mut delivery)) => {
                if let Delivery::Events { events, .. } = &mut delivery
                    && outputs::is_large(events)
                {
                    let large = self.large.get_or_insert_default();
                    match self.house.outputs.try_hold(&large.taker, events) {
                        Some(held) => large.batches.push(held),
                        None => {
                            let (events, house) = (std::mem::take(events), &self.house);
                            let (outputs, taker) = (house.outputs.clone(), large.taker.clone());
                            let admitting = outputs.admit(house.broker.clone(), taker, events);
                            let admitting = Box::pin(admitting);
                            large.waiting =
                                Some(Parked { number, delivery, admitting, admitted: None });
                            return;
                        }
                    }
                }
                self.send(number, delivery, frames).await;
            }
            Ok(None) => self.dues.set(number, subscription.next_due_ms()),
            Err(error) => self.lose(number, &error, frames),
        }
    }

    async fn send(&mut self, number: u32, delivery: Delivery, frames: &mut impl Frames) {
        let over = matches!(delivery, Delivery::Superseded);
        if let Delivery::Events { durable_at, .. } = &delivery {
            self.durable_at = self.durable_at.or(*durable_at);
        }
        let deflated = match &delivery {
            Delivery::Events { events, .. } if self.compresses => {
                Box::pin(self.house.compressor.array(self.encoding, events)).await
            }
            _ => None,
        };
        let log = self.house.broker.log().id();
        write_delivery(self.encoding, number, log, delivery, deflated, frames);
        if over {
            self.forget(number);
        } else {
            if self.writing.last() != Some(&number) {
                self.writing.push(number);
            }
            self.ready.push(number);
        }
    }

    /// Sends what has waited, where it has a place; false where it waits still.
    async fn go_on(&mut self, frames: &mut impl Frames) -> bool {
        admission(&mut self.large).now_or_never();
        let Some(large) = &mut self.large else { return true };
        let Some(parked) = large.waiting.take_if(|parked| parked.admitted.is_some()) else {
            return false;
        };
        let (number, mut delivery) = (parked.number, parked.delivery);
        match parked.admitted {
            Some(Ok((admitted, held))) => {
                large.batches.push(held);
                if let Delivery::Events { events, .. } = &mut delivery {
                    *events = admitted;
                }
                // Unless it was unsubscribed meanwhile.
                if self.subscriptions.get(number).is_some() {
                    self.send(number, delivery, frames).await;
                }
            }
            Some(Err(error)) => self.lose(number, &error, frames),
            None => {}
        }
        true
    }

    fn lose(&mut self, number: u32, error: &ReadError, frames: &mut impl Frames) {
        let error =
            WireError { message: format!("subscription {number} ends: {error}"), ..of_read(error) };
        frames.message(|out| self.encoding.push(&Push::Error(error), out));
        self.forget(number);
    }

    /// A subscription has ended by itself.
    fn forget(&mut self, number: u32) {
        if let Some(subscription) = self.subscriptions.remove(number) {
            // The session goes on without it: nobody comes back for it.
            subscription.unsubscribe();
        }
        self.dues.set(number, None);
        self.answers.ended(number);
    }

    fn move_idle_cursors(&mut self, frames: &mut impl Frames) {
        let log = self.house.broker.log().id();
        for subscription in self.subscriptions.values_mut() {
            let number = subscription.number();
            if let Some(delivery) = subscription.idle() {
                write_delivery(self.encoding, number, log, delivery, None, frames);
            }
        }
    }
}

async fn outcome(pending: &mut Option<Waiting>) -> Outcome {
    match pending {
        Some(waiting) => (&mut waiting.pending).await,
        None => std::future::pending().await,
    }
}

fn write_outcome(
    encoding: Encoding,
    id: Option<RequestId>,
    outcome: Outcome,
    frames: &mut impl Frames,
) {
    match outcome {
        Outcome::One(reply) => write_reply(encoding, id, &reply, frames),
        Outcome::Each(results) => {
            for (id, result) in results {
                let reply = result.map_or_else(Reply::Error, Reply::Published);
                write_reply(encoding, id, &reply, frames);
            }
        }
    }
}

fn write_reply(encoding: Encoding, id: Option<RequestId>, reply: &Reply, frames: &mut impl Frames) {
    if id.is_some() || matches!(reply, Reply::Error(_)) {
        frames.message(|out| encoding.reply(id, reply, out));
    }
}

/// Writes what a subscription gives; `deflated` is the array of its events where that is compressed.
fn write_delivery(
    encoding: Encoding,
    subscription: u32,
    log: LogId,
    delivery: Delivery,
    deflated: Option<Bytes>,
    frames: &mut impl Frames,
) {
    let push = match delivery {
        Delivery::Events { range, events, attempts, .. } => {
            let (encoded, damaged) = encode(encoding, &events);
            let header = BatchHeader {
                subscription,
                after: range.map(|(after, _)| after),
                cursor: range.map(|(_, cursor)| cursor),
                attempts: &attempts,
            };
            let before = frames.bytes();
            match deflated {
                Some(deflated) => {
                    frames.compressed(|out| encoding.compressed(&header, &deflated, out));
                }
                None => frames.message(|out| encoding.events(&header, &encoded, out)),
            }
            metrics::delivered(
                Transport::WebSocket.as_str(),
                encoded.len(),
                frames.bytes() - before,
            );
            for offset in damaged {
                let push = corrupt(subscription, log, offset, &events);
                frames.message(|out| encoding.push(&push, out));
            }
            return;
        }
        Delivery::CaughtUp(cursor) => Push::CaughtUp { subscription, cursor },
        Delivery::Gap(gap) => Push::Gap(gap),
        Delivery::Superseded => Push::Superseded { subscription },
        Delivery::Acked(cursor) => Push::Acked(Acked { subscription: Some(subscription), cursor }),
    };
    frames.message(|out| encoding.push(&push, out));
}

/// The events as they travel, and those whose body this version cannot read.
fn encode(encoding: Encoding, events: &[Arc<Stored>]) -> (Vec<&[u8]>, Vec<Offset>) {
    let mut encoded = Vec::with_capacity(events.len());
    let mut damaged = Vec::new();
    for event in events {
        match encoding.event(event) {
            Ok(bytes) => encoded.push(bytes),
            Err(error) => {
                tracing::error!(offset = event.offset().get(), %error, "an event cannot be read; its readers get a gap");
                damaged.push(event.offset());
            }
        }
    }
    (encoded, damaged)
}

/// Never a silent skip: an event that cannot be read is a gap.
fn corrupt(subscription: u32, log: LogId, offset: Offset, events: &[Arc<Stored>]) -> Push {
    let first = offset.cursor().next().get();
    let last = events.last().map_or(first, |event| event.offset().get());
    Push::Gap(Gap {
        subscription: Some(subscription),
        requested: offset.before(),
        first,
        last,
        log,
        reason: GapReason::Corrupt,
    })
}
