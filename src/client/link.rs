//! One connection: from the TCP connect to the broker's `connected`.
//!
//! - The subprotocol is `tidings.v1.json`; the broker's answer is checked as RFC 6455 §4.1 asks.
//! - [`Failure`] says whether trying again can help.

use std::io;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request as HttpRequest, Response, StatusCode, body::Incoming, header};
use hyper_util::rt::TokioIo;
use tidings_proto::{
    Code, WireError,
    message::{Connect, Connected, Push, Reply, Request, ServerMessage},
    wire::{compressed::DEFLATE_RAW, json},
};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

use super::{
    Error, Options,
    dial::{Dialer, Stream},
    endpoint::Endpoint,
    http::text_of_problem,
};
use crate::{
    clock,
    net::{
        frame::{Limits, Message, OpenFrame, Reader, Role},
        wire::Wire,
    },
};

/// The subprotocol this client speaks.
const SUBPROTOCOL: &str = "tidings.v1.json";
/// The most bytes one message of the broker may have: the largest message it can be set to take
/// (64 MiB), in base64, and an envelope.
const MESSAGE_BYTES_MAX: usize = 96 << 20;
/// How much is read of the body that explains why there is no upgrade.
const REFUSAL_BYTES_MAX: usize = 16 << 10;
/// The number of the `connect` request, the only one that is open then.
const CONNECT_ID: u32 = 0;

/// A connection on which the broker has said `connected`.
pub(super) struct Link {
    pub(super) reader: Reader<ReadHalf<Stream>>,
    pub(super) writer: WriteHalf<Stream>,
    /// What is written is to be flushed.
    pub(super) is_tls: bool,
    pub(super) connected: Connected,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// For now.
    Retry(Lost),
    /// For good.
    Stop(Error),
}

/// A connection was lost, or could not be made.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    pub(super) reason: String,
    /// How long the broker asks to wait, in milliseconds.
    pub(super) after_ms: Option<u64>,
}

impl Lost {
    /// Without a wait that the broker asks for.
    pub(super) fn because(reason: impl ToString) -> Lost {
        Lost { reason: reason.to_string(), after_ms: None }
    }
}

impl Link {
    /// Connects. Bounded in time by the caller.
    pub(super) async fn open(dialer: &Dialer, options: &Options) -> Result<Link, Failure> {
        let lost = |cause: io::Error| Failure::Retry(Lost::because(cause));
        let stream = dialer.connect().await.map_err(|error| match error {
            Error::Unreachable { cause, .. } => Failure::Retry(Lost::because(cause)),
            error => Failure::Stop(error),
        })?;
        let is_tls = matches!(stream, Wire::Tls(_));
        let (stream, leftover) = upgrade(stream, &dialer.endpoint, options).await?;
        let (read, mut writer) = tokio::io::split(stream);
        let mut reader =
            Reader::new(read, Role::Client, Limits::of_bytes(MESSAGE_BYTES_MAX), &leftover);
        let connect = Request::Connect(Connect {
            token: options.token.clone(),
            client: Some(options.client_name.clone()),
            compress: options.compress.then(|| DEFLATE_RAW.to_owned()).into_iter().collect(),
        });
        let mut out = Vec::new();
        let frame = OpenFrame::text(Some(clock::frame_mask()), &mut out);
        json::encode_request(Some(CONNECT_ID), &connect, &mut out);
        frame.finish(&mut out);
        writer.write_all(&out).await.map_err(lost)?;
        writer.flush().await.map_err(lost)?;
        let connected = await_connected(&mut reader).await?;
        Ok(Link { reader, writer, is_tls, connected })
    }
}

async fn await_connected(reader: &mut Reader<ReadHalf<Stream>>) -> Result<Connected, Failure> {
    loop {
        let text = match reader.next().await {
            Ok(Some(Message::Text(text))) => text,
            Ok(Some(Message::Close(close))) => return Err(closed(close, None)),
            Ok(Some(_)) => continue,
            Ok(None) => return Err(Failure::Retry(Lost::because("the broker hung up"))),
            Err(error) => return Err(Failure::Retry(Lost::because(error))),
        };
        let message = json::decode_server_message(&text)
            .map_err(|error| Failure::Stop(Error::Protocol(error.message)))?;
        match message {
            ServerMessage::Reply(CONNECT_ID, Reply::Connected(connected)) => return Ok(connected),
            ServerMessage::Reply(CONNECT_ID, Reply::Error(error))
            | ServerMessage::Push(Push::Error(error)) => return Err(refused(error)),
            _ => {}
        }
    }
}

fn refused(error: WireError) -> Failure {
    match error.retryable {
        true => Failure::Retry(Lost { after_ms: error.retry_after_ms, reason: error.to_string() }),
        false => Failure::Stop(Error::refused(error)),
    }
}

/// What a close frame means for the next try: the range decides for codes that are not known here.
pub(super) fn closed(close: Option<(u16, String)>, after_ms: Option<u64>) -> Failure {
    let (code, reason) = close.unwrap_or((1000, String::new()));
    match code {
        // The token is the same on the next try.
        4401 => {
            let text =
                if reason.is_empty() { "the token does not hold".to_owned() } else { reason };
            Failure::Stop(Error::refused(WireError::new(Code::Unauthenticated, text)))
        }
        // We broke the protocol, or what we would send again is refused again.
        1002 | 1003 | 1007 | 1009 | 4500..=4999 => {
            Failure::Stop(Error::ClosedByBroker { code, reason })
        }
        _ => {
            let reason = format!("closed by the broker, code {code} {reason}");
            Failure::Retry(Lost { reason: reason.trim_end().to_owned(), after_ms })
        }
    }
}

