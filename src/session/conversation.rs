//! What a socket's client says: each message is carried out in turn and its answer queued.
//!
//! - Before `connect` (where a token is needed) nothing but `connect` and `ping` is carried out. Where none is needed,
//!   the first other request is of somebody without a token.
//! - A bad message is answered with an error and ends nothing, but twenty in a row do.
//! - Publishes are queued in the order they come; their answers follow when they are durable, so that many
//!   can be under way at once. The queue of answers is bounded: beyond it the socket is not read.

use std::sync::Arc;

use super::{
    Greeting, Redeemed, Run, Session,
    answers::Answers,
    check_batch, check_count,
    encoding::Encoding,
    numbered::Numbered,
    of_ack,
    outbox::{Form, Item, Pending},
    rates::Kind,
    standing::Standing,
    target,
};
use crate::broker::{Durable, Ready, Token};
use tidings_proto::{
    Code, SubscribeOptions, WireError,
    message::{
        Ack, Acked, Connect, Head, Nack, Publish, Push, Receipts, Reply, Request, RequestId,
        Subscribed,
    },
    wire::{BadRequest, Incoming},
};

mod rights;

use self::rights::Held;
pub use self::rights::{CLOSE_REVOKED, CLOSE_UNAUTHENTICATED};

/// How many messages in a row may be bad.
const BAD_MAX: u32 = 20;
/// So many pings and pongs may come before somebody is let in: nobody is there yet whose rate they are taken of.
const STRANGERS_CONTROLS_MAX: u32 = 16;
/// How many durables an answer says of that they have acknowledged an event, or not; HTTP reads on.
const RECEIPTS_MAX: usize = 1000;
/// It goes on and on though it is refused, or tried too many tokens.
pub const CLOSE_RATE_LIMITED: u16 = 4429;
/// Undecodable messages, twenty in a row.
pub const CLOSE_VIOLATION: u16 = 4500;

/// One socket's conversation.
pub struct Conversation {
    greeting: Greeting,
    session: Option<Session>,
    answers: Answers,
    ready: Arc<Ready>,
    /// Watches over the session's token.
    standing: Option<Standing>,
    subscriptions: Numbered<Held>,
    last_number: u32,
    bad_in_a_row: u32,
    /// Pings and pongs before somebody was let in.
    controls: u32,
    /// Publishes that have come and are not queued yet.
    run: Run,
    /// Why the publish before was refused, where it may be tried again: what follows it is refused too.
    refused: Option<Box<WireError>>,
    by_itself: Option<Box<SubscribeOptions>>,
    /// When the token's end is to be announced, on the monotonic clock; `None`: it has been, or does not come.
    warns_ms: Option<u64>,
}

/// What somebody shows to be let in.
#[derive(Debug)]
pub enum Proof {
    /// A token.
    Token(String),
    /// A ticket, which was good.
    Ticket(Redeemed),
}

/// How it goes on after a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    GoOn,
    /// The connection is to be closed with this code and reason.
    Close(u16, &'static str),
    /// Nobody takes the answers any more.
    Gone,
}

/// A message that waits for nothing.
pub struct Taken(What);

enum What {
    Request(Head, Request),
    /// A publish that is not allowed.
    Refused(Option<RequestId>, WireError),
    Bad(BadRequest),
}

impl Conversation {
    /// A conversation that begins; `by_itself` is subscribed as soon as the session is authenticated.
    pub fn new(
        greeting: Greeting,
        answers: Answers,
        ready: Arc<Ready>,
        by_itself: Option<Box<SubscribeOptions>>,
    ) -> Conversation {
        Conversation {
            greeting,
            session: None,
            answers,
            ready,
            standing: None,
            subscriptions: Numbered::default(),
            last_number: 0,
            bad_in_a_row: 0,
            controls: 0,
            run: Run::default(),
            refused: None,
            by_itself,
            warns_ms: None,
        }
    }

