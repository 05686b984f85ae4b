//! Batches of events are compressed once, for all sockets that get the same ones.
//!
//! - What is the same is told by the encoding and the events themselves: whoever has the same filters and stands
//!   at the same place gets the same events, and some others do too.
//! - What has been compressed is kept in a bounded cache; the oldest goes first.
//! - Batches that are small are compressed where they are asked for, others on the blocking pool.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tidings_proto::wire::compressed::Deflater;
use tokio::sync::OnceCell;

use super::encoding::Encoding;
use crate::{log::Stored, metrics};

/// Batches of fewer bytes are sent as they are.
const BATCH_BYTES_MIN: usize = 512;
/// Batches of more bytes are compressed on the blocking pool: these take less than a millisecond.
const HERE_BYTES_MAX: usize = 128 * 1024;
/// How many bytes of batches are kept, counted as they were before their compression.
const CACHE_BYTES_MAX: usize = 16 << 20;
/// How many compressors wait for work, with about 300 KB each.
const IDLE_MAX: usize = 4;

/// Compresses, and remembers what it has compressed.
pub struct Compressor {
    cache: Mutex<Cache>,
    idle: Mutex<Vec<Deflater>>,
    /// A batch that would be longer than this without its compression is too long for its reader.
    batch_bytes_max: usize,
}

/// A batch once it is compressed; `None` where that is not worth it.
type Place = Arc<OnceCell<Option<Bytes>>>;

/// What tells one batch from all others: its encoding and its events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    encoding: Encoding,
    events: Arc<[u64]>,
}

#[derive(Default)]
struct Cache {
    places: HashMap<Key, Place>,
    /// The oldest first, with its bytes.
    order: VecDeque<(Key, usize)>,
    bytes: usize,
}

impl Cache {
    /// Where this batch is, or is to be.
    fn place(&mut self, key: Key, bytes: usize) -> Place {
        if let Some(place) = self.places.get(&key) {
            return place.clone();
        }
        let bytes = bytes + size_of_val(&*key.events);
        self.order.push_back((key.clone(), bytes));
        self.bytes += bytes;
        while self.bytes > CACHE_BYTES_MAX && self.order.len() > 1 {
            if let Some((oldest, bytes)) = self.order.pop_front() {
                self.places.remove(&oldest);
                self.bytes -= bytes;
            }
        }
        self.places.entry(key).or_default().clone()
    }
}

impl Compressor {
    /// One that has seen nothing; its readers take batches of at most `batch_bytes_max` bytes.
    pub fn new(batch_bytes_max: usize) -> Compressor {
        Compressor { cache: Mutex::default(), idle: Mutex::default(), batch_bytes_max }
    }

    /// The array of these events in this encoding, compressed; without those that cannot be read. `None` where the
    /// batch is to be sent as it is.
    pub(super) async fn array(&self, encoding: Encoding, events: &[Arc<Stored>]) -> Option<Bytes> {
        let encoded = events.iter().filter_map(|event| encoding.event(event).ok());
        let encoded: Vec<&[u8]> = encoded.collect();
        let bytes: usize = encoded.iter().map(|event| event.len()).sum();
        if !(BATCH_BYTES_MIN..=self.batch_bytes_max).contains(&bytes) {
            return None;
        }
        let key = Key { encoding, events: events.iter().map(|event| event.identity()).collect() };
        let place = self.cache.lock().place(key, bytes);
        let mut is_made = false;
        let deflated = place.get_or_init(|| {
            is_made = true;
            self.deflate(encoding, &encoded, bytes)
        });
        let deflated = deflated.await.clone();
        metrics::compressed(bytes, deflated.as_ref().map(Bytes::len), is_made);
        deflated
    }

    async fn deflate(&self, encoding: Encoding, encoded: &[&[u8]], bytes: usize) -> Option<Bytes> {
        // The array has a few bytes more for each event.
        let mut array = Vec::with_capacity(bytes + 8 * encoded.len() + 8);
        encoding.array(encoded, &mut array);
        if array.len() > self.batch_bytes_max {
            return None;
        }
        let mut deflater = self.idle.lock().pop().unwrap_or_default();
        let work = move || (deflater.deflate(&array), deflater);
        let done = match bytes > HERE_BYTES_MAX {
            true => tokio::task::spawn_blocking(work).await,
            false => Ok(work()),
        };
        // It fails only while the broker stops.
        let (deflated, deflater) = done.ok()?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(deflater);
        }
        deflated.map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use tidings_proto::{
        NewEvent, Offset, Timestamp, Topic, event::JSON, wire::compressed::inflate,
    };

