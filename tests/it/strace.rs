//! What the kernel saw: no publish is answered before the sync that covers it has returned.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    process::{Command, Stdio},
};

use hyper::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::util::{Broker, binary, eventually, http, ws::Socket};

/// Every published id is `marker-<number>-`: it is in the record and in the answer.
fn id(number: u64) -> String {
    format!("marker-{number}-")
}

fn markers(text: &str) -> BTreeSet<u64> {
    let numbers = text.split("marker-").skip(1);
    numbers.filter_map(|rest| rest.split('-').next()?.parse().ok()).collect()
}

/// What a trace shows, in the order in which the kernel was entered and left.
#[derive(Default)]
struct Trace {
    written: BTreeSet<u64>,
    synced: BTreeSet<u64>,
    answered: BTreeSet<u64>,
    syncs: usize,
    /// By thread: what its call under way will have done when it returns.
    under_way: HashMap<String, Call>,
}

enum Call {
    Write(BTreeSet<u64>),
    Sync(BTreeSet<u64>),
    Other,
}

impl Trace {
    fn of(text: &str) -> Trace {
        let mut trace = Trace::default();
        for line in text.lines() {
            // Thread, time, call; a short thread number is followed by more than one space.
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let Some((_time, rest)) = rest.trim_start().split_once(' ') else { continue };
            let resumed = rest.starts_with("<...");
            if !resumed {
                let call = trace.entered(rest);
                trace.under_way.insert(thread.to_owned(), call);
            }
            if !rest.ends_with("<unfinished ...>") {
                let failed = rest.rsplit(" = ").next().is_none_or(|code| code.starts_with('-'));
                let call = trace.under_way.remove(thread);
                trace.left(call.unwrap_or(Call::Other), failed);
            }
        }
        trace
    }

    fn entered(&mut self, rest: &str) -> Call {
        let (name, arguments) = rest.split_once('(').unwrap_or((rest, ""));
        let target = arguments.split_once('<').and_then(|(_, path)| path.split_once('>'));
        let target = target.map_or("", |(path, _)| path);
        let is_log = target.ends_with(".log") && !target.ends_with("next.log");
        match name {
            "pwrite64" | "pwritev" | "pwritev2" if is_log => Call::Write(markers(arguments)),
            "fdatasync" | "fsync" if is_log => Call::Sync(self.written.clone()),
            "write" | "writev" | "sendto" | "sendmsg"
                if target.contains("TCP") || target.contains("socket") =>
            {
                for number in markers(arguments) {
                    assert!(
                        self.synced.contains(&number),
                        "event {number} was answered before its sync had returned: {rest}"
                    );
                    self.answered.insert(number);
                }
                Call::Other
            }
            _ => Call::Other,
        }
    }

    fn left(&mut self, call: Call, failed: bool) {
        assert!(!failed || matches!(call, Call::Other), "a write or a sync of the log failed");
        match call {
            Call::Write(markers) => self.written.extend(markers),
            Call::Sync(covered) => {
                self.synced.extend(covered);
                self.syncs += 1;
            }
            Call::Other => {}
        }
    }
}

fn traced(broker: &Broker, file: &Path) -> Command {
    let plain = broker.command();
    let mut command = Command::new("strace");
    // -D: the broker stays our child, and the tracer is its grandchild.
    command.args(["-D", "-f", "-tt", "-y", "-s", "1000000", "-o"]).arg(file);
    command.args([
        "-e",
        "trace=pwrite64,pwritev,pwritev2,fdatasync,fsync,write,writev,sendto,sendmsg",
    ]);
    command.arg(binary()).args(plain.get_args());
    command.env("TIDINGS_LOG", "tidings=warn");
    command
}

#[tokio::test]
async fn g1_no_publish_is_answered_before_its_sync_has_returned() {
    let version = Command::new("strace").arg("--version").stdout(Stdio::null()).status();
    assert!(version.is_ok_and(|status| status.success()), "strace is missing: see tests/run");
    let mut broker = Broker::start();
    assert_eq!(broker.terminate().0, Some(0));
    let trace_dir = tempfile::tempdir().unwrap();
    let file = trace_dir.path().join("trace");
    broker.run(traced(&broker, &file));

    // One at a time over both doors, then many at a time.
    let mut socket = Socket::open(&broker.public).await;
    for number in 0..200 {
        if number % 2 == 0 {
            socket.publish(json!({"topic": "a", "id": id(number), "data": number})).await;
        } else {
            let id = id(number);
            let headers = [("idempotency-key", id.as_str())];
            let path = "/v1/topics/a/events";
            let answer = http::request(&broker.public, Method::POST, path, &headers, b"x").await;
            assert_eq!(answer.status, 201);
        }
    }
    let mut publishers = JoinSet::new();
    for publisher in 0..8 {
        let address = broker.public.clone();
        publishers.spawn(async move {
            let mut socket = Socket::open(&address).await;
            let mut started = Vec::new();
            for number in 0..50 {
                let id = id(1000 + publisher * 50 + number);
                started.push(socket.start("publish", json!({"topic": "a", "id": id})).await);
            }
            for request in started {
                let answer = socket.answer(request).await;
                assert!(answer["published"].is_object(), "{answer}");
            }
        });
    }
    while let Some(ended) = publishers.join_next().await {
        ended.unwrap();
    }
    assert_eq!(broker.terminate().0, Some(0));
    // The tracer writes its last line after the broker has gone.
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    eventually("the trace is whole", async || {
        read().lines().last().is_some_and(|line| line.contains("+++ exited with 0 +++"))
    })
    .await;
    let trace = Trace::of(&read());
    let expected: BTreeSet<u64> = (0..200).chain(1000..1400).collect();
    assert_eq!(trace.answered, expected, "an answer is missing in the trace");
    assert!(trace.syncs > 200, "{} syncs", trace.syncs);
}

#[test]
fn a_trace_in_which_the_answer_comes_first_is_found_out() {
    let good = "1 00:00:00.1 pwrite64(9</d/log/1.log>, \"marker-7-\", 9, 0) = 9\n\
                1 00:00:00.2 fdatasync(9</d/log/1.log> <unfinished ...>\n\
                2 00:00:00.3 write(5<TCP:[1->2]>, \"hello\", 5) = 5\n\
                1 00:00:00.4 <... fdatasync resumed>) = 0\n\
                2 00:00:00.5 write(5<TCP:[1->2]>, \"marker-7-\", 9) = 9\n";
    let trace = Trace::of(good);
    assert!(trace.answered.contains(&7) && trace.syncs == 1);
    let lines: Vec<&str> = good.lines().collect();
    // Answered while the sync was under way; written while it was; not synced at all.
    for order in [&[0, 1, 4, 3][..], &[1, 0, 3, 4], &[0, 4]] {
        let text: Vec<&str> = order.iter().map(|at| lines[*at]).collect();
        let caught = std::panic::catch_unwind(|| Trace::of(&text.join("\n")));
        assert!(caught.is_err(), "{order:?}");
    }
}
