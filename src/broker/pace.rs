//! When a live subscription sends what there is: `linger_ms`, and the window of `conflate_ms`. Pure: time is
//! an argument, in milliseconds on a clock that never jumps.
//!
//! - What waits is not held: the cursor is not read on, and what has been seen of it is a number of events and
//!   bytes, and the place up to which was looked.
//! - The wait begins when the first event became durable, so that a reader that is late anyway waits for
//!   nothing. What is read from the disk is late.
//! - While it waits the subscription is armed quietly ([`super::interest`]): it is not woken per event.

use tidings_proto::{Cursor, Priority, SubscribeOptions};

use super::{
    interest::Enough,
    subscription::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX},
};
use crate::log::{Batch, ReadLimit, Stored};

/// The longest `linger_ms`.
pub(super) const LINGER_MS_MAX: u64 = 10_000;

/// How much is looked at in one step for whether it can wait; nothing of it is kept.
pub(super) const LOOK: ReadLimit =
    ReadLimit { events: BATCH_EVENTS_MAX as usize, bytes: 8 * BATCH_BYTES_MAX };

/// The pace of a subscription that has one.
#[derive(Debug)]
pub(super) struct Pace {
    window_ms: u64,
    /// Of what waits only the last states are sent: it is never enough of it.
    conflates: bool,
    waiting: Option<Waiting>,
}

/// A batch that waits for more.
#[derive(Debug)]
struct Waiting {
    due_ms: u64,
    /// Everything up to here has been looked at.
    looked: Cursor,
    left: Enough,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Read and send.
    Send,
    /// Everything up to the cursor can wait, for so much more or until it is due.
    Wait(Cursor, Enough),
}

impl Pace {
    /// The pace these options ask for. Boxed: few have one.
    pub(super) fn of(options: &SubscribeOptions) -> Option<Box<Pace>> {
        let window_ms = options.linger_ms.max(options.conflate_ms);
        let conflates = options.conflate_ms > 0;
        (window_ms > 0).then(|| Box::new(Pace { window_ms, conflates, waiting: None }))
    }

    /// Whether of a topic and key only the last event of a window is sent.
    pub(super) fn conflates(&self) -> bool {
        self.conflates
    }

    /// When what waits is to be sent.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.waiting.as_ref().map(|waiting| waiting.due_ms)
    }

    /// Nothing waits any more.
    pub(super) fn reset(&mut self) {
        self.waiting = None;
    }

    /// From where on to look for whether what is behind `cursor` can wait; `None` when it is due.
    pub(super) fn look_from(&mut self, cursor: Cursor, now_ms: u64) -> Option<Cursor> {
        match &self.waiting {
            Some(waiting) if waiting.due_ms <= now_ms => {
                self.waiting = None;
                None
            }
            Some(waiting) if waiting.looked >= cursor => Some(waiting.looked),
            // What waited has been passed.
            _ => {
                self.waiting = None;
                Some(cursor)
            }
        }
    }

    /// This was found there; `events_max` end the wait.
    pub(super) fn look(
        &mut self,
        found: &Batch,
        wants: impl Fn(&Stored) -> bool,
        events_max: usize,
        now_ms: u64,
    ) -> Step {
        let (window_ms, enough) = (self.window_ms, self.enough(events_max));
        let mut waiting = self.waiting.take();
        for event in &found.events {
            let is_wanted = wants(event);
            if is_wanted && event.priority() == Priority::Urgent {
                return Step::Send;
            }
            if is_wanted && waiting.is_none() {
                let since = event.durable_at().map(|at| u64::try_from(at.as_millis()).unwrap_or(0));
                let due_ms = since.map_or(0, |since| since.saturating_add(window_ms));
                if due_ms <= now_ms {
                    return Step::Send;
                }
                waiting = Some(Waiting { due_ms, looked: found.cursor, left: enough });
            }
            if let Some(waiting) = &mut waiting
                && !waiting.left.take(event)
            {
                return Step::Send;
            }
        }
        let Some(mut waiting) = waiting.filter(|_| found.damaged.is_none()) else {
            return Step::Send;
        };
        waiting.looked = found.cursor;
        let step = Step::Wait(found.cursor, waiting.left);
        self.waiting = Some(waiting);
        step
    }

    fn enough(&self, events_max: usize) -> Enough {
        if self.conflates {
            return Enough { events: u32::MAX, bytes: u32::MAX };
        }
        Enough {
            events: u32::try_from(events_max).unwrap_or(u32::MAX),
            bytes: u32::try_from(BATCH_BYTES_MAX).unwrap_or(u32::MAX),
        }
    }
}

impl Enough {
    /// One more; false when that is enough.
    fn take(&mut self, event: &Stored) -> bool {
        self.events = self.events.saturating_sub(1);
        let bytes = u32::try_from(event.batch_bytes()).unwrap_or(u32::MAX);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.events > 0 && self.bytes > 0
    }
}

#[cfg(test)]
mod tests;
