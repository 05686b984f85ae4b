//! Dead letters: written for events that a durable was given as often as it may be, listed, redriven.
//!
//! - A task looks up where a dying event stands; the commit thread, which must not read, then appends the
//!   letter together with the state that counts the event as settled.
//! - What is redriven is delivered to that durable alone: its state says so, nothing is published again.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tidings_proto::{
    Cursor, Filter, Filters, Offset, Timestamp, Topic,
    control::{DEAD_ROOT, DeadLetter, DurableSpec},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Broker, Durable, READ_STEP, READ_TURNS_MAX,
    acks::AckTicket,
    durable::Dying,
    error::{AckError, ReadError},
};
use crate::{
    clock,
    log::{Draft, ReadLimit, Stored, codec},
};

/// How many dying events are looked up at a time.
const LOOKED_UP_MAX: usize = 256;
/// The most bytes that are read for that, but for the event that passes it.
const LOOKED_UP_BYTES_MAX: usize = 1 << 20;
/// How often leases are looked after where no session does it, and letters that could not be written are tried
/// again.
const EVERY: Duration = Duration::from_secs(1);

/// The durables that have letters to write; bounded by the durables in use.
#[derive(Debug, Default)]
pub(super) struct Graves {
    names: Mutex<BTreeSet<String>>,
    news: Notify,
}

impl Graves {
    /// The durable of this name has something to write.
    pub(super) fn tell(&self, name: &str) {
        let mut names = self.names.lock();
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        drop(names);
        self.news.notify_one();
    }
}

/// A dead letter where it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedLetter {
    /// The letter's own offset.
    pub offset: Offset,
    /// When it was written.
    pub time: Timestamp,
    /// What it says.
    pub letter: DeadLetter,
}

/// Has letters written until `stop`.
pub(super) async fn write(broker: Arc<Broker>, stop: CancellationToken) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = broker.graves.news.notified() => {}
            _ = every.tick() => broker.look_after_leases(),
        }
        broker.write_letters().await;
    }
}

/// The letter of a dying event, to be appended.
pub(super) fn draft(spec: &DurableSpec, dying: &Dying) -> Option<Draft> {
    let topic = Topic::parse(&format!("{DEAD_ROOT}.{}", spec.name)).ok()?;
    let (at, id) = dying.origin.clone().flatten().unzip();
    let ended_by = dying.cause.as_str();
    let letter = DeadLetter {
        durable: spec.name.clone(),
        offset: dying.offset,
        topic: at,
        id,
        reason: dying.reason.as_deref().unwrap_or(ended_by).to_owned(),
        ended_by: ended_by.to_owned(),
        attempts: dying.attempts,
        life: spec.number,
        letter: dying.letter,
    };
    let data = serde_json::to_vec(&letter).ok()?;
    Some(codec::control(topic, "dead.lettered", data, clock::event_id()))
}

impl Broker {
    /// Has the letters written that are to be written now.
    pub(super) async fn write_letters(&self) {
        let names = std::mem::take(&mut *self.graves.names.lock());
        for name in names {
            self.address_letters(&name).await;
        }
    }

    /// Has it written how often events were delivered, where no commit has it.
    pub(super) fn save_counts(&self) {
        let in_use: Vec<Arc<Durable>> = self.durables.lock().values().cloned().collect();
        for durable in in_use.into_iter().filter(|durable| durable.lock().has_news()) {
            // The last commit takes what waits.
            drop(self.submit(&durable));
        }
    }

    fn look_after_leases(&self) {
        let in_use: Vec<Arc<Durable>> = self.durables.lock().values().cloned().collect();
        for durable in in_use {
            durable.look_after();
        }
    }

