//! What the broker appends for itself: durable subscriptions and their acks are events too, on topics
//! that start with `$` and that no client may publish to.
//!
//! A control event's data is JSON of the types here, but for [`AckStates`]; its topic says which.

use std::sync::Arc;

mod acks;
mod auth;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::auth::{AUTH_TOPIC, ApiKey, AuthChange};
use crate::{Cursor, Filter, SubscribeOptions, Timestamp, Topic};

/// The topic of [`SubscriptionChange`].
pub const SUBSCRIPTIONS_TOPIC: &str = "$subscriptions";
/// The topic of [`AckStates`].
pub const ACKS_TOPIC: &str = "$acks";
/// The topic of events that wait for their moment, and of [`ScheduleChange`].
pub const SCHEDULED_TOPIC: &str = "$scheduled";
/// The type of the event of a [`ScheduleChange`].
pub const SCHEDULE_CHANGE: &str = "schedule.changed";
/// The topic of [`Lost`].
pub const LOST_TOPIC: &str = "$log.lost";

/// A durable subscription was made, changed or forgotten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionChange {
    /// It was made, or its options changed.
    Put(Box<DurableSpec>),
    /// It was paused, or goes on.
    Paused {
        /// Its name.
        name: String,
        /// Its number.
        number: u64,
        /// Whether nothing is delivered from here on.
        paused: bool,
    },
    /// It was forgotten.
    Deleted {
        /// Its name.
        name: String,
        /// Its number.
        number: u64,
    },
}

/// A durable subscription as it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DurableSpec {
    /// Its name.
    pub name: String,
    /// Names this life of it: a durable made again under the same name has another number.
    pub number: u64,
    /// Its options.
    pub options: SubscribeOptions,
    /// Where it began: everything up to and including this counts as acknowledged.
    pub start: Cursor,
    /// Who made it.
    pub owner: String,
    /// Up to here only the last event of every topic and key is delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_until: Option<Cursor>,
    /// Receipts count from behind here on; `None`: from where it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Cursor>,
    /// What it wants is other than before: receipts count from behind this very event on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wants_changed: bool,
}

impl DurableSpec {
    /// Receipts count from behind here on.
    pub fn receipts_since(&self) -> Cursor {
        self.since.unwrap_or(self.start)
    }
}

/// The newest ack states of the durables whose acks came in since the last such event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AckStates {
    /// One for each durable.
    pub states: Vec<AckState>,
}

/// How far one durable subscription has been acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckState {
    /// The durable's name.
    pub name: String,
    /// The durable's number.
    pub number: u64,
    /// Rises with every reset.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// All up to and including this is acknowledged.
    pub floor: Cursor,
    /// Acknowledged above the floor: first and last offset of each range, rising, not touching.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<(u64, u64)>,
    /// Deliveries of events that were delivered more than once and are not acknowledged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<(u64, u32)>,
    /// Not before this moment (milliseconds since the epoch) are these events to be delivered again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delayed: Vec<(u64, u64)>,
    /// Of the acknowledged, those that are dead: offset and number of the letter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dead: Vec<(u64, u64)>,
    /// How many dead letters were written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub letters: u64,
    /// Of the acknowledged, those that were passed without an ack and are not among `dead`: first and last offset of
    /// each range, rising, not touching.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<(u64, u64)>,
    /// Redriven, and not taken by a socket since; rising.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redriven: Vec<u64>,
}

/// The topic of [`RetentionChange`]; its key is the filter, or `erase:` and the topic.
pub const RETENTION_TOPIC: &str = "$retention";

/// How long events are kept: each limit by itself; without any, for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetentionRule {
    /// Not longer than this, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// Not more bytes of all that the filter matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Not more events of all that the filter matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_events: Option<u64>,
    /// Of each topic and key only the last event.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub compact: bool,
}

