//! One publisher that keeps a rate, as far as the broker and those who get its events keep up.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::io::AsyncWriteExt;

use super::{
    progress::Counter,
    publish::Template,
    report::{Latencies, latencies, note},
    socket::Socket,
    stamp::stamp,
};
use crate::clock;

/// How it publishes.
pub(super) struct Pace {
    /// What.
    pub(super) template: Template,
    /// Whether the data begins with the moment of the publish.
    pub(super) is_stamped: bool,
    /// How many events at most.
    pub(super) events: u64,
    /// How many a second; 0 is as many as go.
    pub(super) rate: u64,
    /// How many may be under way.
    pub(super) in_flight: u64,
    /// Who has to keep up: with nobody, an event is under way until it is answered.
    pub(super) followers: Option<Followers>,
    /// Where answers are counted for who watches.
    pub(super) counter: Counter,
    /// When to stop whatever is left.
    pub(super) deadline: Duration,
}

/// Those who get the events and count what they have done with them.
#[derive(Clone)]
pub(super) struct Followers {
    /// What they have done, all together.
    pub(super) done: Arc<AtomicU64>,
    /// How much of that is one event's.
    pub(super) each: u64,
}

/// What was published.
pub(super) struct Paced {
    /// How many events were answered.
    pub(super) events: u64,
    /// How long the answers took.
    pub(super) took: Latencies,
    /// When it began.
    pub(super) begun: Duration,
    /// When the last answer came.
    pub(super) ended: Duration,
}

impl Pace {
    /// How many events are finished of those that were answered.
    fn finished(&self, answered: u64) -> u64 {
        let followed = self
            .followers
            .as_ref()
            .map(|followers| followers.done.load(Ordering::Relaxed) / followers.each.max(1));
        followed.map_or(answered, |followed| followed.min(answered))
    }
}

/// Publishes until all is answered.
pub(super) async fn publish(socket: Socket, mut pace: Pace) -> anyhow::Result<Paced> {
    let Socket { mut input, mut output, speech } = socket;
    let (mut out, mut written, mut sent) = (Vec::new(), 0, 0_u64);
    let mut open: VecDeque<Duration> = VecDeque::new();
    let begun = clock::monotonic();
    let mut paced = Paced { events: 0, took: latencies()?, begun, ended: begun };
    let mut turn = tokio::time::interval(Duration::from_millis(1));
    let waits = pace.rate > 0 || pace.followers.is_some();
    loop {
        if written == out.len() {
            out.clear();
            written = 0;
        }
        let now = clock::monotonic();
        let events = if now < pace.deadline { pace.events } else { sent };
        let due = match pace.rate {
            0 => events,
            rate => events.min(due(now.saturating_sub(begun), rate)),
        };
        let room = pace.in_flight.saturating_sub(sent - pace.finished(paced.events));
        let stamp = if pace.is_stamped { stamp(now) } else { String::new() };
        for _ in 0..room.min(due.saturating_sub(sent)) {
            pace.template.write(&stamp, &mut out);
            open.push_back(now);
            sent += 1;
        }
        if sent >= events && paced.events >= sent {
            return Ok(paced);
        }
        tokio::select! {
            more = input.more() => more?,
            n = output.write(out.get(written..).unwrap_or_default()), if written < out.len() => {
                written += n?;
            }
            _ = turn.tick(), if waits => {}
        }
        let (before, arrived) = (paced.events, clock::monotonic());
        while let Some(answer) = input.frame()? {
            if !speech.is_published(answer)? {
                continue;
            }
            paced.events += 1;
            paced.ended = arrived;
            if let Some(sent) = open.pop_front() {
                note(&mut paced.took, arrived.saturating_sub(sent));
            }
        }
        pace.counter.add(paced.events - before);
        input.pong_into(&mut out);
    }
}

/// How many events have been due after so long.
pub(super) fn due(elapsed: Duration, rate: u64) -> u64 {
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    micros.saturating_mul(rate) / 1_000_000 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_by_the_rate() {
        assert_eq!(due(Duration::ZERO, 50), 1);
        assert_eq!(due(Duration::from_millis(39), 50), 2);
        assert_eq!(due(Duration::from_secs(1), 50), 51);
    }
}
