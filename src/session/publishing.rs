//! A publish on its way, counted once its outcome is known.
//!
//! One whose publisher goes before the answer is not counted: nobody was answered.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use smallvec::SmallVec;
use tidings_proto::{
    Code, WireError,
    message::{Publish, Published, RequestId},
    wire::stored::SUBJECT_SOURCE,
};

use super::{Session, Transport, of_publish, rates::Kind, shown};
use crate::{
    auth::Identity,
    broker::{self, PublishTicket, RunTicket},
    metrics::{self, Outcome},
};

/// Accepted: a future of where the events stand.
pub struct Publishing {
    ticket: PublishTicket,
    transport: Transport,
}

impl Publishing {
    pub(super) fn new(ticket: PublishTicket, transport: Transport) -> Publishing {
        Publishing { ticket, transport }
    }
}

impl Future for Publishing {
    type Output = Result<SmallVec<[Published; 1]>, WireError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let published = ready!(Pin::new(&mut self.ticket).poll(context));
        let published = published.map_err(|error| of_publish(&error));
        match &published {
            Ok(results) => {
                let is_known = results.iter().all(|published| published.duplicate);
                let outcome = if is_known { Outcome::Duplicate } else { Outcome::Ok };
                metrics::publish_answered(self.transport.as_str(), outcome, 1);
            }
            Err(error) => refused(self.transport, error),
        }
        Poll::Ready(published)
    }
}

/// Counts a publish that was refused.
pub(super) fn refused(transport: Transport, error: &WireError) {
    metrics::publish_answered(transport.as_str(), outcome(error.code), 1);
}

/// Publishes of one client that came together; each is answered for itself. Empty it takes the room of a pointer.
#[derive(Default)]
pub struct Run(Option<Box<Publishes>>);

#[derive(Default)]
struct Publishes {
    events: broker::Run,
    requests: Vec<Option<RequestId>>,
}

impl Run {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it is to be published before more comes.
    pub fn is_full(&self) -> bool {
        self.0.as_ref().is_some_and(|publishes| publishes.events.is_full())
    }

    /// Whether this may be in one.
    pub fn takes(publish: &Publish) -> bool {
        broker::Run::takes(publish)
    }
}

/// A run on its way.
pub struct PublishingRun {
    /// Why none of it was accepted, where it was not.
    ticket: Result<RunTicket, WireError>,
    requests: Vec<Option<RequestId>>,
    transport: Transport,
}

impl PublishingRun {
    /// Why none of it was accepted.
    pub fn refusal(&self) -> Option<&WireError> {
        self.ticket.as_ref().err()
    }

    /// How many publishes it holds.
    pub fn publishes(&self) -> usize {
        self.requests.len()
    }
}

impl Future for PublishingRun {
    type Output = Vec<(Option<RequestId>, Result<Published, WireError>)>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let results: Vec<Result<Published, WireError>> = match &mut self.ticket {
            Ok(ticket) => {
                let results = ready!(Pin::new(ticket).poll(context)).into_iter();
                results.map(|result| result.map_err(|error| of_publish(&error))).collect()
            }
            Err(error) => vec![Err(error.clone()); self.requests.len()],
        };
        let is_new = |result: &&Result<Published, WireError>| {
            result.as_ref().is_ok_and(|published| !published.duplicate)
        };
        let new = results.iter().filter(is_new).count();
        metrics::publish_answered(self.transport.as_str(), Outcome::Ok, new);
        for result in results.iter().filter(|result| !is_new(result)) {
            let outcome =
                result.as_ref().map_or_else(|error| outcome(error.code), |_| Outcome::Duplicate);
            metrics::publish_answered(self.transport.as_str(), outcome, 1);
        }
        let requests = std::mem::take(&mut self.requests);
        Poll::Ready(requests.into_iter().zip(results).collect())
    }
}

impl Session {
    /// Queues events to be appended together. In the order of the calls.
    ///
    /// # Errors
    /// As the protocol says; an error of the append itself comes from the ticket.
    pub async fn publish(&self, batch: Vec<Publish>) -> Result<Publishing, WireError> {
        let transport = self.counted.transport;
        let checked = self.check_publishes(&batch);
        checked.inspect_err(|error| refused(transport, error))?;
        let result = self.broker().publish(&self.identity.subject, batch).await;
        let result = result.map_err(|error| of_publish(&error));
        let ticket = result.inspect_err(|error| refused(transport, error))?;
        Ok(Publishing::new(ticket, transport))
    }