/// A rule of retention was made, changed or forgotten; or a topic is to be erased.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetentionChange {
    /// The rule for what this filter matches.
    Put {
        /// The filter.
        filter: Filter,
        /// What holds for it.
        rule: RetentionRule,
    },
    /// The rule for this filter is forgotten.
    Deleted {
        /// The filter.
        filter: Filter,
    },
    /// All events of a topic up to an offset are to go for good.
    Erase {
        /// The topic.
        topic: Topic,
        /// The last offset that goes.
        upto: Cursor,
    },
}

/// The first token of the topics of [`DeadLetter`]; the second is the durable's name.
pub const DEAD_ROOT: &str = "$dead";

/// An event that a durable subscription was given as often as it may be, and did not acknowledge. It is
/// appended in one batch with the [`AckState`] that counts the event as settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The durable's name.
    pub durable: String,
    /// The event.
    pub offset: u64,
    /// Its topic; absent where the event could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Its id; absent where the event could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What the last nack gave as its reason; without one, how the last delivery ended.
    pub reason: String,
    /// How the last delivery ended: `nack`, `ack_wait` or `detached`.
    pub ended_by: String,
    /// How often it was delivered.
    pub attempts: u32,
    /// The durable's number: which life of the name.
    pub life: u64,
    /// Counts the letters of that life.
    pub letter: u64,
}

/// The first token of the topics of [`ReceiptAcked`]; the second is the publisher's subject as one token, see
/// [`subject_token`](crate::topic::subject_token).
pub const RECEIPTS_ROOT: &str = "$receipts";
/// The type of the event of a [`ReceiptAcked`].
pub const RECEIPT_ACKED: &str = "receipt.acked";

/// A durable subscription has acknowledged an event that was published with `receipts`. It is appended in one
/// batch with the [`AckState`] that covers the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptAcked {
    /// The event.
    pub offset: u64,
    /// The durable's name.
    pub subscription: String,
}

/// The first token of the topics of [`PresenceChange`]; behind it stands the topic that it is about.
pub const PRESENCE_ROOT: &str = "$presence";

/// Somebody has joined a topic, or left it: an event of type `presence.joined` or `presence.left`, whose key
/// is the member's session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PresenceChange {
    /// Who it is.
    pub subject: String,
    /// The session it joined with: its name on this topic for as long as it is a member.
    pub session: String,
    /// When it joined.
    pub since: Timestamp,
    /// What it is listed with; absent: null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Arc<RawValue>>,
    /// Why it has left; absent where it has joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<LeaveReason>,
}

/// Why a member has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaveReason {
    /// It unsubscribed.
    Left,
    /// Its connection was lost, and nobody came back for it.
    Gone,
    /// The broker was started anew, and nobody came back for it.
    Restart,
}

impl LeaveReason {
    /// All of them.
    pub const ALL: [LeaveReason; 3] = [LeaveReason::Left, LeaveReason::Gone, LeaveReason::Restart];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            LeaveReason::Left => "left",
            LeaveReason::Gone => "gone",
            LeaveReason::Restart => "restart",
        }
    }
}

/// An event waits for its moment no more. Its key is the offset of the event of type `scheduled` that it is
/// about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleChange {
    /// The offset of the event of type `scheduled`.
    pub scheduled: u64,
    /// Why it does not wait any more.
    pub outcome: ScheduleOutcome,
}

/// Why an event waits for its moment no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleOutcome {
    /// It was appended, in the same batch just before the change.
    Fired,
    /// Its publisher does not want it any more.
    Cancelled,
    /// It could not be read.
    Lost,
}

impl ScheduleOutcome {
    /// All of them.
    pub const ALL: [ScheduleOutcome; 3] =
        [ScheduleOutcome::Fired, ScheduleOutcome::Cancelled, ScheduleOutcome::Lost];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ScheduleOutcome::Fired => "fired",
            ScheduleOutcome::Cancelled => "cancelled",
            ScheduleOutcome::Lost => "lost",
        }
    }
}

/// Offsets that a torn tail could have held when it was cut; they are never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The first of them.
    pub from: u64,
    /// The last of them.
    pub to: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}
