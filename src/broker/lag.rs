//! How durables lag, for metrics: looked at in rounds, off the runtime, a bounded piece at a time, so that
//! a scrape costs nothing and a hundred thousand durables cost no more than a part of one processor.
//!
//! - A round begins when something was committed since the last one, and goes by name over all durables.
//! - What is counted goes by topics: of a subscription that wants only some types it is an upper bound,
//!   and so it is where a wildcard matches too many topics to look at each.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tidings_proto::{Cursor, Mode, Offset, control::AckState, subscribe::Order};
use tokio_util::sync::CancellationToken;

use super::{Broker, ledger::LedgerEntry};
use crate::{
    clock,
    log::StorageError,
    metrics::{LagGauges, OneDurable},
};

/// How often a piece of a round is done.
const EVERY: Duration = Duration::from_secs(5);
/// How long a piece may take, but for the durable that passes it.
const PIECE: Duration = Duration::from_millis(100);
/// How much is looked at for one durable, in names of topics.
const LOOKS_MAX: usize = 262_144;
/// The most durables that are shown one by one.
const SHOWN_MAX: usize = 200;

/// Which durables are shown one by one, and what was found last.
#[derive(Debug)]
pub(super) struct Lag {
    shown: Vec<String>,
    found: Mutex<Option<LagGauges>>,
}

/// A round on its way.
#[derive(Debug, Default)]
struct Round {
    /// The last name that was looked at.
    after: Option<String>,
    /// The log's end when it began.
    until: Cursor,
    found: LagGauges,
}

/// One durable.
struct Looked {
    events: u64,
    /// The oldest of them.
    oldest: Option<Offset>,
    floor: Cursor,
    in_flight: usize,
}

impl Lag {
    /// Shows the durables with these names; a name may end in `*`.
    pub(super) fn new(shown: Vec<String>) -> Lag {
        Lag { shown, found: Mutex::new(None) }
    }

    /// What the last whole round found.
    pub(super) fn found(&self) -> Option<LagGauges> {
        self.found.lock().clone()
    }

    fn shows(&self, name: &str) -> bool {
        self.shown.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => pattern == name,
        })
    }
}

/// Looks at durables until `stop`.
pub(super) async fn watch(broker: Arc<Broker>, stop: CancellationToken) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut round, mut until) = (None, None);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let committed = broker.log.committed();
        // Acks are events too. What is in flight changes without any, but only where it is shown.
        if round.is_none() && until == Some(committed) && broker.lag.shown.is_empty() {
            continue;
        }
        let begun = round.take().unwrap_or_else(|| Round { until: committed, ..Round::default() });
        let piece_of = broker.clone();
        match tokio::task::spawn_blocking(move || piece(&piece_of, begun)).await {
            Ok(Ok(whole)) => {
                until = Some(whole.until);
                *broker.lag.found.lock() = Some(whole.found);
            }
            Ok(Err(unfinished)) => round = Some(unfinished),
            Err(_) => tracing::error!("looking at how durables lag panicked"),
        }
    }
}

/// Goes on with a round; an error is one that is to be gone on with.
fn piece(broker: &Broker, mut round: Round) -> Result<Round, Round> {
    let begun = clock::monotonic();
    loop {
        // One at a time: the ledger is the commit thread's.
        let Some(entry) = broker.controls.next(round.after.as_deref()) else {
            return Ok(round);
        };
        round.after = Some(entry.spec.name.clone());
        match broker.look(&entry) {
            Ok(looked) => round.take(broker, &entry, &looked),
            Err(error) => {
                tracing::warn!(durable = entry.spec.name, %error, "its lag is not known");
            }
        }
        if clock::monotonic().saturating_sub(begun) >= PIECE {
            return Err(round);
        }
    }
}

impl Round {
    fn take(&mut self, broker: &Broker, entry: &LedgerEntry, looked: &Looked) {
        let found = &mut self.found;
        found.sum = found.sum.saturating_add(looked.events);
        found.max = found.max.max(looked.events);
        let oldest_ms = looked.oldest.and_then(|oldest| broker.time_ms(oldest));
        found.oldest_ms = [found.oldest_ms, oldest_ms].into_iter().flatten().min();
        if found.shown.len() < SHOWN_MAX && broker.lag.shows(&entry.spec.name) {
            found.shown.push(OneDurable {
                name: entry.spec.name.clone(),
                lag: looked.events,
                oldest_ms,
                in_flight: u64::try_from(looked.in_flight).unwrap_or(u64::MAX),
                acked: looked.floor.get(),
            });
        }
    }
}

