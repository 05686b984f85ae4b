//! Ack states as they are stored: Protobuf, with offsets as distances, some ten bytes a state.
//!
//! ```text
//! AckStates { repeated AckState states = 1 }
//! AckState  { uint64 number = 1, floor = 2, generation = 3, letters = 8
//!             repeated uint64 ranges = 4    first − end of the one before, last − first; from the floor on
//!             repeated uint64 attempts = 5  offset − the one before, deliveries; from the floor on
//!             repeated uint64 delayed = 6   offset − the one before, moment; from the floor on
//!             repeated uint64 dead = 7      offset − the one before, letter; from 0 on, by offset
//!             repeated uint64 skipped = 9   as ranges, from 0 on
//!             repeated uint64 redriven = 10 } offset − the one before; from the floor on
//! ```
//! The name is not among them: the number says which durable it is.

use prost::Message;

use super::{AckState, AckStates};
use crate::Cursor;

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(message, repeated, tag = "1")]
    states: Vec<StoredState>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredState {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(uint64, tag = "2")]
    floor: u64,
    #[prost(uint64, tag = "3")]
    generation: u64,
    #[prost(uint64, repeated, tag = "4")]
    ranges: Vec<u64>,
    #[prost(uint64, repeated, tag = "5")]
    attempts: Vec<u64>,
    #[prost(uint64, repeated, tag = "6")]
    delayed: Vec<u64>,
    #[prost(uint64, repeated, tag = "7")]
    dead: Vec<u64>,
    #[prost(uint64, tag = "8")]
    letters: u64,
    #[prost(uint64, repeated, tag = "9")]
    skipped: Vec<u64>,
    #[prost(uint64, repeated, tag = "10")]
    redriven: Vec<u64>,
}

impl AckStates {
    /// As they are stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        Stored { states: self.states.iter().map(store).collect() }.encode_to_vec()
    }

    /// What was stored; the names are empty.
    ///
    /// # Errors
    /// When the bytes are no such states.
    pub fn from_bytes(bytes: &[u8]) -> Result<AckStates, prost::DecodeError> {
        let stored = Stored::decode(bytes)?;
        Ok(AckStates { states: stored.states.into_iter().map(load).collect() })
    }
}

fn store(state: &AckState) -> StoredState {
    let floor = state.floor.get();
    StoredState {
        number: state.number,
        floor,
        generation: state.generation,
        ranges: stretches(&state.ranges, floor),
        attempts: distances(state.attempts.iter().map(|&(at, n)| (at, n.into())), floor),
        delayed: distances(state.delayed.iter().copied(), floor),
        dead: distances(state.dead.iter().copied(), 0),
        letters: state.letters,
        skipped: stretches(&state.skipped, 0),
        redriven: steps(&state.redriven, floor),
    }
}

fn load(stored: StoredState) -> AckState {
    let counted = offsets(&stored.attempts, stored.floor);
    AckState {
        name: String::new(),
        number: stored.number,
        generation: stored.generation,
        floor: Cursor::new(stored.floor),
        ranges: ranges(&stored.ranges, stored.floor).collect(),
        attempts: counted.map(|(at, n)| (at, u32::try_from(n).unwrap_or(u32::MAX))).collect(),
        delayed: offsets(&stored.delayed, stored.floor).collect(),
        dead: offsets(&stored.dead, 0).collect(),
        letters: stored.letters,
        skipped: ranges(&stored.skipped, 0).collect(),
        redriven: steps_back(&stored.redriven, stored.floor),
    }
}

fn stretches(ranges: &[(u64, u64)], from: u64) -> Vec<u64> {
    let mut end = from;
    let each = ranges.iter().flat_map(|&(first, last)| {
        let gap = first.wrapping_sub(end);
        end = last;
        [gap, last.wrapping_sub(first)]
    });
    each.collect()
}

fn ranges(stretches: &[u64], from: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
    let mut end = from;
    pairs(stretches).map(move |(gap, more)| {
        let first = end.wrapping_add(gap);
        end = first.wrapping_add(more);
        (first, end)
    })
}

fn distances(list: impl Iterator<Item = (u64, u64)>, from: u64) -> Vec<u64> {
    let mut before = from;
    list.flat_map(|(offset, value)| {
        let distance = offset.wrapping_sub(before);
        before = offset;
        [distance, value]
    })
    .collect()
}

fn offsets(list: &[u64], from: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
    let mut before = from;
    pairs(list).map(move |(distance, value)| {
        before = before.wrapping_add(distance);
        (before, value)
    })
}

fn steps(offsets: &[u64], from: u64) -> Vec<u64> {
    let mut before = from;
    let step = |&offset: &u64| offset.wrapping_sub(std::mem::replace(&mut before, offset));
    offsets.iter().map(step).collect()
}

fn steps_back(steps: &[u64], from: u64) -> Vec<u64> {
    let mut at = from;
    let step = |step: &u64| {
        at = at.wrapping_add(*step);
        at
    };
    steps.iter().map(step).collect()
}

fn pairs(list: &[u64]) -> impl Iterator<Item = (u64, u64)> + '_ {
    list.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?)))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn state() -> impl Strategy<Value = AckState> {
        let offset = || any::<u64>();
        let lists = (
            vec((offset(), offset()), 0..5),
            vec((offset(), any::<u32>()), 0..5),
            vec((offset(), any::<u64>()), 0..5),
            vec((offset(), any::<u64>()), 0..5),
            vec((offset(), offset()), 0..5),
            vec(offset(), 0..5),
        );
        (any::<[u64; 4]>(), lists).prop_map(|([number, generation, floor, letters], lists)| {
            let (ranges, attempts, delayed, dead, skipped, redriven) = lists;
            let (name, floor) = (String::new(), Cursor::new(floor));
            AckState {
                name,
                number,
                generation,
                floor,
                ranges,
                attempts,
                delayed,
                dead,
                letters,
                skipped,
                redriven,
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_stored_comes_back(states in vec(state(), 0..4)) {
            let states = AckStates { states };
            prop_assert_eq!(AckStates::from_bytes(&states.to_bytes()).unwrap(), states);
        }

        #[test]
        fn hostile_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = AckStates::from_bytes(&bytes);
        }
    }

    #[test]
    fn the_bytes_never_change_and_are_few() {
        let plain = AckState { number: 300, floor: Cursor::new(1_000_000), ..AckState::default() };
        let full = AckState {
            number: 1,
            generation: 2,
            floor: Cursor::new(10),
            ranges: vec![(12, 12), (15, 20)],
            attempts: vec![(11, 2)],
            delayed: vec![(11, 5)],
            dead: vec![(12, 1)],
            letters: 1,
            skipped: vec![(3, 4), (9, 9)],
            ..AckState::default()
        };
        let bytes = AckStates { states: vec![plain, full] }.to_bytes();
        let (plain, full) = bytes.split_at(9);
        assert_eq!(plain, [10, 7, 8, 172, 2, 16, 192, 132, 61]);
        let want: [u8; 34] = [
            10, 32, 8, 1, 16, 10, 24, 2, 34, 4, 2, 0, 3, 5, 42, 2, 1, 2, 50, 2, 1, 5, 58, 2, 12, 1,
            64, 1, 74, 4, 3, 1, 5, 0,
        ];
        assert_eq!(full, want);
    }
}
