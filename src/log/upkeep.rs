//! The helper thread: everything the log needs done beside the commit path (the next segment made ready,
//! the index of a sealed one written, the watermark noted).
//!
//! What fails here fails nobody: the storage offers it again.

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use tidings_storage::Chore;
use tokio::sync::watch;

/// How many chores may wait; more than a roll ever makes.
const WAITING_MAX: usize = 16;

/// Hands chores to the helper thread.
pub(super) struct Upkeep {
    chores: Option<SyncSender<Chore>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Upkeep {
    /// `kept` is told whenever something is done.
    pub(super) fn start(kept: watch::Sender<()>) -> std::io::Result<Upkeep> {
        let (chores, todo) = sync_channel::<Chore>(WAITING_MAX);
        let thread =
            std::thread::Builder::new().name("tidings-upkeep".to_owned()).spawn(move || {
                for chore in todo {
                    // Who waits would ask again at once for what has no room yet.
                    if run(chore) {
                        kept.send_replace(());
                    }
                }
            })?;
        Ok(Upkeep { chores: Some(chores), thread: Some(thread) })
    }

    /// Queues a chore; does it here and now when too many wait.
    pub(super) fn push(&self, chore: Chore) {
        let refused = match &self.chores {
            Some(chores) => match chores.try_send(chore) {
                Ok(()) => return,
                Err(TrySendError::Full(chore) | TrySendError::Disconnected(chore)) => chore,
            },
            None => chore,
        };
        let _ = run(refused);
    }
}

/// Whether it is done.
fn run(chore: Chore) -> bool {
    let done = chore.run();
    match &done {
        Ok(()) => {}
        // The state of the log says so once; this is tried twice a second.
        Err(error) if error.is_no_space() => tracing::debug!(%error, "no space yet"),
        Err(error) => tracing::warn!(%error, "upkeep of the log failed; it is tried again"),
    }
    done.is_ok()
}

impl Drop for Upkeep {
    /// Waits for what is queued: the log is closed after its chores.
    fn drop(&mut self) {
        drop(self.chores.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
impl Upkeep {
    /// Without a thread: chores are done here and now.
    pub(super) fn inline() -> Upkeep {
        Upkeep { chores: None, thread: None }
    }
}
