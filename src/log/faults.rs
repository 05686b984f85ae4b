//! What the storage's errors are called in metrics: words of a fixed set.

use std::io::ErrorKind;

use tidings_storage::Error;

/// What was being done, and what was wrong.
pub(super) fn op_and_kind(error: &Error) -> (&'static str, &'static str) {
    let op = match error {
        Error::Io { operation: "sync", .. } => "sync",
        Error::Io { operation: "write", .. } => "write",
        _ => "other",
    };
    (op, kind(error))
}

/// What was wrong.
pub(super) fn kind(error: &Error) -> &'static str {
    match error {
        Error::Io { cause, .. } => match cause.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "no_space",
            ErrorKind::ReadOnlyFilesystem => "read_only",
            _ => "io",
        },
        Error::Full { .. } => "no_space",
        Error::Corrupt { .. } => "corrupt",
        Error::Missing { .. } => "missing",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use super::*;

    #[test]
    fn a_failed_sync_is_told_from_a_full_disk() {
        let failed = |operation, kind: ErrorKind| Error::Io {
            operation,
            path: "x".to_owned(),
            cause: Arc::new(io::Error::from(kind)),
        };
        assert_eq!(op_and_kind(&failed("sync", ErrorKind::Other)), ("sync", "io"));
        assert_eq!(op_and_kind(&failed("write", ErrorKind::StorageFull)), ("write", "no_space"));
        assert_eq!(op_and_kind(&failed("make", ErrorKind::ReadOnlyFilesystem)).1, "read_only");
    }
}
