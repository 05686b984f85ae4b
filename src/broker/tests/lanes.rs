//! Lanes where very much is acknowledged ahead of the floor.

use std::time::Duration;

use tidings_proto::{Priority, Start, SubscribeOptions, subscribe::Order};

use super::{
    super::Target,
    world::{World, event, filters, run},
};

/// So many separate ranges may be acknowledged ahead, see docs/protocol.md.
const AHEAD_MAX: usize = 8192;
/// How many are fetched at a time.
const PAGE: usize = 200;

/// Every other event is urgent, and those go first: each that is acknowledged is a range of its own.
async fn publish(world: &mut World, pairs: usize) {
    for _ in 0..pairs / 500 {
        let of = |priority| event(0, 0, priority, None);
        let pair = || [of(Priority::Low), of(Priority::Urgent)];
        let batch = (0..500).flat_map(|_| pair()).collect();
        let ticket = world.broker.publish("alice", batch).await.unwrap();
        world.drive(ticket).await.unwrap();
    }
}

#[test]
fn what_is_acknowledged_ahead_is_bounded_the_oldest_go_first_until_the_floor_has_risen() {
    run(async {
        let mut world = World::new(1, 1 << 20);
        let options = SubscribeOptions {
            order: Order::Priority,
            start: Start::First,
            max_in_flight: 1000,
            ..SubscribeOptions::to(filters(&["t.0"]))
        };
        let broker = world.broker.clone();
        world.drive(broker.put_durable("d", &options, "alice")).await.unwrap();
        let durable = broker.durable_by_name("d").unwrap();
        publish(&mut world, 10_000).await;
        let (mut urgent, mut low, mut most) = (0, 0, 0);
        while urgent < 10_000 {
            let events = broker.fetch("d", PAGE, Duration::ZERO).await.unwrap().events;
            assert!(!events.is_empty());
            let is_urgent = |priority| priority == Priority::Urgent;
            let page = events.iter().filter(|event| is_urgent(event.priority())).count();
            (urgent, low) = (urgent + page, low + events.len() - page);
            let these = events.iter().map(|event| event.offset()).collect();
            let (ticket, _) = broker.ack(&durable, &Target::These(these), None).await.unwrap();
            world.drive(ticket).await.unwrap();
            most = most.max(durable.to_ack_state().ranges.len());
        }
        assert!((AHEAD_MAX - PAGE..AHEAD_MAX + PAGE).contains(&most), "{most} ranges");
        // One of sixteen is the oldest in any case.
        assert!(low > urgent / 15 + 500, "only {low} of the oldest went before {urgent}");
        // Nothing was left out: what remains comes in the order of the log.
        let mut last = 0;
        while low < 10_000 {
            for event in broker.fetch("d", PAGE, Duration::ZERO).await.unwrap().events {
                assert!(event.offset().get() > last);
                (last, low) = (event.offset().get(), low + 1);
                let these = Target::These(vec![event.offset()]);
                drop(broker.ack(&durable, &these, None).await.unwrap());
            }
            world.step();
        }
    });
}
