//! What a durable has to say before new events: it was taken over, its floor moved, events come again.

use std::ops::ControlFlow;

use tidings_proto::Offset;

use super::{Attachment, Delivery, Subscription, attempts_of};
use crate::{
    broker::{bandwidth::replayed_bytes, leasing::Leasing},
    clock,
    log::ReadError,
    metrics,
};

impl Subscription {
    /// When something of its durable is due again.
    pub(super) fn durable_due_ms(&self) -> Option<u64> {
        let leasing = self.durable.as_ref().filter(|attachment| !attachment.durable.is_mirror());
        leasing.and_then(|Attachment { durable, token, .. }| {
            durable.next_due(&mut durable.lock(), *token)
        })
    }

    /// What only a durable has to say before new events: it was taken over, the floor moved, events come again.
    pub(super) async fn next_of_durable(&mut self) -> Result<Option<Delivery>, ReadError> {
        loop {
            match self.again_of_durable().await? {
                ControlFlow::Break(delivery) => return Ok(delivery),
                ControlFlow::Continue(()) => tokio::task::yield_now().await,
            }
        }
    }

    /// The same; goes on where what was due has expired, is gone or was replaced, and there is more: nothing new goes
    /// before that.
    async fn again_of_durable(&mut self) -> Result<ControlFlow<Option<Delivery>>, ReadError> {
        let limit = self.batch_limit();
        let Some(attachment) = &mut self.durable else { return Ok(ControlFlow::Break(None)) };
        let mirror = attachment.durable.is_mirror();
        let again = {
            let mut held = attachment.durable.lock();
            if !held.is_held_by(attachment.token, attachment.durable.spec.options.mode) {
                drop(held);
                return Ok(ControlFlow::Break(Some(self.end())));
            }
            if mirror {
                let floor = held.durable_floor();
                let moved = floor > attachment.told_floor;
                attachment.told_floor = attachment.told_floor.max(floor);
                return Ok(ControlFlow::Break(moved.then_some(Delivery::Acked(floor))));
            }
            // Acks above what was delivered, and fetchers, move the durable's cursor too.
            self.cursor = self.cursor.max(held.state.cursor());
            let room = attachment.durable.room_again(&held, attachment.token);
            let most = limit.events.min(room);
            held.state.deliver_again(clock::monotonic_ms(), most, attachment.token)
        };
        attachment.durable.tell_graves();
        if again.is_empty() {
            return Ok(ControlFlow::Break(None));
        }
        let durable = attachment.durable.clone();
        let mut leasing = Leasing::new(durable.clone(), &again);
        let offsets = again.iter().filter_map(|(offset, _)| Offset::new(*offset)).collect();
        let mut found = self.log.get_many(offsets, limit.bytes).await?;
        self.has_replayed(replayed_bytes(&found.events));
        if let Some(conflating) = self.conflating() {
            let reach = durable.lock().state.reach();
            found.events = Box::pin(conflating.unreplaced(found.events, reach)).await?;
        }
        let (events, more_due) = leasing.taken(found.events, &again, &found.left, &self.selection);
        leasing.done();
        // One is named; the others were, or will be, by those who read them anew.
        let damaged = found.damaged.first();
        self.pending_gap =
            damaged.map(|offset| Box::new(self.damage(offset.before(), offset.cursor())));
        if events.is_empty() {
            let gap = self.pending_gap.take().map(|gap| Delivery::Gap(*gap));
            return Ok(match gap {
                None if more_due => ControlFlow::Continue(()),
                gap => ControlFlow::Break(gap),
            });
        }
        // More of the same to come: the cursor must not pass it.
        let last = events.last().map_or(self.told, |event| event.offset().cursor());
        let cursor = if more_due { self.told.max(last) } else { self.told.max(self.cursor) };
        let after = std::mem::replace(&mut self.told, cursor);
        let mut attempts = attempts_of(&again);
        // Some have expired meanwhile, or newer ones have replaced them.
        attempts.retain(|(at, _)| events.binary_search_by_key(at, |event| event.offset()).is_ok());
        metrics::redelivered(attempts.len());
        // How late these are is another matter than how long a delivery takes.
        Ok(ControlFlow::Break(Some(Delivery::Events {
            range: Some((after, cursor)),
            events,
            attempts,
            durable_at: None,
        })))
    }
}
