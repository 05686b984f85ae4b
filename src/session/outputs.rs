//! The room for large batches on their way to sockets and streams, of all together: an event may have megabytes, and is held
//! whole until its reader has taken it.
//!
//! - A batch of up to `FREE_BYTES` needs none. What is larger waits for a place in turn, and keeps nothing in memory
//!   meanwhile: it is read anew then.
//! - While others wait, those are cut off that take too little: `CUT_MS` is what all they hold may take. They lose
//!   nothing: they come back and go on behind their cursor. So who does not read keeps nobody out who reads slowly.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tidings_proto::Offset;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::{
    broker::Broker,
    clock,
    log::{ReadError, Stored, batch_bytes},
};

/// What a batch may have without a place.
const FREE_BYTES: usize = 48 * 1024;
/// Before this it cannot be said how slow one is, in milliseconds.
const MEASURED_MS: u64 = 3_000;
/// At its pace so far, what a place holds may take so long while others wait, in milliseconds. It counts an event as it is
/// stored and as it travels: so the batch itself may take half of it.
const CUT_MS: u64 = 60_000;
/// How often it is looked for who takes too little.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Whoever waits beside others looks no sooner than so long after one of them has, in milliseconds.
const LOOK_AGAIN_MS: u64 = 500;

/// The room.
#[derive(Debug)]
pub struct Outputs {
    bytes_max: u32,
    room: Arc<Semaphore>,
    /// No more than there is room for batches that are not small.
    places: Mutex<HashMap<u64, Place>>,
    next: AtomicU64,
    looked_ms: AtomicU64,
}

#[derive(Debug)]
struct Place {
    bytes: u32,
    since_ms: u64,
    taker: Arc<Taker>,
}

/// Whoever a batch is for.
#[derive(Debug, Default)]
pub struct Taker {
    taken: AtomicUsize,
    cut: Notify,
}

impl Taker {
    /// It has taken so many bytes.
    pub fn took(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Ready when it is to be cut off.
    pub async fn is_cut(&self) {
        self.cut.notified().await;
    }
}

/// A place; free again when this is dropped.
#[derive(Debug)]
pub struct Held {
    outputs: Arc<Outputs>,
    number: u64,
    _room: OwnedSemaphorePermit,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.outputs.places.lock().remove(&self.number);
    }
}

/// Whether a batch needs a place.
pub fn is_large(events: &[Arc<Stored>]) -> bool {
    batch_bytes(events) > FREE_BYTES
}

impl Outputs {
    /// Room for so many bytes.
    pub(super) fn new(bytes_max: usize) -> Arc<Outputs> {
        let bytes_max = u32::try_from(bytes_max.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Arc::new(Outputs {
            bytes_max,
            room: Arc::new(Semaphore::new(bytes_max as usize)),
            places: Mutex::default(),
            next: AtomicU64::new(0),
            looked_ms: AtomicU64::new(0),
        })
    }

    /// A place for these events, if there is one now.
    pub fn try_hold(
        self: &Arc<Outputs>,
        taker: &Arc<Taker>,
        events: &[Arc<Stored>],
    ) -> Option<Held> {
        let bytes = self.cost(events);
        let room = self.room.clone().try_acquire_many_owned(bytes).ok()?;
        Some(self.place(bytes, taker, room))
    }

    /// These events once there is a place for them.
    ///
    /// # Errors
    /// The log's, as they are read anew: also where one has been taken out meanwhile.
    pub async fn admit(
        self: Arc<Outputs>,
        broker: Arc<Broker>,
        taker: Arc<Taker>,
        events: Vec<Arc<Stored>>,
    ) -> Result<(Vec<Arc<Stored>>, Held), ReadError> {
        if let Some(held) = self.try_hold(&taker, &events) {
            return Ok((events, held));
        }
        let bytes = self.cost(&events);
        let kept: Vec<Kept> = events.into_iter().map(Kept::of).collect();
        let room = self.wait(bytes).await?;
        let held = self.place(bytes, &taker, room);
        let mut events = Vec::with_capacity(kept.len());
        for kept in kept {
            events.push(kept.event(&broker).await?);
        }
        Ok((events, held))
    }

    /// As they are stored and as they travel. What is larger than all of the room goes alone.
    fn cost(&self, events: &[Arc<Stored>]) -> u32 {
        let bytes = events.iter().map(|event| event.cost_bytes()).sum::<usize>();
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes_max)
    }

