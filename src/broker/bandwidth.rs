//! What spares a reader's line: `max_bytes_per_second`, and `max_data_bytes`.
//!
//! - After a batch the next one waits as long as the batch takes at the rate asked for. What comes meanwhile is
//!   in the log: the next batch is larger, or with `conflate_ms` newer.
//! - Data above the bound is left out of the event, which names where it is to be had in the header `dataref`
//!   (the claim check of CloudEvents). The log keeps the event as it is.

use std::{sync::Arc, time::Duration};

use tidings_proto::SubscribeOptions;

use super::subscription::BATCH_BYTES_MAX;
use crate::{
    clock,
    log::{Stored, batch_bytes},
};

/// How long after its commit an event counts as one that comes.
const LIVE_FOR: Duration = Duration::from_secs(5);

/// How many bytes of these events are read for who was not there when they came, or is late for them.
pub(crate) fn replayed_bytes(events: &[Arc<Stored>]) -> u64 {
    let now = clock::monotonic();
    let is_old = |event: &&Arc<Stored>| {
        event.durable_at().is_none_or(|since| now.saturating_sub(since) > LIVE_FOR)
    };
    let bytes = events.iter().filter(is_old).map(|event| event.record().body.len());
    u64::try_from(bytes.sum::<usize>()).unwrap_or(u64::MAX)
}

/// The least `max_bytes_per_second`, but for 0.
pub(super) const RATE_MIN: u64 = 1000;

/// What a reader asked for.
#[derive(Debug)]
pub(super) struct Bandwidth {
    /// Bytes a second; 0 is without limit.
    rate: u64,
    data_bytes_max: Option<u64>,
    /// Before this moment nothing is sent.
    free_at_ms: u64,
    /// Whether something would be sent were it not for the rate.
    waits: bool,
}

impl Bandwidth {
    /// What these options ask for. Boxed: few ask.
    pub(super) fn of(options: &SubscribeOptions) -> Option<Box<Bandwidth>> {
        let (rate, data_bytes_max) = (options.max_bytes_per_second, options.max_data_bytes);
        let bandwidth = Bandwidth { rate, data_bytes_max, free_at_ms: 0, waits: false };
        (rate > 0 || data_bytes_max.is_some()).then(|| Box::new(bandwidth))
    }

    /// Whether nothing is to be sent yet.
    pub(super) fn must_wait(&mut self, now_ms: u64) -> bool {
        self.waits = now_ms < self.free_at_ms;
        self.waits
    }

    /// When to ask again, while nothing is to be sent.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.waits.then_some(self.free_at_ms)
    }

    /// How large a batch should be: a quarter of a second of the rate at most.
    pub(super) fn batch_bytes(&self) -> usize {
        match usize::try_from(self.rate / 4) {
            Ok(bytes) if self.rate > 0 => bytes.min(BATCH_BYTES_MAX),
            _ => BATCH_BYTES_MAX,
        }
    }

    /// These are sent now.
    pub(super) fn take(&mut self, events: &mut [Arc<Stored>], now_ms: u64) {
        if let Some(max) = self.data_bytes_max {
            refer(events, max);
        }
        let bytes = u64::try_from(batch_bytes(events)).unwrap_or(u64::MAX);
        if let Some(took_ms) = bytes.saturating_mul(1000).checked_div(self.rate) {
            self.free_at_ms = self.free_at_ms.max(now_ms).saturating_add(took_ms);
        }
    }
}

/// Data of more than `max` bytes is replaced by where it is to be had.
pub(super) fn refer(events: &mut [Arc<Stored>], max: u64) {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    for event in events {
        if let Some(without) = event.without_data_above(max) {
            *event = Arc::new(without);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_proto::{Filter, Filters, NewEvent, Offset, Timestamp, Topic};

    use super::*;
    use crate::{clock, log};

    fn stored(data_bytes: usize) -> Arc<Stored> {
        let event = NewEvent {
            data: Some(vec![b'1'; data_bytes].into()),
            correlation: Some("c".to_owned()),
            headers: [("h".to_owned(), "v".to_owned())].into(),
            ..NewEvent::on(Topic::parse("a").unwrap())
        };
        let draft =
            log::draft(&event, clock::event_id(), "alice", Timestamp::from_millis(5), false);
        Arc::new(Stored::new(log::Record {
            offset: Offset::new(7).unwrap(),
            time_ms: 5,
            flags: draft.flags,
            topic: draft.topic,
            key: bytes::Bytes::new(),
            dedupe: None,
            body: draft.body.into(),
        }))
    }

    fn asking(rate: u64) -> Bandwidth {
        let filters = Filters::one(Filter::parse("a").unwrap());
        *Bandwidth::of(&SubscribeOptions {
            max_bytes_per_second: rate,
            max_data_bytes: Some(5),
            ..SubscribeOptions::to(filters)
        })
        .unwrap()
    }

    #[test]
    fn a_batch_is_followed_by_the_time_it_takes() {
        let mut events = vec![stored(100)];
        let bytes = events[0].batch_bytes() as u64;
        let mut bandwidth = asking(1000);
        assert!(!bandwidth.must_wait(50) && bandwidth.due_ms().is_none());
        bandwidth.take(&mut events[..0], 50);
        assert!(!bandwidth.must_wait(50));
        let mut whole = asking(1000);
        whole.data_bytes_max = None;
        whole.take(&mut events, 50);
        assert!(whole.must_wait(50 + bytes - 1));
        assert_eq!(whole.due_ms(), Some(50 + bytes));
        assert!(!whole.must_wait(50 + bytes) && whole.due_ms().is_none());
        assert_eq!((whole.batch_bytes(), asking(0).batch_bytes()), (250, BATCH_BYTES_MAX));
    }

    #[test]
    fn large_data_is_left_out_and_named() {
        let mut events = vec![stored(5), stored(6)];
        let before = events[1].event().unwrap();
        refer(&mut events, 5);
        assert_eq!(events[0].event().unwrap().data.unwrap().len(), 5);
        let after = events[1].event().unwrap();
        assert_eq!(after.data, None);
        assert_eq!(after.headers["dataref"], format!("/v1/events/{}", before.offset));
        let mut rest = after.clone();
        (rest.data, rest.headers) = (before.data.clone(), before.headers.clone());
        assert_eq!(rest, before, "nothing else differs");
    }
}
