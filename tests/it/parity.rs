//! Every transport gives the same events, and a reader who changes it, or is cut off, misses nothing.

use std::{
    mem::discriminant,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use hyper::Method;
use serde_json::{json, value::RawValue};
use tidings_proto::{
    Cursor, Event, Filter, Filters, LogId, Position, SubscribeOptions,
    message::{Reply, Request},
    subscribe::After,
    wire::json as wire_json,
};

use crate::util::{
    Broker,
    cutting::{Cut, Cutting},
    http,
    peer::{Peer, Speech},
    random::Random,
    sse::Sse,
    ws::Socket,
};

/// Two in three are for the reader.
const EVENTS: u64 = 15_000;
/// How many events are published together.
const TOGETHER: u64 = 12;
/// How far the publisher is ahead of the reader at most: more than a leg reads, so that neither waits for the other,
/// and little enough that many legs come to the end of the log and wait there.
const AHEAD: u64 = 80;
/// How often the transport changes at least: from one of the four to another, not only to other options.
const CHANGES: u64 = 500;
/// The most events that are read before it does.
const LEG_EVENTS: u64 = 10;

/// How the events are read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Transport {
    WebSocket(Speech, bool),
    /// Server-sent events, resumed by `Last-Event-ID` as a browser does, or by `after`.
    Sse(bool),
    LongPoll,
    Read,
}

impl Transport {
    fn all() -> Vec<Transport> {
        let sockets = Speech::ALL.into_iter();
        let sockets =
            sockets.flat_map(|speech| [false, true].map(|it| Transport::WebSocket(speech, it)));
        let others =
            [Transport::Sse(true), Transport::Sse(false), Transport::LongPoll, Transport::Read];
        sockets.chain(others).collect()
    }
}

/// The reader: where it stands and what it has.
struct Reader {
    proxy: Cutting,
    log: LogId,
    cursor: Cursor,
    events: Vec<Event>,
    compressed: usize,
}

impl Reader {
    fn position(&self) -> String {
        format!("{}@{}", self.cursor, self.log.short())
    }

    /// Takes over what was received whole: nothing of it has been there before.
    fn take(&mut self, events: Vec<Event>, cursor: Cursor) {
        for event in &events {
            let last = self.events.last().map_or(0, |last| last.offset.get());
            assert!(event.offset.get() > last, "{} after {last}", event.offset);
            self.events.push(event.clone());
        }
        assert!(cursor >= self.cursor, "it went back from {} to {cursor}", self.cursor);
        self.cursor = cursor;
    }

    /// Reads about so many events, or until it is cut off.
    async fn leg(&mut self, transport: Transport, count: usize) -> Option<()> {
        let until = self.events.len() + count;
        match transport {
            Transport::WebSocket(speech, compress) => {
                let mut peer = Peer::open(&self.proxy.address, speech, compress).await?;
                let read = self.over_socket(&mut peer, until).await;
                self.compressed += peer.compressed;
                read
            }
            Transport::Sse(by_header) => self.over_sse(by_header, until).await,
            Transport::LongPoll => self.over_http(count, "&wait=20s").await,
            Transport::Read => self.over_http(count, "").await,
        }
    }

    async fn over_socket(&mut self, peer: &mut Peer, until: usize) -> Option<()> {
        let after = After(Position { cursor: self.cursor, log: Some(self.log.short()) });
        let filters = Filters::one(Filter::parse("t.*").unwrap());
        let options = SubscribeOptions { after: Some(after), ..SubscribeOptions::to(filters) };
        let reply = peer.call(&Request::Subscribe(Box::new(options))).await?;
        assert!(matches!(reply, Reply::Subscribed(_)), "{reply:?}");
        while self.events.len() < until {
            let batch = peer.events().await?;
            assert_eq!(batch.after, Some(self.cursor));
            self.take(batch.events, batch.cursor.unwrap());
        }
        Some(())
    }

    async fn over_sse(&mut self, by_header: bool, until: usize) -> Option<()> {
        let (id, path) = (self.position(), "/v1/topics/t.*/events");
        let mut stream = match by_header {
            true => Sse::try_open(&self.proxy.address, path, &[("last-event-id", &id)]).await,
            false => Sse::try_open(&self.proxy.address, &format!("{path}?after={id}"), &[]).await,
        }
        .ok()?;
        assert_eq!(stream.status, 200);
        while self.events.len() < until {
            let block = stream.next().await?;
            assert_ne!(block.event.as_deref(), Some("tidings.gap"), "{block:?}");
            if block.id.is_none() {
                continue;
            }
            let event = block.is_event().then(|| block.data.as_deref().unwrap());
            let event = event.map(|text| wire_json::decode_event(text).unwrap());
            self.take(Vec::from_iter(event), Cursor::new(block.cursor()));
        }
        Some(())
    }

    async fn over_http(&mut self, count: usize, wait: &str) -> Option<()> {
        let path = format!("/v1/topics/t.*/events?after={}&limit={count}{wait}", self.position());
        let address = &self.proxy.address;
        let answer = http::try_request(address, Method::GET, &path, &[], b"").await.ok()?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let (events, cursor) = page(&answer.text());
        assert_eq!(answer.header("tidings-cursor"), cursor.to_string());
        self.take(events, cursor);
        Some(())
    }
}

/// The events of a read as they were written, and its cursor.
fn page(text: &str) -> (Vec<Event>, Cursor) {
    #[derive(serde::Deserialize)]
    struct Page {
        events: Vec<Box<RawValue>>,
        cursor: u64,
    }
    let page: Page = serde_json::from_str(text).unwrap();
    let events = page.events.iter().map(|event| wire_json::decode_event(event.get()).unwrap());
    (events.collect(), Cursor::new(page.cursor))
}

