//! TLS on the public listener: whom clients trust, what is refused, a certificate that is replaced.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;
use tidings::client::{Client, Delivery, Error, Options};
use tidings_proto::{Filter, Filters, NewEvent, SubscribeOptions, Topic, message::Publish};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, RootCertStore, SupportedProtocolVersion,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
        version,
    },
};

use crate::util::{Broker, PATIENCE, binary, eventually, http, raw};

/// A broker over TLS, and the files of its certificate.
struct Secured {
    broker: Broker,
    dir: tempfile::TempDir,
}

/// A certificate of 127.0.0.1 and its key, as PEM.
fn made() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn secured(more: &[&str]) -> Secured {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = made();
    std::fs::write(dir.path().join("cert.pem"), cert).unwrap();
    std::fs::write(dir.path().join("key.pem"), key).unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let cert = format!("server.tls_cert={}", file("cert.pem"));
    let key = format!("server.tls_key={}", file("key.pem"));
    let mut args = vec!["--set", &cert, "--set", &key];
    args.extend_from_slice(more);
    let broker = Broker::with(&args);
    assert_eq!(broker.scheme, "https");
    Secured { broker, dir }
}

impl Secured {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ca(&self) -> Vec<u8> {
        std::fs::read(self.file("cert.pem")).unwrap()
    }

    fn options(&self) -> Options {
        let mut options = Options::to(self.broker.url().replace("https", "wss"));
        options.ca = Some(self.ca());
        options
    }

    async fn stream(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.stream_with_room(versions, alpn, None).await
    }

