//! Dead letters of a durable subscription, for whoever may use it.

use tidings_proto::{Cursor, Offset, Position, WireError};

use super::{PlacedLetter, Session, check_count, of_ack, of_append, of_read};

/// When that many were redriven in one go, no more are looked for.
const REDRIVEN_MAX: usize = 10_000;

impl Session {
    /// Up to `limit` letters of the dead of this durable, after a place in the log; and where to go on, if
    /// there may be more.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn dead_letters(
        &self,
        name: &str,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<(Vec<PlacedLetter>, Option<Cursor>), WireError> {
        self.check_durable(name)?;
        self.check_log(after.and_then(|after| after.log.as_deref()))?;
        let after = after.map_or(Cursor::START, |after| after.cursor);
        let durable = self.broker().durable_by_name(name).map_err(|error| of_ack(&error))?;
        let found = self.broker().dead_letters(&durable, after, limit).await;
        found.map_err(|error| of_read(&error))
    }

    /// Lets dead events come again, these of this log or all of them (some 10,000 at a time); gives those that come again,
    /// once that is durable: what is gone does not.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn redrive(
        &self,
        name: &str,
        offsets: Option<&[Offset]>,
        log: Option<&str>,
    ) -> Result<Vec<u64>, WireError> {
        self.check_durable(name)?;
        self.check_log(log)?;
        offsets.map_or(Ok(()), |offsets| check_count(offsets.len()))?;
        let durable = self.broker().durable_by_name(name).map_err(|error| of_ack(&error))?;
        let (ticket, mut redriven) =
            self.broker().redrive(&durable, offsets).map_err(|error| of_ack(&error))?;
        ticket.await.map_err(|error| of_append(&error))?;
        redriven = self.present(redriven).await?;
        let mut after = offsets.is_none().then_some(Cursor::START);
        while let Some(from) = after.filter(|_| redriven.len() < REDRIVEN_MAX) {
            // Those that are not known one by one any more.
            let (letters, next) = self
                .broker()
                .dead_letters(&durable, from, 1000)
                .await
                .map_err(|error| of_read(&error))?;
            let offsets = letters.iter().filter_map(|placed| Offset::new(placed.letter.offset));
            let offsets: Vec<Offset> = offsets.collect();
            let (ticket, more) =
                self.broker().redrive(&durable, Some(&offsets)).map_err(|error| of_ack(&error))?;
            ticket.await.map_err(|error| of_append(&error))?;
            redriven.extend(self.present(more).await?);
            after = next;
        }
        Ok(redriven)
    }

    async fn present(&self, offsets: Vec<u64>) -> Result<Vec<u64>, WireError> {
        self.broker().present(offsets).await.map_err(|error| of_read(&error))
    }
}
