//! What all sessions share, and the door into it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidings_proto::{Code, WireError};
use tokio_util::sync::CancellationToken;

use super::{DurableInfo, Session, compressor::Compressor, encoding::Encoding, error, of_read};
use crate::{auth::Authenticator, broker::Broker, clock, log::Health, metrics::Gauges};

/// The bounds of every session.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most bytes one message or request body may have.
    pub message_bytes_max: usize,
    /// The most bytes the data of one event may have.
    pub event_bytes_max: usize,
    /// The most subscriptions one socket may have.
    pub subscriptions_max: usize,
    /// How often the broker pings.
    pub ping_interval: Duration,
    /// How long a socket may take no byte while something waits to be written.
    pub write_timeout: Duration,
    /// How long a socket may stay without `connect` where one is needed.
    pub connect_timeout: Duration,
}

/// What all sessions share.
pub struct House {
    /// The core.
    pub broker: Arc<Broker>,
    /// Who somebody is.
    pub authenticator: Authenticator,
    /// The bounds.
    pub limits: Limits,
    /// The broker is stopping: say goodbye.
    pub stop: CancellationToken,
    /// What compresses for those who asked for it.
    pub compressor: Compressor,
    sessions: [Arc<AtomicUsize>; 3],
    /// The monotonic clock when the house was opened.
    opened: Duration,
}

/// One thing that must hold for the broker to take publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is looked at.
    pub name: &'static str,
    /// Why it does not hold.
    pub failed: Option<String>,
}

/// How somebody talks to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// An SSE stream.
    Sse,
    /// One HTTP request.
    Http,
}

impl Transport {
    /// All of them.
    pub const ALL: [Transport; 3] = [Transport::WebSocket, Transport::Sse, Transport::Http];

    /// Its name in metrics and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::WebSocket => "websocket",
            Transport::Sse => "sse",
            Transport::Http => "http",
        }
    }
}

impl House {
    /// A house without guests.
    pub fn new(
        broker: Arc<Broker>,
        authenticator: Authenticator,
        limits: Limits,
        stop: CancellationToken,
    ) -> Arc<House> {
        Arc::new(House {
            compressor: Compressor::new(limits.message_bytes_max),
            broker,
            authenticator,
            limits,
            stop,
            sessions: Default::default(),
            opened: clock::monotonic(),
        })
    }

    /// How many sessions there are on this transport.
    pub fn sessions(&self, transport: Transport) -> usize {
        self.count(transport).load(Ordering::Relaxed)
    }

    /// How long it has been open.
    pub fn uptime(&self) -> Duration {
        clock::monotonic().saturating_sub(self.opened)
    }

    /// What must hold for publishes to be taken: the log, its disk, and that we are not stopping.
    pub fn checks(&self) -> [Check; 3] {
        let health = self.broker.log().health();
        let log = match &health {
            Health::Writable | Health::Full => None,
            Health::Latched(cause) => Some(format!("refuses writes since an error: {cause}")),
            Health::Closed => Some("is closed".to_owned()),
        };
        let disk = (health == Health::Full).then(|| "is full".to_owned());
        let stopping = self.stop.is_cancelled().then(|| "the broker is shutting down".to_owned());
        [("log", log), ("disk", disk), ("stopping", stopping)]
            .map(|(name, failed)| Check { name, failed })
    }

    /// The state of the broker, as metrics show it.
    pub fn gauges(&self) -> Gauges {
        let log = self.broker.log();
        let (ephemeral, durable, idle) = self.broker.subscription_gauges();
        Gauges {
            disk_free: log.disk_free_bytes(),
            ephemeral,
            durable,
            idle,
            members: self.broker.members(),
            scheduled: self.broker.scheduled(),
            lag: self.broker.lag(),
            ledger: self.broker.ledger_applied().get(),
            first: log.first().get(),
            last: log.committed().get(),
            bytes: log.bytes(),
            segments: log.segments(),
            ready: self.checks().iter().all(|check| check.failed.is_none()),
        }
    }

    fn count(&self, transport: Transport) -> &Arc<AtomicUsize> {
        let [websocket, sse, http] = &self.sessions;
        match transport {
            Transport::WebSocket => websocket,
            Transport::Sse => sse,
            Transport::Http => http,
        }
    }
}

/// Somebody who has not said who they are.
pub struct Greeting {
    house: Arc<House>,
    transport: Transport,
    encoding: Encoding,
}

impl Greeting {
    /// Somebody at this door, who is answered in JSON.
    pub fn new(house: Arc<House>, transport: Transport) -> Greeting {
        Greeting { house, transport, encoding: Encoding::Json }
    }

    /// The same, answered in this encoding.
    #[must_use]
    pub fn speaking(self, encoding: Encoding) -> Greeting {
        Greeting { encoding, ..self }
    }

    /// What everybody shares.
    pub fn house(&self) -> &House {
        &self.house
    }

    /// Whether a token is needed to get in.
    pub fn needs_token(&self) -> bool {
        !self.house.authenticator.is_open()
    }

    /// Lets somebody in.
    ///
    /// # Errors
    /// `unauthenticated`, or `unavailable` when the broker is stopping.
    pub fn connect(&self, token: Option<&str>) -> Result<Session, WireError> {
        if self.house.stop.is_cancelled() {
            let wait_ms = clock::random_between(500, 2000);
            return Err(WireError::new(Code::Unavailable, "the broker is shutting down")
                .retry_after_ms(wait_ms));
        }
        let identified = self.house.authenticator.identify(token);
        crate::metrics::authenticated(identified.is_ok());
        let identity = identified.map_err(|error| error::of_auth(&error))?;
        Ok(Session {
            house: self.house.clone(),
            identity,
            id: clock::session_id(),
            counted: Counted::new(&self.house, self.transport, self.encoding),
        })
    }
}

/// An encoding in metrics: the end of its subprotocol.
fn label(encoding: Encoding) -> &'static str {
    let subprotocol = encoding.subprotocol();
    subprotocol.rsplit('.').next().unwrap_or(subprotocol)
}

/// Counts a session as long as it lives.
pub(super) struct Counted {
    count: Arc<AtomicUsize>,
    pub(super) transport: Transport,
    encoding: Encoding,
    began: Duration,
    /// The close code it ends with, once that is known.
    pub(super) code: Option<u16>,
}

impl Counted {
    fn new(house: &House, transport: Transport, encoding: Encoding) -> Counted {
        let count = house.count(transport).clone();
        count.fetch_add(1, Ordering::Relaxed);
        crate::metrics::session_opened(transport.as_str(), label(encoding));
        Counted { count, transport, encoding, began: clock::monotonic(), code: None }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        let lasted = clock::monotonic().saturating_sub(self.began);
        let transport = self.transport.as_str();
        crate::metrics::session_closed(transport, label(self.encoding), self.code, lasted);
    }
}

impl Session {
    /// Looks at up to `limit` durable subscriptions by name, after the name `after`: gives those
    /// they may use, and the name to go on after where there are more.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn durable_page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<DurableInfo>, Option<String>), WireError> {
        let wanted = |name: &str| self.identity.grants.may_use_durable(name);
        let found = self.broker().durable_infos(after, limit, wanted).await;
        found.map_err(|error| of_read(&error))
    }
}
