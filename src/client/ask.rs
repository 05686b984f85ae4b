//! Request and reply: an event that names where its answer is to go, and the wait for that answer.
//!
//! - The question has the header `reply-to` and a `correlation`; the answer is the first event on that topic with
//!   the same correlation. The broker knows nothing of it: both are events like all others, and stay in the log.
//! - It listens before it asks, so that no answer is too fast. A connection that breaks in between loses nothing.

use std::time::Duration;

use tidings_proto::{
    Event, Filter, Filters, SubscribeOptions, Topic,
    event::{Expiry, TTL_MS_MAX},
    message::Publish,
};

use super::{Client, Delivery, Error};
use crate::clock;

/// The header that names where the answer is to go.
pub const REPLY_TO: &str = "reply-to";

impl Client {
    /// Publishes and waits up to `deadline` for the answer on `reply_to`. A correlation is made where there is
    /// none; a question that has no expiry expires with the deadline, so that nobody works on what nobody waits
    /// for.
    ///
    /// # Errors
    /// [`Error::NoReply`] after the deadline; what the broker refuses, or why the client has ended.
    pub async fn request(
        &self,
        mut question: Publish,
        reply_to: &Topic,
        deadline: Duration,
    ) -> Result<Event, Error> {
        let late = Error::NoReply { topic: reply_to.to_string(), wait_ms: deadline.as_millis() };
        let gone = Error::AnswersGone { topic: reply_to.to_string() };
        let event = &mut question.event;
        let correlation =
            event.correlation.get_or_insert_with(|| clock::event_id().to_string()).clone();
        event.headers.insert(REPLY_TO.to_owned(), reply_to.to_string());
        let ttl_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX).min(TTL_MS_MAX);
        event.expires.get_or_insert(Expiry::TtlMs(ttl_ms.max(1)));
        let answered = tokio::time::timeout(deadline, async {
            // A topic is a filter, too.
            let filter = Filter::parse(reply_to.as_str());
            let filter = filter.map_err(|error| Error::Protocol(error.to_string()))?;
            let mut answers = self.subscribe(SubscribeOptions::to(Filters::one(filter))).await?;
            self.publish(question).await?.await?;
            loop {
                match answers.next().await? {
                    Delivery::Event { event, .. }
                        if event.correlation.as_ref() == Some(&correlation) =>
                    {
                        return Ok(event);
                    }
                    // An answer that may be in it is not waited for in vain.
                    Delivery::Gap(_) => return Err(gone.clone()),
                    _ => {}
                }
            }
        });
        answered.await.unwrap_or(Err(late))
    }
}
