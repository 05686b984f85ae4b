//! How much lies behind a cursor, with bounded work: by the catalog first, by postings where that is
//! not enough, and as an upper bound where both would take too long.

use std::collections::BTreeMap;

use tidings_proto::{Cursor, Filters, Offset, Topic};

use super::Reader;
use crate::{Error, TopicInfo, segment::Segment};

/// How many names are looked at with the catalog locked: the writer waits as long.
const PAGE: usize = 256;
/// What a look into an index file costs, in looks at a name: about a dozen reads.
const INDEX_LOOKS: usize = 64;
/// How far a topic's records are followed back in an index in memory: the writer waits as long.
const STEPS_MAX: usize = 4096;

/// What lies behind a cursor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// How many records match; no more than this many where it is not `exact`.
    pub records: u64,
    /// The first of them; `None` without any, and where it was not looked for.
    pub first: Option<Offset>,
    /// Whether all of it was counted.
    pub exact: bool,
}

impl Reader {
    /// What matches behind `after`. Each look at a topic, an index or a step in one is taken from `looks`;
    /// when none is left the rest is estimated from above.
    ///
    /// # Errors
    /// The system's, reading an index.
    pub fn behind(
        &self,
        filters: &Filters,
        after: Cursor,
        looks: &mut usize,
    ) -> Result<Behind, Error> {
        let last = self.last();
        if last <= after {
            return Ok(Behind { exact: true, ..Behind::default() });
        }
        let distance = last.get() - after.get();
        let Some(topics) = self.topics_behind(filters, after, looks) else {
            return Ok(Behind { records: distance, first: None, exact: false });
        };
        let mut behind = Behind { exact: true, ..Behind::default() };
        let segments = self.segments_now();
        for (topic, info) in &topics {
            let (records, first, exact) = if info.first.get() > after.get() {
                (info.count, Some(info.first), true)
            } else {
                count(&segments, topic, info, after, looks)?
            };
            behind.records = behind.records.saturating_add(records);
            behind.first = [behind.first, first].into_iter().flatten().min();
            behind.exact &= exact;
        }
        behind.records = behind.records.min(distance);
        // The first of those that were looked at need not be the first of all.
        behind.first = behind.first.filter(|_| behind.exact);
        Ok(behind)
    }

    /// The topics that match and have something behind `after`; `None` when there are too many to look at.
    fn topics_behind(
        &self,
        filters: &Filters,
        after: Cursor,
        looks: &mut usize,
    ) -> Option<BTreeMap<Topic, TopicInfo>> {
        let mut found = BTreeMap::new();
        let mut keep = |info: TopicInfo| {
            if info.last.get() > after.get() {
                found.insert(info.topic.clone(), info);
            }
        };
        for filter in filters {
            if let Some(literal) = filter.literal() {
                *looks = looks.checked_sub(1)?;
                self.shared.catalog.read().get(literal.as_str()).map(&mut keep);
                continue;
            }
            let mut from = None;
            loop {
                *looks = looks.checked_sub(PAGE)?;
                let catalog = self.shared.catalog.read();
                from = catalog.page(filter, from.as_ref(), PAGE, &mut keep);
                if from.is_none() {
                    break;
                }
            }
        }
        Some(found)
    }
}

/// How many records a topic has behind `after`, the first of them, and whether they were all counted.
fn count(
    segments: &[std::sync::Arc<Segment>],
    topic: &Topic,
    info: &TopicInfo,
    after: Cursor,
    looks: &mut usize,
) -> Result<(u64, Option<Offset>, bool), Error> {
    let topic = topic.as_str();
    let (mut records, mut first, mut exact) = (0, None, true);
    for (n, segment) in segments.iter().enumerate() {
        let end = segments.get(n + 1).map_or(u64::MAX, |next| next.base - 1);
        let from = segment.base.max(after.get() + 1);
        if from > end.min(info.last.get()) {
            continue;
        }
        let Some(left) = looks.checked_sub(INDEX_LOOKS) else {
            return Ok((info.count, None, false));
        };
        *looks = left;
        let from = segment.rel(from);
        let (counted, rel, whole) = segment.with_index(
            |memory| Ok(memory.count_from(topic, from, STEPS_MAX)),
            |file| {
                let count = file.count(topic, from, u32::MAX)?;
                let first = match first {
                    None => file.postings(topic, from, u32::MAX, 1)?.first().copied(),
                    Some(_) => None,
                };
                Ok((count, first, true))
            },
        )?;
        records += u64::from(counted);
        exact &= whole;
        first = first.or(rel.and_then(|rel| Offset::new(segment.base + u64::from(rel))));
    }
    Ok((records, first, exact))
}
