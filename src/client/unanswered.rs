//! Requests that have not been answered, in the order in which they were made. No I/O, no clock.
//!
//! - Requests are sent in this order, and after a new connection all of them again, in this order.
//! - When one has failed and may be tried again, nothing is sent until the wait is over and all that is on its way is
//!   answered; then it and all behind it are sent again. Those behind that were answered well meanwhile are not.
//! - A request leaves by its answer only, or by [`Unanswered::take_all`].
//!
//! ```text
//! entries   [ sent, unanswered … | to be sent … ]
//!                                ^ sent
//! ```
//! The owner bounds it: a request is pushed only with a permit that its payload carries.

use std::collections::VecDeque;

use tidings_proto::message::RequestId;

/// The numbers of requests on one connection.
#[derive(Debug, Default)]
pub(super) struct Ids(RequestId);

impl Ids {
    /// A number that no open request has: far fewer than 2^32 are open at a time.
    pub(super) fn next(&mut self) -> RequestId {
        self.0 = self.0.wrapping_add(1);
        self.0
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Unanswered<P> {
    entries: VecDeque<Entry<P>>,
    /// How many from the front need not be sent (again).
    sent: usize,
    /// Nothing is sent before this moment, in milliseconds on the caller's clock.
    held_until_ms: u64,
    /// One failed: nothing is sent before all that is on its way is answered, or it would go before that one.
    is_held: bool,
}

#[derive(Debug)]
struct Entry<P> {
    payload: P,
    /// The number it was last sent with on this connection.
    request: Option<RequestId>,
}

impl<P> Default for Unanswered<P> {
    fn default() -> Unanswered<P> {
        Unanswered { entries: VecDeque::new(), sent: 0, held_until_ms: 0, is_held: false }
    }
}

impl<P> Unanswered<P> {
    /// Adds a request behind all others.
    pub(super) fn push(&mut self, payload: P) {
        self.entries.push_back(Entry { payload, request: None });
    }

    /// The next request to send now and its number; it counts as sent from here on.
    pub(super) fn poll_send(&mut self, now_ms: u64, ids: &mut Ids) -> Option<(RequestId, &mut P)> {
        if now_ms < self.held_until_ms || self.is_held && self.is_on_its_way() {
            return None;
        }
        self.is_held = false;
        let entry = self.entries.get_mut(self.sent)?;
        let request = ids.next();
        entry.request = Some(request);
        self.sent += 1;
        Some((request, &mut entry.payload))
    }

    /// The request of this number is answered: it leaves. `None` when there is none.
    pub(super) fn answer(&mut self, request: RequestId) -> Option<P> {
        let index = self.index_of(request)?;
        if index < self.sent {
            self.sent -= 1;
        }
        self.entries.remove(index).map(|entry| entry.payload)
    }

    /// The request of this number failed and is to be sent again after `wait_ms`, with all behind
    /// it. False when there is none.
    pub(super) fn retry(&mut self, request: RequestId, now_ms: u64, wait_ms: u64) -> bool {
        let Some(index) = self.index_of(request) else { return false };
        if let Some(entry) = self.entries.get_mut(index) {
            entry.request = None;
        }
        self.is_held = true;
        self.sent = self.sent.min(index);
        self.held_until_ms = self.held_until_ms.max(now_ms.saturating_add(wait_ms));
        true
    }

    /// The connection is gone: everything is to be sent again.
    pub(super) fn handle_disconnect(&mut self) {
        (self.sent, self.is_held) = (0, false);
        for entry in &mut self.entries {
            entry.request = None;
        }
    }

    /// When something can be sent; `None` when nothing waits.
    pub(super) fn wake_ms(&self) -> Option<u64> {
        let is_held = self.is_held && self.is_on_its_way();
        (self.has_unsent() && !is_held).then_some(self.held_until_ms)
    }

    /// Whether one was sent on this connection and is not answered.
    fn is_on_its_way(&self) -> bool {
        self.entries.iter().any(|entry| entry.request.is_some())
    }

    /// Whether the next one is sent behind others that are not answered.
    pub(super) fn has_sent(&self) -> bool {
        self.sent > 0
    }

    /// Whether there is something that has not been sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.entries.len()
    }

    /// Whether everything has been answered.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Gives up on all of them.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = P> {
        self.sent = 0;
        std::mem::take(&mut self.entries).into_iter().map(|entry| entry.payload)
    }

