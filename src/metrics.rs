//! What the broker counts: one function an observation, no user's text in a label.
//!
//! The names are the broker's public surface; `docs/operations.md` lists them.

use std::{sync::OnceLock, time::Duration};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tidings_proto::Code;

use crate::clock;

/// Buckets for what should be fast, in seconds.
const FAST: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Buckets for events in one commit.
const BATCH: [f64; 13] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

const BUILD_INFO: &str = "tidings_build_info";
const START_TIME: &str = "tidings_start_time_seconds";
const EVENTS: &str = "tidings_append_events_total";
const EVENT_BYTES: &str = "tidings_append_bytes_total";
const COMMIT_EVENTS: &str = "tidings_commit_batch_events";
const COMMIT_SECONDS: &str = "tidings_append_duration_seconds";
const SYNC_SECONDS: &str = "tidings_sync_duration_seconds";
const REFUSED: &str = "tidings_publish_refused_total";
const STORAGE_ERRORS: &str = "tidings_storage_errors_total";
const ACKS: &str = "tidings_ack_total";
const NACKS: &str = "tidings_nack_total";
const REDELIVERED: &str = "tidings_redelivered_events_total";
const RESUMES: &str = "tidings_resume_total";
const SUBSCRIPTIONS: &str = "tidings_subscriptions";
const OPENED: &str = "tidings_session_opened_total";
const CLOSED: &str = "tidings_session_closed_total";
const SESSION_SECONDS: &str = "tidings_session_duration_seconds";
const SESSIONS: &str = "tidings_sessions";
const AUTH: &str = "tidings_auth_total";
const DELIVERED: &str = "tidings_delivered_events_total";
const DELIVERED_BYTES: &str = "tidings_delivered_bytes_total";
const LAST_OFFSET: &str = "tidings_log_last_offset";
const FIRST_OFFSET: &str = "tidings_log_first_offset";
const LOG_BYTES: &str = "tidings_log_bytes";
const LOG_SEGMENTS: &str = "tidings_log_segments";
const DISK_FREE: &str = "tidings_disk_free_bytes";
const RECOVERY_SECONDS: &str = "tidings_recovery_seconds";
const RECOVERY_BYTES: &str = "tidings_recovery_truncated_bytes";
const READY: &str = "tidings_ready";

/// How long sessions last, in seconds.
const LONG: [f64; 8] = [1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 28_800.0, 86_400.0];

/// Histograms with their buckets.
const BUCKETS: [(&str, &[f64]); 4] = [
    (COMMIT_EVENTS, &BATCH),
    (COMMIT_SECONDS, &FAST),
    (SYNC_SECONDS, &FAST),
    (SESSION_SECONDS, &LONG),
];

const COUNTERS: [(&str, &str); 13] = [
    (EVENTS, "Events appended, the broker's own included"),
    (EVENT_BYTES, "Bytes of appended events"),
    (REFUSED, "Publishes refused, by code"),
    (STORAGE_ERRORS, "Failed writes and syncs of the log"),
    (ACKS, "Acks taken"),
    (NACKS, "Nacks taken"),
    (REDELIVERED, "Events delivered again"),
    (RESUMES, "Ephemeral subscriptions begun, by where they could begin"),
    (OPENED, "Sessions begun"),
    (CLOSED, "Sessions ended"),
    (AUTH, "Identifications, by result"),
    (DELIVERED, "Events written to sockets"),
    (DELIVERED_BYTES, "Bytes of events written to sockets"),
];

const GAUGES: [(&str, &str); 12] = [
    (BUILD_INFO, "1, with the version"),
    (START_TIME, "When the process began, in seconds since the epoch"),
    (SUBSCRIPTIONS, "Subscriptions there are"),
    (SESSIONS, "Sessions there are"),
    (LAST_OFFSET, "The last durable offset"),
    (FIRST_OFFSET, "The first offset there is"),
    (LOG_BYTES, "Bytes in segments"),
    (LOG_SEGMENTS, "Segments"),
    (DISK_FREE, "Bytes free on the disk of the log"),
    (RECOVERY_SECONDS, "How long the log took to open"),
    (RECOVERY_BYTES, "Bytes of a torn tail that were cut when the log was opened"),
    (READY, "1 when the broker takes publishes"),
];

const HISTOGRAMS: [(&str, &str); 4] = [
    (COMMIT_EVENTS, "Events in one commit"),
    (COMMIT_SECONDS, "Seconds from taking a batch to its being durable"),
    (SYNC_SECONDS, "Seconds of one fdatasync"),
    (SESSION_SECONDS, "Seconds a session lasted"),
];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, once a process. What is observed before is lost.
pub fn install() {
    if HANDLE.get().is_some() {
        return;
    }
    let builder = BUCKETS.iter().try_fold(PrometheusBuilder::new(), |builder, (name, buckets)| {
        builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets)
    });
    match builder.and_then(PrometheusBuilder::install_recorder) {
        Ok(handle) => {
            let _ = HANDLE.set(handle);
            describe();
        }
        Err(error) => tracing::warn!(%error, "metrics are off"),
    }
}

