//! Writing JSON into a byte vector, for the objects that are written too often to go through serde.

use std::fmt::{self, Display, Write};

use base64::{display::Base64Display, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::{Data, event::JSON};

/// An object that is being written; attribute after attribute, ended by [`Object::end`].
pub(in crate::wire) struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    pub(in crate::wire) fn begin(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object { out, is_empty: true }
    }

    /// Writes the name of an attribute; its value is to be appended to what is returned.
    pub(in crate::wire) fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        push_text(name, self.out);
        self.out.push(b':');
        self.out
    }

    pub(in crate::wire) fn text(&mut self, name: &str, value: &str) {
        push_text(value, self.name(name));
    }

    pub(in crate::wire) fn text_if(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    pub(in crate::wire) fn number(&mut self, name: &str, value: impl Into<u64>) {
        push_display(value.into(), self.name(name));
    }

    /// A value that needs no escapes, such as a time, as a text.
    pub(in crate::wire) fn plain(&mut self, name: &str, value: impl Display) {
        let out = self.name(name);
        out.push(b'"');
        push_display(value, out);
        out.push(b'"');
    }

    /// A value that is JSON already.
    pub(in crate::wire) fn raw(&mut self, name: &str, value: &[u8]) {
        self.name(name).extend_from_slice(value);
    }

    /// An event's data as `data` or `data_base64`, whichever its content type asks for.
    pub(in crate::wire) fn data(&mut self, datacontenttype: Option<&str>, data: &[u8]) {
        match Data::of(datacontenttype.unwrap_or(JSON)) {
            // No bytes at all are no JSON value; they would break the object around them.
            Data::Json if !data.is_empty() => return self.raw("data", data),
            Data::Text => {
                if let Ok(text) = str::from_utf8(data) {
                    return self.text("data", text);
                }
            }
            Data::Json | Data::Binary => {}
        }
        self.base64(data);
    }

    pub(in crate::wire) fn base64(&mut self, data: &[u8]) {
        self.plain("data_base64", Base64Display::new(data, &STANDARD));
    }

    /// The publisher's own attributes; nothing when there are none.
    pub(in crate::wire) fn headers<'h>(
        &mut self,
        headers: impl Iterator<Item = (&'h str, &'h str)>,
    ) {
        let mut headers = headers.peekable();
        if headers.peek().is_none() {
            return;
        }
        let mut object = Object::begin(self.name("headers"));
        for (name, value) in headers {
            object.text(name, value);
        }
        object.end();
    }

    pub(in crate::wire) fn end(self) {
        self.out.push(b'}');
    }
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
