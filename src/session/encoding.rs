//! How the messages of a socket are written: chosen with the subprotocol, the same ever after.

use tidings_proto::{
    WireError,
    message::{Push, Reply, RequestId},
    wire::{
        BadRequest, BatchHeader, Incoming,
        compressed::{self, PLAIN},
        json, msgpack, protobuf,
        stored::StoredError,
    },
};

use crate::log::Stored;

/// The encodings there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Protobuf in binary frames, each with one byte before the message.
    Protobuf,
    /// MessagePack in the same frames.
    MessagePack,
    /// JSON in text frames.
    #[default]
    Json,
}

impl Encoding {
    /// All of them, in our order of preference.
    pub const ALL: [Encoding; 3] = [Encoding::Protobuf, Encoding::MessagePack, Encoding::Json];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Encoding::Protobuf => "protobuf",
            Encoding::MessagePack => "msgpack",
            Encoding::Json => "json",
        }
    }

    /// The subprotocol that chooses it.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Encoding::Protobuf => "tidings.v1.protobuf",
            Encoding::MessagePack => "tidings.v1.msgpack",
            Encoding::Json => "tidings.v1.json",
        }
    }

    /// Whether its messages go in binary frames.
    pub const fn is_binary(self) -> bool {
        matches!(self, Encoding::Protobuf | Encoding::MessagePack)
    }

    /// Appends what stands before every message of a frame.
    pub fn begin(self, out: &mut Vec<u8>) {
        if self.is_binary() {
            out.push(PLAIN);
        }
    }

    /// Reads the request of a text frame.
    pub(super) fn decode_text(text: &str) -> Result<Incoming, BadRequest> {
        json::decode_request(text)
    }

    /// Reads the request of a binary frame.
    pub(super) fn decode_binary(self, frame: &[u8]) -> Result<Incoming, BadRequest> {
        let refused = |text| Err(BadRequest { id: None, error: WireError::invalid(text) });
        let Some((&PLAIN, message)) = frame.split_first() else {
            return refused(
                "message: a binary frame begins with the byte 0, for a message that is not compressed",
            );
        };
        match self {
            Encoding::Protobuf => protobuf::decode_request(message),
            Encoding::MessagePack => msgpack::decode_request(message),
            Encoding::Json => refused("message: JSON goes in text frames"),
        }
    }

    pub(super) fn reply(self, id: Option<RequestId>, reply: &Reply, out: &mut Vec<u8>) {
        match self {
            Encoding::Json => json::encode_reply(id, reply, out),
            Encoding::MessagePack => msgpack::encode_reply(id, reply, out),
            Encoding::Protobuf => protobuf::encode_reply(id, reply, out),
        }
    }

    /// Appends what nobody asked for.
    pub fn push(self, push: &Push, out: &mut Vec<u8>) {
        match self {
            Encoding::Json => json::encode_push(push, out),
            Encoding::MessagePack => msgpack::encode_push(push, out),
            Encoding::Protobuf => protobuf::encode_push(push, out),
        }
    }

    /// One event; encoded once for all who read it in this encoding.
    pub(super) fn event(self, event: &Stored) -> Result<&[u8], StoredError> {
        let encoded = match self {
            Encoding::Json => event.json(),
            Encoding::MessagePack => event.msgpack(),
            Encoding::Protobuf => event.protobuf(),
        };
        encoded.map(|bytes| &bytes[..])
    }

    pub(super) fn events(self, header: &BatchHeader<'_>, events: &[&[u8]], out: &mut Vec<u8>) {
        const AROUND_EVENT: usize = 6;
        const AROUND_ALL: usize = 128;
        // At once: growing step by step would copy what is there again and again.
        let bytes: usize = events.iter().map(|event| event.len() + AROUND_EVENT).sum();
        out.reserve(bytes + AROUND_ALL);
        let events = events.iter().copied();
        match self {
            Encoding::Json => json::encode_events(header, events, out),
            Encoding::MessagePack => msgpack::encode_events(header, events, out),
            Encoding::Protobuf => protobuf::encode_events(header, events, out),
        }
    }

    /// The array of events of a batch, which is what is compressed.
    pub(super) fn array(self, events: &[&[u8]], out: &mut Vec<u8>) {
        let events = events.iter().copied();
        match self {
            Encoding::Json => json::encode_array(events, out),
            Encoding::MessagePack => msgpack::encode_array(events, out),
            Encoding::Protobuf => protobuf::encode_array(events, out),
        }
    }

    /// A batch with its array compressed, as the payload of a binary frame.
    pub(super) fn compressed(self, header: &BatchHeader<'_>, deflated: &[u8], out: &mut Vec<u8>) {
        compressed::encode(deflated, out, |out| self.events(header, &[], out));
    }
}
