//! Publishers and subscribers of every kind, with delays, dropped connections, lost and repeated acks, and kills:
//! whatever happens, each of them ends with what it was promised.
//!
//! - A subscriber is asked only when the broker has woken it or a time it named has come: a lost wake-up is a loss.
//! - Everything hangs on the seed. `TIDINGS_SEEDS` says how many there are (2,000 unless said), `TIDINGS_SEED` runs one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tidings_proto::{
    Cursor, Mode, Position, Priority, Start, SubscribeOptions,
    subscribe::{After, Order, PartitionBy},
};

use super::{
    super::{
        AckTicket, Durable, Ready, Subscription, Target, Token, publish::PublishTicket,
        subscription::Delivery,
    },
    model::Judged,
    world::{World, event, filters, number, offset, outcome, run},
};
use crate::{
    clock::held,
    log::{ReadLimit, Stored},
};

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Resumes by its cursor.
    Reader,
    /// The same, of states.
    StateReader,
    Exclusive,
    Shared,
    Partitioned,
    Mirror,
    Lanes,
    States,
    /// Events die.
    Limited,
}
use Kind::{Exclusive, Lanes, Limited, Mirror, Partitioned, Reader, Shared, StateReader, States};

const KINDS: [Kind; 9] =
    [Reader, StateReader, Exclusive, Shared, Partitioned, Mirror, Lanes, States, Limited];

impl Kind {
    fn is_durable(self) -> bool {
        !matches!(self, Reader | StateReader)
    }

    fn is_of_many(self) -> bool {
        matches!(self, Exclusive | Shared | Partitioned | Mirror | Limited)
    }

    fn name(self) -> String {
        format!("{self:?}")
    }

    fn conflates(self) -> bool {
        matches!(self, States | StateReader)
    }
}

/// An event as its subscriber sees it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    offset: u64,
    topic: u8,
    key: u8,
    priority: Priority,
}

fn seen(event: &Stored) -> Seen {
    let last = |text: &str| text.as_bytes().last().map_or(0, |byte| byte - b'0');
    Seen {
        offset: event.offset().get(),
        topic: last(event.topic().as_str()),
        key: event.key().map_or(0, last),
        priority: event.priority(),
    }
}

/// One subscriber and its connection.
struct Client {
    kind: Kind,
    connection: Option<Connection>,
    /// An ephemeral one keeps its cursor.
    cursor: u64,
    /// What a reader was given, once each.
    given: Vec<u64>,
}

struct Connection {
    subscription: Subscription,
    ready: Arc<Ready>,
    /// On its way to the socket.
    wire: Vec<Seen>,
    /// Taken, and not looked at yet.
    inbox: VecDeque<Seen>,
    told: Option<u64>,
    /// By lane, the last that came for the first time.
    newest: BTreeMap<Option<Priority>, u64>,
    is_over: bool,
}

/// What all subscribers of a durable have done together.
#[derive(Default)]
struct Work {
    /// Done, once each.
    effects: BTreeSet<u64>,
    /// The first time each was done.
    order: Vec<Seen>,
    /// Acks that were answered.
    settled: BTreeSet<u64>,
    floor: u64,
}

struct Waiting {
    ticket: AckTicket,
    kind: Kind,
    offsets: Vec<u64>,
    floor: u64,
}

struct Publisher {
    name: u64,
    made: u64,
    waiting: Option<(String, Option<PublishTicket>)>,
    /// Answered: id and offset.
    answered: BTreeMap<String, u64>,
    what: (u8, u8, Priority),
}

struct Simulation {
    random: Random,
    world: Option<World>,
    now: u64,
    kinds: Vec<Kind>,
    publishers: Vec<Publisher>,
    clients: Vec<Client>,
    work: BTreeMap<Kind, Work>,
    acks: Vec<Waiting>,
    events: u64,
    max_in_flight: u32,
    /// Nothing goes wrong any more.
    is_calm: bool,
}

const TOPICS: [&str; 2] = ["t.0", "t.1"];

