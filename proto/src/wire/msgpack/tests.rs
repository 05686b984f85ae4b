use proptest::prelude::*;
use serde_json::json;

use super::{write::push_serde, *};
use crate::{
    Code, NewEvent, Offset, Timestamp, Topic,
    event::{JSON, JSON_DEPTH_MAX},
    message::{Reply, Request, ServerMessage},
    wire::{
        EVENTS_MAX, LEVELS_MAX,
        round_trips::{MSGPACK, bytes_of, delivered, survives},
        samples,
    },
};

/// A value as serde writes it, which has no bytes.
fn packed(value: &serde_json::Value) -> Vec<u8> {
    bytes_of(|out| push_serde(value, out))
}

/// A map of these names and values.
fn map(attributes: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0x80 | u8::try_from(attributes.len()).unwrap()];
    for (name, value) in attributes {
        push_serde(name, &mut bytes);
        bytes.extend_from_slice(value);
    }
    bytes
}

/// Bytes, 255 at most.
fn bin(bytes: &[u8]) -> Vec<u8> {
    [&[0xc4, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

fn text(text: &str) -> Vec<u8> {
    packed(&json!(text))
}

fn publish(attributes: &[(&str, &[u8])]) -> Vec<u8> {
    let topic = text("a");
    map(&[("publish", &map(&[&[("topic", &topic[..])], attributes].concat()))])
}

fn refused(bytes: &[u8]) -> String {
    decode_request(bytes).unwrap_err().error.message
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What is written is what is let in, and rmp's own reader takes it for the same as JSON's.
    #[test]
    fn a_request_is_the_value_that_json_says(mut request in samples::request()) {
        match &mut request {
            Request::Publish(publish) => publish.event.data = None,
            Request::PublishBatch(batch) => {
                batch.iter_mut().for_each(|publish| publish.event.data = None);
            }
            _ => {}
        }
        let bytes = bytes_of(|out| encode_request(Some(5), &request, out));
        prop_assert_eq!(check::request(&bytes), Ok(()));
        let text = bytes_of(|out| crate::wire::json::encode_request(Some(5), &request, out));
        let want: serde_json::Value = serde_json::from_slice(&text).unwrap();
        prop_assert_eq!(rmp_serde::from_slice::<serde_json::Value>(&bytes).unwrap(), want);
    }

    /// What serde is given of both encodings is the same, and so is what it makes of it.
    #[test]
    fn what_json_refuses_is_refused(
        request in samples::request(),
        place in any::<prop::sample::Index>(),
        other in proptest::sample::select(&[
            "null", "true", "0", "-1", "1.5", "1e300", "\"x\"", "[]", "[1]", "{}", "{\"low\":null}",
        ][..]),
    ) {
        let valid = bytes_of(|out| crate::wire::json::encode_request(Some(5), &request, out));
        let mut value = serde_json::from_slice::<serde_json::Value>(&valid).unwrap();
        let mut nth = place.index(count(&value));
        replace(&mut value, &mut nth, &serde_json::from_str(other).unwrap());
        let said = value.to_string();
        // Data looks otherwise here.
        if said.contains("\"data\"") || said.contains("\"data_base64\"") {
            return Ok(());
        }
        let want = crate::wire::json::decode_request(&said);
        match (decode_request(&packed(&value)), want) {
            (Ok(read), Ok(want)) => prop_assert_eq!(read, want),
            (Err(read), Err(want)) => {
                prop_assert_eq!((read.id, read.error.code), (want.id, want.error.code));
                let path = |error: &crate::WireError| {
                    error.message.split(": ").next().unwrap_or_default().to_owned()
                };
                prop_assert_eq!(path(&read.error), path(&want.error), "{}", said);
            }
            other => prop_assert!(false, "{}: {:?}", said, other),
        }
    }
}

/// How many values there are in it, itself among them.
fn count(value: &serde_json::Value) -> usize {
    1 + match value {
        serde_json::Value::Array(values) => values.iter().map(count).sum(),
        serde_json::Value::Object(values) => values.values().map(count).sum(),
        _ => 0,
    }
}

/// Puts `other` in the place of the `nth` of them.
fn replace(value: &mut serde_json::Value, nth: &mut usize, other: &serde_json::Value) {
    if *nth == 0 {
        *value = other.clone();
    }
    *nth = nth.wrapping_sub(1);
    match value {
        serde_json::Value::Array(values) => {
            values.iter_mut().for_each(|value| replace(value, nth, other))
        }
        serde_json::Value::Object(values) => {
            values.values_mut().for_each(|value| replace(value, nth, other))
        }
        _ => {}
    }
}

#[test]
fn data_is_bytes_or_a_text_that_is_text() {
    let read = |kind: Option<&str>, data: &[u8]| {
        let kind = kind.map(text);
        let mut attributes = vec![("data", data)];
        attributes.extend(kind.as_deref().map(|kind| ("datacontenttype", kind)));
        match decode_request(&publish(&attributes)) {
            Ok(Incoming { request: Request::Publish(publish), .. }) => Ok(publish.event),
            Ok(other) => panic!("{other:?}"),
            Err(bad) => Err(bad.error.message),
        }
    };
    let event = read(None, &bin(b"[1]")).unwrap();
    assert_eq!(
        (event.datacontenttype.as_deref(), &event.data.unwrap()[..]),
        (Some(JSON), &b"[1]"[..])
    );
    for data in [bin("é".as_bytes()), text("é")] {
        let event = read(Some("text/plain"), &data).unwrap();
        assert_eq!(event.data.unwrap(), "é");
    }
    for (kind, data, want) in [
        (None, text("[1]"), "publish.data: is a text, but application/json goes as bytes"),
        (Some("image/png"), text("x"), "publish.data: is a text, but image/png goes as bytes"),
        (None, bin(b"[1"), "publish.data: is not JSON"),
        (None, packed(&json!([1])), "publish.data: invalid type: sequence, expected bytes"),
        (None, packed(&json!(null)), "publish.data: invalid type: unit value, expected bytes"),
        (Some("text/plain"), bin(b"\xff"), "publish.data: is not UTF-8"),
        (Some("text/plain"), b"\xa1\xff".to_vec(), "publish.data: is not UTF-8"),
    ] {
        let message = read(kind, &data).unwrap_err();
        assert!(message.starts_with(want), "{message}");
    }
    let message = refused(&publish(&[("data_base64", &text("MQ=="))]));
    assert_eq!(message, "publish.data_base64: is for JSON: give the bytes as data");
}

#[test]
fn an_error_names_the_attribute() {
    for (bytes, want) in [
        (vec![], "message: is not MessagePack: it ends too early"),
        (vec![0x80], "message: has no request"),
        (vec![0xc1], "message: is not MessagePack: no value begins with 0xc1"),
        (vec![0x90], "message: invalid type: sequence, expected an object"),
        (vec![0x80, 0x80], "message: has 1 bytes behind its end"),
        (map(&[("ping", &[0x80]), ("ping", &[0x80])]), "ping: is given twice"),
        (map(&[("pong", &[0x80])]), "pong: unknown field `pong`"),
        (map(&[("ping", &[0xc0])]), "ping: invalid type: unit value"),
        (map(&[("ping", &[0xd4, 0, 0])]), "ping: is of an extension type"),
        (map(&[("ack", &[0x81, 0x01, 0x01])]), "ack: has a name that is no text"),
        (publish(&[("id", &bin(b"i"))]), "publish.id: is bytes"),
        (publish(&[("typ", &text("t"))]), "publish.typ: unknown field `typ`"),
        (publish(&[("topic", &text("b"))]), "publish.topic: is given twice"),
        (
            publish(&[("headers", &map(&[("n", &text("1")), ("n", &text("2"))]))]),
            "publish.headers.n: is given twice",
        ),
        (publish(&[("headers", &map(&[("data", &bin(b"1"))]))]), "publish.headers.data: is bytes"),
        (packed(&json!({"publish": {}})), "publish.topic: is missing"),
        (packed(&json!({"publish": {"topic": "a b"}})), "publish.topic: \"a b\" has the character"),
        (
            packed(&json!({"publish": {"topic": "a", "ttl_ms": 1.0}})),
            "publish.ttl_ms: invalid type",
        ),
        (
            packed(&json!({"publish_batch": {"events": [{"topic": "a"}, {"headers": {}}]}})),
            "publish_batch.events[1].topic: is missing",
        ),
        (packed(&json!({"subscribe": {"filters": ["a", "b c"]}})), "subscribe.filters[1]: "),
    ] {
        let message = refused(&bytes);
        assert!(message.starts_with(want), "{bytes:02x?}: {message}");
    }
}

#[test]
fn the_id_of_a_bad_request_is_found_where_it_can_be() {
    let bad = text("a b");
    for (bytes, id) in [
        (map(&[("id", &[7]), ("publish", &map(&[("topic", &bad)]))]), Some(7)),
        (map(&[("publish", &map(&[("topic", &bad)])), ("id", &[7])]), Some(7)),
        (map(&[("id", &[7]), ("publish", &[0xdb, 0xff])]), Some(7)),
        (map(&[("id", &[7]), ("id", &[8])]), Some(7)),
        (map(&[("publish", &map(&[("id", &[8])]))]), None),
        (map(&[("publish", &[0xdb, 0xff]), ("id", &[7])]), None),
        (map(&[("id", &[0xff])]), None),
        (map(&[("id", &text("7"))]), None),
        (vec![0x91, 7], None),
        (vec![], None),
    ] {
        assert_eq!(decode_request(&bytes).unwrap_err().id, id, "{bytes:02x?}");
    }
    // However deep the message is nested.
    let deep = map(&[("publish", &[[0x91; 1 << 20].as_slice(), &[0]].concat()), ("id", &[7])]);
    assert_eq!(decode_request(&deep).unwrap_err().id, Some(7));
}

#[test]
fn a_batch_of_very_many_events_is_refused_before_it_is_read() {
    let batch = |events: usize| {
        let list = [&[0xdd][..], &u32::try_from(events).unwrap().to_be_bytes()].concat();
        let events = map(&[("topic", &text("a"))]).repeat(events);
        map(&[("publish_batch", &map(&[("events", &[list, events].concat())]))])
    };
    assert!(decode_request(&batch(EVENTS_MAX)).is_ok());
    let error = decode_request(&batch(EVENTS_MAX + 1)).unwrap_err().error;
    assert_eq!(error.code, Code::TooLarge);
    assert!(error.message.starts_with("publish_batch.events: are more than 4096"), "{error}");
    let count = u32::try_from(EVENTS_MAX + 1).unwrap().to_be_bytes();
    let types = [&[0xdd][..], &count, &vec![0xa0; EVENTS_MAX + 1]].concat();
    let subscribe = map(&[("filters", &packed(&json!(["a"]))), ("types", &types)]);
    let error = decode_request(&map(&[("subscribe", &subscribe)])).unwrap_err().error;
    assert_eq!(error.code, Code::TooLarge);
    assert!(error.message.starts_with("subscribe.types: "), "{error}");
}

#[test]
fn nesting_is_bounded_and_lengths_are_not_believed() {
    let presence = |levels: usize| {
        let data = [vec![0x91; levels], vec![0xc0]].concat();
        let filters = packed(&json!(["a"]));
        map(&[(
            "subscribe",
            &map(&[("filters", &filters), ("presence", &map(&[("data", &data)]))]),
        )])
    };
    assert!(decode_request(&presence(JSON_DEPTH_MAX)).is_ok());
    assert_eq!(
        refused(&presence(JSON_DEPTH_MAX + 1)),
        "subscribe.presence.data: is nested deeper than 32 levels"
    );
    assert_eq!(refused(&presence(LEVELS_MAX - 2)), "message: is nested deeper than 36 levels");
    for first in 0..=0xff_u8 {
        survives(&MSGPACK, &vec![first; 1 << 16]);
        for claimed in [&[0xff; 8][..], &[0x7f, 0xff, 0xff, 0xff], &[0, 0, 0, 1]] {
            let value = [&[first][..], claimed].concat();
            survives(&MSGPACK, &value);
            survives(&MSGPACK, &map(&[("publish", &value)]));
            survives(&MSGPACK, &publish(&[("data", &value)]));
            survives(&MSGPACK, &map(&[("events", &map(&[("events", &value)]))]));
        }
    }
    survives(&MSGPACK, &[0x81, 0xa1, b'a'].repeat(1 << 18));
}

#[test]
fn objects_and_lists_of_any_length_are_written() {
    for entries in [0, 1, 15, 16, 64] {
        let mut new = NewEvent::on(Topic::parse("a").unwrap());
        new.headers = (0..entries).map(|n| (format!("h{n}"), "v".repeat(n))).collect();
        let (bytes, event) = delivered(&MSGPACK, &new, Offset::FIRST, Timestamp::from_millis(1));
        assert_eq!(decode_event(&bytes).unwrap(), event);
    }
    for entries in [15, 16, 70_000_u64] {
        let attempts: Vec<_> = (1..=entries).map(|n| (Offset::new(n).unwrap(), 2)).collect();
        let header =
            BatchHeader { subscription: 1, after: None, cursor: None, attempts: &attempts };
        let bytes = bytes_of(|out| encode_events(&header, std::iter::empty(), out));
        let ServerMessage::Events(batch) = decode_server_message(&bytes).unwrap() else { panic!() };
        assert_eq!(batch.attempts, attempts);
    }
}

#[test]
fn an_error_never_repeats_a_whole_message() {
    let long = "x".repeat(1 << 20);
    for value in [
        json!({&long: 1}),
        json!({"id": &long}),
        json!({"publish": {"topic": format!("{long} ")}}),
        json!({"publish": {"topic": "a", "headers": {&long: 1}}}),
        json!({"subscribe": {"filters": ["a"], "start": &long}}),
    ] {
        assert!(refused(&packed(&value)).len() < 3_000);
    }
}

#[test]
fn a_client_skips_what_it_does_not_know() {
    let later = json!({"reply": 1, "later": [1], "pong": {"later": {}}});
    let message = decode_server_message(&packed(&later)).unwrap();
    assert_eq!(message, ServerMessage::Reply(1, Reply::Pong {}));
    for (value, want) in [
        (json!([]), "message: is no map"),
        (json!({"reply": 1, "gap": {}}), "message: must have one of connected"),
        (json!({"reply": 1}), "message: must have one of"),
        (json!({"later": {}}), "message: must have one of events"),
        (json!({"reply": 1, "published": {"offset": 0, "id": "a"}}), "published.offset: "),
        (
            json!({"events": {"subscription": 1, "events": [{"offset": 1}]}}),
            "events.events[0].topic: is missing",
        ),
        (
            json!({"events": {"subscription": 1, "events": [], "attempts": {"0": 2}}}),
            "events.attempts.0: ",
        ),
    ] {
        let message = decode_server_message(&packed(&value)).unwrap_err().message;
        assert!(message.starts_with(want), "{value}: {message}");
    }
}
