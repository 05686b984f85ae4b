//! What an append is answered with, once it is durable.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use smallvec::SmallVec;
use tidings_proto::Offset;
use tokio::sync::oneshot;

use super::AppendError;

/// Accepted: what was queued will be committed, refused, or left indeterminate by a failing disk. A future
/// of which.
pub struct Ticket(pub(super) oneshot::Receiver<Result<Committed, AppendError>>);

impl Future for Ticket {
    /// Why nothing was appended; or [`AppendError::Indeterminate`], when that cannot be known.
    type Output = Result<Committed, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(outcome.unwrap_or(Err(AppendError::Indeterminate)))
    }
}

/// Durable: where each of the queued events stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// One for each draft, in order.
    pub places: SmallVec<[Place; 1]>,
}

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its offset.
    pub offset: Offset,
    /// Whether it had been appended before.
    pub duplicate: bool,
}
