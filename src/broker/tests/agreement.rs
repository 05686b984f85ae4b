//! Random operations on the real broker and on the model: what is delivered, the floor, the lag, the receipts
//! and the dead must agree.
//!
//! `TIDINGS_CASES` says how many cases there are in all (3,000 unless said; a full run has 100,000).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use tidings_proto::{
    Cursor, Filter, Mode, Offset, Position, Priority, Start, SubscribeOptions, Timestamp, Topic,
    control::RetentionRule,
    event::Expiry,
    message::ReceiptState,
    subscribe::{After, Order, PartitionBy},
};

use super::{
    super::{Ready, Subscription, Target, Token, publish::PublishTicket, subscription::Delivery},
    model::{FETCHERS, Item, Judged, Model, Status},
    world::{World, event, filters, number, offset, outcome, run},
};
use crate::clock::{self, held};

mod found;

const NAME: &str = "d";
/// No event is there.
const NOWHERE: u64 = 1 << 40;
const TOPICS: [&str; 3] = ["t.0", "t.1", "t.2"];
const PRIORITIES: [Priority; 4] =
    [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];

/// Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Op {
    Publish {
        topic: u8,
        key: u8,
        priority: u8,
        ttl_ms: Option<u64>,
    },
    Commit,
    Attach {
        slot: usize,
    },
    Detach {
        slot: usize,
    },
    Pull {
        slot: usize,
        turns: u8,
        sent: bool,
    },
    Sent {
        slot: usize,
    },
    Fetch {
        limit: usize,
    },
    Ack {
        slot: usize,
        events: Vec<usize>,
        up_to: bool,
    },
    Nack {
        slot: usize,
        events: Vec<usize>,
        delay_ms: Option<u64>,
    },
    Advance {
        ms: u64,
    },
    Redrive {
        event: Option<usize>,
    },
    PutAway,
    Pause {
        paused: bool,
    },
    Reset {
        to: Option<usize>,
    },
    Kill {
        seed: u64,
    },
    Read {
        from: Option<usize>,
        last_per_key: bool,
    },
    ReadOn {
        turns: u8,
    },
    /// All of a topic goes.
    Erase {
        topic: u8,
    },
    /// What is older than so many events goes, of one topic or of all.
    Retain {
        topic: Option<u8>,
        events: u64,
    },
    Change {
        topics: u8,
        min_priority: Option<u8>,
        max_in_flight: u32,
        ack_wait_ms: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let slot = 0..3_usize;
    let events = prop::collection::vec(0..60_usize, 1..4);
    prop_oneof![
        12 => (0..3_u8, 0..3_u8, 0..4_u8, prop::option::weighted(0.2, 1..60_u64))
            .prop_map(|(topic, key, priority, ttl_ms)| Op::Publish { topic, key, priority, ttl_ms }),
        8 => Just(Op::Commit),
        4 => slot.clone().prop_map(|slot| Op::Attach { slot }),
        2 => slot.clone().prop_map(|slot| Op::Detach { slot }),
        12 => (slot.clone(), 1..6_u8, prop::bool::weighted(0.8))
            .prop_map(|(slot, turns, sent)| Op::Pull { slot, turns, sent }),
        2 => slot.clone().prop_map(|slot| Op::Sent { slot }),
        3 => (1..6_usize).prop_map(|limit| Op::Fetch { limit }),
        8 => (0..4_usize, events.clone(), prop::bool::weighted(0.3))
            .prop_map(|(slot, events, up_to)| Op::Ack { slot, events, up_to }),
        5 => (0..4_usize, events, prop::option::of(0..60_u64))
            .prop_map(|(slot, events, delay_ms)| Op::Nack { slot, events, delay_ms }),
        5 => (1..80_u64).prop_map(|ms| Op::Advance { ms }),
        2 => prop::option::of(0..40_usize).prop_map(|event| Op::Redrive { event }),
        2 => Just(Op::PutAway),
        2 => any::<bool>().prop_map(|paused| Op::Pause { paused }),
        1 => prop::option::of(0..40_usize).prop_map(|to| Op::Reset { to }),
        2 => any::<u64>().prop_map(|seed| Op::Kill { seed }),
        2 => (prop::option::of(0..40_usize), any::<bool>())
            .prop_map(|(from, last_per_key)| Op::Read { from, last_per_key }),
        4 => (1..5_u8).prop_map(|turns| Op::ReadOn { turns }),
        1 => (0..3_u8).prop_map(|topic| Op::Erase { topic }),
        1 => (prop::option::of(0..3_u8), 0..3_u64)
            .prop_map(|(topic, events)| Op::Retain { topic, events }),
        1 => (1..4_u8, prop::option::weighted(0.2, 1..3_u8), 1..8_u32, prop_oneof![Just(0), 10..60_u64])
            .prop_map(|(topics, min_priority, max_in_flight, ack_wait_ms)| {
                Op::Change { topics, min_priority, max_in_flight, ack_wait_ms }
            }),
    ]
}

/// What is the same for all ops of a case.
#[derive(Clone, Debug)]
struct Case {
    options: SubscribeOptions,
    /// How many events there are to begin with.
    before: u8,
    tail_bytes: usize,
    ops: Vec<Op>,
}

