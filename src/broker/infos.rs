//! What is told of durables: of one, or of a page of them.
//!
//! - What lies behind the cursors of a page is counted in one go: durables that have the same filters share what is
//!   counted, between the places where one of them stands and the next. Where much is known of their acks a page is
//!   gone through in parts, so that what is remembered of it is bounded.
//! - A page ends where it has many bytes, as an answer with events does.
//! - Of a durable that wants only some of the events on its topics they are read, up to a bound; a page ends where many
//!   were read for it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tidings_proto::{
    Cursor, Filters,
    control::{AckState, DurableSpec},
};

use super::{
    Broker,
    bandwidth::replayed_bytes,
    ledger::LedgerEntry,
    options::json_bytes,
    selection::{Selection, has_expired},
};
use crate::{
    clock,
    log::{ReadError, ReadLimit, Stored},
};

/// How many events are read to count the lag of a subscription that wants only some types.
const LAG_COUNTED_MAX: u64 = 10_000;

/// How many are read for all of a page: it ends behind the durable that passes it.
const PAGE_COUNTED_MAX: u64 = 10 * LAG_COUNTED_MAX;

/// About how many bytes of JSON a page of durables may have; one of them at least is in it.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// About how many of one are not in its options.
const INFO_BYTES: usize = 256;

/// What is known of a durable subscription.
#[derive(Clone, Debug, PartialEq)]
pub struct DurableInfo {
    /// How it was made.
    pub spec: Arc<DurableSpec>,
    /// Everything up to here is acknowledged.
    pub cursor: Cursor,
    /// Matching events that are not.
    pub lag: u64,
    /// Whether there may be more than `lag`.
    pub lag_at_least: bool,
    /// Events with a session or a fetcher.
    pub in_flight: u64,
    /// Deliveries that were not the first, since it was taken into use.
    pub redelivered: u64,
    /// Events that are dead and were not redriven.
    pub dead: u64,
    /// Sessions attached.
    pub sessions: u64,
    /// Whether nothing of it is delivered.
    pub paused: bool,
    /// How many bytes of events that were there before were read to count `lag`.
    pub replayed_bytes: u64,
}

/// What was counted by reading.
#[derive(Debug, Default)]
struct Selected {
    /// Events that are wanted and not acknowledged.
    count: u64,
    /// How many were read, and how many bytes of those that were there before.
    read: u64,
    replayed_bytes: u64,
}

/// Of durables with the same filters: how many events that match lie behind each of these places.
#[derive(Debug, Default)]
struct Counted(HashMap<Filters, BTreeMap<Cursor, u64>>);

impl Counted {
    /// The places that matter to one with these acks are to be counted.
    fn ask(&mut self, filters: &Filters, acks: &AckState) {
        let asked = match self.0.get_mut(filters) {
            Some(asked) => asked,
            None => self.0.entry(filters.clone()).or_default(),
        };
        asked.insert(acks.floor, 0);
        for (before, last) in between(acks) {
            asked.extend([(before, 0), (last, 0)]);
        }
    }

    /// How many events that match are not acknowledged.
    fn lag(&self, filters: &Filters, acks: &AckState) -> u64 {
        let Some(counted) = self.0.get(filters) else { return 0 };
        let behind = |place: Cursor| counted.get(&place).copied().unwrap_or(0);
        let acked = between(acks).map(|(before, last)| behind(before).saturating_sub(behind(last)));
        behind(acks.floor).saturating_sub(acked.sum())
    }
}

/// The places before and at the end of what is acknowledged above the floor.
fn between(acks: &AckState) -> impl Iterator<Item = (Cursor, Cursor)> {
    let ranges = acks.ranges.iter();
    ranges.map(|&(first, last)| (Cursor::new(first.saturating_sub(1)), Cursor::new(last)))
}

impl Broker {
    /// What is known of the durable of this name.
    ///
    /// # Errors
    /// When the log could not be read.
    pub async fn durable_info(&self, name: &str) -> Result<Option<DurableInfo>, ReadError> {
        let found = self.controls.find(name).into_iter().collect();
        Ok(self.infos(found).await?.pop())
    }

