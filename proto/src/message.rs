//! The messages of the protocol as plain data: a client sends [`Request`]s, the broker answers with a
//! [`Reply`] to each and sends [`Push`]es unasked. How they look in bytes is [`crate::wire`]'s business.

use serde::{Deserialize, Serialize};

use crate::{
    Cursor, Event, LogId, NewEvent, Offset, Placed, SubscribeOptions, Timestamp, Topic, WireError,
    offset::LogsError, strict::given,
};

/// The number a client gives a request so that it knows the answer; unique among its open requests.
pub type RequestId = u32;

/// What stands beside a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// What the answer is to carry; without it only an error is answered.
    pub id: Option<RequestId>,
    /// Of a publish: it follows the one before it on this socket, and is refused where that one was refused and may be tried
    /// again, so that it does not go before it.
    pub follows: bool,
}

impl From<Option<RequestId>> for Head {
    fn from(id: Option<RequestId>) -> Head {
        Head { id, follows: false }
    }
}

/// What a client asks for. A request without an id is carried out and only an error is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Who the client is.
    Connect(Connect),
    /// Append one event.
    Publish(Box<Publish>),
    /// Append events atomically: all or none.
    PublishBatch(Vec<Publish>),
    /// Deliver what matches.
    Subscribe(Box<SubscribeOptions>),
    /// These events are done.
    Ack(Ack),
    /// These events should come again.
    Nack(Nack),
    /// Stop delivering.
    Unsubscribe {
        /// The session's number of the subscription.
        subscription: u32,
    },
    /// A newer token for the same subject.
    Refresh {
        /// The token.
        token: String,
    },
    /// Who is subscribed there?
    Presence {
        /// The topic.
        topic: Topic,
    },
    /// Who has acknowledged this event?
    Receipts {
        /// The event.
        offset: Placed,
    },
    /// Do not append this event that waits for its moment.
    Cancel {
        /// What `scheduled` gave.
        offset: Placed,
    },
    /// Are you there?
    Ping,
}

/// The first request of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// A JWT or an API key.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The client's name and version, for the broker's log.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The compressions the client can read, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compress: Vec<String>,
}

/// An event to append and what is to hold for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// The event.
    pub event: NewEvent,
    /// The topic's last offset, which must be this one: 0 for a topic that never had an event.
    pub expect_last: Option<u64>,
    /// Append it at this moment.
    pub deliver_at: Option<Timestamp>,
    /// Tell the publisher when durable subscriptions acknowledge it.
    pub receipts: bool,
}

impl Publish {
    /// Just this event.
    pub fn of(event: NewEvent) -> Publish {
        Publish { event, expect_last: None, deliver_at: None, receipts: false }
    }
}

/// Events that are done: exactly one of the two is given. In JSON and MessagePack an offset may say its log, as in
/// `"57@9f3c21d0"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AckForm")]
pub struct Ack {
    /// The session's number of the subscription (over HTTP the name in the path stands for it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<u32>,
    /// All up to and including this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
    /// Just these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offsets: Option<Vec<Offset>>,
    /// The log they belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// An [`Ack`] as it is written.
#[derive(Deserialize)]
#[serde(rename = "Ack", deny_unknown_fields)]
struct AckForm {
    #[serde(default, deserialize_with = "given")]
    subscription: Option<u32>,
    #[serde(default, deserialize_with = "given")]
    offset: Option<Placed>,
    #[serde(default, deserialize_with = "given")]
    offsets: Option<Vec<Placed>>,
    #[serde(default, deserialize_with = "given")]
    log: Option<String>,
}

impl TryFrom<AckForm> for Ack {
    type Error = LogsError;

    fn try_from(form: AckForm) -> Result<Ack, LogsError> {
        let AckForm { subscription, offset, offsets, log } = form;
        let (one, mut log) = Placed::of_one_log(offset.into_iter().collect(), log)?;
        let mut many = None;
        if let Some(offsets) = offsets {
            let (offsets, named) = Placed::of_one_log(offsets, log)?;
            (many, log) = (Some(offsets), named);
        }
        Ok(Ack { subscription, offset: one.first().copied(), offsets: many, log })
    }
}

/// Events that should come again. An offset may say its log as in [`Ack`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NackForm")]
pub struct Nack {
    /// The session's number of the subscription (over HTTP the name in the path stands for it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<u32>,
    /// The events.
    pub offsets: Vec<Offset>,
    /// How long to wait first, in milliseconds; else the subscription's backoff decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Why; kept with a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The log they belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// A [`Nack`] as it is written.
#[derive(Deserialize)]
#[serde(rename = "Nack", deny_unknown_fields)]
struct NackForm {
    #[serde(default, deserialize_with = "given")]
    subscription: Option<u32>,
    offsets: Vec<Placed>,
    #[serde(default, deserialize_with = "given")]
    delay_ms: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    reason: Option<String>,
    #[serde(default, deserialize_with = "given")]
    log: Option<String>,
}

impl TryFrom<NackForm> for Nack {
    type Error = LogsError;

