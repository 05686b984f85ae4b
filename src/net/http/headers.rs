//! What a request's headers ask for: who it is, which form the answer should have, how long it may
//! wait.

use std::time::Duration;

use hyper::{
    HeaderMap,
    header::{self, HeaderName},
};
use tidings_proto::{Code, WireError};

use super::query::WAIT_MAX;

/// A stream of server-sent events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";
/// One CloudEvent in JSON.
pub(super) const CLOUDEVENT: &str = "application/cloudevents+json";
/// An array of CloudEvents in JSON.
pub(super) const CLOUDEVENTS: &str = "application/cloudevents-batch+json";

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The protocol's JSON.
    Json,
    /// CloudEvents in JSON.
    CloudEvents,
    /// Server-sent events.
    Stream,
}

/// The token of `Authorization: Bearer`.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, WireError> {
    let refused =
        |text: &str| WireError::new(Code::Unauthenticated, format!("authorization: {text}"));
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refused("it is given twice"));
    }
    let text = value.to_str().map_err(|_| refused("it has bytes that no token has"))?;
    match text.trim().split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(refused("say Bearer and the token")),
    }
}

/// The text of a header that may be given once.
pub(super) fn text<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, WireError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(WireError::invalid(format!("{name}: it is given twice")));
    }
    let text = value.to_str();
    text.map(Some).map_err(|_| WireError::invalid(format!("{name}: it must be visible ASCII")))
}

/// The form that `Accept` likes best; JSON where it likes none of ours.
pub(super) fn form(headers: &HeaderMap) -> Form {
    let mut best = (Form::Json, 0);
    for range in elements(headers, &header::ACCEPT) {
        let (media, parameters) = range.split_once(';').unwrap_or((range, ""));
        let form = match media.trim().to_ascii_lowercase().as_str() {
            "application/json" | "application/*" | "*/*" => Form::Json,
            CLOUDEVENT | CLOUDEVENTS => Form::CloudEvents,
            EVENT_STREAM => Form::Stream,
            _ => continue,
        };
        let weight = weight(parameters);
        if weight > best.1 {
            best = (form, weight);
        }
    }
    best.0
}

/// The weight among the parameters of an element, in thousandths (RFC 9110 §12.4.2); 0 for one that makes no sense.
pub(super) fn weight(parameters: &str) -> u16 {
    let mut pairs = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let Some((_, weight)) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("q")) else {
        return 1000;
    };
    let weight: Option<f32> = weight.trim().parse().ok();
    weight
        .filter(|weight| (0.0..=1.0).contains(weight))
        .map_or(0, |weight| (weight * 1000.0) as u16)
}

/// The time of `Prefer: wait=30` (RFC 7240 §4.3), as far as it is granted: a preference that is not understood is none.
pub(super) fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let waits = elements(headers, &PREFER).find_map(|preference| {
        let preference = preference.split(';').next().unwrap_or_default();
        let (name, value) = preference.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"'))
    })?;
    let seconds: u64 = waits.parse().ok()?;
    Some(Duration::from_secs(seconds).min(WAIT_MAX))
}

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The elements of a list header, over all its lines.
pub(super) fn elements<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn the_best_liked_form_is_given() {
        for (accept, want) in [
            ("*/*", Form::Json),
            ("text/html", Form::Json),
            ("text/event-stream", Form::Stream),
            ("Text/Event-Stream;q=0.5, application/json", Form::Json),
            ("application/json;q=0.5,text/event-stream", Form::Stream),
            ("application/cloudevents-batch+json, */*;q=0.1", Form::CloudEvents),
            ("text/event-stream;q=0", Form::Json),
        ] {
            assert_eq!(form(&headers(&[("accept", accept)])), want, "{accept}");
        }
        assert_eq!(form(&HeaderMap::new()), Form::Json);
        let two = headers(&[("accept", "application/json;q=0.1"), ("accept", "text/event-stream")]);
        assert_eq!(form(&two), Form::Stream);
    }

    #[test]
    fn a_wait_may_be_preferred() {
        let wait = |prefer| preferred_wait(&headers(&[("prefer", prefer)]));
        assert_eq!(wait("wait=30"), Some(Duration::from_secs(30)));
        assert_eq!(wait("respond-async, Wait = \"5\";x"), Some(Duration::from_secs(5)));
        assert_eq!(wait("wait=31"), Some(WAIT_MAX));
        for not_understood in ["respond-async", "wait", "wait=soon", "wait=-1"] {
            assert_eq!(wait(not_understood), None, "{not_understood}");
        }
        assert_eq!(preferred_wait(&HeaderMap::new()), None);
    }

    #[test]
    fn a_token_is_a_bearers() {
        let token =
            |value| bearer(&headers(&[("authorization", value)])).map(|t| t.map(str::to_owned));
        assert_eq!(token("bearer  abc ").unwrap().as_deref(), Some("abc"));
        for wrong in ["Basic abc", "abc", ""] {
            assert_eq!(token(wrong).unwrap_err().code, Code::Unauthenticated, "{wrong}");
        }
        let twice = headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
        assert_eq!(bearer(&twice).unwrap_err().code, Code::Unauthenticated);
        assert_eq!(bearer(&HeaderMap::new()).unwrap(), None);
    }
}
