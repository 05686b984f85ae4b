//! From what the rooms below say to what the wire says: one exhaustive match an operation.

use tidings_proto::{Code, LogId, WireError};

use crate::{
    auth::AuthError,
    broker::{
        AccessError, RetentionError,
        error::{AckError, AppendError, CancelError, PublishError, ReadError, SubscribeError},
    },
    clock,
};

/// What a client waits before it tries again when the broker cannot take more, in milliseconds.
const RETRY_MS: (u64, u64) = (500, 1500);

pub(crate) fn of_append(error: &AppendError) -> WireError {
    let code = match error {
        AppendError::Unexpected { .. }
        | AppendError::IdReused { .. }
        | AppendError::PartlyDuplicate
        | AppendError::TwiceInBatch(_) => Code::Conflict,
        AppendError::TooLarge { .. } => Code::TooLarge,
        AppendError::Busy
        | AppendError::Full
        | AppendError::Latched(_)
        | AppendError::Closed
        | AppendError::Indeterminate => Code::Unavailable,
    };
    with_retry(WireError::new(code, error.to_string()))
}

pub(crate) fn of_publish(error: &PublishError) -> WireError {
    match error {
        PublishError::Append(error) => of_append(error),
        PublishError::EmptyBatch | PublishError::Invalid { .. } => {
            WireError::invalid(error.to_string())
        }
        PublishError::TooManyScheduled { .. } => WireError::new(Code::TooLarge, error.to_string()),
        PublishError::Cancelled { .. } => WireError::new(Code::Conflict, error.to_string()),
        PublishError::Read(error) => of_read(error),
    }
}

pub(crate) fn of_cancel(error: &CancelError) -> WireError {
    match error {
        CancelError::Unknown(_) => WireError::new(Code::NotFound, error.to_string()),
        CancelError::TooLate { .. } | CancelError::Ending(_) => {
            WireError::new(Code::Conflict, error.to_string())
        }
        CancelError::Append(error) => of_append(error),
        CancelError::Read(error) => of_read(error),
    }
}

pub(crate) fn of_read(error: &ReadError) -> WireError {
    match error {
        ReadError::Closed => with_retry(WireError::new(Code::Unavailable, error.to_string())),
        ReadError::Gone(_) => WireError::new(Code::OffsetGone, error.to_string()),
        ReadError::Storage(_) | ReadError::Damaged(_) => internal(&error.to_string()),
    }
}

pub(crate) fn of_subscribe(error: &SubscribeError, log: LogId) -> WireError {
    match error {
        SubscribeError::Invalid { .. } => WireError::invalid(error.to_string()),
        SubscribeError::Conflict { .. } | SubscribeError::GoneOn { .. } => {
            WireError::new(Code::Conflict, error.to_string())
        }
        SubscribeError::TooMany { .. } | SubscribeError::TooManyMembers { .. } => {
            WireError::new(Code::TooLarge, error.to_string())
        }
        SubscribeError::TooManySlots { .. } => {
            with_retry(WireError::new(Code::Unavailable, error.to_string()))
        }
        SubscribeError::Unknown(_) => WireError::new(Code::NotFound, error.to_string()),
        SubscribeError::Gone { first, last, .. } | SubscribeError::OtherLog { first, last, .. } => {
            WireError {
                first: Some(*first),
                last: Some(*last),
                log: Some(log),
                ..WireError::new(Code::OffsetGone, error.to_string())
            }
        }
        SubscribeError::Read(error) => of_read(error),
        SubscribeError::Append(error) => of_append(error),
    }
}

pub(crate) fn of_ack(error: &AckError) -> WireError {
    match error {
        AckError::NotDurable
        | AckError::NotCumulative
        | AckError::AboveLast { .. }
        | AckError::TooLong { .. } => WireError::invalid(error.to_string()),
        AckError::TooManyRanges { .. } => WireError::new(Code::TooLarge, error.to_string()),
        AckError::Unknown(_) => WireError::new(Code::NotFound, error.to_string()),
        AckError::Reset | AckError::Mirror => WireError::new(Code::Conflict, error.to_string()),
        AckError::Append(error) => of_append(error),
        AckError::Read(error) => of_read(error),
    }
}

pub(crate) fn of_retention(error: &RetentionError) -> WireError {
    match error {
        RetentionError::TooMany => WireError::new(Code::TooLarge, error.to_string()),
        RetentionError::Append(error) => of_append(error),
        RetentionError::Storage(_) => internal(&error.to_string()),
    }
}

pub(crate) fn of_auth(error: &AuthError) -> WireError {
    match error {
        AuthError::Missing
        | AuthError::Token(_)
        | AuthError::ApiKey(_)
        | AuthError::Revoked
        | AuthError::Ticket => WireError::new(Code::Unauthenticated, error.to_string()),
    }
}

pub(crate) fn of_access(error: &AccessError) -> WireError {
    match error {
        AccessError::TooManyRevocations | AccessError::TooManyKeys => {
            WireError::new(Code::TooLarge, error.to_string())
        }
        AccessError::Append(error) => of_append(error),
        AccessError::Unstored(_) => {
            with_retry(WireError::new(Code::Unavailable, error.to_string()))
        }
    }
}

/// A bug or a broken disk: logged under an id that the answer carries, and no more than that is told.
pub(crate) fn internal(what: &str) -> WireError {
    let id = clock::session_id();
    tracing::error!(%id, what, "internal error");
    WireError::new(
        Code::Internal,
        format!("the broker could not do it; its log says why under {id}"),
    )
}

/// What somebody is told for whose large answer there is no room.
pub(crate) fn no_room() -> WireError {
    let text = "too many large answers wait for their readers: try again, or ask for less";
    let error = WireError::new(Code::Unavailable, text);
    error.retry_after_ms(1000 * clock::random_between(1, 5))
}

fn with_retry(error: WireError) -> WireError {
    match error.retryable {
        true => error.retry_after_ms(clock::random_between(RETRY_MS.0, RETRY_MS.1)),
        false => error,
    }
}
