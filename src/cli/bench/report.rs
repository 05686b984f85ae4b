//! A measurement as it is written: one line of JSON, or a table for people.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value};

use crate::cli::output::Output;

/// The results of one or several measurements, in order.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Map<String, Value>>);

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
        self.0.push(Map::from_iter([("bench".to_owned(), Value::from(name))]));
    }

    /// A result of the measurement that was begun last.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        if let Some(last) = self.0.last_mut() {
            last.insert(name.to_owned(), value.into());
        }
    }

    /// How many there were in this time.
    pub(super) fn rate(&mut self, what: &str, count: u64, took: Duration) {
        let seconds = took.as_secs_f64();
        self.set(what, count);
        self.set("seconds", round(seconds));
        let rate = if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        self.set(&format!("{what}_per_second"), rate.round());
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

    /// Writes it to stdout.
    pub(super) fn print(self, json: bool) -> anyhow::Result<()> {
        let mut output = Output::stdout();
        for measurement in self.0 {
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
}

/// To three digits behind the point.
pub(super) fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
