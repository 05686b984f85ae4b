//! A bucket as one number: the moment at which it will be full again, in nanoseconds (the generic cell rate algorithm,
//! ITU-T I.371).

use super::{Rate, Wait};

const SECOND_NS: u128 = 1_000_000_000;

/// How long `cost` takes to come back. Rounded up: never more than the rate.
fn ns_of(rate: Rate, cost: u64) -> u64 {
    let ns = (u128::from(cost) * SECOND_NS).div_ceil(u128::from(rate.per_second.max(1)));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// Takes `cost` of a bucket that is full at `full_ns`, and gives when it will be full then. What costs more than there
/// ever is waits until it is full, and is paid off behind: in the long run that is no more than the rate.
pub(super) fn take(rate: Rate, full_ns: u64, now_ns: u64, cost: u64) -> Result<u64, Wait> {
    let needed_ns = charge(rate, full_ns, now_ns, cost.min(rate.burst));
    let room_ns = now_ns.saturating_add(ns_of(rate, rate.burst));
    match needed_ns.checked_sub(room_ns) {
        None | Some(0) => Ok(charge(rate, full_ns, now_ns, cost)),
        Some(wait_ns) => Err(Wait { ns: wait_ns }),
    }
}

/// Gives back what was taken and not used.
pub(super) fn give_back(rate: Rate, full_ns: u64, cost: u64) -> u64 {
    full_ns.saturating_sub(ns_of(rate, cost))
}

/// Takes `cost` whether it is there or not.
pub(super) fn charge(rate: Rate, full_ns: u64, now_ns: u64, cost: u64) -> u64 {
    full_ns.max(now_ns).saturating_add(ns_of(rate, cost))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The virtual clock: in every span of time at most rate × t + burst is allowed, and what was told to wait for
        /// is there then.
        #[test]
        fn s7_what_is_allowed_is_never_more_than_rate_times_time_and_burst(
            per_second in 1_u64..2_000_000_000,
            burst in 1_u64..1_000_000,
            steps in prop::collection::vec((0_u64..3_000_000_000, 1_u64..2_000_000), 1..200),
        ) {
            let rate = Rate { per_second, burst };
            let (mut now_ns, mut full_ns) = (0, 0);
            let mut allowed: Vec<(u64, u64)> = Vec::new();
            for (pause_ns, cost) in steps {
                now_ns += pause_ns;
                // What costs more than a bucket holds counts as all of it.
                let cost = cost.min(burst);
                match take(rate, full_ns, now_ns, cost) {
                    Ok(full) => {
                        full_ns = full;
                        allowed.push((now_ns, cost));
                    }
                    Err(wait) => {
                        prop_assert!(take(rate, full_ns, now_ns + wait.ns, cost).is_ok());
                        prop_assert!(take(rate, full_ns, now_ns + wait.ns - 1, cost).is_err());
                    }
                }
            }
            for (at, (from_ns, _)) in allowed.iter().enumerate() {
                let mut sum = 0_u128;
                for (to_ns, cost) in &allowed[at..] {
                    sum += u128::from(*cost);
                    let time_ns = u128::from(to_ns - from_ns);
                    let most = (u128::from(per_second) * time_ns).div_ceil(SECOND_NS);
                    prop_assert!(sum <= most + u128::from(burst), "{sum} in {time_ns} ns");
                }
            }
        }
    }

    #[test]
    fn what_is_more_than_there_ever_is_waits_for_all_of_it_and_is_paid_off() {
        const SECOND: u64 = 1_000_000_000;
        let rate = Rate { per_second: 10, burst: 20 };
        let full_ns = take(rate, 0, 0, 1).unwrap();
        assert_eq!(take(rate, full_ns, 0, 100), Err(Wait { ns: SECOND / 10 }), "it is not full");
        let full_ns = take(rate, full_ns, SECOND / 10, 100).unwrap();
        assert_eq!(full_ns, SECOND / 10 + 10 * SECOND);
        let Err(wait) = take(rate, full_ns, SECOND, 1) else { panic!("it was not paid off") };
        assert!(take(rate, full_ns, SECOND + wait.ns, 1).is_ok());
        assert_eq!(SECOND + wait.ns, full_ns - 19 * SECOND / 10);
        assert_eq!(give_back(rate, full_ns, 100), SECOND / 10);
    }

    #[test]
    fn who_keeps_to_the_rate_never_waits() {
        let rate = Rate { per_second: 100, burst: 1 };
        let mut full_ns = 0;
        for n in 0..1000 {
            full_ns = take(rate, full_ns, n * 10_000_000, 1).unwrap();
        }
    }
}
