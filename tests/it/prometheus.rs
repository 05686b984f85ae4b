//! What operators see: a real Prometheus scrapes the broker, and its own linter finds nothing.

use std::{
    io::Write,
    net::TcpListener,
    process::{Command, Stdio},
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::util::{Broker, Reaped, eventually, http, random::Random, sse::Sse, ws::Socket};

/// A broker on which everything has happened once, and who is connected to it.
async fn busy() -> (Broker, [Socket; 2], Sse) {
    let broker = Broker::with(&["--set", "metrics.durables=d*"]);
    let address = &broker.public;
    let mut socket = Socket::open(address).await;
    socket.subscribe(json!({"filters": ["a"], "after": 0})).await;
    // Offset 1 makes it; the events are 2 to 11.
    socket.subscribe(json!({"durable": "d", "filters": ["a"], "start": "first"})).await;
    socket.subscribe(json!({"filters": ["c"]})).await;
    // One after the other: what comes together is one write, of which the latency is noted once.
    for n in 0..10 {
        socket.publish(json!({"topic": "a", "data": n})).await;
        socket.take(2).await;
    }
    assert!(socket.call("ack", json!({"subscription": 2, "offset": 6})).await["acked"].is_object());
    for (data, outcome) in [(1, "published"), (1, "published"), (2, "error")] {
        let event = json!({"topic": "a", "id": "x", "data": data});
        assert!(socket.call("publish", event).await[outcome].is_object());
    }
    socket.refused("publish", json!({"topic": "$own"})).await;
    socket.refused("publish", json!({"topic": "a", "deliver_at": "2099-01-01T00:00:00Z"})).await;
    let over_http = http::post_json(address, "/v1/events", &json!({"topic": "b"})).await;
    assert_eq!(over_http.status, 201);
    let mut resumed = Socket::open(address).await;
    resumed.subscribe(json!({"filters": ["a"], "after": 3})).await;
    assert_eq!(resumed.take(9).await.len(), 9);
    resumed.expect("caught_up").await;
    let mut stream = Sse::open(address, "/v1/topics/a/events?after=0", &[]).await;
    stream.named("tidings.caught_up").await;
    http::get(address, "/v1/topics/a/events").await;
    http::get(address, "/v1/nothing").await;
    let foreign = [("origin", "https://elsewhere.example")];
    assert!(Socket::try_open(address, "/v1/ws", &foreign).await.is_err());
    assert_eq!(http::get(address, "/v1/ws").await.status, 426);
    let mut brief = Socket::open(address).await;
    brief.call("ping", json!({})).await;
    brief.send_raw(Message::Close(None)).await;
    while brief.next().await.is_some() {}
    (broker, [socket, resumed], stream)
}

/// What a query gives on that broker.
const TRUTHS: [(&str, &str); 45] = [
    ("up", "1"),
    ("tidings_ready", "1"),
    ("tidings_append_events_total{topic_root='a'}", "11"),
    ("sum(tidings_append_events_total)", "14"),
    ("sum(tidings_append_bytes_total) > bool 100", "1"),
    ("tidings_log_last_offset", "14"),
    ("tidings_projection_applied_offset >= bool 12", "1"),
    ("tidings_projection_rebuild_total", "0"),
    ("tidings_disk_reserved_bytes", "67108864"),
    ("tidings_sync_duration_seconds_count > bool 0", "1"),
    ("tidings_publish_requests_total{transport='websocket',outcome='ok'}", "11"),
    ("tidings_publish_requests_total{transport='websocket',outcome='duplicate'}", "1"),
    ("tidings_publish_requests_total{transport='websocket',outcome='conflict'}", "1"),
    ("tidings_publish_requests_total{transport='websocket',outcome='denied'}", "1"),
    ("tidings_publish_requests_total{transport='websocket',outcome='rejected'}", "1"),
    ("tidings_publish_requests_total{transport='http',outcome='ok'}", "1"),
    ("sum(tidings_publish_requests_total{outcome='unavailable'})", "0"),
    ("tidings_ack_total", "1"),
    ("tidings_subscription_wakes_total > bool 0", "1"),
    ("tidings_ack_latency_seconds_count", "1"),
    ("tidings_resume_total{result='exact'}", "3"),
    ("tidings_resume_total{result='from_now'}", "1"),
    ("tidings_resume_replayed_events_count", "4"),
    ("tidings_resume_replayed_events_sum", "20"),
    ("tidings_subscriptions{kind='ephemeral',state='live'}", "4"),
    ("tidings_subscriptions{kind='durable',state='live'}", "1"),
    ("tidings_subscriptions{kind='durable',state='idle'}", "0"),
    ("tidings_durable_lag_events", "6"),
    ("tidings_durable_lag_events_max", "6"),
    ("tidings_durable_lag_seconds_max > bool 0", "1"),
    ("tidings_subscription_lag_events{durable='d'}", "6"),
    ("tidings_subscription_lag_seconds{durable='d'} > bool 0", "1"),
    ("tidings_subscription_in_flight{durable='d'}", "6"),
    ("tidings_subscription_acked_offset{durable='d'}", "6"),
    ("tidings_delivery_latency_seconds_count{transport='websocket'} > bool 9", "1"),
    ("tidings_sessions{transport='websocket',encoding='json'}", "2"),
    ("tidings_sessions{transport='sse'}", "1"),
    ("tidings_session_closed_total{transport='websocket',code='1000'}", "1"),
    ("tidings_handshake_rejected_total{reason='origin'}", "1"),
    ("tidings_handshake_rejected_total{reason='protocol'}", "1"),
    ("tidings_outbox_bytes", "0"),
    ("tidings_slow_sessions", "0"),
    (
        "tidings_http_requests_total{route='/v1/topics/{name}/events',method='GET',status='2xx'}",
        "2",
    ),
    ("tidings_http_requests_total{route='other',status='4xx'}", "1"),
    ("tidings_http_request_duration_seconds_count{route='/v1/events',method='POST'}", "1"),
];

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
    let (broker, [mut socket, _resumed], _stream) = busy().await;
    let due = json!({"topic": "z", "deliver_at": "2001-01-01T00:00:00Z"});
    assert!(socket.call("publish", due).await["scheduled"].is_object());
    let mut text = String::new();
    // How durables lag is looked at every few seconds.
    eventually("the durable has been looked at", async || {
        text = http::get(&broker.admin, "/metrics").await.text();
        text.contains("tidings_subscription_lag_events{durable=\"d\"} 6\n")
            && text.contains("tidings_scheduled_lateness_seconds_count 1\n")
    })
    .await;
    let (clean, said) = promtool(&text);
    assert!(clean && said.is_empty(), "{said}");
    // It does find what is wrong.
    let (clean, said) = promtool("# TYPE bad_count counter\nbad_count 1\n");
    assert!(!clean || !said.is_empty());
    for name in [
        "tidings_build_info{version=",
        concat!("commit=\"", env!("BUILD_COMMIT"), "\",rustc=\"", env!("BUILD_RUSTC"), "\"} 1"),
        "tidings_disk_free_bytes",
        "tidings_auth_total{result=\"refused\"} 0",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(name), "{name} is missing:\n{text}");
    }
    // What is documented is there.
    let page = std::fs::read_to_string("docs/operations.md").unwrap();
    let names = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let names: Vec<&str> = names.filter(|name| name.starts_with("tidings_")).collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        let described = text.contains(&format!("\n# HELP {name} "));
        assert!(described || text.starts_with(&format!("# HELP {name} ")), "{name} is missing");
    }
}

