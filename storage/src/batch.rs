//! Batches: what one commit writes, whole or not at all.
//!
//! ```text
//!  0 magic u32 · 4 len u32 (bytes, header included, a multiple of 8)
//!  8 first u64 (offset of the first record) · 16 count u32 · 20 flags u16 (1: sparse) · 22 version u16
//! 24 time u64 · 32 durable u64 (everything up to here was synced when this was written)
//! 40 previous u32 (header checksum of the batch before) · 44 body u32 (checksum) · 48 header u32 (checksum)
//! 52 reserved
//! ```
//! Both checksums are seeded with the segment's id. A sparse batch is one of a rewritten segment: its records have
//! the offsets that they say themselves, rising.

use crate::record::{crc, u32_at, u64_at};

/// "BATC": larger than any record's length, so that a batch never reads as a record.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"BATC");
/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 64;
/// The most records of one batch.
pub const BATCH_RECORDS_MAX: usize = 65_536;
const VERSION: u16 = 1;
const SPARSE: u16 = 1;

/// A batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) len: u32,
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) sparse: bool,
    pub(crate) time_ms: u64,
    pub(crate) durable: u64,
    pub(crate) previous: u32,
    pub(crate) body_crc: u32,
    pub(crate) header_crc: u32,
}

impl Header {
    /// The header that begins these bytes, if its checksum holds.
    pub(crate) fn decode(bytes: &[u8], segment: &[u8; 16]) -> Option<Header> {
        let head = bytes.get(..48)?;
        let header = Header {
            len: u32_at(bytes, 4)?,
            first: u64_at(bytes, 8)?,
            count: u32_at(bytes, 16)?,
            sparse: u16::from_le_bytes(*bytes.get(20..)?.first_chunk()?) & SPARSE != 0,
            time_ms: u64_at(bytes, 24)?,
            durable: u64_at(bytes, 32)?,
            previous: u32_at(bytes, 40)?,
            body_crc: u32_at(bytes, 44)?,
            header_crc: u32_at(bytes, 48)?,
        };
        let version = u16::from_le_bytes(*bytes.get(22..)?.first_chunk()?);
        let holds = u32_at(bytes, 0)? == MAGIC
            && version == VERSION
            && header.header_crc == crc(&[segment, head])
            && bytes.get(52..HEADER_BYTES)?.iter().all(|byte| *byte == 0)
            && header.len.is_multiple_of(8)
            && header.count > 0;
        holds.then_some(header)
    }

    /// Whether a sound batch begins here that another version of this program wrote.
    pub(crate) fn is_of_other_version(bytes: &[u8], segment: &[u8; 16]) -> bool {
        let version = bytes.get(22..).and_then(|rest| rest.first_chunk()).copied();
        let holds = bytes.get(..48).is_some_and(|head| {
            u32_at(bytes, 0) == Some(MAGIC) && u32_at(bytes, 48) == Some(crc(&[segment, head]))
        });
        holds && version.map(u16::from_le_bytes) != Some(VERSION)
    }

    /// The last offset it holds.
    pub(crate) fn last(&self) -> u64 {
        self.first + u64::from(self.count) - 1
    }
}

/// What a header says besides what follows from the batch itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) sparse: bool,
    pub(crate) time_ms: u64,
    pub(crate) durable: u64,
    pub(crate) previous: u32,
}

/// Fills in the header of a batch whose records stand behind it in `out`; gives its checksum.
pub(crate) fn seal(out: &mut [u8], segment: &[u8; 16], of: &Head) -> u32 {
    let len = u32::try_from(out.len()).unwrap_or(u32::MAX);
    let Some((head, body)) = out.split_first_chunk_mut::<HEADER_BYTES>() else { return 0 };
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        if let Some(slot) = head.get_mut(at..at + bytes.len()) {
            slot.copy_from_slice(bytes);
        }
        at += bytes.len();
    };
    put(&MAGIC.to_le_bytes());
    put(&len.to_le_bytes());
    put(&of.first.to_le_bytes());
    put(&of.count.to_le_bytes());
    put(&(if of.sparse { SPARSE } else { 0 }).to_le_bytes());
    put(&VERSION.to_le_bytes());
    put(&of.time_ms.to_le_bytes());
    put(&of.durable.to_le_bytes());
    put(&of.previous.to_le_bytes());
    put(&crc(&[segment, body]).to_le_bytes());
    let header_crc = crc(&[segment, head.get(..48).unwrap_or_default()]);
    if let Some(slot) = head.get_mut(48..52) {
        slot.copy_from_slice(&header_crc.to_le_bytes());
    }
    header_crc
}
