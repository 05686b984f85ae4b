//! RFC 6455 by a suite that is not ours: an echo server on the frames of the broker against kosoku, which
//! plays the cases of the Autobahn test suite.
//!
//! `tests/run` installs the suite and names it in `KOSOKU`. The cases of compression (12 and 13) are left out:
//! the broker takes no permessage-deflate, and says so in its handshake.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests fail by panicking"
)]

use std::{collections::BTreeMap, convert::Infallible, path::Path, time::Duration};

use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tidings::net::frame::{Frame, Limits, Message, Reader, Role, encode};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

/// What the largest case needs: a message of 16 MiB, and one of 4 MiB in pieces of 64 bytes.
const LIMITS: Limits = Limits { message_bytes_max: 16 << 20, fragments_max: 1 << 17 };
/// As long as the broker waits for the other half of a close.
const CLOSE_WAIT: Duration = Duration::from_millis(1500);
/// How many there are, and in which groups: framing, pings, reserved bits, opcodes, fragments, UTF-8, closes,
/// limits and speed.
const CASES: usize = 301;
const GROUPS: [&str; 9] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"];
/// The cases in which less is done than could be, though nothing is against the standard.
const NON_STRICT: [&str; 0] = [];

/// Sends every message back, answers pings, and ends as the broker's sockets do.
async fn echo(stream: TcpStream, leftover: bytes::Bytes) {
    let (input, mut output) = stream.into_split();
    let mut reader = Reader::new(input, Role::Server, LIMITS, &leftover);
    let mut out = Vec::new();
    loop {
        let read = reader.next().await;
        let ends = matches!(read, Ok(Some(Message::Close(_))) | Err(_));
        match read {
            Ok(Some(Message::Text(text))) => encode(Frame::Text(&text), None, &mut out),
            Ok(Some(Message::Binary(bytes))) => encode(Frame::Binary(&bytes), None, &mut out),
            Ok(Some(Message::Ping(payload))) => encode(Frame::Pong(&payload), None, &mut out),
            Ok(Some(Message::Pong(_))) => {}
            Ok(Some(Message::Close(close))) => {
                let code = close.map_or(1000, |(code, _)| code);
                encode(Frame::Close(Some((code, ""))), None, &mut out);
            }
            Ok(None) => return,
            Err(error) => match error.close_code() {
                Some(code) => {
                    encode(Frame::Close(Some((code, &error.to_string()))), None, &mut out);
                }
                None => return,
            },
        }
        if output.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
        if ends {
            break;
        }
    }
    let _ = output.shutdown().await;
    let rest = async { while let Ok(Some(_)) = reader.next().await {} };
    let _ = tokio::time::timeout(CLOSE_WAIT, rest).await;
}

async fn upgrade(
    mut request: Request<Incoming>,
) -> Result<Response<Empty<bytes::Bytes>>, Infallible> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (answer, _) = fastwebsockets::upgrade::upgrade(&mut request).unwrap();
    tokio::spawn(async move {
        let parts = upgrade.await.unwrap().downcast::<TokioIo<TcpStream>>().unwrap();
        echo(parts.io.into_inner(), parts.read_buf).await;
    });
    Ok(answer)
}

/// An echo server on a free port, which it gives.
async fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let http = hyper::server::conn::http1::Builder::new();
            let io = TokioIo::new(stream);
            tokio::spawn(http.serve_connection(io, service_fn(upgrade)).with_upgrades());
        }
    });
    port
}

/// What the report in this directory says of each case: how it ended, and how its connection closed.
fn report(reports: &Path) -> BTreeMap<String, [String; 2]> {
    let index = std::fs::read(reports.join("index.json")).unwrap();
    let agents: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_slice(&index).unwrap();
    assert_eq!(agents.len(), 1, "one server was looked at");
    let said = |case: &Value, name: &str| case.get(name).unwrap().as_str().unwrap().to_owned();
    let cases = agents.into_values().flatten();
    cases
        .map(|(id, case)| (id, ["behavior", "behaviorClose"].map(|name| said(&case, name))))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kosoku: tests/run installs it and runs this"]
async fn every_case_of_the_conformance_suite_holds() {
    let kosoku =
        std::env::var_os("KOSOKU").expect("KOSOKU names the suite's program: run tests/run");
    let reports = tempfile::tempdir().unwrap();
    let mut suite = std::process::Command::new(kosoku);
    suite.args(["-m", "fuzzingclient", "-p", "2", "-o"]).arg(reports.path());
    suite.args(GROUPS.iter().flat_map(|group| ["-i", group]));
    suite.arg(format!("127.0.0.1:{}", serve().await));
    let run = tokio::task::spawn_blocking(move || suite.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    let cases = report(reports.path());
    let named = |wanted: &str| -> Vec<&str> {
        let of = cases.iter().filter(|(_, ends)| ends.iter().any(|end| end == wanted));
        of.map(|(id, _)| id.as_str()).collect()
    };
    let held = ["OK", "INFORMATIONAL", "NON-STRICT"];
    let failed = cases.iter().filter(|(_, ends)| !ends.iter().all(|end| held.contains(&&**end)));
    let failed: Vec<_> = failed.collect();
    assert!(run.status.success() && failed.is_empty(), "{failed:?}\n{said}");
    assert_eq!(named("NON-STRICT"), NON_STRICT, "what a SHOULD asks for and we leave out");
    assert_eq!(cases.len(), CASES, "all of them were played");
    println!("{} cases, informational {:?}", cases.len(), named("INFORMATIONAL"));
}
