//! What a durable is, and what becomes of an event.

use Status::{Dead, Done, Held, Leased, Open, Sending};

pub(in crate::broker::tests) type Owner = u64;
pub(in crate::broker::tests) type Judged = Result<(), String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker::tests) enum Mode {
    Exclusive,
    Shared,
    Mirror,
}

/// What a durable is.
#[derive(Clone, Debug)]
pub(in crate::broker::tests) struct Spec {
    pub mode: Mode,
    pub partitioned: bool,
    pub lanes: bool,
    pub conflate_ms: u64,
    pub topics: u8,
    pub max_in_flight: usize,
    pub ack_wait_ms: u64,
    pub max_deliveries: u32,
    pub backoff_ms: Vec<u64>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker::tests) enum Status {
    /// To be delivered, not before this moment.
    Open(u64),
    /// Redriven: to be delivered when there is room.
    Held,
    Sending(Owner),
    Leased(Owner, Option<u64>),
    Dying,
    Dead,
    Done,
}

#[derive(Clone, Debug)]
pub(in crate::broker::tests) struct Item {
    pub offset: u64,
    pub topic: u8,
    pub key: u8,
    /// Higher goes first.
    pub priority: u8,
    pub at: u64,
    pub status: Status,
    pub attempts: u32,
    /// It had its turn.
    pub(super) taken: bool,
    /// Redriven, and no socket has taken it since.
    pub(super) unseen: bool,
    /// Redriven: its key counts no longer.
    pub(super) free: bool,
}

impl Item {
    pub(in crate::broker::tests) fn new(
        offset: u64,
        topic: u8,
        key: u8,
        priority: u8,
        at: u64,
    ) -> Item {
        Item {
            offset,
            topic,
            key,
            priority,
            at,
            status: Open(0),
            attempts: 0,
            taken: false,
            unseen: false,
            free: false,
        }
    }
    pub(super) fn owner(&self) -> Option<Owner> {
        match self.status {
            Sending(owner) | Leased(owner, _) => Some(owner),
            _ => None,
        }
    }
    pub(in crate::broker::tests) fn is_open(&self) -> bool {
        !matches!(self.status, Done | Dead)
    }
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.status == Held || matches!(self.status, Open(at) if at <= now)
    }
    pub(super) fn has_slot(&self, other: &Item) -> bool {
        self.key > 0 && (self.key, self.topic) == (other.key, other.topic)
    }
}
