//! The demo page: one file with everything in it, under a policy that lets nothing else run.
//!
//! - It is built from `clients/demo`, and checked in as it was built: the broker compiles without Node.
//! - The page is the same for everybody and holds nothing of anybody: it needs no token, what it
//!   does over the socket does.
//! - Its style and its script carry a nonce that is new with every answer.

use hyper::{
    Response, StatusCode,
    header::{self, HeaderValue},
};

use super::{Body, respond};
use crate::{clock, net::problem::Refusal, session::internal};

const PAGE: &str = include_str!("demo/page.html");
/// What stands in the page for the nonce.
const NONCE: &str = "{{nonce}}";

/// `GET /`.
pub(super) fn page() -> Result<Response<Body>, Refusal> {
    // Two of 122 random bits: the policy's standard asks for 128 (CSP 3 §7.1).
    let nonce = format!("{}{}", clock::session_id().simple(), clock::session_id().simple());
    let policy =
        HeaderValue::from_str(&policy(&nonce)).map_err(|error| internal(&error.to_string()))?;
    let page = PAGE.replace(NONCE, &nonce);
    let mut response = respond::typed(StatusCode::OK, "text/html; charset=utf-8", page);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

/// The one style, the one script, the sockets of this broker and the icon in the page; nothing
/// else is loaded, sent, or framed.
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn served() -> (String, String) {
        let response = page().map_err(|_| "refused").unwrap();
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        assert_eq!(response.headers()["referrer-policy"], "no-referrer");
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (policy, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_policy_lets_only_the_page_itself_run() {
        let (policy, page) = served().await;
        let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert_eq!(nonce.len(), 64);
        assert_eq!(page.matches(&format!(" nonce=\"{nonce}\">")).count(), 2);
        assert_eq!(page.matches("<script").count(), 1);
        assert_eq!(page.matches("<style").count(), 1);
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"));
        assert!(!page.contains(NONCE));
        let (other, _) = served().await;
        assert_ne!(policy, other, "a nonce is used once");
    }

    /// Script and style may name addresses (namespaces, where an error is explained) and ask none: that is for the policy,
    /// and for the test in a browser, which sees every request.
    #[tokio::test]
    async fn the_page_asks_nobody_else_for_anything() {
        let (policy, page) = served().await;
        for outside in ["http", "ws:", "wss:", "*", "blob:", "unsafe"] {
            assert!(!policy.contains(outside), "{outside}");
        }
        let markup = markup(&page);
        for outside in
            ["http://", "https://", "src=", "@import", "url(", "<iframe", "<base", "style=\""]
        {
            assert!(!markup.contains(outside), "{outside}");
        }
        // What the policy stops all the same, and a build should not bring in.
        for barred in ["@import", "url(", "eval(", "new Function"] {
            assert!(!page.contains(barred), "{barred}");
        }
    }

    /// The page without comments and without what stands in its style and its script.
    fn markup(page: &str) -> String {
        let mut rest = page;
        let mut markup = String::new();
        for (begin, end) in [("<!--", "-->"), ("<style", "</style>"), ("<script", "</script>")] {
            let (before, within) = rest.split_once(begin).unwrap();
            markup += before;
            rest = within.split_once(end).unwrap().1;
        }
        markup + rest
    }
}
