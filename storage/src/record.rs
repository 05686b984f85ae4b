//! Records: an event as it stands in a segment.
//!
//! ```text
//!  0 len u32      bytes of the record, before padding to 8
//!  4 crc u32      CRC-32C over segment id, offset and bytes 8..len
//!  8 rel u32      offset − the segment's base
//! 12 time u48     milliseconds since the epoch
//! 18 flags u16    priority 2 · receipts 1 · control 1 · has dedupe 1
//! 20 topic_len u8 · 21 key_len u8 · 22 reserved u16
//! 24 [dedupe u64] topic · key · body
//! ```
//! The checksum is seeded with where the record belongs: a copy of it elsewhere is damage.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use tidings_proto::{Offset, Topic};

use crate::active::Entry;

/// Bytes before the variable part.
pub(crate) const HEADER_BYTES: usize = 24;
/// The most bytes a record may have.
pub(crate) const RECORD_BYTES_MAX: usize = 128 << 20;
const HAS_DEDUPE: u16 = 1 << 4;
const KNOWN_FLAGS: u16 = 0b1_1111;

/// Marks of a record. The lowest four bits also stand in the offset table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// None.
    pub const EMPTY: Flags = Flags(0);

    /// With this priority, 0 to 3.
    #[must_use]
    pub const fn with_priority(self, priority: u8) -> Flags {
        Flags((self.0 & !3) | (priority & 3) as u16)
    }

    /// The priority, 0 to 3.
    pub const fn priority(self) -> u8 {
        (self.0 & 3) as u8
    }

    /// With or without the wish for receipts.
    #[must_use]
    pub const fn with_receipts(self, on: bool) -> Flags {
        if on { Flags(self.0 | 4) } else { Flags(self.0 & !4) }
    }

    /// Whether receipts are wished for.
    pub const fn receipts(self) -> bool {
        self.0 & 4 != 0
    }

    /// As one of the broker's own events, or not.
    #[must_use]
    pub const fn with_control(self, on: bool) -> Flags {
        if on { Flags(self.0 | 8) } else { Flags(self.0 & !8) }
    }

    /// Whether it is one of the broker's own events.
    pub const fn control(self) -> bool {
        self.0 & 8 != 0
    }

    pub(crate) const fn table_bits(self) -> u32 {
        (self.0 & 15) as u32
    }
}

/// What is appended.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Its topic.
    pub topic: &'a Topic,
    /// Its key, 255 bytes at most; empty for none.
    pub key: &'a [u8],
    /// The hash under which [`crate::Log::find_dedupe`] finds it.
    pub dedupe: Option<u64>,
    /// Its marks.
    pub flags: Flags,
    /// The rest; the log does not look into it.
    pub body: &'a [u8],
}

/// What stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub offset: Offset,
    /// When it was appended, in milliseconds since the epoch.
    pub time_ms: u64,
    /// Its marks.
    pub flags: Flags,
    /// Its topic.
    pub topic: Topic,
    /// Its key; empty for none.
    pub key: Bytes,
    /// The hash under which it is found.
    pub dedupe: Option<u64>,
    /// The rest.
    pub body: Bytes,
}

impl NewRecord<'_> {
    /// What the index takes of it.
    pub(crate) fn entry(&self) -> Entry<'_> {
        let topic = self.topic.as_str();
        Entry { topic, key: self.key, flags: self.flags, dedupe: self.dedupe }
    }

    /// Bytes in the segment, padding included.
    pub(crate) fn stored_bytes(&self) -> usize {
        padded(self.bytes())
    }

    fn bytes(&self) -> usize {
        let dedupe = if self.dedupe.is_some() { 8 } else { 0 };
        HEADER_BYTES + dedupe + self.topic.as_str().len() + self.key.len() + self.body.len()
    }

    /// Why it cannot be stored, if it cannot.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.key.len() > 255 {
            return Some("has a key of more than 255 bytes");
        }
        (self.bytes() > RECORD_BYTES_MAX).then_some("has a record of more than 128 MiB")
    }

    /// Appends it to a batch.
    pub(crate) fn encode(&self, place: &Place<'_>, time_ms: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let flags = self.flags.0 & 15 | if self.dedupe.is_some() { HAS_DEDUPE } else { 0 };
        out.extend_from_slice(&u32_of(self.bytes()).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&place.rel().to_le_bytes());
        out.extend_from_slice(time_ms.to_le_bytes().first_chunk::<6>().unwrap_or(&[0; 6]));
        out.extend_from_slice(&flags.to_le_bytes());
        out.push(u8_of(self.topic.as_str().len()));
        out.push(u8_of(self.key.len()));
        out.extend_from_slice(&[0; 2]);
        if let Some(dedupe) = self.dedupe {
            out.extend_from_slice(&dedupe.to_le_bytes());
        }
        out.extend_from_slice(self.topic.as_str().as_bytes());
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.body);
        let crc = place.crc(out.get(start + 8..).unwrap_or_default());
        if let Some(slot) = out.get_mut(start + 4..start + 8) {
            slot.copy_from_slice(&crc.to_le_bytes());
        }
        out.resize(start + self.stored_bytes(), 0);
    }
}