    /// Lets the client in with what the upgrade request carried, where that is enough.
    pub async fn begin(&mut self, proof: Option<Proof>) -> Verdict {
        let connected = match proof {
            None if self.waits_for_token() => return Verdict::GoOn,
            None => self.greeting.connect(None),
            Some(Proof::Token(token)) => self.greeting.connect(Some(&token)),
            Some(Proof::Ticket(ticket)) => self.greeting.admit(ticket),
        };
        match connected {
            Ok(session) => self.enter(session).await,
            Err(error) => {
                let close = match error.code {
                    Code::RateLimited => Verdict::Close(CLOSE_RATE_LIMITED, "rate limited"),
                    _ => Verdict::Close(CLOSE_UNAUTHENTICATED, "unauthenticated"),
                };
                self.send(Item::Push(Push::Error(error))).await;
                close
            }
        }
    }

    /// Whether a token may still come that makes somebody else of whoever has shown none. Who subscribes by itself to
    /// what everybody may read says nothing more.
    fn waits_for_token(&self) -> bool {
        let is_for_everybody = self
            .by_itself
            .as_ref()
            .is_some_and(|options| self.greeting.is_for_everybody(&options.filters));
        self.greeting.takes_token() && !is_for_everybody
    }

    /// Whether somebody has been let in.
    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// It ends with this close code.
    pub fn closes_with(&mut self, code: u16) {
        if let Some(session) = &mut self.session {
            session.closes_with(code);
        } else if code == CLOSE_UNAUTHENTICATED {
            crate::metrics::handshake_rejected("auth");
        }
    }

    /// Takes the message of a text frame; gives what of it is to be [carried out](Conversation::carry_out) at once.
    #[must_use]
    pub fn text(&mut self, text: &str) -> Option<Taken> {
        self.take(Encoding::decode_text(text))
    }

    /// The same with a binary frame in this encoding.
    #[must_use]
    pub fn binary(&mut self, encoding: Encoding, frame: &[u8]) -> Option<Taken> {
        self.take(encoding.decode_binary(frame))
    }

    /// A publish waits for those that come with it, until [`Conversation::flush`]; all else does not wait.
    fn take(&mut self, decoded: Result<Incoming, BadRequest>) -> Option<Taken> {
        let Incoming { head, request } = match decoded {
            Ok(incoming) => incoming,
            Err(bad) => return Some(Taken(What::Bad(bad))),
        };
        self.bad_in_a_row = 0;
        if is_publish(&request) && !head.follows {
            self.refused = None;
        }
        let is_held_up = self.is_held_up(head);
        match (request, &self.session) {
            (Request::Publish(publish), Some(session)) if Run::takes(&publish) && !is_held_up => {
                let refused = session.add(&mut self.run, head.id, *publish).err()?;
                Some(Taken(What::Refused(head.id, refused)))
            }
            (request, _) => Some(Taken(What::Request(head, request))),
        }
    }

    /// Whether enough waits that it is to be [flushed](Conversation::flush) before more is taken.
    pub fn is_full(&self) -> bool {
        self.run.is_full()
    }

    /// Whether nothing waits to be [flushed](Conversation::flush).
    pub fn is_flushed(&self) -> bool {
        self.run.is_empty()
    }

    /// Answers a ping of the transport's own.
    pub async fn pong_of(&self, payload: &[u8]) -> Verdict {
        verdict(self.send(Item::Pong(payload.into())).await)
    }

    /// Queues the publishes that wait.
    pub async fn flush(&mut self) -> Verdict {
        let run = std::mem::take(&mut self.run);
        let Some(session) = &self.session else { return Verdict::GoOn };
        if run.is_empty() {
            return Verdict::GoOn;
        }
        let run = session.publish_run(run).await;
        self.note_refusal(run.refusal());
        let pending = Pending::run(run);
        verdict(self.send(Item::Pending(None, pending)).await)
    }