fn case(kind: &'static str) -> impl Strategy<Value = Case> {
    let limits = (1..8_u32, prop_oneof![Just(0), 10..60_u64], 0..4_u32);
    let backoff = prop::collection::vec(0..50_u64, 0..3);
    let how = (any::<bool>(), 1..6_u32, prop_oneof![Just(1), Just(1 << 20)], 1..4_u8);
    (limits, backoff, how, prop::collection::vec(op(), 1..70)).prop_map(
        move |(
            (max_in_flight, ack_wait_ms, max),
            backoff_ms,
            (coin, batch_max, tail_bytes, topics),
            ops,
        )| {
            let has_lanes = kind == "lanes";
            let mode = match kind {
                "mirror" => Mode::Mirror,
                "shared" | "partitioned" | "shared states" => Mode::Shared,
                "lanes" if coin => Mode::Shared,
                _ => Mode::Exclusive,
            };
            let has_states = ["states", "shared states"].contains(&kind);
            let last_per_key = has_states && !coin;
            let options = SubscribeOptions {
                durable: Some(NAME.to_owned()),
                mode,
                partition_by: (kind == "partitioned").then_some(PartitionBy::Key),
                order: if has_lanes { Order::Priority } else { Order::Log },
                conflate_ms: if coin && (has_states || kind == "mirror") { 20 } else { 0 },
                max_in_flight: if has_lanes { 5 * max_in_flight } else { max_in_flight },
                ack_wait_ms,
                max_deliveries: max,
                backoff_ms,
                batch_max,
                last_per_key,
                start: if last_per_key { Start::Now } else { Start::First },
                ..SubscribeOptions::to(filters(&TOPICS[..usize::from(topics)]))
            };
            // A state, or more than one turn of the lanes.
            let before = if has_lanes { 24 } else { u8::from(last_per_key) * 6 };
            Case { options, before, tail_bytes, ops }
        },
    )
}

/// A mirror leases nothing, and has no options for it.
fn without_leases(options: SubscribeOptions) -> SubscribeOptions {
    if options.mode != Mode::Mirror {
        return options;
    }
    let SubscribeOptions { max_in_flight, ack_wait_ms, backoff_ms, max_deliveries, .. } =
        SubscribeOptions::to(options.filters.clone());
    SubscribeOptions { max_in_flight, ack_wait_ms, backoff_ms, max_deliveries, ..options }
}

struct Session {
    subscription: Subscription,
    owner: u64,
    token: Token,
    /// It was attached before a reset.
    is_old: bool,
    /// Where the next batch begins.
    told: Option<u64>,
}

struct Reader {
    subscription: Subscription,
    expected: VecDeque<u64>,
    told: u64,
    /// Up to here it was told of what is gone.
    told_gone: u64,
    topics: usize,
}

struct Test {
    /// It was made with `last_per_key`.
    is_of_state: bool,
    world: Option<World>,
    model: Model,
    tickets: Vec<(PublishTicket, Item)>,
    sessions: BTreeMap<usize, Session>,
    reader: Option<Reader>,
    ready: Arc<Ready>,
    owners: u64,
    now: u64,
    /// Something was said that is not in the log.
    is_dirty: bool,
    saved_at: u64,
    /// An ack was taken in this step.
    has_acked: bool,
    deaths: usize,
}

impl Test {
    async fn new(case: &Case) -> Test {
        let mut world = World::new(1, case.tail_bytes);
        let (mut log, options) = (Vec::new(), without_leases(case.options.clone()));
        for n in 0..case.before {
            let has_lanes = options.order == Order::Priority;
            let priority = if has_lanes && n > 0 { 1 + n % 3 } else { u8::from(n > 0) };
            let priority = PRIORITIES[usize::from(priority)];
            let (topic, key, at) = (n % 3, n % 2, 1_000);
            let ticket = world.publish(event(topic, key, priority, None)).await;
            let offset = world.drive(ticket).await.unwrap()[0].offset.get();
            let topic = TOPICS[usize::from(topic)];
            log.push(Item { offset, topic, key, priority, at, ..Item::default() });
        }
        let until = world.broker.log().committed().get();
        let broker = world.broker.clone();
        world.drive(broker.put_durable(NAME, &options, "alice")).await.unwrap();
        let is_of_state = options.last_per_key;
        let until = if is_of_state { until } else { 0 };
        // It is made so; whoever attaches asks for nothing.
        let options = SubscribeOptions { last_per_key: false, ..options };
        Test {
            is_of_state,
            world: Some(world),
            model: Model::new(options, log, until),
            tickets: Vec::new(),
            sessions: BTreeMap::new(),
            reader: None,
            ready: Ready::new(),
            owners: 0,
            now: 1_000,
            is_dirty: false,
            saved_at: 0,
            has_acked: false,
            deaths: 0,
        }
    }

    fn world(&mut self) -> &mut World {
        self.world.as_mut().unwrap()
    }

    /// A commit has been.
    fn committed(&mut self) {
        self.saved();
        self.published();
    }

    /// The newest state stands where the ledger says.
    fn saved(&mut self) {
        let place = self.place();
        let is_saved = std::mem::replace(&mut self.saved_at, place) != place;
        assert!(is_saved || !self.is_dirty, "what was said is not in the log");
        if is_saved {
            self.find_dead_early();
            let (floor, cursor) = (self.floor(), self.cursor());
            self.model.commit(floor, cursor);
            self.is_dirty = false;
        }
    }

