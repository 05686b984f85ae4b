//! Sealed events: whoever has the keys reads them, the broker and everybody else carry an envelope.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use base64::Engine;
use bytes::Bytes;
use serde_json::{Value, json};
use tidings::client::{
    Client, Delivery, Options, Subscription,
    sealed::{CONTENT_TYPE, KEY_HEADER, Keys, OpenError},
};
use tidings_proto::{
    Event, Filter, Filters, NewEvent, SubscribeOptions, Topic, message::Publish, subscribe::After,
};

use crate::util::{Broker, Reaped, http};

const CANARY: &str = "canary-7b1f5c0e-in-the-data";

/// A file of keys, and what makes more of them.
struct KeyFile {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl KeyFile {
    fn new(broker: &Broker) -> KeyFile {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile { path: dir.path().join("keys"), _dir: dir };
        file.add(broker);
        file
    }

    /// Adds a key; gives its id.
    fn add(&self, broker: &Broker) -> String {
        let made = broker.cli(&["key", "make", self.path(), "--json"]).output().unwrap();
        assert!(made.status.success(), "{}", said(&made));
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        made["id"].as_str().unwrap().to_owned()
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn keys(&self) -> Keys {
        Keys::parse(&std::fs::read_to_string(&self.path).unwrap()).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn publish(broker: &Broker, topic: &str, data: &str, more: &[&str]) {
    let output = broker.cli(&["pub", topic, data]).args(more).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// What `tidings sub` gives of all there is.
fn read(broker: &Broker, more: &[&str]) -> (Vec<Value>, Output) {
    let words = ["sub", "a.>", "--after", "first", "--until-caught-up", "--output", "json"];
    let output = broker.cli(&words).args(more).output().unwrap();
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let events = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
    (events, output)
}

#[tokio::test]
async fn only_who_has_the_key_reads_what_is_sealed() {
    let broker = Broker::start();
    let (ours, theirs) = (KeyFile::new(&broker), KeyFile::new(&broker));
    let secret = json!({"iban": CANARY}).to_string();
    publish(&broker, "a.1", &secret, &["--seal-with", ours.path(), "--type", "paid", "--key", "k"]);

    let (opened, output) = read(&broker, &["--open-with", ours.path()]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    assert_eq!(opened[0]["data"], json!({"iban": CANARY}));
    assert_eq!(opened[0]["datacontenttype"], "application/json");
    assert_eq!(opened[0].get("headers"), None);

    let id = ours.keys().newest().id().to_owned();
    let (envelopes, output) = read(&broker, &[]);
    assert!(output.status.success());
    assert_eq!(envelopes[0]["datacontenttype"], CONTENT_TYPE);
    assert_eq!(envelopes[0]["headers"], json!({ KEY_HEADER: id }));
    assert_eq!((&envelopes[0]["type"], &envelopes[0]["key"]), (&json!("paid"), &json!("k")));
    assert!(!envelopes[0].to_string().contains("iban"), "{}", envelopes[0]);

    let (none, output) = read(&broker, &["--open-with", theirs.path()]);
    assert_eq!((none.len(), output.status.code()), (0, Some(3)));
    assert!(said(&output).contains(&id), "{}", said(&output));
    // Other bytes under the same id.
    let text = std::fs::read_to_string(&theirs.path).unwrap();
    let wrong = text.replace(theirs.keys().newest().id(), &id);
    std::fs::write(&theirs.path, wrong).unwrap();
    let (none, output) = read(&broker, &["--open-with", theirs.path()]);
    assert_eq!((none.len(), output.status.code()), (0, Some(7)));
    assert!(said(&output).contains("event 1 does not open"), "{}", said(&output));
    // Somebody without a key who may publish there.
    publish(&broker, "a.1", "\"not sealed\"", &[]);
    let (events, output) = read(&broker, &["--open-with", ours.path()]);
    assert_eq!((events.len(), output.status.code()), (1, Some(7)));
    assert!(said(&output).contains("event 2 is not sealed"), "{}", said(&output));
}

#[tokio::test]
async fn keys_are_changed_in_mid_stream_and_nothing_is_lost() {
    let broker = Broker::start();
    let file = KeyFile::new(&broker);
    let old = file.path.with_extension("old");
    std::fs::copy(&file.path, &old).unwrap();
    let seal = ["--seal-with", file.path()];
    let sub = |keys: &Path, count: &str| {
        let words = ["sub", "a.>", "--durable", "d", "--start", "first", "--output", "data"];
        let mut command = broker.cli(&words);
        command.arg("--open-with").arg(keys).args(["--count", count]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut reader = Reaped(sub(&old, "100").spawn().unwrap());
    let mut lines = BufReader::new(reader.0.stdout.take().unwrap()).lines();
    for n in 1..=2 {
        publish(&broker, "a.1", &n.to_string(), &seal);
        assert_eq!(lines.next().unwrap().unwrap(), n.to_string());
    }
    let new = file.add(&broker);
    for n in 3..=4 {
        publish(&broker, "a.1", &n.to_string(), &seal);
    }
    // The reader that was not given the new key says which it is, and stops before the event.
    assert!(lines.next().is_none());
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut reader.0.stderr.take().unwrap(), &mut stderr).unwrap();
    assert_eq!(reader.0.wait().unwrap().code(), Some(3), "{stderr}");
    assert!(stderr.contains(&format!("is sealed with the key \"{new}\"")), "{stderr}");
    // With it, it goes on there, and what the old key sealed opens too.
    let rest = sub(&file.path, "2").output().unwrap();
    assert_eq!(String::from_utf8(rest.stdout.clone()).unwrap(), "3\n4\n", "{}", said(&rest));
    let (all, _) = read(&broker, &["--open-with", file.path()]);
    let data: Vec<_> = all.iter().map(|event| event["data"].as_u64().unwrap()).collect();
    assert_eq!(data, [1, 2, 3, 4]);
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn the_broker_never_has_the_plain_text() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut broker = Broker::stopped(dir.path(), &[]);
    let mut command = broker.command();
    command.env("TIDINGS_LOG", "trace").stderr(std::fs::File::create(&log).unwrap());
    broker.run(command);
    let file = KeyFile::new(&broker);
    let secret = json!({"iban": CANARY}).to_string();
    publish(&broker, "a.1", &secret, &["--seal-with", file.path()]);
    publish(&broker, "a.2", &secret, &["--seal-with", file.path(), "--content-type", "text/plain"]);
    // What is looked for is found where it is not sealed.
    publish(&broker, "a.3", "\"plain-b2e1\"", &[]);
    let (opened, _) = read(&broker, &["--open-with", file.path()]);
    assert!(opened[1].to_string().contains(CANARY), "{opened:?}");
    for path in ["/v1/topics/a.*/events", "/v1/topics", "/v1/events/1", "/v1/topics/a.1/last"] {
        let text = http::get(&broker.public, path).await.text();
        assert!(!text.contains(CANARY), "{path}: {text}");
    }
    let metrics = http::get(&broker.admin, "/metrics").await.text();
    assert!(!metrics.contains(CANARY));
    broker.terminate();
    // As it is, and as it would stand in Base64 at any place of a longer text.
    let base64 = |skip: usize| {
        let text = base64::engine::general_purpose::STANDARD.encode(&CANARY[skip..]);
        text.as_bytes()[..text.len() - 4].to_vec()
    };
    let mut needles = vec![CANARY.as_bytes().to_vec()];
    needles.extend((0..3).map(base64));
    let (mut seen, mut plain) = (0, 0);
    let mut looked_at = files(&broker.dir);
    looked_at.push(log);
    for path in looked_at {
        let bytes = std::fs::read(&path).unwrap();
        let has = |needle: &[u8]| memchr::memmem::find(&bytes, needle).is_some();
        assert!(!needles.iter().any(|needle| has(needle)), "{} has it", path.display());
        (seen, plain) = (seen + bytes.len(), plain + usize::from(has(b"plain-b2e1")));
    }
    assert!(seen > 1000 && plain > 0, "{seen} bytes, {plain} files");
}

fn event(topic: &str, data: &str) -> NewEvent {
    NewEvent {
        datacontenttype: Some("text/plain".to_owned()),
        data: Some(Bytes::from(data.to_owned())),
        ..NewEvent::on(Topic::parse(topic).unwrap())
    }
}

/// All that a subscription gives until it has caught up.
async fn events(client: &Client, options: SubscribeOptions) -> Vec<Event> {
    let mut subscription = client.subscribe(options).await.unwrap();
    let mut events = Vec::new();
    loop {
        match subscription.next().await.unwrap() {
            Delivery::Event { event, .. } => events.push(event),
            Delivery::CaughtUp(_) => return events,
            other => panic!("{other:?}"),
        }
    }
}

/// The next event that is it.
async fn until(subscription: &mut Subscription, is_it: impl Fn(&Event) -> bool) -> Event {
    loop {
        match subscription.next().await.unwrap() {
            Delivery::Event { event, .. } if is_it(&event) => return event,
            _ => {}
        }
    }
}

fn all(filter: &str) -> SubscribeOptions {
    SubscribeOptions {
        after: Some(After("0".parse().unwrap())),
        ..SubscribeOptions::to(Filters::one(Filter::parse(filter).unwrap()))
    }
}

/// Dedupe, keys, conflation, receipts, moments ahead and data that is left out know only the envelope.
#[tokio::test]
async fn what_the_broker_does_with_events_it_does_with_sealed_ones() {
    let broker = Broker::start();
    let keys = KeyFile::new(&broker).keys();
    let client = Client::connect(Options::to(broker.url())).await.unwrap();
    let publish = async |event: NewEvent| client.publish(Publish::of(event)).await.unwrap().await;
    // Sealed once and sent twice it is one event; sealed twice it is another under the same id.
    let id = tidings_proto::EventId::parse("one").unwrap();
    let named = NewEvent { id: Some(id), ..event("a.1", "first") };
    let sealed = keys.seal(named.clone()).unwrap();
    assert!(!publish(sealed.clone()).await.unwrap().duplicate);
    assert!(publish(sealed).await.unwrap().duplicate);
    let error = publish(keys.seal(named).unwrap()).await.unwrap_err();
    assert!(error.to_string().starts_with("conflict"), "{error}");
    // The newest of a key, and what waits for its moment.
    for n in 0..3 {
        let state = NewEvent { key: Some("k".to_owned()), ..event("b.1", &format!("state {n}")) };
        publish(keys.seal(state).unwrap()).await.unwrap();
    }
    let durable = Some("d".to_owned());
    let options = SubscribeOptions { durable, after: None, ..all("c.*") };
    let mut fired = client.subscribe(options).await.unwrap();
    let later = Publish {
        deliver_at: Some(tidings::clock::now().plus_millis(50)),
        receipts: true,
        ..Publish::of(keys.seal(event("c.1", "later")).unwrap())
    };
    client.publish(later).await.unwrap().await.unwrap();
    let fired_event = until(&mut fired, |_| true).await;
    assert_eq!(keys.open(&fired_event).unwrap().data.unwrap(), "later");
    // Who has acknowledged it.
    fired.ack(fired_event.offset).await.unwrap();
    let path = format!("/v1/events/{}/receipts", fired_event.offset);
    let receipts = http::get(&broker.public, &path).await.json();
    assert_eq!(receipts["receipts"][0]["state"], "acked", "{receipts}");
    let conflated = SubscribeOptions { conflate_ms: 20, ..all("b.*") };
    let mut conflated = client.subscribe(conflated).await.unwrap();
    let data = |event: &Event| keys.open(event).unwrap().data.unwrap();
    until(&mut conflated, |event| data(event) == "state 2").await;
    let newest = SubscribeOptions { last_per_key: true, after: None, ..all("b.*") };
    let newest = events(&client, newest).await;
    let opened: Vec<_> = newest.iter().map(|event| keys.open(event).unwrap()).collect();
    assert_eq!(opened.len(), 1, "{opened:?}");
    assert_eq!(opened[0].data.as_deref(), Some(&b"state 2"[..]));
    // One who asks for small data gets the reference, and reads it there.
    let thin = events(&client, SubscribeOptions { max_data_bytes: Some(5), ..all("a.*") }).await;
    assert_eq!(keys.open(&thin[0]).unwrap_err(), OpenError::LeftOut(thin[0].offset));
    let whole = http::get(&broker.public, &thin[0].headers["dataref"]).await.text();
    let whole = tidings_proto::wire::json::decode_event(&whole).unwrap();
    assert_eq!(keys.open(&whole).unwrap().data.unwrap(), "first");
    // Over every encoding the same bytes, and by header only those of a key.
    let selected = SubscribeOptions {
        headers: [(KEY_HEADER.to_owned(), keys.newest().id().to_owned())].into(),
        ..all(">")
    };
    assert_eq!(events(&client, selected).await.len(), 5);
}

#[test]
fn a_file_of_keys_is_its_owners_and_is_added_to_with_care() {
    let broker = Broker::start();
    let file = KeyFile::new(&broker);
    let mode = std::fs::metadata(&file.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A last line without an end, as an editor may leave it.
    let text = std::fs::read_to_string(&file.path).unwrap();
    std::fs::write(&file.path, text.trim_end()).unwrap();
    file.add(&broker);
    assert_eq!(file.keys().count(), 2);
    // Open to others it works, and it is said.
    std::fs::set_permissions(&file.path, PermissionsExt::from_mode(0o644)).unwrap();
    let words = ["pub", "a.1", "1", "--seal-with", file.path()];
    let output = broker.cli(&words).output().unwrap();
    assert!(output.status.success() && said(&output).contains("chmod 600"), "{}", said(&output));
    let output = broker.cli(&words).arg("--quiet").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    // What is no file of keys stays as it is, and nothing of it is shown.
    std::fs::write(&file.path, "my diary\n").unwrap();
    for (words, code) in [
        (&["key", "make", file.path()][..], 2),
        (&["sub", "a.>", "--open-with", file.path()], 2),
        (&["pub", "a.1", "1", "--seal-with", "/nonexistent/keys"], 3),
    ] {
        let output = broker.cli(words).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
        assert!(!said(&output).contains("diary"), "{}", said(&output));
    }
    assert_eq!(std::fs::read_to_string(&file.path).unwrap(), "my diary\n");
    assert_eq!(read(&broker, &[]).0.len(), 2, "what was not sealed was not published");
}
