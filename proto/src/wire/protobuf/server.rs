//! What the broker sends, in Protobuf: replies, pushes and batches of events.

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};

use super::{
    BatchHeader, cursor,
    event::event_of,
    field_len,
    generated::{self, server_message::Message as Wire},
    offset, push,
    subscribe::json_of,
    words::{code, code_of, gap_reason, gap_reason_of, state, state_of},
};
use crate::{
    Cursor, Event, LogId, Timestamp, Topic, WireError,
    message::{
        Acked, Connected, Events, Gap, Member, Presence, Published, Push, Receipt, Receipts, Reply,
        RequestId, ServerMessage, Subscribed,
    },
    wire::{Fault, compressed, invalid, stored::push_field},
};

/// Appends a reply. Without an id there is no `reply` in it.
pub fn encode_reply(id: Option<RequestId>, reply: &Reply, out: &mut Vec<u8>) {
    push(&generated::ServerMessage { reply: id, message: Some(reply.into()) }, out);
}

/// Appends a push.
pub fn encode_push(message: &Push, out: &mut Vec<u8>) {
    push(&generated::ServerMessage { reply: None, message: Some(message.into()) }, out);
}

/// Appends a batch of events, each of them encoded by [`super::encode_event`].
pub fn encode_events<'a>(
    header: &BatchHeader<'_>,
    events: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) {
    // The length of all comes before the first, so they are gone through twice.
    let events: Vec<&[u8]> = events.collect();
    let before = generated::Events {
        subscription: header.subscription,
        after: header.after.map(Cursor::get),
        cursor: header.cursor.map(Cursor::get),
        ..generated::Events::default()
    };
    let attempt = |&(offset, deliveries): &(crate::Offset, u32)| generated::Attempt {
        offset: offset.get(),
        deliveries,
    };
    let behind = generated::Events {
        attempts: header.attempts.iter().map(attempt).collect(),
        ..generated::Events::default()
    };
    let events_len: usize = events.iter().map(|event| field_len(event.len())).sum();
    let len = before.encoded_len() + events_len + behind.encoded_len();
    out.reserve(field_len(len));
    encode_key(EVENTS, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
    push(&before, out);
    encode_array(events.into_iter(), out);
    push(&behind, out);
}

/// Appends the array of events of a batch alone, which is what a [compressed](crate::wire::compressed) one
/// compresses.
pub fn encode_array<'a>(events: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    for event in events {
        push_field(EVENT, event, out);
    }
}

/// Reads a frame with a [compressed](crate::wire::compressed) batch, of which at most `inflated_bytes_max` bytes
/// may come.
///
/// # Errors
/// When the bytes are no such frame, or more would come of them.
pub fn decode_compressed(frame: &[u8], inflated_bytes_max: usize) -> Result<Events, WireError> {
    compressed::decode(frame, inflated_bytes_max, decode_server_message, decode_array)
}

/// Reads anything that the broker sends; fields that are not known here are skipped.
///
/// # Errors
/// When the bytes are no such message, or of a kind that this version does not know.
pub fn decode_server_message(bytes: &[u8]) -> Result<ServerMessage, WireError> {
    let message = generated::ServerMessage::decode(bytes)
        .map_err(|error| invalid("message", &format!("is not Protobuf: {error}")))?;
    let Some(given) = message.message else {
        return Err(invalid("message", "is of no kind that this version knows"));
    };
    match (message.reply, given) {
        (None, Wire::Events(batch)) => events_of(batch).map(ServerMessage::Events),
        (None, given) => push_of(given).map(ServerMessage::Push),
        (Some(id), given) => reply_of(given).map(|reply| ServerMessage::Reply(id, reply)),
    }
}

