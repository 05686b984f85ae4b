//! The words and the wire.

use std::fmt::Debug;

use bytes::Bytes;
use tidings_proto::{
    Data, Event, Filter, Filters, LogId, NewEvent, Offset, Position, Priority, Timestamp, Topic,
    WireError,
    control::{AckStates, AuthChange, RetentionChange, ScheduleChange, SubscriptionChange},
    message::{Events, Head, Push, Reply, Request, ServerMessage},
    topic::{filter_matches, literal_prefix, subject_token},
    wire::{
        BadRequest, BatchHeader, Incoming, cloudevents as ce, compressed, json, msgpack, protobuf,
        stored,
    },
};

/// An encoding of the whole protocol.
struct Codec {
    /// Whether it carries data as what its content type says it is.
    reads_data: bool,
    decode_request: fn(&[u8]) -> Result<Incoming, BadRequest>,
    encode_request: fn(Head, &Request, &mut Vec<u8>),
    decode_server_message: fn(&[u8]) -> Result<ServerMessage, WireError>,
    encode_reply: fn(Option<u32>, &Reply, &mut Vec<u8>),
    encode_push: fn(&Push, &mut Vec<u8>),
    encode_events: fn(&BatchHeader<'_>, &[Vec<u8>], &mut Vec<u8>),
    decode_compressed: fn(&[u8], usize) -> Result<Events, WireError>,
    decode_event: fn(&[u8]) -> Result<Event, WireError>,
    write_event: fn(&Event, &mut Vec<u8>),
    encode_event: fn(&stored::Place<'_>, &stored::Body<'_>, &mut Vec<u8>),
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or("no text")
}

const JSON: Codec = Codec {
    reads_data: true,
    decode_request: |bytes| json::decode_request(text(bytes)),
    encode_request: json::encode_request,
    decode_server_message: |bytes| json::decode_server_message(text(bytes)),
    encode_reply: json::encode_reply,
    encode_push: json::encode_push,
    encode_events: |header, events, out| {
        json::encode_events(header, events.iter().map(Vec::as_slice), out);
    },
    decode_compressed: json::decode_compressed,
    decode_event: |bytes| json::decode_event(text(bytes)),
    write_event: json::write_event,
    encode_event: json::encode_event,
};

const MSGPACK: Codec = Codec {
    reads_data: false,
    decode_request: msgpack::decode_request,
    encode_request: msgpack::encode_request,
    decode_server_message: msgpack::decode_server_message,
    encode_reply: msgpack::encode_reply,
    encode_push: msgpack::encode_push,
    encode_events: |header, events, out| {
        msgpack::encode_events(header, events.iter().map(Vec::as_slice), out);
    },
    decode_compressed: msgpack::decode_compressed,
    decode_event: msgpack::decode_event,
    write_event: msgpack::write_event,
    encode_event: msgpack::encode_event,
};

const PROTOBUF: Codec = Codec {
    reads_data: false,
    decode_request: protobuf::decode_request,
    encode_request: protobuf::encode_request,
    decode_server_message: protobuf::decode_server_message,
    encode_reply: protobuf::encode_reply,
    encode_push: protobuf::encode_push,
    encode_events: |header, events, out| {
        protobuf::encode_events(header, events.iter().map(Vec::as_slice), out);
    },
    decode_compressed: protobuf::decode_compressed,
    decode_event: protobuf::decode_event,
    write_event: protobuf::write_event,
    encode_event: protobuf::encode_event,
};

const CODECS: [&Codec; 3] = [&JSON, &MSGPACK, &PROTOBUF];

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// What is refused is refused with a reason that is bounded, whatever the input was.
fn is_refusal(error: &WireError) {
    assert!(error.message.len() < 3_000, "{}", error.message);
}

/// JSON in: requests, server messages, events, publishes.
pub fn json(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    messages(&JSON, data);
    match json::decode_publishes(text) {
        Ok(publishes) => {
            for publish in publishes {
                publish.event.check().unwrap();
                let again = written(|out| json::encode_publish(&publish, out));
                assert_eq!(json::decode_publish(str::from_utf8(&again).unwrap()).unwrap(), publish);
            }
        }
        Err(error) => is_refusal(&error),
    }
}

/// MessagePack in: requests, server messages, events.
pub fn msgpack(data: &[u8]) {
    messages(&MSGPACK, data);
}

/// Protobuf in: requests, server messages, events.
pub fn protobuf(data: &[u8]) {
    messages(&PROTOBUF, data);
}

/// What can be read is the same after it was written and read in every encoding.
fn messages(codec: &Codec, data: &[u8]) {
    match (codec.decode_request)(data) {
        Ok(incoming) => {
            for codec in CODECS {
                let out =
                    written(|out| (codec.encode_request)(incoming.head, &incoming.request, out));
                let mut want = incoming.clone();
                hand_out_request(codec, &mut want.request);
                assert_eq!((codec.decode_request)(&out).unwrap(), want);
            }
        }
        Err(bad) => is_refusal(&bad.error),
    }
    match (codec.decode_server_message)(data) {
        Ok(message) => {
            let is_sound = match &message {
                ServerMessage::Events(batch) => batch.events.iter().all(is_sound),
                _ => true,
            };
            for codec in CODECS.into_iter().filter(|codec| is_sound || !codec.reads_data) {
                let out = written(|out| write_message(codec, &message, out));
                let mut want = message.clone();
                if let ServerMessage::Events(batch) = &mut want {
                    batch.events.iter_mut().for_each(|event| hand_out(codec, event));
                }
                assert_eq!((codec.decode_server_message)(&out).unwrap(), want);
            }
        }
        Err(error) => is_refusal(&error),
    }
    match (codec.decode_event)(data) {
        Ok(event) => {
            let is_sound = is_sound(&event);
            for codec in CODECS.into_iter().filter(|codec| is_sound || !codec.reads_data) {
                let out = written(|out| (codec.write_event)(&event, out));
                let mut want = event.clone();
                hand_out(codec, &mut want);
                assert_eq!((codec.decode_event)(&out).unwrap(), want);
            }
        }
        Err(error) => is_refusal(&error),
    }
}

/// The event as an encoding hands it out: where data is read as JSON, blanks around a value are no part of it.
fn hand_out(codec: &Codec, event: &mut Event) {
    hand_out_data(codec, event.datacontenttype.as_deref(), &mut event.data);
}

fn hand_out_request(codec: &Codec, request: &mut Request) {
    if let Request::Publish(publish) = request {
        let event = &mut publish.event;
        hand_out_data(codec, event.datacontenttype.as_deref(), &mut event.data);
    }
}

fn hand_out_data(codec: &Codec, content_type: Option<&str>, data: &mut Option<Bytes>) {
    let Some(bytes) = data else { return };
    if codec.reads_data && Data::of(content_type.unwrap_or("application/json")) == Data::Json {
        let is_value = |byte: &u8| !b" \t\r\n".contains(byte);
        let start = bytes.iter().position(is_value).unwrap_or(bytes.len());
        let end = bytes.iter().rposition(is_value).map_or(start, |last| last + 1);
        *bytes = bytes.slice(start..end);
    }
}

/// Whether a broker would have taken it: clients do not look again at what they are sent.
fn is_sound(event: &Event) -> bool {
    let new = NewEvent {
        kind: event.kind.clone(),
        source: Some(event.source.clone()),
        datacontenttype: event.datacontenttype.clone(),
        data: event.data.clone(),
        key: event.key.clone(),
        correlation: event.correlation.clone(),
        headers: event.headers.clone(),
        ..NewEvent::on(event.topic.clone())
    };
    new.check().is_ok() && tidings_proto::EventId::parse(&event.id).is_ok()
}

fn write_message(codec: &Codec, message: &ServerMessage, out: &mut Vec<u8>) {
    match message {
        ServerMessage::Reply(id, reply) => (codec.encode_reply)(Some(*id), reply, out),
        ServerMessage::Push(push) => (codec.encode_push)(push, out),
        ServerMessage::Events(batch) => {
            let event = |event| written(|out| (codec.write_event)(event, out));
            let events: Vec<_> = batch.events.iter().map(event).collect();
            let header = BatchHeader {
                subscription: batch.subscription,
                after: batch.after,
                cursor: batch.cursor,
                attempts: &batch.attempts,
            };
            (codec.encode_events)(&header, &events, out);
        }
    }
}

/// Stored bodies: all of one or only its expiry, the same; what is in it reads alike from every encoding.
pub fn bodies(data: &[u8]) {
    let Ok(body) = stored::decode(data) else { return };
    assert_eq!(stored::expires(data).unwrap(), stored::event(&PLACE, &body).expires);
    let event = stored::event(&PLACE, &body);
    let bytes = |codec: &Codec| written(|out| (codec.encode_event)(&PLACE, &body, out));
    let encoded = CODECS.map(|codec| (codec, bytes(codec)));
    // What no broker would take is not stored, and no name of a header stands there twice.
    if is_sound(&event) && body.headers.count() == event.headers.len() {
        for (codec, bytes) in encoded {
            let mut want = event.clone();
            hand_out(codec, &mut want);
            assert_eq!((codec.decode_event)(&bytes).unwrap(), want);
        }
    }
}

const PLACE: stored::Place<'_> = stored::Place {
    offset: Offset::FIRST,
    time: Timestamp::from_millis(1),
    topic: "a.b",
    key: Some("k"),
    priority: Priority::High,
};

