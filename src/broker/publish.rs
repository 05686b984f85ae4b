//! Publishing: what the protocol allows, then one append.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use smallvec::SmallVec;
use tidings_proto::{
    EventId, Topic,
    message::{Publish, Published},
};
use uuid::Uuid;

use super::{Broker, error::PublishError};
use crate::{
    clock,
    log::{self, Draft, Drafts, Ticket},
};

/// Accepted: a future of where the events stand.
pub struct PublishTicket {
    ticket: Ticket,
    ids: SmallVec<[String; 1]>,
}

impl Future for PublishTicket {
    /// Why nothing was published: see [`log::AppendError`] for the three outcomes.
    type Output = Result<SmallVec<[Published; 1]>, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let committed = ready!(Pin::new(&mut self.ticket).poll(context))?;
        let published = |(place, id): (&log::Place, String)| Published {
            offset: place.offset,
            id,
            duplicate: place.duplicate,
        };
        let ids = std::mem::take(&mut self.ids);
        Poll::Ready(Ok(committed.places.iter().zip(ids).map(published).collect()))
    }
}

impl Broker {
    /// Queues events to be appended together: all or none. They are published in the order of the calls.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(
        &self,
        subject: &str,
        batch: Vec<Publish>,
    ) -> Result<PublishTicket, PublishError> {
        check(&batch)?;
        let now = clock::now();
        let mut drafts = Drafts::with_capacity(batch.len());
        let mut ids = SmallVec::with_capacity(batch.len());
        for publish in &batch {
            let made = publish.event.id.as_ref().map_or_else(clock::event_id, |_| Uuid::nil());
            ids.push(id_of(publish, made));
            let draft = log::draft(&publish.event, made, subject, now, publish.receipts);
            drafts.push(Draft { expect_last: publish.expect_last, ..draft });
        }
        let ticket = self.log.append(drafts).await?;
        Ok(PublishTicket { ticket, ids })
    }
}

fn id_of(publish: &Publish, made: Uuid) -> String {
    publish
        .event
        .id
        .as_ref()
        .map_or_else(|| made.to_string(), |id: &EventId| id.as_str().to_owned())
}

fn check(batch: &[Publish]) -> Result<(), PublishError> {
    if batch.is_empty() {
        return Err(PublishError::EmptyBatch);
    }
    let invalid = |field, problem: String| Err(PublishError::Invalid { field, problem });
    let mut topics: std::collections::HashSet<&Topic> = std::collections::HashSet::new();
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
        if publish.deliver_at.is_some() {
            return invalid(
                "deliver_at",
                "this version of the broker does not have it yet: leave it out".to_owned(),
            );
        }
        if publish.receipts {
            let problem = "this version of the broker does not push receipts yet: leave it out and ask for them";
            return invalid("receipts", problem.to_owned());
        }
    }
    Ok(())
}
