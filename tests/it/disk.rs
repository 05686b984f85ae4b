//! The data directory: one owner, private, full, damaged; and what `tidings log` says of it.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use hyper::Method;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::auth::{SECRET, admin, now_s, signed};
use crate::scheduled::in_ms;
use crate::util::{
    Broker, Reaped, binary, eventually,
    http::{self, Answer},
    sse::Sse,
    ws::Socket,
};

/// Every file below this directory with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn g13_a_second_broker_on_the_same_directory_exits_and_touches_nothing() {
    let broker = Broker::start();
    assert!(broker.cli(&["pub", "a", "1"]).stdout(Stdio::null()).status().unwrap().success());
    let log = broker.dir.join("log");
    let before = contents(&log);
    let second = broker.command().output().unwrap();
    assert_eq!(second.status.code(), Some(75), "{second:?}");
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(&broker.pid().as_raw_nonzero().to_string()), "no pid: {said}");
    assert!(said.contains(broker.dir.to_str().unwrap()), "no directory: {said}");
    assert_eq!(contents(&log), before, "it touched the log");
    let output = broker.cli(&["status", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn g13_many_brokers_at_once_and_one_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut brokers: Vec<Reaped> = (0..6)
        .map(|_| {
            let mut command = Command::new(binary());
            command.arg("serve").arg("--data").arg(&data);
            command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
            command.stdout(Stdio::piped()).stderr(Stdio::null());
            Reaped(command.spawn().unwrap())
        })
        .collect();
    // The line of the one that runs, and nothing of the others.
    let lines: Vec<String> = brokers
        .iter_mut()
        .map(|broker| {
            let mut line = String::new();
            let stdout = broker.0.stdout.take().unwrap();
            BufReader::new(stdout).read_line(&mut line).unwrap();
            line
        })
        .collect();
    assert_eq!(lines.iter().filter(|line| line.starts_with("listening")).count(), 1, "{lines:?}");
    for (broker, line) in brokers.iter_mut().zip(&lines) {
        if line.is_empty() {
            assert_eq!(broker.0.wait().unwrap().code(), Some(75));
        }
    }
}

#[tokio::test]
async fn s13_the_directory_is_private_and_shows_no_topics() {
    let broker = Broker::with(&["--set", "log.segment_bytes=65536"]);
    let mut socket = Socket::open(&broker.public).await;
    for number in 0..100 {
        let event = json!({"topic": format!("secret.{number}"), "data": "x".repeat(2000)});
        socket.publish(event).await;
    }
    let mut dirs = vec![broker.dir.clone()];
    let mut files = 0;
    while let Some(dir) = dirs.pop() {
        let mode = std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", dir.display());
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(!name.contains("secret"), "{name}");
            if path.is_dir() {
                dirs.push(path);
            } else {
                files += 1;
                let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{}", path.display());
            }
        }
    }
    assert!(files > 4, "only {files} files");
}

/// A small disk of its own: a tmpfs in a namespace that ends with this value.
struct SmallDisk {
    holder: Reaped,
    dir: PathBuf,
    _mountpoint: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where the machine allows no namespaces.
    fn new(bytes: u64) -> Option<SmallDisk> {
        let mountpoint = tempfile::tempdir().unwrap();
        let dir = mountpoint.path().to_owned();
        let script = format!(
            "mount -t tmpfs -o size={bytes},mode=0700 tidings-test '{}' && echo ready && exec sleep 600",
            dir.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
        let mut holder = Reaped(command.stdout(Stdio::piped()).spawn().ok()?);
        let mut line = String::new();
        BufReader::new(holder.0.stdout.take()?).read_line(&mut line).ok()?;
        (line == "ready\n").then_some(SmallDisk { holder, dir, _mountpoint: mountpoint })
    }

    /// Puts this broker's processes on the disk.
    fn command(&self, broker: &Broker) -> Command {
        let plain = broker.command();
        let mut command = Command::new("nsenter");
        let target = self.holder.0.id().to_string();
        command.args(["--target", &target, "--user", "--mount", "--preserve-credentials"]);
        command.arg(binary()).args(plain.get_args()).env("TIDINGS_LOG", "tidings=error");
        command
    }

    /// A file on it as seen from outside.
    fn outside(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.0.id()));
        root.join(self.dir.strip_prefix("/").unwrap()).join(name)
    }
}

const FULL: &[&str] = &[
    "--set",
    "log.segment_bytes=1048576",
    "--set",
    "log.reserve_bytes=262144",
    "--set",
    "retention.max_bytes=0",
];

