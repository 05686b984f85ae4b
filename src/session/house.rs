//! What all sessions share, and the door into it.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidings_proto::{Code, Filters, SubscribeOptions, WireError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    DurableInfo, Session,
    audit::Audit,
    compressor::Compressor,
    encoding::Encoding,
    error,
    guests::{Caps, Guest, Guests, Stay},
    of_read,
    outputs::Outputs,
    rates::{self, Granted, Kind, Limiter, Meter},
    standing,
};
use crate::{
    auth::{AuthError, Authenticator, Identity, Tickets},
    broker::{Broker, kept_bytes},
    clock,
    log::Health,
    metrics::Gauges,
};

/// When a subject may come that has as many sessions as it may, in milliseconds.
const STAY_MS: (u64, u64) = (1000, 5000);

/// How much a subscription may keep without being counted among the large ones, in bytes.
const SMALL_BYTES: usize = 4096;

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
    /// What the kernel may hold for a connection that does not read, in bytes; it doubles that for its own needs.
    pub send_buffer_bytes: usize,
    /// How long a socket may stay without `connect` where one is needed.
    pub connect_timeout: Duration,
    /// How long a socket's message may take to come whole once it has begun.
    pub message_timeout: Duration,
    /// The most bytes of messages that have come in part, of all sockets together.
    pub messages_bytes_max: usize,
    /// The most bytes that all large subscriptions keep together.
    pub subscriptions_bytes_max: usize,
    /// The most bytes of large answers that wait for sockets, of all together; and as much again of large batches.
    pub answers_bytes_max: usize,
    /// How often something may be done.
    pub rates: rates::Options,
    /// How many connections there may be of an address, and of strangers.
    pub caps: Caps,
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
    pub(super) tickets: Tickets,
    /// Who stands at the door.
    pub guests: Arc<Guests>,
    /// What operators are told.
    pub audit: Audit,
    pub(super) limiter: Arc<Limiter>,
    /// What compresses for those who asked for it.
    pub compressor: Compressor,
    /// The room for messages of sockets that have come in part: a permit for each byte.
    pub messages: Arc<Semaphore>,
    /// The room for what large subscriptions keep: a permit for each byte.
    subscriptions: Arc<Semaphore>,
    /// The room for answers that wait for sockets: a permit for each byte.
    pub answers: Arc<Semaphore>,
    /// The room for large batches on their way.
    pub outputs: Arc<Outputs>,
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
        let limiter = Limiter::new(limits.rates);
        Arc::new(House {
            guests: Guests::new(limits.caps, limiter.clone()),
            limiter,
            audit: Audit::default(),
            compressor: Compressor::new(limits.message_bytes_max),
            messages: Arc::new(Semaphore::new(limits.messages_bytes_max)),
            subscriptions: Arc::new(Semaphore::new(limits.subscriptions_bytes_max)),
            answers: Arc::new(Semaphore::new(limits.answers_bytes_max)),
            outputs: Outputs::new(limits.answers_bytes_max),
            broker,
            authenticator,
            limits,
            stop,
            tickets: Tickets::default(),
            sessions: Default::default(),
            opened: clock::monotonic(),
        })
    }

    /// How many sessions there are on this transport.
    pub fn sessions(&self, transport: Transport) -> usize {
        self.count(transport).load(Ordering::Relaxed)
    }

    /// Whether a token is needed to get in.
    pub fn needs_token(&self) -> bool {
        self.authenticator.anonymous().is_none()
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

    /// Room for what a subscription keeps; one that keeps little needs none, so that nobody who asks for much keeps others
    /// out.
    pub(super) fn room(
        &self,
        options: &SubscribeOptions,
    ) -> Result<Option<OwnedSemaphorePermit>, WireError> {
        let bytes = kept_bytes(options);
        if bytes <= SMALL_BYTES {
            return Ok(None);
        }
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.subscriptions.clone().try_acquire_many_owned(wanted).map(Some).map_err(|_| {
            let text = format!(
                "there is no room for so large a subscription: all large ones keep {} bytes (limits.subscriptions_bytes_max): give it fewer filters, or come again",
                self.limits.subscriptions_bytes_max
            );
            let wait_ms = clock::random_between(STAY_MS.0, STAY_MS.1);
            WireError::new(Code::Unavailable, text).retry_after_ms(wait_ms)
        })
    }

    /// What somebody is told whose token does not hold: once they come too fast, that.
    pub(super) fn refuse(&self, error: &AuthError, ip: IpAddr) -> WireError {
        if matches!(error, AuthError::Missing) {
            return error::of_auth(error);
        }
        self.audit.failed_auth(ip);
        match self.limiter.take_of_ip(ip, Kind::FailedAuth) {
            Ok(()) => error::of_auth(error),
            Err(wait) => {
                self.audit.exceeded(Kind::FailedAuth, ip, None);
                let text = "token: too many that do not hold came from your address";
                WireError::new(Code::RateLimited, text).retry_after_ms(wait.ms())
            }
        }
    }

    /// A place among the sessions of a subject, where its token bounds them.
    pub(super) fn stay(&self, identity: &Identity) -> Result<Option<Stay>, WireError> {
        let Some(max) = identity.limits.sessions else { return Ok(None) };
        let places = usize::try_from(max.get()).unwrap_or(usize::MAX);
        if let Some(stay) = self.guests.stay(&identity.subject, places) {
            return Ok(Some(stay));
        }
        let text = format!(
            "token: {} has {max} sessions, as many as it may have at a time",
            identity.subject
        );
        let wait_ms = clock::random_between(STAY_MS.0, STAY_MS.1);
        Err(WireError::new(Code::RateLimited, text).retry_after_ms(wait_ms))
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
    guest: Arc<Guest>,
    encoding: Encoding,
}

impl Greeting {
    /// Somebody at this door, who is answered in JSON.
    pub fn new(house: Arc<House>, transport: Transport, guest: Arc<Guest>) -> Greeting {
        Greeting { house, transport, guest, encoding: Encoding::Json }
    }

    /// The same, answered in this encoding.
    #[must_use]
    pub fn speaking(self, encoding: Encoding) -> Greeting {
        Greeting { encoding, ..self }
    }

    /// Whether a token is needed to get in.
    pub fn needs_token(&self) -> bool {
        self.house.needs_token()
    }

    /// Where it comes from.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Whether a token makes a difference.
    pub fn takes_token(&self) -> bool {
        !self.house.authenticator.is_open()
    }

    /// Whether somebody without a token may read all of this.
    pub fn is_for_everybody(&self, filters: &Filters) -> bool {
        let anonymous = self.house.authenticator.anonymous();
        anonymous.is_some_and(|identity| identity.grants.refused(filters).is_none())
    }

    /// Lets somebody in.
    ///
    /// # Errors
    /// `unauthenticated`, `rate_limited`, or `unavailable` when the broker is stopping.
    pub fn connect(&self, token: Option<&str>) -> Result<Session, WireError> {
        self.check_stopping()?;
        let identified = self.house.identify(token);
        crate::metrics::authenticated(identified.is_ok());
        let identity = identified.map_err(|error| self.house.refuse(&error, self.guest.ip()))?;
        self.session(identity)
    }

    /// Lets in who has shown a ticket.
    ///
    /// # Errors
    /// As [`Greeting::connect`].
    pub fn admit(&self, ticket: Redeemed) -> Result<Session, WireError> {
        self.check_stopping()?;
        self.session(ticket.0)
    }

    fn check_stopping(&self) -> Result<(), WireError> {
        if !self.house.stop.is_cancelled() {
            return Ok(());
        }
        let wait_ms = clock::random_between(500, 2000);
        Err(WireError::new(Code::Unavailable, "the broker is shutting down")
            .retry_after_ms(wait_ms))
    }

    fn session(&self, identity: Arc<Identity>) -> Result<Session, WireError> {
        let limiter = &self.house.limiter;
        let meter = Meter::new(limiter, self.guest.ip(), &identity);
        let granted = Granted::of(limiter, &identity);
        let stay = match self.transport {
            Transport::Http => {
                meter.take_request()?;
                None
            }
            Transport::WebSocket | Transport::Sse => {
                meter.take(Kind::Connects, 1)?;
                self.house.stay(&identity)?
            }
        };
        self.guest.let_in();
        Ok(Session {
            house: self.house.clone(),
            ends_ms: standing::ends_ms(&identity),
            identity,
            id: clock::session_id(),
            // It is looked at anew when something is asked for.
            looked_at: AtomicU64::new(u64::MAX),
            guest: self.guest.clone(),
            meter: Arc::new(meter),
            granted,
            stay,
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
    /// What is known of a durable subscription, for who asks for nothing else.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn shown_durable(&self, name: &str) -> Result<DurableInfo, WireError> {
        self.take(Kind::ReplayBytes, 1)?;
        self.durable(name).await
    }

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
        self.take(Kind::ReplayBytes, 1)?;
        let found = self.broker().durable_infos(after, limit, wanted).await;
        let (infos, more) = found.map_err(|error| of_read(&error))?;
        self.replayed(infos.iter().map(|info| info.replayed_bytes).sum());
        Ok((infos, more))
    }
}

/// Somebody whose ticket was good. It is not good a second time.
#[derive(Clone, Debug)]
pub struct Redeemed(Arc<Identity>);

impl House {
    /// Who brings this token.
    pub(super) fn identify(&self, token: Option<&str>) -> Result<Arc<Identity>, AuthError> {
        let identity = self.authenticator.identify(token, |id| self.broker.api_key(id))?;
        match standing::is_revoked(&self.broker, &identity) {
            true => Err(AuthError::Revoked),
            false => Ok(identity),
        }
    }

    /// Who brings this ticket.
    ///
    /// # Errors
    /// `unauthenticated` when it does not hold, or when what it was given for holds no more.
    pub fn redeem(&self, ticket: &str, from: &Guest) -> Result<Redeemed, WireError> {
        let redeemed = self.tickets.redeem(ticket).ok_or(AuthError::Ticket);
        let redeemed = redeemed.and_then(|identity| {
            let has_ended = identity.expires.is_some_and(|expires| expires <= clock::now());
            match has_ended || standing::is_revoked(&self.broker, &identity) {
                true => Err(AuthError::Ticket),
                false => Ok(Redeemed(identity)),
            }
        });
        crate::metrics::authenticated(redeemed.is_ok());
        redeemed.map_err(|error| self.refuse(&error, from.ip()))
    }
}
