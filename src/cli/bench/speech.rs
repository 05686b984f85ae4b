//! The three encodings as the load generator speaks them: requests from templates, answers and events counted
//! without being decoded.

use std::io::Write;

use anyhow::{Context, bail};
use tidings_proto::{
    message::{Push, Reply, Request, ServerMessage},
    wire::{json, msgpack, protobuf},
};

use super::socket::{BINARY, TEXT, frame_of};
use crate::client;

/// The byte before a message in a binary frame: it is not compressed.
const PLAIN: u8 = 0;

/// How the messages of a socket are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Speech {
    /// JSON.
    Json,
    /// MessagePack.
    Msgpack,
    /// Protobuf.
    Protobuf,
}

impl Speech {
    /// As it is given on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Speech::Json => "json",
            Speech::Msgpack => "msgpack",
            Speech::Protobuf => "protobuf",
        }
    }

    pub(super) fn subprotocol(self) -> &'static str {
        match self {
            Speech::Json => "tidings.v1.json",
            Speech::Msgpack => "tidings.v1.msgpack",
            Speech::Protobuf => "tidings.v1.protobuf",
        }
    }

    /// The first byte of a frame, and what stands before the message in it.
    fn framing(self) -> (u8, &'static [u8]) {
        match self {
            Speech::Json => (TEXT, &[]),
            Speech::Msgpack | Speech::Protobuf => (BINARY, &[PLAIN]),
        }
    }

    /// Appends the frame of a request with this id.
    pub(super) fn write_request(self, id: u32, request: &Request, out: &mut Vec<u8>) {
        let (first, before) = self.framing();
        let mut message = before.to_vec();
        match self {
            Speech::Json => json::encode_request(Some(id), request, &mut message),
            Speech::Msgpack => msgpack::encode_request(Some(id), request, &mut message),
            Speech::Protobuf => protobuf::encode_request(Some(id), request, &mut message),
        }
        frame_of(first, &message, out);
    }

    /// Appends the frame of a publish; `message` is where it is put together. The data is a JSON string of what
    /// `stamp` and `filler` hold, in every encoding: the log has the same event.
    pub(super) fn write_publish(
        self,
        publish: &Publish<'_>,
        message: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        let (first, before) = self.framing();
        message.clear();
        message.extend_from_slice(before);
        match self {
            Speech::Json => publish.json(message),
            Speech::Msgpack => publish.msgpack(message),
            Speech::Protobuf => publish.protobuf(message),
        }
        frame_of(first, message, out);
    }

    /// What the broker said, decoded.
    pub(super) fn decode(self, payload: &[u8]) -> anyhow::Result<ServerMessage> {
        let message = payload.get(1..).unwrap_or_default();
        Ok(match self {
            Speech::Json => {
                let text = std::str::from_utf8(payload).context("the broker sent no UTF-8")?;
                json::decode_server_message(text)?
            }
            Speech::Msgpack => msgpack::decode_server_message(message)?,
            Speech::Protobuf => protobuf::decode_server_message(message)?,
        })
    }

    /// Whether a message says that one event is published.
    ///
    /// # Errors
    /// When it says that one is not.
    pub(super) fn is_published(self, payload: &[u8]) -> anyhow::Result<bool> {
        // It stands right behind the id.
        let begin = payload.get(..PUBLISHED_WITHIN).unwrap_or(payload);
        let is_so = match self {
            Speech::Json => memchr::memmem::find(begin, b"\"published\"").is_some(),
            Speech::Msgpack => memchr::memmem::find(begin, b"\xa9published").is_some(),
            Speech::Protobuf => is_published(payload.get(1..).unwrap_or_default()),
        };
        if is_so {
            return Ok(true);
        }
        match self.decode(payload)? {
            ServerMessage::Reply(_, Reply::Error(error)) => {
                Err(client::Error::Refused(Box::new(error)).into())
            }
            ServerMessage::Reply(_, other) => bail!("not a publish's answer: {other:?}"),
            _ => Ok(false),
        }
    }

    /// How many events a message holds; `None` when it says that all have come.
    pub(super) fn events_or_end(self, payload: &[u8]) -> anyhow::Result<Option<u64>> {
        let message = payload.get(1..).unwrap_or_default();
        match self {
            Speech::Json if payload.starts_with(JSON_BATCH) => return Ok(Some(events_in(payload))),
            Speech::Msgpack if message.starts_with(PACKED_BATCH) => {
                return Ok(Some(packed_events(message)));
            }
            // A batch is a message whose only field is 2; its events are that one's fields 4.
            Speech::Protobuf if message.first() == Some(&BATCH) => {
                return Ok(Some(batch_events(payload)));
            }
            _ => {}
        }
        match self.decode(payload)? {
            ServerMessage::Push(Push::CaughtUp { .. }) => Ok(None),
            ServerMessage::Reply(_, Reply::Error(error)) => {
                Err(client::Error::Refused(Box::new(error)).into())
            }
            _ => Ok(Some(0)),
        }
    }
}

