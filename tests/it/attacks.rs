//! Many who are slow on purpose, many who do not read, many who come at once: what they cost, and that others do not
//! feel it.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use serde_json::json;
use tidings::client::{Client, Delivery, Options};
use tidings_proto::{Cursor, Filter, Filters, Position, SubscribeOptions, subscribe::After};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::util::{
    Broker, PATIENCE, eventually, http,
    raw::{Raw, TEXT, frame, upgrade},
    ws::Socket,
};

const ATTACKERS: usize = 1000;
/// How long a head, a body, and a reader may take.
const PATIENT_FOR: Duration = Duration::from_secs(4);
/// How often the honest one is answered in one measurement.
const ROUNDS: usize = 120;
/// Measurements, of which the best counts: what else the machine does is none of ours.
const MEASUREMENTS: usize = 3;

/// As many sockets as the system lets this process have.
fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// The 99th of a hundred.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// An honest client: publishes, and waits until a subscriber has it.
struct Honest {
    publisher: Socket,
    subscriber: Socket,
}

impl Honest {
    async fn new(broker: &Broker) -> Honest {
        let publisher = Socket::open(&broker.public).await;
        let mut subscriber = Socket::open(&broker.public).await;
        subscriber.subscribe(json!({"filters": ["honest"]})).await;
        Honest { publisher, subscriber }
    }

    async fn p99(&mut self) -> Duration {
        let mut best = Duration::MAX;
        for _ in 0..MEASUREMENTS {
            best = best.min(self.measure().await);
        }
        best
    }

