//! Which web pages may talk to us, and what their browsers are told (Fetch standard, CORS).
//!
//! - An origin is ours when it names the `Host` it talks to, or is configured; there are no
//!   wildcards. Where browsers reach us over TLS a page that came without it is foreign: anybody on
//!   the way may have written it.
//! - A request without `Origin` comes from no web page and passes, unless its browser says with `Sec-Fetch-Site` that
//!   a page of another site has sent it: an image, a link, or a fetch without CORS. A page that is configured has no
//!   use for those, and which page it was is not known: they are foreign whoever is allowed.
//! - A foreign page's request that would change something is refused: an open broker on loopback
//!   must not be written to by whatever page its user looks at. Its reads are answered without the
//!   headers that would let the browser hand them over.

use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use tidings_proto::{Code, WireError};

use super::{Body, headers, routes::Allowed};
use crate::{
    net::{DoorError, problem::Refusal},
    session::shown,
};

/// What a page may read of an answer besides its body.
const EXPOSED: &str = "Tidings-Cursor, Tidings-Log, Retry-After, ETag";
/// Headers that a page may send; and all that begin with one of [`SENT_PREFIXES`].
const SENT: [&str; 8] = [
    "authorization",
    "content-type",
    "content-encoding",
    "accept",
    "idempotency-key",
    "if-none-match",
    "last-event-id",
    "prefer",
];
const SENT_PREFIXES: [&str; 2] = ["ce-", "tidings-"];
/// What a browser says of the page that sends a request (Fetch Metadata), to https and to loopback.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Its values for pages that are not ours.
const OTHER_SITES: [&str; 2] = ["cross-site", "same-site"];
/// How long a browser may keep the answer to its preflight, in seconds: the shortest common cap.
const MAX_AGE: &str = "600";

/// The origins that may come besides our own.
#[derive(Debug)]
pub(in crate::net) struct Origins {
    allowed: Vec<String>,
    /// Pages of our own come over TLS.
    is_https: bool,
}

/// How a request stands to us by its origin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It comes from no web page, or from one of our own.
    Ours,
    /// It comes from a page that is configured.
    Allowed(HeaderValue),
    /// It comes from another page.
    Foreign,
}

impl Origins {
    /// Takes what is configured.
    pub(in crate::net) fn new(origins: &[String], is_https: bool) -> Result<Origins, DoorError> {
        let origins = origins.iter().map(|text| {
            let origin = text.trim_end_matches('/').to_ascii_lowercase();
            let is_origin = authority(&origin).is_some_and(is_authority);
            is_origin.then_some(origin).ok_or_else(|| DoorError::Origin(text.clone()))
        });
        Ok(Origins { allowed: origins.collect::<Result<_, _>>()?, is_https })
    }