/// A broker on a small disk; loud where that cannot be had.
fn on_a_small_disk(bytes: u64) -> Option<(SmallDisk, Broker)> {
    let Some(disk) = SmallDisk::new(bytes) else {
        eprintln!("SKIPPED: this machine allows no user namespaces, so there is no small disk");
        return None;
    };
    let mut broker = Broker::stopped(&disk.dir, FULL);
    broker.run(disk.command(&broker));
    Some((disk, broker))
}

async fn publish(broker: &Broker, number: u64) -> Answer {
    let path = "/v1/topics/a/events";
    let body = format!("{number} {}", "x".repeat(8000));
    http::request(&broker.public, Method::POST, path, &[], body.as_bytes()).await
}

/// Publishes until it is refused; gives how many are in.
async fn fill(broker: &Broker, mut number: u64) -> (u64, Answer) {
    loop {
        let answer = publish(broker, number + 1).await;
        if answer.status != 201 {
            return (number, answer);
        }
        number += 1;
        assert!(number < 10_000, "the disk is never full");
    }
}

/// All events of the topic `a`: number by offset.
async fn read_all(broker: &Broker) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut after = 0;
    loop {
        let path = format!("/v1/topics/a/events?limit=1000&after={after}");
        let answer = http::get(&broker.public, &path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page = answer.json();
        for event in page["events"].as_array().unwrap() {
            let text = event["data"].as_str().map(str::to_owned).unwrap_or_else(|| {
                use base64::{Engine, engine::general_purpose::STANDARD};
                let bytes = STANDARD.decode(event["data_base64"].as_str().unwrap()).unwrap();
                String::from_utf8(bytes).unwrap()
            });
            numbers.push(text.split(' ').next().unwrap().parse().unwrap());
        }
        after = page["cursor"].as_u64().unwrap();
        if page["last"].as_u64().unwrap() <= after {
            return numbers;
        }
    }
}

/// What an admin asks of a broker that wants tokens.
async fn asked(broker: &Broker, method: Method, path: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {}", admin());
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    http::request(&broker.public, method, path, &headers, body.as_bytes()).await
}

/// A broker that wants tokens on a small disk that is full.
async fn guarded_and_full(reserve: &str) -> Option<(SmallDisk, Broker)> {
    let disk = SmallDisk::new(12 << 20)?;
    let secret = format!("auth.hs256_secret={SECRET}");
    let args = [FULL, &["--set", reserve, "--set", &secret]].concat();
    let mut broker = Broker::stopped(&disk.dir, &args);
    broker.run(disk.command(&broker));
    let data = json!("x".repeat(8000)).to_string();
    while asked(&broker, Method::POST, "/v1/topics/a/events", &data).await.status == 201 {}
    Some((disk, broker))
}

/// Revokes one token, and says whether it is out now.
async fn revoked(broker: &Broker, jti: &str) -> (Answer, bool) {
    let claims = json!({
        "sub": "alice", "jti": jti, "exp": now_s() + 3600, "tidings": {"subscribe": [">"]},
    });
    let bearer = format!("Bearer {}", signed(Algorithm::HS256, SECRET, &claims));
    let read = async || {
        let headers = [("authorization", &*bearer)];
        let path = "/v1/topics/a/events?limit=1";
        http::request(&broker.public, Method::GET, path, &headers, b"").await.status
    };
    assert_eq!(read().await, 200);
    let body = json!({ "jti": jti }).to_string();
    let answer = asked(broker, Method::POST, "/v1/auth/revocations", &body).await;
    (answer, read().await == 401)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_a_full_disk_has_room_for_what_is_revoked() {
    let Some((disk, mut broker)) = guarded_and_full("log.reserve_bytes=262144").await else {
        eprintln!("SKIPPED: this machine allows no user namespaces, so there is no small disk");
        return;
    };
    // Whoever publishes all the while takes nobody the room.
    let mut floods = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (address, bearer) = (broker.public.clone(), format!("Bearer {}", admin()));
        floods.spawn(async move {
            let (path, data) = ("/v1/topics/a/events", "x".repeat(8000));
            loop {
                let headers = [("authorization", &*bearer)];
                let sent =
                    http::try_request(&address, Method::POST, path, &headers, data.as_bytes());
                assert_eq!(sent.await.unwrap().status, 503);
            }
        });
    }
    for n in 0..50 {
        let (answer, is_out) = revoked(&broker, &format!("j{n}")).await;
        assert_eq!((answer.status.as_u16(), is_out), (201, true), "{n}: {}", answer.text());
    }
    floods.shutdown().await;
    broker.kill();
    broker.run(disk.command(&broker));
    let list = asked(&broker, Method::GET, "/v1/auth/revocations?limit=1000", "").await.json();
    assert_eq!(list["revocations"].as_array().unwrap().len(), 50, "what was answered is stored");
}

