//! The series of single durables, written by hand: a gauge of the recorder would stay when its durable
//! is gone.

use std::fmt::Write;

use super::table::{self, Metric};

/// How one durable stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneDurable {
    /// Its name.
    pub name: String,
    /// Events not acknowledged.
    pub lag: u64,
    /// When the oldest of them was appended, in milliseconds since the epoch; `None` without any.
    pub oldest_ms: Option<u64>,
    /// Events with a session or a fetcher.
    pub in_flight: u64,
    /// Everything up to here is acknowledged.
    pub acked: u64,
}

/// How long ago that was, in seconds.
pub(super) fn age_seconds(oldest_ms: Option<u64>, now_ms: u64) -> f64 {
    oldest_ms.map_or(0.0, |then| now_ms.saturating_sub(then) as f64 / 1000.0)
}

/// Appends their series.
pub(super) fn write(durables: &[OneDurable], now_ms: u64, out: &mut String) {
    if durables.is_empty() {
        return;
    }
    family(out, table::ONE_LAG, durables, |one| one.lag as f64);
    family(out, table::ONE_LAG_SECONDS, durables, |one| age_seconds(one.oldest_ms, now_ms));
    family(out, table::ONE_IN_FLIGHT, durables, |one| one.in_flight as f64);
    family(out, table::ONE_ACKED, durables, |one| one.acked as f64);
}

fn family(
    out: &mut String,
    metric: Metric,
    durables: &[OneDurable],
    value: impl Fn(&OneDurable) -> f64,
) {
    let name = metric.name;
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} gauge", metric.help);
    for one in durables {
        // A durable's name is one token of letters, digits and _ - : @ =: nothing to escape.
        let _ = writeln!(out, "{name}{{durable=\"{}\"}} {}", one.name, value(one));
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_durable_has_its_four_series() {
        let one = OneDurable {
            name: "billing".to_owned(),
            lag: 3,
            oldest_ms: Some(1500),
            in_flight: 2,
            acked: 7,
        };
        let mut out = String::new();
        write(&[one], 4000, &mut out);
        for line in [
            "# TYPE tidings_subscription_lag_events gauge",
            "tidings_subscription_lag_events{durable=\"billing\"} 3",
            "tidings_subscription_lag_seconds{durable=\"billing\"} 2.5",
            "tidings_subscription_in_flight{durable=\"billing\"} 2",
            "tidings_subscription_acked_offset{durable=\"billing\"} 7",
        ] {
            assert!(out.lines().any(|have| have == line), "{line} is missing:\n{out}");
        }
    }
}
