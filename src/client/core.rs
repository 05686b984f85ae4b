//! What the client has to say and what it makes of what it hears. No I/O; time is an argument.
//!
//! - Publishes leave in the order in which they were made, on every connection.
//! - A reply goes to whoever asked; a push to its subscription; what nobody knows is dropped.
//! - Every queue is bounded by the permits its entries carry, or by the number of subscriptions.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tidings_proto::{
    LogId, SubscribeOptions, WireError,
    message::{
        Connected, Events, Published, Push, Reply, Request, RequestId, ServerMessage, Subscribed,
    },
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Delivery, Error,
    backoff::Backoff,
    buffer::Buffer,
    feed::{Errand, ErrandKind, Feed, State},
    track::Track,
    unanswered::{Ids, Unanswered},
};

/// How long a full buffer may hold up the answers that others wait for, in milliseconds. Then the
/// subscription is let go until its buffer has been taken: a taker that waits for an answer before
/// it takes more would else wait for ever.
const PARK_AFTER_MS: u64 = 1_000;

/// What the client is told to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Append an event.
    Publish(Publishing),
    /// Subscribe under this key of the client's own.
    Subscribe(u64, Box<Wish>),
    /// Say something about a subscription.
    Errand(u64, Errand),
    /// Nobody takes this subscription's deliveries any more.
    Abandon(u64),
    /// Hang up.
    Close,
}

/// An event on its way.
#[derive(Debug)]
pub(super) struct Publishing {
    /// A [`Request::Publish`].
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Result<Published, Error>>,
    /// One event and its bytes; given back with the answer.
    pub(super) _permits: [OwnedSemaphorePermit; 2],
}

/// A subscription to make.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) options: SubscribeOptions,
    pub(super) buffer: Arc<Buffer>,
    pub(super) ready: oneshot::Sender<Result<Subscribed, Error>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Core {
    ids: Ids,
    publishes: Unanswered<Publishing>,
    feeds: BTreeMap<u64, Feed>,
    /// Which subscription the open requests that are no publishes are about.
    about: HashMap<RequestId, u64>,
    /// Subscriptions of this connection that nobody wants any more.
    unwanted: Vec<u32>,
    connected: Option<Connected>,
    backoff: Backoff,
    blocked_since_ms: Option<u64>,
}

/// What is to be sent next.
pub(super) enum Transmit<'a> {
    /// A publish, and whether it follows others that are not answered; too large a one is to be handed to
    /// [`Core::refuse_as_too_large`].
    Publish(RequestId, bool, &'a Request),
    /// Anything else.
    Request(Option<RequestId>, Box<Request>),
}

impl Core {
    /// A client that has nothing to say; `backoff` is for what the broker says to try again.
    pub(super) fn new(backoff: Backoff) -> Core {
        Core {
            ids: Ids::default(),
            publishes: Unanswered::default(),
            feeds: BTreeMap::new(),
            about: HashMap::new(),
            unwanted: Vec::new(),
            connected: None,
            backoff,
            blocked_since_ms: None,
        }
    }

    /// Takes over what a caller wants; [`Command::Close`] is the driver's business.
    pub(super) fn handle_command(&mut self, command: Command) {
        match command {
            Command::Publish(publishing) => self.publishes.push(publishing),
            Command::Subscribe(key, wish) => {
                let feed = Feed {
                    track: Track::new(wish.options),
                    state: State::Wanted(0),
                    buffer: wish.buffer,
                    errands: Unanswered::default(),
                    ready: Some(wish.ready),
                };
                self.feeds.insert(key, feed);
            }
            Command::Errand(key, errand) => self.handle_errand(key, errand),
            Command::Abandon(key) => self.forget(key),
            Command::Close => {}
        }
    }

    /// A connection is there.
    pub(super) fn handle_connected(&mut self, connected: Connected) {
        self.connected = Some(connected);
    }

    /// The connection is gone: all that is unanswered is to be said again on the next.
    pub(super) fn handle_disconnect(&mut self) {
        self.publishes.handle_disconnect();
        self.about.clear();
        self.unwanted.clear();
        self.connected = None;
        self.blocked_since_ms = None;
        self.feeds.values_mut().for_each(Feed::handle_disconnect);
    }

    /// The client ends: everybody who waits is told why.
    pub(super) fn end(&mut self, why: &Error) {
        for publishing in self.publishes.take_all() {
            // Whoever published may have gone: then nobody needs the answer.
            let _ = publishing.answer.send(Err(why.clone()));
        }
        self.feeds.values_mut().for_each(|feed| feed.end(why));
    }

