//! Retention: which sealed segments may go, and what stays of those that are rewritten.
//!
//! - Everything is decided by segments: one is over a rule's limit when its last event is too old, or when the newer ones
//!   alone have as many events as the rule keeps: so it keeps these, and up to a segment more.
//! - Bytes are for the disk: a segment is over them also when it and the newer ones have more and half of the limit is
//!   left without it. So a rule keeps at most what it says and at least half of it; where a segment has more than half of
//!   it, up to that segment more. The active segment is counted in as if it were as full as the newest sealed one: room
//!   for it is made before it is sealed.
//! - What the broker keeps for itself (acks, letters, presence, subscriptions, schedules) has a quarter of what the rule
//!   for everything keeps, and is counted in there: so that it fills no disk where users publish little. What is still
//!   needed of it stays.
//! - A segment goes whole when all in it may go; it is rewritten when more than half of its events may. With what a pass
//!   has left for it, those are rewritten where fewer may go, each once in ten passes: no rule waits for ever, and
//!   many rules for one segment cost few rewrites.
//! - Work of one pass is bounded: 64 segments dropped, `pass_bytes` of segments rewritten, one looked into.
//! - Blocks on the disk: never to be called on the runtime or the commit thread.

mod age;
mod covers;
mod fates;
mod letters;
mod plan;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tidings_proto::{
    Cursor, Filter, Offset, Topic,
    control::{DeadLetter, RetentionRule, SCHEDULED_TOPIC, SUBSCRIPTIONS_TOPIC},
};
pub use tidings_storage::Removed;
use tidings_storage::{Fate, Sealed, total_bytes};

use self::{age::AgeClock, covers::Covers, fates::Fates, plan::Work, rules::Class};
pub use self::{
    letters::Letters,
    plan::Plan,
    rules::{Rules, check_ruled, parse_age, parse_rule},
};
use super::{LogHandle, StorageError, codec};
use crate::clock;

/// How many segments one pass drops at most.
const DROPS_MAX: usize = 64;
/// How many passes a segment is left alone that was rewritten, or found to have nothing that goes, unless most of it may go.
const REST_PASSES: u64 = 10;

/// How much of the disk the rule for everything keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// All of it.
    All,
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the disk's size.
    Percent(u64),
}

/// The settings of retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long from one pass to the next.
    pub every: Duration,
    /// How many bytes of segments one pass may rewrite; one segment at least.
    pub pass_bytes: u64,
    /// For what no rule matches; its bytes are in `room`.
    pub default: RetentionRule,
    /// How many bytes the rule for everything keeps.
    pub room: Room,
    /// The rules that were configured.
    pub rules: Vec<(Filter, RetentionRule)>,
}

impl Options {
    /// Nothing goes.
    #[cfg(test)]
    pub(crate) fn nothing() -> Options {
        Options {
            every: Duration::from_secs(600),
            pass_bytes: 1 << 20,
            default: RetentionRule::default(),
            room: Room::All,
            rules: Vec::new(),
        }
    }

    /// The rule for everything, with its bytes.
    pub fn default_rule(&self, dir: &std::path::Path) -> RetentionRule {
        let max_bytes = match self.room {
            Room::All => None,
            Room::Bytes(bytes) => Some(bytes),
            Room::Percent(percent) => {
                total_bytes(dir).map(|bytes| (bytes / 100).saturating_mul(percent))
            }
        };
        RetentionRule { max_bytes, ..self.default.clone() }
    }
}

/// What the keeper must ask of whoever folds the broker's own events.
pub trait Needs {
    /// Whether the event of this letter is still dead.
    fn is_dead(&self, letter: &DeadLetter) -> bool;
    /// Whether the join at this offset of `$presence.<topic>` is that of a member who has not left.
    fn is_listed(&self, topic: &str, join: Offset) -> bool;
    /// Whether this event of `$scheduled` still waits for its moment.
    fn is_scheduled(&self, publish: Offset) -> bool;
    /// Whether the rest of a pass is to be left to the next one.
    fn is_stopping(&self) -> bool;
}

/// What is known of a sealed segment; as long as it is not rewritten it does not change.
#[derive(Debug)]
struct Known {
    last_ms: u64,
    /// Events by rule.
    events: Vec<u64>,
    acks: u64,
    /// Letters of dead events.
    dead: u64,
    /// Events that stay until each was looked at.
    careful: u64,
    has_subscriptions: bool,
    /// Whether a rule in it wants only the last event of a key.
    compacts: bool,
    looked: Option<Looked>,
    /// Nothing could go when it was tried, with so many segments behind it.
    vain_at: Option<u64>,
    /// Before this pass it is not rewritten for a few events.
    rests_until: u64,
}

