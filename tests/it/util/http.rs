//! HTTP by hyper's client, one connection a request.

use std::pin::pin;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use serde_json::Value;

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Sends a request; the body comes as it arrives.
pub async fn open(
    address: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<hyper::Response<Incoming>, String> {
    let stream =
        tokio::net::TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut request = Request::builder().method(method).uri(path).header("host", address);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
    let (mut connection, mut response) = (Box::pin(connection), pin!(sender.send_request(request)));
    // One task moves both until there is an answer: a connection that ends on one thread while another hands it a
    // request may leave that unanswered for ever (hyperium/hyper#4122).
    let answered = tokio::select! {
        answered = &mut response => Some(answered),
        _ = &mut connection => None,
    };
    let response = match answered {
        Some(response) => {
            tokio::spawn(connection);
            response
        }
        None => {
            drop(connection);
            response.await
        }
    };
    response.map_err(|error| error.to_string())
}

/// Sends a request and reads the whole answer.
pub async fn request(
    address: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    try_request(address, method, path, headers, body).await.unwrap()
}

pub async fn try_request(
    address: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, String> {
    let response = open(address, method, path, headers, body).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

pub async fn get(address: &str, path: &str) -> Answer {
    request(address, Method::GET, path, &[], b"").await
}

pub async fn post_json(address: &str, path: &str, body: &Value) -> Answer {
    send_json(address, Method::POST, path, body).await
}

pub async fn put_json(address: &str, path: &str, body: &Value) -> Answer {
    send_json(address, Method::PUT, path, body).await
}

async fn send_json(address: &str, method: Method, path: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let json = ("content-type", "application/json");
    request(address, method, path, &[json], body.as_bytes()).await
}
