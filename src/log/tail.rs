//! The newest events in memory, so that live delivery reads no disk.
//!
//! - Bounded in bytes; the oldest go first.
//! - Offsets in it are dense: it begins empty at the start and every commit is pushed whole.
//! - A reader that wants what is older is told so ([`Tail::read`] gives `None`) and reads the disk.
//! - The commit thread waits for whoever holds the lock: what others do with an event is done outside it.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::RwLock;
use tidings_proto::{Cursor, Filters, Offset};

use super::{Batch, ReadLimit, codec::Stored};

/// How many events one read looks at before it gives way, matching or not.
const LOOK_MAX: usize = 8192;
/// How many events [`Tail::visit`] takes at a time.
const VISIT_MAX: usize = 64;

/// The newest events.
pub struct Tail {
    inner: RwLock<Inner>,
    bytes_max: usize,
}

struct Inner {
    events: VecDeque<Arc<Stored>>,
    /// Before the first of them.
    begin: Cursor,
    bytes: usize,
}

impl Tail {
    /// An empty tail after `last`.
    pub fn new(last: Cursor, bytes_max: usize) -> Tail {
        Tail {
            inner: RwLock::new(Inner { events: VecDeque::new(), begin: last, bytes: 0 }),
            bytes_max,
        }
    }

    /// Everything after this is in memory.
    pub fn begin(&self) -> Cursor {
        self.inner.read().begin
    }

    /// How many bytes its events take, about.
    pub fn bytes(&self) -> usize {
        self.inner.read().bytes
    }

    pub(super) fn push(&self, events: &[Arc<Stored>]) {
        let mut inner = self.inner.write();
        for event in events {
            // After a hole in the offsets the tail begins anew: its offsets stay dense.
            if inner.end() != event.offset().before() {
                inner.events.clear();
                inner.bytes = 0;
                inner.begin = event.offset().before();
            }
            inner.bytes += event.cost_bytes();
            inner.events.push_back(event.clone());
        }
        while inner.bytes > self.bytes_max && inner.events.len() > 1 {
            if let Some(event) = inner.events.pop_front() {
                inner.bytes = inner.bytes.saturating_sub(event.cost_bytes());
                inner.begin = event.offset().cursor();
            }
        }
    }

    /// Forgets what is in memory up to here: it was taken out of the log.
    pub(super) fn cut(&self, upto: Cursor) {
        let mut inner = self.inner.write();
        while inner.events.front().is_some_and(|event| upto.covers(event.offset())) {
            let Some(event) = inner.events.pop_front() else { return };
            inner.bytes = inner.bytes.saturating_sub(event.cost_bytes());
            inner.begin = event.offset().cursor();
        }
    }

    /// The event at `offset`, if it is in memory.
    pub fn get(&self, offset: Offset) -> Option<Arc<Stored>> {
        let inner = self.inner.read();
        let index = offset.get().checked_sub(inner.begin.get() + 1)?;
        inner.events.get(usize::try_from(index).ok()?).cloned()
    }

    /// Matching events in (`after`, `until`]; `None` when what comes after `after` is no longer in memory.
    pub fn read(
        &self,
        after: Cursor,
        until: Cursor,
        filters: &Filters,
        limit: ReadLimit,
    ) -> Option<Batch> {
        let inner = self.inner.read();
        let mut batch = Batch { events: Vec::new(), cursor: after, damaged: None };
        let mut bytes = 0;
        for event in inner.after(after)?.take(LOOK_MAX) {
            if event.offset().get() > until.get() {
                batch.cursor = until;
                return Some(batch);
            }
            if filters.matches(event.topic().as_str()) {
                bytes += event.batch_bytes();
                batch.events.push(event.clone());
            }
            batch.cursor = event.offset().cursor();
            if batch.events.len() >= limit.events || bytes >= limit.bytes {
                break;
            }
        }
        Some(batch)
    }

