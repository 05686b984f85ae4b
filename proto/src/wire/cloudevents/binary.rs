//! Binary mode: the body is the data, HTTP headers are the attributes.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{SPECVERSION, is_extension_name};
use crate::{
    EventId, NewEvent, Offset, Priority, Timestamp, Topic, WireError,
    event::DEFAULT_TYPE,
    message::Publish,
    wire::{
        Fault,
        objects::publish::{OCTETS, expiry},
    },
};

/// Makes a publish of an HTTP request in binary mode. `headers` are all of the request's, in any
/// case of letters; those that are neither `ce-…` nor `Tidings-…` nor `Idempotency-Key` are passed
/// over.
///
/// Without a content type the data is `application/octet-stream`; an empty body is no data.
///
/// # Errors When a header is not what it should be, is given twice or is not known, or the event is
/// not valid. The error's text begins with the header's name in lower case, or with the attribute's
/// when that is invalid.
pub fn binary_attributes<'a>(
    topic: Topic,
    headers: impl Iterator<Item = (&'a str, &'a str)>,
    content_type: Option<&str>,
    body: Bytes,
) -> Result<Publish, WireError> {
    let read = || {
        let mut given = Given::default();
        for (name, value) in headers {
            given.take(&name.to_ascii_lowercase(), value)?;
        }
        given.into_publish(topic, content_type, body)
    };
    read().map_err(|fault: Fault| fault.under(""))
}

/// Reads the header `Idempotency-Key`: an id, with or without quotes around it.
///
/// # Errors
/// When no event may have this id.
pub fn idempotency_key(value: &str) -> Result<EventId, WireError> {
    EventId::parse(&unquoted(value)).map_err(|error| Fault::from(error).under(""))
}

/// The attributes found so far; those with two names keep the one that gave them.
#[derive(Default)]
struct Given {
    id: Named,
    kind: Named,
    key: Named,
    specversion: Named,
    source: Named,
    priority: Named,
    ttl_ms: Named,
    expires: Named,
    correlation: Named,
    expect_last: Named,
    deliver_at: Named,
    receipts: Named,
    extensions: BTreeMap<String, String>,
}

#[derive(Default)]
struct Named(Option<(String, String)>);

impl Named {
    /// Sets the value; the same one by another name is no second one.
    fn set(&mut self, name: &str, value: String) -> Result<(), Fault> {
        match &self.0 {
            Some((before, _)) if before == name => Err(Fault::new(name, "is given twice")),
            Some((before, other)) if *other != value => {
                let text = format!("is not what {before} says: give one of the two");
                Err(Fault::new(name, text))
            }
            _ => {
                self.0 = Some((name.to_owned(), value));
                Ok(())
            }
        }
    }

    fn text(self) -> Option<String> {
        self.0.map(|(_, value)| value)
    }

    /// The value read by `read`; `want` says what it should be.
    fn read<T>(self, want: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Fault> {
        let Some((name, value)) = self.0 else { return Ok(None) };
        match read(&value) {
            Some(value) => Ok(Some(value)),
            None => {
                let shown: String = value.chars().take(64).collect();
                Err(Fault::new(&name, format!("is \"{shown}\": it must be {want}")))
            }
        }
    }
}

impl Given {
    fn take(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        if let Some(attribute) = name.strip_prefix("ce-") {
            self.take_ce(name, attribute, decoded(name, value)?)
        } else if let Some(option) = name.strip_prefix("tidings-") {
            match option {
                // What the broker answers with; a client may send them back.
                "log" | "cursor" => Ok(()),
                _ => self.take_own(name, option, decoded(name, value)?),
            }
        } else if name == "idempotency-key" {
            // Not of CloudEvents, so a `%` in it is just that.
            self.id.set(name, unquoted(value))
        } else {
            Ok(())
        }
    }

    fn take_ce(&mut self, name: &str, attribute: &str, value: String) -> Result<(), Fault> {
        match attribute {
            "id" => self.id.set(name, value),
            "type" => self.kind.set(name, value),
            "source" => self.source.set(name, value),
            "specversion" => self.specversion.set(name, value),
            "partitionkey" => self.key.set(name, value),
            "datacontenttype" => Err(Fault::new(name, "is what Content-Type says: leave it out")),
            _ if !is_extension_name(attribute) => {
                Err(Fault::new(name, "is no name of an extension: those are made of a–z and 0–9"))
            }
            _ if self.extensions.contains_key(attribute) => Err(Fault::new(name, "is given twice")),
            _ => {
                self.extensions.insert(attribute.to_owned(), value);
                Ok(())
            }
        }
    }

