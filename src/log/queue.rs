//! What waits to be appended.
//!
//! - Its bytes are bounded by the permits that its jobs hold ([`super::LogHandle::append`]).
//! - The commit thread takes everything that is there at once, up to a bound: nobody waits for a timer,
//!   waiting happens by itself while a sync runs.

use std::{collections::VecDeque, time::Duration};

use parking_lot::{Condvar, Mutex};
use smallvec::SmallVec;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    commit::{Draft, Drafts},
    ticket::Outcomes,
};

/// How long acks alone wait for a publish to share its sync with.
const NUDGE_WAIT: Duration = Duration::from_millis(5);

/// What is queued and answered at once: mostly one unit.
pub(crate) struct Job {
    /// Each of them is appended whole or not at all.
    pub(crate) units: Units,
    /// Takes an outcome for each unit.
    pub(crate) done: oneshot::Sender<Outcomes>,
    pub(crate) room: OwnedSemaphorePermit,
}

impl Job {
    /// Whether all of it is the broker's own.
    pub(super) fn is_own(&self) -> bool {
        self.units.iter().flatten().all(|draft| draft.flags.control())
    }
}

/// Of one job.
pub(crate) type Units = SmallVec<[Drafts; 1]>;

/// How many events these are, and what it costs to have them wait, in bytes.
pub(crate) fn cost(units: &[Drafts]) -> (usize, usize) {
    let drafts = units.iter().flatten();
    drafts.fold((0, 0), |(events, bytes), draft: &Draft| (events + 1, bytes + draft.cost_bytes()))
}

/// The jobs that wait, in order.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    nudged: bool,
    closed: bool,
}

/// What the commit thread has to do.
pub(crate) struct Work {
    pub(crate) jobs: Vec<Job>,
    /// Nothing comes after this.
    pub(crate) last: bool,
}

impl Queue {
    pub(crate) fn new() -> Queue {
        Queue { state: Mutex::new(State::default()), changed: Condvar::new() }
    }

    /// Appends a job, or gives it back when the queue is closed.
    pub(crate) fn push(&self, job: Job) -> Result<(), Box<Job>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Box::new(job));
        }
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    pub(crate) fn nudge(&self) {
        let mut state = self.state.lock();
        if !state.nudged {
            state.nudged = true;
            drop(state);
            self.changed.notify_one();
        }
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    /// Nothing is taken any more: gives what waits.
    pub(crate) fn end(&self) -> VecDeque<Job> {
        let mut state = self.state.lock();
        state.closed = true;
        std::mem::take(&mut state.jobs)
    }

    /// Waits up to `idle` for something to do and takes it: at most `events_max` events or `bytes_max`
    /// bytes, but always one job.
    pub(crate) fn take(&self, events_max: usize, bytes_max: usize, idle: Duration) -> Work {
        let mut state = self.state.lock();
        if state.jobs.is_empty() && !state.closed {
            if !state.nudged {
                self.changed.wait_for(&mut state, idle);
            }
            if state.nudged && state.jobs.is_empty() && !state.closed {
                self.changed.wait_for(&mut state, NUDGE_WAIT.min(idle));
            }
        }
        state.nudged = false;
        let (mut events, mut bytes, mut count) = (0, 0, 0);
        for job in &state.jobs {
            events += job.units.iter().map(Drafts::len).sum::<usize>();
            bytes += job.room.num_permits();
            if count > 0 && (events > events_max || bytes > bytes_max) {
                break;
            }
            count += 1;
        }
        let jobs: Vec<Job> = state.jobs.drain(..count).collect();
        Work { last: state.closed && state.jobs.is_empty(), jobs }
    }
}
