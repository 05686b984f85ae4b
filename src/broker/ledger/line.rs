//! One durable as its bytes: what tells it from the one before it by name.
//!
//! ```text
//! line  = name, number, start, made_at, flags, [paused_at], [state_until], [since], [owner], [options], filter, [others]
//! name, filter:            text that goes on from the line before: shared bytes, length, bytes
//! since:                   distance from the start
//! number, start, made_at:  distance from the line before, zigzag
//! owner, options:          length, bytes; left out where they are those of the line before
//! others:                  length, then of each further filter length and bytes
//! ```
//! All numbers are varints. Options are Protobuf, those that are as by default left out, see [`options`](super::options).

use prost::encoding::{decode_varint, encode_varint};
use tidings_proto::{
    Cursor, Filter, Filters,
    control::DurableSpec,
    topic::{TopicError, filter_matches},
};

use super::options;

const PAUSED: u64 = 1;
const STATE_UNTIL: u64 = 2;
const OWNER: u64 = 4;
const OPTIONS: u64 = 8;
const OTHERS: u64 = 16;
const SINCE: u64 = 32;

/// How a durable was made, ready to be written. The default is what the first line of a block goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::broker) struct Line {
    name: String,
    number: u64,
    start: u64,
    made_at: u64,
    paused_at: u64,
    state_until: Option<u64>,
    since: Option<u64>,
    owner: String,
    options: Vec<u8>,
    filter: String,
    others: Vec<u8>,
}

impl Line {
    /// What is written of a durable that was made by the event at `made_at`, and paused by that at `paused_at`; 0:
    /// it is not.
    pub(super) fn of(spec: &DurableSpec, made_at: u64, paused_at: u64) -> Line {
        let mut filters = spec.options.filters.iter();
        let filter = filters.next().map_or_else(String::new, |first| first.as_str().to_owned());
        let mut others = Vec::new();
        filters.for_each(|other| put_bytes(other.as_str().as_bytes(), &mut others));
        Line {
            name: spec.name.clone(),
            number: spec.number,
            start: spec.start.get(),
            made_at,
            paused_at,
            state_until: spec.state_until.map(Cursor::get),
            since: if spec.wants_changed { Some(made_at) } else { spec.since.map(Cursor::get) },
            owner: spec.owner.clone(),
            options: options::to_bytes(&spec.options),
            filter,
            others,
        }
    }

    /// Its name.
    pub(in crate::broker) fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Where it began.
    pub(in crate::broker) fn start(&self) -> Cursor {
        Cursor::new(self.start)
    }

    /// Receipts count from behind here on.
    pub(in crate::broker) fn since(&self) -> Cursor {
        self.since.map_or(self.start(), Cursor::new)
    }

    /// Where the newest event stands that says how it was made.
    pub(in crate::broker) fn made_at(&self) -> u64 {
        self.made_at
    }

    /// Where the newest event stands that says that it is paused; 0 where it is not.
    pub(in crate::broker) fn paused_at(&self) -> u64 {
        self.paused_at
    }

    pub(super) fn set_paused_at(&mut self, at: u64) {
        self.paused_at = at;
    }

    /// Who made it.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// Whether it is forgotten when nobody uses it.
    pub(super) fn expires(&self) -> bool {
        !self.options.is_empty() && options::expires(&self.options)
    }

    /// Its filters.
    pub(super) fn filters(&self) -> impl Iterator<Item = &str> {
        let mut others = &*self.others;
        let others = std::iter::from_fn(move || take_text(&mut others));
        std::iter::once(&*self.filter).chain(others)
    }

    /// Whether one of its filters matches.
    pub(in crate::broker) fn matches(&self, topic: &str) -> bool {
        self.filters().any(|filter| filter_matches(filter, topic))
    }

    /// How it was made.
    ///
    /// # Errors
    /// Never for what [`Line::of`] made.
    pub(super) fn spec(&self) -> Result<DurableSpec, Unreadable> {
        let filters: Result<Vec<Filter>, TopicError> = self.filters().map(Filter::parse).collect();
        let filters = Filters::new(filters?)?;
        Ok(DurableSpec {
            name: self.name.clone(),
            number: self.number,
            options: options::from_bytes(&self.options, filters)?,
            start: self.start(),
            owner: self.owner.clone(),
            state_until: self.state_until.map(Cursor::new),
            since: self.since.map(Cursor::new),
            wants_changed: false,
        })
    }

