//! The commands where something goes wrong around them: bad lines, readers that go, secrets that are missing.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::util::{Broker, Reaped, http, ws::Socket};

/// Pipes this into `tidings pub a --lines …` and gives exit code and stderr.
fn publish_lines(broker: &Broker, input: &str, more: &[&str]) -> (Option<i32>, String) {
    let mut command = broker.cli(&["pub", "a", "--lines"]);
    command.args(more).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn it_says_what_it_was_built_from() {
    let said = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidings"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let parts: Value = serde_json::from_str(&said(&["version", "--json"])).unwrap();
    let part = |name: &str| parts[name].as_str().unwrap().to_owned();
    assert_eq!(part("version"), env!("CARGO_PKG_VERSION"));
    let commit = part("commit");
    // The tests are no release of a packager: they run in a checkout or in none.
    let is_hash = commit.len() >= 12 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_hash || commit == "unknown", "{commit}");
    assert!(part("rustc").starts_with("1."), "{parts}");
    let line = format!("tidings {} (commit {commit}, rustc {})\n", part("version"), part("rustc"));
    assert_eq!(said(&["version"]), line);
    assert_eq!(said(&["--version"]), line);
}

async fn count(broker: &Broker) -> u64 {
    let page = http::get(&broker.public, "/v1/topics?filter=a").await.json();
    page["topics"].as_array().unwrap().first().map_or(0, |topic| topic["count"].as_u64().unwrap())
}

