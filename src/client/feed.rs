//! One subscription as the connection sees it: where it stands with the broker, what it has to say.
//!
//! ```text
//! Wanted ── subscribe ──▶ Asked ── subscribed ──▶ Live ── superseded, refused ──▶ Over
//!    ▲                      │                      │ ▲
//!    └──── connection lost, missed a batch ────────┤ │
//!          Parked ── all taken ──▶ Wanted ◀────────┘ buffer full for too long
//! ```
//! - Acks and nacks wait until it is live, in order, and go out again after a lost connection: they
//!   may be carried out twice, which changes nothing.

use std::sync::Arc;

use tidings_proto::{
    Cursor, Offset,
    message::{Ack, Nack, Request, RequestId, Subscribed},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Error, buffer::Buffer, track::Track, unanswered::Unanswered};

/// See the module.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) track: Track,
    pub(super) state: State,
    pub(super) buffer: Arc<Buffer>,
    pub(super) errands: Unanswered<Errand>,
    /// Who waits for the first answer to the subscribe.
    pub(super) ready: Option<oneshot::Sender<Result<Subscribed, Error>>>,
}

/// Where a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// To be subscribed, not before this moment (monotonic milliseconds).
    Wanted(u64),
    /// Subscribed, not answered.
    Asked(RequestId),
    /// Deliveries come under this number.
    Live(u32),
    /// Unsubscribed until what is buffered has been taken.
    Parked,
    /// Nothing more comes.
    Over,
}

/// Something to say about a subscription.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) kind: ErrandKind,
    pub(super) answer: oneshot::Sender<Result<Option<Cursor>, Error>>,
    /// Bounds how many there are; given back with the answer.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// What there is to say.
#[derive(Clone, Debug)]
pub(super) enum ErrandKind {
    /// All up to and including this one is done.
    AckUpTo(Offset),
    /// Just these are done.
    Ack(Vec<Offset>),
    /// These should come again.
    Nack { offsets: Vec<Offset>, delay_ms: Option<u64>, reason: Option<String> },
    /// Stop delivering.
    Unsubscribe,
}

impl ErrandKind {
    /// As a request about the subscription of this number.
    pub(super) fn request(&self, subscription: u32) -> Request {
        let (offset, offsets) = match self {
            ErrandKind::AckUpTo(offset) => (Some(*offset), None),
            ErrandKind::Ack(offsets) => (None, Some(offsets.clone())),
            ErrandKind::Nack { offsets, delay_ms, reason } => {
                return Request::Nack(Nack {
                    subscription: Some(subscription),
                    offsets: offsets.clone(),
                    delay_ms: *delay_ms,
                    reason: reason.clone(),
                    log: None,
                });
            }
            ErrandKind::Unsubscribe => return Request::Unsubscribe { subscription },
        };
        Request::Ack(Ack { subscription: Some(subscription), offset, offsets, log: None })
    }
}

impl Feed {
    /// Adds something to say; answered at once where there is nobody to say it to.
    pub(super) fn push(&mut self, errand: Errand) {
        if self.state == State::Over {
            let done = matches!(errand.kind, ErrandKind::Unsubscribe);
            // Whoever asked may have gone: then nobody needs the answer.
            let _ = errand.answer.send(if done { Ok(None) } else { Err(Error::Ended) });
            return;
        }
        self.errands.push(errand);
    }

    /// Nothing more comes; everybody who waits is told why.
    pub(super) fn end(&mut self, why: &Error) {
        self.state = State::Over;
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(Err(why.clone()));
        }
        for errand in self.errands.take_all() {
            let _ = errand.answer.send(Err(why.clone()));
        }
        self.buffer.end(why.clone());
    }

    /// The connection is gone: everything is to be asked and said again.
    pub(super) fn handle_disconnect(&mut self) {
        self.errands.handle_disconnect();
        match self.state {
            // A wait that the broker asked for outlives the connection.
            State::Wanted(_) | State::Parked | State::Over => {}
            State::Asked(_) | State::Live(_) => self.state = State::Wanted(0),
        }
    }

    /// Whether its full buffer is a reason not to read the socket. Before it is live nothing comes
    /// for it. What a durable leases is bounded by the broker (`max_in_flight`), and its taker may
    /// wait for the answer to an ack, which lies behind it on the socket.
    pub(super) fn is_blocking(&self) -> bool {
        matches!(self.state, State::Live(_)) && !self.track.is_leased() && self.buffer.is_full()
    }
}