/// The broker's own records: acks, and the changes that are JSON.
pub fn acks(data: &[u8]) {
    if let Ok(states) = AckStates::from_bytes(data) {
        let again = states.to_bytes();
        assert_eq!(AckStates::from_bytes(&again).unwrap(), states);
    }
    same_again::<SubscriptionChange>(data);
    same_again::<RetentionChange>(data);
    same_again::<AuthChange>(data);
    same_again::<ScheduleChange>(data);
}

fn same_again<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    if let Ok(change) = serde_json::from_slice::<T>(data) {
        let again = serde_json::to_vec(&change).unwrap();
        assert_eq!(serde_json::from_slice::<T>(&again).unwrap(), change);
    }
}

/// CloudEvents: structured, batch, and binary as lines of headers, an empty one, and the body.
pub fn cloudevents(data: &[u8]) {
    let topic = || Topic::parse("a.b").unwrap();
    if let Ok(text) = str::from_utf8(data) {
        let batch = ce::decode_batch(text, Some(topic())).unwrap_or_default();
        for publish in ce::decode_structured(text, Some(topic())).into_iter().chain(batch) {
            is_publishable(&publish);
        }
    }
    let end = data.windows(2).position(|two| two == b"\n\n").unwrap_or(data.len());
    let (head, body) = data.split_at(end);
    let Ok(head) = str::from_utf8(head) else { return };
    let headers: Vec<_> = head.lines().filter_map(|line| line.split_once(": ")).collect();
    let content_type = headers.iter().find(|(name, _)| *name == "content-type").map(|(_, it)| *it);
    let body = Bytes::copy_from_slice(body.get(2..).unwrap_or_default());
    match ce::binary_attributes(topic(), headers.into_iter(), content_type, body) {
        Ok(publish) => is_publishable(&publish),
        Err(error) => is_refusal(&error),
    }
}