/// Publishes all events through cut connections, over sockets and HTTP: what is not answered is sent again with the
/// same ids.
async fn publish(proxy: Cutting, read: Arc<AtomicU64>) {
    let mut random = Random::new(51);
    let mut offset = 0;
    for first in (0..EVENTS).step_by(TOGETHER as usize) {
        let events: Vec<_> = (first..first + TOGETHER)
            .map(|n| {
                // Every third is not for the reader; some are text, some large, some as from another time.
                let topic = if n % 3 == 2 { "other".to_owned() } else { format!("t.{}", n % 4) };
                let filler = "é\u{1f600}x".repeat(usize::try_from(random.below(60)).unwrap());
                match n % 5 {
                    0 => json!({"topic": topic, "id": n.to_string(), "data": filler, "datacontenttype": "text/plain"}),
                    1 => json!({"topic": topic, "id": n.to_string(), "data_base64": "AP9+", "datacontenttype": "image/png", "key": filler.len().to_string()}),
                    _ => json!({"topic": topic, "id": n.to_string(), "data": {"n": n, "filler": filler}, "headers": {"tenant": "7"}}),
                }
            })
            .collect();
        while offset > read.load(Ordering::Relaxed) + AHEAD {
            tokio::task::yield_now().await;
        }
        offset = loop {
            proxy.cut((random.below(4) == 0).then(|| Cut::drawn(&mut random, 8192, 2048)));
            let answered = match random.below(2) {
                0 => over_http(&proxy, &events).await,
                _ => over_socket(&proxy, &events).await,
            };
            if let Some(offset) = answered {
                break offset;
            }
        };
    }
    assert!(proxy.cuts() > 50, "{} publishes were cut", proxy.cuts());
}

/// The offset of the last of them; `None` when the connection was cut.
async fn over_http(proxy: &Cutting, events: &[serde_json::Value]) -> Option<u64> {
    let body = serde_json::to_vec(events).unwrap();
    let headers = [("content-type", "application/json")];
    let sent = http::try_request(&proxy.address, Method::POST, "/v1/events", &headers, &body).await;
    let answer = sent.ok()?;
    assert!(answer.status.is_success(), "{}", answer.text());
    answer.json()["results"].as_array().unwrap().last().unwrap()["offset"].as_u64()
}

async fn over_socket(proxy: &Cutting, events: &[serde_json::Value]) -> Option<u64> {
    let mut socket = Socket::try_open(&proxy.address, "/v1/ws", &[]).await.ok()?;
    let answer = socket.try_call("publish_batch", json!({ "events": events })).await?;
    let results = answer["published_batch"]["results"].as_array();
    results.unwrap_or_else(|| panic!("{answer}")).last().unwrap()["offset"].as_u64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g15_a_reader_who_changes_its_transport_and_is_cut_off_anywhere_misses_nothing() {
    let broker = Broker::start();
    let read = Arc::<AtomicU64>::default();
    let publisher = Cutting::before(&broker.public).await;
    let publisher = tokio::spawn(publish(publisher, read.clone()));
    let status = http::get(&broker.public, "/v1/status").await.json();
    let mut reader = Reader {
        proxy: Cutting::before(&broker.public).await,
        log: status["log"]["id"].as_str().unwrap().parse().unwrap(),
        cursor: Cursor::START,
        events: Vec::new(),
        compressed: 0,
    };
    let mut random = Random::new(1500);
    let transports = Transport::all();
    let (mut legs, mut whole, mut changes) = (0_u64, 0_u64, 0_u64);
    let mut before = Transport::Read;
    let wanted = (0..EVENTS).filter(|n| n % 3 != 2).count();
    while reader.events.len() < wanted {
        let others = transports.iter().filter(|it| **it != before).collect::<Vec<_>>();
        let transport = **random.pick(&others);
        changes += u64::from(discriminant(&transport) != discriminant(&before));
        before = transport;
        let left = (wanted - reader.events.len()) as u64;
        let count = 1 + random.below(left.min(LEG_EVENTS));
        let cut = (random.below(2) == 0).then(|| Cut::drawn(&mut random, 1024, 1 << 16));
        reader.proxy.cut(cut);
        let ended = reader.leg(transport, usize::try_from(count).unwrap()).await;
        assert!(ended.is_some() || cut.is_some(), "{transport:?} was cut by nobody");
        whole += u64::from(ended.is_some());
        legs += 1;
        read.store(reader.cursor.get(), Ordering::Relaxed);
    }
    publisher.await.unwrap();
    let cuts = reader.proxy.cuts();
    println!(
        "{legs} legs, {changes} changes, {whole} whole, {cuts} cut, {} compressed",
        reader.compressed
    );
    assert!(changes >= CHANGES && cuts >= CHANGES / 5, "{changes} changes, {cuts} cut");
    assert!(reader.compressed > 50, "{} batches came compressed", reader.compressed);
    let mut all = Vec::new();
    let mut cursor = Cursor::START;
    while all.len() < wanted {
        let path = format!("/v1/topics/t.*/events?after={cursor}&limit=1000");
        let (events, next) = page(&http::get(&broker.public, &path).await.text());
        assert!(!events.is_empty(), "{} of {wanted} are in the log", all.len());
        all.extend(events);
        cursor = next;
    }
    let ids: Vec<_> = all.iter().map(|event| event.id.as_str().parse::<u64>().unwrap()).collect();
    assert_eq!(ids, Vec::from_iter((0..EVENTS).filter(|n| n % 3 != 2)), "each published once");
    assert!(reader.events == all, "the same events in every attribute");
    let last = http::get(&broker.public, "/v1/status").await.json()["log"]["last"].as_u64();
    assert_eq!(last, Some(EVENTS), "nothing was appended twice");
}
