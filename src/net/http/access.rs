//! Revocations, API keys and tickets over HTTP.

use hyper::{Response, StatusCode, body::Incoming};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidings_proto::{
    Timestamp,
    control::{ApiKey, AuthChange},
};

use super::{Body, Call, body, operate::nothing, respond};
use crate::{
    net::problem::Refusal,
    session::{KeyWish, RevocationWish, Transport},
};

/// The body of a revocation.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Revoke {
    #[serde(deserialize_with = "body::given")]
    jti: Option<String>,
    #[serde(deserialize_with = "body::given")]
    subject: Option<String>,
    #[serde(deserialize_with = "body::given")]
    before: Option<Timestamp>,
    #[serde(deserialize_with = "body::given")]
    until: Option<Timestamp>,
}

/// What one looks like.
const REVOKE: &str = "{\"subject\":\"alice\"}";

/// The body that makes an API key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Make {
    name: String,
    #[serde(default, deserialize_with = "body::given")]
    subject: Option<String>,
    grants: Value,
    #[serde(default, deserialize_with = "body::given")]
    expires: Option<Timestamp>,
}

/// What one looks like.
const MAKE: &str = "{\"name\":\"ci\",\"grants\":{\"publish\":[\"ci.>\"]}}";

/// A revocation as it is told.
#[derive(Serialize)]
struct Revoked<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

impl<'a> Revoked<'a> {
    /// `None` for a change that revokes no token.
    fn of(change: &'a AuthChange) -> Option<Revoked<'a>> {
        let (jti, subject, before) = match change {
            AuthChange::TokenRevoked { jti, .. } => (Some(jti.as_str()), None, None),
            AuthChange::SubjectRevoked { subject, before, .. } => {
                (None, Some(subject.as_str()), Some(*before))
            }
            AuthChange::KeyMade(_) | AuthChange::KeyRevoked { .. } => return None,
        };
        Some(Revoked { jti, subject, before, until: change.until() })
    }
}

/// An API key as it is told.
#[derive(Serialize)]
struct Key<'a> {
    id: &'a str,
    /// All of it; only when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    name: &'a str,
    subject: &'a str,
    grants: &'a Value,
    made: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
}

impl<'a> Key<'a> {
    fn of(key: &'a ApiKey, text: Option<&'a str>) -> Key<'a> {
        Key {
            id: &key.id,
            key: text,
            name: &key.name,
            subject: &key.subject,
            grants: &key.grants,
            made: key.made,
            expires: key.expires,
        }
    }
}

#[derive(Serialize)]
struct RevokedPage<'a> {
    revocations: Vec<Revoked<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

#[derive(Serialize)]
struct KeyPage<'a> {
    keys: Vec<Key<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
}

#[derive(Serialize)]
struct Given<'a> {
    ticket: &'a str,
    expires_in_ms: u64,
}

/// `POST /v1/tickets`.
pub(super) async fn ticket(call: &Call, body: Incoming) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    nothing(body::take(call, body).await?.text()?)?;
    let given = session.ticket()?;
    let given = Given { ticket: &given.ticket, expires_in_ms: given.expires_in_ms };
    Ok(respond::secret(StatusCode::CREATED, &given)?)
}

/// `POST /v1/auth/revocations`.
pub(super) async fn revoke(call: &Call, body: Incoming) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    session.check_admin("revoking a token")?;
    call.query(&[])?;
    let Revoke { jti, subject, before, until } =
        body::object(body::take(call, body).await?.text()?, REVOKE)?;
    let wish = RevocationWish { jti, subject, before, until };
    let change = call.to_the_end(async move { session.revoke(wish).await }).await?;
    Ok(respond::of(StatusCode::CREATED, &Revoked::of(&change))?)
}

/// `GET /v1/auth/revocations`.
pub(super) fn revocations(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    let query = call.query(&["limit", "cursor"])?;
    let limit = query.limit()?;
    let found = session.revocations(query.get("cursor").unwrap_or_default(), limit)?;
    let cursor = found.last().filter(|_| found.len() >= limit).map(AuthChange::key);
    let revocations = found.iter().filter_map(Revoked::of).collect();
    Ok(respond::of(StatusCode::OK, &RevokedPage { revocations, cursor })?)
}

/// `POST /v1/auth/keys`.
pub(super) async fn make_key(call: &Call, body: Incoming) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    session.check_admin("making an API key")?;
    call.query(&[])?;
    let Make { name, subject, grants, expires } =
        body::object(body::take(call, body).await?.text()?, MAKE)?;
    let wish = KeyWish { name, subject, grants, expires };
    let (key, new) = call.to_the_end(async move { session.make_key(wish).await }).await?;
    Ok(respond::secret(StatusCode::CREATED, &Key::of(&key, Some(&new.text)))?)
}

/// `GET /v1/auth/keys`.
pub(super) fn keys(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    let query = call.query(&["limit", "cursor"])?;
    let limit = query.limit()?;
    let found = session.keys(query.get("cursor").unwrap_or_default(), limit)?;
    let cursor = found.last().filter(|_| found.len() >= limit).map(|key| key.id.as_str());
    let keys = found.iter().map(|key| Key::of(key, None)).collect();
    Ok(respond::of(StatusCode::OK, &KeyPage { keys, cursor })?)
}

/// `DELETE /v1/auth/keys/{id}`.
pub(super) async fn revoke_key(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let id = call.name.clone();
    call.to_the_end(async move { session.revoke_key(&id).await }).await?;
    let mut response = Response::new(Body::full(Vec::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_an_object_without_null_and_unknown_names() {
        let read = |text: &str| body::object::<Make>(text, MAKE).map(|make| make.name);
        assert!(read(MAKE).is_ok() && body::object::<Revoke>(REVOKE, REVOKE).is_ok());
        assert_eq!(read(r#"{"name":"ci","grants":{}}"#).unwrap(), "ci");
        for (text, begins) in [
            ("", "body: "),
            ("[]", "body: "),
            (r#"{"name":"ci"}"#, "grants: is missing"),
            (r#"{"name":"ci","grants":{},"x":1}"#, "x: unknown field"),
            (r#"{"name":"ci","grants":{},"expires":null}"#, "expires: invalid type: null"),
            (r#"{"name":"ci","grants":{},"expires":"soon"}"#, "expires: "),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.message.starts_with(begins), "{text}: {}", error.message);
        }
    }
}
