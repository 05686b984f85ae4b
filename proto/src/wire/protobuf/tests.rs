use std::collections::BTreeMap;

use proptest::{collection, option, prelude::*};
use prost::Message;

use super::*;
use crate::{
    Code,
    event::JSON,
    message::{Request, ServerMessage},
    wire::{
        EVENTS_MAX,
        round_trips::{PROTOBUF, bytes_of, delivered, survives},
        samples, stored,
    },
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Written by hand, and as prost writes it, except that it leaves out empty values in a map.
    #[test]
    fn prost_writes_the_same(
        mut new in collection::vec(samples::new_event(), 0..4),
        offset in samples::offset(),
        (after, deliveries) in (option::of(0..99_u64), option::of(2..9_u32)),
    ) {
        for new in &mut new {
            new.headers.retain(|_, value| !value.is_empty());
        }
        let time = Timestamp::from_millis(1);
        let encoded: Vec<_> =
            new.iter().map(|new| delivered(&PROTOBUF, new, offset, time).0).collect();
        for bytes in &encoded {
            let message = generated::Event::decode(&**bytes).unwrap();
            prop_assert_eq!(&message.encode_to_vec(), bytes);
        }
        let after = after.map(crate::Cursor::new);
        let attempts = Vec::from_iter(deliveries.map(|deliveries| (offset, deliveries)));
        let header =
            BatchHeader { subscription: 3, after, cursor: after, attempts: &attempts };
        let bytes =
            bytes_of(|out| encode_events(&header, encoded.iter().map(Vec::as_slice), out));
        let message = generated::ServerMessage::decode(&*bytes).unwrap();
        prop_assert_eq!(&message.encode_to_vec(), &bytes);
    }

    /// What the check lets through, prost can read: its own errors never reach a client.
    #[test]
    fn what_is_checked_can_be_decoded(
        request in samples::request(),
        changes in samples::changes(),
    ) {
        let valid = bytes_of(|out| encode_request(Some(5), &request, out));
        let damaged = samples::damage(&valid, &changes);
        if strict::check(&damaged, fields::REQUEST).is_ok() {
            let message = generated::Request::decode(&*damaged).unwrap();
            // And what it read is as good as what came.
            let again = message.encode_to_vec();
            prop_assert!(strict::check(&again, fields::REQUEST).is_ok());
            prop_assert_eq!(generated::Request::decode(&*again).unwrap(), message);
        }
    }
}

/// The fields of a length-delimited field.
fn within(tag: u32, fields: &[u8]) -> Vec<u8> {
    bytes_of(|out| stored::push_field(tag, fields, out))
}

fn refused(bytes: &[u8]) -> String {
    decode_request(bytes).unwrap_err().error.message
}

#[test]
fn an_event_without_content_type_is_json() {
    let publish = |data: &[u8]| {
        let fields = [within(2, b"a"), within(9, data)].concat();
        decode_request(&within(3, &fields))
    };
    let Request::Publish(read) = publish(b"[1]").unwrap().request else { panic!() };
    assert_eq!(read.event.datacontenttype.as_deref(), Some(JSON));
    let message = publish(b"[1").unwrap_err().error.message;
    assert!(message.starts_with("publish.data: "), "{message}");
    let deep = "[".repeat(33) + &"]".repeat(33);
    let message = publish(deep.as_bytes()).unwrap_err().error.message;
    assert_eq!(message, "publish.data: is nested deeper than 32 levels");
}

