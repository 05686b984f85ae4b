//! Presence: who is subscribed to a topic and wants to be listed there.
//!
//! - Joins and leaves are events on `$presence.<topic>`, appended by the commit thread with everything else;
//!   the list is what the ledger folds from them, so it is what the log says at every moment.
//! - A join is answered when it is in the log. A leave that could not be written stays and is tried again: a
//!   full disk has its reserve for it, and after a restart the ledger's members leave.
//! - Who is held by whom and what is to be written is in [`state`].

mod listings;
mod state;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tidings_proto::{
    Cursor, Filter, SubscribeOptions, Topic,
    control::{LeaveReason, PRESENCE_ROOT, PresenceChange},
    event::{JSON_DEPTH_MAX, json_depth},
    message::{self, Member},
};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(super) use self::listings::{Listed, Listings};
use self::state::{Bounds, Guest, Members, Refused, Step};
use super::{Broker, Subscription, error::SubscribeError, interest::Ready};
use crate::{
    clock,
    log::{AppendError, Draft, Health, LogHandle, codec},
    metrics,
};

/// The most bytes the data of a member may have as JSON.
const DATA_BYTES_MAX: usize = 1024;
/// How deep it may be nested: it stands in the data of an event.
const DATA_DEPTH_MAX: usize = JSON_DEPTH_MAX - 1;
/// The most joins and leaves of one commit.
const STEPS_MAX: usize = 256;

/// The bounds of presence.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a member whose connection was lost stays listed.
    pub grace: Duration,
    /// How long a member from before the start stays listed.
    pub restart_grace: Duration,
    /// The most members there may be on one topic.
    pub topic_members_max: usize,
    /// The most members there may be.
    pub members_max: usize,
}

/// The members of all topics, as far as sessions and timers are concerned.
#[derive(Debug)]
pub(super) struct Presence {
    options: Options,
    log: LogHandle,
    inner: Mutex<Inner>,
    /// Somebody is away: there may be an earlier deadline.
    news: Notify,
}

#[derive(Debug)]
struct Inner {
    members: Members,
    /// Who waits for a join to be in the log, by the number of the member.
    waiting: HashMap<u64, Vec<Waiter>>,
    /// Members whose joins and leaves are in the log, while nobody can read them yet.
    written: Vec<u64>,
    /// Nothing can be written any more.
    halted: Option<AppendError>,
    /// The broker is stopping: who goes now is asked for after the next start.
    stopping: bool,
}

type Waiter = oneshot::Sender<Result<(), AppendError>>;

/// What a subscription holds of its memberships. Dropping it is losing it: they stay for a grace.
#[derive(Debug)]
pub(super) struct Hold {
    presence: Arc<Presence>,
    numbers: Vec<u64>,
    on_purpose: bool,
}

impl Presence {
    /// Nobody anywhere.
    pub(super) fn new(options: Options, log: LogHandle) -> Arc<Presence> {
        let bounds = Bounds { on_topic: options.topic_members_max, in_all: options.members_max };
        let inner = Inner {
            members: Members::new(bounds),
            waiting: HashMap::new(),
            written: Vec::new(),
            halted: None,
            stopping: false,
        };
        Arc::new(Presence { options, log, inner: Mutex::new(inner), news: Notify::new() })
    }

    /// Takes in what the ledger has from before the start.
    pub(super) fn restore(&self, members: impl Iterator<Item = (Topic, PresenceChange)>) {
        let until_ms = after(self.options.restart_grace);
        let mut inner = self.inner.lock();
        for (topic, who) in members {
            inner.members.restore(topic, who, until_ms);
        }
    }

    /// The events to append with the next commit.
    pub(super) fn drain(&self) -> Vec<Draft> {
        let mut inner = self.inner.lock();
        if inner.halted.is_some() || !inner.members.is_waiting() {
            return Vec::new();
        }
        let steps = inner.members.write(STEPS_MAX);
        drop(inner);
        steps.iter().filter_map(draft).collect()
    }

    /// What [`Presence::drain`] gave is durable and in the ledger, and nobody can read it yet: whoever then reads of a
    /// leave finds its place free.
    pub(super) fn committed(&self) {
        let mut inner = self.inner.lock();
        let written = inner.members.written();
        for (_, reason) in &written {
            metrics::presence_changed(reason.map(LeaveReason::as_str));
        }
        inner.written.extend(written.into_iter().map(|(number, _)| number));
    }

    /// It can be read: whoever waits for it is told.
    pub(super) fn readable(&self) {
        let mut inner = self.inner.lock();
        let written = std::mem::take(&mut inner.written);
        if written.is_empty() {
            return;
        }
        for number in written {
            inner.tell(number, &Ok(()));
        }
        if inner.members.is_waiting() {
            self.log.nudge();
        }
    }

