//! What is acknowledged, and who is told.

use std::time::Duration;

use super::{Durable, Held, Target, Token};
use crate::{
    broker::{durable::RANGES_MAX, error::AckError, receipts::Wish},
    clock,
};

impl Durable {
    /// Takes acks. `from` is the session's token, or `None` over HTTP. Those of `wishes` that are acknowledged
    /// by it get receipts. Gives how long after its first delivery the oldest of the events is acknowledged,
    /// where that is known.
    ///
    /// # Errors
    /// [`AckError::Unknown`] when it was deleted or changed meanwhile; [`AckError::TooManyRanges`], with
    /// nothing taken beyond the bound.
    pub(in crate::broker) fn ack(
        &self,
        target: &Target,
        from: Option<Token>,
        wishes: Vec<Wish>,
    ) -> Result<Option<Duration>, AckError> {
        let mut held = self.lock();
        self.check_alive(&held)?;
        if !held.may_ack(from) {
            return Ok(None);
        }
        let is_in_order = !self.is_shared() && !self.is_by_priority();
        if !is_in_order && matches!(target, Target::UpTo(_)) {
            return Err(AckError::NotCumulative);
        }
        let delivered_ms = match target {
            Target::UpTo(offset) => held.state.delivered_ms(..=offset.get()),
            Target::These(offsets) => offsets
                .iter()
                .min()
                .and_then(|oldest| held.state.delivered_ms(oldest.get()..=oldest.get())),
        };
        let mut open = wishes;
        open.retain(|wish| !held.state.is_acked(wish.offset));
        // In the one lane of one session only room lets more go out.
        let had_room =
            is_in_order && !self.is_mirror() && held.state.outstanding() < self.max_in_flight();
        let taken = self.take(&mut held, target, from);
        // Also where not all was taken. What is dead needs no ack.
        let is_acked =
            |wish: &Wish| held.state.is_acked(wish.offset) && !held.state.is_dead(wish.offset);
        self.receipts.add(open.into_iter().filter(is_acked));
        if !had_room || held.state.next_due() == Some(0) {
            held.wake_all();
        }
        taken?;
        let after_ms = delivered_ms.map(|then| clock::monotonic_ms().saturating_sub(then));
        Ok(after_ms.map(Duration::from_millis))
    }

    fn take(&self, held: &mut Held, target: &Target, from: Option<Token>) -> Result<(), AckError> {
        match target {
            Target::UpTo(offset) => held.state.ack_up_to(offset.get()),
            Target::These(offsets) => {
                for offset in offsets {
                    if self.is_elsewhere(held, *offset, from) {
                        continue;
                    }
                    if !held.state.ack(offset.get()) {
                        return Err(AckError::TooManyRanges { max: RANGES_MAX });
                    }
                }
            }
        }
        Ok(())
    }
}