    /// The events stand where the tickets say.
    fn published(&mut self) {
        for (mut ticket, item) in std::mem::take(&mut self.tickets) {
            let offset = outcome(&mut ticket).unwrap().unwrap()[0].offset.get();
            let item = Item { offset, at: self.now, ..item };
            if let Some(reader) =
                self.reader.as_mut().filter(|reader| TOPICS[..reader.topics].contains(&item.topic))
            {
                reader.expected.push_back(offset);
            }
            self.model.items.push(item);
        }
        self.model.look(self.now);
    }

    async fn step(&mut self, op: Op) -> Judged {
        match op {
            Op::Publish { topic, key, priority, ttl_ms } => {
                let priority = PRIORITIES[usize::from(priority)];
                let mut publish = event(topic, key, priority, None);
                let ends = |ms| Timestamp::from_millis(clock::now().as_millis() + ms);
                publish.event.expires = ttl_ms.map(|ms| Expiry::At(ends(ms)));
                let expires = ttl_ms.map(|ms| self.now + ms);
                let ticket = self.world().publish(publish).await;
                let topic = TOPICS[usize::from(topic)];
                self.tickets
                    .push((ticket, Item { topic, key, priority, expires, ..Item::default() }));
            }
            Op::Commit => {
                self.world().step();
                self.committed();
            }
            Op::Attach { slot } => self.attach(slot).await?,
            Op::Detach { slot } => self.detach(slot),
            Op::Pull { slot, turns, sent } => self.pull(slot, turns, sent).await?,
            Op::Sent { slot } => self.sent(slot),
            Op::Fetch { limit } => self.fetch(limit).await?,
            Op::Ack { slot, events, up_to } => self.ack(slot, &events, up_to).await?,
            Op::Nack { slot, events, delay_ms } => self.nack(slot, &events, delay_ms)?,
            Op::Advance { ms } => self.advance(ms),
            Op::Redrive { event } => self.redrive(event)?,
            Op::PutAway => self.put_away(),
            Op::Pause { paused } => {
                let world = self.world();
                let broker = world.broker.clone();
                world.drive(broker.pause_durable(NAME, paused)).await.unwrap();
                let wrote = std::mem::replace(&mut self.model.paused, paused) != paused;
                if wrote {
                    self.committed();
                }
            }
            Op::Reset { to } => self.reset(to).await?,
            Op::Kill { seed } => self.kill(seed),
            Op::Read { from, last_per_key } => self.read(from, last_per_key).await?,
            Op::ReadOn { turns } => self.read_on(turns).await?,
            Op::Erase { topic } => self.erase(topic).await?,
            Op::Retain { topic, events } => self.retain(topic, events).await?,
            Op::Change { topics, min_priority, max_in_flight, ack_wait_ms } => {
                let options = SubscribeOptions {
                    filters: filters(&TOPICS[..usize::from(topics)]),
                    min_priority: min_priority.map(|n| PRIORITIES[usize::from(n)]),
                    max_in_flight,
                    ack_wait_ms,
                    ..self.model.options.clone()
                };
                self.change(without_leases(options)).await?;
            }
        }
        self.world().settle().await;
        Ok(())
    }

    fn floor(&mut self) -> u64 {
        let durable = self.world().broker.durable_by_name(NAME).unwrap();
        durable.lock().state.floor().get()
    }

    /// Where the newest state of the durable stands in the log.
    fn place(&mut self) -> u64 {
        let entry = self.world().broker.controls.find(NAME);
        entry.map_or(0, |entry| entry.places.1)
    }

    fn cursor(&mut self) -> u64 {
        let durable = self.world().broker.durable_by_name(NAME).unwrap();
        durable.lock().state.cursor().get()
    }

    async fn attach(&mut self, slot: usize) -> Judged {
        self.detach(slot);
        let (options, ready) = (self.model.options.clone(), self.ready.clone());
        let subscription = self.world().subscribe(&options, &ready, 1).await.unwrap();
        self.owners += 1;
        let owner = self.owners;
        let token = subscription.durable().unwrap().1;
        self.model.attach(owner);
        let session = Session { subscription, owner, token, is_old: false, told: None };
        self.sessions.insert(slot, session);
        // Who attaches is told first of what is gone.
        match self.model.items.iter().any(|item| item.gone) {
            true => self.pull(slot, 1, false).await,
            false => Ok(()),
        }
    }

    fn detach(&mut self, slot: usize) {
        if let Some(session) = self.sessions.remove(&slot) {
            let (durable, token) = session.subscription.durable().unwrap();
            let had = durable.lock().state.in_flight_of(token);
            drop(session.subscription);
            // What it had is told, whatever has become of it.
            let is_counted = had > 0 && self.model.options.max_deliveries > 0;
            self.is_dirty |= is_counted && !session.is_old;
            if !session.is_old {
                self.model.detach(session.owner);
            }
        }
    }

    async fn pull(&mut self, slot: usize, turns: u8, sent: bool) -> Judged {
        let Some(mut session) = self.sessions.remove(&slot) else { return Ok(()) };
        for _ in 0..turns {
            while self.ready.pop().is_some() {}
            // What lets leases end is looked at by whoever looks.
            let delivery = session.subscription.next().await.unwrap();
            if delivery.is_none() && self.ready.pop().is_some() {
                // It has woken itself: there is more to look at, and others go first.
                continue;
            }
            if !self.judge(&mut session, delivery)? {
                break;
            }
        }
        self.sessions.insert(slot, session);
        if sent {
            self.sent(slot);
        }
        Ok(())
    }