#[tokio::test]
async fn a_ping_is_timed() {
    let broker = Broker::with(&["--set", "limits.ping_interval=1s"]);
    let mut socket = Socket::open(&broker.public).await;
    let timed = eventually("a pong has been timed", async || {
        let text = http::get(&broker.admin, "/metrics").await.text();
        text.lines().any(|line| {
            let count = line.strip_prefix("tidings_ping_rtt_seconds_count ");
            count.is_some_and(|count| count != "0")
        })
    });
    tokio::select! {
        () = timed => {}
        // The client answers pings as long as it is read.
        message = socket.next() => panic!("{message:?}"),
    }
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_a_handshake_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    let broker = Broker::with(&["--auth-jwt-hs256-secret-file", secret.to_str().unwrap()]);
    let headers = [("authorization", "Bearer nonsense")];
    let mut socket = Socket::try_open(&broker.public, "/v1/ws", &headers).await.unwrap();
    assert_eq!(socket.close_code().await, Some(4401));
    let text = http::get(&broker.admin, "/metrics").await.text();
    for line in [
        "tidings_handshake_rejected_total{reason=\"auth\"} 1",
        "tidings_auth_total{result=\"refused\"} 1",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is missing:\n{text}");
    }
}

#[tokio::test]
async fn a_socket_that_is_not_read_is_a_slow_session() {
    let broker = Broker::start();
    let mut slow = Socket::open(&broker.public).await;
    slow.subscribe(json!({"filters": ["a"]})).await;
    let mut publisher = Socket::open(&broker.public).await;
    let data = "x".repeat(200_000);
    let gauges = async || {
        let text = http::get(&broker.admin, "/metrics").await.text();
        ["tidings_slow_sessions ", "tidings_outbox_bytes "].map(|name| {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            value.and_then(|value| value.parse::<f64>().ok()).unwrap_or(f64::NAN)
        })
    };
    for _ in 0..60 {
        publisher.publish(json!({"topic": "a", "data": data})).await;
    }
    eventually("it is slow", async || {
        let [sessions, bytes] = gauges().await;
        sessions == 1.0 && bytes > 0.0
    })
    .await;
    assert_eq!(slow.take(60).await.len(), 60);
    eventually("it has caught up", async || gauges().await == [0.0, 0.0]).await;
}

