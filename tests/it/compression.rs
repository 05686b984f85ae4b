//! What is compressed: batches of events on sockets, once for all who ask and with the same events in them; answers and
//! bodies of HTTP.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tidings_proto::{
    Cursor, Event, Filter, Filters, Position, SubscribeOptions,
    message::{Connect, Reply, Request, ServerMessage},
    subscribe::After,
};

use crate::{
    auth::{admin, guarded},
    util::{
        Broker,
        http::{self, Answer},
        peer::{Peer, Speech},
        sse::Sse,
        ws::Socket,
    },
};

const EVENTS: usize = 500;

/// A broker with so many events like those of a log file.
async fn filled() -> Broker {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    for first in (0..EVENTS).step_by(100) {
        let events = (first..first + 100).map(|n| {
            let line =
                format!("2026-11-21T05:16:{:02} INFO request {n} done in {} ms", n % 60, n % 7);
            json!({"topic": "logs.web", "type": "line", "data": {"line": line, "host": "web-7"}})
        });
        let events: Vec<_> = events.collect();
        socket.call("publish_batch", json!({ "events": events })).await;
    }
    broker
}

async fn subscribe(peer: &mut Peer, filter: &str) {
    let filters = Filters::one(Filter::parse(filter).unwrap());
    let after = Some(After(Position { cursor: Cursor::START, log: None }));
    let options = SubscribeOptions { after, ..SubscribeOptions::to(filters) };
    let reply = peer.call(&Request::Subscribe(Box::new(options))).await.unwrap();
    assert!(matches!(reply, Reply::Subscribed(_)), "{reply:?}");
}

/// The events that there are at first.
async fn read_all(peer: &mut Peer, filter: &str) -> Vec<Event> {
    subscribe(peer, filter).await;
    let mut events = Vec::new();
    let mut cursor = Cursor::START;
    while events.len() < EVENTS {
        let batch = peer.events().await.unwrap();
        assert_eq!(batch.after, Some(cursor));
        cursor = batch.cursor.unwrap();
        events.extend(batch.events);
    }
    events.truncate(EVENTS);
    events
}

