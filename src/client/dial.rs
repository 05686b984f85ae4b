//! The way to a broker: a [`Dialer`] makes connections, plain or over TLS.
//!
//! - Trusted are the certificates of [`Options::ca`] alone, or those that the system trusts.
//! - The certificate must be for the host of the address.

use std::{io, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector, TlsStream,
    rustls::{
        self, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::{Error, Options, endpoint::Endpoint};
use crate::net::wire::Wire;

/// A connection to a broker.
pub(super) type Stream = Wire<TcpStream>;

/// Makes connections to one broker.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) endpoint: Endpoint,
    /// Without it, plain TCP.
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Dialer {
    /// To the broker that `options` name.
    ///
    /// # Errors
    /// When the address or the certificates to trust cannot be used.
    pub(super) fn new(options: &Options) -> Result<Dialer, Error> {
        let endpoint = Endpoint::parse(&options.url)?;
        if !endpoint.is_tls {
            return Ok(Dialer { endpoint, tls: None });
        }
        let name = ServerName::try_from(endpoint.host.clone()).map_err(|_| Error::Url {
            url: endpoint.url.clone(),
            problem: "its host can stand in no certificate",
        })?;
        let connector = TlsConnector::from(Arc::new(config(options.ca.as_deref())?));
        Ok(Dialer { endpoint, tls: Some((connector, name)) })
    }

    /// Connects. Bounded in time by the caller.
    ///
    /// # Errors
    /// [`Error::Untrusted`] when it is not the broker, [`Error::Unreachable`] for all else.
    pub(super) async fn connect(&self) -> Result<Stream, Error> {
        let unreachable = |cause| Error::unreachable(&self.endpoint.url, cause);
        let address = (self.endpoint.host.as_str(), self.endpoint.port);
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        // Without it the connection works all the same, only with more delay.
        let _ = stream.set_nodelay(true);
        let Some((connector, name)) = &self.tls else { return Ok(Wire::Plain(stream)) };
        match connector.connect(name.clone(), stream).await {
            Ok(stream) => Ok(Wire::Tls(Box::new(TlsStream::Client(stream)))),
            Err(cause) => Err(match refusal(&cause) {
                Some(problem) => Error::Untrusted { url: self.endpoint.url.clone(), problem },
                None => unreachable(cause),
            }),
        }
    }
}

/// What is wrong with the broker's certificate, where that is why there is no connection.
fn refusal(cause: &io::Error) -> Option<String> {
    let cause = cause.get_ref()?.downcast_ref::<rustls::Error>()?;
    matches!(cause, rustls::Error::InvalidCertificate(_)).then(|| cause.to_string())
}

fn config(ca: Option<&[u8]>) -> Result<ClientConfig, Error> {
    let wrong = |problem: String| Error::Certificates { problem };
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|cause| wrong(cause.to_string()))?;
                roots.add(certificate).map_err(|cause| wrong(cause.to_string()))?;
            }
        }
        None => {
            let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(wrong("there is none".to_owned()));
    }
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|cause| wrong(cause.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_to_trust_are_certificates() {
        let dialer = |ca: &[u8]| {
            let options = Options { ca: Some(ca.to_vec()), ..Options::to("https://localhost") };
            Dialer::new(&options)
        };
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        assert!(dialer(made.cert.pem().as_bytes()).is_ok());
        for wrong in [String::new(), "no PEM".to_owned(), made.signing_key.serialize_pem()] {
            let error = dialer(wrong.as_bytes()).err().unwrap();
            assert!(matches!(error, Error::Certificates { .. }), "{error}");
        }
        // What is not over TLS asks for none.
        let options = Options { ca: Some(Vec::new()), ..Options::to("http://localhost") };
        assert!(Dialer::new(&options).is_ok());
    }
}
