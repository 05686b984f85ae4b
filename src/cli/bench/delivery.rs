//! What who acknowledges has to read of a batch: its subscription and the offsets of its events.

use anyhow::Context;

use super::speech::{Speech, varint};

/// How a batch in JSON begins; its subscription's number follows.
const JSON_BATCH: &[u8] = b"{\"events\":{\"subscription\":";
/// How an event in JSON begins. Within a text the quotes would be escaped.
const JSON_OFFSET: &[u8] = b"{\"offset\":";
/// How a batch in MessagePack begins: a map of one attribute, `events`.
const PACKED_BATCH: &[u8] = b"\x81\xa6events";
/// The attribute with the subscription's number.
const PACKED_SUBSCRIPTION: &[u8] = b"\xacsubscription";
/// The attribute with an event's offset.
const PACKED_OFFSET: &[u8] = b"\xa6offset";
/// The key of `ServerMessage.events`: field 2, of a length.
const BATCH: u8 = 0x12;
/// The keys of `Events.subscription` and `Event.offset` (field 1, a number), and of `Events.events`.
const FIRST: u64 = 0x08;
const EVENT: u64 = 0x22;

impl Speech {
    /// The subscription that a batch is for, and the offsets of its events behind those that are in `offsets`;
    /// `None` when the message is no batch.
    ///
    /// # Errors
    /// When it is one, and cannot be read.
    pub(super) fn batch(
        self,
        payload: &[u8],
        offsets: &mut Vec<u64>,
    ) -> anyhow::Result<Option<u32>> {
        let message = payload.get(1..).unwrap_or_default();
        let read = match self {
            Speech::Json if payload.starts_with(JSON_BATCH) => json(payload, offsets),
            Speech::Msgpack if message.starts_with(PACKED_BATCH) => packed(message, offsets),
            Speech::Protobuf if message.first() == Some(&BATCH) => fields(message, offsets),
            _ => return Ok(None),
        };
        let number = read.and_then(|number| u32::try_from(number).ok());
        number.map(Some).context("a batch that cannot be read")
    }

    /// Whether a message says that an ack is durable.
    pub(super) fn is_acked(self, payload: &[u8]) -> bool {
        let message = payload.get(1..).unwrap_or_default();
        match self {
            Speech::Json => {
                payload.starts_with(b"{\"reply\":")
                    && memchr::memmem::find(payload, b",\"acked\":{").is_some()
            }
            Speech::Msgpack => {
                message.starts_with(b"\x82\xa5reply")
                    && memchr::memmem::find(message, b"\xa5acked").is_some()
            }
            Speech::Protobuf => {
                const REPLY: u8 = 0x08;
                const ACKED: u8 = 0x3a;
                let Some((&REPLY, mut rest)) = message.split_first() else { return false };
                varint(&mut rest).is_some() && rest.first() == Some(&ACKED)
            }
        }
    }
}

fn json(payload: &[u8], offsets: &mut Vec<u64>) -> Option<u64> {
    for at in memchr::memmem::find_iter(payload, JSON_OFFSET) {
        offsets.push(digits(payload.get(at + JSON_OFFSET.len()..)?)?);
    }
    digits(payload.get(JSON_BATCH.len()..)?)
}

/// The number in decimal that these bytes begin with.
fn digits(bytes: &[u8]) -> Option<u64> {
    let length = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    super::stamp::number(bytes.get(..length)?)
}

fn packed(message: &[u8], offsets: &mut Vec<u64>) -> Option<u64> {
    for at in memchr::memmem::find_iter(message, PACKED_OFFSET) {
        offsets.push(packed_number(message.get(at + PACKED_OFFSET.len()..)?)?);
    }
    let at = memchr::memmem::find(message, PACKED_SUBSCRIPTION)?;
    packed_number(message.get(at + PACKED_SUBSCRIPTION.len()..)?)
}

/// The whole number in MessagePack that these bytes begin with.
fn packed_number(bytes: &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    match first {
        0..=0x7f => Some(first.into()),
        0xcc => rest.first().map(|byte| u64::from(*byte)),
        0xcd => rest.first_chunk().map(|bytes| u16::from_be_bytes(*bytes).into()),
        0xce => rest.first_chunk().map(|bytes| u32::from_be_bytes(*bytes).into()),
        0xcf => rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)),
        _ => None,
    }
}

