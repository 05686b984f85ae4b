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
                offsets.push(publish(&mut world, 0, (n >= left).then_some(past)).await);
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
            let gap = broker.log().trimmed(&filters(&["t.0"]), Cursor::START);
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
