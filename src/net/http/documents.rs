//! The documents of the doors, for tools that read them.
//!
//! - They are the same for everybody and hold nothing of anybody: no token is needed.
//! - They change with the broker alone: whoever has one may ask whether it is still the same.

use std::hash::Hasher;

use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderValue},
};
use siphasher::sip::SipHasher13;
use tidings_proto::documents::{ASYNCAPI, OPENAPI};

use super::{Body, Call, headers, respond};
use crate::{net::problem::Refusal, session::internal};

/// `GET /v1/openapi.json`.
pub(super) fn openapi(call: &Call) -> Result<Response<Body>, Refusal> {
    call.query(&[])?;
    answer(&call.head.headers, OPENAPI)
}

/// `GET /v1/asyncapi.json`.
pub(super) fn asyncapi(call: &Call) -> Result<Response<Body>, Refusal> {
    call.query(&[])?;
    answer(&call.head.headers, ASYNCAPI)
}

/// The document, or that it is the one the client has (RFC 9110 §13.1.2).
fn answer(asked: &HeaderMap, document: &'static str) -> Result<Response<Body>, Refusal> {
    let tag = tag(document);
    let is_same = |known: &str| known == "*" || known.trim_start_matches("W/") == tag;
    let mut response = if headers::elements(asked, &header::IF_NONE_MATCH).any(is_same) {
        let mut unchanged = Response::new(Body::full(Vec::new()));
        *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
        unchanged
    } else {
        respond::json(StatusCode::OK, document)
    };
    let tag = HeaderValue::from_str(&tag).map_err(|error| internal(&error.to_string()))?;
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag);
    // It may be kept, and is asked for again before it is used.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// Names what the document says.
fn tag(document: &str) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(document.as_bytes());
    format!("\"{:016x}\"", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(known: &str) -> Response<Body> {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(known).unwrap());
        answer(&headers, OPENAPI).map_err(|_| "refused").unwrap()
    }

    #[test]
    fn who_has_the_document_is_told_so() {
        let tag = tag(OPENAPI);
        for known in ["*".to_owned(), tag.clone(), format!("\"x\", W/{tag}")] {
            let answer = asked(&known);
            assert_eq!(answer.status(), 304, "{known}");
            assert_eq!(answer.headers()["etag"], tag);
        }
        for other in [super::tag(ASYNCAPI), "\"\"".to_owned(), tag.replace('"', "")] {
            let answer = asked(&other);
            assert_eq!(answer.status(), 200, "{other}");
            assert_eq!(answer.headers()["etag"], tag);
            assert_eq!(answer.headers()["content-type"], "application/json");
        }
    }
}