impl Broker {
    fn look(&self, entry: &LedgerEntry) -> Result<Looked, StorageError> {
        let in_use = self.durables.lock().get(&entry.spec.name).cloned();
        let in_use = in_use.filter(|durable| durable.spec.number == entry.spec.number);
        // In use it may have looked at more than it has acknowledged.
        let (acks, in_flight) = match &in_use {
            Some(durable) => {
                let now = clock::monotonic_ms();
                (Arc::new(durable.to_ack_state()), durable.lock().state.in_flight_at(now))
            }
            None => (entry.acks.clone(), 0),
        };
        let (events, oldest) = self.open_events(entry, &acks)?;
        Ok(Looked { events, oldest, floor: acks.floor, in_flight })
    }

    /// How many events are not acknowledged, and the oldest of them.
    fn open_events(
        &self,
        entry: &LedgerEntry,
        acks: &AckState,
    ) -> Result<(u64, Option<Offset>), StorageError> {
        let mut looks = LOOKS_MAX;
        let filters = &entry.spec.options.filters;
        let done: u64 = acks.ranges.iter().map(|(first, last)| last - first + 1).sum();
        if entry.spec.options.order == Order::Priority {
            return open_in_lanes(acks, |place| {
                let behind = self.log.reader().behind(filters, place, &mut looks)?;
                Ok(Matching { events: behind.records, first: behind.first, exact: behind.exact })
            });
        }
        let is_mirror = entry.spec.options.mode == Mode::Mirror;
        let looked = match acks.ranges.last() {
            // All between the acknowledged ranges of an exclusive one was delivered, and so it matches.
            Some((_, last)) if !is_mirror => Cursor::new(*last),
            _ => acks.floor,
        };
        let between = looked.get().saturating_sub(acks.floor.get());
        let behind = self.log.reader().behind(filters, looked, &mut looks)?;
        if looked > acks.floor {
            let events = between.saturating_sub(done).saturating_add(behind.records);
            return Ok((events, Some(acks.floor.next())));
        }
        // Of a mirror they are single events that matched.
        let events = behind.records.saturating_sub(done);
        // Without a first one it was not looked for: no age then, rather than that of an event of somebody else's.
        Ok((events, behind.first.filter(|_| events > 0)))
    }

    fn time_ms(&self, offset: Offset) -> Option<u64> {
        match self.log.tail().get(offset) {
            Some(event) => Some(event.time().as_millis()),
            None => Some(self.log.reader().get(offset).ok()??.time_ms),
        }
    }
}

/// What matches behind a place.
#[derive(Clone, Copy)]
struct Matching {
    events: u64,
    first: Option<Offset>,
    /// Whether they are not fewer.
    exact: bool,
}

/// How many events are not acknowledged, and the oldest of them, where they are delivered by lanes: what is
/// acknowledged above the floor is among events that do not match and events of other lanes. Where counting takes too
/// long it is too high.
fn open_in_lanes(
    acks: &AckState,
    mut behind: impl FnMut(Cursor) -> Result<Matching, StorageError>,
) -> Result<(u64, Option<Offset>), StorageError> {
    let all = behind(acks.floor)?;
    let (mut events, mut oldest) = (all.events, all.first);
    for &(first, last) in &acks.ranges {
        let from = behind(Cursor::new(first.saturating_sub(1)))?;
        let until = behind(Cursor::new(last))?;
        if !(all.exact && from.exact && until.exact) {
            return Ok((events, None));
        }
        events = events.saturating_sub(from.events.saturating_sub(until.events));
        if oldest.is_some_and(|oldest| (first..=last).contains(&oldest.get())) {
            oldest = until.first;
        }
    }
    Ok((events, oldest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_end_in_a_star() {
        let lag = Lag::new(vec!["billing".to_owned(), "team-*".to_owned()]);
        assert!(lag.shows("billing") && lag.shows("team-") && lag.shows("team-a"));
        assert!(!lag.shows("billing2") && !lag.shows("ateam-"));
    }

    #[test]
    fn events_of_others_between_lanes_are_not_counted() {
        // What matches; the others on the way are on other topics.
        let matching = [3_u64, 10, 20, 21, 30, 41];
        let open = |ranges: Vec<(u64, u64)>, counted_from: u64| {
            let acks = AckState { floor: Cursor::new(5), ranges, ..AckState::default() };
            let behind = |place: Cursor| {
                let behind = matching.iter().filter(|at| **at > place.get());
                Ok(Matching {
                    events: behind.clone().count() as u64,
                    first: behind.min().copied().and_then(Offset::new),
                    exact: place.get() >= counted_from,
                })
            };
            let (events, oldest) = open_in_lanes(&acks, behind).unwrap();
            (events, oldest.map(Offset::get))
        };
        assert_eq!(open(vec![], 0), (5, Some(10)));
        // Two urgent ones first.
        assert_eq!(open(vec![(20, 20), (41, 41)], 0), (3, Some(10)));
        // What does not match is passed over with what is acknowledged.
        assert_eq!(open(vec![(6, 10), (12, 20), (25, 40)], 0), (2, Some(21)));
        assert_eq!(open(vec![(6, 50)], 0), (0, None));
        // Too far to be counted.
        assert_eq!(open(vec![(41, 41)], 20), (5, None));
    }
}
