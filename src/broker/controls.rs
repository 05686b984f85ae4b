//! Where the broker meets the commit thread: its own events go in, committed ones are folded into the ledger.

use std::sync::Arc;

use super::{
    StartError,
    access::Unstored,
    acks::AckBox,
    ledger::{Access, Ledger, LedgerEntry, Retention, Seen},
    presence::{Listed, Presence},
    receipts::Flagged,
    scheduled::{Pending, Schedule},
};
use crate::log::{
    AppendError, Controls, Draft, LogHandle, Stored,
    projection::{MemoryStore, Projection, Runner, SledStore, Store},
};
use parking_lot::{Mutex, MutexGuard};
use tidings_proto::{
    Cursor, Offset, Topic,
    control::{AUTH_TOPIC, DurableSpec, SCHEDULED_TOPIC},
};
use tokio::sync::watch;

/// How many durables are looked at with the ledger locked: tens of microseconds, and some hundreds where all are
/// unpacked.
const PAGE: usize = 512;

/// The ledger and the ack box, as the commit thread sees them.
pub(super) struct BrokerControls {
    ledger: Mutex<Runner<Ledger>>,
    acks: Arc<AckBox>,
    presence: Arc<Presence>,
    schedule: Arc<Schedule>,
    flagged: Flagged,
    /// Counts what was said about tokens and API keys.
    access: watch::Sender<u64>,
    unstored: Mutex<Unstored>,
    log: LogHandle,
}

impl BrokerControls {
    /// Opens the ledger's checkpoint and folds what the log has beyond it.
    pub(super) fn open(
        log: &LogHandle,
        acks: Arc<AckBox>,
        presence: Arc<Presence>,
        schedule: Arc<Schedule>,
    ) -> Result<Arc<BrokerControls>, StartError> {
        BrokerControls::open_from(log, acks, presence, schedule, open_store(log))
    }

    /// The same from this checkpoint, which may be to be made anew.
    pub(super) fn open_from(
        log: &LogHandle,
        acks: Arc<AckBox>,
        presence: Arc<Presence>,
        schedule: Arc<Schedule>,
        (store, rebuilt): (Box<dyn Store>, bool),
    ) -> Result<Arc<BrokerControls>, StartError> {
        let runner = Runner::open(Ledger::default(), store, log.reader(), &Ledger::topics()?)?;
        let anew = rebuilt || runner.restored().failed.is_some();
        crate::metrics::projection_opened(Ledger::NAME, anew && log.committed() > Cursor::START);
        let listed = runner.projection().presence().all();
        presence.restore(listed.map(|(topic, listed)| (topic.clone(), listed.who.clone())));
        Ok(Arc::new(BrokerControls {
            ledger: Mutex::new(runner),
            acks,
            presence,
            schedule,
            flagged: Flagged::new(log.committed()),
            access: watch::Sender::new(0),
            unstored: Mutex::default(),
            log: log.clone(),
        }))
    }

    /// Who is listed on this topic, and up to where in the log that is so.
    pub(super) fn listed(&self, topic: &Topic) -> (Vec<Arc<Listed>>, Cursor) {
        let ledger = self.ledger.lock();
        (ledger.projection().presence().on(topic), ledger.applied())
    }

    /// Whether the event at this offset of `$presence.<topic>` is the join of somebody who is listed.
    pub(super) fn is_listed(&self, topic: &str, join: Offset) -> bool {
        let ledger = self.ledger.lock();
        ledger.projection().presence().is_listed(topic, join.get())
    }

    /// How many are listed, on all topics together.
    pub(super) fn members(&self) -> usize {
        self.ledger.lock().projection().presence().count()
    }

    /// The newest events whose publishers wish for receipts.
    pub(super) fn flagged(&self) -> &Flagged {
        &self.flagged
    }

    /// Looks at the events that wait for their moment. The ledger is locked meanwhile.
    pub(super) fn with_scheduled<T>(&self, look: impl FnOnce(&Pending) -> T) -> T {
        look(self.ledger.lock().projection().scheduled())
    }

    /// The durable of this name, as the log knows it.
    pub(super) fn find(&self, name: &str) -> Option<LedgerEntry> {
        self.ledger.lock().projection().get(name)
    }

    /// The first durable by name after the name `after`.
    pub(super) fn next(&self, after: Option<&str>) -> Option<LedgerEntry> {
        self.page(after, 1, |_| true).0.pop()
    }

    /// How up to `limit` durables were made that are forgotten when nobody uses them, by number, from this number on.
    pub(super) fn expiring(&self, from: u64, limit: usize) -> Vec<DurableSpec> {
        self.ledger.lock().projection().expiring(from, limit)
    }

