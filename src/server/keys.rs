//! Keeps the key set of tokens fresh: reads its file, or asks the server on this machine that has it.
//!
//! - What cannot be read or is no good changes nothing: the last good set stays, and a warning and a metric say so.
//! - A token that names an unknown key has the set read at once, but not before [`WANTED_MIN`] since it was read last:
//!   whoever makes up names costs no more than that.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::KEYS_BYTES_MAX,
    config::{KeySet, KeySource, read_text},
    metrics,
    session::House,
};

/// How long after a reading a token may ask for the next.
const WANTED_MIN: Duration = Duration::from_secs(60);
/// How long the server that has the set may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after a reading that failed comes the next at the latest.
const RETRY: Duration = Duration::from_secs(60);

/// Reads the set again and again, as the settings say, until `stop`; it was read just now, and `is_good`.
pub(super) async fn keep(
    house: Arc<House>,
    set: KeySet,
    mut is_good: bool,
    stop: CancellationToken,
) {
    loop {
        let read_at = Instant::now();
        let wait = if is_good { set.refresh } else { set.refresh.min(RETRY) };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(read_at + wait) => {}
            () = wanted(&house, read_at) => {}
        }
        is_good = refresh(&house, &set.source).await;
    }
}

/// Reads the set once; says whether it is good.
pub(super) async fn refresh(house: &House, source: &KeySource) -> bool {
    let text = match source {
        KeySource::File(path) => {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || read_text(&path)).await;
            read.map_err(anyhow::Error::from).and_then(|text| Ok(text?))
        }
        KeySource::Url(uri) => {
            let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch(uri)).await;
            fetched.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within 10 seconds")))
        }
    };
    let replaced = text.and_then(|text| Ok(house.authenticator.replace_set(&text)?));
    metrics::keys_refreshed(replaced.is_ok());
    match replaced {
        Ok(keys) => {
            tracing::debug!(keys, "the key set of tokens was read");
            true
        }
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(error, "the key set of tokens was not read; the last good one stays");
            false
        }
    }
}

/// Waits until a token asks for the next reading, and it may.
async fn wanted(house: &House, read_at: Instant) {
    house.authenticator.key_wanted().await;
    tokio::time::sleep_until(read_at + WANTED_MIN).await;
}

async fn fetch(uri: &Uri) -> anyhow::Result<String> {
    let host = uri.host().context("the address has no host")?;
    let address = (host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        ensure!(answer.status().is_success(), "it was answered {}", answer.status());
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
