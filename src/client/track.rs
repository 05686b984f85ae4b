//! How far a subscription has come, and what to ask for to go on from there. No I/O, no clock.
//!
//! - An ephemeral subscription goes on after the last cursor seen, in the log it belongs to; a
//!   durable one by its name: the broker keeps its place.
//! - Batches are chained: one whose `after` is not our cursor means that something was missed.
//! - Of an ephemeral one no event is handed out twice: what is at or below the cursor is dropped.

use tidings_proto::{
    Cursor, Event, LogId, Mode, Position, SubscribeOptions,
    message::{Events, Gap, GapReason},
    subscribe::After,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Track {
    options: SubscribeOptions,
    place: Option<Place>,
    /// After a gap the next batch says where we are.
    adrift: bool,
    /// Whether a batch has come since the subscription was made: until then a snapshot
    /// (`last_per_key`) has to be asked for anew, after that the cursor says it all.
    begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    cursor: Cursor,
    log: LogId,
}

/// A batch that does not follow on what came before: subscribe again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missed;

impl Track {
    /// A subscription that has seen nothing.
    pub(super) fn new(options: SubscribeOptions) -> Track {
        Track { options, place: None, adrift: false, begun: false }
    }

    /// Whether the broker bounds what is delivered and not acknowledged.
    pub(super) fn is_leased(&self) -> bool {
        self.is_durable() && self.options.mode != Mode::Mirror
    }

    /// Whether the broker keeps its place.
    pub(super) fn is_durable(&self) -> bool {
        self.options.durable.is_some()
    }

    /// What to ask the broker for now.
    pub(super) fn request(&self) -> SubscribeOptions {
        let mut options = self.options.clone();
        let resumable = self.begun || !options.last_per_key;
        if let Some(place) = self.place.filter(|_| resumable && !self.is_durable()) {
            options.after = Some(After(Position { cursor: place.cursor, log: None }));
            options.log = Some(place.log.to_string());
            options.since = None;
            options.last_per_key = false;
        }
        options
    }

    /// The broker has subscribed us at `cursor` of `log`.
    pub(super) fn handle_subscribed(&mut self, cursor: Cursor, log: LogId) {
        // With a gap the cursor may be another than we asked for: the gap is pushed next.
        self.place = Some(Place { cursor, log });
        self.adrift = false;
    }

    /// A batch has come: its events that are new, each with the number of its delivery.
    ///
    /// # Errors
    /// [`Missed`] when it does not follow on what came before; nothing has changed then.
    pub(super) fn handle_events(&mut self, batch: Events) -> Result<Vec<(Event, u32)>, Missed> {
        let before = self.place.map(|place| place.cursor);
        if batch.after.is_some() && !self.adrift && batch.after != before {
            return Err(Missed);
        }
        let covered = match (self.is_durable() || self.options.last_per_key, self.adrift) {
            (false, false) => before.unwrap_or_default(),
            (false, true) => batch.after.or(before).unwrap_or_default(),
            // Redeliveries lie below the cursor, and so may a snapshot.
            (true, _) => Cursor::START,
        };
        if let (Some(place), Some(cursor)) = (&mut self.place, batch.cursor) {
            place.cursor = cursor;
        }
        self.adrift = false;
        self.begun = true;
        let attempts = batch.attempts;
        let number_of = |event: &Event| {
            let again = attempts.iter().find(|(offset, _)| *offset == event.offset);
            again.map_or(1, |(_, number)| *number)
        };
        let events = batch.events.into_iter().filter(|event| !covered.covers(event.offset));
        Ok(events.map(|event| (number_of(&event), event)).map(|(n, event)| (event, n)).collect())
    }

    /// Events are gone: delivery goes on from the first there is.
    pub(super) fn handle_gap(&mut self, gap: &Gap) {
        let first = Cursor::new(gap.first.saturating_sub(1));
        let cursor = match (gap.reason, self.place) {
            (GapReason::LogChanged, _) | (_, None) => first,
            (_, Some(place)) => place.cursor.max(first),
        };
        self.place = Some(Place { cursor, log: gap.log });
        self.adrift = true;
    }
}

#[cfg(test)]
mod tests {
    use tidings_proto::{Filter, Filters, Offset, Priority, Timestamp, Topic};

    use super::*;

    fn options() -> SubscribeOptions {
        SubscribeOptions::to(Filters::one(Filter::parse("a.>").unwrap()))
    }

    fn log(byte: u8) -> LogId {
        LogId::from_bytes([byte; 16])
    }

    fn batch(after: u64, cursor: u64, offsets: &[u64]) -> Events {
        let event = |&offset: &u64| Event {
            offset: Offset::new(offset).unwrap(),
            topic: Topic::parse("a.b").unwrap(),
            id: offset.to_string(),
            kind: "message".to_owned(),
            source: "s".to_owned(),
            time: Timestamp::from_millis(0),
            datacontenttype: None,
            data: None,
            key: None,
            priority: Priority::Normal,
            expires: None,
            correlation: None,
            headers: Default::default(),
        };
        Events {
            subscription: 1,
            after: Some(Cursor::new(after)),
            cursor: Some(Cursor::new(cursor)),
            events: offsets.iter().map(event).collect(),
            attempts: vec![(Offset::new(3).unwrap(), 2)],
        }
    }

    fn offsets(events: &[(Event, u32)]) -> Vec<(u64, u32)> {
        events.iter().map(|(event, number)| (event.offset.get(), *number)).collect()
    }

    #[test]
    fn a_new_connection_goes_on_after_the_last_cursor() {
        let mut track =
            Track::new(SubscribeOptions { since: Some(Timestamp::from_millis(5)), ..options() });
        assert_eq!(track.request().since, Some(Timestamp::from_millis(5)));
        track.handle_subscribed(Cursor::new(7), log(1));
        assert_eq!(
            track.request().after.unwrap().0.cursor.get(),
            7,
            "now was 7, so nothing in between is lost"
        );
        track.handle_events(batch(7, 12, &[8, 10])).unwrap();
        let request = track.request();
        assert_eq!(request.after.unwrap().0.cursor.get(), 12);
        assert_eq!(request.log, Some(log(1).to_string()));
        assert_eq!(request.since, None);
    }

    #[test]
    fn a_batch_that_does_not_follow_is_refused_and_none_comes_twice() {
        let mut track = Track::new(options());
        track.handle_subscribed(Cursor::START, log(1));
        let first = track.handle_events(batch(0, 3, &[1, 3])).unwrap();
        assert_eq!(offsets(&first), [(1, 1), (3, 2)]);
        assert_eq!(track.handle_events(batch(5, 9, &[9])), Err(Missed));
        assert_eq!(
            track.request().after.unwrap().0.cursor.get(),
            3,
            "a refused batch moves nothing"
        );
        assert_eq!(offsets(&track.handle_events(batch(3, 6, &[2, 3, 4])).unwrap()), [(4, 1)]);
    }

    #[test]
    fn after_a_gap_the_next_batch_says_where_we_are() {
        let mut track = Track::new(options());
        track.handle_subscribed(Cursor::new(50), log(1));
        let mut gap = Gap {
            subscription: Some(1),
            requested: Cursor::new(50),
            first: 1,
            last: 9,
            log: log(2),
            reason: GapReason::LogChanged,
        };
        track.handle_gap(&gap);
        assert_eq!(track.request().after.unwrap().0.cursor, Cursor::START);
        assert_eq!(track.request().log, Some(log(2).to_string()));
        assert_eq!(offsets(&track.handle_events(batch(2, 4, &[4])).unwrap()), [(4, 1)]);
        gap.reason = GapReason::Retention;
        track.handle_gap(&gap);
        assert_eq!(
            track.request().after.unwrap().0.cursor.get(),
            4,
            "retention never moves us back"
        );
    }

    #[test]
    fn a_durable_is_asked_for_by_name_and_takes_redeliveries() {
        let mut track =
            Track::new(SubscribeOptions { durable: Some("inbox".to_owned()), ..options() });
        track.handle_subscribed(Cursor::new(2), log(1));
        assert_eq!(track.request().after, None);
        track.handle_events(batch(2, 5, &[4, 5])).unwrap();
        assert_eq!(offsets(&track.handle_events(batch(5, 5, &[3])).unwrap()), [(3, 2)]);
        assert_eq!(track.request().durable.as_deref(), Some("inbox"));
        assert_eq!(track.request().after, None);
    }

    #[test]
    fn a_snapshot_is_asked_for_anew_until_it_has_begun() {
        let mut track = Track::new(SubscribeOptions { last_per_key: true, ..options() });
        track.handle_subscribed(Cursor::new(9), log(1));
        assert!(track.request().last_per_key);
        assert_eq!(offsets(&track.handle_events(batch(9, 9, &[2, 8])).unwrap()), [(2, 1), (8, 1)]);
        assert!(!track.request().last_per_key);
    }
}
