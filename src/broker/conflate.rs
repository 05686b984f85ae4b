//! `conflate_ms`: of the events of one topic and key in a window only the last is sent. Those without a key are all
//! sent, and what is sent is in the order of the log.
//!
//! - Live, the window is how long a batch waits ([`super::pace`]); while catching up it is what one batch reads.
//! - A batch holds as many events as without: what is kept of it never is more, whatever was read for it.
//! - Of a durable no event goes out, for the first time or again, where a newer one of its topic and key was
//!   delivered or acknowledged before: a state never follows the one that has replaced it.
//! - What has expired replaces nothing, also where it was delivered: nothing says later whether it was, and to come twice is
//!   better than to be lost.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tidings_proto::{Cursor, Filters, SubscribeOptions, Topic};

use super::{
    bandwidth::replayed_bytes,
    pace::LOOK,
    selection::{Selection, has_expired},
};
use crate::{
    clock,
    log::{Batch, LogHandle, ReadError, ReadLimit, Stored},
    metrics,
};

/// The longest `conflate_ms`.
pub(super) const CONFLATE_MS_MAX: u64 = 60_000;

/// How many steps are read for one batch: others want their turn too.
const STEPS_MAX: usize = 64;

/// What an event is the state of.
type Slot = (Topic, Box<str>);

fn slot(event: &Stored) -> Option<Slot> {
    event.key().map(|key| (event.topic().clone(), Box::from(key)))
}

/// A batch as it is gathered. Pure.
#[derive(Debug)]
struct Gathered {
    limit: ReadLimit,
    events: BTreeMap<u64, Arc<Stored>>,
    /// Where the kept event of a slot is.
    kept: HashMap<Slot, u64>,
    bytes: usize,
    replaced: usize,
}

impl Gathered {
    fn new(limit: ReadLimit) -> Gathered {
        Gathered { limit, events: BTreeMap::new(), kept: HashMap::new(), bytes: 0, replaced: 0 }
    }

    /// Takes the next event; false when the batch is full without it.
    fn take(&mut self, event: Arc<Stored>) -> bool {
        let (offset, slot) = (event.offset().get(), slot(&event));
        let older = slot.as_ref().and_then(|slot| self.kept.get(slot)).copied();
        let freed = older.and_then(|older| self.events.get(&older)).map(|old| old.batch_bytes());
        let bytes = self.bytes.saturating_sub(freed.unwrap_or(0)) + event.batch_bytes();
        let fits = match freed {
            None => self.events.len() < self.limit.events && self.bytes < self.limit.bytes,
            // One that has grown is let in a little above the limit, or where it is alone: a socket's memory
            // is counted on (docs/guarantees.md).
            Some(_) => {
                let limit = self.limit.bytes.saturating_add(self.limit.bytes / 4);
                self.events.len() == 1 || bytes <= self.bytes.max(limit)
            }
        };
        if !fits {
            return false;
        }
        if older.and_then(|older| self.events.remove(&older)).is_some() {
            self.replaced += 1;
        }
        self.bytes = bytes;
        self.kept.extend(slot.map(|slot| (slot, offset)));
        self.events.insert(offset, event);
        true
    }

    fn into_batch(self, cursor: Cursor, damaged: Option<Cursor>) -> Batch {
        metrics::conflated(self.replaced);
        Batch { events: self.events.into_values().collect(), cursor, damaged }
    }
}

/// Reads for one who wants to be told of states once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conflating<'a> {
    pub(super) log: &'a LogHandle,
    pub(super) filters: &'a Filters,
    pub(super) selection: &'a Selection,
}

impl<'a> Conflating<'a> {
    /// Of a durable that was made to conflate.
    pub(super) fn of(
        log: &'a LogHandle,
        options: &'a SubscribeOptions,
        selection: &'a Selection,
    ) -> Option<Conflating<'a>> {
        let filters = &options.filters;
        (options.conflate_ms > 0).then_some(Conflating { log, filters, selection })
    }

    /// The next batch of what is wanted in (`after`, `until`], and how many bytes of events that were there before were read
    /// for it.
    pub(super) async fn next(
        &self,
        after: Cursor,
        until: Cursor,
        limit: ReadLimit,
    ) -> Result<(Batch, u64), ReadError> {
        let (mut gathered, mut replayed) = (Gathered::new(limit), 0);
        let mut cursor = after;
        let now = clock::now();
        for _ in 0..STEPS_MAX {
            let step = self.log.read(cursor, until, self.filters, LOOK).await?;
            replayed += replayed_bytes(&step.events);
            if step.damaged.is_some() {
                // What is before it first: the next read meets it again.
                let damaged = step.damaged.filter(|_| gathered.events.is_empty());
                return Ok((gathered.into_batch(step.cursor, damaged), replayed));
            }
            for event in step.events {
                let place = event.offset().before();
                let is_wanted = self.selection.wants(&event) && !has_expired(&event, now);
                if is_wanted && !gathered.take(event) {
                    return Ok((gathered.into_batch(place, None), replayed));
                }
            }
            cursor = step.cursor;
            if cursor >= until {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok((gathered.into_batch(cursor, None), replayed))
    }

    /// Those of the events that no newer one up to `reach` has replaced; what has expired of them stays, for whoever settles
    /// it. Nothing is read where `reach` is not behind them.
    pub(super) async fn newest(
        &self,
        mut events: Vec<Arc<Stored>>,
        reach: Cursor,
    ) -> Result<Vec<Arc<Stored>>, ReadError> {
        let mut newest: HashMap<Slot, u64> = HashMap::new();
        let now = clock::now();
        let is_open = |event: &&Arc<Stored>| event.key().is_some() && !has_expired(event, now);
        for event in events.iter().filter(is_open) {
            newest.extend(slot(event).map(|slot| (slot, event.offset().get())));
        }
        let first = events.iter().find(is_open);
        let Some(mut cursor) = first.map(|first| first.offset().cursor()) else {
            return Ok(events);
        };
        while cursor < reach {
            let step = self.log.read(cursor, reach, self.filters, LOOK).await?;
            let open = step.events.iter().filter(is_open);
            for event in open.filter(|event| self.selection.wants(event)) {
                if let Some(offset) = slot(event).and_then(|slot| newest.get_mut(&slot)) {
                    *offset = event.offset().get().max(*offset);
                }
            }
            cursor = step.damaged.unwrap_or(step.cursor);
            tokio::task::yield_now().await;
        }
        events.retain(|event| {
            !is_open(&event)
                || slot(event).and_then(|slot| newest.get(&slot)) == Some(&event.offset().get())
        });
        Ok(events)
    }

    /// The same of what is about to be sent: what is left out is counted.
    pub(super) async fn unreplaced(
        &self,
        events: Vec<Arc<Stored>>,
        reach: Cursor,
    ) -> Result<Vec<Arc<Stored>>, ReadError> {
        let before = events.len();
        let events = self.newest(events, reach).await?;
        metrics::conflated(before.saturating_sub(events.len()));
        Ok(events)
    }
}

#[cfg(test)]
mod tests;
