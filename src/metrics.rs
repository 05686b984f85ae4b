//! What the broker counts: one function an observation, no user's text in a label but two that are
//! bounded: the first token of topics, and the durables that the settings name.
//!
//! - `table` names every metric; `docs/operations.md` is that table.
//! - What is counted often has its handle made once (`handles`); the rest is looked up.
//! - A histogram keeps what it is told until it is scraped or [`upkeep`] is called: call it.

mod durables;
mod handles;
mod table;

use std::{sync::OnceLock, time::Duration};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tidings_proto::control::{LeaveReason, ScheduleOutcome};

pub use self::{
    durables::OneDurable,
    handles::{Appended, Outcome},
};
use self::{
    handles::Handles,
    table::{Kind, TABLE},
};
use crate::clock;

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
static HANDLES: OnceLock<Handles> = OnceLock::new();

/// The close codes that have a label of their own: those we send.
const CLOSE_CODES: [(u16, &str); 14] = [
    (1000, "1000"),
    (1001, "1001"),
    (1002, "1002"),
    (1003, "1003"),
    (1007, "1007"),
    (1008, "1008"),
    (1009, "1009"),
    (1011, "1011"),
    (1013, "1013"),
    (4401, "4401"),
    (4408, "4408"),
    (4429, "4429"),
    (4500, "4500"),
    (4503, "4503"),
];

/// Installs the recorder, once a process. What is observed before is lost.
pub fn install() {
    if HANDLE.get().is_some() {
        return;
    }
    let builder =
        TABLE.iter().try_fold(PrometheusBuilder::new(), |builder, metric| match metric.kind {
            Kind::Histogram(buckets) => {
                builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
            }
            Kind::Counter | Kind::Gauge => Ok(builder),
        });
    match builder.and_then(PrometheusBuilder::install_recorder) {
        Ok(handle) => {
            let _ = HANDLE.set(handle);
            describe();
            HANDLES.get_or_init(Handles::new);
        }
        Err(error) => tracing::warn!(%error, "metrics are off"),
    }
}

fn describe() {
    for metric in TABLE {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Histogram(_) => describe_histogram!(metric.name, metric.help),
        }
    }
    process().describe();
    let build = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("commit", env!("BUILD_COMMIT")),
        ("rustc", env!("BUILD_RUSTC")),
    ];
    gauge!(table::BUILD_INFO.name, &build).set(1.0);
    gauge!(table::START_TIME.name).set(clock::now().as_millis() as f64 / 1000.0);
    // What is zero is there from the start: a rate over it sees its first step.
    for result in ["ok", "refused"] {
        counter!(table::AUTH.name, "result" => result).absolute(0);
    }
    for result in ["ok", "failed"] {
        counter!(table::KEY_SETS.name, "result" => result).absolute(0);
    }
    for result in ["ok", "refused"] {
        counter!(table::CERTIFICATES.name, "result" => result).absolute(0);
        counter!(table::KEY_FILES.name, "result" => result).absolute(0);
    }
    for (scope, kind) in [("ip", "connects"), ("ip", "failed_auth"), ("session", "subscribes")] {
        counter!(table::RATE_LIMITED.name, "scope" => scope, "kind" => kind).absolute(0);
    }
    for (op, kind) in [("write", "io"), ("sync", "io"), ("read", "io"), ("read", "corrupt")] {
        counter!(table::STORAGE_ERRORS.name, "op" => op, "kind" => kind).absolute(0);
    }
    for reason in ["nack", "ack_wait", "detached"] {
        counter!(table::DEAD_LETTERED.name, "reason" => reason).absolute(0);
    }
    counter!(table::DURABLES_EXPIRED.name).absolute(0);
    counter!(table::JOINED.name).absolute(0);
    for outcome in ScheduleOutcome::ALL {
        counter!(table::SCHEDULE_ENDED.name, "outcome" => outcome.as_str()).absolute(0);
    }
    for reason in LeaveReason::ALL {
        counter!(table::LEFT.name, "reason" => reason.as_str()).absolute(0);
    }
    for reason in ["origin", "auth", "limit", "protocol", "tls"] {
        counter!(table::HANDSHAKES.name, "reason" => reason).absolute(0);
    }
    for direction in ["in", "out"] {
        counter!(table::HTTP_CODED_SAVED.name, "direction" => direction).absolute(0);
        for coding in ["zstd", "gzip", "br"] {
            let labels = [("coding", coding), ("direction", direction)];
            counter!(table::HTTP_CODED.name, &labels).absolute(0);
        }
    }
}