/// Turns an HTTP connection into a WebSocket; with the bytes that came along with the answer.
async fn upgrade(
    stream: Stream,
    endpoint: &Endpoint,
    options: &Options,
) -> Result<(Stream, Bytes), Failure> {
    let retry = |error: hyper::Error| Failure::Retry(Lost::because(error));
    let request = upgrade_request(endpoint, options)?;
    let accept = expected_accept(&request);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(retry)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(retry)?;
        check_answer(response, endpoint, accept).await
    };
    // The connection moves the bytes; after the upgrade it hands the stream back.
    let connection = connection.with_upgrades();
    tokio::pin!(exchange);
    tokio::pin!(connection);
    let response = tokio::select! {
        response = &mut exchange => response?,
        ended = &mut connection => {
            ended.map_err(retry)?;
            exchange.await?
        }
    };
    let on_upgrade = hyper::upgrade::on(response);
    let upgraded = tokio::select! {
        biased;
        upgraded = on_upgrade => upgraded.map_err(retry)?,
        ended = drive(connection) => return Err(Failure::Retry(Lost::because(ended))),
    };
    let parts = upgraded.downcast::<TokioIo<Stream>>();
    let parts =
        parts.map_err(|_| Failure::Stop(Error::Protocol("no stream of ours".to_owned())))?;
    Ok((parts.io.into_inner(), parts.read_buf))
}

/// Runs the connection; when it is done without an error the upgrade is about to be there.
async fn drive(connection: impl Future<Output = Result<(), hyper::Error>>) -> String {
    match connection.await {
        Ok(()) => std::future::pending().await,
        Err(error) => error.to_string(),
    }
}

fn upgrade_request(
    endpoint: &Endpoint,
    options: &Options,
) -> Result<HttpRequest<Empty<Bytes>>, Failure> {
    let key: Vec<u8> = (0..4).flat_map(|_| clock::frame_mask()).collect();
    let mut request = HttpRequest::get(endpoint.path("/v1/ws"))
        .header(header::HOST, &endpoint.authority)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, STANDARD.encode(key))
        .header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
    if let Some(token) = &options.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let wrong = |_| Error::Url {
        url: endpoint.url.clone(),
        problem: "address or token cannot stand in an HTTP request",
    };
    request.body(Empty::new()).map_err(|error| Failure::Stop(wrong(error)))
}

/// What the broker must answer the request's key with: computed by the library's own server side.
fn expected_accept(request: &HttpRequest<Empty<Bytes>>) -> Option<header::HeaderValue> {
    let (answer, _) = fastwebsockets::upgrade::upgrade(&mut request.clone()).ok()?;
    answer.headers().get(header::SEC_WEBSOCKET_ACCEPT).cloned()
}

async fn check_answer(
    response: Response<Incoming>,
    endpoint: &Endpoint,
    accept: Option<header::HeaderValue>,
) -> Result<Response<Incoming>, Failure> {
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let named = |name| response.headers().get(name).map(header::HeaderValue::as_bytes);
        let accepted = accept.as_ref().map(header::HeaderValue::as_bytes);
        let holds = named(header::SEC_WEBSOCKET_ACCEPT) == accepted
            && named(header::SEC_WEBSOCKET_PROTOCOL) == Some(SUBPROTOCOL.as_bytes());
        let wrong = || Error::Protocol("what answers the upgrade is no tidings broker".to_owned());
        return if holds { Ok(response) } else { Err(Failure::Stop(wrong())) };
    }
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let text = text_of_problem(&body).unwrap_or_else(|| status.to_string());
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        let after_ms = seconds.map(|seconds| seconds.saturating_mul(1000));
        return Err(Failure::Retry(Lost { reason: text, after_ms }));
    }
    let code = match status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        _ => {
            let url = endpoint.url.clone();
            return Err(Failure::Stop(Error::Handshake { url, status: status.as_u16(), text }));
        }
    };
    Err(Failure::Stop(Error::refused(WireError::new(code, text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_close_code_decides_about_the_next_try() {
        for code in [1000, 1001, 1011, 1012, 4400, 4408, 4410, 4429, 4499] {
            let failure = closed(Some((code, "why".to_owned())), Some(7));
            assert!(matches!(failure, Failure::Retry(Lost { after_ms: Some(7), .. })), "{code}");
        }
        for code in [1002, 1003, 1007, 1009, 4401, 4500, 4503, 4999] {
            assert!(
                matches!(closed(Some((code, String::new())), None), Failure::Stop(_)),
                "{code}"
            );
        }
        assert!(matches!(closed(None, None), Failure::Retry(_)));
    }

    #[test]
    fn the_key_is_answered_as_the_rfc_says() {
        // The example of RFC 6455 §1.3.
        let request = HttpRequest::get("/")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
            .body(Empty::new())
            .unwrap();
        assert_eq!(expected_accept(&request).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
