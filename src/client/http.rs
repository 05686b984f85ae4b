//! Plain HTTP requests to the broker: [`HttpClient`], for what needs no socket.
//!
//! - One connection a request; an answer is bounded in bytes and in time.

use std::{fmt, io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{HeaderMap, Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tidings_proto::{Code, LogId, WireError};

use super::{Error, Options, dial::Dialer};

/// The most bytes an answer may have: a read of 1,000 events of 64 KiB.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Asks the broker over HTTP.
#[derive(Clone)]
pub struct HttpClient {
    dialer: Dialer,
    options: Options,
    timeout: Duration,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What the broker answered.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl HttpClient {
    /// A client for the broker that `options` name; an answer may take `timeout`.
    ///
    /// # Errors
    /// [`Error::Url`] when the address cannot be used.
    pub fn new(options: &Options, timeout: Duration) -> Result<HttpClient, Error> {
        let dialer = Dialer::new(options)?;
        Ok(HttpClient { dialer, options: options.clone(), timeout })
    }

    /// `GET` of a path such as `/v1/status`.
    ///
    /// # Errors
    /// When there is no answer; one that says no is an answer.
    pub async fn get(&self, path: &str) -> Result<HttpAnswer, Error> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// `POST` of a JSON body.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Result<HttpAnswer, Error> {
        self.send(Method::POST, path, &[JSON_BODY], body.into()).await
    }

    /// `PUT` of a JSON body.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn put(&self, path: &str, body: impl Into<Bytes>) -> Result<HttpAnswer, Error> {
        self.send(Method::PUT, path, &[JSON_BODY], body.into()).await
    }

    /// `DELETE` of a path.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn delete(&self, path: &str) -> Result<HttpAnswer, Error> {
        self.send(Method::DELETE, path, &[], Bytes::new()).await
    }

    /// Any request, with headers besides `Host` and `Authorization`.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<HttpAnswer, Error> {
        let exchange = self.exchange(method, path, headers, body);
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Timeout {
                url: self.dialer.endpoint.url.clone(),
                wait_ms: self.timeout.as_millis(),
            }),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<HttpAnswer, Error> {
        let lost = |cause: hyper::Error| self.unreachable(io::Error::other(cause));
        let stream = self.dialer.connect().await?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(lost)?;
        let request = self.request(method, path, headers, body)?;
        let exchange = async {
            let (head, body) = sender.send_request(request).await.map_err(lost)?.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|cause| match cause.is::<LengthLimitError>() {
                true => Error::Protocol(format!("an answer of more than {BODY_BYTES_MAX} bytes")),
                false => self.unreachable(io::Error::other(cause)),
            })?;
            let status = head.status.as_u16();
            Ok(HttpAnswer { status, headers: head.headers, body: body.to_bytes() })
        };
        // The connection moves the bytes; what it ends with, the exchange says too.
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            _ = connection => exchange.await,
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(self.dialer.endpoint.path(path))
            .header(header::HOST, &self.dialer.endpoint.authority)
            .header(header::CONNECTION, "close");
        if let Some(token) = &self.options.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body)).map_err(|_| Error::Url {
            url: format!("{}{path}", self.dialer.endpoint.url),
            problem: "path, header or token cannot stand in an HTTP request",
        })
    }

    fn unreachable(&self, cause: io::Error) -> Error {
        Error::unreachable(&self.dialer.endpoint.url, cause)
    }
}

impl HttpAnswer {
    /// The answer, if it says yes.
    ///
    /// # Errors
    /// [`Error::Refused`] with what the broker says instead.
    pub fn ok(self) -> Result<HttpAnswer, Error> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        Err(Error::refused(problem(self.status, &self.body)))
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// [`Error::Protocol`] when it is not what was expected.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Protocol(error.to_string()))
    }
}

const JSON_BODY: (&str, &str) = ("content-type", "application/json");

/// Problem details (RFC 9457) with the protocol's own members; all of it optional.
#[derive(Deserialize)]
struct Problem {
    code: Option<Code>,
    detail: Option<String>,
    title: Option<String>,
    retryable: Option<bool>,
    retry_after_ms: Option<u64>,
    first: Option<u64>,
    last: Option<u64>,
    log: Option<LogId>,
}

/// What a refusal of this status and body says.
fn problem(status: u16, body: &[u8]) -> WireError {
    let by_status = Code::ALL.into_iter().find(|code| code.http_status() == status);
    let fallback = by_status.unwrap_or(Code::Internal);
    let unreadable = || WireError::new(fallback, format!("HTTP status {status}"));
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else { return unreadable() };
    let code = problem.code.unwrap_or(fallback);
    let text = problem.detail.or(problem.title);
    WireError {
        retryable: problem.retryable.unwrap_or(code.is_retryable()),
        retry_after_ms: problem.retry_after_ms,
        first: problem.first,
        last: problem.last,
        log: problem.log,
        ..WireError::new(code, text.unwrap_or_else(|| format!("HTTP status {status}")))
    }
}

/// The text of a problem, if the body is one.
pub(super) fn text_of_problem(body: &[u8]) -> Option<String> {
    let problem: Problem = serde_json::from_slice(body).ok()?;
    problem.detail.or(problem.title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_becomes_the_same_error_as_on_the_socket() {
        let body = br#"{"type":"about:blank","title":"Conflict","status":409,"code":"conflict",
            "detail":"expect_last: it is 5"}"#;
        let error = problem(409, body);
        assert_eq!((error.code, error.message.as_str()), (Code::Conflict, "expect_last: it is 5"));
        assert_eq!(problem(503, b"<html>").code, Code::Unavailable);
        assert!(problem(503, b"<html>").retryable);
        assert_eq!(problem(418, b"").code, Code::Internal);
    }
}