/// A counter of the broker.
async fn counter(broker: &Broker, series: &str) -> u64 {
    let metrics = http::get(&broker.admin, "/metrics").await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{series} ")));
    line.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

#[tokio::test]
async fn batches_come_compressed_with_the_same_events_in_every_encoding() {
    let broker = filled().await;
    let mut plain = Peer::open(&broker.public, Speech::Json, false).await.unwrap();
    let events = read_all(&mut plain, "logs.web").await;
    assert_eq!(plain.compressed, 0, "nobody asked");
    for speech in Speech::ALL {
        let mut whole = Peer::open(&broker.public, speech, false).await.unwrap();
        read_all(&mut whole, "logs.web").await;
        let mut peer = Peer::open(&broker.public, speech, true).await.unwrap();
        assert!(read_all(&mut peer, "logs.web").await == events, "{speech:?}");
        assert!(peer.compressed >= EVENTS / 256, "{speech:?}: {} batches", peer.compressed);
        let (bytes, of) = (peer.bytes, whole.bytes);
        assert!(3 * bytes < of, "{speech:?}: {bytes} bytes instead of {of}");
        // What comes alone is too small.
        let before = peer.compressed;
        Socket::open(&broker.public).await.publish(json!({"topic": "logs.web"})).await;
        loop {
            if let Some(event) = peer.events().await.unwrap().events.first() {
                assert!(event.data.is_none());
                break;
            }
        }
        assert_eq!(peer.compressed, before);
    }
}

#[tokio::test]
async fn a_batch_is_compressed_once_for_all_who_get_it() {
    const READERS: u64 = 20;
    let broker = filled().await;
    let made = "tidings_compressed_batches_total{result=\"made\"}";
    let mut batches = 0;
    for n in 0..READERS {
        let mut peer = Peer::open(&broker.public, Speech::Protobuf, true).await.unwrap();
        // Another filter, but the same events.
        read_all(&mut peer, if n % 2 == 0 { "logs.web" } else { "logs.>" }).await;
        batches = peer.compressed as u64;
    }
    assert_eq!(counter(&broker, made).await, batches);
    let shared = counter(&broker, "tidings_compressed_batches_total{result=\"shared\"}").await;
    assert_eq!(shared, (READERS - 1) * batches);
    assert!(counter(&broker, "tidings_compression_saved_bytes_total").await > READERS * 10_000);
}

#[tokio::test]
async fn the_answer_to_connect_says_from_where_on_it_is_compressed() {
    let broker = filled().await;
    let capabilities = http::get(&broker.public, "/v1/capabilities").await.json();
    assert_eq!(capabilities["compress"], json!(["deflate-raw"]));
    // What is not known is passed over.
    let mut socket = Socket::open(&broker.public).await;
    for (asked, chosen) in [
        (json!(["zstd", "deflate-raw"]), json!("deflate-raw")),
        (json!(["zstd"]), json!(null)),
        (json!([]), json!(null)),
    ] {
        let answer = socket.call("connect", json!({ "compress": asked })).await;
        assert_eq!(answer["connected"]["compress"], chosen);
    }
    // The last answer holds.
    let mut peer = Peer::open(&broker.public, Speech::Msgpack, true).await.unwrap();
    read_all(&mut peer, "logs.web").await;
    let before = peer.compressed;
    assert!(before > 0);
    while !matches!(peer.next().await.unwrap(), ServerMessage::Push(_)) {}
    let none = Connect { token: None, client: None, compress: Vec::new() };
    let reply = peer.call(&Request::Connect(none)).await.unwrap();
    assert!(matches!(reply, Reply::Connected(connected) if connected.compress.is_none()));
    read_all(&mut peer, "logs.>").await;
    assert_eq!(peer.compressed, before);
}

#[tokio::test]
async fn the_command_and_the_client_write_the_same_with_compression() {
    let broker = filled().await;
    let read = |more: &[&str]| {
        let mut command = broker.cli(&["sub", "logs.>", "--after", "first", "--until-caught-up"]);
        command.args(["--output", "json"]).args(more).stderr(Stdio::inherit());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let plain = read(&[]);
    assert_eq!(plain.lines().count(), EVENTS);
    let made = "tidings_compressed_batches_total{result=\"made\"}";
    assert_eq!(counter(&broker, made).await, 0);
    assert_eq!(read(&["--compress"]), plain);
    assert!(counter(&broker, made).await >= 2);
}

/// Every coding of HTTP, the one that the broker likes best first.
const CODINGS: [&str; 3] = ["zstd", "gzip", "br"];
const EVENTS_OF_LOGS: &str = "/v1/topics/logs.web/events";

fn coded(coding: &str, bytes: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" | "x-gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => zstd::encode_all(bytes, 19).unwrap(),
        "br" => {
            let mut out = Vec::new();
            brotli::CompressorWriter::new(&mut out, 4096, 9, 22).write_all(bytes).unwrap();
            out
        }
        other => panic!("{other}"),
    }
}

fn inflated(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        "" => out.extend_from_slice(bytes),
        "gzip" => drop(MultiGzDecoder::new(bytes).read_to_end(&mut out).unwrap()),
        "zstd" => out = zstd::decode_all(bytes).unwrap(),
        "br" => drop(brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap()),
        other => panic!("{other}"),
    }
    out
}

async fn ask(broker: &Broker, method: Method, path: &str, accept: &str) -> Answer {
    let headers = [("accept-encoding", accept)];
    http::request(&broker.public, method, path, &headers, b"").await
}

async fn publish(broker: &Broker, coding: &str, body: &[u8]) -> Answer {
    let headers = [("content-type", "text/plain"), ("content-encoding", coding)];
    http::request(&broker.public, Method::POST, "/v1/topics/a/events", &headers, body).await
}

fn problem(answer: &Answer) -> (u16, Value, String) {
    let problem = answer.json();
    let detail = problem["detail"].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), problem["code"].clone(), detail)
}

