//! Durable subscriptions operated: paused, going on, reset.

use tidings_proto::{Code, Cursor, Start, WireError};

use super::{
    Session,
    error::{of_append, of_subscribe},
};

impl Session {
    /// Stops the delivery of a durable, or lets it go on.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn pause_durable(&self, name: &str, paused: bool) -> Result<(), WireError> {
        self.check_durable(name)?;
        let found = self.broker().pause_durable(name, paused).await;
        match found.map_err(|error| of_append(&error))? {
            true => Ok(()),
            false => Err(WireError::new(
                Code::NotFound,
                format!("there is no durable subscription \"{name}\""),
            )),
        }
    }

    /// Lets a durable go on from another place.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn reset_durable(&self, name: &str, to: &Start) -> Result<Cursor, WireError> {
        self.check_durable(name)?;
        let reset = self.broker().reset_durable(name, to).await;
        let cursor = reset.map_err(|error| of_subscribe(&error, self.broker().log().id()))?;
        self.done_as_admin("subscription.reset", "durable", name).await;
        Ok(cursor)
    }
}
