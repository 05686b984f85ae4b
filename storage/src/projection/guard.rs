//! Runs what may panic or hang on a thread of its own, and waits only so long.
//!
//! - A panic becomes an error that carries its text.
//! - After the deadline the thread is left to itself: what it still does must harm nobody.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use super::{ProjectionError, RebuildReason};

/// Why guarded work gave no result.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It panicked, with this text.
    Panicked(String),
    /// It took longer than so many milliseconds.
    TimedOut(u64),
    /// There was no thread to be had.
    NoThread(std::io::Error),
}

impl From<Trouble> for ProjectionError {
    fn from(trouble: Trouble) -> ProjectionError {
        match trouble {
            Trouble::Panicked(text) => ProjectionError::Panicked(text),
            Trouble::TimedOut(ms) => ProjectionError::TimedOut(ms),
            Trouble::NoThread(source) => {
                ProjectionError::Sled { action: "start a helper thread", source }
            }
        }
    }
}

impl From<Trouble> for RebuildReason {
    fn from(trouble: Trouble) -> RebuildReason {
        match trouble {
            Trouble::Panicked(text) => RebuildReason::Panicked(text),
            Trouble::TimedOut(ms) => RebuildReason::TimedOut(ms),
            Trouble::NoThread(error) => RebuildReason::Failed(error.to_string()),
        }
    }
}

/// Does `work` on a helper thread and waits `ms_max` milliseconds for it.
///
/// # Errors
/// It panicked, took too long, or there is no thread to be had.
pub(super) fn guarded<T: Send + 'static>(
    ms_max: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Trouble> {
    let (done, result) = sync_channel(1);
    thread::Builder::new()
        .name("projection".to_owned())
        .spawn(move || {
            // Nobody listens after the deadline; the result then ends here.
            let _ = done.send(caught(work));
        })
        .map_err(Trouble::NoThread)?;
    match result.recv_timeout(Duration::from_millis(ms_max)) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(Trouble::TimedOut(ms_max)),
        Err(RecvTimeoutError::Disconnected) => Err(Trouble::Panicked("no text".to_owned())),
    }
}

/// Does `work` here and catches its panic.
///
/// # Errors
/// It panicked.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Trouble> {
    // Callers hand over all they have and use nothing of it after a panic.
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Trouble::Panicked(text_of(&*payload)))
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no text").chars().take(512).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_a_hang_and_a_result() {
        assert_eq!(guarded(10_000, || 7).unwrap(), 7);
        let panicked = guarded(10_000, || panic!("so {}", 1));
        assert!(matches!(panicked, Err::<(), _>(Trouble::Panicked(text)) if text == "so 1"));
        let (hold, wait) = sync_channel::<()>(1);
        let late = guarded(20, move || wait.recv());
        assert!(matches!(late, Err(Trouble::TimedOut(20))));
        drop(hold);
    }
}