impl Simulation {
    async fn new(seed: u64) -> Simulation {
        let mut random = Random(seed);
        let tail_bytes = if random.chance(50) { 1 } else { 1 << 20 };
        let world = World::new(seed, tail_bytes);
        let kinds: Vec<Kind> = KINDS.into_iter().filter(|_| random.chance(45)).collect();
        let mut clients = Vec::new();
        for kind in &kinds {
            for _ in 0..if kind.is_of_many() { 2 } else { 1 } {
                clients.push(Client {
                    kind: *kind,
                    connection: None,
                    cursor: 0,
                    given: Vec::new(),
                });
            }
        }
        let publisher = |name| Publisher {
            name,
            made: 0,
            waiting: None,
            answered: BTreeMap::new(),
            what: (0, 0, Priority::Normal),
        };
        let (events, max_in_flight) =
            (random.below(25) + 1, u32::try_from(random.below(8)).unwrap() + 1);
        let mut simulation = Simulation {
            random,
            world: Some(world),
            now: 1_000,
            work: kinds.iter().map(|kind| (*kind, Work::default())).collect(),
            kinds,
            publishers: (0..2).map(publisher).collect(),
            clients,
            acks: Vec::new(),
            events,
            max_in_flight,
            is_calm: false,
        };
        for kind in simulation.kinds.clone().into_iter().filter(|kind| kind.is_durable()) {
            let options = simulation.options(kind);
            let world = simulation.world();
            let broker = world.broker.clone();
            world.drive(broker.put_durable(&kind.name(), &options, "alice")).await.unwrap();
        }
        simulation
    }

    fn world(&mut self) -> &mut World {
        self.world.as_mut().unwrap()
    }

    fn options(&self, kind: Kind) -> SubscribeOptions {
        let options = SubscribeOptions::to(filters(&TOPICS));
        let conflate_ms = if kind.conflates() { 30 } else { 0 };
        if !kind.is_durable() {
            return SubscribeOptions { conflate_ms, batch_max: 4, ..options };
        }
        let durable = SubscribeOptions {
            durable: Some(kind.name()),
            start: Start::First,
            conflate_ms,
            batch_max: 4,
            ..options
        };
        if kind == Mirror {
            return SubscribeOptions { mode: Mode::Mirror, ..durable };
        }
        SubscribeOptions {
            mode: match kind {
                Shared | Partitioned | Limited => Mode::Shared,
                _ => Mode::Exclusive,
            },
            partition_by: (kind == Partitioned).then_some(PartitionBy::Key),
            order: if kind == Lanes { Order::Priority } else { Order::Log },
            max_in_flight: self.max_in_flight,
            ack_wait_ms: 100,
            max_deliveries: if kind == Limited { 2 } else { 0 },
            ..durable
        }
    }

    // ---- what happens

    async fn step(&mut self) -> Judged {
        match self.random.below(100) {
            0..20 => self.publish().await,
            20..35 => self.commit()?,
            35..45 => self.advance(),
            45..46 if !self.is_calm => return self.kill().await,
            _ => {
                if self.clients.is_empty() {
                    return Ok(());
                }
                let at = self.random.below(self.clients.len() as u64);
                let at = usize::try_from(at).unwrap();
                self.act(at).await?;
            }
        }
        self.world().settle().await;
        Ok(())
    }

    async fn act(&mut self, at: usize) -> Judged {
        let is_connected = self.clients[at].connection.as_ref().is_some_and(|it| !it.is_over);
        if !is_connected {
            return self.connect(at).await;
        }
        match self.random.below(12) {
            0 if !self.is_calm => drop(self.clients[at].connection.take()),
            1 if !self.is_calm && self.clients[at].kind == Shared => self.fetch().await?,
            0..5 => self.ask(at).await?,
            5..8 => self.flush(at),
            _ => self.look(at).await?,
        }
        Ok(())
    }