/// A publish request.
pub(super) struct Publish<'a> {
    /// Its number.
    pub(super) id: u32,
    /// Its topic.
    pub(super) topic: &'a str,
    /// What its data begins with.
    pub(super) stamp: &'a str,
    /// The rest of the data.
    pub(super) filler: &'a str,
}

impl Publish<'_> {
    fn json(&self, out: &mut Vec<u8>) {
        let Publish { id, topic, stamp, filler } = self;
        // Writing to memory does not fail.
        let _ = write!(out, "{{\"id\":{id},\"publish\":{{\"topic\":\"");
        for piece in [topic, "\",\"data\":\"", stamp, filler, "\"}}"] {
            out.extend_from_slice(piece.as_bytes());
        }
    }

    fn msgpack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\x82\xa2id\xce");
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(b"\xa7publish\x82\xa5topic\xda");
        // A topic is shorter than that; the broker would refuse a longer one.
        out.extend_from_slice(&u16::try_from(self.topic.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(self.topic.as_bytes());
        out.extend_from_slice(b"\xa4data\xc6");
        out.extend_from_slice(&u32::try_from(self.data_len()).unwrap_or(u32::MAX).to_be_bytes());
        self.data(out);
    }

    fn protobuf(&self, out: &mut Vec<u8>) {
        const ID: u8 = 0x08;
        const PUBLISH: u8 = 0x1a;
        const TOPIC: u8 = 0x12;
        const DATA: u8 = 0x4a;
        let (topic, data) = (self.topic.len() as u64, self.data_len() as u64);
        out.push(ID);
        push_varint(self.id.into(), out);
        out.push(PUBLISH);
        push_varint(2 + varint_len(topic) + topic + varint_len(data) + data, out);
        out.push(TOPIC);
        push_varint(topic, out);
        out.extend_from_slice(self.topic.as_bytes());
        out.push(DATA);
        push_varint(data, out);
        self.data(out);
    }

    fn data_len(&self) -> usize {
        self.stamp.len() + self.filler.len() + 2
    }

    fn data(&self, out: &mut Vec<u8>) {
        for piece in ["\"", self.stamp, self.filler, "\""] {
            out.extend_from_slice(piece.as_bytes());
        }
    }
}

/// Within how many bytes an answer says of what it is one.
const PUBLISHED_WITHIN: usize = 48;

/// How a batch in JSON begins.
const JSON_BATCH: &[u8] = b"{\"events\":";

/// How many events a frame of events in JSON holds.
fn events_in(payload: &[u8]) -> u64 {
    // Every event begins so, and within a string the quotes would be escaped.
    memchr::memmem::find_iter(payload, b"{\"offset\":").count() as u64
}

/// How a batch in MessagePack begins: a map of one attribute, `events`.
const PACKED_BATCH: &[u8] = b"\x81\xa6events";
/// What stands before the number of events in it: the attribute `events` of the batch, a long list.
const PACKED_EVENTS: &[u8] = b"\xa6events\xdd";

/// How many events a batch in MessagePack holds, as it says itself.
fn packed_events(message: &[u8]) -> u64 {
    let at = memchr::memmem::find(message, PACKED_EVENTS);
    let number = at.and_then(|at| message.get(at + PACKED_EVENTS.len()..)?.first_chunk());
    number.map_or(0, |number| u32::from_be_bytes(*number).into())
}

/// The key of `ServerMessage.events`: field 2, of a length.
const BATCH: u8 = 0x12;
/// The key of `Events.events`: field 4, of a length.
const EVENT: u64 = 0x22;
/// The key of `ServerMessage.reply`: field 1, a number.
const REPLY: u8 = 0x08;
/// The key of `ServerMessage.published`: field 4, of a length.
const PUBLISHED: u8 = 0x22;

/// Whether a message in Protobuf answers a request with `published`.
fn is_published(message: &[u8]) -> bool {
    let Some((&REPLY, mut rest)) = message.split_first() else { return false };
    varint(&mut rest).is_some() && rest.first() == Some(&PUBLISHED)
}

/// How many events a batch in Protobuf holds, gone through field by field.
fn batch_events(frame: &[u8]) -> u64 {
    let mut rest = frame.get(2..).unwrap_or_default();
    let mut count = 0;
    // The length of the batch.
    varint(&mut rest);
    while let Some(key) = varint(&mut rest) {
        let value = varint(&mut rest).unwrap_or_default();
        if key & 7 == 2 {
            rest = usize::try_from(value).ok().and_then(|at| rest.get(at..)).unwrap_or_default();
            count += u64::from(key == EVENT);
        }
    }
    count
}

/// Takes a number off the front (Protobuf's base-128 varint).
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

pub(super) fn push_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

/// How many bytes a number takes.
fn varint_len(number: u64) -> u64 {
    u64::from((70 - (number | 1).leading_zeros()) / 7)
}

#[cfg(test)]
mod tests {
    use tidings_proto::{Code, Cursor, WireError, message::Published, wire::BatchHeader};

    use super::*;

    const ALL: [Speech; 3] = [Speech::Json, Speech::Msgpack, Speech::Protobuf];

