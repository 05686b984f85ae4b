//! What a pass of retention is to do.

use tidings_proto::Cursor;
use tidings_storage::Sealed;

/// What a pass is to do.
#[derive(Debug, Default)]
pub struct Plan {
    pub(super) work: Vec<Work>,
    /// The newest states of durables up to here must be written anew before it is carried out.
    pub carry: Cursor,
    /// Events in the active segment are too old: it is to be sealed.
    pub seal: bool,
    pub(super) now_ms: u64,
}

impl Plan {
    pub(super) fn push(&mut self, work: Work) {
        if work.carries {
            self.carry = self.carry.max(Cursor::new(work.sealed.end - 1));
        }
        self.work.push(work);
    }

    /// Leaves out what needs states beyond this to be written anew; with `None` what needs any.
    pub fn carry_at_most(&mut self, upto: Option<Cursor>) {
        let upto = upto.unwrap_or(Cursor::START);
        self.work.retain(|work| !work.carries || work.sealed.end - 1 <= upto.get());
        self.carry = self.carry.min(upto);
    }

    /// Leaves out all that needs states to be written anew but the oldest segment that goes whole: on a full disk they
    /// are written to the reserve, and what makes room is to come before that is used up.
    pub fn carry_least(&mut self) {
        let oldest = self.work.iter().find(|work| work.carries && work.whole);
        self.carry_at_most(oldest.map(|work| Cursor::new(work.sealed.end - 1)));
    }

    /// Whether there is nothing to take out.
    pub fn is_empty(&self) -> bool {
        self.work.is_empty()
    }
}

/// What is to be done with one segment.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) sealed: Sealed,
    /// It goes as it is; else it is rewritten.
    pub(super) whole: bool,
    /// States of durables stand in it.
    pub(super) carries: bool,
    /// By rule, whether it is over its limit; last, whether the broker's own events are over theirs.
    pub(super) over: Vec<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments of ten events each, oldest first: whether each goes whole, and has states.
    fn plan(of: &[(bool, bool)]) -> Plan {
        let work = of.iter().zip(0..).map(|(&(whole, carries), n)| {
            let (base, end) = (n * 10 + 1, n * 10 + 11);
            let sealed = Sealed { base, end, generation: 0, records: 10, bytes: 1000 };
            Work { sealed, whole, carries, over: Vec::new() }
        });
        let work: Vec<Work> = work.collect();
        let carry = work.iter().rfind(|work| work.carries).map(|work| work.sealed.end - 1);
        Plan { work, carry: Cursor::new(carry.unwrap_or(0)), ..Plan::default() }
    }

    fn left(mut plan: Plan, cut: impl FnOnce(&mut Plan)) -> (Vec<u64>, u64) {
        cut(&mut plan);
        (plan.work.iter().map(|work| work.sealed.base).collect(), plan.carry.get())
    }

    #[test]
    fn what_needs_more_states_than_are_written_stays() {
        let of = [(true, true), (true, false), (false, true), (true, false)];
        let at_most = |upto| move |plan: &mut Plan| plan.carry_at_most(upto);
        assert_eq!(left(plan(&of), at_most(Some(Cursor::new(30)))), (vec![1, 11, 21, 31], 30));
        assert_eq!(left(plan(&of), at_most(Some(Cursor::new(29)))), (vec![1, 11, 31], 29));
        assert_eq!(left(plan(&of), at_most(None)), (vec![11, 31], 0));
    }

    #[test]
    fn on_a_full_disk_states_are_written_for_the_first_segment_that_goes_whole() {
        let of = [(false, true), (true, false), (true, true), (true, true)];
        // What is rewritten comes along where its states are written anyway.
        assert_eq!(left(plan(&of), Plan::carry_least), (vec![1, 11, 21], 30));
        let none_goes_whole = [(false, true), (false, false)];
        assert_eq!(left(plan(&none_goes_whole), Plan::carry_least), (vec![11], 0));
    }
}