/// What the system says of the process: `process_*`.
fn process() -> metrics_process::Collector {
    metrics_process::Collector::default()
}

/// Puts what histograms were told into their buckets: without it they grow until somebody scrapes.
pub fn upkeep() {
    if let Some(handle) = HANDLE.get() {
        handle.run_upkeep();
    }
}

/// How many subscriptions there are, by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionGauges {
    /// Those that are sent what was there when they began.
    pub catching_up: usize,
    /// Those that wait for what comes.
    pub live: usize,
}

/// The state of the broker, as gauges.
#[derive(Clone, Debug)]
pub struct Gauges {
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
    /// How far the ledger is folded.
    pub ledger: u64,
    /// Ephemeral subscriptions.
    pub ephemeral: SubscriptionGauges,
    /// Subscriptions of durables.
    pub durable: SubscriptionGauges,
    /// Durables that nobody uses.
    pub idle: usize,
    /// Members of all topics.
    pub members: usize,
    /// Events that wait for their moment.
    pub scheduled: usize,
    /// How durables lag, once that is known.
    pub lag: Option<LagGauges>,
    /// Whether publishes are taken.
    pub ready: bool,
}

/// How durables lag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LagGauges {
    /// Events not acknowledged, of all durables.
    pub sum: u64,
    /// Of the one with the most.
    pub max: u64,
    /// When the oldest of them was appended, in milliseconds since the epoch.
    pub oldest_ms: Option<u64>,
    /// The durables that are shown one by one.
    pub shown: Vec<OneDurable>,
}

/// Everything in Prometheus' text format, with these gauges as of now.
pub fn render(state: &Gauges) -> String {
    gauge!(table::LOG_FIRST.name).set(state.first as f64);
    gauge!(table::LOG_LAST.name).set(state.last as f64);
    gauge!(table::LOG_BYTES.name).set(state.bytes as f64);
    gauge!(table::LOG_SEGMENTS.name).set(state.segments as f64);
    gauge!(table::MEMBERS.name).set(state.members as f64);
    gauge!(table::SCHEDULED.name).set(state.scheduled as f64);
    gauge!(table::PROJECTION_OFFSET.name, "projection" => "ledger").set(state.ledger as f64);
    let subscriptions = [
        ("ephemeral", "catching_up", state.ephemeral.catching_up),
        ("ephemeral", "live", state.ephemeral.live),
        ("durable", "catching_up", state.durable.catching_up),
        ("durable", "live", state.durable.live),
        ("durable", "idle", state.idle),
    ];
    for (kind, is, count) in subscriptions {
        gauge!(table::SUBSCRIPTIONS.name, "kind" => kind, "state" => is).set(count as f64);
    }
    if let Some(free) = state.disk_free {
        gauge!(table::DISK_FREE.name).set(free as f64);
    }
    gauge!(table::READY.name).set(if state.ready { 1.0 } else { 0.0 });
    let now_ms = clock::now().as_millis();
    if let Some(lag) = &state.lag {
        gauge!(table::LAG_SUM.name).set(lag.sum as f64);
        gauge!(table::LAG_MAX.name).set(lag.max as f64);
        gauge!(table::LAG_SECONDS.name).set(durables::age_seconds(lag.oldest_ms, now_ms));
    }
    process().collect();
    let mut text = HANDLE.get().map(PrometheusHandle::render).unwrap_or_default();
    if let Some(lag) = &state.lag {
        durables::write(&lag.shown, now_ms, &mut text);
    }
    text
}

/// The broker was started with this reserve.
pub fn reserved(bytes: u64) {
    gauge!(table::DISK_RESERVED.name).set(bytes as f64);
}

/// The log was opened.
pub fn recovered(took: Duration, cut_bytes: u64) {
    gauge!(table::RECOVERY_SECONDS.name).set(took.as_secs_f64());
    gauge!(table::RECOVERY_BYTES.name).set(cut_bytes as f64);
}

/// A pass of retention ended: how long it took, and the segments dropped, those rewritten, and the bytes freed.
pub fn retention_passed(took: Duration, freed: (u64, u64, u64), now: tidings_proto::Timestamp) {
    let (dropped, rewritten, bytes) = freed;
    counter!(table::RETENTION_SEGMENTS.name, "outcome" => "dropped").increment(dropped);
    counter!(table::RETENTION_SEGMENTS.name, "outcome" => "rewrote").increment(rewritten);
    counter!(table::RETENTION_BYTES.name).increment(bytes);
    gauge!(table::RETENTION_SECONDS.name).set(took.as_secs_f64());
    gauge!(table::RETENTION_LAST.name).set(now.as_millis() as f64 / 1000.0);
}

