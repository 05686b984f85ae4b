//! Requests in Protobuf: a `Request` with an id and one of the requests.

use prost::Message;

use super::{
    BadRequest, Incoming,
    fields::REQUEST,
    generated::{self, ack::Done, request::Request as Wire},
    offset,
    publish::{publish_of, publishes_of},
    push, strict,
    subscribe::options_of,
};
use crate::{
    Offset, Topic, WireError,
    message::{Ack, Connect, Head, Nack, Request},
    wire::{Fault, invalid},
};

/// Reads a request.
///
/// # Errors
/// When the bytes are no request or what it holds is not valid; with the id, if that can be read.
pub fn decode_request(bytes: &[u8]) -> Result<Incoming, BadRequest> {
    let bad = |error| BadRequest { id: strict::id_of(bytes), error };
    strict::check(bytes, REQUEST).map_err(bad)?;
    let message = generated::Request::decode(bytes)
        .map_err(|error| bad(invalid("message", &format!("is not Protobuf: {error}"))))?;
    let Some(request) = message.request else {
        return Err(bad(invalid("message", "has no request: give one")));
    };
    let head = Head { id: message.id, follows: message.follows };
    request_of(request).and_then(|request| Incoming::checked(head, request)).map_err(bad)
}

/// Appends a request.
pub fn encode_request(head: impl Into<Head>, request: &Request, out: &mut Vec<u8>) {
    let request = match request {
        Request::Connect(connect) => Wire::Connect(generated::Connect {
            token: connect.token.clone(),
            client: connect.client.clone(),
            compress: connect.compress.clone(),
        }),
        Request::Publish(publish) => Wire::Publish(publish.as_ref().into()),
        Request::PublishBatch(publishes) => Wire::PublishBatch(generated::PublishBatch {
            events: publishes.iter().map(generated::Publish::from).collect(),
        }),
        Request::Subscribe(options) => Wire::Subscribe(options.as_ref().into()),
        Request::Ack(ack) => Wire::Ack(ack.into()),
        Request::Nack(nack) => Wire::Nack(generated::Nack {
            subscription: nack.subscription,
            offsets: numbers(&nack.offsets),
            delay_ms: nack.delay_ms,
            reason: nack.reason.clone(),
            log: nack.log.clone(),
        }),
        Request::Unsubscribe { subscription } => {
            Wire::Unsubscribe(generated::Unsubscribe { subscription: Some(*subscription) })
        }
        Request::Refresh { token } => {
            Wire::Refresh(generated::Refresh { token: Some(token.clone()) })
        }
        Request::Presence { topic } => {
            Wire::Presence(generated::PresenceQuery { topic: topic.as_str().to_owned() })
        }
        Request::Receipts { offset } => {
            Wire::Receipts(generated::ReceiptsQuery { offset: offset.offset.get() })
        }
        Request::Cancel { offset } => {
            Wire::Cancel(generated::Cancel { offset: offset.offset.get() })
        }
        Request::Ping => Wire::Ping(generated::Ping {}),
    };
    let Head { id, follows } = head.into();
    push(&generated::Request { id, follows, request: Some(request) }, out);
}

impl From<&Ack> for generated::Ack {
    fn from(ack: &Ack) -> generated::Ack {
        let done = match (ack.offset, &ack.offsets) {
            (Some(offset), _) => Some(Done::Offset(offset.get())),
            (None, Some(offsets)) => {
                Some(Done::Offsets(generated::Offsets { offsets: numbers(offsets) }))
            }
            (None, None) => None,
        };
        generated::Ack { subscription: ack.subscription, done, log: ack.log.clone() }
    }
}

fn numbers(offsets: &[Offset]) -> Vec<u64> {
    offsets.iter().map(|offset| offset.get()).collect()
}

fn request_of(given: Wire) -> Result<Request, WireError> {
    Ok(match given {
        Wire::Connect(generated::Connect { token, client, compress }) => {
            Request::Connect(Connect { token, client, compress })
        }
        Wire::Publish(it) => {
            Request::Publish(Box::new(publish_of(it).map_err(|fault| fault.under("publish"))?))
        }
        Wire::PublishBatch(it) => {
            Request::PublishBatch(publishes_of(it.events, "publish_batch.events")?)
        }
        Wire::Subscribe(it) => {
            Request::Subscribe(Box::new(options_of(it).map_err(|fault| fault.under("subscribe"))?))
        }
        Wire::Ack(it) => Request::Ack(ack_of(it).map_err(|fault| fault.under("ack"))?),
        Wire::Nack(it) => Request::Nack(nack_of(it).map_err(|fault| fault.under("nack"))?),
        Wire::Unsubscribe(it) => Request::Unsubscribe {
            subscription: needed("unsubscribe.subscription", it.subscription)?,
        },
        Wire::Refresh(it) => Request::Refresh { token: needed("refresh.token", it.token)? },
        Wire::Presence(it) => {
            let topic = Topic::parse(&it.topic);
            let wrong = |error| invalid("presence.topic", &format!("{error}"));
            Request::Presence { topic: topic.map_err(wrong)? }
        }
        Wire::Receipts(it) => {
            let offset = offset("offset", it.offset).map_err(|fault| fault.under("receipts"))?;
            Request::Receipts { offset: offset.into() }
        }
        Wire::Cancel(it) => {
            let offset = offset("offset", it.offset).map_err(|fault| fault.under("cancel"))?;
            Request::Cancel { offset: offset.into() }
        }
        Wire::Ping(generated::Ping {}) => Request::Ping,
    })
}

fn needed<T>(path: &str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or_else(|| invalid(path, "is missing"))
}

fn ack_of(given: generated::Ack) -> Result<Ack, Fault> {
    let subscription =
        given.subscription.ok_or_else(|| Fault::new("subscription", "is missing"))?;
    let (one, many) = match given.done {
        Some(Done::Offset(n)) => (Some(offset("offset", n)?), None),
        Some(Done::Offsets(many)) => (None, Some(offsets(&many.offsets)?)),
        None => return Err(Fault::new("offset", "is missing: give offset or offsets")),
    };
    Ok(Ack { subscription: Some(subscription), offset: one, offsets: many, log: given.log })
}

fn nack_of(given: generated::Nack) -> Result<Nack, Fault> {
    if given.subscription.is_none() {
        return Err(Fault::new("subscription", "is missing"));
    }
    Ok(Nack {
        subscription: given.subscription,
        offsets: offsets(&given.offsets)?,
        delay_ms: given.delay_ms,
        reason: given.reason,
        log: given.log,
    })
}

fn offsets(given: &[u64]) -> Result<Vec<Offset>, Fault> {
    let one = |(n, &number): (usize, &u64)| {
        // The path is put together only for an error: there may be many offsets.
        Offset::new(number).ok_or(()).or_else(|()| offset(&format!("offsets[{n}]"), number))
    };
    given.iter().enumerate().map(one).collect()
}
