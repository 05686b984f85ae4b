//! Files of sealing keys: read for `tidings pub --seal-with` and `sub --open-with`, added to by `tidings key make`.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use anyhow::Context;
use zeroize::Zeroizing;

use super::{
    Globals,
    exit::{NotFound, Usage},
};
use crate::client::sealed::{Key, Keys};

/// The most bytes of such a file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The keys in a file.
///
/// # Errors
/// When it cannot be read or has none.
pub(super) fn keys(path: &Path, globals: &Globals) -> anyhow::Result<Keys> {
    let file = OpenOptions::new().read(true).open(path).map_err(|cause| unreadable(path, cause))?;
    keys_of(&file, path, globals)
}

/// Adds a new key to a file, which is made where it is not there; gives the key's id.
///
/// # Errors
/// When the file cannot be written or has something else in it.
pub(super) fn add_key(path: &Path, globals: &Globals) -> anyhow::Result<String> {
    let shown = path.display();
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    let mut file = options.open(path).with_context(|| format!("cannot open {shown}"))?;
    let bytes = file.metadata().with_context(|| format!("cannot read {shown}"))?.len();
    // Nothing is added to what is no file of keys.
    let count = match bytes {
        0 => 0,
        _ => keys_of(&file, path, globals)?.count(),
    };
    if count >= Keys::MAX {
        return Err(Usage::error(format!("{shown} is full: take out the oldest keys")));
    }
    let key = Key::make();
    let mut text = Zeroizing::new(String::with_capacity(256));
    // A line that somebody left open is ended.
    text.push_str(if bytes > 0 { "\n" } else { "" });
    text.push_str(&key.line());
    text.push('\n');
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.with_context(|| format!("cannot write {shown}"))?;
    Ok(key.id().to_owned())
}

fn keys_of(mut file: &File, path: &Path, globals: &Globals) -> anyhow::Result<Keys> {
    let (shown, cannot) = (path.display(), || format!("cannot read {}", path.display()));
    let metadata = file.metadata().with_context(cannot)?;
    if metadata.is_file() && metadata.mode() & 0o077 != 0 {
        globals.notice(&format!(
            "{shown} has sealing keys and is open to others than its owner: chmod 600 it"
        ));
    }
    // Of the right size from the beginning: no copy stays where it grew.
    let bytes = usize::try_from(metadata.len().min(FILE_BYTES_MAX)).unwrap_or(0);
    let mut text = Zeroizing::new(String::with_capacity(bytes + 1));
    (&mut file).take(FILE_BYTES_MAX).read_to_string(&mut text).with_context(cannot)?;
    Keys::parse(&text).map_err(|error| Usage::error(format!("{shown}: {error}")))
}

fn unreadable(path: &Path, cause: std::io::Error) -> anyhow::Error {
    let is_missing = cause.kind() == ErrorKind::NotFound;
    let error = anyhow::Error::new(cause).context(format!("cannot read {}", path.display()));
    if is_missing { error.context(NotFound("there is no such file of keys")) } else { error }
}
