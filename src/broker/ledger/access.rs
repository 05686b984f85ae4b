//! Which tokens hold no more, and which API keys there are: a part of the ledger.
//!
//! - Of two changes about the same token, subject or key the newer one holds.
//! - What has ended by itself is forgotten: the time of the events decides, so that every fold comes to the same.

use std::collections::{BTreeMap, BTreeSet};

use tidings_proto::{
    Timestamp,
    control::{AUTH_TOPIC, AuthChange},
};

use crate::log::projection::{Change, Entry};

/// Below so many entries none is looked for that has ended.
const SWEEP_MIN: usize = 1024;

/// What was said about tokens and API keys, by [`AuthChange::key`].
#[derive(Debug, Default)]
pub(in crate::broker) struct Access {
    of: BTreeMap<String, AuthChange>,
    /// How many there are when those that have ended are looked for again.
    sweep_at: usize,
    changed: BTreeSet<String>,
}

impl Access {
    /// Something was said, at this moment.
    pub(in crate::broker) fn change(&mut self, change: AuthChange, now: Timestamp) {
        let key = change.key();
        match change {
            AuthChange::KeyRevoked { .. } => drop(self.of.remove(&key)),
            change => drop(self.of.insert(key.clone(), change)),
        }
        self.changed.insert(key);
        if self.of.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.sweep(now);
        }
    }

    /// The change with what was said before: of a subject the later moment and the longer time hold. So the newest
    /// event about something says all there is to know.
    pub(in crate::broker) fn merged(&self, mut change: AuthChange) -> AuthChange {
        let said = self.of.get(&change.key());
        match (&mut change, said) {
            (
                AuthChange::SubjectRevoked { before, until, .. },
                Some(AuthChange::SubjectRevoked { before: said, until: ends, .. }),
            ) => {
                *before = (*before).max(*said);
                *until = until.zip(*ends).map(|(one, other)| one.max(other));
            }
            (
                AuthChange::TokenRevoked { until, .. },
                Some(AuthChange::TokenRevoked { until: ends, .. }),
            ) => *until = until.zip(*ends).map(|(one, other)| one.max(other)),
            _ => {}
        }
        change
    }

    /// How many of those whose key begins so have not ended.
    pub(in crate::broker) fn count(&self, begins: &str, now: Timestamp) -> usize {
        let holds = |change: &&AuthChange| change.until().is_none_or(|until| until > now);
        self.under(begins, "").filter(holds).count()
    }

    /// How many there are, those that have ended among them.
    pub(in crate::broker) fn len(&self) -> usize {
        self.of.len()
    }

    /// What was said about this.
    pub(in crate::broker) fn get(&self, key: &str) -> Option<&AuthChange> {
        self.of.get(key)
    }

    /// All whose key begins so, after the key `after`.
    pub(in crate::broker) fn under<'a>(
        &'a self,
        begins: &'a str,
        after: &str,
    ) -> impl Iterator<Item = &'a AuthChange> {
        let from = begins.max(after).to_owned();
        let is_past = after.to_owned();
        self.of
            .range(from..)
            .take_while(move |(key, _)| key.starts_with(begins))
            .filter(move |(key, _)| **key > is_past)
            .map(|(_, change)| change)
    }

    fn sweep(&mut self, now: Timestamp) {
        let has_ended = |change: &AuthChange| change.until().is_some_and(|until| until <= now);
        let ended = self.of.iter().filter(|(_, change)| has_ended(change));
        let ended: Vec<String> = ended.map(|(key, _)| key.clone()).collect();
        for key in ended {
            self.of.remove(&key);
            self.changed.insert(key);
        }
        self.sweep_at = self.of.len().saturating_mul(2);
    }

    /// What has changed since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed);
        let value = |key: &String| self.of.get(key).and_then(|it| serde_json::to_vec(it).ok());
        changed.iter().map(|key| (stored(key), value(key))).collect()
    }

    /// All of it, to be stored.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.of
            .iter()
            .filter_map(|(key, change)| Some((stored(key), serde_json::to_vec(change).ok()?)))
    }

    /// Takes in an entry of [`Access::entries`]; false where the key is of something else.
    ///
    /// # Errors
    /// What does not parse.
    pub(super) fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<bool, serde_json::Error> {
        if !key.starts_with(AUTH_TOPIC.as_bytes()) {
            return Ok(false);
        }
        let change: AuthChange = serde_json::from_slice(value)?;
        self.of.insert(change.key(), change);
        Ok(true)
    }
}

/// No durable's name begins with `$`.
fn stored(key: &str) -> Vec<u8> {
    format!("{AUTH_TOPIC} {key}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_millis(s * 1000)
    }

    fn token(jti: &str, until: Option<u64>) -> AuthChange {
        AuthChange::TokenRevoked { jti: jti.to_owned(), until: until.map(at) }
    }

    fn subject(before: u64, until: Option<u64>) -> AuthChange {
        AuthChange::SubjectRevoked {
            subject: "alice".to_owned(),
            before: at(before),
            until: until.map(at),
        }
    }

    #[test]
    fn of_a_subject_the_later_moment_and_the_longer_time_hold() {
        let mut access = Access::default();
        let mut say = |change| {
            let merged = access.merged(change);
            access.change(merged.clone(), at(1));
            merged
        };
        say(subject(10, Some(100)));
        assert_eq!(say(subject(5, Some(200))), subject(10, Some(200)));
        assert_eq!(say(subject(20, None)), subject(20, None));
        assert_eq!(say(subject(21, Some(50))), subject(21, None));
        say(token("t", Some(9)));
        assert_eq!(say(token("t", Some(5))), token("t", Some(9)));
    }

    #[test]
    fn what_has_ended_is_forgotten_and_a_checkpoint_is_the_same() {
        let (mut access, mut saved) = (Access::default(), BTreeMap::new());
        for n in 0..3 * SWEEP_MIN as u64 {
            access.change(token(&format!("t{n}"), Some(n + 10)), at(n));
            access.change(token("for ever", None), at(n));
            for (key, value) in access.take_changes() {
                match value {
                    Some(value) => saved.insert(key, value),
                    None => saved.remove(&key),
                };
            }
        }
        assert!(access.of.len() <= SWEEP_MIN + 1, "{}", access.of.len());
        assert!(access.get("token:for ever").is_some(), "what has no end stays");
        assert_eq!(access.entries().collect::<BTreeMap<_, _>>(), saved);
        let mut restored = Access::default();
        for (key, value) in &saved {
            assert!(restored.restore(key, value).unwrap());
        }
        assert_eq!(restored.of, access.of);
        assert!(!restored.restore(b"$retention", b"{}").unwrap());
        assert!(restored.restore(b"$auth token:x", b"x").is_err());
    }

    #[test]
    fn a_page_goes_on_behind_its_last() {
        let mut access = Access::default();
        for jti in ["a", "b", "c"] {
            access.change(token(jti, None), at(1));
        }
        access.change(subject(1, None), at(1));
        let keys =
            |begins, after| access.under(begins, after).map(AuthChange::key).collect::<Vec<_>>();
        assert_eq!(keys("token:", ""), ["token:a", "token:b", "token:c"]);
        assert_eq!(keys("token:", "token:b"), ["token:c"]);
        assert_eq!(keys("", "subject:alice"), ["token:a", "token:b", "token:c"]);
        assert_eq!(keys("key:", ""), Vec::<String>::new());
    }
}
