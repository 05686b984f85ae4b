//! What the options of a subscription must be.

use tidings_proto::{
    Filter, LogId, Mode, Start, SubscribeOptions,
    control::{DEAD_ROOT, RECEIPTS_ROOT},
    subscribe::Order,
};

use super::{
    BATCH_EVENTS_MAX, MAX_IN_FLIGHT_MAX, WAIT_MS_MAX,
    audit::AUDIT_TOPIC,
    bandwidth::RATE_MIN,
    conflate::CONFLATE_MS_MAX,
    error::SubscribeError,
    held::FetchReader,
    idle::IDLE_EXPIRY_MS_MAX,
    pace::LINGER_MS_MAX,
    presence,
    selection::{PATTERNS_MAX, has_parameters, is_media_type, is_pattern},
};

/// The most headers that a subscription may name.
const HEADERS_MAX: usize = 16;
/// The most bytes a type or content type of a subscription may have.
const PATTERN_BYTES_MAX: usize = 1024;
/// The most bytes that all texts of a subscription's options have together: they are kept as long as it lives.
const TEXTS_BYTES_MAX: usize = 8 * 1024;
/// What the broker's own topics begin with that a durable may read.
const OWN_OF_DURABLES: [&str; 3] = [DEAD_ROOT, RECEIPTS_ROOT, AUDIT_TOPIC];

type Checked = Result<(), SubscribeError>;

fn invalid(field: &'static str, problem: &str) -> Checked {
    Err(SubscribeError::Invalid { field, problem: problem.to_owned() })
}

