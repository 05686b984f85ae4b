//! What a caller holds of a subscription: deliveries come out of it, acks go into it.

use std::sync::Arc;

use tidings_proto::{
    Cursor, Event, Offset,
    message::{Gap, Subscribed},
};
use tokio::sync::oneshot;

use super::{
    Client, Error,
    buffer::Buffer,
    core::Command,
    feed::{Errand, ErrandKind},
};

/// What comes out of a subscription.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are events")]
pub enum Delivery {
    /// An event.
    Event {
        /// The event.
        event: Event,
        /// The number of this delivery of it: 1, or more where a durable delivers it again.
        attempts: u32,
    },
    /// What was in the log when the subscription was made (again) has been delivered.
    CaughtUp(Cursor),
    /// Events are gone; delivery goes on behind them.
    Gap(Gap),
    /// Another session of a mirrored durable has acknowledged up to here.
    Acked(Cursor),
    /// A newer session has taken the durable over, or it was deleted. Nothing more comes.
    Superseded,
}

/// A subscription; dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    pub(super) key: u64,
    pub(super) client: Client,
    pub(super) buffer: Arc<Buffer>,
    pub(super) subscribed: Subscribed,
}

impl Subscription {
    /// What the broker answered to the first subscribe. Later ones have other numbers.
    pub fn subscribed(&self) -> &Subscribed {
        &self.subscribed
    }

    /// The next delivery. Cancel safe: a dropped future takes nothing.
    ///
    /// # Errors
    /// Why nothing more comes: it has ended, or the client has.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        self.buffer.next().await
    }

    /// The next delivery if there is one now.
    ///
    /// # Errors
    /// As [`Subscription::next`].
    pub fn try_next(&mut self) -> Option<Result<Delivery, Error>> {
        self.buffer.try_next()
    }

    /// All up to and including `offset` is done. The future gives the durable's floor once the ack
    /// is durable; it is said again on a new connection until then. Waits for room first.
    ///
    /// # Errors
    /// What the broker refuses, or why the subscription has ended.
    pub fn ack(
        &self,
        offset: Offset,
    ) -> impl Future<Output = Result<Option<Cursor>, Error>> + Send + use<> {
        self.say(ErrandKind::AckUpTo(offset))
    }

    /// Just these events are done; at most 4,096 of them. Otherwise as [`Subscription::ack`].
    ///
    /// # Errors
    /// As [`Subscription::ack`].
    pub fn ack_many(
        &self,
        offsets: Vec<Offset>,
    ) -> impl Future<Output = Result<Option<Cursor>, Error>> + Send + use<> {
        self.say(ErrandKind::Ack(offsets))
    }

    /// These events should come again, after `delay_ms` or as the subscription's backoff says.
    ///
    /// # Errors
    /// As [`Subscription::ack`].
    pub fn nack(
        &self,
        offsets: Vec<Offset>,
        delay_ms: Option<u64>,
        reason: Option<String>,
    ) -> impl Future<Output = Result<Option<Cursor>, Error>> + Send + use<> {
        self.say(ErrandKind::Nack { offsets, delay_ms, reason })
    }

    /// Unsubscribes and waits until the broker has done so; what it said before arrives first.
    ///
    /// # Errors
    /// Why the client has ended.
    pub async fn unsubscribe(self) -> Result<(), Error> {
        self.buffer.abandon();
        match self.say(ErrandKind::Unsubscribe).await {
            Ok(_) | Err(Error::Ended) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn say(
        &self,
        kind: ErrandKind,
    ) -> impl Future<Output = Result<Option<Cursor>, Error>> + Send + use<> {
        let (client, key) = (self.client.clone(), self.key);
        async move {
            let room = client.shared.errands.clone().acquire_owned().await;
            let permit = room.map_err(|_| client.why_closed())?;
            let (answer, answered) = oneshot::channel();
            let errand = Errand { kind, answer, _permit: permit };
            client.command(Command::Errand(key, errand)).await?;
            answered.await.map_err(|_| client.why_closed())?
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.buffer.abandon();
        // With a full queue the broker goes on delivering to nobody, until the connection ends.
        let _ = self.client.commands.try_send(Command::Abandon(self.key));
    }
}
