//! The protocol over HTTP: from a request to a session's call, and from what it gives to an answer.
//!
//! - A request is looked at in this order: `Host`, framing, route, method, origin, token, then the rest.
//! - Where somebody may do something without a token, a web page must not come in by a name of its own that it lets
//!   point to this machine (DNS rebinding): over loopback only names of this machine are answered.
//! - A path's segments are decoded once, after routing: `%2F` stays inside its segment.
//! - Whatever fails is a problem (RFC 9457); nobody's mistake ends another's request.
//! - What changes state by more than one step runs to its end even when the client has gone.

mod access;
mod body;
mod cors;
mod dead;
mod demo;
mod documents;
mod durables;
mod encode;
mod event;
mod events;
mod headers;
mod list;
mod operate;
mod polls;
mod presence;
mod publish;
mod query;
mod respond;
mod retention;
mod routes;
mod scheduled;
mod status;
mod upgrade;

use std::{
    future::Future,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use percent_encoding::percent_decode_str;
use tidings_proto::{Code, WireError};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

pub(super) use self::{cors::Origins, polls::Polls, routes::Routes};
use self::{
    cors::Standing,
    encode::Wish,
    query::Query,
    routes::{Allowed, Route},
};
use super::{Door, listener::turned_away, problem::Refusal};
use crate::{
    clock, metrics,
    session::{Greeting, House, Session, Transport, guests::Guest, internal, shown},
};
pub use respond::Body;
pub(super) use respond::place;

/// When to come again to a broker that is stopping, in milliseconds.
const STOPPING_MS: (u64, u64) = (500, 2000);

/// Where a request comes from.
#[derive(Clone)]
pub struct Caller {
    /// The address of its connection.
    pub peer: SocketAddr,
    /// Who it is, as far as limits go: what is behind a proxy that is believed.
    pub guest: Arc<Guest>,
    /// What its tasks run on.
    pub tracker: TaskTracker,
    /// Its connection's place under the cap.
    pub place: Arc<OwnedSemaphorePermit>,
}

/// One request on its way.
struct Call {
    door: Arc<Door>,
    caller: Caller,
    head: Parts,
    /// The variable segment of the path, decoded; empty where the route has none.
    name: String,
    /// How its answer may be compressed.
    wish: Wish,
}

/// The answer to any request.
pub(super) async fn answer(
    door: &Arc<Door>,
    caller: Caller,
    request: Request<Incoming>,
) -> Response<Body> {
    let begun = clock::monotonic();
    let path = door.routes.path_of(request.uri().path()).unwrap_or("other");
    let method = method_label(request.method());
    let standing = door.origins.standing(request.headers());
    let wish = Wish::of(request.headers(), &door.options.codings);
    let answered = route(door, caller, request, &standing, wish).await;
    let response = answered.unwrap_or_else(Refusal::into_response);
    let mut response = encode::encode(door, wish, response).await;
    let took = clock::monotonic().saturating_sub(begun);
    metrics::http_answered(path, method, status_label(response.status()), took);
    door.origins.expose(&standing, response.headers_mut());
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        seal(response.headers_mut());
    }
    response
}

