//! What is remembered of a durable in the log.

use std::collections::BTreeMap;

use tidings_proto::control::AckState;

use super::{DurableState, Outstanding, Phase, skipped::Skipped};

impl DurableState {
    /// The state as it was last acknowledged durably; `from_wall` turns a moment of the wall clock into
    /// one of the state's clock.
    pub fn restore(state: &AckState, from_wall: impl Fn(u64) -> u64) -> DurableState {
        let mut restored = DurableState::new(state.floor);
        for &(first, last) in &state.ranges {
            restored.acked.insert(first, last);
        }
        let delayed: BTreeMap<u64, u64> = state.delayed.iter().copied().collect();
        for &(offset, attempts) in &state.attempts {
            let at = delayed.get(&offset).map_or(0, |wall| from_wall(*wall));
            if offset > restored.cursor && !restored.acked.contains(offset) {
                restored.outstanding.insert(offset, Outstanding::waiting(attempts, at));
            }
        }
        restored.dead.restore(state);
        restored.skipped = Skipped::of(&state.skipped);
        restored.generation = state.generation;
        restored
    }

    /// What is to be remembered of it; `to_wall` turns a moment of the state's clock into one of the wall
    /// clock. First deliveries are not remembered, nacks are.
    pub fn to_ack_state(&self, name: &str, number: u64, to_wall: impl Fn(u64) -> u64) -> AckState {
        let (mut attempts, mut delayed) = (Vec::new(), Vec::new());
        for (&offset, event) in &self.outstanding {
            let later = match event.phase {
                Phase::Waiting(at) if at > 0 => Some(at),
                _ => None,
            };
            // Where deliveries are counted against a limit, the first counts too once it has ended.
            let counts = match self.dead.is_limited() && !event.phase.is_with_session() {
                true => event.attempts >= 1,
                false => event.attempts >= 2,
            };
            if counts || later.is_some() || event.phase == Phase::Dying {
                attempts.push((offset, event.attempts));
            }
            delayed.extend(later.map(|at| (offset, to_wall(at))));
        }
        AckState {
            name: name.to_owned(),
            number,
            generation: self.generation,
            floor: self.floor(),
            ranges: self.acked_ranges(),
            attempts,
            delayed,
            dead: self.dead.letters().collect(),
            letters: self.dead.count(),
            skipped: self.skipped.iter().collect(),
            redriven: self.dead.unseen().collect(),
        }
    }

    /// What is above the floor is looked at once more, as after a restart; letters that are on their way stay so.
    pub fn look_again(&mut self) {
        let remembered = self.to_ack_state("", 0, |at| at);
        let old = std::mem::replace(self, DurableState::restore(&remembered, |at| at));
        self.dead = old.dead.none_held_back();
        let dying = old.outstanding.into_iter().filter(|(_, event)| event.phase == Phase::Dying);
        self.outstanding.extend(dying);
    }
}
