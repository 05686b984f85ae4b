//! How far a measurement is, on a terminal: one line a second on stderr, wiped at the end.
//!
//! Nothing is written when stderr is no terminal, with `--json` and with `--quiet`. The load only adds to a counter;
//! the line is written by a thread of its own.

use std::{
    io::{IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::cli::Globals;

/// How often a line is written.
const TURN: Duration = Duration::from_secs(1);
/// Back to the first column, and the rest of the line away (ECMA-48, "erase in line").
const WIPE: &[u8] = b"\r\x1b[K";

/// A line about what is going on, as long as this value lives.
#[derive(Default)]
pub(super) struct Progress {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// What a load adds to.
#[derive(Clone, Default)]
pub(super) struct Counter(Arc<Shared>);

#[derive(Default)]
struct Shared {
    done: AtomicU64,
    /// What is going on, and what is counted.
    what: Mutex<(String, &'static str)>,
    over: Mutex<bool>,
    ended: Condvar,
}

impl Counter {
    /// So many more are done.
    pub(super) fn add(&self, count: u64) {
        self.0.done.fetch_add(count, Ordering::Relaxed);
    }
}

impl Progress {
    /// Begins, where there is somebody to look at it.
    pub(super) fn start(globals: &Globals) -> Progress {
        match std::io::stderr().is_terminal() && !globals.json && !globals.quiet {
            true => Progress::to(std::io::stderr(), TURN),
            false => Progress::default(),
        }
    }

    fn to(out: impl Write + Send + 'static, turn: Duration) -> Progress {
        let shared = Arc::<Shared>::default();
        let theirs = shared.clone();
        // Without a thread nothing is shown, and the measurement goes on.
        let writer = std::thread::Builder::new().spawn(move || show(&theirs, out, turn)).ok();
        Progress { shared, writer }
    }

    /// Says what is going on from now on, and what is counted; the count begins anew.
    pub(super) fn begin(&self, what: impl Into<String>, counted: &'static str) {
        *self.shared.what.lock() = (what.into(), counted);
        self.shared.done.store(0, Ordering::Relaxed);
    }

    /// What the load adds to.
    pub(super) fn counter(&self) -> Counter {
        Counter(self.shared.clone())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        *self.shared.over.lock() = true;
        self.shared.ended.notify_all();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Writes a line a turn until it is over. That nobody can read it stops no measurement.
fn show(shared: &Shared, mut out: impl Write, turn: Duration) {
    let (mut before, mut is_written) = (0, false);
    let mut over = shared.over.lock();
    while !*over {
        if !shared.ended.wait_for(&mut over, turn).timed_out() {
            continue;
        }
        let done = shared.done.load(Ordering::Relaxed);
        let (what, counted) = shared.what.lock().clone();
        // What was begun anew meanwhile has counted from 0.
        let new = done.checked_sub(before).unwrap_or(done);
        let line = line(&what, counted, done, per_second(new, turn));
        let _ = out.write_all(WIPE).and_then(|()| out.write_all(line.as_bytes()));
        let _ = out.flush();
        (before, is_written) = (done, true);
    }
    if is_written {
        let _ = out.write_all(WIPE).and_then(|()| out.flush());
    }
}

fn per_second(count: u64, turn: Duration) -> u64 {
    let micros = turn.as_micros().max(1);
    u64::try_from(u128::from(count) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

fn line(what: &str, counted: &str, done: u64, rate: u64) -> String {
    format!("{what}: {} {counted}, {} /s", grouped(done), grouped(rate))
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Screen(Arc<(Mutex<Vec<u8>>, Condvar)>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.0.lock().extend_from_slice(bytes);
            self.0.1.notify_all();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_says_what_is_done_and_how_fast() {
        assert_eq!(line("pub", "events", 0, 0), "pub: 0 events, 0 /s");
        let said = line("fanout", "deliveries", 1_234_567, 12_345);
        assert_eq!(said, "fanout: 1,234,567 deliveries, 12,345 /s");
        assert_eq!(per_second(500, Duration::from_millis(250)), 2000);
    }

    #[test]
    fn a_line_is_written_over_the_last_one_and_wiped_at_the_end() {
        let screen = Screen::default();
        let progress = Progress::to(screen.clone(), Duration::from_millis(1));
        progress.begin("pub", "events");
        progress.counter().add(1234);
        {
            let mut shown = screen.0.0.lock();
            let deadline = std::time::Duration::from_secs(60);
            while !String::from_utf8_lossy(&shown).contains("pub: 1,234 events") {
                assert!(!screen.0.1.wait_for(&mut shown, deadline).timed_out());
            }
        }
        drop(progress);
        let shown = screen.0.0.lock();
        assert!(shown.starts_with(WIPE) && shown.ends_with(WIPE));
        assert!(!shown.contains(&b'\n'));
    }

    #[test]
    fn what_was_never_shown_is_not_wiped() {
        let screen = Screen::default();
        drop(Progress::to(screen.clone(), Duration::from_secs(3600)));
        assert!(screen.0.0.lock().is_empty());
    }
}