    async fn measure(&mut self) -> Duration {
        let mut times = Vec::new();
        for n in 0..ROUNDS {
            let began = Instant::now();
            self.publisher.start("publish", json!({"topic": "honest", "data": n})).await;
            let events = self.subscriber.take(1).await;
            times.push(began.elapsed());
            assert_eq!(events[0]["data"], n);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        p99(times)
    }
}

/// Sends a byte at a time until it is cut; gives how long that took, and what was answered.
async fn trickle(mut stream: TcpStream, first: String) -> (Duration, Vec<u8>) {
    let began = Instant::now();
    stream.write_all(first.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let read = async {
        // It may end in a reset.
        let _ = reader.read_to_end(&mut answer).await;
    };
    let write = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if writer.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
    (began.elapsed(), answer)
}

/// The honest one is not held up: whoever waits for one of the slow waits for [`PATIENT_FOR`]. How much higher its p99 is
/// says the output; on a machine that does other things too a test cannot judge milliseconds.
fn assert_flat(what: &str, calm: Duration, under: Duration) {
    println!("{what}: p99 {calm:?} before, {under:?} meanwhile, {:.2} times", ratio(under, calm));
    assert!(under < calm * 3 + PATIENT_FOR / 20, "{what}: {calm:?} became {under:?}");
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

fn slow_settings() -> Vec<String> {
    let wait = format!("{}ms", PATIENT_FOR.as_millis());
    let names = ["header_timeout", "body_timeout", "write_timeout"];
    names.iter().flat_map(|it| ["--set".to_owned(), format!("limits.{it}={wait}")]).collect()
}

fn slow_broker() -> Broker {
    allow_open_files();
    let settings = slow_settings();
    Broker::with(&settings.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A thousand that send `first` and then next to nothing: cut on time, and nobody feels them.
async fn slow_senders(what: &str, first: impl Fn(&Broker) -> String) -> Vec<Vec<u8>> {
    let broker = slow_broker();
    let mut honest = Honest::new(&broker).await;
    honest.measure().await;
    let calm = honest.p99().await;
    let before = broker.resident_bytes();
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        let stream = TcpStream::connect(&broker.public).await.unwrap();
        attackers.spawn(trickle(stream, first(&broker)));
    }
    let under = honest.p99().await;
    let grown = broker.resident_bytes().saturating_sub(before);
    let mut answers = Vec::new();
    let (mut first, mut last) = (Duration::MAX, Duration::ZERO);
    while let Some(ended) = tokio::time::timeout(PATIENCE, attackers.join_next()).await.unwrap() {
        let (took, answer) = ended.unwrap();
        (first, last) = (first.min(took), last.max(took));
        answers.push(answer);
    }
    println!("{what}: cut after {first:?} to {last:?}, {} KiB each", grown / 1024 / 1000);
    assert!(first >= PATIENT_FOR - Duration::from_millis(200), "{first:?}");
    assert!(last < PATIENT_FOR * 2 + Duration::from_secs(3), "{last:?}");
    assert!(grown < 64 << 20, "{grown} bytes for {ATTACKERS} of them");
    assert_flat(what, calm, under);
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_heavy_a_thousand_slow_heads_hold_nobody_up_and_are_cut() {
    slow_senders("slow heads", |broker| {
        format!("GET /v1/status HTTP/1.1\r\nhost: {}\r\nx-slow: ", broker.public)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_heavy_a_thousand_slow_bodies_hold_nobody_up_and_are_cut() {
    let answers = slow_senders("slow bodies", |broker| {
        format!(
            "POST /v1/topics/a/events HTTP/1.1\r\nhost: {}\r\ncontent-length: 1000\r\n\r\n",
            broker.public
        )
    })
    .await;
    let told = answers.iter().filter(|answer| answer.starts_with(b"HTTP/1.1 408 ")).count();
    assert_eq!(told, ATTACKERS, "each is told why");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_heavy_a_thousand_slow_readers_hold_nobody_up_and_are_cut() {
    const EVENT_BYTES: usize = 900_000;
    let broker = slow_broker();
    let mut honest = Honest::new(&broker).await;
    honest.publisher.publish(json!({"topic": "large", "data": "x".repeat(EVENT_BYTES)})).await;
    honest.measure().await;
    let calm = honest.p99().await;
    let (before, files) = (broker.resident_bytes(), open_files(&broker).await);
    let address = broker.public.parse().unwrap();
    let request =
        format!("GET /v1/topics/large/events HTTP/1.1\r\nhost: {}\r\n\r\n", broker.public);
    let mut attackers = Vec::new();
    let began = Instant::now();
    for _ in 0..ATTACKERS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        attackers.push(stream);
    }
    // What there is no room for was answered so; all others are cut without having been read.
    let mut stalled = Vec::new();
    for mut stream in attackers {
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        if !head.ends_with(b"503") {
            stalled.push(stream);
        }
    }
    let grown = broker.resident_bytes().saturating_sub(before);
    let under = honest.p99().await;
    println!("slow readers: {} MiB, {} of {ATTACKERS} had room", grown >> 20, stalled.len());
    assert!(grown < 400 << 20, "{grown}");
    assert!((1..ATTACKERS).contains(&stalled.len()), "{}", stalled.len());
    assert_flat("slow readers", calm, under);
    let all_are_gone = async || open_files(&broker).await < files + 20;
    eventually("all are cut", all_are_gone).await;
    assert!(began.elapsed() < PATIENT_FOR * 2 + Duration::from_secs(20), "{:?}", began.elapsed());
    for stream in &mut stalled {
        let mut rest = Vec::new();
        // It may end in a reset.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.len() < EVENT_BYTES, "its answer waited for it");
    }
    // There is room again.
    assert_eq!(http::get(&broker.public, "/v1/topics/large/events").await.status, 200);
}

/// How many files and sockets the broker has open.
async fn open_files(broker: &Broker) -> usize {
    let metrics = http::get(&broker.admin, "/metrics").await.text();
    let files = metrics.lines().find_map(|line| line.strip_prefix("process_open_fds "));
    files.unwrap().trim().parse().unwrap()
}

/// A socket that says what it wants and does not read.
async fn silent(broker: &Broker, filter: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(broker.public.parse().unwrap()).await.unwrap();
    stream.write_all(upgrade(&broker.public, "/v1/ws", "").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let subscribe = json!({"subscribe": {"filters": [filter]}}).to_string();
    stream.write_all(&frame(TEXT, subscribe.as_bytes())).await.unwrap();
    stream
}

/// Publishes on `topic` until all of `fast` have it, again and again; gives the p99 of how long each took.
async fn fan_out(publisher: &mut Socket, fast: &mut [Raw], rounds: usize) -> Duration {
    let mut times = Vec::new();
    for n in 0..rounds {
        let began = Instant::now();
        publisher.publish(json!({"topic": "fast", "data": n})).await;
        let needle = format!("\"data\":{n}");
        for raw in fast.iter_mut() {
            loop {
                let (_, payload) = raw.frame().await.expect("a fast one was cut");
                if String::from_utf8_lossy(&payload).contains(&needle) {
                    times.push(began.elapsed());
                    break;
                }
            }
        }
    }
    p99(times)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_heavy_ten_thousand_stalled_sockets_cost_by_formula_and_five_thousand_do_not_feel_them()
{
    const STALLED: usize = 10_000;
    const FAST: usize = 5_000;
    /// What the broker holds for one that takes nothing: one write that is not taken, and what an idle one costs
    /// (docs/operations.md).
    const EACH_BYTES: u64 = (48 + 4) * 1024;
    allow_open_files();
    let broker = Broker::with(&[
        "--set",
        "server.connections_max=16000",
        "--set",
        "limits.send_buffer_bytes=16384",
        "--set",
        "limits.ping_interval=10m",
        "--set",
        "log.tail_bytes=4194304",
    ]);
    let mut publisher = Socket::open(&broker.public).await;
    let mut fast = Vec::new();
    for _ in 0..FAST {
        fast.push(Raw { stream: silent(&broker, "fast").await });
    }
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(silent(&broker, "bulk").await);
    }
    fan_out(&mut publisher, &mut fast, 1).await;
    let calm = fan_out(&mut publisher, &mut fast, 5).await;
    let before = broker.resident_bytes();
    // More than the kernel takes: 40 times 8 KB.
    let events = vec![json!({"topic": "bulk", "data": "x".repeat(8192)}); 40];
    let answer = publisher.call("publish_batch", json!({ "events": events })).await;
    assert!(answer["published_batch"].is_object(), "{answer}");
    let slow = async || {
        let metrics = http::get(&broker.admin, "/metrics").await.text();
        let line = metrics.lines().find(|line| line.starts_with("tidings_slow_sessions ")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as usize >= STALLED
    };
    eventually("all of them are stalled", slow).await;
    let under = fan_out(&mut publisher, &mut fast, 5).await;
    let grown = broker.resident_bytes().saturating_sub(before);
    let each = grown / STALLED as u64;
    println!(
        "{STALLED} stalled: {} KiB each of at most {}; p99 of {FAST} fast ones {calm:?} before, {under:?} meanwhile, {:.2} times",
        each / 1024,
        EACH_BYTES / 1024,
        ratio(under, calm)
    );
    assert!(each <= EACH_BYTES, "{each}");
    assert!(under < calm * 2 + Duration::from_millis(25), "{calm:?} became {under:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_heavy_five_thousand_clients_come_back_after_a_restart_and_miss_nothing() {
    const CLIENTS: usize = 5_000;
    const EVENTS: u64 = 50;
    allow_open_files();
    let mut broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let publish = async |publisher: &mut Socket, from: u64| {
        for n in from..from + EVENTS {
            publisher.publish(json!({"topic": "storm", "data": n})).await;
        }
    };
    let start = Position { cursor: Cursor::START, log: None };
    let mut clients = JoinSet::new();
    let (caught_up, mut is_caught_up) = tokio::sync::mpsc::channel(CLIENTS);
    for _ in 0..CLIENTS {
        let client = Client::connect(Options::to(broker.url())).await.unwrap();
        let options = SubscribeOptions {
            after: Some(After(start.clone())),
            ..SubscribeOptions::to(Filters::one(Filter::parse("storm").unwrap()))
        };
        let mut subscription = client.subscribe(options).await.unwrap();
        let caught_up = caught_up.clone();
        clients.spawn(async move {
            let mut seen = String::new();
            let mut count = 0;
            while count < 2 * EVENTS {
                match tokio::time::timeout(PATIENCE * 2, subscription.next()).await {
                    Ok(Ok(Delivery::Event { event, .. })) => {
                        let data = event.data.unwrap();
                        let _ = write!(seen, "{} ", String::from_utf8_lossy(&data));
                        count += 1;
                        if count == EVENTS {
                            caught_up.send(()).await.unwrap();
                        }
                    }
                    Ok(Ok(Delivery::Gap(gap))) => panic!("a gap: {gap:?}"),
                    Ok(Ok(_)) => {}
                    other => panic!("nothing more comes: {other:?}"),
                }
            }
            seen
        });
    }
    publish(&mut publisher, 0).await;
    for _ in 0..CLIENTS {
        tokio::time::timeout(PATIENCE, is_caught_up.recv()).await.unwrap().unwrap();
    }
    assert_eq!(broker.terminate().0, Some(0));
    let began = Instant::now();
    broker.restart();
    let mut publisher = Socket::open(&broker.public).await;
    publish(&mut publisher, EVENTS).await;
    let sessions = async || {
        let metrics = http::get(&broker.admin, "/metrics").await.text();
        let opened = "tidings_session_opened_total{transport=\"websocket\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(opened));
        line.is_some_and(|opened| opened.parse::<f64>().unwrap() as usize > CLIENTS)
    };
    eventually("all are back", sessions).await;
    let took = began.elapsed();
    println!(
        "{CLIENTS} clients back in {took:?}: {:.0} handshakes a second, spread by the broker and by backoff",
        CLIENTS as f64 / took.as_secs_f64()
    );
    let expected: String = (0..2 * EVENTS).fold(String::new(), |mut all, n| {
        let _ = write!(all, "{n} ");
        all
    });
    while let Some(seen) = clients.join_next().await {
        assert_eq!(seen.unwrap(), expected, "lost, doubled or out of order");
    }
}
