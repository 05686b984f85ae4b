//! One subscriber of a fan-out: counts what it gets until all is there.

use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;

use super::{STAMP, STAMP_DIGITS};
use crate::{
    cli::bench::{
        LATE,
        progress::Counter,
        report::{Latencies, latencies, note},
        socket::{CutOff, Input, Socket},
        speech::Speech,
    },
    clock,
};

/// For how long nothing may come after the last publish while something is missing.
const QUIET: Duration = Duration::from_secs(5);

/// All that was published, once that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Total {
    /// How many events.
    pub(super) events: u64,
    /// When the last was answered.
    pub(super) at: Duration,
}

/// What it got.
pub(super) struct Got {
    /// How many events.
    pub(super) events: u64,
    /// In how many bytes on the wire.
    pub(super) bytes: u64,
    /// How long the oldest event of every batch took.
    pub(super) took: Latencies,
    /// When the last came.
    pub(super) last: Duration,
    /// Why no more could come.
    pub(super) cut_off: Option<String>,
}

/// Reads until everything is there, nothing comes any more, or the broker hangs up.
pub(super) async fn read(
    socket: Socket,
    mut published: watch::Receiver<Option<Total>>,
    deadline: Duration,
    counter: Counter,
) -> anyhow::Result<Got> {
    let Socket { mut input, mut output, speech } = socket;
    let before = input.received();
    let (took, last) = (latencies()?, clock::monotonic());
    let mut got = Got { events: 0, bytes: 0, took, last, cut_off: None };
    loop {
        let total = *published.borrow_and_update();
        if total.is_some_and(|total| got.events >= total.events) {
            break;
        }
        let until = total.map(|total| give_up_at(total, got.last, deadline));
        let left = until.map(|until| until.saturating_sub(clock::monotonic()));
        let more = tokio::select! {
            more = input.more() => more,
            changed = published.changed(), if total.is_none() => match changed {
                Ok(()) => continue,
                // The publisher has failed, and with it the measurement.
                Err(_) => break,
            },
            () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => break,
        };
        let read = match more {
            Ok(()) => take(&mut input, speech, &mut got, &counter),
            Err(error) => Err(error),
        };
        let read = match read {
            Ok(()) => input.answer_ping(&mut output).await,
            Err(error) => Err(error),
        };
        match read {
            Ok(()) => {}
            Err(error) if error.is::<CutOff>() || error.is::<std::io::Error>() => {
                got.cut_off = Some(error.to_string());
                break;
            }
            Err(error) => return Err(error),
        }
    }
    got.bytes = input.received() - before;
    Ok(got)
}

/// When nothing more is waited for.
fn give_up_at(total: Total, last: Duration, deadline: Duration) -> Duration {
    let late = total.at.max(deadline).saturating_add(LATE);
    total.at.max(last).saturating_add(QUIET).min(late)
}

/// Counts the events that are there.
fn take(input: &mut Input, speech: Speech, got: &mut Got, counter: &Counter) -> anyhow::Result<()> {
    while let Some(payload) = input.frame()? {
        let here = speech.events_or_end(payload)?.unwrap_or(0);
        if here > 0 {
            got.events += here;
            got.last = clock::monotonic();
            counter.add(here);
            // The oldest of the batch: it has waited longest.
            note(&mut got.took, got.last.saturating_sub(stamp_of(payload)?));
        }
    }
    Ok(())
}

/// When the first event of a batch was published. In every encoding its data is a JSON string.
fn stamp_of(payload: &[u8]) -> anyhow::Result<Duration> {
    let at = memchr::memmem::find(payload, STAMP.as_bytes()).map(|at| at + STAMP.len());
    let digits = at.and_then(|at| payload.get(at..at + STAMP_DIGITS));
    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    let micros = digits.and_then(|digits| digits.parse().ok());
    Ok(Duration::from_micros(micros.context("an event that this load did not publish")?))
}

#[cfg(test)]
mod tests {
    use super::{super::stamp, *};

    #[test]
    fn a_stamp_is_read_back() {
        let at = Duration::from_micros(1_234_567);
        let payload = format!("..\u{4}data\"{}xxxx\"..", stamp(at));
        assert_eq!(stamp_of(payload.as_bytes()).unwrap(), at);
        assert!(stamp_of(b"{\"data\":\"sent:12").is_err());
        assert!(stamp_of(b"{\"data\":\"somebody else\"").is_err());
    }

    #[test]
    fn it_waits_while_something_comes_and_not_for_ever() {
        let seconds = Duration::from_secs;
        let total = Total { events: 1, at: seconds(20) };
        assert_eq!(give_up_at(total, seconds(3), seconds(60)), seconds(25));
        assert_eq!(give_up_at(total, seconds(40), seconds(60)), seconds(45));
        assert_eq!(give_up_at(total, seconds(69), seconds(60)), seconds(70));
        // The publisher itself came late.
        assert_eq!(give_up_at(total, seconds(24), seconds(10)), seconds(29));
    }
}