fn is_publishable(publish: &tidings_proto::message::Publish) {
    publish.event.check().unwrap();
    let request = Request::Publish(Box::new(publish.clone()));
    for codec in CODECS {
        let out = written(|out| (codec.encode_request)(Some(1).into(), &request, out));
        let mut want = request.clone();
        hand_out_request(codec, &mut want);
        assert_eq!((codec.decode_request)(&out).unwrap().request, want);
    }
}

/// What is inflated is never more than it may be; what was deflated inflates to the same, and to nothing else.
pub fn deflate(data: &[u8]) {
    let Some((&[low, high], bytes)) = data.split_first_chunk() else { return };
    let bytes_max = usize::from(u16::from_le_bytes([low, high]));
    if let Ok(inflated) = compressed::inflate(bytes, bytes_max) {
        assert!(inflated.len() <= bytes_max && inflated.capacity() <= bytes_max + 1);
    }
    for codec in CODECS {
        // A bomb of as many bytes as may come is refused, or carries events that were there.
        let _ = (codec.decode_compressed)(bytes, bytes_max);
    }
    if let Some(deflated) = compressed::Deflater::default().deflate(bytes) {
        assert_eq!(compressed::inflate(&deflated, bytes.len()).unwrap(), bytes);
        assert!(compressed::inflate(&deflated, bytes.len() - 1).is_err());
        let cut = deflated.get(..deflated.len() - 1).unwrap_or_default();
        assert!(compressed::inflate(cut, bytes.len()).is_err(), "an end that is missing");
    }
}