    /// Those of the next `limit` durables by name, after the name `after`, that `wanted` takes; and the last name
    /// that was looked at, where there are more behind it.
    ///
    /// # Errors
    /// When the log could not be read.
    pub async fn durable_infos(
        &self,
        after: Option<&str>,
        limit: usize,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<(Vec<DurableInfo>, Option<String>), ReadError> {
        let (mut infos, mut looked) = (Vec::new(), 0);
        let (mut after, mut room) = (after.map(str::to_owned), PAGE_BYTES_MAX);
        while looked < limit && room > 0 {
            let left = limit - looked;
            let (mut found, mut last) = self.controls.page(after.as_deref(), left, |seen| {
                looked += 1;
                wanted(seen.line.name())
            });
            let fit = fitting(&found, &mut room);
            if fit < found.len() {
                found.truncate(fit);
                last = found.last().map(|entry| entry.spec.name.clone());
            }
            let asked = found.len();
            let told = self.infos(found).await?;
            if told.len() < asked {
                last = told.last().map(|info| info.spec.name.clone());
                room = 0;
            }
            infos.extend(told);
            after = last;
            if after.is_none() {
                break;
            }
        }
        let is_more = after.is_some() && self.controls.next(after.as_deref()).is_some();
        Ok((infos, after.filter(|_| is_more)))
    }

    /// What is told of these, or of the first of them: see [`PAGE_COUNTED_MAX`].
    async fn infos(&self, entries: Vec<LedgerEntry>) -> Result<Vec<DurableInfo>, ReadError> {
        let looked: Vec<_> = entries.into_iter().map(|entry| self.looked_at(entry)).collect();
        let last = self.log.committed();
        let mut counted = Counted::default();
        for (info, acks) in &looked {
            if Selection::of(&info.spec.options).is_all() {
                counted.ask(&info.spec.options.filters, acks);
            }
        }
        counted.0 = self.log.count_behind(counted.0, last).await?;
        let (mut infos, mut read) = (Vec::with_capacity(looked.len()), 0);
        for (mut info, acks) in looked {
            if read >= PAGE_COUNTED_MAX {
                break;
            }
            let options = &info.spec.options;
            let selection = Selection::of(options);
            if selection.is_all() {
                info.lag = counted.lag(&options.filters, &acks);
            } else {
                let found = self.count_selected(&options.filters, &selection, &acks, last).await?;
                info.lag = found.count;
                info.lag_at_least = found.read >= LAG_COUNTED_MAX;
                info.replayed_bytes = found.replayed_bytes;
                read += found.read;
            }
            infos.push(info);
        }
        Ok(infos)
    }

    /// All but the lag, and how far it is acknowledged.
    fn looked_at(&self, entry: LedgerEntry) -> (DurableInfo, Arc<AckState>) {
        let in_use = self.durables.lock().get(&entry.spec.name).cloned();
        let mut info = DurableInfo {
            cursor: entry.acks.floor,
            lag: 0,
            lag_at_least: false,
            in_flight: 0,
            redelivered: 0,
            dead: count(entry.acks.dead.len()),
            sessions: 0,
            paused: entry.is_paused(),
            replayed_bytes: 0,
            spec: entry.spec,
        };
        let Some(durable) = in_use else { return (info, entry.acks) };
        let acks = durable.to_ack_state();
        let held = durable.lock();
        info.cursor = acks.floor;
        info.in_flight = count(held.state.in_flight_at(clock::monotonic_ms()));
        info.redelivered = held.state.redelivered();
        info.dead = count(held.state.dead().len());
        info.sessions = count(held.sessions());
        info.paused = held.is_paused();
        drop(held);
        (info, Arc::new(acks))
    }

    /// Counts by reading, up to a bound: the postings know topics, not types.
    async fn count_selected(
        &self,
        filters: &Filters,
        selection: &Selection,
        acks: &AckState,
        last: Cursor,
    ) -> Result<Selected, ReadError> {
        let (mut cursor, mut found) = (acks.floor, Selected::default());
        let is_acked = |offset: u64| {
            let behind = acks.ranges.partition_point(|(_, last)| *last < offset);
            acks.ranges.get(behind).is_some_and(|(first, _)| *first <= offset)
        };
        let now = clock::now();
        while cursor < last && found.read < LAG_COUNTED_MAX {
            let limit = ReadLimit { events: 1000, bytes: 1 << 20 };
            let batch = self.log.read(cursor, last, filters, limit).await?;
            let is_open = |event: &&Arc<Stored>| {
                let counts = selection.wants(event) && !has_expired(event, now);
                counts && !is_acked(event.offset().get())
            };
            found.count += count(batch.events.iter().filter(is_open).count());
            found.read += count(batch.events.len());
            found.replayed_bytes += replayed_bytes(&batch.events);
            cursor = batch.damaged.unwrap_or(batch.cursor);
        }
        Ok(found)
    }
}

/// How many of these there is room for, down to nothing; one may have more than is left.
fn fitting(entries: &[LedgerEntry], room: &mut usize) -> usize {
    let fits = entries.iter().take_while(|entry| {
        let is_room = *room > 0;
        *room = room.saturating_sub(INFO_BYTES + json_bytes(&entry.spec.options));
        is_room
    });
    fits.count()
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tidings_proto::Filter;

    use super::*;

    #[test]
    fn places_are_shared_and_what_is_acknowledged_does_not_count() {
        let filters = |text: &str| Filters::one(Filter::parse(text).unwrap());
        let acks = |floor: u64, ranges: &[(u64, u64)]| AckState {
            floor: Cursor::new(floor),
            ranges: ranges.to_vec(),
            ..AckState::default()
        };
        let (one, other) = (acks(10, &[]), acks(4, &[(6, 10), (12, 20)]));
        let mut counted = Counted::default();
        [&one, &one, &other].into_iter().for_each(|acks| counted.ask(&filters("a"), acks));
        counted.ask(&filters("b"), &one);
        let places = counted.0.get_mut(&filters("a")).unwrap();
        assert_eq!(places.keys().map(|at| at.get()).collect::<Vec<_>>(), [4, 5, 10, 11, 20]);
        // Every second event up to 30 matches.
        places.iter_mut().for_each(|(at, behind)| *behind = (30 - at.get()).div_ceil(2));
        assert_eq!(counted.lag(&filters("a"), &one), 10);
        assert_eq!(counted.lag(&filters("a"), &other), 13 - 3 - 5);
        assert_eq!(counted.lag(&filters("b"), &one) + counted.lag(&filters("c"), &one), 0);
    }
}
