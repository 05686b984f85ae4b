//! What becomes of each event of a segment that is written anew.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
};

use tidings_proto::{
    Cursor, Offset, Topic,
    control::{
        AUTH_TOPIC, AuthChange, DeadLetter, PresenceChange, RETENTION_TOPIC, SUBSCRIPTIONS_TOPIC,
        ScheduleChange,
    },
};
use tidings_storage::{Fate, Seen};

use super::{Needs, Plan, covers::Covers, rules::Class};
use crate::log::{LogHandle, codec};

/// Whether older segments have something, by topic and key.
pub(super) type Older = HashMap<(Box<str>, Box<[u8]>), bool>;

/// What decides over each event of a segment that is rewritten.
pub(super) struct Fates<'a> {
    pub(super) log: &'a LogHandle,
    pub(super) over: &'a [bool],
    pub(super) replaced: &'a HashSet<Offset>,
    pub(super) plan: &'a Plan,
    pub(super) needs: &'a dyn Needs,
    pub(super) is_first_of_subscriptions: bool,
    /// What stands before the segment.
    pub(super) before: Cursor,
    /// By topic and key, whether something of them may stand there: of those that are looked for.
    pub(super) older: RefCell<Older>,
    /// Of what has expired, what must stay.
    pub(super) covers: RefCell<Covers>,
}

impl Fates<'_> {
    pub(super) fn of(&self, seen: &Seen<'_>, class: Class) -> Fate {
        match class {
            Class::Rule(index) if self.is_over(index) => Fate::Trim,
            Class::Rule(_) => self.of_rule(seen),
            Class::Acks if self.plan.carry.covers(seen.offset) => Fate::Pass,
            Class::Acks => Fate::Keep,
            Class::Dead if self.own_is_over() && !self.is_needed(seen) => Fate::Trim,
            Class::Presence
                if self.own_is_over()
                    && !self.needs.is_listed(seen.topic, seen.offset)
                    && !self.is_leave_of_older(seen) =>
            {
                Fate::Trim
            }
            Class::Scheduled if self.own_is_over() && !self.is_awaited(seen) => Fate::Pass,
            Class::Dead | Class::Presence | Class::Scheduled => Fate::Keep,
            Class::Careful => self.of_careful(seen),
        }
    }

    fn is_over(&self, index: usize) -> bool {
        self.over.get(index) == Some(&true)
    }

    fn own_is_over(&self) -> bool {
        self.over.last() == Some(&true)
    }

    fn of_rule(&self, seen: &Seen<'_>) -> Fate {
        let mut covers = self.covers.borrow_mut();
        if covers.has_expired(seen.topic, seen.body) {
            return if covers.needs(seen) { Fate::Keep } else { Fate::Pass };
        }
        if self.replaced.contains(&seen.offset) {
            return Fate::Pass;
        }
        covers.stays(seen);
        Fate::Keep
    }

    /// A letter that cannot be read stays.
    fn is_needed(&self, seen: &Seen<'_>) -> bool {
        let data = codec::data_of(seen.body);
        let letter = data.and_then(|data| serde_json::from_slice::<DeadLetter>(data).ok());
        letter.is_none_or(|letter| self.needs.is_dead(&letter))
    }

    /// Whether it still waits for its moment, or says of something that is still there that it does not: without
    /// that a fold would have it wait again. What cannot be read stays.
    fn is_awaited(&self, seen: &Seen<'_>) -> bool {
        if seen.key.is_empty() {
            return self.needs.is_scheduled(seen.offset);
        }
        let data = codec::data_of(seen.body);
        let change = data.and_then(|data| serde_json::from_slice::<ScheduleChange>(data).ok());
        let publish = change.and_then(|change| Offset::new(change.scheduled));
        publish.is_none_or(|publish| !matches!(self.log.reader().get(publish), Ok(None)))
    }

    /// Whether it says that somebody has left whose join may still stand in an older segment: without it a fold would
    /// have that member listed again.
    fn is_leave_of_older(&self, seen: &Seen<'_>) -> bool {
        let data = codec::data_of(seen.body);
        let change = data.and_then(|data| serde_json::from_slice::<PresenceChange>(data).ok());
        let is_leave = change.is_some_and(|change| change.reason.is_some());
        is_leave && self.has_older(seen)
    }

    /// Whether an older segment has an event of its topic and key; also where that cannot be looked up. All older
    /// segments are asked, so only once for a key.
    fn has_older(&self, seen: &Seen<'_>) -> bool {
        let first = self.log.topic(seen.topic).map(|info| info.first);
        if !first.is_some_and(|first| self.before.covers(first)) {
            return false;
        }
        let of = (seen.topic.into(), seen.key.into());
        *self.older.borrow_mut().entry(of).or_insert_with(|| {
            let older = |topic| self.log.reader().last_until(&topic, seen.key, self.before);
            Topic::parse(seen.topic).is_ok_and(|topic| !matches!(older(topic), Ok(None)))
        })
    }

    fn of_careful(&self, seen: &Seen<'_>) -> Fate {
        match seen.topic {
            SUBSCRIPTIONS_TOPIC
                if self.is_first_of_subscriptions && self.plan.carry.covers(seen.offset) =>
            {
                Fate::Pass
            }
            RETENTION_TOPIC if self.is_replaced(seen) => Fate::Pass,
            AUTH_TOPIC if self.is_replaced(seen) || self.says_nothing_of_access(seen) => Fate::Pass,
            _ => Fate::Keep,
        }
    }

    /// Whether a newer event on its topic says what holds for its key.
    fn is_replaced(&self, seen: &Seen<'_>) -> bool {
        let Ok(topic) = Topic::parse(seen.topic) else { return false };
        let newest = self.log.reader().last_on(&topic, Some(seen.key));
        !seen.key.is_empty() && matches!(newest, Ok(Some(newest)) if newest.offset > seen.offset)
    }

    /// Whether it is a revocation of what has ended by itself; or of a key that no older segment says was made, which
    /// a fold would have again else. What cannot be read stays.
    fn says_nothing_of_access(&self, seen: &Seen<'_>) -> bool {
        let data = codec::data_of(seen.body);
        let change = data.and_then(|data| serde_json::from_slice::<AuthChange>(data).ok());
        change.is_some_and(|change| match &change {
            AuthChange::KeyRevoked { .. } => !self.has_older(seen),
            AuthChange::KeyMade(_) => false,
            other => other.until().is_some_and(|until| until.as_millis() <= self.plan.now_ms),
        })
    }
}
