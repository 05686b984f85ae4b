//! Publishing: what the protocol allows, then one append.

use std::{
    collections::HashSet,
    pin::Pin,
    task::{Context, Poll, ready},
};

use smallvec::SmallVec;
use tidings_proto::{
    EventId, Timestamp, Topic,
    control::ScheduleOutcome,
    event::Expiry,
    message::{Publish, Published},
};
use uuid::Uuid;

use super::{
    Broker,
    error::PublishError,
    receipts::{MATCHING_MAX, topic_of},
    scheduled::{AHEAD_MS_MAX, outcome_of},
};
use crate::{
    clock,
    log::{self, Draft, Drafts, Ticket, Tickets},
};

/// The most events of a [`Run`]: their answers go out in one piece.
const RUN_EVENTS_MAX: usize = 128;
/// Once a run has so many bytes it is queued.
const RUN_BYTES: usize = 64 * 1024;
/// An event with more data than this is in no run: it is queued alone.
const RUN_DATA_BYTES_MAX: usize = 16 * 1024;

/// Accepted: a future of where the events stand.
pub struct PublishTicket(Accepted);

enum Accepted {
    /// To be appended as they are.
    Now { ticket: Ticket, ids: SmallVec<[String; 1]> },
    /// Stored to wait for its moment.
    Scheduled(Pin<Box<dyn Future<Output = Outcome> + Send>>),
}

type Outcome = Result<SmallVec<[Published; 1]>, PublishError>;

impl Future for PublishTicket {
    /// Why nothing was published: see [`log::AppendError`] for the three outcomes.
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Accepted::Now { ticket, ids } => {
                let committed = ready!(Pin::new(ticket).poll(context))?;
                let places = committed.places.iter().zip(std::mem::take(ids));
                Poll::Ready(Ok(places.map(|(place, id)| published(place, id)).collect()))
            }
            Accepted::Scheduled(stored) => stored.as_mut().poll(context),
        }
    }
}

fn published(place: &log::Place, id: String) -> Published {
    Published { offset: place.offset, id, duplicate: place.duplicate }
}

/// Events of one publisher that came together, each a publish of its own: they are queued in one piece, so that what
/// it costs to queue and to be answered is paid once. Empty it holds no memory.
#[derive(Default)]
pub struct Run {
    units: Vec<Drafts>,
    ids: Vec<RunId>,
    bytes: usize,
}

/// Written out when it is answered: until then a made one takes 16 bytes.
enum RunId {
    Made(Uuid),
    Given(EventId),
}

impl Run {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Whether it is to be queued before more comes.
    pub fn is_full(&self) -> bool {
        self.units.len() >= RUN_EVENTS_MAX || self.bytes >= RUN_BYTES
    }

    /// Whether this may be in one: not what has to be looked into first.
    pub fn takes(publish: &Publish) -> bool {
        let data_bytes = publish.event.data.as_ref().map_or(0, bytes::Bytes::len);
        publish.deliver_at.is_none() && !publish.receipts && data_bytes <= RUN_DATA_BYTES_MAX
    }
}

/// Accepted: a future of where each event stands, or why it does not.
pub struct RunTicket {
    tickets: Tickets,
    ids: Vec<RunId>,
}

impl Future for RunTicket {
    type Output = Vec<Result<Published, PublishError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcomes = ready!(Pin::new(&mut self.tickets).poll(context));
        let ids = std::mem::take(&mut self.ids);
        let one = |(outcome, id): (Result<log::Committed, log::AppendError>, RunId)| {
            let committed = outcome?;
            let place = committed.places.first().ok_or(log::AppendError::Indeterminate)?;
            let id = match id {
                RunId::Made(id) => id.to_string(),
                RunId::Given(id) => id.as_str().to_owned(),
            };
            Ok(published(place, id))
        };
        Poll::Ready(outcomes.into_iter().zip(ids).map(one).collect())
    }
}