fn describe() {
    COUNTERS.iter().for_each(|(name, help)| describe_counter!(*name, *help));
    GAUGES.iter().for_each(|(name, help)| describe_gauge!(*name, *help));
    HISTOGRAMS.iter().for_each(|(name, help)| describe_histogram!(*name, *help));
    process().describe();
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(START_TIME).set(clock::now().as_millis() as f64 / 1000.0);
}

/// What the system says of the process: `process_*`.
fn process() -> metrics_process::Collector {
    metrics_process::Collector::default()
}

/// The state of the log, as gauges.
#[derive(Clone, Copy, Debug)]
pub struct LogGauges {
    /// The first offset there is.
    pub first: u64,
    /// The last durable offset.
    pub last: u64,
    /// Bytes in segments.
    pub bytes: u64,
    /// Segments.
    pub segments: usize,
    /// Bytes free on its disk, where that is known.
    pub disk_free: Option<u64>,
    /// Ephemeral subscriptions.
    pub ephemeral: usize,
    /// Durable ones.
    pub durable: usize,
    /// Whether publishes are taken.
    pub ready: bool,
}

/// Everything in Prometheus' text format, with these gauges as of now.
pub fn render(log: LogGauges) -> String {
    gauge!(FIRST_OFFSET).set(log.first as f64);
    gauge!(LAST_OFFSET).set(log.last as f64);
    gauge!(LOG_BYTES).set(log.bytes as f64);
    gauge!(LOG_SEGMENTS).set(log.segments as f64);
    gauge!(SUBSCRIPTIONS, "kind" => "ephemeral").set(log.ephemeral as f64);
    gauge!(SUBSCRIPTIONS, "kind" => "durable").set(log.durable as f64);
    if let Some(free) = log.disk_free {
        gauge!(DISK_FREE).set(free as f64);
    }
    gauge!(READY).set(if log.ready { 1.0 } else { 0.0 });
    process().collect();
    HANDLE.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// The log was opened.
pub fn recovered(took: Duration, cut_bytes: u64) {
    gauge!(RECOVERY_SECONDS).set(took.as_secs_f64());
    gauge!(RECOVERY_BYTES).set(cut_bytes as f64);
}

/// An ephemeral subscription began: `from_now`, `exact`, or at a gap.
pub fn resumed(result: &'static str) {
    counter!(RESUMES, "result" => result).increment(1);
}

/// A batch is durable.
pub fn committed(events: usize, bytes: usize, took: Duration) {
    if events > 0 {
        counter!(EVENTS).increment(count(events));
        counter!(EVENT_BYTES).increment(count(bytes));
        histogram!(COMMIT_EVENTS).record(events as f64);
        histogram!(COMMIT_SECONDS).record(took.as_secs_f64());
    }
}

/// One sync has returned.
pub fn synced(took: Duration) {
    histogram!(SYNC_SECONDS).record(took.as_secs_f64());
}

/// A write or a sync of the log failed.
pub fn storage_failed() {
    counter!(STORAGE_ERRORS).increment(1);
}

/// A publish was refused.
pub fn publish_refused(code: Code) {
    counter!(REFUSED, "code" => code.as_str()).increment(1);
}

/// An ack was taken.
pub fn acked() {
    counter!(ACKS).increment(1);
}

/// A nack was taken.
pub fn nacked() {
    counter!(NACKS).increment(1);
}

/// Events go out again.
pub fn redelivered(events: usize) {
    counter!(REDELIVERED).increment(count(events));
}

/// Somebody was told who they are, or not.
pub fn authenticated(ok: bool) {
    counter!(AUTH, "result" => if ok { "ok" } else { "refused" }).increment(1);
}

/// A session began.
pub fn session_opened(transport: &'static str) {
    counter!(OPENED, "transport" => transport).increment(1);
    gauge!(SESSIONS, "transport" => transport).increment(1.0);
}

/// A session ended.
pub fn session_closed(transport: &'static str, lasted: Duration) {
    gauge!(SESSIONS, "transport" => transport).decrement(1.0);
    counter!(CLOSED, "transport" => transport).increment(1);
    histogram!(SESSION_SECONDS, "transport" => transport).record(lasted.as_secs_f64());
}

/// Events were written to a socket.
pub fn delivered(transport: &'static str, events: usize, bytes: usize) {
    counter!(DELIVERED, "transport" => transport).increment(count(events));
    counter!(DELIVERED_BYTES, "transport" => transport).increment(count(bytes));
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