    /// Where a request comes from.
    pub(super) fn standing(&self, headers: &HeaderMap) -> Standing {
        let mut values = headers.get_all(header::ORIGIN).iter();
        let Some(value) = values.next() else {
            return match other_site(headers) {
                None => Standing::Ours,
                Some(_) => Standing::Foreign,
            };
        };
        let Ok(origin) = value.to_str() else { return Standing::Foreign };
        if values.next().is_some() {
            return Standing::Foreign;
        }
        let origin = origin.to_ascii_lowercase();
        if self.allowed.contains(&origin) {
            return Standing::Allowed(value.clone());
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let is_safe = !self.is_https || origin.starts_with("https://");
        match is_safe && host.is_some_and(|host| is_same(&origin, host)) {
            true => Standing::Ours,
            false => Standing::Foreign,
        }
    }

    /// Whether a configured origin has this host.
    pub(super) fn names(&self, host: &str) -> bool {
        self.allowed.iter().any(|origin| is_same(origin, host))
    }

    /// Lets a configured page's browser hand the answer over.
    pub(super) fn expose(&self, standing: &Standing, headers: &mut HeaderMap) {
        if let Standing::Allowed(origin) = standing {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers
                .insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
        if !self.allowed.is_empty() {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
    }
}

/// The answer to `OPTIONS`; a preflight when a browser asks.
pub(super) fn preflight(
    asked: &HeaderMap,
    standing: &Standing,
    allowed: &Allowed,
) -> Result<Response<Body>, Refusal> {
    let mut response = Response::new(Body::full(Vec::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, allowed.header());
    if !asked.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return Ok(response);
    }
    if *standing == Standing::Foreign {
        return Err(refused(asked));
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, allowed.header());
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    let wanted = headers::elements(asked, &header::ACCESS_CONTROL_REQUEST_HEADERS);
    let granted = wanted.filter(|name| may_be_sent(name)).collect::<Vec<_>>().join(", ");
    if let Some(granted) = HeaderValue::from_str(&granted).ok().filter(|value| !value.is_empty()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, granted);
    }
    Ok(response)
}

/// The answer to a foreign page.
pub(super) fn refused(headers: &HeaderMap) -> Refusal {
    let origin = headers.get(header::ORIGIN).map(|origin| shown(origin.to_str().unwrap_or("?")));
    let text = match (origin, other_site(headers)) {
        (None, Some(site)) => format!(
            "sec-fetch-site: {site}: a page of another origin may not without saying which it is: use CORS"
        ),
        (origin, _) => format!(
            "origin: pages of {} may not: the broker allows them with --allow-origin",
            origin.as_deref().unwrap_or("?")
        ),
    };
    WireError::new(Code::PermissionDenied, text).into()
}

/// What a browser says where a page of another origin has sent this.
fn other_site(headers: &HeaderMap) -> Option<&'static str> {
    let values = headers.get_all(SEC_FETCH_SITE);
    OTHER_SITES.into_iter().find(|site| values.iter().any(|value| value == site))
}

fn may_be_sent(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_name = HeaderName::from_bytes(name.as_bytes()).is_ok();
    let prefixed = SENT_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    is_name && (prefixed || SENT.contains(&name.as_str()))
}

/// Whether a lower-case origin names this host.
fn is_same(origin: &str, host: &str) -> bool {
    let default_port = if origin.starts_with("https:") { ":443" } else { ":80" };
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(default_port).unwrap_or(&host);
    authority(origin).is_some_and(|authority| authority == host)
}

fn authority(origin: &str) -> Option<&str> {
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
}

fn is_authority(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn origins() -> Origins {
        Origins::new(&["https://App.example/".to_owned()], false).unwrap()
    }

    #[test]
    fn over_tls_a_page_that_came_without_it_is_foreign() {
        let origins = Origins::new(&["http://kiosk".to_owned()], true).unwrap();
        let standing =
            |origin| origins.standing(&headers(&[("origin", origin), ("host", "a:443")]));
        assert_eq!(standing("https://a"), Standing::Ours);
        for origin in ["http://a", "http://a:443", "http://a:80"] {
            assert_eq!(standing(origin), Standing::Foreign, "{origin}");
        }
        let allowed = Standing::Allowed(HeaderValue::from_static("http://kiosk"));
        assert_eq!(standing("http://kiosk"), allowed);
    }

    #[test]
    fn pages_are_ours_allowed_or_foreign() {
        let standing =
            |origin, host| origins().standing(&headers(&[("origin", origin), ("host", host)]));
        assert_eq!(origins().standing(&headers(&[("host", "a")])), Standing::Ours);
        for (origin, host) in [
            ("http://a:8080", "a:8080"),
            ("http://A", "a:80"),
            ("https://a", "a:443"),
            ("http://[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(standing(origin, host), Standing::Ours, "{origin} {host}");
        }
        let allowed = Standing::Allowed(HeaderValue::from_static("https://app.example"));
        assert_eq!(standing("https://app.example", "a"), allowed);
        for (origin, host) in [
            ("http://app.example", "a"),
            ("https://app.example.evil", "a"),
            ("https://evilapp.example", "a"),
            ("https://app.example.", "a"),
            ("https://app.example@evil", "a"),
            ("https://app.example, https://evil", "a"),
            ("http://b@a", "a"),
            ("http://a.b", "a"),
            ("https://app.example:1", "a"),
            ("null", "a"),
            ("http://b", "a"),
            ("https://a", "a:80"),
            ("a", "a"),
            ("", ""),
        ] {
            assert_eq!(standing(origin, host), Standing::Foreign, "{origin} {host}");
        }
    }

    #[test]
    fn s4_what_a_page_sends_without_its_origin_is_known_by_its_site() {
        let standing = |pairs: &[_]| origins().standing(&headers(pairs));
        let site = |site| standing(&[("host", "a"), ("sec-fetch-site", site)]);
        // The user typed it, or our own page sent it; what is no value of the standard says nothing.
        for ours in ["none", "same-origin", "", "Cross-Site", "elsewhere"] {
            assert_eq!(site(ours), Standing::Ours, "{ours}");
        }
        for foreign in ["cross-site", "same-site"] {
            assert_eq!(site(foreign), Standing::Foreign, "{foreign}");
        }
        let mut twice = headers(&[("host", "a"), ("sec-fetch-site", "none")]);
        twice.append(SEC_FETCH_SITE, HeaderValue::from_static("cross-site"));
        assert_eq!(origins().standing(&twice), Standing::Foreign);
        // Who says its origin is judged by that.
        let allowed = [("origin", "https://app.example"), ("sec-fetch-site", "cross-site")];
        assert!(matches!(standing(&allowed), Standing::Allowed(_)));
        let own = [("origin", "http://a"), ("host", "a"), ("sec-fetch-site", "same-site")];
        assert_eq!(standing(&own), Standing::Ours);
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for wrong in ["*", "app.example", "https://", "https://a/b", "https://*.a", "ftp://a"] {
            assert!(Origins::new(&[wrong.to_owned()], false).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_preflight_grants_what_the_protocol_uses() {
        let asked = headers(&[
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,CE-Id, x-other"),
        ]);
        let allowed = super::super::routes::Route::TopicEvents.allowed();
        let response = preflight(&asked, &Standing::Ours, &allowed).unwrap();
        assert_eq!(response.status(), 204);
        assert_eq!(response.headers()["access-control-allow-headers"], "authorization, CE-Id");
        assert_eq!(response.headers()["access-control-allow-methods"], "GET, POST, OPTIONS");
        assert!(preflight(&asked, &Standing::Foreign, &allowed).is_err());
        let plain = preflight(&HeaderMap::new(), &Standing::Foreign, &allowed).unwrap();
        assert_eq!(plain.headers()["allow"], "GET, POST, OPTIONS");
    }

    #[test]
    fn only_configured_pages_are_let_at_the_answer() {
        let mut answer = HeaderMap::new();
        let origin = HeaderValue::from_static("https://app.example");
        origins().expose(&Standing::Allowed(origin), &mut answer);
        assert_eq!(answer["access-control-allow-origin"], "https://app.example");
        assert_eq!(answer["access-control-expose-headers"], EXPOSED);
        assert_eq!(answer["vary"], "Origin");
        let mut answer = HeaderMap::new();
        origins().expose(&Standing::Foreign, &mut answer);
        assert!(!answer.contains_key("access-control-allow-origin"));
    }
}
