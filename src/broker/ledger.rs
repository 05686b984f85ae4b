//! The ledger: every durable subscription and how far it is acknowledged, the members of every topic, which
//! events wait for their moment, and whose tokens and keys hold, folded from the `$` events.
//!
//! It is a projection: deleting its files loses nothing, the log rebuilds it. It changes only by events
//! that are committed, on the commit thread, before their publishers are answered.

mod access;
mod block;
mod counts;
mod durables;
mod line;
mod options;
mod retention;
mod slots;
#[cfg(test)]
mod tests;

use std::{ops::ControlFlow, sync::Arc};

use tidings_proto::{
    Cursor, Filter, Filters, Timestamp, Topic,
    control::{
        ACKS_TOPIC, AUTH_TOPIC, AckState, AckStates, AuthChange, DurableSpec, PRESENCE_ROOT,
        RETENTION_TOPIC, SCHEDULED_TOPIC, SUBSCRIPTIONS_TOPIC, ScheduleChange, SubscriptionChange,
    },
};

use self::durables::Durables;
use self::line::Line;
pub(super) use self::{access::Access, retention::Retention};
use super::{presence::Listings, scheduled::Pending};

use crate::log::{
    Record,
    codec::{control_data, due_ms, is_scheduled},
    projection::{Change, Entry, Projection, ProjectionError},
};

/// How many packed bytes of acks are unpacked in one go: some ten times as many when they are.
const ACKS_BYTES: usize = 256 * 1024;

/// A durable subscription as the log knows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LedgerEntry {
    /// How it was made.
    pub spec: Arc<DurableSpec>,
    /// How far it is acknowledged.
    pub acks: Arc<AckState>,
    /// Where the newest event stands that says how it was made, and the newest that says how far it is acknowledged;
    /// 0 where none does.
    pub places: (u64, u64),
    /// Where the newest event stands that says that it is paused; 0 where it is not.
    pub paused_at: u64,
}

impl LedgerEntry {
    /// Whether nothing of it is delivered.
    pub(super) fn is_paused(&self) -> bool {
        self.paused_at > 0
    }
}

/// A durable that is looked at and not unpacked.
pub(super) struct Seen<'a> {
    /// How it was made.
    pub line: &'a Line,
    durables: &'a Durables,
}

impl Seen<'_> {
    /// See [`LedgerEntry::places`].
    pub(super) fn places(&self) -> (u64, u64) {
        (self.line.made_at(), self.durables.acked_at(self.line))
    }
}

/// All durable subscriptions, the members of all topics, and the events that wait.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    durables: Durables,
    last_number: u64,
    last_number_changed: bool,
    presence: Listings,
    scheduled: Pending,
    retention: Retention,
    retention_changed: bool,
    access: Access,
}

impl Ledger {
    /// The durable of this name.
    pub(super) fn get(&self, name: &str) -> Option<LedgerEntry> {
        self.durables.get(name)
    }

    /// Looks at up to `limit` of them by name, after the name `after`, and unpacks those that `wanted` takes, until
    /// their acks have [`ACKS_BYTES`]. Gives the last name where there may be more.
    pub(super) fn select(
        &self,
        after: Option<&str>,
        limit: usize,
        mut wanted: impl FnMut(&Seen<'_>) -> bool,
        found: &mut Vec<LedgerEntry>,
    ) -> Option<String> {
        let (mut looked, mut acks_bytes, mut last) = (0, 0, None);
        let _ = self.durables.walk(after, |line| {
            if wanted(&Seen { line, durables: &self.durables }) {
                acks_bytes += self.durables.acks_bytes(line);
                found.extend(self.durables.entry(line));
            }
            looked += 1;
            if looked < limit && acks_bytes < ACKS_BYTES {
                return ControlFlow::Continue(());
            }
            last = Some(line.name().to_owned());
            ControlFlow::Break(())
        });
        last
    }

    /// How up to `limit` of those were made that are forgotten when nobody uses them, by number, from this number on.
    pub(super) fn expiring(&self, from: u64, limit: usize) -> Vec<DurableSpec> {
        self.durables.expiring(from, limit)
    }

    /// At most so many of them match this topic.
    pub(super) fn matching_at_most(&self, topic: &str) -> usize {
        self.durables.matching_at_most(topic)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.durables.count()
    }

    /// How many of them this subject has made.
    pub(super) fn count_of(&self, subject: &str) -> usize {
        self.durables.count_of(subject)
    }

    /// A number that no durable has had.
    pub(super) fn next_number(&self) -> u64 {
        self.last_number + 1
    }

    /// The topics whose events it is folded from.
    ///
    /// # Errors
    /// Never: the names are fixed.
    pub(super) fn topics() -> Result<Filters, tidings_proto::topic::TopicError> {
        let presence = Filter::parse(&format!("{PRESENCE_ROOT}.>"))?;
        Filters::new(vec![
            Filter::parse(SUBSCRIPTIONS_TOPIC)?,
            Filter::parse(ACKS_TOPIC)?,
            Filter::parse(RETENTION_TOPIC)?,
            Filter::parse(AUTH_TOPIC)?,
            presence,
            Filter::parse(SCHEDULED_TOPIC)?,
        ])
    }

    /// What was said about tokens and API keys.
    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// Who is listed where.
    pub(super) fn presence(&self) -> &Listings {
        &self.presence
    }

    /// Which events wait for their moment.
    pub(super) fn scheduled(&self) -> &Pending {
        &self.scheduled
    }

    /// What was said about retention.
    pub(super) fn retention(&self) -> &Retention {
        &self.retention
    }

    /// These are erased: nothing of them is left up to the offset that was said.
    pub(super) fn forget_erased(&mut self, topic: &Topic, upto: Cursor) {
        self.retention_changed |= self.retention.forget_erased(topic, upto);
    }

    fn change(&mut self, change: SubscriptionChange, at: u64) {
        match change {
            SubscriptionChange::Put(spec) => {
                self.last_number_changed |= spec.number > self.last_number;
                self.last_number = self.last_number.max(spec.number);
                self.durables.put(&spec, at);
            }
            SubscriptionChange::Paused { name, number, paused } => {
                self.durables.pause(&name, number, if paused { at } else { 0 });
            }
            SubscriptionChange::Deleted { name, number } => self.durables.remove(&name, number),
        }
    }
}

impl Projection for Ledger {
    const NAME: &'static str = "ledger";
    const VERSION: u32 = 6;

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), ProjectionError> {
        if self.durables.restore(key, value).map_err(|cause| wrong(key, &cause))? {
            return Ok(());
        }
        if key == LAST_NUMBER_KEY {
            self.last_number = serde_json::from_slice(value).map_err(|cause| wrong(key, &cause))?;
            return Ok(());
        }
        if key == RETENTION_KEY {
            self.retention = serde_json::from_slice(value).map_err(|cause| wrong(key, &cause))?;
            return Ok(());
        }
        let is_known = self.access.restore(key, value).map_err(|cause| wrong(key, &cause))?
            || self.presence.restore(key, value).map_err(|cause| wrong(key, &cause))?
            || self.scheduled.restore(key, value).map_err(|cause| wrong(key, &cause))?;
        match is_known {
            true => Ok(()),
            false => Err(wrong(key, &"it is of something unknown")),
        }
    }

