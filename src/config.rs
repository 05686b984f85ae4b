//! The settings of the broker: one table, read from flags, environment, a file and defaults, in that order.
//!
//! - A key `section.name` is `TIDINGS_SECTION__NAME` in the environment and `name` under `[section]` in the file.
//! - Values are parsed by the declared type; a wrong one is refused with where it came from.
//! - A key nobody knows is refused, with the nearest one there is.
//! - Every bound of the broker is here; `docs/configuration.md` is this table.

mod auth;
mod limits;
mod retention;
mod settings;
mod shown;
mod tls;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

pub use self::{
    auth::{Auth, KeyFiles, KeyServer, KeySet, KeySource},
    settings::{SETTINGS, Setting},
    tls::TlsFiles,
};
pub use crate::auth::HS256_SECRET_BYTES_MIN;
use crate::{
    log,
    net::{self, coding::Codings},
    session,
};

/// The flags of `tidings serve`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// The public listener, ADDRESS:PORT; port 0 picks a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// The admin listener: health and metrics.
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<String>,
    /// A TOML file of settings.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Allow an open broker on other than loopback addresses.
    #[arg(long)]
    pub insecure: bool,
    /// Serve a page to try it with at /, and say how else to try it.
    #[arg(long)]
    pub demo: bool,
    /// A file with the secret of HS256 tokens; without one the broker runs open.
    #[arg(long, value_name = "FILE")]
    pub auth_jwt_hs256_secret_file: Option<String>,
    /// A browser origin that may connect besides our own; may be given more than once.
    #[arg(long, value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,
    /// Any setting: KEY=VALUE; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// What the broker runs with.
#[derive(Debug)]
pub struct Config {
    /// The public listener.
    pub listen: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    /// How long a stop may take.
    pub stop_timeout: Duration,
    /// Say how to try it; [`net::Options::demo`] serves the page.
    pub demo: bool,
    /// For each room.
    pub log: log::Options,
    /// Of every session.
    pub limits: session::Limits,
    /// The most durable subscriptions there may be.
    pub durables_max: session::DurablesMax,
    /// The most events that may wait for their moment.
    pub scheduled_max: usize,
    /// How many topics and keys all states that are being given out have together.
    pub slots_max: usize,
    /// Who is listed on topics, for how long.
    pub presence: session::PresenceOptions,
    /// Those with metrics of their own; a name may end in `*`.
    pub durables_shown: Vec<String>,
    /// Of the doors.
    pub net: net::Options,
    /// Where the certificate of the public listener is, where it speaks TLS.
    pub tls: Option<TlsFiles>,
    /// Who may come in.
    pub auth: Auth,
}

