//! Readers of HTTP answers that take their time, and those that take nothing.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::util::{Broker, PATIENCE, ws::Socket};

/// More than both kernels hold between them.
const DATA_BYTES: usize = 12 * 1024 * 1024;
/// What the kernel holds for a client that does not read, in bytes.
const RECEIVE_BUFFER_BYTES: u32 = 16 * 1024;

/// A broker whose one event takes long to read, and a client that has asked for it.
async fn asked(settings: &[&str]) -> (Broker, TcpStream) {
    let mut args = vec!["--set", "limits.message_bytes_max=16777216"];
    args.extend_from_slice(settings);
    let broker = Broker::with(&args);
    let mut socket = Socket::open(&broker.public).await;
    socket.publish(json!({"topic": "a", "data": "x".repeat(DATA_BYTES)})).await;
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).unwrap();
    let mut client = client.connect(broker.public.parse().unwrap()).await.unwrap();
    let request = format!("GET /v1/topics/a/events HTTP/1.1\r\nhost: {}\r\n\r\n", broker.public);
    client.write_all(request.as_bytes()).await.unwrap();
    (broker, client)
}

/// Reads the head of an answer and gives how long its body is.
async fn body_bytes(client: &mut TcpStream) -> usize {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, client.read_u8()).await.expect("no answer");
        head.push(byte.expect("the connection ended in the head"));
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    length.unwrap().parse().unwrap()
}

/// Reads up to `most` bytes and gives how many there were before the end.
async fn read(client: &mut TcpStream, most: usize) -> usize {
    let (mut taken, mut buffer) = (0, vec![0; 64 * 1024]);
    while taken < most {
        let room = buffer.len().min(most - taken);
        let read = tokio::time::timeout(PATIENCE, client.read(&mut buffer[..room])).await;
        match read.expect("neither a byte nor the end") {
            Ok(n @ 1..) => taken += n,
            // An answer that is cut may end in a reset.
            Ok(0) | Err(_) => break,
        }
    }
    taken
}

#[tokio::test]
async fn a_slow_reader_gets_its_whole_answer_though_its_next_request_has_begun() {
    // Longer than a head may take, and longer than the write timeout.
    const LASTS: Duration = Duration::from_secs(8);
    let (broker, mut client) = asked(&["--set", "limits.write_timeout=3s"]).await;
    let total = body_bytes(&mut client).await;
    assert!(total > DATA_BYTES);
    client.write_all(b"GET /v1/status HTTP/1.1\r\nhost").await.unwrap();
    let (began, mut taken) = (Instant::now(), 0);
    while taken < total {
        let next = (total / 80).min(total - taken);
        assert_eq!(read(&mut client, next).await, next, "cut after {:?}", began.elapsed());
        taken += next;
        let due = LASTS.mul_f64(taken as f64 / total as f64);
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
    }
    // The connection is as good as before: the time for this head began with the end of the answer.
    client.write_all(format!(": {}\r\n\r\n", broker.public).as_bytes()).await.unwrap();
    assert!(body_bytes(&mut client).await > 0);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut() {
    let (_broker, mut client) = asked(&["--set", "limits.write_timeout=1s"]).await;
    let total = body_bytes(&mut client).await;
    // Whatever of a next request comes, it buys no time.
    client.write_all(b"GET /v1/status HTTP/1.1\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(read(&mut client, total).await < total, "the answer waited for who did not read it");
}
