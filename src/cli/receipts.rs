//! `tidings receipts`: who has acknowledged an event.

use serde::Deserialize;
use tidings_proto::{
    Offset,
    message::{Receipt, ReceiptState, Receipts},
};

use super::{
    Globals, block_on,
    output::{Output, print},
};

/// What `tidings receipts` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The event.
    #[arg(value_parser = parse_offset)]
    pub offset: Offset,
}

const EXAMPLES: &str = "\
Examples:
  tidings receipts 57
  tidings receipts 57 --json";

/// Some of them, and where to go on: a name, of which every letter may stand in an address.
#[derive(Deserialize)]
struct Page {
    receipts: Vec<Receipt>,
    cursor: Option<String>,
}

/// Writes one line for each durable subscription that the event matches.
///
/// # Errors
/// When the broker does not answer or there is no such event.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    block_on(async {
        let http = globals.http()?;
        let mut receipts = Receipts { offset: args.offset, receipts: Vec::new() };
        let mut behind = String::new();
        loop {
            let path = format!("/v1/events/{}/receipts?limit=1000{behind}", args.offset);
            let page: Page = http.get(&path).await?.ok()?.json()?;
            receipts.receipts.extend(page.receipts);
            let Some(cursor) = page.cursor else { break };
            behind = format!("&cursor={cursor}");
        }
        if globals.json {
            return print(&serde_json::to_string(&receipts)?);
        }
        if receipts.receipts.is_empty() {
            globals.notice("no durable subscription matches it");
        }
        let names = receipts.receipts.iter().map(|receipt| receipt.subscription.len());
        let width = names.max().unwrap_or(0);
        let mut output = Output::stdout();
        for receipt in &receipts.receipts {
            let state = name_of(receipt.state);
            output.line(format!("{:width$}  {state}", receipt.subscription).as_bytes())?;
        }
        output.flush()
    })
}

fn name_of(state: ReceiptState) -> &'static str {
    match state {
        ReceiptState::Pending => "pending",
        ReceiptState::InFlight => "in flight",
        ReceiptState::Acked => "acked",
        ReceiptState::Skipped => "skipped",
        ReceiptState::Dead => "dead",
    }
}

pub(super) fn parse_offset(text: &str) -> Result<Offset, String> {
    let number = text.parse().ok().and_then(Offset::new);
    number.ok_or_else(|| format!("an offset is a number from 1 to {}", Offset::MAX))
}
