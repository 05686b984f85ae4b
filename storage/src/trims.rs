//! What of each topic is gone for good: the file `trimmed`.
//!
//! ```text
//! trimmed: magic "TIDTRIM\1" · clock u64 · count u32
//!          · (upto u64, ever u64, why u8, name_len u8, name) × count, by name · checksum u32
//! ```
//! - A topic is in it once something of it was removed; replaced whole before the events go.
//! - In memory it takes about 100 bytes a topic and its name.

use std::{collections::BTreeMap, io, ops::Bound};

use tidings_proto::{Cursor, Filter, Filters, Offset, Topic};

use crate::{
    Error,
    disk::{Disk, read_exact},
    record::{crc, u32_at, u64_at},
};

const MAGIC: &[u8; 8] = b"TIDTRIM\x01";
/// The file.
pub(crate) const TRIMMED: &str = "trimmed";
const ENTRY_BYTES: usize = 18;
/// How many names one question with a wildcard looks at; beyond that the highest of all decides.
const LOOKS_MAX: usize = 1000;

/// Why events are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A rule of retention.
    Retention,
    /// The topic was erased.
    Erased,
}

/// What is gone of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trim {
    /// The highest offset that retention or erasure removed; 0 where it was compaction or expiry alone.
    pub(crate) upto: u64,
    /// The highest offset removed at all; 0 after an erasure: the topic begins anew.
    pub(crate) ever: u64,
    pub(crate) why: Why,
}

/// All topics of which something is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trims {
    topics: BTreeMap<Topic, Trim>,
    highest: u64,
    /// What the owner's clock for ages said when this was written, in milliseconds since the epoch.
    pub(crate) clock_ms: u64,
}

impl Trims {
    pub(crate) fn put(&mut self, topic: &Topic, trim: Trim) {
        self.highest = self.highest.max(trim.upto);
        self.topics.insert(topic.clone(), trim);
    }

    pub(crate) fn get(&self, topic: &str) -> Option<Trim> {
        self.topics.get(topic).copied()
    }

    /// The topic's last offset of those that are gone; `None` also after an erasure.
    pub(crate) fn ever(&self, topic: &str) -> Option<Offset> {
        Offset::new(self.get(topic)?.ever)
    }

    /// The highest offset of the topic that a limit or an erasure took out: whatever is left at or below it is only not
    /// taken out yet.
    pub(crate) fn upto(&self, topic: &str) -> Cursor {
        Cursor::new(self.get(topic).map_or(0, |trim| trim.upto))
    }

    /// Why something behind `after` that matches is gone, if it is, and the highest offset of what is gone.
    pub(crate) fn behind(&self, filters: &Filters, after: Cursor) -> Option<(Why, Cursor)> {
        if self.highest <= after.get() {
            return None;
        }
        let gone = filters.iter().filter_map(|filter| self.behind_one(filter, after.get()));
        gone.max_by_key(|(_, upto)| *upto)
    }

    fn behind_one(&self, filter: &Filter, after: u64) -> Option<(Why, Cursor)> {
        let gone = |trim: &Trim| (trim.upto > after).then_some((trim.why, Cursor::new(trim.upto)));
        let mut highest: Option<(Why, Cursor)> = None;
        if let Some(topic) = filter.literal() {
            return self.topics.get(topic.as_str()).and_then(gone);
        }
        let prefix = filter.literal_prefix();
        let names = self.topics.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let under = names.take_while(|(topic, _)| topic.as_str().starts_with(prefix));
        for (looks, (topic, trim)) in under.enumerate() {
            if looks >= LOOKS_MAX {
                return Some((Why::Retention, Cursor::new(self.highest)));
            }
            if let Some(found) = gone(trim).filter(|_| filter.matches(topic.as_str()))
                && highest.is_none_or(|(_, upto)| upto < found.1)
            {
                highest = Some(found);
            }
        }
        highest
    }

