//! The operators' door: is it alive, is it ready, what does it count.
//!
//! - No authentication: it belongs on an address that only operators reach.
//! - `/livez` says that the process answers, `/readyz` and `/healthz` that publishes are taken.

use std::{fmt::Write, net::SocketAddr};

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{self, HeaderValue},
};
use tidings_proto::{Code, WireError};

use super::{
    http::{Body, foreign_name, seal},
    problem::Refusal,
};
use crate::{
    metrics,
    session::{House, house::Check, shown},
};

/// The format of Prometheus' text exposition.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// Answers one request.
pub(super) fn answer<B>(house: &House, peer: &SocketAddr, request: &Request<B>) -> Response<Body> {
    let named = check_name(peer, request.headers());
    let answered = named.and_then(|()| route(house, request));
    let mut response = answered.unwrap_or_else(Refusal::into_response);
    seal(response.headers_mut());
    response
}

/// That it is called by a name of this machine over loopback: a page could have given itself another one.
fn check_name(peer: &SocketAddr, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(host) = foreign_name(peer, headers) else { return Ok(()) };
    let text = format!(
        "host: the operators' listener is not called {} over loopback: call it localhost, or by its address",
        shown(host)
    );
    Err(Refusal::from(WireError::new(Code::PermissionDenied, text)).closing())
}

fn route<B>(house: &House, request: &Request<B>) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path();
    if !["/livez", "/readyz", "/healthz", "/metrics"].contains(&path) {
        let text = format!(
            "there is no {}: this listener has /livez, /readyz, /healthz and /metrics",
            shown(path)
        );
        return Err(WireError::new(Code::NotFound, text).into());
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let error = WireError::invalid(format!("method: {path} is read with GET"));
        let refusal = Refusal::with_status(StatusCode::METHOD_NOT_ALLOWED, error);
        return Err(refusal.header(header::ALLOW, HeaderValue::from_static("GET, HEAD")));
    }
    Ok(match path {
        "/livez" => text(StatusCode::OK, TEXT_TYPE, "ok\n".to_owned()),
        "/metrics" => text(StatusCode::OK, METRICS_TYPE, metrics::render(&house.gauges())),
        _ => health(&house.checks(), is_verbose(request.uri().query())),
    })
}

fn is_verbose(query: Option<&str>) -> bool {
    let names = query.unwrap_or_default().split('&');
    names.map(|pair| pair.split('=').next().unwrap_or_default()).any(|name| name == "verbose")
}

fn health(checks: &[Check], verbose: bool) -> Response<Body> {
    let mut lines = String::new();
    for check in checks {
        // Writing to a String cannot fail.
        let _ = match &check.failed {
            Some(reason) => writeln!(lines, "[-]{} {reason}", check.name),
            None if verbose => writeln!(lines, "[+]{} ok", check.name),
            None => Ok(()),
        };
    }
    if checks.iter().any(|check| check.failed.is_some()) {
        text(StatusCode::SERVICE_UNAVAILABLE, TEXT_TYPE, format!("{lines}not ready\n"))
    } else {
        text(StatusCode::OK, TEXT_TYPE, format!("{lines}ok\n"))
    }
}

fn text(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::full(text.into_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn body_of(response: Response<Body>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn checks(disk: Option<&str>) -> Vec<Check> {
        vec![
            Check { name: "log", failed: None },
            Check { name: "disk", failed: disk.map(str::to_owned) },
        ]
    }

    #[tokio::test]
    async fn health_names_what_fails() {
        let response = health(&checks(None), false);
        assert_eq!(response.status(), 200);
        assert_eq!(body_of(response).await, "ok\n");
        assert_eq!(body_of(health(&checks(None), true)).await, "[+]log ok\n[+]disk ok\nok\n");
        let response = health(&checks(Some("full")), false);
        assert_eq!(response.status(), 503);
        assert_eq!(body_of(response).await, "[-]disk full\nnot ready\n");
    }

    #[test]
    fn verbose_is_a_parameter_with_or_without_a_value() {
        assert!(is_verbose(Some("verbose")) && is_verbose(Some("a=1&verbose=1")));
        assert!(!is_verbose(None) && !is_verbose(Some("verbosely")));
    }
}
