use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    Code, Event, NewEvent, Offset, Timestamp, Topic,
    event::JSON,
    message::{Publish, Request, ServerMessage},
    wire::{LEVELS_MAX, round_trips, samples},
};

proptest! {
    #[test]
    fn how_large_a_text_and_data_are_is_known_before_they_are_written(
        text in any::<String>(),
        data in proptest::collection::vec(any::<u8>(), 0..99),
        datacontenttype in proptest::sample::select(vec!["text/plain", "image/png", JSON]),
    ) {
        for text in [text.as_str(), "a\"b\\c\u{1}\u{8}\t\n\u{b}\u{c}\r\u{1f} \u{7f}ä"] {
            let mut out = Vec::new();
            write::push_text(text, &mut out);
            prop_assert_eq!(out.len(), text.len() + 2 + escape_bytes(text));
            let mut object = Vec::new();
            let mut of = write::Object::begin(&mut object);
            of.data(Some("text/plain"), text.as_bytes());
            of.end();
            let growth = data_growth_bytes(Some("text/plain"), text.as_bytes());
            prop_assert_eq!(object.len(), r#"{"data":""}"#.len() + text.len() + growth);
        }
        let mut object = Vec::new();
        let mut of = write::Object::begin(&mut object);
        of.data(Some(datacontenttype), &data);
        of.end();
        let known = data.len() + data_growth_bytes(Some(datacontenttype), &data);
        let around = object.len() - known;
        prop_assert!(around <= r#"{"data_base64":""}"#.len(), "{} of {}", known, object.len());
    }
}

fn text_of(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

/// An event as the broker has it: its JSON made from the record, and itself.
fn delivered(new: &NewEvent, offset: Offset, time: Timestamp) -> (String, Event) {
    let (bytes, event) = round_trips::delivered(&round_trips::JSON, new, offset, time);
    (String::from_utf8(bytes).unwrap(), event)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn serde_reads_an_event_too(new in samples::new_event(), offset in samples::offset()) {
        let (text, _) = delivered(&new, offset, Timestamp::from_millis(1));
        prop_assert!(serde_json::from_str::<serde_json::Map<_, _>>(&text).is_ok());
    }

    #[test]
    fn a_publish_comes_back(publish in samples::publish(), other in samples::publish()) {
        let text = text_of(|out| encode_publish(&publish, out));
        prop_assert_eq!(&decode_publish(&text).unwrap(), &publish);
        prop_assert_eq!(&decode_publishes(&text).unwrap()[..], std::slice::from_ref(&publish));
        let both = format!(" [{text},{}]", text_of(|out| encode_publish(&other, out)));
        prop_assert_eq!(decode_publishes(&both).unwrap(), [publish, other]);
    }

    #[test]
    fn strings_are_written_as_serde_writes_them(text in any::<String>()) {
        let ours = text_of(|out| write::push_text(&text, out));
        prop_assert_eq!(ours, serde_json::to_string(&text).unwrap());
    }

    /// The readers of the whole protocol are tried with every encoding's.
    #[test]
    fn hostile_text_does_not_panic(
        publish in samples::publish(),
        changes in samples::changes(),
        noise in "\\PC*",
    ) {
        let valid = text_of(|out| encode_publish(&publish, out));
        let damaged = samples::damage(valid.as_bytes(), &changes);
        survives(&String::from_utf8_lossy(&damaged));
        survives(&noise);
    }
}

/// Gives the text to every decoder: no panic, and every error says where and stays short.
fn survives(text: &str) {
    let results = [
        decode_request(text).map(drop).map_err(|bad| bad.error),
        decode_publishes(text).map(drop),
        decode_server_message(text).map(drop),
        decode_event(text).map(drop),
        crate::wire::cloudevents::decode_structured(text, None).map(drop),
        crate::wire::cloudevents::decode_batch(text, None).map(drop),
    ];
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains(": ") && error.message.len() < 3_000, "{}", error.message);
    }
}

#[test]
fn data_stays_as_it_is_byte_for_byte() {
    let data = "{\"z\" : 1.0e5,\"a\":[-0.0 ,12345678901234567890123,\"\\u0041\\/é\"], \"z\":1}";
    let text = format!("{{\"id\":1,\"publish\":{{\"data\": {data} ,\"topic\":\"a\"}}}}");
    let Request::Publish(publish) = decode_request(&text).unwrap().request else { panic!() };
    assert_eq!(publish.event.data.as_deref(), Some(data.as_bytes()));
    let (text, event) = delivered(&publish.event, Offset::FIRST, Timestamp::from_millis(1));
    assert!(text.contains(&format!("\"data\":{data}")), "{text}");
    assert_eq!(decode_event(&text).unwrap().data.as_deref(), Some(data.as_bytes()));
    assert_eq!(event.data.as_deref(), Some(data.as_bytes()));
}

#[test]
fn data_that_is_null_can_be_published_and_read() {
    let mut new = NewEvent::on(Topic::parse("a").unwrap());
    (new.datacontenttype, new.data) = (Some(JSON.to_owned()), Some(Bytes::from_static(b"null")));
    let publish = Publish::of(new.clone());
    let text = text_of(|out| encode_publish(&publish, out));
    assert_eq!(decode_publish(&text).unwrap(), publish);
    let (text, event) = delivered(&new, Offset::FIRST, Timestamp::from_millis(1));
    assert!(text.contains("\"data\":null"), "{text}");
    assert_eq!(decode_event(&text).unwrap(), event);
}

#[test]
fn an_event_without_content_type_is_json() {
    let mut new = NewEvent::on(Topic::parse("a").unwrap());
    new.data = Some(Bytes::from_static(b"[1]"));
    let (text, event) = delivered(&new, Offset::FIRST, Timestamp::from_millis(1));
    assert!(text.contains("\"data\":[1]"), "{text}");
    assert_eq!(decode_event(&text).unwrap(), event);
    let text = text_of(|out| encode_publish(&Publish::of(new), out));
    assert_eq!(text, r#"{"topic":"a","data":[1]}"#);
}

/// Data that its content type lies about is never checked again: it must not break what is around
/// it.
#[test]
fn data_that_is_not_what_it_should_be_breaks_no_message() {
    for (content_type, data) in [(JSON, &b""[..]), ("text/plain", b"\xff")] {
        let mut new = NewEvent::on(Topic::parse("a").unwrap());
        new.datacontenttype = Some(content_type.to_owned());
        new.data = Some(Bytes::from_static(data));
        let (text, event) = delivered(&new, Offset::FIRST, Timestamp::from_millis(1));
        assert_eq!(decode_event(&text).unwrap(), event);
    }
}

#[test]
fn nesting_is_bounded_before_anything_is_parsed() {
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let publish = |levels| {
        let data = nested(levels);
        decode_request(&format!("{{\"id\":1,\"publish\":{{\"topic\":\"a\",\"data\":{data}}}}}"))
    };
    assert!(publish(32).is_ok());
    // One more level than data may have is the data's fault, many more are the message's.
    assert!(publish(33).unwrap_err().error.message.starts_with("publish.data: "));
    let error = publish(LEVELS_MAX).unwrap_err();
    assert_eq!(error.error.message, "message: is nested deeper than 36 levels");
    assert_eq!(error.id, Some(1));
    survives(&"[".repeat(1 << 20));
    survives(&"{\"a\":".repeat(1 << 18));
    assert_eq!(publish(1 << 20).unwrap_err().id, Some(1));

    // A client can read the deepest data that can be published, in a batch.
    let mut new = NewEvent::on(Topic::parse("a").unwrap());
    new.data = Some(nested(32).into());
    assert_eq!(new.check(), Ok(()));
    let (text, event) = delivered(&new, Offset::FIRST, Timestamp::from_millis(1));
    let batch = |text: &str| format!("{{\"events\":{{\"subscription\":1,\"events\":[{text}]}}}}");
    let ServerMessage::Events(events) = decode_server_message(&batch(&text)).unwrap() else {
        panic!()
    };
    assert_eq!(events.events, [event]);
    assert!(decode_server_message(&batch(&nested(LEVELS_MAX))).is_err());
}

#[test]
fn the_id_of_a_bad_request_is_found_where_it_can_be() {
    for (text, id) in [
        (r#"{"id":7,"publish":{"topic":"a b"}}"#, Some(7)),
        (r#"{"publish":{"topic":"a b"},"id":7}"#, Some(7)),
        (r#"{"\u0069d":7,"nonsense":[{"id":8}]}"#, Some(7)),
        (r#"{"id":7,"publish":{"topic""#, Some(7)),
        (r#"{"publish":{"id":"8"},"id":7"#, Some(7)),
        (r#"{"publish":{"id":8}}"#, None),
        (r#"{"id":-1,"ping":{}}"#, None),
        (r#"{"id":4294967296,"ping":{}}"#, None),
        (r#"{"id":"7","ping":{}}"#, None),
        (r#"[7]"#, None),
        ("", None),
    ] {
        assert_eq!(decode_request(text).unwrap_err().id, id, "{text}");
    }
}

#[test]
fn an_error_never_repeats_a_whole_message() {
    let long = "x".repeat(1 << 20);
    for text in [
        format!("{{\"{long}\":1}}"),
        format!("{{\"id\":\"{long}\"}}"),
        format!("{{\"publish\":{{\"topic\":\"{long} \"}}}}"),
        format!("{{\"publish\":{{\"topic\":\"a\",\"headers\":{{\"{long}\":1}}}}}}"),
        format!("{{\"subscribe\":{{\"filters\":[\"a\"],\"start\":\"{long}\"}}}}"),
    ] {
        let error = decode_request(&text).unwrap_err().error;
        assert!(error.message.len() < 3_000, "{} bytes", error.message.len());
    }
}

#[test]
fn a_client_skips_what_it_does_not_know() {
    let reply = r#"{"reply":1,"later":[1],"published":{"offset":5,"id":"a","later":{}}}"#;
    assert!(matches!(decode_server_message(reply), Ok(ServerMessage::Reply(1, _))));
    let event = r#"{"offset":1,"topic":"a","id":"i","type":"t","source":"s",
        "time":"2026-11-21T05:16:00Z","later":true}"#;
    assert_eq!(decode_event(event).unwrap().time.to_string(), "2026-11-21T05:16:00.000Z");
    for (text, want) in [
        (r#"{"reply":1,"gap":{}}"#, "message: must have one of connected"),
        (r#"{"reply":1}"#, "message: must have one of"),
        (r#"{"later":{}}"#, "message: must have one of events"),
        (r#"{"pong":{},"superseded":{"subscription":1}}"#, "message: must have one of"),
        (r#"{"reply":1,"published":{"offset":0,"id":"a"}}"#, "published.offset: "),
        (
            r#"{"events":{"subscription":1,"events":[{"offset":1}]}}"#,
            "events.events[0].topic: is missing",
        ),
        (r#"{"events":{"subscription":1,"events":[],"attempts":{"0":2}}}"#, "events.attempts.0: "),
    ] {
        let message = decode_server_message(text).unwrap_err().message;
        assert!(message.starts_with(want), "{text}: {message}");
    }
}
