//! Who is a member of which topic, and what of it is still to be written. Pure: no log, no clock.
//!
//! ```text
//! reserved ── join ──▶ joining ── written ──▶ joined ── unsubscribed, or away too long ──▶ leaving ── written ──▶ –
//! ```
//! - A member is held by one session, as often as that subscribes with the same data. When it is lost, the
//!   member is away for a grace: whoever of the same subject comes with the same data takes it over, and
//!   nothing is written.
//! - What is to be written waits in one queue, in the order in which it came about; what could not be written
//!   goes back to its head. So of one name on one topic no join follows a join.
//! - Bounded by [`Bounds`]: the queue holds a member at most once, and what is being written once more.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use tidings_proto::{
    Timestamp, Topic,
    control::{LeaveReason, PresenceChange},
};
use uuid::Uuid;

/// How many members there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// On one topic.
    pub(super) on_topic: usize,
    /// On all of them.
    pub(super) in_all: usize,
}

/// Why somebody is not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The session is listed there with other data.
    Differs,
    /// The topic has as many members as one may have.
    TopicFull,
    /// There are as many members as there may be.
    Full,
}

/// Who wants to be listed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guest<'a> {
    /// Its session.
    pub(super) session: Uuid,
    /// Who it is.
    pub(super) subject: &'a str,
    /// What it wants to be listed with, as JSON.
    pub(super) data: &'a str,
    /// The wall clock.
    pub(super) now: Timestamp,
}

/// What is to be written of a member.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Where.
    pub(super) topic: Topic,
    /// Who, and why it leaves; a join has no reason.
    pub(super) change: PresenceChange,
}

/// What became of a step: the number of the member, and the reason where it left.
pub(super) type Written = (u64, Option<LeaveReason>);

/// All members; each has a number of its own, rising as they come.
#[derive(Debug)]
pub(super) struct Members {
    bounds: Bounds,
    members: BTreeMap<u64, Member>,
    topics: HashMap<Topic, BTreeSet<u64>>,
    /// Until when those that are away are kept, in monotonic milliseconds.
    away: BTreeSet<(u64, u64)>,
    queue: VecDeque<u64>,
    /// What is being written, in its order.
    writing: Vec<Written>,
    last_number: u64,
}

#[derive(Debug)]
struct Member {
    topic: Topic,
    who: PresenceChange,
    stage: Stage,
    hold: Hold,
}

/// How far its join is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is to be written yet.
    Reserved,
    /// To be written, or being written.
    Joining,
    /// It is in the log.
    Joined,
}

/// Who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// This session, so many times.
    By(Uuid, u32),
    /// Nobody until then; then it leaves for this reason.
    Away(u64, LeaveReason),
    /// It leaves.
    Leaving(LeaveReason),
}

impl Members {
    /// Nobody anywhere.
    pub(super) fn new(bounds: Bounds) -> Members {
        Members {
            bounds,
            members: BTreeMap::new(),
            topics: HashMap::new(),
            away: BTreeSet::new(),
            queue: VecDeque::new(),
            writing: Vec::new(),
            last_number: 0,
        }
    }

    /// Takes in a member that the log has from before the start: it is away until then.
    pub(super) fn restore(&mut self, topic: Topic, who: PresenceChange, until_ms: u64) {
        let hold = Hold::Away(until_ms, LeaveReason::Restart);
        let number = self.add(Member { topic, who, stage: Stage::Joined, hold });
        self.away.insert((until_ms, number));
    }

    /// Lists a guest on a topic: as the member it is already, as one of its subject and data that is away, or
    /// as a new one, of which nothing is written before [`Members::join`]. Gives the member's number.
    pub(super) fn enter(&mut self, topic: &Topic, guest: &Guest<'_>) -> Result<u64, Refused> {
        let there = self.topics.get(topic);
        let numbers = || there.into_iter().flatten().copied();
        let of = |number: &u64| self.members.get(number);
        let held = |number: &u64| matches!(of(number).map(|m| m.hold), Some(Hold::By(by, _)) if by == guest.session);
        let is_like = |number: &u64| of(number).is_some_and(|member| member.is_like(guest));
        let waits = |number: &u64| {
            matches!(of(number).map(|m| m.hold), Some(Hold::Away(..))) && is_like(number)
        };
        let found = match numbers().find(held) {
            Some(number) if !is_like(&number) => return Err(Refused::Differs),
            found => found.or_else(|| numbers().find(waits)),
        };
        if let Some(number) = found {
            self.take_hold(number, guest.session);
            return Ok(number);
        }
        if numbers().count() >= self.bounds.on_topic {
            return Err(Refused::TopicFull);
        }
        if self.members.len() >= self.bounds.in_all {
            return Err(Refused::Full);
        }
        let hold = Hold::By(guest.session, 1);
        let (topic, who) = (topic.clone(), guest.as_member());
        Ok(self.add(Member { topic, who, stage: Stage::Reserved, hold }))
    }

    /// Has the join written, if it is not in the log. Whether it has to be waited for.
    pub(super) fn join(&mut self, number: u64) -> bool {
        let Some(member) = self.members.get_mut(&number) else { return false };
        if member.stage == Stage::Reserved {
            member.stage = Stage::Joining;
            self.queue.push_back(number);
        }
        member.stage == Stage::Joining
    }

    /// Whether its join is in the log.
    pub(super) fn has_joined(&self, number: u64) -> bool {
        self.members.get(&number).is_some_and(|member| member.stage == Stage::Joined)
    }

    /// A holder lets go, on purpose.
    pub(super) fn leave(&mut self, number: u64) {
        if self.let_go(number) {
            self.end(number, LeaveReason::Left);
        }
    }

