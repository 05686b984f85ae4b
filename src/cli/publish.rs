//! `tidings pub`: publishes one event, the same event several times, or every line of stdin.
//!
//! - Data that is valid JSON goes as JSON, other UTF-8 as text, other bytes as they are.
//! - Events are appended in order, each once, also across a restart of the broker; one that the broker
//!   refuses for now (a full disk) is sent again and may come behind later ones.
//! - Many are under way at once, but never more than `WINDOW`; it ends when all are answered.

use std::{collections::VecDeque, ffi::OsString, io, path::PathBuf, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use serde_json::value::RawValue;
use tidings_proto::{
    EventId, NewEvent, Priority, Timestamp, Topic,
    event::{DEFAULT_TYPE, Expiry, JSON, JSON_DEPTH_MAX, json_depth},
    message::{Publish, Published},
};
use tokio::sync::mpsc;

use super::{
    Globals, block_on,
    exit::{HungUp, TimedOut, Usage},
    output::Output,
    read_file, sealing, stdin,
};
use crate::{
    client::{Client, PublishHandle, sealed::Keys},
    clock,
};

/// How many events may be unanswered.
const WINDOW: usize = 1024;

/// What `tidings pub` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to publish, as in tasks.42.
    #[arg(value_parser = Topic::parse)]
    pub topic: Topic,
    /// The data; - reads it from stdin. Valid JSON is published as JSON, anything else as text.
    #[arg(allow_negative_numbers = true, conflicts_with_all = ["lines", "file"])]
    pub data: Option<OsString>,
    /// The event's type.
    #[arg(long = "type", default_value = DEFAULT_TYPE, value_name = "TYPE")]
    pub kind: String,
    /// The entity the event is about.
    #[arg(long)]
    pub key: Option<String>,
    /// The event's id; the same one again is not published twice.
    #[arg(long, value_parser = EventId::parse, conflicts_with_all = ["lines", "count"])]
    pub id: Option<EventId>,
    /// low, normal, high or urgent.
    #[arg(long, default_value = "normal")]
    pub priority: Priority,
    /// How long it is delivered, as in 30s.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
    /// Publish it at this moment, as in 2026-11-21T06:00:00Z; 30 days ahead at most.
    #[arg(long, value_name = "TIME", value_parser = str::parse::<Timestamp>, conflicts_with = "expect_last")]
    pub at: Option<Timestamp>,
    /// Publish it after this time, as in 10m; 30 days at most.
    #[arg(long = "in", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(conflicts_with_all = ["at", "expect_last"])]
    pub after: Option<Duration>,
    /// An attribute of your own; may be given more than once.
    #[arg(long, value_name = "KEY:VALUE", value_parser = parse_header)]
    pub header: Vec<(String, String)>,
    /// What it belongs to.
    #[arg(long)]
    pub correlation: Option<String>,
    /// The offset of the topic's last event, which must be this one; 0: there must be none.
    #[arg(long, value_name = "OFFSET", conflicts_with_all = ["lines", "count"])]
    pub expect_last: Option<u64>,
    /// How the data is to be read, as in image/png.
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Publish every line of stdin as one event, byte for byte: what is JSON from its first byte to
    /// its last goes as JSON, any other line as text.
    #[arg(long, conflicts_with_all = ["file", "count"])]
    pub lines: bool,
    /// Publish it so many times.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub count: u64,
    /// Read the data from a file.
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// Seal the data with the last key in this file, so that the broker cannot read it.
    #[arg(long, value_name = "FILE")]
    pub seal_with: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  tidings pub tasks.42 '{\"done\":7,\"of\":10}' --type task.progress --key progress
  tail -f app.log | tidings pub logs.app --lines
  tidings pub calls.standup '{\"room\":7}' --in 10m
  tidings pub payments.42 --file order.json --seal-with payments.keys

Writes the event's offset; with --at or --in the one that DELETE /v1/scheduled/OFFSET
cancels it by. With --lines nothing is written, with --lines --json one
{\"offset\",\"id\"} for each event; it waits for a broker that is away for ever unless
--timeout is given.";

/// Publishes and writes where.
///
/// # Errors
/// When an event is refused or the broker does not answer in time.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    let keys = args.seal_with.as_deref().map(|path| sealing::keys(path, globals)).transpose()?;
    let event = Template { args, keys: keys.as_ref() };
    if args.lines {
        // What no line can change is said before anybody is asked.
        args.publish(None)?;
        let source = Source::Lines(stdin::lines().context("cannot read stdin")?);
        return block_on(publish_all(event, globals, source, globals.timeout));
    }
    let data = match (&args.data, &args.file) {
        (Some(data), _) if data == "-" => Some(stdin::all().context("cannot read stdin")?),
        (Some(data), _) => Some(data.as_encoded_bytes().to_vec()),
        (None, Some(path)) => Some(read_file(path).context("cannot read the data")?),
        (None, None) => None,
    };
    let data = data.map(Bytes::from);
    args.publish(data.clone())?;
    let source = Source::Repeat { data, left: args.count };
    block_on(publish_all(event, globals, source, Some(globals.patience())))
}

/// What all events of a call have in common.
#[derive(Clone, Copy)]
struct Template<'a> {
    args: &'a Args,
    /// What seals them.
    keys: Option<&'a Keys>,
}

