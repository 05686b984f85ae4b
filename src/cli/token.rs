//! `tidings token`: make tokens for HS256, look into tokens, revoke them.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use base64::Engine;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value, json};
use tidings_proto::{Filter, Timestamp};
use zeroize::Zeroizing;

use super::{
    Globals, block_on,
    exit::Usage,
    output::{Output, print, shown},
    read_file, stdin,
};
use crate::{clock, config::HS256_SECRET_BYTES_MIN};

/// What `tidings token` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tidings token create alice --secret-file secret --subscribe 'users.{sub}.>' --ttl 8h
  tidings token revoke --subject alice";

/// The commands of `tidings token`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a token, signed with the secret of HS256 that the broker has too.
    Create(CreateArgs),
    /// Show what a token says. Its signature is not looked at.
    Inspect(InspectArgs),
    /// Have the broker refuse a token, or all that a subject was given, and end their sessions.
    Revoke(RevokeArgs),
}

/// What `tidings token create` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = CREATE_EXAMPLES)]
pub struct CreateArgs {
    /// Whose token it is.
    #[arg(value_parser = parse_subject)]
    pub subject: String,
    /// The file with the secret (`auth.hs256_secret_file`).
    #[arg(long, value_name = "FILE")]
    pub secret_file: PathBuf,
    /// How long it holds.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    pub ttl: Duration,
    /// What it may do.
    #[command(flatten)]
    pub grants: Grants,
    /// The claim iss, where the broker asks for it.
    #[arg(long)]
    pub issuer: Option<String>,
    /// The claim aud, where the broker asks for it.
    #[arg(long)]
    pub audience: Option<String>,
}

const CREATE_EXAMPLES: &str = "\
Examples:
  tidings token create root --secret-file secret --publish '>' --subscribe '>' --durable '*' --admin
  tidings token create alice --secret-file secret --subscribe 'users.{sub}.>' --durable '{sub}:*'";

/// What somebody may do.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Grants {
    /// A filter of topics to publish to; may be given more than once.
    #[arg(long, value_name = "FILTER", value_parser = parse_grant)]
    pub publish: Vec<String>,
    /// A filter of topics to read; may be given more than once.
    #[arg(long, value_name = "FILTER", value_parser = parse_grant)]
    pub subscribe: Vec<String>,
    /// A durable, or a prefix that ends in *; may be given more than once.
    #[arg(long, value_name = "NAME")]
    pub durable: Vec<String>,
    /// Whatever concerns everybody: retention, revocations, API keys.
    #[arg(long)]
    pub admin: bool,
}

impl Grants {
    /// As the claim `tidings` has them.
    pub(super) fn claim(&self) -> Value {
        let Grants { publish, subscribe, durable, admin } = self;
        json!({"publish": publish, "subscribe": subscribe, "durable": durable, "admin": admin})
    }
}

/// What `tidings token inspect` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = INSPECT_EXAMPLES)]
pub struct InspectArgs {
    /// A file with the token; without one it is read from stdin.
    pub file: Option<PathBuf>,
}

const INSPECT_EXAMPLES: &str = "\
Examples:
  tidings token create alice --secret-file secret | tidings token inspect
  tidings token inspect token.txt --json";

/// What `tidings token revoke` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = REVOKE_EXAMPLES)]
pub struct RevokeArgs {
    /// A file with the token that is to be revoked; - reads it from stdin.
    #[arg(required_unless_present_any = ["jti", "subject"], conflicts_with_all = ["jti", "subject", "until"])]
    pub file: Option<PathBuf>,
    /// The claim jti of the token.
    #[arg(long, conflicts_with = "subject")]
    pub jti: Option<String>,
    /// Whose tokens and API keys are to be revoked: all that were issued until now.
    #[arg(long, value_parser = parse_subject)]
    pub subject: Option<String>,
    /// With --subject: those that were issued before this moment (RFC 3339).
    #[arg(long, value_name = "TIME", requires = "subject")]
    pub before: Option<Timestamp>,
    /// When the last of them ends by itself (RFC 3339); the broker forgets the revocation then.
    #[arg(long, value_name = "TIME")]
    pub until: Option<Timestamp>,
}

const REVOKE_EXAMPLES: &str = "\
Examples:
  tidings token revoke stolen.txt
  tidings token revoke --subject alice --until 2027-01-01T00:00:00Z";

/// Carries out what was asked.
///
/// # Errors
/// When a file cannot be read or has no token, or the broker refuses.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    match &args.command {
        Command::Create(args) => create(args),
        Command::Inspect(args) => inspect(args, globals),
        Command::Revoke(args) => revoke(args, globals),
    }
}

fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let secret = Zeroizing::new(read_file(&args.secret_file).context("cannot read the secret")?);
    // As the broker reads it.
    let end = secret.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
    let secret = secret.get(..end.map_or(0, |end| end + 1)).unwrap_or_default();
    if secret.len() < HS256_SECRET_BYTES_MIN {
        return Err(Usage::error(format!(
            "{}: the secret has {} bytes, and a broker takes none of less than {HS256_SECRET_BYTES_MIN}",
            args.secret_file.display(),
            secret.len()
        )));
    }
    let now_s = clock::now().as_millis() / 1000;
    let mut claims = json!({
        "sub": args.subject,
        "iat": now_s,
        "exp": now_s.saturating_add(args.ttl.as_secs()),
        "jti": clock::event_id().simple().to_string(),
        "tidings": args.grants.claim(),
    });
    for (name, value) in [("iss", &args.issuer), ("aud", &args.audience)] {
        if let (Some(value), Some(claims)) = (value, claims.as_object_mut()) {
            claims.insert(name.to_owned(), json!(value));
        }
    }
    let token =
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret));
    print(&token.context("cannot sign the token")?)
}

fn inspect(args: &InspectArgs, globals: &Globals) -> anyhow::Result<()> {
    let token = token_of(args.file.as_deref())?;
    let (header, claims) = parts(&token)?;
    if globals.json {
        return print(&json!({"header": header, "claims": claims}).to_string());
    }
    let mut output = Output::stdout();
    for (name, value) in header.iter().chain(&claims) {
        let value = match (name.as_str(), value.as_f64()) {
            ("exp" | "nbf" | "iat", Some(seconds)) => moment(seconds),
            _ => shown(&value.to_string()),
        };
        output.line(format!("{:9}  {value}", shown(name)).as_bytes())?;
    }
    output.flush()
}

/// A NumericDate as people read it.
fn moment(seconds: f64) -> String {
    let now_ms = clock::now().as_millis();
    let at = Timestamp::from_millis((seconds * 1000.0) as u64);
    let distance = Duration::from_secs(at.as_millis().abs_diff(now_ms) / 1000);
    let distance = humantime::format_duration(distance);
    match at.as_millis() < now_ms {
        true => format!("{at} ({distance} ago)"),
        false => format!("{at} (in {distance})"),
    }
}

fn revoke(args: &RevokeArgs, globals: &Globals) -> anyhow::Result<()> {
    let body = match &args.file {
        Some(file) => revocation_of(&token_of(Some(file.as_path()))?)?,
        None => {
            let mut body = Map::new();
            let times = [("before", args.before), ("until", args.until)];
            let times = times.map(|(name, time)| (name, time.map(|time| time.to_string())));
            let texts = [("jti", args.jti.clone()), ("subject", args.subject.clone())];
            for (name, value) in texts.into_iter().chain(times) {
                body.extend(value.map(|value| (name.to_owned(), Value::String(value))));
            }
            Value::Object(body)
        }
    };
    block_on(async {
        let answer = globals.http()?.post("/v1/auth/revocations", body.to_string()).await?.ok()?;
        let revoked: Value = answer.json()?;
        let line = match globals.json {
            true => revoked.to_string(),
            false => {
                let whom = revoked.get("jti").or(revoked.get("subject"));
                format!("revoked  {}", shown(whom.and_then(Value::as_str).unwrap_or_default()))
            }
        };
        print(&line)
    })
}

/// What revokes a token: its jti, for as long as it would hold.
fn revocation_of(token: &str) -> anyhow::Result<Value> {
    let (_, claims) = parts(token)?;
    let Some(jti) = claims.get("jti").and_then(Value::as_str) else {
        let text = "the token has no jti by which it could be revoked: revoke --subject instead";
        return Err(Usage::error(text));
    };
    let until = claims.get("exp").and_then(Value::as_f64);
    let until = until.map(|seconds| Timestamp::from_millis((seconds * 1000.0) as u64).to_string());
    Ok(json!({"jti": jti, "until": until.context("the token has no exp")?}))
}

/// The token in a file; `None` and - are stdin.
fn token_of(file: Option<&std::path::Path>) -> anyhow::Result<Zeroizing<String>> {
    let bytes = match file {
        Some(path) if path.as_os_str() != "-" => {
            read_file(path).context("cannot read the token")?
        }
        _ => stdin::all().context("cannot read stdin")?,
    };
    let text = Zeroizing::new(String::from_utf8(bytes)?);
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Header and claims of a token.
fn parts(token: &str) -> anyhow::Result<(Map<String, Value>, Map<String, Value>)> {
    let none = || Usage::error("that is no token: three parts in base64url, joined by dots");
    let part = |text: &str| -> anyhow::Result<Map<String, Value>> {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text);
        serde_json::from_slice(&bytes.map_err(|_| none())?).map_err(|_| none())
    };
    let mut split = token.split('.');
    match (split.next(), split.next(), split.next(), split.next()) {
        (Some(header), Some(claims), Some(_), None) => Ok((part(header)?, part(claims)?)),
        _ => Err(none()),
    }
}

fn parse_subject(text: &str) -> Result<String, String> {
    match (1..=200).contains(&text.len()) && !text.chars().any(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("a subject has 1 to 200 bytes and no control characters".to_owned()),
    }
}

/// A filter in which `{sub}` stands for the subject.
fn parse_grant(text: &str) -> Result<String, String> {
    Filter::parse(&text.replace("{sub}", "x")).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}
