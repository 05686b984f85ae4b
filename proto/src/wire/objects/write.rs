//! Writing objects and lists into a byte vector, attribute after attribute, for the messages that are
//! written too often to go through serde.

use std::{fmt::Display, marker::PhantomData};

use serde::Serialize;

use crate::NewEvent;

/// How an encoding writes values and what holds them.
///
/// What is opened is closed with the place in `out` where it began and how much is in it.
pub(in crate::wire) trait Syntax: Sized {
    fn open_object(out: &mut Vec<u8>);
    fn close_object(start: usize, len: usize, out: &mut Vec<u8>);
    fn open_list(out: &mut Vec<u8>);
    fn close_list(start: usize, len: usize, out: &mut Vec<u8>);
    /// What stands between two attributes or two elements.
    fn separate(out: &mut Vec<u8>);
    /// The name of an attribute and what stands behind it.
    fn name(name: &str, out: &mut Vec<u8>);

    fn text(text: &str, out: &mut Vec<u8>);
    /// What `value` displays as a text; it needs no escapes.
    fn plain(value: impl Display, out: &mut Vec<u8>);
    fn number(n: u64, out: &mut Vec<u8>);
    /// A value as serde writes it.
    fn serde<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>);
    /// The data of an event, as the attribute that its content type asks for.
    fn data(datacontenttype: Option<&str>, data: &[u8], object: &mut Object<'_, Self>);
    /// The content type and the data of a publish; what the broker takes when nothing is said is
    /// left out.
    fn payload(event: &NewEvent, object: &mut Object<'_, Self>);
}

/// An object that is being written; attribute after attribute, ended by [`Object::end`].
pub(in crate::wire) struct Object<'a, S> {
    out: &'a mut Vec<u8>,
    start: usize,
    len: usize,
    syntax: PhantomData<S>,
}

impl<'a, S: Syntax> Object<'a, S> {
    pub(in crate::wire) fn begin(out: &'a mut Vec<u8>) -> Object<'a, S> {
        let start = out.len();
        S::open_object(out);
        Object { out, start, len: 0, syntax: PhantomData }
    }

    /// Writes the name of an attribute; its value is to be appended to what is returned.
    pub(in crate::wire) fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if self.len > 0 {
            S::separate(self.out);
        }
        self.len += 1;
        S::name(name, self.out);
        self.out
    }

    pub(in crate::wire) fn text(&mut self, name: &str, value: &str) {
        S::text(value, self.name(name));
    }

    pub(in crate::wire) fn text_if(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    pub(in crate::wire) fn number(&mut self, name: &str, value: impl Into<u64>) {
        S::number(value.into(), self.name(name));
    }

    /// A value that needs no escapes, such as a time, as a text.
    pub(in crate::wire) fn plain(&mut self, name: &str, value: impl Display) {
        S::plain(value, self.name(name));
    }

    /// A value as serde writes it.
    pub(in crate::wire) fn serde<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        S::serde(value, self.name(name));
    }

    /// A value that is written already.
    pub(in crate::wire) fn raw(&mut self, name: &str, value: &[u8]) {
        self.name(name).extend_from_slice(value);
    }

    /// An event's data.
    pub(in crate::wire) fn data(&mut self, datacontenttype: Option<&str>, data: &[u8]) {
        S::data(datacontenttype, data, self);
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
        let mut object = Object::<S>::begin(self.name("headers"));
        for (name, value) in headers {
            object.text(name, value);
        }
        object.end();
    }

    pub(in crate::wire) fn end(self) {
        S::close_object(self.start, self.len, self.out);
    }
}

/// A list that is being written; element after element, ended by [`List::end`].
pub(in crate::wire) struct List<'a, S> {
    out: &'a mut Vec<u8>,
    start: usize,
    len: usize,
    syntax: PhantomData<S>,
}

impl<'a, S: Syntax> List<'a, S> {
    pub(in crate::wire) fn begin(out: &'a mut Vec<u8>) -> List<'a, S> {
        let start = out.len();
        S::open_list(out);
        List { out, start, len: 0, syntax: PhantomData }
    }

    /// The next element is to be appended to what is returned.
    pub(in crate::wire) fn element(&mut self) -> &mut Vec<u8> {
        if self.len > 0 {
            S::separate(self.out);
        }
        self.len += 1;
        self.out
    }

    pub(in crate::wire) fn end(self) {
        S::close_list(self.start, self.len, self.out);
    }
}
