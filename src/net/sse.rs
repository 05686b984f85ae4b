//! A subscription as a stream of server-sent events (WHATWG HTML §9.2).
//!
//! - One future a stream, polled by its connection: it reads on only when what it gave has been
//!   taken, so at most one chunk of [`CHUNK_BYTES`] (or one event that is larger) waits in memory.
//! - A lease of a durable begins when the chunk with its event was taken.
//! - Every event carries its position, so that `Last-Event-ID` resumes without loss; a filtered
//!   cursor that moved is told by an `id:` without data.
//! - Of filters it ends after a while, so that its reader comes by the way that is best now (rotation): at a moment of its
//!   own, so that not all come at once.
//! - It ends when the broker stops, the token ends or is revoked, or the durable is taken over. A token's end is
//!   announced, and said with the error that the next request would get. Who does not read on is not told: the
//!   connection is cut shortly after.

mod stream;
mod text;

use std::{future::pending, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{
    Response,
    header::{self, HeaderName, HeaderValue},
};
use serde_json::json;
use tidings_proto::{
    Cursor, LogId, Offset, Position, SubscribeOptions, WireError,
    message::{Acked, Gap},
};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use self::stream::Outlet;
pub(super) use self::{stream::Stream, text::write_attempts};
use super::{
    http::{Body, place},
    progress::Over,
};
use crate::{
    clock, metrics,
    session::{
        Delivery, ReadError, Ready, Session, Stored, Subscription, Transport, of_read,
        outputs::{self, Held, Taker},
        standing::{self, Standing, warns_ms},
    },
};

/// A chunk is given when it has this many bytes.
const CHUNK_BYTES: usize = 32 * 1024;
/// A comment is sent when nothing else was for this long, so that nobody between us takes it for
/// dead.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// When a client should come again after the stream ended, in milliseconds; spread, so that a
/// restart is no stampede.
const RETRY_MS: (u64, u64) = (1000, 5000);
/// A stream has one subscription.
const NUMBER: u32 = 1;
/// How long the last words of a token's end may wait for a reader.
const LAST_WORDS: Duration = Duration::from_secs(2);
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Subscribes and answers with the stream, which lasts `lasts_max` at most and half of it at least.
///
/// # Errors
/// As the protocol says.
pub(super) async fn answer(
    session: Session,
    options: &SubscribeOptions,
    lasts_max: Option<Duration>,
) -> Result<Response<Body>, WireError> {
    let ready = Ready::new();
    let subscription = session.subscribe(options, ready.clone(), NUMBER).await?;
    let (cursor, log) = (subscription.cursor(), session.house().broker.log().id());
    let ends_at = lasts_max.map(|max| {
        let max_ms = u64::try_from(max.as_millis()).unwrap_or(u64::MAX);
        Instant::now() + Duration::from_millis(clock::random_between(max_ms / 2, max_ms))
    });
    let (over, taker) = (session.over(), Arc::<Taker>::default());
    let ending = async {
        match over {
            Some(over) => over.await,
            None => pending().await,
        }
        tokio::time::sleep(LAST_WORDS).await;
    };
    let over = Over::when(ending, taker.clone());
    let stream =
        Stream::new(|outlet| Feed::new(session, subscription, ready, outlet, taker, ends_at).run());
    let mut response = Response::new(Body::stream(stream, Some(over)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    place(headers, cursor, log);
    Ok(response)
}

/// What a stream does.
struct Feed {
    session: Session,
    standing: Standing,
    /// When the token's end is to be announced, on the monotonic clock; `None`: it has been, or does not come.
    warns_ms: Option<u64>,
    subscription: Subscription,
    ready: Arc<Ready>,
    outlet: Outlet,
    /// Who reads it.
    taker: Arc<Taker>,
    log: LogId,
    comment_at: Instant,
    /// When it has lasted long enough; `None`: never.
    ends_at: Option<Instant>,
    ping: Interval,
}

/// What came of reading or waiting.
enum Turn {
    Deliver(Delivery),
    Nothing,
    End(Vec<u8>),
}

impl Feed {
    fn new(
        session: Session,
        subscription: Subscription,
        ready: Arc<Ready>,
        outlet: Outlet,
        taker: Arc<Taker>,
        ends_at: Option<Instant>,
    ) -> Feed {
        let now = Instant::now();
        let every = session.house().limits.ping_interval;
        let mut ping = tokio::time::interval_at(now + every, every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let log = session.house().broker.log().id();
        let standing = session.standing();
        let warns_ms = session.ends_ms().map(warns_ms);
        let comment_at = now + COMMENT_EVERY;
        Feed {
            session,
            standing,
            warns_ms,
            subscription,
            ready,
            outlet,
            taker,
            log,
            comment_at,
            ends_at,
            ping,
        }
    }

    async fn run(mut self) {
        self.give(text::prelude(clock::random_between(RETRY_MS.0, RETRY_MS.1))).await;
        loop {
            let read = self.read().await;
            self.session.replayed(self.subscription.take_replayed_bytes());
            let turn = match read {
                Turn::Nothing => self.wait().await,
                turn => turn,
            };
            match turn {
                Turn::Deliver(delivery) => {
                    let is_last = matches!(delivery, Delivery::Superseded);
                    if let Err(error) = self.deliver(delivery).await {
                        self.give(last_words(&of_read(&error))).await;
                        return;
                    }
                    if is_last {
                        return;
                    }
                    self.subscription.sent();
                }
                Turn::Nothing => {}
                Turn::End(last_words) => {
                    self.give(last_words).await;
                    return;
                }
            }
        }
    }

    /// What comes next. A long search is never given up for a comment: it would begin anew.
    async fn read(&mut self) -> Turn {
        let now_ms = clock::monotonic_ms();
        if self.session.ends_ms().is_some_and(|ends_ms| ends_ms <= now_ms) {
            return Turn::End(last_words(&standing::expired()));
        }
        if self.warns_ms.take_if(|at_ms| *at_ms <= now_ms).is_some() {
            let in_ms = self.session.ends_ms().unwrap_or(now_ms) - now_ms;
            let mut out = Vec::new();
            text::control("tidings.token_expiring", None, &json!({ "in_ms": in_ms }), &mut out);
            self.give(out).await;
        }
        if self.ends_at.is_some_and(|at| at <= Instant::now()) {
            return Turn::End(text::comment("come again"));
        }
        let stop = self.session.house().stop.clone();
        let mut next = pin!(self.subscription.next());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    return Turn::End(text::comment("the broker is shutting down"));
                }
                // Before what is there to be read: it holds up no revocation.
                () = self.standing.revoked() => {
                    return Turn::End(last_words(&standing::revoked()));
                }
                read = &mut next => return match read {
                    Ok(Some(delivery)) => Turn::Deliver(delivery),
                    Ok(None) => Turn::Nothing,
                    Err(error) => Turn::End(last_words(&of_read(&error))),
                },
                () = tokio::time::sleep_until(self.comment_at) => {
                    self.outlet.give(text::comment("")).await;
                    self.comment_at = Instant::now() + COMMENT_EVERY;
                }
            }
        }
    }

    /// Waits for a reason to read again.
    async fn wait(&mut self) -> Turn {
        let due = self.subscription.next_due_ms();
        let due_in = due.map(|at| Duration::from_millis(at.saturating_sub(clock::monotonic_ms())));
        let ends_ms = self.warns_ms.or(self.session.ends_ms());
        let ends_in =
            ends_ms.map(|at| Duration::from_millis(at.saturating_sub(clock::monotonic_ms())));
        let rotates_in = self.ends_at.map(|at| at.saturating_duration_since(Instant::now()));
        let stop = self.session.house().stop.clone();
        tokio::select! {
            biased;
            // These three are found by the read that follows.
            () = stop.cancelled() => {}
            () = clock::sleep(rotates_in), if rotates_in.is_some() => {}
            () = clock::sleep(ends_in), if ends_in.is_some() => {}
            () = self.standing.revoked() => {
                return Turn::End(last_words(&standing::revoked()));
            }
            () = self.ready.wait() => while self.ready.pop().is_some() {},
            () = clock::sleep(due_in), if due_in.is_some() => {}
            _ = self.ping.tick() => {
                return self.subscription.idle().map_or(Turn::Nothing, Turn::Deliver);
            }
            () = tokio::time::sleep_until(self.comment_at) => self.give(text::comment("")).await,
        }
        Turn::Nothing
    }

    async fn deliver(&mut self, delivery: Delivery) -> Result<(), ReadError> {
        let mut out = Vec::new();
        match delivery {
            Delivery::Events { range, events, attempts, durable_at } => {
                // Until all of it was taken.
                let (events, _held) = match outputs::is_large(&events) {
                    true => self.admit(events).await.map(|(events, held)| (events, Some(held)))?,
                    false => (events, None),
                };
                self.events(range.map(|(_, cursor)| cursor), &events, &attempts).await;
                if let Some(durable_at) = durable_at {
                    metrics::delivery_took(Transport::Sse.as_str(), durable_at);
                }
                return Ok(());
            }
            Delivery::CaughtUp(cursor) => {
                let data = json!({ "cursor": cursor });
                let at = Position::of(cursor, self.log);
                text::control("tidings.caught_up", Some(&at), &data, &mut out);
            }
            Delivery::Gap(gap) => gap_text(gap, &mut out),
            Delivery::Acked(cursor) => {
                let data = Acked { subscription: None, cursor };
                text::control("tidings.acked", None, &data, &mut out);
            }
            Delivery::Superseded => {
                text::control("tidings.superseded", None, &json!({}), &mut out);
            }
        }
        self.give(out).await;
        Ok(())
    }

    /// Waits for a place for what is large; when the broker stops, for nothing more.
    async fn admit(
        &mut self,
        events: Vec<Arc<Stored>>,
    ) -> Result<(Vec<Arc<Stored>>, Held), ReadError> {
        let house = self.session.house();
        let (outputs, broker) = (house.outputs.clone(), house.broker.clone());
        tokio::select! {
            biased;
            admitted = outputs.admit(broker, self.taker.clone(), events) => admitted,
            () = house.stop.cancelled() => Err(ReadError::Closed),
        }
    }

    async fn events(
        &mut self,
        cursor: Option<Cursor>,
        events: &[Arc<Stored>],
        attempts: &[(Offset, u32)],
    ) {
        let mut out = Vec::new();
        let mut bytes = 0;
        if !attempts.is_empty() {
            text::attempts(attempts, &mut out);
        }
        for event in events {
            let position = Position::of(event.offset().cursor(), self.log);
            let json = match (event.json(), event.body()) {
                (Ok(json), Ok(body)) => {
                    text::head(&position, body.kind, &mut out);
                    text::one_line(json.clone())
                }
                (Err(error), _) | (_, Err(error)) => {
                    tracing::error!(%position, %error, "an event cannot be read: a gap is told");
                    // Never a silent skip.
                    let log = self.session.house().broker.log();
                    let gap = log.damage_gap(event.offset().before(), position.cursor);
                    gap_text(gap, &mut out);
                    continue;
                }
            };
            bytes += json.len();
            if json.len() > CHUNK_BYTES {
                // Large: given as it is, shared with all who read it.
                self.give(std::mem::take(&mut out)).await;
                self.give(json).await;
            } else {
                out.extend_from_slice(&json);
            }
            out.extend_from_slice(text::END);
            if out.len() >= CHUNK_BYTES {
                self.give(std::mem::take(&mut out)).await;
            }
        }
        let last = events.last().map(|last| last.offset().cursor());
        if let Some(cursor) = cursor.filter(|cursor| Some(*cursor) > last) {
            text::id(&Position::of(cursor, self.log), &mut out);
        }
        if !out.is_empty() {
            self.give(out).await;
        }
        metrics::delivered(Transport::Sse.as_str(), events.len(), bytes);
    }

    async fn give(&mut self, chunk: impl Into<Bytes>) {
        self.outlet.give(chunk).await;
        self.comment_at = Instant::now() + COMMENT_EVERY;
    }
}

/// What a stream says before it ends for this reason.
fn last_words(error: &WireError) -> Vec<u8> {
    let mut out = Vec::new();
    text::control("tidings.error", None, error, &mut out);
    out
}

fn gap_text(gap: Gap, out: &mut Vec<u8>) {
    let gap = Gap { subscription: None, ..gap };
    text::control("tidings.gap", None, &gap, out);
}