impl From<&Reply> for Wire {
    fn from(reply: &Reply) -> Wire {
        match reply {
            Reply::Connected(it) => Wire::Connected(it.into()),
            Reply::Published(it) => Wire::Published(it.into()),
            Reply::PublishedBatch { results } => Wire::PublishedBatch(generated::PublishedBatch {
                results: results.iter().map(generated::Published::from).collect(),
            }),
            Reply::Subscribed(it) => Wire::Subscribed(generated::Subscribed {
                subscription: it.subscription,
                durable: it.durable.clone(),
                cursor: it.cursor.get(),
                last_acked: it.last_acked.map(Cursor::get),
            }),
            Reply::Acked(it) => Wire::Acked(it.into()),
            &Reply::Nacked { subscription } => Wire::Nacked(generated::Nacked { subscription }),
            &Reply::Unsubscribed { subscription } => {
                Wire::Unsubscribed(generated::Unsubscribed { subscription })
            }
            Reply::Refreshed { token_expires } => Wire::Refreshed(generated::Refreshed {
                token_expires_ms: token_expires.map(Timestamp::as_millis),
            }),
            Reply::Presence(it) => Wire::Presence(it.into()),
            Reply::Receipts(it) => Wire::Receipts(it.into()),
            Reply::Scheduled(it) => Wire::Scheduled(generated::Scheduled {
                offset: it.offset.get(),
                id: it.id.clone(),
                duplicate: it.duplicate,
            }),
            Reply::Cancelled { offset } => {
                Wire::Cancelled(generated::Cancelled { offset: offset.get() })
            }
            Reply::Pong {} => Wire::Pong(generated::Pong {}),
            Reply::Error(it) => Wire::Error(it.into()),
        }
    }
}

impl From<&Push> for Wire {
    fn from(push: &Push) -> Wire {
        match push {
            &Push::CaughtUp { subscription, cursor } => {
                Wire::CaughtUp(generated::CaughtUp { subscription, cursor: cursor.get() })
            }
            Push::Gap(it) => Wire::Gap(generated::Gap {
                subscription: it.subscription,
                requested: it.requested.get(),
                first: it.first,
                last: it.last,
                log: it.log.to_string(),
                reason: gap_reason(it.reason).into(),
            }),
            &Push::Superseded { subscription } => {
                Wire::Superseded(generated::Superseded { subscription })
            }
            Push::Acked(it) => Wire::Acked(it.into()),
            &Push::TokenExpiring { in_ms } => {
                Wire::TokenExpiring(generated::TokenExpiring { in_ms })
            }
            Push::Goodbye { code, reconnect_after_ms } => Wire::Goodbye(generated::Goodbye {
                code: code.clone(),
                reconnect_after_ms: *reconnect_after_ms,
            }),
            Push::Error(it) => Wire::Error(it.into()),
            Push::Pong {} => Wire::Pong(generated::Pong {}),
        }
    }
}

impl From<&Connected> for generated::Connected {
    fn from(it: &Connected) -> generated::Connected {
        generated::Connected {
            session: it.session.clone(),
            subject: it.subject.clone(),
            log: it.log.to_string(),
            first: it.first,
            last: it.last,
            ping_interval_ms: it.ping_interval_ms,
            max_message_bytes: it.max_message_bytes,
            token_expires_ms: it.token_expires.map(Timestamp::as_millis),
            compress: it.compress.clone(),
            server: it.server.clone(),
        }
    }
}

impl From<&Published> for generated::Published {
    fn from(it: &Published) -> generated::Published {
        let (offset, id) = (it.offset.get(), it.id.clone());
        generated::Published { offset, id, duplicate: it.duplicate }
    }
}

impl From<&Acked> for generated::Acked {
    fn from(it: &Acked) -> generated::Acked {
        generated::Acked { subscription: it.subscription, cursor: it.cursor.get() }
    }
}

impl From<&Presence> for generated::Members {
    fn from(it: &Presence) -> generated::Members {
        let one = |member: &Member| generated::Member {
            subject: member.subject.clone(),
            session: member.session.clone(),
            since_ms: member.since.as_millis(),
            data: (!member.data.is_null()).then(|| member.data.to_string().into()),
        };
        let members = it.members.iter().map(one).collect();
        generated::Members { topic: it.topic.as_str().to_owned(), members }
    }
}

impl From<&Receipts> for generated::Receipts {
    fn from(it: &Receipts) -> generated::Receipts {
        let one = |receipt: &Receipt| generated::Receipt {
            subscription: receipt.subscription.clone(),
            state: state(receipt.state).into(),
        };
        let receipts = it.receipts.iter().map(one).collect();
        generated::Receipts { offset: it.offset.get(), receipts }
    }
}

