//! Where the broker is: an [`Endpoint`] parsed from a URL.
//!
//! - `http` and `ws` mean the same, and so do `https` and `wss`: over TLS.
//! - A path is kept as the prefix of every path asked for.

use hyper::Uri;

use super::Error;

/// A broker's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `http://HOST:PORT/PREFIX`, as it is shown.
    pub(super) url: String,
    /// Over TLS.
    pub(super) is_tls: bool,
    /// Host as the resolver wants it: an IPv6 address has no brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// `HOST:PORT` as the header `Host` wants it.
    pub(super) authority: String,
    /// What stands before every path: empty, or `/…` without a slash at the end.
    prefix: String,
}

impl Endpoint {
    /// Parses a URL.
    ///
    /// # Errors
    /// [`Error::Url`] that says what to give instead.
    pub(super) fn parse(url: &str) -> Result<Endpoint, Error> {
        let wrong = |problem| Error::Url { url: url.chars().take(200).collect(), problem };
        let form = "give it as http://HOST:PORT or https://HOST:PORT";
        let uri: Uri = url.parse().map_err(|_| wrong(form))?;
        let (scheme, is_tls) = match uri.scheme_str() {
            Some("http" | "ws") => ("http", false),
            Some("https" | "wss") => ("https", true),
            _ => return Err(wrong(form)),
        };
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err(wrong("it has no host; give it as http://HOST:PORT"));
        }
        if uri.query().is_some() {
            return Err(wrong("leave out the query"));
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let authority = format!("{host}:{port}");
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Endpoint {
            url: format!("{scheme}://{authority}{prefix}"),
            is_tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            authority,
            prefix,
        })
    }

    /// A path of the protocol as a request to this broker asks for it.
    pub(super) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let endpoint = Endpoint::parse("ws://[::1]:8081/tidings/").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("::1", 8081));
        assert_eq!(endpoint.authority, "[::1]:8081");
        assert_eq!(endpoint.path("/v1/ws"), "/tidings/v1/ws");
        let endpoint = Endpoint::parse("http://localhost").unwrap();
        assert_eq!((endpoint.url.as_str(), endpoint.port), ("http://localhost:80", 80));
        assert_eq!(endpoint.path("/v1/ws"), "/v1/ws");
        for url in ["https://localhost", "wss://localhost:443/"] {
            let endpoint = Endpoint::parse(url).unwrap();
            assert!(endpoint.is_tls && endpoint.url == "https://localhost:443", "{endpoint:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (url, needle) in [
            ("127.0.0.1:8080", "http://HOST:PORT"),
            ("ftp://a", "http://HOST:PORT"),
            ("http://a:1/?x=1", "query"),
            ("", "http://HOST:PORT"),
        ] {
            let text = Endpoint::parse(url).unwrap_err().to_string();
            assert!(text.contains(needle), "{url}: {text}");
        }
    }
}
