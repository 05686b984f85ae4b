//! `tidings bench`: what it says is what has happened, and it says so in time.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Output, Stdio},
    time::Instant,
};

use serde_json::Value;

use crate::util::{Broker, PATIENCE};

/// Runs `tidings bench … --json` and gives its lines.
fn bench(broker: &Broker, line: &str) -> Vec<Value> {
    let output = run(broker, &broker.url(), line);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    assert!(said.is_empty(), "{line}: {said}");
    lines(&output)
}

fn run(broker: &Broker, url: &str, line: &str) -> Output {
    let mut command = broker.cli(&["bench"]);
    command.args(line.split(' ')).args(["--json", "--url", url]).stderr(Stdio::piped());
    command.output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_encoding_is_measured_and_its_bytes_are_counted() {
    let mut wire = Vec::new();
    for encoding in ["json", "msgpack", "protobuf"] {
        let broker = Broker::start();
        let line =
            format!("pub --events 1003 --connections 4 --in-flight 10 --encoding {encoding}");
        let published = &bench(&broker, &line)[0];
        assert_eq!(published["events"], 1003, "{published}");
        assert_eq!(published["encoding"], encoding);
        let line = format!("fanout --events 500 --subscribers 3 --topics 2 --encoding {encoding}");
        let fanout = &bench(&broker, &line)[0];
        assert_eq!(fanout["deliveries"], 1500, "{fanout}");
        assert_eq!((&fanout["missing"], &fanout["cut_off"]), (&0.into(), &0.into()), "{fanout}");
        let each = fanout["wire_bytes"].as_u64().unwrap();
        assert!((230..600).contains(&each), "{fanout}");
        assert!(fanout["bytes"].as_u64().unwrap() > 1500 * 230, "{fanout}");
        let line = format!("resume --events 2000 --runs 2 --encoding {encoding}");
        let resumed = bench(&broker, &line);
        assert_eq!(resumed.len(), 2);
        for run in resumed {
            assert_eq!(run["events"], 1003 + 500 + 2000, "{run}");
            assert_eq!(run["complete"], true, "{run}");
            wire.push(run["wire_bytes"].as_u64().unwrap());
        }
        let line = format!("resume --no-publish --filter bench.1 --runs 1 --encoding {encoding}");
        assert_eq!(bench(&broker, &line)[0]["events"], 250);
    }
    // A reading is the same each time; Protobuf is the shortest.
    assert!(wire[0] == wire[1] && wire[4] == wire[5], "{wire:?}");
    assert!(wire[4] < wire[2] && wire[2] < wire[0], "{wire:?}");
}

/// Passes connections on to `to`; of the first one only so many bytes get back, then it is cut.
fn cutting_proxy(to: String, bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let (mut client, mut broker) = (client.unwrap(), TcpStream::connect(&to).unwrap());
            let (mut from_client, mut to_broker) =
                (client.try_clone().unwrap(), broker.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_broker));
            std::thread::spawn(move || {
                let mut left = if number == 0 { bytes } else { usize::MAX };
                let mut buffer = [0; 4096];
                while left > 0 {
                    let n = match broker.read(&mut buffer) {
                        Ok(n @ 1..) => n.min(left),
                        _ => break,
                    };
                    if client.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                    left -= n;
                }
                let _ = (client.shutdown(Shutdown::Both), broker.shutdown(Shutdown::Both));
            });
        }
    });
    format!("http://{address}")
}

#[test]
fn a_fan_out_that_lost_events_fails_and_says_how_many() {
    let broker = Broker::start();
    let proxy = cutting_proxy(broker.public.clone(), 80_000);
    let output = run(&broker, &proxy, "fanout --events 300 --subscribers 3");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let measured = &lines(&output)[0];
    assert_eq!(measured["events"], 300, "{measured}");
    let missing = measured["missing"].as_u64().unwrap();
    assert!((1..300).contains(&missing), "{measured}");
    assert_eq!(measured["cut_off"], 1);
    assert_eq!(measured["deliveries"].as_u64().unwrap() + missing, 900, "{measured}");
    assert!(said.contains(&format!("{missing} of 900 deliveries are missing")), "{said}");
    assert!(said.contains("1 of 3 subscribers"), "{said}");
}

