//! Random operations on the real broker and on the model: what is delivered, the floor, the lag, the receipts
//! and the dead must agree.
//!
//! `TIDINGS_CASES` says how many cases there are in all (3,000 unless said; a full run has 100,000).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::prelude::*;
use tidings_proto::{
    Cursor, Mode, Offset, Position, Priority, Start, SubscribeOptions,
    message::ReceiptState,
    subscribe::{After, Order, PartitionBy},
};

use super::{
    super::{Ready, Subscription, Target, Token, publish::PublishTicket, subscription::Delivery},
    model::{self, Item, Judged, Model, Spec, Status},
    world::{World, event, filters, number, offset, outcome, run},
};
use crate::clock::held;

mod found;

const NAME: &str = "d";
const FETCHERS: u64 = 1 << 32;
const PRIORITIES: [Priority; 4] =
    [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];

/// Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Op {
    Publish { topic: u8, key: u8, priority: u8 },
    Commit,
    Attach { slot: usize },
    Detach { slot: usize },
    Pull { slot: usize, turns: u8, sent: bool },
    Sent { slot: usize },
    Fetch { limit: usize },
    Ack { slot: usize, events: Vec<usize>, up_to: bool },
    Nack { slot: usize, events: Vec<usize>, delay_ms: Option<u64> },
    Advance { ms: u64 },
    Redrive { event: Option<usize> },
    Pause { paused: bool },
    Reset { to: Option<usize> },
    Kill { seed: u64 },
    Read { from: Option<usize>, last_per_key: bool },
    ReadOn { turns: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    let slot = 0..3_usize;
    let events = prop::collection::vec(0..60_usize, 1..4);
    prop_oneof![
        12 => (0..3_u8, 0..3_u8, 0..4_u8)
            .prop_map(|(topic, key, priority)| Op::Publish { topic, key, priority }),
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
        2 => any::<bool>().prop_map(|paused| Op::Pause { paused }),
        1 => prop::option::of(0..40_usize).prop_map(|to| Op::Reset { to }),
        2 => any::<u64>().prop_map(|seed| Op::Kill { seed }),
        2 => (prop::option::of(0..40_usize), any::<bool>())
            .prop_map(|(from, last_per_key)| Op::Read { from, last_per_key }),
        4 => (1..5_u8).prop_map(|turns| Op::ReadOn { turns }),
    ]
}

/// What is the same for all ops of a case.
#[derive(Clone, Debug)]
struct Case {
    spec: Spec,
    batch_max: u32,
    last_per_key: bool,
    /// How many events there are to begin with.
    before: u8,
    tail_bytes: usize,
    ops: Vec<Op>,
}

fn case(kind: &'static str) -> impl Strategy<Value = Case> {
    let limits = (1..8_usize, prop_oneof![Just(0), 10..60_u64], 0..4_u32);
    let backoff = prop::collection::vec(0..50_u64, 0..3);
    let how = (any::<bool>(), 1..6_u32, prop_oneof![Just(1), Just(1 << 20)], 1..4_u8);
    (limits, backoff, how, prop::collection::vec(op(), 1..70)).prop_map(
        move |(
            (max_in_flight, ack_wait_ms, max),
            backoff_ms,
            (coin, batch_max, tail, topics),
            ops,
        )| {
            let mode = match kind {
                "mirror" => model::Mode::Mirror,
                "shared" | "partitioned" => model::Mode::Shared,
                "lanes" if coin => model::Mode::Shared,
                _ => model::Mode::Exclusive,
            };
            let spec = Spec {
                mode,
                partitioned: kind == "partitioned",
                lanes: kind == "lanes",
                conflate_ms: if kind == "states" && coin { 20 } else { 0 },
                topics,
                max_in_flight: if kind == "lanes" { 5 * max_in_flight } else { max_in_flight },
                ack_wait_ms,
                max_deliveries: if kind == "mirror" { 0 } else { max },
                backoff_ms,
            };
            let last_per_key = kind == "states" && !coin;
            // A state, or more than one turn of the lanes.
            let before = if kind == "lanes" { 24 } else { u8::from(last_per_key) * 6 };
            Case { spec, batch_max, last_per_key, before, tail_bytes: tail, ops }
        },
    )
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
    expected: std::collections::VecDeque<u64>,
    told: u64,
    topics: u8,
}

