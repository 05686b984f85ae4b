//! One dashboard: every message of every agent, each in its turn.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use tokio::sync::watch;

use crate::{
    cli::bench::{
        arrival::{Total, give_up_at},
        progress::Counter,
        report::{Latencies, latencies, note},
        socket::{CutOff, Input, Socket},
        speech::Speech,
        stamp::{STAMP, STAMP_DIGITS, number, stamp_in},
    },
    clock,
};

/// How many digits an agent's number has behind the moment, and the message's behind that, with a space before each.
const AGENT_DIGITS: usize = 5;
const MESSAGE_DIGITS: usize = 12;

/// All that the agents have said, once that is known.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// How many messages, by agent.
    pub(super) events: Arc<[u64]>,
    /// When the last was answered.
    pub(super) at: Duration,
}

/// What it got.
pub(super) struct Got {
    /// How many messages, each counted once.
    pub(super) events: u64,
    /// How many did not come, or behind a later one of their agent.
    pub(super) lost: u64,
    /// How many came twice, or too late.
    pub(super) again: u64,
    /// In how many bytes on the wire.
    pub(super) bytes: u64,
    /// How long each took.
    pub(super) took: Latencies,
    /// When the last came.
    pub(super) last: Duration,
    /// Why no more could come.
    pub(super) cut_off: Option<String>,
}

/// Reads until everything is there, nothing comes any more, or the broker hangs up.
pub(super) async fn read(
    socket: Socket,
    mut published: watch::Receiver<Option<Said>>,
    agents: u64,
    deadline: Duration,
    counter: Counter,
) -> anyhow::Result<Got> {
    let Socket { mut input, mut output, speech } = socket;
    let before = input.received();
    let mut seen = Seen::of(agents)?;
    let mut cut_off = None;
    loop {
        let said = published.borrow_and_update().clone();
        if said.as_ref().is_some_and(|said| seen.is_all(&said.events)) {
            break;
        }
        let left = said.as_ref().map(|said| {
            let total = Total { events: 0, at: said.at };
            give_up_at(total, seen.last, deadline).saturating_sub(clock::monotonic())
        });
        let more = tokio::select! {
            more = input.more() => more,
            changed = published.changed(), if said.is_none() => match changed {
                Ok(()) => continue,
                // An agent has failed, and with it the measurement.
                Err(_) => break,
            },
            () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => break,
        };
        let read = match more.and_then(|()| seen.take(&mut input, speech, &counter)) {
            Ok(()) => input.answer_ping(&mut output).await,
            Err(error) => Err(error),
        };
        match read {
            Ok(()) => {}
            Err(error) if error.is::<CutOff>() || error.is::<std::io::Error>() => {
                cut_off = Some(error.to_string());
                break;
            }
            Err(error) => return Err(error),
        }
    }
    // What is missing is known when all have spoken; where an agent has failed nobody asks.
    let said = published.wait_for(Option::is_some).await.ok().and_then(|said| said.clone());
    let at_the_end = said.map_or(0, |said| seen.lacks(&said.events));
    Ok(Got {
        events: seen.events,
        lost: seen.skipped + at_the_end,
        again: seen.again,
        bytes: input.received() - before,
        took: seen.took,
        last: seen.last,
        cut_off,
    })
}

/// What has come so far.
struct Seen {
    /// The number of the message that comes next, by agent.
    next: Vec<u64>,
    events: u64,
    skipped: u64,
    again: u64,
    took: Latencies,
    last: Duration,
}

impl Seen {
    fn of(agents: u64) -> anyhow::Result<Seen> {
        let next = vec![0; usize::try_from(agents)?];
        let (took, last) = (latencies()?, clock::monotonic());
        Ok(Seen { next, events: 0, skipped: 0, again: 0, took, last })
    }

    /// Nothing comes any more that is waited for.
    fn is_all(&self, events: &[u64]) -> bool {
        self.lacks(events) == 0
    }

    /// How many messages of the agents' last have not come.
    fn lacks(&self, events: &[u64]) -> u64 {
        events.iter().zip(&self.next).map(|(events, next)| events.saturating_sub(*next)).sum()
    }

    fn take(&mut self, input: &mut Input, speech: Speech, counter: &Counter) -> anyhow::Result<()> {
        while let Some(payload) = input.frame()? {
            let here = speech.events_or_end(payload)?.unwrap_or(0);
            if here == 0 {
                continue;
            }
            self.last = clock::monotonic();
            counter.add(here);
            let mut read = 0;
            for at in memchr::memmem::find_iter(payload, STAMP.as_bytes()) {
                let message = payload.get(at + STAMP.len()..).and_then(message);
                self.note(message.context("a message that no agent of this load has sent")?)?;
                read += 1;
            }
            anyhow::ensure!(read == here, "{here} events, of which {read} are of this load");
        }
        Ok(())
    }

    fn note(&mut self, (sent, agent, number): (Duration, usize, u64)) -> anyhow::Result<()> {
        let next = self.next.get_mut(agent).context("a message of an agent that is not there")?;
        if number < *next {
            self.again += 1;
            return Ok(());
        }
        self.skipped += number - *next;
        *next = number + 1;
        self.events += 1;
        note(&mut self.took, self.last.saturating_sub(sent));
        Ok(())
    }
}

/// When a message was sent, by which agent, and its number: what stands behind the stamp's mark.
fn message(bytes: &[u8]) -> Option<(Duration, usize, u64)> {
    const AGENT_AT: usize = STAMP_DIGITS + 1;
    const MESSAGE_AT: usize = AGENT_AT + AGENT_DIGITS + 1;
    let agent = number(bytes.get(AGENT_AT..AGENT_AT + AGENT_DIGITS)?)?;
    let message = number(bytes.get(MESSAGE_AT..MESSAGE_AT + MESSAGE_DIGITS)?)?;
    Some((stamp_in(bytes)?, usize::try_from(agent).ok()?, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_left_out_or_comes_twice_is_noticed() {
        let mut seen = Seen::of(2).unwrap();
        for (agent, number) in [(0, 0), (1, 0), (0, 1), (0, 1), (1, 3)] {
            seen.note((Duration::ZERO, agent, number)).unwrap();
        }
        assert_eq!((seen.events, seen.skipped, seen.again), (4, 2, 1));
        assert!(seen.is_all(&[2, 4]));
        assert_eq!(seen.lacks(&[5, 4]), 3);
        assert!(seen.note((Duration::ZERO, 2, 0)).is_err());
    }

    #[test]
    fn a_message_is_read_behind_its_mark() {
        let text = b"0000000001000000 00007 000000000042\"}";
        assert_eq!(message(text), Some((Duration::from_secs(1), 7, 42)));
        assert_eq!(message(&text[..30]), None);
        assert_eq!(message(b"0000000001000000 00007 00000000004x"), None);
    }
}
