//! `tidings sub`: writes events to stdout as they come.
//!
//! - An event is acknowledged when its line has been handed to the reader of stdout, not before.
//! - Acks name the very events that were written: one that somebody else put off, and that therefore
//!   has not come yet, is not acknowledged along with those behind it.
//! - At most one ack is under way; what is written meanwhile goes into the next.

use std::{future::Future, io, io::Write, pin::Pin, time::Duration};

use anyhow::{Context, anyhow};
use tidings_proto::{
    Cursor, Event, Filter, Filters, Offset, Position, Priority, Start, SubscribeOptions, Timestamp,
    message::Gap, subscribe::After, wire::json,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::{
    Globals, block_on,
    exit::Usage,
    output::{Output, shown},
    stdin, within,
};
use crate::{
    client::{Client, Delivery, Error, Subscription},
    clock,
};

/// How many events are written before they are handed over and acknowledged.
const BATCH_MAX: usize = 256;
/// How many events one ack may name.
const ACK_MAX: usize = 4096;

/// What `tidings sub` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to deliver, as in tasks.42, tasks.* or tasks.>.
    #[arg(required = true, value_name = "FILTER", value_parser = Filter::parse)]
    pub filters: Vec<Filter>,
    /// Begin after this offset (N or N@LOG), with the first event, or now.
    #[arg(long, value_name = "N|now|first", default_value = "now", value_parser = parse_after,
          conflicts_with_all = ["since", "durable"])]
    pub after: From,
    /// Begin this long ago (2h), or at this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = parse_since, conflicts_with = "durable")]
    pub since: Option<Since>,
    /// A durable subscription: the broker keeps its place under this name.
    #[arg(long, value_name = "NAME", value_parser = parse_durable)]
    pub durable: Option<String>,
    /// Acknowledge what is written; or what stdin says (`57`, or `nack 57`, a line each); or nothing.
    #[arg(long, value_enum, requires = "durable")]
    pub ack: Option<AckMode>,
    /// Where a new durable begins: first, now, an offset or a time.
    #[arg(long, value_name = "WHERE", value_parser = parse_start, requires = "durable")]
    pub start: Option<Start>,
    /// Only events of this type; may be given more than once, and end in .*
    #[arg(long = "type", value_name = "TYPE")]
    pub kinds: Vec<String>,
    /// Only events of this priority or a higher one.
    #[arg(long)]
    pub min_priority: Option<Priority>,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End when what is in the log now has been written.
    #[arg(long)]
    pub until_caught_up: bool,
    /// How to write an event [default: pretty on a terminal, else json].
    #[arg(long, value_enum)]
    pub output: Option<Format>,
}

const EXAMPLES: &str = "\
Examples:
  tidings sub 'tasks.>' --after first --output json
  tidings sub 'users.alice.>' --durable alice-inbox --ack auto --start first";

/// Where an ephemeral subscription begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// With what comes from now on.
    Now,
    /// After this place.
    After(Position),
}

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So long before now.
    Ago(Duration),
    /// This one.
    At(Timestamp),
}

/// Who acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AckMode {
    /// This command, what it has written.
    Auto,
    /// Whoever writes offsets to stdin.
    Manual,
    /// Nobody.
    None,
}

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

/// Subscribes and writes until there is enough, or a signal.
///
/// # Errors
/// When the broker refuses, or another session takes the durable over.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    let options = args.options(clock::now())?;
    let format = match (args.output, globals.json) {
        (Some(format), _) => format,
        (None, false) if Output::is_terminal() => Format::Pretty,
        (None, _) => Format::Json,
    };
    let ack = args.ack.filter(|_| args.durable.is_some());
    let ack = ack.or(args.durable.as_ref().map(|_| AckMode::Auto)).unwrap_or(AckMode::None);
    block_on(async {
        let patience = Some(globals.patience());
        let mut signals = Signals::new()?;
        let work = async {
            let client = globals.connect(patience).await?;
            let what = "no answer to the subscribe";
            let subscription = within(patience, what, client.subscribe(options)).await??;
            let mut reader = Reader {
                args,
                globals,
                format,
                subscription,
                output: Output::stdout(),
                written: 0,
                acks: Acks { auto: ack == AckMode::Auto, ..Acks::default() },
            };
            let lines = match ack {
                AckMode::Manual => Some(stdin::lines().context("cannot read stdin")?),
                AckMode::Auto | AckMode::None => None,
            };
            reader.read(&mut signals, lines).await?;
            reader.finish(&client).await
        };
        work.await
    })
}

/// Interrupts, which end the command well.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        Ok(Signals { interrupt, terminate })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

type Lines = mpsc::Receiver<io::Result<Vec<u8>>>;

struct Reader<'a> {
    args: &'a Args,
    globals: &'a Globals,
    format: Format,
    subscription: Subscription,
    output: Output,
    /// How many events have been written.
    written: u64,
    acks: Acks,
}

/// Whether there is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enough {
    Yes,
    No,
}

