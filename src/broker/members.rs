//! The sessions that are attached to a durable subscription.

use std::sync::Arc;

use super::{held::Token, interest::Entry};

/// They, by rising token.
#[derive(Debug, Default)]
pub(super) struct Members(Vec<Member>);

#[derive(Debug)]
struct Member {
    token: Token,
    entry: Arc<Entry>,
    is_fetcher: bool,
}

impl Members {
    /// One more, with a token above all others. What a fetcher has leased stays leased when it goes.
    pub(super) fn add(&mut self, token: Token, entry: Arc<Entry>, is_fetcher: bool) {
        self.0.push(Member { token, entry, is_fetcher });
    }

    /// One goes. Gives whether it was a fetcher; `None` where there was none.
    pub(super) fn remove(&mut self, token: Token) -> Option<bool> {
        let at = self.0.binary_search_by_key(&token, |member| member.token).ok()?;
        Some(self.0.remove(at).is_fetcher)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tokens of those who do not fetch, rising.
    pub(super) fn sockets(&self) -> Vec<Token> {
        let sockets = self.0.iter().filter(|member| !member.is_fetcher);
        sockets.map(|member| member.token).collect()
    }

    /// Whether this one is here, and does not fetch.
    pub(super) fn is_socket(&self, token: Token) -> bool {
        let at = self.0.binary_search_by_key(&token, |member| member.token);
        at.ok().and_then(|at| self.0.get(at)).is_some_and(|member| !member.is_fetcher)
    }

    /// All of them have something to look at.
    pub(super) fn wake_all(&self) {
        self.0.iter().for_each(|member| member.entry.wake());
    }
}