impl From<&WireError> for generated::Error {
    fn from(it: &WireError) -> generated::Error {
        generated::Error {
            code: code(it.code).into(),
            message: it.message.clone(),
            retryable: it.retryable,
            retry_after_ms: it.retry_after_ms,
            first: it.first,
            last: it.last,
            log: it.log.map(|log| log.to_string()),
        }
    }
}

fn reply_of(given: Wire) -> Result<Reply, WireError> {
    match given {
        Wire::Connected(it) => named("connected", connected_of(it)).map(Reply::Connected),
        Wire::Published(it) => named("published", published_of(it)).map(Reply::Published),
        Wire::PublishedBatch(it) => {
            let results = it.results.into_iter().map(published_of).collect::<Result<_, _>>();
            named("published_batch", results).map(|results| Reply::PublishedBatch { results })
        }
        Wire::Subscribed(it) => named("subscribed", subscribed_of(it)).map(Reply::Subscribed),
        Wire::Acked(it) => named("acked", acked_of(&it)).map(Reply::Acked),
        Wire::Nacked(it) => Ok(Reply::Nacked { subscription: it.subscription }),
        Wire::Unsubscribed(it) => Ok(Reply::Unsubscribed { subscription: it.subscription }),
        Wire::Refreshed(it) => {
            Ok(Reply::Refreshed { token_expires: it.token_expires_ms.map(Timestamp::from_millis) })
        }
        Wire::Presence(it) => named("presence", presence_of(it)).map(Reply::Presence),
        Wire::Receipts(it) => named("receipts", receipts_of(it)).map(Reply::Receipts),
        Wire::Scheduled(generated::Scheduled { offset, id, duplicate }) => {
            let it = generated::Published { offset, id, duplicate };
            named("scheduled", published_of(it)).map(Reply::Scheduled)
        }
        Wire::Cancelled(it) => named("cancelled", offset("offset", it.offset))
            .map(|offset| Reply::Cancelled { offset }),
        Wire::Pong(generated::Pong {}) => Ok(Reply::Pong {}),
        Wire::Error(it) => named("error", error_of(it)).map(Reply::Error),
        Wire::Events(_)
        | Wire::CaughtUp(_)
        | Wire::Gap(_)
        | Wire::Superseded(_)
        | Wire::TokenExpiring(_)
        | Wire::Goodbye(_) => Err(invalid("message", "has an id, but is no reply")),
    }
}

fn push_of(given: Wire) -> Result<Push, WireError> {
    match given {
        Wire::CaughtUp(it) => named("caught_up", cursor("cursor", it.cursor))
            .map(|cursor| Push::CaughtUp { subscription: it.subscription, cursor }),
        Wire::Gap(it) => named("gap", gap_of(&it)).map(Push::Gap),
        Wire::Superseded(it) => Ok(Push::Superseded { subscription: it.subscription }),
        Wire::Acked(it) => named("acked", acked_of(&it)).map(Push::Acked),
        Wire::TokenExpiring(it) => Ok(Push::TokenExpiring { in_ms: it.in_ms }),
        Wire::Goodbye(generated::Goodbye { code, reconnect_after_ms }) => {
            Ok(Push::Goodbye { code, reconnect_after_ms })
        }
        Wire::Error(it) => named("error", error_of(it)).map(Push::Error),
        Wire::Pong(generated::Pong {}) => Ok(Push::Pong {}),
        _ => Err(invalid("message", "has no id, but is a reply")),
    }
}

fn named<T>(name: &str, read: Result<T, Fault>) -> Result<T, WireError> {
    read.map_err(|fault| fault.under(name))
}

fn decode_array(bytes: &[u8]) -> Result<Vec<Event>, WireError> {
    let batch = generated::Events::decode(bytes)
        .map_err(|error| invalid("events", &format!("are not Protobuf: {error}")))?;
    array_of(batch.events)
}

