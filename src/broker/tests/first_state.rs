//! `last_per_key` of a durable: its state is gathered once, however it is given out, and kept no longer.

use std::time::Duration;

use tidings_proto::{Priority, SubscribeOptions, Timestamp, event::Expiry};

use super::{
    super::{Ready, Target, snapshot::gathered},
    world::{World, event, filters, run},
};
use crate::clock::{self, held};

async fn publish(world: &mut World, topic: u8, ttl_ms: Option<u64>) -> u64 {
    let mut publish = event(topic, 1, Priority::Normal, None);
    let ends = |ms| Timestamp::from_millis(clock::now().as_millis() + ms);
    publish.event.expires = ttl_ms.map(|ms| Expiry::At(ends(ms)));
    let ticket = world.publish(publish).await;
    world.drive(ticket).await.unwrap()[0].offset.get()
}

/// A durable over a state of these many topics, of which the last has expired when a minute has passed.
async fn made(topics: u8) -> (World, Vec<u64>, SubscribeOptions) {
    let mut world = World::new(1, 1 << 20);
    for topic in 0..topics {
        publish(&mut world, topic, None).await;
    }
    let mut state = Vec::new();
    for topic in 0..topics {
        state.push(publish(&mut world, topic, (topic + 1 == topics).then_some(60_000)).await);
    }
    let options =
        SubscribeOptions { last_per_key: true, ..SubscribeOptions::to(filters(&["t.>"])) };
    let broker = world.broker.clone();
    world.drive(broker.put_durable("d", &options, "alice")).await.unwrap();
    (world, state, options)
}

/// Fetches one event and acknowledges it.
async fn fetch(world: &mut World) -> Option<u64> {
    let broker = world.broker.clone();
    let fetched = broker.fetch("d", 1, Duration::ZERO).await.unwrap();
    let offset = fetched.events.first()?.offset();
    let durable = broker.durable_by_name("d").unwrap();
    let (ticket, _) = broker.ack(&durable, &Target::These(vec![offset]), None).await.unwrap();
    world.drive(ticket).await.unwrap();
    Some(offset.get())
}

#[test]
fn fetches_of_a_state_gather_it_once() {
    run(async {
        let (mut world, state, _) = made(5).await;
        let before = gathered::count();
        let mut given = Vec::new();
        for _ in 0..3 {
            given.extend(fetch(&mut world).await);
        }
        assert_eq!(gathered::count() - before, 1);
        // A session goes on with the same one.
        let (ready, attach) = (Ready::new(), SubscribeOptions::to(filters(&["t.>"])));
        let attach = SubscribeOptions { durable: Some("d".to_owned()), ..attach };
        drop(world.subscribe(&attach, &ready, 1).await.unwrap());
        assert_eq!(gathered::count() - before, 1);
        // What is put away is gathered anew.
        world.broker.put_away();
        given.extend(fetch(&mut world).await);
        assert_eq!(gathered::count() - before, 2);
        held::set(Some(70_000));
        assert_eq!(fetch(&mut world).await, None, "what has expired since was given");
        assert_eq!(given, state[..4]);
    });
}

#[test]
fn a_state_that_was_given_out_is_kept_no_longer() {
    run(async {
        let (mut world, state, _) = made(2).await;
        for offset in state {
            assert_eq!(fetch(&mut world).await, Some(offset));
        }
        let durable = world.broker.durable_by_name("d").unwrap();
        assert!(!durable.first_state.is_empty().await, "the last fetch still had it");
        assert_eq!(fetch(&mut world).await, None);
        assert!(durable.first_state.is_empty().await);
        let next = publish(&mut world, 0, None).await;
        assert_eq!(fetch(&mut world).await, Some(next));
    });
}