    /// False when there was nothing more.
    fn judge(&mut self, session: &mut Session, delivery: Option<Delivery>) -> Result<bool, String> {
        let (owner, now) = (session.owner, self.now);
        let is_mirror = self.model.options.mode == Mode::Mirror;
        let is_its = !session.is_old && self.model.is_its(owner);
        match delivery {
            None if !is_its => return Ok(false),
            None => {
                self.find_dying();
                self.model.nothing(owner, now)?;
                let due = session.subscription.next_due_ms();
                ensure!(due.is_none_or(|due| due > now), "{owner} would look again at once");
                return Ok(false);
            }
            Some(Delivery::Superseded) => ensure!(!is_its, "{owner} was superseded by nobody"),
            Some(Delivery::Events { range, events, attempts, .. }) => {
                ensure!(is_its, "{owner} was given what is another's");
                let attempts: BTreeMap<u64, u32> =
                    attempts.into_iter().map(|(offset, n)| (offset.get(), n)).collect();
                let events: Vec<u64> = events.iter().map(|event| event.offset().get()).collect();
                let given = events.iter().map(|at| (*at, attempts.get(at).copied().unwrap_or(1)));
                let given: Vec<(u64, u32)> = given.collect();
                let until = range.map_or(0, |(_, until)| until.get());
                if let Some((after, until)) = range {
                    let told = session.told.replace(until.get());
                    ensure!(
                        told.is_none_or(|told| told == after.get()),
                        "after {after}, not {told:?}"
                    );
                }
                match is_mirror {
                    true => self.model.mirrored(owner, &events, until, now)?,
                    false => {
                        self.model.delivered(owner, &given, now)?;
                        // In lanes nothing is said of what was passed.
                        if until > 0 {
                            self.model.passes(owner, until + 1, false, now)?;
                        }
                    }
                }
            }
            Some(Delivery::Acked(floor)) => {
                let high = self.model.lag().1.1;
                ensure!(floor.get() <= high, "the floor was told as {floor} before {high}");
            }
            Some(Delivery::CaughtUp(_)) => {}
            Some(Delivery::Gap(gap)) => {
                let after = gap.requested.get();
                ensure!(
                    session.told.is_none_or(|told| told <= after),
                    "a gap behind {after}, not {:?}",
                    session.told
                );
                ensure!(is_its, "{owner}, who was superseded, was told of a gap");
                self.model.gap(owner, after)?;
            }
        }
        Ok(true)
    }

    fn sent(&mut self, slot: usize) {
        if let Some(session) = self.sessions.get(&slot) {
            session.subscription.sent();
            if !session.is_old && self.model.is_its(session.owner) {
                self.model.sent(session.owner, self.now);
            }
        }
    }

    async fn fetch(&mut self, limit: usize) -> Judged {
        let broker = self.world().broker.clone();
        self.owners += 1;
        let owner = FETCHERS + self.owners;
        self.model.attach(owner);
        let fetched = broker.fetch(NAME, limit, Duration::ZERO).await.unwrap();
        if let Some(gap) = &fetched.gap {
            self.model.gap(owner, gap.requested.get())?;
        }
        let attempts: BTreeMap<Offset, u32> = fetched.attempts.into_iter().collect();
        let given = fetched.events.iter().map(|event| {
            (event.offset().get(), attempts.get(&event.offset()).copied().unwrap_or(1))
        });
        let given: Vec<(u64, u32)> = given.collect();
        if self.model.options.mode == Mode::Mirror {
            ensure!(
                given.iter().all(|(at, _)| self
                    .model
                    .items
                    .iter()
                    .any(|item| item.offset == *at && item.is_open())),
                "fetched {given:?}"
            );
            return Ok(());
        }
        self.model.delivered(owner, &given, self.now)?;
        self.model.sent(owner, self.now);
        if !given.is_empty() && self.model.options.order == Order::Log {
            // What waits for its key was looked at too.
            let looked = self.cursor();
            self.model.passes(owner, looked + 1, false, self.now)?;
        }
        if given.is_empty() && fetched.gap.is_some() {
            // What is behind the gap is looked for by the next one.
            return Box::pin(self.fetch(limit)).await;
        }
        if given.is_empty() {
            self.find_dying();
            self.model.nothing(owner, self.now)?;
        }
        Ok(())
    }

    /// Any events there are, matching or not.
    fn named(&self, events: &[usize]) -> Vec<u64> {
        let last = self.model.items.last().map_or(0, |item| item.offset);
        events.iter().map(|event| 1 + *event as u64).filter(|offset| *offset <= last).collect()
    }

