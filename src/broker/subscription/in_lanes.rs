//! What a durable with lanes has to say.

use super::{Attachment, Delivery, LOOKS_A_TURN, Phase, Subscription, attempts_of};
use crate::{
    broker::{bandwidth::replayed_bytes, held::Held, lanes, leasing::Leasing},
    log::ReadError,
    metrics,
};

impl Subscription {
    /// As [`Subscription::next`], of a durable with lanes.
    pub(super) async fn next_in_lanes(&mut self) -> Result<Option<Delivery>, ReadError> {
        for _ in 0..LOOKS_A_TURN {
            // Whoever has it now is told of what is gone.
            if self.is_lost() {
                return Ok(Some(self.end()));
            }
            if let Some(gap) = self.trimmed() {
                return Ok(Some(Delivery::Gap(gap)));
            }
            loop {
                if let Some(delivery) = self.next_by_priority().await? {
                    return Ok(Some(delivery));
                }
                // What was due may have expired or be gone, and there is more.
                if self.durable_due_ms() != Some(0) {
                    break;
                }
                tokio::task::yield_now().await;
            }
            if self.room() == 0 {
                // An ack ends that.
                return Ok(None);
            }
            let _ = self.registration.take_first_match();
            // What was taken may not have been wanted, and more may wait behind it.
            let passed = self.durable.as_ref().map(|it| it.durable.lock().lanes().passed());
            let passed = passed.unwrap_or_default();
            if passed >= self.log.committed() && self.registration.arm(passed) {
                return Ok(None);
            }
            tokio::task::yield_now().await;
        }
        // Others first.
        self.wake();
        Ok(None)
    }

    /// What is next of the lanes, new or again.
    async fn next_by_priority(&mut self) -> Result<Option<Delivery>, ReadError> {
        let Some(Attachment { durable, token, .. }) = &self.durable else { return Ok(None) };
        let (durable, token) = (durable.clone(), *token);
        let mode = durable.spec.options.mode;
        let is_its = |held: &Held| held.is_held_by(token, mode);
        let limit = self.batch_limit();
        let found = lanes::next(&self.log, &durable, token, limit.events, is_its).await?;
        let lanes::Next::Events(next) = found else { return Ok(Some(self.end())) };
        let leasing = Leasing::new(durable.clone(), &next);
        durable.tell_graves();
        self.cursor = self.cursor.max(durable.lock().state.cursor());
        if next.is_empty() {
            self.told = self.cursor;
            return Ok(self.caught_up());
        }
        let taken =
            lanes::read_taken(&self.log, leasing, &next, limit.bytes, &self.selection).await?;
        let lanes::Taken { events, damaged } = taken;
        self.pending_gap =
            damaged.map(|offset| Box::new(self.damage(offset.before(), offset.cursor())));
        let mut attempts = attempts_of(&next);
        attempts.retain(|(at, _)| events.iter().any(|event| event.offset() == *at));
        metrics::redelivered(attempts.len());
        if events.is_empty() {
            return Ok(self.pending_gap.take().map(|gap| Delivery::Gap(*gap)));
        }
        let durable_at = match self.phase {
            Phase::Live if attempts.is_empty() => {
                events.iter().find_map(|event| event.durable_at())
            }
            _ => None,
        };
        if durable_at.is_none() {
            self.has_replayed(replayed_bytes(&events));
        }
        Ok(Some(Delivery::Events { range: None, events, attempts, durable_at }))
    }
}
