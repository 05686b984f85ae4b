//! The documents of the doors, for tools that read them.
//!
//! - They are the same for everybody and hold nothing of anybody: no token is needed.
//! - They change with the broker alone: whoever has one may ask whether it is still the same. In another coding it is
//!   another one (RFC 9110 §8.8.3.3).
//! - They are compressed once.

use std::{hash::Hasher, sync::OnceLock};

use bytes::Bytes;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderValue},
};
use siphasher::sip::SipHasher13;
use tidings_proto::documents;

use super::{Body, Call, headers, respond};
use crate::{
    net::{coding::Coding, problem::Refusal},
    session::internal,
};

/// A document and what it is in each coding, once somebody has asked.
struct Document {
    text: &'static str,
    coded: [OnceLock<Option<Bytes>>; Coding::ALL.len()],
}

static OPENAPI: Document = Document::new(documents::OPENAPI);
static ASYNCAPI: Document = Document::new(documents::ASYNCAPI);

impl Document {
    const fn new(text: &'static str) -> Document {
        Document { text, coded: [const { OnceLock::new() }; Coding::ALL.len()] }
    }

    /// It in this coding. A few milliseconds, once.
    fn coded(&self, coding: Coding) -> Option<Bytes> {
        let place = Coding::ALL.into_iter().zip(&self.coded).find(|(of, _)| *of == coding)?.1;
        place.get_or_init(|| coding.compress(self.text.as_bytes()).map(Bytes::from)).clone()
    }
}

/// `GET /v1/openapi.json`.
pub(super) fn openapi(call: &Call) -> Result<Response<Body>, Refusal> {
    call.query(&[])?;
    answer(&call.head.headers, call.wish.coding, &OPENAPI)
}

/// `GET /v1/asyncapi.json`.
pub(super) fn asyncapi(call: &Call) -> Result<Response<Body>, Refusal> {
    call.query(&[])?;
    answer(&call.head.headers, call.wish.coding, &ASYNCAPI)
}

/// The document, or that it is the one the client has (RFC 9110 §13.1.2).
fn answer(
    asked: &HeaderMap,
    coding: Option<Coding>,
    document: &Document,
) -> Result<Response<Body>, Refusal> {
    let coded = coding.and_then(|coding| Some((coding, document.coded(coding)?)));
    let tag = tag(document.text, coded.as_ref().map(|(coding, _)| *coding));
    let is_same = |known: &str| known == "*" || known.trim_start_matches("W/") == tag;
    let is_known = headers::elements(asked, &header::IF_NONE_MATCH).any(is_same);
    let coding = coded.as_ref().map(|(coding, _)| HeaderValue::from_static(coding.as_str()));
    let bytes = coded.map_or(Bytes::from_static(document.text.as_bytes()), |(_, bytes)| bytes);
    let mut response = match is_known {
        true => Response::new(Body::full(Bytes::new())),
        false => respond::json(StatusCode::OK, bytes),
    };
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let tag = HeaderValue::from_str(&tag).map_err(|error| internal(&error.to_string()))?;
    let headers = response.headers_mut();
    if let Some(coding) = coding.filter(|_| !is_known) {
        headers.insert(header::CONTENT_ENCODING, coding);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(header::ETAG, tag);
    // It may be kept, and is asked for again before it is used.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// Names what the document says, and in which coding.
fn tag(document: &str, coding: Option<Coding>) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(document.as_bytes());
    let hash = hasher.finish();
    match coding {
        None => format!("\"{hash:016x}\""),
        Some(coding) => format!("\"{hash:016x}-{}\"", coding.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(known: &str, coding: Option<Coding>) -> Response<Body> {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(known).unwrap());
        answer(&headers, coding, &OPENAPI).map_err(|_| "refused").unwrap()
    }

    #[test]
    fn who_has_the_document_in_this_coding_is_told_so() {
        for coding in [None, Some(Coding::Gzip), Some(Coding::Brotli)] {
            let tag = tag(OPENAPI.text, coding);
            for known in ["*".to_owned(), tag.clone(), format!("\"x\", W/{tag}")] {
                let answer = asked(&known, coding);
                assert_eq!(answer.status(), 304, "{known}");
                assert_eq!(answer.headers()["etag"], tag);
                assert_eq!(answer.headers()["vary"], "Accept-Encoding");
                assert!(!answer.headers().contains_key("content-encoding"));
            }
            let zstd = super::tag(OPENAPI.text, Some(Coding::Zstd));
            let other = super::tag(ASYNCAPI.text, coding);
            for other in [zstd, other, "\"\"".to_owned(), tag.replace('"', "")] {
                let answer = asked(&other, coding);
                assert_eq!(answer.status(), 200, "{other}");
                assert_eq!(answer.headers()["etag"], tag);
                assert_eq!(answer.headers()["content-type"], "application/json");
                assert_eq!(answer.headers()["vary"], "Accept-Encoding");
                let name = answer.headers().get("content-encoding");
                let want = coding.map(Coding::as_str);
                assert_eq!(name.map(|name| name.to_str().unwrap()), want);
            }
        }
    }
}