    /// The next message to send, if there is one now.
    pub(super) fn poll_transmit(&mut self, now_ms: u64) -> Option<Transmit<'_>> {
        if let Some(subscription) = self.unwanted.pop() {
            return Some(Transmit::Request(None, Box::new(Request::Unsubscribe { subscription })));
        }
        for (&key, feed) in &mut self.feeds {
            let (request, message) = match feed.state {
                State::Wanted(at_ms) if at_ms <= now_ms => {
                    let request = self.ids.next();
                    feed.state = State::Asked(request);
                    (request, Request::Subscribe(Box::new(feed.track.request())))
                }
                State::Live(number) => {
                    let Some((request, errand)) = feed.errands.poll_send(now_ms, &mut self.ids)
                    else {
                        continue;
                    };
                    (request, errand.kind.request(number))
                }
                _ => continue,
            };
            self.about.insert(request, key);
            return Some(Transmit::Request(Some(request), Box::new(message)));
        }
        let follows = self.publishes.has_sent();
        let (request, publishing) = self.publishes.poll_send(now_ms, &mut self.ids)?;
        Some(Transmit::Publish(request, follows, &publishing.request))
    }

    /// The publish of this number has more bytes than the broker takes.
    pub(super) fn refuse_as_too_large(&mut self, request: RequestId, bytes: usize, bytes_max: u64) {
        if let Some(publishing) = self.publishes.answer(request) {
            let text = format!("the message has {bytes} bytes, at most {bytes_max} are allowed");
            let error = WireError::new(tidings_proto::Code::TooLarge, text);
            let _ = publishing.answer.send(Err(Error::refused(error)));
        }
    }

    /// Something came from the broker.
    pub(super) fn handle_message(&mut self, message: ServerMessage, now_ms: u64) {
        match message {
            ServerMessage::Reply(request, reply) => match self.about.remove(&request) {
                Some(key) => self.handle_feed_reply(key, request, reply, now_ms),
                None => self.handle_publish_reply(request, reply, now_ms),
            },
            ServerMessage::Events(events) => self.handle_events(events),
            ServerMessage::Push(push) => self.handle_push(push),
        }
    }

    /// When there may be something to send though nothing happens, in monotonic milliseconds.
    pub(super) fn wake_ms(&self) -> Option<u64> {
        let feeds = self.feeds.values().filter_map(|feed| match feed.state {
            State::Wanted(at_ms) => Some(at_ms),
            State::Live(_) => feed.errands.wake_ms(),
            _ => None,
        });
        let park = self.blocked_since_ms.map(|since_ms| since_ms + PARK_AFTER_MS);
        feeds.chain(self.publishes.wake_ms()).chain(park).min()
    }

    /// Whether the socket should not be read because a buffer is full. Lets go of the subscriptions
    /// whose full buffers have held up other answers for too long, and takes up those let go of.
    pub(super) fn is_blocked(&mut self, now_ms: u64) -> bool {
        for feed in self.feeds.values_mut() {
            // What there is to say of it can only be said when it is live.
            if feed.state == State::Parked && (feed.buffer.is_empty() || feed.errands.has_unsent())
            {
                feed.state = State::Wanted(0);
            }
        }
        if !self.feeds.values().any(Feed::is_blocking) {
            self.blocked_since_ms = None;
            return false;
        }
        if !self.someone_waits() {
            self.blocked_since_ms = None;
            return true;
        }
        let since_ms = *self.blocked_since_ms.get_or_insert(now_ms);
        if now_ms.saturating_sub(since_ms) < PARK_AFTER_MS {
            return true;
        }
        for feed in self.feeds.values_mut().filter(|feed| feed.is_blocking()) {
            if let State::Live(number) = feed.state {
                // What was said before it is answered before it: those answers still come.
                feed.state = State::Parked;
                self.unwanted.push(number);
            }
        }
        self.blocked_since_ms = None;
        self.feeds.values().any(Feed::is_blocking)
    }

    /// Whether a subscription waits for its buffer to be taken.
    pub(super) fn has_parked(&self) -> bool {
        self.feeds.values().any(|feed| feed.state == State::Parked)
    }

    /// Whether a caller waits for an answer, or a subscription with nothing left for events.
    fn someone_waits(&self) -> bool {
        let feed_waits = |feed: &Feed| {
            let is_hungry = matches!(feed.state, State::Live(_)) && feed.buffer.is_empty();
            feed.ready.is_some() || !feed.errands.is_empty() || is_hungry
        };
        !self.publishes.is_empty() || self.feeds.values().any(feed_waits)
    }

    fn handle_errand(&mut self, key: u64, errand: Errand) {
        let Some(feed) = self.feeds.get_mut(&key) else {
            let _ = errand.answer.send(Err(Error::Ended));
            return;
        };
        let away = matches!(feed.state, State::Wanted(_) | State::Parked);
        if away && matches!(errand.kind, ErrandKind::Unsubscribe) {
            if feed.errands.is_empty() {
                // The broker does not know it (any more): there is nothing to tell it.
                let _ = errand.answer.send(Ok(None));
                return self.forget(key);
            }
            // What was said before has to arrive first.
            feed.state = State::Wanted(0);
        }
        feed.push(errand);
    }

    fn handle_publish_reply(&mut self, request: RequestId, reply: Reply, now_ms: u64) {
        let result = match reply {
            Reply::Error(error) if error.retryable => {
                let wait_ms = error.retry_after_ms.unwrap_or_else(|| self.backoff.next_ms());
                self.publishes.retry(request, now_ms, wait_ms);
                return;
            }
            Reply::Error(error) => Err(Error::refused(error)),
            Reply::Published(place) | Reply::Scheduled(place) => Ok(place),
            other => Err(unexpected(&other)),
        };
        self.backoff.reset();
        if let Some(publishing) = self.publishes.answer(request) {
            let _ = publishing.answer.send(result);
        }
    }

    fn handle_feed_reply(&mut self, key: u64, request: RequestId, reply: Reply, now_ms: u64) {
        let Some(feed) = self.feeds.get_mut(&key) else {
            // It was given up while the broker set it up.
            if let Reply::Subscribed(subscribed) = reply {
                self.unwanted.push(subscribed.subscription);
            }
            return;
        };
        let asked = feed.state == State::Asked(request);
        let result = match reply {
            Reply::Error(error) if error.retryable => {
                let wait_ms = error.retry_after_ms.unwrap_or_else(|| self.backoff.next_ms());
                if asked {
                    feed.state = State::Wanted(now_ms.saturating_add(wait_ms));
                } else {
                    feed.errands.retry(request, now_ms, wait_ms);
                }
                return;
            }
            Reply::Error(error) if asked => return feed.end(&Error::refused(error)),
            Reply::Subscribed(subscribed) if asked => {
                let log = self.connected.as_ref().map(|connected| connected.log);
                return handle_subscribed(feed, subscribed, log);
            }
            Reply::Error(error) => Err(Error::refused(error)),
            Reply::Acked(acked) => Ok(Some(acked.cursor)),
            Reply::Nacked { .. } | Reply::Unsubscribed { .. } => Ok(None),
            other => Err(unexpected(&other)),
        };
        let Some(errand) = feed.errands.answer(request) else { return };
        let left = matches!(errand.kind, ErrandKind::Unsubscribe);
        let _ = errand.answer.send(result);
        if left {
            feed.end(&Error::Ended);
            self.feeds.remove(&key);
        }
    }

    fn handle_events(&mut self, events: Events) {
        let number = events.subscription;
        let is_its = |(_, feed): &(&u64, &mut Feed)| feed.state == State::Live(number);
        let Some((&key, feed)) = self.feeds.iter_mut().find(is_its) else { return };
        if feed.buffer.is_abandoned() {
            // What it has said since still has to arrive.
            if feed.errands.is_empty() {
                self.forget(key);
            }
            return;
        }
        let Ok(events) = feed.track.handle_events(events) else {
            feed.state = State::Wanted(0);
            feed.errands.handle_disconnect();
            self.unwanted.push(number);
            return;
        };
        let deliveries =
            events.into_iter().map(|(event, attempts)| Delivery::Event { event, attempts });
        feed.buffer.push(deliveries);
    }

    fn handle_push(&mut self, push: Push) {
        let (number, delivery) = match push {
            Push::CaughtUp { subscription, cursor } => (subscription, Delivery::CaughtUp(cursor)),
            Push::Gap(gap) => match gap.subscription {
                Some(number) => (number, Delivery::Gap(gap)),
                None => return,
            },
            Push::Acked(acked) => match acked.subscription {
                Some(number) => (number, Delivery::Acked(acked.cursor)),
                None => return,
            },
            Push::Superseded { subscription } => (subscription, Delivery::Superseded),
            // The driver handles what is about the connection.
            Push::TokenExpiring { .. } | Push::Goodbye { .. } | Push::Error(_) | Push::Pong {} => {
                return;
            }
        };
        let Some(feed) = self.feed(number) else { return };
        if let Delivery::Gap(gap) = &delivery {
            feed.track.handle_gap(gap);
        }
        let over = delivery == Delivery::Superseded;
        feed.buffer.push([delivery]);
        if over {
            feed.end(&Error::Ended);
        }
    }

    /// The subscription that the broker knows under this number.
    fn feed(&mut self, number: u32) -> Option<&mut Feed> {
        self.feeds.values_mut().find(|feed| feed.state == State::Live(number))
    }

    fn forget(&mut self, key: u64) {
        let Some(mut feed) = self.feeds.remove(&key) else { return };
        if let State::Live(number) = feed.state {
            self.unwanted.push(number);
        }
        feed.end(&Error::Ended);
    }
}

fn handle_subscribed(feed: &mut Feed, subscribed: Subscribed, log: Option<LogId>) {
    feed.state = State::Live(subscribed.subscription);
    if let Some(log) = log {
        feed.track.handle_subscribed(subscribed.cursor, log);
    }
    if feed.track.is_durable() {
        // The broker takes for undelivered what was not acknowledged: it comes again.
        feed.buffer.forget_events();
    }
    if let Some(ready) = feed.ready.take() {
        let _ = ready.send(Ok(subscribed));
    }
}

fn unexpected(reply: &Reply) -> Error {
    let kind = format!("{reply:?}");
    Error::Protocol(format!("an unexpected answer, {}", kind.chars().take(64).collect::<String>()))
}
