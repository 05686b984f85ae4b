//! The newest record of a topic, or of a key on it.
//!
//! - The key hashes of a segment say which record to look at first; that record says whether it is the one.
//! - Where it is not (two keys with one hash, or a newer record that is not durable yet) the topic's records in that
//!   segment are gone through, the newest first.

use tidings_proto::{Cursor, Topic};

use super::Reader;
use crate::{Error, Record, disk::Patience, index::key_hash, segment::Segment};

/// How many of a topic's records are taken from an index in memory at a time: the writer waits as long.
const STEPS_MAX: usize = 1024;

impl Reader {
    /// The newest record on `topic`, with this key where one is given; `None` when there is none that is durable.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a record on the way is damaged: it may be the one; the system's.
    pub fn last_on(&self, topic: &Topic, key: Option<&[u8]>) -> Result<Option<Record>, Error> {
        let Some(info) = self.topic(topic.as_str()) else { return Ok(None) };
        let Some(key) = key else {
            return match self.get(info.last)? {
                Some(record) => Ok(Some(record)),
                // Taken out in this moment: there may be one before it.
                None => match self.topic(topic.as_str()) {
                    Some(info) => self.get(info.last),
                    None => Ok(None),
                },
            };
        };
        self.newest_of(topic, key, self.last().min(info.last.cursor()))
    }

    /// The newest record with this topic and key up to `until`; `None` where there is none.
    ///
    /// # Errors
    /// As with [`Reader::last_on`].
    pub fn last_until(
        &self,
        topic: &Topic,
        key: &[u8],
        until: Cursor,
    ) -> Result<Option<Record>, Error> {
        self.newest_of(topic, key, until.min(self.last()))
    }

    fn newest_of(&self, topic: &Topic, key: &[u8], until: Cursor) -> Result<Option<Record>, Error> {
        let hash = key_hash(topic.as_str(), key);
        for segment in self.segments_now().iter().rev() {
            if segment.base > until.get() {
                continue;
            }
            let hint = segment
                .with_index(|memory| Ok(memory.find_key(hash)), |file| file.find_key(hash))?;
            let found = match hint {
                Some(rel) => newest(segment, topic, key, rel, until)?,
                None => None,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// The newest record of the key in this segment; `hint` is where it most likely is.
fn newest(
    segment: &Segment,
    topic: &Topic,
    key: &[u8],
    hint: u32,
    until: Cursor,
) -> Result<Option<Record>, Error> {
    let is_it = |record: &Record| record.topic == *topic && record.key[..] == *key;
    let read = |rel: u32| {
        let offset = segment.base + u64::from(rel);
        match segment.slot(rel, Patience::Wait)?.position() {
            Some(position) if offset <= until.get() => segment.read(position, offset).map(Some),
            _ => Ok(None),
        }
    };
    if let Some(record) = read(hint)?.filter(is_it) {
        return Ok(Some(record));
    }
    let mut below = u32::MAX;
    loop {
        let page = segment.with_index(
            |memory| Ok(memory.postings_back(topic.as_str(), below, STEPS_MAX)),
            |file| {
                let mut all =
                    file.postings(topic.as_str(), 0, below.saturating_sub(1), usize::MAX)?;
                all.reverse();
                Ok(all)
            },
        )?;
        let Some(last) = page.last() else { return Ok(None) };
        below = *last;
        for rel in page {
            if let Some(record) = read(rel)?.filter(is_it) {
                return Ok(Some(record));
            }
        }
    }
}