impl Broker {
    /// Queues events to be appended together: all or none. They are published in the order of the calls. One with
    /// `deliver_at` is stored until then, and where it waits is what the ticket gives.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(
        &self,
        subject: &str,
        batch: Vec<Publish>,
    ) -> Result<PublishTicket, PublishError> {
        let now = clock::now();
        check(&batch, now)?;
        self.check_receipts(subject, &batch).await?;
        if let [publish] = &*batch
            && publish.deliver_at.is_some()
        {
            return self.schedule(subject, publish).await;
        }
        let mut drafts = Drafts::with_capacity(batch.len());
        let mut ids = SmallVec::with_capacity(batch.len());
        for publish in &batch {
            let (made, draft) = drafted(publish, subject, now);
            ids.push(id_of(publish, made));
            drafts.push(draft);
        }
        let ticket = self.log.append(drafts).await?;
        Ok(PublishTicket(Accepted::Now { ticket, ids }))
    }

    /// Adds an event that a run [takes](Run::takes); it is not queued yet.
    pub fn add(&self, run: &mut Run, subject: &str, publish: Publish) {
        // Only a time to live needs to know how late it is.
        let now = publish.event.expires.map_or(Timestamp::from_millis(0), |_| clock::now());
        let (made, draft) = drafted(&publish, subject, now);
        run.bytes += draft.cost_bytes();
        run.units.push(SmallVec::from_buf([draft]));
        run.ids.push(publish.event.id.map_or(RunId::Made(made), RunId::Given));
    }

    /// Queues the events of a run, in their order.
    ///
    /// # Errors
    /// See [`PublishError`], for all of them.
    pub async fn publish_run(&self, run: Run) -> Result<RunTicket, PublishError> {
        let tickets = self.log.append_each(run.units).await?;
        Ok(RunTicket { tickets, ids: run.ids })
    }

    /// Whether whoever wishes for receipts can be told, and by not too many.
    async fn check_receipts(&self, subject: &str, batch: &[Publish]) -> Result<(), PublishError> {
        let invalid = |problem: String| Err(PublishError::Invalid { field: "receipts", problem });
        let wishing = batch.iter().filter(|publish| publish.receipts);
        let topics: HashSet<&Topic> = wishing.map(|publish| &publish.event.topic).collect();
        if !topics.is_empty() && topic_of(subject).is_none() {
            let problem =
                "your subject is too long to be a token of a topic: leave it out and ask for them";
            return invalid(problem.to_owned());
        }
        for topic in topics {
            if self.controls.matching(topic, MATCHING_MAX).await > MATCHING_MAX {
                return invalid(format!(
                    "more than {MATCHING_MAX} durable subscriptions match {topic}: leave it out and ask for them"
                ));
            }
        }
        Ok(())
    }

    async fn schedule(
        &self,
        subject: &str,
        publish: &Publish,
    ) -> Result<PublishTicket, PublishError> {
        let place = self.schedule.place(self.scheduled())?;
        let made = publish.event.id.as_ref().map_or_else(clock::event_id, |_| Uuid::nil());
        let id = id_of(publish, made);
        let draft = log::codec::schedule(publish, made, subject);
        let ticket = self.log.append(draft.into_iter().collect()).await?;
        let log = self.log.clone();
        Ok(PublishTicket(Accepted::Scheduled(Box::pin(async move {
            let committed = ticket.await?;
            drop(place);
            let stored = committed.places.first().ok_or(log::AppendError::Indeterminate)?;
            // The same as before: of what was cancelled nobody is told that it waits.
            if stored.duplicate
                && outcome_of(&log, stored.offset).await?.0 == Some(ScheduleOutcome::Cancelled)
            {
                return Err(PublishError::Cancelled { id, offset: stored.offset });
            }
            Ok(SmallVec::from_iter([published(stored, id)]))
        }))))
    }
}

/// What is to be appended, and the id that was made for it; nil where the publisher gave one.
fn drafted(publish: &Publish, subject: &str, now: Timestamp) -> (Uuid, Draft) {
    let made = publish.event.id.as_ref().map_or_else(clock::event_id, |_| Uuid::nil());
    let draft = log::draft(&publish.event, made, subject, now, publish.receipts);
    (made, Draft { expect_last: publish.expect_last, ..draft })
}

fn id_of(publish: &Publish, made: Uuid) -> String {
    publish
        .event
        .id
        .as_ref()
        .map_or_else(|| made.to_string(), |id: &EventId| id.as_str().to_owned())
}

fn check(batch: &[Publish], now: Timestamp) -> Result<(), PublishError> {
    if batch.is_empty() {
        return Err(PublishError::EmptyBatch);
    }
    let invalid = |field, problem: String| Err(PublishError::Invalid { field, problem });
    let mut topics: HashSet<&Topic> = HashSet::new();
    for publish in batch {
        let topic = &publish.event.topic;
        if publish.expect_last.is_some() && topics.contains(topic) {
            return invalid(
                "expect_last",
                format!("only the batch's first event on {topic} may carry it"),
            );
        }
        if batch.len() > 1 {
            topics.insert(topic);
        }
        if let Some(deliver_at) = publish.deliver_at {
            check_schedule(publish, deliver_at, now, batch.len())?;
        }
    }
    Ok(())
}

/// What an event that waits for its moment must be.
fn check_schedule(
    publish: &Publish,
    deliver_at: Timestamp,
    now: Timestamp,
    in_batch: usize,
) -> Result<(), PublishError> {
    let invalid =
        |field, problem: &str| Err(PublishError::Invalid { field, problem: problem.to_owned() });
    if in_batch > 1 {
        return invalid(
            "deliver_at",
            "an event of a batch is published with the others: publish it alone",
        );
    }
    if publish.expect_last.is_some() {
        let problem =
            "it does not go with deliver_at: what the topic's last event will be then is not known";
        return invalid("expect_last", problem);
    }
    if deliver_at.as_millis() > now.as_millis().saturating_add(AHEAD_MS_MAX) {
        return invalid("deliver_at", "it is 30 days ahead at most");
    }
    match publish.event.expires {
        Some(Expiry::At(expires)) if expires <= deliver_at => {
            let problem = "it is not after deliver_at, so the event would never be delivered";
            invalid("expires", problem)
        }
        _ => Ok(()),
    }
}