    /// Writes it behind `before`.
    pub(super) fn write(&self, before: &Line, out: &mut Vec<u8>) {
        go_on(&before.name, &self.name, out);
        for (now, then) in [
            (self.number, before.number),
            (self.start, before.start),
            (self.made_at, before.made_at),
        ] {
            encode_varint(zigzag(now.wrapping_sub(then)), out);
        }
        let has = [
            (PAUSED, self.paused_at > 0),
            (STATE_UNTIL, self.state_until.is_some()),
            (OWNER, self.owner != before.owner),
            (OPTIONS, self.options != before.options),
            (OTHERS, !self.others.is_empty()),
            (SINCE, self.since.is_some()),
        ];
        let flags = has.iter().filter(|(_, has)| *has).fold(0, |flags, (flag, _)| flags | flag);
        encode_varint(flags, out);
        if flags & PAUSED > 0 {
            encode_varint(self.paused_at, out);
        }
        if let Some(until) = self.state_until {
            encode_varint(until, out);
        }
        if let Some(since) = self.since {
            encode_varint(zigzag(since.wrapping_sub(self.start)), out);
        }
        if flags & OWNER > 0 {
            put_bytes(self.owner.as_bytes(), out);
        }
        if flags & OPTIONS > 0 {
            put_bytes(&self.options, out);
        }
        go_on(&before.filter, &self.filter, out);
        if flags & OTHERS > 0 {
            put_bytes(&self.others, out);
        }
    }

    /// Becomes the line that `rest` begins with, which was written behind this one. `None` where there is none.
    pub(super) fn read(&mut self, rest: &mut &[u8]) -> Option<()> {
        take_on(&mut self.name, rest)?;
        for field in [&mut self.number, &mut self.start, &mut self.made_at] {
            *field = field.wrapping_add(unzigzag(take(rest)?));
        }
        let flags = take(rest)?;
        self.paused_at = if flags & PAUSED > 0 { take(rest)? } else { 0 };
        self.state_until = if flags & STATE_UNTIL > 0 { Some(take(rest)?) } else { None };
        let start = self.start;
        let since = |distance| start.wrapping_add(unzigzag(distance));
        self.since = if flags & SINCE > 0 { Some(since(take(rest)?)) } else { None };
        if flags & OWNER > 0 {
            self.owner.clear();
            self.owner.push_str(take_text(rest)?);
        }
        if flags & OPTIONS > 0 {
            self.options.clear();
            self.options.extend_from_slice(take_bytes(rest)?);
        }
        take_on(&mut self.filter, rest)?;
        self.others.clear();
        if flags & OTHERS > 0 {
            self.others.extend_from_slice(take_bytes(rest)?);
        }
        Some(())
    }
}

/// Bytes that are no line.
#[derive(Debug, thiserror::Error)]
pub(in crate::broker) enum Unreadable {
    /// One of its filters is none.
    #[error("a filter of it is {0}")]
    Filter(#[from] TopicError),
    /// Its options are none.
    #[error("its options cannot be read: {0}")]
    Options(#[from] options::Unreadable),
    /// They end too early, or do not go on from what is before them.
    #[error("it is cut off or out of order")]
    Form,
}

/// Small for small distances in both directions.
pub(super) fn zigzag(distance: u64) -> u64 {
    let signed = distance.cast_signed();
    ((signed << 1) ^ (signed >> 63)).cast_unsigned()
}

pub(super) fn unzigzag(coded: u64) -> u64 {
    (coded >> 1) ^ (coded & 1).wrapping_neg()
}

/// Takes a number.
pub(super) fn take(rest: &mut &[u8]) -> Option<u64> {
    decode_varint(rest).ok()
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take(rest)?).ok()?;
    let (bytes, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some(bytes)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(rest)?).ok()
}

/// Writes a text as what it shares with the one before, and the rest.
fn go_on(before: &str, text: &str, out: &mut Vec<u8>) {
    let mut shared = before.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
    while !text.is_char_boundary(shared) {
        shared -= 1;
    }
    encode_varint(shared as u64, out);
    put_bytes(text.as_bytes().get(shared..).unwrap_or_default(), out);
}

fn take_on(text: &mut String, rest: &mut &[u8]) -> Option<()> {
    let shared = usize::try_from(take(rest)?).ok()?;
    if !text.is_char_boundary(shared) {
        return None;
    }
    text.truncate(shared);
    text.push_str(take_text(rest)?);
    Some(())
}