#[tokio::test]
async fn a_real_prometheus_scrapes_the_broker() {
    let (broker, _sockets, _stream) = busy().await;
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
    for (query, wanted) in TRUTHS {
        let encoded = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let path = format!("/api/v1/query?query={encoded}");
        eventually(query, async || {
            let answer = http::try_request(&address, hyper::Method::GET, &path, &[], b"").await;
            let Ok(answer) = answer else { return false };
            let Ok(found) = serde_json::from_slice::<Value>(&answer.body) else { return false };
            found["data"]["result"][0]["value"][1].as_str() == Some(wanted)
        })
        .await;
    }
}

/// The value of a series, if it is there.
fn value(text: &str, series: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

#[tokio::test]
async fn the_lag_in_metrics_is_the_lag_that_is_counted() {
    let broker = Broker::with(&["--set", "metrics.durables=*", "--set", "log.segment_bytes=65536"]);
    let mut random = Random::new(7);
    let mut socket = Socket::open(&broker.public).await;
    let durables = [
        ("exclusive", json!({"durable": "exclusive", "filters": ["a.*"], "start": "first"})),
        (
            "mirror",
            json!({"durable": "mirror", "filters": ["a.x"], "start": "first", "mode": "mirror"}),
        ),
        ("wide", json!({"durable": "wide", "filters": [">"], "start": "first"})),
    ];
    for (_, options) in &durables {
        socket.subscribe(options.clone()).await;
    }
    // Nobody ever attaches to this one.
    let path = "/v1/subscriptions/idle";
    let options = json!({"filters": ["b", "a.y"], "start": "first"}).to_string();
    let put = http::request(&broker.public, hyper::Method::PUT, path, &[], options.as_bytes());
    assert_eq!(put.await.status, 201);
    let mut offsets = [Vec::new(), Vec::new(), Vec::new()];
    let data = "x".repeat(500);
    for _ in 0..400 {
        let topic = *random.pick(&["a.x", "a.y", "b"]);
        let offset = socket.publish(json!({"topic": topic, "data": data})).await;
        let matches = [topic != "b", topic == "a.x", true];
        for (of, _) in offsets.iter_mut().zip(matches).filter(|(_, matches)| *matches) {
            of.push(offset);
        }
    }
    // All is delivered: what is acknowledged is known to have been seen.
    let all: usize = offsets.iter().map(Vec::len).sum();
    socket.take(all.min(500)).await;
    for (number, of) in (1..).zip(&offsets) {
        let singles: Vec<u64> =
            of.iter().copied().filter(|_| random.below(3) == 0).take(20).collect();
        let ack = json!({"subscription": number, "offsets": singles});
        assert!(socket.call("ack", ack).await["acked"].is_object());
    }
    let up_to = offsets[2][30];
    socket.call("ack", json!({"subscription": 3, "offset": up_to})).await;
    for name in ["exclusive", "mirror", "wide", "idle"] {
        eventually("metrics and resource agree", async || {
            let path = format!("/v1/subscriptions/{name}");
            let info = http::get(&broker.public, &path).await.json();
            let text = http::get(&broker.admin, "/metrics").await.text();
            let of = |metric: &str| {
                value(&text, &format!("tidings_subscription_{metric}{{durable=\"{name}\"}}"))
            };
            let found = [of("lag_events"), of("acked_offset"), of("in_flight")];
            let wanted = ["lag", "cursor", "in_flight"].map(|field| info[field].as_u64());
            eprintln!("{name}: {found:?}, wanted {wanted:?}");
            assert!(wanted[0] > Some(0), "nothing lags: {info}");
            found == wanted
        })
        .await;
    }
}
