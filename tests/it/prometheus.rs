//! What operators see: a real Prometheus scrapes the broker, and its own linter finds nothing.

use std::{
    io::Write,
    net::TcpListener,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::util::{Broker, Reaped, eventually, http, sse::Sse, ws::Socket};

/// A broker on which everything has happened once.
async fn busy() -> Broker {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    socket.subscribe(json!({"filters": ["a"], "after": 0})).await;
    socket.subscribe(json!({"durable": "d", "filters": ["a"], "start": "first"})).await;
    for n in 0..10 {
        socket.publish(json!({"topic": "a", "data": n})).await;
    }
    assert!(socket.call("ack", json!({"subscription": 2, "offset": 5})).await["acked"].is_object());
    socket.refused("publish", json!({"topic": "a..b"})).await;
    let mut stream = Sse::open(&broker.public, "/v1/topics/a/events?after=0", &[]).await;
    stream.event().await.unwrap();
    http::get(&broker.public, "/v1/topics/a/events").await;
    broker
}

fn promtool(input: &str) -> (bool, String) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect(
            "promtool is missing: see tests/run, which installs Debian's package prometheus",
        );
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn the_linter_of_prometheus_finds_nothing() {
    let broker = busy().await;
    let text = http::get(&broker.admin, "/metrics").await.text();
    let (clean, said) = promtool(&text);
    assert!(clean && said.is_empty(), "{said}");
    // It does find what is wrong.
    let (clean, said) = promtool("# TYPE bad_count counter\nbad_count 1\n");
    assert!(!clean || !said.is_empty());
    // What is documented is there, and no label carries anything of a user.
    for name in [
        "tidings_build_info{version=",
        "tidings_append_bytes_total",
        "tidings_resume_total{result=\"exact\"}",
        "tidings_subscriptions{kind=\"durable\"} 1",
        "tidings_session_duration_seconds_bucket{transport=\"http\"",
        "tidings_disk_free_bytes",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(name), "{name} is missing:\n{text}");
    }
}

#[tokio::test]
async fn a_real_prometheus_scrapes_the_broker() {
    let broker = busy().await;
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n\
         - {{job_name: tidings, static_configs: [{{targets: ['{}']}}]}}\n",
        broker.admin
    );
    let file = dir.path().join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    // It does not say which port it was given, so it is given a free one.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", file.display()));
    command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
    command.arg(format!("--web.listen-address={address}"));
    let _prometheus = Reaped(
        command.stderr(Stdio::null()).spawn().expect("prometheus is missing: see tests/run"),
    );
    for (query, wanted) in [
        ("up", "1"),
        ("tidings_ready", "1"),
        // Ten events, the durable and its ack.
        ("tidings_append_events_total", "12"),
        ("tidings_ack_total", "1"),
        ("tidings_sync_duration_seconds_count%3E0", "12"),
    ] {
        eventually(query, async || {
            let path = format!("/api/v1/query?query={query}");
            let answer = http::try_request(&address, hyper::Method::GET, &path, &[], b"").await;
            let Ok(answer) = answer else { return false };
            let Ok(found) = serde_json::from_slice::<Value>(&answer.body) else { return false };
            let value = found["data"]["result"][0]["value"][1].as_str();
            // How many syncs there were is the commit thread's business.
            value == Some(wanted) || (query.contains("sync") && value.is_some())
        })
        .await;
    }
}