    /// Answers come in order, so it is nearly always the first.
    fn index_of(&self, request: RequestId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.request == Some(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rig {
        queue: Unanswered<char>,
        ids: Ids,
    }

    impl Rig {
        fn with(payloads: &str) -> Rig {
            let mut rig = Rig { queue: Unanswered::default(), ids: Ids::default() };
            payloads.chars().for_each(|payload| rig.queue.push(payload));
            rig
        }

        /// Everything that goes out now: number and payload.
        fn send(&mut self, now_ms: u64) -> Vec<(RequestId, char)> {
            let mut sent = Vec::new();
            while let Some((request, payload)) = self.queue.poll_send(now_ms, &mut self.ids) {
                sent.push((request, *payload));
            }
            sent
        }
    }

    fn payloads(sent: &[(RequestId, char)]) -> String {
        sent.iter().map(|(_, payload)| *payload).collect()
    }

    #[test]
    fn requests_go_out_in_order_and_leave_by_their_answer() {
        let mut rig = Rig::with("abc");
        let sent = rig.send(0);
        assert_eq!(payloads(&sent), "abc");
        assert_eq!(rig.send(0), []);
        assert_eq!(rig.queue.answer(sent[1].0), Some('b'));
        assert_eq!(rig.queue.answer(sent[1].0), None);
        rig.queue.push('d');
        assert_eq!(payloads(&rig.send(0)), "d");
        assert_eq!(rig.queue.answer(sent[0].0), Some('a'));
    }

    #[test]
    fn a_new_connection_gets_all_unanswered_again_before_new_ones() {
        let mut rig = Rig::with("abcd");
        let sent = rig.send(0);
        rig.queue.answer(sent[0].0);
        rig.queue.answer(sent[2].0);
        rig.queue.handle_disconnect();
        rig.queue.push('e');
        let again = rig.send(0);
        assert_eq!(payloads(&again), "bde");
        assert_eq!(rig.queue.answer(sent[1].0), None, "numbers of the old connection mean nothing");
        assert_eq!(rig.queue.answer(again[0].0), Some('b'));
    }

    #[test]
    fn a_retryable_error_in_the_middle_keeps_the_order() {
        let mut rig = Rig::with("abcde");
        let sent = rig.send(0);
        assert_eq!(rig.queue.answer(sent[0].0), Some('a'));
        assert!(rig.queue.retry(sent[1].0, 1_000, 50));
        rig.queue.push('f');
        assert_eq!(rig.send(1_049), [], "nothing is sent while waiting, new ones neither");
        // Those behind it were on the way: one came through, one failed too.
        assert_eq!(rig.queue.answer(sent[2].0), Some('c'));
        assert!(rig.queue.retry(sent[3].0, 1_010, 10));
        assert_eq!(rig.send(1_050), [], "one is on its way, and would be passed or pass");
        assert_eq!(rig.queue.wake_ms(), None, "its answer is waited for");
        assert!(rig.queue.retry(sent[4].0, 1_060, 10));
        assert_eq!(rig.queue.wake_ms(), Some(1_070));
        assert_eq!(payloads(&rig.send(1_070)), "bdef");
        assert_eq!(rig.queue.wake_ms(), None);
    }

    #[test]
    fn what_has_failed_waits_for_all_before_it_too() {
        let mut rig = Rig::with("ab");
        let sent = rig.send(0);
        assert!(rig.queue.is_on_its_way());
        rig.queue.retry(sent[1].0, 0, 0);
        assert!(!rig.queue.retry(sent[1].0, 0, 0), "it has been answered");
        assert_eq!(rig.send(0), []);
        assert_eq!(rig.queue.answer(sent[0].0), Some('a'));
        assert!(!rig.queue.is_on_its_way());
        let again = rig.send(0);
        assert_eq!(payloads(&again), "b");
        assert_eq!(rig.queue.answer(again[0].0), Some('b'));
        assert!(rig.queue.is_empty());
    }

    #[test]
    fn a_wait_outlives_the_connection_and_everything_can_be_given_up() {
        let mut rig = Rig::with("ab");
        let sent = rig.send(0);
        rig.queue.retry(sent[1].0, 0, 100);
        rig.queue.handle_disconnect();
        assert_eq!(rig.send(99), []);
        assert_eq!(payloads(&rig.send(100)), "ab");
        assert_eq!(rig.queue.take_all().collect::<String>(), "ab");
        assert!(rig.queue.is_empty());
        assert!(!rig.queue.retry(sent[0].0, 0, 0));
    }
}
