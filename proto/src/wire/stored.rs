//! The body of a record: an event without what its record already says.
//!
//! - Offset, time, topic, key and priority are the record's ([`Place`]) and never in the body.
//! - What [`encode`] writes, [`decode`] reads; fields that a later version adds are skipped.
//! - [`decode`] borrows from the bytes, checks every bound and never panics.
//! - Left out and restored on reading: the type `message` and the source made from the subject.
//!
//! ```text
//! flags u8        bit 0: the publisher gave the id · bit 1: the id is the 16 bytes of a UUID
//! id_len u8, id
//! subject_len u8, subject of the publisher (at most 255 bytes)
//! Protobuf fields 6–9 and 11–13 of tidings.v1.Event
//! ```

use std::{borrow::Cow, fmt, ops::Deref};

use bytes::Bytes;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint,
    encoded_len_varint, skip_field,
};
use uuid::{Uuid, fmt::Hyphenated};

use crate::{Event, NewEvent, Offset, Priority, Timestamp, Topic, event::DEFAULT_TYPE};

/// What the source of an event begins with when its publisher named none; the subject follows.
pub const SUBJECT_SOURCE: &str = "urn:tidings:subject:";
/// The most bytes of a subject that a body can hold; [`encode`] cuts a longer one.
pub const SUBJECT_BYTES_MAX: usize = 255;

/// What the body of a record is made from.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The event as it was published, checked.
    pub event: &'a NewEvent,
    /// The id that the broker made because `event.id` is `None`; the nil UUID if there is neither.
    pub made_id: Option<Uuid>,
    /// Who publishes it.
    pub subject: &'a str,
    /// When it stops being delivered, worked out from `event.expires`.
    pub expires: Option<Timestamp>,
}

/// Appends the body of a record to `out`.
pub fn encode(draft: &Draft<'_>, out: &mut Vec<u8>) {
    let event = draft.event;
    match &event.id {
        Some(id) => {
            out.push(ID_GIVEN);
            push_short(id.as_str().as_bytes(), out);
        }
        None => {
            out.push(ID_IS_UUID);
            push_short(draft.made_id.unwrap_or_default().as_bytes(), out);
        }
    }
    let subject = cut(draft.subject);
    push_short(subject.as_bytes(), out);
    if event.kind != DEFAULT_TYPE {
        push_field(TYPE, event.kind.as_bytes(), out);
    }
    if let Some(source) = &event.source
        && source.strip_prefix(SUBJECT_SOURCE) != Some(subject)
    {
        push_field(SOURCE, source.as_bytes(), out);
    }
    if let Some(datacontenttype) = &event.datacontenttype {
        push_field(DATACONTENTTYPE, datacontenttype.as_bytes(), out);
    }
    if let Some(data) = &event.data {
        push_field(DATA, data, out);
    }
    if let Some(expires) = draft.expires {
        encode_key(EXPIRES_MS, WireType::Varint, out);
        encode_varint(expires.as_millis(), out);
    }
    if let Some(correlation) = &event.correlation {
        push_field(CORRELATION, correlation.as_bytes(), out);
    }
    for (name, value) in &event.headers {
        push_header(name, value, out);
    }
}

/// What the body of a record says.
#[derive(Clone, Debug)]
pub struct Body<'a> {
    /// The event's id.
    pub id: IdText<'a>,
    /// Whether the publisher gave the id; else the broker made it.
    pub id_given: bool,
    /// Who published it.
    pub subject: &'a str,
    /// CloudEvents `type`.
    pub kind: &'a str,
    /// CloudEvents `source`.
    pub source: Cow<'a, str>,
    /// How to read `data`.
    pub datacontenttype: Option<&'a str>,
    /// The payload.
    pub data: Option<&'a [u8]>,
    /// When it stops being delivered.
    pub expires: Option<Timestamp>,
    /// What it belongs to.
    pub correlation: Option<&'a str>,
    /// The publisher's own attributes.
    pub headers: Headers<'a>,
}

