//! What the broker counts: one function an observation, no user's text in a label.
//!
//! The names are the broker's public surface; `docs/operations.md` lists them.

use std::{sync::OnceLock, time::Duration};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tidings_proto::Code;

/// Buckets for what should be fast, in seconds.
const FAST: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Buckets for events in one commit.
const BATCH: [f64; 13] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

const EVENTS: &str = "tidings_append_events_total";
const COMMIT_EVENTS: &str = "tidings_commit_batch_events";
const COMMIT_SECONDS: &str = "tidings_append_duration_seconds";
const SYNC_SECONDS: &str = "tidings_sync_duration_seconds";
const REFUSED: &str = "tidings_publish_refused_total";
const STORAGE_ERRORS: &str = "tidings_storage_errors_total";
const ACKS: &str = "tidings_ack_total";
const NACKS: &str = "tidings_nack_total";
const REDELIVERED: &str = "tidings_redelivered_events_total";
const OPENED: &str = "tidings_session_opened_total";
const SESSIONS: &str = "tidings_sessions";
const AUTH: &str = "tidings_auth_total";
const DELIVERED: &str = "tidings_delivered_events_total";
const DELIVERED_BYTES: &str = "tidings_delivered_bytes_total";
const LAST_OFFSET: &str = "tidings_log_last_offset";
const FIRST_OFFSET: &str = "tidings_log_first_offset";
const LOG_BYTES: &str = "tidings_log_bytes";
const LOG_SEGMENTS: &str = "tidings_log_segments";
const READY: &str = "tidings_ready";

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, once a process. What is observed before is lost.
pub fn install() {
    if HANDLE.get().is_some() {
        return;
    }
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(COMMIT_EVENTS.to_owned()), &BATCH)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Full(COMMIT_SECONDS.to_owned()), &FAST)
        })
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Full(SYNC_SECONDS.to_owned()), &FAST)
        });
    let installed = builder.and_then(PrometheusBuilder::install_recorder);
    match installed {
        Ok(handle) => {
            let _ = HANDLE.set(handle);
            describe();
        }
        Err(error) => tracing::warn!(%error, "metrics are off"),
    }
}

fn describe() {
    describe_counter!(EVENTS, "Events appended, the broker's own included");
    describe_histogram!(COMMIT_EVENTS, "Events in one commit");
    describe_histogram!(COMMIT_SECONDS, "Seconds from taking a batch to its being durable");
    describe_histogram!(SYNC_SECONDS, "Seconds of one fdatasync");
    describe_counter!(REFUSED, "Publishes refused, by code");
    describe_counter!(STORAGE_ERRORS, "Failed writes and syncs of the log");
    describe_counter!(ACKS, "Acks taken");
    describe_counter!(NACKS, "Nacks taken");
    describe_counter!(REDELIVERED, "Events delivered again");
    describe_counter!(OPENED, "Sessions begun");
    describe_gauge!(SESSIONS, "Sessions there are");
    describe_counter!(AUTH, "Identifications, by result");
    describe_counter!(DELIVERED, "Events written to sockets");
    describe_counter!(DELIVERED_BYTES, "Bytes of events written to sockets");
    describe_gauge!(LAST_OFFSET, "The last durable offset");
    describe_gauge!(FIRST_OFFSET, "The first offset there is");
    describe_gauge!(LOG_BYTES, "Bytes in segments");
    describe_gauge!(LOG_SEGMENTS, "Segments");
    describe_gauge!(READY, "1 when the broker takes publishes");
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
    /// Whether publishes are taken.
    pub ready: bool,
}

/// Everything in Prometheus' text format, with these gauges as of now.
pub fn render(log: LogGauges) -> String {
    gauge!(FIRST_OFFSET).set(log.first as f64);
    gauge!(LAST_OFFSET).set(log.last as f64);
    gauge!(LOG_BYTES).set(log.bytes as f64);
    gauge!(LOG_SEGMENTS).set(log.segments as f64);
    gauge!(READY).set(if log.ready { 1.0 } else { 0.0 });
    HANDLE.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// A batch is durable.
pub fn committed(events: usize, took: Duration) {
    if events > 0 {
        counter!(EVENTS).increment(count(events));
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
pub fn session_closed(transport: &'static str) {
    gauge!(SESSIONS, "transport" => transport).decrement(1.0);
}

/// Events were written to a socket.
pub fn delivered(transport: &'static str, events: usize, bytes: usize) {
    counter!(DELIVERED, "transport" => transport).increment(count(events));
    counter!(DELIVERED_BYTES, "transport" => transport).increment(count(bytes));
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