/// A projection was opened; whether it was folded anew from a log that has something.
pub fn projection_opened(projection: &'static str, anew: bool) {
    counter!(table::PROJECTION_REBUILDS.name, "projection" => projection)
        .increment(u64::from(anew));
}

/// An ephemeral subscription began: `from_now`, `exact`, or at a gap.
pub fn resumed(result: &'static str) {
    if let Some(counter) = HANDLES.get().and_then(|handles| handles.resume(result)) {
        counter.increment(1);
    }
}

/// A subscription that began at a position has been sent all that was there.
pub fn replayed(events: u64) {
    if let Some(handles) = HANDLES.get() {
        handles.replayed.record(events as f64);
    }
}

/// A batch is durable.
pub fn committed(events: usize, took: Duration) {
    if let Some(handles) = HANDLES.get().filter(|_| events > 0) {
        handles.commit_events.record(events as f64);
        handles.commit_seconds.record(took.as_secs_f64());
    }
}

/// One sync has returned.
pub fn synced(took: Duration) {
    if let Some(handles) = HANDLES.get() {
        handles.sync_seconds.record(took.as_secs_f64());
    }
}

/// A file of the log refused something. Both words are of a fixed set.
pub fn storage_failed(op: &'static str, kind: &'static str) {
    counter!(table::STORAGE_ERRORS.name, "op" => op, "kind" => kind).increment(1);
}

/// So many publishes were answered.
pub fn publish_answered(transport: &'static str, outcome: Outcome, publishes: usize) {
    let of = HANDLES.get().and_then(|handles| handles.of(transport));
    if let Some(counter) = of.and_then(|of| of.publish(outcome)) {
        counter.increment(count(publishes));
    }
}

/// An ack was taken; how long after its oldest event went out for the first time, where that is known.
pub fn acked(after: Option<Duration>) {
    if let Some(handles) = HANDLES.get() {
        handles.acks.increment(1);
        if let Some(after) = after {
            handles.ack_seconds.record(after.as_secs_f64());
        }
    }
}

/// A durable that nobody used was forgotten.
pub fn durable_expired() {
    counter!(table::DURABLES_EXPIRED.name).increment(1);
}

/// A nack was taken.
pub fn nacked() {
    if let Some(handles) = HANDLES.get() {
        handles.nacks.increment(1);
    }
}

/// A subscription that waited was woken by an event.
pub fn woken() {
    if let Some(handles) = HANDLES.get() {
        handles.wakes.increment(1);
    }
}

/// Events go out again.
pub fn redelivered(events: usize) {
    if let Some(handles) = HANDLES.get() {
        handles.redelivered.increment(count(events));
    }
}

/// An event was delivered as often as it may be, and its letter is durable: how its last delivery ended.
pub fn dead_lettered(reason: &'static str) {
    counter!(table::DEAD_LETTERED.name, "reason" => reason).increment(1);
}

/// A member has joined a topic, or left it for this reason; it is in the log.
pub fn presence_changed(left: Option<&'static str>) {
    match left {
        None => counter!(table::JOINED.name).increment(1),
        Some(reason) => counter!(table::LEFT.name, "reason" => reason).increment(1),
    }
}

/// An event waits for its moment no more; where it was published, it was so late.
pub fn schedule_ended(outcome: &'static str, late: Option<Duration>) {
    counter!(table::SCHEDULE_ENDED.name, "outcome" => outcome).increment(1);
    if let Some(late) = late {
        histogram!(table::SCHEDULE_LATE.name).record(late.as_secs_f64());
    }
}

/// Events are not sent: newer ones of their topics and keys are.
pub fn conflated(events: usize) {
    if let Some(handles) = HANDLES.get() {
        handles.conflated.increment(count(events));
    }
}

/// Somebody was told who they are, or not.
pub fn authenticated(ok: bool) {
    counter!(table::AUTH.name, "result" => if ok { "ok" } else { "refused" }).increment(1);
}

/// The key set of tokens was read, or was not.
pub fn keys_refreshed(ok: bool) {
    counter!(table::KEY_SETS.name, "result" => if ok { "ok" } else { "failed" }).increment(1);
}

/// The files with keys of tokens were read anew, or were not.
pub fn keys_read(ok: bool) {
    counter!(table::KEY_FILES.name, "result" => if ok { "ok" } else { "refused" }).increment(1);
}

/// Somebody was refused who came too fast: whose limit of what. Both words are of a fixed set.
pub fn rate_limited(scope: &'static str, kind: &'static str) {
    counter!(table::RATE_LIMITED.name, "scope" => scope, "kind" => kind).increment(1);
}

