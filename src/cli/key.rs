//! `tidings key`: make, list and revoke API keys; make sealing keys, which no broker sees.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidings_proto::Timestamp;

use super::{
    Globals, block_on,
    output::{Output, print, shown},
    sealing,
    token::Grants,
};

/// What `tidings key` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tidings key add ci --publish 'builds.>'
  tidings key ls";

/// The commands of `tidings key`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a key and write it to stdout: nothing shows it again.
    Add(AddArgs),
    /// List the keys there are, without their secrets.
    Ls(LsArgs),
    /// Have the broker refuse a key, and end its sessions.
    Revoke(RevokeArgs),
    /// Make a key that seals events end to end, as the last line of a file; no broker sees it.
    Make(MakeArgs),
}

/// What `tidings key add` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = ADD_EXAMPLES)]
pub struct AddArgs {
    /// What it is for.
    pub name: String,
    /// Who comes with it [default: the name].
    #[arg(long)]
    pub subject: Option<String>,
    /// What it may do.
    #[command(flatten)]
    pub grants: Grants,
    /// When it ends (RFC 3339) [default: never].
    #[arg(long, value_name = "TIME")]
    pub expires: Option<Timestamp>,
}

const ADD_EXAMPLES: &str = "\
Examples:
  tidings key add ci --publish 'builds.>' > ci.key
  tidings key add dashboard --subscribe 'metrics.>' --expires 2027-01-01T00:00:00Z";

/// What `tidings key ls` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = LS_EXAMPLES)]
pub struct LsArgs {}

const LS_EXAMPLES: &str = "\
Examples:
  tidings key ls
  tidings key ls --json";

/// What `tidings key revoke` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = REVOKE_EXAMPLES)]
pub struct RevokeArgs {
    /// Its id, as `tidings key ls` shows it.
    pub id: String,
}

const REVOKE_EXAMPLES: &str = "\
Examples:
  tidings key revoke 8f0c1b2a3d4e5f60
  tidings key revoke 8f0c1b2a3d4e5f60 --quiet";

/// What `tidings key make` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = MAKE_EXAMPLES)]
pub struct MakeArgs {
    /// The file; it is made where it is not there. The new key seals from now on, those before it still open.
    pub file: PathBuf,
}

const MAKE_EXAMPLES: &str = "\
Examples:
  tidings key make payments.keys
  tidings key make payments.keys && tidings pub payments.42 '{\"iban\":\"…\"}' --seal-with payments.keys";

#[derive(Deserialize)]
struct Page {
    keys: Vec<Value>,
    cursor: Option<String>,
}

/// Carries out what was asked.
///
/// # Errors
/// When the broker does not answer or refuses, or the file cannot be written.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    match &args.command {
        Command::Add(args) => add(args, globals),
        Command::Ls(_) => list(globals),
        Command::Revoke(args) => revoke(args, globals),
        Command::Make(args) => make(args, globals),
    }
}

fn add(args: &AddArgs, globals: &Globals) -> anyhow::Result<()> {
    let mut body = Map::new();
    body.insert("name".to_owned(), Value::String(args.name.clone()));
    body.insert("grants".to_owned(), args.grants.claim());
    let subject =
        args.subject.clone().map(|subject| ("subject".to_owned(), Value::String(subject)));
    let expires = args.expires.map(|at| ("expires".to_owned(), Value::String(at.to_string())));
    body.extend(subject.into_iter().chain(expires));
    let body = Value::Object(body).to_string();
    block_on(async {
        let answer = globals.http()?.post("/v1/auth/keys", body).await?.ok()?;
        let made: Value = answer.json()?;
        if globals.json {
            return print(&made.to_string());
        }
        globals.notice(&format!("made {}: nothing shows the key again", text(&made, "id")));
        print(&text(&made, "key"))
    })
}

fn list(globals: &Globals) -> anyhow::Result<()> {
    block_on(async {
        let http = globals.http()?;
        let mut output = Output::stdout();
        let mut after = String::new();
        loop {
            let path = format!("/v1/auth/keys?limit=1000{after}");
            let page: Page = http.get(&path).await?.ok()?.json()?;
            for key in &page.keys {
                let line = match globals.json {
                    true => key.to_string(),
                    false => row(key),
                };
                output.line(line.as_bytes())?;
            }
            match page.cursor {
                Some(cursor) => after = format!("&cursor={cursor}"),
                None => return output.flush(),
            }
        }
    })
}

fn row(key: &Value) -> String {
    let expires =
        key.get("expires").and_then(Value::as_str).map(|at| format!("  until {}", shown(at)));
    format!(
        "{}  {}  {}  made {}{}  {}",
        text(key, "id"),
        text(key, "name"),
        text(key, "subject"),
        text(key, "made"),
        expires.unwrap_or_default(),
        key.get("grants").unwrap_or(&Value::Null)
    )
}

fn text(key: &Value, name: &str) -> String {
    shown(key.get(name).and_then(Value::as_str).unwrap_or_default())
}

fn revoke(args: &RevokeArgs, globals: &Globals) -> anyhow::Result<()> {
    block_on(async {
        let id =
            percent_encoding::utf8_percent_encode(&args.id, percent_encoding::NON_ALPHANUMERIC);
        globals.http()?.delete(&format!("/v1/auth/keys/{id}")).await?.ok()?;
        globals.notice("revoked");
        Ok(())
    })
}

fn make(args: &MakeArgs, globals: &Globals) -> anyhow::Result<()> {
    let id = sealing::add_key(&args.file, globals)?;
    if globals.json {
        return print(&json!({ "id": id }).to_string());
    }
    globals
        .notice(&format!("made {id}: give the file to all who open before anybody seals with it"));
    Ok(())
}
