//! HTTP on one connection for many requests: what a load asks for thousands of times, without a connection each.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1::SendRequest, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::socket::authority;
use crate::{
    cli::Globals,
    client::{self, HttpClient, Options},
};

/// The most bytes an answer may have: a page of 1,000 durables with 64 long filters each.
const BODY_BYTES_MAX: usize = 64 << 20;

/// A connection.
pub(super) struct Http {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    authorization: Option<String>,
    patience: Duration,
}

impl Http {
    /// Connects.
    pub(super) async fn open(globals: &Globals) -> anyhow::Result<Http> {
        let authority = authority(&globals.url)?;
        let stream = TcpStream::connect(&authority)
            .await
            .with_context(|| format!("cannot connect to {authority}"))?;
        stream.set_nodelay(true)?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.context("no HTTP connection")?;
        // It ends with the sender; what it ends with, the request says too.
        tokio::spawn(connection);
        let authorization = globals.options()?.token.map(|token| format!("Bearer {token}"));
        Ok(Http { sender, authority, authorization, patience: globals.patience() })
    }

    /// Asks, and gives what was answered.
    ///
    /// # Errors
    /// When there is no answer in time, or one that does not fit. One that says no is an answer.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request =
            Request::builder().method(method).uri(path).header(header::HOST, &self.authority);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body))).context("no HTTP request")?;
        let exchange = async {
            self.sender.ready().await.context("the broker hung up")?;
            let answer = self.sender.send_request(request).await.context("no answer")?;
            let (status, body) = (answer.status(), answer.into_body());
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|cause| anyhow::anyhow!("no whole answer: {cause}"))?;
            Ok((status, body.to_bytes()))
        };
        let late = client::Error::Timeout {
            url: format!("http://{}{path}", self.authority),
            wait_ms: self.patience.as_millis(),
        };
        tokio::time::timeout(self.patience, exchange).await.map_err(|_| late)?
    }
}

/// What an admin listener says in `/metrics`.
pub(super) struct Metrics(String);

impl Metrics {
    /// Asks it.
    pub(super) async fn of(admin: &str, globals: &Globals) -> anyhow::Result<Metrics> {
        let http = HttpClient::new(&Options::to(admin.to_owned()), globals.patience())?;
        let answer = http.get("/metrics").await.context("--admin")?.ok().context("--admin")?;
        Ok(Metrics(String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// The value of the series whose name and labels end so; 0 where there is none yet.
    pub(super) fn value(&self, series: &str) -> u64 {
        let lines = self.0.lines().filter(|line| !line.starts_with('#'));
        let value = lines
            .filter_map(|line| line.rsplit_once(' '))
            .find_map(|(name, value)| name.ends_with(series).then(|| value.parse::<f64>().ok())?);
        value.unwrap_or(0.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_by_its_end() {
        let text = "# HELP x_append_bytes_total no\nx_append_bytes_total{topic_root=\"a\"} 7\n\
                    x_append_bytes_total{topic_root=\"$acks\"} 1200\nprocess_resident 1.5e3\n";
        let metrics = Metrics(text.to_owned());
        assert_eq!(metrics.value("append_bytes_total{topic_root=\"$acks\"}"), 1200);
        assert_eq!(metrics.value("process_resident"), 1500);
        assert_eq!(metrics.value("nothing"), 0);
    }
}