impl Template<'_> {
    /// The event with this data, as it goes out.
    fn publish(self, data: Option<Bytes>) -> anyhow::Result<Publish> {
        let mut publish = self.args.publish(data)?;
        if let Some(keys) = self.keys {
            let sealed = keys.seal(publish.event);
            publish.event = sealed.map_err(|error| Usage::error(error.to_string()))?;
        }
        Ok(publish)
    }
}

/// Where the data of the events comes from.
enum Source {
    /// Every line of stdin.
    Lines(mpsc::Receiver<io::Result<Vec<u8>>>),
    /// The same, so many times more.
    Repeat { data: Option<Bytes>, left: u64 },
}

impl Source {
    /// The data of the next event. Cancel safe.
    async fn next(&mut self) -> anyhow::Result<Option<Option<Bytes>>> {
        match self {
            Source::Lines(lines) => {
                let line = lines.recv().await.transpose().context("cannot read stdin")?;
                Ok(line.map(|line| Some(Bytes::from(line))))
            }
            Source::Repeat { left: 0, .. } => Ok(None),
            Source::Repeat { data, left } => {
                *left -= 1;
                Ok(Some(data.clone()))
            }
        }
    }
}

async fn publish_all(
    event: Template<'_>,
    globals: &Globals,
    mut source: Source,
    patience: Option<Duration>,
) -> anyhow::Result<()> {
    let args = event.args;
    let client = globals.connect(patience).await?;
    let mut printer =
        Printer { lines: args.lines, json: globals.json, output: Some(Output::stdout()) };
    let mut unanswered: VecDeque<PublishHandle> = VecDeque::new();
    let (mut answered, mut open, mut failed) = (0_u64, true, None);
    let mut since = tokio::time::Instant::now();
    while open || !unanswered.is_empty() {
        tokio::select! {
            biased;
            answer = next_answer(&mut unanswered), if !unanswered.is_empty() => {
                unanswered.pop_front();
                answered += 1;
                since = tokio::time::Instant::now();
                printer.print(&answer.map_err(|error| args.at(answered, error.into()))?)?;
            }
            data = source.next(), if open && unanswered.len() < WINDOW => {
                let place = answered + u64::try_from(unanswered.len()).unwrap_or(0) + 1;
                let next = data.and_then(|data| data.map(|data| event.publish(data)).transpose());
                match next {
                    Ok(None) => open = false,
                    Ok(Some(publish)) => {
                        if unanswered.is_empty() {
                            since = tokio::time::Instant::now();
                        }
                        unanswered.push_back(hand_over(&client, publish, patience).await?);
                    }
                    // Those before it are published first.
                    Err(error) => (open, failed) = (false, Some(args.at(place, error))),
                }
            }
            () = wait(since, patience), if !unanswered.is_empty() => return Err(late(patience)),
        }
    }
    client.close().await;
    failed.map_or(Ok(()), Err)
}

