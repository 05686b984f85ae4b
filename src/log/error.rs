//! Why the log did not do it.

use std::sync::Arc;

use tidings_proto::Offset;

use super::StorageError;

/// Why events were not appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The topic's last offset is another.
    #[error(
        "{topic} has {actual} as its last offset, not the expected {expected}: read up to it and decide anew"
    )]
    Unexpected {
        /// The topic.
        topic: String,
        /// What was expected; 0 is "no event yet".
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// The id was used before with other content.
    #[error(
        "the id \"{id}\" was published before with other content, as offset {offset}: use a new id"
    )]
    IdReused {
        /// The id.
        id: String,
        /// What it was used for.
        offset: Offset,
    },
    /// Some of an atomic batch's ids were seen before, others not.
    #[error(
        "some of the batch's ids were published before and some were not: a batch is repeated whole or not at all"
    )]
    PartlyDuplicate,
    /// Two events of an atomic batch have one id.
    #[error("two events of the batch have the id \"{0}\": each needs its own")]
    TwiceInBatch(String),
    /// More than one batch can hold.
    #[error(
        "{events} events of {bytes} bytes are more than one batch can hold: publish them in parts"
    )]
    TooLarge {
        /// How many.
        events: usize,
        /// How long.
        bytes: usize,
    },
    /// No room in the queue.
    #[error("the disk does not keep up: try again later")]
    Busy,
    /// No space on the disk.
    #[error("the disk is full: publishing goes on when there is space again")]
    Full,
    /// The log refuses writes.
    #[error(
        "the log refuses writes since an error of the disk ({0}): restart the broker when the disk is mended"
    )]
    Latched(String),
    /// The broker is stopping.
    #[error("the broker is shutting down")]
    Closed,
    /// The disk failed while this was being written.
    #[error(
        "the disk failed while this was being written: whether it is in the log is known after a restart; publish again with the same id"
    )]
    Indeterminate,
}

/// Why events could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// What the storage found.
    #[error("the log could not be read: {0}")]
    Storage(#[source] Arc<StorageError>),
    /// The event is there and its bytes are not what was written.
    #[error("event {0} is damaged on the disk")]
    Damaged(Offset),
    /// It was taken out of the log while it waited to be sent.
    #[error("event {0} was taken out of the log before it was sent")]
    Gone(Offset),
    /// The broker is stopping.
    #[error("the broker is shutting down")]
    Closed,
}
