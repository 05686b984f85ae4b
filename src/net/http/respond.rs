//! Answers: their body, and the shapes that all calls share.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Frame, SizeHint},
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;
use tidings_proto::{Cursor, LogId, WireError};

use crate::{
    net::{
        progress::{Busy, Over},
        sse::Stream,
    },
    session::internal,
};

/// The cursor behind what an answer holds.
pub(super) const TIDINGS_CURSOR: HeaderName = HeaderName::from_static("tidings-cursor");
/// The log that the cursor belongs to.
pub(super) const TIDINGS_LOG: HeaderName = HeaderName::from_static("tidings-log");

/// The body of an answer: some bytes, or a stream.
pub struct Body {
    content: Content,
    /// The request is over when the body is.
    _busy: Option<Busy>,
    over: Option<Over>,
}

enum Content {
    Full(Bytes),
    Secret(Bytes),
    Stream(Stream),
}

impl Body {
    /// These bytes.
    pub(in crate::net) fn full(bytes: impl Into<Bytes>) -> Body {
        Body::of(Content::Full(bytes.into()))
    }

    /// These bytes, which are never compressed: there is a secret among them, and how far it compresses would tell of it
    /// to whoever chooses what stands beside it and sees how long the answer is (BREACH).
    pub(super) fn secret(bytes: impl Into<Bytes>) -> Body {
        Body::of(Content::Secret(bytes.into()))
    }

    /// All of it, where it may be compressed.
    pub(super) fn bytes(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Full(bytes) => Some(bytes),
            Content::Secret(_) | Content::Stream(_) => None,
        }
    }

    /// What a stream says until it ends; its connection is cut when it is over and has not.
    pub(in crate::net) fn stream(stream: Stream, over: Option<Over>) -> Body {
        Body { over, ..Body::of(Content::Stream(stream)) }
    }

    fn of(content: Content) -> Body {
        Body { content, _busy: None, over: None }
    }

    /// When it may not go on; said once.
    pub(in crate::net) fn take_over(&mut self) -> Option<Over> {
        self.over.take()
    }

    /// Keeps the guard as long as the body.
    pub(in crate::net) fn hold(&mut self, busy: Busy) {
        self._busy = Some(busy);
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = match &mut self.content {
            Content::Full(bytes) | Content::Secret(bytes) => {
                Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty())
            }
            Content::Stream(stream) => ready!(stream.poll_chunk(cx)),
        };
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Full(bytes) | Content::Secret(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Full(bytes) | Content::Secret(bytes) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(0))
            }
            Content::Stream(_) => SizeHint::default(),
        }
    }
}

/// A JSON answer of these bytes.
pub(super) fn json(status: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    typed(status, "application/json", bytes)
}

/// An answer of these bytes and this content type.
pub(super) fn typed(
    status: StatusCode,
    content_type: &'static str,
    bytes: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON answer of what serde makes of a value.
pub(super) fn of<T: Serialize>(status: StatusCode, value: &T) -> Result<Response<Body>, WireError> {
    let bytes = serde_json::to_vec(value).map_err(|error| internal(&error.to_string()))?;
    Ok(json(status, bytes))
}

/// The same with a secret in it.
pub(super) fn secret<T: Serialize>(
    status: StatusCode,
    value: &T,
) -> Result<Response<Body>, WireError> {
    let bytes = serde_json::to_vec(value).map_err(|error| internal(&error.to_string()))?;
    Ok(json(status, Bytes::new()).map(|_| Body::secret(bytes)))
}

/// Says which cursor in which log stands behind the answer.
pub(in crate::net) fn place(headers: &mut HeaderMap, cursor: Cursor, log: LogId) {
    headers.insert(TIDINGS_CURSOR, HeaderValue::from(cursor.get()));
    if let Ok(log) = HeaderValue::from_str(&log.to_string()) {
        headers.insert(TIDINGS_LOG, log);
    }
}
