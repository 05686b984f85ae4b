//! Asks a server for the key set of tokens: one request, bounded in time and bytes.
//!
//! - Over TLS the server is trusted by the certificates that the settings name, and by no others; without any by those
//!   that the system trusts. Its certificate must be for the host of the address.
//! - A redirect is not followed: who has the keys is said by the settings alone.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::{
    auth::KEYS_BYTES_MAX,
    config::{KeyServer, read_text},
};

/// How long the server may take, all in all.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is buffered of the head of its answer, in bytes.
const BUFFER_BYTES: usize = 16 * 1024;

/// The text of the key set.
pub(super) async fn fetch(server: &KeyServer) -> anyhow::Result<String> {
    let fetched = tokio::time::timeout(TIMEOUT, connect(server)).await;
    fetched.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {TIMEOUT:?}")))
}

async fn connect(server: &KeyServer) -> anyhow::Result<String> {
    let url = &server.url;
    let host = url.host().context("the address has no host")?.trim_matches(['[', ']']);
    let is_tls = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    if !is_tls {
        return ask(url, stream).await;
    }
    let name = ServerName::try_from(host.to_owned())?;
    let ca = server.ca.clone();
    // Reads files.
    let trusted = tokio::task::spawn_blocking(move || trust(ca.as_deref())).await??;
    ask(url, TlsConnector::from(Arc::new(trusted)).connect(name, stream).await?).await
}

/// What the server is trusted by, as the files are now.
fn trust(ca: Option<&std::path::Path>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in CertificateDer::pem_slice_iter(read_text(path)?.as_bytes()) {
                roots.add(certificate.context("auth.jwks_ca")?).context("auth.jwks_ca")?;
            }
        }
        None => {
            let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    ensure!(!roots.is_empty(), "there is no certificate to trust: name one by auth.jwks_ca");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn ask(
    url: &Uri,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> anyhow::Result<String> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(BUFFER_BYTES).handshake(TokioIo::new(stream)).await?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().context("the address has no host")?.as_str();
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        ensure!(!status.is_redirection(), "it was answered {status}: redirects are not followed");
        ensure!(status.is_success(), "it was answered {status}");
        let body = Limited::new(answer.into_body(), KEYS_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        Ok(String::from_utf8(body.to_vec())?)
    };
    tokio::pin!(exchange);
    // The connection moves the bytes; what it ends with, the exchange says too.
    tokio::select! {
        text = &mut exchange => text,
        _ = connection => exchange.await,
    }
}
