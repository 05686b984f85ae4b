//! The table of calls: which paths there are and which methods each takes.
//!
//! - Built once a door. Paths are matched as they came, undecoded.

use std::fmt;

use hyper::{Method, header::HeaderValue};

use super::{events::PRESENCE, query};

/// One path of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Events of one topic or filter.
    TopicEvents,
    /// The newest event of a topic, or of a key on it.
    TopicLast,
    /// Events of several filters; publishing by `topic` in the event.
    Events,
    /// One event.
    Event,
    /// Who has acknowledged an event.
    Receipts,
    /// The topics there are.
    Topics,
    /// One topic, to be erased.
    Topic,
    /// All rules of retention.
    Rules,
    /// One rule of retention.
    Rule,
    /// All durable subscriptions.
    Subscriptions,
    /// One durable subscription.
    Subscription,
    /// Lease its next events.
    Fetch,
    /// Acknowledge its events.
    Ack,
    /// Let its events come again.
    Nack,
    /// Those of its events that are dead.
    Dead,
    /// Let its dead events come again.
    Redrive,
    /// Deliver nothing of it.
    Pause,
    /// Deliver again.
    Resume,
    /// Let it go on from another place.
    Reset,
    /// Its events as a stream.
    SubscriptionEvents,
    /// Who is listed on a topic.
    Presence,
    /// One event that waits for its moment.
    Scheduled,
    /// What a browser shows in the place of a token.
    Tickets,
    /// What was revoked.
    Revocations,
    /// All API keys.
    Keys,
    /// One API key.
    Key,
    /// What the broker is doing.
    Status,
    /// What the broker can do.
    Capabilities,
    /// The document of the calls.
    Openapi,
    /// The document of the WebSocket.
    Asyncapi,
    /// The demo page; only where it was asked for.
    Demo,
    /// A WebSocket.
    Socket,
    /// A WebSocket that is subscribed from its beginning.
    FilterSocket,
}

/// Where the document of the calls is.
pub(super) const OPENAPI: &str = "/v1/openapi.json";
/// Where the document of the WebSocket is.
pub(super) const ASYNCAPI: &str = "/v1/asyncapi.json";

const TABLE: [(&str, Route); 32] = [
    ("/v1/topics/{name}/events", Route::TopicEvents),
    ("/v1/topics/{name}/last", Route::TopicLast),
    ("/v1/events", Route::Events),
    ("/v1/events/{name}", Route::Event),
    ("/v1/events/{name}/receipts", Route::Receipts),
    ("/v1/topics", Route::Topics),
    ("/v1/subscriptions", Route::Subscriptions),
    ("/v1/subscriptions/{name}", Route::Subscription),
    ("/v1/subscriptions/{name}/fetch", Route::Fetch),
    ("/v1/subscriptions/{name}/ack", Route::Ack),
    ("/v1/subscriptions/{name}/nack", Route::Nack),
    ("/v1/subscriptions/{name}/dead", Route::Dead),
    ("/v1/subscriptions/{name}/redrive", Route::Redrive),
    ("/v1/subscriptions/{name}/pause", Route::Pause),
    ("/v1/subscriptions/{name}/resume", Route::Resume),
    ("/v1/subscriptions/{name}/reset", Route::Reset),
    ("/v1/subscriptions/{name}/events", Route::SubscriptionEvents),
    ("/v1/presence/{name}", Route::Presence),
    ("/v1/status", Route::Status),
    ("/v1/capabilities", Route::Capabilities),
    (OPENAPI, Route::Openapi),
    (ASYNCAPI, Route::Asyncapi),
    ("/v1/ws", Route::Socket),
    ("/v1/ws/{name}", Route::FilterSocket),
    ("/v1/topics/{name}", Route::Topic),
    ("/v1/retention", Route::Rules),
    ("/v1/retention/{name}", Route::Rule),
    ("/v1/scheduled/{name}", Route::Scheduled),
    ("/v1/tickets", Route::Tickets),
    ("/v1/auth/revocations", Route::Revocations),
    ("/v1/auth/keys", Route::Keys),
    ("/v1/auth/keys/{name}", Route::Key),
];

impl Route {
    /// The methods it takes. `HEAD` only where `GET` is cheap.
    pub(super) const fn allowed(self) -> Allowed {
        Allowed(match self {
            Route::TopicEvents | Route::Events | Route::Revocations | Route::Keys => {
                &[Method::GET, Method::POST]
            }
            Route::TopicLast
            | Route::Event
            | Route::Receipts
            | Route::Topics
            | Route::Rules
            | Route::Subscriptions
            | Route::Dead
            | Route::Presence
            | Route::Status
            | Route::Capabilities
            | Route::Openapi
            | Route::Asyncapi
            | Route::Demo => &[Method::GET, Method::HEAD],
            Route::Topic => &[Method::DELETE],
            Route::Subscription | Route::Rule => {
                &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE]
            }
            Route::Fetch
            | Route::Ack
            | Route::Nack
            | Route::Redrive
            | Route::Pause
            | Route::Resume
            | Route::Reset
            | Route::Tickets => &[Method::POST],
            Route::SubscriptionEvents | Route::Socket | Route::FilterSocket => &[Method::GET],
            Route::Scheduled | Route::Key => &[Method::DELETE],
        })
    }

    /// Whether it is a WebSocket's.
    pub(super) const fn is_socket(self) -> bool {
        matches!(self, Route::Socket | Route::FilterSocket)
    }

    /// Whether a `GET` with this behind its `?` does more than read: a socket takes requests, a durable's stream takes
    /// it over from whoever reads it, and a stream that lists its reader writes that into the log.
    pub(super) fn changes_by_reading(self, query: Option<&str>) -> bool {
        match self {
            Route::Socket | Route::FilterSocket | Route::SubscriptionEvents => true,
            Route::TopicEvents | Route::Events => query::has(query, PRESENCE),
            _ => false,
        }
    }
}

