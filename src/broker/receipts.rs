//! Receipts: who has acknowledged an event, computed from cursors; and told to publishers who wish for it.

mod flagged;
mod push;
mod queue;

use std::sync::Arc;

use tidings_proto::message::{Receipt, ReceiptState};

pub(super) use self::{
    flagged::Flagged,
    push::{MATCHING_MAX, Step, topic_of},
    queue::{ReceiptQueue, Wish},
};
use super::{Broker, durable::DurableState, selection::Selection};
use crate::log::Stored;

impl Broker {
    /// How far this event has come with each durable subscription that it matches and that began before it.
    pub fn receipts(&self, event: &Arc<Stored>) -> Vec<Receipt> {
        let offset = event.offset();
        let matching = self.controls.select(|entry| {
            !entry.spec.start.covers(offset)
                && entry.spec.options.filters.matches(event.topic().as_str())
                && Selection::of(&entry.spec.options).wants(event)
        });
        matching
            .into_iter()
            .map(|entry| {
                let in_use = self.durables.lock().get(&entry.spec.name).cloned();
                let state = match in_use {
                    Some(durable) => receipt_state(&durable.lock().state, offset.get()),
                    None => {
                        receipt_state(&DurableState::restore(&entry.acks, |at| at), offset.get())
                    }
                };
                Receipt { subscription: entry.spec.name.clone(), state }
            })
            .collect()
    }
}

fn receipt_state(state: &DurableState, offset: u64) -> ReceiptState {
    if state.is_dead(offset) {
        ReceiptState::Dead
    } else if state.is_acked(offset) {
        ReceiptState::Acked
    } else if state.is_in_flight(offset) {
        ReceiptState::InFlight
    } else {
        ReceiptState::Pending
    }
}
