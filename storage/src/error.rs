//! What the disk did and what the log found: operation, file, place, cause, and what to do.

use std::{io, sync::Arc};

/// Why the log did not do it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call to the system failed.
    #[error("{operation} {path}: {cause}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: String,
        /// What the system said.
        #[source]
        cause: Arc<io::Error>,
    },
    /// There is no space for another segment. Nothing was written; it works again when there is space.
    #[error(
        "no space on the disk for {needed_bytes} bytes in {path}: free some; publishing then goes on by itself"
    )]
    Full {
        /// What was to be written or allocated.
        needed_bytes: u64,
        /// Where.
        path: String,
    },
    /// An earlier write or sync failed: what is in the files is known only after a new start.
    #[error("the log refuses writes since this failed: {0}; restart when the disk is mended")]
    Latched(String),
    /// Bytes that were durable are damaged.
    #[error(
        "{path} is damaged at byte {position} (offset {offset}): {problem}; the log is left as it is: `tidings log verify` shows all of it; restore a backup to have it back"
    )]
    Corrupt {
        /// The file.
        path: String,
        /// Where in it.
        position: u64,
        /// The offset that stands or should stand there; 0 when that cannot be said.
        offset: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// A segment that the manifest names is not there.
    #[error("{path} is missing: the log is left as it is; restore it from a backup")]
    Missing {
        /// The file.
        path: String,
    },
    /// Another process has it.
    #[error(
        "the data directory {path} is in use by {holder}: stop that broker or choose another directory"
    )]
    Locked {
        /// The directory.
        path: String,
        /// Process and host, as far as they are known.
        holder: String,
    },
    /// The directory is open to others.
    #[error("the data directory {path} {problem}: make it a directory of your own with mode 0700")]
    Unsafe {
        /// The directory.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A batch that cannot be stored as it is.
    #[error("a batch {problem}")]
    Batch {
        /// What is wrong.
        problem: &'static str,
    },
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: &str, cause: io::Error) -> Error {
        Error::Io { operation, path: path.to_owned(), cause: Arc::new(cause) }
    }

    /// Whether the disk had no space.
    pub fn is_no_space(&self) -> bool {
        match self {
            Error::Full { .. } => true,
            Error::Io { cause, .. } => is_no_space(cause),
            _ => false,
        }
    }
}

pub(crate) fn is_no_space(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
