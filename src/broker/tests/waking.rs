//! What is committed between a look that found nothing and the wait that follows it is found all the same.
//!
//! The pump is stopped: who arms then and is not told that there is more would wait for ever.

use std::time::Duration;

use tidings_proto::{
    Cursor, Mode, Offset, Position, Priority, Start, SubscribeOptions, Timestamp,
    event::Expiry,
    subscribe::{After, Order},
};

use super::{
    super::{From, Ready, Subscription, subscription::Delivery},
    world::{World, event, filters, run},
};
use crate::{
    clock::{self, held},
    log::ReadLimit,
};

/// Long enough that nobody mistakes the end of a wait for a wake.
const WAIT: Duration = Duration::from_secs(2);

async fn subscribe(world: &mut World, options: &SubscribeOptions) -> Subscription {
    let (broker, ready) = (world.broker.clone(), Ready::new());
    world.drive(broker.subscribe(options, "alice", ready, 1)).await.unwrap()
}

fn from_the_beginning() -> SubscribeOptions {
    let after = Some(After(Position { cursor: Cursor::START, log: None }));
    SubscribeOptions { after, ..SubscribeOptions::to(filters(&["t.0"])) }
}

fn durable(order: Order) -> SubscribeOptions {
    let (durable, start) = (Some("d".to_owned()), Start::First);
    SubscribeOptions { durable, start, order, ..SubscribeOptions::to(filters(&["t.0"])) }
}

/// Until there is nothing more.
async fn drain(subscription: &mut Subscription) -> usize {
    let mut count = 0;
    while let Some(delivery) = subscription.next().await.unwrap() {
        if let Delivery::Events { events, .. } = delivery {
            count += events.len();
        }
    }
    count
}

async fn queue(world: &World, priority: Priority) {
    drop(world.publish(event(0, 0, priority, None)).await);
}

/// An event comes when the subscription, which has read everything, is about to wait.
fn finds_what_comes_meanwhile(options: SubscribeOptions) {
    run(async {
        let mut world = World::new(1, 1 << 20);
        let mut subscription = subscribe(&mut world, &options).await;
        world.stop_pump().await;
        assert_eq!(drain(&mut subscription).await, 0);
        queue(&world, Priority::Normal).await;
        world.commit_before_arming();
        assert_eq!(drain(&mut subscription).await, 1, "a wake-up was lost");
    });
}

#[test]
fn a_subscription_that_is_about_to_wait_finds_what_comes_meanwhile() {
    finds_what_comes_meanwhile(from_the_beginning());
}

#[test]
fn a_durable_that_is_about_to_wait_finds_what_comes_meanwhile() {
    finds_what_comes_meanwhile(durable(Order::Log));
}

#[test]
fn a_durable_with_lanes_that_is_about_to_wait_finds_what_comes_meanwhile() {
    finds_what_comes_meanwhile(durable(Order::Priority));
}

#[test]
fn a_batch_that_is_about_to_wait_for_more_finds_what_is_urgent() {
    run(async {
        let mut world = World::new(1, 1 << 20);
        let options = SubscribeOptions { linger_ms: 1_000, ..from_the_beginning() };
        let mut subscription = subscribe(&mut world, &options).await;
        world.stop_pump().await;
        assert_eq!(drain(&mut subscription).await, 0);
        queue(&world, Priority::Normal).await;
        world.step();
        assert_eq!(drain(&mut subscription).await, 0, "it does not wait for more");
        held::set(Some(1_500));
        queue(&world, Priority::Urgent).await;
        world.commit_before_arming();
        assert_eq!(drain(&mut subscription).await, 2, "a wake-up was lost");
    });
}

#[test]
fn a_fetch_that_is_about_to_wait_finds_what_comes_meanwhile() {
    for order in [Order::Log, Order::Priority] {
        run(async {
            let mut world = World::new(1, 1 << 20);
            let broker = world.broker.clone();
            world.drive(broker.put_durable("d", &durable(order), "alice")).await.unwrap();
            world.stop_pump().await;
            queue(&world, Priority::Normal).await;
            world.commit_before_arming();
            let begun = tokio::time::Instant::now();
            let fetched = broker.fetch("d", 1, WAIT).await.unwrap();
            // It looks once more at the end.
            assert!(begun.elapsed() < WAIT, "a wake-up was lost");
            assert_eq!(fetched.events.len(), 1);
        });
    }
}

#[test]
fn a_read_that_is_about_to_wait_finds_what_comes_meanwhile() {
    run(async {
        let world = World::new(1, 1 << 20);
        let broker = world.broker.clone();
        world.stop_pump().await;
        queue(&world, Priority::Normal).await;
        world.commit_before_arming();
        let options = SubscribeOptions::to(filters(&["t.0"]));
        let limit = ReadLimit { events: 10, bytes: 1 << 20 };
        let begun = tokio::time::Instant::now();
        let read = broker.read(&options, &From::Now, limit, WAIT).await.unwrap();
        assert!(begun.elapsed() < WAIT, "a wake-up was lost");
        assert_eq!(read.batch.events.len(), 1);
    });
}

#[test]
fn room_that_is_found_in_what_has_expired_wakes_who_waits_for_it() {
    run(async {
        let mut world = World::new(1, 1 << 20);
        let options =
            SubscribeOptions { max_in_flight: 2, mode: Mode::Shared, ..durable(Order::Log) };
        let mut members = Vec::new();
        for number in 1..=2 {
            let (broker, ready) = (world.broker.clone(), Ready::new());
            let subscribing = broker.subscribe(&options, "alice", ready.clone(), number);
            members.push((world.drive(subscribing).await.unwrap(), ready));
        }
        // Both have their share, and more waits.
        for ttl_ms in [Some(20), None, None] {
            let mut publish = event(0, 0, Priority::Normal, None);
            let ends = |ms| Timestamp::from_millis(clock::now().as_millis() + ms);
            publish.event.expires = ttl_ms.map(|ms| Expiry::At(ends(ms)));
            drop(world.publish(publish).await);
        }
        world.step();
        for (member, _) in &mut members {
            assert_eq!(drain(member).await, 1);
        }
        world.stop_pump().await;
        let [(first, _), (_, ready)] = &mut *members else { panic!("two members") };
        first.sent();
        held::set(Some(1_100));
        // The one of the first has expired: it comes again and is found to be gone.
        let offset = Offset::new(world.broker.log().committed().get() - 2).unwrap();
        let durable = world.broker.durable_by_name("d").unwrap();
        durable.nack(&[offset], None, None, None).unwrap();
        while ready.pop().is_some() {}
        assert_eq!(drain(first).await, 1, "the room of what is gone");
        assert!(ready.pop().is_some(), "nobody was told of the room");
    });
}
