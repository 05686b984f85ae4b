//! What the handle says of events that were taken out, and for taking them out.

use std::sync::atomic::Ordering;

use tidings_proto::{Cursor, Filters, Topic, message::GapReason};
use tidings_storage::{Trimmer, Why};
use tokio::sync::watch;

use super::LogHandle;

impl LogHandle {
    /// Asks the commit thread to seal the active segment; [`LogHandle::kept`] says when its index may be written.
    pub fn seal(&self) {
        self.shared.seal.store(true, Ordering::SeqCst);
        self.nudge();
    }

    /// Announces every piece of work that is done beside the commit path.
    pub fn kept(&self) -> watch::Receiver<()> {
        self.shared.kept.subscribe()
    }

    /// What takes events out.
    pub fn trimmer(&self) -> &Trimmer {
        &self.shared.trimmer
    }

    /// Changes whenever events were taken out that readers are told of.
    pub fn trims_version(&self) -> u64 {
        self.shared.reader.trims_version()
    }

    /// The highest offset on the topic that a limit of retention or an erasure took out.
    pub fn trimmed_upto(&self, topic: &Topic) -> Cursor {
        self.shared.reader.trimmed_upto(topic.as_str())
    }

    /// Why events behind `after` that match were taken out, if some were, and the highest offset of them.
    pub fn trimmed(&self, filters: &Filters, after: Cursor) -> Option<(GapReason, Cursor)> {
        let (why, upto) = self.shared.reader.trimmed(filters, after)?;
        match why {
            Why::Retention => Some((GapReason::Retention, upto)),
            Why::Erased => Some((GapReason::Erased, upto)),
        }
    }
}