/// What a look into a segment found.
#[derive(Clone, Copy, Debug)]
struct Looked {
    /// Where the sealed segments ended then.
    at: u64,
    /// When more than half of its events are replaced or have expired, if that ever comes.
    half_gone_ms: Option<u64>,
}

/// Plans passes and carries them out.
#[derive(Debug)]
pub struct Keeper {
    log: LogHandle,
    pass_bytes: u64,
    every: Duration,
    clock: AgeClock,
    rules: Arc<Rules>,
    known: HashMap<(u64, u32), Known>,
    /// How many passes were planned.
    passes: u64,
    stopped: bool,
}

impl Keeper {
    /// One for this log.
    pub fn new(log: &LogHandle, options: &Options) -> Keeper {
        let wall_ms = clock::now().as_millis();
        let clock_ms = match log.trimmer().clock_ms() {
            0 => {
                log.reader().get(log.first()).ok().flatten().map_or(wall_ms, |first| first.time_ms)
            }
            known_ms => known_ms,
        };
        Keeper {
            log: log.clone(),
            pass_bytes: options.pass_bytes,
            every: options.every,
            clock: AgeClock::new(clock_ms, wall_ms, clock::monotonic()),
            rules: Arc::new(Rules::new(Default::default(), RetentionRule::default())),
            known: HashMap::new(),
            passes: 0,
            stopped: false,
        }
    }

    /// Nothing is taken out any more: the files are about to be another's.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// What the clock for ages says.
    fn now_ms(&mut self) -> u64 {
        self.clock.read(clock::now().as_millis(), clock::monotonic())
    }

    fn check_stopped(&self) -> Result<(), StorageError> {
        match self.stopped {
            true => Err(StorageError::Latched("the broker is shutting down".to_owned())),
            false => Ok(()),
        }
    }

    /// What is to be done now.
    ///
    /// # Errors
    /// What the storage finds, see [`StorageError`].
    pub fn plan(&mut self, rules: Rules) -> Result<Plan, StorageError> {
        self.check_stopped()?;
        let now_ms = self.now_ms();
        if *self.rules != rules {
            self.rules = Arc::new(rules);
            self.known.clear();
        }
        self.passes += 1;
        let sealed = self.log.trimmer().sealed();
        self.learn(&sealed)?;
        self.look(&sealed)?;
        let over = self.over(&sealed, now_ms);
        let mut plan = Plan { seal: self.wants_seal(now_ms)?, now_ms, ..Plan::default() };
        let (mut drops, mut rewritten, mut few) = (0, 0, Vec::new());
        for (sealed, over) in sealed.into_iter().zip(over) {
            let Some(known) = self.known.get(&(sealed.base, sealed.generation)) else { continue };
            let own_is_over = over.last() == Some(&true);
            let by_rule = known.goes_by_rule(&over);
            let whole = by_rule >= u64::from(sealed.records) && known.may_go_whole();
            let goes = by_rule.max(known.goes_by_itself(now_ms, sealed.records));
            let may_try = known.vain_at != Some(self.log.trimmer().sealed_end());
            let carries = known.acks > 0 || known.has_subscriptions;
            let most = goes.saturating_mul(2) > u64::from(sealed.records) && may_try;
            match (whole, most) {
                (true, _) if drops < DROPS_MAX => drops += 1,
                (false, true) if rewritten < self.pass_bytes => rewritten += sealed.bytes,
                (false, false) if may_try && known.has_some(&over, self.passes) => {
                    few.push(Work { sealed, whole, carries: carries && own_is_over, over });
                    continue;
                }
                _ => continue,
            }
            plan.push(Work { sealed, whole, carries, over });
        }
        for work in few {
            if rewritten < self.pass_bytes {
                rewritten += work.sealed.bytes;
                plan.push(work);
            }
        }
        plan.work.sort_by_key(|work| work.sealed.base);
        Ok(plan)
    }

