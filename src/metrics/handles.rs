//! The handles of what is counted often: made once, so that counting is one atomic addition.

use std::collections::HashMap;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::table;

/// The transports a label may name. Three strings: whoever looks one up compares them.
const TRANSPORTS: [&str; 3] = ["websocket", "sse", "http"];
/// The results of an ephemeral subscription's begin.
const RESUMES: [&str; 4] = ["from_now", "exact", "gap", "log_changed"];
/// How many topic roots have series of their own.
const ROOTS_MAX: usize = 64;
/// The label of all other roots.
const OTHER: &str = "_other";

/// How a publish ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something was appended.
    Ok,
    /// All of it had been appended before.
    Duplicate,
    /// It contradicts what is there.
    Conflict,
    /// It is not allowed.
    Denied,
    /// It is invalid or too large.
    Rejected,
    /// The broker cannot do it now.
    Unavailable,
}

impl Outcome {
    const ALL: [Outcome; 6] = [
        Outcome::Ok,
        Outcome::Duplicate,
        Outcome::Conflict,
        Outcome::Denied,
        Outcome::Rejected,
        Outcome::Unavailable,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Duplicate => "duplicate",
            Outcome::Conflict => "conflict",
            Outcome::Denied => "denied",
            Outcome::Rejected => "rejected",
            Outcome::Unavailable => "unavailable",
        }
    }
}

/// What is counted of one transport.
pub(super) struct OfTransport {
    publishes: [Counter; Outcome::ALL.len()],
    pub(super) events: Counter,
    pub(super) bytes: Counter,
    pub(super) latency: Histogram,
}

impl OfTransport {
    fn new(transport: &'static str) -> OfTransport {
        let publish = |outcome: Outcome| counter!(table::PUBLISHES.name, "transport" => transport, "outcome" => outcome.as_str());
        OfTransport {
            publishes: Outcome::ALL.map(publish),
            events: counter!(table::DELIVERED.name, "transport" => transport),
            bytes: counter!(table::DELIVERED_BYTES.name, "transport" => transport),
            latency: histogram!(table::DELIVERY_SECONDS.name, "transport" => transport),
        }
    }

    pub(super) fn publish(&self, outcome: Outcome) -> Option<&Counter> {
        Outcome::ALL.iter().zip(&self.publishes).find(|(of, _)| **of == outcome).map(|(_, it)| it)
    }
}

/// All handles. They are made after the recorder, or they would count into nothing for ever.
pub(super) struct Handles {
    transports: [OfTransport; TRANSPORTS.len()],
    resumes: [Counter; RESUMES.len()],
    pub(super) replayed: Histogram,
    pub(super) commit_events: Histogram,
    pub(super) commit_seconds: Histogram,
    pub(super) sync_seconds: Histogram,
    pub(super) acks: Counter,
    pub(super) nacks: Counter,
    pub(super) ack_seconds: Histogram,
    pub(super) redelivered: Counter,
    pub(super) conflated: Counter,
    pub(super) wakes: Counter,
    /// Made, shared, plain.
    pub(super) compressed: [Counter; 3],
    pub(super) compression_saved: Counter,
    pub(super) ping_seconds: Histogram,
    pub(super) outbox_bytes: Gauge,
    pub(super) slow: Gauge,
}

impl Handles {
    pub(super) fn new() -> Handles {
        Handles {
            transports: TRANSPORTS.map(OfTransport::new),
            resumes: RESUMES.map(|result| counter!(table::RESUMES.name, "result" => result)),
            replayed: histogram!(table::REPLAYED.name),
            commit_events: histogram!(table::COMMIT_EVENTS.name),
            commit_seconds: histogram!(table::COMMIT_SECONDS.name),
            sync_seconds: histogram!(table::SYNC_SECONDS.name),
            acks: counter!(table::ACKS.name),
            nacks: counter!(table::NACKS.name),
            ack_seconds: histogram!(table::ACK_SECONDS.name),
            redelivered: counter!(table::REDELIVERED.name),
            conflated: counter!(table::CONFLATED.name),
            wakes: counter!(table::WAKES.name),
            compressed: ["made", "shared", "plain"]
                .map(|result| counter!(table::COMPRESSED.name, "result" => result)),
            compression_saved: counter!(table::COMPRESSION_SAVED.name),
            ping_seconds: histogram!(table::PING_SECONDS.name),
            outbox_bytes: gauge!(table::OUTBOX_BYTES.name),
            slow: gauge!(table::SLOW.name),
        }
    }

    pub(super) fn of(&self, transport: &str) -> Option<&OfTransport> {
        let of = TRANSPORTS.iter().zip(&self.transports);
        of.into_iter().find(|(name, _)| **name == transport).map(|(_, it)| it)
    }

    pub(super) fn resume(&self, result: &str) -> Option<&Counter> {
        RESUMES.iter().zip(&self.resumes).find(|(name, _)| **name == result).map(|(_, it)| it)
    }
}

/// What is appended, by the first token of the topic. Owned by the thread that appends: no lock.
///
/// The first 64 roots have series of their own, all later ones share one.
#[derive(Default)]
pub struct Appended {
    roots: HashMap<Box<str>, (Counter, Counter)>,
    other: Option<(Counter, Counter)>,
}

impl Appended {
    /// Nothing appended yet.
    pub fn new() -> Appended {
        Appended::default()
    }

    /// Events were appended: the root of each topic and how many bytes it has. Neighbours on one root
    /// are counted together.
    pub fn add<'a>(&mut self, events: impl IntoIterator<Item = (&'a str, usize)>) {
        let mut run = ("", 0, 0);
        for (root, bytes) in events {
            if root != run.0 {
                self.count(run);
                run = (root, 0, 0);
            }
            run.1 += 1;
            run.2 += bytes;
        }
        self.count(run);
    }

    fn count(&mut self, (root, events, bytes): (&str, usize, usize)) {
        if events == 0 {
            return;
        }
        if !self.roots.contains_key(root) && self.roots.len() < ROOTS_MAX {
            self.roots.insert(root.into(), counters(root.to_owned()));
        }
        let counters = match self.roots.get(root) {
            Some(counters) => counters,
            None => self.other.get_or_insert_with(|| counters(OTHER.to_owned())),
        };
        counters.0.increment(super::count(events));
        counters.1.increment(super::count(bytes));
    }
}

fn counters(root: String) -> (Counter, Counter) {
    (
        counter!(table::APPENDED.name, "topic_root" => root.clone()),
        counter!(table::APPENDED_BYTES.name, "topic_root" => root),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_beyond_the_bound_share_a_series() {
        let mut appended = Appended::new();
        let names: Vec<String> = (0..ROOTS_MAX + 10).map(|n| format!("r{n}")).collect();
        appended.add(names.iter().map(|name| (name.as_str(), 1)));
        assert_eq!(appended.roots.len(), ROOTS_MAX);
        assert!(appended.other.is_some());
    }
}
