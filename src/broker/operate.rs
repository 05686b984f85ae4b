//! A durable subscription as its operator sees it: paused, going on, reset.

use tidings_proto::{Cursor, Start, control::SubscriptionChange};

use super::{
    Broker,
    error::{AckError, AppendError, RESET_ELSEWHERE, SubscribeError},
};

impl Broker {
    /// Nothing of the durable is delivered from here on, or again. Leases run on and acks are taken. False when
    /// there is none.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn pause_durable(&self, name: &str, paused: bool) -> Result<bool, AppendError> {
        let _one_at_a_time = self.changing.lock().await;
        let Some(entry) = self.controls.find(name) else { return Ok(false) };
        self.idle.used(name);
        if entry.is_paused() != paused {
            let (name, number) = (name.to_owned(), entry.spec.number);
            self.record(&SubscriptionChange::Paused { name, number, paused }).await?;
        }
        if let Some(durable) = self.durables.lock().get(name) {
            durable.pause(paused);
        }
        Ok(true)
    }

    /// The durable goes on from another place, back or forth: everything up to it counts as acknowledged, nothing
    /// behind it does. Its sessions are superseded. Gives the place, once that is durable.
    ///
    /// # Errors
    /// [`SubscribeError::Unknown`]; [`SubscribeError::Gone`] where the place is not there any more; the storage's.
    pub async fn reset_durable(&self, name: &str, to: &Start) -> Result<Cursor, SubscribeError> {
        let _one_at_a_time = self.changing.lock().await;
        let old = self.durable(name)?;
        let floor = self.start_of(to, &old.spec.options.filters, RESET_ELSEWHERE).await?;
        let reset = old.reset(floor);
        self.durables.lock().insert(name.to_owned(), reset.clone());
        // What the old one had in the box is not the new one's.
        let stored = match self.submit(&reset) {
            Ok(ticket) => ticket.await,
            Err(AckError::Append(error)) => Err(error),
            Err(_) => return Err(SubscribeError::Unknown(name.to_owned())),
        };
        stored?;
        Ok(floor)
    }
}