#[tokio::test]
async fn s3_what_is_revoked_and_cannot_be_stored_is_in_force_and_that_is_said() {
    let Some((_disk, broker)) = guarded_and_full("log.reserve_bytes=0").await else {
        eprintln!("SKIPPED: this machine allows no user namespaces, so there is no small disk");
        return;
    };
    for n in 0..500 {
        let (answer, is_out) = revoked(&broker, &format!("j{n}")).await;
        assert!(is_out, "{n}: {}", answer.text());
        if answer.status == 503 {
            let text = answer.text();
            assert!(text.contains("until the broker is started anew"), "{text}");
            let (again, is_out) = revoked(&broker, &format!("k{n}")).await;
            assert_eq!((again.status.as_u16(), is_out), (503, true), "{}", again.text());
            return;
        }
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    panic!("the disk takes everything");
}

async fn durable(broker: &Broker, call: &str, body: Value) -> Answer {
    http::post_json(&broker.public, &format!("/v1/subscriptions/d/{call}"), &body).await
}

#[tokio::test]
async fn g6_a_full_disk_refuses_publishes_keeps_reads_and_acks_and_recovers() {
    let Some((disk, mut broker)) = on_a_small_disk(12 << 20) else { return };
    let ballast = disk.outside("ballast");
    std::fs::write(&ballast, vec![7; 4 << 20]).unwrap();
    let body = json!({"filters": ["a"], "start": "first"}).to_string();
    let path = "/v1/subscriptions/d";
    let headers = [("content-type", "application/json")];
    let made = http::request(&broker.public, Method::PUT, path, &headers, body.as_bytes()).await;
    assert!(made.status.is_success(), "{}", made.text());
    let mut watcher = Socket::open(&broker.public).await;
    watcher.subscribe(json!({"filters": ["a"], "after": 0})).await;

    let (stored, refusal) = fill(&broker, 0).await;
    assert!(stored > 100, "full after {stored}");
    assert_eq!(refusal.status, 503, "{}", refusal.text());
    assert_eq!(refusal.json()["code"], "unavailable");
    assert_eq!(refusal.json()["retryable"], true);
    assert!(!refusal.header("retry-after").is_empty());
    let ready = http::get(&broker.admin, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("disk"), "{}", ready.text());
    assert_eq!(http::get(&broker.admin, "/livez").await.status, 200, "it is no reason to kill it");
    let mut socket = Socket::open(&broker.public).await;
    let refused = socket.refused("publish", json!({"topic": "a", "data": "x".repeat(8000)})).await;
    assert_eq!(refused["code"], "unavailable", "{refused}");

    // Reads and acks go on.
    let expected: Vec<u64> = (1..=stored).collect();
    assert_eq!(read_all(&broker).await, expected);
    assert_eq!(watcher.take(expected.len()).await.len(), expected.len());
    let fetched = durable(&broker, "fetch", json!({"limit": 50})).await.json();
    let floor = fetched["events"][49]["offset"].as_u64().unwrap();
    let acked = durable(&broker, "ack", json!({"offset": floor})).await;
    assert!(acked.status.is_success(), "{}", acked.text());

    // It goes on by itself when there is room.
    std::fs::remove_file(&ballast).unwrap();
    let next = stored + 1;
    eventually("publishes are taken again", async || publish(&broker, next).await.status == 201)
        .await;
    eventually("it is ready", async || http::get(&broker.admin, "/readyz").await.status == 200)
        .await;

    // Full again, without any room at all, and killed: everything is there.
    let (stored, _) = fill(&broker, next).await;
    std::fs::write(&ballast, vec![7; 12 << 20]).unwrap_err();
    let expected: Vec<u64> = (1..=stored).collect();
    broker.kill();
    broker.run(disk.command(&broker));
    assert_eq!(read_all(&broker).await, expected);
    let state = http::get(&broker.public, "/v1/subscriptions/d").await.json();
    assert_eq!(state["cursor"], floor, "{state}");
    std::fs::remove_file(&ballast).unwrap();
    broker.kill();
    broker.run(disk.command(&broker));
    assert_eq!(read_all(&broker).await, expected);
}

#[tokio::test]
async fn g6_an_erasure_makes_room_on_a_full_disk() {
    let Some((_disk, broker)) = on_a_small_disk(12 << 20) else { return };
    let kept = http::post_json(&broker.public, "/v1/events", &json!({"topic": "b"})).await;
    assert_eq!(kept.status, 201, "{}", kept.text());
    let (stored, refusal) = fill(&broker, 0).await;
    assert_eq!(refusal.status, 503, "{}", refusal.text());
    let path = "/v1/topics/a";
    let erased = http::request(&broker.public, Method::DELETE, path, &[], b"").await;
    assert_eq!((erased.status.as_u16(), &erased.json()["erased"]), (200, &json!(true)));
    eventually("publishes are taken again", async || {
        publish(&broker, stored + 1).await.status == 201
    })
    .await;
    assert_eq!(read_all(&broker).await, [stored + 1]);
}

/// A log that cannot be written to is no reason to end.
#[tokio::test]
async fn g6_a_broker_lives_on_where_its_stderr_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::stopped(dir.path(), &[]);
    let mut command = broker.command();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    command.stderr(full).env("TIDINGS_LOG", "debug");
    broker.run(command);
    for n in 0..3 {
        assert_eq!(publish(&broker, n).await.status, 201);
    }
    assert_eq!(http::get(&broker.admin, "/readyz").await.status, 200);
}

