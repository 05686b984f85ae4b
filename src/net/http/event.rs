//! One event over HTTP, and who has acknowledged it.

use hyper::{Response, StatusCode};
use serde::Serialize;
use tidings_proto::{Code, Offset, Position, WireError, message::Receipt, wire::cloudevents};

use super::{
    Body, Call,
    headers::{self, CLOUDEVENT, Form},
    respond,
};
use crate::{
    net::problem::Refusal,
    session::{Session, Stored, Transport, internal, parse_topic},
};

/// `GET /v1/events/{offset}`.
pub(super) async fn show(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let offset = offset(&session, &call.name)?;
    let event = session.event(offset).await?;
    answer(call, &session, &event)
}

/// `GET /v1/topics/{topic}/last?key=`.
pub(super) async fn last(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    let query = call.query(&["key"])?;
    let topic = parse_topic("topic", &call.name)?;
    let event = session.last(&topic, query.get("key")).await?;
    answer(call, &session, &event)
}

/// The event in the form that was asked for.
fn answer(call: &Call, session: &Session, event: &Stored) -> Result<Response<Body>, Refusal> {
    let offset = event.offset();
    let unreadable = |error: String| internal(&format!("event {offset} cannot be read: {error}"));
    let mut response = match headers::form(&call.head.headers) {
        Form::CloudEvents => {
            let event = event.event().map_err(|error| unreadable(error.to_string()))?;
            let mut out = Vec::new();
            cloudevents::write_cloudevent(&event, &mut out);
            respond::typed(StatusCode::OK, CLOUDEVENT, out)
        }
        Form::Json | Form::Stream => {
            let json = event.json().map_err(|error| unreadable(error.to_string()))?;
            respond::json(StatusCode::OK, json.clone())
        }
    };
    let log = session.house().broker.log().id();
    respond::place(response.headers_mut(), offset.cursor(), log);
    Ok(response)
}

/// A page of receipts.
#[derive(Serialize)]
struct Page {
    offset: Offset,
    receipts: Vec<Receipt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// `GET /v1/events/{offset}/receipts`.
pub(super) async fn receipts(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    let query = call.query(&["limit", "cursor"])?;
    let offset = offset(&session, &call.name)?;
    let page = session.receipts(offset, query.get("cursor"), query.limit()?).await?;
    let (receipts, cursor) = page;
    Ok(respond::of(StatusCode::OK, &Page { offset, receipts, cursor })?)
}

/// The offset in a path, which may say its log.
fn offset(session: &Session, text: &str) -> Result<Offset, WireError> {
    let position: Position =
        text.parse().map_err(|error| WireError::invalid(format!("offset: {error}")))?;
    let log = session.house().broker.log();
    let (first, last) = (log.first(), log.committed());
    let gone = |text: String| WireError {
        first: Some(first.get()),
        last: Some(last.get()),
        log: Some(log.id()),
        ..WireError::new(Code::OffsetGone, text)
    };
    if !position.fits(log.id()) {
        return Err(gone(format!(
            "offset: {position} is of another log than this one, {}",
            log.id()
        )));
    }
    let offset = Offset::new(position.cursor.get())
        .ok_or_else(|| WireError::invalid("offset: the first event of a log is 1"))?;
    if offset < first {
        return Err(gone(format!("offset: {offset} is gone: the log begins at {first}")));
    }
    Ok(offset)
}
