//! From an HTTP request to a WebSocket (RFC 6455 §4.2).
//!
//! - Everything about the handshake is checked here, before the connection changes hands.
//! - The socket keeps its connection's place under the cap.

use std::sync::Arc;

use base64::Engine;
use hyper::{
    HeaderMap, Request, Response, StatusCode, Version,
    body::Incoming,
    header::{self, HeaderValue},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use tidings_proto::{Filters, SubscribeOptions, WireError, subscribe::After};

use super::{
    Body, Caller, headers,
    query::{self, Query, TICKET},
    routes::Route,
    stopping,
};
use crate::{
    net::{
        Door,
        problem::Refusal,
        voice::Voice,
        websocket::{self, Start},
    },
    session::{House, conversation::Proof, encoding::Encoding, parse_filter},
};

const VERSION: HeaderValue = HeaderValue::from_static("13");

/// Answers `GET /v1/ws` and `GET /v1/ws/{filter}`.
pub(super) fn answer(
    door: &Arc<Door>,
    caller: Caller,
    mut request: Request<Incoming>,
    route: Route,
    name: &str,
) -> Result<Response<Body>, Refusal> {
    check(&request)?;
    let encoding = encoding(request.headers())?;
    let subscribe = subscribe(route, name, request.uri().query())?;
    if door.house.stop.is_cancelled() {
        return Err(Refusal::from(stopping()).closing());
    }
    let proof = proof(&door.house, &caller, &request)?;
    let upgrade = hyper::upgrade::on(&mut request);
    // For its answer alone: the connection is taken over here.
    let (answer, _) = fastwebsockets::upgrade::upgrade(&mut request)
        .map_err(|error| WireError::invalid(format!("handshake: {error}")))?;
    let (mut head, _) = answer.into_parts();
    if let Some(encoding) = encoding {
        let chosen = HeaderValue::from_static(encoding.subprotocol());
        head.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    let tracker = caller.tracker.clone();
    let encoding = encoding.unwrap_or_default();
    tracker.spawn(take_over(upgrade, caller, door.house.clone(), proof, encoding, subscribe));
    Ok(Response::from_parts(head, Body::full(Vec::new())))
}

async fn take_over(
    upgrade: OnUpgrade,
    caller: Caller,
    house: Arc<House>,
    proof: Option<Proof>,
    encoding: Encoding,
    subscribe: Option<Box<SubscribeOptions>>,
) {
    let peer = caller.peer;
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(%peer, %error, "the connection ended before it was a socket");
            return;
        }
    };
    match upgraded.downcast::<TokioIo<Voice>>() {
        Ok(parts) => {
            let (stream, leftover) = (parts.io.into_inner().into_inner(), parts.read_buf);
            let Caller { place, tracker, guest, .. } = caller;
            let start = Start { stream, leftover, house, proof, encoding, subscribe, guest, place };
            // In a task of its own: what the handshake needed is not kept as long as the socket.
            tracker.spawn(websocket::run(start));
        }
        Err(_) => tracing::error!(%peer, "an upgraded connection is none of ours"),
    }
}

fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    if request.version() != Version::HTTP_11 {
        return Err(invalid("it needs HTTP/1.1"));
    }
    if !fastwebsockets::upgrade::is_upgrade_request(request) {
        let refusal = upgrade_required("this path is a WebSocket's: open it with one");
        return Err(refusal
            .header(header::CONNECTION, HeaderValue::from_static("upgrade"))
            .header(header::UPGRADE, HeaderValue::from_static("websocket")));
    }
    let mut versions = headers.get_all(header::SEC_WEBSOCKET_VERSION).iter();
    if versions.next() != Some(&VERSION) || versions.next().is_some() {
        let refusal = upgrade_required("sec-websocket-version: it must be 13");
        return Err(refusal.header(header::SEC_WEBSOCKET_VERSION, VERSION));
    }
    if !is_key(headers) {
        return Err(invalid("sec-websocket-key: it must be 16 bytes in Base64, once"));
    }
    let has_length = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_length || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(invalid("it has no body"));
    }
    Ok(())
}

fn is_key(headers: &HeaderMap) -> bool {
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else { return false };
    let decoded = base64::engine::general_purpose::STANDARD.decode(key.as_bytes());
    decoded.is_ok_and(|bytes| bytes.len() == 16)
}

/// A request that misunderstands what a handshake is: nothing more is read from its connection.
fn invalid(text: &str) -> Refusal {
    Refusal::from(WireError::invalid(format!("handshake: {text}"))).closing()
}

fn upgrade_required(text: &str) -> Refusal {
    Refusal::with_status(StatusCode::UPGRADE_REQUIRED, WireError::invalid(text))
}