#[test]
fn an_error_names_the_field() {
    let publish = |fields: &[Vec<u8>]| within(3, &fields.concat());
    let topic = within(2, b"a");
    let text = |tag, text: &str| within(tag, text.as_bytes());
    let header = within(13, &[text(1, "n"), text(2, "v")].concat());
    for (bytes, want) in [
        (vec![], "message: has no request"),
        (vec![0x08], "id: is not Protobuf"),
        (vec![0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x62, 0], "id: is "),
        (vec![0x08, 1, 0x08, 1, 0x62, 0], "id: is given twice"),
        (vec![0x0a, 0, 0x62, 0], "id: is of another type"),
        (vec![0x62, 0, 0x12, 0], "connect: is given together with ping"),
        (vec![0x62, 0, 0x62, 0], "ping: is given twice"),
        (vec![0x62, 2, 0x08, 1], "ping.field 1: is no field"),
        (vec![0x62, 9], "ping: says it has 9 bytes, but 0 are left"),
        (vec![0x7b, 0x7c], "field 15: is no field"),
        (publish(&[]), "publish.topic: is missing"),
        (publish(&[text(2, "a b")]), "publish.topic: has the character"),
        (publish(&[topic.clone(), topic.clone()]), "publish.topic: is given twice"),
        (publish(&[topic.clone(), within(3, b"\xff")]), "publish.id: is not UTF-8"),
        (publish(&[topic.clone(), text(3, "")]), "publish.id: is empty"),
        (publish(&[topic.clone(), vec![0x50, 4]]), "publish.priority: is 4: at most 3"),
        (publish(&[topic.clone(), vec![0x58, 1, 0x70, 1]]), "publish.ttl_ms: is given together"),
        (publish(&[topic.clone(), header.clone(), header]), "publish.headers.n: is given twice"),
        (publish(&[topic.clone(), within(13, &[0x08, 1])]), "publish.headers: have an entry"),
        (publish(&[topic.clone(), within(13, b"")]), "publish.headers: is empty"),
        (
            publish(&[topic.clone(), [&[0x58][..], &[0xff; 9], &[1]].concat()]),
            "publish.expires_ms: is 18446744073709551615: give milliseconds",
        ),
        (publish(&[topic, vec![0x88, 0x01, 2]]), "publish.receipts: is 2: at most 1"),
        (vec![0x62, 0, 0x70, 1], "follows: is said of publishes only"),
        (within(4, &within(1, &text(2, "a.*"))), "publish_batch.events[0].topic: has a wildcard"),
        (
            within(4, &[within(1, &text(2, "a")), within(1, &[0x08, 1])].concat()),
            "publish_batch.events[1].field 1: is no field",
        ),
        (within(5, &[]), "subscribe.filters: must be 1 to 64"),
        (within(5, &[text(1, "a"), text(1, "b c")].concat()), "subscribe.filters[1]: has"),
        (within(5, &[text(1, "a"), vec![0x68, 3]].concat()), "subscribe.mode: is 3"),
        (
            within(5, &[text(1, "a"), within(2, &text(2, "x"))].concat()),
            "subscribe.after.log: is not the first eight",
        ),
        (
            within(5, &[text(1, "a"), within(23, &text(1, "{"))].concat()),
            "subscribe.presence.data: is not JSON",
        ),
        (within(6, &[0x08, 1]), "ack.offset: is missing"),
        (within(6, &[0x10, 1]), "ack.subscription: is missing"),
        (within(6, &[0x08, 1, 0x10, 0]), "ack.offset: is 0: give"),
        (within(6, &[0x08, 1, 0x10, 1, 0x1a, 0]), "ack.offsets: is given together with offset"),
        (within(6, &[0x08, 1, 0x1a, 4, 0x0a, 2, 1, 0]), "ack.offsets[1]: is 0"),
        (within(7, &[0x10, 1]), "nack.subscription: is missing"),
        (within(8, &[]), "unsubscribe.subscription: is missing"),
        (within(9, &[]), "refresh.token: is missing"),
        (within(10, &[]), "presence.topic: has an empty token"),
        (within(11, &[]), "receipts.offset: is 0"),
        (within(13, &[]), "cancel.offset: is 0"),
    ] {
        let message = refused(&bytes);
        assert!(message.starts_with(want), "{bytes:02x?}: {message}");
    }
}

#[test]
fn the_id_of_a_bad_request_is_found_where_it_can_be() {
    for (bytes, id) in [
        (&[0x08, 7][..], Some(7)),
        (&[0x1a, 0, 0x08, 7], Some(7)),
        (&[0x08, 7, 0x1a, 99], Some(7)),
        (&[0x08, 7, 0x08, 8], Some(7)),
        (&[0x1a, 2, 0x08, 7], None),
        (&[0x1a, 99, 0x08, 7], None),
        (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], None),
        (&[0x0a, 1, 7], None),
        (&[], None),
    ] {
        assert_eq!(decode_request(bytes).unwrap_err().id, id, "{bytes:02x?}");
    }
}

/// Lists of numbers may come packed or one by one; both are one list.
#[test]
fn numbers_may_be_packed_or_not() {
    for offsets in [&[0x12, 2, 5, 6][..], &[0x10, 5, 0x10, 6], &[0x10, 5, 0x12, 1, 6]] {
        let bytes = within(7, &[&[0x08, 1], offsets].concat());
        let Request::Nack(nack) = decode_request(&bytes).unwrap().request else { panic!() };
        assert_eq!(nack.offsets, [5, 6].map(|n| Offset::new(n).unwrap()));
    }
}

#[test]
fn a_batch_of_very_many_events_is_refused_before_it_is_read() {
    let batch = |events| within(4, &within(1, &within(2, b"a")).repeat(events));
    assert!(decode_request(&batch(EVENTS_MAX)).is_ok());
    let error = decode_request(&batch(EVENTS_MAX + 1)).unwrap_err().error;
    assert_eq!(error.code, Code::TooLarge);
    assert!(error.message.starts_with("publish_batch.events: are more than 4096"), "{error}");
}

