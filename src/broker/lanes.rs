//! `order: "priority"`: higher priorities first, in the order of the log within one.
//!
//! - A lane is what a durable has not delivered yet of one priority. Lanes are found by the marks in the log's
//!   index, a page at a time, and never stored: what is acknowledged above the floor says what is done.
//! - Every [`OLDEST_EVERY`]th event is the oldest that waits, whatever its priority, so that none waits for ever.
//! - What comes again has its lane too: it goes before what is new and lower, and has its turn as the oldest.
//! - Far more acknowledged above the floor than can be remembered, the oldest go first until the floor has risen.

use std::{collections::VecDeque, sync::Arc};

use tidings_proto::{Cursor, Filters, Offset, Priority};

use super::{
    durable::DurableState,
    held::{Durable, Held, Token},
    leasing::Leasing,
    selection::Selection,
};
use crate::{
    clock,
    log::{LogHandle, ReadError, ReadLimit, Stored},
};

/// The lanes in the order they are served in.
const ORDER: [Priority; 4] = [Priority::Urgent, Priority::High, Priority::Normal, Priority::Low];
/// How often the oldest event goes first: the sixteenth, as docs/protocol.md says.
const OLDEST_EVERY: u32 = 16;
/// How many events of a lane are known ahead of their delivery.
const PAGE: usize = 256;
/// How many wait in one lane before the others are filled without it.
const WAITING_MAX: usize = 1024;
/// Where so few events are behind all lanes they are read, and each goes into its lane.
const NEAR: u64 = 1024;

/// What is known of what waits. Pure.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: [Lane; 4],
    turn: u32,
    /// The turn of the oldest waits for room: what goes out meanwhile does not count.
    keeps_turn: bool,
}

#[derive(Debug)]
struct Lane {
    /// Everything of it up to here waits below, or was looked at for delivery.
    at: Cursor,
    waiting: VecDeque<u64>,
}

/// What is to be read before the next pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    /// Of all lanes, what comes after this.
    All(Cursor),
    /// Of one lane, by its rank.
    One(usize, Cursor),
}

impl Lanes {
    /// Nothing is known of what comes after `floor`.
    pub(super) fn new(floor: Cursor) -> Lanes {
        let lane = || Lane { at: floor, waiting: VecDeque::new() };
        Lanes { lanes: [lane(), lane(), lane(), lane()], turn: 0, keeps_turn: false }
    }

    /// Everything up to here is known, and waits or was looked at.
    fn known(&self) -> Cursor {
        self.lanes.iter().map(|lane| lane.at).min().unwrap_or_default()
    }

    /// Everything up to here was looked at for delivery: nothing of it waits.
    pub(super) fn passed(&self) -> Cursor {
        let before = |lane: &Lane| {
            lane.waiting.front().map_or(lane.at, |first| Cursor::new(first.saturating_sub(1)))
        };
        self.lanes.iter().map(before).min().unwrap_or_default()
    }

    /// What is to be read before it is known which event is next.
    fn to_fill(&self, committed: Cursor) -> Option<Fill> {
        let at = self.known();
        let is_level = self.lanes.iter().all(|lane| lane.at == at);
        let is_empty = self.lanes.iter().any(|lane| lane.waiting.is_empty());
        let is_near = at < committed && committed.get() - at.get() <= NEAR;
        let has_space = self.lanes.iter().all(|lane| lane.waiting.len() < WAITING_MAX);
        if is_level && is_empty && is_near && has_space {
            return Some(Fill::All(at));
        }
        let needs = |lane: &&Lane| lane.waiting.is_empty() && lane.at < committed;
        let rank = self.lanes.iter().position(|lane| needs(&lane))?;
        self.lanes.get(rank).map(|lane| Fill::One(rank, lane.at))
    }

    /// What was read for a fill; nothing where another was faster.
    fn filled(&mut self, fill: Fill, found: &[(usize, u64)], at: Cursor) {
        let is_current = match fill {
            Fill::All(from) => self.lanes.iter().all(|lane| lane.at == from),
            Fill::One(rank, from) => self.lanes.get(rank).is_some_and(|lane| lane.at == from),
        };
        if !is_current {
            return;
        }
        for &(rank, offset) in found {
            if let Some(lane) = self.lanes.get_mut(rank) {
                lane.waiting.push_back(offset);
            }
        }
        match fill {
            Fill::All(_) => self.lanes.iter_mut().for_each(|lane| lane.at = at),
            Fill::One(rank, _) => {
                if let Some(lane) = self.lanes.get_mut(rank) {
                    lane.at = at;
                }
            }
        }
    }

    /// The rank of the best that waits.
    fn rank(&self) -> Option<u8> {
        let rank = self.lanes.iter().position(|lane| !lane.waiting.is_empty())?;
        u8::try_from(rank).ok()
    }