    /// A holder was lost with its session, which never comes again: the member is away until then.
    pub(super) fn lose(&mut self, number: u64, until_ms: u64) {
        if !self.let_go(number) {
            return;
        }
        match self.members.get_mut(&number) {
            Some(member) if member.stage != Stage::Reserved => {
                member.hold = Hold::Away(until_ms, LeaveReason::Gone);
                self.away.insert((until_ms, number));
            }
            _ => self.remove(number),
        }
    }

    /// Those that have been away until now leave.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some(&(until_ms, number)) =
            self.away.first().filter(|(until_ms, _)| *until_ms <= now_ms)
        {
            self.away.remove(&(until_ms, number));
            if let Some(Hold::Away(_, reason)) = self.members.get(&number).map(|member| member.hold)
            {
                self.end(number, reason);
            }
        }
    }

    /// When the next of them leaves.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.away.first().map(|(until_ms, _)| *until_ms)
    }

    /// Whether there is something to write.
    pub(super) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether something is being written.
    pub(super) fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    /// Up to `max` steps to be written now, in this order; [`Members::written`] or [`Members::failed`] follows.
    pub(super) fn write(&mut self, max: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        while steps.len() < max {
            let Some(number) = self.queue.pop_front() else { break };
            let Some(member) = self.members.get(&number) else { continue };
            let reason = match (member.stage, member.hold) {
                (Stage::Joining, _) => None,
                (Stage::Joined, Hold::Leaving(reason)) => Some(reason),
                _ => continue,
            };
            let change = PresenceChange { reason, ..member.who.clone() };
            steps.push(Step { topic: member.topic.clone(), change });
            self.writing.push((number, reason));
        }
        steps
    }

    /// What [`Members::write`] gave is in the log.
    pub(super) fn written(&mut self) -> Vec<Written> {
        let written = std::mem::take(&mut self.writing);
        for (number, reason) in &written {
            if reason.is_some() {
                self.remove(*number);
            } else if let Some(member) = self.members.get_mut(number) {
                member.stage = Stage::Joined;
            }
        }
        written
    }

    /// What [`Members::write`] gave could not be written: it is tried again, but for joins where `forgets_joins`.
    /// Gives the numbers of those.
    pub(super) fn failed(&mut self, forgets_joins: bool) -> Vec<u64> {
        let mut forgotten = Vec::new();
        for (number, reason) in std::mem::take(&mut self.writing).into_iter().rev() {
            // One that leaves before it was heard of need not join.
            let is_over = forgets_joins || self.is_leaving(number);
            if reason.is_none() && is_over {
                self.forget(number);
                forgotten.push(number);
            } else {
                self.queue.push_front(number);
            }
        }
        forgotten
    }

    fn add(&mut self, member: Member) -> u64 {
        self.last_number += 1;
        let number = self.last_number;
        self.topics.entry(member.topic.clone()).or_default().insert(number);
        self.members.insert(number, member);
        number
    }

    fn remove(&mut self, number: u64) {
        let Some(member) = self.members.remove(&number) else { return };
        if let Hold::Away(until_ms, _) = member.hold {
            self.away.remove(&(until_ms, number));
        }
        if let Some(there) = self.topics.get_mut(&member.topic) {
            there.remove(&number);
            if there.is_empty() {
                self.topics.remove(&member.topic);
            }
        }
    }

    /// Removes one that may be in the queue.
    fn forget(&mut self, number: u64) {
        self.remove(number);
        self.queue.retain(|queued| *queued != number);
    }

    fn is_leaving(&self, number: u64) -> bool {
        matches!(self.members.get(&number).map(|member| member.hold), Some(Hold::Leaving(_)))
    }

    fn take_hold(&mut self, number: u64, session: Uuid) {
        let Some(member) = self.members.get_mut(&number) else { return };
        let times = match member.hold {
            Hold::By(_, times) => times.saturating_add(1),
            Hold::Away(until_ms, _) => {
                self.away.remove(&(until_ms, number));
                1
            }
            Hold::Leaving(_) => return,
        };
        member.hold = Hold::By(session, times);
    }

    /// One hold less; whether it was the last.
    fn let_go(&mut self, number: u64) -> bool {
        match self.members.get_mut(&number).map(|member| &mut member.hold) {
            Some(Hold::By(_, times)) => {
                *times = times.saturating_sub(1);
                *times == 0
            }
            _ => false,
        }
    }

    /// Nobody has it any more, nor will have.
    fn end(&mut self, number: u64, reason: LeaveReason) {
        let is_writing = self.writing.contains(&(number, None));
        match self.members.get_mut(&number) {
            Some(member) if member.stage == Stage::Joined || is_writing => {
                member.hold = Hold::Leaving(reason);
                self.queue.push_back(number);
            }
            // Nobody has heard of it.
            _ => self.forget(number),
        }
    }
}

impl Member {
    fn is_like(&self, guest: &Guest<'_>) -> bool {
        let data = self.who.data.as_ref().map_or("null", |data| data.get());
        self.who.subject == guest.subject && data == guest.data
    }
}

impl Guest<'_> {
    fn as_member(&self) -> PresenceChange {
        // Of a text that is JSON there is a raw value.
        let data = serde_json::value::RawValue::from_string(self.data.to_owned()).ok();
        PresenceChange {
            subject: self.subject.to_owned(),
            session: self.session.simple().to_string(),
            since: self.now,
            data: data.filter(|data| data.get() != "null").map(Arc::from),
            reason: None,
        }
    }
}

#[cfg(test)]
mod tests;