    /// Carries out what was taken, after what waits.
    pub async fn carry_out(&mut self, taken: Taken) -> Verdict {
        match self.flush().await {
            Verdict::GoOn => {}
            other => return other,
        }
        let (id, error) = match taken.0 {
            What::Request(head, request) => {
                let ends_anew = is_publish(&request) && !self.is_held_up(head);
                let carried_out = self.request(head, request).await;
                if ends_anew {
                    self.note_refusal(carried_out.as_ref().err());
                }
                match carried_out {
                    Ok(verdict) => return verdict,
                    Err(error) => (head.id, error),
                }
            }
            What::Refused(id, error) => {
                self.note_refusal(Some(&error));
                (id, error)
            }
            What::Bad(bad) => {
                self.bad_in_a_row += 1;
                (bad.id, bad.error)
            }
        };
        let is_cut_off = error.code == Code::RateLimited
            && self.session.as_ref().is_none_or(Session::is_beyond_reason);
        match self.answer(id, Reply::Error(error)).await {
            false => Verdict::Gone,
            true if is_cut_off => Verdict::Close(CLOSE_RATE_LIMITED, "rate limited"),
            true if self.bad_in_a_row >= BAD_MAX => {
                Verdict::Close(CLOSE_VIOLATION, "twenty bad messages in a row")
            }
            true => Verdict::GoOn,
        }
    }

    /// How a publish has ended before it was queued: what follows it does not go before it.
    fn note_refusal(&mut self, error: Option<&WireError>) {
        self.refused = error.filter(|error| error.retryable).cloned().map(Box::new);
    }

    /// Whether a publish with this head would go before one that is to be tried again.
    fn is_held_up(&self, head: Head) -> bool {
        head.follows && self.refused.is_some()
    }

    /// # Errors
    /// That of the publish before, which this one is not to go before.
    fn check_follows(&self, head: Head) -> Result<(), WireError> {
        let Some(refused) = self.refused.as_ref().filter(|_| self.is_held_up(head)) else {
            return Ok(());
        };
        let text = format!("it follows a publish that was refused: {}", refused.message);
        let error = WireError { message: text, ..WireError::clone(refused) };
        self.session()?.refuse_publish(&error);
        Err(error)
    }

    async fn enter(&mut self, session: Session) -> Verdict {
        self.answers.charge_to(session.meter.clone());
        self.session = Some(session);
        self.watch_token();
        let Some(options) = self.by_itself.take() else { return Verdict::GoOn };
        match self.subscribe(None, &options).await {
            Ok(verdict) => verdict,
            Err(error) => {
                self.send(Item::Push(Push::Error(error))).await;
                Verdict::GoOn
            }
        }
    }

    /// A ping or pong of the transport's own has come. Nobody is told before that there are too many.
    pub fn control(&mut self) -> Verdict {
        let Some(session) = &self.session else {
            self.controls += 1;
            return match self.controls <= STRANGERS_CONTROLS_MAX {
                true => Verdict::GoOn,
                false => Verdict::Close(CLOSE_RATE_LIMITED, "too many pings before connect"),
            };
        };
        match session.take(Kind::Controls, 1) {
            Ok(()) => Verdict::GoOn,
            Err(_) => {
                session.cut_off(Kind::Controls);
                Verdict::Close(CLOSE_RATE_LIMITED, "too many pings and pongs")
            }
        }
    }

    async fn request(&mut self, head: Head, request: Request) -> Result<Verdict, WireError> {
        let id = head.id;
        let names_itself =
            matches!(request, Request::Connect(_) | Request::Ping | Request::Refresh { .. });
        if self.session.is_none() && !names_itself && !self.greeting.needs_token() {
            // Who asks for something without having shown a token shows none any more.
            let session = self.greeting.connect(None)?;
            match self.enter(session).await {
                Verdict::GoOn => {}
                other => return Ok(other),
            }
        }
        match &self.session {
            Some(session) => session.take(Kind::Requests, 1)?,
            None => self.greeting.guest().asks()?,
        }
        match request {
            Request::Connect(connect) => self.connect(id, connect).await,
            Request::Ping => Ok(self.pong(id).await),
            Request::Publish(publish) => {
                self.check_follows(head)?;
                let waits = publish.deliver_at.is_some();
                let form = if waits { Form::Scheduled } else { Form::One };
                self.publish(id, vec![*publish], form).await
            }
            Request::PublishBatch(batch) => {
                check_batch(&batch)?;
                self.check_follows(head)?;
                self.publish(id, batch, Form::Batch).await
            }
            Request::Subscribe(options) => self.subscribe(id, &options).await,
            Request::Ack(ack) => self.ack(id, &ack).await,
            Request::Nack(nack) => self.nack(id, &nack).await,
            Request::Unsubscribe { subscription } => self.unsubscribe(id, subscription).await,
            Request::Refresh { token } => self.refresh(id, &token).await,
            Request::Receipts { offset } => {
                self.session()?.check_log(offset.log.as_deref())?;
                let offset = offset.offset;
                let (receipts, _) = self.session()?.receipts(offset, None, RECEIPTS_MAX).await?;
                Ok(self.reply(id, Reply::Receipts(Receipts { offset, receipts })).await)
            }
            Request::Cancel { offset } => {
                self.session()?.cancel(&offset).await?;
                let offset = offset.offset;
                Ok(self.reply(id, Reply::Cancelled { offset }).await)
            }
            Request::Presence { topic } => {
                let (presence, _) = self.session()?.presence(&topic)?;
                Ok(self.reply(id, Reply::Presence(presence)).await)
            }
        }
    }