/// Why the settings do not hold.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that does not fit.
    #[error("{key} = \"{value}\" ({origin}): it must be {values}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// Where.
        origin: String,
        /// What it takes.
        values: &'static str,
    },
    /// A rule of retention.
    #[error("retention.rules ({origin}): {problem}")]
    Rules {
        /// Where.
        origin: String,
        /// What is wrong, which begins with the word or the filter.
        problem: String,
    },
    /// A key nobody knows.
    #[error("there is no setting {key} ({origin}); the nearest is {nearest}")]
    Unknown {
        /// What was given.
        key: String,
        /// Where.
        origin: String,
        /// What may have been meant.
        nearest: &'static str,
    },
    /// A file that cannot be read.
    #[error("{path} cannot be read: {cause}")]
    File {
        /// Which.
        path: String,
        /// Why.
        cause: std::io::Error,
    },
    /// A file that is no TOML. The line is not shown: it may hold a secret.
    #[error("{path} is no TOML: line {line}: {problem}")]
    Toml {
        /// Which.
        path: String,
        /// Where.
        line: usize,
        /// Why.
        problem: String,
    },
    /// A setting that is not given as text, number or truth.
    #[error(
        "{key} ({origin}): give one value; a list of texts for those settings that say \"by comma\""
    )]
    Form {
        /// Which.
        key: String,
        /// Where it was given.
        origin: String,
    },
    /// What authentication is set to.
    #[error(transparent)]
    Auth(#[from] crate::auth::OptionsError),
    /// A key set that gives no keys.
    #[error("auth.jwks_file: {path}: {cause}")]
    KeySet {
        /// Which.
        path: String,
        /// Why.
        cause: crate::auth::KeyError,
    },
    /// Two key sets.
    #[error("auth.jwks_file and auth.jwks_url are both given: leave one out")]
    TwoKeySets,
    /// A file for a secret without one.
    #[error("auth.hs256_secret_file: {path} is empty: there is no secret in it")]
    NoSecret {
        /// Which.
        path: String,
    },
    /// A secret that can be guessed.
    #[error(
        "{origin}: the secret has {bytes} bytes, at least {min} are needed (RFC 7518 §3.2): make one with `openssl rand -base64 48`",
        min = HS256_SECRET_BYTES_MIN
    )]
    ShortSecret {
        /// The setting, and the file where it is in one.
        origin: String,
        /// How long it is.
        bytes: usize,
    },
    /// Two secrets.
    #[error("auth.hs256_secret and auth.hs256_secret_file are both given: leave one out")]
    TwoSecrets,
    /// An open broker that others could reach.
    #[error(
        "no authentication is configured, so the broker listens on loopback only, not on {0}: configure auth.hs256_secret_file, auth.public_key_file, auth.jwks_file or auth.jwks_url, or say --insecure"
    )]
    Open(SocketAddr),
    /// A broker whose tokens and events others could read on the way.
    #[error(
        "the public listener has no TLS, so it listens on loopback only, not on {0}: give server.tls_cert and server.tls_key, say server.tls_terminated_by_proxy=true where a proxy has the TLS, or say --insecure"
    )]
    Plain(SocketAddr),
    /// A certificate or key that does not hold.
    #[error(transparent)]
    Tls(#[from] net::tls::TlsError),
    /// One of two settings that go together.
    #[error("{given} is given without {missing}: give both, or neither")]
    Half {
        /// The one that is given.
        given: &'static str,
        /// The other.
        missing: &'static str,
    },
}

/// What is in the environment for the commands, and no setting.
const COMMANDS_OWN: [&str; 5] = ["URL", "TOKEN", "CA", "LOG", "ADMIN_URL"];

/// The settings that may be lists in a file.
const LISTS: [&str; 11] = [
    "server.allow_origins",
    "server.trusted_proxies",
    "server.codings",
    "auth.audiences",
    "auth.anonymous.publish",
    "auth.anonymous.subscribe",
    "limits.per_ip",
    "limits.per_subject",
    "limits.per_session",
    "metrics.durables",
    "retention.rules",
];

/// A value of a file as text.
fn of_toml(key: &str, value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Array(list) if LISTS.contains(&key) => {
            let texts: Option<Vec<&str>> = list.iter().map(toml::Value::as_str).collect();
            Some(texts?.join(","))
        }
        toml::Value::Array(_) | toml::Value::Table(_) => None,
        other => Some(other.to_string()),
    }
}

struct Values(BTreeMap<&'static str, (String, String)>);

impl Flags {
    /// What flags, environment, file and defaults say together.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let values = self.values()?;
        let config = values.config(self.demo)?;
        if values.parse("server.insecure")? {
            return Ok(config);
        }
        let is_exposed = |address: &SocketAddr| !address.ip().is_loopback();
        let exposed = [config.listen, config.admin].into_iter().find(is_exposed);
        match exposed {
            Some(address) if config.auth.options.is_open() => Err(ConfigError::Open(address)),
            _ if is_exposed(&config.listen)
                && config.tls.is_none()
                && !values.parse("server.tls_terminated_by_proxy")? =>
            {
                Err(ConfigError::Plain(config.listen))
            }
            _ => Ok(config),
        }
    }

    /// The settings that were given, by key: the value, and where it was given.
    ///
    /// # Errors
    /// See [`ConfigError`]; whether a value fits is for [`Flags::resolve`] to say.
    pub fn given(&self) -> Result<BTreeMap<&'static str, (String, String)>, ConfigError> {
        Ok(self.values()?.0)
    }

    fn values(&self) -> Result<Values, ConfigError> {
        let mut values = Values(BTreeMap::new());
        if let Some(path) = &self.config {
            values.read_file(path)?;
        }
        values.read_environment()?;
        values.read_flags(self)?;
        values.add_profile();
        Ok(values)
    }
}

