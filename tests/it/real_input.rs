//! What a compiler says, piped through a broker that is killed three times.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Instant,
};

use parking_lot::{Condvar, Mutex};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::util::{Broker, PATIENCE, Reaped, random::Random, sse::Sse};

const TOPIC: &str = "builds.tidings";
/// How many lines go through the broker at least.
const LINES: usize = 20_000;
/// How far the publisher's stdin may run ahead of the slowest subscriber.
const AHEAD: usize = 2_000;
/// Who listens, by their place in [`Seen`].
const WHO: [&str; 3] = ["WebSocket", "SSE", "durable"];

/// What each subscriber was given: distinct offsets in the order in which they first came.
#[derive(Default)]
struct Seen {
    lines: Mutex<[Vec<(u64, String)>; 3]>,
    news: Condvar,
}

#[derive(Deserialize)]
struct Event<'a> {
    offset: u64,
    topic: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Seen {
    /// An event as JSON. `again`: this subscriber may be given an event more than once.
    fn saw(&self, who: usize, event: &str, again: bool) {
        let event: Event<'_> = serde_json::from_str(event)
            .unwrap_or_else(|error| panic!("{}: {error}: {event}", WHO[who]));
        assert_eq!(event.topic, TOPIC);
        let mut lines = self.lines.lock();
        let mine = &mut lines[who];
        let data = event.data.get();
        match mine.binary_search_by_key(&event.offset, |(offset, _)| *offset) {
            Ok(at) if again => assert_eq!(mine[at].1, data, "{} has changed", event.offset),
            Ok(_) => panic!("{}: offset {} came twice", WHO[who], event.offset),
            Err(at) => {
                assert_eq!(at, mine.len(), "{}: {} is late", WHO[who], event.offset);
                mine.push((event.offset, data.to_owned()));
                self.news.notify_all();
            }
        }
    }

    /// Waits until the subscriber who has the fewest lines has so many.
    fn all_have(&self, count: usize) {
        let deadline = Instant::now() + 3 * PATIENCE;
        let mut lines = self.lines.lock();
        while lines.iter().any(|lines| lines.len() < count) {
            let counts: Vec<_> = lines.iter().map(Vec::len).collect();
            let left = deadline.checked_duration_since(Instant::now());
            let left = left.unwrap_or_else(|| panic!("{WHO:?} have {counts:?} of {count}"));
            self.news.wait_for(&mut lines, left);
        }
    }
}

/// What cargo says as JSON while it builds a package with this much to complain about.
fn compiler_output(dir: &Path) -> Vec<String> {
    std::fs::create_dir(dir.join("src")).unwrap();
    let manifest = "[package]\nname = \"talkative\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    std::fs::write(dir.join("Cargo.toml"), format!("{manifest}\n[workspace]\n")).unwrap();
    let unused: String = (0..400)
        .map(|n| format!("fn unused_{n}(wert_{n}: u32) -> &'static str {{ let café_{n} = 1; \"ß\\t\\\"😀\" }}\n"))
        .collect();
    std::fs::write(dir.join("src/main.rs"), format!("{unused}\nfn main() {{}}\n")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--message-format=json"])
        .current_dir(dir)
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(lines.len() > 800, "only {} lines", lines.len());
    lines
}

/// A subscriber that is a `tidings sub`: writes each event as a line of JSON.
fn listen(broker: &Broker, args: &[&str], seen: &Arc<Seen>, who: usize, again: bool) -> Reaped {
    let mut command = broker.cli(&["sub", TOPIC, "--output", "json", "--quiet"]);
    let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
    let (stdout, seen) = (child.stdout.take().unwrap(), seen.clone());
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            seen.saw(who, &line.unwrap(), again);
        }
    });
    Reaped(child)
}