    /// Waits for room, and makes it where somebody takes too little.
    async fn wait(&self, bytes: u32) -> Result<OwnedSemaphorePermit, ReadError> {
        let mut room = std::pin::pin!(self.room.clone().acquire_many_owned(bytes));
        loop {
            tokio::select! {
                biased;
                room = &mut room => return room.map_err(|_| ReadError::Closed),
                () = tokio::time::sleep(LOOK_EVERY) => self.look(clock::monotonic_ms()),
            }
        }
    }

    fn place(
        self: &Arc<Outputs>,
        bytes: u32,
        taker: &Arc<Taker>,
        room: OwnedSemaphorePermit,
    ) -> Held {
        taker.taken.store(0, Ordering::Relaxed);
        let place = Place { bytes, since_ms: clock::monotonic_ms(), taker: taker.clone() };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.places.lock().insert(number, place);
        Held { outputs: self.clone(), number, _room: room }
    }

    /// Cuts off who takes too little; once for all who wait.
    fn look(&self, now_ms: u64) {
        if now_ms < self.looked_ms.load(Ordering::Relaxed) + LOOK_AGAIN_MS {
            return;
        }
        self.looked_ms.store(now_ms, Ordering::Relaxed);
        let places = self.places.lock();
        for place in places.values().filter(|place| place.is_too_slow(now_ms)) {
            place.taker.cut.notify_one();
        }
    }
}

impl Place {
    /// Whether, at the pace so far, all of it takes too long.
    fn is_too_slow(&self, now_ms: u64) -> bool {
        let age_ms = now_ms.saturating_sub(self.since_ms);
        let taken = u64::try_from(self.taker.taken.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        age_ms >= MEASURED_MS
            && taken.saturating_mul(CUT_MS) < u64::from(self.bytes).saturating_mul(age_ms)
    }
}

/// What is kept of an event whose batch waits.
enum Kept {
    Whole(Arc<Stored>),
    Place(Offset),
}

impl Kept {
    /// Only what is large is worth another read; of that a batch has one at most.
    fn of(event: Arc<Stored>) -> Kept {
        match event.batch_bytes() > FREE_BYTES / 2 {
            true => Kept::Place(event.offset()),
            false => Kept::Whole(event),
        }
    }

    async fn event(self, broker: &Broker) -> Result<Arc<Stored>, ReadError> {
        match self {
            Kept::Whole(event) => Ok(event),
            Kept::Place(offset) => broker.get(offset).await?.ok_or(ReadError::Gone(offset)),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn taker() -> Arc<Taker> {
        Arc::new(Taker::default())
    }

    fn is_cut(taker: &Taker) -> bool {
        taker.is_cut().now_or_never().is_some()
    }

    fn hold(outputs: &Arc<Outputs>, bytes: u32, taker: &Arc<Taker>) -> Option<Held> {
        let room = outputs.room.clone().try_acquire_many_owned(bytes).ok()?;
        Some(outputs.place(bytes, taker, room))
    }

    #[tokio::test]
    async fn s5_who_takes_too_little_while_others_wait_is_cut_off_and_who_reads_slowly_is_not() {
        let outputs = Outputs::new(100_000);
        let [stalled, slow] = [taker(), taker()];
        let _stalled = hold(&outputs, 50_000, &stalled).unwrap();
        let slow_one = hold(&outputs, 50_000, &slow).unwrap();
        slow.took(5_000);
        let now_ms = clock::monotonic_ms();
        outputs.look(now_ms + MEASURED_MS - 1500);
        assert!(!is_cut(&stalled) && !is_cut(&slow), "too early to say");
        outputs.look(now_ms + MEASURED_MS);
        assert!(is_cut(&stalled) && !is_cut(&slow));
        assert!(hold(&outputs, 1, &taker()).is_none(), "it is not gone yet");
        drop(slow_one);
        assert!(hold(&outputs, 50_000, &taker()).is_some());
        assert_eq!(outputs.places.lock().len(), 1, "places are given back");
    }

    #[tokio::test]
    async fn who_waits_has_room_in_turn() {
        let outputs = Outputs::new(100);
        let held = hold(&outputs, 60, &taker()).unwrap();
        let mut first = std::pin::pin!(outputs.wait(100));
        let mut second = std::pin::pin!(outputs.wait(10));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none(), "it does not overtake");
        drop(held);
        let room = first.await.unwrap();
        assert!(second.as_mut().now_or_never().is_none());
        drop(room);
        drop(second.await.unwrap());
    }
}
