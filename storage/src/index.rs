//! Index files: the index of a sealed segment on disk. Never evidence: rebuilt from the segment when in doubt.
//!
//! ```text
//! header 128: magic "TIDINDEX" · version u32 · counts u32 × 7 (span, records, topics, name bytes, times, ids, keys)
//!             segment id 16 · base u64 · data end u64 · section checksums u32 × 7 · header checksum u32
//! sections:   slots u32 × span · topics {hash u64, posting u32, count u32, name u32, name_len u32} × topics, by hash
//!             names · postings u32 × records · times {rel u32, 0 u32, time u64} · ids {hash u64, rel u32, 0 u32}, by hash
//!             keys {hash u64, rel u32, 0 u32}, by hash: the newest record of each
//! ```
//! At open everything is read and checked once; of it the header and a filter over the id hashes stay in memory.

use std::{hash::Hasher, io, sync::Arc};

use siphasher::sip::SipHasher13;
use xorf::{BinaryFuse16, Filter as _};

use crate::{
    active::{Active, Slot},
    disk::{Disk, File, Patience, read_exact},
    record::{crc, u32_at, u64_at},
};

const MAGIC: &[u8; 8] = b"TIDINDEX";
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 128;
const TOPIC_BYTES: u64 = 24;
const TIME_BYTES: u64 = 16;
const ID_BYTES: u64 = 16;
const KEY_BYTES: u64 = 16;
const SECTIONS: usize = 7;
/// How many entries of the table of slots are read at a time where a hole is passed.
const SLOTS_AT_ONCE: u32 = 16_384;

/// An index file that was checked.
#[derive(Debug)]
pub(crate) struct IndexFile {
    file: Arc<dyn File>,
    counts: Counts,
    pub(crate) data_end: u64,
    /// The last record: behind it there may be holes.
    last: Option<u32>,
    filter: Option<Box<BinaryFuse16>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) span: u32,
    pub(crate) records: u32,
    topics: u32,
    names: u32,
    times: u32,
    ids: u32,
    keys: u32,
}

/// What a topic has in a segment, as read at open.
pub(crate) struct TopicEntry {
    pub(crate) name: String,
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) count: u32,
}

/// A topic's postings in the file.
#[derive(Clone, Copy, Debug)]
struct Postings {
    first: u32,
    count: u32,
}

impl Counts {
    /// Where each section begins, and the end.
    fn sections(&self) -> [u64; SECTIONS + 1] {
        let lens = [
            u64::from(self.span) * 4,
            u64::from(self.topics) * TOPIC_BYTES,
            u64::from(self.names),
            u64::from(self.records) * 4,
            u64::from(self.times) * TIME_BYTES,
            u64::from(self.ids) * ID_BYTES,
            u64::from(self.keys) * KEY_BYTES,
        ];
        let mut at = HEADER_BYTES as u64;
        let mut starts = [at; SECTIONS + 1];
        for (start, len) in starts.iter_mut().skip(1).zip(lens) {
            at += len;
            *start = at;
        }
        starts
    }
}

