//! The settings of authentication.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::Uri;
use zeroize::Zeroizing;

use super::{ConfigError, Values, read_regular, read_text};
use crate::auth::{self, Authenticator, Rules, Secret};

/// Who may come in. Its secrets are not shown.
#[derive(Debug)]
pub struct Auth {
    /// For the authenticator.
    pub options: auth::Options,
    /// The files that some of it came from.
    pub files: KeyFiles,
    /// The key set that is looked up while the broker runs.
    pub key_set: Option<KeySet>,
}

/// The files that a secret and public keys are in, and may be replaced in while the broker runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFiles {
    hs256_secret: Option<PathBuf>,
    public_keys: Option<PathBuf>,
}

impl KeyFiles {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == KeyFiles::default()
    }

    /// What the options are with the files as they are now.
    ///
    /// # Errors
    /// When one cannot be read, or has no secret in it, or one that is too short.
    pub fn read(&self, options: &auth::Options) -> Result<auth::Options, ConfigError> {
        let mut read = options.clone();
        if let Some(path) = &self.hs256_secret {
            read.hs256_secret = Some(secret_of(path)?);
        }
        if let Some(path) = &self.public_keys {
            read.public_keys = Some(read_text(path)?);
        }
        Ok(read)
    }
}

/// A JSON Web Key Set, and how often it is read.
#[derive(Clone, Debug)]
pub struct KeySet {
    /// Where it is.
    pub source: KeySource,
    /// How long from one reading to the next.
    pub refresh: Duration,
}

/// Where a key set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// A server.
    Server(KeyServer),
}

/// A server that has a key set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyServer {
    /// `https://`, or `http://` on this machine.
    pub url: Uri,
    /// The certificates that it may be trusted by, in PEM; without it those that the system trusts.
    pub ca: Option<PathBuf>,
}

impl Values {
    pub(super) fn auth(&self) -> Result<Auth, ConfigError> {
        let key_set = self.key_set()?;
        let (secret, secret_file) = self.hs256_secret()?;
        let files =
            KeyFiles { hs256_secret: secret_file, public_keys: self.path("auth.public_key_file") };
        let options = auth::Options {
            hs256_secret: secret,
            public_keys: files.public_keys.as_deref().map(read_text).transpose()?,
            has_set: key_set.is_some(),
            rules: Rules {
                issuer: self.text("auth.issuer"),
                audiences: self.list("auth.audiences"),
                leeway: self.duration("auth.leeway", 0, 60_000)?,
            },
            anonymous_publish: self.list("auth.anonymous.publish"),
            anonymous_subscribe: self.list("auth.anonymous.subscribe"),
        };
        let is_for_some =
            !options.anonymous_publish.is_empty() || !options.anonymous_subscribe.is_empty();
        if options.is_open() && is_for_some {
            // It was meant to be the bound of what everybody may do.
            let text = "everybody may do everything while no key of tokens is configured";
            return Err(auth::OptionsError::Anonymous(text.to_owned()).into());
        }
        let is_of_others = options.has_set || options.public_keys.is_some();
        if is_of_others && (options.rules.issuer.is_empty() || options.rules.audiences.is_empty()) {
            tracing::warn!(
                "whoever signs these tokens may sign them for others too: say with auth.issuer and auth.audiences which are for here"
            );
        }
        let authenticator = Authenticator::new(&options)?;
        if let Some(KeySet { source: KeySource::File(path), .. }) = &key_set {
            let replaced = authenticator.replace_set(&read_regular(path)?);
            let path = path.display().to_string();
            replaced.map_err(|cause| ConfigError::KeySet { path, cause })?;
        }
        Ok(Auth { options, files, key_set })
    }

    fn path(&self, key: &'static str) -> Option<PathBuf> {
        let path = self.text(key);
        (!path.is_empty()).then(|| PathBuf::from(path))
    }

    fn key_set(&self) -> Result<Option<KeySet>, ConfigError> {
        let (file, url) = (self.text("auth.jwks_file"), self.text("auth.jwks_url"));
        let refresh = self.duration("auth.jwks_refresh", 1_000, 86_400_000)?;
        let source = match (file.is_empty(), url.is_empty()) {
            (true, true) => return Ok(None),
            (false, false) => return Err(ConfigError::TwoKeySets),
            (false, true) => KeySource::File(PathBuf::from(file)),
            (true, false) => {
                let url = server_of(&url).ok_or_else(|| self.wrong("auth.jwks_url"))?;
                KeySource::Server(KeyServer { url, ca: self.path("auth.jwks_ca") })
            }
        };
        if let KeySource::Server(KeyServer { ca: Some(ca), .. }) = &source {
            // Whether there are certificates in it is seen when the server is asked.
            read_text(ca)?;
        }
        Ok(Some(KeySet { source, refresh }))
    }

    /// The secret, and the file that it is in.
    fn hs256_secret(&self) -> Result<(Option<Secret>, Option<PathBuf>), ConfigError> {
        let given =
            ["auth.hs256_secret", "auth.hs256_secret_file"].map(|key| (key, self.0.get(key)));
        // A secret that is empty is one that was meant: an open broker is nobody's wish then.
        for (key, found) in given {
            if found.is_some_and(|(value, _)| value.trim().is_empty()) {
                return Err(self.wrong(key));
            }
        }
        if given.iter().all(|(_, found)| found.is_some()) {
            return Err(ConfigError::TwoSecrets);
        }
        if let Some(file) = self.path("auth.hs256_secret_file") {
            return Ok((Some(secret_of(&file)?), Some(file)));
        }
        let secret = self.text("auth.hs256_secret");
        let secret = (!secret.is_empty()).then(|| secret_from(&secret, "auth.hs256_secret".into()));
        Ok((secret.transpose()?, None))
    }
}

/// The secret in a file, which may end in a line's end.
fn secret_of(path: &Path) -> Result<Secret, ConfigError> {
    let text = Zeroizing::new(read_text(path)?);
    match text.trim_end_matches(['\r', '\n']) {
        // One that is all blanks is none either, as where it is given itself.
        text if text.trim().is_empty() => {
            Err(ConfigError::NoSecret { path: path.display().to_string() })
        }
        secret => secret_from(secret, format!("auth.hs256_secret_file: {}", path.display())),
    }
}

/// A secret, and what named it.
fn secret_from(text: &str, origin: String) -> Result<Secret, ConfigError> {
    match text.len() {
        // Also a file that is only half written when it is read anew.
        bytes if bytes < auth::HS256_SECRET_BYTES_MIN => {
            Err(ConfigError::ShortSecret { origin, bytes })
        }
        _ => Ok(Secret::new(text.as_bytes().to_vec())),
    }
}

/// The address of a server with keys. Without TLS only on this machine: keys that come over a network so are anybody's.
fn server_of(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse().is_ok_and(|it: IpAddr| it.is_loopback());
    let has_user = uri.authority()?.as_str().contains('@');
    let is_safe = match uri.scheme_str()? {
        "https" => true,
        "http" => is_here,
        _ => false,
    };
    (is_safe && !has_user).then_some(uri)
}