#[tokio::test]
async fn a_full_disk_takes_leaves_and_refuses_joins() {
    let Some((disk, broker)) = on_a_small_disk(12 << 20) else { return };
    let ballast = disk.outside("ballast");
    std::fs::write(&ballast, vec![7; 4 << 20]).unwrap();
    let mut alice = Socket::open(&broker.public).await;
    let options = json!({"filters": ["rooms.1"], "presence": {"data": 1}});
    alice.subscribe(options.clone()).await;
    let (stored, _) = fill(&broker, 0).await;

    // Who comes back writes nothing, whoever is new would.
    drop(alice);
    let subscriptions = async || {
        let status = http::get(&broker.public, "/v1/status").await.json();
        status["subscriptions"]["ephemeral"] == 0
    };
    eventually("alice is away", subscriptions).await;
    let mut alice = Socket::open(&broker.public).await;
    let subscription = alice.subscribe(options.clone()).await["subscription"].clone();
    let mut bob = Socket::open(&broker.public).await;
    let refused = bob.refused("subscribe", options.clone()).await;
    assert_eq!((&refused["code"], &refused["retryable"]), (&json!("unavailable"), &json!(true)));
    let members = async || {
        let presence = http::get(&broker.public, "/v1/presence/rooms.1").await.json();
        presence["members"].as_array().unwrap().len()
    };
    assert_eq!(members().await, 1);
    bob.subscribe(json!({"filters": ["$presence.rooms.1"]})).await;
    alice.call("unsubscribe", json!({"subscription": subscription})).await;
    assert_eq!(bob.take(1).await[0]["type"], "presence.left");
    assert_eq!(members().await, 0);

    std::fs::remove_file(&ballast).unwrap();
    let next = stored + 1;
    eventually("publishes are taken again", async || publish(&broker, next).await.status == 201)
        .await;
    bob.subscribe(options).await;
    assert_eq!(members().await, 1);
}

#[tokio::test]
async fn an_event_that_is_due_while_the_disk_is_full_is_published_when_it_is_not() {
    let Some((disk, broker)) = on_a_small_disk(12 << 20) else { return };
    let ballast = disk.outside("ballast");
    std::fs::write(&ballast, vec![7; 4 << 20]).unwrap();
    let mut socket = Socket::open(&broker.public).await;
    // Behind the filling, also where other tests slow it.
    let due = Instant::now() + Duration::from_secs(6);
    let soon = json!({"topic": "b", "data": "x".repeat(20_000), "deliver_at": in_ms(6000)});
    assert!(socket.call("publish", soon.clone()).await["scheduled"].is_object());
    let (stored, _) = fill(&broker, 0).await;
    let refused = socket.refused("publish", soon).await;
    assert_eq!(refused["code"], "unavailable", "{refused}");
    // It is due and does not fit: that is tried, and tried again.
    let is_late = async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        http::get(&broker.public, "/v1/topics/b/events").await.json()["events"] == json!([])
    };
    while Instant::now() < due + Duration::from_secs(1) {
        assert!(is_late().await, "it was published on a full disk");
    }
    std::fs::remove_file(&ballast).unwrap();
    let next = stored + 1;
    eventually("publishes are taken again", async || publish(&broker, next).await.status == 201)
        .await;
    eventually("it is published", async || !is_late().await).await;
    let events = http::get(&broker.public, "/v1/topics/b/events").await.json();
    assert_eq!(events["events"].as_array().unwrap().len(), 1, "{events}");
}