/// Reads the body of a record.
///
/// # Errors
/// When the bytes are no body, see [`StoredError`].
pub fn decode(bytes: &[u8]) -> Result<Body<'_>, StoredError> {
    let (&flags, mut rest) = bytes.split_first().ok_or(StoredError::Short { what: "flags" })?;
    if flags & !(ID_GIVEN | ID_IS_UUID) != 0 {
        return Err(StoredError::Flags(flags));
    }
    let id = take_short(&mut rest, "id")?;
    let id = if flags & ID_IS_UUID == 0 { IdText::given(id)? } else { IdText::made(id)? };
    let subject = utf8(take_short(&mut rest, "subject")?, "subject")?;
    let (mut kind, mut source, mut datacontenttype) = (DEFAULT_TYPE, None, None);
    let (mut data, mut expires, mut correlation) = (None, None, None);
    let mut headers = Headers { rest: &[] };
    while !rest.is_empty() {
        let here = rest;
        let (tag, wire_type) = decode_key(&mut rest)?;
        match tag {
            TYPE => kind = utf8(take_field(&mut rest, wire_type, "type")?, "type")?,
            SOURCE => source = Some(utf8(take_field(&mut rest, wire_type, "source")?, "source")?),
            DATACONTENTTYPE => {
                let field = take_field(&mut rest, wire_type, "datacontenttype")?;
                datacontenttype = Some(utf8(field, "datacontenttype")?);
            }
            DATA => data = Some(take_field(&mut rest, wire_type, "data")?),
            EXPIRES_MS if wire_type == WireType::Varint => {
                expires = Some(Timestamp::from_millis(decode_varint(&mut rest)?));
            }
            EXPIRES_MS => return Err(StoredError::Type { what: "expires_ms" }),
            CORRELATION => {
                let field = take_field(&mut rest, wire_type, "correlation")?;
                correlation = Some(utf8(field, "correlation")?);
            }
            HEADERS => {
                header(take_field(&mut rest, wire_type, "headers")?)?;
                if headers.rest.is_empty() {
                    headers.rest = here;
                }
            }
            _ => skip_field(wire_type, tag, &mut rest, DecodeContext::default())?,
        }
    }
    let source = match source {
        Some(source) => Cow::Borrowed(source),
        None => {
            let mut source = String::with_capacity(SUBJECT_SOURCE.len() + subject.len());
            source.push_str(SUBJECT_SOURCE);
            source.push_str(subject);
            Cow::Owned(source)
        }
    };
    let id_given = flags & ID_GIVEN != 0;
    Ok(Body {
        id,
        id_given,
        subject,
        kind,
        source,
        datacontenttype,
        data,
        expires,
        correlation,
        headers,
    })
}

/// When the event of this body stops being delivered; a fraction of the work of [`decode`], which says the same.
///
/// # Errors
/// As [`decode`], but for what is in the other fields.
pub fn expires(bytes: &[u8]) -> Result<Option<Timestamp>, StoredError> {
    let (_, mut rest) = bytes.split_first().ok_or(StoredError::Short { what: "flags" })?;
    take_short(&mut rest, "id")?;
    take_short(&mut rest, "subject")?;
    let mut expires = None;
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest)?;
        match tag {
            // Of a field that stands twice the last counts.
            EXPIRES_MS if wire_type == WireType::Varint => {
                expires = Some(Timestamp::from_millis(decode_varint(&mut rest)?));
            }
            EXPIRES_MS => return Err(StoredError::Type { what: "expires_ms" }),
            _ => skip_field(wire_type, tag, &mut rest, DecodeContext::default())?,
        }
    }
    Ok(expires)
}

/// What a record says besides its body.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its place in the log.
    pub offset: Offset,
    /// When it was appended.
    pub time: Timestamp,
    /// Its topic.
    pub topic: &'a str,
    /// Its key.
    pub key: Option<&'a str>,
    /// Its priority.
    pub priority: Priority,
}

/// The whole event; copies everything.
pub fn event(place: &Place<'_>, body: &Body<'_>) -> Event {
    Event {
        offset: place.offset,
        topic: Topic::of_record(place.topic),
        id: body.id.as_str().to_owned(),
        kind: body.kind.to_owned(),
        source: body.source.clone().into_owned(),
        time: place.time,
        datacontenttype: body.datacontenttype.map(str::to_owned),
        data: body.data.map(Bytes::copy_from_slice),
        key: place.key.map(str::to_owned),
        priority: place.priority,
        expires: body.expires,
        correlation: body.correlation.map(str::to_owned),
        headers: body.headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

/// The id of an event as text: the publisher's own, or a UUID written out; no heap for either.
#[derive(Clone, Copy)]
pub struct IdText<'a>(Id<'a>);

#[derive(Clone, Copy)]
enum Id<'a> {
    Given(&'a str),
    Made([u8; Hyphenated::LENGTH]),
}

impl<'a> IdText<'a> {
    fn given(bytes: &'a [u8]) -> Result<IdText<'a>, StoredError> {
        utf8(bytes, "id").map(|text| IdText(Id::Given(text)))
    }

    fn made(bytes: &[u8]) -> Result<IdText<'a>, StoredError> {
        let uuid = Uuid::from_slice(bytes).map_err(|_| StoredError::Short { what: "id" })?;
        let mut text = [0; Hyphenated::LENGTH];
        uuid.hyphenated().encode_lower(&mut text);
        Ok(IdText(Id::Made(text)))
    }

    /// The text of it.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Id::Given(text) => text,
            // A UUID is written in ASCII, so the default is never taken.
            Id::Made(text) => str::from_utf8(text).unwrap_or_default(),
        }
    }
}

