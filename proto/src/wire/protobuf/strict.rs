//! Checking a message before it is decoded: Protobuf by itself skips unknown fields, lets the last of
//! two win and cuts numbers that are too high, and its errors do not say where.
//!
//! It recurses as deep as [`Kind::Message`]s are nested in the table it is given, whatever the bytes.

use std::collections::BTreeSet;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::{Code, WireError, message::RequestId, wire::invalid};

/// A field that a message may have.
pub(super) struct Field {
    pub(super) tag: u32,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) rule: Rule,
}

/// What the value of a field is.
pub(super) enum Kind {
    /// A number, flag or word, up to this one. Many of them may be packed.
    Number(u64),
    Text,
    Bytes,
    /// An entry of a map of texts, of which each has another name.
    Header,
    Message(&'static [Field]),
}

/// How often a field may be there.
pub(super) enum Rule {
    Once,
    /// Once, and without the others of its oneof, the tags of which are bits of this.
    OneOf(u32),
    /// So often.
    Many(usize),
}

/// Checks a message against the fields that it may have.
///
/// # Errors
/// The first thing that is not as it should be, with its path.
pub(super) fn check(bytes: &[u8], fields: &'static [Field]) -> Result<(), WireError> {
    walk(bytes, fields).map_err(|wrong| {
        let path = if wrong.path.is_empty() { "message" } else { &wrong.path };
        WireError { code: wrong.code, ..invalid(path, &wrong.text) }
    })
}

/// The first field with number 1 that is a `RequestId`, read up to where the bytes stop being fields.
pub(super) fn id_of(mut bytes: &[u8]) -> Option<RequestId> {
    while !bytes.is_empty() {
        let (tag, wire_type) = decode_key(&mut bytes).ok()?;
        if tag == 1 && wire_type == WireType::Varint {
            return decode_varint(&mut bytes).ok()?.try_into().ok();
        }
        skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).ok()?;
    }
    None
}

struct Wrong {
    path: String,
    text: String,
    code: Code,
}

impl Wrong {
    fn new(text: impl Into<String>) -> Wrong {
        Wrong { path: String::new(), text: text.into(), code: Code::InvalidArgument }
    }

    /// The same within the field of this name.
    fn within(mut self, name: &str) -> Wrong {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{name}{dot}{}", self.path);
        self
    }
}

/// Every tag in the tables is below this.
const TAGS: usize = 32;

fn walk(mut rest: &[u8], fields: &'static [Field]) -> Result<(), Wrong> {
    let mut counts = [0_usize; TAGS];
    let mut names = BTreeSet::new();
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).map_err(|error| not_protobuf(&error))?;
        let Some(field) = fields.iter().find(|field| field.tag == tag) else {
            return Err(Wrong::new("is no field of this message").within(&format!("field {tag}")));
        };
        let before = counts.get(tag as usize).copied().unwrap_or_default();
        admit(field, before, &counts, fields).map_err(|wrong| wrong.within(field.name))?;
        value(field, wire_type, &mut rest, &mut names).map_err(|wrong| match field.rule {
            // A header says its name by itself.
            Rule::Many(_) if !matches!(field.kind, Kind::Header) => {
                wrong.within(&format!("[{before}]")).within(field.name)
            }
            _ => wrong.within(field.name),
        })?;
        if let Some(count) = counts.get_mut(tag as usize) {
            *count += 1;
        }
    }
    Ok(())
}

/// Whether one more of this field may come.
fn admit(
    field: &Field,
    before: usize,
    counts: &[usize; TAGS],
    fields: &[Field],
) -> Result<(), Wrong> {
    match field.rule {
        Rule::Many(max) if before >= max => {
            let text = format!("are more than {max}: send them in several messages");
            Err(Wrong { code: Code::TooLarge, ..Wrong::new(text) })
        }
        Rule::Many(_) => Ok(()),
        Rule::Once | Rule::OneOf(_) if before > 0 => Err(Wrong::new("is given twice")),
        Rule::Once => Ok(()),
        Rule::OneOf(group) => {
            let is_there = |other: &&Field| {
                let count = counts.get(other.tag as usize).copied().unwrap_or_default();
                group & (1 << other.tag) != 0 && count > 0
            };
            fields.iter().find(is_there).map_or(Ok(()), |other| {
                let name = other.name;
                Err(Wrong::new(format!("is given together with {name}: give one of the two")))
            })
        }
    }
}

/// Checks the value that `rest` begins with, and goes behind it.
fn value<'a>(
    field: &Field,
    wire_type: WireType,
    rest: &mut &'a [u8],
    names: &mut BTreeSet<&'a str>,
) -> Result<(), Wrong> {
    match (&field.kind, wire_type) {
        (&Kind::Number(max), WireType::Varint) => number(rest, max),
        (&Kind::Number(max), WireType::LengthDelimited) if matches!(field.rule, Rule::Many(_)) => {
            let mut packed = take(rest)?;
            while !packed.is_empty() {
                number(&mut packed, max)?;
            }
            Ok(())
        }
        (Kind::Text, WireType::LengthDelimited) => text(take(rest)?).map(drop),
        (Kind::Bytes, WireType::LengthDelimited) => take(rest).map(drop),
        (Kind::Header, WireType::LengthDelimited) => {
            let name = header(take(rest)?)?;
            if names.insert(name) {
                return Ok(());
            }
            let short: String = name.chars().take(64).collect();
            Err(Wrong::new("is given twice").within(&short))
        }
        (Kind::Message(fields), WireType::LengthDelimited) => walk(take(rest)?, fields),
        _ => Err(Wrong::new(format!("is of another type: {wire_type:?}"))),
    }
}

/// The name of an entry of a map; both of it may be absent and are empty then.
fn header(entry: &[u8]) -> Result<&str, Wrong> {
    const ENTRY: [&str; 2] = ["name", "value"];
    let (mut rest, mut parts) = (entry, [None; 2]);
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).map_err(|error| not_protobuf(&error))?;
        let index = (tag as usize).wrapping_sub(1);
        match (parts.get_mut(index), ENTRY.get(index)) {
            (Some(part @ None), _) if wire_type == WireType::LengthDelimited => {
                *part = Some(text(take(&mut rest)?)?);
            }
            (Some(Some(_)), Some(what)) => {
                return Err(Wrong::new(format!("have an entry whose {what} is given twice")));
            }
            _ => return Err(Wrong::new("have an entry that is not two texts")),
        }
    }
    let [name, _] = parts;
    Ok(name.unwrap_or_default())
}

fn number(rest: &mut &[u8], max: u64) -> Result<(), Wrong> {
    match decode_varint(rest).map_err(|error| not_protobuf(&error))? {
        n if n > max => Err(Wrong::new(format!("is {n}: at most {max} is allowed"))),
        _ => Ok(()),
    }
}

fn take<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Wrong> {
    let len = decode_varint(rest).map_err(|error| not_protobuf(&error))?;
    let at = usize::try_from(len).unwrap_or(usize::MAX);
    let (taken, behind) = rest.split_at_checked(at).ok_or_else(|| {
        Wrong::new(format!("says it has {len} bytes, but {} are left", rest.len()))
    })?;
    *rest = behind;
    Ok(taken)
}

fn text(bytes: &[u8]) -> Result<&str, Wrong> {
    str::from_utf8(bytes).map_err(|error| Wrong::new(format!("is not UTF-8: {error}")))
}

fn not_protobuf(error: &prost::DecodeError) -> Wrong {
    Wrong::new(format!("is not Protobuf: {error}"))
}
