//! Durable subscriptions operated over HTTP: paused, going on, reset.

use hyper::{Response, StatusCode, body::Incoming};
use serde::Deserialize;
use tidings_proto::{Start, WireError, message::Acked};

use super::{Body, Call, body, respond};
use crate::{net::problem::Refusal, session::Transport};

/// The body of a reset.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    to: Start,
}

/// `POST /v1/subscriptions/{name}/pause` and `…/resume`.
pub(super) async fn pause(
    call: &Call,
    body: Incoming,
    paused: bool,
) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    nothing(body::take(call, body).await?.text()?)?;
    let name = call.name.clone();
    call.to_the_end(async move { session.pause_durable(&name, paused).await }).await?;
    Ok(respond::json(StatusCode::OK, format!("{{\"paused\":{paused}}}")))
}

/// `POST /v1/subscriptions/{name}/reset`.
pub(super) async fn reset(call: &Call, body: Incoming) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let to = target(body::take(call, body).await?.text()?)?;
    let (name, log) = (call.name.clone(), call.house().broker.log().id());
    let resetting = call.to_the_end(async move { session.reset_durable(&name, &to).await });
    let cursor = resetting.await?;
    let mut response = respond::of(StatusCode::OK, &Acked { subscription: None, cursor })?;
    respond::place(response.headers_mut(), cursor, log);
    Ok(response)
}

/// A body that has nothing to say.
pub(super) fn nothing(text: &str) -> Result<(), WireError> {
    let inside = text.trim_ascii().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    match text.is_empty() || inside.is_some_and(|inside| inside.trim_ascii().is_empty()) {
        true => Ok(()),
        false => Err(WireError::invalid("body: this call takes none: leave it out")),
    }
}

fn target(text: &str) -> Result<Start, WireError> {
    body::object(text, "{\"to\":\"first\"}").map(|Reset { to }| to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_says_where_to() {
        assert_eq!(target(r#"{"to":"first"}"#).unwrap(), Start::First);
        assert_eq!(target(r#" {"to":"now"}"#).unwrap(), Start::Now);
        assert!(matches!(target(r#"{"to":57}"#), Ok(Start::After(_))));
        assert!(matches!(target(r#"{"to":"57@9f3c21d0"}"#), Ok(Start::After(_))));
        assert!(matches!(target(r#"{"to":"2026-11-21T06:00:00Z"}"#), Ok(Start::Since(_))));
        for (text, begins) in [
            ("", "body: "),
            ("5", "body: "),
            ("[1]", "body: "),
            ("{", "body: "),
            ("{}", "to: is missing"),
            (r#"{"to":null}"#, "to: "),
            (r#"{"to":"last"}"#, "to: "),
            (r#"{"to":1,"x":2}"#, "x: "),
        ] {
            let error = target(text).unwrap_err().message;
            assert!(error.starts_with(begins), "{text}: {error}");
        }
    }

    #[test]
    fn a_pause_says_nothing() {
        assert!(nothing("").is_ok() && nothing(" { } ").is_ok());
        for text in ["{\"for\":5}", "\n", "{", "}", "[]", "{} {}", "null"] {
            assert!(nothing(text).unwrap_err().message.starts_with("body: "), "{text}");
        }
    }
}
