//! A publish on its way, counted once its outcome is known.
//!
//! One whose publisher goes before the answer is not counted: nobody was answered.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use smallvec::SmallVec;
use tidings_proto::{Code, WireError, message::Published};

use super::{Transport, of_publish};
use crate::{
    broker::PublishTicket,
    metrics::{self, Outcome},
};

/// Accepted: a future of where the events stand.
pub struct Publishing {
    ticket: PublishTicket,
    transport: Transport,
}

impl Publishing {
    pub(super) fn new(ticket: PublishTicket, transport: Transport) -> Publishing {
        Publishing { ticket, transport }
    }
}

impl Future for Publishing {
    type Output = Result<SmallVec<[Published; 1]>, WireError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let published = ready!(Pin::new(&mut self.ticket).poll(context));
        let published = published.map_err(|error| of_publish(&error));
        match &published {
            Ok(results) => {
                let is_known = results.iter().all(|published| published.duplicate);
                let outcome = if is_known { Outcome::Duplicate } else { Outcome::Ok };
                metrics::publish_answered(self.transport.as_str(), outcome);
            }
            Err(error) => refused(self.transport, error),
        }
        Poll::Ready(published)
    }
}

/// Counts a publish that was refused.
pub(super) fn refused(transport: Transport, error: &WireError) {
    metrics::publish_answered(transport.as_str(), outcome(error.code));
}

fn outcome(code: Code) -> Outcome {
    match code {
        Code::Conflict => Outcome::Conflict,
        Code::PermissionDenied | Code::Unauthenticated => Outcome::Denied,
        Code::Unavailable | Code::Internal => Outcome::Unavailable,
        _ => Outcome::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_ours_is_no_fault_of_the_publisher() {
        assert_eq!(outcome(Code::Internal), Outcome::Unavailable);
        assert_eq!(outcome(Code::TooLarge), Outcome::Rejected);
        assert_eq!(outcome(Code::InvalidArgument), Outcome::Rejected);
    }
}