    /// Leaves out what waits in front and was done, or taken in an earlier life of the lanes.
    pub(super) fn trim(&mut self, state: &DurableState) {
        for lane in &mut self.lanes {
            while lane.waiting.front().is_some_and(|offset| !state.is_new(*offset)) {
                lane.waiting.pop_front();
            }
        }
    }

    /// Up to `max` of what waits, in the order of delivery, with their ranks. Ends where a lane has to be filled
    /// before it is known what is next, and where what is `due` again, of this rank, goes first.
    pub(super) fn pick(
        &mut self,
        max: usize,
        committed: Cursor,
        state: &DurableState,
        due: Option<u8>,
    ) -> Vec<(u64, u8)> {
        let mut picked = Vec::new();
        while picked.len() < max && self.to_fill(committed).is_none() {
            let by_age = state.is_far_ahead() || self.turn + 1 >= OLDEST_EVERY;
            let best = self.lanes.iter().position(|lane| !lane.waiting.is_empty());
            let rank = if by_age { self.oldest() } else { best };
            let Some(rank) = rank else { break };
            let is_behind = due.is_some_and(|due| rank >= usize::from(due));
            if is_behind && !by_age && !picked.is_empty() {
                // What comes again goes before it.
                break;
            }
            let Some(lane) = self.lanes.get_mut(rank) else { break };
            let Some(offset) = lane.waiting.pop_front() else { break };
            // Done or taken in an earlier life of the lanes.
            if state.is_new(offset) {
                self.went_out(1);
                picked.push((offset, u8::try_from(rank).unwrap_or(u8::MAX)));
            }
        }
        picked
    }

    /// The lane with the oldest of what waits.
    fn oldest(&self) -> Option<usize> {
        self.oldest_waiting().map(|(_, rank)| rank)
    }

    /// The oldest of what waits, and its lane.
    fn oldest_waiting(&self) -> Option<(u64, usize)> {
        let fronts = self.lanes.iter().map(|lane| lane.waiting.front());
        fronts.enumerate().filter_map(|(rank, front)| Some((*front?, rank))).min()
    }

    /// How many go out by their lanes before it is the turn of the oldest.
    fn before_oldest(&self) -> usize {
        usize::try_from(OLDEST_EVERY - 1 - self.turn).unwrap_or_default()
    }

    /// So many more have gone out, of which only the last may have been the oldest's turn.
    fn went_out(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(OLDEST_EVERY);
        self.turn = self.turn.saturating_add(count) % OLDEST_EVERY;
        self.keeps_turn = false;
    }

    /// So many of those, the last ones, did not go out after all: it is the turn of the first of them again.
    pub(super) fn gave_back(&mut self, count: usize) {
        if self.keeps_turn {
            return;
        }
        let back = u32::try_from(count).unwrap_or(0) % OLDEST_EVERY;
        self.turn = (self.turn + OLDEST_EVERY - back) % OLDEST_EVERY;
    }
}

/// What goes out next of a durable with lanes.
#[derive(Debug)]
pub(super) enum Next {
    /// These, with the number of the delivery; they count as being on their way.
    Events(Vec<(u64, u32)>),
    /// The session has it no longer.
    Lost,
}

/// Finds what goes out next to this session, new or again: nothing when nothing waits or there is no room.
///
/// # Errors
/// The log could not be read.
pub(super) async fn next(
    log: &LogHandle,
    durable: &Durable,
    token: Token,
    max: usize,
    is_its: impl Fn(&Held) -> bool,
) -> Result<Next, ReadError> {
    loop {
        let committed = log.committed();
        let fill = {
            let mut held = durable.lock();
            if !is_its(&held) {
                return Ok(Next::Lost);
            }
            // A lease that has ended takes no share any more.
            held.state.ripen(clock::monotonic_ms());
            let has_room = durable.room(&held, token) > 0 || durable.room_again(&held, token) > 0;
            if !has_room {
                return Ok(Next::Events(Vec::new()));
            }
            if let Some(fill) = held.lanes().to_fill(committed) {
                fill
            } else {
                let Some(events) = take(durable, &mut held, token, max, committed) else {
                    continue;
                };
                match held.lanes().to_fill(committed) {
                    // What was known of a lane was done long ago: there may be more behind it.
                    Some(fill) if events.is_empty() && durable.room(&held, token) > 0 => fill,
                    _ => return Ok(Next::Events(events)),
                }
            }
        };
        let (found, at) = read(log, &durable.spec.options.filters, fill, committed).await?;
        durable.lock().lanes().filled(fill, &found, at);
    }
}

