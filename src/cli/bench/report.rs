//! A measurement as it is written: one line of JSON, or a table for people.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value};

use crate::cli::output::Output;

/// The results of one or several measurements, in order.
#[derive(Debug, Default)]
pub(super) struct Report {
    measured: Vec<Map<String, Value>>,
    /// Why it does not hold all the same.
    failed: Option<anyhow::Error>,
}

/// How long things took, from a microsecond to a minute, to three digits.
pub(super) type Latencies = Histogram<u64>;

/// An empty histogram.
pub(super) fn latencies() -> anyhow::Result<Latencies> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

/// Notes that something took so long.
pub(super) fn note(latencies: &mut Latencies, took: Duration) {
    latencies.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
}

impl Report {
    /// Begins a measurement.
    pub(super) fn begin(&mut self, name: &str) {
        self.measured.push(Map::from_iter([("bench".to_owned(), Value::from(name))]));
    }

    /// A result of the measurement that was begun last.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        if let Some(last) = self.measured.last_mut() {
            last.insert(name.to_owned(), value.into());
        }
    }

    /// How many there were in this time.
    pub(super) fn rate(&mut self, what: &str, count: u64, took: Duration) {
        self.set(what, count);
        self.set("seconds", round(took.as_secs_f64()));
        self.set(&format!("{what}_per_second"), per_second(count, took));
    }

    /// How many bytes so many events have taken on the wire, all together and each: what `bench floor --wire` takes.
    pub(super) fn wire(&mut self, bytes: u64, events: u64) {
        self.set("bytes", bytes);
        self.set("wire_bytes", (bytes + events / 2).checked_div(events).unwrap_or(0));
    }

    /// The measurement is written and has failed all the same.
    pub(super) fn fail(&mut self, why: impl Into<anyhow::Error>) {
        self.failed.get_or_insert(why.into());
    }

    /// A result of the measurement that was begun last.
    #[cfg(test)]
    pub(super) fn last(&self, name: &str) -> Option<Value> {
        self.measured.last()?.get(name).cloned()
    }

    /// The percentiles, in microseconds.
    pub(super) fn latencies(&mut self, latencies: &Latencies) {
        for (name, quantile) in
            [("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999)]
        {
            self.set(name, latencies.value_at_quantile(quantile));
        }
        self.set("max_us", latencies.max());
    }

    /// Writes it to stdout; then it fails where the measurement has.
    pub(super) fn print(self, json: bool) -> anyhow::Result<()> {
        let written = write(self.measured, json);
        self.failed.map_or(written, Err)
    }
}

fn write(measured: Vec<Map<String, Value>>, json: bool) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    for measurement in measured {
        if json {
            output.line(&serde_json::to_vec(&measurement)?)?;
            continue;
        }
        let width = measurement.keys().map(String::len).max().unwrap_or(0);
        for (name, value) in &measurement {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            output.line(format!("{:width$}  {text}", name.replace('_', " ")).as_bytes())?;
        }
        output.line(b"")?;
    }
    output.flush()
}

/// How many a second, in whole ones; nought in no time.
pub(super) fn per_second(count: u64, took: Duration) -> f64 {
    let seconds = took.as_secs_f64();
    if seconds > 0.0 { (count as f64 / seconds).round() } else { 0.0 }
}

/// To three digits behind the point.
pub(super) fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_count_in_a_time() {
        let mut report = Report::default();
        report.begin("pub");
        report.rate("events", 500, Duration::from_millis(250));
        assert_eq!(report.last("events_per_second"), Some(2000.0.into()));
        assert_eq!(report.last("seconds"), Some(0.25.into()));
        report.rate("events", 500, Duration::ZERO);
        assert_eq!(report.last("events_per_second"), Some(0.0.into()));
    }

    #[test]
    fn an_event_takes_its_share_of_the_bytes() {
        let mut report = Report::default();
        report.begin("fanout");
        for (bytes, events, each) in [(1000, 3, 333), (1001, 3, 334), (7, 0, 0)] {
            report.wire(bytes, events);
            assert_eq!(report.last("wire_bytes"), Some(each.into()));
        }
    }

    #[test]
    fn the_first_failure_is_what_it_ends_with() {
        let mut report = Report::default();
        report.fail(anyhow::anyhow!("first"));
        report.fail(anyhow::anyhow!("second"));
        assert_eq!(report.print(true).unwrap_err().to_string(), "first");
    }
}