    /// Carries a plan out.
    ///
    /// # Errors
    /// What the storage finds; what was done before stays done.
    pub fn carry_out(&mut self, plan: &Plan, needs: &dyn Needs) -> Result<Removed, StorageError> {
        let mut removed = Removed::default();
        let rules = self.rules.clone();
        for whole in plan.work.chunk_by(|a, b| a.whole && b.whole && a.over == b.over) {
            self.check_stopped()?;
            let Some(first) = whole.first().filter(|_| !needs.is_stopping()) else { continue };
            let done = if first.whole {
                let bases: Vec<u64> = whole.iter().map(|work| work.sealed.base).collect();
                let fate = |topic: &str| match rules.class(topic) {
                    Class::Rule(_) => Fate::Trim,
                    _ => Fate::Pass,
                };
                self.log.trimmer().drop_segments(&bases, plan.now_ms, &fate)?
            } else {
                match self.rewrite(first, plan, needs) {
                    Err(error @ StorageError::Corrupt { .. }) => {
                        tracing::warn!(%error, "a damaged segment is not rewritten");
                        self.was_vain(&first.sealed);
                        continue;
                    }
                    // What is dropped after it makes room.
                    Err(error) if error.is_no_space() => {
                        tracing::warn!(%error, "no room to rewrite a segment; it is tried again");
                        continue;
                    }
                    done => done?,
                }
            };
            if let Some(last) = whole.last().filter(|_| done.events > 0) {
                self.log.shared.tail.cut(Cursor::new(last.sealed.end - 1));
            }
            removed += done;
        }
        Ok(removed)
    }