struct Test {
    case: Case,
    world: Option<World>,
    model: Model,
    all: Vec<Item>,
    tickets: Vec<(PublishTicket, Item)>,
    sessions: BTreeMap<usize, Session>,
    reader: Option<Reader>,
    ready: Arc<Ready>,
    owners: u64,
    now: u64,
    deaths: usize,
}

fn texts(topics: u8) -> Vec<&'static str> {
    ["t.0", "t.1", "t.2"].into_iter().take(usize::from(topics)).collect()
}

fn options(case: &Case) -> SubscribeOptions {
    let spec = &case.spec;
    SubscribeOptions {
        durable: Some(NAME.to_owned()),
        mode: match spec.mode {
            model::Mode::Exclusive => Mode::Exclusive,
            model::Mode::Shared => Mode::Shared,
            model::Mode::Mirror => Mode::Mirror,
        },
        partition_by: spec.partitioned.then_some(PartitionBy::Key),
        order: if spec.lanes { Order::Priority } else { Order::Log },
        conflate_ms: spec.conflate_ms,
        max_in_flight: u32::try_from(spec.max_in_flight).unwrap(),
        ack_wait_ms: spec.ack_wait_ms,
        max_deliveries: spec.max_deliveries,
        backoff_ms: spec.backoff_ms.clone(),
        batch_max: case.batch_max,
        last_per_key: case.last_per_key,
        start: if case.last_per_key { Start::Now } else { Start::First },
        ..SubscribeOptions::to(filters(&texts(spec.topics)))
    }
}

impl Test {
    async fn new(case: Case) -> Test {
        let mut world = World::new(1, case.tail_bytes);
        let mut all = Vec::new();
        for n in 0..case.before {
            let priority = if case.spec.lanes && n > 0 { 1 + n % 3 } else { u8::from(n > 0) };
            let urgency = PRIORITIES[usize::from(priority)];
            let ticket = world.publish(event(n % 3, n % 2, urgency, None)).await;
            let placed = world.drive(ticket).await.unwrap();
            all.push(Item::new(placed[0].offset.get(), n % 3, n % 2, priority, 1_000));
        }
        let until = world.broker.log().committed().get();
        let made = options(&case);
        let broker = world.broker.clone();
        world.drive(broker.put_durable(NAME, &made, "alice")).await.unwrap();
        let until = if case.last_per_key { until } else { 0 };
        let model = Model::new(case.spec.clone(), all.clone(), 0, until);
        Test {
            case,
            world: Some(world),
            model,
            all,
            tickets: Vec::new(),
            sessions: BTreeMap::new(),
            reader: None,
            ready: Ready::new(),
            owners: 0,
            now: 1_000,
            deaths: 0,
        }
    }

    fn world(&mut self) -> &mut World {
        self.world.as_mut().unwrap()
    }

    /// A commit has been: the events stand where the tickets say.
    fn committed(&mut self, anyway: bool) {
        self.model.commit(anyway);
        for (mut ticket, item) in std::mem::take(&mut self.tickets) {
            let placed = outcome(&mut ticket).unwrap().unwrap();
            let item =
                Item::new(placed[0].offset.get(), item.topic, item.key, item.priority, self.now);
            self.all.push(item.clone());
            if let Some(reader) = self.reader.as_mut().filter(|reader| item.topic < reader.topics) {
                reader.expected.push_back(item.offset);
            }
            self.model.published(item);
        }
    }