    async fn publish(&mut self) {
        let at = usize::try_from(self.random.below(2)).unwrap();
        let priorities = [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];
        let priority = priorities[usize::try_from(self.random.below(4)).unwrap()];
        let what = (self.random.below(3) as u8, self.random.below(3) as u8, priority);
        let (broker, events) = (self.world().broker.clone(), self.events);
        let publisher = &mut self.publishers[at];
        if publisher.waiting.is_none() && publisher.made < events {
            publisher.made += 1;
            publisher.what = what;
            publisher.waiting = Some((format!("p{}-{}", publisher.name, publisher.made), None));
        }
        let (topic, key, priority) = publisher.what;
        if let Some((id, ticket @ None)) = &mut publisher.waiting {
            // What is refused is tried again, under the same id.
            *ticket =
                broker.publish("alice", vec![event(topic, key, priority, Some(id))]).await.ok();
        }
    }

    fn commit(&mut self) -> Judged {
        self.world().step();
        for publisher in &mut self.publishers {
            let Some((id, Some(ticket))) = &mut publisher.waiting else { continue };
            match outcome(ticket) {
                Some(Ok(placed)) => {
                    publisher.answered.insert(id.clone(), placed[0].offset.get());
                    publisher.waiting = None;
                }
                Some(Err(_)) => publisher.waiting = Some((id.clone(), None)),
                None => {}
            }
        }
        for mut waiting in std::mem::take(&mut self.acks) {
            match outcome(&mut waiting.ticket) {
                Some(Ok(())) => {
                    let work = self.work.get_mut(&waiting.kind).unwrap();
                    work.settled.extend(waiting.offsets);
                    work.floor = work.floor.max(waiting.floor);
                }
                Some(Err(_)) => {}
                None => self.acks.push(waiting),
            }
        }
        self.check_floors()
    }

    /// No floor that was told, or that an answered ack had, is ever taken back.
    fn check_floors(&mut self) -> Judged {
        let broker = self.world().broker.clone();
        for (kind, work) in self.work.iter().filter(|(kind, _)| kind.is_durable()) {
            let durable = broker.durable_by_name(&kind.name()).unwrap();
            let floor = durable.lock().state.floor().get();
            ensure!(
                floor >= work.floor,
                "the floor of {kind:?} fell from {} to {floor}",
                work.floor
            );
        }
        Ok(())
    }

    fn advance(&mut self) {
        self.now += self.random.below(60);
        held::set(Some(self.now));
        let broker = self.world().broker.clone();
        for kind in self.kinds.iter().filter(|kind| kind.is_durable()) {
            broker.durable_by_name(&kind.name()).unwrap().look_after();
        }
    }

    async fn kill(&mut self) -> Judged {
        if self.random.chance(50) {
            // In the midst of a commit.
            let operations = self.random.below(4);
            self.world().fail_after(operations);
            self.commit()?;
        }
        self.clients.iter_mut().for_each(|client| client.connection = None);
        self.acks.clear();
        for publisher in &mut self.publishers {
            if let Some((_, ticket)) = &mut publisher.waiting {
                *ticket = None;
            }
        }
        let world = self.world.take().unwrap();
        self.world = Some(world.kill(self.random.next()));
        self.check_floors()
    }

    async fn connect(&mut self, at: usize) -> Judged {
        let kind = self.clients[at].kind;
        let is_held = self.clients.iter().any(|other| {
            other.kind == kind && other.connection.as_ref().is_some_and(|it| !it.is_over)
        });
        if kind == Exclusive && is_held && (self.is_calm || self.random.chance(80)) {
            return Ok(());
        }
        let mut options = self.options(kind);
        if !kind.is_durable() {
            let cursor = Cursor::new(self.clients[at].cursor);
            options.after = Some(After(Position { cursor, log: None }));
        }
        let ready = Ready::new();
        self.clients[at].connection = None;
        let Ok(subscription) = self.world().subscribe(&options, &ready, 1).await else {
            return Err(format!("{kind:?} could not subscribe"));
        };
        ready.push(1);
        self.clients[at].connection = Some(Connection {
            subscription,
            ready,
            wire: Vec::new(),
            inbox: VecDeque::new(),
            told: None,
            newest: BTreeMap::new(),
            is_over: false,
        });
        Ok(())
    }

