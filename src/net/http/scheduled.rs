//! Events that wait for their moment, over HTTP: cancelled.

use hyper::{Response, StatusCode};
use tidings_proto::{Placed, WireError};

use super::{Body, Call};
use crate::{net::problem::Refusal, session::Transport};

/// `DELETE /v1/scheduled/{offset}`.
pub(super) async fn cancel(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let placed: Placed = call.name.parse().map_err(|_| {
        WireError::invalid("offset: it is the one that scheduled gave, as in /v1/scheduled/57")
    })?;
    call.to_the_end(async move { session.cancel(&placed).await }).await?;
    let mut response = Response::new(Body::full(Vec::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