    async fn ack(&mut self, slot: usize, events: &[usize], up_to: bool) -> Judged {
        let offsets = self.named(events);
        let Some(first) = offsets.first().copied() else { return Ok(()) };
        let session = self.sessions.get(&slot);
        if slot < 3 && session.is_none() {
            return Ok(());
        }
        let broker = self.world.as_ref().unwrap().broker.clone();
        let target = match up_to {
            true => Target::UpTo(offset(first)),
            false => Target::These(offsets.iter().map(|at| offset(*at)).collect()),
        };
        let (durable, from) = match session {
            Some(session) => {
                (session.subscription.durable().unwrap().0.clone(), Some(session.token))
            }
            None => (broker.durable_by_name(NAME).unwrap(), None),
        };
        let (owner, is_old) = session.map_or((None, false), |it| (Some(it.owner), it.is_old));
        let taken = broker.ack(&durable, &target, from).await;
        let (mode, order) = (self.model.options.mode, self.model.options.order);
        let is_cumulative = mode != Mode::Shared && order == Order::Log;
        let may = self.model.may_settle(None, owner);
        if is_old || up_to && !is_cumulative && may {
            ensure!(taken.is_err(), "an ack that is to be refused was taken");
            return Ok(());
        }
        ensure!(taken.is_ok(), "an ack was refused: {taken:?}");
        let given = if up_to { &offsets[..1] } else { &offsets[..] };
        self.model.ack(given, up_to, owner);
        self.has_acked = true;
        self.is_dirty = true;
        Ok(())
    }

    fn nack(&mut self, slot: usize, events: &[usize], delay_ms: Option<u64>) -> Judged {
        let offsets = self.named(events);
        let session = self.sessions.get(&slot);
        if offsets.is_empty() || slot < 3 && session.is_none() {
            return Ok(());
        }
        let broker = self.world.as_ref().unwrap().broker.clone();
        let (durable, from) = match session {
            Some(session) => {
                (session.subscription.durable().unwrap().0.clone(), Some(session.token))
            }
            None => (broker.durable_by_name(NAME).unwrap(), None),
        };
        let (owner, is_old) = session.map_or((None, false), |it| (Some(it.owner), it.is_old));
        let named: Vec<Offset> = offsets.iter().map(|at| offset(*at)).collect();
        let taken = broker.nack(&durable, &named, delay_ms, None, from);
        ensure!(taken.is_err() == is_old, "a nack: {taken:?}, of an old session: {is_old}");
        if !is_old {
            self.is_dirty = true;
            for offset in offsets {
                self.model.nack(offset, delay_ms, self.now, owner);
            }
        }
        Ok(())
    }

    fn advance(&mut self, ms: u64) {
        self.now += ms;
        held::set(Some(self.now));
        let durable = self.world().broker.durable_by_name(NAME).unwrap();
        // As if somebody looked: who looks when is the simulator's matter.
        durable.lock().state.ripen(self.now);
        durable.tell_graves();
        self.model.ripen(self.now);
        self.model.look(self.now);
    }

    fn redrive(&mut self, event: Option<usize>) -> Judged {
        if self.model.options.mode == Mode::Mirror {
            return Ok(());
        }
        let items = self.model.items.iter();
        // What was not wanted at the reset may have been passed before.
        let skipped = |item: &Item| item.skipped && item.offset > self.model.since;
        let is_there = |item: &Item| {
            let has_expired = item.expires.is_some_and(|at| at <= self.now);
            !item.gone && !item.void && !has_expired && self.model.wants(item)
        };
        // All the dead, or one that is dead or was skipped.
        let is_meant = |item: &&Item| {
            item.status == Status::Dead || event.is_some() && skipped(item) && is_there(item)
        };
        let expected: Vec<u64> = items.filter(is_meant).map(|item| item.offset).collect();
        let (named, expected) = match event {
            Some(event) => {
                let one = expected.get(event % expected.len().max(1)).copied();
                (Some(vec![one.unwrap_or(NOWHERE)]), Vec::from_iter(one))
            }
            None => (None, expected),
        };
        let broker = self.world().broker.clone();
        let durable = broker.durable_by_name(NAME).unwrap();
        let named: Option<Vec<Offset>> = named.map(|named| named.into_iter().map(offset).collect());
        let (_, redriven) = broker.redrive(&durable, named.as_deref()).unwrap();
        ensure!(redriven == expected, "redriven {redriven:?}, not {expected:?}");
        let cursor = self.cursor();
        redriven.into_iter().for_each(|at| self.model.redrive(at, cursor));
        self.is_dirty = true;
        Ok(())
    }

    async fn reset(&mut self, to: Option<usize>) -> Judged {
        let last = self.world().broker.log().committed().get();
        let to = to.map(|to| to as u64).filter(|to| *to <= last);
        let start = match to {
            None => Start::Now,
            Some(0) => Start::First,
            Some(at) => Start::After(Position { cursor: Cursor::new(at), log: None }),
        };
        let world = self.world();
        let broker = world.broker.clone();
        let first = broker.log().first().get() - 1;
        let reset = world.drive(broker.reset_durable(NAME, &start)).await;
        let matches = |topic| self.model.options.filters.matches(topic);
        let is_lost = |item: &Item| item.gone && matches(item.topic);
        if let Some(to) = to.filter(|to| {
            *to > 0 && self.model.items.iter().any(|item| is_lost(item) && item.offset > *to)
        }) {
            ensure!(reset.is_err(), "reset to {to}, behind which something is gone: {reset:?}");
            return Ok(());
        }
        let floor = reset.unwrap().get();
        let expected = if to == Some(0) { first } else { to.unwrap_or(last) };
        ensure!(floor == expected, "reset to {floor}, not {expected}");
        self.model.reset(floor);
        self.sessions.values_mut().for_each(|session| session.is_old = true);
        self.committed();
        Ok(())
    }

