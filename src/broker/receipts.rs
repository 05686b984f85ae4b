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
use super::{Broker, durable::DurableState, ledger::LedgerEntry, selection::Selection};
use crate::log::Stored;

impl Broker {
    /// How far this event has come with each durable subscription that it matches and that began, or was changed to want
    /// what it wants, before it: up to `limit` of them by name, those behind the name `after`; and the name to go on after,
    /// if there are more.
    /// Others have their turn between pages of durables.
    pub async fn receipts(
        &self,
        event: &Arc<Stored>,
        after: Option<&str>,
        limit: usize,
    ) -> (Vec<Receipt>, Option<String>) {
        let offset = event.offset();
        let (mut receipts, mut after) = (Vec::new(), after.map(str::to_owned));
        loop {
            // One more than is asked for says whether there are more.
            let room = limit.saturating_add(1).saturating_sub(receipts.len());
            let (page, last) = self.controls.page(after.as_deref(), usize::MAX, |seen| {
                !seen.line.since().covers(offset) && seen.line.matches(event.topic().as_str())
            });
            let wanting =
                page.into_iter().filter(|entry| Selection::of(&entry.spec.options).wants(event));
            let wanting = wanting.take(room);
            receipts.extend(wanting.map(|entry| self.receipt_of(&entry, offset.get())));
            if receipts.len() > limit {
                receipts.truncate(limit);
                let last = receipts.last().map(|receipt| receipt.subscription.clone());
                return (receipts, last);
            }
            after = last;
            if after.is_none() {
                return (receipts, None);
            }
            tokio::task::yield_now().await;
        }
    }

    fn receipt_of(&self, entry: &LedgerEntry, offset: u64) -> Receipt {
        let in_use = self.durables.lock().get(&entry.spec.name).cloned();
        let state = match in_use {
            Some(durable) => receipt_state(&durable.lock().state, offset),
            None => receipt_state(&DurableState::restore(&entry.acks, |at| at), offset),
        };
        Receipt { subscription: entry.spec.name.clone(), state }
    }
}

fn receipt_state(state: &DurableState, offset: u64) -> ReceiptState {
    if state.is_dead(offset) {
        ReceiptState::Dead
    } else if state.is_skipped(offset) {
        ReceiptState::Skipped
    } else if state.is_acked(offset) {
        ReceiptState::Acked
    } else if state.is_in_flight(offset) {
        ReceiptState::InFlight
    } else {
        ReceiptState::Pending
    }
}