    use super::*;
    use crate::{clock, log};

    /// An event with so many bytes of data.
    fn event(offset: u64, bytes: usize) -> Arc<Stored> {
        let event = NewEvent {
            datacontenttype: Some(JSON.to_owned()),
            data: Some(vec![b'7'; bytes].into()),
            ..NewEvent::on(Topic::parse("a").unwrap())
        };
        let id = clock::event_id();
        let draft = log::draft(&event, id, "alice", Timestamp::from_millis(5), false);
        Arc::new(Stored::new(log::Record {
            offset: Offset::new(offset).unwrap(),
            time_ms: 5,
            flags: draft.flags,
            topic: draft.topic,
            key: Bytes::new(),
            dedupe: None,
            body: draft.body.into(),
        }))
    }

    async fn array(compressor: &Compressor, events: &[Arc<Stored>]) -> Option<Bytes> {
        compressor.array(Encoding::Json, events).await
    }

    /// What the array is without its compression.
    fn plain(events: &[Arc<Stored>]) -> Vec<u8> {
        let encoded: Vec<&[u8]> = events.iter().map(|event| &event.json().unwrap()[..]).collect();
        let mut out = Vec::new();
        Encoding::Json.array(&encoded, &mut out);
        out
    }

    #[tokio::test]
    async fn the_same_events_are_compressed_once() {
        let compressor = Compressor::new(1 << 20);
        let events = [event(1, 300), event(3, 300), event(4, 2 * HERE_BYTES_MAX)];
        let first = array(&compressor, &events[..2]).await.unwrap();
        assert_eq!(inflate(&first, 1 << 20).unwrap(), plain(&events[..2]));
        let again = array(&compressor, &events[..2]).await.unwrap();
        assert_eq!(first.as_ptr(), again.as_ptr(), "the same bytes, not equal ones");
        let others = compressor.array(Encoding::Protobuf, &events[..2]).await.unwrap();
        assert!(inflate(&others, 1 << 20).unwrap() != plain(&events[..2]), "another encoding");
        let large = array(&compressor, &events).await.unwrap();
        assert_eq!(inflate(&large, 1 << 20).unwrap(), plain(&events));
        assert_eq!(compressor.idle.lock().len(), 1, "all by one, one after another");
    }

    #[tokio::test]
    async fn an_event_without_its_data_is_another_than_with_it() {
        let compressor = Compressor::new(1 << 20);
        let whole = event(1, 5000);
        let without = Arc::new(whole.without_data_above(10).unwrap());
        let padding = event(2, 5000);
        for first in [whole, without] {
            let events = [first, padding.clone()];
            let deflated = array(&compressor, &events).await.unwrap();
            assert_eq!(inflate(&deflated, 1 << 20).unwrap(), plain(&events));
        }
    }

    #[tokio::test]
    async fn what_is_small_or_too_large_stays_as_it_is() {
        let small = plain(&[event(1, 0)]).len();
        let limit = plain(&[event(1, 5000)]).len();
        let compressor = Compressor::new(limit);
        assert_eq!(array(&compressor, &[event(1, BATCH_BYTES_MIN - small)]).await, None);
        assert!(array(&compressor, &[event(2, BATCH_BYTES_MIN)]).await.is_some());
        assert!(array(&compressor, &[event(3, 5000)]).await.is_some());
        assert_eq!(array(&compressor, &[event(4, 5001)]).await, None, "with its brackets");
    }

    #[tokio::test]
    async fn the_cache_is_bounded_and_the_oldest_goes_first() {
        let compressor = Compressor::new(CACHE_BYTES_MAX);
        let events: Vec<_> = (1..=20).map(|offset| event(offset, CACHE_BYTES_MAX / 8)).collect();
        let mut first = None;
        for event in &events {
            let made = array(&compressor, std::slice::from_ref(event)).await.unwrap();
            first.get_or_insert(made);
            let cache = compressor.cache.lock();
            assert!(cache.bytes <= CACHE_BYTES_MAX);
            assert_eq!(cache.order.len(), cache.places.len());
        }
        let again = array(&compressor, &events[..1]).await.unwrap();
        assert_ne!(first.as_ref().map(|first| first.as_ptr()), Some(again.as_ptr()), "made anew");
        assert_eq!(first.unwrap(), again);
    }
}
