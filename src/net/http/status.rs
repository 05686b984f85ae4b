//! What there is: topics, the broker's state, its capabilities.

use hyper::{Response, StatusCode};
use serde::Serialize;
use tidings_proto::{Filter, LogId, Mode, topic::FILTERS_MAX, wire::compressed::DEFLATE_RAW};

use super::{
    Body, Call,
    query::{LIMIT_MAX, WAIT_MAX},
    respond,
    routes::{ASYNCAPI, OPENAPI},
};
use crate::{
    net::{coding::Coding, problem::Refusal},
    session::{Transport, encoding::Encoding, millis, parse_filter},
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Serialize)]
struct Topics<'a> {
    topics: Vec<Topic<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
}

#[derive(Serialize)]
struct Topic<'a> {
    name: &'a str,
    first: u64,
    last: u64,
    count: u64,
}

/// `GET /v1/topics`.
pub(super) fn topics(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    let query = call.query(&["filter", "limit", "cursor"])?;
    let filter: Filter = parse_filter("filter", query.get("filter").unwrap_or(">"))?;
    let limit = query.limit()?;
    let mut infos = session.topics(&filter, query.get("cursor"), limit + 1)?;
    let is_more = infos.len() > limit;
    infos.truncate(limit);
    let topics = infos.iter().map(|info| Topic {
        name: info.topic.as_str(),
        first: info.first.get(),
        last: info.last.get(),
        count: info.count,
    });
    let cursor = infos.last().filter(|_| is_more).map(|info| info.topic.as_str());
    Ok(respond::of(StatusCode::OK, &Topics { topics: topics.collect(), cursor })?)
}

#[derive(Serialize)]
struct Status {
    version: &'static str,
    log: Log,
    sessions: Sessions,
    subscriptions: Subscriptions,
    uptime_seconds: u64,
}

#[derive(Serialize)]
struct Log {
    id: LogId,
    first: u64,
    last: u64,
    bytes: u64,
    segments: usize,
}

#[derive(Serialize)]
struct Sessions {
    websocket: usize,
    sse: usize,
    http: usize,
}

#[derive(Serialize)]
struct Subscriptions {
    ephemeral: usize,
    durable: usize,
}

/// `GET /v1/status`.
pub(super) fn status(call: &Call) -> Result<Response<Body>, Refusal> {
    let session = call.session(Transport::Http)?;
    session.check_admin("the broker's state")?;
    call.query(&[])?;
    let house = session.house();
    let log = house.broker.log();
    let (ephemeral, durable) = house.broker.subscription_counts();
    let status = Status {
        version: VERSION,
        log: Log {
            id: log.id(),
            first: log.first().get(),
            last: log.committed().get(),
            bytes: log.bytes(),
            segments: log.segments(),
        },
        sessions: Sessions {
            websocket: house.sessions(Transport::WebSocket),
            sse: house.sessions(Transport::Sse),
            http: house.sessions(Transport::Http),
        },
        subscriptions: Subscriptions { ephemeral, durable },
        uptime_seconds: house.uptime().as_secs(),
    };
    Ok(respond::of(StatusCode::OK, &status)?)
}

/// What a broker of this protocol may do without, by the words of the protocol: one on another log may have less.
const FEATURES: [&str; 26] = [
    "atomic_batches",
    "cloudevents",
    "compaction",
    "conflate_ms",
    "content_types",
    "dead_letters",
    "deliver_at",
    "durable",
    "erasure",
    "expect_last",
    "fetch_lost",
    "headers",
    "idle_expiry_ms",
    "last_per_key",
    "linger_ms",
    "max_bytes_per_second",
    "max_data_bytes",
    "order",
    "partition_by",
    "pause",
    "presence",
    "priority",
    "receipts",
    "redrive",
    "reset",
    "retention",
];

#[derive(Serialize)]
struct Capabilities {
    version: &'static str,
    protocol: u32,
    transports: [&'static str; 3],
    subprotocols: [&'static str; 3],
    encodings: [&'static str; 3],
    compress: [&'static str; 1],
    content_codings: Vec<&'static str>,
    modes: [Mode; 3],
    features: [&'static str; FEATURES.len()],
    auth: Auth,
    limits: Limits,
    documents: Documents,
}

#[derive(Serialize)]
struct Auth {
    required: bool,
    schemes: [&'static str; 1],
    /// Whether a token gets tickets.
    tickets: bool,
}

#[derive(Serialize)]
struct Limits {
    max_message_bytes: usize,
    max_event_bytes: usize,
    max_subscriptions: usize,
    max_filters: usize,
    max_limit: usize,
    max_wait_ms: u64,
    ping_interval_ms: u64,
}

/// Where the documents of the doors are, as paths.
#[derive(Serialize)]
struct Documents {
    openapi: &'static str,
    asyncapi: &'static str,
}

/// `GET /v1/capabilities`: for everybody.
pub(super) fn capabilities(call: &Call) -> Result<Response<Body>, Refusal> {
    call.query(&[])?;
    let house = call.house();
    let limits = &house.limits;
    let capabilities = Capabilities {
        version: VERSION,
        protocol: 1,
        transports: Transport::ALL.map(Transport::as_str),
        subprotocols: Encoding::ALL.map(Encoding::subprotocol),
        encodings: Encoding::ALL.map(Encoding::as_str),
        compress: [DEFLATE_RAW],
        content_codings: call.door.options.codings.iter().map(Coding::as_str).collect(),
        modes: [Mode::Exclusive, Mode::Shared, Mode::Mirror],
        features: FEATURES,
        auth: Auth {
            required: house.needs_token(),
            schemes: ["bearer"],
            tickets: !house.authenticator.is_open(),
        },
        limits: Limits {
            max_message_bytes: limits.message_bytes_max,
            max_event_bytes: limits.event_bytes_max,
            max_subscriptions: limits.subscriptions_max,
            max_filters: FILTERS_MAX,
            max_limit: LIMIT_MAX,
            max_wait_ms: millis(WAIT_MAX),
            ping_interval_ms: millis(limits.ping_interval),
        },
        documents: Documents { openapi: OPENAPI, asyncapi: ASYNCAPI },
    };
    Ok(respond::of(StatusCode::OK, &capabilities)?)
}
