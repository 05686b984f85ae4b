//! `idle_expiry_ms`: a durable that nobody has used for so long is forgotten, and that is told.
//!
//! - Used is one that a session is attached to, is fetched from, acknowledged or operated. A look at it is no use.
//! - Since when nobody has used it is not in the log: a start of the broker begins the time anew.
//! - A bounded number is looked at every second: each of them, where they are not very many.
//! - The notice is the event `subscription.expired` on `$audit`, and a line in the log of the process.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tidings_proto::control::DurableSpec;
use tokio_util::sync::CancellationToken;

use super::{Broker, ledger::LedgerEntry};
use crate::{clock, metrics};

/// The longest `idle_expiry_ms`: a year of 365 days.
pub(super) const IDLE_EXPIRY_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1000;
/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);
/// How many are looked at in one go, with the ledger locked.
const PAGE: usize = 256;
/// And how often in a row: with a million of them each is looked at once a minute.
const PAGES: usize = 64;

/// Since when durables that may be forgotten were not used, by the hash of their names. Bounded by their number. Two
/// names with one hash would count as used when one of them is, and that does not happen.
#[derive(Debug, Default)]
pub(super) struct Idle {
    since: Mutex<HashMap<u64, u64>>,
    hasher: RandomState,
}

impl Idle {
    /// Somebody uses it.
    pub(super) fn used(&self, name: &str) {
        self.since.lock().remove(&self.hasher.hash_one(name));
    }

    /// For how long nobody has used it.
    fn for_ms(&self, name: &str, now_ms: u64) -> u64 {
        let since = *self.since.lock().entry(self.hasher.hash_one(name)).or_insert(now_ms);
        now_ms.saturating_sub(since)
    }
}

/// Forgets durables that nobody uses, until `stop`.
pub(super) async fn watch(broker: Arc<Broker>, stop: CancellationToken) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The number that is looked at next.
    let mut from = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        for _ in 0..PAGES {
            let page = broker.controls.expiring(from, PAGE);
            for spec in &page {
                if broker.has_expired(spec) {
                    broker.expire(spec).await;
                }
            }
            let is_end = page.len() < PAGE;
            from = page.last().filter(|_| !is_end).map_or(0, |last| last.number + 1);
            if is_end {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Broker {
    fn has_expired(&self, spec: &DurableSpec) -> bool {
        let name = &spec.name;
        let in_use = self.durables.lock().get(name).cloned();
        if in_use.is_some_and(|durable| durable.lock().sessions() > 0) {
            self.idle.used(name);
            return false;
        }
        let idle_ms = self.idle.for_ms(name, clock::monotonic_ms());
        idle_ms >= spec.options.idle_expiry_ms
    }

    async fn expire(&self, spec: &DurableSpec) {
        let mut cursor = spec.start;
        // Somebody may have come meanwhile, or made it anew.
        let is_same = |now: &LedgerEntry| {
            cursor = now.acks.floor;
            now.spec.number == spec.number && self.has_expired(&now.spec)
        };
        match self.delete_durable_if(&spec.name, is_same).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(durable = spec.name, %error, "an idle durable is not forgotten yet");
                return;
            }
        }
        metrics::durable_expired();
        let idle_expiry_ms = spec.options.idle_expiry_ms;
        tracing::info!(durable = spec.name, idle_expiry_ms, "an idle durable is forgotten");
        let data = serde_json::json!({
            "durable": spec.name,
            "owner": spec.owner,
            "cursor": cursor,
            "idle_expiry_ms": idle_expiry_ms,
        });
        if let Err(error) = self.audit("subscription.expired", &data).await {
            tracing::warn!(durable = spec.name, %error, "that it is forgotten could not be told");
        }
    }
}
