//! `last_per_key`: the newest event of every topic and key as of a place in the log, and then all behind it.
//!
//! - Events without a key have one slot a topic. What is not wanted has none and replaces nothing; where the newest that is
//!   wanted has expired, its slot is empty.
//! - What is left of a topic at or below what a limit of retention took out of it has none either: a newer one of its key
//!   may have gone.
//! - What was replaced while the state was gathered is left out: its newer event follows.
//! - The cursor passes what is left out, so plain `after` resumes.
//! - A durable gathers its state once, however many fetches and sessions it is given out over.
//! - All states together have a bound, from their gathering on until they were given out.

use std::{collections::HashMap, sync::Arc};

use tidings_proto::{Cursor, Filters, Offset, Topic};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Broker, Durable,
    bandwidth::replayed_bytes,
    error::SubscribeError,
    selection::{Selection, has_expired},
};
use crate::{
    clock,
    log::{Batch, LogHandle, ReadError, ReadLimit},
};

/// The most topics and keys a state may have: so many offsets are held until they are sent.
pub(super) const SLOTS_MAX: usize = 100_000;
/// How much is read in one step.
const STEP: ReadLimit = ReadLimit { events: 1000, bytes: 1 << 20 };

/// The room that all states together have.
#[derive(Debug)]
pub(super) struct States {
    /// One permit for each slot.
    room: Arc<Semaphore>,
    max: usize,
}

impl States {
    /// Room for so many slots.
    pub(super) fn new(max: usize) -> States {
        let max = max.min(Semaphore::MAX_PERMITS);
        States { room: Arc::new(Semaphore::new(max)), max }
    }

    /// Makes what one state holds fit for so many slots.
    fn fit(
        &self,
        held: &mut Option<OwnedSemaphorePermit>,
        slots: usize,
    ) -> Result<(), SubscribeError> {
        let before = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if slots < before {
            drop(held.as_mut().and_then(|held| held.split(before - slots)));
            return Ok(());
        }
        let more = u32::try_from(slots - before).unwrap_or(u32::MAX);
        let taken = self.room.clone().try_acquire_many_owned(more);
        let taken = taken.map_err(|_| SubscribeError::TooManySlots { max: self.max })?;
        match held {
            Some(held) => held.merge(taken),
            None => *held = Some(taken),
        }
        Ok(())
    }
}

/// The newest event of each slot.
#[derive(Debug)]
pub(super) struct Snapshot {
    until: Cursor,
    /// Rising.
    offsets: Vec<Offset>,
    /// How many bytes of events that were there before were read for it.
    pub(super) replayed_bytes: u64,
    _room: Option<OwnedSemaphorePermit>,
}

/// The state of one durable while it is being given out: [`SLOTS_MAX`] offsets of eight bytes at most. It goes with the
/// durable when that is put away, and is gathered anew then.
#[derive(Debug, Default)]
pub(super) struct FirstState(tokio::sync::Mutex<Option<Arc<Snapshot>>>);

impl FirstState {
    /// What was gathered before; `gathering` is waited for where nothing was. Who asks meanwhile waits for the first.
    ///
    /// # Errors
    /// Those of `gathering`; whoever asks next tries again.
    pub(super) async fn get_or(
        &self,
        gathering: impl Future<Output = Result<Snapshot, SubscribeError>>,
    ) -> Result<Arc<Snapshot>, SubscribeError> {
        let mut state = self.0.lock().await;
        if let Some(state) = &*state {
            return Ok(state.clone());
        }
        Ok(state.insert(Arc::new(gathering.await?)).clone())
    }

    #[cfg(test)]
    pub(super) async fn is_empty(&self) -> bool {
        self.0.lock().await.is_none()
    }

    /// All of it was given out.
    pub(super) async fn is_done(&self) {
        self.0.lock().await.take();
    }
}