impl Values {
    fn set(&mut self, key: &str, value: String, origin: String) -> Result<(), ConfigError> {
        match SETTINGS.iter().find(|setting| setting.key == key) {
            Some(setting) => {
                self.0.insert(setting.key, (value, origin));
                Ok(())
            }
            None => {
                Err(ConfigError::Unknown { key: key.to_owned(), origin, nearest: nearest(key) })
            }
        }
    }

    fn read_file(&mut self, path: &std::path::Path) -> Result<(), ConfigError> {
        let shown = path.display().to_string();
        let text = read_text(path)?;
        let table: toml::Table = toml::from_str(&text).map_err(|cause| {
            let at = cause.span().map_or(0, |span| span.start);
            let before = text.get(..at).unwrap_or_default();
            let (line, problem) = (before.matches('\n').count() + 1, cause.message().to_owned());
            ConfigError::Toml { path: shown.clone(), line, problem }
        })?;
        for (section, entries) in table {
            let toml::Value::Table(entries) = entries else {
                return self.set(&section, entries.to_string(), shown);
            };
            self.read_section(&section, entries, &shown)?;
        }
        Ok(())
    }

    /// A section of the file; a table in it is a part of its keys' names.
    fn read_section(
        &mut self,
        section: &str,
        entries: toml::Table,
        origin: &str,
    ) -> Result<(), ConfigError> {
        for (name, value) in entries {
            let key = format!("{section}.{name}");
            let form = || ConfigError::Form { key: key.clone(), origin: origin.to_owned() };
            let has_parts = SETTINGS.iter().any(|it| it.key.starts_with(&format!("{key}.")));
            match value {
                toml::Value::Table(entries) if has_parts => {
                    self.read_section(&key, entries, origin)?;
                }
                value => {
                    let value = of_toml(&key, value).ok_or_else(form)?;
                    self.set(&key, value, origin.to_owned())?;
                }
            }
        }
        Ok(())
    }