    /// Takes all events of a topic out of the sealed segments, up to an offset; also as they were stored to wait for
    /// their moment, but for those that still do.
    ///
    /// # Errors
    /// What the storage finds: damage, or no room where that left nothing to be done, when it has gone through all other
    /// segments; another call goes on.
    pub fn erase(
        &mut self,
        topic: &Topic,
        upto: Cursor,
        needs: &dyn Needs,
    ) -> Result<Removed, StorageError> {
        self.check_stopped()?;
        let mut removed = Removed::default();
        let now_ms = self.now_ms();
        let trimmer = self.log.trimmer();
        let (mut damage, mut no_room) = (None, None);
        for sealed in trimmer.sealed() {
            let is_its = |name: &Topic| name == topic || name.as_str() == SCHEDULED_TOPIC;
            let has_it = trimmer.topics(sealed.base)?.iter().any(|(name, _)| is_its(name));
            if sealed.base > upto.get() || !has_it {
                continue;
            }
            let done = trimmer.rewrite(sealed.base, now_ms, &mut |seen| {
                if !upto.covers(seen.offset) {
                    Fate::Keep
                } else if seen.topic == topic.as_str() {
                    Fate::Erase
                } else if codec::is_scheduled_for(seen.topic, seen.key, seen.body, topic)
                    && !needs.is_scheduled(seen.offset)
                {
                    Fate::Pass
                } else {
                    Fate::Keep
                }
            });
            match done {
                Ok(done) => removed += done,
                Err(error @ StorageError::Corrupt { .. }) => {
                    damage.get_or_insert(error);
                }
                // What goes behind it makes room, and another call goes on.
                Err(error) if error.is_no_space() => {
                    no_room.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        self.log.shared.tail.cut(upto);
        let no_room = no_room.filter(|_| removed.events == 0);
        damage.or(no_room).map_or(Ok(removed), Err)
    }

    fn rewrite(
        &mut self,
        work: &Work,
        plan: &Plan,
        needs: &dyn Needs,
    ) -> Result<Removed, StorageError> {
        let base = work.sealed.base;
        let rules = self.rules.clone();
        let known = self.known.get(&(base, work.sealed.generation));
        let replaced: HashSet<Offset> = match known.is_some_and(|known| known.compacts) {
            true => self.log.trimmer().replaced(base, &mut |topic| compacts(&rules, topic))?,
            false => Vec::new(),
        }
        .into_iter()
        .collect();
        let fates = Fates {
            log: &self.log,
            over: &work.over,
            replaced: &replaced,
            plan,
            needs,
            is_first_of_subscriptions: self.is_first_of_subscriptions(base),
            before: Cursor::new(base.saturating_sub(1)),
            older: RefCell::default(),
            covers: RefCell::new(Covers::before(&self.log, base, plan.now_ms)?),
        };
        let mut classes: HashMap<Box<str>, Class> = HashMap::new();
        let done = self.log.trimmer().rewrite(base, plan.now_ms, &mut |seen| {
            let class = match classes.get(seen.topic) {
                Some(class) => *class,
                None => *classes.entry(seen.topic.into()).or_insert(rules.class(seen.topic)),
            };
            fates.of(seen, class)
        })?;
        if done.events == 0 {
            self.was_vain(&work.sealed);
        }
        Ok(done)
    }

    /// Whether no older segment has changes of subscriptions: only then may a deletion be forgotten.
    fn is_first_of_subscriptions(&self, base: u64) -> bool {
        let mut older = self.log.trimmer().sealed().into_iter().take_while(|it| it.base < base);
        older.all(|it| {
            let known = self.known.get(&(it.base, it.generation));
            known.is_some_and(|known| !known.has_subscriptions)
        })
    }

    fn was_vain(&mut self, sealed: &Sealed) {
        let end = self.log.trimmer().sealed_end();
        if let Some(known) = self.known.get_mut(&(sealed.base, sealed.generation)) {
            known.vain_at = Some(end);
            known.rests_until = self.passes + REST_PASSES;
        }
    }

    /// Looks up what the indexes say of segments that are new.
    fn learn(&mut self, sealed: &[Sealed]) -> Result<(), StorageError> {
        let names: HashSet<(u64, u32)> = sealed.iter().map(|it| (it.base, it.generation)).collect();
        self.known.retain(|name, _| names.contains(name));
        for it in sealed {
            let name = (it.base, it.generation);
            if self.known.contains_key(&name) {
                continue;
            }
            let mut known = Known {
                last_ms: self.log.trimmer().last_time_ms(it.base)?,
                events: vec![0; self.rules.count()],
                acks: 0,
                dead: 0,
                careful: 0,
                has_subscriptions: false,
                compacts: false,
                looked: None,
                vain_at: None,
                rests_until: if it.generation > 0 { self.passes + REST_PASSES } else { 0 },
            };
            for (topic, count) in self.log.trimmer().topics(it.base)? {
                known.count(&self.rules, topic.as_str(), count);
            }
            self.known.insert(name, known);
        }
        Ok(())
    }

    /// Looks into one segment for what has expired or been replaced: into one a pass, as it is read whole.
    fn look(&mut self, sealed: &[Sealed]) -> Result<(), StorageError> {
        let end = self.log.trimmer().sealed_end();
        let due = sealed.iter().find(|it| {
            let known = self.known.get(&(it.base, it.generation));
            known.is_some_and(|known| match known.looked {
                None => true,
                // Only what was sealed since can have replaced more.
                Some(looked) => known.compacts && looked.at != end,
            })
        });
        let Some(due) = due else { return Ok(()) };
        let Some(known) = self.known.get_mut(&(due.base, due.generation)) else { return Ok(()) };
        let looked = look_into(&self.log, &self.rules, due, known.compacts);
        known.looked = match looked {
            Ok(half_gone_ms) => Some(Looked { at: end, half_gone_ms }),
            Err(error @ StorageError::Corrupt { .. }) => {
                tracing::warn!(%error, "a damaged segment is not looked into");
                Some(Looked { at: end, half_gone_ms: None })
            }
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Of each segment, which rules it is over the limit of; last, whether it is over that of the broker's own events.
    fn over(&self, sealed: &[Sealed], now_ms: u64) -> Vec<Vec<bool>> {
        let default = self.rules.default_index();
        let mut newer: Vec<(u64, u64)> = vec![(0, 0); self.rules.count()];
        let (mut own, own_max) = (0, self.rules.get(default).max_bytes.map(|max| max / 4));
        // Less than half of the limit: what is sealed is never all over it.
        let active = |newest: &Sealed, events, max: Option<u64>| {
            let most = max.map_or(0, |max| max.div_ceil(2).saturating_sub(1));
            newest.bytes_of(events).min(most)
        };
        if let Some(newest) = sealed.last()
            && let Some(known) = self.known.get(&(newest.base, newest.generation))
        {
            for ((rule, events), kept) in self.rules.all().zip(&known.events).zip(&mut newer) {
                kept.1 = active(newest, *events, rule.max_bytes);
            }
            own = active(newest, known.own(), own_max);
        }
        let mut found = Vec::with_capacity(sealed.len());
        for it in sealed.iter().rev() {
            let Some(known) = self.known.get(&(it.base, it.generation)) else {
                found.push(vec![false; self.rules.count() + 1]);
                continue;
            };
            let own_with = own + it.bytes_of(known.own());
            let mut over = Vec::with_capacity(newer.len() + 1);
            let rules = self.rules.all().zip(&known.events).zip(&mut newer);
            for (index, ((rule, events), kept)) in rules.enumerate() {
                let is_old =
                    rule.max_age_ms.is_some_and(|age| known.last_ms < now_ms.saturating_sub(age));
                let with = (kept.0 + *events, kept.1 + it.bytes_of(*events));
                let taken = if index == default { own_with.min(own_max.unwrap_or(0)) } else { 0 };
                let enough = rule.max_events.is_some_and(|max| kept.0 >= max)
                    || rule.max_bytes.is_some_and(|max| is_over(kept.1, with.1, max - taken));
                over.push(is_old || enough);
                *kept = with;
            }
            let own_is_over = own_max.is_some_and(|max| is_over(own, own_with, max));
            over.push(own_is_over || over.get(default) == Some(&true));
            own = own_with;
            found.push(over);
        }
        found.reverse();
        found
    }

    /// Whether the active segment has events so old that it should be sealed, so that they can go in time.
    fn wants_seal(&self, now_ms: u64) -> Result<bool, StorageError> {
        let ages = self.rules.all().filter_map(|rule| rule.max_age_ms);
        let Some(shortest) = ages.min() else { return Ok(false) };
        let every = u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX);
        let span = (shortest / 4).max(every.saturating_mul(10));
        let first = Cursor::new(self.log.trimmer().sealed_end().saturating_sub(1)).next();
        let oldest = self.log.reader().get(first)?;
        Ok(oldest.is_some_and(|oldest| oldest.time_ms < now_ms.saturating_sub(span)))
    }
}

impl Known {
    fn count(&mut self, rules: &Rules, topic: &str, count: u64) {
        self.has_subscriptions |= topic == SUBSCRIPTIONS_TOPIC;
        match rules.class(topic) {
            Class::Rule(index) => {
                self.compacts |= rules.get(index).compact;
                if let Some(events) = self.events.get_mut(index) {
                    *events += count;
                }
            }
            Class::Acks => self.acks += count,
            Class::Dead | Class::Presence | Class::Scheduled => self.dead += count,
            Class::Careful => self.careful += count,
        }
    }

    /// How many the broker keeps for itself.
    fn own(&self) -> u64 {
        self.acks + self.dead + self.careful
    }

    /// Of how many the rules say that they go.
    fn limited(&self, over: &[bool]) -> u64 {
        self.events.iter().zip(over).filter(|(_, over)| **over).map(|(events, _)| events).sum()
    }

    /// How many of the broker's own may go by their limit, where they are over it.
    fn own_limited(&self, over: &[bool]) -> u64 {
        if over.last() == Some(&true) { self.own() } else { 0 }
    }

    /// How many events may go by the rules alone, about.
    fn goes_by_rule(&self, over: &[bool]) -> u64 {
        self.limited(over).saturating_add(self.own_limited(over).max(self.acks))
    }

    /// Whether a few may go, and it is time to rewrite it for them.
    fn has_some(&self, over: &[bool], pass: u64) -> bool {
        self.limited(over) + self.own_limited(over) > 0 && pass >= self.rests_until
    }

    /// How many have expired or are replaced, at least: which they are only a look at each says, so that nothing is
    /// dropped whole for it.
    fn goes_by_itself(&self, now_ms: u64, records: u32) -> u64 {
        let half_gone_ms = self.looked.and_then(|looked| looked.half_gone_ms);
        match half_gone_ms.is_some_and(|half| half <= now_ms) {
            true => u64::from(records) / 2 + 1,
            false => 0,
        }
    }

    fn may_go_whole(&self) -> bool {
        self.careful == 0 && self.dead == 0
    }
}

/// Whether a segment is over a limit of bytes: `newer` have the segments behind it, `with` it and they.
fn is_over(newer: u64, with: u64, max: u64) -> bool {
    newer >= max || (with > max && newer >= max.div_ceil(2))
}

/// When more than half of a segment's events are replaced or have expired; 0 where they are already.
fn look_into(
    log: &LogHandle,
    rules: &Rules,
    sealed: &Sealed,
    compacts_some: bool,
) -> Result<Option<u64>, StorageError> {
    let replaced: HashSet<Offset> = match compacts_some {
        true => log.trimmer().replaced(sealed.base, &mut |topic| compacts(rules, topic))?,
        false => Vec::new(),
    }
    .into_iter()
    .collect();
    // When each of those that go by themselves is gone.
    let mut gone: Vec<u64> = Vec::new();
    log.trimmer().visit(sealed.base, &mut |seen| {
        if replaced.contains(&seen.offset) {
            gone.push(0);
        } else if !seen.topic.starts_with('$') {
            gone.extend(codec::expires_of(seen.body).map(|at| at.as_millis()));
        }
        true
    })?;
    gone.sort_unstable();
    let half = usize::try_from(sealed.records).unwrap_or(usize::MAX) / 2;
    Ok(gone.get(half).copied())
}

fn compacts(rules: &Rules, topic: &str) -> bool {
    matches!(rules.class(topic), Class::Rule(index) if rules.get(index).compact)
}