    fn session(&self) -> Result<&Session, WireError> {
        self.session.as_ref().ok_or_else(|| {
            WireError::new(
                Code::Unauthenticated,
                "connect comes first: {\"id\":1,\"connect\":{\"token\":\"…\"}}",
            )
        })
    }

    async fn connect(
        &mut self,
        id: Option<RequestId>,
        connect: Connect,
    ) -> Result<Verdict, WireError> {
        if let Some(session) = &mut self.session {
            // Let in by the upgrade request: `connect` is then optional, and asks how things stand.
            if let (Some(token), true) = (&connect.token, self.greeting.takes_token()) {
                session.refresh(token)?;
                self.watch_token();
                if !self.end_ungranted().await {
                    return Ok(Verdict::Gone);
                }
            }
            let connected = self.session()?.connected(&connect.compress);
            return Ok(self.reply(id, Reply::Connected(connected)).await);
        }
        let session = self.greeting.connect(connect.token.as_deref())?;
        let subject = &session.identity().subject;
        tracing::debug!(
            session = %session.id(),
            subject,
            client = connect.client.as_deref().unwrap_or("-"),
            "connected"
        );
        let connected = session.connected(&connect.compress);
        match self.reply(id, Reply::Connected(connected)).await {
            Verdict::GoOn => Ok(self.enter(session).await),
            other => Ok(other),
        }
    }

    async fn refresh(&mut self, id: Option<RequestId>, token: &str) -> Result<Verdict, WireError> {
        self.session()?;
        let Some(session) = &mut self.session else { return Ok(Verdict::GoOn) };
        session.refresh(token)?;
        let token_expires = session.identity().expires;
        self.watch_token();
        // Before the answer: whoever has that gets nothing more of what is not granted.
        if !self.end_ungranted().await {
            return Ok(Verdict::Gone);
        }
        Ok(self.reply(id, Reply::Refreshed { token_expires }).await)
    }

    async fn pong(&mut self, id: Option<RequestId>) -> Verdict {
        match id {
            Some(_) => self.reply(id, Reply::Pong {}).await,
            None => verdict(self.send(Item::Push(Push::Pong {})).await),
        }
    }

    async fn publish(
        &mut self,
        id: Option<RequestId>,
        batch: Vec<Publish>,
        form: Form,
    ) -> Result<Verdict, WireError> {
        let events = batch.len();
        let ticket = self.session()?.publish(batch).await?;
        let pending = Pending::published(ticket, events, form);
        Ok(verdict(self.send(Item::Pending(id, pending)).await))
    }

    async fn subscribe(
        &mut self,
        id: Option<RequestId>,
        options: &SubscribeOptions,
    ) -> Result<Verdict, WireError> {
        let max = self.session()?.house().limits.subscriptions_max;
        if self.subscriptions.len() >= max {
            // Those that were superseded could still be named by late acks; now their place is needed.
            for ended in self.answers.take_ended() {
                self.subscriptions.remove(ended);
            }
        }
        let session = self.session()?;
        if self.subscriptions.len() >= max {
            return Err(WireError::new(
                Code::TooLarge,
                format!("subscribe: this socket has {max} subscriptions, the most it may have"),
            ));
        }
        let number = self.last_number.checked_add(1).ok_or_else(|| {
            let text = "subscribe: this socket has no number left for one: open another socket";
            WireError::new(Code::TooLarge, text)
        })?;
        let subscription = session.subscribe(options, self.ready.clone(), number).await?;
        self.last_number = number;
        let held = match subscription.durable() {
            Some((durable, token)) => Held::Durable(durable.clone(), token),
            None => Held::Ephemeral(options.filters.clone()),
        };
        let subscribed = Subscribed {
            subscription: number,
            durable: options.durable.clone(),
            cursor: subscription.cursor(),
            last_acked: held.name().map(|_| subscription.cursor()),
        };
        self.subscriptions.insert(number, held);
        let reply = id.map(|id| (id, Reply::Subscribed(subscribed)));
        Ok(verdict(self.send(Item::Subscribe(reply, Box::new(subscription))).await))
    }

