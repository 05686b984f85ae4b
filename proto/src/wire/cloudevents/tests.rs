use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    Event, Offset, Priority, Timestamp, Topic, WireError, event::Expiry, message::Publish,
    wire::samples,
};

type Headers<'a> = &'a [(&'a str, &'a str)];

fn binary(
    headers: Headers<'_>,
    kind: Option<&str>,
    body: &'static [u8],
) -> Result<Publish, WireError> {
    let topic = Topic::parse("tasks.42").unwrap();
    binary_attributes(topic, headers.iter().copied(), kind, Bytes::from_static(body))
}

fn header<'a>(publish: &'a Publish, name: &str) -> Option<&'a str> {
    publish.event.headers.get(name).map(String::as_str)
}

#[test]
fn every_header_finds_its_attribute() {
    let publish = binary(
        &[
            ("CE-SpecVersion", "1.0"),
            ("ce-id", "i-1"),
            ("Idempotency-Key", "\"i-1\""),
            ("ce-type", "task.progress"),
            ("ce-source", "/tasks"),
            ("ce-partitionkey", "Euro%20%E2%82%AC%20%f0%9f%98%80"),
            ("ce-time", "2018-04-05T03:56:24Z"),
            ("ce-subject", "\"a \\\"b\\\" c\""),
            ("ce-dataschema", "http://x/%"),
            ("ce-traceparent", "00-1"),
            ("Tidings-Priority", "urgent"),
            ("Tidings-Ttl-Ms", "60000"),
            ("Tidings-Correlation", "req-9"),
            ("Tidings-Expect-Last", "0"),
            ("Tidings-Deliver-At", "2026-11-21T06:00:00Z"),
            ("Tidings-Receipts", "true"),
            ("Tidings-Log", "9f3c21d0"),
            ("Tidings-Cursor", "%ff"),
            ("Authorization", "Bearer %ff"),
        ],
        Some("application/json; charset=utf-8"),
        b"{\"done\":7}",
    );
    let publish = publish.unwrap();
    let event = &publish.event;
    assert_eq!(event.topic.as_str(), "tasks.42");
    assert_eq!(event.id.as_ref().map(|id| id.as_str()), Some("i-1"));
    assert_eq!((event.kind.as_str(), event.source.as_deref()), ("task.progress", Some("/tasks")));
    assert_eq!(event.key.as_deref(), Some("Euro € 😀"));
    assert_eq!(event.datacontenttype.as_deref(), Some("application/json; charset=utf-8"));
    assert_eq!(event.data.as_deref(), Some(&b"{\"done\":7}"[..]));
    assert_eq!((event.priority, event.expires), (Priority::Urgent, Some(Expiry::TtlMs(60_000))));
    assert_eq!(event.correlation.as_deref(), Some("req-9"));
    assert_eq!(header(&publish, "time"), Some("2018-04-05T03:56:24Z"));
    assert_eq!(header(&publish, "subject"), Some("a \"b\" c"));
    assert_eq!(header(&publish, "dataschema"), Some("http://x/%"));
    assert_eq!(header(&publish, "traceparent"), Some("00-1"));
    assert_eq!(event.headers.len(), 4);
    assert_eq!((publish.expect_last, publish.receipts), (Some(0), true));
    assert_eq!(publish.deliver_at.unwrap().to_string(), "2026-11-21T06:00:00.000Z");
}

#[test]
fn an_id_may_come_as_idempotency_key_and_a_key_as_ours() {
    let headers = [("idempotency-key", "50%25"), ("tidings-key", "k%25"), ("tidings-type", "t")];
    let event = binary(&headers, None, b"\xff").unwrap().event;
    assert_eq!(event.id.unwrap().as_str(), "50%25");
    assert_eq!((event.key.as_deref(), event.kind.as_str()), (Some("k%"), "t"));
    assert_eq!(event.datacontenttype.as_deref(), Some("application/octet-stream"));
    let expires = binary(&[("tidings-expires", "1970-01-01T00:00:01Z")], None, b"").unwrap().event;
    assert_eq!(expires.expires, Some(Expiry::At(Timestamp::from_millis(1000))));
    assert_eq!((expires.data, expires.datacontenttype), (None, None));
}

