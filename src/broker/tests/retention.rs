//! What must stay, and what must not be told, when retention takes a log to pieces.

use tidings_proto::{
    Cursor, Filter, Priority, SubscribeOptions, Timestamp, Topic, control::RetentionRule,
    event::Expiry,
};
use uuid::Uuid;

use super::{
    super::Ready,
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
