//! The doors: sockets and requests outside, sessions inside.
//!
//! - The only rooms behind a door are the session's: nothing here knows the log, the storage or a
//!   token.
//! - Every connection, body, wait and output has a bound, see [`Options`].
//! - A door is built once and shared by all its connections.

mod admin;
pub mod coding;
pub mod forwarded;
pub mod frame;
mod http;
pub mod listener;
mod problem;
pub mod progress;
mod sse;
pub mod tls;
mod voice;
pub mod websocket;
pub mod wire;

use std::{sync::Arc, time::Duration};

use hyper::{Request, Response, body::Incoming};
use tokio::sync::Semaphore;

pub use self::http::{Body, Caller};
use self::{
    coding::Codings,
    forwarded::Proxies,
    http::{Origins, Polls, Routes},
    tls::Tls,
};
use crate::session::House;

/// The settings of this room.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most connections of one listener at a time.
    pub connections_max: usize,
    /// How long a new connection, or a request that has begun, may take for its head.
    pub header_timeout: Duration,
    /// How long a request's body may take.
    pub body_timeout: Duration,
    /// How long a connection may stay open between two requests.
    pub idle_timeout: Duration,
    /// How long a stream of events lasts at most; `None`: as long as its reader likes.
    pub stream_max: Option<Duration>,
    /// Browser origins that may come besides our own, as `https://app.example`.
    pub allow_origins: Vec<String>,
    /// Browsers reach it over TLS, its own or a proxy's: pages of its own that came without are foreign.
    pub is_https: bool,
    /// The most reads that may wait for an event at a time.
    pub long_polls_max: usize,
    /// The most of them of one subject, or of one address where there is no token; 0: as many as of all.
    pub long_polls_per_subject: usize,
    /// Who is believed about where a request comes from.
    pub proxies: Proxies,
    /// The most bytes of request bodies in memory at a time.
    pub bodies_bytes_max: usize,
    /// The most bytes of large answers that their readers have not taken yet.
    pub answers_bytes_max: usize,
    /// How answers, and bodies of requests, may be compressed.
    pub codings: Codings,
    /// Serve the demo page at `/`.
    pub demo: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connections_max: 10_000,
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            stream_max: Some(Duration::from_secs(3600)),
            allow_origins: Vec::new(),
            is_https: false,
            proxies: Proxies::default(),
            long_polls_max: 5_000,
            long_polls_per_subject: 0,
            bodies_bytes_max: 256 * 1024 * 1024,
            answers_bytes_max: 256 * 1024 * 1024,
            codings: Codings::default(),
            demo: false,
        }
    }
}

/// Whom a door is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorKind {
    /// Clients: the protocol.
    Public,
    /// Operators: health and metrics.
    Admin,
}

/// Why there is no door.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// An entry of [`Options::allow_origins`] that no browser would send.
    #[error(
        "allow_origins: \"{0}\" is no origin: give scheme, host and port, as in https://app.example:8443"
    )]
    Origin(String),
    /// Two routes that are the same: a bug.
    #[error("the routes contradict each other: {0}")]
    Routes(#[from] matchit::InsertError),
}

/// What the connections of one listener share.
pub struct Door {
    house: Arc<House>,
    options: Options,
    kind: DoorKind,
    /// Without it, plain TCP.
    tls: Option<Arc<Tls>>,
    routes: Routes,
    origins: Origins,
    /// Reads that wait.
    polls: Arc<Polls>,
    /// One permit for each byte of a request's body in memory.
    bodies: Arc<Semaphore>,
    /// One permit for each byte of a large answer in memory.
    answers: Arc<Semaphore>,
    /// One permit for each body that is being compressed or inflated on the blocking pool: as many as there are
    /// processors.
    coders: Arc<Semaphore>,
}

impl Door {
    /// A door into this house.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub fn new(house: Arc<House>, options: Options, kind: DoorKind) -> Result<Door, DoorError> {
        let permits = |n: usize| Arc::new(Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Door {
            routes: Routes::new(options.demo)?,
            origins: Origins::new(&options.allow_origins, options.is_https)?,
            polls: Polls::new(options.long_polls_max, options.long_polls_per_subject),
            bodies: permits(options.bodies_bytes_max),
            answers: permits(options.answers_bytes_max),
            coders: permits(std::thread::available_parallelism().map_or(1, usize::from)),
            house,
            options,
            kind,
            tls: None,
        })
    }

    /// The same over TLS.
    #[must_use]
    pub fn over(self, tls: Option<Arc<Tls>>) -> Door {
        Door { tls, ..self }
    }

    /// Answers one request; every failure is an answer.
    pub async fn answer(
        self: &Arc<Self>,
        caller: Caller,
        request: Request<Incoming>,
    ) -> Response<Body> {
        match self.kind {
            DoorKind::Public => http::answer(self, caller, request).await,
            DoorKind::Admin => admin::answer(&self.house, &caller.peer, &request),
        }
    }
}
