//! The commit thread without its thread: a test says when something is committed.

use std::{sync::Arc, time::Duration};

use super::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Committer, Controls, LastWords, Upkeep};
use crate::log::{LogHandle, LogOpener};

/// Commits when it is told to. Dropping it is a kill: nothing more is written.
pub(crate) struct Stepped {
    committer: Committer,
    _last_words: LastWords,
}

impl LogOpener {
    /// Starts no thread.
    pub(crate) fn stepped(self, controls: Arc<dyn Controls>) -> Stepped {
        let LogHandle { shared } = self.handle;
        let last_words = LastWords { shared: shared.clone(), controls: controls.clone() };
        let committer = Committer::with(self.log, shared, controls, Upkeep::inline());
        Stepped { committer, _last_words: last_words }
    }
}

impl Stepped {
    /// Commits what waits, all of it together.
    pub(crate) fn step(&mut self) {
        let queue = &self.committer.shared.queue;
        let work = queue.take(BATCH_EVENTS_MAX, BATCH_BYTES_MAX, Duration::ZERO);
        self.committer.commit_all(work.jobs);
        self.committer.look_after();
        // What is to be done beside the commit path was done here and now.
        self.committer.shared.kept.send_replace(());
    }
}
