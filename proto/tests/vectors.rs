//! The golden vectors in `vectors/`: exact texts that every implementation of the protocol reads
//! and writes.
//!
//! - A file is a list of cases; its name says what they are, see [`check`].
//! - `json` is decoded and encoded again; that gives `reencoded`, or `json` itself where that is
//!   absent.
//! - `protobuf` and `msgpack` are the same message in those encodings, in hex: what `json` says is
//!   encoded to exactly these bytes, and they are decoded to the same. Every request, reply, push, event
//!   and batch has them. (Other writers may order the fields otherwise; what they all read is the same.)
//! - `field` is what the text of an error begins with, before the first colon.
//! - A case that was published once is never changed: clients in other languages read the same
//!   files.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of it is a test")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tidings_proto::{
    Event, Timestamp, Topic, WireError,
    message::{Events, Head, Push, Reply, Request, ServerMessage},
    wire::{BadRequest, BatchHeader, Incoming, cloudevents, json, msgpack, protobuf, stored},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    json: Option<String>,
    protobuf: Option<String>,
    msgpack: Option<String>,
    reencoded: Option<String>,
    code: Option<String>,
    field: Option<String>,
    id: Option<u32>,
    publish: Option<String>,
    event: Option<String>,
    topic: Option<String>,
    #[serde(default)]
    headers: Vec<(String, String)>,
    content_type: Option<String>,
    body: Option<String>,
    subject: Option<String>,
    made_id: Option<uuid::Uuid>,
    expires_ms: Option<u64>,
}

impl Case {
    fn json(&self) -> &str {
        self.json.as_deref().unwrap()
    }

    fn encoded(&self, write: impl FnOnce(&mut Vec<u8>)) {
        assert_eq!(text_of(write), self.reencoded.as_deref().unwrap_or(self.json()));
    }

    /// What it says is encoded to the bytes of the case, in every encoding.
    fn in_every_encoding(
        &self,
        check: impl Fn(&Codec, &[u8]),
        write: impl Fn(&Codec, &mut Vec<u8>),
    ) {
        for codec in CODECS {
            let mut out = Vec::new();
            write(codec, &mut out);
            assert_eq!((codec.show)(&out), (codec.want)(self).unwrap(), "{}", codec.name);
            check(codec, &out);
        }
    }

    fn topic(&self) -> Option<Topic> {
        self.topic.as_deref().map(|topic| Topic::parse(topic).unwrap())
    }

    fn refused<T>(&self, result: Result<T, WireError>) {
        let error = result.err().expect("it is refused");
        assert_eq!(Some(error.code.as_str()), self.code.as_deref());
        let field = error.message.split(": ").next();
        assert_eq!(field, self.field.as_deref(), "{}", error.message);
    }
}

