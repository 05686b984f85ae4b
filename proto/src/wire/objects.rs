//! Messages as objects of named attributes and lists: the shape they have in JSON and MessagePack.
//!
//! - What is read and written here is the same in both by construction: the names, the order, what is
//!   left out, what is refused and how its error says where.
//! - An encoding adds how values look ([`Syntax`]), how an event's data is given ([`Payload`]), and a
//!   reader that serde can take them from, with errors that name the attribute.

pub(super) mod event;
pub(super) mod publish;
pub(super) mod request;
pub(super) mod server;
pub(super) mod write;

use std::borrow::Cow;

use bytes::Bytes;
use serde_path_to_error::{Path, Segment};

use super::{Fault, invalid, push_name};
use crate::WireError;

pub(super) use write::{List, Object, Syntax};

/// An event's data as an encoding gives it in the attribute `data`.
pub(super) trait Payload: Sized {
    /// Whether what [`Payload::bytes`] gives for this is valid JSON wherever the content type says JSON.
    const IS_PARSED: bool;

    /// Whether it is the encoding's word for nothing, which is no data for a publisher to give.
    fn is_null(&self) -> bool;

    /// The bytes of it, of which at most one form may be given.
    fn bytes(
        datacontenttype: Option<&str>,
        data: Option<Self>,
        data_base64: Option<String>,
    ) -> Result<Option<Bytes>, Fault>;
}

/// An error of serde in the words of the protocol. `base` is where the value stands in the message,
/// `path` leads on from there to the attribute, or to the object that lacks one or has one twice.
pub(super) fn refusal(base: &str, path: &Path, said: &str) -> WireError {
    let mut full = base.to_owned();
    for step in path {
        match step {
            Segment::Seq { index } => full.push_str(&format!("[{index}]")),
            Segment::Map { key } | Segment::Enum { variant: key } => push_name(key, &mut full),
            Segment::Unknown => {}
        }
    }
    let text = match (quoted(said, MISSING), quoted(said, DUPLICATE)) {
        (Some(name), _) => {
            push_name(name, &mut full);
            "is missing"
        }
        (None, Some(name)) => {
            push_name(name, &mut full);
            "is given twice"
        }
        (None, None) => said,
    };
    if full.is_empty() {
        full.push_str("message");
    }
    let first = full.split(['.', '[']).next().unwrap_or_default();
    let text = if SECRET.contains(&first) { without_text(text) } else { text.into() };
    invalid(&full, &text)
}

/// Requests with a token: what stands at a wrong place in them may be one, and errors are logged by clients.
const SECRET: [&str; 2] = ["connect", "refresh"];

/// The same without the text that it repeats.
fn without_text(said: &str) -> Cow<'_, str> {
    let Some((before, rest)) = said.split_once('"') else { return said.into() };
    let after = rest.rsplit_once('"').map_or("", |(_, after)| after);
    format!("{}{after}", before.trim_end()).into()
}

/// What stands between `before` and the backquote at the end.
fn quoted<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.strip_suffix('`')
}

// How serde begins these errors, with the name of the attribute behind it.
const MISSING: &str = "missing field `";
const DUPLICATE: &str = "duplicate field `";
