//! The settings of authentication.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use hyper::Uri;

use super::{ConfigError, Values, read_text};
use crate::auth::{self, Authenticator, Rules, Secret};

/// Who may come in. Its secrets are not shown.
#[derive(Debug)]
pub struct Auth {
    /// For the authenticator.
    pub options: auth::Options,
    /// The key set that is looked up while the broker runs.
    pub key_set: Option<KeySet>,
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
    /// `http://`, on this machine.
    Url(Uri),
}

impl Values {
    pub(super) fn auth(&self) -> Result<Auth, ConfigError> {
        let key_set = self.key_set()?;
        let public_keys = self.text("auth.public_key_file");
        let public_keys = match public_keys.is_empty() {
            true => None,
            false => Some(read_text(std::path::Path::new(&public_keys))?),
        };
        let options = auth::Options {
            hs256_secret: self.hs256_secret()?,
            public_keys,
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
        let authenticator = Authenticator::new(&options)?;
        if let Some(KeySet { source: KeySource::File(path), .. }) = &key_set {
            let replaced = authenticator.replace_set(&read_text(path)?);
            let path = path.display().to_string();
            replaced.map_err(|cause| ConfigError::KeySet { path, cause })?;
        }
        Ok(Auth { options, key_set })
    }

    fn key_set(&self) -> Result<Option<KeySet>, ConfigError> {
        let (file, url) = (self.text("auth.jwks_file"), self.text("auth.jwks_url"));
        let refresh = self.duration("auth.jwks_refresh", 1_000, 86_400_000)?;
        let source = match (file.is_empty(), url.is_empty()) {
            (true, true) => return Ok(None),
            (false, false) => return Err(ConfigError::TwoKeySets),
            (false, true) => KeySource::File(PathBuf::from(file)),
            (true, false) => {
                let url = of_this_machine(&url).ok_or_else(|| self.wrong("auth.jwks_url"))?;
                KeySource::Url(url)
            }
        };
        Ok(Some(KeySet { source, refresh }))
    }

    fn hs256_secret(&self) -> Result<Option<Secret>, ConfigError> {
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
        let file = self.text("auth.hs256_secret_file");
        let secret = match file.is_empty() {
            true => self.text("auth.hs256_secret"),
            false => {
                read_text(std::path::Path::new(&file))?.trim_end_matches(['\r', '\n']).to_owned()
            }
        };
        if !file.is_empty() && secret.is_empty() {
            return Err(self.wrong("auth.hs256_secret_file"));
        }
        if !secret.is_empty() && secret.len() < 32 {
            tracing::warn!(
                "the HS256 secret is shorter than 32 bytes, which RFC 7518 §3.2 asks for"
            );
        }
        Ok((!secret.is_empty()).then(|| Secret::new(secret.into_bytes())))
    }
}

/// The address of a server on this machine. Keys that come over a network without TLS are anybody's.
fn of_this_machine(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse().is_ok_and(|it: IpAddr| it.is_loopback());
    let has_user = uri.authority()?.as_str().contains('@');
    (uri.scheme_str() == Some("http") && is_here && !has_user).then_some(uri)
}
