//! The ledger: every durable subscription and how far it is acknowledged, and the members of every topic,
//! folded from the `$` events.
//!
//! It is a projection: deleting its files loses nothing, the log rebuilds it. It changes only by events
//! that are committed, on the commit thread, before their publishers are answered.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tidings_proto::{
    Filter, Filters,
    control::{
        ACKS_TOPIC, AckState, AckStates, DurableSpec, PRESENCE_ROOT, SUBSCRIPTIONS_TOPIC,
        SubscriptionChange,
    },
};

use super::presence::Listings;

use crate::log::{
    Record,
    codec::control_data,
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

/// All durable subscriptions, by name, and the members of all topics.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    durables: BTreeMap<String, LedgerEntry>,
    /// Their names by their numbers.
    names: HashMap<u64, Arc<DurableSpec>>,
    /// Those that are forgotten when nobody uses them.
    expiring: BTreeSet<u64>,
    last_number: u64,
    changed: BTreeSet<String>,
    presence: Listings,
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
            presence,
        ])
    }

    /// Who is listed where.
    pub(super) fn presence(&self) -> &Listings {
        &self.presence
    }

    fn change(&mut self, change: SubscriptionChange) {
        match change {
            SubscriptionChange::Put(spec) => {
                self.last_number = self.last_number.max(spec.number);
                self.changed.insert(spec.name.clone());
                let old = self.durables.get(&spec.name);
                let (acks, paused) = match old.filter(|old| old.spec.number == spec.number) {
                    Some(old) => (old.acks.clone(), old.paused),
                    None => (Arc::new(fresh(&spec)), false),
                };
                self.keep(LedgerEntry { spec: Arc::from(spec), acks, paused });
            }
            SubscriptionChange::Paused { name, number, paused } => {
                if let Some(entry) = self.durables.get_mut(&name)
                    && entry.spec.number == number
                {
                    entry.paused = paused;
                    self.changed.insert(name);
                }
            }
            SubscriptionChange::Deleted { name, number } => {
                if self.durables.get(&name).is_some_and(|entry| entry.spec.number == number) {
                    self.durables.remove(&name);
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
        if let Some(before) = self.durables.insert(entry.spec.name.clone(), entry)
            && before.spec.number != number
        {
            // An earlier life of the name.
            self.names.remove(&before.spec.number);
            self.expiring.remove(&before.spec.number);
        }
    }

    fn acknowledge(&mut self, states: AckStates) {
        for mut state in states.states {
            // An ack of an earlier life of the name says nothing about this one.
            let Some(spec) = self.names.get(&state.number) else { continue };
            let Some(entry) = self.durables.get_mut(&spec.name) else { continue };
            self.changed.insert(spec.name.clone());
            state.name.clone_from(&spec.name);
            entry.acks = Arc::new(state);
        }
    }
}

impl Projection for Ledger {
    const NAME: &'static str = "ledger";
    const VERSION: u32 = 2;

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
        let entry: LedgerEntry = serde_json::from_slice(value).map_err(wrong)?;
        self.last_number = self.last_number.max(entry.spec.number);
        self.keep(entry);
        Ok(())
    }

    fn apply(&mut self, record: &Record) {
        let Some(data) = control_data(record) else { return };
        let applied = match record.topic.as_str() {
            SUBSCRIPTIONS_TOPIC => serde_json::from_slice(&data)
                .map(|change| self.change(change))
                .map_err(|error| error.to_string()),
            ACKS_TOPIC => AckStates::from_bytes(&data)
                .map(|states| self.acknowledge(states))
                .map_err(|error| error.to_string()),
            topic => match Listings::about(topic) {
                Some(about) => serde_json::from_slice(&data)
                    .map(|change| self.presence.apply(about, record.offset.get(), change))
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
        let changed = std::mem::take(&mut self.changed);
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
        let durables = self.durables.iter().filter_map(|(name, entry)| {
            Some((name.clone().into_bytes(), serde_json::to_vec(entry).ok()?))
        });
        number.into_iter().chain(durables).chain(self.presence.entries()).collect()
    }

    fn reset(&mut self) {
        *self = Ledger::default();
    }
}

/// No durable has this name: it is no token.
const LAST_NUMBER_KEY: &[u8] = b"$last_number";
