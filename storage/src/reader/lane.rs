//! The records of one priority, or those with receipts, found by the marks beside their places: the others are not
//! read.

use std::collections::BTreeSet;

use tidings_proto::{Cursor, Filters, Offset, Topic};

use super::{LOOKS_MAX, Reader, Run, ScanLimit, spans};
use crate::{Error, active::Slot, disk::Patience, segment::Segment};

/// How many slots are taken from an index at a time.
const SLOTS: u32 = 4096;
/// How many slots one call looks at.
const SLOTS_MAX: usize = 1 << 20;
/// How many records one call reads to learn their topics.
const READS_MAX: usize = 4096;

/// What the records have that are looked for.
#[derive(Clone, Copy)]
enum Mark {
    /// This priority, 0 to 3.
    Priority(u8),
    /// A publisher who wishes for receipts.
    Receipts,
}

impl Mark {
    fn is_on(self, slot: Slot) -> bool {
        match self {
            Mark::Priority(priority) => slot.priority() == priority,
            Mark::Receipts => slot.receipts(),
        }
    }
}

/// What is looked for, and what was found.
struct Search<'a> {
    filters: &'a Filters,
    topics: Option<BTreeSet<Topic>>,
    mark: Mark,
    limit: usize,
    found: Vec<Offset>,
    cursor: Cursor,
    slots_left: usize,
    reads_left: usize,
}

impl Reader {
    /// Up to `limit` of the offsets in (`after`, `until`] whose records match and have this priority (0 to 3), and
    /// how far was looked: `until`, or less where one call would take long. One that cannot be read is among them:
    /// whoever reads it is told.
    ///
    /// # Errors
    /// The system's, reading an index or a record.
    pub fn lane(
        &self,
        after: Cursor,
        until: Cursor,
        filters: &Filters,
        priority: u8,
        limit: usize,
    ) -> Result<(Vec<Offset>, Cursor), Error> {
        self.marked(after, until, filters, Mark::Priority(priority), limit)
    }

    /// The same for the records whose publishers wish for receipts.
    ///
    /// # Errors
    /// As [`Reader::lane`].
    pub fn with_receipts(
        &self,
        after: Cursor,
        until: Cursor,
        filters: &Filters,
        limit: usize,
    ) -> Result<(Vec<Offset>, Cursor), Error> {
        self.marked(after, until, filters, Mark::Receipts, limit)
    }

    fn marked(
        &self,
        after: Cursor,
        until: Cursor,
        filters: &Filters,
        mark: Mark,
        limit: usize,
    ) -> Result<(Vec<Offset>, Cursor), Error> {
        let until = until.min(self.last());
        let mut search = Search {
            filters,
            topics: self.shared.catalog.read().resolve(filters, LOOKS_MAX),
            mark,
            limit,
            found: Vec::new(),
            cursor: after,
            slots_left: SLOTS_MAX,
            reads_left: READS_MAX,
        };
        let segments = self.segments_now();
        for (segment, from, end) in spans(&segments, after, until) {
            search.segment(segment, from, end)?;
            if search.is_over() {
                return Ok((search.found, search.cursor));
            }
            search.cursor = Cursor::new(end);
        }
        Ok((search.found, search.cursor.max(until)))
    }
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        self.found.len() >= self.limit || self.slots_left == 0 || self.reads_left == 0
    }

    fn segment(&mut self, segment: &Segment, from: u64, end: u64) -> Result<(), Error> {
        let Some(topics) = self.topics.take() else { return self.by_slots(segment, from, end) };
        let limit = ScanLimit { events: 1, bytes: 1 };
        let mut ignore = |_| {};
        let run = Run::new(None, limit, Patience::Wait, self.cursor, &mut ignore);
        let result = match run.is_few(segment, &topics) {
            Ok(true) => self.by_postings(segment, from, end, &topics),
            Ok(false) => self.by_slots(segment, from, end),
            Err(error) => Err(error),
        };
        self.topics = Some(topics);
        result
    }

    /// The postings name the records, so none is read.
    fn by_postings(
        &mut self,
        segment: &Segment,
        from: u64,
        end: u64,
        topics: &BTreeSet<Topic>,
    ) -> Result<(), Error> {
        let (from, to) = (segment.rel(from), segment.rel(end));
        let mut rels = Vec::new();
        for topic in topics {
            let topic = topic.as_str();
            rels.extend(segment.with_index(
                |memory| Ok(memory.postings(topic, from, to)),
                |file| file.postings(topic, from, to, usize::MAX),
            )?);
        }
        rels.sort_unstable();
        for rel in rels {
            let slot = segment.slot(rel, Patience::Wait)?;
            self.slots_left = self.slots_left.saturating_sub(1);
            let offset = Cursor::new((segment.base + u64::from(rel)).saturating_sub(1)).next();
            if slot.position().is_some() && self.mark.is_on(slot) {
                self.found.push(offset);
            }
            self.cursor = offset.cursor();
            if self.is_over() {
                break;
            }
        }
        Ok(())
    }

    fn by_slots(&mut self, segment: &Segment, from: u64, end: u64) -> Result<(), Error> {
        let (mut next, to) = (segment.rel(from), segment.rel(end));
        while next <= to && !self.is_over() {
            let count = (to - next).saturating_add(1).min(SLOTS);
            let slots = segment.with_index(
                |memory| Ok(memory.slots(next, count)),
                |file| file.slots(next, count, Patience::Wait),
            )?;
            if slots.is_empty() {
                break;
            }
            for (rel, slot) in (next..).zip(&slots) {
                self.look(segment, rel, *slot)?;
                if self.is_over() {
                    return Ok(());
                }
            }
            next = next.saturating_add(u32::try_from(slots.len()).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    fn look(&mut self, segment: &Segment, rel: u32, slot: Slot) -> Result<(), Error> {
        let offset = Cursor::new((segment.base + u64::from(rel)).saturating_sub(1)).next();
        self.slots_left = self.slots_left.saturating_sub(1);
        let position = slot.position().filter(|_| self.mark.is_on(slot));
        if let Some(position) = position {
            self.reads_left = self.reads_left.saturating_sub(1);
            match segment.read(position, offset.get()) {
                Ok(record) if !self.filters.matches(record.topic.as_str()) => {}
                Ok(_) | Err(Error::Corrupt { .. }) => self.found.push(offset),
                Err(error) => return Err(error),
            }
        }
        self.cursor = offset.cursor();
        Ok(())
    }
}
