//! Arbitrary events and messages for the tests of the encodings.

use bytes::Bytes;
use proptest::{collection, option, prelude::*};
use uuid::Uuid;

use crate::{
    Code, Cursor, EventId, Filter, Filters, LogId, Mode, NewEvent, Offset, Position, Priority,
    Start, SubscribeOptions, Timestamp, Topic, WireError,
    event::{Expiry, JSON, TTL_MS_MAX},
    message::{
        self, Ack, Acked, Connect, Connected, Gap, GapReason, Member, Nack, Publish, Published,
        Push, Receipt, ReceiptState, Receipts, Reply, Request, Subscribed,
    },
    subscribe::{After, OnGap, Order, PartitionBy, Presence},
};

/// An event as it comes out of a decoder: valid, with a content type if it has data.
pub(super) fn new_event() -> impl Strategy<Value = NewEvent> {
    let names = (topic(), option::of(text()), prop_oneof![Just("message".to_owned()), text()]);
    let more = (option::of(source()), option::of(text()), option::of(text()));
    let rest = (priority(), option::of(expiry()), collection::btree_map(text(), "\\PC{0,9}", 0..4));
    (names, payload(), more, rest).prop_map(
        |((topic, id, kind), (datacontenttype, data), (source, key, correlation), rest)| {
            let (priority, expires, headers) = rest;
            let id = id.map(|id| EventId::parse(&id).unwrap());
            let event = NewEvent {
                topic,
                id,
                kind,
                source,
                datacontenttype,
                data,
                key,
                priority,
                expires,
                correlation,
                headers,
            };
            assert_eq!(event.check(), Ok(()));
            event
        },
    )
}

pub(super) fn publish() -> impl Strategy<Value = Publish> {
    (new_event(), option::of(0..=Offset::MAX), option::of(time()), any::<bool>()).prop_map(
        |(event, expect_last, deliver_at, receipts)| Publish {
            event,
            expect_last,
            deliver_at,
            receipts,
        },
    )
}

pub(super) fn request() -> impl Strategy<Value = Request> {
    let connect = (option::of(text()), option::of(text()), collection::vec(text(), 0..3));
    let ack = (any::<u32>(), offset(), collection::vec(offset(), 0..4), any::<bool>());
    let nack = (
        (any::<u32>(), collection::vec(offset(), 0..4)),
        (option::of(any::<u64>()), option::of(text()), option::of(text())),
    );
    prop_oneof![
        connect.prop_map(|(token, client, compress)| {
            Request::Connect(Connect { token, client, compress })
        }),
        publish().prop_map(|publish| Request::Publish(Box::new(publish))),
        collection::vec(publish(), 0..4).prop_map(Request::PublishBatch),
        options().prop_map(|options| Request::Subscribe(Box::new(options))),
        ack.prop_map(|(subscription, offset, offsets, is_one)| {
            Request::Ack(Ack {
                subscription: Some(subscription),
                offset: is_one.then_some(offset),
                offsets: (!is_one).then_some(offsets),
                log: None,
            })
        }),
        nack.prop_map(|((subscription, offsets), (delay_ms, reason, log))| {
            let subscription = Some(subscription);
            Request::Nack(Nack { subscription, offsets, delay_ms, reason, log })
        }),
        any::<u32>().prop_map(|subscription| Request::Unsubscribe { subscription }),
        text().prop_map(|token| Request::Refresh { token }),
        topic().prop_map(|topic| Request::Presence { topic }),
        offset().prop_map(|offset| Request::Receipts { offset: offset.into() }),
        offset().prop_map(|offset| Request::Cancel { offset: offset.into() }),
        Just(Request::Ping),
    ]
}

pub(super) fn reply() -> impl Strategy<Value = Reply> {
    let connected = (log(), any::<[u64; 4]>(), option::of(time()), [text(), text(), text()]);
    let subscribed = (any::<u32>(), option::of(text()), cursor(), option::of(cursor()));
    let states = proptest::sample::select(
        &[
            ReceiptState::Pending,
            ReceiptState::InFlight,
            ReceiptState::Acked,
            ReceiptState::Skipped,
            ReceiptState::Dead,
        ][..],
    );
    let receipt =
        (text(), states).prop_map(|(subscription, state)| Receipt { subscription, state });
    prop_oneof![
        connected.prop_map(|(log, numbers, token_expires, [session, subject, server])| {
            let [first, last, ping_interval_ms, max_message_bytes] = numbers;
            let compress = token_expires.map(|_| subject.clone());
            Reply::Connected(Connected {
                session,
                subject,
                log,
                first,
                last,
                ping_interval_ms,
                max_message_bytes,
                token_expires,
                compress,
                server,
            })
        }),
        published().prop_map(Reply::Published),
        collection::vec(published(), 0..4).prop_map(|results| Reply::PublishedBatch { results }),
        subscribed.prop_map(|(subscription, durable, cursor, last_acked)| {
            Reply::Subscribed(Subscribed { subscription, durable, cursor, last_acked })
        }),
        acked().prop_map(Reply::Acked),
        option::of(any::<u32>()).prop_map(|subscription| Reply::Nacked { subscription }),
        any::<u32>().prop_map(|subscription| Reply::Unsubscribed { subscription }),
        option::of(time()).prop_map(|token_expires| Reply::Refreshed { token_expires }),
        (topic(), collection::vec(member(), 0..4))
            .prop_map(|(topic, members)| Reply::Presence(message::Presence { topic, members })),
        (offset(), collection::vec(receipt, 0..4))
            .prop_map(|(offset, receipts)| Reply::Receipts(Receipts { offset, receipts })),
        published().prop_map(Reply::Scheduled),
        offset().prop_map(|offset| Reply::Cancelled { offset }),
        Just(Reply::Pong {}),
        error().prop_map(Reply::Error),
    ]
}

