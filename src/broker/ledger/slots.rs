//! How far durables are acknowledged, by number: 24 bytes each where the floor says all of it.
//!
//! - A page holds what there is of 256 numbers, so that an ack changes a few bytes in place.
//! - What the floor does not say (acknowledged ranges, attempts, dead letters …) is kept beside, packed as in the log.
//! - It also says in which block a durable stands, so that no map goes from numbers to names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use prost::encoding::encode_varint;
use tidings_proto::{
    Cursor,
    control::{AckState, AckStates},
};

use super::line::{Unreadable, take, unzigzag, zigzag};
use crate::log::projection::{Change, Entry};

/// How many numbers a page is about.
const PAGE: u64 = 256;
const PAGE_KEY: &[u8] = b"$acks";
const MORE_KEY: &[u8] = b"$acks.more";

/// The slots of all durables.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pages: BTreeMap<u64, Page>,
    /// What the floor does not say, as an [`AckStates`] of one.
    more: HashMap<u64, Box<[u8]>>,
    changed: BTreeSet<u64>,
    changed_more: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Page {
    /// By number.
    slots: Vec<Slot>,
    expiring: u16,
}

/// One durable. Its offsets are in halves so that it has 24 bytes.
#[derive(Clone, Copy, Debug)]
struct Slot {
    floor: [u32; 2],
    acked_at: [u32; 2],
    block: u32,
    /// The number within the page.
    rel: u8,
    expires: bool,
    has_more: bool,
}

impl Slots {
    /// The block in which the durable of this number stands.
    pub(super) fn block(&self, number: u64) -> Option<u32> {
        self.slot(number).map(|slot| slot.block)
    }

    /// How far it is acknowledged, and where the newest event stands that says so; 0 where none does.
    pub(super) fn acks(&self, number: u64) -> (AckState, u64) {
        let Some(slot) = self.slot(number) else { return (AckState::default(), 0) };
        let more = self.more.get(&number).filter(|_| slot.has_more);
        let states = more.and_then(|bytes| AckStates::from_bytes(bytes).ok());
        let state = states.and_then(|states| states.states.into_iter().next());
        let plain =
            AckState { number, floor: Cursor::new(whole(slot.floor)), ..AckState::default() };
        (state.unwrap_or(plain), whole(slot.acked_at))
    }

    /// In how many bytes it is packed what of it is acknowledged beyond its floor.
    pub(super) fn more_bytes(&self, number: u64) -> usize {
        self.more.get(&number).map_or(0, |bytes| bytes.len())
    }

    /// Where the newest event stands that says how far it is acknowledged; 0 where none does.
    pub(super) fn acked_at(&self, number: u64) -> u64 {
        self.slot(number).map_or(0, |slot| whole(slot.acked_at))
    }

    /// It is acknowledged so far, as the event at `at` says. False where there is no such durable.
    pub(super) fn acknowledge(&mut self, state: AckState, at: u64) -> bool {
        let number = state.number;
        let Some(slot) = self.slot_mut(number) else { return false };
        slot.floor = halves(state.floor.get());
        slot.acked_at = halves(at);
        let has_more = has_more(&state);
        let had_more = std::mem::replace(&mut slot.has_more, has_more);
        self.changed.insert(number / PAGE);
        if has_more {
            let bytes = AckStates { states: vec![state] }.to_bytes();
            self.more.insert(number, bytes.into());
        } else {
            self.more.remove(&number);
        }
        if had_more || has_more {
            self.changed_more.insert(number);
        }
        true
    }

    /// A durable was made that has acknowledged everything up to `floor`.
    pub(super) fn add(&mut self, number: u64, floor: Cursor) {
        if let Some(slot) = self.at(number) {
            slot.floor = halves(floor.get());
        }
        self.changed.insert(number / PAGE);
    }

    /// It stands in this block.
    pub(super) fn stands(&mut self, number: u64, block: u32, expires: bool) {
        let Some(slot) = self.at(number) else { return };
        slot.block = block;
        let before = std::mem::replace(&mut slot.expires, expires);
        if let Some(page) = self.pages.get_mut(&(number / PAGE)) {
            page.expiring = page.expiring + u16::from(expires) - u16::from(before);
        }
    }

    /// It is forgotten.
    pub(super) fn remove(&mut self, number: u64) {
        let Some(page) = self.pages.get_mut(&(number / PAGE)) else { return };
        let Ok(found) = page.slots.binary_search_by_key(&rel(number), |slot| slot.rel) else {
            return;
        };
        let slot = page.slots.remove(found);
        page.expiring -= u16::from(slot.expires);
        page.slots.shrink_to(page.slots.len() * 2);
        if page.slots.is_empty() {
            self.pages.remove(&(number / PAGE));
        }
        self.changed.insert(number / PAGE);
        if self.more.remove(&number).is_some() {
            self.changed_more.insert(number);
        }
    }

    /// The numbers of those that are forgotten when nobody uses them, from this number on.
    pub(super) fn expiring(&self, from: u64) -> impl Iterator<Item = u64> {
        let pages = self.pages.range(from / PAGE..).filter(|(_, page)| page.expiring > 0);
        let numbers = pages.flat_map(|(page, found)| {
            let expiring = found.slots.iter().filter(|slot| slot.expires);
            expiring.map(move |slot| page * PAGE + u64::from(slot.rel))
        });
        numbers.skip_while(move |number| *number < from)
    }