    async fn change(&mut self, options: SubscribeOptions) -> Judged {
        if options == self.model.options {
            return Ok(());
        }
        let world = self.world();
        let broker = world.broker.clone();
        let was_in_use = broker.durables.lock().contains_key(NAME);
        world.drive(broker.put_durable(NAME, &options, "alice")).await.unwrap();
        self.published();
        self.sessions.values_mut().for_each(|session| session.is_old = true);
        if (&options.filters, options.min_priority)
            != (&self.model.options.filters, self.model.options.min_priority)
        {
            self.model.since = broker.log().committed().get();
        }
        let durable = self.world().broker.durable_by_name(NAME).unwrap();
        self.model.change(options, |offset| durable.lock().state.is_acked(offset));
        // What became of what was out goes into a commit of its own before the answer.
        self.is_dirty |= was_in_use;
        self.saved();
        Ok(())
    }

    async fn erase(&mut self, topic: u8) -> Judged {
        self.world().step();
        self.committed();
        let items = self.model.items.iter();
        let gone: Vec<u64> = items.filter(|item| item.gone).map(|item| item.offset).collect();
        let topic = TOPICS[usize::from(topic)];
        let world = self.world();
        let broker = world.broker.clone();
        let erased = world.drive(broker.erase(&Topic::parse(topic).unwrap())).await.unwrap();
        ensure!(erased.done, "{topic} is not erased");
        self.note_gone(|item| item.topic == topic).await?;
        self.forget_dead(topic, &gone)?;
        self.save().await;
        let left = self.model.items.iter().find(|item| item.topic == topic && !item.gone);
        ensure!(left.is_none(), "an erasure has left {left:?}");
        Ok(())
    }

    /// With its events the letters about them have gone: the durable knows nothing of those dead.
    /// `gone` were so before.
    fn forget_dead(&mut self, topic: &str, gone: &[u64]) -> Judged {
        let durable = self.world().broker.durable_by_name(NAME).unwrap();
        let held = durable.lock();
        let dying: Vec<u64> = held.state.dying().collect();
        for item in self.model.items.iter_mut().filter(|item| item.topic == topic) {
            let is_dead = held.state.is_dead(item.offset);
            // The letter of one that died when it was gone does not say where it stood.
            let was_dead = item.status == Status::Dead && !(is_dead && gone.contains(&item.offset));
            ensure!(!was_dead || !is_dead, "{item:?} is dead still");
            // Some of the dying had their letters a moment before.
            let is_settled = !dying.contains(&item.offset) && held.state.is_acked(item.offset);
            if was_dead || item.status == Status::Dying && !is_dead && is_settled {
                item.status = Status::Done;
            }
        }
        Ok(())
    }

    async fn retain(&mut self, topic: Option<u8>, events: u64) -> Judged {
        let filter = topic.map_or("t.>", |topic| TOPICS[usize::from(topic)]);
        let filter = Filter::parse(filter).unwrap();
        let rule = RetentionRule { max_events: Some(events), ..RetentionRule::default() };
        let world = self.world();
        let broker = world.broker.clone();
        world.drive(broker.put_retention(filter.clone(), rule)).await.unwrap();
        broker.log().seal();
        world.step();
        world.drive(broker.retention_pass()).await.unwrap();
        world.drive(broker.delete_retention(filter.clone())).await.unwrap();
        self.committed();
        let of_rule = |item: &Item| filter.matches(item.topic) && !item.gone;
        let there = self.model.items.iter().rev().filter(|item| of_rule(item));
        let newest: Vec<u64> =
            there.take(usize::try_from(events).unwrap()).map(|item| item.offset).collect();
        self.note_gone(|item| filter.matches(item.topic) && !newest.contains(&item.offset)).await?;
        self.save().await;
        Ok(())
    }

    /// The state is in the log: what is taken out may have had it carried on.
    async fn save(&mut self) {
        let world = self.world();
        let broker = world.broker.clone();
        let durable = broker.durable_by_name(NAME).unwrap();
        let ticket = broker.submit(&durable).unwrap();
        world.drive(ticket).await.unwrap();
        self.committed();
    }

    /// What is gone, which only these may be.
    async fn note_gone(&mut self, may_go: impl Fn(&Item) -> bool) -> Judged {
        let broker = self.world().broker.clone();
        for item in self.model.items.iter_mut().filter(|item| !item.gone) {
            item.gone = broker.get(offset(item.offset)).await.unwrap().is_none();
            ensure!(!item.gone || may_go(item), "{item:?} is gone");
        }
        self.model.look(self.now);
        Ok(())
    }

    /// Nobody uses it: what is in the log is all there is.
    fn put_away(&mut self) {
        self.world().step();
        self.committed();
        let broker = self.world().broker.clone();
        broker.put_away();
        let is_away = !broker.durables.lock().contains_key(NAME);
        if is_away {
            self.model.put_away();
        }
    }

    fn kill(&mut self, seed: u64) {
        self.sessions.clear();
        self.reader = None;
        // What was not committed is not in the log.
        self.tickets.clear();
        let world = self.world.take().unwrap();
        self.world = Some(world.kill(seed));
        self.ready = Ready::new();
        self.is_dirty = false;
        self.saved_at = self.place();
        self.model.restart();
    }

