//! Every metric there is: name, kind, labels, and what it says. `docs/operations.md` is this table.

/// What a metric is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// It only rises.
    Counter,
    /// It is what it is now.
    Gauge,
    /// It is counted in these buckets.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    /// Its name.
    pub(super) name: &'static str,
    /// What it is.
    pub(super) kind: Kind,
    /// Its labels, by comma.
    #[cfg_attr(not(test), expect(dead_code, reason = "the operators' page is held to it"))]
    pub(super) labels: &'static str,
    /// What it says.
    pub(super) help: &'static str,
}

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static str,
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, help }
}

/// For what should be fast, in seconds.
const FAST: Kind = Kind::Histogram(&[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
]);
/// For events in one commit.
const BATCH: Kind = Kind::Histogram(&[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0,
]);
/// For how long sessions last, in seconds.
const LONG: Kind = Kind::Histogram(&[1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 28_800.0, 86_400.0]);
/// For how long somebody thinks before an ack, and how late something is, in seconds.
const HUMAN: Kind = Kind::Histogram(&[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
]);
/// For how much is sent after a resume, in events.
const REPLAY: Kind =
    Kind::Histogram(&[0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0, 1_000_000.0]);

macro_rules! table {
    ($($id:ident = $name:literal, $kind:expr, $labels:literal, $help:literal;)*) => {
        $(pub(super) const $id: Metric = metric($name, $kind, $labels, $help);)*
        /// All of them, in the order of the operators' page.
        pub(super) const TABLE: &[Metric] = &[$($id),*];
    };
}

use Kind::{Counter, Gauge};

