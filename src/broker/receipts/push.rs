//! Receipts that are pushed: an ack that covers an event whose publisher wishes for receipts is told in
//! `$receipts.<publisher>`, in the commit that makes the ack durable.
//!
//! - The commit thread must not read, so what an ack is about to cover is looked up before it is taken: by the
//!   offsets that are remembered, and for older events by the marks in the index of the log.
//! - An ack that covers very many of them is taken in steps.

use std::{collections::HashSet, sync::Arc};

use tidings_proto::{Cursor, Offset, Topic, control::RECEIPTS_ROOT, topic::subject_token};

use super::{
    super::{
        Broker, Durable, Target,
        error::{AckError, ReadError},
        selection::Selection,
    },
    queue::Wish,
};

/// The most durables that an event with receipts may match.
pub(in crate::broker) const MATCHING_MAX: usize = 100;
/// How many events with receipts a step of an ack covers.
const STEP: usize = 1024;
/// How many receipts of a durable may wait before its next ack waits for a commit.
const WAITING_MAX: usize = 4096;
/// How far behind what an ack covers is looked too, while it is looked: the next acks need not.
const AHEAD: u64 = 65_536;
/// The most bytes that are read at a time to learn who published, but for the event that passes it.
const READ_BYTES_MAX: usize = 1 << 20;

/// Where this subject's receipts go; `None` where it is too long for a topic.
pub(in crate::broker) fn topic_of(subject: &str) -> Option<Topic> {
    Topic::parse(&format!("{RECEIPTS_ROOT}.{}", subject_token(subject))).ok()
}

/// What an ack is about to cover.
pub(in crate::broker) struct Step {
    /// Its events with receipts.
    pub(in crate::broker) wishes: Vec<Wish>,
    /// How far of a cumulative ack they were looked up; `None`: all of it.
    pub(in crate::broker) part: Option<Offset>,
}

impl Broker {
    /// Looks up which events with receipts this ack is about to cover; of a cumulative one, behind `covered`.
    pub(in crate::broker) async fn receipts_step(
        &self,
        durable: &Arc<Durable>,
        target: &Target,
        covered: Cursor,
    ) -> Result<Step, AckError> {
        while durable.receipts.len() > WAITING_MAX {
            self.submit(durable)?.await?;
        }
        let (flagged, part) = match target {
            Target::UpTo(until) => {
                let after = durable.lock().state.floor().max(covered);
                let found = self.flagged(durable, after, until.cursor(), STEP).await?;
                let last = found.last().filter(|_| found.len() >= STEP).copied();
                let part = last.filter(|last| last < until);
                (found, part)
            }
            Target::These(offsets) => (self.flagged_of(durable, offsets).await?, None),
        };
        let wishes = match flagged.is_empty() {
            true => Vec::new(),
            false => self.wishes(durable, flagged).await?,
        };
        Ok(Step { wishes, part })
    }

    /// Up to `limit` of the events with receipts in (`after`, `until`], rising; those on other topics may be among
    /// them.
    async fn flagged(
        &self,
        durable: &Durable,
        after: Cursor,
        until: Cursor,
        limit: usize,
    ) -> Result<Vec<Offset>, ReadError> {
        let (recent, known) = self.controls.flagged().between(after, until, limit);
        let mut found = Vec::new();
        let none_until = durable.no_receipts_until();
        // Up to the floor all is acknowledged.
        let is_next = after <= none_until.max(durable.lock().state.floor());
        let (mut cursor, old) = (after.max(none_until), until.min(known));
        let look = Cursor::new(old.get().saturating_add(AHEAD)).min(known);
        let filters = &durable.spec.options.filters;
        while cursor < old && found.len() < limit {
            let left = limit - found.len();
            let (some, looked) = self.log.with_receipts(cursor, look, filters, left).await?;
            if found.is_empty() && is_next {
                durable.found_no_receipts(some.first().map_or(looked, |first| first.before()));
            }
            found.extend(some.into_iter().filter(|offset| until.covers(*offset)));
            cursor = looked;
        }
        let left = limit.saturating_sub(found.len());
        found.extend(recent.into_iter().take(left));
        Ok(found)
    }

    /// Those of these events that are with receipts, rising.
    async fn flagged_of(
        &self,
        durable: &Durable,
        offsets: &[Offset],
    ) -> Result<Vec<Offset>, ReadError> {
        let mut rising = offsets.to_vec();
        rising.sort_unstable();
        rising.dedup();
        let floor = durable.lock().state.floor();
        let mut found = Vec::new();
        // Neighbours are looked up together.
        let mut rest = &*rising;
        while let Some(first) = rest.first() {
            let near = rest.partition_point(|offset| offset.get() - first.get() < AHEAD);
            let (these, others) = rest.split_at(near);
            rest = others;
            let Some(last) = these.last() else { break };
            let these: HashSet<Offset> = these.iter().copied().collect();
            let after = first.before().max(floor);
            let flagged = self.flagged(durable, after, last.cursor(), usize::MAX).await?;
            found.extend(flagged.into_iter().filter(|offset| these.contains(offset)));
        }
        Ok(found)
    }

    /// Where the publishers of those that this durable wants are told.
    async fn wishes(
        &self,
        durable: &Durable,
        flagged: Vec<Offset>,
    ) -> Result<Vec<Wish>, ReadError> {
        let options = &durable.spec.options;
        let selection = Selection::of(options);
        // As the list of receipts has it: what it was changed to want does not concern what was there before.
        let since = self.controls.find(&durable.spec.name).map(|entry| entry.spec.receipts_since());
        let (mut wishes, mut left) = (Vec::new(), flagged);
        while !left.is_empty() {
            let found = self.log.get_many(left, READ_BYTES_MAX).await?;
            for event in &found.events {
                let is_wanted = since.is_some_and(|since| !since.covers(event.offset()))
                    && options.filters.matches(event.topic().as_str())
                    && selection.wants(event);
                let topic = event.body().ok().and_then(|body| topic_of(body.subject));
                if let (true, Some(topic)) = (is_wanted, topic) {
                    wishes.push(Wish { offset: event.offset().get(), topic });
                }
            }
            left = found.left;
        }
        Ok(wishes)
    }
}
