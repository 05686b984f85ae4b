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
        "acks --durables 10 --connections 2 --topics 2 --deliveries 0 --seconds 2",
        "agents --agents 2 --rate 1000000 --dashboards 1 --seconds 1",
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

/// Nothing of a load is left.
fn has_no_durables(broker: &Broker) {
    let output = broker.cli(&["durable", "ls", "--json"]).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[test]
fn acks_of_both_kinds_are_measured_in_every_encoding() {
    let broker = Broker::start();
    for (encoding, kind) in
        [("json", "cumulative"), ("msgpack", "selective"), ("protobuf", "cumulative")]
    {
        let line = format!(
            "acks --durables 21 --connections 4 --topics 4 --deliveries 1000 --seconds 2 --ack {kind} \
             --encoding {encoding} --admin http://{}",
            broker.admin
        );
        let measured = &bench(&broker, &line)[0];
        let number = |key: &str| measured[key].as_f64().unwrap();
        assert_eq!((&measured["ack"], &measured["encoding"]), (&kind.into(), &encoding.into()));
        // Every event reaches five durables, and those on the first topic six.
        let (events, deliveries) = (number("events"), number("deliveries"));
        assert_eq!(deliveries, events * 5.0 + (events / 4.0).ceil(), "{measured}");
        assert_eq!(number("acks"), deliveries, "{measured}");
        for nothing in ["missing", "unacked"] {
            assert_eq!(number(nothing), 0.0, "{measured}");
        }
        for something in [
            "acks_per_second",
            "ack_requests_per_second",
            "ack_p99_us",
            "publish_p50_us",
            "publish_p99_us_without",
            "publish_p99_ratio",
            "deliveries_per_second_without",
        ] {
            assert!(number(something) > 0.0, "{something}: {measured}");
        }
        // A durable takes some ten bytes in an event of `$acks`, and there is one a commit at most.
        assert!(number("ack_log_events") > 0.0, "{measured}");
        let each = number("ack_log_bytes") / number("acks");
        assert!((0.1..400.0).contains(&each), "{measured}");
        assert!((number("log_bytes_per_ack") - each).abs() < 0.001, "{measured}");
        has_no_durables(&broker);
    }
}

#[test]
fn acks_are_measured_in_rounds_with_other_durables() {
    let broker = Broker::start();
    let line = "acks --durables 6 --connections 2 --topics 2 --deliveries 100 --seconds 2 --rounds 3 \
                --linger-ms 20";
    let measured = &bench(&broker, line)[0];
    // Durables of the round before would have got what was published in the first half of the next.
    assert_eq!(measured["deliveries"], measured["events"].as_u64().unwrap() * 3, "{measured}");
    assert_eq!(measured["acks"], measured["deliveries"], "{measured}");
    let mut ratios: Vec<f64> =
        serde_json::from_value(measured["publish_p99_ratios"].clone()).unwrap();
    ratios.sort_by(f64::total_cmp);
    assert_eq!(ratios.len(), 3, "{measured}");
    assert_eq!(measured["publish_p99_ratio"], ratios[1], "{measured}");
    has_no_durables(&broker);
}

#[test]
fn acks_fail_when_a_delivery_is_missing() {
    let broker = Broker::start();
    let proxy = cutting_proxy(broker.public.clone(), 20_000);
    let line = "acks --durables 6 --connections 2 --topics 2 --deliveries 2000 --seconds 2";
    let output = run(&broker, &proxy, line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let measured = &lines(&output)[0];
    let missing = measured["missing"].as_u64().unwrap();
    assert!(missing > 0, "{measured}");
    assert!(said.contains(&format!("{missing} of ")) && said.contains("are missing"), "{said}");
    assert!(said.contains("hung up"), "{said}");
    has_no_durables(&broker);
}

#[test]
fn agents_are_followed_and_nothing_is_lost() {
    for encoding in ["json", "msgpack", "protobuf"] {
        let broker = Broker::start();
        let line =
            format!("agents --agents 4 --rate 50 --dashboards 3 --seconds 1 --encoding {encoding}");
        let measured = &bench(&broker, &line)[0];
        let number = |key: &str| measured[key].as_u64().unwrap();
        assert!((40..=4 * 51).contains(&number("events")), "{measured}");
        assert_eq!(number("deliveries"), 3 * number("events"), "{measured}");
        assert_eq!((number("lost"), number("again")), (0, 0), "{measured}");
        assert!(number("p50_us") > 0 && number("max_us") >= number("p99_us"), "{measured}");
        let kept = bench(&broker, "resume --no-publish --filter agents.*.terminal --runs 1");
        let terminal = kept[0]["events"].as_u64().unwrap();
        let all = number("events");
        assert!(terminal * 10 <= all * 6 + 40 && terminal > all / 4, "{terminal} of {all}");
    }
}

#[test]
fn agents_fail_when_a_message_is_lost() {
    let broker = Broker::start();
    let proxy = cutting_proxy(broker.public.clone(), 20_000);
    let output = run(&broker, &proxy, "agents --agents 3 --rate 100 --dashboards 2 --seconds 1");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let measured = &lines(&output)[0];
    let number = |key: &str| measured[key].as_u64().unwrap();
    let (lost, all) = (number("lost"), 2 * number("events"));
    assert!(lost > 0, "{measured}");
    assert_eq!(number("deliveries") + lost, all, "{measured}");
    assert!(said.contains(&format!("{lost} of {all} deliveries are lost: 1 of 2")), "{said}");
}

#[test]
fn durables_with_a_lag_are_listed_and_attached_to() {
    let broker = Broker::start();
    let pid = broker.pid().as_raw_nonzero();
    for memory in [format!("--pid {pid}"), format!("--admin http://{}", broker.admin)] {
        let line =
            format!("durables --durables 25 --lag 5 --topics 3 --page 10 --attach 4 {memory}");
        let measured = &bench(&broker, &line)[0];
        let number = |key: &str| measured[key].as_u64().unwrap();
        assert_eq!((number("durables"), number("listed")), (25, 25), "{measured}");
        assert_eq!((number("pages"), number("attached")), (3, 4), "{measured}");
        for took in ["page_p50_us", "page_max_us", "attach_p50_us", "first_event_p99_us"] {
            assert!(number(took) > 0, "{took}: {measured}");
        }
        assert!(number("first_event_p50_us") >= number("attach_p50_us"), "{measured}");
        assert!(number("resident_bytes_before") > 1 << 20, "{measured}");
        let grown = number("resident_bytes_after").saturating_sub(number("resident_bytes_before"));
        assert_eq!(number("bytes_each"), grown / 25, "{measured}");
        has_no_durables(&broker);
    }
    let measured = &bench(&broker, "durables --durables 3 --lag 0")[0];
    assert_eq!((&measured["listed"], &measured["attached"]), (&3.into(), &3.into()), "{measured}");
    assert!(measured["resident_bytes_before"].is_null(), "{measured}");
    assert!(measured["first_event_p50_us"].is_null(), "{measured}");
}

#[test]
fn durables_are_forgotten_when_not_all_can_be_made() {
    let broker = Broker::with(&["--set", "limits.durables_max=10"]);
    for line in ["durables --durables 20", "acks --durables 20 --deliveries 10 --seconds 2"] {
        let output = run(&broker, &broker.url(), line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{line}");
        assert!(said.contains("limits.durables_max"), "{line}: {said}");
        has_no_durables(&broker);
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
