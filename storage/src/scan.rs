//! Reading a segment batch by batch, and what stands behind its end.

use crate::{
    Error,
    active::Active,
    batch::{self, BATCH_RECORDS_MAX, Header},
    disk::read_exact,
    record::{self, crc, padded},
    segment::{PAGE_BYTES, Segment},
};

/// The widest hole there can be in a segment as it was written: what one torn batch could have held, and room for
/// starts that were cut off themselves, each of which adds its own record.
const JUMP_MAX: u64 = 4 * BATCH_RECORDS_MAX as u64;

/// Where a scan ended.
pub(crate) struct End {
    pub(crate) position: u64,
    pub(crate) next: u64,
    pub(crate) previous_crc: u32,
    /// When the last batch was appended; 0 when there is none.
    pub(crate) time_ms: u64,
    /// Why it did not go on.
    pub(crate) problem: Option<&'static str>,
}

/// Reads a segment batch by batch into an index, until the file ends or a batch does not hold.
pub(crate) fn scan(segment: &Segment, active: &mut Active) -> Result<End, Error> {
    let len = segment.file.size().map_err(|cause| segment.io("measure", cause))?;
    let mut end = End {
        position: PAGE_BYTES as u64,
        next: segment.base,
        previous_crc: 0,
        time_ms: 0,
        problem: None,
    };
    let mut bytes = Vec::new();
    while end.position < len {
        let mut head = [0; batch::HEADER_BYTES];
        let readable = read_exact(&*segment.file, &mut head, end.position);
        let header = readable.ok().and_then(|()| Header::decode(&head, &segment.id));
        if header.is_none() && Header::is_of_other_version(&head, &segment.id) {
            let problem = "another version of tidings wrote it";
            return Err(segment.corrupt(end.position, end.next, problem));
        }
        let problem = match &header {
            None => Some("no batch begins here"),
            Some(header) => problem_of(segment, header, &end, len),
        };
        let (Some(header), None) = (header, problem) else {
            end.problem = problem.or(Some("no batch begins here"));
            return Ok(end);
        };
        let body_len = usize::try_from(header.len).unwrap_or(0).saturating_sub(batch::HEADER_BYTES);
        bytes.resize(body_len, 0);
        let at = end.position + batch::HEADER_BYTES as u64;
        read_exact(&*segment.file, &mut bytes, at).map_err(|cause| segment.io("read", cause))?;
        if crc(&[&segment.id, &bytes]) != header.body_crc {
            end.problem = Some("a batch's checksum does not hold");
            return Ok(end);
        }
        // Its checksum holds, so it is whole: what is wrong with it was written so.
        end.next = add_batch(segment, active, &header, &bytes, at)
            .map_err(|problem| segment.corrupt(end.position, end.next, problem))?;
        end.position += u64::from(header.len);
        end.previous_crc = header.header_crc;
        end.time_ms = header.time_ms;
    }
    Ok(end)
}

fn problem_of(segment: &Segment, header: &Header, end: &End, len: u64) -> Option<&'static str> {
    let jump = header.first.checked_sub(end.next);
    // What a rewrite left out may be any stretch of the segment.
    let jump_max = if segment.generation > 0 { u64::from(u32::MAX) } else { JUMP_MAX };
    if header.previous != end.previous_crc {
        Some("a batch does not follow the one before it")
    } else if jump.is_none_or(|jump| jump > jump_max) {
        Some("a batch has offsets that cannot stand here")
    } else if (header.len as usize) < batch::HEADER_BYTES
        || u64::from(header.len) > len - end.position
    {
        Some("a batch is longer than its file")
    } else {
        None
    }
}

/// Takes a batch's records into the index; gives the offset behind the last of them.
fn add_batch(
    segment: &Segment,
    active: &mut Active,
    header: &Header,
    body: &[u8],
    at: u64,
) -> Result<u64, &'static str> {
    let is_sparse = header.sparse && segment.generation > 0;
    let (mut from, mut next) = (0, header.first);
    for n in 0..header.count {
        let bytes = body.get(from..).unwrap_or_default();
        let expected = (!is_sparse || n == 0).then_some(next);
        let found = record::decode(bytes, &segment.id, segment.base, expected)?;
        let offset = found.offset.get();
        if offset < next {
            return Err("a batch has offsets that do not rise");
        }
        active.push(segment.rel(offset), at + from as u64, found.time_ms, found.entry());
        from += padded(record::len_of(bytes).unwrap_or(0));
        next = offset + 1;
    }
    if from == body.len() { Ok(next) } else { Err("a batch has bytes behind its records") }
}

/// Whether only zeros stand behind `position`.
pub(crate) fn is_zero_behind(segment: &Segment, position: u64) -> Result<bool, Error> {
    let mut zero = true;
    visit_behind(segment, position, &mut |_, bytes| {
        zero = bytes.iter().all(|byte| *byte == 0);
        zero
    })?;
    Ok(zero)
}

/// What stands behind the end of the log.
pub(crate) struct Torn {
    /// A batch behind says that something from the end on was durable.
    pub(crate) was_durable: bool,
    /// The last offset that any batch found there could have held, when the first of them tells.
    pub(crate) last: Option<u64>,
    pub(crate) bytes: u64,
}

pub(crate) fn look_behind(segment: &Segment, end: &End) -> Result<Torn, Error> {
    let mut torn = Torn { was_durable: false, last: None, bytes: 0 };
    let mut known_from_start = false;
    visit_behind(segment, end.position, &mut |at, bytes| {
        for (n, window) in bytes.windows(batch::HEADER_BYTES).enumerate().step_by(8) {
            let Some(header) = Header::decode(window, &segment.id) else { continue };
            if header.first < end.next {
                continue;
            }
            torn.was_durable |= header.durable >= end.next;
            known_from_start |= at + n as u64 == end.position;
            torn.last = torn.last.max(Some(header.last()));
        }
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            torn.bytes = at + last as u64 + 1 - end.position;
        }
        true
    })?;
    // Without the first header nothing says how much it held.
    if !known_from_start {
        torn.last = torn.last.max(Some(end.next + BATCH_RECORDS_MAX as u64 - 1));
    }
    Ok(torn)
}

/// Calls `visit` with what stands behind `position`, in pieces that overlap by one header, until it says stop.
fn visit_behind(
    segment: &Segment,
    position: u64,
    visit: &mut dyn FnMut(u64, &[u8]) -> bool,
) -> Result<(), Error> {
    const PIECE_BYTES: u64 = 1 << 20;
    let len = segment.file.size().map_err(|cause| segment.io("measure", cause))?;
    let mut at = position;
    while at < len {
        let piece = (len - at).min(PIECE_BYTES + batch::HEADER_BYTES as u64);
        let mut bytes = vec![0; usize::try_from(piece).unwrap_or(0)];
        read_exact(&*segment.file, &mut bytes, at).map_err(|cause| segment.io("read", cause))?;
        if !visit(at, &bytes) || piece <= PIECE_BYTES {
            break;
        }
        at += PIECE_BYTES;
    }
    Ok(())
}