/// Where a stream resumes: read as it is written, and as plainly as its form says.
pub fn position(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (number, log) = match text.split_once('@') {
        Some((number, log)) => (number, Some(log)),
        None => (text, None),
    };
    let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    let digits = number.trim_start_matches('0');
    let fits = digits.len() < 20 && digits.parse::<u128>().unwrap_or(0) < 1 << 53;
    let is_log = |log: &str| log.len() == 8 && log.chars().all(|c| c.is_ascii_hexdigit());
    let want = is_number && fits && log.is_none_or(is_log);
    let position = text.parse::<Position>();
    assert_eq!(position.is_ok(), want, "{text:?}");
    if let Ok(position) = position {
        let again: Position = position.to_string().parse().unwrap();
        assert_eq!(again, position);
        assert!(position.to_string().len() <= text.len());
    }
    if let Ok(log) = text.parse::<LogId>() {
        assert_eq!(log.to_string().parse::<LogId>().unwrap(), log);
        assert_eq!(LogId::from_bytes(log.to_bytes()), log);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
    }
}

/// Lines: a filter, another, then topics. The matcher agrees with one that compares token by token.
pub fn filter(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let filters = [Filter::parse(first), Filter::parse(second)];
    for (text, filter) in [first, second].into_iter().zip(&filters) {
        assert_eq!(filter.is_ok(), is_filter(text), "{text:?}");
    }
    for topic in lines {
        // Whatever the texts are, it answers.
        let _ = filter_matches(first, topic);
        assert_eq!(Topic::parse(topic).is_ok(), is_topic(topic), "{topic:?}");
        Topic::parse(&subject_token(topic))
            .map_or_else(|_| assert!(topic.is_empty() || topic.len() > 60), drop);
        if !is_topic(topic) {
            continue;
        }
        let matches = |filter: &Filter| {
            let matches = filter.matches(topic);
            assert_eq!(matches, matches_naively(filter.as_str(), topic), "{filter:?} {topic}");
            assert_eq!(matches, Filters::one(filter.clone()).matches(topic));
            assert!(!matches || topic.starts_with(literal_prefix(filter.as_str())));
            matches
        };
        if let [Ok(first), Ok(second)] = &filters {
            let (one, other) = (matches(first), matches(second));
            assert!(!first.covers(second) || one || !other, "{first:?} {second:?} {topic}");
        }
    }
}

fn is_token(token: &str) -> bool {
    let is_one = |c: char| c.is_ascii_alphanumeric() || "_-:@=".contains(c);
    !token.is_empty() && token.chars().all(is_one)
}

/// The bounds of a topic and its tokens; those of the broker's own have a `$`, one token and 32 bytes more.
fn parts(text: &str) -> Option<(bool, Vec<&str>)> {
    let is_own = text.starts_with('$');
    let tokens: Vec<_> = text.strip_prefix('$').unwrap_or(text).split('.').collect();
    let (bytes_max, tokens_max) = if is_own { (232, 15) } else { (200, 14) };
    (text.len() <= bytes_max && tokens.len() <= tokens_max).then_some((is_own, tokens))
}

fn is_topic(text: &str) -> bool {
    parts(text).is_some_and(|(_, tokens)| tokens.into_iter().all(is_token))
}

fn is_filter(text: &str) -> bool {
    let Some((is_own, tokens)) = parts(text) else { return false };
    tokens.iter().enumerate().all(|(n, token)| match *token {
        "*" => n > 0 || !is_own,
        ">" => n + 1 == tokens.len() && (n > 0 || !is_own),
        token => is_token(token),
    })
}

fn matches_naively(filter: &str, topic: &str) -> bool {
    let (want, have): (Vec<_>, Vec<_>) = (filter.split('.').collect(), topic.split('.').collect());
    if topic.starts_with('$') && ["*", ">"].contains(&want[0]) {
        return false;
    }
    match want.split_last() {
        Some((&">", want)) => have.len() > want.len() && all_match(want, &have[..want.len()]),
        _ => have.len() == want.len() && all_match(&want, &have),
    }
}

fn all_match(want: &[&str], have: &[&str]) -> bool {
    want.iter().zip(have).all(|(want, have)| *want == "*" || want == have)
}
