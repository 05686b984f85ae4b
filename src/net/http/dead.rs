//! Dead letters over HTTP: listed, redriven.

use hyper::{Response, StatusCode, body::Incoming};
use serde::{Deserialize, Serialize};
use tidings_proto::{Cursor, Offset, Placed, Timestamp, WireError};

use super::{Body, Call, body, respond};
use crate::{
    net::problem::Refusal,
    session::{PlacedLetter, Transport},
};

#[derive(Serialize)]
struct Page<'a> {
    dead: Vec<Row<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<Cursor>,
}

/// A letter: where it stands, and what it says of the event.
#[derive(Serialize)]
struct Row<'a> {
    letter: Offset,
    time: Timestamp,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    reason: &'a str,
    ended_by: &'a str,
    attempts: u32,
}

impl<'a> Row<'a> {
    fn of(placed: &'a PlacedLetter) -> Row<'a> {
        let letter = &placed.letter;
        Row {
            letter: placed.offset,
            time: placed.time,
            offset: letter.offset,
            topic: letter.topic.as_deref(),
            id: letter.id.as_deref(),
            reason: &letter.reason,
            ended_by: &letter.ended_by,
            attempts: letter.attempts,
        }
    }
}

#[derive(Serialize)]
struct Redriven {
    redriven: Vec<u64>,
}

/// The body of a redrive; all of it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(default, deserialize_with = "body::given")]
    offsets: Option<Vec<Placed>>,
}

/// `GET /v1/subscriptions/{name}/dead`.
pub(super) async fn list(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    let query = call.query(&["after", "limit"])?;
    let (after, limit) = (query.after()?, query.limit()?);
    let (letters, cursor) = session.dead_letters(&call.name, after.as_ref(), limit).await?;
    let dead = letters.iter().map(Row::of).collect();
    Ok(respond::of(StatusCode::OK, &Page { dead, cursor })?)
}

/// `POST /v1/subscriptions/{name}/redrive`.
pub(super) async fn redrive(call: &Call, body: Incoming) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    call.query(&[])?;
    let which = which(body::take(call, body).await?.text()?)?;
    let placed = which.offsets.map(|placed| Placed::of_one_log(placed, None)).transpose();
    let placed = placed.map_err(|error| WireError::invalid(format!("offsets: {error}")))?;
    let (offsets, log) = placed.map_or((None, None), |(offsets, log)| (Some(offsets), log));
    let name = call.name.clone();
    let redriving =
        call.to_the_end(
            async move { session.redrive(&name, offsets.as_deref(), log.as_deref()).await },
        );
    Ok(respond::of(StatusCode::OK, &Redriven { redriven: redriving.await? })?)
}

fn which(text: &str) -> Result<Which, WireError> {
    if text.is_empty() {
        return Ok(Which::default());
    }
    body::object(text, "{\"offsets\":[57]}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrive_names_offsets_or_all() {
        for text in ["", "{}", " { } "] {
            assert_eq!(which(text).unwrap().offsets, None, "{text}");
        }
        assert_eq!(which(r#"{"offsets":[57]}"#).unwrap().offsets.unwrap().len(), 1);
        for (text, begins) in [
            ("[57]", "body: "),
            ("\n", "body: "),
            ("{} {}", "body: "),
            (r#"{"offsets":null}"#, "offsets: "),
            (r#"{"offsets":[57,0]}"#, "offsets[1]: "),
            (r#"{"offsets":"all"}"#, "offsets: "),
            (r#"{"ofsets":[1]}"#, "ofsets: "),
        ] {
            let error = which(text).unwrap_err().message;
            assert!(error.starts_with(begins), "{text}: {error}");
        }
    }
}
