//! The Rust client: publishes and subscribes over one WebSocket that it keeps up by itself.
//!
//! - Publishes are appended in the order of the calls, each once (one that is refused for now and sent
//!   again may come behind later ones): an event without an id gets one
//!   before it is first sent, and after a lost connection all unanswered ones are sent again in
//!   order, before new ones; the broker recognises those it has.
//! - An error that may pass (`unavailable`, `rate_limited`) is no caller's business: the client
//!   waits and sends again from the failed event on.
//! - A subscription goes on where it was after a lost connection: an ephemeral one behind the last
//!   event received, none twice; a durable one with what was not acknowledged.
//! - Everything that waits is bounded: publishes in number and bytes, acks in number, deliveries in
//!   number and bytes. A full buffer of deliveries stops the reading of the socket; where that
//!   holds up somebody's answer for a second, the subscription is taken off the socket until its
//!   buffer is empty (where it is listed by `presence`, it leaves and joins again). What a durable leases is bounded by its `max_in_flight` instead: its events
//!   never hold up the answers to its acks.
//! - Over TLS with `https://` and `wss://`; [`Options::ca`] says whom to trust.
//! - Data that the broker must not read is sealed with [`sealed::Keys`].
//!
//! ```no_run
//! # use tidings::client::{Client, Options};
//! # use tidings_proto::{NewEvent, Topic, message::Publish};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(Options::to("http://127.0.0.1:8080")).await?;
//! let publish = Publish::of(NewEvent::on(Topic::parse("greetings.world")?));
//! let published = client.publish(publish).await?.await?;
//! println!("{}", published.offset);
//! # Ok(())
//! # }
//! ```

mod ask;
mod backoff;
mod buffer;
mod core;
mod dial;
mod driver;
mod endpoint;
mod error;
mod feed;
mod http;
mod link;
pub mod sealed;
mod subscription;
#[cfg(test)]
mod tests;
mod track;
mod unanswered;

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use parking_lot::Mutex;
use tidings_proto::{
    EventId, SubscribeOptions,
    message::{Connected, Publish, Published, Request},
};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

pub use self::{
    ask::REPLY_TO,
    error::Error,
    http::{HttpAnswer, HttpClient},
    subscription::{Delivery, Subscription},
};
use self::{
    buffer::Buffer,
    core::{Command, Publishing, Wish},
    dial::Dialer,
    driver::Driver,
};
use crate::clock;

/// How many acks, nacks and the like may wait for their answers.
const ERRANDS_MAX: usize = 1024;

/// What is called with each [`Notice`].
pub type OnNotice = dyn Fn(&Notice) + Send + Sync;

/// How a client is set up.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where the broker is: `http://HOST:PORT` or `ws://HOST:PORT`, and over TLS `https://` or `wss://`.
    pub url: String,
    /// The certificates to trust, in PEM; else those that the system trusts.
    pub ca: Option<Vec<u8>>,
    /// A token, where the broker wants one.
    pub token: Option<String>,
    /// Name and version, for the broker's log.
    pub client_name: String,
    /// Ask the broker to compress batches of events, where it can: for slow lines.
    pub compress: bool,
    /// How many publishes may be unanswered; then [`Client::publish`] waits.
    pub in_flight_max: usize,
    /// How many bytes of data they may have together, about.
    pub in_flight_bytes_max: usize,
    /// How many deliveries of a subscription may wait to be taken.
    pub buffer_events_max: usize,
    /// The most that the first wait before a new connection may take, in milliseconds; it doubles.
    pub backoff_min_ms: u64,
    /// The most that any such wait may take, in milliseconds.
    pub backoff_max_ms: u64,
    /// How long one try to connect may take.
    pub connect_timeout: Duration,
    /// Called when the connection is lost or there again. Must not block.
    pub on_notice: Option<Arc<OnNotice>>,
}

impl Options {
    /// The defaults for the broker at `url`.
    pub fn to(url: impl Into<String>) -> Options {
        Options {
            url: url.into(),
            ca: None,
            token: None,
            client_name: concat!("tidings-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
            compress: false,
            in_flight_max: 1024,
            in_flight_bytes_max: 16 << 20,
            buffer_events_max: 1000,
            backoff_min_ms: 100,
            backoff_max_ms: 5_000,
            connect_timeout: Duration::from_secs(10),
            on_notice: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        f.debug_struct("Options")
            .field("url", &self.url)
            .field("token", &token)
            .finish_non_exhaustive()
    }
}

/// What happens to the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It was lost, or could not be made; the client goes on trying. Said once until it is there.
    Lost {
        /// Why.
        reason: String,
        /// Whether there has been one at all.
        was_there: bool,
    },
    /// It is there.
    Connected {
        /// Whether there has been one before.
        again: bool,
    },
}

/// A connection to a broker that keeps itself up. Cheap to clone; ends with its last clone and
/// subscription, or by [`Client::close`].
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// What the handles and the task share.
struct Shared {
    /// Room for publishes and for their bytes.
    publishes: Arc<Semaphore>,
    publish_bytes: Arc<Semaphore>,
    publish_bytes_max: u32,
    errands: Arc<Semaphore>,
    buffer_events_max: usize,
    last_key: AtomicU64,
    /// A buffer of deliveries has room again.
    room: Arc<Notify>,
    /// What the broker said on the present connection.
    connected: Mutex<Option<Connected>>,
    /// Why the task has ended.
    stopped: OnceLock<Error>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("stopped", &self.shared.stopped).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects; tries again until the broker is there. Bound it with a timeout where that is too
    /// long.
    ///
    /// # Errors
    /// When the address cannot be used or the broker refuses for good.
    pub async fn connect(options: Options) -> Result<Client, Error> {
        let dialer = Dialer::new(&options)?;
        let publish_bytes_max =
            u32::try_from(options.in_flight_bytes_max).unwrap_or(u32::MAX).max(1);
        let in_flight_max = options.in_flight_max.clamp(1, Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            publishes: Arc::new(Semaphore::new(in_flight_max)),
            publish_bytes: Arc::new(Semaphore::new(permits(publish_bytes_max))),
            publish_bytes_max,
            errands: Arc::new(Semaphore::new(ERRANDS_MAX)),
            buffer_events_max: options.buffer_events_max.max(1),
            last_key: AtomicU64::new(0),
            room: Arc::default(),
            connected: Mutex::new(None),
            stopped: OnceLock::new(),
        });
        let (commands, queue) = mpsc::channel(in_flight_max.min(ERRANDS_MAX));
        let (first, is_there) = oneshot::channel();
        let driver =
            Driver { dialer, options, commands: queue, shared: shared.clone(), first: Some(first) };
        let client = Client { commands, shared };
        tokio::spawn(driver.run());
        match is_there.await {
            Ok(()) => Ok(client),
            Err(_) => Err(client.why_closed_now().await),
        }
    }

