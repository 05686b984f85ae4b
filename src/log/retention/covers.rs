//! Which expired events stay: those without which an older event would be the newest of its topic and key, or of its
//! topic, once more.
//!
//! - An expired event *covers* what is older of its topic and key. It may go where nothing older is left, or where another
//!   expired one is left that covers the same for the same subscriptions: of the same type, content type and priority.
//! - So what is kept is at most one for each of these behind every event that has not expired, and it goes with that.
//! - What is not known without reading much counts as something that has not expired.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use tidings_proto::Offset;
use tidings_storage::{Asked, Flags, Seen};

use crate::log::{LogHandle, StorageError, codec};

/// What stands before the place in a segment that a rewrite has come to, of the topics that have expired events in it.
#[derive(Debug, Default)]
pub(super) struct Covers {
    now_ms: u64,
    topics: HashMap<Box<str>, OfTopic>,
}

#[derive(Debug)]
struct OfTopic {
    /// The newest event there is.
    newest: Offset,
    /// Whether older segments have some.
    has_older: bool,
    /// Whether the last one that stays of this segment has expired.
    last_expired: Option<bool>,
    /// By key, those that have expired events in the segment.
    slots: HashMap<Box<[u8]>, Slot>,
}

/// A topic and key.
#[derive(Debug, Default)]
struct Slot {
    /// Something that has not expired may stand there.
    is_open: bool,
    /// Which sorts of expired events stand behind that.
    covered_by: HashSet<u64>,
}

impl Slot {
    fn reopen(&mut self) {
        self.is_open = true;
        self.covered_by.clear();
    }
}

impl Covers {
    /// What stands before this segment.
    ///
    /// # Errors
    /// What the storage finds, see [`StorageError`].
    pub(super) fn before(log: &LogHandle, base: u64, now_ms: u64) -> Result<Covers, StorageError> {
        let mut covers = Covers { now_ms, topics: HashMap::new() };
        log.trimmer().visit(base, &mut |seen| {
            if covers.has_expired(seen.topic, seen.body) {
                covers.note(log, base, seen);
            }
            true
        })?;
        let mut asked = Asked::new();
        for (topic, of) in covers.topics.iter().filter(|(_, of)| of.has_older) {
            asked.insert(topic.clone(), of.slots.keys().cloned().collect());
        }
        log.trimmer().newest_before(base, &asked, &mut |topic, key, record| {
            let sort = record
                .filter(|record| covers.has_expired(topic, &record.body))
                .map(|record| sort_of(record.flags, &record.body));
            let of = covers.topics.get_mut(topic);
            if let Some(slot) = of.and_then(|of| of.slots.get_mut(key)) {
                slot.reopen();
                slot.covered_by.extend(sort);
            }
        })?;
        Ok(covers)
    }

    /// Whether an event on this topic has expired.
    pub(super) fn has_expired(&self, topic: &str, body: &[u8]) -> bool {
        !topic.starts_with('$')
            && codec::expires_of(body).is_some_and(|at| at.as_millis() <= self.now_ms)
    }

    fn note(&mut self, log: &LogHandle, base: u64, seen: &Seen<'_>) {
        if !self.topics.contains_key(seen.topic) {
            let info = log.topic(seen.topic);
            let of = OfTopic {
                newest: info.as_ref().map_or(seen.offset, |info| info.last),
                has_older: info.is_some_and(|info| info.first.get() < base),
                last_expired: None,
                slots: HashMap::new(),
            };
            self.topics.insert(seen.topic.into(), of);
        }
        if let Some(of) = self.topics.get_mut(seen.topic)
            && !of.slots.contains_key(seen.key)
        {
            of.slots.insert(seen.key.into(), Slot::default());
        }
    }

    /// The next event of the segment has not expired, and stays.
    pub(super) fn stays(&mut self, seen: &Seen<'_>) {
        let Some(of) = self.topics.get_mut(seen.topic) else { return };
        of.last_expired = Some(false);
        if let Some(slot) = of.slots.get_mut(seen.key) {
            slot.reopen();
        }
    }

    /// Whether the next event of the segment, which has expired, is to stay.
    pub(super) fn needs(&mut self, seen: &Seen<'_>) -> bool {
        let Some(of) = self.topics.get_mut(seen.topic) else { return false };
        let Some(slot) = of.slots.get_mut(seen.key) else { return false };
        // Whoever asks for the newest of the topic, whatever its key, makes no choice among the sorts.
        let is_last = seen.offset == of.newest;
        let covers_topic =
            is_last && of.last_expired.map_or(of.has_older, |has_expired| !has_expired);
        let covers_slot = slot.is_open && slot.covered_by.insert(sort_of(seen.flags, seen.body));
        let stays = covers_topic || covers_slot;
        if stays {
            of.last_expired = Some(true);
        }
        stays
    }
}

/// What tells subscriptions that want one event and not the other, but for headers: those of tracing differ on each.
fn sort_of(flags: Flags, body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    flags.priority().hash(&mut hasher);
    codec::kind_of(body).hash(&mut hasher);
    hasher.finish()
}
