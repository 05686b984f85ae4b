//! `tidings presence`: who is listed on a topic.

use tidings_proto::{
    Topic,
    message::{Member, Presence},
};

use super::{
    Globals, block_on,
    output::{Output, print, shown},
};

/// What `tidings presence` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The topic.
    #[arg(value_parser = parse_topic)]
    pub topic: Topic,
}

const EXAMPLES: &str = "\
Examples:
  tidings presence rooms.1
  tidings presence rooms.1 --json";

/// Writes one line for each member: who, since when, the session, and the data it is listed with.
///
/// # Errors
/// When the broker does not answer, or subscribing to the topic is not granted.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    block_on(async {
        // A topic's characters stand in a path as they are.
        let path = format!("/v1/presence/{}", args.topic);
        let answer = globals.http()?.get(&path).await?.ok()?;
        let presence: Presence = answer.json()?;
        if globals.json {
            return print(&serde_json::to_string(&presence)?);
        }
        if presence.members.is_empty() {
            globals.notice("nobody is listed there");
        }
        let width = presence.members.iter().map(|member| shown(&member.subject).len()).max();
        let mut output = Output::stdout();
        for member in &presence.members {
            output.line(line_of(member, width.unwrap_or(0)).as_bytes())?;
        }
        output.flush()
    })
}

fn line_of(member: &Member, width: usize) -> String {
    let (subject, session) = (shown(&member.subject), shown(&member.session));
    let since = member.since;
    match member.data.is_null() {
        true => format!("{subject:width$}  {since}  {session}"),
        false => {
            format!("{subject:width$}  {since}  {session}  {}", shown(&member.data.to_string()))
        }
    }
}

fn parse_topic(text: &str) -> Result<Topic, String> {
    match Topic::parse(text) {
        Ok(topic) if !topic.is_own() => Ok(topic),
        Ok(_) => Err("is the broker's own, where nobody is listed".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