/// The methods of a route; shown as `GET, HEAD`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed(&'static [Method]);

impl Allowed {
    pub(super) fn contains(&self, method: &Method) -> bool {
        self.0.contains(method)
    }

    /// As the header `Allow` says it, with `OPTIONS`, which every path takes.
    pub(super) fn header(&self) -> HeaderValue {
        let text = format!("{self}, OPTIONS");
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("OPTIONS"))
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, method) in self.0.iter().enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            write!(f, "{comma}{method}")?;
        }
        Ok(())
    }
}

/// The table, ready to be searched.
pub(in crate::net) struct Routes(matchit::Router<(Route, &'static str)>);

impl Routes {
    /// Builds the table, with the demo page if it is wanted.
    pub(in crate::net) fn new(demo: bool) -> Result<Routes, matchit::InsertError> {
        let mut router = matchit::Router::new();
        for (path, route) in TABLE.into_iter().chain(demo.then_some(("/", Route::Demo))) {
            router.insert(path, (route, path))?;
        }
        Ok(Routes(router))
    }

    /// The path as the table has it, without what somebody put in.
    pub(super) fn path_of(&self, path: &str) -> Option<&'static str> {
        self.0.at(path).ok().map(|found| found.value.1)
    }

    /// The route of a path and its variable segment as it came, empty where there is none.
    pub(super) fn find<'a>(&self, path: &'a str) -> Option<(Route, &'a str)> {
        let found = self.0.at(path).ok()?;
        Some((found.value.0, found.params.get("name").unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// As the table has it, where a document gives the variable segment a name of its own.
    fn unnamed(path: &str) -> String {
        let segments = path.split('/');
        let segments = segments.map(|it| if it.starts_with('{') { "{name}" } else { it });
        segments.collect::<Vec<_>>().join("/")
    }

    #[test]
    fn the_document_has_every_call_and_no_other() {
        let document: serde_json::Value =
            serde_json::from_str(tidings_proto::documents::OPENAPI).unwrap();
        let mut documented = BTreeSet::new();
        for (path, calls) in document["paths"].as_object().unwrap() {
            for method in calls.as_object().unwrap().keys() {
                documented.insert(format!("{} {}", method.to_uppercase(), unnamed(path)));
            }
        }
        let mut there_are = BTreeSet::new();
        for (path, route) in TABLE.into_iter().chain([("/", Route::Demo)]) {
            let methods = route.allowed().to_string();
            there_are.extend(methods.split(", ").map(|method| format!("{method} {path}")));
        }
        assert_eq!(documented, there_are);
    }

    #[test]
    fn every_call_is_found() {
        let routes = Routes::new(false).unwrap();
        for (path, route) in TABLE {
            let filled = path.replace("{name}", "a.%2F%3E");
            let (found, name) = routes.find(&filled).unwrap();
            assert_eq!(found, route, "{path}");
            assert_eq!(name, if path.contains('{') { "a.%2F%3E" } else { "" }, "{path}");
        }
        for path in
            ["/", "/v1", "/v1/topics//events", "/v1/topics/a/b/events", "/v1/events/", "/v2/events"]
        {
            assert_eq!(routes.find(path), None, "{path}");
        }
    }

    #[test]
    fn the_demo_page_is_found_only_where_it_is_wanted() {
        assert_eq!(Routes::new(false).unwrap().find("/"), None);
        let routes = Routes::new(true).unwrap();
        assert_eq!(routes.find("/"), Some((Route::Demo, "")));
        assert_eq!(routes.find("/index.html"), None);
        assert_eq!(routes.find("/v1/ws"), Some((Route::Socket, "")));
    }

    #[test]
    fn s4_a_get_that_does_more_than_read_is_known() {
        let changes = |route: Route, query| route.changes_by_reading(Some(query));
        for route in [Route::Socket, Route::FilterSocket, Route::SubscriptionEvents] {
            assert!(changes(route, ""), "{route:?}");
        }
        for route in [Route::TopicEvents, Route::Events] {
            for query in ["presence={}", "after=1&presence", "pres%65nce=%7B%7D", "%70resence=x"] {
                assert!(changes(route, query), "{route:?} {query}");
            }
            for query in ["", "after=1", "topic=presence", "presences={}"] {
                assert!(!changes(route, query), "{route:?} {query}");
            }
        }
        assert!(!changes(Route::Subscriptions, "presence={}"));
    }

    #[test]
    fn allow_names_all_methods() {
        assert_eq!(Route::Subscription.allowed().header(), "GET, HEAD, PUT, DELETE, OPTIONS");
        assert!(!Route::TopicEvents.allowed().contains(&Method::HEAD));
        assert!(!Route::Fetch.allowed().contains(&Method::GET));
    }
}
