//! Between events and records: the only file of this room that knows how a body is encoded.

use std::{cell::Cell, hash::Hasher, sync::OnceLock, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use siphasher::sip::SipHasher13;
use tidings_proto::{
    Event, NewEvent, Offset, Priority, Timestamp, Topic,
    control::{Lost, SCHEDULED_TOPIC},
    event::{EventId, Expiry, JSON},
    message::Publish,
    wire::{
        json, msgpack, protobuf,
        stored::{self, Body, StoredError},
    },
};
use tidings_storage::{Flags, Record};
use uuid::Uuid;

use super::commit::Draft;

/// What an event adds to a batch beside its body, its topic and its key, about. Bytes.
pub const BATCH_ENVELOPE_BYTES: usize = 150;

/// A committed event in memory: its record, and its encodings once somebody has asked for them.
#[derive(Debug)]
pub struct Stored {
    record: Record,
    /// How many bytes it has in JSON beside those that are stored and its envelope.
    growth_bytes: usize,
    /// Whether its data is left out, and where it is to be had said instead.
    is_referred: bool,
    /// When it became durable, on the monotonic clock; `None` where it was read from the disk.
    durable_at: Option<Duration>,
    json: OnceLock<Encoded>,
    msgpack: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
}

#[derive(Debug)]
struct Encoded {
    bytes: Bytes,
    expires: Option<Timestamp>,
}

impl Stored {
    /// Takes a record as it was appended or read.
    pub fn new(record: Record) -> Stored {
        let growth_bytes = growth_of(&record);
        Stored::sized(record, growth_bytes)
    }

    fn sized(record: Record, growth_bytes: usize) -> Stored {
        Stored {
            record,
            growth_bytes,
            is_referred: false,
            durable_at: None,
            json: OnceLock::new(),
            msgpack: OnceLock::new(),
            protobuf: OnceLock::new(),
        }
    }

    /// What a draft becomes at this offset.
    pub(super) fn of(draft: Draft, offset: Offset, time: Timestamp) -> Stored {
        let growth_bytes = draft.growth_bytes;
        Stored::sized(record(draft, offset, time), growth_bytes)
    }

    /// The same, durable since this moment of the monotonic clock.
    pub(crate) fn durable_since(self, at: Duration) -> Stored {
        Stored { durable_at: Some(at), ..self }
    }

    /// When it became durable, on the monotonic clock; `None` where it was read from the disk.
    pub fn durable_at(&self) -> Option<Duration> {
        self.durable_at
    }

    /// Its place.
    pub fn offset(&self) -> Offset {
        self.record.offset
    }

    /// A number that another event in memory has only if it has the same content.
    pub fn identity(&self) -> u64 {
        // An offset has 53 bits.
        self.offset().get() << 1 | u64::from(self.is_referred)
    }

    /// Its topic.
    pub fn topic(&self) -> &Topic {
        &self.record.topic
    }

    /// Its priority.
    pub fn priority(&self) -> Priority {
        Priority::from_bits(self.record.flags.priority())
    }

    /// The record itself.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// When it was appended.
    pub fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.record.time_ms)
    }

    /// Its key.
    pub fn key(&self) -> Option<&str> {
        str::from_utf8(&self.record.key).ok().filter(|key| !key.is_empty())
    }

    /// What its body says.
    ///
    /// # Errors
    /// When the body is not one that this version wrote or can read.
    pub fn body(&self) -> Result<Body<'_>, StoredError> {
        stored::decode(&self.record.body)
    }

    /// The whole event.
    ///
    /// # Errors
    /// As [`Stored::body`].
    pub fn event(&self) -> Result<Event, StoredError> {
        Ok(stored::event(&self.place(), &self.body()?))
    }

    /// The event as one JSON object; encoded once, shared by all who ask.
    ///
    /// # Errors
    /// As [`Stored::body`].
    pub fn json(&self) -> Result<&Bytes, StoredError> {
        Ok(&self.encoded()?.bytes)
    }

    /// The same in MessagePack.
    ///
    /// # Errors
    /// As [`Stored::body`].
    pub fn msgpack(&self) -> Result<&Bytes, StoredError> {
        self.once(&self.msgpack, msgpack::encode_event)
    }

    /// The same in Protobuf.
    ///
    /// # Errors
    /// As [`Stored::body`].
    pub fn protobuf(&self) -> Result<&Bytes, StoredError> {
        self.once(&self.protobuf, protobuf::encode_event)
    }

    /// When it stops being delivered.
    ///
    /// # Errors
    /// As [`Stored::body`].
    pub fn expires(&self) -> Result<Option<Timestamp>, StoredError> {
        match self.json.get() {
            Some(encoded) => Ok(encoded.expires),
            None => stored::expires(&self.record.body),
        }
    }

    /// The same event without its data, where that has more than `max` bytes; the header `dataref` says where it
    /// is to be had. `None` where the data is smaller, or the body cannot be read.
    pub fn without_data_above(&self, max: usize) -> Option<Stored> {
        if self.record.body.len() <= max {
            return None;
        }
        let body = self.body().ok()?;
        body.data.filter(|data| data.len() > max)?;
        let mut event = NewEvent {
            id: body.id_given.then(|| EventId::parse(&body.id)).transpose().ok()?,
            kind: body.kind.to_owned(),
            source: Some(body.source.clone().into_owned()),
            datacontenttype: body.datacontenttype.map(str::to_owned),
            correlation: body.correlation.map(str::to_owned),
            headers: body
                .headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            ..NewEvent::on(self.record.topic.clone())
        };
        event.headers.insert("dataref".to_owned(), format!("/v1/events/{}", self.offset()));
        let made_id = Uuid::parse_str(&body.id).ok().filter(|_| !body.id_given);
        let (subject, expires) = (body.subject, body.expires);
        let mut bytes = Vec::new();
        stored::encode(&stored::Draft { event: &event, made_id, subject, expires }, &mut bytes);
        let record = Record { body: bytes.into(), ..self.record.clone() };
        Some(Stored { durable_at: self.durable_at, is_referred: true, ..Stored::new(record) })
    }

    /// What it adds to a batch, about, in the encoding in which it is largest: a read stops at so many bytes.
    pub fn batch_bytes(&self) -> usize {
        self.content_bytes() + BATCH_ENVELOPE_BYTES
    }

    /// The same without what is around an event: what storage counts as it is stored.
    pub(super) fn content_bytes(&self) -> usize {
        let Record { topic, key, body, .. } = &self.record;
        topic.as_str().len() + key.len() + body.len() + self.growth_bytes
    }

    /// How many bytes of memory it takes, about, once it is encoded; up to twice that in all encodings.
    pub fn cost_bytes(&self) -> usize {
        const ENVELOPE_BYTES: usize = 512;
        ENVELOPE_BYTES + 2 * (self.record.body.len() + self.record.key.len()) + self.growth_bytes
    }

    fn encoded(&self) -> Result<&Encoded, StoredError> {
        if let Some(encoded) = self.json.get() {
            return Ok(encoded);
        }
        let body = self.body()?;
        let bytes = exactly(|out| json::encode_event(&self.place(), &body, out));
        let encoded = Encoded { bytes: bytes.into(), expires: body.expires };
        Ok(self.json.get_or_init(|| encoded))
    }

    /// What `encode` makes of it, kept in `place`.
    fn once<'a>(
        &self,
        place: &'a OnceLock<Bytes>,
        encode: fn(&stored::Place<'_>, &Body<'_>, &mut Vec<u8>),
    ) -> Result<&'a Bytes, StoredError> {
        if let Some(encoded) = place.get() {
            return Ok(encoded);
        }
        let body = self.body()?;
        let bytes = exactly(|out| encode(&self.place(), &body, out));
        Ok(place.get_or_init(|| bytes.into()))
    }

    fn place(&self) -> stored::Place<'_> {
        stored::Place {
            offset: self.offset(),
            time: self.time(),
            topic: self.record.topic.as_str(),
            key: self.key(),
            priority: self.priority(),
        }
    }
}

