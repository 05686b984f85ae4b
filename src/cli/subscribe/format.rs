//! How `tidings sub` writes an event.
//!
//! - JSON is one line, as the broker sends it; data is its bytes; pretty is safe to show on a
//!   terminal.

use std::io::Write;

use tidings_proto::{Event, Priority, message::Gap, wire::json};

use crate::cli::output::{one_line, shown};

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One line for people.
    Pretty,
    /// One JSON object a line.
    Json,
    /// Its data and a newline.
    Data,
}

/// One event as a line, without its newline.
pub(in crate::cli) fn write_event(event: &Event, format: Format, out: &mut Vec<u8>) {
    match format {
        Format::Json => {
            let start = out.len();
            json::write_event(event, out);
            one_line(out.get_mut(start..).unwrap_or_default());
        }
        Format::Data => out.extend_from_slice(event.data.as_deref().unwrap_or_default()),
        Format::Pretty => pretty(event, out),
    }
}

fn pretty(event: &Event, out: &mut Vec<u8>) {
    let time = event.time.to_string().replace('T', " ");
    let mut line = format!("{time}  #{}  {}  {}", event.offset, event.topic, shown(&event.kind));
    if event.priority != Priority::Normal {
        line.push_str(&format!("  [{}]", event.priority.as_str()));
    }
    if let Some(key) = &event.key {
        line.push_str(&format!("  key={}", shown(key)));
    }
    match event.data.as_deref().map(|data| (std::str::from_utf8(data), data.len())) {
        None => {}
        Some((Ok(text), _)) => line.push_str(&format!("  {}", shown(text))),
        Some((Err(_), bytes)) => line.push_str(&format!("  ({bytes} bytes)")),
    }
    // Into memory, which does not fail.
    let _ = out.write_all(line.as_bytes());
}

/// A gap as a notice.
pub(super) fn describe(gap: &Gap) -> String {
    let why = format!("{:?}", gap.reason).to_lowercase();
    let why = why.replace("logchanged", "the log is another one");
    format!(
        "gap: the events after {} are gone ({why}); it goes on from {}",
        gap.requested, gap.first
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidings_proto::{Offset, Timestamp, Topic};

    use super::*;

    #[test]
    fn an_event_is_written_in_three_ways() {
        let event = Event {
            offset: Offset::new(57).unwrap(),
            topic: Topic::parse("tasks.42").unwrap(),
            id: "i".to_owned(),
            kind: "t".to_owned(),
            source: "s".to_owned(),
            time: Timestamp::from_millis(0),
            datacontenttype: Some("text/plain".to_owned()),
            data: Some(Bytes::from_static(b"red \x1b[31m\n")),
            key: Some("k".to_owned()),
            priority: Priority::Urgent,
            expires: None,
            correlation: None,
            headers: Default::default(),
        };
        let written = |format| {
            let mut out = Vec::new();
            write_event(&event, format, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(Format::Data), "red \x1b[31m\n");
        assert_eq!(
            written(Format::Pretty),
            "1970-01-01 00:00:00.000Z  #57  tasks.42  t  [urgent]  key=k  red \\u{1b}[31m\\n"
        );
        let line = written(Format::Json);
        assert_eq!(json::decode_event(&line).unwrap(), event);
        assert!(!line.contains('\n'));
    }
}
