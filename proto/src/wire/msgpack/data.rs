//! An event's data in MessagePack.

use std::fmt;

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

use crate::{
    Data,
    event::JSON,
    wire::{Fault, objects::Payload},
};

/// The value of `data`.
pub(super) enum Given<'a> {
    Bytes(&'a [u8]),
    Text(&'a str),
}

impl Payload for Given<'_> {
    const IS_PARSED: bool = false;

    /// Nil is no value of `data` to begin with.
    fn is_null(&self) -> bool {
        false
    }

    fn bytes(
        datacontenttype: Option<&str>,
        data: Option<Self>,
        data_base64: Option<String>,
    ) -> Result<Option<Bytes>, Fault> {
        if data_base64.is_some() {
            return Err(Fault::new("data_base64", "is for JSON: give the bytes as data"));
        }
        let content_type = datacontenttype.unwrap_or(JSON);
        match data {
            None => Ok(None),
            Some(Given::Bytes(bytes)) => Ok(Some(Bytes::copy_from_slice(bytes))),
            Some(Given::Text(text)) if Data::of(content_type) == Data::Text => {
                Ok(Some(Bytes::copy_from_slice(text.as_bytes())))
            }
            Some(Given::Text(_)) => {
                let text = format!("is a text, but {content_type} goes as bytes: give its bytes");
                Err(Fault::new("data", text))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Given<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Given<'de>, D::Error> {
        deserializer.deserialize_bytes(GivenVisitor)
    }
}

struct GivenVisitor;

impl<'de> Visitor<'de> for GivenVisitor {
    type Value = Given<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes, or a text where the content type is text/*")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Given<'de>, E> {
        Ok(Given::Bytes(bytes))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Given<'de>, E> {
        Ok(Given::Text(text))
    }
}
