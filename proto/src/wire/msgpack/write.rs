//! Writing MessagePack.

use std::fmt::Display;

use serde::{Serialize, Serializer};

use crate::{
    NewEvent,
    event::JSON,
    wire::objects::{Object, Syntax},
};

/// How MessagePack is written: every value in the fewest bytes, but for lists of events.
pub(super) struct MessagePack;

const FIXMAP: u8 = 0x80;
const FIXMAP_MAX: usize = 15;
const NIL: u8 = 0xc0;
const ARRAY32: u8 = 0xdd;
const MAP16: u8 = 0xde;
const MAP32: u8 = 0xdf;

impl Syntax for MessagePack {
    fn open_object(out: &mut Vec<u8>) {
        out.push(FIXMAP);
    }

    /// Nearly every object is small enough for the one byte that was kept for its length.
    fn close_object(start: usize, len: usize, out: &mut Vec<u8>) {
        let [_, _, high, low] = length32(len);
        match (out.get_mut(start), u16::try_from(len)) {
            (Some(head), _) if len <= FIXMAP_MAX => *head = FIXMAP | low,
            (_, Ok(_)) => drop(out.splice(start..=start, [MAP16, high, low])),
            (_, Err(_)) => {
                let head = [&[MAP32][..], &length32(len)].concat();
                drop(out.splice(start..=start, head));
            }
        }
    }

    /// Always with a length of four bytes: what is in a list is not moved once it is written.
    fn open_list(out: &mut Vec<u8>) {
        out.extend_from_slice(&[ARRAY32, 0, 0, 0, 0]);
    }

    fn close_list(start: usize, len: usize, out: &mut Vec<u8>) {
        if let Some(place) = out.get_mut(start + 1..start + 5) {
            place.copy_from_slice(&length32(len));
        }
    }

    fn separate(_out: &mut Vec<u8>) {}

    fn name(name: &str, out: &mut Vec<u8>) {
        push_serde(name, out);
    }

    fn text(text: &str, out: &mut Vec<u8>) {
        push_serde(text, out);
    }

    fn plain(value: impl Display, out: &mut Vec<u8>) {
        push_serde(&value.to_string(), out);
    }

    fn number(n: u64, out: &mut Vec<u8>) {
        push_serde(&n, out);
    }

    fn serde<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
        push_serde(value, out);
    }

    fn data(_datacontenttype: Option<&str>, data: &[u8], object: &mut Object<'_, Self>) {
        object.serde("data", &Bytes(data));
    }

    fn payload(event: &NewEvent, object: &mut Object<'_, Self>) {
        let content_type = event.datacontenttype.as_deref();
        let Some(data) = &event.data else {
            return object.text_if("datacontenttype", content_type);
        };
        object.text_if("datacontenttype", content_type.filter(|kind| *kind != JSON));
        object.data(content_type, data);
    }
}

/// Appends `value` as serde writes it. The messages have only attributes that MessagePack has; if one
/// fails all the same, nil stands for it, so that what surrounds it stays valid.
pub(super) fn push_serde<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let start = out.len();
    let mut serializer =
        rmp_serde::Serializer::new(&mut *out).with_struct_map().with_human_readable();
    if value.serialize(&mut serializer).is_err() {
        out.truncate(start);
        out.push(NIL);
    }
}

/// What serde takes for bytes and not for a list of numbers.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// A length as MessagePack writes it in four bytes. No message has more than that.
fn length32(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}
