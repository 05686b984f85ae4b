//! Errors as HTTP says them: problem details (RFC 9457) with the protocol's code.
//!
//! - `type` is `about:blank`, so `title` is the status' own name; `code` is what programs act on.
//! - What the error knows beyond its text goes along: `retryable`, `retry_after_ms`, `first`,
//!   `last`, `log`.

use hyper::{
    Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;
use tidings_proto::{Code, LogId, WireError};

use super::http::Body;

/// An error with what HTTP adds to it.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: WireError,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: Code,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<LogId>,
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Refusal {
        let status = StatusCode::from_u16(error.code.http_status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Refusal { status, error, headers: Vec::new() }
    }
}

impl Refusal {
    /// An error under another status than its code's.
    pub(super) fn with_status(status: StatusCode, error: WireError) -> Refusal {
        Refusal { status, error, headers: Vec::new() }
    }

    /// What programs act on.
    pub(super) fn code(&self) -> Code {
        self.error.code
    }

    /// Its number and name.
    fn status(&self) -> (u16, &'static str) {
        (self.status.as_u16(), self.status.canonical_reason().unwrap_or("Error"))
    }

    /// When to come again: seconds, rounded up, so that nobody comes too early.
    fn retry_after_seconds(&self) -> u64 {
        self.error.retry_after_ms.unwrap_or(0).div_ceil(1000).max(1)
    }

    /// The same with a header more.
    #[must_use]
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Refusal {
        self.headers.push((name, value));
        self
    }

    /// The same, and the connection closes behind it.
    #[must_use]
    pub(super) fn closing(self) -> Refusal {
        self.header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// The answer.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::full(self.json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        if self.error.retry_after_ms.is_some() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after_seconds()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        headers.extend(self.headers);
        response
    }

    /// The whole answer as text, for where hyper does not write it; the connection closes behind it.
    pub(super) fn whole(self) -> String {
        let body = String::from_utf8(self.json()).unwrap_or_default();
        let (number, title) = self.status();
        let retry_after = match self.error.retry_after_ms {
            Some(_) => format!("retry-after: {}\r\n", self.retry_after_seconds()),
            None => String::new(),
        };
        format!(
            concat!(
                "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\n",
                "content-length: {}\r\n{}cache-control: no-store\r\n",
                "x-content-type-options: nosniff\r\nconnection: close\r\n\r\n{}"
            ),
            number,
            title,
            body.len(),
            retry_after,
            body
        )
    }

    fn json(&self) -> Vec<u8> {
        let problem = Problem {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.error.message,
            code: self.error.code,
            retryable: self.error.retryable,
            retry_after_ms: self.error.retry_after_ms,
            first: self.error.first,
            last: self.error.last,
            log: self.error.log,
        };
        // Texts and numbers only: it cannot fail.
        serde_json::to_vec(&problem).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_the_error_knows() {
        let error = WireError {
            first: Some(1001),
            last: Some(5000),
            log: Some(LogId::from_bytes([0x9f; 16])),
            ..WireError::new(Code::OffsetGone, "gone")
        };
        let refusal = Refusal::from(error);
        let want = concat!(
            r#"{"type":"about:blank","title":"Gone","status":410,"detail":"gone","#,
            r#""code":"offset_gone","retryable":false,"first":1001,"last":5000,"#,
            r#""log":"9f9f9f9f-9f9f-9f9f-9f9f-9f9f9f9f9f9f"}"#
        );
        assert_eq!(String::from_utf8(refusal.json()).unwrap(), want);
        let response = refusal.into_response();
        assert_eq!(response.status(), 410);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }

    #[test]
    fn waiting_is_told_in_whole_seconds_rounded_up() {
        for (ms, seconds) in [(1, "1"), (1000, "1"), (1001, "2"), (0, "1")] {
            let error = WireError::new(Code::Unavailable, "later").retry_after_ms(ms);
            let response = Refusal::from(error).into_response();
            assert_eq!(response.headers()["retry-after"], seconds, "{ms}");
        }
        let refused = Refusal::from(WireError::new(Code::Unauthenticated, "who?")).into_response();
        assert_eq!(refused.headers()["www-authenticate"], "Bearer");
        assert!(!refused.headers().contains_key("retry-after"));
    }

    #[test]
    fn a_status_of_its_own_keeps_the_code() {
        let error = WireError::invalid("body: too slow");
        let refusal = Refusal::with_status(StatusCode::REQUEST_TIMEOUT, error).closing();
        let problem: serde_json::Value = serde_json::from_slice(&refusal.json()).unwrap();
        assert_eq!(problem["status"], 408);
        assert_eq!(problem["title"], "Request Timeout");
        assert_eq!(problem["code"], "invalid_argument");
        assert_eq!(refusal.into_response().headers()["connection"], "close");
    }
}
