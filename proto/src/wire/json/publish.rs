//! An event as its publisher sends it, in JSON.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::value::RawValue;

use super::{read, write::Json};
use crate::{
    Data, WireError,
    event::JSON,
    message::Publish,
    strict,
    wire::{
        Fault, LEVELS_MAX,
        objects::{
            Payload,
            publish::{self, WirePublish, into_publishes},
        },
    },
};

/// Reads one event object, as in the request `publish`.
///
/// # Errors
/// When the text is no such object or the event is not valid; the error names the attribute.
pub fn decode_publish(text: &str) -> Result<Publish, WireError> {
    let publish: WirePublish<&RawValue> = read::object(text, "", LEVELS_MAX)?;
    publish.into_publish().map_err(|fault| fault.under(""))
}

/// Reads one event object or an array of them, which may be empty.
///
/// # Errors
/// As [`decode_publish`]; the path of an attribute begins with `[n]` in an array.
pub fn decode_publishes(text: &str) -> Result<Vec<Publish>, WireError> {
    if !text.trim_start().starts_with('[') {
        return Ok(vec![decode_publish(text)?]);
    }
    let publishes: Vec<strict::Object<WirePublish<&RawValue>>> = read::value(text, "", LEVELS_MAX)?;
    into_publishes(publishes, "")
}

/// Appends the object of the request `publish`.
pub fn encode_publish(publish: &Publish, out: &mut Vec<u8>) {
    publish::write::<Json>(publish, out);
}

impl Payload for &RawValue {
    const IS_PARSED: bool = true;

    fn is_null(&self) -> bool {
        self.get() == "null"
    }

    fn bytes(
        datacontenttype: Option<&str>,
        data: Option<Self>,
        data_base64: Option<String>,
    ) -> Result<Option<Bytes>, Fault> {
        payload(datacontenttype, data, data_base64)
    }
}

/// The bytes of an event's data, of which at most one form may be given.
pub(in crate::wire) fn payload(
    datacontenttype: Option<&str>,
    data: Option<&RawValue>,
    data_base64: Option<String>,
) -> Result<Option<Bytes>, Fault> {
    let raw = match (data, data_base64) {
        (None, None) => return Ok(None),
        (None, Some(text)) => {
            return match STANDARD.decode(text) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(cause) => Err(Fault::new("data_base64", format!("is not base64: {cause}"))),
            };
        }
        (Some(_), Some(_)) => {
            let text = "is given together with data_base64: give one of the two";
            return Err(Fault::new("data", text));
        }
        (Some(raw), None) => raw.get(),
    };
    let content_type = datacontenttype.unwrap_or(JSON);
    match Data::of(content_type) {
        Data::Json => Ok(Some(Bytes::copy_from_slice(raw.as_bytes()))),
        Data::Text => match serde_json::from_str::<String>(raw) {
            Ok(text) => Ok(Some(text.into())),
            Err(_) => {
                Err(Fault::new("data", format!("must be a string, for it is {content_type}")))
            }
        },
        Data::Binary => {
            let text = format!("cannot be {content_type}: give data_base64 with the bytes instead");
            Err(Fault::new("data", text))
        }
    }
}
