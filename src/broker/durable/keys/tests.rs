use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tidings_proto::Cursor;

use super::super::{DurableState, Redelivery};

const REDELIVERY: Redelivery = Redelivery { ack_wait_ms: 100, backoff_ms: Vec::new() };
const KEYS: u64 = 3;

#[derive(Clone, Debug)]
enum Step {
    New { member: u64, count: u64 },
    Again { member: u64 },
    Sent { member: u64 },
    Ack { nth: usize },
    Nack { nth: usize, delay_ms: u64 },
    Goes { member: u64 },
    Later { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let member = || 1..4_u64;
    prop_oneof![
        (member(), 1..8_u64).prop_map(|(member, count)| Step::New { member, count }),
        member().prop_map(|member| Step::Again { member }),
        member().prop_map(|member| Step::Sent { member }),
        (0..20_usize).prop_map(|nth| Step::Ack { nth }),
        (0..20_usize, 0..50_u64).prop_map(|(nth, delay_ms)| Step::Nack { nth, delay_ms }),
        member().prop_map(|member| Step::Goes { member }),
        (1..200_u64).prop_map(|ms| Step::Later { ms }),
    ]
}

/// Who has what, as the members see it.
#[derive(Default)]
struct Model {
    with: BTreeMap<u64, u64>,
    done: BTreeSet<u64>,
}

impl Model {
    /// What was sent now keeps the order within its key.
    fn takes(
        &mut self,
        state: &DurableState,
        member: u64,
        sent: &[(u64, u32)],
    ) -> Result<(), TestCaseError> {
        let is_new = |offset: &u64| sent.iter().any(|(new, _)| new == offset);
        self.with.retain(|offset, _| state.is_in_flight(*offset) && !is_new(offset));
        for &(offset, _) in sent {
            let of_key = |other: &u64| other % KEYS == offset % KEYS;
            for (other, owner) in self.with.iter().filter(|(other, _)| of_key(other)) {
                prop_assert_eq!(*owner, member, "{} while {} is elsewhere", offset, other);
            }
            self.with.insert(offset, member);
        }
        for &(offset, _) in sent {
            let is_older =
                |other: &u64| other % KEYS == offset % KEYS && !self.with.contains_key(other);
            let older = (1..offset).filter(is_older).find(|other| !self.done.contains(other));
            prop_assert_eq!(older, None, "{} overtakes", offset);
        }
        Ok(())
    }
}

fn new_events(state: &mut DurableState, upto: u64, now: u64, member: u64) -> Vec<(u64, u32)> {
    let events: Vec<u64> = (state.cursor().get() + 1..=upto).collect();
    state.note_keys(events.iter().map(|offset| (*offset, offset % KEYS)));
    state.deliver_new(&events, Cursor::new(upto), now, member)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// Whatever the members do, the events of one key are with one of them, in order; and all are done in the end.
    #[test]
    fn a_key_is_with_one_member_and_in_order(steps in prop::collection::vec(step(), 1..60)) {
        let mut state = DurableState::new(Cursor::START);
        let mut model = Model::default();
        let mut now = 0;
        for step in steps {
            match step {
                Step::New { member, count } => {
                    let upto = state.cursor().get() + count;
                    let sent = new_events(&mut state, upto, now, member);
                    model.takes(&state, member, &sent)?;
                }
                Step::Again { member } => {
                    let sent = state.deliver_again(now, 5, member);
                    model.takes(&state, member, &sent)?;
                }
                Step::Sent { member } => state.sent(now, &REDELIVERY, member),
                Step::Ack { nth } => {
                    let some = model.with.keys().nth(nth).copied();
                    if let Some(offset) = some.filter(|offset| state.is_in_flight(*offset)) {
                        state.ack(offset);
                        model.done.insert(offset);
                    }
                }
                Step::Nack { nth, delay_ms } => {
                    if let Some(offset) = model.with.keys().nth(nth).copied() {
                        state.nack(offset, Some(delay_ms), now, &REDELIVERY);
                    }
                }
                Step::Goes { member } => state.release_of(Some(member)),
                Step::Later { ms } => now += ms,
            }
        }
        // One is left and does all there is.
        state.release();
        now += 1000;
        let last = state.cursor();
        for _ in 0..1000 {
            let sent = state.deliver_again(now, 5, 9);
            model.takes(&state, 9, &sent)?;
            for (offset, _) in sent {
                state.ack(offset);
                model.done.insert(offset);
            }
        }
        prop_assert_eq!(state.floor(), last);
        prop_assert_eq!(state.next_due(), None);
        prop_assert_eq!(&state.keys, &super::Keys::default());
    }
}

#[test]
fn what_waits_for_its_key_is_not_due() {
    let mut state = DurableState::new(Cursor::START);
    assert_eq!(new_events(&mut state, 2, 0, 1), [(1, 1), (2, 1)]);
    assert_eq!(new_events(&mut state, 5, 0, 2), [(3, 1)], "4 and 5 have the keys of 1 and 2");
    assert_eq!((state.next_due(), state.outstanding()), (None, 5));
    state.ack(1);
    assert_eq!(state.next_due(), Some(0));
    assert_eq!(state.deliver_again(0, 10, 2), [(4, 1)], "2 is still with another");
    assert_eq!(state.next_due(), None);
    state.release_of(Some(1));
    assert_eq!(state.deliver_again(0, 10, 2), [(2, 2), (5, 1)]);
}
