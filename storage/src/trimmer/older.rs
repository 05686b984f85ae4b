//! What stands before a sealed segment: the newest record of topics and keys there.

use std::collections::{HashMap, HashSet};

use super::Trimmer;
use crate::{Error, Record, disk::Patience, index::key_hash, segment::Segment};

/// By topic, the keys that are asked for; an empty one stands for the records without a key.
pub type Asked = HashMap<Box<str>, HashSet<Box<[u8]>>>;

/// Who is told what was found of a topic and key.
type OnFound<'a> = dyn FnMut(&str, &[u8], Option<&Record>) + 'a;

/// What is looked for still.
#[derive(Default)]
struct Waiting<'a> {
    keys: HashMap<u64, (&'a str, &'a [u8])>,
    /// Topics whose records without a key are asked for.
    keyless: HashSet<&'a str>,
}

impl Trimmer {
    /// Calls `found` with the newest record before the segment at `base` of each topic and key that is asked for and has
    /// one there; with `None` where that may be and is not known without reading much.
    ///
    /// # Errors
    /// The system's, reading an index or a record.
    pub fn newest_before(
        &self,
        base: u64,
        asked: &Asked,
        found: &mut OnFound<'_>,
    ) -> Result<(), Error> {
        let mut waiting = Waiting::default();
        for (topic, keys) in asked {
            for key in keys {
                if key.is_empty() {
                    waiting.keyless.insert(topic);
                } else if let Some((topic, key)) =
                    waiting.keys.insert(key_hash(topic, key), (topic, key))
                {
                    // Two with one hash.
                    found(topic, key, None);
                }
            }
        }
        let segments = self.shared.segments.read().clone();
        for segment in segments.iter().rev().filter(|segment| segment.base < base) {
            if waiting.keys.is_empty() && waiting.keyless.is_empty() {
                break;
            }
            in_segment(segment, &mut waiting, found)?;
        }
        Ok(())
    }
}

fn in_segment(
    segment: &Segment,
    waiting: &mut Waiting<'_>,
    found: &mut OnFound<'_>,
) -> Result<(), Error> {
    let (keys, topics) = hints(segment, waiting)?;
    for (hash, rel) in keys {
        let Some((topic, key)) = waiting.keys.remove(&hash) else { continue };
        let record = read(segment, rel)?;
        let is_it = |record: &Record| record.topic.as_str() == topic && record.key[..] == *key;
        found(topic, key, record.as_ref().filter(|record| is_it(record)));
    }
    for (topic, rel) in topics {
        let Some(topic) = waiting.keyless.take(&*topic) else { continue };
        let record = read(segment, rel)?;
        // Else there may be one before it.
        found(topic, b"", record.as_ref().filter(|record| record.key.is_empty()));
    }
    Ok(())
}

type Hints = (Vec<(u64, u32)>, Vec<(Box<str>, u32)>);

/// The newest records that those who wait may have in this segment.
fn hints(segment: &Segment, waiting: &Waiting<'_>) -> Result<Hints, Error> {
    segment.with_index(
        |memory| {
            let of_key = |hash: &u64| Some((*hash, memory.find_key(*hash)?));
            let of_topic =
                |topic: &&str| Some((Box::from(*topic), memory.topics.get(*topic)?.last));
            let keys = waiting.keys.keys().filter_map(of_key).collect();
            Ok((keys, waiting.keyless.iter().filter_map(of_topic).collect()))
        },
        |file| {
            let mut hints = Hints::default();
            if !waiting.keys.is_empty() {
                hints.0 = file.keys()?;
                hints.0.retain(|(hash, _)| waiting.keys.contains_key(hash));
            }
            if !waiting.keyless.is_empty() {
                let topics = file.topics()?.into_iter();
                let asked = topics.filter(|entry| waiting.keyless.contains(&*entry.name));
                hints.1 = asked.map(|entry| (entry.name.into(), entry.last)).collect();
            }
            Ok(hints)
        },
    )
}

/// The record there; `None` also where it is damaged.
fn read(segment: &Segment, rel: u32) -> Result<Option<Record>, Error> {
    let Some(position) = segment.slot(rel, Patience::Wait)?.position() else { return Ok(None) };
    match segment.read(position, segment.base + u64::from(rel)) {
        Err(Error::Corrupt { .. }) => Ok(None),
        read => read.map(Some),
    }
}