#[tokio::test]
async fn answers_come_in_the_coding_that_is_liked_best_and_are_the_same() {
    let broker = filled().await;
    let can = http::get(&broker.public, "/v1/capabilities").await.json();
    assert_eq!(can["content_codings"], json!(CODINGS));
    let list = format!("{EVENTS_OF_LOGS}?limit=300");
    let small_list = format!("{EVENTS_OF_LOGS}?limit=10");
    // One is compressed by the thread that answers, one on the pool, one ahead.
    for path in [small_list.as_str(), list.as_str(), "/v1/openapi.json"] {
        let plain = ask(&broker, Method::GET, path, "").await;
        assert_eq!((plain.status, plain.header("vary")), (StatusCode::OK, "Accept-Encoding"));
        assert_eq!(plain.header("content-encoding"), "");
        for (accept, coding) in [
            ("gzip", "gzip"),
            ("br", "br"),
            ("zstd", "zstd"),
            ("gzip, deflate, br, zstd", "zstd"),
            ("gzip;q=0.5, br;q=0.8, zstd;q=0", "br"),
            ("gzip;q=0, br;q=0", ""),
            ("identity, gzip;q=0.5", ""),
            ("deflate", ""),
            ("*", "zstd"),
        ] {
            let answer = ask(&broker, Method::GET, path, accept).await;
            assert_eq!(answer.header("content-encoding"), coding, "{path} {accept}");
            assert_eq!(answer.header("vary"), "Accept-Encoding", "{path} {accept}");
            assert_eq!(answer.header("content-length"), answer.body.len().to_string());
            assert!(inflated(coding, &answer.body) == plain.body, "{path} {accept}");
            assert!(coding.is_empty() || answer.body.len() * 4 < plain.body.len());
            let head = ask(&broker, Method::HEAD, path, accept).await;
            if head.status == StatusCode::OK {
                assert!(head.body.is_empty());
                for name in ["content-encoding", "vary", "etag", "content-length"] {
                    assert_eq!(head.header(name), answer.header(name), "{path} {accept} {name}");
                }
            }
        }
    }
    // The same events to whoever waits for them.
    let waiting = format!("{EVENTS_OF_LOGS}?after={EVENTS}&wait=30");
    let poll = ask(&broker, Method::GET, &waiting, "gzip");
    let publish = async {
        let data = "x".repeat(5000);
        Socket::open(&broker.public).await.publish(json!({"topic": "logs.web", "data": data})).await
    };
    let (answer, offset) = tokio::join!(poll, publish);
    let read: Value = serde_json::from_slice(&inflated("gzip", &answer.body)).unwrap();
    assert_eq!(read["events"][0]["offset"], offset);
}

#[tokio::test]
async fn a_document_has_a_tag_for_each_coding() {
    let broker = Broker::start();
    let path = "/v1/asyncapi.json";
    let mut tags = Vec::new();
    for accept in ["", "gzip", "br", "zstd"] {
        let tag = ask(&broker, Method::GET, path, accept).await.header("etag").to_owned();
        assert!(!tags.contains(&tag), "{accept}");
        tags.push(tag);
        for (n, known) in tags.iter().enumerate() {
            let headers = [("accept-encoding", accept), ("if-none-match", known.as_str())];
            let again = http::request(&broker.public, Method::GET, path, &headers, b"").await;
            let is_same = n + 1 == tags.len();
            assert_eq!(again.status == StatusCode::NOT_MODIFIED, is_same, "{accept} {known}");
            assert_eq!(again.header("vary"), "Accept-Encoding");
            assert!(!is_same || again.header("content-encoding").is_empty());
        }
    }
}

#[tokio::test]
async fn streams_small_answers_and_secrets_are_never_compressed() {
    let broker = filled().await;
    let all = ("accept-encoding", "gzip, br, zstd, identity;q=0");
    let path = format!("{EVENTS_OF_LOGS}?after=0");
    let mut stream = Sse::open(&broker.public, &path, &[all]).await;
    assert!(!stream.headers.contains_key("content-encoding"));
    assert_eq!(stream.event().await.unwrap().cursor(), 1);
    // Who takes plain answers too gets small ones so, and they are no others for anybody else.
    let small = ask(&broker, Method::GET, "/v1/events/1", "gzip").await;
    assert_eq!((small.header("content-encoding"), small.header("vary")), ("", ""));
    let only = http::request(&broker.public, Method::GET, "/v1/events/1", &[all], b"").await;
    assert_eq!((only.header("content-encoding"), only.header("vary")), ("zstd", "Accept-Encoding"));
    assert_eq!(inflated("zstd", &only.body), small.body);
    // What somebody else chose stands beside the key: how far it compresses would tell of it.
    let grants = json!({"publish": vec!["tdk_".repeat(40); 50]});
    let wish = json!({"name": "ci", "grants": grants}).to_string();
    let headers = [all, ("content-type", "application/json")];
    let guarded = guarded(&[]).broker;
    let bearer = format!("Bearer {}", admin());
    let headers = [headers.as_slice(), &[("authorization", &bearer)]].concat();
    for (path, body) in [("/v1/auth/keys", wish.as_str()), ("/v1/tickets", "")] {
        let made =
            http::request(&guarded.public, Method::POST, path, &headers, body.as_bytes()).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
        assert_eq!((made.header("content-encoding"), made.header("vary")), ("", ""), "{path}");
        let json = made.json();
        assert!(json["key"].is_string() || json["ticket"].is_string(), "{json}");
        assert!(path == "/v1/tickets" || made.body.len() > 5000);
    }
}