    /// What [`Presence::drain`] gave could not be appended.
    pub(super) fn failed(&self, error: &AppendError) {
        let mut inner = self.inner.lock();
        let is_over = match error {
            // The batch was too large with the publishes in it: another one will not be.
            AppendError::TooLarge { .. } | AppendError::Full => false,
            // Whether it was written is known after the next start.
            _ => true,
        };
        let forgets_joins = is_over || matches!(error, AppendError::Full);
        let had_steps = inner.members.is_writing();
        for number in inner.members.failed(forgets_joins) {
            inner.tell(number, &Err(error.clone()));
        }
        if is_over && had_steps {
            inner.halt(error);
        }
    }

    /// Nothing is drained any more: whoever waits is told.
    pub(super) fn closed(&self) {
        self.inner.lock().halt(&AppendError::Closed);
    }

    /// Nobody leaves any more but on purpose: sessions are ended by the broker from now on.
    pub(super) fn stopping(&self) {
        self.inner.lock().stopping = true;
    }

    /// Lets those go that have been away too long; gives when the next will have been.
    fn expire(&self) -> Option<Duration> {
        let mut inner = self.inner.lock();
        if inner.stopping {
            return None;
        }
        let now_ms = clock::monotonic_ms();
        inner.members.expire(now_ms);
        if inner.members.is_waiting() {
            self.log.nudge();
        }
        let due_ms = inner.members.next_due_ms()?;
        Some(Duration::from_millis(due_ms.saturating_sub(now_ms)))
    }

    /// Lists a guest on these topics: on all or on none.
    fn enter(
        self: &Arc<Presence>,
        topics: &BTreeSet<Topic>,
        guest: &Guest<'_>,
    ) -> Result<Hold, SubscribeError> {
        // Dropped with an error it takes back what was done.
        let mut hold = Hold { presence: self.clone(), numbers: Vec::new(), on_purpose: false };
        for topic in topics {
            let entered = self.inner.lock().members.enter(topic, guest);
            hold.numbers.push(entered.map_err(|refused| self.refusal(topic, refused))?);
        }
        hold.check_health()?;
        Ok(hold)
    }

    fn check_health(&self) -> Result<(), AppendError> {
        match self.log.health() {
            Health::Writable => self.inner.lock().halted.clone().map_or(Ok(()), Err),
            Health::Full => Err(AppendError::Full),
            Health::Latched(cause) => Err(AppendError::Latched(cause)),
            Health::Closed => Err(AppendError::Closed),
        }
    }

    fn refusal(&self, topic: &Topic, refused: Refused) -> SubscribeError {
        let (of, max, setting) = match refused {
            Refused::Differs => {
                let problem = format!(
                    "this session is listed on {topic} with other data: unsubscribe there first"
                );
                return SubscribeError::Invalid { field: "presence.data", problem };
            }
            Refused::TopicFull => {
                let max = self.options.topic_members_max;
                (topic.to_string(), max, "limits.presence_topic_members_max")
            }
            Refused::Full => {
                ("this broker".to_owned(), self.options.members_max, "limits.presence_members_max")
            }
        };
        SubscribeError::TooManyMembers { of, max, setting }
    }
}

impl Inner {
    /// Nothing is written any more, so whoever waits for it is told.
    fn halt(&mut self, error: &AppendError) {
        self.halted = Some(error.clone());
        let waiting: Vec<u64> = self.waiting.keys().copied().collect();
        for number in waiting {
            self.tell(number, &Err(error.clone()));
        }
    }

    fn tell(&mut self, number: u64, outcome: &Result<(), AppendError>) {
        for waiter in self.waiting.remove(&number).into_iter().flatten() {
            // Whoever has gone does not want to know.
            let _ = waiter.send(outcome.clone());
        }
    }
}

impl Hold {
    /// Whoever takes a place over writes nothing, and may also where nothing can be written.
    fn check_health(&self) -> Result<(), AppendError> {
        let is_in_log = {
            let inner = self.presence.inner.lock();
            self.numbers.iter().all(|number| inner.members.has_joined(*number))
        };
        if is_in_log { Ok(()) } else { self.presence.check_health() }
    }

    /// Has the joins written, and waits until they are in the log.
    async fn join(&self) -> Result<(), AppendError> {
        self.check_health()?;
        let mut joins = Vec::new();
        {
            let mut inner = self.presence.inner.lock();
            for number in &self.numbers {
                if inner.members.join(*number) {
                    // Since the look above it may have come to that.
                    if let Some(error) = &inner.halted {
                        return Err(error.clone());
                    }
                    let (sender, receiver) = oneshot::channel();
                    inner.waiting.entry(*number).or_default().push(sender);
                    joins.push(receiver);
                }
            }
        }
        if joins.is_empty() {
            return Ok(());
        }
        self.presence.log.nudge();
        for join in joins {
            join.await.unwrap_or(Err(AppendError::Closed))?;
        }
        Ok(())
    }