#[test]
fn seconds_bound_every_load() {
    let broker = Broker::start();
    for line in [
        "pub --events 1000000000 --in-flight 100 --seconds 1",
        "fanout --events 1000000000 --subscribers 2 --seconds 1",
        "fanout --events 1000000000 --subscribers 2 --rate 10 --seconds 1",
        "resume --events 1000000000 --runs 1000000 --seconds 2",
        "resume --no-publish --runs 1000000 --seconds 1",
    ] {
        let begun = Instant::now();
        let measured = bench(&broker, line);
        assert!(begun.elapsed() < PATIENCE, "{line}: {:?}", begun.elapsed());
        for one in &measured {
            assert!(one["events"].as_u64().unwrap() < 1_000_000_000, "{line}: {one}");
        }
        if line.starts_with("resume") {
            let (last, before) = measured.split_last().unwrap();
            assert_eq!(last["complete"], false, "{line}: {last}");
            assert!(before.iter().all(|run| run["complete"] == true), "{line}");
        }
    }
}

#[test]
fn idle_sockets_are_counted_in_the_memory_of_the_broker() {
    let broker = Broker::start();
    let pid = broker.pid().as_raw_nonzero();
    let measured = &bench(&broker, &format!("idle --connections 300 --settle 0 --pid {pid}"))[0];
    let number = |key: &str| measured[key].as_u64().unwrap();
    let grown = number("resident_bytes_after").saturating_sub(number("resident_bytes_before"));
    assert_eq!(number("bytes_each"), grown / 300, "{measured}");
    assert!((1..100_000).contains(&number("bytes_each")), "{measured}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let broker = Broker::start();
    for line in ["fanout --size 20", "resume --connections 3", "resume --no-publish --events 3"] {
        let output = run(&broker, &broker.url(), line);
        assert_eq!(output.status.code(), Some(2), "{line}");
    }
}

#[test]
fn the_floor_has_every_part_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::stopped(dir.path(), &[]);
    let line = format!(
        "floor --seconds 1 --batch 64 --clients 4x4 --subscribers 5 --bytes 100000 --wire 250 \
         --connections 200 --dir {}",
        dir.path().display()
    );
    let measured = bench(&broker, &line.split_whitespace().collect::<Vec<_>>().join(" "));
    let names: Vec<_> = measured.iter().map(|one| one["bench"].as_str().unwrap()).collect();
    let parts = ["idle", "disk", "publish", "fanout", "paced", "resume"];
    assert_eq!(names, parts.map(|part| format!("floor {part}")));
    let positive = |at: usize, key: &str| {
        let value = measured[at][key].as_f64();
        assert!(value.is_some_and(|value| value > 0.0), "{key}: {}", measured[at]);
    };
    positive(0, "bytes_each");
    positive(1, "events_per_second");
    positive(2, "events_per_second");
    positive(3, "deliveries_per_second");
    assert_eq!(measured[4]["deliveries"], 5 * 50);
    positive(4, "p50_us");
    assert_eq!(measured[5]["bytes"], 100_000);
    positive(5, "total_us");
    positive(5, "events_per_second");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Runs it with a terminal as stderr; gives what the terminal has got.
fn on_a_terminal(broker: &Broker, words: &[&str]) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let mut options = std::fs::OpenOptions::new();
    let theirs = options.read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = broker.cli(words);
    let mut child = command.stdout(Stdio::null()).stderr(theirs).spawn().unwrap();
    drop(command);
    let mut shown = Vec::new();
    let mut reader = BufReader::new(std::fs::File::from(ours));
    // It ends with an error when the last one who has the other side goes.
    while let Ok(bytes) = reader.fill_buf() {
        let n = bytes.len();
        shown.extend_from_slice(bytes);
        reader.consume(n);
        if n == 0 {
            break;
        }
    }
    assert!(child.wait().unwrap().success());
    String::from_utf8(shown).unwrap()
}

#[test]
fn how_far_it_is_is_shown_on_a_terminal_and_wiped() {
    const WIPE: &str = "\r\u{1b}[K";
    let broker = Broker::start();
    let words = ["bench", "pub", "--events", "1000000000", "--seconds", "3"];
    let shown = on_a_terminal(&broker, &words);
    assert!(shown.starts_with(&format!("{WIPE}pub: ")) && shown.ends_with(WIPE), "{shown:?}");
    assert!(shown.contains(" events, ") && !shown.contains('\n'), "{shown:?}");
    for silent in ["--json", "--quiet"] {
        let words = ["bench", "pub", "--events", "1000000000", "--seconds", "2", silent];
        assert_eq!(on_a_terminal(&broker, &words), "");
    }
}