/// An encoding of the whole protocol.
struct Codec {
    name: &'static str,
    /// How a case writes the bytes of a message.
    want: fn(&Case) -> Option<&str>,
    show: fn(&[u8]) -> String,
    encode_request: fn(Head, &Request, &mut Vec<u8>),
    decode_request: fn(&[u8]) -> Result<Incoming, BadRequest>,
    encode_reply: fn(Option<u32>, &Reply, &mut Vec<u8>),
    encode_push: fn(&Push, &mut Vec<u8>),
    encode_events: fn(&BatchHeader<'_>, &[Vec<u8>], &mut Vec<u8>),
    decode_server_message: fn(&[u8]) -> Result<ServerMessage, WireError>,
    write_event: fn(&Event, &mut Vec<u8>),
    decode_event: fn(&[u8]) -> Result<Event, WireError>,
}

const JSON: Codec = Codec {
    name: "json",
    want: |case| Some(case.reencoded.as_deref().unwrap_or(case.json())),
    show: |bytes| text(bytes).to_owned(),
    encode_request: json::encode_request,
    decode_request: |bytes| json::decode_request(text(bytes)),
    encode_reply: json::encode_reply,
    encode_push: json::encode_push,
    encode_events: |header, events, out| {
        json::encode_events(header, events.iter().map(Vec::as_slice), out);
    },
    decode_server_message: |bytes| json::decode_server_message(text(bytes)),
    write_event: json::write_event,
    decode_event: |bytes| json::decode_event(text(bytes)),
};

const PROTOBUF: Codec = Codec {
    name: "protobuf",
    want: |case| case.protobuf.as_deref(),
    show: hex,
    encode_request: protobuf::encode_request,
    decode_request: protobuf::decode_request,
    encode_reply: protobuf::encode_reply,
    encode_push: protobuf::encode_push,
    encode_events: |header, events, out| {
        protobuf::encode_events(header, events.iter().map(Vec::as_slice), out);
    },
    decode_server_message: protobuf::decode_server_message,
    write_event: protobuf::write_event,
    decode_event: protobuf::decode_event,
};

const MSGPACK: Codec = Codec {
    name: "msgpack",
    want: |case| case.msgpack.as_deref(),
    show: hex,
    encode_request: msgpack::encode_request,
    decode_request: msgpack::decode_request,
    encode_reply: msgpack::encode_reply,
    encode_push: msgpack::encode_push,
    encode_events: |header, events, out| {
        msgpack::encode_events(header, events.iter().map(Vec::as_slice), out);
    },
    decode_server_message: msgpack::decode_server_message,
    write_event: msgpack::write_event,
    decode_event: msgpack::decode_event,
};

const CODECS: &[Codec] = &[JSON, PROTOBUF, MSGPACK];

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn text_of(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

/// Checks a case of the file of this name.
fn check(file: &str, case: &Case) {
    if let Some(kind) = file.strip_prefix("request_") {
        let incoming = json::decode_request(case.json()).unwrap();
        case.in_every_encoding(
            |codec, bytes| assert_eq!((codec.decode_request)(bytes).unwrap(), incoming),
            |codec, out| (codec.encode_request)(incoming.head, &incoming.request, out),
        );
        return assert!(has(case, kind));
    }
    if let Some(kind) = file.strip_prefix("reply_").or(file.strip_prefix("push_")) {
        server_message(case);
        return assert!(has(case, kind));
    }
    match file {
        "event" => {
            let event = json::decode_event(case.json()).unwrap();
            case.in_every_encoding(
                |codec, bytes| assert_eq!((codec.decode_event)(bytes).unwrap(), event),
                |codec, out| (codec.write_event)(&event, out),
            );
        }
        "events" => server_message(case),
        "publish" => {
            let publish = json::decode_publish(case.json()).unwrap();
            case.encoded(|out| json::encode_publish(&publish, out));
        }
        "bad_request" => {
            bad_request(case, &JSON, case.json().as_bytes());
            if let Some(msgpack) = &case.msgpack {
                bad_request(case, &MSGPACK, &unhex(msgpack));
            }
        }
        "bad_protobuf_request" => {
            bad_request(case, &PROTOBUF, &unhex(case.protobuf.as_deref().unwrap()));
        }
        "bad_msgpack_request" => {
            bad_request(case, &MSGPACK, &unhex(case.msgpack.as_deref().unwrap()));
        }
        "bad_publish" => case.refused(json::decode_publishes(case.json())),
        "bad_server_message" => case.refused(json::decode_server_message(case.json())),
        "cloudevent_structured" => {
            let publish = cloudevents::decode_structured(case.json(), case.topic()).unwrap();
            published(case, &publish);
        }
        "cloudevent_binary" => binary(case),
        "cloudevent_written" => {
            let event = json::decode_event(case.event.as_deref().unwrap()).unwrap();
            case.encoded(|out| cloudevents::write_cloudevent(&event, out));
        }
        "stored" => body(case),
        _ => panic!("nothing reads vectors/{file}.json"),
    }
}

/// A reply, a push or a batch of events.
fn server_message(case: &Case) {
    let message = json::decode_server_message(case.json()).unwrap();
    case.in_every_encoding(
        |codec, bytes| assert_eq!((codec.decode_server_message)(bytes).unwrap(), message),
        |codec, out| match &message {
            ServerMessage::Reply(id, reply) => (codec.encode_reply)(Some(*id), reply, out),
            ServerMessage::Push(push) => (codec.encode_push)(push, out),
            ServerMessage::Events(batch) => encode_batch(codec, batch, out),
        },
    );
}

fn bad_request(case: &Case, codec: &Codec, bytes: &[u8]) {
    let bad = (codec.decode_request)(bytes).unwrap_err();
    assert_eq!(bad.id, case.id);
    case.refused(Err::<(), _>(bad.error));
}

/// Whether the message has the attribute that gives its file the name.
fn has(case: &Case, kind: &str) -> bool {
    serde_json::from_str::<BTreeMap<String, Value>>(case.json()).unwrap().contains_key(kind)
}

fn published(case: &Case, publish: &tidings_proto::message::Publish) {
    let text = text_of(|out| json::encode_publish(publish, out));
    assert_eq!(Some(text), case.publish);
}

fn encode_batch(codec: &Codec, batch: &Events, out: &mut Vec<u8>) {
    let encode = |event| {
        let mut bytes = Vec::new();
        (codec.write_event)(event, &mut bytes);
        bytes
    };
    let header = BatchHeader {
        subscription: batch.subscription,
        after: batch.after,
        cursor: batch.cursor,
        attempts: &batch.attempts,
    };
    (codec.encode_events)(&header, &batch.events.iter().map(encode).collect::<Vec<_>>(), out);
}

fn binary(case: &Case) {
    let headers = case.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let body = Bytes::from(case.body.clone().unwrap());
    let content_type = case.content_type.as_deref();
    let topic = case.topic().unwrap();
    published(case, &cloudevents::binary_attributes(topic, headers, content_type, body).unwrap());
}

/// The bytes of a stored body, and the event that they and their place make.
fn body(case: &Case) {
    let new = json::decode_publish(case.publish.as_deref().unwrap()).unwrap().event;
    let subject = case.subject.as_deref().unwrap();
    let expires = case.expires_ms.map(Timestamp::from_millis);
    let draft = stored::Draft { event: &new, made_id: case.made_id, subject, expires };
    let mut bytes = Vec::new();
    stored::encode(&draft, &mut bytes);
    assert_eq!(Some(hex(&bytes)), case.body);

    let want = case.event.as_deref().unwrap();
    let event = json::decode_event(want).unwrap();
    let place = stored::Place {
        offset: event.offset,
        time: event.time,
        topic: event.topic.as_str(),
        key: event.key.as_deref(),
        priority: event.priority,
    };
    let body = stored::decode(&bytes).unwrap();
    assert_eq!(text_of(|out| json::encode_event(&place, &body, out)), want);
    assert_eq!(stored::event(&place, &body), event);
}

/// What there has to be a file for: every request, reply and push, and the rest.
const FILES: &[&str] = &[
    "bad_msgpack_request",
    "bad_protobuf_request",
    "bad_publish",
    "bad_request",
    "bad_server_message",
    "cloudevent_binary",
    "cloudevent_structured",
    "cloudevent_written",
    "event",
    "events",
    "publish",
    "push_acked",
    "push_caught_up",
    "push_error",
    "push_gap",
    "push_goodbye",
    "push_pong",
    "push_superseded",
    "push_token_expiring",
    "reply_acked",
    "reply_cancelled",
    "reply_connected",
    "reply_error",
    "reply_nacked",
    "reply_pong",
    "reply_presence",
    "reply_published",
    "reply_published_batch",
    "reply_receipts",
    "reply_refreshed",
    "reply_scheduled",
    "reply_subscribed",
    "reply_unsubscribed",
    "request_ack",
    "request_cancel",
    "request_connect",
    "request_nack",
    "request_ping",
    "request_presence",
    "request_publish",
    "request_publish_batch",
    "request_receipts",
    "request_refresh",
    "request_subscribe",
    "request_unsubscribe",
    "stored",
];

#[test]
#[expect(clippy::disallowed_methods, reason = "the vectors are files of this crate")]
fn every_vector_is_read_and_written_as_it_says() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors");
    let (mut found, mut failed) = (BTreeSet::new(), Vec::new());
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
        // Of the client's, which has the cipher: its tests read it.
        if file == "sealed" {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
        assert!(!cases.is_empty(), "{file}");
        for case in &cases {
            if std::panic::catch_unwind(|| check(&file, case)).is_err() {
                failed.push(format!("vectors/{file}.json: {}", case.name));
            }
        }
        found.insert(file);
    }
    assert!(failed.is_empty(), "{failed:#?}");
    let want: BTreeSet<String> = FILES.iter().map(|&file| file.to_owned()).collect();
    assert_eq!(found, want);
}
