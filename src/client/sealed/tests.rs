//! Sealed events against the vectors that clients of every language read, and what no vector can say.

use std::collections::BTreeSet;

use serde::Deserialize;
use tidings_proto::{
    Timestamp, Topic,
    event::{HEADERS_MAX, JSON},
    wire::json,
};

use super::*;

const VECTORS: &str = include_str!("../../../proto/vectors/sealed.json");

/// A case of `proto/vectors/sealed.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    keys: Vec<String>,
    /// The nonce, and what is published before and after it is sealed with it by the last key.
    nonce: Option<String>,
    publish: Option<String>,
    sealed: Option<String>,
    /// What is bound and what is sealed, in hexadecimal digits.
    bound: Option<String>,
    plain: Option<String>,
    /// What a subscriber gets, and what it becomes, or why it does not.
    event: String,
    opened: Option<String>,
    error: Option<String>,
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

fn key(id: &str) -> Key {
    Key::new(id, clock::secret_bytes()).unwrap()
}

fn event(topic: &str, data: &'static str) -> NewEvent {
    NewEvent {
        datacontenttype: Some(JSON.to_owned()),
        data: Some(Bytes::from_static(data.as_bytes())),
        ..NewEvent::on(Topic::parse(topic).unwrap())
    }
}

/// The event as a broker delivers it.
fn delivered(event: NewEvent) -> Event {
    Event {
        offset: Offset::new(57).unwrap(),
        topic: event.topic,
        id: event.id.unwrap().as_str().to_owned(),
        kind: event.kind,
        source: "urn:tidings:subject:alice".to_owned(),
        time: Timestamp::from_millis(0),
        datacontenttype: event.datacontenttype,
        data: event.data,
        key: event.key,
        priority: event.priority,
        expires: None,
        correlation: event.correlation,
        headers: event.headers,
    }
}

#[test]
fn every_vector_is_sealed_and_opened_as_it_says() {
    let cases: Vec<Case> = serde_json::from_str(VECTORS).unwrap();
    let (mut sealed, mut errors) = (0, BTreeSet::new());
    for case in &cases {
        let name = &case.name;
        let keys = Keys::parse(&case.keys.join("\n")).unwrap();
        if let (Some(publish), Some(want)) = (&case.publish, &case.sealed) {
            let nonce = unhex(case.nonce.as_deref().unwrap()).try_into().unwrap();
            let new = json::decode_publish(publish).unwrap().event;
            let want = json::decode_publish(want).unwrap().event;
            assert_eq!(keys.seal_with(new, nonce).unwrap(), want, "{name}");
            sealed += 1;
        }
        let event = json::decode_event(&case.event).unwrap();
        let opened = keys.open(&event);
        if let Some(want) = &case.opened {
            assert_eq!(opened.unwrap(), json::decode_event(want).unwrap(), "{name}");
            let (bound, plain) = parts(&event, want);
            assert_eq!(bound, unhex(case.bound.as_deref().unwrap()), "{name}");
            assert_eq!(plain, unhex(case.plain.as_deref().unwrap()), "{name}");
            continue;
        }
        let error = opened.unwrap_err();
        let kind = match &error {
            OpenError::NotSealed(_) => "not_sealed",
            OpenError::UnknownKey { .. } => "unknown_key",
            OpenError::LeftOut(_) => "left_out",
            OpenError::Tampered { .. } => "tampered",
            OpenError::Version(_) => "version",
            OpenError::Form { .. } => "form",
        };
        assert_eq!(Some(kind), case.error.as_deref(), "{name}: {error}");
        assert!(error.to_string().contains("event 57 "), "{error}");
        errors.insert(kind);
    }
    assert!(sealed >= 10 && errors.len() == 6, "{sealed} {errors:?}");
}

/// What is bound to a sealed event and what is in it, as this module writes them.
fn parts(event: &Event, opened: &str) -> (Vec<u8>, Vec<u8>) {
    let bound = Bound {
        key_id: &event.headers[KEY_HEADER],
        topic: event.topic.as_str(),
        id: &event.id,
        kind: &event.kind,
        key: event.key.as_deref(),
        correlation: event.correlation.as_deref(),
    };
    let (opened, mut plain) = (json::decode_event(opened).unwrap(), Vec::new());
    write_plain(opened.datacontenttype.as_deref(), opened.data.as_deref(), &mut plain);
    (bound.bytes(), plain)
}

