//! What goes wrong, as the wire says it: a [`Code`] that programs act on and a text that people read.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::LogId;

/// The kinds of error; the whole set is part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Malformed message, topic, filter or option; the text names the field and what it should be.
    InvalidArgument,
    /// No token, a bad one or an expired one.
    Unauthenticated,
    /// The grants don't cover it.
    PermissionDenied,
    /// No such subscription or route, or an offset not yet written.
    NotFound,
    /// An expectation did not hold, or the same name or id was used with other content.
    Conflict,
    /// Below the first offset there is, or of another log.
    OffsetGone,
    /// Over a limit in bytes or count.
    TooLarge,
    /// A content type that this call does not take.
    UnsupportedMediaType,
    /// Too much in too short a time.
    RateLimited,
    /// Shutting down, or the storage refuses writes.
    Unavailable,
    /// A bug of the broker.
    Internal,
}

impl Code {
    /// All codes, in the order of the protocol.
    pub const ALL: [Code; 11] = [
        Code::InvalidArgument,
        Code::Unauthenticated,
        Code::PermissionDenied,
        Code::NotFound,
        Code::Conflict,
        Code::OffsetGone,
        Code::TooLarge,
        Code::UnsupportedMediaType,
        Code::RateLimited,
        Code::Unavailable,
        Code::Internal,
    ];

    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::InvalidArgument => "invalid_argument",
            Code::Unauthenticated => "unauthenticated",
            Code::PermissionDenied => "permission_denied",
            Code::NotFound => "not_found",
            Code::Conflict => "conflict",
            Code::OffsetGone => "offset_gone",
            Code::TooLarge => "too_large",
            Code::UnsupportedMediaType => "unsupported_media_type",
            Code::RateLimited => "rate_limited",
            Code::Unavailable => "unavailable",
            Code::Internal => "internal",
        }
    }

    /// The HTTP status that says the same (RFC 9110 §15).
    pub const fn http_status(self) -> u16 {
        match self {
            Code::InvalidArgument => 400,
            Code::Unauthenticated => 401,
            Code::PermissionDenied => 403,
            Code::NotFound => 404,
            Code::Conflict => 409,
            Code::OffsetGone => 410,
            Code::TooLarge => 413,
            Code::UnsupportedMediaType => 415,
            Code::RateLimited => 429,
            Code::Unavailable => 503,
            Code::Internal => 500,
        }
    }

    /// Whether the same request may succeed later without being changed.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Code::RateLimited | Code::Unavailable)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct WireError {
    /// What programs act on.
    pub code: Code,
    /// What happened, the value, what to do.
    pub message: String,
    /// Whether the same request may succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// How long to wait before that, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// With [`Code::OffsetGone`]: the first offset there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// With [`Code::OffsetGone`]: the last offset there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// With [`Code::OffsetGone`]: the log these offsets belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogId>,
}

impl WireError {
    /// An error of this code with this text; retryable when its code is.
    pub fn new(code: Code, message: impl Into<String>) -> WireError {
        WireError {
            code,
            message: message.into(),
            retryable: code.is_retryable(),
            retry_after_ms: None,
            first: None,
            last: None,
            log: None,
        }
    }

    /// [`Code::InvalidArgument`] with this text, which should begin with the name of the field.
    pub fn invalid(message: impl Into<String>) -> WireError {
        WireError::new(Code::InvalidArgument, message)
    }

    /// The same error with the time to wait before another try, in milliseconds.
    #[must_use]
    pub fn retry_after_ms(mut self, ms: u64) -> WireError {
        self.retry_after_ms = Some(ms);
        self
    }
}
