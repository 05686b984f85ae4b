//! One socket with many subscriptions: counts what each gets, and acknowledges it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tidings_proto::{
    Offset,
    message::{Ack, Reply, Request, ServerMessage},
};
use tokio::{io::AsyncWriteExt, sync::watch};

use crate::{
    cli::bench::{
        arrival::{Total, give_up_at},
        progress::Counter,
        publish::share,
        report::{Latencies, latencies, note},
        socket::{CutOff, Input, Socket},
        speech::Speech,
    },
    client, clock,
};

/// Nothing more is read while so many bytes of acks wait to be written.
const OUT_BYTES_MAX: usize = 1 << 20;

/// How a batch is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Acks {
    /// All up to its last event.
    Cumulative,
    /// Its events, one by one.
    Selective,
}

impl Acks {
    /// As it is given on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Acks::Cumulative => "cumulative",
            Acks::Selective => "selective",
        }
    }

    /// What acknowledges these events of a subscription, in one request; `None` where there are none.
    fn of(self, subscription: u32, offsets: &[u64]) -> Option<Ack> {
        let last = Offset::new(*offsets.last()?);
        let (offset, offsets) = match self {
            Acks::Cumulative => (Some(last?), None),
            Acks::Selective => {
                (None, Some(offsets.iter().filter_map(|offset| Offset::new(*offset)).collect()))
            }
        };
        Some(Ack { subscription: Some(subscription), offset, offsets, log: None })
    }
}

/// One subscription of a socket.
pub(super) struct Line {
    subscription: u32,
    /// On which topic.
    group: u64,
    /// The last event it got.
    last: u64,
    /// How many it got, each counted once.
    events: u64,
}

impl Line {
    /// One that has got nothing.
    pub(super) fn new(subscription: u32, group: u64) -> Line {
        Line { subscription, group, last: 0, events: 0 }
    }
}

/// What a socket got.
pub(super) struct Got {
    /// How many deliveries, each event of a subscription counted once.
    pub(super) deliveries: u64,
    /// How many more there had to be.
    pub(super) missing: u64,
    /// How many came more than once.
    pub(super) again: u64,
    /// How many are acknowledged for good.
    pub(super) acked: u64,
    /// By how many requests.
    pub(super) requests: u64,
    /// How long the answers to these took.
    pub(super) took: Latencies,
    /// When the last delivery or answer came.
    pub(super) last: Duration,
    /// Why no more could come.
    pub(super) cut_off: Option<String>,
}

/// Reads one socket.
pub(super) struct Reader {
    lines: HashMap<u32, Line>,
    groups: u64,
    acks: Option<Acks>,
    /// What all have done: deliveries, or where they are acknowledged, those.
    done: Arc<AtomicU64>,
    counter: Counter,
    /// Acks without an answer: when, and of how many events. They are answered in order.
    open: VecDeque<(Duration, u64)>,
    next_id: u32,
    out: Vec<u8>,
    offsets: Vec<u64>,
}

impl Reader {
    pub(super) fn new(
        lines: Vec<Line>,
        groups: u64,
        acks: Option<Acks>,
        done: Arc<AtomicU64>,
        counter: Counter,
    ) -> Reader {
        Reader {
            lines: lines.into_iter().map(|line| (line.subscription, line)).collect(),
            groups,
            acks,
            done,
            counter,
            open: VecDeque::new(),
            next_id: 0,
            out: Vec::new(),
            offsets: Vec::new(),
        }
    }