    fn take_own(&mut self, name: &str, option: &str, value: String) -> Result<(), Fault> {
        let attribute = match option {
            "type" => &mut self.kind,
            "key" => &mut self.key,
            "priority" => &mut self.priority,
            "ttl-ms" => &mut self.ttl_ms,
            "expires" => &mut self.expires,
            "correlation" => &mut self.correlation,
            "expect-last" => &mut self.expect_last,
            "deliver-at" => &mut self.deliver_at,
            "receipts" => &mut self.receipts,
            _ => {
                let want = "type, key, priority, ttl-ms, expires, correlation, expect-last, \
                            deliver-at and receipts";
                return Err(Fault::new(name, format!("is not known: tidings- goes with {want}")));
            }
        };
        attribute.set(name, value)
    }

    fn into_publish(
        self,
        topic: Topic,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Publish, Fault> {
        self.specversion.read(SPECVERSION, |value| (value == SPECVERSION).then_some(()))?;
        let data = (!body.is_empty()).then_some(body);
        let datacontenttype = content_type.or(data.as_ref().map(|_| OCTETS));
        let expires = self.expires.read(A_TIME, |value| value.parse::<Timestamp>().ok())?;
        let ttl_ms = self.ttl_ms.read(A_NUMBER, number)?;
        let clash = |fault: Fault| Fault { field: "tidings-expires".to_owned(), ..fault };
        let event = NewEvent {
            topic,
            id: self.id.text().as_deref().map(EventId::parse).transpose()?,
            kind: self.kind.text().unwrap_or_else(|| DEFAULT_TYPE.to_owned()),
            source: self.source.text(),
            datacontenttype: datacontenttype.map(str::to_owned),
            data,
            key: self.key.text(),
            priority: self
                .priority
                .read("low, normal, high or urgent", |value| value.parse::<Priority>().ok())?
                .unwrap_or_default(),
            expires: expiry(expires, ttl_ms).map_err(clash)?,
            correlation: self.correlation.text(),
            headers: self.extensions,
        };
        event.check()?;
        Ok(Publish {
            event,
            expect_last: self.expect_last.read(AN_EXPECTATION, expectation)?,
            deliver_at: self.deliver_at.read(A_TIME, |value| value.parse::<Timestamp>().ok())?,
            receipts: self
                .receipts
                .read("true or false", |value| value.parse::<bool>().ok())?
                .unwrap_or_default(),
        })
    }
}

const A_TIME: &str = "a time in RFC 3339, as 2026-11-21T06:00:00Z";
const A_NUMBER: &str = "a whole number";
const AN_EXPECTATION: &str = "an offset, or 0: at most 9007199254740991";

/// Digits only: [`u64::from_str`](std::str::FromStr) would take a `+` as well.
fn number(value: &str) -> Option<u64> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}

fn expectation(value: &str) -> Option<u64> {
    number(value).filter(|last| *last <= Offset::MAX)
}

/// The value of a header as the CloudEvents HTTP binding (3.1.3.2) reads it: quotes off, then one
/// round of percent-decoding. A `%` without two hex digits behind it stands for itself.
fn decoded(name: &str, value: &str) -> Result<String, Fault> {
    let value = unquoted(value);
    if !value.contains('%') {
        return Ok(value);
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = match (byte, behind) {
            (b'%', [high, low, behind @ ..]) => hex(*high).zip(hex(*low)).map(|hex| (hex, behind)),
            _ => None,
        };
        match escaped {
            Some(((high, low), behind)) => {
                bytes.push(high << 4 | low);
                rest = behind;
            }
            None => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes)
        .map_err(|_| Fault::new(name, "is not UTF-8 behind its percent-encoding"))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The value without the double quotes around it, if there are any, and the backslashes that go
/// with them.
fn unquoted(value: &str) -> String {
    let value = value.trim();
    let inside = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some(inside) = inside else { return value.to_owned() };
    let mut text = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.extend(chars.next()),
            _ => text.push(c),
        }
    }
    text
}