    fn try_from(form: NackForm) -> Result<Nack, LogsError> {
        let NackForm { subscription, offsets, delay_ms, reason, log } = form;
        let (offsets, log) = Placed::of_one_log(offsets, log)?;
        Ok(Nack { subscription, offsets, delay_ms, reason, log })
    }
}

/// The answer to a request, tied to it by its id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Connect`].
    Connected(Connected),
    /// To [`Request::Publish`].
    Published(Published),
    /// To [`Request::PublishBatch`].
    PublishedBatch {
        /// One for each event, in order.
        results: Vec<Published>,
    },
    /// To [`Request::Subscribe`].
    Subscribed(Subscribed),
    /// To [`Request::Ack`].
    Acked(Acked),
    /// To [`Request::Nack`].
    Nacked {
        /// The session's number of the subscription.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subscription: Option<u32>,
    },
    /// To [`Request::Unsubscribe`].
    Unsubscribed {
        /// The session's number of the subscription.
        subscription: u32,
    },
    /// To [`Request::Refresh`].
    Refreshed {
        /// When the new token ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_expires: Option<Timestamp>,
    },
    /// To [`Request::Presence`].
    Presence(Presence),
    /// To [`Request::Receipts`].
    Receipts(Receipts),
    /// To a [`Request::Publish`] with [`Publish::deliver_at`]: where the event waits for its moment.
    Scheduled(Published),
    /// To [`Request::Cancel`].
    Cancelled {
        /// What `scheduled` gave.
        offset: Offset,
    },
    /// To [`Request::Ping`].
    Pong {},
    /// To any of them.
    Error(WireError),
}

/// What a session is told when it has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connected {
    /// Names the session in the broker's log and in presence.
    pub session: String,
    /// Who the broker takes the client for.
    pub subject: String,
    /// The log.
    pub log: LogId,
    /// The first offset there is (or will be).
    pub first: u64,
    /// The last offset there is; 0 when there is none.
    pub last: u64,
    /// How often the broker pings, in milliseconds.
    pub ping_interval_ms: u64,
    /// The most bytes one message may have.
    pub max_message_bytes: u64,
    /// When the token ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_expires: Option<Timestamp>,
    /// The compression chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<String>,
    /// Name and version of the broker.
    pub server: String,
}

/// Where an event was appended, or where it waits for its moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Its place.
    pub offset: Offset,
    /// Its id, given or made.
    pub id: String,
    /// Whether the same publisher had published it before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// A subscription has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// The session's number for it, not used again within the session.
    pub subscription: u32,
    /// Its name, when it is durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<String>,
    /// Delivery goes on after this.
    pub cursor: Cursor,
    /// Durable: all up to and including this is acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_acked: Option<Cursor>,
}

/// Acks are durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    /// The session's number of the subscription (left out over HTTP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<u32>,
    /// All up to and including this is acknowledged.
    pub cursor: Cursor,
}

/// Who is subscribed to a topic and wants to be listed there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// The topic.
    pub topic: Topic,
    /// The members, those who joined first before the others.
    pub members: Vec<Member>,
}

/// One who is listed on a topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Who it is.
    pub subject: String,
    /// The session it joined with: its name on this topic for as long as it is a member.
    pub session: String,
    /// When it joined.
    pub since: Timestamp,
    /// What it wants to be listed with.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub data: serde_json::Value,
}

/// Who has acknowledged an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipts {
    /// The event.
    pub offset: Offset,
    /// One for each durable subscription that the event matches.
    pub receipts: Vec<Receipt>,
}

/// How far an event has come with one durable subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The durable subscription.
    pub subscription: String,
    /// How far.
    pub state: ReceiptState,
}

/// The states of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptState {
    /// Not delivered yet.
    Pending,
    /// Delivered, not acknowledged.
    InFlight,
    /// Acknowledged.
    Acked,
    /// Passed without an ack: by a reset, or as one of very many dead.
    Skipped,
    /// Given up.
    Dead,
}

/// What the broker sends unasked. A batch of events is no [`Push`]: its events are encoded before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Push {
    /// The backlog at the time of the subscribe has been sent.
    CaughtUp {
        /// The session's number of the subscription.
        subscription: u32,
        /// Where it stands.
        cursor: Cursor,
    },
    /// Events are gone.
    Gap(Gap),
    /// A newer session has taken this durable subscription over.
    Superseded {
        /// The session's number of the subscription.
        subscription: u32,
    },
    /// Another session has moved the floor of a mirrored durable subscription.
    Acked(Acked),
    /// The token will end.
    TokenExpiring {
        /// In this many milliseconds.
        in_ms: u64,
    },
    /// The broker is about to close the connection.
    Goodbye {
        /// Why: `shutting_down`.
        code: String,
        /// When to come back, in milliseconds; spread at random.
        reconnect_after_ms: u64,
    },
    /// An error that belongs to no request.
    Error(WireError),
    /// To a [`Request::Ping`] without an id.
    Pong {},
}

/// Events after `requested` are gone; delivery goes on from `first`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The session's number of the subscription (left out over HTTP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<u32>,
    /// Where the subscriber wanted to go on.
    pub requested: Cursor,
    /// The first offset there is.
    pub first: u64,
    /// The last offset there is.
    pub last: u64,
    /// The log these belong to.
    pub log: LogId,
    /// Why they are gone.
    pub reason: GapReason,
}

/// Why events are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// Retention removed them.
    Retention,
    /// They were erased.
    Erased,
    /// The position belongs to another log.
    LogChanged,
    /// The storage found them damaged.
    Corrupt,
}

/// A batch of events as a client reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Events {
    /// The session's number of the subscription.
    pub subscription: u32,
    /// The cursor before the batch; absent with `order: "priority"`.
    pub after: Option<Cursor>,
    /// The cursor behind it.
    pub cursor: Option<Cursor>,
    /// The events.
    pub events: Vec<Event>,
    /// How often those delivered before have been: offset → deliveries with this one.
    pub attempts: Vec<(Offset, u32)>,
}

/// Anything the broker sends, as a client reads it.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerMessage {
    /// An answer.
    Reply(RequestId, Reply),
    /// Events.
    Events(Events),
    /// Anything else.
    Push(Push),
}