#[test]
fn a_bad_header_is_named() {
    let cases: &[(Headers<'_>, &str)] = &[
        (&[("Ce-Specversion", "0.3")], "ce-specversion: is \"0.3\": it must be 1.0"),
        (&[("ce-id", "")], "id: is empty"),
        (&[("ce-id", "a"), ("CE-ID", "a")], "ce-id: is given twice"),
        (&[("ce-id", "a"), ("idempotency-key", "b")], "idempotency-key: is not what ce-id says"),
        (
            &[("tidings-key", "a"), ("ce-partitionkey", "b")],
            "ce-partitionkey: is not what tidings-key",
        ),
        (&[("ce-x", "a"), ("ce-x", "a")], "ce-x: is given twice"),
        (&[("ce-trace_id", "a")], "ce-trace_id: is no name"),
        (&[("ce-", "a")], "ce-: is no name"),
        (&[("ce-datacontenttype", "text/plain")], "ce-datacontenttype: is what Content-Type says"),
        (&[("ce-source", "%C0%A0")], "ce-source: is not UTF-8"),
        (&[("ce-type", "%00")], "type: has a control character"),
        (&[("tidings-prority", "low")], "tidings-prority: is not known"),
        (&[("tidings-priority", "top")], "tidings-priority: is \"top\": it must be low"),
        (&[("tidings-ttl-ms", "+1")], "tidings-ttl-ms: is \"+1\": it must be a whole number"),
        (&[("tidings-ttl-ms", "")], "tidings-ttl-ms: is \"\""),
        (&[("tidings-expires", "soon")], "tidings-expires: is \"soon\""),
        (
            &[("tidings-expires", "1970-01-01T00:00:01Z"), ("tidings-ttl-ms", "1")],
            "tidings-expires: is given together with ttl_ms",
        ),
        (&[("tidings-expect-last", "-1")], "tidings-expect-last: is \"-1\""),
        (&[("tidings-deliver-at", "1")], "tidings-deliver-at: is \"1\""),
        (&[("tidings-receipts", "yes")], "tidings-receipts: is \"yes\": it must be true or false"),
    ];
    for (headers, want) in cases {
        let message = binary(headers, None, b"").unwrap_err().message;
        assert!(message.starts_with(want), "{headers:?}: {message}");
    }
    let message = binary(&[], Some("application/json"), b"{a}").unwrap_err().message;
    assert!(message.starts_with("data: is not JSON"), "{message}");
    let message = binary(&[], Some("text/plain"), b"\xff").unwrap_err().message;
    assert!(message.starts_with("data: is not UTF-8"), "{message}");
}

#[test]
fn a_structured_event_is_read() {
    let text = r#"{"specversion":"1.0","id":"i","source":"s","type":"t","subject":"tasks.42",
        "time":"2018-04-05T03:56:24Z","data":{"z" : 1.0e5},"partitionkey":"k","traceparent":"00-1",
        "sampledrate":3,"flag":true,"gone":null}"#;
    let publish = decode_structured(text, None).unwrap();
    assert_eq!(publish.event.topic.as_str(), "tasks.42");
    assert_eq!(publish.event.id.as_ref().unwrap().as_str(), "i");
    assert_eq!(publish.event.key.as_deref(), Some("k"));
    assert_eq!(publish.event.data.as_deref(), Some(&b"{\"z\" : 1.0e5}"[..]));
    assert_eq!(publish.event.datacontenttype.as_deref(), Some("application/json"));
    assert_eq!(
        (header(&publish, "sampledrate"), header(&publish, "flag")),
        (Some("3"), Some("true"))
    );
    assert_eq!((header(&publish, "gone"), header(&publish, "subject")), (None, None));
    assert!(header(&publish, "time").is_some() && publish.event.headers.len() == 4);
    // With a topic of its own, the subject is one of the publisher's attributes.
    let publish = decode_structured(text, Some(Topic::parse("a").unwrap())).unwrap();
    assert_eq!(
        (publish.event.topic.as_str(), header(&publish, "subject")),
        ("a", Some("tasks.42"))
    );
}

