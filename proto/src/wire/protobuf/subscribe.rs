//! The options of a subscription in Protobuf.

use serde_json::Value;

use super::{
    cursor,
    event::priority,
    generated::{
        self, Mode as WireMode, OnGap as WireOnGap, Order as WireOrder,
        PartitionBy as WirePartitionBy, subscribe,
    },
    time,
};
use crate::{
    Filter, Filters, Mode, Position, Start, SubscribeOptions,
    event::{JSON_DEPTH_MAX, json_depth},
    subscribe::{After, OnGap, Order, PartitionBy, Presence},
    wire::Fault,
};

impl From<&SubscribeOptions> for generated::Subscribe {
    fn from(options: &SubscribeOptions) -> generated::Subscribe {
        let defaults = SubscribeOptions::to(options.filters.clone());
        generated::Subscribe {
            filters: options.filters.iter().map(|filter| filter.as_str().to_owned()).collect(),
            after: options.after.as_ref().map(|After(position)| position.into()),
            since_ms: options.since.map(|time| time.as_millis()),
            log: options.log.clone(),
            durable: options.durable.clone(),
            start: match &options.start {
                Start::Now => None,
                Start::First => Some(subscribe::Start::StartAt(generated::StartAt::First.into())),
                Start::After(position) => Some(subscribe::Start::StartAfter(position.into())),
                Start::Since(time) => Some(subscribe::Start::StartSinceMs(time.as_millis())),
            },
            last_per_key: options.last_per_key,
            types: options.types.clone(),
            min_priority: options.min_priority.map(|priority| priority.to_bits().into()),
            content_types: options.content_types.clone(),
            mode: match options.mode {
                Mode::Exclusive => WireMode::Exclusive,
                Mode::Shared => WireMode::Shared,
                Mode::Mirror => WireMode::Mirror,
            }
            .into(),
            headers: options.headers.clone(),
            partition_by: match options.partition_by {
                None => WirePartitionBy::Nothing,
                Some(PartitionBy::Key) => WirePartitionBy::Key,
            }
            .into(),
            order: match options.order {
                Order::Log => WireOrder::Log,
                Order::Priority => WireOrder::Priority,
            }
            .into(),
            max_in_flight: unless(options.max_in_flight, defaults.max_in_flight),
            ack_wait_ms: unless(options.ack_wait_ms, defaults.ack_wait_ms),
            max_deliveries: options.max_deliveries,
            backoff_ms: options.backoff_ms.clone(),
            idle_expiry_ms: options.idle_expiry_ms,
            conflate_ms: options.conflate_ms,
            linger_ms: options.linger_ms,
            batch_max: unless(options.batch_max, defaults.batch_max),
            max_bytes_per_second: options.max_bytes_per_second,
            max_data_bytes: options.max_data_bytes,
            on_gap: match options.on_gap {
                OnGap::Continue => WireOnGap::Continue,
                OnGap::Error => WireOnGap::Error,
            }
            .into(),
            presence: options.presence.as_ref().map(|Presence { data }| generated::Presence {
                data: (!data.is_null()).then(|| data.to_string().into()),
            }),
            lost_reader: options.lost_reader.clone(),
        }
    }
}

impl From<&Position> for generated::Position {
    fn from(position: &Position) -> generated::Position {
        generated::Position { cursor: position.cursor.get(), log: position.log.clone() }
    }
}

fn unless<T: PartialEq>(value: T, default: T) -> Option<T> {
    (value != default).then_some(value)
}