/// Takes what is next: all lanes are known as far as it matters. `None` when what was next waits for its moment
/// or dies: there may be more behind it.
fn take(
    durable: &Durable,
    held: &mut Held,
    token: Token,
    max: usize,
    committed: Cursor,
) -> Option<Vec<(u64, u32)>> {
    let now_ms = clock::monotonic_ms();
    let again_max = max.min(durable.room_again(held, token));
    let room = max.min(durable.room(held, token));
    held.trim_lanes();
    if room > 0 && held.lanes().to_fill(committed).is_some() {
        return Some(Vec::new());
    }
    let due = held.state.due_rank(now_ms);
    let rank_max = held.lanes().rank().filter(|_| room > 0).unwrap_or(u8::MAX);
    let again = take_again(held, token, again_max, room > 0);
    if !again.is_empty() || again_max == 0 && due.is_some_and(|due| due <= rank_max) {
        return Some(again);
    }
    let due = held.state.due_rank(now_ms);
    let picked = held.pick(room, committed, due);
    for &(offset, rank) in &picked {
        held.state.note_rank(offset, rank);
    }
    let offsets: Vec<u64> = picked.iter().map(|(offset, _)| *offset).collect();
    let passed = held.lanes().passed();
    let sent = held.state.deliver_new(&offsets, passed, now_ms, token);
    (offsets.is_empty() || !sent.is_empty()).then_some(sent)
}

/// Up to `max` of what is due again and goes before what is new, in the order of delivery. Without room for new ones
/// it goes whatever waits: it is what takes the room.
fn take_again(
    held: &mut Held,
    token: Token,
    max: usize,
    has_room_for_new: bool,
) -> Vec<(u64, u32)> {
    let now_ms = clock::monotonic_ms();
    let new = held.lanes().oldest_waiting();
    let rank_max = held.lanes().rank().filter(|_| has_room_for_new).unwrap_or(u8::MAX);
    let mut again = Vec::new();
    while again.len() < max && held.state.due_rank(now_ms).is_some() {
        let by_rank = held.lanes().before_oldest();
        if by_rank == 0 {
            let oldest = held.state.oldest_due();
            let is_older = |at: &u64| new.is_none_or(|(new, _)| *at < new);
            if let Some(oldest) = oldest.filter(is_older) {
                let more = held.state.deliver_this_again(oldest, token);
                held.lanes().went_out(more.len());
                again.extend(more);
                continue;
            }
            if has_room_for_new {
                break;
            }
        }
        // It is the turn of one that is new and has no room: it waits for that, and these count for nothing.
        let (keeps_turn, left) = (by_rank == 0, max - again.len());
        let some = if keeps_turn { left } else { by_rank.min(left) };
        let more = held.state.deliver_again_up_to(rank_max, now_ms, some, token);
        if more.is_empty() {
            break;
        }
        match keeps_turn {
            true => held.lanes().keeps_turn = true,
            false => held.lanes().went_out(more.len()),
        }
        again.extend(more);
    }
    again
}

/// What is to be known: rank and offset of events, and up to where.
async fn read(
    log: &LogHandle,
    filters: &Filters,
    fill: Fill,
    committed: Cursor,
) -> Result<(Vec<(usize, u64)>, Cursor), ReadError> {
    match fill {
        Fill::All(from) => {
            let limit = ReadLimit { events: PAGE, bytes: 1 << 20 };
            let batch = log.read(from, committed, filters, limit).await?;
            let lane = |event: &Arc<Stored>| (rank_of(event.priority()), event.offset().get());
            let mut found: Vec<(usize, u64)> = batch.events.iter().map(lane).collect();
            // Whoever reads these is told that they are damaged.
            let damaged = batch.cursor.get() + 1..=batch.damaged.map_or(0, Cursor::get);
            found.extend(damaged.map(|offset| (rank_of(Priority::Normal), offset)));
            Ok((found, batch.damaged.unwrap_or(batch.cursor)))
        }
        Fill::One(rank, from) => {
            let priority = ORDER.get(rank).copied().unwrap_or(Priority::Low);
            let found = log.lane(from, committed, filters, priority, PAGE).await?;
            Ok((found.0.iter().map(|offset| (rank, offset.get())).collect(), found.1))
        }
    }
}

fn rank_of(priority: Priority) -> usize {
    ORDER.iter().position(|other| *other == priority).unwrap_or(ORDER.len() - 1)
}

/// What of that goes out: the events, in the order they are to go out in.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) events: Vec<Arc<Stored>>,
    /// One that cannot be read; others that cannot come again, and are named then.
    pub(super) damaged: Option<Offset>,
}

/// Reads what [`next`] gave, `leasing` it until that is done.
///
/// # Errors
/// The log could not be read; all are due as before.
pub(super) async fn read_taken(
    log: &LogHandle,
    mut leasing: Leasing,
    next: &[(u64, u32)],
    bytes_max: usize,
    selection: &Selection,
) -> Result<Taken, ReadError> {
    // In the order they are to go out in: what there is no room for is the last of it.
    let offsets = next.iter().filter_map(|(offset, _)| Offset::new(*offset)).collect();
    let mut found = log.get_many(offsets, bytes_max).await?;
    let mut rest = found.damaged.drain(..);
    let damaged = rest.next();
    found.left.extend(rest);
    let (events, _) = leasing.taken(found.events, next, &found.left, selection);
    leasing.done();
    Ok(Taken { events, damaged })
}

#[cfg(test)]
mod tests;