    /// Reads until everything is there and acknowledged, nothing comes any more, or the broker hangs up.
    pub(super) async fn read(
        mut self,
        socket: Socket,
        mut published: watch::Receiver<Option<Total>>,
        deadline: Duration,
    ) -> anyhow::Result<Got> {
        let Socket { mut input, mut output, speech } = socket;
        let (took, last) = (latencies()?, clock::monotonic());
        let mut got = Got {
            deliveries: 0,
            missing: 0,
            again: 0,
            acked: 0,
            requests: 0,
            took,
            last,
            cut_off: None,
        };
        let mut written = 0;
        loop {
            if written == self.out.len() {
                self.out.clear();
                written = 0;
            }
            let total = *published.borrow_and_update();
            if total.is_some_and(|total| self.missing(total) == 0 && self.open.is_empty()) {
                break;
            }
            let until = total.map(|total| give_up_at(total, got.last, deadline));
            let left = until.map(|until| until.saturating_sub(clock::monotonic()));
            let unwritten = self.out.get(written..).unwrap_or_default();
            let moved = tokio::select! {
                more = input.more(), if unwritten.len() < OUT_BYTES_MAX => more,
                n = output.write(unwritten), if !unwritten.is_empty() => {
                    n.map(|n| written += n).map_err(anyhow::Error::from)
                }
                changed = published.changed(), if total.is_none() => match changed {
                    Ok(()) => continue,
                    // The publisher has failed, and with it the measurement.
                    Err(_) => break,
                },
                () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => break,
            };
            match moved.and_then(|()| self.take(&mut input, speech, &mut got)) {
                Ok(()) => {}
                Err(error) if error.is::<CutOff>() || error.is::<std::io::Error>() => {
                    got.cut_off = Some(error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        // What is missing is known when all is published; where the publisher has failed nobody asks.
        let total = published.wait_for(Option::is_some).await;
        got.missing = total.ok().and_then(|total| *total).map_or(0, |total| self.missing(total));
        Ok(got)
    }

    /// How many deliveries there have to be yet.
    fn missing(&self, total: Total) -> u64 {
        let missing =
            |line: &Line| share(total.events, self.groups, line.group).saturating_sub(line.events);
        self.lines.values().map(missing).sum()
    }

    /// Counts what is there, and appends its acks to what is to be written.
    fn take(&mut self, input: &mut Input, speech: Speech, got: &mut Got) -> anyhow::Result<()> {
        while let Some(payload) = input.frame()? {
            self.offsets.clear();
            if let Some(subscription) = speech.batch(payload, &mut self.offsets)? {
                self.count(subscription, got);
                self.acknowledge(subscription, speech);
            } else if speech.is_acked(payload) {
                got.last = clock::monotonic();
                let Some((sent, events)) = self.open.pop_front() else { continue };
                got.requests += 1;
                got.acked += events;
                self.done.fetch_add(events, Ordering::Relaxed);
                note(&mut got.took, got.last.saturating_sub(sent));
            } else if let ServerMessage::Reply(_, Reply::Error(error)) = speech.decode(payload)? {
                return Err(client::Error::Refused(Box::new(error)).into());
            }
        }
        input.pong_into(&mut self.out);
        Ok(())
    }

    /// Counts a batch; what came before stays in `offsets` only where it is new.
    fn count(&mut self, subscription: u32, got: &mut Got) {
        let Some(line) = self.lines.get_mut(&subscription) else { return };
        let came = self.offsets.len() as u64;
        self.offsets.retain(|offset| *offset > line.last);
        let new = self.offsets.len() as u64;
        line.last = self.offsets.last().copied().unwrap_or(line.last);
        line.events += new;
        got.deliveries += new;
        got.again += came - new;
        got.last = clock::monotonic();
        self.counter.add(new);
        if self.acks.is_none() {
            self.done.fetch_add(new, Ordering::Relaxed);
        }
    }

    fn acknowledge(&mut self, subscription: u32, speech: Speech) {
        let ack = self.acks.and_then(|acks| acks.of(subscription, &self.offsets));
        let Some(ack) = ack else { return };
        // The numbers of open requests differ as long as fewer than 2^31 are open.
        self.next_id = self.next_id % (u32::MAX / 2) + 1;
        speech.write_request(self.next_id, &Request::Ack(ack), &mut self.out);
        self.open.push_back((clock::monotonic(), self.offsets.len() as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> Reader {
        let lines = vec![Line::new(1, 0), Line::new(2, 1)];
        Reader::new(lines, 2, Some(Acks::Selective), Arc::default(), Counter::default())
    }

    fn nothing() -> Got {
        Got {
            deliveries: 0,
            missing: 0,
            again: 0,
            acked: 0,
            requests: 0,
            took: latencies().unwrap(),
            last: Duration::ZERO,
            cut_off: None,
        }
    }

    #[test]
    fn an_event_that_comes_again_is_not_counted_twice_and_hides_no_other() {
        let (mut reader, mut got) = (reader(), nothing());
        for (subscription, offsets) in [(1, vec![3, 5]), (1, vec![3, 5]), (2, vec![4])] {
            reader.offsets = offsets;
            reader.count(subscription, &mut got);
        }
        assert_eq!((got.deliveries, got.again), (3, 2));
        // Seven events: four on the first topic, three on the second.
        assert_eq!(reader.missing(Total { events: 7, at: Duration::ZERO }), 2 + 2);
    }

    #[test]
    fn an_ack_names_the_last_event_or_all() {
        let offset = |n| Offset::new(n).unwrap();
        let ack = Acks::Cumulative.of(7, &[3, 5]).unwrap();
        assert_eq!((ack.offset, ack.offsets), (Some(offset(5)), None));
        let ack = Acks::Selective.of(7, &[3, 5]).unwrap();
        assert_eq!((ack.offset, ack.offsets), (None, Some(vec![offset(3), offset(5)])));
        assert_eq!(Acks::Cumulative.of(7, &[]), None);
    }
}
