//! The rights of a conversation as time goes on: its token ends, is revoked, or makes way for another.

use std::sync::Arc;

use tidings_proto::{Filters, WireError, message::Push};

use super::{
    super::{Session, outbox::Item, standing::warns_ms},
    Conversation, Verdict,
};
use crate::broker::{Durable, Token};

/// Unauthenticated, or the token has ended.
pub const CLOSE_UNAUTHENTICATED: u16 = 4401;
/// The token was revoked: whoever reconnects with it is refused.
pub const CLOSE_REVOKED: u16 = 4503;

/// How a session ends whose token was revoked.
const REVOKED: Verdict = Verdict::Close(CLOSE_REVOKED, "the token was revoked");

/// A subscription, as far as the conversation needs it.
pub(super) enum Held {
    /// With its filters.
    Ephemeral(Filters),
    /// Of a durable, with what says that it is this session's.
    Durable(Arc<Durable>, Token),
}

impl Held {
    pub(super) fn filters(&self) -> &Filters {
        match self {
            Held::Ephemeral(filters) => filters,
            Held::Durable(durable, _) => &durable.spec.options.filters,
        }
    }

    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Held::Ephemeral(_) => None,
            Held::Durable(durable, _) => Some(&durable.spec.name),
        }
    }
}

impl Conversation {
    /// When [`Conversation::time`] wants to be called next, if ever: on the monotonic clock, in milliseconds.
    pub fn deadline_ms(&self) -> Option<u64> {
        let ends_ms = self.session.as_ref()?.ends_ms()?;
        Some(self.warns_ms.unwrap_or(ends_ms))
    }

    /// The deadline has come: announces the token's end, or ends the session.
    pub async fn time(&mut self, now_ms: u64) -> Verdict {
        let ends_ms = self.session.as_ref().and_then(Session::ends_ms);
        let Some(ends_ms) = ends_ms else { return Verdict::GoOn };
        if ends_ms <= now_ms {
            return Verdict::Close(CLOSE_UNAUTHENTICATED, "the token has expired");
        }
        if self.warns_ms.take_if(|at_ms| *at_ms <= now_ms).is_some() {
            self.send(Item::Push(Push::TokenExpiring { in_ms: ends_ms - now_ms })).await;
        }
        Verdict::GoOn
    }

    /// How it ends, where the session's token is revoked by now.
    pub fn is_revoked(&self) -> Option<Verdict> {
        let is_revoked = self.session.as_ref()?.check_revoked().is_err();
        is_revoked.then_some(REVOKED)
    }

    /// Waits until the session's token is revoked; gives how it ends then.
    pub async fn revoked(&mut self) -> Verdict {
        match &mut self.standing {
            Some(standing) => standing.revoked().await,
            None => std::future::pending().await,
        }
        REVOKED
    }

    /// Waits until the session may not go on, for whatever reason. Without one that never comes.
    pub(super) async fn over(&self) {
        let Some(session) = &self.session else { return std::future::pending().await };
        let mut standing = session.standing();
        // Both come to the same.
        let _ = tokio::time::timeout(session.left(), standing.revoked()).await;
    }

    /// From here on this token counts.
    pub(super) fn watch_token(&mut self) {
        let session = self.session.as_ref();
        self.standing = session.map(Session::standing);
        self.warns_ms = session.and_then(Session::ends_ms).map(warns_ms);
    }

    /// Ends the subscriptions that the rights of now do not cover; each with an error.
    pub(super) async fn end_ungranted(&mut self) -> bool {
        let Some(session) = &self.session else { return true };
        let refused = |(number, held): (u32, &Held)| {
            let refused = session.may_keep(held.filters(), held.name()).err();
            refused.map(|error| (number, error))
        };
        let refused: Vec<(u32, WireError)> =
            self.subscriptions.iter().filter_map(refused).collect();
        for (number, error) in refused {
            self.subscriptions.remove(number);
            let message = format!("subscription {number} ends: {}", error.message);
            let error = Push::Error(WireError { message, ..error });
            let told = self.send(Item::Unsubscribe(None, number)).await
                && self.send(Item::Push(error)).await;
            if !told {
                return false;
            }
        }
        true
    }
}