impl Deref for IdText<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for IdText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for IdText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The headers of a body, name and value, in the order they were stored in. Checked by [`decode`].
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    /// The fields of the body from the first header on.
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        while !self.rest.is_empty() {
            let (tag, wire_type) = decode_key(&mut self.rest).ok()?;
            if tag == HEADERS {
                return header(take_field(&mut self.rest, wire_type, "headers").ok()?).ok();
            }
            skip_field(wire_type, tag, &mut self.rest, DecodeContext::default()).ok()?;
        }
        None
    }
}

/// The bytes are no body of a record. Their checksum held, so they were written so.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StoredError {
    /// The body ends too early.
    #[error("the body of a record ends within its {what}: report this as a bug of the broker")]
    Short {
        /// What could not be read.
        what: &'static str,
    },
    /// Flags that this version does not know.
    #[error("the body of a record has the flags {0:#010b}: a newer version wrote it, use that one")]
    Flags(u8),
    /// A text that is not UTF-8.
    #[error("the {what} of a record is not UTF-8: report this as a bug of the broker")]
    Text {
        /// The attribute.
        what: &'static str,
        /// Where it stops being UTF-8.
        source: std::str::Utf8Error,
    },
    /// A known field of another type than it has.
    #[error("the {what} of a record has another type: a newer version wrote it, use that one")]
    Type {
        /// The attribute.
        what: &'static str,
    },
    /// What stands there is no Protobuf field.
    #[error(
        "the body of a record has a field that is no Protobuf: report this as a bug of the broker"
    )]
    Field(#[from] prost::DecodeError),
}

fn push_short(bytes: &[u8], out: &mut Vec<u8>) {
    // Ids have 200 bytes at most and subjects are cut: nothing here is longer than 255.
    out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(bytes);
}

pub(super) fn push_field(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

pub(super) fn push_header(name: &str, value: &str, out: &mut Vec<u8>) {
    // The keys of both fields of the entry take one byte each.
    let field_len = |text: &str| 1 + encoded_len_varint(text.len() as u64) + text.len();
    encode_key(HEADERS, WireType::LengthDelimited, out);
    encode_varint((field_len(name) + field_len(value)) as u64, out);
    push_field(HEADER_NAME, name.as_bytes(), out);
    push_field(HEADER_VALUE, value.as_bytes(), out);
}

/// The subject as far as it fits, cut between two characters.
fn cut(subject: &str) -> &str {
    let end = (0..=SUBJECT_BYTES_MAX).rev().find(|&end| subject.is_char_boundary(end));
    match end {
        Some(end) if subject.len() > SUBJECT_BYTES_MAX => subject.get(..end).unwrap_or_default(),
        _ => subject,
    }
}

fn take_short<'a>(rest: &mut &'a [u8], what: &'static str) -> Result<&'a [u8], StoredError> {
    let (&len, behind) = rest.split_first().ok_or(StoredError::Short { what })?;
    let (taken, behind) = behind.split_at_checked(len.into()).ok_or(StoredError::Short { what })?;
    *rest = behind;
    Ok(taken)
}

fn take_field<'a>(
    rest: &mut &'a [u8],
    wire_type: WireType,
    what: &'static str,
) -> Result<&'a [u8], StoredError> {
    if wire_type != WireType::LengthDelimited {
        return Err(StoredError::Type { what });
    }
    let len = usize::try_from(decode_varint(rest)?).unwrap_or(usize::MAX);
    let (taken, behind) = rest.split_at_checked(len).ok_or(StoredError::Short { what })?;
    *rest = behind;
    Ok(taken)
}

/// One entry of the map, a message of name and value; either may be absent and is empty then.
fn header(mut entry: &[u8]) -> Result<(&str, &str), StoredError> {
    let (mut name, mut value) = ("", "");
    while !entry.is_empty() {
        let (tag, wire_type) = decode_key(&mut entry)?;
        match tag {
            HEADER_NAME => name = utf8(take_field(&mut entry, wire_type, "headers")?, "headers")?,
            HEADER_VALUE => value = utf8(take_field(&mut entry, wire_type, "headers")?, "headers")?,
            _ => skip_field(wire_type, tag, &mut entry, DecodeContext::default())?,
        }
    }
    Ok((name, value))
}

fn utf8<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, StoredError> {
    str::from_utf8(bytes).map_err(|source| StoredError::Text { what, source })
}

const ID_GIVEN: u8 = 1;
const ID_IS_UUID: u8 = 2;

// Field numbers of tidings.v1.Event.
const TYPE: u32 = 6;
const SOURCE: u32 = 7;
const DATACONTENTTYPE: u32 = 8;
const DATA: u32 = 9;
const EXPIRES_MS: u32 = 11;
const CORRELATION: u32 = 12;
const HEADERS: u32 = 13;
// Those of an entry of a Protobuf map.
const HEADER_NAME: u32 = 1;
const HEADER_VALUE: u32 = 2;

#[cfg(test)]
mod tests;
