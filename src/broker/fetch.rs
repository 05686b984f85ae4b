//! Events of a durable subscription over plain HTTP: leased to the subscription, not to the request.

use std::{sync::Arc, time::Duration};

use tidings_proto::{Cursor, Offset};

use super::{
    Broker,
    error::SubscribeError,
    held::{Durable, Holder},
    interest::Ready,
    selection::{Selection, has_expired},
    subscription::BATCH_BYTES_MAX,
};
use crate::{
    clock,
    log::{ReadError, ReadLimit, Stored},
};

/// What a fetch found.
#[derive(Debug)]
pub struct Fetched {
    /// The events; leased for `ack_wait_ms`.
    pub events: Vec<Arc<Stored>>,
    /// Those of them that were delivered before.
    pub attempts: Vec<(Offset, u32)>,
    /// Everything up to here is acknowledged.
    pub floor: Cursor,
}

impl Broker {
    /// The next events of a durable, waiting up to `wait` for the first.
    ///
    /// # Errors
    /// [`SubscribeError::Read`] when the log could not be read, [`SubscribeError::Invalid`] when it does not exist.
    pub async fn fetch(&self, name: &str, limit: usize, wait: Duration) -> Result<Fetched, SubscribeError> {
        let durable = self.durable(name)?;
        durable.take_by_fetch();
        let ready = Ready::new();
        let filters = durable.spec.options.filters.clone();
        let registration = self.interest.register(&filters, ready.clone(), 0);
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let fetched = self.fetch_now(&durable, limit).await?;
            if !fetched.events.is_empty() || tokio::time::Instant::now() >= deadline {
                return Ok(fetched);
            }
            let cursor = durable.lock().state.cursor();
            if !registration.arm(cursor.max(self.log.committed())) {
                continue;
            }
            let due = durable.lock().state.next_due_ms();
            let due_in = due.map_or(wait, |due| Duration::from_millis(due.saturating_sub(clock::now().as_millis())));
            let until = deadline.min(tokio::time::Instant::now() + due_in);
            let _ = tokio::time::timeout_at(until, ready.wait()).await;
            while ready.pop().is_some() {}
        }
    }

    async fn fetch_now(&self, durable: &Arc<Durable>, limit: usize) -> Result<Fetched, ReadError> {
        let now = clock::now();
        let mirror = durable.is_mirror();
        let (again, mut cursor, room) = {
            let mut held = durable.lock();
            let again = if mirror { Vec::new() } else { held.state.deliver_again(now.as_millis(), limit) };
            let max = usize::try_from(durable.spec.options.max_in_flight).unwrap_or(usize::MAX);
            let room = if mirror { limit } else { max.saturating_sub(held.state.outstanding()) };
            let cursor = if mirror { held.state.floor() } else { held.state.cursor() };
            (again, cursor, room)
        };
        let offsets = again.iter().filter_map(|(offset, _)| Offset::new(*offset)).collect();
        let mut events = self.log.get_many(offsets).await?;
        let mut attempts: Vec<(u64, u32)> = again;
        let selection = Selection::of(&durable.spec.options);
        let room = room.min(limit.saturating_sub(events.len()));
        let committed = self.log.committed();
        let mut new = 0;
        while cursor < committed && new < room {
            let read_limit = ReadLimit { events: room - new, bytes: BATCH_BYTES_MAX };
            let mut batch = self.log.read(cursor, committed, &durable.spec.options.filters, read_limit).await?;
            batch.events.retain(|event| selection.wants(event) && !has_expired(event, now));
            let mut held = durable.lock();
            if !mirror && held.holder() != Holder::Fetch {
                break;
            }
            let offsets: Vec<u64> = batch.events.iter().map(|event| event.offset().get()).collect();
            let sent = match mirror {
                true => offsets.iter().filter(|&&offset| !held.state.is_acked(offset)).map(|&offset| (offset, 1)).collect(),
                false => held.state.deliver_new(&offsets, batch.cursor, now.as_millis()),
            };
            drop(held);
            batch.events.retain(|event| sent.binary_search_by_key(&event.offset().get(), |(offset, _)| *offset).is_ok());
            new += batch.events.len();
            events.append(&mut batch.events);
            attempts.extend(sent);
            cursor = batch.cursor;
        }
        let mut held = durable.lock();
        if !mirror {
            held.state.sent(clock::now().as_millis(), &durable.redelivery);
        }
        let floor = held.state.floor();
        drop(held);
        attempts.retain(|(_, attempts)| *attempts >= 2);
        let attempts = attempts.into_iter().filter_map(|(offset, n)| Some((Offset::new(offset)?, n))).collect();
        Ok(Fetched { events, attempts, floor })
    }
}
