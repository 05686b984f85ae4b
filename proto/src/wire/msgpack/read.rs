//! Reading MessagePack that has been checked, with errors that name the attribute.
//!
//! The path is kept only when there is an error: the message is read once more for it.

use rmp_serde::{
    Deserializer,
    config::{DefaultConfig, HumanReadableConfig},
    decode::ReadRefReader,
};
use serde::Deserialize;

use crate::{WireError, strict, wire::objects::refusal};

/// Reads a `T` that is written as an object. `path` is where it stands in the message; may be empty.
pub(super) fn object<'de, T: Deserialize<'de>>(
    bytes: &'de [u8],
    path: &str,
) -> Result<T, WireError> {
    value(bytes, path).map(|strict::Object(value)| value)
}

/// Reads a `T`.
pub(super) fn value<'de, T: Deserialize<'de>>(
    bytes: &'de [u8],
    path: &str,
) -> Result<T, WireError> {
    T::deserialize(&mut reader(bytes)).or_else(|_| {
        let again = serde_path_to_error::deserialize(&mut reader(bytes));
        again.map_err(|error| refusal(path, error.path(), &error.inner().to_string()))
    })
}

/// Texts for what has a text and a binary form: ids and times are written as in JSON.
fn reader(
    bytes: &[u8],
) -> Deserializer<ReadRefReader<'_, [u8]>, HumanReadableConfig<DefaultConfig>> {
    Deserializer::from_read_ref(bytes).with_human_readable()
}
