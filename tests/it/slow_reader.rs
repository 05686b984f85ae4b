//! Subscribers that never read, or slowly, while a million events go by: they cost little, and miss nothing.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpSocket};

use crate::util::{
    Broker, eventually,
    raw::{CLOSE, PING, PONG, Raw, TEXT, frame, upgrade},
    ws::Socket,
};

const EVENTS: u64 = 1_000_000;
/// Events of one message.
const BATCH: u64 = 1000;
/// Messages that are unanswered.
const IN_FLIGHT: u64 = 8;
/// Many, so that what one costs stands out of the noise of an allocator.
const SLEEPERS: u64 = 200;
/// What one may cost.
const COST_MAX: u64 = (48 + 4) * 1024;

/// Little in memory, so that what is measured is not the tail.
const SETTINGS: &[&str] =
    &["--set", "log.tail_bytes=1048576", "--set", "log.segment_bytes=16777216"];

/// Publishes a million events of 100 bytes of data on ten topics.
async fn publish(broker: &Broker) {
    let data = "x".repeat(100);
    let events: Vec<_> =
        (0..BATCH).map(|n| json!({"topic": format!("load.{}", n % 10), "data": data})).collect();
    let body = json!({ "events": events });
    let mut socket = Socket::open(&broker.public).await;
    let mut open = std::collections::VecDeque::new();
    for _ in 0..EVENTS / BATCH {
        if open.len() as u64 >= IN_FLIGHT {
            let request = open.pop_front().unwrap();
            let answer = socket.answer(request).await;
            assert!(answer["published_batch"].is_object(), "{answer}");
        }
        open.push_back(socket.start("publish_batch", body.clone()).await);
    }
    for request in open {
        assert!(socket.answer(request).await["published_batch"].is_object());
    }
}

/// A subscriber whose socket takes next to nothing and that does not read.
async fn sleeper(broker: &Broker, after: u64) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(broker.public.parse().unwrap()).await.unwrap();
    let request = upgrade(&broker.public, "/v1/ws", "");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let mut raw = Raw { stream };
    let subscribe = json!({"id": 1, "subscribe": {"filters": ["load.>"], "after": after}});
    raw.write(&frame(TEXT, subscribe.to_string().as_bytes())).await;
    raw
}

#[derive(Deserialize)]
struct Message {
    events: Option<Batch>,
}

#[derive(Deserialize)]
struct Batch {
    after: u64,
    cursor: u64,
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    offset: u64,
}

/// A subscriber's place, and what it has got to there.
#[derive(Default)]
struct Place {
    cursor: u64,
    offset: u64,
    count: u64,
}

impl Place {
    fn at(cursor: u64) -> Place {
        Place { cursor, offset: cursor, count: 0 }
    }

    /// Reads a batch, and that nothing is missing before it.
    async fn read(&mut self, reader: &mut Raw) {
        loop {
            let (first, payload) = reader.frame().await.expect("the socket ended");
            if first == PING {
                // Who has all that there is and says nothing would be taken for gone.
                reader.write(&frame(PONG, &payload)).await;
            }
            if first != TEXT {
                continue;
            }
            let message: Message = serde_json::from_slice(&payload).unwrap();
            let Some(batch) = message.events else { continue };
            assert_eq!(batch.after, self.cursor, "the chain is broken");
            for event in &batch.events {
                assert!(event.offset > self.offset);
                self.offset = event.offset;
            }
            self.count += batch.events.len() as u64;
            self.cursor = batch.cursor;
            return;
        }
    }
}

/// Reads up to `last`, and that nothing is missing; gives how many events came.
async fn read_to(reader: &mut Raw, cursor: u64, last: u64) -> u64 {
    let mut place = Place::at(cursor);
    while place.cursor < last {
        place.read(reader).await;
    }
    place.count
}

