//! How a command ended: its exit code, and the one line on stderr that says why.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | ok, also when the reader of stdout has gone |
//! | 1 | failed |
//! | 2 | usage: what was given does not fit |
//! | 3 | not found, a sealing key too |
//! | 4 | denied |
//! | 5 | unavailable, or no answer in time |
//! | 6 | conflict |
//! | 7 | data corrupt, or an event that does not open |
//! | 75 | another process has the data directory |

use std::{process::ExitCode, time::Duration};

use tidings_proto::Code;
use tidings_storage::Error as StorageError;

use crate::{client, config::ConfigError, server::StartError};

/// What was given does not fit.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

impl Usage {
    /// This text as the error of a command.
    pub fn error(text: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Usage(text.into()))
    }
}

/// What was asked for is not there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(pub &'static str);

/// Stored data is damaged.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Corrupt(pub String);

/// The reader of stdout has gone.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub struct HungUp;

/// It took too long.
#[derive(Debug, thiserror::Error)]
#[error("{what} within {}: see --timeout", humantime::format_duration(*.wait))]
pub struct TimedOut {
    /// What did not happen.
    pub what: &'static str,
    /// How long was waited.
    pub wait: Duration,
}

/// The broker has not answered all of a load.
#[derive(Debug, thiserror::Error)]
#[error("the broker has not answered everything within {}", humantime::format_duration(*.wait))]
pub struct Unanswered {
    /// How long was waited.
    pub wait: Duration,
}

/// The broker does not take publishes, or is not one.
#[derive(Debug, thiserror::Error)]
#[error("the broker is not ready (HTTP {status}): {said}")]
pub struct Unready {
    /// The HTTP status.
    pub status: u16,
    /// What it said.
    pub said: String,
}

/// Says why a command failed, and gives its exit code.
pub fn code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<HungUp>() => ExitCode::SUCCESS,
        Err(error) => {
            super::to_stderr(&describe(&error));
            ExitCode::from(number(&error))
        }
    }
}

/// What happened and its causes; a cause that the text before it has already said is left out.
fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// The exit code of an error: what the first cause that is known here says.
fn number(error: &anyhow::Error) -> u8 {
    // What was added as context is not in the chain under its own type.
    if error.is::<NotFound>() {
        return 3;
    }
    error.chain().find_map(known).unwrap_or(1)
}

fn known(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<Usage>() || cause.is::<ConfigError>() {
        return Some(2);
    }
    if cause.is::<NotFound>() {
        return Some(3);
    }
    if cause.is::<TimedOut>() || cause.is::<Unready>() || cause.is::<Unanswered>() {
        return Some(5);
    }
    if cause.is::<Corrupt>() {
        return Some(7);
    }
    if let Some(error) = cause.downcast_ref() {
        return Some(of_open(error));
    }
    if let Some(error) = cause.downcast_ref::<client::Error>() {
        return Some(of_client(error));
    }
    if let Some(StartError::Storage(error)) = cause.downcast_ref::<StartError>() {
        return Some(of_storage(error));
    }
    cause.downcast_ref::<StorageError>().map(of_storage)
}

fn of_storage(error: &StorageError) -> u8 {
    match error {
        StorageError::Corrupt { .. } | StorageError::Missing { .. } => 7,
        StorageError::Locked { .. } => 75,
        _ => 1,
    }
}

fn of_client(error: &client::Error) -> u8 {
    match error {
        client::Error::Refused(error) => match error.code {
            Code::InvalidArgument | Code::TooLarge | Code::UnsupportedMediaType => 2,
            Code::NotFound | Code::OffsetGone => 3,
            Code::Unauthenticated | Code::PermissionDenied => 4,
            Code::RateLimited | Code::Unavailable => 5,
            Code::Conflict => 6,
            Code::Internal => 1,
        },
        client::Error::Url { .. } | client::Error::Certificates { .. } => 2,
        client::Error::Untrusted { .. } => 4,
        client::Error::Unreachable { .. }
        | client::Error::Timeout { .. }
        | client::Error::NoReply { .. } => 5,
        client::Error::ClosedByBroker { code: 4503, .. } => 4,
        _ => 1,
    }
}

fn of_open(error: &client::sealed::OpenError) -> u8 {
    match error {
        client::sealed::OpenError::UnknownKey { .. } => 3,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use tidings_proto::WireError;

    use super::{client::sealed::OpenError, *};

    fn refused(code: Code) -> anyhow::Error {
        client::Error::Refused(Box::new(WireError::new(code, "why"))).into()
    }

    fn locked() -> StorageError {
        StorageError::Locked { path: "data".to_owned(), holder: "process 1".to_owned() }
    }

    fn not_open(why: impl Fn(tidings_proto::Offset) -> OpenError) -> anyhow::Error {
        why(tidings_proto::Offset::FIRST).into()
    }

    #[test]
    fn errors_have_the_documented_codes() {
        for (error, code) in [
            (refused(Code::NotFound), 3),
            (refused(Code::PermissionDenied).context("line 7"), 4),
            (refused(Code::Unavailable), 5),
            (refused(Code::Conflict), 6),
            (Usage::error("no"), 2),
            (anyhow::Error::new(Corrupt("file".to_owned())), 7),
            (TimedOut { what: "nothing", wait: Duration::from_secs(1) }.into(), 5),
            (Unanswered { wait: Duration::from_secs(1) }.into(), 5),
            (not_open(OpenError::NotSealed), 7),
            (not_open(|offset| OpenError::UnknownKey { offset, key: String::new() }), 3),
            (locked().into(), 75),
            (anyhow::Error::new(StartError::Storage(locked())).context("it does not open"), 75),
            (anyhow::anyhow!("something else"), 1),
            (anyhow::anyhow!("cause").context(NotFound("nothing there")), 3),
        ] {
            assert_eq!(number(&error), code, "{error:#}");
        }
        let missing: anyhow::Result<()> = Err(Usage::error("no")).context("while parsing");
        assert_eq!(number(&missing.unwrap_err()), 2);
    }

    #[test]
    fn an_error_says_what_happened_once() {
        assert_eq!(describe(&refused(Code::Conflict)), "conflict: why");
        let io = || std::io::Error::new(std::io::ErrorKind::NotFound, "not there");
        let config = ConfigError::File { path: "f".to_owned(), cause: io() };
        assert_eq!(describe(&config.into()).matches("not there").count(), 1);
        let context = anyhow::Error::new(io()).context("cannot read it");
        assert_eq!(describe(&context), "cannot read it: not there");
    }
}