    async fn read(&mut self, from: Option<usize>, last_per_key: bool) -> Judged {
        let log = self.world().broker.log().clone();
        let last = log.committed().get();
        let from = from.map(|from| from as u64).filter(|from| *from <= last);
        let topics = 2;
        let now = self.now;
        let has_expired = |item: &Item| item.expires.is_some_and(|at| at <= now);
        let matching = || {
            let items = self.model.items.iter();
            items.filter(move |item| TOPICS[..topics].contains(&item.topic))
        };
        // Up to where the events of a topic are gone, though some may be left.
        let trimmed = |topic| log.trimmed_upto(&Topic::parse(topic).unwrap()).get();
        for topic in &TOPICS[..topics] {
            let upto = trimmed(topic);
            let gone = || matching().filter(|item| item.gone && item.topic == *topic);
            let is_right = (upto == 0 || gone().any(|item| item.offset == upto))
                && gone().all(|item| !item.missed || item.offset <= upto);
            ensure!(is_right, "{topic} is gone up to {upto}");
        }
        let expected = match (last_per_key, from) {
            (true, _) => {
                // Nobody can say whether what is gone had the key.
                let is_left = |item: &&Item| !item.gone && item.offset > trimmed(item.topic);
                let there = matching().filter(is_left);
                let slots: BTreeMap<(&str, u8), &Item> =
                    there.map(|item| ((item.topic, item.key), item)).collect();
                // An older one is no state again when the newest has expired.
                let state = slots.into_values().filter(|item| !has_expired(item));
                let mut state: Vec<u64> = state.map(|item| item.offset).collect();
                state.sort_unstable();
                state.into()
            }
            (false, None) => VecDeque::new(),
            (false, Some(from)) => {
                // From the first there is: nothing is gone then.
                let is_after = |item: &&Item| item.offset > from && (from > 0 || !item.gone);
                matching().filter(is_after).map(|item| item.offset).collect()
            }
        };
        let after = from.filter(|_| !last_per_key);
        let wanted = SubscribeOptions {
            after: after.map(|at| After(Position { cursor: Cursor::new(at), log: None })),
            last_per_key,
            batch_max: self.model.options.batch_max,
            ..SubscribeOptions::to(filters(&TOPICS[..topics]))
        };
        let ready = self.ready.clone();
        self.reader = None;
        let subscription = self.world().subscribe(&wanted, &ready, 2).await.unwrap();
        let told = subscription.cursor().get();
        self.reader = Some(Reader { subscription, expected, told, told_gone: 0, topics });
        Ok(())
    }

    async fn read_on(&mut self, turns: u8) -> Judged {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let (items, now) = (&self.model.items, self.now);
        let is_lost = |item: &Item, topics| item.gone && TOPICS[..topics].contains(&item.topic);
        for _ in 0..turns {
            let delivery = reader.subscription.next().await.unwrap();
            // What has expired is owed to nobody, nor what is gone where that was told.
            let told_gone = reader.told_gone;
            let is_void = |offset: &u64| {
                items.iter().find(|item| item.offset == *offset).is_some_and(|item| {
                    item.gone && *offset <= told_gone || item.expires.is_some_and(|at| at <= now)
                })
            };
            reader.expected.retain(|offset| !is_void(offset));
            match delivery {
                None => {
                    ensure!(reader.expected.is_empty(), "a reader lacks {:?}", reader.expected);
                    break;
                }
                Some(Delivery::Events { range, events, .. }) => {
                    for event in events {
                        let next = reader.expected.pop_front();
                        let got = event.offset().get();
                        ensure!(next == Some(got), "a reader got {got} instead of {next:?}");
                    }
                    let (after, until) = range.unwrap();
                    ensure!(
                        after.get() == reader.told,
                        "a batch after {after}, not {}",
                        reader.told
                    );
                    reader.told = until.get();
                    let passed = reader.expected.front().is_some_and(|next| *next <= reader.told);
                    ensure!(!passed, "the cursor {until} has passed {:?}", reader.expected);
                }
                Some(Delivery::CaughtUp(_)) => {}
                Some(Delivery::Gap(gap)) => {
                    let lost = items.iter().rfind(|item| is_lost(item, reader.topics));
                    let lost = lost.map_or(0, |item| item.offset);
                    ensure!(lost > gap.requested.get(), "a reader was told of {gap:?}");
                    reader.told_gone = lost;
                }
                Some(other) => return Err(format!("a reader got {other:?}")),
            }
        }
        Ok(())
    }

    /// What was delivered as often as it may be dies when it is looked at: that may be before its turn.
    fn find_dead_early(&mut self) {
        let Ok(durable) = self.world().broker.durable_by_name(NAME) else { return };
        let known: Vec<u64> = durable.lock().state.dead().keys().copied().collect();
        let max = self.model.options.max_deliveries;
        for item in self.model.items.iter_mut().filter(|item| max > 0 && item.attempts >= max) {
            if known.contains(&item.offset) && !item.taken && item.is_open() {
                (item.status, item.taken) = (Status::Dead, true);
            }
        }
    }

    /// It may also die before it is found to be void, and takes room until its letter is written; and never where lanes pass
    /// it, because it is gone.
    fn find_dying(&mut self) {
        let durable = self.world().broker.durable_by_name(NAME).unwrap();
        let dying: Vec<u64> = durable.lock().state.dying().collect();
        let max = self.model.options.max_deliveries;
        for item in self.model.items.iter_mut().filter(|item| max > 0 && item.attempts >= max) {
            let is_dying = dying.contains(&item.offset);
            let is_left = (item.maybe || !item.taken) && item.status == Status::Open;
            if is_dying && item.void && (item.status == Status::Done || is_left) {
                (item.status, item.taken) = (Status::Dying, true);
            } else if item.gone && item.status == Status::Dying && !is_dying {
                (item.status, item.taken) = (Status::Open, false);
            }
        }
    }

