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
pub struct Ticket(pub(super) oneshot::Receiver<Outcomes>);

/// One for each unit of a job, in order.
pub(crate) type Outcomes = SmallVec<[Result<Committed, AppendError>; 1]>;

impl Future for Ticket {
    /// Why nothing was appended; or [`AppendError::Indeterminate`], when that cannot be known.
    type Output = Result<Committed, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcomes = ready!(Pin::new(&mut self.0).poll(context));
        let outcome = outcomes.ok().and_then(|outcomes| outcomes.into_iter().next());
        Poll::Ready(outcome.unwrap_or(Err(AppendError::Indeterminate)))
    }
}

/// The same for what was queued together and is appended each for itself: a future of an outcome for each.
pub struct Tickets {
    pub(super) outcomes: oneshot::Receiver<Outcomes>,
    pub(super) count: usize,
}

impl Future for Tickets {
    type Output = Vec<Result<Committed, AppendError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcomes = ready!(Pin::new(&mut self.outcomes).poll(context));
        Poll::Ready(match outcomes {
            Ok(outcomes) => outcomes.into_vec(),
            Err(_) => vec![Err(AppendError::Indeterminate); self.count],
        })
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