    /// Those that `wanted` takes of a page of up to `limit` durables by name, after the name `after`; and the last
    /// name that was looked at, where there may be more. A page has fewer than `limit` where that is more than are
    /// looked at in one go, or where much is known of their acks.
    pub(super) fn page(
        &self,
        after: Option<&str>,
        limit: usize,
        wanted: impl FnMut(&Seen<'_>) -> bool,
    ) -> (Vec<LedgerEntry>, Option<String>) {
        let mut found = Vec::new();
        let ledger = self.ledger.lock();
        let after = ledger.projection().select(after, limit.min(PAGE), wanted, &mut found);
        (found, after)
    }

    /// Whether `wanted` takes any of them. Others have their turn while they are looked at.
    pub(super) async fn any(&self, wanted: impl Fn(&Seen<'_>) -> bool) -> bool {
        let mut is_found = false;
        self.walk(|seen| {
            is_found |= wanted(seen);
            is_found
        })
        .await;
        is_found
    }

    /// Looks at all of them, page by page, until `has_enough`. Others have their turn between pages.
    async fn walk(&self, mut has_enough: impl FnMut(&Seen<'_>) -> bool) {
        let (mut is_over, mut after) = (false, None);
        loop {
            let look = |seen: &Seen<'_>| {
                is_over |= has_enough(seen);
                false
            };
            after = self.page(after.as_deref(), usize::MAX, look).1;
            if after.is_none() || is_over {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// How many durables match this topic, or more where they are `max` at most; where they are more, some number
    /// above it. Others have their turn while it is counted.
    pub(super) async fn matching(&self, topic: &Topic, max: usize) -> usize {
        let at_most = self.ledger.lock().projection().matching_at_most(topic.as_str());
        if at_most <= max {
            return at_most;
        }
        let mut matching = 0;
        self.walk(|seen| {
            matching += usize::from(seen.line.matches(topic.as_str()));
            matching > max
        })
        .await;
        matching
    }

    /// All of its events up to here are in the ledger.
    pub(super) fn applied(&self) -> Cursor {
        self.ledger.lock().applied()
    }

    /// How many durables there are.
    pub(super) fn durables(&self) -> usize {
        self.ledger.lock().projection().count()
    }

    /// How many of them this subject has made.
    pub(super) fn durables_of(&self, subject: &str) -> usize {
        self.ledger.lock().projection().count_of(subject)
    }

    /// A number that no durable has had.
    pub(super) fn next_number(&self) -> u64 {
        self.ledger.lock().projection().next_number()
    }

    /// Looks at what was said about tokens and API keys. The ledger is locked meanwhile.
    pub(super) fn with_access<T>(&self, look: impl FnOnce(&Access) -> T) -> T {
        look(self.ledger.lock().projection().access())
    }

    /// What is revoked beside that. Locked meanwhile.
    pub(super) fn unstored(&self) -> MutexGuard<'_, Unstored> {
        self.unstored.lock()
    }

    /// Announces every change of both.
    pub(super) fn access_changes(&self) -> watch::Receiver<u64> {
        self.access.subscribe()
    }

    /// How many there have been.
    pub(super) fn access_version(&self) -> u64 {
        *self.access.borrow()
    }

    /// Something was said about tokens or API keys.
    pub(super) fn access_changed(&self) {
        self.access.send_modify(|changes| *changes += 1);
    }

    /// What was said about retention.
    pub(super) fn retention(&self) -> Retention {
        self.ledger.lock().projection().retention().clone()
    }

    /// The topic is erased up to here, and nothing is left to do.
    pub(super) fn forget_erased(&self, topic: &Topic, upto: Cursor) {
        self.ledger.lock().projection_mut().forget_erased(topic, upto);
    }

    /// Writes what changed since the last checkpoint. Blocks on the disk.
    pub(super) fn checkpoint(&self) {
        // What is committed has been applied: the committed cursor moves after `committed` below.
        let upto = self.log.committed();
        let Some(save) = self.ledger.lock().begin(upto) else { return };
        // The commit thread needs the ledger meanwhile.
        let saved = save.run();
        if let Err(error) = self.ledger.lock().finish(saved) {
            tracing::warn!(%error, "the ledger's checkpoint was not written; it stays in memory and is tried again");
        }
    }
}

impl Controls for BrokerControls {
    fn drain(&self) -> Vec<Draft> {
        let mut drafts = self.acks.drain();
        drafts.extend(self.presence.drain());
        drafts
    }

    fn committed(&self, events: &[Arc<Stored>]) {
        let mut of_ours = events.iter().filter(|event| event.topic().is_own()).peekable();
        if of_ours.peek().is_some() {
            let (mut is_scheduled, mut is_of_access) = (false, false);
            let mut ledger = self.ledger.lock();
            for event in of_ours {
                ledger.apply(event.record());
                is_scheduled |= event.topic().as_str() == SCHEDULED_TOPIC;
                is_of_access |= event.topic().as_str() == AUTH_TOPIC;
            }
            drop(ledger);
            if is_of_access {
                self.access_changed();
            }
            if is_scheduled {
                self.schedule.committed();
            }
        }
        let flagged = events.iter().filter(|event| event.record().flags.receipts());
        self.flagged.add(flagged.map(|event| event.offset()));
        self.presence.committed();
        self.acks.settle(true);
    }

    fn readable(&self) {
        self.acks.answer(&Ok(()));
        if self.acks.is_waiting() {
            self.log.nudge();
        }
        self.presence.readable();
    }

    fn failed(&self, error: &AppendError) {
        self.acks.finish(&Err(error.clone()));
        self.presence.failed(error);
    }

    fn closed(&self) {
        self.acks.finish(&Err(AppendError::Closed));
        self.acks.close();
        self.presence.closed();
    }
}

/// The checkpoint on disk, and whether it is to be made anew; without one the state is in memory and folded
/// anew at every start.
fn open_store(log: &LogHandle) -> (Box<dyn Store>, bool) {
    let dir = log.dir().join("projections");
    match SledStore::open(&dir, Ledger::NAME, Ledger::VERSION, log.id(), log.committed()) {
        Ok(opened) => {
            if let Some(reason) = &opened.rebuilt {
                tracing::info!(%reason, "the ledger is folded anew from the log");
            }
            (Box::new(opened.store), opened.rebuilt.is_some())
        }
        Err(error) => {
            tracing::warn!(%error, "the ledger has no checkpoint on disk");
            (Box::new(MemoryStore::forgetful()), true)
        }
    }
}