/// The certificate of the public listener was replaced, or could not be.
pub fn certificate_read(ok: bool) {
    counter!(table::CERTIFICATES.name, "result" => if ok { "ok" } else { "refused" }).increment(1);
}

/// A WebSocket did not become a session, or a connection was over the cap.
pub fn handshake_rejected(reason: &'static str) {
    counter!(table::HANDSHAKES.name, "reason" => reason).increment(1);
}

/// A session began.
pub fn session_opened(transport: &'static str, encoding: &'static str) {
    counter!(table::OPENED.name, "transport" => transport).increment(1);
    sessions(transport, encoding).increment(1.0);
}

/// A session ended, with this close code if there was one.
pub fn session_closed(
    transport: &'static str,
    encoding: &'static str,
    code: Option<u16>,
    lasted: Duration,
) {
    let code = code.map_or("none", |code| {
        CLOSE_CODES.iter().find(|(of, _)| *of == code).map_or("other", |(_, label)| *label)
    });
    sessions(transport, encoding).decrement(1.0);
    counter!(table::CLOSED.name, "transport" => transport, "code" => code).increment(1);
    histogram!(table::SESSION_SECONDS.name, "transport" => transport).record(lasted.as_secs_f64());
}

fn sessions(transport: &'static str, encoding: &'static str) -> metrics::Gauge {
    gauge!(table::SESSIONS.name, "transport" => transport, "encoding" => encoding)
}

/// Events were written to a socket.
pub fn delivered(transport: &'static str, events: usize, bytes: usize) {
    if let Some(of) = HANDLES.get().and_then(|handles| handles.of(transport)) {
        of.events.increment(count(events));
        of.bytes.increment(count(bytes));
    }
}

/// A batch of so many bytes goes to a WebSocket that asked for compression, with so many where that was worth it;
/// `is_made` tells whether it was compressed for this one.
pub fn compressed(bytes: usize, deflated_bytes: Option<usize>, is_made: bool) {
    let Some(handles) = HANDLES.get() else { return };
    let [made, shared, plain] = &handles.compressed;
    match deflated_bytes {
        Some(_) if is_made => made.increment(1),
        Some(_) => shared.increment(1),
        None => plain.increment(1),
    }
    handles
        .compression_saved
        .increment(count(deflated_bytes.map_or(0, |n| bytes.saturating_sub(n))));
}

/// A write has ended whose first event became durable at this monotonic moment.
pub fn delivery_took(transport: &'static str, durable_at: Duration) {
    if let Some(of) = HANDLES.get().and_then(|handles| handles.of(transport)) {
        of.latency.record(clock::monotonic().saturating_sub(durable_at).as_secs_f64());
    }
}

/// A pong came so long after its ping.
pub fn ponged(after: Duration) {
    if let Some(handles) = HANDLES.get() {
        handles.ping_seconds.record(after.as_secs_f64());
    }
}

/// A WebSocket that has not taken at once what is being written to it: counted as long as this lives.
#[derive(Debug)]
pub struct Slow {
    bytes: usize,
}

impl Slow {
    /// So many bytes wait.
    pub fn new(bytes: usize) -> Slow {
        if let Some(handles) = HANDLES.get() {
            handles.slow.increment(1.0);
            handles.outbox_bytes.increment(bytes as f64);
        }
        Slow { bytes }
    }

    /// It has taken some of them.
    pub fn took(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        if let Some(handles) = HANDLES.get() {
            handles.outbox_bytes.decrement(bytes as f64);
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.took(self.bytes);
        if let Some(handles) = HANDLES.get() {
            handles.slow.decrement(1.0);
        }
    }
}

/// A request was answered. All words are of fixed sets.
pub fn http_answered(
    route: &'static str,
    method: &'static str,
    status: &'static str,
    took: Duration,
) {
    counter!(table::HTTP.name, "route" => route, "method" => method, "status" => status)
        .increment(1);
    histogram!(table::HTTP_SECONDS.name, "route" => route, "method" => method)
        .record(took.as_secs_f64());
}

/// A body of so many bytes was compressed to so many (`out`), or came as so many (`in`). All words are of fixed sets.
pub fn http_coded(
    coding: &'static str,
    direction: &'static str,
    plain_bytes: usize,
    coded_bytes: usize,
) {
    counter!(table::HTTP_CODED.name, "coding" => coding, "direction" => direction).increment(1);
    let saved_bytes = plain_bytes.saturating_sub(coded_bytes);
    counter!(table::HTTP_CODED_SAVED.name, "direction" => direction).increment(count(saved_bytes));
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