    /// Replaces the file; durable when this returns.
    pub(crate) fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.clock_ms.to_le_bytes());
        let count = u32::try_from(self.topics.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&count.to_le_bytes());
        for (topic, trim) in &self.topics {
            let name = topic.as_str().as_bytes();
            bytes.extend_from_slice(&trim.upto.to_le_bytes());
            bytes.extend_from_slice(&trim.ever.to_le_bytes());
            bytes.push(u8::from(trim.why == Why::Erased));
            bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(name);
        }
        let crc = crc(&[&bytes]);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let file = disk.create("trimmed.new")?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        disk.rename("trimmed.new", TRIMMED)?;
        disk.sync_dir("")
    }

    /// Reads the file; none says that nothing is gone.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Trims, Error> {
        let file = match disk.open(TRIMMED) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Trims::default()),
            Err(cause) => return Err(Error::io("open", TRIMMED, cause)),
        };
        let failed = |cause| Error::io("read", TRIMMED, cause);
        file.sync_all().map_err(failed)?;
        let mut bytes = vec![0; usize::try_from(file.size().map_err(failed)?).unwrap_or(0)];
        read_exact(&*file, &mut bytes, 0).map_err(failed)?;
        parse(&bytes).ok_or_else(|| Error::Corrupt {
            path: TRIMMED.to_owned(),
            position: 0,
            offset: 0,
            problem: "its checksum does not hold",
        })
    }
}

fn parse(bytes: &[u8]) -> Option<Trims> {
    let used = bytes.get(..bytes.len().checked_sub(4)?)?;
    if !used.starts_with(MAGIC) || u32_at(bytes, used.len())? != crc(&[used]) {
        return None;
    }
    let mut trims = Trims { clock_ms: u64_at(used, 8)?, ..Trims::default() };
    let mut at = 20;
    for _ in 0..u32_at(used, 16)? {
        let entry = used.get(at..)?;
        let why = match entry.get(16)? {
            0 => Why::Retention,
            1 => Why::Erased,
            _ => return None,
        };
        let end = ENTRY_BYTES + usize::from(*entry.get(17)?);
        let name = std::str::from_utf8(entry.get(ENTRY_BYTES..end)?).ok()?;
        let trim = Trim { upto: u64_at(entry, 0)?, ever: u64_at(entry, 8)?, why };
        trims.put(&Topic::parse(name).ok()?, trim);
        at += end;
    }
    (at == used.len()).then_some(trims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SimDisk;

    fn trims(of: &[(&str, u64, Why)]) -> Trims {
        let mut trims = Trims { clock_ms: 77, ..Trims::default() };
        for (topic, upto, why) in of {
            let trim = Trim { upto: *upto, ever: *upto + 1, why: *why };
            trims.put(&Topic::parse(topic).unwrap(), trim);
        }
        trims
    }

    #[test]
    fn what_was_written_is_read_and_a_wrong_byte_is_found() {
        let disk = SimDisk::new(1);
        let written = trims(&[("a.b", 5, Why::Retention), ("$acks", 9, Why::Erased)]);
        written.write(&disk).unwrap();
        assert_eq!(Trims::read(&disk).unwrap(), written);
        let files = disk.files();
        for at in 0..files[TRIMMED].len() {
            let mut flipped = files.clone();
            flipped.get_mut(TRIMMED).unwrap()[at] ^= 4;
            assert!(Trims::read(&SimDisk::with_files(1, &flipped)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn only_what_matches_and_lies_behind_is_gone() {
        let trims = trims(&[
            ("a.x", 50, Why::Retention),
            ("a.y", 70, Why::Erased),
            ("b", 90, Why::Retention),
        ]);
        let gone = |filter: &str, after| {
            trims.behind(&Filters::one(Filter::parse(filter).unwrap()), Cursor::new(after))
        };
        let upto = |why, at| Some((why, Cursor::new(at)));
        assert_eq!(gone("a.x", 49), upto(Why::Retention, 50));
        assert_eq!(gone("a.x", 50), None);
        assert_eq!(gone("a.*", 49), upto(Why::Erased, 70));
        assert_eq!(gone("a.*", 50), upto(Why::Erased, 70));
        assert_eq!(gone("a.*", 70), None);
        assert_eq!(gone("a.z", 1), None);
        assert_eq!(gone("c.>", 1), None);
        assert_eq!(gone(">", 89), upto(Why::Retention, 90));
    }

    #[test]
    fn of_very_many_topics_the_highest_decides() {
        let mut trims = trims(&[("z", 9000, Why::Retention)]);
        for n in 0..2000 {
            let topic = Topic::parse(&format!("a.{n}")).unwrap();
            trims.put(&topic, Trim { upto: 5, ever: 5, why: Why::Retention });
        }
        let filters = Filters::one(Filter::parse("a.*").unwrap());
        let gone = trims.behind(&filters, Cursor::new(6));
        assert_eq!(gone, Some((Why::Retention, Cursor::new(9000))));
        assert_eq!(trims.behind(&filters, Cursor::new(9000)), None);
    }
}