    /// Floor, lag, receipts, dead.
    async fn compare(&mut self) -> Judged {
        self.model.look(self.now);
        let broker = self.world().broker.clone();
        let info = broker.durable_info(NAME).await.unwrap().unwrap();
        let durable = broker.durable_by_name(NAME).unwrap();
        self.find_dead_early();
        self.find_dying();
        let ((least, most), (low, high)) = self.model.lag();
        ensure!((least..=most).contains(&info.lag), "lag {}, not {least} to {most}", info.lag);
        let floor = info.cursor.get();
        // The floor of a mirror goes up with an ack, or past what has expired when somebody begins to look, and not before
        // somebody was told of what is gone.
        let is_told =
            self.model.items.iter().all(|item| !item.gone || item.offset <= self.model.told);
        let may_stay = self.model.options.mode == Mode::Mirror && !(self.has_acked && is_told);
        let low = if may_stay { 0 } else { low };
        ensure!((low..=high).contains(&floor), "floor {floor}, not {low} to {high}");
        ensure!(info.paused == self.model.paused, "paused: {}", info.paused);
        let dead = |item: &&Item| item.status == Status::Dead;
        let dead: Vec<u64> = self.model.items.iter().filter(dead).map(|item| item.offset).collect();
        ensure!(info.dead == dead.len() as u64, "{} are dead, not {dead:?}", info.dead);
        let (letters, _) = broker.dead_letters(&durable, Cursor::START, 1000).await.unwrap();
        let mut lettered: Vec<(u64, u32)> =
            letters.iter().map(|letter| (letter.letter.offset, letter.letter.attempts)).collect();
        // Of those that a reset has passed the letters are still there.
        let skipped: Vec<u64> =
            self.model.items.iter().filter(|it| it.skipped).map(|item| item.offset).collect();
        lettered.retain(|(at, _)| dead.contains(at) || !skipped.contains(at));
        lettered.sort_unstable();
        let expected: Vec<(u64, u32)> =
            dead.iter().map(|at| (*at, self.model.options.max_deliveries)).collect();
        ensure!(lettered == expected, "letters of {lettered:?}, not {expected:?}");
        self.deaths += dead.len();
        let is_maybe = self.is_of_state || self.model.options.conflate_ms > 0;
        for item in self.model.items.iter().filter(|item| self.model.wants(item)) {
            if is_maybe || item.gone || item.void || item.expires.is_some_and(|at| at <= self.now) {
                continue;
            }
            let stored = broker.get(offset(item.offset)).await.unwrap().unwrap();
            let (receipts, _) = broker.receipts(&stored, None, usize::MAX).await;
            let state = receipts.first().map(|receipt| receipt.state);
            let expected = match item.status {
                Status::Dead => ReceiptState::Dead,
                Status::Done if item.skipped => ReceiptState::Skipped,
                Status::Done => ReceiptState::Acked,
                Status::Sending | Status::Leased => ReceiptState::InFlight,
                _ => ReceiptState::Pending,
            };
            let expected = (item.offset > self.model.since).then_some(expected);
            ensure!(state == expected, "receipt {state:?}, not {expected:?}: {item:?}");
        }
        Ok(())
    }
}

fn agree(case: Case) -> Judged {
    run(async {
        let ops = case.ops.clone();
        let mut test = Test::new(&case).await;
        for (n, op) in ops.into_iter().enumerate() {
            let text = format!("{op:?}");
            test.has_acked = false;
            let judged = match test.step(op).await {
                Ok(()) => test.compare().await,
                wrong => wrong,
            };
            judged.map_err(|wrong| format!("at {n}, {text}: {wrong}"))?;
        }
        Ok(())
    })
}

/// A seventh of all cases.
fn cases() -> ProptestConfig {
    let cases = u32::try_from(number("TIDINGS_CASES", 3_000).div_ceil(7)).unwrap_or(u32::MAX);
    // The same cases at every run, but for a full one.
    let rng_seed = match std::env::var_os("TIDINGS_CASES") {
        Some(_) => proptest::test_runner::RngSeed::Random,
        None => proptest::test_runner::RngSeed::Fixed(0),
    };
    ProptestConfig { cases, max_shrink_iters: 20_000, rng_seed, ..ProptestConfig::default() }
}

macro_rules! agrees {
    ($(fn $name:ident($kind:literal);)*) => { proptest! {
        #![proptest_config(cases())]
        $(#[test]
        fn $name(case in case($kind)) {
            let judged = agree(case);
            prop_assert!(judged.is_ok(), "{}", judged.unwrap_err());
        })*
    } };
}

agrees! {
    fn an_exclusive_durable_does_what_the_model_says("exclusive");
    fn a_shared_durable_does_what_the_model_says("shared");
    fn a_partitioned_durable_does_what_the_model_says("partitioned");
    fn a_mirror_does_what_the_model_says("mirror");
    fn a_durable_with_lanes_does_what_the_model_says("lanes");
    fn a_durable_of_states_does_what_the_model_says("states");
    fn a_shared_durable_of_states_does_what_the_model_says("shared states");
}