    fn decoded(speech: Speech, message: &[u8]) -> tidings_proto::wire::Incoming {
        match speech {
            Speech::Json => json::decode_request(std::str::from_utf8(message).unwrap()).unwrap(),
            Speech::Msgpack => msgpack::decode_request(&message[1..]).unwrap(),
            Speech::Protobuf => protobuf::decode_request(&message[1..]).unwrap(),
        }
    }

    #[test]
    fn the_broker_reads_the_same_publish_in_every_encoding() {
        for (id, len) in [(1, 0), (127, 1), (128, 125), (300, 126), (70_000, 200), (1, 70_000)] {
            let filler = "x".repeat(len);
            let publish = Publish { id, topic: "bench.7", stamp: "sent:1", filler: &filler };
            let read = ALL.map(|speech| {
                let (mut message, mut out) = (Vec::new(), Vec::new());
                speech.write_publish(&publish, &mut message, &mut out);
                assert!(out.ends_with(&message));
                decoded(speech, &message)
            });
            assert_eq!(read[0].head.id, Some(id));
            let Request::Publish(event) = &read[0].request else { panic!("{:?}", read[0]) };
            assert_eq!(event.event.topic.as_str(), "bench.7");
            assert_eq!(event.event.data.as_ref().unwrap(), &format!("\"sent:1{filler}\""));
            assert_eq!(read[0], read[1]);
            assert_eq!(read[0], read[2]);
        }
    }

    fn replied(speech: Speech, reply: &Reply) -> Vec<u8> {
        let mut out = speech.framing().1.to_vec();
        match speech {
            Speech::Json => json::encode_reply(Some(300), reply, &mut out),
            Speech::Msgpack => msgpack::encode_reply(Some(300), reply, &mut out),
            Speech::Protobuf => protobuf::encode_reply(Some(300), reply, &mut out),
        }
        out
    }

    #[test]
    fn an_answer_that_refuses_is_no_publish() {
        for speech in ALL {
            let offset = tidings_proto::Offset::new(7).unwrap();
            let published = Published { offset, id: "an id".to_owned(), duplicate: false };
            assert!(speech.is_published(&replied(speech, &Reply::Published(published))).unwrap());
            let error = Reply::Error(WireError::new(Code::PermissionDenied, "not yours"));
            let refused = speech.is_published(&replied(speech, &error)).unwrap_err();
            assert!(refused.to_string().contains("not yours"), "{refused}");
            assert!(speech.is_published(&replied(speech, &Reply::Pong {})).is_err());
            let mut push = speech.framing().1.to_vec();
            let expiring = Push::TokenExpiring { in_ms: 7 };
            match speech {
                Speech::Json => json::encode_push(&expiring, &mut push),
                Speech::Msgpack => msgpack::encode_push(&expiring, &mut push),
                Speech::Protobuf => protobuf::encode_push(&expiring, &mut push),
            }
            assert!(!speech.is_published(&push).unwrap());
            assert_eq!(speech.events_or_end(&push).unwrap(), Some(0));
        }
    }

    #[test]
    fn events_are_counted_in_every_encoding() {
        let header = BatchHeader {
            subscription: 1,
            after: Some(Cursor::new(300)),
            cursor: Some(Cursor::new(70_000)),
            attempts: &[],
        };
        let event = vec![7; 300];
        let mut frame = vec![PLAIN];
        protobuf::encode_events(&header, std::iter::repeat_n(&event[..], 77), &mut frame);
        assert_eq!(Speech::Protobuf.events_or_end(&frame).unwrap(), Some(77));
        let mut frame = vec![PLAIN];
        msgpack::encode_events(&header, std::iter::repeat_n(&event[..], 77), &mut frame);
        assert_eq!(Speech::Msgpack.events_or_end(&frame).unwrap(), Some(77));
        let mut frame = Vec::new();
        let event = br#"{"offset":1,"data":"{\"offset\":9"}"#;
        json::encode_events(&header, std::iter::repeat_n(&event[..], 77), &mut frame);
        assert_eq!(Speech::Json.events_or_end(&frame).unwrap(), Some(77));
        let push = Push::CaughtUp { subscription: 1, cursor: Cursor::new(300) };
        let (mut text, mut packed, mut wire) = (Vec::new(), vec![PLAIN], vec![PLAIN]);
        json::encode_push(&push, &mut text);
        msgpack::encode_push(&push, &mut packed);
        protobuf::encode_push(&push, &mut wire);
        assert_eq!(Speech::Json.events_or_end(&text).unwrap(), None);
        assert_eq!(Speech::Msgpack.events_or_end(&packed).unwrap(), None);
        assert_eq!(Speech::Protobuf.events_or_end(&wire).unwrap(), None);
    }

    #[test]
    fn a_number_takes_as_many_bytes_as_is_said() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            push_varint(number, &mut out);
            assert_eq!(out.len() as u64, varint_len(number), "{number}");
            assert_eq!(varint(&mut &out[..]), Some(number));
        }
    }
}