pub(super) fn options_of(given: generated::Subscribe) -> Result<SubscribeOptions, Fault> {
    let defaults = SubscribeOptions::to(filters(&given.filters)?);
    let (mode, order, on_gap) = (given.mode(), given.order(), given.on_gap());
    let partition_by = given.partition_by();
    Ok(SubscribeOptions {
        after: given.after.map(|it| position("after", it)).transpose()?.map(After),
        since: given.since_ms.map(|ms| time("since_ms", ms)).transpose()?,
        log: given.log,
        durable: given.durable,
        start: start(given.start)?,
        last_per_key: given.last_per_key,
        types: given.types,
        min_priority: given.min_priority.map(priority),
        content_types: given.content_types,
        mode: match mode {
            WireMode::Exclusive => Mode::Exclusive,
            WireMode::Shared => Mode::Shared,
            WireMode::Mirror => Mode::Mirror,
        },
        headers: given.headers,
        partition_by: match partition_by {
            WirePartitionBy::Nothing => None,
            WirePartitionBy::Key => Some(PartitionBy::Key),
        },
        order: match order {
            WireOrder::Log => Order::Log,
            WireOrder::Priority => Order::Priority,
        },
        max_in_flight: given.max_in_flight.unwrap_or(defaults.max_in_flight),
        ack_wait_ms: given.ack_wait_ms.unwrap_or(defaults.ack_wait_ms),
        max_deliveries: given.max_deliveries,
        backoff_ms: given.backoff_ms,
        idle_expiry_ms: given.idle_expiry_ms,
        conflate_ms: given.conflate_ms,
        linger_ms: given.linger_ms,
        batch_max: given.batch_max.unwrap_or(defaults.batch_max),
        max_bytes_per_second: given.max_bytes_per_second,
        max_data_bytes: given.max_data_bytes,
        on_gap: match on_gap {
            WireOnGap::Continue => OnGap::Continue,
            WireOnGap::Error => OnGap::Error,
        },
        presence: given.presence.map(presence).transpose()?,
        lost_reader: given.lost_reader,
        ..defaults
    })
}

fn filters(given: &[String]) -> Result<Filters, Fault> {
    let one = |(n, text): (usize, &String)| {
        Filter::parse(text).map_err(|error| Fault::new(&format!("filters[{n}]"), error.to_string()))
    };
    let filters = given.iter().enumerate().map(one).collect::<Result<_, _>>()?;
    Filters::new(filters).map_err(|error| Fault::new("filters", error.to_string()))
}

fn start(given: Option<subscribe::Start>) -> Result<Start, Fault> {
    Ok(match given {
        None => Start::Now,
        Some(subscribe::Start::StartAt(at)) if at == i32::from(generated::StartAt::First) => {
            Start::First
        }
        // The only other word.
        Some(subscribe::Start::StartAt(_)) => Start::Now,
        Some(subscribe::Start::StartAfter(it)) => Start::After(position("start_after", it)?),
        Some(subscribe::Start::StartSinceMs(ms)) => Start::Since(time("start_since_ms", ms)?),
    })
}

/// Read by way of its text, so that the log is what it is in every encoding.
fn position(field: &str, given: generated::Position) -> Result<Position, Fault> {
    let cursor = cursor(&format!("{field}.cursor"), given.cursor)?;
    let Some(log) = given.log else { return Ok(Position { cursor, log: None }) };
    let wrong =
        |_| Fault::new(&format!("{field}.log"), "is not the first eight hex digits of a log");
    format!("{cursor}@{log}").parse().map_err(wrong)
}

fn presence(given: generated::Presence) -> Result<Presence, Fault> {
    let data = given.data.map_or(Ok(Value::Null), |data| json_of("presence.data", &data))?;
    Ok(Presence { data })
}

/// A JSON value that is given as its text.
pub(super) fn json_of(field: &str, text: &[u8]) -> Result<Value, Fault> {
    let wrong = |text: String| Fault::new(field, text);
    // Depth first: the parser recurses.
    if json_depth(text) > JSON_DEPTH_MAX {
        return Err(wrong(format!("is nested deeper than {JSON_DEPTH_MAX} levels")));
    }
    serde_json::from_slice(text).map_err(|error| wrong(format!("is not JSON: {error}")))
}