/// Refuses the first of these that is given.
fn none_of<const N: usize>(options: [(&'static str, bool); N], problem: &str) -> Checked {
    match options.into_iter().find(|(_, given)| *given) {
        Some((field, _)) => invalid(field, problem),
        None => Ok(()),
    }
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

/// Whether what a filter matches is anything that can be acknowledged.
fn may_be_durable(filter: &Filter) -> bool {
    let root = filter.as_str().split('.').next().unwrap_or_default();
    !root.starts_with('$') || OWN_OF_DURABLES.contains(&root)
}

/// What only a durable has, and what it has not.
fn check_durable(options: &SubscribeOptions) -> Checked {
    if let Some(name) = &options.durable {
        if !tidings_proto::topic::is_durable_name(name) {
            let problem = "a name is one token of A–Z a–z 0–9 _ - : @ =, 64 bytes at most";
            return invalid("durable", problem);
        }
        if let Some(filter) = options.filters.iter().find(|filter| !may_be_durable(filter)) {
            let problem = format!(
                "{filter}: of the broker's own topics a durable reads those under $dead, $receipts and $audit only"
            );
            return invalid("filters", &problem);
        }
        none_of(
            [("after", options.after.is_some()), ("since", options.since.is_some())],
            "a durable subscription has its own cursor: say where a new one begins with \"start\"",
        )?;
        if let Some(problem) = options.lost_reader.as_deref().and_then(FetchReader::problem) {
            return invalid("lost_reader", &problem);
        }
        return check_mirror(options);
    }
    // What is as it is where nothing was said cannot be told from that, and does nothing.
    let unsaid = SubscribeOptions::to(options.filters.clone());
    let of_durables = [
        ("start", options.start != unsaid.start),
        ("max_in_flight", options.max_in_flight != unsaid.max_in_flight),
        ("ack_wait_ms", options.ack_wait_ms != unsaid.ack_wait_ms),
        ("mode", options.mode != Mode::Exclusive),
        ("partition_by", options.partition_by.is_some()),
        ("order", options.order != Order::Log),
        ("idle_expiry_ms", options.idle_expiry_ms > 0),
        ("max_deliveries", options.max_deliveries > 0),
        ("backoff_ms", !options.backoff_ms.is_empty()),
        ("lost_reader", options.lost_reader.is_some()),
    ];
    none_of(of_durables, "only a durable subscription has it: say \"durable\" too")
}

/// What a mirror has not.
fn check_mirror(options: &SubscribeOptions) -> Checked {
    if options.mode != Mode::Mirror {
        return Ok(());
    }
    let unsaid = SubscribeOptions::to(options.filters.clone());
    let of_leases = [
        ("max_in_flight", options.max_in_flight != unsaid.max_in_flight),
        ("ack_wait_ms", options.ack_wait_ms != unsaid.ack_wait_ms),
        ("backoff_ms", !options.backoff_ms.is_empty()),
        ("max_deliveries", options.max_deliveries > 0),
    ];
    none_of(of_leases, "a mirror delivers to whoever looks and leases nothing: leave it out")
}

/// Where it begins is said once.
fn check_beginning(options: &SubscribeOptions) -> Checked {
    if options.after.is_some() && options.since.is_some() {
        return invalid("since", "give after or since, not both");
    }
    if options.log.as_deref().is_some_and(|log| !LogId::is_name(log)) {
        return invalid("log", "it must be the id of a log, or its first eight hex digits");
    }
    let has_place = options.after.is_some() || matches!(options.start, Start::After(_));
    if options.log.is_some() && !has_place {
        let problem =
            "it says which log the offset in after or start belongs to: leave it out without one";
        return invalid("log", problem);
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
    if options.order == Order::Priority {
        none_of(contradicting, "it needs the order of the log, and \"order\" is \"priority\"")?;
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
    if options.ack_wait_ms > WAIT_MS_MAX {
        return invalid("ack_wait_ms", "it is 24 hours at most (86400000)");
    }
    if options.backoff_ms.iter().any(|ms| *ms > WAIT_MS_MAX) {
        return invalid("backoff_ms", "each is 24 hours at most (86400000)");
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
    for (field, patterns, separator, example) in [
        ("types", &options.types, '.', "task.*"),
        ("content_types", &options.content_types, '/', "text/*"),
    ] {
        if patterns.len() > PATTERNS_MAX {
            return invalid(field, "at most 64 of them");
        }
        if patterns.iter().any(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
            return invalid(field, "each has 1024 bytes at most");
        }
        if let Some(pattern) = patterns.iter().find(|pattern| !is_pattern(pattern, separator)) {
            let problem = format!(
                "{pattern:?} matches nothing: give a whole one, or its beginning as in \"{example}\""
            );
            return invalid(field, &problem);
        }
    }
    if let Some(pattern) = options.content_types.iter().find(|pattern| has_parameters(pattern)) {
        let problem = format!(
            "{pattern:?} has parameters, which are not looked at: give the media type alone, as in \"text/plain\""
        );
        return invalid("content_types", &problem);
    }
    if let Some(pattern) = options.content_types.iter().find(|pattern| !is_media_type(pattern)) {
        let problem = format!(
            "{pattern:?} is no media type: give its type and subtype, as in \"application/json\" or \"text/*\""
        );
        return invalid("content_types", &problem);
    }
    if options.headers.len() > HEADERS_MAX {
        return invalid("headers", "at most 16 headers");
    }
    if options.headers.keys().any(String::is_empty) {
        return invalid("headers", "a header has a name");
    }
    if options.headers.iter().any(|(name, value)| name.len() + value.len() > PATTERN_BYTES_MAX) {
        return invalid("headers", "a name and its value have 1024 bytes at most");
    }
    check_texts(options)
}

/// How many bytes the filters, types, content types and headers have, by field.
fn texts(options: &SubscribeOptions) -> [(&'static str, usize); 4] {
    let sum = |texts: &[String]| texts.iter().map(String::len).sum();
    let headers = options.headers.iter().map(|(name, value)| name.len() + value.len());
    [
        ("filters", options.filters.iter().map(|filter| filter.as_str().len()).sum()),
        ("types", sum(&options.types)),
        ("content_types", sum(&options.content_types)),
        ("headers", headers.sum()),
    ]
}

/// About how many bytes the options have as JSON.
pub(super) fn json_bytes(options: &SubscribeOptions) -> usize {
    const OF_NUMBERS: usize = 256;
    let texts: usize = texts(options).iter().map(|(_, bytes)| bytes).sum();
    OF_NUMBERS + texts + 9 * options.backoff_ms.len()
}

/// About how many bytes of memory a subscription with these options keeps, where it shares no token of its filters with
/// another one.
pub fn kept_bytes(options: &SubscribeOptions) -> usize {
    /// A node of the trie with its one branch, as measured.
    const OF_TOKEN: usize = 320;
    const OF_ITSELF: usize = 512;
    let texts: usize = texts(options).iter().map(|(_, bytes)| bytes).sum();
    let tokens = options.filters.iter().map(|filter| filter.as_str().split('.').count());
    OF_ITSELF + texts + OF_TOKEN * tokens.sum::<usize>()
}

/// Blames the field with the most.
fn check_texts(options: &SubscribeOptions) -> Checked {
    let texts = texts(options);
    let bytes: usize = texts.iter().map(|(_, bytes)| bytes).sum();
    let largest = texts.into_iter().max_by_key(|(_, bytes)| *bytes);
    match largest.filter(|_| bytes > TEXTS_BYTES_MAX) {
        None => Ok(()),
        Some((field, _)) => {
            let problem = format!(
                "filters, types, content_types and headers have {TEXTS_BYTES_MAX} bytes together at most, and these have {bytes}"
            );
            invalid(field, &problem)
        }
    }
}

/// Who has dead letters.
fn check_dead(options: &SubscribeOptions) -> Checked {
    if options.max_deliveries == 0 {
        return Ok(());
    }
    if options.filters.iter().any(|filter| filter.as_str().split('.').next() == Some(DEAD_ROOT)) {
        return invalid("max_deliveries", "a reader of dead letters has none of its own");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidings_proto::{
        Cursor, Filters, Position,
        subscribe::{After, PartitionBy},
    };

    use super::*;

    /// The field that is to be blamed, and what makes it wrong.
    type Case = (&'static str, fn(&mut SubscribeOptions));

    fn ephemeral() -> SubscribeOptions {
        SubscribeOptions::to(Filters::one(Filter::parse("a").unwrap()))
    }

    fn durable() -> SubscribeOptions {
        SubscribeOptions { durable: Some("d".to_owned()), ..ephemeral() }
    }

    /// The field that is blamed.
    fn blamed(options: &SubscribeOptions) -> Option<&'static str> {
        match check(options) {
            Ok(()) => None,
            Err(SubscribeError::Invalid { field, .. }) => Some(field),
            Err(other) => panic!("{other}"),
        }
    }

    fn after() -> Option<After> {
        Some(After(Position { cursor: Cursor::new(1), log: None }))
    }

    #[test]
    fn what_only_durables_have_is_refused_of_others_by_its_name() {
        let cases: [Case; 9] = [
            ("start", |it| it.start = Start::First),
            ("max_in_flight", |it| it.max_in_flight = 1),
            ("ack_wait_ms", |it| it.ack_wait_ms = 1),
            ("mode", |it| it.mode = Mode::Shared),
            ("partition_by", |it| it.partition_by = Some(PartitionBy::Key)),
            ("order", |it| it.order = Order::Priority),
            ("idle_expiry_ms", |it| it.idle_expiry_ms = 1000),
            ("max_deliveries", |it| it.max_deliveries = 1),
            ("backoff_ms", |it| it.backoff_ms = vec![1]),
        ];
        assert_eq!(blamed(&ephemeral()), None);
        for (field, change) in cases {
            let mut options = ephemeral();
            change(&mut options);
            assert_eq!(blamed(&options), Some(field));
        }
    }

    #[test]
    fn what_leases_is_refused_of_a_mirror_by_its_name() {
        let cases: [Case; 4] = [
            ("max_in_flight", |it| it.max_in_flight = 1),
            ("ack_wait_ms", |it| it.ack_wait_ms = 0),
            ("backoff_ms", |it| it.backoff_ms = vec![1]),
            ("max_deliveries", |it| it.max_deliveries = 1),
        ];
        let mirror = SubscribeOptions { mode: Mode::Mirror, ..durable() };
        assert_eq!(blamed(&mirror), None);
        for (field, change) in cases {
            let mut options = mirror.clone();
            change(&mut options);
            assert_eq!(blamed(&options), Some(field));
        }
    }

    #[test]
    fn all_texts_of_a_subscription_are_bounded_together() {
        // Each within the bound of its own.
        let many = |text: &str| (10..=73).map(|n| format!("{text}{n}")).collect::<Vec<_>>();
        let filter =
            |text: &String| Filter::parse(&format!("a.{text}.{}", "x".repeat(126))).unwrap();
        let filters = many("").iter().map(filter).collect::<Vec<_>>();
        let header = |n: usize| (format!("{n:02}"), "x".repeat(600));
        let cases: [(&str, SubscribeOptions); 4] = [
            ("filters", SubscribeOptions::to(Filters::new(filters).unwrap())),
            ("types", SubscribeOptions { types: many(&"x".repeat(127)), ..ephemeral() }),
            (
                "content_types",
                SubscribeOptions {
                    content_types: many(&format!("a/{}", "x".repeat(125))),
                    ..ephemeral()
                },
            ),
            ("headers", SubscribeOptions { headers: (0..16).map(header).collect(), ..ephemeral() }),
        ];
        for (field, options) in cases {
            assert_eq!(blamed(&options), Some(field));
        }
        // All of it: one filter of a byte, types of 8191.
        let mut types = many(&"x".repeat(126));
        types.last_mut().unwrap().pop();
        assert_eq!(blamed(&SubscribeOptions { types: types.clone(), ..ephemeral() }), None);
        let headers = [("y".to_owned(), String::new())].into();
        assert_eq!(blamed(&SubscribeOptions { types, headers, ..ephemeral() }), Some("types"));
    }

    #[test]
    fn what_is_out_of_range_or_contradicts_is_refused_by_its_name() {
        let header = |name: &str| [(name.to_owned(), "x".to_owned())].into();
        assert_eq!(blamed(&SubscribeOptions { headers: header("a b"), ..durable() }), None);
        let in_log =
            |start| SubscribeOptions { log: Some("9f3c21d0".to_owned()), start, ..durable() };
        let start = Start::After(Position { cursor: Cursor::new(1), log: None });
        assert_eq!(blamed(&in_log(start)), None);
        assert_eq!(blamed(&in_log(Start::First)), Some("log"));
        let cases: [Case; 37] = [
            ("durable", |it| it.durable = Some("a.b".to_owned())),
            ("filters", |it| it.filters = Filters::one(Filter::parse("$acks").unwrap())),
            ("after", |it| it.after = after()),
            ("since", |it| it.since = Some(tidings_proto::Timestamp::from_millis(1))),
            ("log", |it| it.log = Some("x".to_owned())),
            ("max_in_flight", |it| it.max_in_flight = 0),
            ("max_in_flight", |it| it.max_in_flight = MAX_IN_FLIGHT_MAX + 1),
            ("batch_max", |it| it.batch_max = 0),
            ("batch_max", |it| it.batch_max = BATCH_EVENTS_MAX + 1),
            ("ack_wait_ms", |it| it.ack_wait_ms = WAIT_MS_MAX + 1),
            ("backoff_ms", |it| it.backoff_ms = vec![1, WAIT_MS_MAX + 1]),
            ("backoff_ms", |it| it.backoff_ms = vec![1; PATTERNS_MAX + 1]),
            ("linger_ms", |it| it.linger_ms = LINGER_MS_MAX + 1),
            ("conflate_ms", |it| it.conflate_ms = CONFLATE_MS_MAX + 1),
            ("max_bytes_per_second", |it| it.max_bytes_per_second = RATE_MIN - 1),
            ("idle_expiry_ms", |it| it.idle_expiry_ms = IDLE_EXPIRY_MS_MAX + 1),
            ("types", |it| it.types = vec!["a".to_owned(); PATTERNS_MAX + 1]),
            ("types", |it| it.types = vec!["a".repeat(PATTERN_BYTES_MAX + 1)]),
            ("content_types", |it| it.content_types = vec!["a".to_owned(); PATTERNS_MAX + 1]),
            ("content_types", |it| it.content_types = vec!["a".repeat(PATTERN_BYTES_MAX + 1)]),
            ("types", |it| it.types = vec!["a".to_owned(), String::new()]),
            ("types", |it| it.types = vec!["a*".to_owned()]),
            ("types", |it| it.types = vec!["*.x".to_owned()]),
            ("content_types", |it| it.content_types = vec![String::new()]),
            ("content_types", |it| it.content_types = vec!["*/json".to_owned()]),
            ("content_types", |it| it.content_types = vec!["a/b;c=d".to_owned()]),
            ("content_types", |it| it.content_types = vec!["a/b ".to_owned()]),
            ("content_types", |it| it.content_types = vec!["a/b".to_owned(), "json".to_owned()]),
            ("headers", |it| it.headers = [(String::new(), "x".to_owned())].into()),
            ("log", |it| it.log = Some("9f3c21d0".to_owned())),
            ("log", |it| {
                (it.durable, it.log, it.last_per_key) = (None, Some("9f3c21d0".to_owned()), true);
            }),
            ("log", |it| {
                (it.durable, it.log) = (None, Some("9f3c21d0".to_owned()));
                it.since = Some(tidings_proto::Timestamp::from_millis(1));
            }),
            ("partition_by", |it| it.partition_by = Some(PartitionBy::Key)),
            ("linger_ms", |it| (it.order, it.linger_ms) = (Order::Priority, 1)),
            ("conflate_ms", |it| (it.order, it.conflate_ms) = (Order::Priority, 1)),
            ("last_per_key", |it| (it.mode, it.last_per_key) = (Mode::Mirror, true)),
            ("max_deliveries", |it| (it.mode, it.max_deliveries) = (Mode::Mirror, 1)),
        ];
        assert_eq!(blamed(&durable()), None);
        for (field, change) in cases {
            let mut options = durable();
            change(&mut options);
            assert_eq!(blamed(&options), Some(field), "{options:?}");
        }
    }
}