    async fn step(&mut self, op: Op) -> Judged {
        match op {
            Op::Publish { topic, key, priority } => {
                let urgency = PRIORITIES[usize::from(priority)];
                let ticket = self.world().publish(event(topic, key, urgency, None)).await;
                self.tickets.push((ticket, Item::new(0, topic, key, priority, 0)));
            }
            Op::Commit => {
                self.world().step();
                self.committed(false);
            }
            Op::Attach { slot } => self.attach(slot).await,
            Op::Detach { slot } => self.detach(slot),
            Op::Pull { slot, turns, sent } => self.pull(slot, turns, sent).await?,
            Op::Sent { slot } => self.sent(slot),
            Op::Fetch { limit } => self.fetch(limit).await?,
            Op::Ack { slot, events, up_to } => self.ack(slot, &events, up_to).await?,
            Op::Nack { slot, events, delay_ms } => self.nack(slot, &events, delay_ms)?,
            Op::Advance { ms } => self.advance(ms),
            Op::Redrive { event } => self.redrive(event)?,
            Op::Pause { paused } => {
                let world = self.world();
                let broker = world.broker.clone();
                world.drive(broker.pause_durable(NAME, paused)).await.unwrap();
                let wrote = std::mem::replace(&mut self.model.paused, paused) != paused;
                if wrote {
                    self.committed(false);
                }
            }
            Op::Reset { to } => self.reset(to).await?,
            Op::Kill { seed } => self.kill(seed),
            Op::Read { from, last_per_key } => self.read(from, last_per_key).await,
            Op::ReadOn { turns } => self.read_on(turns).await?,
        }
        self.world().settle().await;
        Ok(())
    }

    async fn attach(&mut self, slot: usize) {
        self.detach(slot);
        let made = options(&self.case);
        let made = match self.case.last_per_key {
            // It was made so; attaching asks for nothing.
            true => SubscribeOptions { last_per_key: false, ..made },
            false => made,
        };
        let ready = self.ready.clone();
        let subscription = self.world().subscribe(&made, &ready, 1).await.unwrap();
        self.owners += 1;
        let owner = self.owners;
        let token = subscription.durable().unwrap().1;
        self.model.attach(owner);
        let session = Session { subscription, owner, token, is_old: false, told: None };
        self.sessions.insert(slot, session);
    }

    fn detach(&mut self, slot: usize) {
        if let Some(session) = self.sessions.remove(&slot) {
            let (durable, token) = session.subscription.durable().unwrap();
            let had = durable.lock().state.in_flight_of(token);
            drop(session.subscription);
            // Its name is told, whatever has become of it.
            self.model.dirty |= session.is_old && had > 0 && self.case.spec.max_deliveries > 0;
            if !session.is_old {
                self.model.detach(session.owner);
            }
        }
    }

    async fn pull(&mut self, slot: usize, turns: u8, sent: bool) -> Judged {
        let Some(mut session) = self.sessions.remove(&slot) else { return Ok(()) };
        for _ in 0..turns {
            // What lets leases end is looked at by whoever looks.
            let delivery = session.subscription.next().await.unwrap();
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
        let is_mirror = self.case.spec.mode == model::Mode::Mirror;
        let is_its = !session.is_old && self.model.is_holder(owner);
        match delivery {
            None if !is_its => return Ok(false),
            None if is_mirror => {
                if !self.model.paused {
                    self.model.mirrored(owner, &[], u64::MAX >> 1)?;
                }
                return Ok(false);
            }
            None => {
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
                    true => self.model.mirrored(owner, &events, until)?,
                    false => {
                        self.model.delivered(owner, &given, now)?;
                        self.model.pass(until, now, owner)?;
                    }
                }
            }
            Some(Delivery::Acked(floor)) => {
                let high = self.model.lag().1.1;
                ensure!(floor.get() <= high, "the floor was told as {floor} before {high}");
            }
            Some(Delivery::CaughtUp(_)) => {}
            Some(Delivery::Gap(gap)) => return Err(format!("a gap: {gap:?}")),
        }
        Ok(true)
    }