#[tokio::test]
async fn the_lines_before_a_bad_one_are_published() {
    let broker = Broker::start();
    let good: String = (0..200).map(|n| format!("{n}\n")).collect();
    let input = format!("{good}no json\n1\n");
    let (code, said) = publish_lines(&broker, &input, &["--content-type", "application/json"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("line 201 is not published"), "{said}");
    assert_eq!(count(&broker).await, 200);
}

#[tokio::test]
async fn a_reader_of_the_offsets_that_goes_stops_no_event() {
    let broker = Broker::start();
    let mut command = broker.cli(&["pub", "a", "--lines", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    writeln!(stdin, "0").unwrap();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    for n in 1..5000 {
        writeln!(stdin, "{n}").unwrap();
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
    assert_eq!(count(&broker).await, 5000);
}

#[tokio::test]
async fn every_event_is_one_line_of_json() {
    let broker = Broker::start();
    let pretty = b"{\n  \"a\": [\n    1,\r\n    2\n  ]\n}\n";
    let headers = [("content-type", "application/json")];
    let path = "/v1/topics/a/events";
    let answer = http::request(&broker.public, hyper::Method::POST, path, &headers, pretty).await;
    assert_eq!(answer.status, 201);
    let dir = broker.dir.to_str().unwrap();
    for args in [
        &["sub", "a", "--after", "0", "--count", "1", "--output", "json"][..],
        &["log", "dump", "--data", dir, "--filter", "a"],
    ] {
        let output = broker.cli(args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "{args:?}: {text:?}");
        let event: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["data"], json!({"a": [1, 2]}));
    }
}

/// A worker that acknowledges by hand, slower than events come: it gets through all of them.
#[tokio::test]
async fn manual_acks_go_on_when_more_waits_than_the_client_keeps() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let data = "x".repeat(4000);
    for _ in 0..6 {
        let events: Vec<Value> = (0..100).map(|_| json!({"topic": "a", "data": data})).collect();
        let answer = socket.call("publish_batch", json!({"events": events})).await;
        assert!(answer["published_batch"].is_object(), "{answer}");
    }
    let mut command = broker.cli(&["sub", "a", "--durable", "d", "--start", "first"]);
    command.args(["--ack", "manual", "--output", "json"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Reaped(command.spawn().unwrap());
    let mut stdin = child.0.stdin.take().unwrap();
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let mut seen = std::collections::BTreeSet::new();
    for line in lines {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let offset = event["offset"].as_u64().unwrap();
        seen.insert(offset);
        // About as long as a small task takes; the client parks the subscription after a second.
        std::thread::sleep(std::time::Duration::from_millis(2));
        writeln!(stdin, "{offset}").unwrap();
        stdin.flush().unwrap();
        if seen.len() == 600 {
            break;
        }
    }
    assert_eq!(seen.len(), 600);
}

#[test]
fn s9_a_secret_that_was_meant_and_is_missing_opens_no_broker() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::stopped(dir.path(), &[]);
    let file = dir.path().join("tidings.toml");
    std::fs::write(&file, "[auth]\nhs256_secret = supersecretvalueofmine\n").unwrap();
    let file = file.to_str().unwrap();
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 6] = [
        (&[], &[("TIDINGS_AUTH__JWT__HS256_SECRET", "")], "auth.hs256_secret"),
        (&["--auth-jwt-hs256-secret-file", ""], &[], "auth.hs256_secret_file"),
        (&["--set", "auth.hs256_secret"], &[], "--set"),
        (&[], &[("TIDINGS_AUTH_HS256_SECRET", "mine")], "auth_hs256_secret"),
        (&["--config", file], &[], "line 2"),
        (&["--auth-jwt-hs256-secret-file", "x", "--set", "auth.hs256_secret=y"], &[], "both"),
    ];
    for (args, environment, needle) in cases {
        let mut command = broker.command();
        command.args(args).envs(environment.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Reaped(command.spawn().unwrap());
        let mut said = String::new();
        let mut stderr = child.0.stderr.take().unwrap();
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.is_empty(), "{args:?} {environment:?} started a broker");
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(child.0.wait().unwrap().code(), Some(2), "{said}");
        assert!(said.contains(needle), "{args:?} {environment:?}: {said}");
        assert!(!said.contains("supersecret"), "{said}");
    }
}

#[tokio::test]
async fn health_is_an_exit_code() {
    let mut broker = Broker::start();
    let admin = format!("http://{}", broker.admin);
    let ask = |broker: &Broker, url: &str, more: &[&str]| {
        let mut command = broker.cli(&["health", "--timeout", "5s", "--admin", url]);
        let output = command.args(more).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, said) = ask(&broker, &admin, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("[+]log ok\n") && said.ends_with("ok\n"), "{said}");
    assert_eq!(ask(&broker, &admin, &["--live"]), (Some(0), "ok\n".to_owned()));
    let (code, said) = ask(&broker, &format!("http://{}", broker.public), &[]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("not ready (HTTP 404)"), "{said}");
    broker.terminate();
    assert_eq!(ask(&broker, &admin, &[]).0, Some(5));
}

#[test]
fn settings_are_checked_and_shown_without_a_broker() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tidings.toml");
    let run = |words: &[&str], toml: &str| {
        std::fs::write(&file, toml).unwrap();
        let mut command = std::process::Command::new(crate::util::binary());
        let output = command.args(words).arg("--config").arg(&file).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let good = "[log]\nsegment_bytes = 65536\n[auth]\nhs256_secret = \"0123456789abcdef0123456789abcdef\"\n";
    assert_eq!(run(&["config", "check"], good).0, Some(0));
    let (code, said) = run(&["config", "check"], "[log]\nsegment_bytes = 12\n");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("log.segment_bytes") && said.contains("tidings.toml"), "{said}");
    let (code, said) = run(&["config", "check", "--listen", "0.0.0.0:0"], "");
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = run(&["config", "show", "--set", "log.disk_reads=7"], good);
    assert_eq!(code, Some(0), "{said}");
    let line = |key: &str| said.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("log.segment_bytes").contains("\"65536\""), "{said}");
    assert!(line("log.disk_reads").contains("\"7\""), "{said}");
    assert!(line("server.listen").contains("127.0.0.1:8080"), "{said}");
    assert!(!said.contains("0123456789abcdef") && said.contains("(not shown)"), "{said}");
}
