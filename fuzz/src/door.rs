//! A broker's public door, and what knocks there.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use tidings::{config::Flags, server::Server};

/// Longer than any answer takes: a connection that is still there then hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker that takes handshakes. Nobody may publish there.
pub struct Handshakes {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
    _server: Server,
    _dir: tempfile::TempDir,
}

impl Handshakes {
    /// Starts it.
    pub fn start() -> Handshakes {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let set = [
            "server.listen=127.0.0.1:0",
            "server.admin=127.0.0.1:0",
            "log.segment_bytes=65536",
            "auth.hs256_secret=a secret of the targets, which has enough bytes",
            "auth.anonymous.subscribe=a.>",
            "limits.per_ip=connects=1000000,failed_auth=1000000",
        ];
        let set = set.map(str::to_owned).to_vec();
        let flags = Flags { data: Some(data.display().to_string()), set, ..Flags::default() };
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(Server::start(flags.resolve().unwrap())).unwrap();
        Handshakes { address: server.public_addr(), _runtime: runtime, _server: server, _dir: dir }
    }

    /// `GET /v1/ws` with whatever follows, up to the end of what the peer has to say: the broker answers or hangs up, in
    /// time; it switches protocols only for whom that is right, and no input is its own fault (5xx), but for a body in a
    /// coding that it does not know, for which RFC 9112 §6.1 has 501.
    pub fn check(&self, data: &[u8]) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = Vec::new();
        // It may have hung up before all of it has come.
        let _ = stream.write_all(b"GET /v1/ws").and_then(|()| stream.write_all(data));
        let _ = stream.shutdown(Shutdown::Write);
        let ended = stream.read_to_end(&mut answer);
        let is_late = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        assert!(!ended.as_ref().is_err_and(is_late), "no end after {PATIENCE:?}");
        if answer.is_empty() {
            return;
        }
        let rest = answer.strip_prefix(b"HTTP/1.1 ").or(answer.strip_prefix(b"HTTP/1.0 "));
        let status = rest.and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| str::from_utf8(digits).ok()).unwrap_or("none");
        match status.as_bytes().first() {
            Some(b'1') => assert!(status == "101" && is_handshake(data), "{status}"),
            Some(b'2' | b'4') => {}
            Some(b'5') if status == "501" && is_transferred(data) => {}
            _ => panic!("{}", String::from_utf8_lossy(&answer)),
        }
    }
}

/// Whether the head says how its body is coded for the way.
fn is_transferred(data: &[u8]) -> bool {
    String::from_utf8_lossy(data).to_ascii_lowercase().contains("\ntransfer-encoding:")
}

/// Whether the head has what every handshake must have (RFC 6455 §4.2.1).
fn is_handshake(data: &[u8]) -> bool {
    let head = String::from_utf8_lossy(data).to_ascii_lowercase();
    // What frames hold after the empty line may look like headers, and is none.
    let lines = || head.lines().take_while(|line| !line.is_empty());
    let has = |name: &str, value: &str| {
        lines()
            .filter_map(|line| line.split_once(':'))
            .any(|(it, given)| it == name && given.split(',').any(|given| given.trim() == value))
    };
    let keys = lines().filter(|line| line.starts_with("sec-websocket-key:")).count();
    has("upgrade", "websocket")
        && has("connection", "upgrade")
        && has("sec-websocket-version", "13")
        && keys == 1
}
