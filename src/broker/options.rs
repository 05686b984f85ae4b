//! What the options of a subscription must be.

use tidings_proto::{Mode, Start, SubscribeOptions, subscribe::Order};

use super::{
    BATCH_EVENTS_MAX, MAX_IN_FLIGHT_MAX, WAIT_MS_MAX, bandwidth::RATE_MIN,
    conflate::CONFLATE_MS_MAX, error::SubscribeError, idle::IDLE_EXPIRY_MS_MAX,
    pace::LINGER_MS_MAX, presence, selection::PATTERNS_MAX,
};

/// The most headers that a subscription may name.
const HEADERS_MAX: usize = 16;
/// The most bytes a type or content type of a subscription may have.
const PATTERN_BYTES_MAX: usize = 1024;

type Checked = Result<(), SubscribeError>;

fn invalid(field: &'static str, problem: &str) -> Checked {
    Err(SubscribeError::Invalid { field, problem: problem.to_owned() })
}

/// What the types alone do not forbid.
pub(super) fn check(options: &SubscribeOptions) -> Checked {
    check_durable(options)?;
    check_beginning(options)?;
    check_order(options)?;
    check_numbers(options)?;
    check_selection(options)?;
    check_dead(options)?;
    presence::check(options)
}

/// What only a durable has, and what it has not.
fn check_durable(options: &SubscribeOptions) -> Checked {
    if let Some(name) = &options.durable {
        if !tidings_proto::topic::is_durable_name(name) {
            let problem = "a name is one token of A–Z a–z 0–9 _ - : @ =, 64 bytes at most";
            return invalid("durable", problem);
        }
        if options.after.is_some() || options.since.is_some() {
            return invalid(
                "after",
                "a durable subscription has its own cursor: say where a new one begins with \"start\"",
            );
        }
        return Ok(());
    }
    let of_durables = [
        ("mode", options.mode != Mode::Exclusive),
        ("partition_by", options.partition_by.is_some()),
        ("order", options.order != Order::Log),
        ("idle_expiry_ms", options.idle_expiry_ms > 0),
        ("max_deliveries", options.max_deliveries > 0),
        ("backoff_ms", !options.backoff_ms.is_empty()),
    ];
    match of_durables.into_iter().find(|(_, given)| *given) {
        Some((field, _)) => {
            invalid(field, "only a durable subscription has it: say \"durable\" too")
        }
        None => Ok(()),
    }
}

/// Where it begins is said once.
fn check_beginning(options: &SubscribeOptions) -> Checked {
    if options.after.is_some() && options.since.is_some() {
        return invalid("since", "give after or since, not both");
    }
    if !options.last_per_key {
        return Ok(());
    }
    if options.after.is_some() || options.since.is_some() || options.start != Start::Now {
        let problem = "it begins with the state as of now: leave out after, since and start";
        return invalid("last_per_key", problem);
    }
    if options.mode == Mode::Mirror {
        return invalid("last_per_key", "a mirror has one floor over all events: leave it out");
    }
    Ok(())
}

/// What needs the order of the log.
fn check_order(options: &SubscribeOptions) -> Checked {
    let contradicting = [
        ("mode", options.mode == Mode::Mirror),
        ("partition_by", options.partition_by.is_some()),
        ("last_per_key", options.last_per_key),
        ("conflate_ms", options.conflate_ms > 0),
        ("linger_ms", options.linger_ms > 0),
    ];
    let mut given = contradicting.into_iter().filter(|(_, given)| *given);
    if options.order == Order::Priority
        && let Some((field, _)) = given.next()
    {
        return invalid(field, "it needs the order of the log, and \"order\" is \"priority\"");
    }
    if options.partition_by.is_some() && options.mode != Mode::Shared {
        let problem = "only a shared durable is divided: say \"mode\":\"shared\"";
        return invalid("partition_by", problem);
    }
    Ok(())
}

fn check_numbers(options: &SubscribeOptions) -> Checked {
    if !(1..=MAX_IN_FLIGHT_MAX).contains(&options.max_in_flight) {
        return invalid("max_in_flight", "it must be 1 to 10000");
    }
    if !(1..=BATCH_EVENTS_MAX).contains(&options.batch_max) {
        return invalid("batch_max", "it must be 1 to 1000");
    }
    if options.ack_wait_ms > WAIT_MS_MAX || options.backoff_ms.iter().any(|ms| *ms > WAIT_MS_MAX) {
        return invalid("ack_wait_ms", "waits are 24 hours at most (86400000)");
    }
    if options.linger_ms > LINGER_MS_MAX {
        return invalid("linger_ms", "it is ten seconds at most (10000)");
    }
    if options.conflate_ms > CONFLATE_MS_MAX {
        return invalid("conflate_ms", "it is a minute at most (60000)");
    }
    if (1..RATE_MIN).contains(&options.max_bytes_per_second) {
        return invalid("max_bytes_per_second", "it must be 1000 or more, or 0 for no limit");
    }
    if options.idle_expiry_ms > IDLE_EXPIRY_MS_MAX {
        return invalid("idle_expiry_ms", "it is a year at most (31536000000)");
    }
    if options.backoff_ms.len() > PATTERNS_MAX {
        return invalid("backoff_ms", "at most 64 waits");
    }
    Ok(())
}

fn check_selection(options: &SubscribeOptions) -> Checked {
    if options.types.len() > PATTERNS_MAX || options.content_types.len() > PATTERNS_MAX {
        return invalid("types", "at most 64 types and 64 content types");
    }
    let patterns = options.types.iter().chain(&options.content_types);
    if patterns.into_iter().any(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
        return invalid("types", "a type or content type has 1024 bytes at most");
    }
    if options.headers.len() > HEADERS_MAX {
        return invalid("headers", "at most 16 headers");
    }
    if options.headers.iter().any(|(name, value)| name.len() + value.len() > PATTERN_BYTES_MAX) {
        return invalid("headers", "a name and its value have 1024 bytes at most");
    }
    Ok(())
}

/// Who has dead letters.
fn check_dead(options: &SubscribeOptions) -> Checked {
    if options.max_deliveries == 0 {
        return Ok(());
    }
    if options.mode == Mode::Mirror {
        return invalid("max_deliveries", "a mirror delivers to whoever looks: leave it out");
    }
    let root = tidings_proto::control::DEAD_ROOT;
    if options.filters.iter().any(|filter| filter.as_str().split('.').next() == Some(root)) {
        return invalid("max_deliveries", "a reader of dead letters has none of its own");
    }
    Ok(())
}