    /// What the broker said on the present connection; `None` while there is none.
    pub fn connected(&self) -> Option<Connected> {
        self.shared.connected.lock().clone()
    }

    /// Queues an event to be appended, in the order of the calls, and gives a handle that becomes
    /// its place once it is durable. Waits while too many are unanswered.
    ///
    /// # Errors
    /// Why the client has ended. What the broker refuses, the handle says.
    pub async fn publish(&self, mut publish: Publish) -> Result<PublishHandle, Error> {
        if publish.event.id.is_none() {
            publish.event.id = EventId::parse(&clock::event_id().to_string()).ok();
        }
        let id = publish.event.id.clone();
        let bytes = publish.event.data.as_ref().map_or(0, bytes::Bytes::len);
        let bytes =
            u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, self.shared.publish_bytes_max);
        let one = self.shared.publishes.clone().acquire_owned().await;
        let one = one.map_err(|_| self.why_closed())?;
        let its_bytes = self.shared.publish_bytes.clone().acquire_many_owned(bytes).await;
        let its_bytes = its_bytes.map_err(|_| self.why_closed())?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Publish(Box::new(publish));
        let publishing = Publishing { request, answer, _permits: [one, its_bytes] };
        self.command(Command::Publish(publishing)).await?;
        Ok(PublishHandle { id, answered, client: self.clone() })
    }

    /// Subscribes and waits for the broker's answer.
    ///
    /// # Errors
    /// What the broker refuses, or why the client has ended.
    pub async fn subscribe(&self, options: SubscribeOptions) -> Result<Subscription, Error> {
        let key = self.shared.last_key.fetch_add(1, Ordering::Relaxed);
        let buffer = Buffer::new(self.shared.buffer_events_max, self.shared.room.clone());
        let buffer = Arc::new(buffer);
        let (ready, is_ready) = oneshot::channel();
        let wish = Wish { options, buffer: buffer.clone(), ready };
        // Dropped before there is a subscription, the call must leave none behind.
        let undo = Undo { client: self, key: Some(key) };
        self.command(Command::Subscribe(key, Box::new(wish))).await?;
        let subscribed = is_ready.await.map_err(|_| self.why_closed())??;
        undo.disarm();
        Ok(Subscription { key, client: self.clone(), buffer, subscribed })
    }

    /// Hangs up. What is unanswered ends with [`Error::Closed`]: wait for the handles first.
    pub async fn close(&self) {
        if self.command(Command::Close).await.is_ok() {
            self.commands.closed().await;
        }
    }

    async fn command(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| self.why_closed())
    }

    /// Why nothing is taken any more.
    fn why_closed(&self) -> Error {
        self.shared.stopped.get().cloned().unwrap_or(Error::Closed)
    }

    /// The same, once the task has said so.
    async fn why_closed_now(&self) -> Error {
        self.commands.closed().await;
        self.why_closed()
    }
}

/// Takes a subscription back that nobody has got.
struct Undo<'a> {
    client: &'a Client,
    key: Option<u64>,
}

impl Undo<'_> {
    fn disarm(mut self) {
        self.key = None;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            // With a full queue the broker goes on delivering to nobody, until the connection ends.
            let _ = self.client.commands.try_send(Command::Abandon(key));
        }
    }
}

/// An event on its way: a future of its place. Dropped, the event is published all the same while
/// the client lives.
#[derive(Debug)]
pub struct PublishHandle {
    id: Option<EventId>,
    answered: oneshot::Receiver<Result<Published, Error>>,
    client: Client,
}

impl PublishHandle {
    /// The event's id, given or made.
    pub fn id(&self) -> &str {
        self.id.as_ref().map_or("", EventId::as_str)
    }
}

impl Future for PublishHandle {
    type Output = Result<Published, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answered).poll(cx));
        Poll::Ready(answer.unwrap_or_else(|_| Err(self.client.why_closed())))
    }
}

fn permits(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS)
}