fn fields(message: &[u8], offsets: &mut Vec<u64>) -> Option<u64> {
    let mut rest = message.get(1..)?;
    // The length of the batch.
    varint(&mut rest)?;
    let mut subscription = None;
    while !rest.is_empty() {
        let (key, value) = (varint(&mut rest)?, varint(&mut rest)?);
        if key == FIRST {
            subscription = Some(value);
        }
        if key & 7 == 2 {
            let (event, behind) = rest.split_at_checked(usize::try_from(value).ok()?)?;
            rest = behind;
            if key == EVENT {
                let mut event = event;
                (varint(&mut event)? == FIRST).then_some(())?;
                offsets.push(varint(&mut event)?);
            }
        }
    }
    subscription
}

#[cfg(test)]
mod tests {
    use tidings_proto::{
        Code, Cursor, Offset, WireError,
        message::{Acked, Reply},
        wire::{BatchHeader, json, msgpack, protobuf},
    };

    use super::{super::speech::push_varint, *};

    const OFFSETS: [u64; 7] = [1, 127, 128, 300, 70_000, 1 << 33, 9_007_199_254_740_991];

    /// An event as it is sent, with data that looks like the beginning of another.
    fn event(speech: Speech, offset: u64) -> Vec<u8> {
        let mut out = Vec::new();
        match speech {
            Speech::Json => {
                let text = format!(r#"{{"offset":{offset},"topic":"a","data":"{{\"offset\":9"}}"#);
                out.extend_from_slice(text.as_bytes());
            }
            Speech::Msgpack => {
                out.extend_from_slice(b"\x82\xa6offset");
                match offset {
                    0..=0x7f => out.push(offset as u8),
                    0x80..=0xff => out.extend_from_slice(&[0xcc, offset as u8]),
                    0x100..=0xffff => {
                        out.push(0xcd);
                        out.extend_from_slice(&(offset as u16).to_be_bytes());
                    }
                    0x1_0000..=0xffff_ffff => {
                        out.push(0xce);
                        out.extend_from_slice(&(offset as u32).to_be_bytes());
                    }
                    _ => {
                        out.push(0xcf);
                        out.extend_from_slice(&offset.to_be_bytes());
                    }
                }
                out.extend_from_slice(b"\xa5topic\xa1a");
            }
            Speech::Protobuf => {
                out.push(0x08);
                push_varint(offset, &mut out);
                out.extend_from_slice(b"\x12\x01a");
            }
        }
        out
    }

    #[test]
    fn a_batch_says_whose_it_is_and_its_offsets() {
        for subscription in [1, 100, 200, 70_000] {
            let attempts = [(Offset::new(7).unwrap(), 2)];
            let header = BatchHeader {
                subscription,
                after: Some(Cursor::new(300)),
                cursor: Some(Cursor::new(70_000)),
                attempts: &attempts,
            };
            for speech in [Speech::Json, Speech::Msgpack, Speech::Protobuf] {
                let encoded = OFFSETS.map(|offset| event(speech, offset));
                let events = encoded.iter().map(Vec::as_slice);
                let mut frame = if speech == Speech::Json { Vec::new() } else { vec![0] };
                match speech {
                    Speech::Json => json::encode_events(&header, events, &mut frame),
                    Speech::Msgpack => msgpack::encode_events(&header, events, &mut frame),
                    Speech::Protobuf => protobuf::encode_events(&header, events, &mut frame),
                }
                let mut offsets = Vec::new();
                assert_eq!(speech.batch(&frame, &mut offsets).unwrap(), Some(subscription));
                assert_eq!(offsets, OFFSETS, "{speech:?}");
                assert!(!speech.is_acked(&frame));
            }
        }
    }

    #[test]
    fn an_answer_to_an_ack_is_known_from_a_refusal() {
        for speech in [Speech::Json, Speech::Msgpack, Speech::Protobuf] {
            let acked = Acked { subscription: Some(70_000), cursor: Cursor::new(300) };
            let error = WireError::new(Code::Conflict, "acked: no");
            for (reply, is_acked) in [(Reply::Acked(acked), true), (Reply::Error(error), false)] {
                let mut frame = if speech == Speech::Json { Vec::new() } else { vec![0] };
                match speech {
                    Speech::Json => json::encode_reply(Some(300), &reply, &mut frame),
                    Speech::Msgpack => msgpack::encode_reply(Some(300), &reply, &mut frame),
                    Speech::Protobuf => protobuf::encode_reply(Some(300), &reply, &mut frame),
                }
                assert_eq!(speech.is_acked(&frame), is_acked, "{speech:?} {reply:?}");
                assert_eq!(speech.batch(&frame, &mut Vec::new()).unwrap(), None);
            }
        }
        assert!(Speech::Json.batch(b"{\"events\":{\"subscription\":x", &mut Vec::new()).is_err());
    }
}