/// A method in metrics: one of those there are, whatever a client says.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The class of a status in metrics.
fn status_label(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

/// What every answer says: it is what its content type says, and it is not to be kept unless it
/// says how.
pub(super) fn seal(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let kept = headers.entry(header::CACHE_CONTROL);
    kept.or_insert(HeaderValue::from_static("no-store"));
}

async fn route(
    door: &Arc<Door>,
    caller: Caller,
    request: Request<Incoming>,
    standing: &Standing,
    wish: Wish,
) -> Result<Response<Body>, Refusal> {
    check_host(&request)?;
    check_framing(request.headers())?;
    check_name(door, &caller, request.headers())?;
    let found = find(&door.routes, request.uri().path());
    let is_socket = found.as_ref().is_ok_and(|(route, _)| route.is_socket());
    let caller = behind_proxy(door, caller, request.headers(), is_socket)?;
    caller.guest.asks()?;
    let (route, name) = found?;
    let method = request.method();
    if method == Method::OPTIONS {
        return cors::preflight(request.headers(), standing, &route.allowed());
    }
    check_method(route, method)?;
    let is_safe = [Method::GET, Method::HEAD].contains(method);
    let changes = !is_safe || route.changes_by_reading(request.uri().query());
    if *standing == Standing::Foreign && changes {
        if is_socket {
            metrics::handshake_rejected("origin");
        }
        return Err(cors::refused(request.headers()));
    }
    if is_socket {
        return upgrade::answer(door, caller, request, route, &name).inspect_err(|refusal| {
            match refusal.code() {
                // It may come again to a broker that does not stop.
                Code::Unavailable => {}
                Code::Unauthenticated => metrics::handshake_rejected("auth"),
                _ => metrics::handshake_rejected("protocol"),
            }
        });
    }
    let (head, body) = request.into_parts();
    let call = Call { door: door.clone(), caller, head, name, wish };
    dispatch(route, call, body).await
}

/// Who a request is of that a proxy has passed on.
fn behind_proxy(
    door: &Door,
    caller: Caller,
    headers: &HeaderMap,
    is_socket: bool,
) -> Result<Caller, Refusal> {
    let proxies = &door.options.proxies;
    if !proxies.has(caller.peer.ip()) {
        return Ok(caller);
    }
    let Some(client) = proxies.client(headers) else { return Ok(caller) };
    match caller.guest.bring(client, is_socket) {
        Ok(guest) => Ok(Caller { guest, ..caller }),
        Err(turned) => {
            metrics::handshake_rejected("limit");
            Err(turned_away(turned))
        }
    }
}

async fn dispatch(route: Route, call: Call, body: Incoming) -> Result<Response<Body>, Refusal> {
    let reads = [Method::GET, Method::HEAD].contains(&call.head.method);
    match route {
        Route::TopicEvents if reads => events::of_topic(&call).await,
        Route::TopicEvents => publish::to_topic(&call, body).await,
        Route::Events if reads => events::of_topics(&call).await,
        Route::Events => publish::to_topics(&call, body).await,
        Route::TopicLast => event::last(&call).await,
        Route::Event => event::show(&call).await,
        Route::Receipts => event::receipts(&call).await,
        Route::Topics => status::topics(&call),
        Route::Topic => retention::erase(&call).await,
        Route::Rules => retention::list(&call),
        Route::Rule if reads => retention::show(&call),
        Route::Rule if call.head.method == Method::PUT => retention::put(&call, body).await,
        Route::Rule => retention::delete(&call).await,
        Route::Subscriptions => durables::list(&call).await,
        Route::Subscription if reads => durables::show(&call).await,
        Route::Subscription if call.head.method == Method::PUT => durables::put(&call, body).await,
        Route::Subscription => durables::delete(&call).await,
        Route::Fetch => durables::fetch(&call, body).await,
        Route::Ack => durables::ack(&call, body).await,
        Route::Nack => durables::nack(&call, body).await,
        Route::Dead => dead::list(&call).await,
        Route::Redrive => dead::redrive(&call, body).await,
        Route::Pause => operate::pause(&call, body, true).await,
        Route::Resume => operate::pause(&call, body, false).await,
        Route::Reset => operate::reset(&call, body).await,
        Route::SubscriptionEvents => durables::stream(&call).await,
        Route::Presence => presence::show(&call),
        Route::Scheduled => scheduled::cancel(&call).await,
        Route::Tickets => access::ticket(&call, body).await,
        Route::Revocations if reads => access::revocations(&call),
        Route::Revocations => access::revoke(&call, body).await,
        Route::Keys if reads => access::keys(&call),
        Route::Keys => access::make_key(&call, body).await,
        Route::Key => access::revoke_key(&call).await,
        Route::Status => status::status(&call),
        Route::Capabilities => status::capabilities(&call),
        Route::Openapi => documents::openapi(&call),
        Route::Asyncapi => documents::asyncapi(&call),
        Route::Demo => demo::page(),
        // These are answered before.
        Route::Socket | Route::FilterSocket => {
            let text = "this call is a WebSocket: ask for the upgrade";
            Err(WireError::new(Code::NotFound, text).into())
        }
    }
}

/// More than one `Host` means that somebody between us may have understood another request (RFC
/// 9112 §3.2).
fn check_host<B>(request: &Request<B>) -> Result<(), Refusal> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let needs_one = request.version() == Version::HTTP_11;
    if hosts == 1 || (hosts == 0 && !needs_one) {
        return Ok(());
    }
    Err(Refusal::from(WireError::invalid(format!("host: one is needed, {hosts} came"))).closing())
}

/// A body that is coded for its way here is not decoded: what is in it would be taken for what was sent (RFC 9112 §6.1).
fn check_framing(headers: &HeaderMap) -> Result<(), Refusal> {
    // `chunked` is there once, and last (§7.1): another one would be left in the body.
    let codings = headers::elements(headers, &header::TRANSFER_ENCODING);
    let is_first = |(n, coding): &(usize, &str)| *n == 0 && coding.eq_ignore_ascii_case("chunked");
    let Some((_, coding)) = codings.enumerate().find(|coding| !is_first(coding)) else {
        return Ok(());
    };
    let text = format!(
        "transfer-encoding: {} is not understood, only one chunked: say content-encoding",
        shown(coding)
    );
    let error = WireError::invalid(text);
    Err(Refusal::with_status(StatusCode::NOT_IMPLEMENTED, error).closing())
}

