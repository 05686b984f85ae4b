//! What holds for every encoding of the whole protocol: what is written is read the same, and no bytes
//! break a reader.

use bytes::Bytes;
use proptest::{collection, option, prelude::*};
use uuid::Uuid;

use super::{
    BadRequest, BatchHeader, Incoming, compressed, json, msgpack, protobuf, samples,
    stored::{self, Body, Place},
};
use crate::{
    Code, Cursor, Event, NewEvent, Offset, Timestamp, Topic, WireError,
    event::JSON as JSON_TYPE,
    message::{Events, Head, Publish, Push, Reply, Request, RequestId, ServerMessage},
};

/// An encoding.
pub(super) struct Codec {
    name: &'static str,
    encode_event: fn(&Place<'_>, &Body<'_>, &mut Vec<u8>),
    write_event: fn(&Event, &mut Vec<u8>),
    decode_event: fn(&[u8]) -> Result<Event, WireError>,
    encode_request: fn(Head, &Request, &mut Vec<u8>),
    decode_request: fn(&[u8]) -> Result<Incoming, BadRequest>,
    encode_reply: fn(Option<RequestId>, &Reply, &mut Vec<u8>),
    encode_push: fn(&Push, &mut Vec<u8>),
    encode_events: fn(&BatchHeader<'_>, &[Vec<u8>], &mut Vec<u8>),
    decode_server_message: fn(&[u8]) -> Result<ServerMessage, WireError>,
    encode_array: fn(&[Vec<u8>], &mut Vec<u8>),
    decode_compressed: fn(&[u8], usize) -> Result<Events, WireError>,
}

pub(super) const JSON: Codec = Codec {
    name: "json",
    encode_event: json::encode_event,
    write_event: json::write_event,
    decode_event: |bytes| json::decode_event(&String::from_utf8_lossy(bytes)),
    encode_request: json::encode_request,
    decode_request: |bytes| json::decode_request(&String::from_utf8_lossy(bytes)),
    encode_reply: json::encode_reply,
    encode_push: json::encode_push,
    encode_events: |header, events, out| {
        json::encode_events(header, events.iter().map(Vec::as_slice), out);
    },
    decode_server_message: |bytes| json::decode_server_message(&String::from_utf8_lossy(bytes)),
    encode_array: |events, out| json::encode_array(events.iter().map(|event| &event[..]), out),
    decode_compressed: json::decode_compressed,
};

pub(super) const MSGPACK: Codec = Codec {
    name: "msgpack",
    encode_event: msgpack::encode_event,
    write_event: msgpack::write_event,
    decode_event: msgpack::decode_event,
    encode_request: msgpack::encode_request,
    decode_request: msgpack::decode_request,
    encode_reply: msgpack::encode_reply,
    encode_push: msgpack::encode_push,
    encode_events: |header, events, out| {
        msgpack::encode_events(header, events.iter().map(Vec::as_slice), out);
    },
    decode_server_message: msgpack::decode_server_message,
    encode_array: |events, out| msgpack::encode_array(events.iter().map(|event| &event[..]), out),
    decode_compressed: msgpack::decode_compressed,
};

pub(super) const PROTOBUF: Codec = Codec {
    name: "protobuf",
    encode_event: protobuf::encode_event,
    write_event: protobuf::write_event,
    decode_event: protobuf::decode_event,
    encode_request: protobuf::encode_request,
    decode_request: protobuf::decode_request,
    encode_reply: protobuf::encode_reply,
    encode_push: protobuf::encode_push,
    encode_events: |header, events, out| {
        protobuf::encode_events(header, events.iter().map(Vec::as_slice), out);
    },
    decode_server_message: protobuf::decode_server_message,
    encode_array: |events, out| protobuf::encode_array(events.iter().map(|event| &event[..]), out),
    decode_compressed: protobuf::decode_compressed,
};

const CODECS: [&Codec; 3] = [&JSON, &MSGPACK, &PROTOBUF];

/// What `write` appends.
pub(super) fn bytes_of(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    // What is there already stays, and counts in no length.
    let mut out = vec![0xff];
    write(&mut out);
    assert_eq!(out.remove(0), 0xff);
    out
}

/// An event as the broker has it: its bytes made from the record, and itself.
pub(super) fn delivered(
    codec: &Codec,
    new: &NewEvent,
    offset: Offset,
    time: Timestamp,
) -> (Vec<u8>, Event) {
    let made_id = Some(Uuid::from_bytes([7; 16]));
    let mut bytes = Vec::new();
    let draft = stored::Draft { event: new, made_id, subject: "alice", expires: Some(time) };
    stored::encode(&draft, &mut bytes);
    let body = stored::decode(&bytes).unwrap();
    let (topic, key) = (new.topic.as_str(), new.key.as_deref());
    let place = stored::Place { offset, time, topic, key, priority: new.priority };
    (bytes_of(|out| (codec.encode_event)(&place, &body, out)), stored::event(&place, &body))
}

/// Gives the bytes to every reader: no panic, and every error says where and stays short.
pub(super) fn survives(codec: &Codec, bytes: &[u8]) {
    let results = [
        (codec.decode_request)(bytes).map(drop).map_err(|bad| bad.error),
        (codec.decode_server_message)(bytes).map(drop),
        (codec.decode_compressed)(bytes, 1 << 20).map(drop),
        (codec.decode_event)(bytes).map(drop),
    ];
    for error in results.into_iter().filter_map(Result::err) {
        assert!(matches!(error.code, Code::InvalidArgument | Code::TooLarge), "{error}");
        let message = &error.message;
        assert!(message.contains(": ") && message.len() < 3_000, "{}: {message}", codec.name);
    }
}

#[test]
fn data_stays_as_it_is_byte_for_byte() {
    let data = "{\"z\" : 1.0e5,\"a\":[-0.0 ,12345678901234567890123,\"\\u0041\\/é\"], \"z\":1}";
    let mut new = NewEvent::on(Topic::parse("a").unwrap());
    (new.datacontenttype, new.data) = (Some(JSON_TYPE.to_owned()), Some(Bytes::from(data)));
    let request = Request::Publish(Box::new(Publish::of(new.clone())));
    for codec in CODECS {
        let bytes = bytes_of(|out| (codec.encode_request)(Some(1).into(), &request, out));
        assert_eq!((codec.decode_request)(&bytes).unwrap().request, request, "{}", codec.name);
        let (bytes, event) = delivered(codec, &new, Offset::FIRST, Timestamp::from_millis(1));
        assert!(bytes.windows(data.len()).any(|part| part == data.as_bytes()), "{}", codec.name);
        assert_eq!((codec.decode_event)(&bytes).unwrap(), event, "{}", codec.name);
    }
}

/// The frame of a compressed batch; what would not get smaller is put up with here.
fn compressed_frame(codec: &Codec, header: &BatchHeader<'_>, events: &[Vec<u8>]) -> Vec<u8> {
    let array = bytes_of(|out| (codec.encode_array)(events, out));
    let mut deflated = Vec::with_capacity(array.len() + 64);
    let mut deflater = flate2::Compress::new(flate2::Compression::fast(), false);
    deflater.compress_vec(&array, &mut deflated, flate2::FlushCompress::Finish).unwrap();
    bytes_of(|out| {
        compressed::encode(&deflated, out, |out| (codec.encode_events)(header, &[], out));
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn an_event_comes_back(
        new in samples::new_event(),
        (offset, time) in (samples::offset(), samples::time()),
    ) {
        for codec in CODECS {
            let (bytes, event) = delivered(codec, &new, offset, time);
            prop_assert_eq!(&bytes, &bytes_of(|out| (codec.write_event)(&event, out)));
            prop_assert_eq!((codec.decode_event)(&bytes).unwrap(), event, "{}", codec.name);
        }
    }

    #[test]
    fn a_request_comes_back(
        id in option::of(any::<u32>()), follows in any::<bool>(), request in samples::request(),
    ) {
        let is_publish = matches!(request, Request::Publish(_) | Request::PublishBatch(_));
        let incoming = Incoming { head: Head { id, follows: follows && is_publish }, request };
        for codec in CODECS {
            let bytes = bytes_of(|out| (codec.encode_request)(incoming.head, &incoming.request, out));
            let read = (codec.decode_request)(&bytes);
            prop_assert_eq!(read.as_ref(), Ok(&incoming), "{}", codec.name);
        }
    }

    #[test]
    fn a_reply_and_a_push_come_back(
        id in any::<u32>(),
        reply in samples::reply(),
        push in samples::push(),
    ) {
        let tagged = ServerMessage::Reply(id, reply.clone());
        let unasked = ServerMessage::Push(push.clone());
        for codec in CODECS {
            let bytes = bytes_of(|out| (codec.encode_reply)(Some(id), &reply, out));
            let read = (codec.decode_server_message)(&bytes);
            prop_assert_eq!(read.as_ref(), Ok(&tagged), "{}", codec.name);
            let bytes = bytes_of(|out| (codec.encode_push)(&push, out));
            let read = (codec.decode_server_message)(&bytes);
            prop_assert_eq!(read.as_ref(), Ok(&unasked), "{}", codec.name);
        }
    }

    #[test]
    fn a_batch_of_events_comes_back(
        new in collection::vec(samples::new_event(), 0..4),
        offset in samples::offset(),
        (after, deliveries) in (option::of(0..99_u64), option::of(2..9_u32)),
    ) {
        let after = after.map(Cursor::new);
        let attempts = Vec::from_iter(deliveries.map(|deliveries| (offset, deliveries)));
        let header =
            BatchHeader { subscription: 3, after, cursor: after, attempts: &attempts };
        for codec in CODECS {
            let time = Timestamp::from_millis(1);
            let (encoded, events): (Vec<_>, Vec<_>) =
                new.iter().map(|new| delivered(codec, new, offset, time)).unzip();
            let bytes = bytes_of(|out| (codec.encode_events)(&header, &encoded, out));
            let attempts = attempts.clone();
            let want = Events { subscription: 3, after, cursor: after, events, attempts };
            let read = (codec.decode_server_message)(&bytes);
            prop_assert_eq!(read, Ok(ServerMessage::Events(want.clone())), "{}", codec.name);
            let frame = compressed_frame(codec, &header, &encoded);
            let read = (codec.decode_compressed)(&frame, 1 << 20);
            prop_assert_eq!(read, Ok(want), "{}", codec.name);
        }
    }

    #[test]
    fn hostile_bytes_do_not_panic(
        request in samples::request(),
        reply in samples::reply(),
        new in samples::new_event(),
        changes in samples::changes(),
        noise in any::<Vec<u8>>(),
    ) {
        for codec in CODECS {
            let request = bytes_of(|out| (codec.encode_request)(Some(5).into(), &request, out));
            let reply = bytes_of(|out| (codec.encode_reply)(Some(5), &reply, out));
            let event = delivered(codec, &new, Offset::FIRST, Timestamp::from_millis(1)).0;
            let header =
                BatchHeader { subscription: 1, after: None, cursor: None, attempts: &[] };
            let batch = bytes_of(|out| {
                (codec.encode_events)(&header, std::slice::from_ref(&event), out);
            });
            let frame = compressed_frame(codec, &header, std::slice::from_ref(&event));
            for valid in [request, reply, event, batch, frame] {
                survives(codec, &samples::damage(&valid, &changes));
                if let Some((at, _, _)) = changes.first() {
                    survives(codec, &valid[..at.index(valid.len())]);
                }
            }
            survives(codec, &noise);
        }
    }
}
