//! Who is listed where, folded from the events on `$presence.…`: a part of the ledger.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tidings_proto::{
    Topic,
    control::{PRESENCE_ROOT, PresenceChange},
};

use crate::log::projection::{Change, Entry};

/// One who is listed on a topic.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::broker) struct Listed {
    /// The offset of its join.
    pub(in crate::broker) joined: u64,
    /// Who it is.
    pub(in crate::broker) who: PresenceChange,
}

/// The members of all topics, by topic and session.
#[derive(Debug, Default)]
pub(in crate::broker) struct Listings {
    topics: BTreeMap<Topic, BTreeMap<String, Arc<Listed>>>,
    count: usize,
    /// What has changed since the changes were taken last.
    changed: BTreeSet<(Topic, String)>,
}

impl Listings {
    /// Who is listed on this topic, those who joined first before the others.
    pub(in crate::broker) fn on(&self, topic: &Topic) -> Vec<Arc<Listed>> {
        let there = self.topics.get(topic).into_iter().flat_map(BTreeMap::values);
        let mut listed: Vec<Arc<Listed>> = there.cloned().collect();
        listed.sort_by_key(|listed| listed.joined);
        listed
    }

    /// Whether the event at this offset of `$presence.<topic>` is the join of one of them.
    pub(in crate::broker) fn is_listed(&self, topic: &str, join: u64) -> bool {
        let there = Listings::about(topic).and_then(|about| self.topics.get(about));
        there.is_some_and(|there| there.values().any(|listed| listed.joined == join))
    }

    /// All of them.
    pub(in crate::broker) fn all(&self) -> impl Iterator<Item = (&Topic, &Arc<Listed>)> {
        self.topics
            .iter()
            .flat_map(|(topic, there)| there.values().map(move |listed| (topic, listed)))
    }

    /// How many they are.
    pub(in crate::broker) fn count(&self) -> usize {
        self.count
    }

    /// Whether this is the topic of such an event; gives the one that it is about.
    pub(in crate::broker) fn about(topic: &str) -> Option<&str> {
        topic.strip_prefix(PRESENCE_ROOT)?.strip_prefix('.')
    }

    /// Somebody has joined or left.
    pub(in crate::broker) fn apply(&mut self, about: &str, offset: u64, who: PresenceChange) {
        let topic = Topic::of_record(about);
        self.changed.insert((topic.clone(), who.session.clone()));
        match who.reason {
            None => self.insert(topic, Listed { joined: offset, who }),
            Some(_) => self.remove(&topic, &who.session),
        }
    }

    /// What has changed since the last call.
    pub(in crate::broker) fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed);
        let change = |(topic, session): (Topic, String)| {
            let listed = self.topics.get(&topic).and_then(|there| there.get(&session));
            let value = listed.and_then(|listed| serde_json::to_vec(listed).ok());
            (key(&topic, &session), value)
        };
        changed.into_iter().map(change).collect()
    }

    /// All of it, to be stored.
    pub(in crate::broker) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.all().filter_map(|(topic, listed)| {
            Some((key(topic, &listed.who.session), serde_json::to_vec(&**listed).ok()?))
        })
    }

    /// Takes in an entry of [`Listings::entries`]; false where the key is of something else.
    ///
    /// # Errors
    /// What does not parse.
    pub(in crate::broker) fn restore(
        &mut self,
        key: &[u8],
        value: &[u8],
    ) -> Result<bool, serde_json::Error> {
        let of_ours = std::str::from_utf8(key).ok().and_then(Listings::about);
        let Some((topic, _)) = of_ours.and_then(|rest| rest.split_once(' ')) else {
            return Ok(false);
        };
        self.insert(Topic::of_record(topic), serde_json::from_slice(value)?);
        Ok(true)
    }

    fn insert(&mut self, topic: Topic, listed: Listed) {
        let there = self.topics.entry(topic).or_default();
        let before = there.insert(listed.who.session.clone(), Arc::new(listed));
        self.count += usize::from(before.is_none());
    }

    fn remove(&mut self, topic: &Topic, session: &str) {
        let Some(there) = self.topics.get_mut(topic) else { return };
        self.count -= usize::from(there.remove(session).is_some());
        if there.is_empty() {
            self.topics.remove(topic);
        }
    }
}

/// No topic and no durable's name has a blank.
fn key(topic: &Topic, session: &str) -> Vec<u8> {
    format!("{PRESENCE_ROOT}.{topic} {session}").into_bytes()
}
