//! What a durable knows of the dying and dead when events are erased.

use super::DurableState;

impl DurableState {
    /// Events were erased: what was looked up of the dying is looked up again.
    pub fn look_up_again(&mut self) {
        self.dead.dying.values_mut().for_each(|dying| dying.origin = None);
    }

    /// The letter of this dead event goes, and nothing is known of it any more.
    pub fn forget_dead(&mut self, offset: u64, letter: u64) {
        if self.dead.dead.get(&offset) == Some(&letter) {
            self.dead.dead.remove(&offset);
        }
    }

    /// This dying event is gone: what a nack said of it goes with it.
    pub fn forget_reason(&mut self, offset: u64) {
        self.dead.reasons.remove(&offset);
    }
}
