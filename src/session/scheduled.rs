//! Events that wait for their moment, as a session may deal with them.

use tidings_proto::{Placed, WireError, message::Publish};

use super::{Session, of_cancel};

impl Session {
    /// Does not publish an event that waits for its moment; what was cancelled before is cancelled.
    ///
    /// # Errors
    /// `not_found` where none was scheduled by them under this offset (the admin may cancel everybody's), `conflict`
    /// where it has been published, `offset_gone` where it is of another log.
    pub async fn cancel(&self, placed: &Placed) -> Result<(), WireError> {
        self.check_standing()?;
        self.check_log(placed.log.as_deref())?;
        let is_allowed = |publisher: &str| self.identity.owns(publisher);
        self.broker().cancel(placed.offset, is_allowed).await.map_err(|error| of_cancel(&error))
    }
}

/// Events of a batch are published together, so none of them waits.
///
/// # Errors
/// `invalid_argument`, naming the first that is to wait.
pub fn check_batch(batch: &[Publish]) -> Result<(), WireError> {
    match batch.iter().position(|publish| publish.deliver_at.is_some()) {
        None => Ok(()),
        Some(n) => Err(WireError::invalid(format!(
            "events[{n}].deliver_at: an event of a batch is published with the others: publish it alone"
        ))),
    }
}