#[test]
fn the_newest_key_seals_and_all_open() {
    let (old, new) = (key("old"), key("new"));
    let before = Keys::new(vec![old.clone()]).unwrap();
    let after = Keys::new(vec![old, new]).unwrap();
    let first = before.seal(event("a", "1")).unwrap();
    let second = after.seal(event("a", "2")).unwrap();
    assert_eq!((&*first.headers[KEY_HEADER], &*second.headers[KEY_HEADER]), ("old", "new"));
    let data = |keys: &Keys, event: &NewEvent| {
        let opened = keys.open(&delivered(event.clone()))?;
        Ok::<_, OpenError>(opened.data.unwrap())
    };
    assert_eq!(data(&after, &first).unwrap(), "1");
    assert_eq!(data(&after, &second).unwrap(), "2");
    let error = data(&before, &second).unwrap_err();
    assert!(matches!(&error, OpenError::UnknownKey { key, .. } if key == "new"), "{error}");
}

#[test]
fn no_two_sealed_events_are_alike_and_none_shows_what_is_in_it() {
    let keys = Keys::new(vec![key("k")]).unwrap();
    let canary = "\"a-canary-in-the-data\"";
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let sealed = keys.seal(event("a", canary)).unwrap();
        let data = sealed.data.clone().unwrap();
        assert!(!data.windows(8).any(|it| it == b"a-canary"));
        assert!(seen.insert(data[1..=NONCE_BYTES].to_vec()), "a nonce came twice");
        assert_eq!(sealed.datacontenttype.as_deref(), Some(CONTENT_TYPE));
        assert!(sealed.id.is_some(), "an id is bound, so there is one");
    }
}

#[test]
fn what_no_broker_would_take_is_not_sealed() {
    let keys = Keys::new(vec![key("k")]).unwrap();
    let refused = |event: NewEvent| keys.seal(event).unwrap_err();
    assert!(matches!(refused(event("a", "{no")), SealError::Event(EventError::NotJson(_))));
    let sealed = keys.seal(event("a", "1")).unwrap();
    assert_eq!(refused(sealed), SealError::Sealed);
    let headers = (0..HEADERS_MAX).map(|n| (n.to_string(), String::new())).collect();
    let full = NewEvent { headers, ..event("a", "1") };
    assert_eq!(refused(full), SealError::Event(EventError::TooManyHeaders));
}

#[test]
fn keys_are_read_from_a_file_and_never_shown() {
    let (old, new) = (Key::make(), Key::make());
    assert_ne!(old.id(), new.id());
    let text = format!("# of October\n{}\r\n\n  {}\n", *old.line(), *new.line());
    let keys = Keys::parse(&text).unwrap();
    assert_eq!(keys.newest().id(), new.id());
    assert_eq!(keys.find(old.id()).unwrap().secret(), old.secret());
    assert_eq!(*keys.newest().line(), *new.line());
    let shown = format!("{keys:?} {new:?}");
    let secret = new.line().rsplit('_').next().unwrap().to_owned();
    assert!(shown.contains(new.id()) && !shown.contains(&secret[..8]), "{shown}");
    let numbers = format!("{:?}", &new.secret()[..4]);
    assert!(!shown.contains(&numbers[1..numbers.len() - 1]), "{shown}");
    let upper = new.line().replace(&secret, &secret.to_uppercase());
    assert_eq!(Keys::parse(&upper).unwrap().newest().secret(), new.secret());
}

#[test]
fn a_file_that_is_not_of_keys_is_refused_without_repeating_it() {
    let line = Key::make().line().to_string();
    let id = line.split('_').nth(1).unwrap().to_owned();
    let error = |text: &str| Keys::parse(text).unwrap_err();
    assert_eq!(error(""), KeysError::None);
    assert_eq!(error("# nothing\n"), KeysError::None);
    assert_eq!(error(&format!("{line}\n{line}")), KeysError::Twice(id.clone()));
    for wrong in [
        line.replace("tds_", "tdk_"),
        line[..line.len() - 1].to_owned(),
        format!("{line}0"),
        format!("{}g", &line[..line.len() - 1]),
        line.replace(&id, ""),
        line.replace(&id, "two words"),
        line.replace(&id, &"x".repeat(65)),
        line.replace(&id, "schlüssel"),
    ] {
        let said = error(&format!("\n{wrong}\n"));
        assert_eq!(said, KeysError::Line { line: 2 });
        assert!(!said.to_string().contains(&wrong[wrong.len() - 20..]), "{said}");
    }
    let many: String = (0..=1024).map(|_| Key::make().line().to_string() + "\n").collect();
    assert_eq!(error(&many), KeysError::TooMany);
    assert_eq!(Key::new("", [0; 32]).unwrap_err(), KeysError::Id);
}
