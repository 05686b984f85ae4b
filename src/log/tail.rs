//! The newest events in memory, so that live delivery reads no disk.
//!
//! - Bounded in bytes; the oldest go first.
//! - Offsets in it are dense: it begins empty at the start and every commit is pushed whole.
//! - A reader that wants what is older is told so ([`Tail::read`] gives `None`) and reads the disk.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::RwLock;
use tidings_proto::{Cursor, Filters, Offset};

use super::{Batch, ReadLimit, codec::Stored};

/// How many events one read looks at before it gives way, matching or not.
const LOOK_MAX: usize = 8192;

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
                bytes += event.record().body.len() + 160;
                batch.events.push(event.clone());
            }
            batch.cursor = event.offset().cursor();
            if batch.events.len() >= limit.events || bytes >= limit.bytes {
                break;
            }
        }
        Some(batch)
    }

    /// Calls `visit` with every event in (`after`, `until`]; false when some are no longer in memory.
    pub fn visit(&self, after: Cursor, until: Cursor, mut visit: impl FnMut(&Stored)) -> bool {
        let inner = self.inner.read();
        let Some(events) = inner.after(after) else { return false };
        events.take_while(|event| until.covers(event.offset())).for_each(|event| visit(event));
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