/// The encoding of the subprotocol that we like best of those offered; `None` when none was offered,
/// which means JSON.
fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>, Refusal> {
    let offered: Vec<_> = headers::elements(headers, &header::SEC_WEBSOCKET_PROTOCOL).collect();
    if offered.is_empty() {
        return Ok(None);
    }
    let spoken = Encoding::ALL.into_iter().find(|it| offered.contains(&it.subprotocol()));
    spoken.map(Some).ok_or_else(|| {
        let names = Encoding::ALL.map(Encoding::subprotocol).join(", ");
        invalid(&format!("sec-websocket-protocol: this broker speaks {names}"))
    })
}

/// What the request shows: a token, or a ticket, which is used up by it.
fn proof<B>(
    house: &House,
    caller: &Caller,
    request: &Request<B>,
) -> Result<Option<Proof>, WireError> {
    let token = headers::bearer(request.headers())?;
    match query::ticket(request.uri().query()) {
        None => Ok(token.map(|token| Proof::Token(token.to_owned()))),
        Some(_) if token.is_some() => Err(query::two_proofs()),
        Some(ticket) => Ok(Some(Proof::Ticket(house.redeem(ticket, &caller.guest)?))),
    }
}

/// What the socket is subscribed to from its beginning.
fn subscribe(
    route: Route,
    name: &str,
    query: Option<&str>,
) -> Result<Option<Box<SubscribeOptions>>, WireError> {
    if route != Route::FilterSocket {
        Query::parse(query, &[TICKET])?;
        return Ok(None);
    }
    let query = Query::parse(query, &["after", TICKET])?;
    let filters = Filters::one(parse_filter("filter", name)?);
    let after = query.after()?.map(After);
    Ok(Some(Box::new(SubscribeOptions { after, ..SubscribeOptions::to(filters) })))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 5] = [
        ("host", "a"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn request(but: Option<(&str, &str)>) -> Request<()> {
        let mut request = Request::builder();
        for (name, value) in GOOD {
            match but {
                Some((changed, other)) if changed == name => request = request.header(name, other),
                _ => request = request.header(name, value),
            }
        }
        request.body(()).unwrap()
    }

    fn status(but: (&str, &str)) -> u16 {
        check(&request(Some(but))).unwrap_err().into_response().status().as_u16()
    }

    #[test]
    fn a_handshake_is_whole_or_refused() {
        assert!(check(&request(None)).is_ok());
        assert_eq!(status(("connection", "keep-alive")), 426);
        assert_eq!(status(("upgrade", "h2c")), 426);
        assert_eq!(status(("sec-websocket-version", "8")), 426);
        assert_eq!(status(("sec-websocket-key", "c2hvcnQ=")), 400);
        assert_eq!(status(("sec-websocket-key", "not base64 at all")), 400);
        let mut with_body = request(None);
        with_body.headers_mut().insert("content-length", HeaderValue::from_static("5"));
        assert!(check(&with_body).is_err());
        let refused = check(&request(Some(("sec-websocket-version", "8")))).unwrap_err();
        assert_eq!(refused.into_response().headers()["sec-websocket-version"], "13");
    }

    #[test]
    fn the_subprotocol_is_ours_or_none() {
        let offered = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(text));
            encoding(&headers)
        };
        assert_eq!(encoding(&HeaderMap::new()).unwrap(), None);
        assert_eq!(offered("x, tidings.v1.json").unwrap(), Some(Encoding::Json));
        for (offer, chosen) in [
            ("tidings.v1.json, tidings.v1.msgpack, tidings.v1.protobuf", Encoding::Protobuf),
            ("tidings.v1.json, tidings.v1.msgpack", Encoding::MessagePack),
        ] {
            assert_eq!(offered(offer).unwrap(), Some(chosen), "whatever the client's order");
        }
        assert_eq!(offered("tidings.v2.json").unwrap_err().into_response().status(), 400);
    }

    #[test]
    fn a_filter_in_the_path_subscribes() {
        let options = subscribe(Route::FilterSocket, "tasks.>", Some("after=57")).unwrap().unwrap();
        assert_eq!(options.filters.iter().next().unwrap().as_str(), "tasks.>");
        assert_eq!(options.after.unwrap().0.to_string(), "57");
        assert_eq!(subscribe(Route::Socket, "", None).unwrap(), None);
        assert!(subscribe(Route::Socket, "", Some("after=1")).is_err());
        assert!(subscribe(Route::FilterSocket, "a..b", None).is_err());
        let error = subscribe(Route::FilterSocket, "a", Some("token=x")).unwrap_err();
        assert!(error.message.starts_with("token: "));
    }
}
