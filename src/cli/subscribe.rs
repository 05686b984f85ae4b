//! `tidings sub`: writes events to stdout as they come.

mod format;
mod reader;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use serde::de::DeserializeOwned;
use tidings_proto::{
    Cursor, Filter, Filters, Mode, Position, Priority, Start, SubscribeOptions, Timestamp,
    subscribe::{After, Order, PartitionBy, Presence},
};

pub use self::format::Format;
pub(super) use self::format::write_event;
use self::reader::{Reader, Signals};
use super::{Globals, block_on, exit::Usage, output::Output, sealing, stdin, within};
use crate::clock;

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
    /// Acknowledge what is written; or what stdin says (`57`, or `nack 57`, a line each); or
    /// nothing.
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
    /// Only events that have this header with this value; may be given more than once.
    #[arg(long, value_name = "NAME:VALUE", value_parser = super::publish::parse_header)]
    pub header: Vec<(String, String)>,
    /// First the newest event of every topic and key, then all that follows.
    #[arg(long, conflicts_with_all = ["after", "since", "start"])]
    pub last_per_key: bool,
    /// Of a topic and key only the last event within this time, as in 100ms.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub conflate: Option<Duration>,
    /// Leave out data of more bytes; the header dataref says where it is.
    #[arg(long, value_name = "BYTES")]
    pub max_data_bytes: Option<u64>,
    /// Take so many bytes a second at most.
    #[arg(long, value_name = "BYTES")]
    pub max_bytes_per_second: Option<u64>,
    /// Let the broker compress what it sends: for a slow or expensive line.
    #[arg(long)]
    pub compress: bool,
    /// How several sessions share a durable: exclusive, shared or mirror.
    #[arg(long, value_parser = parse_word::<Mode>, requires = "durable")]
    pub mode: Option<Mode>,
    /// In which order a durable delivers: log or priority.
    #[arg(long, value_parser = parse_word::<Order>, requires = "durable")]
    pub order: Option<Order>,
    /// Keep events of one topic and key with one session of a shared durable at a time: key.
    #[arg(long, value_parser = parse_word::<PartitionBy>, requires = "durable")]
    pub partition_by: Option<PartitionBy>,
    /// Be listed on the topics, with this JSON as data; the filters have no wildcards then.
    #[arg(long, value_name = "JSON", value_parser = parse_presence)]
    pub presence: Option<Presence>,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End when what is in the log now has been written.
    #[arg(long)]
    pub until_caught_up: bool,
    /// Open sealed events with the keys in this file; one that does not open ends the command.
    #[arg(long, value_name = "FILE", conflicts_with = "max_data_bytes")]
    pub open_with: Option<PathBuf>,
    /// How to write an event [default: pretty on a terminal, else json].
    #[arg(long, value_enum)]
    pub output: Option<Format>,
}

const EXAMPLES: &str = "\
Examples:
  tidings sub 'tasks.>' --after first --output json
  tidings sub 'logs.>' --after first --compress --until-caught-up
  tidings sub jobs --durable workers --mode shared --order priority
  tidings sub 'payments.>' --after first --open-with payments.keys
  tidings sub 'users.alice.>' --durable alice-inbox --ack auto --start first
  tidings sub rooms.1 '$presence.rooms.1' --presence '{\"name\":\"Alice\"}'";

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

/// Subscribes and writes until there is enough, or a signal.
///
/// # Errors
/// When the broker refuses, another session takes the durable over, or an event does not open.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    let wish = args.options(clock::now())?;
    let keys = args.open_with.as_deref().map(|path| sealing::keys(path, globals)).transpose()?;
    let format = match (args.output, globals.json) {
        (Some(format), _) => format,
        (None, false) if Output::is_terminal() => Format::Pretty,
        (None, _) => Format::Json,
    };
    block_on(async {
        let patience = Some(globals.patience());
        let mut signals = Signals::new()?;
        let subscribing = async {
            let mut options = globals.options()?;
            options.compress = args.compress;
            let client = super::connect(options, patience).await?;
            let what = "no answer to the subscribe";
            let subscription = within(patience, what, client.subscribe(wish)).await??;
            anyhow::Ok((client, subscription))
        };
        let (client, subscription) = tokio::select! {
            subscribed = subscribing => subscribed?,
            () = signals.next() => return Ok(()),
        };
        let lines = match args.ack_mode() {
            AckMode::Manual => Some(stdin::lines().context("cannot read stdin")?),
            AckMode::Auto | AckMode::None => None,
        };
        let mut reader = Reader::new(args, globals, format, keys, subscription);
        reader.read(&mut signals, lines).await?;
        let unopened = reader.unopened();
        tokio::select! {
            done = reader.finish(&client) => done?,
            // Told twice: what is not acknowledged comes again.
            () = signals.next() => {}
        }
        unopened.map_or(Ok(()), |error| Err(error.into()))
    })
}

impl Args {
    /// Who acknowledges: this command, unless it is told otherwise or there is nothing to.
    fn ack_mode(&self) -> AckMode {
        match (&self.durable, self.ack) {
            (None, _) => AckMode::None,
            (Some(_), ack) => ack.unwrap_or(AckMode::Auto),
        }
    }

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
        options.presence = self.presence.clone();
        options.headers = self.header.iter().cloned().collect();
        options.last_per_key = self.last_per_key;
        options.conflate_ms =
            self.conflate.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        options.max_data_bytes = self.max_data_bytes;
        options.max_bytes_per_second = self.max_bytes_per_second.unwrap_or(0);
        options.mode = self.mode.unwrap_or_default();
        options.order = self.order.unwrap_or_default();
        options.partition_by = self.partition_by;
        Ok(options)
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

pub(super) fn parse_start(text: &str) -> Result<Start, String> {
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

/// One of the protocol's words.
fn parse_word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::from(text)).map_err(|error| error.to_string())
}

fn parse_presence(text: &str) -> Result<Presence, String> {
    let data = serde_json::from_str(text);
    data.map(|data| Presence { data }).map_err(|error| {
        format!("it is not JSON ({error}): give a value, as in '{{\"name\":\"Alice\"}}', or null")
    })
}

fn parse_durable(text: &str) -> Result<String, String> {
    match tidings_proto::topic::is_durable_name(text) {
        true => Ok(text.to_owned()),
        false => Err("a name is 1 to 64 of A–Z a–z 0–9 _ - : @ =".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

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
        let listed = options("a --presence {\"n\":1}").presence.unwrap();
        assert_eq!(listed.data, serde_json::json!({"n": 1}));
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
            "a --presence {",
            "a --open-with f --max-data-bytes 5",
        ] {
            assert!(args(line).is_err(), "{line}");
        }
        let many = vec!["a"; 65].join(" ");
        assert!(args(&many).unwrap().options(Timestamp::from_millis(0)).is_err());
    }
}
