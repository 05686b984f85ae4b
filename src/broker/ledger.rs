//! The ledger: every durable subscription and how far it is acknowledged, the members of every topic, and
//! which events wait for their moment, folded from the `$` events.
//!
//! It is a projection: deleting its files loses nothing, the log rebuilds it. It changes only by events
//! that are committed, on the commit thread, before their publishers are answered.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tidings_proto::{
    Cursor, Filter, Filters, Topic,
    control::{
        ACKS_TOPIC, AckState, AckStates, DurableSpec, PRESENCE_ROOT, RETENTION_TOPIC,
        RetentionChange, RetentionRule, SCHEDULED_TOPIC, SUBSCRIPTIONS_TOPIC, ScheduleChange,
        SubscriptionChange,
    },
};

use super::{presence::Listings, scheduled::Pending};

use crate::log::{
    Record,
    codec::{control_data, due_ms, is_scheduled},
    projection::{Change, Entry, Projection, ProjectionError},
};

/// A durable subscription as the log knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LedgerEntry {
    /// How it was made.
    pub spec: Arc<DurableSpec>,
    /// How far it is acknowledged.
    pub acks: Arc<AckState>,
    /// Whether nothing of it is delivered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Where the newest event stands that says how it was made, and the newest that says how far it is acknowledged.
    #[serde(default)]
    pub places: (u64, u64),
    /// Where the newest event stands that says that it is paused; 0 where it is not.
    #[serde(default)]
    pub paused_at: u64,
}

/// What is acknowledged of a durable that was just made.
fn fresh(spec: &DurableSpec) -> AckState {
    AckState {
        name: spec.name.clone(),
        number: spec.number,
        floor: spec.start,
        ..AckState::default()
    }
}

/// All durable subscriptions, by name, the members of all topics, and the events that wait.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    durables: BTreeMap<String, LedgerEntry>,
    /// Their names by their numbers.
    names: HashMap<u64, Arc<DurableSpec>>,
    /// Those that are forgotten when nobody uses them.
    expiring: BTreeSet<u64>,
    /// How many each subject has made.
    owners: HashMap<String, usize>,
    last_number: u64,
    changed: BTreeSet<String>,
    presence: Listings,
    scheduled: Pending,
    retention: Retention,
    retention_changed: bool,
}

/// The rules of retention that were made over the protocol, by filter, and the topics to be erased.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Retention {
    /// By filter.
    pub rules: BTreeMap<String, (Filter, RetentionRule)>,
    /// Up to which offset a topic is erased.
    pub erased: BTreeMap<String, (Topic, Cursor)>,
}

impl Ledger {
    /// The durable of this name.
    pub(super) fn get(&self, name: &str) -> Option<&LedgerEntry> {
        self.durables.get(name)
    }

    /// All of them, by name, after the name `after`.
    pub(super) fn after<'a>(
        &'a self,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a str, &'a LedgerEntry)> + use<'a> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |name| Excluded(name.to_owned()));
        self.durables.range((from, Unbounded)).map(|(name, entry)| (name.as_str(), entry))
    }

    /// Those that are forgotten when nobody uses them.
    pub(super) fn expiring(&self) -> impl Iterator<Item = &LedgerEntry> {
        let names = self.expiring.iter().filter_map(|number| self.names.get(number));
        names.filter_map(|spec| self.durables.get(&spec.name))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.durables.len()
    }

    /// How many of them this subject has made.
    pub(super) fn count_of(&self, subject: &str) -> usize {
        self.owners.get(subject).copied().unwrap_or(0)
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
            presence,
            Filter::parse(SCHEDULED_TOPIC)?,
        ])
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

    fn change_retention(&mut self, change: RetentionChange) {
        self.retention_changed = true;
        match change {
            RetentionChange::Put { filter, rule } => {
                self.retention.rules.insert(filter.to_string(), (filter, rule));
            }
            RetentionChange::Deleted { filter } => {
                self.retention.rules.remove(filter.as_str());
            }
            RetentionChange::Erase { topic, upto } => {
                self.retention.erased.insert(topic.to_string(), (topic, upto));
            }
        }
    }

    /// These are erased: nothing of them is left up to the offset that was said.
    pub(super) fn forget_erased(&mut self, topic: &Topic, upto: Cursor) {
        if self.retention.erased.get(topic.as_str()).is_some_and(|(_, said)| *said <= upto) {
            self.retention.erased.remove(topic.as_str());
            self.retention_changed = true;
        }
    }

    fn change(&mut self, change: SubscriptionChange, at: u64) {
        match change {
            SubscriptionChange::Put(spec) => {
                self.last_number = self.last_number.max(spec.number);
                self.changed.insert(spec.name.clone());
                let old = self.durables.get(&spec.name);
                let entry = match old.filter(|old| old.spec.number == spec.number) {
                    Some(old) => {
                        let places = (at, old.places.1);
                        LedgerEntry { spec: Arc::from(spec), places, ..old.clone() }
                    }
                    None => {
                        let acks = Arc::new(fresh(&spec));
                        let (places, paused_at) = ((at, 0), 0);
                        let (spec, paused) = (Arc::from(spec), false);
                        LedgerEntry { spec, acks, paused, places, paused_at }
                    }
                };
                self.keep(entry);
            }
            SubscriptionChange::Paused { name, number, paused } => {
                if let Some(entry) = self.durables.get_mut(&name)
                    && entry.spec.number == number
                {
                    entry.paused = paused;
                    entry.paused_at = if paused { at } else { 0 };
                    self.changed.insert(name);
                }
            }
            SubscriptionChange::Deleted { name, number } => {
                if self.durables.get(&name).is_some_and(|entry| entry.spec.number == number) {
                    let gone = self.durables.remove(&name);
                    gone.iter().for_each(|gone| self.disown(&gone.spec.owner));
                    self.names.remove(&number);
                    self.expiring.remove(&number);
                    self.changed.insert(name);
                }
            }
        }
    }

    fn keep(&mut self, entry: LedgerEntry) {
        let number = entry.spec.number;
        self.names.insert(number, entry.spec.clone());
        match entry.spec.options.idle_expiry_ms {
            0 => self.expiring.remove(&number),
            _ => self.expiring.insert(number),
        };
        *self.owners.entry(entry.spec.owner.clone()).or_default() += 1;
        let Some(before) = self.durables.insert(entry.spec.name.clone(), entry) else { return };
        self.disown(&before.spec.owner);
        if before.spec.number != number {
            // An earlier life of the name.
            self.names.remove(&before.spec.number);
            self.expiring.remove(&before.spec.number);
        }
    }

    /// This subject has one less.
    fn disown(&mut self, subject: &str) {
        if let Some(count) = self.owners.get_mut(subject) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.owners.remove(subject);
            }
        }
    }

    fn acknowledge(&mut self, states: AckStates, at: u64) {
        for mut state in states.states {
            // An ack of an earlier life of the name says nothing about this one.
            let Some(spec) = self.names.get(&state.number) else { continue };
            let Some(entry) = self.durables.get_mut(&spec.name) else { continue };
            self.changed.insert(spec.name.clone());
            state.name.clone_from(&spec.name);
            entry.acks = Arc::new(state);
            entry.places.1 = at;
        }
    }
}