    /// What comes next, where it was woken or its time has come.
    async fn ask(&mut self, at: usize) -> Judged {
        let Some(mut connection) = self.clients[at].connection.take() else { return Ok(()) };
        let judged = self.ask_over(at, &mut connection).await;
        self.clients[at].connection = Some(connection);
        judged
    }

    async fn ask_over(&mut self, at: usize, connection: &mut Connection) -> Judged {
        let (now, is_odd) = (self.now, self.random.chance(10));
        let kind = self.clients[at].kind;
        let is_due = connection.subscription.next_due_ms().is_some_and(|due| due <= now);
        if connection.ready.pop().is_none() && !is_due {
            if let Some(Delivery::Events { range: Some((_, until)), .. }) =
                is_odd.then(|| connection.subscription.idle()).flatten()
            {
                connection.told = Some(until.get());
                self.clients[at].cursor =
                    self.clients[at].cursor.max(if kind.is_durable() { 0 } else { until.get() });
            }
            return Ok(());
        }
        let delivery = match self.random.chance(25) {
            // Commits come while it reads.
            true => self.world().drive(connection.subscription.next()).await.unwrap(),
            false => connection.subscription.next().await.unwrap(),
        };
        let Some(delivery) = delivery else { return Ok(()) };
        // There may be more.
        connection.ready.push(1);
        match delivery {
            Delivery::Events { range, events, attempts, .. } => {
                if let Some((after, until)) = range {
                    let told = connection.told.replace(until.get());
                    ensure!(
                        told.is_none_or(|told| told == after.get()),
                        "{kind:?}: after {after}, not {told:?}"
                    );
                    if !kind.is_durable() {
                        self.clients[at].cursor = until.get();
                    }
                }
                let again: BTreeSet<u64> =
                    attempts.iter().map(|(offset, _)| offset.get()).collect();
                for event in events.iter().map(|event| seen(event)) {
                    let offset = event.offset;
                    ensure!(event.topic < 2, "{kind:?} was given {event:?}");
                    if kind.is_durable() {
                        let settled = &self.work[&kind].settled;
                        ensure!(!settled.contains(&offset), "{kind:?} was given {offset} again");
                    } else {
                        self.clients[at].given.push(offset);
                    }
                    let lane = (kind == Lanes).then_some(event.priority);
                    let is_ordered = kind != Limited && kind != Shared && kind != Partitioned;
                    if is_ordered && !again.contains(&offset) {
                        let last = connection.newest.insert(lane, offset);
                        ensure!(
                            last.is_none_or(|last| last < offset),
                            "{kind:?} was given {offset} behind {last:?}"
                        );
                    }
                    connection.wire.push(event);
                }
            }
            Delivery::Superseded => connection.is_over = true,
            Delivery::Acked(floor) => {
                let work = self.work.get_mut(&kind).unwrap();
                work.floor = work.floor.max(floor.get());
            }
            Delivery::CaughtUp(_) => {}
            Delivery::Gap(gap) => return Err(format!("{kind:?} was told of {gap:?}")),
        }
        Ok(())
    }

    fn flush(&mut self, at: usize) {
        if let Some(connection) = &mut self.clients[at].connection {
            connection.inbox.extend(connection.wire.drain(..));
            connection.subscription.sent();
        }
    }

    /// Works on what has come.
    async fn look(&mut self, at: usize) -> Judged {
        let kind = self.clients[at].kind;
        let Some(connection) = &mut self.clients[at].connection else { return Ok(()) };
        let Some(event) = connection.inbox.pop_front() else { return Ok(()) };
        let Some((durable, token)) = connection.subscription.durable() else { return Ok(()) };
        let (durable, from) = (durable.clone(), Some(token));
        if matches!(kind, Shared | Limited | Lanes)
            && self.random.chance(if self.is_calm { 0 } else { 20 })
        {
            let delay_ms = self.random.chance(50).then_some(20);
            let broker = self.world().broker.clone();
            let _ = broker.nack(&durable, &[offset(event.offset)], delay_ms, None, from);
            return Ok(());
        }
        self.done(kind, event);
        if !self.is_calm && self.random.chance(20) {
            // The ack is lost.
            return Ok(());
        }
        for _ in 0..if self.random.chance(15) { 2 } else { 1 } {
            self.ack(kind, &durable, event.offset, from).await?;
        }
        Ok(())
    }