#[tokio::test]
async fn bodies_are_inflated_up_to_the_limit_and_not_a_byte_beyond() {
    // The smaller one is inflated at once, the larger one on the pool.
    for limit in [5_000, 300_000] {
        let setting = format!("limits.message_bytes_max={limit}");
        let broker = Broker::with(&["--set", &setting]);
        let text: String = (0..).map(|n| format!("line {} ", n % 100)).take(limit).collect();
        for coding in ["gzip", "x-gzip", "GZIP", "zstd", "br"] {
            for (bytes, status) in [(1, 201), (limit - 1, 201), (limit, 201), (limit + 1, 413)] {
                let body = coded(&coding.to_lowercase(), &text.as_bytes()[..bytes]);
                let answer = publish(&broker, coding, &body).await;
                assert_eq!(answer.status, status, "{coding} {bytes}: {}", answer.text());
                if status == 413 {
                    let (_, code, detail) = problem(&answer);
                    assert_eq!(code, "too_large");
                    assert!(detail.contains("inflated") && detail.contains(&limit.to_string()));
                    continue;
                }
                let last = http::get(&broker.public, "/v1/topics/a/last").await.json();
                assert_eq!(last["data"], text[..bytes], "{coding}");
            }
        }
        // What comes has the same limit, whatever it would become.
        let noise: Vec<u8> = (0..limit as u64 * 2).map(|n| (n * n % 251) as u8 ^ 0x55).collect();
        let long = [coded("gzip", b"x"), vec![0; limit]].concat();
        for body in [long, noise] {
            assert_eq!(publish(&broker, "gzip", &body).await.status, 413);
        }
        let after = publish(&broker, "identity", b"plain").await;
        assert_eq!(after.status, 201);
    }
}

#[tokio::test]
async fn what_cannot_be_inflated_is_refused_with_what_can() {
    let broker = Broker::start();
    let body = coded("gzip", b"hello");
    let twice = coded("zstd", &body);
    for (coding, body) in [
        ("deflate", &body),
        ("compress", &body),
        ("aes128gcm", &body),
        ("gzip, zstd", &twice),
        ("gzip, gzip", &body),
    ] {
        let answer = publish(&broker, coding, body).await;
        let (status, code, detail) = problem(&answer);
        assert_eq!((status, code), (415, json!("unsupported_media_type")), "{coding}");
        assert!(detail.starts_with("content-encoding: ") && detail.contains("zstd"), "{detail}");
        assert_eq!(answer.header("accept-encoding"), "zstd, gzip, br, identity");
    }
    for coding in CODINGS {
        let whole = coded(coding, &b"hello ".repeat(1000));
        let cut = whole[..whole.len() - 1].to_vec();
        let followed = [whole.as_slice(), b"!"].concat();
        for body in [cut, followed, b"hello".to_vec(), Vec::new()] {
            let (status, code, detail) = problem(&publish(&broker, coding, &body).await);
            assert_eq!((status, code), (400, json!("invalid_argument")), "{coding}");
            assert!(detail.starts_with(&format!("body: it is not whole {coding}")), "{detail}");
        }
    }
    assert_eq!(http::get(&broker.public, "/v1/topics/a/last").await.status, 404);
    // Whatever takes a body takes it compressed.
    let options = coded("br", json!({"filters": ["a"]}).to_string().as_bytes());
    let headers = [("content-type", "application/json"), ("content-encoding", "identity, br")];
    let path = "/v1/subscriptions/d";
    let made = http::request(&broker.public, Method::PUT, path, &headers, &options).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
}

