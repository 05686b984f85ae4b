//! The settings of TLS: where certificate and key are.

use std::path::PathBuf;

use super::{ConfigError, Values, read_text};
use crate::net::tls::{Pem, Tls};

/// Where certificate and key of the public listener are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain of certificates, its own first, in PEM.
    pub cert: PathBuf,
    /// The private key in PEM.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Reads them, as they are now.
    ///
    /// # Errors
    /// When one cannot be read, or they do not hold.
    pub fn open(&self) -> Result<Tls, ConfigError> {
        Ok(Tls::new(&self.read()?)?)
    }

    /// Reads them anew for a door that is open.
    ///
    /// # Errors
    /// As [`TlsFiles::open`]; the door keeps what it has then.
    pub fn reopen(&self, tls: &Tls) -> Result<(), ConfigError> {
        Ok(tls.replace(&self.read()?)?)
    }

    fn read(&self) -> Result<Pem, ConfigError> {
        Ok(Pem { cert: read_text(&self.cert)?, key: read_text(&self.key)? })
    }
}

impl Values {
    /// Where they are, where TLS is wanted.
    pub(super) fn tls(&self) -> Result<Option<TlsFiles>, ConfigError> {
        let (cert, key) = (self.text("server.tls_cert"), self.text("server.tls_key"));
        let half = |given, missing| Err(ConfigError::Half { given, missing });
        match (cert.is_empty(), key.is_empty()) {
            (true, true) => Ok(None),
            (false, true) => half("server.tls_cert", "server.tls_key"),
            (true, false) => half("server.tls_key", "server.tls_cert"),
            (false, false) => Ok(Some(TlsFiles { cert: cert.into(), key: key.into() })),
        }
    }
}