impl Projection for Ledger {
    const NAME: &'static str = "ledger";
    const VERSION: u32 = 3;

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), ProjectionError> {
        let wrong = |cause: serde_json::Error| {
            ProjectionError::Entry(format!("{}: {cause}", String::from_utf8_lossy(key)))
        };
        if key == LAST_NUMBER_KEY {
            self.last_number = serde_json::from_slice(value).map_err(wrong)?;
            return Ok(());
        }
        if self.presence.restore(key, value).map_err(wrong)? {
            return Ok(());
        }
        if key == RETENTION_KEY {
            self.retention = serde_json::from_slice(value).map_err(wrong)?;
            return Ok(());
        }
        if self.scheduled.restore(key, value).map_err(wrong)? {
            return Ok(());
        }
        let entry: LedgerEntry = serde_json::from_slice(value).map_err(wrong)?;
        self.last_number = self.last_number.max(entry.spec.number);
        self.keep(entry);
        Ok(())
    }

    fn apply(&mut self, record: &Record) {
        let Some(data) = control_data(record) else { return };
        let at = record.offset.get();
        let applied = match record.topic.as_str() {
            SUBSCRIPTIONS_TOPIC => serde_json::from_slice(&data)
                .map(|change| self.change(change, at))
                .map_err(|error| error.to_string()),
            ACKS_TOPIC => AckStates::from_bytes(&data)
                .map(|states| self.acknowledge(states, at))
                .map_err(|error| error.to_string()),
            RETENTION_TOPIC => serde_json::from_slice(&data)
                .map(|change| self.change_retention(change))
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
        let changed = std::mem::take(&mut self.changed);
        if std::mem::take(&mut self.retention_changed) {
            changes.push((RETENTION_KEY.to_vec(), serde_json::to_vec(&self.retention).ok()));
        }
        if changed.is_empty() {
            return changes;
        }
        changes.push((LAST_NUMBER_KEY.to_vec(), serde_json::to_vec(&self.last_number).ok()));
        for name in changed {
            let value = self.durables.get(&name).and_then(|entry| serde_json::to_vec(entry).ok());
            changes.push((name.into_bytes(), value));
        }
        changes
    }

    fn entries(&self) -> Vec<Entry> {
        let number = serde_json::to_vec(&self.last_number).ok();
        let number = number.map(|number| (LAST_NUMBER_KEY.to_vec(), number));
        let retention = serde_json::to_vec(&self.retention).ok();
        let retention = retention.map(|retention| (RETENTION_KEY.to_vec(), retention));
        let durables = self.durables.iter().filter_map(|(name, entry)| {
            Some((name.clone().into_bytes(), serde_json::to_vec(entry).ok()?))
        });
        let others = self.presence.entries().chain(self.scheduled.entries());
        number.into_iter().chain(retention).chain(durables).chain(others).collect()
    }

    fn reset(&mut self) {
        *self = Ledger::default();
    }
}

/// No durable has this name: it is no token.
const LAST_NUMBER_KEY: &[u8] = b"$last_number";
/// Nor this one.
const RETENTION_KEY: &[u8] = b"$retention";