    async fn unsubscribe(
        &mut self,
        id: Option<RequestId>,
        number: u32,
    ) -> Result<Verdict, WireError> {
        self.session()?;
        self.subscriptions.remove(number).ok_or_else(|| no_subscription(number))?;
        Ok(verdict(self.send(Item::Unsubscribe(id, number)).await))
    }

    async fn ack(&mut self, id: Option<RequestId>, ack: &Ack) -> Result<Verdict, WireError> {
        let target = target(ack)?;
        self.session()?.take(Kind::Acks, 1)?;
        let number = named(ack.subscription)?;
        let (durable, token) = self.durable(number)?;
        self.session()?.check_log(ack.log.as_deref())?;
        let broker = &self.session()?.house().broker;
        let taken = broker.ack(durable, &target, Some(token)).await;
        let (ticket, floor) = taken.map_err(|error| of_ack(&error))?;
        let pending = Pending::acked(
            ticket,
            Reply::Acked(Acked { subscription: Some(number), cursor: floor }),
        );
        Ok(verdict(self.send(Item::Pending(id, pending)).await))
    }

    async fn nack(&mut self, id: Option<RequestId>, nack: &Nack) -> Result<Verdict, WireError> {
        check_count(nack.offsets.len())?;
        self.session()?.take(Kind::Acks, 1)?;
        let number = named(nack.subscription)?;
        let (durable, token) = self.durable(number)?;
        self.session()?.check_log(nack.log.as_deref())?;
        let broker = &self.session()?.house().broker;
        let ticket = broker
            .nack(durable, &nack.offsets, nack.delay_ms, nack.reason.as_deref(), Some(token))
            .map_err(|error| of_ack(&error))?;
        let pending = Pending::acked(ticket, Reply::Nacked { subscription: Some(number) });
        Ok(verdict(self.send(Item::Pending(id, pending)).await))
    }

    fn durable(&self, number: u32) -> Result<(&Arc<Durable>, Token), WireError> {
        self.session()?;
        match self.subscriptions.get(number).ok_or_else(|| no_subscription(number))? {
            Held::Durable(durable, token) => Ok((durable, *token)),
            Held::Ephemeral(_) => Err(of_ack(&crate::broker::error::AckError::NotDurable)),
        }
    }

    async fn reply(&self, id: Option<RequestId>, reply: Reply) -> Verdict {
        verdict(self.answer(id, reply).await)
    }

    /// Without an id only an error is answered.
    async fn answer(&self, id: Option<RequestId>, reply: Reply) -> bool {
        match (id, reply) {
            (None, Reply::Error(error)) => self.send(Item::Push(Push::Error(error))).await,
            (None, _) => true,
            (Some(id), reply) => self.send(Item::Reply(id, reply)).await,
        }
    }

    /// Waits for room, but not longer than the session may go on: who reads slowly stays in no longer for that.
    async fn send(&self, item: Item) -> bool {
        tokio::select! {
            biased;
            sent = self.answers.send(item) => sent,
            () = self.over() => false,
        }
    }
}

fn is_publish(request: &Request) -> bool {
    matches!(request, Request::Publish(_) | Request::PublishBatch(_))
}

fn verdict(sent: bool) -> Verdict {
    if sent { Verdict::GoOn } else { Verdict::Gone }
}

fn named(subscription: Option<u32>) -> Result<u32, WireError> {
    subscription.ok_or_else(|| {
        WireError::invalid("subscription: the number that subscribed gave is missing")
    })
}

fn no_subscription(number: u32) -> WireError {
    WireError::new(
        Code::NotFound,
        format!("subscription: this session has none with the number {number}"),
    )
}