/// How many bytes an event has in JSON beside those that are stored and its envelope. Of ids, keys and subjects that is not
/// counted: they are short and have no control characters. In a topic nothing is escaped.
fn growth_bytes<'a>(
    texts: [Option<&'a str>; 4],
    headers: impl Iterator<Item = (&'a str, &'a str)>,
    content_type: Option<&str>,
    data: Option<&[u8]>,
) -> usize {
    let headers = headers.map(|(name, value)| json::escape_bytes(name) + json::escape_bytes(value));
    texts.into_iter().flatten().map(json::escape_bytes).sum::<usize>()
        + headers.sum::<usize>()
        + data.map_or(0, |data| json::data_growth_bytes(content_type, data))
}

fn growth_of(record: &Record) -> usize {
    let Ok(body) = stored::decode(&record.body) else { return 0 };
    let content_type = body.datacontenttype;
    let texts = [Some(body.kind), Some(&body.source), content_type, body.correlation];
    growth_bytes(texts, body.headers, content_type, body.data)
}

/// What is written, in memory of just that size: it may stay as long as the log's tail reaches back.
fn exactly(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    const KEEP_BYTES: usize = 64 * 1024;
    thread_local! {
        static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let mut out = SCRATCH.take();
    write(&mut out);
    let bytes = out.as_slice().to_vec();
    if out.capacity() <= KEEP_BYTES {
        out.clear();
        SCRATCH.set(out);
    }
    bytes
}

/// What a publisher's event becomes before it is queued: encoded here, so that the commit thread does not.
/// `made_id` is its id when the publisher gave none.
pub fn draft(
    event: &NewEvent,
    made_id: Uuid,
    subject: &str,
    now: Timestamp,
    receipts: bool,
) -> Draft {
    let expires = event.expires.map(|expiry| match expiry {
        Expiry::At(time) => time,
        Expiry::TtlMs(ms) => now.plus_millis(ms),
    });
    let made_id = event.id.is_none().then_some(made_id);
    let draft = stored::Draft { event, made_id, subject, expires };
    // Of its size exactly: it becomes shared memory as it is, and stays as long as the tail reaches back.
    let body = exactly(|out| stored::encode(&draft, out));
    let dedupe = event.id.as_ref().map(|id| dedupe_hash(subject, id.as_str()));
    let content_type = event.datacontenttype.as_deref();
    let texts = [
        Some(event.kind.as_str()),
        event.source.as_deref(),
        content_type,
        event.correlation.as_deref(),
    ];
    let headers = event.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let growth_bytes = growth_bytes(texts, headers, content_type, event.data.as_deref());
    Draft {
        topic: event.topic.clone(),
        key: event.key.as_deref().unwrap_or_default().as_bytes().into(),
        growth_bytes,
        flags: Flags::EMPTY.with_priority(event.priority.to_bits()).with_receipts(receipts),
        dedupe,
        expect_last: None,
        body,
    }
}

/// An event of the broker's own: JSON data on a topic of its own.
pub fn control(topic: Topic, kind: &str, data: Vec<u8>, id: Uuid) -> Draft {
    control_of(topic, kind, JSON, data, id)
}

/// The same with data that is no JSON.
pub fn control_bytes(topic: Topic, kind: &str, data: Vec<u8>, id: Uuid) -> Draft {
    control_of(topic, kind, PROTOBUF, data, id)
}

fn control_of(topic: Topic, kind: &str, content_type: &str, data: Vec<u8>, id: Uuid) -> Draft {
    let event = NewEvent {
        kind: kind.to_owned(),
        datacontenttype: Some(content_type.to_owned()),
        data: Some(Bytes::from(data)),
        ..NewEvent::on(topic)
    };
    let mut draft = draft(&event, id, "", Timestamp::from_millis(0), false);
    draft.flags = Flags::EMPTY.with_control(true);
    draft
}

/// The content type of control events that are not JSON.
const PROTOBUF: &str = "application/protobuf";

/// The data of a control event; `None` when its body cannot be read.
pub fn control_data(record: &Record) -> Option<Bytes> {
    let body = stored::decode(&record.body).ok()?;
    body.data.map(|data| record.body.slice_ref(data))
}

/// The data in a record's body; `None` when the body cannot be read.
pub(super) fn data_of(body: &[u8]) -> Option<&[u8]> {
    stored::decode(body).ok()?.data
}

/// The type and the content type in a record's body; `None` when the body cannot be read.
pub(super) fn kind_of(body: &[u8]) -> Option<(&str, Option<&str>)> {
    stored::decode(body).ok().map(|body| (body.kind, body.datacontenttype))
}

/// When an event stops being delivered, by its body; `None` also where the body cannot be read.
pub(super) fn expires_of(body: &[u8]) -> Option<Timestamp> {
    stored::expires(body).ok().flatten()
}

/// What is stored of an event that waits for its moment: the publish as JSON, under its publisher's subject and
/// id, so that the same one again is found. `None` only for a bug: a fixed name that does not parse.
pub fn schedule(publish: &Publish, made_id: Uuid, subject: &str) -> Option<Draft> {
    let mut data = Vec::new();
    json::encode_publish(publish, &mut data);
    let event = NewEvent {
        id: publish.event.id.clone(),
        kind: "scheduled".to_owned(),
        datacontenttype: Some(JSON.to_owned()),
        data: Some(Bytes::from(data)),
        ..NewEvent::on(Topic::parse(SCHEDULED_TOPIC).ok()?)
    };
    // A publisher's, and so nothing that may take the reserve of a full disk.
    Some(draft(&event, made_id, subject, Timestamp::from_millis(0), false))
}

/// Whether this is what [`schedule`] made. What follows it on the topic has a key.
pub fn is_scheduled(record: &Record) -> bool {
    record.topic.as_str() == SCHEDULED_TOPIC && record.key.is_empty()
}

/// Whether this is what [`schedule`] made of an event for `topic`.
pub(super) fn is_scheduled_for(on: &str, key: &[u8], body: &[u8], topic: &Topic) -> bool {
    #[derive(Deserialize)]
    struct For {
        topic: Topic,
    }
    let stored = (on == SCHEDULED_TOPIC && key.is_empty()).then(|| data_of(body)).flatten();
    let publish = stored.and_then(|data| serde_json::from_slice::<For>(data).ok());
    publish.is_some_and(|publish| publish.topic == *topic)
}

/// When an event that waits is due, in milliseconds since the epoch; `None` when it cannot be read.
pub fn due_ms(record: &Record) -> Option<u64> {
    #[derive(Deserialize)]
    struct Due {
        deliver_at: Timestamp,
    }
    let due: Due = serde_json::from_slice(&control_data(record)?).ok()?;
    Some(due.deliver_at.as_millis())
}

/// The event that was stored by [`schedule`], to be appended now; `None` when it cannot be read. Its id was
/// looked up when it was scheduled, and is not again.
pub fn fire(record: &Record, now: Timestamp) -> Option<Draft> {
    let body = stored::decode(&record.body).ok()?;
    let publish = json::decode_publish(std::str::from_utf8(body.data?).ok()?).ok()?;
    let made_id = Uuid::parse_str(&body.id.to_string()).unwrap_or_default();
    let draft = draft(&publish.event, made_id, body.subject, now, publish.receipts);
    Some(Draft { dedupe: None, ..draft })
}

/// The body of the record that names the offsets a torn tail could have held.
pub(super) fn lost_body(from: u64, to: u64) -> Vec<u8> {
    let data = serde_json::to_vec(&Lost { from, to }).unwrap_or_default();
    let mut body = Vec::new();
    if let Ok(topic) = Topic::parse(tidings_proto::control::LOST_TOPIC) {
        let event = NewEvent {
            kind: "log.lost".to_owned(),
            datacontenttype: Some(JSON.to_owned()),
            data: Some(Bytes::from(data)),
            ..NewEvent::on(topic)
        };
        let id = Uuid::from_u64_pair(from, to);
        let draft = stored::Draft { event: &event, made_id: Some(id), subject: "", expires: None };
        stored::encode(&draft, &mut body);
    }
    body
}

/// The hash of who published and the id they gave, as it is stored: SipHash-1-3 with a zero key, so that files
/// mean the same on every machine. A match is only a candidate: the bodies say for certain.
fn dedupe_hash(subject: &str, id: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(subject.as_bytes());
    hasher.write(&[0xff]);
    hasher.write(id.as_bytes());
    hasher.finish()
}

/// How what was published with the same hash stands to a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// Another id that happens to have the same hash.
    Other,
    /// The same publisher and id with the same content.
    Same,
    /// The same publisher and id with other content.
    Differs,
}