pub(super) fn push() -> impl Strategy<Value = Push> {
    let reasons = proptest::sample::select(
        &[GapReason::Retention, GapReason::Erased, GapReason::LogChanged, GapReason::Corrupt][..],
    );
    let gap = (option::of(any::<u32>()), cursor(), any::<[u64; 2]>(), log(), reasons);
    prop_oneof![
        (any::<u32>(), cursor())
            .prop_map(|(subscription, cursor)| Push::CaughtUp { subscription, cursor }),
        gap.prop_map(|(subscription, requested, [first, last], log, reason)| {
            Push::Gap(Gap { subscription, requested, first, last, log, reason })
        }),
        any::<u32>().prop_map(|subscription| Push::Superseded { subscription }),
        acked().prop_map(Push::Acked),
        any::<u64>().prop_map(|in_ms| Push::TokenExpiring { in_ms }),
        (text(), any::<u64>())
            .prop_map(|(code, reconnect_after_ms)| Push::Goodbye { code, reconnect_after_ms }),
        error().prop_map(Push::Error),
        Just(Push::Pong {}),
    ]
}

fn member() -> impl Strategy<Value = Member> {
    ([text(), text()], time(), option::of(json())).prop_map(|([subject, session], since, data)| {
        let data = data.map(|text| serde_json::from_str(&text).unwrap()).unwrap_or_default();
        Member { subject, session, since, data }
    })
}

fn published() -> impl Strategy<Value = Published> {
    (offset(), text(), any::<bool>()).prop_map(|(offset, id, duplicate)| Published {
        offset,
        id,
        duplicate,
    })
}

fn acked() -> impl Strategy<Value = Acked> {
    (option::of(any::<u32>()), cursor())
        .prop_map(|(subscription, cursor)| Acked { subscription, cursor })
}

fn error() -> impl Strategy<Value = WireError> {
    let numbers = [option::of(any::<u64>()), option::of(any::<u64>()), option::of(any::<u64>())];
    let code = proptest::sample::select(&Code::ALL[..]);
    (code, "\\PC{0,20}", any::<bool>(), numbers, option::of(log())).prop_map(
        |(code, message, retryable, [retry_after_ms, first, last], log)| WireError {
            code,
            message,
            retryable,
            retry_after_ms,
            first,
            last,
            log,
        },
    )
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (0..=Offset::MAX).prop_map(Cursor::new)
}

fn log() -> impl Strategy<Value = LogId> {
    any::<[u8; 16]>().prop_map(LogId::from_bytes)
}

fn options() -> impl Strategy<Value = SubscribeOptions> {
    let filter = prop_oneof!["[a-z]{1,3}(\\.[a-z*]){0,2}", Just("a.>".to_owned())];
    let filters = collection::vec(filter.prop_map(|text| Filter::parse(&text).unwrap()), 1..4);
    let places = (option::of(position()), option::of(time()), option::of(text()), start());
    let picks = (collection::vec(text(), 0..3), option::of(priority()), any::<[bool; 4]>());
    let numbers = (any::<[u32; 3]>(), any::<[u64; 3]>(), collection::vec(any::<u64>(), 0..3));
    (filters, places, picks, numbers, option::of(json())).prop_map(
        |(filters, (after, since, log, start), (types, min_priority, flags), numbers, presence)| {
            let ([max_in_flight, max_deliveries, batch_max], ms, backoff_ms) = numbers;
            SubscribeOptions {
                after: after.map(After),
                since,
                lost_reader: log.clone(),
                log,
                durable: flags[0].then(|| "alice-inbox".to_owned()),
                start,
                last_per_key: flags[1],
                content_types: types.clone(),
                types,
                min_priority,
                mode: if flags[2] { Mode::Mirror } else { Mode::Shared },
                order: if flags[3] { Order::Priority } else { Order::Log },
                max_in_flight,
                ack_wait_ms: ms[0],
                max_deliveries,
                backoff_ms,
                conflate_ms: ms[1],
                linger_ms: ms[2],
                batch_max,
                on_gap: if flags[1] { OnGap::Error } else { OnGap::Continue },
                headers: if flags[3] {
                    [("a".to_owned(), "b".to_owned())].into()
                } else {
                    [].into()
                },
                partition_by: flags[2].then_some(PartitionBy::Key),
                idle_expiry_ms: ms[0],
                max_bytes_per_second: ms[1],
                max_data_bytes: flags[0].then_some(ms[2]),
                presence: presence
                    .map(|text| Presence { data: serde_json::from_str(&text).unwrap() }),
                ..SubscribeOptions::to(Filters::new(filters).unwrap())
            }
        },
    )
}