    fn slot(&self, number: u64) -> Option<&Slot> {
        let page = self.pages.get(&(number / PAGE))?;
        let found = page.slots.binary_search_by_key(&rel(number), |slot| slot.rel).ok()?;
        page.slots.get(found)
    }

    fn slot_mut(&mut self, number: u64) -> Option<&mut Slot> {
        let page = self.pages.get_mut(&(number / PAGE))?;
        let found = page.slots.binary_search_by_key(&rel(number), |slot| slot.rel).ok()?;
        page.slots.get_mut(found)
    }

    /// The slot of this number, made where there is none.
    fn at(&mut self, number: u64) -> Option<&mut Slot> {
        let slots = &mut self.pages.entry(number / PAGE).or_default().slots;
        let found = match slots.binary_search_by_key(&rel(number), |slot| slot.rel) {
            Ok(found) => found,
            Err(free) => {
                slots.insert(free, Slot::of(rel(number)));
                free
            }
        };
        slots.get_mut(found)
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> u64 {
        let slots: usize = self.pages.values().map(|page| page.slots.capacity()).sum();
        (slots * size_of::<Slot>() + self.pages.len() * (size_of::<Page>() + 8)) as u64
    }

    /// What has changed since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let pages = std::mem::take(&mut self.changed).into_iter();
        let mut changes: Vec<Change> = pages
            .map(|page| (key(PAGE_KEY, page), self.pages.get(&page).map(Page::to_bytes)))
            .collect();
        for number in std::mem::take(&mut self.changed_more) {
            let more = self.more.get(&number).map(|bytes| bytes.to_vec());
            changes.push((key(MORE_KEY, number), more));
        }
        changes
    }

    /// All of it, to be stored.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        let pages = self.pages.iter().map(|(page, found)| (key(PAGE_KEY, *page), found.to_bytes()));
        let more = self.more.iter();
        pages.chain(more.map(|(number, bytes)| (key(MORE_KEY, *number), bytes.to_vec())))
    }

    /// Takes in an entry of [`Slots::entries`]; false where the key is of something else.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub(super) fn restore(&mut self, entry: &[u8], value: &[u8]) -> Result<bool, Unreadable> {
        if let Some(number) = of_key(MORE_KEY, entry) {
            AckStates::from_bytes(value).map_err(|_| Unreadable::Form)?;
            self.at(number).ok_or(Unreadable::Form)?.has_more = true;
            self.more.insert(number, value.into());
            return Ok(true);
        }
        let Some(page) = of_key(PAGE_KEY, entry) else { return Ok(false) };
        let first = page.checked_mul(PAGE).ok_or(Unreadable::Form)?;
        let (mut rest, mut floor, mut acked_at) = (value, 0_u64, 0_u64);
        while let Some((rel, behind)) = rest.split_first() {
            rest = behind;
            let mut next = || take(&mut rest).map(unzigzag).ok_or(Unreadable::Form);
            floor = floor.wrapping_add(next()?);
            acked_at = acked_at.wrapping_add(next()?);
            let slot = self.at(first + u64::from(*rel)).ok_or(Unreadable::Form)?;
            (slot.floor, slot.acked_at) = (halves(floor), halves(acked_at));
        }
        Ok(true)
    }
}

impl Slot {
    fn of(rel: u8) -> Slot {
        let (none, block) = ([0; 2], u32::MAX);
        Slot { floor: none, acked_at: none, block, rel, expires: false, has_more: false }
    }
}

impl Page {
    /// Of each slot its number within the page, and its floor and place as distances from those before.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.slots.len() * 8);
        let (mut floor, mut acked_at) = (0, 0);
        for slot in &self.slots {
            out.push(slot.rel);
            for (now, then) in
                [(whole(slot.floor), &mut floor), (whole(slot.acked_at), &mut acked_at)]
            {
                encode_varint(zigzag(now.wrapping_sub(*then)), &mut out);
                *then = now;
            }
        }
        out
    }
}

/// Whether the floor does not say all of it.
fn has_more(state: &AckState) -> bool {
    let AckState {
        name: _,
        number: _,
        floor: _,
        generation,
        ranges,
        attempts,
        delayed,
        dead,
        letters,
        skipped,
        redriven,
    } = state;
    let is_plain = ranges.is_empty() && attempts.is_empty() && delayed.is_empty();
    let has_letters = !dead.is_empty() || !redriven.is_empty() || *letters > 0;
    !is_plain || has_letters || !skipped.is_empty() || *generation > 0
}

fn rel(number: u64) -> u8 {
    u8::try_from(number % PAGE).unwrap_or(u8::MAX)
}

fn halves(whole: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = whole.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

fn whole([low, high]: [u32; 2]) -> u64 {
    u64::from(low) | (u64::from(high) << 32)
}

/// No topic and no durable's name has a blank.
pub(super) fn key(root: &[u8], number: u64) -> Vec<u8> {
    [root, b" ", &number.to_be_bytes()].concat()
}

/// The number of a key of this root.
pub(super) fn of_key(root: &[u8], key: &[u8]) -> Option<u64> {
    let number = key.strip_prefix(root)?.strip_prefix(b" ")?;
    number.try_into().ok().map(u64::from_be_bytes)
}
