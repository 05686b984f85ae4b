//! Events on their way to one more delivery.

use std::sync::Arc;

use tidings_proto::Offset;

use super::{
    held::Durable,
    selection::{Selection, has_expired},
};
use crate::{clock, log::Stored};

/// Events of a durable that are being read for another delivery. Where that is given up half-way they are
/// due as before.
#[derive(Debug)]
pub(super) struct Leasing {
    durable: Arc<Durable>,
    offsets: Vec<u64>,
}

impl Leasing {
    /// These were given by [`DurableState::deliver_again`].
    pub(super) fn new(durable: Arc<Durable>, again: &[(u64, u32)]) -> Leasing {
        Leasing { durable, offsets: again.iter().map(|(offset, _)| *offset).collect() }
    }

    /// These are being read too.
    pub(super) fn add(&mut self, sent: &[(u64, u32)]) {
        self.offsets.extend(sent.iter().map(|(offset, _)| *offset));
    }

    /// All are on their way.
    pub(super) fn done(&mut self) {
        self.offsets.clear();
    }

    /// These of them were found, and these not looked at. Gives those that are still wanted, and whether
    /// more are due now.
    pub(super) fn taken(
        &mut self,
        mut events: Vec<Arc<Stored>>,
        again: &[(u64, u32)],
        left: &[Offset],
        selection: &Selection,
    ) -> (Vec<Arc<Stored>>, bool) {
        let now = clock::now();
        let filters = &self.durable.spec.options.filters;
        // What was delivered under other filters is not for whoever has these.
        events.retain(|event| {
            filters.matches(event.topic().as_str())
                && selection.wants(event)
                && !has_expired(event, now)
        });
        let is_left = |offset: u64| left.iter().any(|left| left.get() == offset);
        let looked_at = again.iter().map(|(offset, _)| *offset).filter(|offset| !is_left(*offset));
        let mut held = self.durable.lock();
        let before = held.state.outstanding();
        held.state.ack_missing(looked_at, &events);
        if held.state.outstanding() < before {
            // Another may wait for the room.
            held.wake_all();
        }
        held.give_back(left.iter().map(|offset| offset.get()));
        let more_due = held.state.next_due() == Some(0);
        drop(held);
        self.offsets = events.iter().map(|event| event.offset().get()).collect();
        (events, more_due)
    }
}

impl Drop for Leasing {
    fn drop(&mut self) {
        if !self.offsets.is_empty() {
            let mut held = self.durable.lock();
            held.give_back(self.offsets.drain(..));
            held.wake_all();
        }
    }
}