    /// Lets go on purpose: the members leave at once.
    pub(super) fn leave(mut self) {
        self.on_purpose = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let presence = &self.presence;
        let until_ms = after(presence.options.grace);
        let mut inner = presence.inner.lock();
        for number in &self.numbers {
            match self.on_purpose {
                true => inner.members.leave(*number),
                false => inner.members.lose(*number, until_ms),
            }
            if let Some(waiters) = inner.waiting.get_mut(number) {
                waiters.retain(|waiter| !waiter.is_closed());
                if waiters.is_empty() {
                    inner.waiting.remove(number);
                }
            }
        }
        let is_waiting = inner.members.is_waiting();
        drop(inner);
        if is_waiting {
            presence.log.nudge();
        }
        presence.news.notify_one();
    }
}

/// Lets those go that have been away too long, until `stop`.
pub(super) async fn keep(presence: Arc<Presence>, stop: CancellationToken) {
    loop {
        let due_in = presence.expire();
        tokio::select! {
            () = stop.cancelled() => return,
            () = presence.news.notified() => {}
            () = clock::sleep(due_in) => {}
        }
    }
}

/// The monotonic clock after this time, in milliseconds.
fn after(grace: Duration) -> u64 {
    clock::monotonic_ms().saturating_add(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX))
}

fn draft(step: &Step) -> Option<Draft> {
    let topic = Topic::parse(&format!("{PRESENCE_ROOT}.{}", step.topic)).ok()?;
    let kind = if step.change.reason.is_some() { "presence.left" } else { "presence.joined" };
    let data = serde_json::to_vec(&step.change).ok()?;
    let mut draft = codec::control(topic, kind, data, clock::event_id());
    // The newest event of each is what is known of it.
    draft.key = step.change.session.as_bytes().into();
    Some(draft)
}

/// What presence asks of the options of a subscription.
pub(super) fn check(options: &SubscribeOptions) -> Result<(), SubscribeError> {
    if options.presence.is_some() {
        topics(options)?;
        data(options)?;
    }
    Ok(())
}

/// The topics that a subscription is to be listed on: its own ones, not the broker's.
fn topics(options: &SubscribeOptions) -> Result<BTreeSet<Topic>, SubscribeError> {
    let invalid = |problem: String| SubscribeError::Invalid { field: "presence", problem };
    if let Some(filter) = options.filters.iter().find(|filter| !filter.is_literal()) {
        let problem =
            format!("the filter {filter} has a wildcard: one is listed on topics, name each");
        return Err(invalid(problem));
    }
    let literals = options.filters.iter().filter_map(Filter::literal);
    let topics: BTreeSet<Topic> = literals.filter(|topic| !topic.is_own()).collect();
    if topics.is_empty() {
        let problem =
            "all filters are topics of the broker's own, where nobody is listed: name one of yours";
        return Err(invalid(problem.to_owned()));
    }
    Ok(topics)
}

/// What it is to be listed with, as JSON.
fn data(options: &SubscribeOptions) -> Result<String, SubscribeError> {
    let field = "presence.data";
    let wish = options.presence.as_ref().map(|presence| presence.data.to_string());
    let data = wish.unwrap_or_default();
    if data.len() > DATA_BYTES_MAX {
        let problem =
            format!("it has {} bytes as JSON, at most {DATA_BYTES_MAX} are allowed", data.len());
        return Err(SubscribeError::Invalid { field, problem });
    }
    if json_depth(data.as_bytes()) > DATA_DEPTH_MAX {
        let problem = format!("it is nested deeper than {DATA_DEPTH_MAX} levels");
        return Err(SubscribeError::Invalid { field, problem });
    }
    Ok(data)
}

impl Broker {
    /// Subscribes as [`Broker::subscribe`] does, and is listed on the topics where the options ask for that;
    /// the joins are in the log then.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub async fn subscribe_as(
        &self,
        session: Uuid,
        options: &SubscribeOptions,
        subject: &str,
        ready: Arc<Ready>,
        number: u32,
    ) -> Result<Subscription, SubscribeError> {
        if options.presence.is_none() {
            return self.subscribe(options, subject, ready, number).await;
        }
        let (topics, data) = (topics(options)?, data(options)?);
        let guest = Guest { session, subject, data: &data, now: clock::now() };
        let hold = self.presence.enter(&topics, &guest)?;
        let subscription = self.subscribe(options, subject, ready, number).await?;
        hold.join().await?;
        Ok(subscription.listed(hold))
    }

    /// Who is listed on a topic, and up to where in the log that is so.
    pub fn presence(&self, topic: &Topic) -> (message::Presence, Cursor) {
        let (listed, cursor) = self.controls.listed(topic);
        let members = listed.iter().map(|listed| member(listed)).collect();
        (message::Presence { topic: topic.clone(), members }, cursor)
    }

    /// How many members there are on all topics.
    pub fn members(&self) -> usize {
        self.controls.members()
    }
}

fn member(listed: &Listed) -> Member {
    let who = &listed.who;
    // It was written by us, so it can be read.
    let data = who.data.as_ref().and_then(|data| serde_json::from_str(data.get()).ok());
    Member {
        subject: who.subject.clone(),
        session: who.session.clone(),
        since: who.since,
        data: data.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