async fn resident_after_load(broker: &Broker) -> u64 {
    publish(broker).await;
    broker.resident_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_heavy_sleeping_readers_cost_little_and_miss_nothing() {
    let without = Broker::with(SETTINGS);
    let plain = resident_after_load(&without).await;
    drop(without);

    let broker = Broker::with(SETTINGS);
    let mut sleepers = Vec::new();
    for _ in 0..SLEEPERS {
        sleepers.push(sleeper(&broker, 0).await);
    }
    let loaded = resident_after_load(&broker).await;
    let cost = loaded.saturating_sub(plain) / SLEEPERS;
    eprintln!("{plain} bytes without, {loaded} with {SLEEPERS} sleepers: {cost} each");
    assert!(cost < COST_MAX, "a reader that does not read costs {cost} bytes");

    // One wakes up, one comes back from where it was.
    let mut woken = sleepers.pop().unwrap();
    assert_eq!(read_to(&mut woken, 0, EVENTS).await, EVENTS);
    drop(sleepers);
    let mut back = sleeper(&broker, EVENTS / 2).await;
    assert_eq!(read_to(&mut back, EVENTS / 2, EVENTS).await, EVENTS / 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_heavy_a_reader_at_a_hundredth_of_the_speed_ends_complete_in_constant_memory() {
    /// How much more the broker may have at any later moment than at the third tenth of the load: what an allocator moves.
    const MORE_MAX: u64 = 6 << 20;
    let broker = Broker::with(SETTINGS);
    let mut slow = sleeper(&broker, 0).await;
    let mut fast = sleeper(&broker, 0).await;
    let (tell, mut told) = tokio::sync::watch::channel(0);
    let (tell_of_slow, mut told_of_slow) = tokio::sync::watch::channel(0);
    let following = tokio::spawn(async move {
        let mut place = Place::default();
        while place.cursor < EVENTS {
            place.read(&mut fast).await;
            tell.send_replace(place.cursor);
        }
        place.count
    });
    let mut others = told.clone();
    let crawling = tokio::spawn(async move {
        let mut place = Place::default();
        while place.cursor < EVENTS {
            place.read(&mut slow).await;
            let due = (place.cursor * 100).min(EVENTS);
            others.wait_for(|cursor| *cursor >= due).await.unwrap();
            if *others.borrow() >= EVENTS {
                break;
            }
        }
        // The others have ended: from here on it is alone.
        let behind = place.count;
        while place.cursor < EVENTS {
            place.read(&mut slow).await;
            tell_of_slow.send_replace(place.cursor);
        }
        (behind, place.count)
    });
    let mut resident = Vec::new();
    let watching = async {
        for tenth in 1..=10 {
            told.wait_for(|cursor| *cursor >= EVENTS / 10 * tenth).await.unwrap();
            resident.push(broker.resident_bytes());
        }
    };
    tokio::join!(publish(&broker), watching);
    // Nine tenths and more of what it reads, it reads now, alone and from the disk.
    let mut resident_alone = Vec::new();
    for twentieth in 1..=20 {
        told_of_slow.wait_for(|cursor| *cursor >= EVENTS / 20 * twentieth).await.unwrap();
        resident_alone.push(broker.resident_bytes());
    }
    assert_eq!(following.await.unwrap(), EVENTS);
    let (behind, count) = crawling.await.unwrap();
    resident_alone.push(broker.resident_bytes());
    eprintln!(
        "resident at each tenth: {resident:?}; the slow one had {behind} when the others had {EVENTS}; \
         at each twentieth of its own: {resident_alone:?}"
    );
    assert!(behind <= EVENTS / 50, "it was not slow: {behind}");
    assert_eq!(count, EVENTS);
    let most = resident[3..].iter().chain(&resident_alone).max().unwrap();
    let bound = resident[2] + MORE_MAX;
    assert!(*most <= bound, "it costs more the longer it lasts: {resident:?}, {resident_alone:?}");
}

#[tokio::test]
async fn g5_large_events_that_nobody_takes_have_a_room_and_keep_nobody_out() {
    const ROOM: u64 = 32 << 20;
    const STALLED: u64 = 80;
    let room = format!("limits.answers_bytes_max={ROOM}");
    let broker = Broker::with(&[SETTINGS, &["--set", &room]].concat());
    let mut publisher = Socket::open(&broker.public).await;
    let large = json!({"topic": "load.1", "data": "x".repeat(600_000)});
    let mut last = 0;
    for _ in 0..4 {
        last = publisher.publish(large.clone()).await;
    }
    let before = broker.resident_bytes();
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut socket = sleeper(&broker, 0).await;
        // The answer to its subscribe: what follows is on its way, or waits.
        socket.frame().await.unwrap();
        stalled.push(socket.stream);
        stalled.push(stalled_stream(&broker).await);
    }
    // A reader with the same wish has its turn: of those before it some are cut off, as they take nothing.
    let mut reader = sleeper(&broker, 0).await;
    let mut place = Place::default();
    let mut most = 0;
    while place.cursor < last {
        place.read(&mut reader).await;
        most = most.max(broker.resident_bytes());
    }
    assert_eq!(place.count, 4);
    let cost = most.saturating_sub(before);
    eprintln!("{STALLED} sockets and as many streams that take nothing: {cost} bytes");
    // Without a room it would be 160 megabytes and more.
    assert!(cost < 2 * ROOM, "what nobody takes costs {cost} bytes");
}

/// A stream whose socket takes next to nothing and that is not read.
async fn stalled_stream(broker: &Broker) -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(broker.public.parse().unwrap()).await.unwrap();
    let request = format!(
        "GET /v1/topics/load.1/events?after=0 HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n",
        broker.public
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    stream.read_u8().await.unwrap();
    stream
}

#[tokio::test]
async fn a_close_is_over_in_time_also_where_the_peer_takes_what_is_left_byte_by_byte() {
    let broker =
        Broker::with(&["--set", "limits.write_timeout=1s", "--set", "server.connections_max=2"]);
    let mut other = Socket::open(&broker.public).await;
    let event = json!({"topic": "load.1", "data": "x".repeat(1000)});
    for _ in 0..20 {
        let batch = json!({"events": vec![event.clone(); 100]});
        assert!(other.call("publish_batch", batch).await["published_batch"].is_object());
    }
    let mut slow = sleeper(&broker, 0).await;
    slow.stream.read_u8().await.unwrap();
    slow.write(&frame(CLOSE, &1000_u16.to_be_bytes())).await;
    let began = Instant::now();
    // So slow that what the kernel and the broker hold for it would last for half a minute, and fast enough that the
    // broker sees it take something all the time.
    let crawling = tokio::spawn(async move {
        let mut few = [0; 100];
        while let Ok(1..) = slow.stream.read(&mut few).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let has_room = async || Socket::try_open(&broker.public, "/v1/ws", &[]).await.is_ok();
    eventually("its place is free", has_room).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?} instead of 2.5 s");
    assert!(!crawling.is_finished(), "it has more to read still");
}
