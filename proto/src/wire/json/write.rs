//! Writing JSON.

use std::fmt::{self, Display, Write};

use base64::{display::Base64Display, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::{
    Data, NewEvent,
    event::JSON,
    wire::objects::{self, Syntax, publish::OCTETS},
};

/// An object in JSON that is being written.
pub(in crate::wire) type Object<'a> = objects::Object<'a, Json>;

/// How JSON is written.
pub(in crate::wire) struct Json;

impl Syntax for Json {
    fn open_object(out: &mut Vec<u8>) {
        out.push(b'{');
    }

    fn close_object(_start: usize, _len: usize, out: &mut Vec<u8>) {
        out.push(b'}');
    }

    fn open_list(out: &mut Vec<u8>) {
        out.push(b'[');
    }

    fn close_list(_start: usize, _len: usize, out: &mut Vec<u8>) {
        out.push(b']');
    }

    fn separate(out: &mut Vec<u8>) {
        out.push(b',');
    }

    fn name(name: &str, out: &mut Vec<u8>) {
        push_text(name, out);
        out.push(b':');
    }

    fn text(text: &str, out: &mut Vec<u8>) {
        push_text(text, out);
    }

    fn plain(value: impl Display, out: &mut Vec<u8>) {
        out.push(b'"');
        push_display(value, out);
        out.push(b'"');
    }

    fn number(n: u64, out: &mut Vec<u8>) {
        push_display(n, out);
    }

    fn serde<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
        push_serde(value, out);
    }

    /// As `data` or `data_base64`.
    fn data(datacontenttype: Option<&str>, data: &[u8], object: &mut Object<'_>) {
        match Form::of(datacontenttype, data) {
            Form::Json => object.raw("data", data),
            Form::Text(text) => object.text("data", text),
            Form::Base64 => base64(data, object),
        }
    }

    fn payload(event: &NewEvent, object: &mut Object<'_>) {
        let Some(data) = &event.data else {
            return object.text_if("datacontenttype", event.datacontenttype.as_deref());
        };
        let content_type = event.datacontenttype.as_deref().unwrap_or(JSON);
        // An attribute that is `null` is refused, so a payload that is `null` goes as bytes.
        let as_bytes = data.is_empty() || data.trim_ascii() == b"null";
        if as_bytes && Data::of(content_type) == Data::Json {
            object.text("datacontenttype", content_type);
            return base64(data, object);
        }
        if content_type != JSON && content_type != OCTETS {
            object.text("datacontenttype", content_type);
        }
        object.data(Some(content_type), data);
    }
}

/// How an event's data stands in JSON.
enum Form<'a> {
    /// As it is.
    Json,
    Text(&'a str),
    Base64,
}

impl Form<'_> {
    fn of<'a>(datacontenttype: Option<&str>, data: &'a [u8]) -> Form<'a> {
        match Data::of(datacontenttype.unwrap_or(JSON)) {
            // No bytes at all are no JSON value; they would break the object around them.
            Data::Json if !data.is_empty() => Form::Json,
            Data::Text => str::from_utf8(data).map_or(Form::Base64, Form::Text),
            Data::Json | Data::Binary => Form::Base64,
        }
    }
}

fn base64(data: &[u8], object: &mut Object<'_>) {
    object.plain("data_base64", Base64Display::new(data, &STANDARD));
}

/// Appends a JSON string, escaped as little as RFC 8259 §7 allows.
pub(in crate::wire) fn push_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        let (plain, behind) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, behind)) = behind.split_first() else { break };
        push_escape(byte, out);
        rest = behind;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// How many bytes a text takes in JSON beside its own and its two quotes.
pub fn escape_bytes(text: &str) -> usize {
    let escaped = |byte: u8| {
        let is_short = (0x08..=0x0d).contains(&byte) && byte != 0x0b;
        usize::from(matches!(byte, b'"' | b'\\')) + 5 * usize::from(byte < 0x20)
            - 4 * usize::from(is_short)
    };
    text.bytes().map(escaped).sum()
}

/// How many bytes an event's data takes in JSON beside its own and its quotes: as `data_base64` a third more, and where it is
/// a text [those](escape_bytes) of its escapes.
pub fn data_growth_bytes(datacontenttype: Option<&str>, data: &[u8]) -> usize {
    match Form::of(datacontenttype, data) {
        Form::Json => 0,
        Form::Text(text) => escape_bytes(text),
        Form::Base64 => data.len().div_ceil(3) * 4 - data.len(),
    }
}

fn push_escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => return push_display(format_args!("\\u{byte:04x}"), out),
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends what `value` displays.
pub(in crate::wire) fn push_display(value: impl Display, out: &mut Vec<u8>) {
    struct Bytes<'a>(&'a mut Vec<u8>);
    impl Write for Bytes<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    // A vector takes everything, so only `value` could fail, and no value written here does.
    let _ = write!(Bytes(out), "{value}");
}

/// Appends `value` as serde writes it. The messages have only attributes that serde_json can write;
/// if one fails all the same, `null` stands for it, so that what surrounds it stays valid JSON.
pub(in crate::wire) fn push_serde<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}