impl Reader<'_> {
    async fn read(
        &mut self,
        signals: &mut Signals,
        mut lines: Option<Lines>,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                () = signals.next() => return Ok(()),
                acked = self.acks.under_way() => {
                    self.acks.done(acked, self.globals)?;
                }
                line = next_line(&mut lines) => match line {
                    Some(line) => self.obey(&line.context("cannot read stdin")?).await?,
                    None => lines = None,
                },
                delivery = self.subscription.next() => {
                    if self.write_batch(delivery?)? == Enough::Yes {
                        return Ok(());
                    }
                }
            }
            self.acks.begin(&self.subscription);
        }
    }

    /// Writes what is there now and hands it over.
    fn write_batch(&mut self, first: Delivery) -> anyhow::Result<Enough> {
        let mut enough = self.write(first);
        for _ in 1..BATCH_MAX {
            if !matches!(enough, Ok(Enough::No)) {
                break;
            }
            match self.subscription.try_next() {
                Some(delivery) => enough = self.write(delivery?),
                None => break,
            }
        }
        // What was written before a failure is handed over and acknowledged all the same.
        self.output.flush()?;
        self.acks.handed_over();
        enough
    }

    fn write(&mut self, delivery: Delivery) -> anyhow::Result<Enough> {
        match delivery {
            Delivery::Event { event, .. } => {
                let mut line = Vec::new();
                write_event(&event, self.format, &mut line);
                self.output.line(&line)?;
                self.acks.written(event.offset);
                self.written += 1;
                if self.args.count.is_some_and(|count| self.written >= count) {
                    return Ok(Enough::Yes);
                }
            }
            Delivery::CaughtUp(_) if self.args.until_caught_up => return Ok(Enough::Yes),
            Delivery::Gap(gap) => self.globals.notice(&describe(&gap)),
            Delivery::Superseded => {
                let name = self.args.durable.as_deref().unwrap_or("the subscription");
                return Err(anyhow!("another session has taken {name} over, or it was deleted"));
            }
            _ => {}
        }
        Ok(Enough::No)
    }

    /// Acknowledges or puts off what a line of stdin names.
    async fn obey(&mut self, line: &[u8]) -> anyhow::Result<()> {
        match parse_order(line) {
            Some(Order::Ack(offset)) => {
                self.subscription.ack_many(vec![offset]).await?;
            }
            Some(Order::Nack(offset)) => {
                self.subscription.nack(vec![offset], None, None).await?;
            }
            None => {
                let line = shown(&String::from_utf8_lossy(line));
                self.globals.notice(&format!("stdin: \"{line}\" is ignored: give 57 or nack 57"));
            }
        }
        Ok(())
    }

    /// Lets the last acks arrive and hangs up.
    async fn finish(mut self, client: &Client) -> anyhow::Result<()> {
        self.output.flush()?;
        let patience = Some(self.globals.patience());
        loop {
            self.acks.begin(&self.subscription);
            if self.acks.under_way.is_none() {
                break;
            }
            let acked =
                within(patience, "no answer to the last ack", self.acks.under_way()).await?;
            self.acks.done(acked, self.globals)?;
        }
        client.close().await;
        Ok(())
    }
}