fn position() -> impl Strategy<Value = Position> {
    (0..=Offset::MAX, option::of("[0-9a-f]{8}"))
        .prop_map(|(cursor, log)| Position { cursor: Cursor::new(cursor), log })
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        Just(Start::First),
        Just(Start::Now),
        position().prop_map(Start::After),
        time().prop_map(Start::Since),
    ]
}

/// Content type and data that go together.
fn payload() -> impl Strategy<Value = (Option<String>, Option<Bytes>)> {
    let types = |types: &'static [&'static str]| proptest::sample::select(types);
    let json_types = types(&[JSON, "application/vnd.x+json", "text/json; charset=utf-8"]);
    let text_types = types(&["text/plain", "Text/Markdown; charset=utf-8"]);
    let byte_types = types(&["application/octet-stream", "image/png", "application/xml"]);
    prop_oneof![
        Just((None, None)),
        types(&[JSON, "text/plain"]).prop_map(|kind| (Some(kind.to_owned()), None)),
        (json_types, json()).prop_map(|(kind, text)| (Some(kind.to_owned()), Some(text.into()))),
        (text_types, any::<String>())
            .prop_map(|(kind, text)| (Some(kind.to_owned()), Some(text.into()))),
        (byte_types, any::<Vec<u8>>())
            .prop_map(|(kind, bytes)| (Some(kind.to_owned()), Some(bytes.into()))),
    ]
}

/// JSON values written in ways that a parser would not write them again.
pub(super) fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        proptest::sample::select(
            &[
                "null",
                "true",
                "0",
                "-0.0",
                "1.0e5",
                "1E+2",
                "12345678901234567890123",
                "\"\\u0041\\/\"",
            ][..]
        )
        .prop_map(str::to_owned),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(" ,\n"))),
            // Names fall rather than rise, and may come twice.
            collection::vec(inner, 0..4).prop_map(|items| {
                let name = |(n, item): (usize, String)| format!("\"{}\" : {item}", 9 - n / 2);
                format!(
                    "{{{}}}",
                    items.into_iter().enumerate().map(name).collect::<Vec<_>>().join(",")
                )
            }),
        ]
    })
}

fn topic() -> impl Strategy<Value = Topic> {
    "[a-z]{1,5}(\\.[A-Za-z0-9_:@=-]{1,5}){0,3}".prop_map(|text| Topic::parse(&text).unwrap())
}

fn source() -> impl Strategy<Value = String> {
    prop_oneof![text(), subject().prop_map(|subject| format!("urn:tidings:subject:{subject}"))]
}

pub(super) fn subject() -> impl Strategy<Value = String> {
    prop_oneof![Just("alice".to_owned()), Just(String::new()), "\\PC{1,9}"]
}

/// One to twelve characters, none of them a control character, many that JSON has to escape.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z\"\\\\/ .:]{1,12}", "\\PC{1,12}"]
}

pub(super) fn priority() -> impl Strategy<Value = Priority> {
    (0..4_u8).prop_map(Priority::from_bits)
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![time().prop_map(Expiry::At), (0..=TTL_MS_MAX).prop_map(Expiry::TtlMs)]
}

pub(super) fn time() -> impl Strategy<Value = Timestamp> {
    (0..=Timestamp::MAX.as_millis()).prop_map(Timestamp::from_millis)
}

pub(super) fn offset() -> impl Strategy<Value = Offset> {
    (1..=Offset::MAX).prop_map(|n| Offset::new(n).unwrap())
}

pub(super) fn uuid() -> impl Strategy<Value = Uuid> {
    any::<[u8; 16]>().prop_map(Uuid::from_bytes)
}

/// `valid` with a few bytes changed, left out or put in.
pub(super) fn damage(valid: &[u8], changes: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for (place, how, byte) in changes {
        let at = place.index(bytes.len() + 1);
        match (how % 3, bytes.get_mut(at)) {
            (0, Some(slot)) => *slot = *byte,
            (1, Some(_)) => drop(bytes.remove(at)),
            _ => bytes.insert(at, *byte),
        }
    }
    bytes
}

/// The changes that [`damage`] makes.
pub(super) fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    let byte =
        prop_oneof![any::<u8>(), proptest::sample::select(&b"{}[]\":,\\0-e.n \x0a\x12\xff"[..]),];
    collection::vec((any::<prop::sample::Index>(), any::<u8>(), byte), 1..5)
}
