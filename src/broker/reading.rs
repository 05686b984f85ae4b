//! Reads for one request, after which no subscription stays behind.
//!
//! - What was taken out of the log while it was read is told as a gap, for the events may lack it.
//! - With `last_per_key` a read gives the state of what is behind its cursor, not its history.
//! - A read from the first event there is has no gap: it begins anew with what is the first then, as long as nothing was given.

use std::time::Duration;

use tidings_proto::{
    Cursor, Filters, SubscribeOptions,
    message::{Gap, GapReason},
};

use super::{
    Broker, From, READ_STEP, READ_TURNS_MAX, Read, bandwidth, error::SubscribeError,
    interest::Ready, options::check, selection, selection::Selection, snapshot::Snapshot,
};
use crate::log::{Batch, ReadLimit};

impl From {
    /// Whether it is the first event there is, whichever that is.
    fn is_first(&self) -> bool {
        matches!(self, From::After(position) if position.cursor == Cursor::START)
    }
}

impl Broker {
    /// Reads for one request, waiting up to `wait` for the first match.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub async fn read(
        &self,
        options: &SubscribeOptions,
        from: &From,
        limit: ReadLimit,
        wait: Duration,
    ) -> Result<Read, SubscribeError> {
        let mut read = self.read_whole(options, from, limit, wait).await?;
        if let Some(max) = options.max_data_bytes {
            bandwidth::refer(&mut read.batch.events, max);
        }
        Ok(read)
    }

    async fn read_whole(
        &self,
        options: &SubscribeOptions,
        from: &From,
        limit: ReadLimit,
        wait: Duration,
    ) -> Result<Read, SubscribeError> {
        check(options)?;
        let mut trims = self.log.trims_version();
        let (mut cursor, gap) = self.begin(from, &options.filters).await?;
        let mut begun = cursor;
        let gap = gap.map(|(requested, reason)| self.gap(requested, reason));
        let selection = Selection::of(options);
        let ready = Ready::new();
        let registration =
            (!wait.is_zero()).then(|| self.interest.register(&options.filters, ready.clone(), 0));
        let deadline = tokio::time::Instant::now() + wait;
        let (mut turn, mut replayed_bytes) = (0, 0);
        loop {
            turn += 1;
            let committed = self.log.committed();
            let (mut batch, replayed) =
                self.read_some(options, &selection, cursor, committed, limit).await?;
            replayed_bytes += replayed;
            if let Some(until) = batch.damaged {
                return Ok(Read { replayed_bytes, ..self.damaged(batch, until, gap) });
            }
            let now = crate::clock::now();
            batch
                .events
                .retain(|event| selection.wants(event) && !selection::has_expired(event, now));
            if batch.events.len() > limit.events {
                batch.events.truncate(limit.events);
                batch.cursor =
                    batch.events.last().map_or(batch.cursor, |last| last.offset().cursor());
            }
            // What was read while events were taken out may lack some of them.
            if gap.is_none()
                && let Some(reason) = self.taken_since(&mut trims, &options.filters, begun)
            {
                // From the first there is, and nothing was given yet: that is another one now.
                if from.is_first() && turn < READ_TURNS_MAX {
                    begun = self.log.first().before();
                    cursor = begun;
                    continue;
                }
                return Ok(Read { batch, gap: Some(self.gap(begun, reason)), replayed_bytes });
            }
            cursor = batch.cursor;
            let behind = cursor < committed;
            let is_over = !behind && tokio::time::Instant::now() >= deadline;
            // Far to go and nothing found: the cursor says how far, the next request goes on from there.
            let is_long = behind && turn >= READ_TURNS_MAX;
            if !batch.events.is_empty() || is_over || is_long {
                return Ok(Read { batch, gap, replayed_bytes });
            }
            let is_armed = registration.as_ref().is_some_and(|entry| entry.arm(cursor));
            if !behind && is_armed {
                let _ = tokio::time::timeout_at(deadline, ready.wait()).await;
            }
        }
    }

    /// What is next of (`cursor`, `until`], and how many bytes of events that were there before were read for it.
    async fn read_some(
        &self,
        options: &SubscribeOptions,
        selection: &Selection,
        cursor: Cursor,
        until: Cursor,
        limit: ReadLimit,
    ) -> Result<(Batch, u64), SubscribeError> {
        let (log, filters) = (&self.log, &options.filters);
        if options.last_per_key {
            // Gathered for each request anew: what one leaves is the state behind its cursor.
            let state =
                Snapshot::gather(log, &self.states, filters, selection, cursor, until).await?;
            return Ok((state.next(log, cursor, limit).await?, state.replayed_bytes));
        }
        // Where few of many are wanted, a read per wanted event would be one per event.
        let step = match selection.is_all() {
            true => limit,
            false => ReadLimit { events: limit.events.max(READ_STEP), ..limit },
        };
        let batch = log.read(cursor, until, filters, step).await?;
        let replayed_bytes = bandwidth::replayed_bytes(&batch.events);
        Ok((batch, replayed_bytes))
    }

    /// Why events that match were taken out behind `begun` since it was looked for last, if they were.
    fn taken_since(&self, trims: &mut u64, filters: &Filters, begun: Cursor) -> Option<GapReason> {
        let before = std::mem::replace(trims, self.log.trims_version());
        let trimmed = (before != *trims).then(|| self.log.trimmed(filters, begun)).flatten();
        trimmed.map(|(reason, _)| reason)
    }

    /// What was read up to where the log is damaged.
    fn damaged(&self, mut batch: Batch, until: Cursor, gap: Option<Gap>) -> Read {
        if gap.is_some() {
            // One at a time: the next read is told of this one.
            return Read { batch, gap, replayed_bytes: 0 };
        }
        let gap = self.log.damage_gap(batch.cursor, until);
        batch.cursor = until;
        Read { batch, gap: Some(gap), replayed_bytes: 0 }
    }
}