impl Snapshot {
    /// Gathers the state of (`after`, `until`]. Takes as long as reading all that matches.
    ///
    /// # Errors
    /// [`SubscribeError::Invalid`] when there are more than [`SLOTS_MAX`] slots, [`SubscribeError::TooManySlots`] when
    /// all states together have no room for them; the storage's.
    pub(super) async fn gather(
        log: &LogHandle,
        states: &States,
        filters: &Filters,
        selection: &Selection,
        after: Cursor,
        until: Cursor,
    ) -> Result<Snapshot, SubscribeError> {
        #[cfg(test)]
        gathered::one_more();
        let (mut newest, mut room, mut replayed) = (HashMap::new(), None, 0);
        let now = clock::now();
        let mut cursor = after;
        loop {
            let committed = log.committed();
            let batch = log.read(cursor, committed, filters, STEP).await?;
            replayed += replayed_bytes(&batch.events);
            for event in &batch.events {
                if !selection.wants(event) {
                    continue;
                }
                let slot = (event.topic().clone(), event.key().map(Box::<str>::from));
                match has_expired(event, now) {
                    true => newest.remove(&slot),
                    false => newest.insert(slot, event.offset()),
                };
            }
            if newest.len() > SLOTS_MAX {
                let problem = format!(
                    "more than {SLOTS_MAX} topics and keys have a last event: take narrower filters"
                );
                return Err(SubscribeError::Invalid { field: "last_per_key", problem });
            }
            states.fit(&mut room, newest.len())?;
            cursor = batch.damaged.unwrap_or(batch.cursor);
            if cursor >= committed {
                break;
            }
            // Others have their turn between two steps.
            tokio::task::yield_now().await;
        }
        let is_state = |((topic, _), offset): ((Topic, Option<Box<str>>), Offset)| {
            (until.covers(offset) && !log.trimmed_upto(&topic).covers(offset)).then_some(offset)
        };
        let mut offsets: Vec<Offset> = newest.into_iter().filter_map(is_state).collect();
        offsets.shrink_to_fit();
        offsets.sort_unstable();
        states.fit(&mut room, offsets.len())?;
        Ok(Snapshot { until, offsets, replayed_bytes: replayed, _room: room })
    }

    /// Where the state ends and the log begins.
    pub(super) fn until(&self) -> Cursor {
        self.until
    }

    /// The next events of the state behind `after`.
    pub(super) async fn next(
        &self,
        log: &LogHandle,
        after: Cursor,
        limit: ReadLimit,
    ) -> Result<Batch, ReadError> {
        let from = self.offsets.partition_point(|offset| after.covers(*offset));
        let rest = self.offsets.get(from..).unwrap_or_default();
        let wanted: Vec<Offset> = rest.iter().take(limit.events).copied().collect();
        let is_last = wanted.len() == rest.len();
        let last = wanted.last().map_or(self.until, |last| last.cursor());
        let found = log.get_many(wanted, limit.bytes).await?;
        let (left, damaged) = (found.left.first().copied(), found.damaged.first().copied());
        let mut events = found.events;
        // What cannot be read, or was not looked at, ends the batch: the next one begins with it.
        let Some(end) = [left, damaged].into_iter().flatten().min() else {
            let cursor = if is_last { self.until } else { last };
            return Ok(Batch { events, cursor, damaged: None });
        };
        events.retain(|event| event.offset() < end);
        let is_damaged = events.is_empty() && damaged == Some(end);
        let damaged = is_damaged.then(|| end.cursor());
        Ok(Batch { events, cursor: end.before(), damaged })
    }
}

impl Broker {
    /// The state that a durable is still to be given before what follows it: gathered once, for all who ask.
    pub(super) async fn state_of(
        &self,
        durable: &Durable,
    ) -> Result<Option<Arc<Snapshot>>, SubscribeError> {
        let (floor, looked, is_reset) = {
            let held = durable.lock();
            (held.state.floor(), held.state.cursor(), held.state.generation() > 0)
        };
        // What was delivered and comes again is read by itself.
        let until = durable.spec.state_until.filter(|until| looked < *until && !is_reset);
        let Some(until) = until else {
            durable.first_state.is_done().await;
            return Ok(None);
        };
        let options = &durable.spec.options;
        let (filters, selection) = (&options.filters, Selection::of(options));
        let gathering =
            Snapshot::gather(&self.log, &self.states, filters, &selection, floor, until);
        Ok(Some(durable.first_state.get_or(gathering).await?))
    }
}

#[cfg(test)]
pub(super) mod gathered {
    //! How many states this thread has gathered.

    use std::cell::Cell;

    thread_local! {
        static COUNT: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn one_more() {
        COUNT.set(COUNT.get() + 1);
    }

    pub(in crate::broker) fn count() -> usize {
        COUNT.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_a_room_together_and_give_back_what_they_do_not_need() {
        let states = States::new(10);
        let (mut one, mut other) = (None, None);
        states.fit(&mut one, 4).unwrap();
        states.fit(&mut one, 8).unwrap();
        let refused = states.fit(&mut other, 3).unwrap_err();
        assert!(matches!(refused, SubscribeError::TooManySlots { max: 10 }), "{refused}");
        states.fit(&mut other, 2).unwrap();
        states.fit(&mut one, 7).unwrap();
        states.fit(&mut other, 3).unwrap();
        assert!(states.fit(&mut other, 4).is_err());
        drop(one);
        states.fit(&mut other, 10).unwrap();
        assert_eq!(states.room.available_permits(), 0);
    }
}