    fn sent(&mut self, slot: usize) {
        if let Some(session) = self.sessions.get(&slot) {
            session.subscription.sent();
            if !session.is_old && self.model.is_holder(session.owner) {
                self.model.sent(session.owner, self.now);
            }
        }
    }

    async fn fetch(&mut self, limit: usize) -> Judged {
        let broker = self.world().broker.clone();
        self.owners += 1;
        let owner = FETCHERS + self.owners;
        self.model.attach_fetch();
        let fetched = broker.fetch(NAME, limit, Duration::ZERO).await.unwrap();
        let attempts: BTreeMap<Offset, u32> = fetched.attempts.into_iter().collect();
        let given = fetched.events.iter().map(|event| {
            (event.offset().get(), attempts.get(&event.offset()).copied().unwrap_or(1))
        });
        let given: Vec<(u64, u32)> = given.collect();
        if self.case.spec.mode == model::Mode::Mirror {
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
        if given.is_empty() {
            self.model.nothing(owner, self.now)?;
        }
        Ok(())
    }

    /// Any events there are, matching or not.
    fn named(&self, events: &[usize]) -> Vec<u64> {
        let last = self.all.last().map_or(0, |item| item.offset);
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
        let spec = &self.case.spec;
        let is_cumulative = spec.mode != model::Mode::Shared && !spec.lanes;
        let may = self.model.may_settle(owner);
        if is_old || up_to && !is_cumulative && may {
            ensure!(taken.is_err(), "an ack that is to be refused was taken");
            return Ok(());
        }
        ensure!(taken.is_ok(), "an ack was refused: {taken:?}");
        let given = if up_to { &offsets[..1] } else { &offsets[..] };
        self.model.ack(given, up_to, owner);
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
            self.model.nack(&offsets, delay_ms, self.now, owner);
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
    }

    fn redrive(&mut self, event: Option<usize>) -> Judged {
        if self.case.spec.mode == model::Mode::Mirror {
            return Ok(());
        }
        let dead: Vec<u64> = self
            .model
            .items
            .iter()
            .filter(|item| item.status == Status::Dead)
            .map(|item| item.offset)
            .collect();
        let these = event.map(|event| dead.get(event % dead.len().max(1)).map_or(1, |at| *at));
        let broker = self.world().broker.clone();
        let durable = broker.durable_by_name(NAME).unwrap();
        let named = these.map(|at| vec![offset(at)]);
        let (_, redriven) = broker.redrive(&durable, named.as_deref()).unwrap();
        let expected = self.model.redrive(these.map(|at| vec![at]).as_deref());
        ensure!(redriven == expected, "redriven {redriven:?}, not {expected:?}");
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
        let floor = world.drive(broker.reset_durable(NAME, &start)).await.unwrap();
        ensure!(floor.get() == to.unwrap_or(last), "reset to {floor}");
        self.model.reset(floor.get());
        self.sessions.values_mut().for_each(|session| session.is_old = true);
        self.committed(true);
        Ok(())
    }

    fn kill(&mut self, seed: u64) {
        self.sessions.clear();
        self.reader = None;
        // What was not committed is not in the log.
        self.tickets.clear();
        let world = self.world.take().unwrap();
        self.world = Some(world.kill(seed));
        self.ready = Ready::new();
        self.model.restart();
    }

    async fn read(&mut self, from: Option<usize>, last_per_key: bool) {
        let last = self.world().broker.log().committed().get();
        let from = from.map(|from| from as u64).filter(|from| *from <= last);
        let topics = 2;
        let matching = || self.all.iter().filter(|item| item.topic < topics);
        let expected = match (last_per_key, from) {
            (true, _) => {
                let slots: BTreeMap<(u8, u8), u64> =
                    matching().map(|item| ((item.topic, item.key), item.offset)).collect();
                let mut state: Vec<u64> = slots.into_values().collect();
                state.sort_unstable();
                state.into()
            }
            (false, None) => std::collections::VecDeque::new(),
            (false, Some(from)) => {
                matching().map(|item| item.offset).filter(|offset| *offset > from).collect()
            }
        };
        let after = from.filter(|_| !last_per_key);
        let wanted = SubscribeOptions {
            after: after.map(|at| After(Position { cursor: Cursor::new(at), log: None })),
            last_per_key,
            batch_max: self.case.batch_max,
            ..SubscribeOptions::to(filters(&texts(topics)))
        };
        let ready = self.ready.clone();
        self.reader = None;
        let subscription = self.world().subscribe(&wanted, &ready, 2).await.unwrap();
        let told = subscription.cursor().get();
        self.reader = Some(Reader { subscription, expected, told, topics });
    }

    async fn read_on(&mut self, turns: u8) -> Judged {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        for _ in 0..turns {
            match reader.subscription.next().await.unwrap() {
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
                Some(other) => return Err(format!("a reader got {other:?}")),
            }
        }
        Ok(())
    }

    /// Floor, lag, receipts, dead.
    async fn compare(&mut self) -> Judged {
        let broker = self.world().broker.clone();
        let info = broker.durable_info(NAME).await.unwrap().unwrap();
        let ((least, most), (low, high)) = self.model.lag();
        ensure!((least..=most).contains(&info.lag), "lag {}, not {least} to {most}", info.lag);
        let floor = info.cursor.get();
        ensure!((low..=high).contains(&floor), "floor {floor}, not {low} to {high}");
        ensure!(info.paused == self.model.paused, "paused: {}", info.paused);
        let dead = |item: &&Item| item.status == Status::Dead;
        let dead: Vec<u64> = self.model.items.iter().filter(dead).map(|item| item.offset).collect();
        ensure!(info.dead == dead.len() as u64, "{} are dead, not {dead:?}", info.dead);
        let durable = broker.durable_by_name(NAME).unwrap();
        let (letters, _) = broker.dead_letters(&durable, Cursor::START, 1000).await.unwrap();
        let mut lettered: Vec<(u64, u32)> =
            letters.iter().map(|letter| (letter.letter.offset, letter.letter.attempts)).collect();
        lettered.sort_unstable();
        let expected: Vec<(u64, u32)> =
            dead.iter().map(|at| (*at, self.case.spec.max_deliveries)).collect();
        ensure!(lettered == expected, "letters of {lettered:?}, not {expected:?}");
        self.deaths += dead.len();
        for item in self.model.items.clone() {
            let stored = broker.get(offset(item.offset)).await.unwrap().unwrap();
            let receipts = broker.receipts(&stored);
            let state = receipts.first().map(|receipt| receipt.state);
            let expected = match item.status {
                Status::Dead => ReceiptState::Dead,
                Status::Done => ReceiptState::Acked,
                Status::Sending(_) | Status::Leased(..) => ReceiptState::InFlight,
                _ => ReceiptState::Pending,
            };
            let is_maybe = self.case.last_per_key || self.case.spec.conflate_ms > 0;
            ensure!(is_maybe || state == Some(expected), "receipt {state:?}: {item:?}");
        }
        Ok(())
    }
}

fn agree(case: Case) -> Judged {
    run(async {
        let ops = case.ops.clone();
        let mut test = Test::new(case).await;
        for (n, op) in ops.into_iter().enumerate() {
            let text = format!("{op:?}");
            let judged = match test.step(op).await {
                Ok(()) => test.compare().await,
                wrong => wrong,
            };
            judged.map_err(|wrong| format!("at {n}, {text}: {wrong}"))?;
        }
        Ok(())
    })
}

/// A sixth of all cases.
fn cases() -> ProptestConfig {
    let cases = u32::try_from(number("TIDINGS_CASES", 3_000).div_ceil(6)).unwrap_or(u32::MAX);
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
}