#[tokio::test]
async fn an_operator_may_choose_the_codings() {
    let broker = Broker::with(&["--set", "server.codings=br"]);
    assert_eq!(
        ask(&broker, Method::GET, "/v1/openapi.json", "*").await.header("content-encoding"),
        "br"
    );
    assert_eq!(publish(&broker, "br", &coded("br", b"x")).await.status, 201);
    let refused = publish(&broker, "gzip", &coded("gzip", b"x")).await;
    assert_eq!((refused.status.as_u16(), refused.header("accept-encoding")), (415, "br, identity"));
    let none = Broker::with(&["--set", "server.codings="]);
    let plain = ask(&none, Method::GET, "/v1/openapi.json", "gzip, br, zstd").await;
    assert_eq!((plain.header("content-encoding"), &plain.body[..1]), ("", &b"{"[..]));
    let refused = publish(&none, "gzip", &coded("gzip", b"x")).await;
    assert_eq!((refused.status.as_u16(), refused.header("accept-encoding")), (415, "identity"));
    let can = http::get(&none.public, "/v1/capabilities").await.json();
    assert_eq!(can["content_codings"], json!([]));
}

/// Forty bombs at a time, each a thousand times as large when it is inflated: 800 MB in each round.
#[tokio::test]
async fn bombs_are_never_held() {
    let broker = Broker::start();
    let zeros = vec![0; 20 << 20];
    let rss_before = broker.resident_bytes();
    for coding in CODINGS {
        let bomb = coded(coding, &zeros);
        assert!(bomb.len() * 900 < zeros.len(), "{coding}: {}", bomb.len());
        let mut sent = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let (address, bomb) = (broker.public.clone(), bomb.clone());
            sent.spawn(async move {
                let headers = [("content-type", "text/plain"), ("content-encoding", coding)];
                let path = "/v1/topics/a/events";
                http::request(&address, Method::POST, path, &headers, &bomb).await.status
            });
        }
        while let Some(status) = sent.join_next().await {
            assert_eq!(status.unwrap(), StatusCode::PAYLOAD_TOO_LARGE, "{coding}");
        }
    }
    let grown = broker.resident_bytes().saturating_sub(rss_before);
    let processors = std::thread::available_parallelism().unwrap().get() as u64;
    // A window of brotli for each that is inflated at a time, a megabyte for each that waits.
    let bound = (24 + 32 * processors + 40) << 20;
    assert!(grown < bound, "{} MiB, at most {} were expected", grown >> 20, bound >> 20);
}

#[tokio::test]
async fn programs_that_are_not_ours_understand_each_other_with_us() {
    let broker = filled().await;
    let url = format!("{}{EVENTS_OF_LOGS}?limit=200", broker.url());
    let plain = http::get(&broker.public, &format!("{EVENTS_OF_LOGS}?limit=200")).await.text();
    for coding in CODINGS {
        let accept = format!("Accept-Encoding: {coding}");
        let args = ["-sS", "--fail", "--compressed", "-H", &accept, "-D", "/dev/stderr", &url];
        let Ok(output) = Command::new("curl").args(args).output() else {
            eprintln!("there is no curl");
            break;
        };
        let head = String::from_utf8_lossy(&output.stderr);
        if head.contains("nrecognized content encoding") {
            eprintln!("this curl has no {coding}");
            continue;
        }
        assert!(head.to_lowercase().contains(&format!("content-encoding: {coding}")), "{head}");
        assert!(output.stdout == plain.as_bytes(), "{coding}");
    }
    let program = r#"
import gzip, sys, urllib.request
url, read = sys.argv[1:]
headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
answer = urllib.request.urlopen(urllib.request.Request(read, headers={"Accept-Encoding": "gzip"}))
assert answer.headers["Content-Encoding"] == "gzip", answer.headers
sys.stdout.buffer.write(gzip.decompress(answer.read()))
request = urllib.request.Request(url, gzip.compress(b"of python " * 100), headers)
assert urllib.request.urlopen(request).status == 201
"#;
    let publish = format!("{}/v1/topics/python/events", broker.url());
    match Command::new("python3").args(["-c", program, &publish, &url]).output() {
        Err(_) => eprintln!("there is no python3"),
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(output.stdout == plain.as_bytes());
            let last = http::get(&broker.public, "/v1/topics/python/last").await.json();
            assert_eq!(last["data"], "of python ".repeat(100));
        }
    }
    let out = "tidings_http_compressed_bodies_total{coding=\"gzip\",direction=\"out\"}";
    assert!(counter(&broker, out).await >= 1);
    assert!(
        counter(&broker, "tidings_http_compression_saved_bytes_total{direction=\"out\"}").await
            > 10_000
    );
}