async fn next_answer(
    unanswered: &mut VecDeque<PublishHandle>,
) -> Result<Published, crate::client::Error> {
    match unanswered.front_mut() {
        Some(handle) => handle.await,
        None => std::future::pending().await,
    }
}

/// Publishing waits while too many bytes are unanswered.
async fn hand_over(
    client: &Client,
    publish: Publish,
    patience: Option<Duration>,
) -> anyhow::Result<PublishHandle> {
    let handle = super::within(patience, NO_ANSWER, client.publish(publish)).await??;
    Ok(handle)
}

/// Waits until the oldest unanswered event is late.
async fn wait(since: tokio::time::Instant, patience: Option<Duration>) {
    match patience {
        Some(wait) => tokio::time::sleep_until(since + wait).await,
        None => std::future::pending().await,
    }
}

const NO_ANSWER: &str = "no answer from the broker";

fn late(patience: Option<Duration>) -> anyhow::Error {
    TimedOut { what: NO_ANSWER, wait: patience.unwrap_or_default() }.into()
}

/// What is written for an event that is in the log.
struct Printer {
    lines: bool,
    json: bool,
    /// `None` once nobody reads it any more: the events go on.
    output: Option<Output>,
}

impl Printer {
    fn print(&mut self, published: &Published) -> anyhow::Result<()> {
        let Some(output) = &mut self.output else { return Ok(()) };
        let line = match (self.json, self.lines) {
            (true, _) => serde_json::to_vec(published)?,
            (false, true) => return Ok(()),
            (false, false) => published.offset.to_string().into_bytes(),
        };
        match output.line(&line).and_then(|()| output.flush()) {
            Err(error) if error.is::<HungUp>() => self.output = None,
            written => written?,
        }
        Ok(())
    }
}

impl Args {
    /// The event with this data.
    fn publish(&self, data: Option<Bytes>) -> anyhow::Result<Publish> {
        let guess = data.as_ref().map(|data| self.content_type_of(data).to_owned());
        let mut event = NewEvent {
            id: self.id.clone(),
            kind: self.kind.clone(),
            datacontenttype: self.content_type.clone().or(guess),
            data,
            key: self.key.clone(),
            priority: self.priority,
            correlation: self.correlation.clone(),
            headers: self.header.iter().cloned().collect(),
            ..NewEvent::on(self.topic.clone())
        };
        if let Some(ttl) = self.ttl {
            event.expires = Some(Expiry::TtlMs(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)));
        }
        event.check().map_err(|error| Usage::error(error.to_string()))?;
        let after_ms = self.after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let deliver_at = self.at.or(after_ms.map(|ms| clock::now().plus_millis(ms)));
        Ok(Publish { expect_last: self.expect_last, deliver_at, ..Publish::of(event) })
    }

    /// How bytes that come without a content type are to be read.
    fn content_type_of(&self, data: &[u8]) -> &'static str {
        // As JSON a line would lose the blanks around it: it goes as the text that it is.
        content_type_of(data, !self.lines || data.trim_ascii() == data)
    }

    /// Says which line it was.
    fn at(&self, place: u64, error: anyhow::Error) -> anyhow::Error {
        match self.lines {
            true => error.context(format!(
                "line {place} is not published, those before it are, some behind it may be"
            )),
            false => error,
        }
    }
}

/// How bytes that come without a content type are to be read; as JSON only where they may be.
pub(super) fn content_type_of(data: &[u8], may_be_json: bool) -> &'static str {
    // Depth first: the parser of a raw value recurses.
    let is_shallow = json_depth(data) <= JSON_DEPTH_MAX;
    if may_be_json && is_shallow && serde_json::from_slice::<&RawValue>(data).is_ok() {
        JSON
    } else if std::str::from_utf8(data).is_ok() {
        "text/plain"
    } else {
        "application/octet-stream"
    }
}

pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("give it as KEY:VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(line: &str) -> Result<Args, clap::Error> {
        let words = ["tidings", "pub"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words)?.command {
            Command::Pub(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_content_type_is_read_off_the_data() {
        let (once, lines) = (args("a").unwrap(), args("a --lines").unwrap());
        for (data, want, as_line) in [
            (&b"{\"a\":1.0e5}"[..], JSON, JSON),
            (b" 57\n", JSON, "text/plain"),
            (b"-5", JSON, JSON),
            (b"hello", "text/plain", "text/plain"),
            (b"", "text/plain", "text/plain"),
            (b"{a}", "text/plain", "text/plain"),
            (b"a\r", "text/plain", "text/plain"),
            (b"\xff\xfe", "application/octet-stream", "application/octet-stream"),
        ] {
            assert_eq!(once.content_type_of(data), want, "{data:?}");
            assert_eq!(lines.content_type_of(data), as_line, "{data:?}");
        }
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(once.content_type_of(deep.as_bytes()), "text/plain");
    }

    #[test]
    fn options_become_attributes() {
        let line = "tasks.42 {} --type t --key k --id i --priority high --ttl 1m --header a:b:c \
                    --header d:e --correlation c --expect-last 5";
        let publish = args(line).unwrap().publish(Some(Bytes::from_static(b"{}"))).unwrap();
        assert_eq!(publish.expect_last, Some(5));
        let event = publish.event;
        assert_eq!(event.expires, Some(Expiry::TtlMs(60_000)));
        assert_eq!(event.priority, Priority::High);
        assert_eq!((event.kind.as_str(), event.key.as_deref()), ("t", Some("k")));
        assert_eq!(event.id.unwrap().as_str(), "i");
        assert_eq!(event.correlation.as_deref(), Some("c"));
        let headers: Vec<_> = event.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(headers, [("a", "b:c"), ("d", "e")]);
        assert_eq!(event.datacontenttype.as_deref(), Some(JSON));
    }

    #[test]
    fn what_waits_says_until_when() {
        let at = args("a.b x --at 2026-11-21T06:00:00Z").unwrap().publish(None).unwrap();
        assert_eq!(at.deliver_at.unwrap().to_string(), "2026-11-21T06:00:00.000Z");
        let before = clock::now();
        let after = args("a.b x --in 10m").unwrap().publish(None).unwrap().deliver_at.unwrap();
        let (low, high) = (before.plus_millis(600_000), clock::now().plus_millis(600_000));
        assert!((low..=high).contains(&after), "{after}");
        assert_eq!(args("a.b x").unwrap().publish(None).unwrap().deliver_at, None);
    }

    #[test]
    fn data_that_is_not_what_was_said_is_refused() {
        let args = args("a.b --content-type application/json").unwrap();
        let error = args.publish(Some(Bytes::from_static(b"no"))).unwrap_err();
        assert!(error.to_string().contains("data is not JSON"), "{error}");
        assert_eq!(args.publish(None).unwrap().event.data, None);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in [
            "a.* x",
            "a..b x",
            "a.b x --lines",
            "a.b --lines --id 1",
            "a.b --lines --count 2",
            "a.b x --priority soon",
            "a.b x --ttl soon",
            "a.b x --header nothing",
            "a.b x --file f",
            "a.b x --at soon",
            "a.b x --in soon",
            "a.b x --at 2026-11-21T06:00:00Z --in 1m",
            "a.b x --in 1m --expect-last 5",
        ] {
            assert!(args(line).is_err(), "{line}");
        }
        assert_eq!(args("a.b -5").unwrap().data.unwrap(), "-5");
        assert_eq!(args("a.b -").unwrap().data.unwrap(), "-");
    }
}
