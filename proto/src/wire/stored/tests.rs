use proptest::{option, prelude::*};
use prost::Message;

use super::*;
use crate::{EventId, wire::samples};

/// The fields of `tidings.v1.Event` as another Protobuf implementation has them.
#[derive(Clone, PartialEq, Message)]
struct ProtoEvent {
    #[prost(uint64, tag = "1")]
    offset: u64,
    #[prost(string, tag = "2")]
    topic: String,
    #[prost(string, tag = "3")]
    id: String,
    #[prost(uint64, tag = "4")]
    time_ms: u64,
    #[prost(string, optional, tag = "5")]
    key: Option<String>,
    #[prost(string, tag = "6")]
    kind: String,
    #[prost(string, tag = "7")]
    source: String,
    #[prost(string, optional, tag = "8")]
    datacontenttype: Option<String>,
    #[prost(bytes = "bytes", optional, tag = "9")]
    data: Option<Bytes>,
    #[prost(int32, tag = "10")]
    priority: i32,
    #[prost(uint64, optional, tag = "11")]
    expires_ms: Option<u64>,
    #[prost(string, optional, tag = "12")]
    correlation: Option<String>,
    #[prost(btree_map = "string, string", tag = "13")]
    headers: std::collections::BTreeMap<String, String>,
}

fn body_of(draft: &Draft<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    encode(draft, &mut body);
    body
}

fn plain(event: &NewEvent) -> Vec<u8> {
    body_of(&Draft { event, made_id: None, subject: "alice", expires: None })
}

/// The Protobuf fields of a body: what stands behind its id and subject.
fn fields(body: &[u8]) -> &[u8] {
    let subject = 2 + usize::from(body[1]);
    &body[subject + 1 + usize::from(body[subject])..]
}