#[test]
fn nesting_is_bounded_and_lengths_are_not_believed() {
    survives(&PROTOBUF, &[0x0b; 1 << 20]);
    survives(&PROTOBUF, &[0x0b; 1 << 10]);
    let mut nested = Vec::new();
    for _ in 0..1000 {
        nested = within(4, &nested);
    }
    survives(&PROTOBUF, &nested);
    for tag in 1..32 {
        let mut bytes = bytes_of(|out| {
            prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, out);
        });
        bytes.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        survives(&PROTOBUF, &bytes);
    }
}

#[test]
fn a_client_skips_what_it_does_not_know() {
    let later = [&[0x08, 1][..], &within(99, b"later"), &within(12, &[0x08, 1])].concat();
    let message = decode_server_message(&later).unwrap();
    assert_eq!(message, ServerMessage::Reply(1, crate::message::Reply::Pong {}));
    for (bytes, want) in [
        (within(99, b""), "message: is of no kind"),
        ([&[0x08, 1][..], &within(15, b"")].concat(), "message: has an id, but is no reply"),
        (within(3, b""), "message: has no id, but is a reply"),
        (within(13, b""), "error.code: is missing"),
        (within(2, &within(4, b"")), "events.events[0].offset: is 0"),
        ([&[0x08, 1][..], &within(4, b"")].concat(), "published.offset: is 0"),
    ] {
        let error = decode_server_message(&bytes).unwrap_err();
        assert!(error.message.starts_with(want), "{error}");
    }
}

/// The tables that a request is checked with are those of the schema.
#[test]
fn the_fields_are_those_of_the_schema() {
    use strict::{Field, Kind, Rule};

    let schema =
        protox::compile(["tidings/v1/protocol.proto"], [env!("CARGO_MANIFEST_DIR")]).unwrap();
    let messages: BTreeMap<String, _> = schema
        .file
        .iter()
        .flat_map(|file| &file.message_type)
        .map(|message| (format!(".tidings.v1.{}", message.name()), message))
        .collect();
    let mut todo = vec![(".tidings.v1.Request".to_owned(), fields::REQUEST)];
    let mut compared = 0;
    while let Some((name, table)) = todo.pop() {
        // A oneof stands together in the schema, whatever its numbers.
        let mut want: Vec<_> = messages[&name].field.iter().collect();
        want.sort_by_key(|field| field.number());
        assert_eq!(want.len(), table.len(), "{name}");
        for (want, have) in want.iter().zip(table) {
            let label = (want.number().cast_unsigned(), want.name());
            assert_eq!((have.tag, have.name), label, "{name}");
            let is_map = want.type_name().ends_with("HeadersEntry");
            // Type numbers of FieldDescriptorProto.
            let is_right = match (want.r#type() as i32, &have.kind) {
                (4, Kind::Number(u64::MAX)) | (9, Kind::Text) | (12, Kind::Bytes) => true,
                (13, &Kind::Number(max)) => max == u64::from(u32::MAX),
                (8, &Kind::Number(max)) => max == 1,
                (14, &Kind::Number(max)) => {
                    let words = schema.file.iter().flat_map(|file| &file.enum_type);
                    let mut named = words
                        .filter(|words| want.type_name().ends_with(&format!(".{}", words.name())));
                    max + 1 == named.next().unwrap().value.len() as u64
                }
                (11, Kind::Header) => is_map,
                (11, Kind::Message(inner)) => {
                    todo.push((want.type_name().to_owned(), inner));
                    !is_map
                }
                _ => false,
            };
            assert!(is_right, "{name}.{}", have.name);
            // A oneof that was made for `optional` alone is none.
            let group = want.oneof_index.filter(|_| !want.proto3_optional());
            let same = |other: &&Field| {
                let other = messages[&name].field.iter().find(|field| field.name() == other.name);
                let other = other.unwrap();
                !other.proto3_optional() && other.oneof_index == group
            };
            let is_right = match have.rule {
                Rule::Many(_) => want.label() as i32 == 3,
                Rule::Once => want.label() as i32 == 1 && group.is_none(),
                Rule::OneOf(tags) => {
                    let bits = table.iter().filter(same).map(|other| 1 << other.tag).sum::<u32>();
                    group.is_some() && tags == bits
                }
            };
            assert!(is_right, "the rule of {name}.{}", have.name);
            assert!(have.tag < 32);
            compared += 1;
        }
    }
    assert!(compared > 60, "{compared}");
}
