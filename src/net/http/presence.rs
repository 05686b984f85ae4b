//! Who is listed on a topic.

use hyper::{Response, StatusCode};

use super::{Body, Call, respond};
use crate::{
    net::problem::Refusal,
    session::{Transport, parse_topic},
};

/// `GET /v1/presence/{topic}`. Its cursor is where a reader of `$presence.{topic}` goes on.
pub(super) fn show(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let topic = parse_topic("topic", &call.name)?;
    let (presence, cursor) = session.presence(&topic)?;
    let mut response = respond::of(StatusCode::OK, &presence)?;
    let log = session.house().broker.log().id();
    respond::place(response.headers_mut(), cursor, log);
    Ok(response)
}