table! {
    BUILD_INFO = "tidings_build_info", Gauge, "version, commit, rustc", "1, with the version, its commit and its compiler";
    START_TIME = "tidings_start_time_seconds", Gauge, "", "When the process began, in seconds since the epoch";
    READY = "tidings_ready", Gauge, "", "1 when publishes are taken";

    APPENDED = "tidings_append_events_total", Counter, "topic_root", "Events appended, the broker's own included, by the first token of their topic";
    APPENDED_BYTES = "tidings_append_bytes_total", Counter, "topic_root", "Bytes of the bodies of appended events, as they are stored";
    COMMIT_EVENTS = "tidings_commit_batch_events", BATCH, "", "Events in one commit";
    COMMIT_SECONDS = "tidings_append_duration_seconds", FAST, "", "From taking a batch to its being durable and visible";
    SYNC_SECONDS = "tidings_sync_duration_seconds", FAST, "", "One fdatasync";
    PUBLISHES = "tidings_publish_requests_total", Counter, "transport, outcome", "Publishes answered: `ok`, `duplicate` (all of it was there), `conflict`, `denied` (no right, or too fast), `rejected` (invalid or too large), `unavailable` (full, stopping, or a fault of ours)";

    LOG_FIRST = "tidings_log_first_offset", Gauge, "", "The first offset there is";
    LOG_LAST = "tidings_log_last_offset", Gauge, "", "The last offset; what is not durable has none";
    LOG_BYTES = "tidings_log_bytes", Gauge, "", "Bytes of the segment files";
    LOG_SEGMENTS = "tidings_log_segments", Gauge, "", "Segments";
    DISK_FREE = "tidings_disk_free_bytes", Gauge, "", "Free on the log's disk";
    DISK_RESERVED = "tidings_disk_reserved_bytes", Gauge, "", "What a full disk leaves for acks: `log.reserve_bytes`";
    STORAGE_ERRORS = "tidings_storage_errors_total", Counter, "op, kind", "What the log's files refused; `op` is `read` for a read, and else a write or sync, which stops publishing";
    RECOVERY_SECONDS = "tidings_recovery_seconds", Gauge, "", "How long the log took to open";
    RECOVERY_BYTES = "tidings_recovery_truncated_bytes", Gauge, "", "What was cut of a torn tail then";
    PROJECTION_OFFSET = "tidings_projection_applied_offset", Gauge, "projection", "Every event of its own up to here is in the projection";
    PROJECTION_REBUILDS = "tidings_projection_rebuild_total", Counter, "projection", "Projections folded anew from a log that was not empty";
    RETENTION_SEGMENTS = "tidings_retention_segments_total", Counter, "outcome", "Segments that retention and erasure `dropped` or `rewrote`";
    RETENTION_BYTES = "tidings_retention_freed_bytes_total", Counter, "", "Bytes of segment files that they gave back";
    RETENTION_SECONDS = "tidings_retention_pass_seconds", Gauge, "", "How long the last pass of retention took";
    RETENTION_LAST = "tidings_retention_last_pass_timestamp_seconds", Gauge, "", "When the last pass that did not fail ended, in seconds since the epoch";

    SUBSCRIPTIONS = "tidings_subscriptions", Gauge, "kind, state", "Subscriptions that are `catching_up` or `live`, and of kind `durable` also those that nobody uses: `idle`";
    WAKES = "tidings_subscription_wakes_total", Counter, "", "Subscriptions that waited and were woken by an event that matches";
    RESUMES = "tidings_resume_total", Counter, "result", "Ephemeral subscriptions begun: `exact`, `from_now`, `gap`, `log_changed`";
    REPLAYED = "tidings_resume_replayed_events", REPLAY, "", "Events sent before `caught_up` to a subscription that began at a position";
    ACKS = "tidings_ack_total", Counter, "", "Acks taken";
    NACKS = "tidings_nack_total", Counter, "", "Nacks taken";
    ACK_SECONDS = "tidings_ack_latency_seconds", HUMAN, "", "From the first delivery of the oldest event that an ack names to the ack; one an ack";
    REDELIVERED = "tidings_redelivered_events_total", Counter, "", "Events delivered again";
    DURABLES_EXPIRED = "tidings_durables_expired_total", Counter, "", "Durables forgotten since nobody used them for `idle_expiry_ms`";
    DEAD_LETTERED = "tidings_dead_lettered_events_total", Counter, "reason", "Events delivered `max_deliveries` times, and now in `$dead.…`; by how the last delivery ended: `nack`, `ack_wait`, `detached`";
    CONFLATED = "tidings_conflated_events_total", Counter, "", "Events not sent to a reader with `conflate_ms`, since a newer one of the same topic and key was";
    MEMBERS = "tidings_presence_members", Gauge, "", "Members listed, on all topics together";
    JOINED = "tidings_presence_joined_total", Counter, "", "Members that joined a topic";
    LEFT = "tidings_presence_left_total", Counter, "reason", "Members that left one: `left` (unsubscribed), `gone` (lost, and not back within the grace), `restart` (not back after a start)";
    SCHEDULED = "tidings_scheduled_events", Gauge, "", "Events that wait for their moment (`deliver_at`)";
    SCHEDULE_ENDED = "tidings_scheduled_ended_total", Counter, "outcome", "Events that wait for it no more: `fired` (published), `cancelled`, `lost` (what was stored cannot be read)";
    SCHEDULE_LATE = "tidings_scheduled_lateness_seconds", HUMAN, "", "From the moment an event was due to its being in the log";
    LAG_SUM = "tidings_durable_lag_events", Gauge, "", "Events not acknowledged, of all durables together";
    LAG_MAX = "tidings_durable_lag_events_max", Gauge, "", "Of the durable with the most";
    LAG_SECONDS = "tidings_durable_lag_seconds_max", Gauge, "", "The age of the oldest event that a durable has not acknowledged, where it could be looked for with bounded work";
    ONE_LAG = "tidings_subscription_lag_events", Gauge, "durable", "Events that this durable has not acknowledged; only of those in `metrics.durables`";
    ONE_LAG_SECONDS = "tidings_subscription_lag_seconds", Gauge, "durable", "The age of the oldest of them";
    ONE_IN_FLIGHT = "tidings_subscription_in_flight", Gauge, "durable", "Events that are with a session or a fetcher";
    ONE_ACKED = "tidings_subscription_acked_offset", Gauge, "durable", "Everything up to here is acknowledged";

    SESSIONS = "tidings_sessions", Gauge, "transport, encoding", "Sessions there are";
    OPENED = "tidings_session_opened_total", Counter, "transport", "Sessions begun";
    CLOSED = "tidings_session_closed_total", Counter, "transport, code", "Sessions ended; `code` is a WebSocket's close code, `other` for one we do not send, `none` where there was none";
    SESSION_SECONDS = "tidings_session_duration_seconds", LONG, "transport", "How long they lasted";
    HANDSHAKES = "tidings_handshake_rejected_total", Counter, "reason", "WebSockets that became no session: `origin`, `auth`, `protocol`; and connections of any kind over a cap or a rate (`limit`), or without a TLS handshake (`tls`)";
    RATE_LIMITED = "tidings_rate_limited_total", Counter, "scope, kind", "Refusals of who came too fast: whose limit (`ip`, `subject`, `session`) of what (`connects`, `failed_auth`, `requests`, `publishes`, `bytes`, `subscribes`, `acks`, `replay_bytes`, `controls`)";
    CERTIFICATES = "tidings_tls_certificate_reads_total", Counter, "result", "Certificates read anew on SIGHUP: `ok`, `refused` (the one before stays)";
    AUTH = "tidings_auth_total", Counter, "result", "Identifications: `ok`, `refused`";
    KEY_SETS = "tidings_auth_key_sets_total", Counter, "result", "Readings of the key set of tokens (`auth.jwks_file`, `auth.jwks_url`): `ok`, `failed`, after which the last good set stays";
    KEY_FILES = "tidings_auth_key_reads_total", Counter, "result", "Secret and public keys of tokens read anew on SIGHUP: `ok`, `refused` (those before stay)";
    PING_SECONDS = "tidings_ping_rtt_seconds", FAST, "", "From a WebSocket's ping to its pong";
    DELIVERED = "tidings_delivered_events_total", Counter, "transport", "Events written to readers";
    DELIVERED_BYTES = "tidings_delivered_bytes_total", Counter, "transport", "Their bytes";
    COMPRESSED = "tidings_compressed_batches_total", Counter, "result", "Batches for WebSockets that asked for compression: `made` (compressed for the first of them), `shared` (compressed before), `plain` (gains too little)";
    COMPRESSION_SAVED = "tidings_compression_saved_bytes_total", Counter, "", "Bytes that compression has kept off WebSockets";
    HTTP_CODED = "tidings_http_compressed_bodies_total", Counter, "coding, direction", "HTTP answers that were compressed (`out`) and bodies of requests that were inflated (`in`), by coding: `zstd`, `gzip`, `br`";
    HTTP_CODED_SAVED = "tidings_http_compression_saved_bytes_total", Counter, "direction", "Bytes that this has kept off HTTP connections";
    DELIVERY_SECONDS = "tidings_delivery_latency_seconds", FAST, "transport", "From durable to written, of the first event of a write to a live subscription; what is read from the disk is not measured, and a durable held back by `max_in_flight` is";
    OUTBOX_BYTES = "tidings_outbox_bytes", Gauge, "", "Bytes that WebSockets have not taken yet";
    SLOW = "tidings_slow_sessions", Gauge, "", "WebSockets that have not taken at once what is being written to them";

    HTTP = "tidings_http_requests_total", Counter, "route, method, status", "Requests to the public listener, by class of status";
    HTTP_SECONDS = "tidings_http_request_duration_seconds", FAST, "route, method", "From the head of a request to the head of its answer, waiting included";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_page_is_this_table() {
        let page = include_str!("../../docs/operations.md");
        for metric in TABLE {
            let kind = match metric.kind {
                Counter => "counter",
                Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            let labels = metric.labels.split(", ").map(|label| format!("`{label}`"));
            let labels = labels.filter(|label| label != "``").collect::<Vec<_>>().join(", ");
            let row = format!("| `{}` | {kind} | {labels} | {} |", metric.name, metric.help);
            assert!(page.contains(&row), "docs/operations.md lacks the row\n{row}");
        }
        let rows = page.lines().filter(|line| line.starts_with("| `tidings_")).count();
        assert_eq!(rows, TABLE.len(), "the page has a metric that is not in the table");
    }

    #[test]
    fn names_are_as_prometheus_asks() {
        for metric in TABLE {
            let total = metric.name.ends_with("_total");
            assert_eq!(total, matches!(metric.kind, Counter), "{}", metric.name);
        }
    }
}