#[test]
fn structured_data_comes_in_three_forms() {
    for (members, kind, data) in [
        (r#""data":"1""#, "application/json", &b"\"1\""[..]),
        (r#""data":"\u0041","datacontenttype":"text/plain""#, "text/plain", b"A"),
        (r#""data":"<a/>","datacontenttype":"application/xml""#, "application/xml", b"<a/>"),
        (r#""data_base64":"/w==""#, "application/octet-stream", b"\xff"),
        (r#""data_base64":"MQ==","datacontenttype":"application/json""#, "application/json", b"1"),
    ] {
        let text = format!("{{\"specversion\":\"1.0\",\"subject\":\"a\",{members}}}");
        let event = decode_structured(&text, None).unwrap().event;
        assert_eq!(event.datacontenttype.as_deref(), Some(kind), "{members}");
        assert_eq!(event.data.as_deref(), Some(data), "{members}");
    }
}

#[test]
fn a_bad_structured_event_is_named() {
    for (text, want) in [
        ("{}", "specversion: is missing: it must be 1.0"),
        (r#"{"subject":"a","specversion":null}"#, "specversion: is missing"),
        (r#"{"specversion":"1.0"}"#, "subject: is missing"),
        (r#"{"specversion":"1.0","subject":"a b"}"#, "subject: \"a b\" has the character"),
        (r#"{"subject":"a","specversion":"0.3"}"#, "specversion: must be 1.0"),
        (r#"{"specversion":"1.0","subject":"a","id":5}"#, "id: must be a string"),
        (r#"{"specversion":"1.0","subject":"a","id":"i","id":"i"}"#, "id: is given twice"),
        (
            r#"{"specversion":"1.0","subject":"a","priority":"top"}"#,
            "priority: must be low, normal, high or urgent",
        ),
        (r#"{"specversion":"1.0","subject":"a","priority":5}"#, "priority: must be a string"),
        (r#"{"specversion":"1.0","subject":"a","expires":"soon"}"#, "expires: must be a time"),
        (
            r#"{"specversion":"1.0","subject":"a","x":[1]}"#,
            "x: must be a string, a number or a boolean",
        ),
        (r#"{"specversion":"1.0","subject":"a","trace_id":"1"}"#, "trace_id: is no name"),
        (
            r#"{"specversion":"1.0","subject":"a","data":1,"data_base64":"MQ=="}"#,
            "data: is given together",
        ),
        (
            r#"{"specversion":"1.0","subject":"a","data":1,"datacontenttype":"text/plain"}"#,
            "data: must be a string",
        ),
        (
            r#"{"specversion":"1.0","subject":"a","data":1,"datacontenttype":"image/png"}"#,
            "data: must be a string",
        ),
        (r#"{"specversion":"1.0","subject":"a","data_base64":"?"}"#, "data_base64: is not base64"),
        (
            r#"{"specversion":"1.0","subject":"a","data_base64":"ew==","datacontenttype":"a/b+json"}"#,
            "data: is not JSON",
        ),
        ("[]", "message: invalid type: sequence, expected an object"),
    ] {
        let message = decode_structured(text, None).unwrap_err().message;
        assert!(message.starts_with(want), "{text}: {message}");
    }
    let batch =
        r#"[{"specversion":"1.0","subject":"a"},{"specversion":"1.0","subject":"b","data":}]"#;
    assert!(decode_batch(batch, None).unwrap_err().message.starts_with("message: is not JSON"));
    let batch = r#"[{"specversion":"1.0","subject":"a"},{"specversion":"1.0","subject":"."}]"#;
    assert!(decode_batch(batch, None).unwrap_err().message.starts_with("[1].subject: "));
    assert_eq!(decode_batch("[]", None).unwrap(), []);
    assert_eq!(
        decode_batch(
            r#"[{"specversion":"1.0","subject":"a"},{"specversion":"1.0","subject":"b"}]"#,
            None
        )
        .unwrap()
        .len(),
        2
    );
}

#[test]
fn a_written_event_has_its_place_and_no_name_twice() {
    let event = Event {
        offset: Offset::new(57).unwrap(),
        topic: Topic::parse("tasks.42").unwrap(),
        id: "i".to_owned(),
        kind: "t".to_owned(),
        source: "s".to_owned(),
        time: Timestamp::from_millis(1),
        datacontenttype: Some("application/json".to_owned()),
        data: Some(Bytes::from_static(b"{\"z\" : 1.0e5}")),
        key: Some("k".to_owned()),
        priority: Priority::High,
        expires: Some(Timestamp::from_millis(2)),
        correlation: Some("c".to_owned()),
        headers: [
            ("time", "x"),
            ("priority", "x"),
            ("data", "x"),
            ("traceparent", "00"),
            ("reply-to", "x"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
    };
    let mut out = Vec::new();
    write_cloudevent(&event, &mut out);
    let want = concat!(
        r#"{"specversion":"1.0","id":"i","source":"s","type":"t","subject":"tasks.42","#,
        r#""time":"1970-01-01T00:00:00.001Z","datacontenttype":"application/json","#,
        r#""data":{"z" : 1.0e5},"sequence":"57","partitionkey":"k","priority":"high","#,
        r#""expires":"1970-01-01T00:00:00.002Z","correlation":"c","traceparent":"00"}"#,
    );
    assert_eq!(String::from_utf8(out).unwrap(), want);
}

proptest! {
    /// Whatever the header is, it is an attribute as it was, or refused.
    #[test]
    fn no_header_panics(
        name in "(ce-|tidings-|x-)[ -~]{0,9}",
        value in "\\PC{0,20}(%[0-9a-zA-Z]{0,2}){0,3}",
    ) {
        if let Err(error) = binary(&[(&name, &value)], None, b"") {
            prop_assert!(error.message.contains(": "));
        }
    }

    #[test]
    fn percent_encoding_is_undone_once(text in "\\PC{1,20}") {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let publish = binary(&[("ce-correlationid", &encoded)], None, b"").unwrap();
        prop_assert_eq!(header(&publish, "correlationid"), Some(text.as_str()));
    }

    #[test]
    fn a_written_event_can_be_published_again(new in samples::new_event()) {
        let event = Event {
            offset: Offset::FIRST,
            topic: new.topic.clone(),
            id: "i".to_owned(),
            kind: new.kind.clone(),
            source: "s".to_owned(),
            time: Timestamp::from_millis(1),
            datacontenttype: new.datacontenttype.clone(),
            data: new.data.clone(),
            key: new.key.clone(),
            priority: new.priority,
            expires: Some(Timestamp::from_millis(2)),
            correlation: new.correlation.clone(),
            headers: new.headers.clone(),
        };
        let mut out = Vec::new();
        write_cloudevent(&event, &mut out);
        let again = decode_structured(&String::from_utf8(out).unwrap(), None).unwrap().event;
        // A CloudEvent cannot tell data that is `null` from none.
        if event.data.as_deref() != Some(b"null") {
            prop_assert_eq!(again.data, event.data);
        }
        prop_assert_eq!((again.topic, again.kind, again.key), (event.topic, event.kind, event.key));
        prop_assert_eq!(again.datacontenttype, event.datacontenttype);
        prop_assert_eq!(again.priority, event.priority);
        prop_assert_eq!(again.expires, event.expires.map(Expiry::At));
        prop_assert_eq!(again.correlation, event.correlation);
        prop_assert_eq!(again.headers.get("sequence").map(String::as_str), Some("1"));
    }
}