/// What was published, as far as a publish that is repeated must repeat it.
#[derive(Clone, Copy)]
pub(super) struct Content<'a> {
    topic: &'a Topic,
    key: &'a [u8],
    body: &'a [u8],
}

impl<'a> From<&'a Draft> for Content<'a> {
    fn from(draft: &'a Draft) -> Content<'a> {
        Content { topic: &draft.topic, key: &draft.key, body: &draft.body }
    }
}

impl<'a> From<&'a Record> for Content<'a> {
    fn from(record: &'a Record) -> Content<'a> {
        Content { topic: &record.topic, key: &record.key, body: &record.body }
    }
}

/// Compares what was published: publisher and id; then topic, type, key, content type and data.
pub(super) fn compare(draft: &Draft, other: Content<'_>) -> Likeness {
    let mine = Content::from(draft);
    let (Ok(old), Ok(new)) = (stored::decode(other.body), stored::decode(mine.body)) else {
        return Likeness::Other;
    };
    if !old.id_given || !new.id_given || old.subject != new.subject || *old.id != *new.id {
        return Likeness::Other;
    }
    let same = other.topic == mine.topic
        && other.key == mine.key
        && old.kind == new.kind
        && old.datacontenttype == new.datacontenttype
        && old.data == new.data;
    if same { Likeness::Same } else { Likeness::Differs }
}

/// The id in a draft's body.
pub(super) fn id(draft: &Draft) -> String {
    stored::decode(&draft.body).map(|body| body.id.to_string()).unwrap_or_default()
}

/// A record as the commit thread appended it.
fn record(draft: Draft, offset: Offset, time: Timestamp) -> Record {
    Record {
        offset,
        time_ms: time.as_millis(),
        flags: draft.flags,
        topic: draft.topic,
        key: Bytes::from(draft.key.into_vec()),
        dedupe: draft.dedupe,
        body: Bytes::from(draft.body),
    }
}
