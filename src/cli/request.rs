//! `tidings request`: publishes a question and writes the answer.

use std::ffi::OsString;

use anyhow::Context;
use bytes::Bytes;
use tidings_proto::{NewEvent, Priority, Topic, event::DEFAULT_TYPE, message::Publish};

use super::{
    Globals, block_on,
    exit::Usage,
    output::Output,
    publish::{content_type_of, parse_header},
    stdin,
    subscribe::{Format, write_event},
};

/// What `tidings request` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to ask, as in agents.7.commands.
    #[arg(value_parser = Topic::parse)]
    pub topic: Topic,
    /// The data; - reads it from stdin. Valid JSON is published as JSON, anything else as text.
    #[arg(allow_negative_numbers = true)]
    pub data: Option<OsString>,
    /// Where the answer is to go.
    #[arg(long, value_name = "TOPIC", value_parser = Topic::parse)]
    pub reply_to: Topic,
    /// The question's type.
    #[arg(long = "type", default_value = DEFAULT_TYPE, value_name = "TYPE")]
    pub kind: String,
    /// low, normal, high or urgent.
    #[arg(long, default_value = "normal")]
    pub priority: Priority,
    /// What question and answer have in common [default: made].
    #[arg(long)]
    pub correlation: Option<String>,
    /// An attribute of your own; may be given more than once.
    #[arg(long, value_name = "KEY:VALUE", value_parser = parse_header)]
    pub header: Vec<(String, String)>,
}

const EXAMPLES: &str = "\
Examples:
  tidings request agents.7.commands '{\"run\":\"tests\"}' --reply-to replies.me --timeout 30s
  tidings request agents.7.commands stop --reply-to replies.me --type command.interrupt --priority urgent

Whoever answers publishes to the topic in the header reply-to, with the question's correlation. The question
expires with --timeout (10 s where it is not given), after which nobody waits for the answer: exit code 5.";

/// Asks, and writes the answer as an event.
///
/// # Errors
/// When the broker refuses, or nobody answers in time.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    let data = match &args.data {
        Some(data) if data == "-" => Some(stdin::all().context("cannot read stdin")?),
        data => data.as_ref().map(|data| data.as_encoded_bytes().to_vec()),
    };
    let event = args.question(data)?;
    block_on(async {
        let patience = globals.patience();
        let client = globals.connect(Some(patience)).await?;
        let answer = client.request(Publish::of(event), &args.reply_to, patience).await?;
        client.close().await;
        let format = match globals.json || !Output::is_terminal() {
            true => Format::Json,
            false => Format::Pretty,
        };
        let mut line = Vec::new();
        write_event(&answer, format, &mut line);
        let mut output = Output::stdout();
        output.line(&line)?;
        output.flush()
    })
}

impl Args {
    fn question(&self, data: Option<Vec<u8>>) -> anyhow::Result<NewEvent> {
        let content_type = data.as_deref().map(|data| content_type_of(data, true).to_owned());
        let event = NewEvent {
            kind: self.kind.clone(),
            datacontenttype: content_type,
            data: data.map(Bytes::from),
            priority: self.priority,
            correlation: self.correlation.clone(),
            headers: self.header.iter().cloned().collect(),
            ..NewEvent::on(self.topic.clone())
        };
        event.check().map_err(|error| Usage::error(error.to_string()))?;
        Ok(event)
    }
}
