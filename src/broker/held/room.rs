//! How much a session may be given of a durable, when it is to look again, and what waits for it in lanes.

use tidings_proto::Cursor;

use super::{Durable, Held, Lanes, Token};

impl Durable {
    /// How many of those that come again may go to this session now.
    pub fn room_again(&self, held: &Held, token: Token) -> usize {
        if held.paused {
            return 0;
        }
        if self.is_shared() { held.share_left(token, self.max_in_flight()) } else { usize::MAX }
    }

    /// How many events may be outstanding.
    pub(super) fn max_in_flight(&self) -> usize {
        usize::try_from(self.spec.options.max_in_flight).unwrap_or(usize::MAX)
    }

    /// When this session is to look again. What is due waits for room: whoever makes some wakes all.
    pub fn next_due(&self, held: &mut Held, token: Token) -> Option<u64> {
        let has_room = self.room_again(held, token) > 0;
        held.next_due(has_room)
    }

    /// How many new events may go to this session now.
    pub fn room(&self, held: &Held, token: Token) -> usize {
        let left = self.max_in_flight().saturating_sub(held.state.outstanding());
        left.min(self.room_again(held, token))
    }
}

impl Held {
    /// What waits, by priority.
    pub(in crate::broker) fn lanes(&mut self) -> &mut Lanes {
        self.lanes.get_or_insert_with(|| Box::new(Lanes::new(self.state.floor())))
    }

    /// What waits in front was not looked at for delivery.
    pub(in crate::broker) fn trim_lanes(&mut self) {
        if let Some(lanes) = &mut self.lanes {
            lanes.trim(&self.state);
        }
    }

    /// Up to `max` of what waits, in the order of delivery, with their ranks.
    pub(in crate::broker) fn pick(
        &mut self,
        max: usize,
        committed: Cursor,
        due: Option<u8>,
    ) -> Vec<(u64, u8)> {
        let floor = self.state.floor();
        let lanes = self.lanes.get_or_insert_with(|| Box::new(Lanes::new(floor)));
        lanes.pick(max, committed, &self.state, due)
    }

    /// These were to go out and did not: they are due now, and it was nobody's turn.
    pub(in crate::broker) fn give_back(&mut self, offsets: impl ExactSizeIterator<Item = u64>) {
        if let Some(lanes) = &mut self.lanes {
            lanes.gave_back(offsets.len());
        }
        self.state.give_back(offsets);
    }

    /// How much of its share of `max` a member has left; at least one event is its share.
    fn share_left(&self, token: Token, max: usize) -> usize {
        let sockets = self.members.sockets();
        let has = match sockets.binary_search(&token) {
            Ok(_) => self.state.in_flight_of(token),
            Err(_) => self.state.in_flight_but(&sockets),
        };
        (max / self.members()).max(1).saturating_sub(has)
    }

    /// When something is to be looked at again; whoever asks does so then.
    fn next_due(&mut self, has_room: bool) -> Option<u64> {
        // While it is paused nothing is due; whoever ends that wakes all.
        self.alarm_ms = match (self.paused, has_room) {
            (true, _) => None,
            (false, true) => self.state.next_due(),
            (false, false) => self.state.next_timer(),
        };
        self.alarm_ms
    }
}