    /// Calls `visit` with every event in (`after`, `until`]; false when some are no longer in memory, and
    /// then those before them may have been visited. The tail is not locked while `visit` runs.
    pub fn visit(&self, mut after: Cursor, until: Cursor, mut visit: impl FnMut(&Stored)) -> bool {
        let mut taken = Vec::with_capacity(VISIT_MAX);
        loop {
            if !self.take(after, until, &mut taken) {
                return false;
            }
            let Some(last) = taken.last() else { return true };
            after = last.offset().cursor();
            taken.drain(..).for_each(|event| visit(&event));
            if after >= until {
                return true;
            }
        }
    }

    /// Puts the first [`VISIT_MAX`] events in (`after`, `until`] in `taken`; false when some are no longer in
    /// memory.
    fn take(&self, after: Cursor, until: Cursor, taken: &mut Vec<Arc<Stored>>) -> bool {
        let inner = self.inner.read();
        let Some(events) = inner.after(after) else { return false };
        let wanted = events.take(VISIT_MAX).take_while(|event| until.covers(event.offset()));
        taken.extend(wanted.cloned());
        true
    }
}

impl Inner {
    fn end(&self) -> Cursor {
        self.events.back().map_or(self.begin, |event| event.offset().cursor())
    }

    fn after(&self, after: Cursor) -> Option<impl Iterator<Item = &Arc<Stored>>> {
        let skip = after.get().checked_sub(self.begin.get())?;
        let skip = usize::try_from(skip).ok()?.min(self.events.len());
        Some(self.events.range(skip..))
    }
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.inner.read();
        write!(f, "Tail({:?} {:?}, {} bytes)", inner.begin, inner.end(), inner.bytes)
    }
}

#[cfg(test)]
mod tests {
    use tidings_proto::Topic;
    use tidings_storage::{Flags, Record};

    use super::*;

    fn event(offset: u64) -> Arc<Stored> {
        Arc::new(Stored::new(Record {
            offset: Offset::new(offset).unwrap(),
            time_ms: 0,
            flags: Flags::default(),
            topic: Topic::parse("a").unwrap(),
            key: Default::default(),
            dedupe: None,
            body: Default::default(),
        }))
    }

    fn events(offsets: std::ops::RangeInclusive<u64>) -> Vec<Arc<Stored>> {
        offsets.map(event).collect()
    }

    /// What is visited in (`after`, `until`], and whether it was said to be all.
    fn visited(tail: &Tail, after: u64, until: u64) -> (Vec<u64>, bool) {
        let mut seen = Vec::new();
        let complete = tail.visit(Cursor::new(after), Cursor::new(until), |event| {
            seen.push(event.offset().get());
        });
        (seen, complete)
    }

    #[test]
    fn a_visit_sees_every_event_once_however_many_there_are() {
        let tail = Tail::new(Cursor::START, usize::MAX);
        tail.push(&events(1..=200));
        for (after, until) in [(0, 200), (0, 64), (0, 65), (1, 65), (63, 129), (199, 200), (5, 5)] {
            assert_eq!(visited(&tail, after, until), ((after + 1..=until).collect(), true));
        }
        assert_eq!(visited(&tail, 150, 300), ((151..=200).collect(), true));
    }

    #[test]
    fn a_commit_does_not_wait_for_a_visit() {
        let tail = Tail::new(Cursor::START, usize::MAX);
        tail.push(&events(1..=100));
        let mut seen = 0;
        let complete = tail.visit(Cursor::START, Cursor::new(100), |event| {
            seen += 1;
            // Would never return if the lock were held.
            tail.push(&[super::tests::event(100 + event.offset().get())]);
        });
        assert_eq!((seen, complete), (100, true));
        assert_eq!(visited(&tail, 100, 200), ((101..=200).collect(), true));
    }

    #[test]
    fn a_visit_that_is_overtaken_says_so() {
        let room = 100 * event(1).cost_bytes();
        let tail = Tail::new(Cursor::START, room);
        tail.push(&events(1..=100));
        let mut seen = Vec::new();
        let complete = tail.visit(Cursor::START, Cursor::new(100), |event| {
            if seen.is_empty() {
                tail.push(&events(101..=190));
            }
            seen.push(event.offset().get());
        });
        assert_eq!((seen, complete), ((1..=64).collect(), false));
        assert_eq!(visited(&tail, 0, 190), (vec![], false));
    }
}