fn a_day() -> Timestamp {
    Timestamp::from_millis(86_400_000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_stored_comes_back(
        new in samples::new_event(),
        made_id in samples::uuid(),
        subject in samples::subject(),
        expires in option::of(samples::time()),
        (offset, time) in (samples::offset(), samples::time()),
    ) {
        let made_id = new.id.is_none().then_some(made_id);
        let bytes = body_of(&Draft { event: &new, made_id, subject: &subject, expires });
        let body = decode(&bytes).unwrap();
        let id = made_id.map(|id| id.to_string());
        let id = id.or(new.id.as_ref().map(|id| id.as_str().to_owned())).unwrap();
        prop_assert_eq!(&*body.id, &*id);
        prop_assert_eq!(body.id_given, new.id.is_some());
        prop_assert_eq!(body.subject, &subject);
        prop_assert_eq!(super::expires(&bytes), Ok(expires));
        let (topic, key) = (new.topic.as_str(), new.key.as_deref());
        let place = Place { offset, time, topic, key, priority: new.priority };
        let want = Event {
            offset,
            topic: new.topic.clone(),
            id,
            kind: new.kind.clone(),
            source: new.source.clone().unwrap_or(format!("urn:tidings:subject:{subject}")),
            time,
            datacontenttype: new.datacontenttype.clone(),
            data: new.data.clone(),
            key: new.key.clone(),
            priority: new.priority,
            expires,
            correlation: new.correlation.clone(),
            headers: new.headers.clone(),
        };
        prop_assert_eq!(event(&place, &body), want);
    }

    #[test]
    fn the_fields_are_those_of_the_proto_file(new in samples::new_event()) {
        let expires = Some(a_day());
        let bytes = body_of(&Draft { event: &new, made_id: None, subject: "bob", expires });
        let mut read = ProtoEvent::decode(fields(&bytes)).unwrap();
        prop_assert_eq!(&read.datacontenttype, &new.datacontenttype);
        prop_assert_eq!(&read.data, &new.data);
        prop_assert_eq!(read.expires_ms, Some(a_day().as_millis()));
        prop_assert_eq!(&read.correlation, &new.correlation);
        prop_assert_eq!(&read.headers, &new.headers);
        prop_assert_eq!(read.kind.as_str(), if new.kind == "message" { "" } else { &new.kind });
        let unsaid = new.source.as_deref().is_none_or(|source| source == "urn:tidings:subject:bob");
        prop_assert_eq!(&read.source, if unsaid { "" } else { new.source.as_deref().unwrap() });
        // What the record says is not said twice.
        prop_assert!(read.topic.is_empty() && read.id.is_empty() && read.key.is_none());
        prop_assert_eq!((read.offset, read.time_ms, read.priority), (0, 0, 0));
        // A body that another implementation wrote is read as well.
        read.headers.insert(String::new(), String::new());
        let mut other = vec![ID_GIVEN, 1, b'x', 0];
        read.encode(&mut other).unwrap();
        let headers: Vec<_> = decode(&other).unwrap().headers.collect();
        prop_assert_eq!(headers.len(), read.headers.len());
    }

    #[test]
    fn hostile_bytes_do_not_panic(
        new in samples::new_event(),
        changes in samples::changes(),
        noise in any::<Vec<u8>>(),
    ) {
        for bytes in [samples::damage(&plain(&new), &changes), noise] {
            if let Ok(body) = decode(&bytes) {
                let (offset, time) = (Offset::FIRST, a_day());
                let place = Place { offset, time, topic: "a", key: None, priority: Priority::Low };
                prop_assert_eq!(event(&place, &body).id, body.id.as_str());
            }
        }
    }

    #[test]
    fn a_cut_body_is_refused_or_lacks_whole_fields(new in samples::new_event()) {
        let bytes = plain(&new);
        for end in 0..bytes.len() {
            if let Ok(body) = decode(&bytes[..end]) {
                let data = body.data.is_none_or(|data| Some(data) == new.data.as_deref());
                prop_assert!(data && body.headers.count() <= new.headers.len());
            }
        }
    }
}

#[test]
fn the_bytes_never_change() {
    let mut new = NewEvent::on(Topic::parse("a").unwrap());
    new.data = Some(Bytes::from_static(b"{}"));
    new.headers.insert("k".to_owned(), "v".to_owned());
    let made_id = Some(Uuid::from_bytes([0xab; 16]));
    let expires = Some(Timestamp::from_millis(300));
    let bytes = body_of(&Draft { event: &new, made_id, subject: "al", expires });
    let mut want = vec![0b10, 16];
    want.extend_from_slice(&[0xab; 16]);
    want.extend_from_slice(b"\x02al\x4a\x02{}\x58\xac\x02\x6a\x06\x0a\x01k\x12\x01v");
    assert_eq!(bytes, want);
    assert_eq!(&*decode(&bytes).unwrap().id, "abababab-abab-abab-abab-abababababab");

    new =
        NewEvent { kind: "t".to_owned(), source: Some("s".to_owned()), ..NewEvent::on(new.topic) };
    new.id = Some(EventId::parse("i").unwrap());
    new.datacontenttype = Some("c".to_owned());
    new.correlation = Some("r".to_owned());
    assert_eq!(plain(&new), b"\x01\x01i\x05alice\x32\x01t\x3a\x01s\x42\x01c\x62\x01r");
}

#[test]
fn fields_of_a_later_version_are_skipped() {
    let new = NewEvent::on(Topic::parse("a").unwrap());
    let mut bytes = plain(&new);
    encode_key(99, WireType::Varint, &mut bytes);
    encode_varint(u64::MAX, &mut bytes);
    encode_key(98, WireType::ThirtyTwoBit, &mut bytes);
    bytes.extend_from_slice(&[1; 4]);
    encode_key(97, WireType::SixtyFourBit, &mut bytes);
    bytes.extend_from_slice(&[1; 8]);
    push_field(96, b"later", &mut bytes);
    push_header("k", "v", &mut bytes);
    push_field(96, b"later", &mut bytes);
    push_field(DATA, b"1", &mut bytes);
    push_header("l", "w", &mut bytes);
    let body = decode(&bytes).unwrap();
    assert_eq!(body.data, Some(&b"1"[..]));
    assert_eq!(body.headers.collect::<Vec<_>>(), [("k", "v"), ("l", "w")]);
}

#[test]
fn what_is_no_body_is_refused_with_what_is_wrong() {
    let refused = |bytes: &[u8]| decode(bytes).unwrap_err();
    assert_eq!(refused(b""), StoredError::Short { what: "flags" });
    assert_eq!(refused(b"\x04\x01i\x00"), StoredError::Flags(4));
    assert_eq!(refused(b"\x01\x05i"), StoredError::Short { what: "id" });
    assert_eq!(refused(b"\x02\x01i\x00"), StoredError::Short { what: "id" });
    assert_eq!(refused(b"\x01\x01i"), StoredError::Short { what: "subject" });
    assert_eq!(refused(b"\x01\x01i\x00\x4a\x05x"), StoredError::Short { what: "data" });
    assert_eq!(refused(b"\x01\x01i\x00\x48\x05"), StoredError::Type { what: "data" });
    assert_eq!(refused(b"\x01\x01i\x00\x5a\x01x"), StoredError::Type { what: "expires_ms" });
    assert!(matches!(refused(b"\x01\x01\xff\x00"), StoredError::Text { what: "id", .. }));
    assert!(matches!(
        refused(b"\x01\x01i\x00\x32\x01\xff"),
        StoredError::Text { what: "type", .. }
    ));
    assert!(matches!(refused(b"\x01\x01i\x00\x6a\x03\x0a\x01\xff"), StoredError::Text { .. }));
    assert!(matches!(refused(b"\x01\x01i\x00\xff"), StoredError::Field(_)));
    // A group that opens more groups than anybody would go through.
    let groups = [b"\x01\x01i\x00".to_vec(), b"\xa3\x06".repeat(100_000)].concat();
    assert!(matches!(refused(&groups), StoredError::Field(_)));
}

#[test]
fn a_subject_that_is_too_long_is_cut_between_characters() {
    let new = NewEvent::on(Topic::parse("a").unwrap());
    let subject = format!("{}ä", "a".repeat(254));
    let bytes = body_of(&Draft { event: &new, made_id: None, subject: &subject, expires: None });
    assert_eq!(decode(&bytes).unwrap().subject, "a".repeat(254));
    let subject = "a".repeat(255);
    let bytes = body_of(&Draft { event: &new, made_id: None, subject: &subject, expires: None });
    assert_eq!(decode(&bytes).unwrap().subject, subject);
}

#[test]
fn the_proto_file_has_the_numbers_that_are_written() {
    let file = include_str!("../../../tidings/v1/event.proto");
    let number = |name: &str| {
        let line = file.lines().find(|line| line.contains(&format!(" {name} = "))).unwrap();
        line.split_once("= ").unwrap().1.trim_end_matches(';').parse::<u32>().unwrap()
    };
    let names = [
        "offset",
        "topic",
        "id",
        "time_ms",
        "key",
        "type",
        "source",
        "datacontenttype",
        "data",
        "priority",
        "expires_ms",
        "correlation",
        "headers",
    ];
    assert_eq!(names.map(number), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    let written = [TYPE, SOURCE, DATACONTENTTYPE, DATA, EXPIRES_MS, CORRELATION, HEADERS];
    let of_file =
        ["type", "source", "datacontenttype", "data", "expires_ms", "correlation", "headers"];
    assert_eq!(of_file.map(number), written);
    for (name, bits) in [("NORMAL", 0), ("LOW", 1), ("HIGH", 2), ("URGENT", 3)] {
        assert_eq!(number(&format!("PRIORITY_{name}")), bits);
        let name = name.to_lowercase();
        assert_eq!(Priority::from_bits(bits.try_into().unwrap()).as_str(), name);
    }
}