    fn done(&mut self, kind: Kind, event: Seen) {
        let work = self.work.get_mut(&kind).unwrap();
        if work.effects.insert(event.offset) {
            work.order.push(event);
        }
    }

    async fn ack(
        &mut self,
        kind: Kind,
        durable: &Arc<Durable>,
        at: u64,
        from: Option<Token>,
    ) -> Judged {
        let broker = self.world().broker.clone();
        let is_cumulative = matches!(kind, Exclusive | Mirror | States) && self.random.chance(70);
        let target = match is_cumulative {
            true => Target::UpTo(offset(at)),
            false => Target::These(vec![offset(at)]),
        };
        let taken = broker.ack(durable, &target, from).await;
        let Ok((ticket, floor)) = taken else { return Err(format!("{kind:?}: {taken:?}")) };
        // Of another's, or of one who has lost it, it does nothing.
        let is_taken = durable.lock().state.is_acked(at);
        let offsets = if is_taken { vec![at] } else { Vec::new() };
        self.acks.push(Waiting { ticket, kind, offsets, floor: floor.get() });
        Ok(())
    }

    /// Somebody fetches of the shared one, and may never say what became of it.
    async fn fetch(&mut self) -> Judged {
        let broker = self.world().broker.clone();
        let limit = usize::try_from(self.random.below(3)).unwrap() + 1;
        let fetched = broker.fetch(&Shared.name(), limit, Duration::ZERO).await.unwrap();
        let durable = broker.durable_by_name(&Shared.name()).unwrap();
        for event in fetched.events.iter().map(|event| seen(event)) {
            ensure!(
                !self.work[&Shared].settled.contains(&event.offset),
                "{} was fetched again",
                event.offset
            );
            if self.random.chance(60) {
                self.done(Shared, event);
                self.ack(Shared, &durable, event.offset, None).await?;
            }
        }
        Ok(())
    }

    // ---- what is left

    /// From here on nothing goes wrong, until nothing more happens.
    async fn calm(&mut self) -> Judged {
        self.is_calm = true;
        for _ in 0..40 + 3 * self.events {
            for _ in 0..2 {
                self.publish().await;
            }
            self.commit()?;
            for at in 0..self.clients.len() {
                if self.clients[at].connection.as_ref().is_none_or(|it| it.is_over) {
                    self.connect(at).await?;
                }
                for _ in 0..4 {
                    self.world().settle().await;
                    self.ask(at).await?;
                    self.flush(at);
                    for _ in 0..8 {
                        self.look(at).await?;
                    }
                }
            }
            self.advance();
            self.world().settle().await;
        }
        Ok(())
    }

    async fn everything(&mut self) -> Vec<Arc<Stored>> {
        let log = self.world().broker.log().clone();
        let limit = ReadLimit { events: 10_000, bytes: 1 << 24 };
        let (mut all, mut cursor) = (Vec::new(), Cursor::START);
        while cursor < log.committed() {
            let batch = log.read(cursor, log.committed(), &filters(&["t.>"]), limit).await.unwrap();
            all.extend(batch.events);
            cursor = batch.cursor;
        }
        all
    }

