//! TLS of a door, by rustls: version 1.2 or newer, HTTP/1.1 by ALPN.
//!
//! - Certificate and key can be replaced while the door is open; connections there are keep theirs.
//! - What does not hold replaces nothing.

use std::{fmt, io, sync::Arc, time::Duration};

use parking_lot::RwLock;
use tokio_rustls::{
    TlsAcceptor, TlsStream,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject},
        },
    },
};

use super::{progress::Progress, wire::Wire};

/// How long a handshake may take.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// What is spoken over it.
const ALPN: &[u8] = b"http/1.1";

/// Certificate and key of a door, as PEM. Not shown.
pub struct Pem {
    /// The chain of certificates, the broker's own first.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem(…)")
    }
}

/// Why certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate.
    #[error(
        "server.tls_cert: there is no certificate in it: give a chain in PEM, the broker's own first"
    )]
    NoCertificate,
    /// A certificate that is no PEM.
    #[error("server.tls_cert: it is no PEM: {0}")]
    Certificate(pem::Error),
    /// No key.
    #[error("server.tls_key: there is no private key in PEM in it: {0}")]
    Key(pem::Error),
    /// A certificate or key that is wrong in itself, or they are not each other's.
    #[error("server.tls_cert and server.tls_key do not go together: {0}")]
    Pair(#[from] rustls::Error),
}

/// What a door needs for TLS.
#[derive(Debug)]
pub struct Tls(RwLock<Arc<ServerConfig>>);

impl Tls {
    /// With this certificate.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(pem: &Pem) -> Result<Tls, TlsError> {
        Ok(Tls(RwLock::new(config(pem)?)))
    }

    /// New connections are shown this certificate.
    ///
    /// # Errors
    /// See [`TlsError`]; the one there is stays then.
    pub fn replace(&self, pem: &Pem) -> Result<(), TlsError> {
        let config = config(pem)?;
        *self.0.write() = config;
        Ok(())
    }

    /// The handshake of a connection.
    ///
    /// # Errors
    /// When the peer does not speak TLS as it should, or takes too long.
    pub(super) async fn accept(&self, stream: Progress) -> io::Result<Wire<Progress>> {
        let acceptor = TlsAcceptor::from(self.0.read().clone());
        match tokio::time::timeout(HANDSHAKE_WAIT, acceptor.accept(stream)).await {
            Ok(accepted) => Ok(Wire::Tls(Box::new(TlsStream::Server(accepted?)))),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn config(pem: &Pem) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(pem.cert.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(TlsError::Certificate)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).map_err(TlsError::Key)?;
    let provider = Arc::new(ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Pem {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Pem { cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    #[test]
    fn only_what_holds_is_taken() {
        let (one, other) = (made(), made());
        let tls = Tls::new(&one).unwrap();
        let before = tls.0.read().clone();
        let wrong = |cert: &str, key: &str| {
            let pem = Pem { cert: cert.to_owned(), key: key.to_owned() };
            tls.replace(&pem).unwrap_err().to_string()
        };
        for (cert, key, needle) in [
            ("", one.key.as_str(), "server.tls_cert: there is no certificate"),
            (&one.key, &one.key, "server.tls_cert: there is no certificate"),
            (&one.cert, "", "server.tls_key"),
            (&one.cert, &one.cert, "server.tls_key"),
            (&one.cert, &other.key, "do not go together"),
        ] {
            let said = wrong(cert, key);
            assert!(said.contains(needle), "{said}");
        }
        assert!(Arc::ptr_eq(&before, &tls.0.read()), "what is wrong has replaced what held");
        tls.replace(&other).unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.0.read()));
        assert_eq!(format!("{one:?}"), "Pem(…)", "a key is not shown");
    }
}