fn array_of(events: Vec<generated::Event>) -> Result<Vec<Event>, WireError> {
    let one = |(n, event): (usize, generated::Event)| {
        event_of(event).map_err(|fault| fault.under(&format!("events.events[{n}]")))
    };
    events.into_iter().enumerate().map(one).collect()
}

fn events_of(given: generated::Events) -> Result<Events, WireError> {
    let events = array_of(given.events)?;
    let place = |field, n: Option<u64>| named("events", n.map(|n| cursor(field, n)).transpose());
    let attempt = |it: &generated::Attempt| Ok((offset("attempts", it.offset)?, it.deliveries));
    let attempts = given.attempts.iter().map(attempt).collect::<Result<_, _>>();
    Ok(Events {
        subscription: given.subscription,
        after: place("after", given.after)?,
        cursor: place("cursor", given.cursor)?,
        events,
        attempts: named("events", attempts)?,
    })
}

fn connected_of(it: generated::Connected) -> Result<Connected, Fault> {
    Ok(Connected {
        session: it.session,
        subject: it.subject,
        log: log_of(&it.log)?,
        first: it.first,
        last: it.last,
        ping_interval_ms: it.ping_interval_ms,
        max_message_bytes: it.max_message_bytes,
        token_expires: it.token_expires_ms.map(Timestamp::from_millis),
        compress: it.compress,
        server: it.server,
    })
}

fn published_of(it: generated::Published) -> Result<Published, Fault> {
    Ok(Published { offset: offset("offset", it.offset)?, id: it.id, duplicate: it.duplicate })
}

fn subscribed_of(it: generated::Subscribed) -> Result<Subscribed, Fault> {
    Ok(Subscribed {
        subscription: it.subscription,
        durable: it.durable,
        cursor: cursor("cursor", it.cursor)?,
        last_acked: it.last_acked.map(|n| cursor("last_acked", n)).transpose()?,
    })
}

fn acked_of(it: &generated::Acked) -> Result<Acked, Fault> {
    Ok(Acked { subscription: it.subscription, cursor: cursor("cursor", it.cursor)? })
}

fn presence_of(it: generated::Members) -> Result<Presence, Fault> {
    let one = |(n, member): (usize, generated::Member)| {
        let field = format!("members[{n}].data");
        let data =
            member.data.map_or(Ok(serde_json::Value::Null), |data| json_of(&field, &data))?;
        Ok(Member {
            subject: member.subject,
            session: member.session,
            since: Timestamp::from_millis(member.since_ms),
            data,
        })
    };
    let topic = Topic::parse(&it.topic).map_err(|error| Fault::new("topic", error.to_string()))?;
    let members = it.members.into_iter().enumerate().map(one).collect::<Result<_, Fault>>()?;
    Ok(Presence { topic, members })
}

fn receipts_of(it: generated::Receipts) -> Result<Receipts, Fault> {
    let one = |receipt: generated::Receipt| {
        let state = state_of(receipt.state())?;
        Ok(Receipt { subscription: receipt.subscription, state })
    };
    let receipts = it.receipts.into_iter().map(one).collect::<Result<_, Fault>>()?;
    Ok(Receipts { offset: offset("offset", it.offset)?, receipts })
}

fn error_of(it: generated::Error) -> Result<WireError, Fault> {
    Ok(WireError {
        code: code_of(it.code())?,
        message: it.message,
        retryable: it.retryable,
        retry_after_ms: it.retry_after_ms,
        first: it.first,
        last: it.last,
        log: it.log.as_deref().map(log_of).transpose()?,
    })
}

fn gap_of(it: &generated::Gap) -> Result<Gap, Fault> {
    Ok(Gap {
        subscription: it.subscription,
        requested: cursor("requested", it.requested)?,
        first: it.first,
        last: it.last,
        log: log_of(&it.log)?,
        reason: gap_reason_of(it.reason())?,
    })
}

fn log_of(text: &str) -> Result<LogId, Fault> {
    text.parse().map_err(|_| Fault::new("log", "is not the id of a log"))
}

// Field numbers of ServerMessage.events and of Events.events.
const EVENTS: u32 = 2;
const EVENT: u32 = 4;