    /// Publishes and waits until it is durable.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn publish_now(
        &self,
        batch: Vec<Publish>,
    ) -> Result<SmallVec<[Published; 1]>, WireError> {
        self.publish(batch).await?.await
    }

    /// What is published together is allowed together: who waits as they are told gets all of it through.
    fn check_publishes(&self, batch: &[Publish]) -> Result<(), WireError> {
        self.check_standing()?;
        let mut bytes = 0;
        for publish in batch {
            bytes += self.check_publish(publish)?;
        }
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        self.take(Kind::Publishes, count(batch.len()))?;
        self.take(Kind::Bytes, count(bytes)).inspect_err(|_| {
            self.meter.give_back(Kind::Publishes, count(batch.len()), self.granted)
        })
    }

    /// Whether this may be published; gives how many bytes its data has.
    fn check_publish(&self, publish: &Publish) -> Result<usize, WireError> {
        if publish.receipts && !self.identity.owns(&self.identity.subject) {
            let text = "receipts: who comes without a token is told of none: leave it out";
            return Err(WireError::invalid(text));
        }
        let topic = &publish.event.topic;
        if topic.is_own() {
            return Err(WireError::new(
                Code::PermissionDenied,
                format!("topic: {topic} is the broker's own: topics of yours do not start with $"),
            ));
        }
        let data_bytes = publish.event.data.as_ref().map_or(0, bytes::Bytes::len);
        if data_bytes > self.house.limits.event_bytes_max {
            let max = self.house.limits.event_bytes_max;
            return Err(WireError::new(
                Code::TooLarge,
                format!("data: {data_bytes} bytes, at most {max} are allowed"),
            ));
        }
        if !self.identity.grants.may_publish(topic) {
            return Err(self.denied("publish to", topic.as_str()));
        }
        self.check_source(publish.event.source.as_deref())?;
        Ok(data_bytes)
    }

    /// Nobody publishes in the name of another subject: only who may do everything, and so passes on what others have
    /// published elsewhere.
    fn check_source(&self, source: Option<&str>) -> Result<(), WireError> {
        // Scheme and namespace of a URN have no case (RFC 8141 §3.1).
        let split =
            source.and_then(|source| source.trim_start().split_at_checked(SUBJECT_SOURCE.len()));
        let named = split.filter(|(prefix, _)| prefix.eq_ignore_ascii_case(SUBJECT_SOURCE));
        let Some((_, named)) = named else { return Ok(()) };
        let Identity { subject, grants, .. } = &*self.identity;
        if named == subject || grants.is_admin() {
            return Ok(());
        }
        let text = format!(
            "source: {SUBJECT_SOURCE}{} is another subject: leave it out, it is yours then",
            shown(named)
        );
        Err(WireError::new(Code::PermissionDenied, text))
    }

    /// Adds a publish that a run [takes](Run::takes); it is not published yet.
    ///
    /// # Errors
    /// As [`Session::publish`]; the run is as before.
    pub fn add(
        &self,
        run: &mut Run,
        id: Option<RequestId>,
        publish: Publish,
    ) -> Result<(), WireError> {
        let checked = self.check_publishes(std::slice::from_ref(&publish));
        checked.inspect_err(|error| refused(self.counted.transport, error))?;
        let publishes = run.0.get_or_insert_default();
        self.broker().add(&mut publishes.events, &self.identity.subject, publish);
        publishes.requests.push(id);
        Ok(())
    }

    /// A publish is refused for what is not said here.
    pub(super) fn refuse_publish(&self, error: &WireError) {
        refused(self.counted.transport, error);
    }

    /// Queues the events of a run. In the order of the calls, also of those of [`Session::publish`].
    pub async fn publish_run(&self, run: Run) -> PublishingRun {
        let Publishes { events, requests } = run.0.map_or_else(Publishes::default, |run| *run);
        let ticket = self.broker().publish_run(events).await;
        PublishingRun {
            ticket: ticket.map_err(|error| of_publish(&error)),
            requests,
            transport: self.counted.transport,
        }
    }
}

fn outcome(code: Code) -> Outcome {
    match code {
        Code::Conflict => Outcome::Conflict,
        Code::PermissionDenied | Code::Unauthenticated | Code::RateLimited => Outcome::Denied,
        Code::Unavailable | Code::Internal => Outcome::Unavailable,
        _ => Outcome::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_ours_is_no_fault_of_the_publisher() {
        assert_eq!(outcome(Code::Internal), Outcome::Unavailable);
        assert_eq!(outcome(Code::TooLarge), Outcome::Rejected);
        assert_eq!(outcome(Code::InvalidArgument), Outcome::Rejected);
    }
}