/// The stored hash of a topic's name: FNV-1a with 64 bits. Only an order; the name decides.
pub(crate) fn topic_hash(name: &str) -> u64 {
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// The stored hash of a key on a topic: SipHash-1-3 with a zero key. A match is only a hint.
pub(crate) fn key_hash(topic: &str, key: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(topic.as_bytes());
    // No topic has this byte.
    hasher.write(&[0xff]);
    hasher.write(key);
    hasher.finish()
}

/// The bytes of the index file of a sealed segment.
pub(crate) fn encode(index: &Active, segment: &[u8; 16], base: u64, data_end: u64) -> Vec<u8> {
    let mut topics: Vec<_> = index
        .topics
        .iter()
        .map(|(topic, chain)| (topic_hash(topic.as_str()), topic, chain))
        .collect();
    topics.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let mut sections: [Vec<u8>; SECTIONS] = Default::default();
    let [slots, directory, names, postings, times, ids, keys] = &mut sections;
    index.slots.iter().for_each(|slot| slots.extend_from_slice(&slot.0.to_le_bytes()));
    let mut posted = 0_u32;
    for (hash, topic, chain) in topics {
        directory.extend_from_slice(&hash.to_le_bytes());
        for n in [posted, chain.count, u32_of(names.len()), u32_of(topic.as_str().len())] {
            directory.extend_from_slice(&n.to_le_bytes());
        }
        names.extend_from_slice(topic.as_str().as_bytes());
        for rel in index.postings(topic.as_str(), 0, u32::MAX) {
            postings.extend_from_slice(&rel.to_le_bytes());
            posted += 1;
        }
    }
    for (rel, time) in &index.times {
        times.extend_from_slice(&u64::from(*rel).to_le_bytes());
        times.extend_from_slice(&time.to_le_bytes());
    }
    let dedupe = index.dedupe_sorted();
    let newest = index.keys_sorted();
    for (section, entries) in [(ids, &dedupe), (keys, &newest)] {
        for (hash, rel) in entries {
            section.extend_from_slice(&hash.to_le_bytes());
            section.extend_from_slice(&u64::from(*rel).to_le_bytes());
        }
    }
    let counts = [
        index.span(),
        posted,
        u32_of(index.topics.len()),
        u32_of(names.len()),
        u32_of(index.times.len()),
        u32_of(dedupe.len()),
        u32_of(newest.len()),
    ];
    let mut out = Vec::with_capacity(HEADER_BYTES + sections.iter().map(Vec::len).sum::<usize>());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    counts.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
    out.extend_from_slice(segment);
    out.extend_from_slice(&base.to_le_bytes());
    out.extend_from_slice(&data_end.to_le_bytes());
    sections
        .iter()
        .for_each(|section| out.extend_from_slice(&crc(&[segment, section]).to_le_bytes()));
    let header_crc = crc(&[&out]);
    out.extend_from_slice(&header_crc.to_le_bytes());
    out.resize(HEADER_BYTES, 0);
    sections.iter().for_each(|section| out.extend_from_slice(section));
    out
}

/// Writes an index file so that it is there whole or not at all.
pub(crate) fn write(disk: &dyn Disk, path: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{path}.new");
    let file = disk.create(&temporary)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir("log")
}

impl IndexFile {
    /// Opens and checks it; `None` when it is not there or not to be trusted.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &str,
        segment: &[u8; 16],
        base: u64,
    ) -> Option<(IndexFile, Vec<TopicEntry>)> {
        let file = disk.open(path).ok()?;
        let len = usize::try_from(file.size().ok()?).ok()?;
        let mut bytes = vec![0; len];
        read_exact(&*file, &mut bytes, 0).ok()?;
        let head = bytes.get(..HEADER_BYTES)?;
        let header_crc = crc(&[head.get(..100)?]);
        let mut numbers = (0..SECTIONS).map(|n| u32_at(head, 12 + 4 * n));
        let mut number = || numbers.next().flatten();
        let counts = Counts {
            span: number()?,
            records: number()?,
            topics: number()?,
            names: number()?,
            times: number()?,
            ids: number()?,
            keys: number()?,
        };
        let holds = head.starts_with(MAGIC)
            && u32_at(head, 8)? == VERSION
            && head.get(40..56)? == segment
            && u64_at(head, 56)? == base
            && u32_at(head, 100)? == header_crc
            && head.get(104..)?.iter().all(|byte| *byte == 0);
        let starts = counts.sections();
        if !holds || u64::try_from(len).ok()? != starts[SECTIONS] {
            return None;
        }
        let section = |n: usize| {
            let (from, to) = (
                usize::try_from(*starts.get(n)?).ok()?,
                usize::try_from(*starts.get(n + 1)?).ok()?,
            );
            bytes.get(from..to)
        };
        for n in 0..SECTIONS {
            if crc(&[segment, section(n)?]) != u32_at(head, 72 + 4 * n)? {
                return None;
            }
        }
        let topics = topic_entries(section(1)?, section(2)?, section(3)?)?;
        let hashes: Vec<u64> = hashes(section(5)?);
        let filter = match hashes.is_empty() {
            true => None,
            false => Some(Box::new(BinaryFuse16::try_from(&hashes).ok()?)),
        };
        let data_end = u64_at(head, 64)?;
        let last = section(0)?
            .chunks_exact(4)
            .rposition(|slot| u32_at(slot, 0).is_some_and(|slot| slot > 0));
        let last = last.and_then(|last| u32::try_from(last).ok());
        Some((IndexFile { file, counts, data_end, last, filter }, topics))
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn slot(&self, rel: u32, patience: Patience) -> io::Result<Slot> {
        if rel >= self.counts.span {
            return Ok(Slot::default());
        }
        let mut bytes = [0; 4];
        let position = self.start(0) + u64::from(rel) * 4;
        match patience {
            Patience::Wait => read_exact(&*self.file, &mut bytes, position)?,
            Patience::Now if self.file.read_cached_at(&mut bytes, position)? == bytes.len() => {}
            Patience::Now => return Err(io::ErrorKind::WouldBlock.into()),
        }
        Ok(Slot(u32::from_le_bytes(bytes)))
    }

    /// The first record in `from..=to`, and where it stands: the table is read in pieces, as holes may be wide.
    pub(crate) fn next_slot(
        &self,
        from: u32,
        to: u32,
        patience: Patience,
    ) -> io::Result<Option<(u32, u64)>> {
        let Some(last) = self.counts.span.checked_sub(1) else { return Ok(None) };
        let to = to.min(last);
        if from > to {
            return Ok(None);
        }
        // Most have no hole there.
        if let Some(position) = self.slot(from, patience)?.position() {
            return Ok(Some((from, position)));
        }
        let mut at = from;
        while at <= to {
            let slots = self.slots(at, (to - at).saturating_add(1).min(SLOTS_AT_ONCE), patience)?;
            if slots.is_empty() {
                break;
            }
            for (slot, rel) in slots.iter().zip(at..) {
                if let Some(position) = slot.position() {
                    return Ok(Some((rel, position)));
                }
            }
            at = at.saturating_add(u32_of(slots.len()));
        }
        Ok(None)
    }

    /// The last record.
    pub(crate) fn last_rel(&self) -> Option<u32> {
        self.last
    }

    /// Up to `count` slots from `from` on; fewer at the end.
    pub(crate) fn slots(&self, from: u32, count: u32, patience: Patience) -> io::Result<Vec<Slot>> {
        let count = count.min(self.counts.span.saturating_sub(from));
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(0) * 4];
        let position = self.start(0) + u64::from(from) * 4;
        match patience {
            Patience::Wait => read_exact(&*self.file, &mut bytes, position)?,
            Patience::Now if self.file.read_cached_at(&mut bytes, position)? == bytes.len() => {}
            Patience::Now => return Err(io::ErrorKind::WouldBlock.into()),
        }
        Ok(bytes.chunks_exact(4).filter_map(|slot| u32_at(slot, 0)).map(Slot).collect())
    }

    /// A topic's first or last record.
    pub(crate) fn edge(&self, topic: &str, first: bool) -> io::Result<Option<u32>> {
        let Some(postings) = self.find_topic(topic)? else { return Ok(None) };
        let Some(last) = postings.count.checked_sub(1) else { return Ok(None) };
        let at = postings.first + if first { 0 } else { last };
        self.posting(at).map(Some)
    }

    /// Every topic in it with how many records it has.
    pub(crate) fn topics(&self) -> io::Result<Vec<TopicEntry>> {
        let starts = self.counts.sections();
        let read = |n: usize| {
            let (from, to) = (self.start(n), starts.get(n + 1).copied().unwrap_or(0));
            let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
            read_exact(&*self.file, &mut bytes, from)?;
            Ok::<_, io::Error>(bytes)
        };
        let entries = topic_entries(&read(1)?, &read(2)?, &read(3)?);
        entries.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The hash and newest record of every key in it, by hash.
    pub(crate) fn keys(&self) -> io::Result<Vec<(u64, u32)>> {
        let mut bytes =
            vec![0; usize::try_from(u64::from(self.counts.keys) * KEY_BYTES).unwrap_or(0)];
        read_exact(&*self.file, &mut bytes, self.start(6))?;
        let keys = bytes.chunks_exact(16);
        Ok(keys.filter_map(|entry| Some((u64_at(entry, 0)?, u32_at(entry, 8)?))).collect())
    }

    /// How many records of the topic lie below `rel`, and how many there are.
    fn rank(&self, postings: Postings, rel: u32) -> io::Result<u32> {
        let (mut low, mut high) = (0, postings.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.posting(postings.first + middle)? < rel {
                low = middle + 1
            } else {
                high = middle
            }
        }
        Ok(low)
    }

    fn posting(&self, index: u32) -> io::Result<u32> {
        let mut bytes = [0; 4];
        read_exact(&*self.file, &mut bytes, self.start(3) + u64::from(index) * 4)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Up to `limit` of a topic's records in `from..=to`, rising.
    pub(crate) fn postings(
        &self,
        topic: &str,
        from: u32,
        to: u32,
        limit: usize,
    ) -> io::Result<Vec<u32>> {
        let Some(postings) = self.find_topic(topic)? else { return Ok(Vec::new()) };
        let low = self.rank(postings, from)?;
        let high = self.rank(postings, to.saturating_add(1))?;
        let count = usize::try_from(high.saturating_sub(low)).unwrap_or(0).min(limit);
        let mut bytes = vec![0; count * 4];
        read_exact(&*self.file, &mut bytes, self.start(3) + u64::from(postings.first + low) * 4)?;
        Ok(bytes.chunks_exact(4).filter_map(|chunk| u32_at(chunk, 0)).collect())
    }

    /// How many records a topic has in `from..=to`.
    pub(crate) fn count(&self, topic: &str, from: u32, to: u32) -> io::Result<u32> {
        let Some(postings) = self.find_topic(topic)? else { return Ok(0) };
        let low = self.rank(postings, from)?;
        Ok(self.rank(postings, to.saturating_add(1))?.saturating_sub(low))
    }

    /// How many records a topic has in the whole segment.
    pub(crate) fn topic_count(&self, topic: &str) -> io::Result<u32> {
        Ok(self.find_topic(topic)?.map_or(0, |postings| postings.count))
    }

    fn find_topic(&self, topic: &str) -> io::Result<Option<Postings>> {
        let hash = topic_hash(topic);
        let entry = |n: u32| {
            let mut bytes = [0; 24];
            read_exact(&*self.file, &mut bytes, self.start(1) + u64::from(n) * TOPIC_BYTES)?;
            Ok::<_, io::Error>(bytes)
        };
        let mut low = first_at_least(hash, self.counts.topics, |n| Ok(u64_at(&entry(n)?, 0)))?;
        while low < self.counts.topics {
            let bytes = entry(low)?;
            if u64_at(&bytes, 0) != Some(hash) {
                break;
            }
            let n = |at| u32_at(&bytes, at).unwrap_or(0);
            let mut name = vec![0; usize::try_from(n(20)).unwrap_or(0).min(256)];
            read_exact(&*self.file, &mut name, self.start(2) + u64::from(n(16)))?;
            if name == topic.as_bytes() {
                return Ok(Some(Postings { first: n(8), count: n(12) }));
            }
            low += 1;
        }
        Ok(None)
    }

    /// The record from which on to look for the first one at or after `time_ms`; `None`
    /// when no noted one is before it.
    pub(crate) fn time_before(&self, time_ms: u64) -> io::Result<Option<u32>> {
        let mut bytes =
            vec![0; usize::try_from(u64::from(self.counts.times) * TIME_BYTES).unwrap_or(0)];
        read_exact(&*self.file, &mut bytes, self.start(4))?;
        let times =
            bytes.chunks_exact(16).filter_map(|chunk| Some((u64_at(chunk, 0)?, u64_at(chunk, 8)?)));
        let before = times.take_while(|(_, time)| *time < time_ms).last();
        Ok(before.and_then(|(rel, _)| u32::try_from(rel).ok()))
    }

    /// Records with this hash, newest first.
    pub(crate) fn find_dedupe(&self, hash: u64) -> io::Result<Vec<u32>> {
        if self.filter.as_ref().is_none_or(|filter| !filter.contains(&hash)) {
            return Ok(Vec::new());
        }
        let entry = |n: u32| {
            let mut bytes = [0; 16];
            read_exact(&*self.file, &mut bytes, self.start(5) + u64::from(n) * ID_BYTES)?;
            Ok::<_, io::Error>(bytes)
        };
        let mut low = first_at_least(hash, self.counts.ids, |n| Ok(u64_at(&entry(n)?, 0)))?;
        let mut found = Vec::new();
        while low < self.counts.ids {
            let bytes = entry(low)?;
            if u64_at(&bytes, 0) != Some(hash) {
                break;
            }
            found.extend(u32_at(&bytes, 8));
            low += 1;
        }
        found.reverse();
        Ok(found)
    }

    /// The newest record with this [`key_hash`].
    pub(crate) fn find_key(&self, hash: u64) -> io::Result<Option<u32>> {
        let entry = |n: u32| {
            let mut bytes = [0; 16];
            read_exact(&*self.file, &mut bytes, self.start(6) + u64::from(n) * KEY_BYTES)?;
            Ok::<_, io::Error>(bytes)
        };
        let n = first_at_least(hash, self.counts.keys, |n| Ok(u64_at(&entry(n)?, 0)))?;
        if n >= self.counts.keys {
            return Ok(None);
        }
        let bytes = entry(n)?;
        Ok(u32_at(&bytes, 8).filter(|_| u64_at(&bytes, 0) == Some(hash)))
    }

    fn start(&self, section: usize) -> u64 {
        self.counts.sections().get(section).copied().unwrap_or(0)
    }
}

/// The first of `count` entries, sorted by hash, whose hash is not below this one.
fn first_at_least(
    hash: u64,
    count: u32,
    hash_of: impl Fn(u32) -> io::Result<Option<u64>>,
) -> io::Result<u32> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if hash_of(middle)?.unwrap_or(0) < hash {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

fn topic_entries(directory: &[u8], names: &[u8], postings: &[u8]) -> Option<Vec<TopicEntry>> {
    let posting = |n: u32| u32_at(postings, usize::try_from(n).ok()?.checked_mul(4)?);
    directory
        .chunks_exact(24)
        .map(|entry| {
            let (first, count) = (u32_at(entry, 8)?, u32_at(entry, 12)?);
            let from = usize::try_from(u32_at(entry, 16)?).ok()?;
            let len = usize::try_from(u32_at(entry, 20)?).ok()?;
            let name = names.get(from..from.checked_add(len)?)?;
            Some(TopicEntry {
                name: std::str::from_utf8(name).ok()?.to_owned(),
                first: posting(first)?,
                last: posting(first.checked_add(count)?.checked_sub(1)?)?,
                count,
            })
        })
        .collect()
}

fn hashes(ids: &[u8]) -> Vec<u64> {
    let mut hashes: Vec<u64> = ids.chunks_exact(16).filter_map(|entry| u64_at(entry, 0)).collect();
    hashes.dedup();
    hashes
}

fn u32_of(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