    /// The same with so much room for what is not read.
    async fn stream_with_room(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
        room_bytes: Option<u32>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.ca()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(versions).unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = room_bytes {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let stream = socket.connect(self.broker.public.parse().unwrap()).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// The certificate that a new connection is shown.
    async fn shown(&self) -> Vec<u8> {
        let roots = RootCertStore::empty();
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        let seen = Arc::new(Seen::default());
        config.dangerous().set_certificate_verifier(seen.clone());
        let stream = TcpStream::connect(&self.broker.public).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let _ = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        seen.0.lock().clone()
    }
}

/// Trusts nobody, and keeps what it was shown.
#[derive(Debug, Default)]
struct Seen(parking_lot::Mutex<Vec<u8>>);

impl rustls::client::danger::ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        *self.0.lock() = shown.to_vec();
        Err(rustls::Error::General("seen".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("seen".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("seen".to_owned()))
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

async fn run(mut command: std::process::Command) -> Output {
    tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap())
        .await
        .unwrap()
}

fn publish(topic: &str, data: String) -> Publish {
    let data = json!(data).to_string().into_bytes();
    let mut event = NewEvent::on(Topic::parse(topic).unwrap());
    event.data = Some(data.into());
    Publish::of(event)
}

#[tokio::test]
async fn s11_what_goes_over_tls_is_what_goes_over_tcp() {
    const EVENTS: usize = 300;
    let secured = secured(&[]);
    let client = Client::connect(secured.options()).await.unwrap();
    let filters = Filters::one(Filter::parse("a").unwrap());
    let mut subscription = client.subscribe(SubscribeOptions::to(filters)).await.unwrap();
    // More than a record of TLS holds, and more than the kernel does at once.
    let text = |n: usize| format!("{n} {}", "x".repeat(n * 400));
    let publishing = client.clone();
    let published = tokio::spawn(async move {
        for n in 0..EVENTS {
            let handle = publishing.publish(publish("a", text(n))).await.unwrap();
            drop(handle);
        }
    });
    let mut seen = 0;
    while seen < EVENTS {
        let delivery = tokio::time::timeout(PATIENCE, subscription.next()).await.unwrap();
        if let Delivery::Event { event, .. } = delivery.unwrap() {
            let data: String = serde_json::from_slice(event.data.as_deref().unwrap()).unwrap();
            assert_eq!(data, text(seen));
            seen += 1;
        }
    }
    published.await.unwrap();
}

#[tokio::test]
async fn s11_what_a_slow_reader_is_late_for_comes_whole_over_tls() {
    const EVENTS: u64 = 100;
    // Nothing but the events themselves makes the broker write.
    let secured =
        secured(&["--set", "limits.send_buffer_bytes=4096", "--set", "limits.ping_interval=10m"]);
    let mut stream = secured.stream(&[&version::TLS13], &[]).await.unwrap();
    stream.write_all(raw::upgrade(&secured.broker.public, "/v1/ws", "").as_bytes()).await.unwrap();
    let subscribe = json!({"subscribe": {"filters": ["a"]}}).to_string();
    stream.write_all(&raw::frame(raw::TEXT, subscribe.as_bytes())).await.unwrap();
    let caught_up = async |stream: &mut TlsStream<TcpStream>, needle: &str| {
        let (mut seen, mut buffer) = (String::new(), [0; 4096]);
        while !seen.contains(needle) {
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await;
            let read = read.unwrap_or_else(|_| panic!("{needle} is held back")).unwrap();
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
            seen = seen.split_off(seen.floor_char_boundary(seen.len().saturating_sub(8192)));
        }
    };
    caught_up(&mut stream, "caught_up").await;
    let client = Client::connect(secured.options()).await.unwrap();
    for n in 0..EVENTS {
        // Of many lengths, so that the last write ends now here, now there.
        let text = format!("{}#{n}#", "x".repeat(60_000 + 777 * usize::try_from(n).unwrap()));
        client.publish(publish("a", text)).await.unwrap().await.unwrap();
        if n % 10 == 9 {
            caught_up(&mut stream, &format!("#{n}#")).await;
        }
    }
}

#[tokio::test]
async fn s11_the_command_line_trusts_whom_it_is_told_to() {
    let secured = secured(&[]);
    let ca = secured.file("cert.pem").display().to_string();
    let told = run(secured.broker.cli(&["pub", "a", "1", "--ca", &ca])).await;
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let mut by_environment = secured.broker.cli(&["status", "--json"]);
    by_environment.env("TIDINGS_CA", &ca);
    assert!(run(by_environment).await.status.success());
    // Nobody has told it: the certificate is no one's that the system knows.
    for command in [&["pub", "a", "1"][..], &["status"]] {
        let refused = run(secured.broker.cli(command)).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(4), "{said}");
        assert!(said.contains("--ca"), "{said}");
    }
    // A certificate of another.
    let other = secured.file("other.pem");
    std::fs::write(&other, made().0).unwrap();
    let other = other.display().to_string();
    assert_eq!(run(secured.broker.cli(&["status", "--ca", &other])).await.status.code(), Some(4));
    // And one that is for another host.
    let mut elsewhere = secured.broker.cli(&["status", "--ca", &ca]);
    elsewhere.env("TIDINGS_URL", secured.broker.url().replace("127.0.0.1", "localhost"));
    assert_eq!(run(elsewhere).await.status.code(), Some(4));
    let key = secured.file("key.pem").display().to_string();
    let no_certificate = run(secured.broker.cli(&["status", "--ca", &key])).await;
    assert_eq!(no_certificate.status.code(), Some(2));
}

#[tokio::test]
async fn s11_only_tls_of_today_and_only_http_is_spoken() {
    let secured = secured(&[]);
    for version in [&version::TLS12, &version::TLS13] {
        let mut stream = secured.stream(&[version], &[b"h2", b"http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let request = format!(
            "GET /v1/capabilities HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            secured.broker.public
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert!(secured.stream(&[&version::TLS13], &[b"h2"]).await.is_err(), "there is no HTTP/2");
    // A head of TLS 1.1 (RFC 4346 §7.4.1.2), with one suite and no extension.
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    let mut stream = TcpStream::connect(&secured.broker.public).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    // It may end in a reset: the alert is what counts, if it comes.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty() || answer[0] == 0x15, "no alert: {answer:?}");
    // Plain HTTP is no TLS.
    let plain = http::try_request(&secured.broker.public, hyper::Method::GET, "/", &[], b"").await;
    assert!(plain.is_err());
    // And the admin listener stays plain: it is on loopback.
    assert_eq!(http::get(&secured.broker.admin, "/readyz").await.status, 200);
}

#[tokio::test]
async fn s11_a_handshake_that_does_not_come_is_not_waited_for() {
    let secured = secured(&[]);
    let began = Instant::now();
    let mut silent = TcpStream::connect(&secured.broker.public).await.unwrap();
    let mut half = TcpStream::connect(&secured.broker.public).await.unwrap();
    half.write_all(&[0x16, 3, 1, 0, 200, 1, 0]).await.unwrap();
    for stream in [&mut silent, &mut half] {
        let mut byte = [0; 1];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(15), "{took:?}");
    let metrics = http::get(&secured.broker.admin, "/metrics").await.text();
    assert!(metrics.contains("tidings_handshake_rejected_total{reason=\"tls\"} 2"), "{metrics}");
}

/// What TLS holds back counts like anything else that waits: whoever takes some of it within the write timeout stays.
#[tokio::test]
async fn g5_who_reads_slowly_over_tls_is_not_cut_off() {
    let secured =
        secured(&["--set", "limits.write_timeout=2s", "--set", "limits.send_buffer_bytes=4096"]);
    let client = Client::connect(secured.options()).await.unwrap();
    for n in 0..3 {
        let data = format!("{n}{}", "x".repeat(60_000));
        client.publish(publish("a", data)).await.unwrap().await.unwrap();
    }
    let mut slow =
        secured.stream_with_room(&[&version::TLS13], &[b"http/1.1"], Some(4096)).await.unwrap();
    let upgrade = raw::upgrade(&secured.broker.public, "/v1/ws/a?after=0", "");
    slow.write_all(upgrade.as_bytes()).await.unwrap();
    let (mut taken, mut chunk) = (0, [0; 1024]);
    let began = Instant::now();
    while taken < 180_000 {
        let read = tokio::time::timeout(PATIENCE, slow.read(&mut chunk)).await.unwrap();
        let read = read.unwrap_or_default();
        assert!(read > 0, "it was cut after {taken} bytes");
        taken += read;
        // This is the reader's pace, and what the test is about.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(6), "{:?} is not slow", began.elapsed());
}

#[tokio::test]
async fn s11_a_certificate_is_replaced_while_connections_stay() {
    let secured = secured(&[]);
    let client = Client::connect(secured.options()).await.unwrap();
    let session = client.connected().unwrap().session;
    let before = secured.shown().await;
    // What does not hold replaces nothing.
    std::fs::write(secured.file("key.pem"), made().1).unwrap();
    secured.broker.signal(Signal::HUP);
    let reads = async |result: &str| {
        let metrics = http::get(&secured.broker.admin, "/metrics").await.text();
        metrics.contains(&format!("tidings_tls_certificate_reads_total{{result=\"{result}\"}} 1"))
    };
    eventually("it is refused", async || reads("refused").await).await;
    assert_eq!(secured.shown().await, before);
    let (cert, key) = made();
    std::fs::write(secured.file("cert.pem"), cert).unwrap();
    std::fs::write(secured.file("key.pem"), key).unwrap();
    secured.broker.signal(Signal::HUP);
    eventually("it is read", async || reads("ok").await).await;
    let after = secured.shown().await;
    assert!(after != before && !after.is_empty());
    client.publish(publish("a", "over the old".to_owned())).await.unwrap().await.unwrap();
    assert_eq!(client.connected().unwrap().session, session, "it is the same connection");
    let other = Client::connect(secured.options()).await.unwrap();
    other.publish(publish("a", "over the new".to_owned())).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn s11_who_is_not_trusted_is_told_at_once() {
    let secured = secured(&[]);
    let mut options = secured.options();
    options.ca = Some(made().0.into_bytes());
    let refused = tokio::time::timeout(PATIENCE, Client::connect(options)).await.unwrap();
    assert!(matches!(refused, Err(Error::Untrusted { .. })), "{refused:?}");
}

#[test]
fn s11_plain_connections_stay_on_loopback_unless_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let secret = "auth.hs256_secret=a secret of at least thirty-two bytes";
    let check = |more: &[&str]| {
        let mut command = std::process::Command::new(binary());
        command.args(["config", "check", "--set", secret]).args(more);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = check(&["--listen", "0.0.0.0:0"]);
    assert!(code == Some(2) && said.contains("server.tls_cert"), "{code:?} {said}");
    for allowed in ["server.tls_terminated_by_proxy=true", "server.insecure=true"] {
        assert_eq!(check(&["--listen", "0.0.0.0:0", "--set", allowed]).0, Some(0), "{allowed}");
    }
    // A certificate is looked at before the broker is started with it.
    let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    let (made_cert, made_key) = made();
    std::fs::write(&cert, &made_cert).unwrap();
    std::fs::write(&key, made().1).unwrap();
    let cert_set = format!("server.tls_cert={}", cert.display());
    let key_set = format!("server.tls_key={}", key.display());
    let args = ["--listen", "0.0.0.0:0", "--set", &cert_set, "--set", &key_set];
    let (code, said) = check(&args);
    assert!(code == Some(2) && said.contains("do not go together"), "{code:?} {said}");
    std::fs::write(&key, made_key).unwrap();
    assert_eq!(check(&args).0, Some(0));
}

#[tokio::test]
async fn s11_a_socket_by_hand_over_tls_is_closed_as_one_over_tcp() {
    let secured = secured(&[]);
    let mut stream = secured.stream(&[&version::TLS13], &[]).await.unwrap();
    stream.write_all(raw::upgrade(&secured.broker.public, "/v1/ws", "").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    stream.write_all(&raw::frame(raw::CLOSE, &1000_u16.to_be_bytes())).await.unwrap();
    let mut rest = Vec::new();
    // The close frame, and TLS' own end behind it.
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    assert!(read.is_ok() && rest == [raw::CLOSE, 2, 3, 0xe8], "{read:?} {rest:?}");
}
