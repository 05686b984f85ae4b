//! The lines of a stream of server-sent events.
//!
//! - Every message ends with an empty line; none of ours holds a line break inside `data`.
//! - Event types that begin with `tidings.` are the broker's own: a publisher's of that name is
//!   left out, so that nobody can fake a control message. So are those that `EventSource` has for itself: an event of
//!   that name would look to a page like the end or the beginning of its connection.

use bytes::Bytes;
use serde::Serialize;
use tidings_proto::{Offset, Position, event::DEFAULT_TYPE};

/// What ends a message.
pub(super) const END: &[u8] = b"\n\n";
/// What the broker's own event types begin with.
const OWN: &str = "tidings.";

/// What `EventSource` calls its own events (WHATWG HTML §9.2), but for the one that stands for no type.
const OF_EVENT_SOURCE: [&str; 2] = ["error", "open"];

/// What a stream begins with: when to come again, in milliseconds, should it end.
pub(super) fn prelude(retry_ms: u64) -> Vec<u8> {
    format!("retry: {retry_ms}\n\n").into_bytes()
}

/// A line that every client skips.
pub(super) fn comment(text: &str) -> Vec<u8> {
    format!(": {text}\n\n").into_bytes()
}

/// An event up to its data.
pub(super) fn head(position: &Position, kind: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("id: {position}\n").as_bytes());
    if kind != DEFAULT_TYPE && !kind.starts_with(OWN) && !OF_EVENT_SOURCE.contains(&kind) {
        out.extend_from_slice(format!("event: {kind}\n").as_bytes());
    }
    out.extend_from_slice(b"data: ");
}

/// JSON without line breaks: they can only stand between its tokens, where a space means the same.
pub(super) fn one_line(json: Bytes) -> Bytes {
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !json.iter().any(is_break) {
        return json;
    }
    json.iter().map(|byte| if is_break(byte) { b' ' } else { *byte }).collect()
}

/// A position without an event: where to resume, and nothing to show.
pub(super) fn id(position: &Position, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("id: {position}\n\n").as_bytes());
}

/// A message of the broker's own.
pub(super) fn control<T: Serialize>(
    kind: &str,
    position: Option<&Position>,
    data: &T,
    out: &mut Vec<u8>,
) {
    if let Some(position) = position {
        out.extend_from_slice(format!("id: {position}\n").as_bytes());
    }
    out.extend_from_slice(format!("event: {kind}\ndata: ").as_bytes());
    // Texts and numbers only: it cannot fail.
    out.extend(serde_json::to_vec(data).unwrap_or_default());
    out.extend_from_slice(END);
}

/// Which of the events that follow were delivered before, and how often with this time.
pub(super) fn attempts(attempts: &[(Offset, u32)], out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: tidings.attempts\ndata: {\"attempts\":");
    write_attempts(attempts, out);
    out.extend_from_slice(b"}\n\n");
}

/// `{"57":2}`: offsets and the number of this delivery.
pub(in crate::net) fn write_attempts(attempts: &[(Offset, u32)], out: &mut Vec<u8>) {
    let pairs: Vec<String> =
        attempts.iter().map(|(offset, count)| format!("\"{offset}\":{count}")).collect();
    out.extend_from_slice(format!("{{{}}}", pairs.join(",")).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn position() -> Position {
        "57@9f3c21d0".parse().unwrap()
    }

    #[test]
    fn an_event_has_its_position_and_its_type() {
        let head = |kind| written(|out| super::head(&position(), kind, out));
        assert_eq!(head("task.done"), "id: 57@9f3c21d0\nevent: task.done\ndata: ");
        assert_eq!(head("message"), "id: 57@9f3c21d0\ndata: ");
        assert_eq!(
            head("tidings.gap"),
            "id: 57@9f3c21d0\ndata: ",
            "nobody fakes a control message"
        );
        for kind in ["error", "open"] {
            assert_eq!(head(kind), "id: 57@9f3c21d0\ndata: ", "nobody fakes the end: {kind}");
        }
        assert_eq!(head("error.x"), "id: 57@9f3c21d0\nevent: error.x\ndata: ");
    }

    #[test]
    fn data_is_one_line() {
        let json = Bytes::from_static(b"{\"a\":\r\n 1,\n\"b\":\"\\n\"}");
        assert_eq!(one_line(json), "{\"a\":   1, \"b\":\"\\n\"}");
        let plain = Bytes::from_static(b"{}");
        assert_eq!(one_line(plain.clone()).as_ptr(), plain.as_ptr(), "not copied without need");
    }

    #[test]
    fn control_messages_are_events_of_their_own_names() {
        let data = serde_json::json!({ "cursor": 57 });
        let text = written(|out| control("tidings.caught_up", Some(&position()), &data, out));
        assert_eq!(text, "id: 57@9f3c21d0\nevent: tidings.caught_up\ndata: {\"cursor\":57}\n\n");
        let text = written(|out| control("tidings.superseded", None, &serde_json::json!({}), out));
        assert_eq!(text, "event: tidings.superseded\ndata: {}\n\n");
    }

    #[test]
    fn the_rest_is_as_clients_expect() {
        assert_eq!(prelude(1500), b"retry: 1500\n\n");
        assert_eq!(comment("bye"), b": bye\n\n");
        assert_eq!(written(|out| id(&position(), out)), "id: 57@9f3c21d0\n\n");
        let twice = [(Offset::new(57).unwrap(), 2), (Offset::new(60).unwrap(), 3)];
        assert_eq!(
            written(|out| attempts(&twice, out)),
            "event: tidings.attempts\ndata: {\"attempts\":{\"57\":2,\"60\":3}}\n\n"
        );
    }
}
