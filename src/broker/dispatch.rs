//! The pump: follows the committed cursor and wakes whom the new events concern.
//!
//! It pulls: its own cursor and the memory tail are all it has, so no queue can overrun. When it has fallen
//! behind the tail it wakes everybody, and each reads for itself. Nobody is woken under the tail's lock, which
//! the commit thread waits for.

use std::sync::Arc;

use tidings_proto::Cursor;
use tokio_util::sync::CancellationToken;

use super::interest::{Announced, Interest};
use crate::log::LogHandle;

/// How many events are announced before other tasks get their turn.
const STRETCH: u64 = 4096;

/// Announces commits until `stop`.
pub(super) async fn run(log: LogHandle, interest: Arc<Interest>, stop: CancellationToken) {
    let mut commits = log.watch();
    let mut cursor = interest.done();
    loop {
        let committed = *commits.borrow_and_update();
        while cursor < committed {
            let until = committed.min(Cursor::new(cursor.get() + STRETCH));
            let announcement = interest.announce(until);
            let complete = log.tail().visit(cursor, until, |event| {
                announcement.event(event.topic().as_str(), Announced::of(event));
            });
            if !complete {
                // Those woken already are not armed any more; for the others nothing before it matches.
                announcement.everybody(cursor.next());
            }
            drop(announcement);
            cursor = until;
            tokio::task::yield_now().await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = commits.changed() => if changed.is_err() { return },
        }
    }
}