    /// Looks up the dying of this durable and puts it into the ack box.
    async fn address_letters(&self, name: &str) {
        let Some(durable) = self.durables.lock().get(name).cloned() else { return };
        let dying = durable.lock().state.to_address(LOOKED_UP_MAX);
        let looked_up = dying.len();
        let offsets: Vec<Offset> = dying.into_iter().filter_map(Offset::new).collect();
        if !offsets.is_empty() {
            let found = match self.log.get_many(offsets.clone(), LOOKED_UP_BYTES_MAX).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(durable = name, %error, "dead letters are not written yet");
                    return;
                }
            };
            let mut held = durable.lock();
            for offset in offsets.iter().filter(|offset| !found.left.contains(offset)) {
                let event = found.events.iter().find(|event| event.offset() == *offset);
                if event.is_none() && !found.damaged.contains(offset) {
                    held.state.forget_reason(offset.get());
                }
                held.state.address(offset.get(), event.and_then(|event| origin(event)));
            }
        }
        if looked_up == LOOKED_UP_MAX || !durable.lock().state.to_address(1).is_empty() {
            self.graves.tell(name);
        }
        // The outcome is seen by who comes next; what failed is tried again.
        drop(self.submit(&durable));
    }

    /// Lets dead events of this durable come again, to it alone: all of them, or these. Gives those that were
    /// dead, once `ticket` is durable.
    ///
    /// # Errors
    /// See [`AckError`].
    pub fn redrive(
        &self,
        durable: &Arc<Durable>,
        offsets: Option<&[Offset]>,
    ) -> Result<(AckTicket, Vec<u64>), AckError> {
        if durable.is_mirror() {
            return Err(AckError::Mirror);
        }
        let redriven = durable.redrive(offsets)?;
        Ok((self.submit(durable)?, redriven))
    }

    /// Those of these events that are there, also where they cannot be read, which who gets them is told.
    ///
    /// # Errors
    /// When the log could not be read.
    pub async fn present(&self, mut offsets: Vec<u64>) -> Result<Vec<u64>, ReadError> {
        let rising: BTreeSet<u64> = offsets.iter().copied().collect();
        let mut left: Vec<Offset> = rising.into_iter().filter_map(Offset::new).collect();
        let mut there = BTreeSet::new();
        while !left.is_empty() {
            let found = self.log.get_many(left, LOOKED_UP_BYTES_MAX).await?;
            there.extend(found.events.iter().map(|event| event.offset().get()));
            there.extend(found.damaged.iter().map(|offset| offset.get()));
            left = found.left;
        }
        offsets.retain(|offset| there.contains(offset));
        Ok(offsets)
    }

    /// Up to `limit` letters of the dead of this durable, after the offset `after`, also of those that are not known
    /// one by one any more; and where to go on, if there may be more.
    ///
    /// # Errors
    /// When the log could not be read.
    pub async fn dead_letters(
        &self,
        durable: &Arc<Durable>,
        after: Cursor,
        limit: usize,
    ) -> Result<(Vec<PlacedLetter>, Option<Cursor>), ReadError> {
        let (mut found, mut cursor) = (Vec::new(), after.max(self.log.first().before()));
        let filter = Filter::parse(&format!("{DEAD_ROOT}.{}", durable.spec.name));
        let Some(filters) = filter.ok().map(Filters::one) else { return Ok((found, None)) };
        let committed = self.log.committed();
        for _ in 0..READ_TURNS_MAX {
            let step = ReadLimit { events: READ_STEP, bytes: 1 << 20 };
            let batch = self.log.read(cursor, committed, &filters, step).await?;
            for event in &batch.events {
                let Some(letter) = letter_of(event) else { continue };
                if letter.life == durable.spec.number && durable.lock().state.is_about_dead(&letter)
                {
                    found.push(PlacedLetter { offset: event.offset(), time: event.time(), letter });
                }
                if found.len() >= limit {
                    return Ok((found, Some(event.offset().cursor())));
                }
            }
            cursor = batch.damaged.unwrap_or(batch.cursor);
            if cursor >= committed {
                return Ok((found, None));
            }
        }
        Ok((found, Some(cursor)))
    }
}

fn origin(event: &Stored) -> Option<(String, String)> {
    let id = event.body().ok()?.id.to_string();
    Some((event.topic().to_string(), id))
}

fn letter_of(event: &Stored) -> Option<DeadLetter> {
    serde_json::from_slice(&codec::control_data(event.record())?).ok()
}
