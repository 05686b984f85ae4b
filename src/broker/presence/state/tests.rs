use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;

const TOPICS: usize = 2;
const SESSIONS: u128 = 4;
const GRACE_MS: u64 = 10;

fn topic(n: usize) -> Topic {
    Topic::parse(&format!("rooms.{n}")).unwrap()
}

/// Session `session` of one of four clients: two of alice that cannot be told apart, one with other data, and
/// bob's. One that was lost comes back as another.
fn guest(session: u128) -> (Uuid, &'static str, &'static str) {
    let client = (session - 1) % SESSIONS + 1;
    let data = if client == 3 { "{\"tab\":3}" } else { "null" };
    (Uuid::from_u128(session), if client == 4 { "bob" } else { "alice" }, data)
}

/// The members, and what the log and whoever uses them know.
struct World {
    members: Members,
    now_ms: u64,
    /// The log: topic and session → whether it is a member there.
    listed: BTreeMap<(String, String), bool>,
    steps: Vec<Step>,
    /// Subscriptions: the session's number, the topic, and the numbers they hold.
    held: Vec<(u128, usize, u64)>,
    /// How often each client was lost.
    losses: [u128; 4],
}

#[derive(Clone, Debug)]
enum Act {
    Enter(u128, usize),
    Join(usize),
    Leave(usize),
    Lose(u128),
    Pass(u64),
    Write(usize),
    Written,
    Failed(bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (1..=SESSIONS, 0..TOPICS).prop_map(|(session, topic)| Act::Enter(session, topic)),
        3 => any::<usize>().prop_map(Act::Join),
        2 => any::<usize>().prop_map(Act::Leave),
        2 => (1..=SESSIONS).prop_map(Act::Lose),
        2 => (1..15_u64).prop_map(Act::Pass),
        4 => (1..4_usize).prop_map(Act::Write),
        3 => Just(Act::Written),
        1 => any::<bool>().prop_map(Act::Failed),
    ];
    proptest::collection::vec(act, 0..120)
}

impl World {
    fn new(bounds: Bounds) -> World {
        World {
            members: Members::new(bounds),
            now_ms: 0,
            listed: BTreeMap::new(),
            steps: Vec::new(),
            held: Vec::new(),
            losses: [0; 4],
        }
    }

    /// The session that a client has now.
    fn session(&self, client: u128) -> u128 {
        client + SESSIONS * self.losses[usize::try_from(client - 1).unwrap()]
    }

    fn lose(&mut self, lost: Vec<(u128, usize, u64)>) {
        for (_, _, number) in lost {
            self.members.lose(number, self.now_ms + GRACE_MS);
        }
    }

    fn enter(&mut self, session: u128, at: usize) -> Result<u64, Refused> {
        let (session_id, subject, data) = guest(session);
        let now = Timestamp::from_millis(self.now_ms);
        let guest = Guest { session: session_id, subject, data, now };
        let number = self.members.enter(&topic(at), &guest)?;
        self.held.push((session, at, number));
        Ok(number)
    }

    fn written(&mut self) {
        for step in std::mem::take(&mut self.steps) {
            let key = (step.topic.to_string(), step.change.session);
            let joins = step.change.reason.is_none();
            let before = self.listed.insert(key.clone(), joins).unwrap_or(false);
            assert_ne!(before, joins, "{key:?} {:?}", step.change.reason);
        }
        self.members.written();
    }

    fn do_it(&mut self, act: Act) {
        match act {
            Act::Enter(client, at) => drop(self.enter(self.session(client), at)),
            Act::Join(n) if !self.held.is_empty() => {
                let (_, _, number) = self.held[n % self.held.len()];
                self.members.join(number);
            }
            Act::Leave(n) if !self.held.is_empty() => {
                let (_, _, number) = self.held.swap_remove(n % self.held.len());
                self.members.leave(number);
            }
            Act::Lose(client) => {
                let session = self.session(client);
                let held = std::mem::take(&mut self.held);
                let (lost, kept) = held.into_iter().partition(|held| held.0 == session);
                self.held = kept;
                self.lose(lost);
                self.losses[usize::try_from(client - 1).unwrap()] += 1;
            }
            Act::Join(_) | Act::Leave(_) => {}
            Act::Pass(ms) => {
                self.now_ms += ms;
                self.members.expire(self.now_ms);
            }
            Act::Write(max) if !self.members.is_writing() => self.steps = self.members.write(max),
            Act::Write(_) => {}
            Act::Written => self.written(),
            Act::Failed(forgets_joins) => {
                self.steps.clear();
                let forgotten: HashSet<u64> =
                    self.members.failed(forgets_joins).into_iter().collect();
                // Whoever waited for one of them has been refused and lets go.
                let held = std::mem::take(&mut self.held);
                let (lost, kept) = held.into_iter().partition(|held| forgotten.contains(&held.2));
                self.held = kept;
                self.lose(lost);
            }
        }
    }

    /// Everything that waits is written.
    fn settle(&mut self) {
        self.written();
        while self.members.is_waiting() {
            self.steps = self.members.write(3);
            self.written();
        }
    }

    fn listed(&self) -> usize {
        self.listed.values().filter(|listed| **listed).count()
    }
}