/// A stopped broker's log of sealed segments, and the file of the first with its length.
async fn sealed_log() -> (Broker, PathBuf, u64) {
    let mut broker =
        Broker::with(&["--set", "log.segment_bytes=65536", "--set", "log.tail_bytes=65536"]);
    let mut socket = Socket::open(&broker.public).await;
    for number in 1..=300 {
        let data = format!("{number} {}", "y".repeat(1000));
        assert_eq!(socket.publish(json!({"topic": "a", "data": data})).await, number);
    }
    assert_eq!(broker.terminate().0, Some(0));
    let mut segments: Vec<PathBuf> = contents(&broker.dir.join("log")).into_keys().collect();
    segments.retain(|path| path.extension().is_some_and(|kind| kind == "log"));
    segments.sort();
    assert!(segments.len() > 3, "{segments:?}");
    let first = segments[0].clone();
    let length = std::fs::metadata(&first).unwrap().len();
    (broker, first, length)
}

fn flip(path: &Path, position: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], position).unwrap();
}

#[tokio::test]
async fn g7_a_flipped_byte_is_found_by_verify_and_never_served() {
    let (mut broker, segment, length) = sealed_log().await;
    let dir = broker.dir.to_str().unwrap().to_owned();
    let verify = |broker: &Broker| {
        let output = broker.cli(&["log", "verify", "--data", &dir]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    let (code, text) = verify(&broker);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("300 events"), "{text}");

    flip(&segment, length / 2);
    let (code, text) = verify(&broker);
    assert_eq!(code, Some(7), "{text}");
    let name = segment.file_name().unwrap().to_str().unwrap();
    let line = text.lines().find(|line| line.starts_with("damaged:")).unwrap_or_default();
    assert!(line.contains(name) && line.contains("at byte"), "{text}");

    broker.restart();
    // Over the socket and over SSE: what is before, a gap that says so, what is behind.
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"filters": ["a"], "after": 0})).await;
    let mut before = 0;
    let gap = loop {
        let message = socket.push().await;
        if message["gap"].is_object() {
            break message["gap"].clone();
        }
        for event in message["events"]["events"].as_array().into_iter().flatten() {
            before += 1;
            assert_eq!(event["offset"], before);
            let data = event["data"].as_str().unwrap();
            assert!(data.starts_with(&format!("{before} ")), "a wrong event: {event}");
        }
    };
    assert_eq!(gap["reason"], "corrupt", "{gap}");
    let first = gap["first"].as_u64().unwrap();
    assert!(before < first - 1 && first < 300, "{gap} behind {before}");
    let rest = socket.take(usize::try_from(300 - first + 1).unwrap()).await;
    assert_eq!(rest[0]["offset"], first);
    assert_eq!(rest.last().unwrap()["offset"], 300);
    let mut stream = Sse::open(&broker.public, "/v1/topics/a/events?after=0", &[]).await;
    assert_eq!(stream.named("tidings.gap").await.json()["reason"], "corrupt");
    // Over HTTP: an error that says so, and the pages around it.
    let path = format!("/v1/topics/a/events?after={before}");
    let answer = http::get(&broker.public, &path).await;
    assert_eq!(answer.status, 410, "{}", answer.text());
    let event = http::get(&broker.public, &format!("/v1/events/{}", before + 1)).await;
    assert!(event.status.is_client_error() || event.status.is_server_error(), "{}", event.text());
    assert_eq!(socket.publish(json!({"topic": "a", "data": "still here"})).await, 301);
}

#[tokio::test]
async fn a_dump_shows_what_was_published_also_while_the_broker_runs() {
    let (mut broker, _, _) = sealed_log().await;
    let dir = broker.dir.to_str().unwrap().to_owned();
    let dump = |broker: &Broker, more: &[&str]| -> Vec<Value> {
        let output = broker.cli(&["log", "dump", "--data", &dir]).args(more).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = dump(&broker, &["--filter", "a"]);
    assert_eq!(all.len(), 300);
    broker.restart();
    let page = http::get(&broker.public, "/v1/topics/a/events?limit=300").await.json();
    assert_eq!(page["events"].as_array().unwrap(), &all, "the dump differs from what is read");
    let mut socket = Socket::open(&broker.public).await;
    socket.publish(json!({"topic": "b", "data": {"new": 1.50}})).await;
    let new = dump(&broker, &["--after", "300", "--filter", "b"]);
    assert_eq!(new.len(), 1);
    assert_eq!(new[0]["data"]["new"], 1.5);
    let missing = broker.cli(&["log", "verify", "--data", "/nonexistent"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(3), "{missing:?}");
    std::io::stderr().flush().unwrap();
}
