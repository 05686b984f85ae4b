//! Why the broker did not do what it was asked; one enum an operation.

use tidings_proto::{Cursor, LogId, Offset, Position};

pub use crate::log::{AppendError, ReadError};

/// What to do where a subscription cannot begin with what is gone.
pub(super) const CONTINUE: &str = "subscribe without \"on_gap\":\"error\" to go on from there";
/// The same where a durable cannot be made to begin there.
pub(super) const START_ELSEWHERE: &str =
    "let start be \"first\", \"now\", a time, or an offset in between";
/// The same where a durable cannot be reset to it.
pub(super) const RESET_ELSEWHERE: &str =
    "let to be \"first\", \"now\", a time, or an offset in between";

/// Why nothing was published.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The log's answer.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A batch without events.
    #[error("events: a batch needs at least one event")]
    EmptyBatch,
    /// An option that the protocol does not allow here.
    #[error("{field}: {problem}")]
    Invalid {
        /// The option.
        field: &'static str,
        /// What is wrong and what it should be.
        problem: String,
    },
    /// As many events wait for their moment as may.
    #[error(
        "deliver_at: {max} events wait for their moment, the most this broker keeps (limits.scheduled): cancel one"
    )]
    TooManyScheduled {
        /// The bound.
        max: usize,
    },
    /// The same was scheduled before, and cancelled.
    #[error(
        "id: {id:?} was scheduled as {offset} and cancelled, so it is not published: give what is to be another id"
    )]
    Cancelled {
        /// The id.
        id: String,
        /// What had waited.
        offset: Offset,
    },
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why an event that waits for its moment was not cancelled.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CancelError {
    /// Nothing was scheduled under this offset, or by somebody else.
    #[error("offset: there is no scheduled event {0} of yours")]
    Unknown(Offset),
    /// It has been published.
    #[error("offset: the scheduled event {offset} has been published, as event {event}")]
    TooLate {
        /// What was to be cancelled.
        offset: Offset,
        /// Where it stands.
        event: Cursor,
    },
    /// It is just being published, or cancelled by somebody else.
    #[error("offset: the scheduled event {0} is being published or cancelled at this moment")]
    Ending(Offset),
    /// It could not be stored.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why there is no subscription.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubscribeError {
    /// An option that does not fit.
    #[error("{field}: {problem}")]
    Invalid {
        /// The option.
        field: &'static str,
        /// What is wrong and what it should be.
        problem: String,
    },
    /// The durable exists with other options.
    #[error(
        "durable \"{name}\" exists with other options ({differs}): use them, delete it, or change it with PUT /v1/subscriptions/{name}"
    )]
    Conflict {
        /// Its name.
        name: String,
        /// Which option differs.
        differs: &'static str,
    },
    /// A fetch by the name of a reader that reads over a socket or a stream by now.
    #[error(
        "reader: {reader:?} has gone on over a socket or a stream (lost_reader), which this fetch does not supersede: fetch by another name"
    )]
    GoneOn {
        /// The name.
        reader: String,
    },
    /// There is no such durable.
    #[error("there is no durable subscription \"{0}\"")]
    Unknown(String),
    /// The position belongs to another log.
    #[error(
        "{position} is of another log than this one, {log}, which begins at {first} and ends at {last}; {hint}"
    )]
    OtherLog {
        /// What was asked for.
        position: Position,
        /// This log.
        log: LogId,
        /// The first offset there is.
        first: u64,
        /// The last.
        last: u64,
        /// What to do instead.
        hint: &'static str,
    },
    /// The position is above the last event, or the events behind it are gone.
    #[error(
        "{}: the log begins at {first} and ends at {last}; {hint}",
        match requested.get() > *last {
            true => format!("{requested} is above the last event"),
            false => format!("the events after {requested} are gone"),
        }
    )]
    Gone {
        /// What was asked for.
        requested: Cursor,
        /// The first offset there is.
        first: u64,
        /// The last.
        last: u64,
        /// What to do instead.
        hint: &'static str,
    },
    /// There are as many durables as there may be.
    #[error(
        "durable: there are {max} durable subscriptions, the most there may be ({setting}): delete one"
    )]
    TooMany {
        /// The bound.
        max: usize,
        /// The setting that says so.
        setting: &'static str,
    },
    /// There are as many members as there may be.
    #[error("presence: {of} has {max} members, the most it may have ({setting})")]
    TooManyMembers {
        /// The topic, or the broker.
        of: String,
        /// The bound.
        max: usize,
        /// The setting that says so.
        setting: &'static str,
    },
    /// The states that are being given out have as many topics and keys as they may.
    #[error(
        "last_per_key: the states that are being given out have no room for another one: {max} topics and keys together (limits.state_slots): come again"
    )]
    TooManySlots {
        /// The bound.
        max: usize,
    },
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The durable, or the join, could not be stored.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why an ack or nack was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AckError {
    /// Not a durable subscription.
    #[error(
        "subscription: it is not durable, so it has nothing to acknowledge: subscribe with \"durable\""
    )]
    NotDurable,
    /// There is no such durable.
    #[error("there is no durable subscription \"{0}\"")]
    Unknown(String),
    /// Above the last event.
    #[error("offset: {offset} is above the last event, {last}")]
    AboveLast {
        /// What was acknowledged.
        offset: Offset,
        /// The last there is.
        last: Cursor,
    },
    /// A nack would wait longer than allowed.
    #[error("delay_ms: it must be 24 hours at most ({max_ms})")]
    TooLong {
        /// The bound, in milliseconds.
        max_ms: u64,
    },
    /// Of a shared durable, or one with lanes, what was delivered is no stretch of the log.
    #[error(
        "offset: events of this subscription do not come in the order of the log to one session, so \"up to \
         here\" would acknowledge what was not delivered: name them with \"offsets\""
    )]
    NotCumulative,
    /// The subscription was reset since this session attached.
    #[error("the subscription was reset since this session attached: subscribe again")]
    Reset,
    /// A mirror leases nothing, so nothing of it can come again.
    #[error("the subscription is a mirror: nothing of it can be redriven")]
    Mirror,
    /// Too many ranges would have to be remembered.
    #[error(
        "offsets: more than {max} separate ranges above the floor: acknowledge the older events first"
    )]
    TooManyRanges {
        /// The bound.
        max: usize,
    },
    /// The ack could not be stored.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}