fn wide() -> Bounds {
    Bounds { on_topic: 100, in_all: 100 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_join_follows_a_join_and_no_leave_a_leave(acts in acts()) {
        let mut world = World::new(wide());
        // `World::written` looks at every step.
        acts.into_iter().for_each(|act| world.do_it(act));
        world.settle();
        // Whoever holds something and has joined is listed, as often as it has different members.
        let held: Vec<u64> = world.held.iter().map(|held| held.2).collect();
        for number in &held {
            world.members.join(*number);
        }
        world.settle();
        let distinct: BTreeSet<u64> = held.into_iter().collect();
        let away = world.members.away.len();
        prop_assert_eq!(world.listed(), distinct.len() + away);
        // And when all are gone nothing is left, in the log and in memory.
        for (_, _, number) in std::mem::take(&mut world.held) {
            world.members.lose(number, world.now_ms);
        }
        world.members.expire(world.now_ms + GRACE_MS);
        world.settle();
        prop_assert_eq!(world.listed(), 0);
        prop_assert!(world.members.members.is_empty() && world.members.topics.is_empty());
        prop_assert!(world.members.away.is_empty() && world.members.queue.is_empty());
    }

    #[test]
    fn the_bounds_hold_and_the_queue_has_one(acts in acts()) {
        let mut world = World::new(Bounds { on_topic: 2, in_all: 3 });
        for act in acts {
            world.do_it(act);
            let members = &world.members;
            prop_assert!(members.members.len() <= 3);
            prop_assert!(members.topics.values().all(|there| there.len() <= 2));
            let distinct: BTreeSet<u64> = members.queue.iter().copied().collect();
            prop_assert_eq!(distinct.len(), members.queue.len(), "a member is queued twice");
        }
    }
}

fn reasons(steps: &[Step]) -> Vec<Option<LeaveReason>> {
    steps.iter().map(|step| step.change.reason).collect()
}

/// One that has joined, held by session 1.
fn joined() -> (World, u64) {
    let mut world = World::new(wide());
    let number = world.enter(1, 0).unwrap();
    assert!(world.members.join(number));
    world.settle();
    assert!(!world.members.join(number), "it is in the log");
    (world, number)
}

#[test]
fn who_comes_back_within_the_grace_is_the_same_member() {
    let (mut world, number) = joined();
    world.members.lose(number, 10);
    world.members.expire(9);
    assert_eq!(world.enter(3, 0).unwrap(), number + 1, "other data is another member");
    assert_eq!(world.enter(4, 0).unwrap(), number + 2, "another subject too");
    assert_eq!(world.enter(2, 0).unwrap(), number, "the same subject and data is it");
    world.members.expire(1000);
    assert!(!world.members.is_waiting(), "and nothing is written");
}

#[test]
fn who_does_not_come_back_leaves_and_so_does_who_unsubscribes() {
    let (mut world, number) = joined();
    world.members.lose(number, 10);
    assert_eq!(world.members.next_due_ms(), Some(10));
    world.members.expire(10);
    assert_eq!(reasons(&world.members.write(9)), [Some(LeaveReason::Gone)]);
    // It is leaving: who comes now is another.
    assert_ne!(world.enter(2, 0).unwrap(), number);

    let (mut world, number) = joined();
    assert_eq!(world.enter(1, 0).unwrap(), number, "a second subscription of the same session");
    world.members.leave(number);
    assert!(!world.members.is_waiting(), "one of two");
    world.members.leave(number);
    assert_eq!(reasons(&world.members.write(9)), [Some(LeaveReason::Left)]);
}

#[test]
fn a_session_is_on_a_topic_with_one_data_alone() {
    let (mut world, _) = joined();
    let (session, subject, _) = guest(1);
    let other = Guest { session, subject, data: "1", now: Timestamp::from_millis(0) };
    assert_eq!(world.members.enter(&topic(0), &other), Err(Refused::Differs));
    assert!(world.members.enter(&topic(1), &other).is_ok());
}

#[test]
fn members_from_before_the_start_leave_for_that_reason_or_are_taken_over() {
    let mut world = World::new(wide());
    for session in ["a", "b"] {
        let who = PresenceChange {
            subject: "alice".to_owned(),
            session: session.to_owned(),
            since: Timestamp::from_millis(0),
            data: None,
            reason: None,
        };
        world.members.restore(topic(0), who, 30);
    }
    world.enter(1, 0).unwrap();
    world.members.expire(30);
    let steps = world.members.write(9);
    assert_eq!(reasons(&steps), [Some(LeaveReason::Restart)]);
    assert_eq!(steps[0].change.session, "b", "the one that joined first was taken over");
}

#[test]
fn leaves_that_cannot_be_written_are_tried_again_and_joins_refused() {
    let (mut world, number) = joined();
    world.members.leave(number);
    let joining = world.enter(4, 0).unwrap();
    world.members.join(joining);
    for _ in 0..3 {
        let steps = world.members.write(9);
        assert_eq!(steps[0].change.reason, Some(LeaveReason::Left));
        world.members.failed(true);
    }
    assert_eq!(world.members.write(9).len(), 1, "the join was refused the first time");
    assert_eq!(world.members.written(), [(number, Some(LeaveReason::Left))]);
    assert!(world.members.members.is_empty());
}