    fn read_environment(&mut self) -> Result<(), ConfigError> {
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str() else { continue };
            let Some(rest) = name.strip_prefix("TIDINGS_") else { continue };
            if COMMANDS_OWN.contains(&rest) {
                continue;
            }
            // One section more is understood: TIDINGS_AUTH__JWT__HS256_SECRET.
            let key = rest.to_ascii_lowercase().replace("__", ".").replace("auth.jwt.", "auth.");
            let origin = format!("environment, {name}");
            let value = value
                .into_string()
                .map_err(|_| ConfigError::Form { key: key.clone(), origin: origin.clone() })?;
            self.set(&key, value, origin)?;
        }
        Ok(())
    }

    fn read_flags(&mut self, flags: &Flags) -> Result<(), ConfigError> {
        let given = [
            ("log.dir", "--data", flags.data.clone()),
            ("server.listen", "--listen", flags.listen.clone()),
            ("server.admin", "--admin", flags.admin.clone()),
            ("server.insecure", "--insecure", flags.insecure.then(|| "true".to_owned())),
            (
                "auth.hs256_secret_file",
                "--auth-jwt-hs256-secret-file",
                flags.auth_jwt_hs256_secret_file.clone(),
            ),
            (
                "server.allow_origins",
                "--allow-origin",
                (!flags.allow_origin.is_empty()).then(|| flags.allow_origin.join(",")),
            ),
        ];
        for (key, flag, value) in given {
            if let Some(value) = value {
                self.set(key, value, format!("flag {flag}"))?;
            }
        }
        for pair in &flags.set {
            let origin = || "flag --set without =".to_owned();
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| ConfigError::Form { key: pair.clone(), origin: origin() })?;
            self.set(key, value.to_owned(), "flag --set".to_owned())?;
        }
        Ok(())
    }

    fn config(&self, demo: bool) -> Result<Config, ConfigError> {
        let tls = self.tls()?;
        let message_bytes_max = self.number("limits.message_bytes_max", 1024, 67_108_864)?;
        Ok(Config {
            listen: self.parse("server.listen")?,
            admin: self.parse("server.admin")?,
            stop_timeout: self.duration("server.stop_timeout", 1_000, 300_000)?,
            demo,
            log: log::Options {
                dir: PathBuf::from(self.text("log.dir")),
                segment_bytes: self.number("log.segment_bytes", 65_536, 1_073_741_824)?,
                reserve_bytes: self.number("log.reserve_bytes", 0, 1_073_741_824)?,
                fill_segments: self.parse("log.fill_segments")?,
                tail_bytes: self.size("log.tail_bytes", 65_536, 17_179_869_184)?,
                queue_bytes: self.size("log.queue_bytes", 1_048_576, 4_294_967_295)?,
                disk_reads: self.size("log.disk_reads", 1, 256)?,
                retention: self.retention()?,
            },
            durables_shown: self.durables_shown()?,
            durables_max: session::DurablesMax {
                all: self.size("limits.durables_max", 1, 10_000_000)?,
                of_subject: self.size("limits.durables_per_subject", 1, 10_000_000)?,
            },
            scheduled_max: self.size("limits.scheduled", 1, 1_000_000)?,
            slots_max: self.size("limits.state_slots", 1000, 4_294_967_295)?,
            presence: session::PresenceOptions {
                grace: self.duration("limits.presence_grace", 100, 600_000)?,
                restart_grace: self.duration("limits.presence_restart_grace", 100, 600_000)?,
                topic_members_max: self.size("limits.presence_topic_members_max", 1, 5_000)?,
                members_max: self.size("limits.presence_members_max", 1, 100_000)?,
            },
            limits: session::Limits {
                message_bytes_max: usize::try_from(message_bytes_max).unwrap_or(usize::MAX),
                event_bytes_max: usize::try_from(message_bytes_max).unwrap_or(usize::MAX),
                subscriptions_max: self.size("limits.subscriptions_max", 1, 100_000)?,
                ping_interval: self.duration("limits.ping_interval", 100, 600_000)?,
                write_timeout: self.duration("limits.write_timeout", 1_000, 3_600_000)?,
                connect_timeout: self.duration("limits.connect_timeout", 100, 300_000)?,
                message_timeout: self.duration("limits.body_timeout", 100, 3_600_000)?,
                messages_bytes_max: self.size(
                    "limits.bodies_bytes_max",
                    67_108_864,
                    4_294_967_295,
                )?,
                subscriptions_bytes_max: self.size(
                    "limits.subscriptions_bytes_max",
                    1_048_576,
                    68_719_476_736,
                )?,
                answers_bytes_max: self.size(
                    "limits.answers_bytes_max",
                    1_048_576,
                    4_294_967_295,
                )?,
                send_buffer_bytes: self.size("limits.send_buffer_bytes", 4_096, 16_777_216)?,
                rates: self.rates(message_bytes_max)?,
                caps: self.caps()?,
            },
            net: self.net(demo, tls.is_some())?,
            tls,
            auth: self.auth()?,
        })
    }

    fn net(&self, demo: bool, has_tls: bool) -> Result<net::Options, ConfigError> {
        Ok(net::Options {
            connections_max: self.size("server.connections_max", 1, 1_000_000)?,
            allow_origins: self.list("server.allow_origins"),
            is_https: has_tls || self.parse("server.tls_terminated_by_proxy")?,
            proxies: self.proxies()?,
            codings: self.codings()?,
            header_timeout: self.duration("limits.header_timeout", 100, 300_000)?,
            body_timeout: self.duration("limits.body_timeout", 100, 3_600_000)?,
            idle_timeout: self.duration("limits.idle_timeout", 100, 3_600_000)?,
            stream_max: self.stream_max()?,
            long_polls_max: self.size("limits.long_polls_max", 1, 1_000_000)?,
            long_polls_per_subject: self.size("limits.long_polls_per_subject", 0, 1_000_000)?,
            bodies_bytes_max: self.size("limits.bodies_bytes_max", 67_108_864, 4_294_967_295)?,
            answers_bytes_max: self.size("limits.answers_bytes_max", 1_048_576, 4_294_967_295)?,
            demo,
        })
    }

    fn text(&self, key: &'static str) -> String {
        match self.0.get(key) {
            Some((value, _)) => value.clone(),
            None => default_of(key).to_owned(),
        }
    }

    fn list(&self, key: &'static str) -> Vec<String> {
        self.text(key)
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn codings(&self) -> Result<Codings, ConfigError> {
        const KEY: &str = "server.codings";
        let names = self.list(KEY);
        Codings::parse(names.iter().map(String::as_str)).ok_or_else(|| self.wrong(KEY))
    }

    fn parse<T: std::str::FromStr>(&self, key: &'static str) -> Result<T, ConfigError> {
        self.text(key).trim().parse().map_err(|_| self.wrong(key))
    }

    fn number(&self, key: &'static str, low: u64, high: u64) -> Result<u64, ConfigError> {
        let number: u64 = self.parse(key)?;
        if (low..=high).contains(&number) { Ok(number) } else { Err(self.wrong(key)) }
    }

    fn size(&self, key: &'static str, low: u64, high: u64) -> Result<usize, ConfigError> {
        usize::try_from(self.number(key, low, high)?).map_err(|_| self.wrong(key))
    }

    fn duration(
        &self,
        key: &'static str,
        low_ms: u128,
        high_ms: u128,
    ) -> Result<Duration, ConfigError> {
        let duration = humantime::parse_duration(&self.text(key)).map_err(|_| self.wrong(key))?;
        if (low_ms..=high_ms).contains(&duration.as_millis()) {
            Ok(duration)
        } else {
            Err(self.wrong(key))
        }
    }

    fn origin(&self, key: &str) -> String {
        self.0.get(key).map_or("default", |(_, origin)| origin).to_owned()
    }

    fn wrong(&self, key: &'static str) -> ConfigError {
        let origin = self.origin(key);
        let values =
            SETTINGS.iter().find(|setting| setting.key == key).map_or("", |setting| setting.values);
        let value = if key.contains("secret") { "…".to_owned() } else { self.text(key) };
        ConfigError::Value { key, value, origin, values }
    }
}