    fn apply(&mut self, record: &Record) {
        let Some(data) = control_data(record) else { return };
        let at = record.offset.get();
        let applied = match record.topic.as_str() {
            SUBSCRIPTIONS_TOPIC => serde_json::from_slice(&data)
                .map(|change| self.change(change, at))
                .map_err(|error| error.to_string()),
            ACKS_TOPIC => AckStates::from_bytes(&data)
                .map(|states| {
                    states
                        .states
                        .into_iter()
                        .for_each(|state| self.durables.acknowledge(state, at));
                })
                .map_err(|error| error.to_string()),
            RETENTION_TOPIC => serde_json::from_slice(&data)
                .map(|change| {
                    self.retention_changed = true;
                    self.retention.change(change);
                })
                .map_err(|error| error.to_string()),
            AUTH_TOPIC => serde_json::from_slice(&data)
                .map(|change: AuthChange| {
                    self.access.change(change, Timestamp::from_millis(record.time_ms));
                })
                .map_err(|error| error.to_string()),
            SCHEDULED_TOPIC if is_scheduled(record) => {
                if let Some(due_ms) = due_ms(record) {
                    self.scheduled.add(at, due_ms);
                }
                return;
            }
            SCHEDULED_TOPIC => serde_json::from_slice(&data)
                .map(|change: ScheduleChange| self.scheduled.remove(change.scheduled))
                .map_err(|error| error.to_string()),
            topic => match Listings::about(topic) {
                Some(about) => serde_json::from_slice(&data)
                    .map(|change| self.presence.apply(about, at, change))
                    .map_err(|error| error.to_string()),
                None => return,
            },
        };
        if let Err(error) = applied {
            tracing::error!(offset = record.offset.get(), %error, "a control event cannot be read; it is passed over");
        }
    }

    fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = self.presence.take_changes();
        changes.extend(self.scheduled.take_changes());
        changes.extend(self.durables.take_changes());
        changes.extend(self.access.take_changes());
        if std::mem::take(&mut self.retention_changed) {
            changes.push((RETENTION_KEY.to_vec(), serde_json::to_vec(&self.retention).ok()));
        }
        if std::mem::take(&mut self.last_number_changed) {
            changes.push((LAST_NUMBER_KEY.to_vec(), serde_json::to_vec(&self.last_number).ok()));
        }
        changes
    }

    fn entries(&self) -> Vec<Entry> {
        let number = serde_json::to_vec(&self.last_number).ok();
        let number = number.map(|number| (LAST_NUMBER_KEY.to_vec(), number));
        let retention = serde_json::to_vec(&self.retention).ok();
        let retention = retention.map(|retention| (RETENTION_KEY.to_vec(), retention));
        let others = self.presence.entries().chain(self.scheduled.entries());
        let others = others.chain(self.access.entries());
        number.into_iter().chain(retention).chain(self.durables.entries()).chain(others).collect()
    }

    fn reset(&mut self) {
        *self = Ledger::default();
    }
}

/// No durable has this name: it is no token.
const LAST_NUMBER_KEY: &[u8] = b"$last_number";
/// Nor this one.
const RETENTION_KEY: &[u8] = b"$retention";

fn wrong(key: &[u8], cause: &dyn std::fmt::Display) -> ProjectionError {
    ProjectionError::Entry(format!("{}: {cause}", String::from_utf8_lossy(key)))
}
