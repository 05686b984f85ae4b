//! Answers compressed, as `Accept-Encoding` says (RFC 9110 §12.5.3).
//!
//! - Never a stream, whose events would come late; never an answer with a secret in it; never one that is small, or that
//!   would gain less than a tenth, unless the client refuses plain ones.
//! - A client that says nothing gets plain answers. One that refuses all we could send gets them too: an answer that it
//!   may not understand is better than none.
//! - Large answers are compressed on the blocking pool, by as many at a time as there are processors; while all of
//!   them are busy, answers go out as they are.

use bytes::Bytes;
use hyper::{
    HeaderMap, Response,
    header::{self, HeaderValue},
};

use super::{Body, headers};
use crate::{
    metrics,
    net::{
        Door,
        coding::{Coding, Codings},
    },
};

/// Smaller answers fit into one packet as they are.
const BYTES_MIN: usize = 1024;
/// Larger ones are compressed on the blocking pool: these take less than a millisecond.
const HERE_BYTES_MAX: usize = 32 * 1024;
/// What an answer must save: one part in this many.
const WORTH: usize = 10;

/// What a client wants of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// The coding that it likes best, of those we use; `None` where it likes plain answers as well or better.
    pub(super) coding: Option<Coding>,
    /// It refuses plain ones.
    only: bool,
}

impl Wish {
    /// What these headers say.
    pub(super) fn of(headers: &HeaderMap, codings: &Codings) -> Wish {
        let listed: Vec<(&str, u16)> =
            headers::elements(headers, &header::ACCEPT_ENCODING).map(weighed).collect();
        let named = |wanted: &dyn Fn(&str) -> bool| {
            let found = listed.iter().find(|(name, _)| wanted(name));
            found.map(|(_, weight)| *weight)
        };
        let any = named(&|name| name == "*");
        let plain = named(&|name| name.eq_ignore_ascii_case("identity"));
        let mut best: Option<(Coding, u16)> = None;
        for coding in codings.iter() {
            let weight = named(&|name| Coding::named(name) == Some(coding)).or(any).unwrap_or(0);
            if weight > best.map_or(0, |(_, best)| best) {
                best = Some((coding, weight));
            }
        }
        let coding = best.filter(|(_, weight)| plain.is_none_or(|plain| *weight >= plain));
        Wish { coding: coding.map(|(coding, _)| coding), only: plain.or(any) == Some(0) }
    }
}

/// An element of a list and its weight in thousandths; one that makes no sense is none.
fn weighed(element: &str) -> (&str, u16) {
    let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
    (name.trim(), headers::weight(parameters))
}

/// The answer, compressed where it is wanted and worth it.
pub(super) async fn encode(door: &Door, wish: Wish, response: Response<Body>) -> Response<Body> {
    let is_coded = response.headers().contains_key(header::CONTENT_ENCODING);
    let least = if wish.only { 1 } else { BYTES_MIN };
    let plain = match response.body().bytes() {
        Some(bytes) if bytes.len() >= least && !is_coded => bytes.clone(),
        _ => return response,
    };
    let (mut head, body) = response.into_parts();
    // Also where it is plain: for another client it may not be.
    head.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let Some(coding) = wish.coding else { return Response::from_parts(head, body) };
    let bytes = plain.len();
    let is_worth_it = |coded: &Bytes| wish.only || coded.len() < bytes - bytes / WORTH;
    match compress(door, coding, plain).await.filter(is_worth_it) {
        None => Response::from_parts(head, body),
        Some(coded) => {
            metrics::http_coded(coding.as_str(), "out", bytes, coded.len());
            let name = HeaderValue::from_static(coding.as_str());
            head.headers.insert(header::CONTENT_ENCODING, name);
            Response::from_parts(head, Body::full(coded))
        }
    }
}

/// The bytes in this coding; `None` while everybody who compresses is busy.
async fn compress(door: &Door, coding: Coding, plain: Bytes) -> Option<Bytes> {
    if plain.len() <= HERE_BYTES_MAX {
        return coding.compress(&plain).map(Bytes::from);
    }
    let permit = door.coders.clone().try_acquire_owned().ok()?;
    let compressing = tokio::task::spawn_blocking(move || {
        // Given back when it is done, also where the client has gone meanwhile.
        let _permit = permit;
        coding.compress(&plain)
    });
    // It fails only while the broker stops.
    compressing.await.ok()?.map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(accept: &str, codings: &[&str]) -> (Option<&'static str>, bool) {
        let mut headers = HeaderMap::new();
        for line in accept.split('|').filter(|line| !line.is_empty()) {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap());
        }
        let wish = Wish::of(&headers, &Codings::parse(codings.iter().copied()).unwrap());
        (wish.coding.map(Coding::as_str), wish.only)
    }

    #[test]
    fn the_best_liked_coding_is_taken() {
        for (accept, want, only) in [
            ("", None, false),
            ("gzip", Some("gzip"), false),
            ("X-Gzip", Some("gzip"), false),
            ("gzip, deflate, br, zstd", Some("zstd"), false),
            ("gzip, br", Some("gzip"), false),
            ("br;q=1.0, gzip;q=0.8, *;q=0.1", Some("br"), false),
            ("gzip;q=0.3|br;q=0.4", Some("br"), false),
            ("deflate", None, false),
            ("identity", None, false),
            ("gzip;q=0", None, false),
            ("*", Some("zstd"), false),
            ("*, zstd;q=0", Some("gzip"), false),
            ("gzip;q=0.5, identity", None, false),
            ("gzip;q=0.5, identity;q=0.5", Some("gzip"), false),
            ("gzip;q=0.5, identity;q=0.4", Some("gzip"), false),
            ("identity;q=0", None, true),
            ("*;q=0", None, true),
            ("gzip, *;q=0", Some("gzip"), true),
            ("gzip, identity;q=0", Some("gzip"), true),
            ("gzip, identity;q=0.1, *;q=0", Some("gzip"), false),
            // What makes no sense is not liked.
            ("gzip;q=high", None, false),
            ("gzip;q=-1, br;q=nan, zstd;q=inf", None, false),
            ("br;Q=0.2, zstd; q = 0.1", Some("br"), false),
        ] {
            assert_eq!(wish(accept, &["zstd", "gzip", "br"]), (want, only), "{accept}");
        }
        assert_eq!(wish("gzip, br, zstd", &["br", "zstd"]), (Some("br"), false));
        assert_eq!(wish("gzip, br, zstd", &[]), (None, false));
    }
}
