//! What must stay, and what must not be told, when retention takes a log to pieces.

use std::time::Duration;

use tidings_proto::{
    Cursor, Filter, Priority, Start, SubscribeOptions, Timestamp, Topic, control::RetentionRule,
    event::Expiry,
};
use uuid::Uuid;

use super::{
    super::{Ready, Target},
    world::{World, event, filters, offset, run},
};

/// All that a filter matches goes once it is in a sealed segment, but for so many events.
async fn keep(world: &mut World, filter: &str, events: u64) {
    let broker = world.broker.clone();
    let rule = RetentionRule { max_events: Some(events), ..RetentionRule::default() };
    world.drive(broker.put_retention(Filter::parse(filter).unwrap(), rule)).await.unwrap();
}

async fn publish(world: &mut World, topic: u8, expires: Option<Expiry>) -> u64 {
    let mut publish = event(topic, 0, Priority::Normal, None);
    publish.event.expires = expires;
    let ticket = world.publish(publish).await;
    world.drive(ticket).await.unwrap()[0].offset.get()
}

fn seal(world: &mut World) {
    world.broker.log().seal();
    world.step();
}

#[test]
fn a_leave_stays_as_long_as_the_join_it_is_about() {
    run(async {
        let mut world = World::new(1, 1 << 20);
        let topic = Topic::parse("t.1").unwrap();
        let presence = serde_json::from_str(r#"{"data":1}"#).unwrap();
        let options = SubscribeOptions {
            presence: Some(presence),
            ..SubscribeOptions::to(filters(&["t.1"]))
        };
        let broker = world.broker.clone();
        let ready = Ready::new();
        let joining = broker.subscribe_as(Uuid::from_u128(1), &options, "alice", ready, 1);
        let member = world.drive(joining).await.unwrap();
        // Too few of these may go for the segment to be rewritten.
        for _ in 0..4 {
            publish(&mut world, 0, None).await;
        }
        seal(&mut world);
        member.unsubscribe();
        world.step();
        let first = publish(&mut world, 1, None).await;
        publish(&mut world, 1, None).await;
        seal(&mut world);
        keep(&mut world, ">", 0).await;
        keep(&mut world, "t.0", 1_000).await;
        world.drive(broker.retention_pass()).await.unwrap();
        assert!(broker.get(offset(first)).await.unwrap().is_none(), "the pass took nothing out");
        assert_eq!(broker.presence(&topic).0.members.len(), 0);
        drop(broker);
        // The ledger is folded anew from what is left.
        let mut world = world.kill(1);
        assert_eq!(world.broker.presence(&topic).0.members.len(), 0, "who has left is back");
        // Once the join has gone the leave goes too.
        keep(&mut world, "t.0", 0).await;
        let broker = world.broker.clone();
        for _ in 0..2 {
            seal(&mut world);
            world.drive(broker.retention_pass()).await.unwrap();
        }
        assert!(broker.log().topic("$presence.t.1").is_none(), "the leave is there for ever");
    });
}

#[test]
fn a_small_segment_of_what_has_expired_goes_without_a_gap() {
    for (of, left) in [(1, 0), (2, 0), (2, 1), (4, 1)] {
        run(async {
            let mut world = World::new(1, 1 << 20);
            let (past, mut offsets) = (Expiry::At(Timestamp::from_millis(1)), Vec::new());
            for n in 0..of {
                // Each on a topic of its own: none covers another one.
                offsets.push(publish(&mut world, n, (n >= left).then_some(past)).await);
            }
            seal(&mut world);
            let broker = world.broker.clone();
            world.drive(broker.retention_pass()).await.unwrap();
            let mut there = Vec::new();
            for at in offsets {
                there.push(broker.get(offset(at)).await.unwrap().is_some());
            }
            let goes = (of - left) * 2 > of;
            let expected: Vec<bool> = (0..of).map(|n| !goes || n < left).collect();
            assert_eq!(there, expected, "{left} of {of} had not expired");
            let gap = broker.log().trimmed(&filters(&["t.>"]), Cursor::START);
            assert_eq!(gap, None, "a gap where {left} of {of} had not expired");
        });
    }
}

#[test]
fn a_segment_stays_until_all_states_in_it_are_carried_however_many_passes_that_takes() {
    for is_killed_in_between in [false, true] {
        run(async {
            let mut world = World::new(1, 1 << 20);
            let (start, names) = (Start::First, (0..11).map(|n| format!("d{n}")));
            let names: Vec<String> = names.collect();
            let options = SubscribeOptions { start, ..SubscribeOptions::to(filters(&["t.0"])) };
            for name in &names {
                let broker = world.broker.clone();
                world.drive(broker.put_durable(name, &options, "alice")).await.unwrap();
            }
            let first = publish(&mut world, 0, None).await;
            for name in &names {
                let broker = world.broker.clone();
                let fetched = broker.fetch(name, 1, Duration::ZERO).await.unwrap();
                assert_eq!(fetched.events.len(), 1);
                let durable = broker.durable_by_name(name).unwrap();
                let these = Target::These(vec![offset(first)]);
                let (ticket, _) = broker.ack(&durable, &these, None).await.unwrap();
                world.drive(ticket).await.unwrap();
            }
            // Most of the segment is to go.
            for _ in 0..20 {
                publish(&mut world, 1, None).await;
            }
            let paused = world.broker.clone();
            world.drive(paused.pause_durable("d3", true)).await.unwrap();
            drop(paused);
            seal(&mut world);
            keep(&mut world, ">", 0).await;
            let mut passes = 0;
            loop {
                let broker = world.broker.clone();
                world.drive(broker.retention_pass()).await.unwrap();
                passes += 1;
                let is_there = broker.get(offset(first)).await.unwrap().is_some();
                drop(broker);
                if is_killed_in_between || !is_there {
                    world = world.kill(passes);
                }
                for name in &names {
                    let info = world.broker.durable_info(name).await.unwrap();
                    let info = info.unwrap_or_else(|| panic!("{name} is lost in pass {passes}"));
                    assert_eq!((info.cursor.get(), info.paused), (first, name == "d3"), "{name}");
                }
                if !is_there {
                    break;
                }
                assert!(passes < 20, "what was carried is carried again and again");
            }
            assert!(passes > 4, "a pass carried more than its share: {passes}");
        });
    }
}

/// A log of forty events with ids, of which every fourth, on `t.0`, is to stay, and two durables.
struct Rewritten {
    kept: Vec<u64>,
    going: Vec<u64>,
}

impl Rewritten {
    async fn make(world: &mut World) -> Rewritten {
        for (name, topic) in [("kept", "t.0"), ("going", "t.1")] {
            let options =
                SubscribeOptions { start: Start::First, ..SubscribeOptions::to(filters(&[topic])) };
            let broker = world.broker.clone();
            world.drive(broker.put_durable(name, &options, "alice")).await.unwrap();
        }
        let (mut kept, mut going) = (Vec::new(), Vec::new());
        for n in 0..40 {
            let (offset, is_known) = publish_again(world, n).await;
            assert!(!is_known);
            if n.is_multiple_of(4) { kept.push(offset) } else { going.push(offset) }
        }
        let broker = world.broker.clone();
        broker.fetch("kept", 10, Duration::ZERO).await.unwrap();
        let durable = broker.durable_by_name("kept").unwrap();
        // The floor is behind the second; the fourth is acknowledged ahead of it.
        let these = Target::These([0, 1, 3].map(|n| offset(kept[n])).to_vec());
        let (ticket, _) = broker.ack(&durable, &these, None).await.unwrap();
        world.drive(ticket).await.unwrap();
        seal(world);
        keep(world, "t.1", 0).await;
        Rewritten { kept, going }
    }

    /// What must hold whenever the power goes. Gives how many of those that are to go are there.
    async fn check(&self, world: &mut World) -> usize {
        let broker = world.broker.clone();
        for (n, at) in self.kept.iter().enumerate() {
            let stored = broker.get(offset(*at)).await.unwrap().expect("an event is lost");
            assert_eq!(stored.body().unwrap().id.to_string(), (n * 4).to_string());
            let again = publish_again(world, n * 4).await;
            assert_eq!(again, (*at, true), "an id is forgotten");
        }
        let mut gone = Vec::new();
        for at in &self.going {
            if broker.get(offset(*at)).await.unwrap().is_none() {
                gone.push(*at);
            }
        }
        let told = |topic| broker.log().trimmed(&filters(&[topic]), Cursor::START);
        assert_eq!(told("t.0"), None, "a false gap");
        let upto = told("t.1").map_or(0, |(_, upto)| upto.get());
        // What is about to go is told before it has gone, and nothing goes that is not.
        assert!(gone.iter().all(|at| *at <= upto), "{upto} is told, and gone is {gone:?}");
        assert!(self.going.last().is_some_and(|last| upto <= *last), "{upto} is told");
        let floor = broker.durable_info("kept").await.unwrap().unwrap().cursor.get();
        assert!((self.kept[1]..self.kept[2]).contains(&floor), "the floor is {floor}");
        let durable = broker.durable_by_name("kept").unwrap();
        let is_acked: Vec<bool> =
            self.kept.iter().map(|at| durable.lock().state.is_acked(*at)).collect();
        let expected: Vec<bool> = (0..10).map(|n| [0, 1, 3].contains(&n)).collect();
        assert_eq!(is_acked, expected);
        let floor = broker.durable_info("going").await.unwrap().unwrap().cursor.get();
        assert!(floor <= upto, "the floor of a durable that acknowledged nothing is {floor}");
        self.going.len() - gone.len()
    }
}

/// Publishes the event of this number, whose id it is. Gives its offset, and whether the id was known.
async fn publish_again(world: &mut World, n: usize) -> (u64, bool) {
    let (topic, id) = (u8::from(!n.is_multiple_of(4)), n.to_string());
    let ticket = world.publish(event(topic, 0, Priority::Normal, Some(&id))).await;
    let published = world.drive(ticket).await.unwrap();
    (published[0].offset.get(), published[0].duplicate)
}

#[test]
fn a_kill_at_any_operation_of_a_rewrite_loses_no_event_floor_or_id_and_tells_no_false_gap() {
    let (mut operations, mut halfway) = (1, 0);
    loop {
        let mut is_over = true;
        for seed in 0..4 {
            run(async {
                let mut world = World::new(seed, 1 << 10);
                let log = Rewritten::make(&mut world).await;
                let end = world.operations() + operations;
                world.fail_after(operations);
                let broker = world.broker.clone();
                let passed = world.drive(broker.retention_pass()).await;
                drop(broker);
                is_over &= passed.is_ok() && world.operations() < end;
                let mut world = world.kill(seed);
                let left = log.check(&mut world).await;
                halfway += usize::from(left < log.going.len() && passed.is_err());
                // What was begun is ended.
                let broker = world.broker.clone();
                world.drive(broker.retention_pass()).await.unwrap();
                drop(broker);
                assert_eq!(log.check(&mut world).await, 0);
                let mut world = world.kill(seed);
                assert_eq!(log.check(&mut world).await, 0);
            });
        }
        if is_over {
            break;
        }
        operations += 1;
    }
    assert!(operations > 10, "a pass has {operations} operations");
    assert!(halfway > 0, "no kill came between a rewrite and the end of its pass");
}