/// That a broker on loopback is called by a name of this machine, or one that is allowed. Where all need a token a page
/// of another name has none.
fn check_name(door: &Door, caller: &Caller, headers: &HeaderMap) -> Result<(), Refusal> {
    let foreign = foreign_name(&caller.peer, headers);
    let foreign = foreign.filter(|host| !door.origins.names(host));
    let Some(host) = foreign.filter(|_| !door.house.needs_token()) else { return Ok(()) };
    let host = shown(host);
    let text = format!(
        "host: a broker that asks for no token is not called {host} over loopback: call it localhost, or name http://{host} with --allow-origin"
    );
    Err(Refusal::from(WireError::new(Code::PermissionDenied, text)).closing())
}

/// What a caller over loopback calls us, where that is no name of this machine.
pub(super) fn foreign_name<'a>(peer: &SocketAddr, headers: &'a HeaderMap) -> Option<&'a str> {
    let host = headers.get(header::HOST)?.to_str().unwrap_or("?");
    let is_here = peer.ip().to_canonical().is_loopback();
    Some(host).filter(|host| is_here && !is_of_this_machine(host))
}

/// `localhost`, a name under it (RFC 6761 §6.3), or an address: a page cannot let those point elsewhere.
fn is_of_this_machine(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(ip, _)| ip.parse::<Ipv6Addr>().is_ok());
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<Ipv4Addr>().is_ok()
}

fn find(routes: &Routes, path: &str) -> Result<(Route, String), WireError> {
    let Some((route, name)) = routes.find(path) else {
        let text = format!("there is no {}: docs/protocol.md lists the calls", shown(path));
        return Err(WireError::new(Code::NotFound, text));
    };
    let name = percent_decode_str(name).decode_utf8();
    let name = name.map_err(|_| {
        WireError::invalid(format!("path: {} is not UTF-8 once decoded", shown(path)))
    })?;
    Ok((route, name.into_owned()))
}

fn check_method(route: Route, method: &Method) -> Result<(), Refusal> {
    let allowed: Allowed = route.allowed();
    if allowed.contains(method) {
        return Ok(());
    }
    let text = format!("method: {} is not for this path, but {allowed}", shown(method.as_str()));
    let refusal = Refusal::with_status(StatusCode::METHOD_NOT_ALLOWED, WireError::invalid(text));
    Err(refusal.header(header::ALLOW, allowed.header()))
}

/// The answer to what comes while the broker stops.
fn stopping() -> WireError {
    let wait_ms = clock::random_between(STOPPING_MS.0, STOPPING_MS.1);
    WireError::new(Code::Unavailable, "the broker is shutting down").retry_after_ms(wait_ms)
}

impl Call {
    fn house(&self) -> &Arc<House> {
        &self.door.house
    }

    /// Lets the caller in.
    fn session(&self, transport: Transport) -> Result<Session, WireError> {
        let token = headers::bearer(&self.head.headers)?;
        Greeting::new(self.house().clone(), transport, self.caller.guest.clone()).connect(token)
    }

    /// Lets the caller of a stream in, who may show a ticket in the place of a token, and gives what is `asked` for. A
    /// ticket is good once: what is asked is looked at before, so that a misspelled parameter does not use it up.
    fn stream_session<T>(
        &self,
        asked: impl FnOnce() -> Result<T, WireError>,
    ) -> Result<(Session, T), WireError> {
        let Some(ticket) = query::ticket(self.head.uri.query()) else {
            let session = self.session(Transport::Sse)?;
            return Ok((session, asked()?));
        };
        if headers::bearer(&self.head.headers)?.is_some() {
            return Err(query::two_proofs());
        }
        let asked = asked()?;
        let redeemed = self.house().redeem(ticket, &self.caller.guest)?;
        let greeting =
            Greeting::new(self.house().clone(), Transport::Sse, self.caller.guest.clone());
        Ok((greeting.admit(redeemed)?, asked))
    }

    /// The parameters of the query, which must be among these.
    fn query(&self, known: &[&'static str]) -> Result<Query, WireError> {
        Query::parse(self.head.uri.query(), known)
    }

    /// One header's text; `None` when it is not there.
    fn header(&self, name: &HeaderName) -> Result<Option<&str>, WireError> {
        headers::text(&self.head.headers, name)
    }

    /// Carries something out whole, also when the client goes meanwhile; gives up when the broker
    /// stops.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, WireError>> + Send + 'static,
    ) -> Result<T, WireError> {
        let stop = self.house().stop.clone();
        let task = self.caller.tracker.spawn(async move {
            tokio::select! {
                biased;
                done = work => done,
                () = stop.cancelled() => Err(stopping()),
            }
        });
        task.await.unwrap_or_else(|_| Err(internal("a request panicked")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s4_a_name_of_this_machine_is_no_name_that_a_page_can_have() {
        for host in ["localhost", "LOCALHOST:80", "app.localhost:7077", "127.0.0.1:1", "[::1]:7"] {
            assert!(is_of_this_machine(host), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", "", "[x]"]
        {
            assert!(!is_of_this_machine(host), "{host}");
        }
    }
}