    async fn check(&mut self) -> Judged {
        let all = self.everything().await;
        let ids: BTreeMap<String, u64> = all
            .iter()
            .map(|event| (event.body().unwrap().id.to_string(), event.offset().get()))
            .collect();
        ensure!(ids.len() == all.len(), "an id stands in the log twice");
        for publisher in &self.publishers {
            let answered = publisher.answered.len() as u64;
            ensure!(
                answered == self.events,
                "{answered} of {} publishes were answered",
                self.events
            );
            for (id, at) in &publisher.answered {
                ensure!(
                    ids.get(id) == Some(at),
                    "{id} was answered with {at} and is at {:?}",
                    ids.get(id)
                );
            }
        }
        let all: Vec<Seen> =
            all.iter().map(|event| seen(event)).filter(|event| event.topic < 2).collect();
        let offsets: Vec<u64> = all.iter().map(|event| event.offset).collect();
        let is_last = |event: &&Seen| {
            let newer = |other: &Seen| {
                other.offset > event.offset && (other.topic, other.key) == (event.topic, event.key)
            };
            event.key == 0 || !all.iter().any(newer)
        };
        let states: BTreeSet<u64> = all.iter().filter(is_last).map(|event| event.offset).collect();
        for client in self.clients.iter().filter(|client| !client.kind.is_durable()) {
            let given = &client.given;
            match client.kind {
                Reader => ensure!(*given == offsets, "a reader was given {given:?} of {offsets:?}"),
                _ => {
                    let lacks: Vec<_> = states.iter().filter(|at| !given.contains(at)).collect();
                    ensure!(lacks.is_empty(), "a reader of states lacks {lacks:?}: {given:?}");
                    ensure!(given.is_sorted_by(|a, b| a < b), "states out of order: {given:?}");
                }
            }
        }
        for kind in self.kinds.clone().into_iter().filter(|kind| kind.is_durable()) {
            self.check_durable(kind, &offsets, &states).await?;
        }
        Ok(())
    }

    async fn check_durable(&mut self, kind: Kind, all: &[u64], states: &BTreeSet<u64>) -> Judged {
        let broker = self.world().broker.clone();
        let info = broker.durable_info(&kind.name()).await.unwrap().unwrap();
        ensure!(info.lag == 0, "{kind:?} lags by {}: {info:?}", info.lag);
        ensure!(info.in_flight == 0, "{kind:?} has {} in flight", info.in_flight);
        let durable = broker.durable_by_name(&kind.name()).unwrap();
        let dead: BTreeSet<u64> = durable.lock().state.dead().keys().copied().collect();
        let (letters, _) = broker.dead_letters(&durable, Cursor::START, 1000).await.unwrap();
        ensure!(letters.len() == dead.len(), "{} letters of {dead:?}", letters.len());
        let work = &self.work[&kind];
        let lacks: Vec<_> = all
            .iter()
            .filter(|at| !kind.conflates() || states.contains(at))
            .filter(|at| !work.effects.contains(at) && !dead.contains(at))
            .collect();
        ensure!(lacks.is_empty(), "{kind:?} lacks {lacks:?}");
        // Whoever works on events in the order they come has done them in order.
        let slot = |event: &Seen| match kind {
            Partitioned if event.key > 0 => Some((event.topic, event.key)),
            Exclusive | Mirror => Some((0, 0)),
            _ => None,
        };
        let mut last = BTreeMap::new();
        for event in &work.order {
            let Some(slot) = slot(event) else { continue };
            let before = last.insert(slot, event.offset).unwrap_or(0);
            ensure!(before < event.offset, "{kind:?} did {} behind {before}", event.offset);
        }
        Ok(())
    }
}

fn simulate(seed: u64) -> Judged {
    run(async {
        let mut simulation = Simulation::new(seed).await;
        for _ in 0..300 {
            simulation.step().await?;
        }
        simulation.calm().await?;
        simulation.check().await
    })
}

/// Seeds `first`, `first` + 2, …
fn simulate_every_second(first: u64) {
    if let Ok(seed) = std::env::var("TIDINGS_SEED") {
        let seed = seed.parse().unwrap();
        if seed % 2 == first {
            simulate(seed).unwrap();
        }
        return;
    }
    for seed in (first..number("TIDINGS_SEEDS", 2_000)).step_by(2) {
        if let Err(wrong) = simulate(seed) {
            panic!("TIDINGS_SEED={seed}: {wrong}");
        }
    }
}

#[test]
fn whatever_happens_everybody_ends_with_what_was_promised() {
    simulate_every_second(0);
}

#[test]
fn whatever_else_happens_everybody_ends_with_what_was_promised() {
    simulate_every_second(1);
}