fn default_of(key: &str) -> &'static str {
    SETTINGS.iter().find(|setting| setting.key == key).map_or("", |setting| setting.default)
}

/// The known key that shares the most letters with this one, in order.
fn nearest(key: &str) -> &'static str {
    let common = |other: &str| {
        let mut rest = other.chars();
        key.chars().filter(|&letter| rest.any(|have| have == letter)).count()
    };
    SETTINGS.iter().max_by_key(|setting| common(setting.key)).map_or("", |setting| setting.key)
}

/// The text of a file that the operator names.
///
/// # Errors
/// [`ConfigError::File`].
#[expect(clippy::disallowed_methods, reason = "a file the operator names, not one of the log's")]
pub fn read_text(path: &std::path::Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|cause| ConfigError::File { path: path.display().to_string(), cause })
}

/// The same of one that is read again and again, which a pipe could hold up for good.
///
/// # Errors
/// [`ConfigError::File`], also where it is no regular file.
pub fn read_regular(path: &std::path::Path) -> Result<String, ConfigError> {
    let error = |cause| ConfigError::File { path: path.display().to_string(), cause };
    match std::fs::metadata(path).map_err(error)?.is_file() {
        true => read_text(path),
        false => Err(error(std::io::Error::other("it is no regular file"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(set: &[&str]) -> Result<Config, ConfigError> {
        Flags { set: set.iter().map(|pair| (*pair).to_owned()).collect(), ..Flags::default() }
            .resolve()
    }

    #[test]
    fn the_defaults_hold_and_are_documented() {
        let config = resolve(&[]).unwrap();
        assert!(config.listen.ip().is_loopback());
        let page = include_str!("../docs/configuration.md");
        for setting in SETTINGS {
            let row = format!(
                "| `{}` | `{}` | {} | {} |",
                setting.key, setting.default, setting.values, setting.doc
            );
            assert!(page.contains(&row), "docs/configuration.md lacks the row\n{row}");
        }
    }

    #[test]
    fn wrong_settings_are_refused_with_their_name() {
        for (pair, needle) in [
            ("log.segment_bytes=12", "log.segment_bytes"),
            ("server.listen=here", "server.listen"),
            ("limits.ping_interval=never", "limits.ping_interval"),
            ("log.segmet_bytes=1", "the nearest is log.segment_bytes"),
            ("server.listen=0.0.0.0:1", "--insecure"),
            ("server.codings=gzip,deflate", "zstd, gzip and br"),
            ("server.codings=gzip,gzip", "server.codings"),
            ("metrics.durables=a,b*c", "names, by comma"),
            ("retention.max_bytes=200%", "retention.max_bytes"),
            ("retention.max_age=soon", "retention.max_age"),
            ("retention.rules=a.>", "retention.rules"),
            (
                "retention.rules=a compact,b max_events=0",
                "retention.rules (flag --set): max_events=0: ",
            ),
            ("retention.rules=$dead.> max_age=1d", "retention.rules (flag --set): $dead.>: "),
            ("retention.rules=a compact,a max_events=5", "retention.rules"),
            ("auth.jwks_url=http://keys.example/set", "auth.jwks_url"),
            ("auth.jwks_url=https://me@keys.example/set", "auth.jwks_url"),
            ("auth.jwks_url=ftp://127.0.0.1/set", "auth.jwks_url"),
            ("limits.profile=open", "limits.profile"),
            ("auth.jwks_file=/nonexistent/set", "/nonexistent/set"),
            ("auth.jwks_file=/dev/null", "no regular file"),
            ("auth.public_key_file=/nonexistent/key", "/nonexistent/key"),
            ("auth.leeway=61s", "auth.leeway"),
            ("auth.anonymous.subscribe=a", "auth.anonymous"),
        ] {
            let error = resolve(&[pair]).unwrap_err().to_string();
            assert!(error.contains(needle), "{pair}: {error}");
        }
        assert!(resolve(&["server.listen=0.0.0.0:1", "server.insecure=true"]).is_ok());
        assert!(resolve(&["server.codings="]).is_ok());
    }

    #[test]
    fn a_public_broker_has_limits_of_every_kind_and_what_is_given_counts() {
        use session::rates::{Kind, Rates, Scope};
        let limits = |pairs: &[&str]| resolve(pairs).unwrap().limits;
        let has_all = |rates: &Rates, scope: Scope| {
            scope.kinds().iter().all(|kind| rates.get(*kind).is_some())
        };
        let public = limits(&["limits.profile=public"]);
        assert!(has_all(&public.rates.ip, Scope::Ip));
        assert!(has_all(&public.rates.subject, Scope::Subject));
        assert!(has_all(&public.rates.session, Scope::Session));
        assert!(public.caps.per_ip > 0 && public.caps.strangers_per_ip > 0);
        assert_eq!(public.subscriptions_max, 200);
        let durables = |pairs: &[&str]| resolve(pairs).unwrap().durables_max.of_subject;
        assert_eq!(durables(&["limits.profile=public"]), 10_000);
        assert_eq!(durables(&[]), 100_000);
        let given = [
            "limits.profile=public",
            "limits.per_ip=acks=5",
            "limits.connections_per_ip=0",
            "limits.subscriptions_max=7",
        ];
        let given = limits(&given);
        assert_eq!(given.subscriptions_max, 7);
        assert_eq!(given.rates.ip.get(Kind::Acks).map(|rate| rate.per_second), Some(5));
        assert_eq!((given.rates.ip.get(Kind::Publishes), given.caps.per_ip), (None, 0));
        assert_eq!(given.rates.session, public.rates.session);
        let private = limits(&[]);
        assert_eq!((private.rates.ip.get(Kind::Publishes), private.caps.per_ip), (None, 0));
    }

    #[test]
    fn plain_tcp_stays_on_loopback_unless_that_is_said() {
        let secret = "auth.hs256_secret=a secret of at least thirty-two bytes";
        let listening = |more: &str| resolve(&["server.listen=0.0.0.0:1", secret, more]);
        let error = listening("server.tls_terminated_by_proxy=false").unwrap_err();
        assert!(matches!(error, ConfigError::Plain(_)), "{error}");
        for allowed in [
            "server.tls_terminated_by_proxy=true",
            "server.insecure=true",
            "server.listen=127.0.0.1:1",
        ] {
            assert!(listening(allowed).is_ok(), "{allowed}");
        }
        let error = listening("server.tls_cert=cert.pem").unwrap_err().to_string();
        assert!(error.contains("server.tls_cert is given without server.tls_key"), "{error}");
        let with_tls = resolve(&[
            "server.listen=0.0.0.0:1",
            secret,
            "server.tls_cert=cert.pem",
            "server.tls_key=key.pem",
        ]);
        assert!(with_tls.unwrap().tls.is_some());
    }
}
