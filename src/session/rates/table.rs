//! Buckets of many keys in memory of a fixed size.
//!
//! - A key has its place in one set of eight. Where they are all taken it takes the place of the one that has the
//!   least to wait: who is limited stays limited, however many others come.
//! - A key that lost its place begins with full buckets.
//! - Memory that no key has touched is only reserved.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hash},
};

use parking_lot::Mutex;

use super::{KINDS, Kind, Rate, Wait, bucket};

/// Places of a set.
const WAYS: usize = 8;
/// Sets under one lock.
const SHARD_SETS: usize = 128;
/// Locks.
const SHARDS: usize = 64;
/// Numbers of a place: its key, and when each bucket will be full.
const WORDS: usize = 1 + KINDS;

/// How many keys are kept: 65,536, in 5.8 MB.
pub const KEYS: usize = SHARDS * SHARD_SETS * WAYS;

/// See the module.
pub struct Table {
    shards: Vec<Mutex<Vec<u64>>>,
    hasher: RandomState,
}

/// A key's number in a table; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64);

impl Table {
    /// A table in which all buckets are full.
    pub fn new() -> Table {
        let shard = || Mutex::new(vec![0; SHARD_SETS * WAYS * WORDS]);
        let shards = (0..SHARDS).map(|_| shard()).collect();
        Table { shards, hasher: RandomState::new() }
    }

    /// The number of a key. Two keys with one number would share their buckets, and that does not happen.
    pub fn key(&self, of: impl Hash) -> Key {
        Key(self.hasher.hash_one(of).max(1))
    }

    /// Takes `cost` of a key's bucket, see [`Rate`].
    ///
    /// # Errors
    /// How long to wait when there is not that much in it; nothing is taken then.
    pub fn take(
        &self,
        key: Key,
        kind: Kind,
        rate: Rate,
        now_ns: u64,
        cost: u64,
    ) -> Result<(), Wait> {
        self.with(key, kind, |full_ns| {
            let full = bucket::take(rate, *full_ns, now_ns, cost)?;
            *full_ns = full;
            Ok(())
        })
        .unwrap_or(Ok(()))
    }

    /// Takes `cost` whether it is there or not.
    pub fn charge(&self, key: Key, kind: Kind, rate: Rate, now_ns: u64, cost: u64) {
        self.with(key, kind, |full_ns| *full_ns = bucket::charge(rate, *full_ns, now_ns, cost));
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&self, key: Key, kind: Kind, rate: Rate, cost: u64) {
        self.with(key, kind, |full_ns| *full_ns = bucket::give_back(rate, *full_ns, cost));
    }

    /// Does something with a key's bucket; `None` is never given, as every index lies in its shard.
    fn with<T>(&self, key: Key, kind: Kind, act: impl FnOnce(&mut u64) -> T) -> Option<T> {
        let hash = usize::try_from(key.0 >> 8).unwrap_or(usize::MAX);
        let mut shard = self.shards.get(hash % SHARDS)?.lock();
        let set = hash / SHARDS % SHARD_SETS * WAYS * WORDS;
        let places = shard.get_mut(set..set + WAYS * WORDS)?;
        let place = place_of(places, key)?;
        let words = places.get_mut(place..place + WORDS)?;
        act(words.get_mut(1 + kind as usize)?).into()
    }
}

impl Default for Table {
    fn default() -> Table {
        Table::new()
    }
}

/// Where this key's place begins; it is made where there was none.
fn place_of(places: &mut [u64], key: Key) -> Option<usize> {
    let found = places.chunks_exact(WORDS).position(|place| place.first() == Some(&key.0));
    if let Some(way) = found {
        return Some(way * WORDS);
    }
    let waits = |place: &[u64]| place.get(1..).and_then(|full| full.iter().max().copied());
    let (way, place) =
        places.chunks_exact_mut(WORDS).enumerate().min_by_key(|(_, place)| waits(place))?;
    place.fill(0);
    *place.first_mut()? = key.0;
    Some(way * WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn s7_a_million_keys_take_no_more_memory_and_free_nobody_who_is_limited() {
        let table = Table::new();
        let bytes: usize = table.shards.iter().map(|shard| shard.lock().capacity() * 8).sum();
        assert!(bytes < 64 << 20, "{bytes}");
        let rate = Rate { per_second: 1, burst: 10 };
        let abuser = table.key("abuser");
        while table.take(abuser, Kind::Connects, rate, SECOND, 1).is_ok() {}
        for n in 0..1_000_000_u64 {
            let key = table.key(n);
            assert!(table.take(key, Kind::Connects, rate, SECOND, 1).is_ok(), "{n} is new");
        }
        assert!(table.take(abuser, Kind::Connects, rate, SECOND, 1).is_err(), "it was let go");
        let after: usize = table.shards.iter().map(|shard| shard.lock().capacity() * 8).sum();
        assert_eq!(after, bytes);
    }

    #[test]
    fn buckets_of_a_key_and_keys_are_apart() {
        let table = Table::new();
        let rate = Rate { per_second: 1, burst: 1 };
        let (one, other) = (table.key(1), table.key(2));
        assert!(table.take(one, Kind::Acks, rate, SECOND, 1).is_ok());
        assert!(table.take(one, Kind::Acks, rate, SECOND, 1).is_err());
        assert!(table.take(one, Kind::Publishes, rate, SECOND, 1).is_ok());
        assert!(table.take(other, Kind::Acks, rate, SECOND, 1).is_ok());
        table.charge(other, Kind::Publishes, rate, SECOND, 100);
        assert!(table.take(other, Kind::Publishes, rate, 50 * SECOND, 1).is_err());
        assert!(table.take(other, Kind::Publishes, rate, 102 * SECOND, 1).is_ok());
    }
}