async fn next_line(lines: &mut Option<Lines>) -> Option<io::Result<Vec<u8>>> {
    match lines {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}

type Acked = Result<Option<Cursor>, Error>;

/// What is written and not acknowledged.
#[derive(Default)]
struct Acks {
    auto: bool,
    /// Written, perhaps not handed over.
    written: Vec<Offset>,
    /// Handed over, not acknowledged.
    due: Vec<Offset>,
    under_way: Option<Pin<Box<dyn Future<Output = Acked> + Send>>>,
}

impl Acks {
    fn written(&mut self, offset: Offset) {
        if self.auto {
            self.written.push(offset);
        }
    }

    fn handed_over(&mut self) {
        self.due.append(&mut self.written);
    }

    /// Begins an ack if there is something to acknowledge and none is under way.
    fn begin(&mut self, subscription: &Subscription) {
        if self.under_way.is_none() && !self.due.is_empty() {
            let rest = self.due.split_off(self.due.len().min(ACK_MAX));
            let offsets = std::mem::replace(&mut self.due, rest);
            self.under_way = Some(Box::pin(subscription.ack_many(offsets)));
        }
    }

    /// The answer to the ack under way. Cancel safe.
    async fn under_way(&mut self) -> Acked {
        match &mut self.under_way {
            Some(ack) => ack.await,
            None => std::future::pending().await,
        }
    }

    fn done(&mut self, acked: Acked, globals: &Globals) -> anyhow::Result<()> {
        self.under_way = None;
        match acked {
            Ok(_) => Ok(()),
            // The subscription says itself why it has ended.
            Err(Error::Ended) => Ok(()),
            Err(Error::Refused(error)) if error.code == tidings_proto::Code::Conflict => {
                // It was reset meanwhile: what was written comes again.
                globals.notice(&format!("an ack was refused: {error}"));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Args {
    fn options(&self, now: Timestamp) -> anyhow::Result<SubscribeOptions> {
        let filters = Filters::new(self.filters.clone())
            .map_err(|error| Usage::error(format!("FILTER {error}")))?;
        let mut options = SubscribeOptions::to(filters);
        if let From::After(position) = &self.after {
            options.after = Some(After(position.clone()));
        }
        options.since = self.since.map(|since| match since {
            Since::At(time) => time,
            Since::Ago(ago) => {
                let ago_ms = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
                Timestamp::from_millis(now.as_millis().saturating_sub(ago_ms))
            }
        });
        if self.since.is_some() {
            options.after = None;
        }
        options.durable = self.durable.clone();
        if let Some(start) = &self.start {
            options.start = start.clone();
        }
        options.types = self.kinds.clone();
        options.min_priority = self.min_priority;
        Ok(options)
    }
}

/// One event as a line, without its newline.
fn write_event(event: &Event, format: Format, out: &mut Vec<u8>) {
    match format {
        Format::Json => json::write_event(event, out),
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

fn describe(gap: &Gap) -> String {
    let why = format!("{:?}", gap.reason).to_lowercase();
    let why = why.replace("logchanged", "the log is another one");
    format!(
        "gap: the events after {} are gone ({why}); it goes on from {}",
        gap.requested, gap.first
    )
}

/// What a line of stdin says about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Ack(Offset),
    Nack(Offset),
}

fn parse_order(line: &[u8]) -> Option<Order> {
    let text = std::str::from_utf8(line).ok()?.trim();
    let offset = |text: &str| text.trim().parse().ok().and_then(Offset::new);
    match text.strip_prefix("nack ") {
        Some(text) => offset(text).map(Order::Nack),
        None => offset(text.strip_prefix("ack ").unwrap_or(text)).map(Order::Ack),
    }
}

fn parse_after(text: &str) -> Result<From, String> {
    match text {
        "now" => Ok(From::Now),
        "first" => Ok(From::After(Position { cursor: Cursor::START, log: None })),
        _ => text.parse().map(From::After).map_err(|error| format!("{error}; or now, or first")),
    }
}

fn parse_since(text: &str) -> Result<Since, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Since::Ago(ago));
    }
    let time = text.parse().map(Since::At);
    time.map_err(|_| {
        "give how long ago, as in 2h, or a time, as in 2026-11-21T06:00:00Z".to_owned()
    })
}

fn parse_start(text: &str) -> Result<Start, String> {
    match text {
        "first" => return Ok(Start::First),
        "now" => return Ok(Start::Now),
        _ => {}
    }
    if let Ok(position) = text.parse() {
        return Ok(Start::After(position));
    }
    let time = text.parse().map(Start::Since);
    time.map_err(|_| "give first, now, an offset, or a time, as in 2026-11-21T06:00:00Z".to_owned())
}

fn parse_durable(text: &str) -> Result<String, String> {
    match tidings_proto::topic::is_durable_name(text) {
        true => Ok(text.to_owned()),
        false => Err("a name is 1 to 64 of A–Z a–z 0–9 _ - : @ =".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use clap::Parser;
    use tidings_proto::Topic;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(line: &str) -> Result<Args, clap::Error> {
        let words = ["tidings", "sub"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words)?.command {
            Command::Sub(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    fn options(line: &str) -> SubscribeOptions {
        args(line).unwrap().options(Timestamp::from_millis(7_200_000)).unwrap()
    }

    #[test]
    fn options_become_wishes() {
        assert_eq!(options("a.> b").after, None);
        assert_eq!(options("a --after first").after.unwrap().0.cursor, Cursor::START);
        assert_eq!(options("a --after 57@9f3c21d0").after.unwrap().0.to_string(), "57@9f3c21d0");
        assert_eq!(options("a --since 2h").since, Some(Timestamp::from_millis(0)));
        assert_eq!(
            options("a --since 1970-01-01T00:00:05Z").since,
            Some(Timestamp::from_millis(5_000))
        );
        let durable =
            options("a --durable inbox --start 7 --type task.* --type x --min-priority high");
        assert_eq!(durable.durable.as_deref(), Some("inbox"));
        assert!(matches!(durable.start, Start::After(position) if position.cursor.get() == 7));
        assert_eq!(durable.types, ["task.*", "x"]);
        assert_eq!(durable.min_priority, Some(Priority::High));
        assert_eq!(durable.after, None);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in [
            "a --after 1 --durable d",
            "a --since 1h --after 1",
            "a --since 1h --durable d",
            "a --ack auto",
            "a --start first",
            "a --durable two.tokens",
            "a --count 0",
            "a --after never",
            "a..b",
            "a --output xml",
        ] {
            assert!(args(line).is_err(), "{line}");
        }
        let many = vec!["a"; 65].join(" ");
        assert!(args(&many).unwrap().options(Timestamp::from_millis(0)).is_err());
    }

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

    #[test]
    fn stdin_names_events() {
        let offset = Offset::new(57).unwrap();
        assert_eq!(parse_order(b"57\r"), Some(Order::Ack(offset)));
        assert_eq!(parse_order(b"ack 57"), Some(Order::Ack(offset)));
        assert_eq!(parse_order(b" nack 57 "), Some(Order::Nack(offset)));
        for line in [&b""[..], b"0", b"nack", b"x", b"\xff"] {
            assert_eq!(parse_order(line), None);
        }
    }
}
