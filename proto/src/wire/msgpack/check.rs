//! Going through a message before it is read: what serde would believe, skip or take for something
//! else is refused here.

use super::item::{Item, take, take_value};
use crate::{
    Code, WireError,
    message::RequestId,
    wire::{EVENTS_MAX, LEVELS_MAX, invalid, push_name},
};

/// Checks a request.
///
/// # Errors
/// The first thing that is not as it should be, with its path.
pub(super) fn request(bytes: &[u8]) -> Result<(), WireError> {
    whole(bytes, true)
}

/// Checks what the broker sends, where bytes may stand for texts.
///
/// # Errors
/// As [`request`].
pub(super) fn message(bytes: &[u8]) -> Result<(), WireError> {
    whole(bytes, false)
}

/// The first attribute `id` that is a `RequestId`, read up to where the bytes stop being MessagePack.
pub(super) fn id_of(bytes: &[u8]) -> Option<RequestId> {
    let mut rest = bytes;
    let Ok(Item::Map(len)) = take(&mut rest) else { return None };
    for _ in 0..len {
        let name = take_value(&mut rest).ok()?;
        let value = take_value(&mut rest).ok()?;
        if take(&mut &*name) == Ok(Item::Text(b"id")) {
            return rmp_serde::from_slice(value).ok();
        }
    }
    None
}

fn whole(bytes: &[u8], is_request: bool) -> Result<(), WireError> {
    let mut walk = Walk { rest: bytes, is_request };
    walk.value(&Place::Message, 1)?;
    match walk.rest.len() {
        0 => Ok(()),
        left => Err(invalid("message", &format!("has {left} bytes behind its end"))),
    }
}

/// Where a value stands.
enum Place<'p> {
    Message,
    Attribute(&'p Place<'p>, &'p str),
    Element(&'p Place<'p>, usize),
}

impl Place<'_> {
    fn error(&self, text: &str) -> WireError {
        let mut path = String::new();
        self.push(&mut path);
        if path.is_empty() {
            path.push_str("message");
        }
        invalid(&path, text)
    }

    /// Recurses as deep as the values are nested that led here.
    fn push(&self, path: &mut String) {
        match self {
            Place::Message => {}
            Place::Attribute(around, name) => {
                around.push(path);
                push_name(name, path);
            }
            Place::Element(around, n) => {
                around.push(path);
                path.push_str(&format!("[{n}]"));
            }
        }
    }

    /// Whether it is the list of events of a request `publish_batch`.
    fn is_batch(&self) -> bool {
        matches!(
            self,
            Place::Attribute(Place::Attribute(Place::Message, "publish_batch"), "events")
        )
    }

    /// Whether it is the data of an event that is to be published.
    fn is_data(&self) -> bool {
        match self {
            Place::Attribute(Place::Attribute(Place::Message, "publish"), "data") => true,
            Place::Attribute(Place::Element(list, _), "data") => list.is_batch(),
            _ => false,
        }
    }
}

struct Walk<'a> {
    rest: &'a [u8],
    is_request: bool,
}

impl<'a> Walk<'a> {
    /// Goes behind the value at `place`. `level` is its own level if it is a list or a map; the
    /// message is level 1.
    fn value(&mut self, place: &Place<'_>, level: usize) -> Result<(), WireError> {
        let item = take(&mut self.rest).map_err(|text| place.error(&text))?;
        if matches!(item, Item::List(_) | Item::Map(_)) && level > LEVELS_MAX {
            let text = format!("is nested deeper than {LEVELS_MAX} levels");
            return Err(invalid("message", &text));
        }
        match item {
            Item::Nil | Item::Bool | Item::Integer => Ok(()),
            Item::Float(n) if n.is_finite() => Ok(()),
            Item::Float(_) => Err(place.error("is no number that JSON has")),
            Item::Text(bytes) => text(bytes, place).map(drop),
            Item::Bytes(_) if self.is_request && !place.is_data() => {
                Err(place.error("is bytes: only an event's data may be"))
            }
            Item::Bytes(_) => Ok(()),
            Item::List(len) => {
                // No list of a request may be longer, and an entry of one byte is many times that in memory.
                if self.is_request && len > EVENTS_MAX {
                    let text = format!("are more than {EVENTS_MAX}: send them in several messages");
                    return Err(WireError { code: Code::TooLarge, ..place.error(&text) });
                }
                (0..len).try_for_each(|n| self.value(&Place::Element(place, n), level + 1))
            }
            Item::Map(len) => {
                for _ in 0..len {
                    let name = self.name(place)?;
                    self.value(&Place::Attribute(place, name), level + 1)?;
                }
                Ok(())
            }
        }
    }

    /// The name of an attribute of the map at `place`.
    fn name(&mut self, place: &Place<'_>) -> Result<&'a str, WireError> {
        match take(&mut self.rest) {
            Ok(Item::Text(bytes)) => text(bytes, place),
            Ok(_) => Err(place.error("has a name that is no text")),
            Err(said) => Err(place.error(&said)),
        }
    }
}

fn text<'a>(bytes: &'a [u8], place: &Place<'_>) -> Result<&'a str, WireError> {
    str::from_utf8(bytes).map_err(|error| place.error(&format!("is not UTF-8: {error}")))
}
