//! One subscriber of a fan-out: counts what it gets until all is there.

use std::time::Duration;

use tokio::sync::watch;

use crate::{
    cli::bench::{
        arrival::{Newest, Total, give_up_at},
        progress::Counter,
        report::{Latencies, latencies, note},
        socket::{CutOff, Input, Socket},
        speech::Speech,
        stamp::stamp_of,
    },
    clock,
};

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

/// Reads until everything is there, nothing comes to anybody any more, or the broker hangs up.
pub(super) async fn read(
    socket: Socket,
    mut published: watch::Receiver<Option<Total>>,
    deadline: Duration,
    newest: Newest,
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
        let until = total.map(|total| give_up_at(total, newest.at(), deadline));
        let left = until.map(|until| until.saturating_sub(clock::monotonic()));
        let more = tokio::select! {
            more = input.more() => more,
            changed = published.changed(), if total.is_none() => match changed {
                Ok(()) => continue,
                // The publisher has failed, and with it the measurement.
                Err(_) => break,
            },
            () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => match left {
                Some(Duration::ZERO) => break,
                // Others may have got something meanwhile.
                _ => continue,
            },
        };
        let read = match more {
            Ok(()) => {
                take(&mut input, speech, &mut got, &counter).inspect(|()| newest.came(got.last))
            }
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