/// A subscriber that reads SSE and comes back with the last id it was given.
async fn listen_sse(address: String, seen: Arc<Seen>) {
    let path = format!("/v1/topics/{TOPIC}/events?after=0");
    let mut last = String::new();
    loop {
        let resume = [("last-event-id", last.as_str())];
        let headers = if last.is_empty() { &[][..] } else { &resume[..] };
        let Ok(mut stream) = Sse::try_open(&address, &path, headers).await else {
            tokio::task::yield_now().await;
            continue;
        };
        while let Some(block) = stream.event().await {
            last = block.id.clone().unwrap();
            seen.saw(1, block.data.as_deref().unwrap(), false);
        }
    }
}

/// Feeds the publisher, never far ahead of the slowest subscriber.
fn feed(publisher: &mut Child, lines: Arc<Vec<String>>, seen: Arc<Seen>) {
    let mut stdin = publisher.stdin.take().unwrap();
    std::thread::spawn(move || {
        for (number, chunk) in lines.chunks(200).enumerate() {
            seen.all_have((number * 200).saturating_sub(AHEAD));
            let mut text = chunk.join("\n");
            text.push('\n');
            stdin.write_all(text.as_bytes()).unwrap();
        }
    });
}

#[test]
fn g3_heavy_the_output_of_a_build_arrives_whole_over_three_kills() {
    let dir = tempfile::tempdir().unwrap();
    let output = compiler_output(dir.path());
    let lines: Arc<Vec<String>> =
        Arc::new(output.iter().cycle().take(LINES.max(output.len())).cloned().collect());
    let mut broker = Broker::start();
    let seen = Arc::new(Seen::default());

    let _ws = listen(&broker, &["--after", "0"], &seen, 0, false);
    let durable = ["--durable", "ci", "--start", "first", "--ack", "auto"];
    let _durable = listen(&broker, &durable, &seen, 2, true);
    let (address, sse_seen) = (broker.public.clone(), seen.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(listen_sse(address, sse_seen));
    });
    let mut command = broker.cli(&["pub", TOPIC, "--lines", "--quiet"]);
    let mut publisher = Reaped(command.stdin(Stdio::piped()).spawn().unwrap());
    feed(&mut publisher.0, lines.clone(), seen.clone());

    let mut random = Random::new(3);
    for third in 0..3 {
        let within = usize::try_from(random.below(lines.len() as u64 / 3)).unwrap();
        seen.all_have(lines.len() / 3 * third + within.min(lines.len() / 3 - AHEAD));
        broker.kill();
        broker.restart();
    }
    seen.all_have(lines.len());
    assert!(publisher.0.wait().unwrap().success(), "the publisher failed");
    let seen = seen.lines.lock();
    for (who, mine) in WHO.iter().zip(seen.iter()) {
        assert_eq!(mine.len(), lines.len(), "{who}");
        for (number, ((offset, data), line)) in mine.iter().zip(lines.iter()).enumerate() {
            assert_eq!(data, line, "{who}: line {number}, offset {offset}");
        }
    }
}

#[test]
fn lines_of_any_bytes_come_out_as_they_went_in() {
    let broker = Broker::start();
    let lines: [&[u8]; 9] = [
        b"plain text",
        br#"{"b":1, "a" : [ 1.50 ,2e3],"a":2}"#,
        b"  12  ",
        b"",
        "\u{2028}gr\u{fc}\u{df}e \u{1f600}".as_bytes(),
        b"\xff\xfe not UTF-8",
        b"ends with a carriage return\r",
        b"{\"half\":",
        b"tab\tand \x1b[31mcolours\x1b[0m",
    ];
    let mut command = broker.cli(&["pub", TOPIC, "--lines"]);
    let mut publisher = command.stdin(Stdio::piped()).spawn().unwrap();
    publisher.stdin.take().unwrap().write_all(&lines.join(&b'\n')).unwrap();
    assert!(publisher.wait().unwrap().success());
    let mut command = broker.cli(&["sub", TOPIC, "--after", "0", "--output", "data"]);
    let output = command.args(["--count", &lines.len().to_string()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut expected = lines.join(&b'\n');
    expected.push(b'\n');
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&expected),
        "as text"
    );
    assert_eq!(output.stdout, expected);
}