/// Where a record belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) segment: &'a [u8; 16],
    pub(crate) base: u64,
    pub(crate) offset: u64,
}

impl Place<'_> {
    fn rel(&self) -> u32 {
        u32::try_from(self.offset.saturating_sub(self.base)).unwrap_or(u32::MAX)
    }

    fn crc(&self, rest: &[u8]) -> u32 {
        crc(&[self.segment, &self.offset.to_le_bytes(), rest])
    }
}

/// The length of the record that begins here, if these bytes can be a record's beginning.
pub(crate) fn len_of(bytes: &[u8]) -> Option<usize> {
    let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
    (HEADER_BYTES..=RECORD_BYTES_MAX).contains(&len).then_some(len)
}

/// A record as its bytes stand in a segment; the checksum has held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) offset: Offset,
    pub(crate) topic: &'a str,
    pub(crate) time_ms: u64,
    pub(crate) flags: Flags,
    pub(crate) key: &'a [u8],
    pub(crate) dedupe: Option<u64>,
    pub(crate) body: &'a [u8],
}

impl Found<'_> {
    /// What the index takes of it.
    pub(crate) fn entry(&self) -> Entry<'_> {
        Entry { topic: self.topic, key: self.key, flags: self.flags, dedupe: self.dedupe }
    }

    /// About how long it is.
    pub(crate) fn bytes(&self) -> usize {
        HEADER_BYTES + self.topic.len() + self.key.len() + self.body.len()
    }

    /// A copy that stays.
    pub(crate) fn record(&self) -> Record {
        Record {
            offset: self.offset,
            time_ms: self.time_ms,
            flags: self.flags,
            topic: Topic::of_record(self.topic),
            key: Bytes::copy_from_slice(self.key),
            dedupe: self.dedupe,
            body: Bytes::copy_from_slice(self.body),
        }
    }
}

/// Reads the record that begins these bytes. `offset` is where it must belong, or `None` to take its own word.
pub(crate) fn decode<'a>(
    bytes: &'a [u8],
    segment: &[u8; 16],
    base: u64,
    offset: Option<u64>,
) -> Result<Found<'a>, &'static str> {
    let len = len_of(bytes).ok_or("no record begins here")?;
    let bytes = bytes.get(..len).ok_or("a record ends behind its batch")?;
    let rel = u32_at(bytes, 8).ok_or("a record is too short")?;
    let own = base + u64::from(rel);
    if offset.is_some_and(|offset| offset != own) {
        return Err("another record stands here");
    }
    let place = Place { segment, base, offset: own };
    let rest = bytes.get(8..).unwrap_or_default();
    if u32_at(bytes, 4) != Some(place.crc(rest)) {
        return Err("a record's checksum does not hold");
    }
    parse(bytes, own).ok_or("a record's checksum holds but its form does not")
}

fn parse(bytes: &[u8], offset: u64) -> Option<Found<'_>> {
    let mut time = [0; 8];
    time.get_mut(..6)?.copy_from_slice(bytes.get(12..18)?);
    let flags = u16::from_le_bytes(*bytes.get(18..20)?.first_chunk()?);
    if flags & !KNOWN_FLAGS != 0 {
        return None;
    }
    let (topic_len, key_len) = (usize::from(*bytes.get(20)?), usize::from(*bytes.get(21)?));
    let mut rest = bytes.get(HEADER_BYTES..)?;
    let mut dedupe = None;
    if flags & HAS_DEDUPE != 0 {
        let (hash, behind) = rest.split_first_chunk::<8>()?;
        (dedupe, rest) = (Some(u64::from_le_bytes(*hash)), behind);
    }
    let (topic, rest) = rest.split_at_checked(topic_len)?;
    let (key, body) = rest.split_at_checked(key_len)?;
    Some(Found {
        offset: Offset::new(offset)?,
        time_ms: u64::from_le_bytes(time),
        flags: Flags(flags & 15),
        topic: std::str::from_utf8(topic).ok()?,
        key,
        dedupe,
        body,
    })
}

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4) over the parts as one.
pub(crate) fn crc(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    u32::try_from(digest.finalize() & 0xffff_ffff).unwrap_or(0)
}

pub(crate) const fn padded(bytes: usize) -> usize {
    bytes.div_ceil(8) * 8
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_of(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn u8_of(n: usize) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}
