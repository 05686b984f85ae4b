//! Publishing over every door: offsets, ids, expectations, batches, and the bytes that come out.

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::util::{
    Broker, eventually,
    http::{self, Answer},
    sse::Sse,
    ws::{Socket, offsets},
};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn post(broker: &Broker, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    http::request(&broker.public, Method::POST, path, headers, body).await
}

/// All events of a filter, over HTTP.
async fn read(broker: &Broker, filter: &str) -> Vec<Value> {
    let answer = http::get(&broker.public, &format!("/v1/topics/{filter}/events?limit=1000")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["events"].as_array().unwrap().clone()
}

#[tokio::test]
async fn g2_the_first_offset_is_1_and_publishes_leave_no_holes() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let mut given = Vec::new();
    for n in 0..20 {
        given.push(socket.publish(json!({"topic": "a", "data": n})).await);
        let answer = post(&broker, "/v1/topics/a.b/events", &[JSON], b"{}").await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        given.push(answer.json()["offset"].as_u64().unwrap());
        let batch = json!({"events": [{"topic": "a"}, {"topic": "b"}]});
        let answer = socket.call("publish_batch", batch).await;
        given.extend(offsets(answer["published_batch"]["results"].as_array().unwrap()));
    }
    assert_eq!(given, (1..=80).collect::<Vec<u64>>());
    assert_eq!(offsets(&read(&broker, "%3E").await), given);
}

#[tokio::test]
async fn what_comes_together_is_answered_each_for_itself_and_in_order() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let mut requests = vec![
        json!({"publish": {"topic": "a", "data": 0}}),
        json!({"publish": {"topic": "a", "id": "x", "data": 1}}),
        json!({"publish": {"topic": "a", "id": "x", "data": 1}}),
        json!({"publish": {"topic": "a", "id": "x", "data": 2}}),
        json!({"publish": {"topic": "$acks", "data": 0}}),
        json!({"publish": {"topic": "a", "expect_last": 9, "data": 0}}),
        json!({"publish": {"topic": "a", "expect_last": 2, "data": 3}}),
        json!({"publish_batch": {"events": [{"topic": "a"}, {"topic": "b"}]}}),
        json!({"ping": {}}),
        json!({"publish": {"topic": "b", "data": null}}),
    ];
    // More than are queued in one piece.
    requests.extend((0..300).map(|n| json!({"publish": {"topic": "c", "data": n}})));
    for (id, request) in requests.iter_mut().enumerate() {
        request["id"] = json!(id);
    }
    socket.send_together(&requests).await;
    let mut answers = Vec::new();
    for id in 0..requests.len() {
        let answer = socket.next().await.unwrap();
        assert_eq!(answer["reply"], id, "{answer}");
        answers.push(answer);
    }
    let published = |at: usize| &answers[at]["published"]["offset"];
    assert_eq!([published(0), published(1), published(2), published(6)], [1, 2, 2, 3]);
    assert_eq!(answers[2]["published"]["duplicate"], true);
    for (at, code) in
        [(3, "conflict"), (4, "permission_denied"), (5, "conflict"), (9, "invalid_argument")]
    {
        assert_eq!(answers[at]["error"]["code"], code, "{}", answers[at]);
    }
    assert_eq!(offsets(answers[7]["published_batch"]["results"].as_array().unwrap()), [4, 5]);
    assert!(answers[8]["pong"].is_object(), "{}", answers[8]);
    let rest: Vec<u64> = (10..310).map(|at| published(at).as_u64().unwrap()).collect();
    assert_eq!(rest, (6..306).collect::<Vec<u64>>());
    let stored: Vec<Value> =
        read(&broker, "c").await.iter().map(|event| event["data"].clone()).collect();
    assert_eq!(stored, (0..300).map(Value::from).collect::<Vec<Value>>());
}

#[tokio::test]
async fn an_id_is_the_publishers_or_a_uuid_of_version_7() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let answer = socket.call("publish", json!({"topic": "a", "id": "mine"})).await;
    assert_eq!(answer["published"], json!({"offset": 1, "id": "mine"}));
    let over_socket = socket.call("publish", json!({"topic": "a"})).await;
    let over_http = post(&broker, "/v1/topics/a/events", &[], b"x").await.json();
    let events = read(&broker, "a").await;
    assert_eq!(events[0]["id"], "mine");
    for (event, id) in events[1..].iter().zip([&over_socket["published"]["id"], &over_http["id"]]) {
        assert_eq!(&event["id"], id);
        let id: uuid::Uuid = id.as_str().unwrap().parse().unwrap();
        assert_eq!(id.get_version_num(), 7, "{id}");
    }
    assert_ne!(events[1]["id"], events[2]["id"]);
}

#[tokio::test]
async fn g11_the_same_id_and_content_is_answered_with_the_first_offset() {
    let mut broker = Broker::start();
    let event = json!({"topic": "a", "id": "one", "key": "k", "data": {"a": 1.50}});
    let mut socket = Socket::open(&broker.public).await;
    let first = socket.call("publish", event.clone()).await;
    assert_eq!(first["published"], json!({"offset": 1, "id": "one"}), "no \"duplicate\" at first");
    let duplicate = json!({"offset": 1, "id": "one", "duplicate": true});
    for life in 0..2 {
        let mut socket = Socket::open(&broker.public).await;
        assert_eq!(socket.call("publish", event.clone()).await["published"], duplicate, "{life}");
        let headers = [JSON, ("idempotency-key", "one"), ("tidings-key", "k")];
        let answer = post(&broker, "/v1/topics/a/events", &headers, br#"{"a":1.5}"#).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, duplicate.clone()), "{life}");
        let headers = [JSON, ("ce-id", "one"), ("ce-partitionkey", "k")];
        let answer = post(&broker, "/v1/topics/a/events", &headers, br#"{"a":1.5}"#).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, duplicate.clone()), "{life}");
        let answer = http::post_json(&broker.public, "/v1/events", &event).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, duplicate.clone()), "{life}");
        broker.kill();
        broker.restart();
    }
    let mut socket = Socket::open(&broker.public).await;
    assert_eq!(socket.publish(json!({"topic": "a"})).await, 2, "the duplicates took no offset");
    assert_eq!(offsets(&read(&broker, "a").await), [1, 2]);
}

#[tokio::test]
async fn g11_an_id_first_used_over_http_is_known_over_the_socket_after_a_kill() {
    let mut broker = Broker::start();
    let headers = [("content-type", "text/plain"), ("idempotency-key", "x%41")];
    let answer = post(&broker, "/v1/topics/a/events", &headers, b"hi").await;
    assert_eq!(answer.json(), json!({"offset": 1, "id": "x%41"}), "not percent-decoded");
    broker.kill();
    broker.restart();
    let mut socket = Socket::open(&broker.public).await;
    let event = json!({"topic": "a", "id": "x%41", "datacontenttype": "text/plain", "data": "hi"});
    let answer = socket.call("publish", event).await;
    assert_eq!(answer["published"], json!({"offset": 1, "id": "x%41", "duplicate": true}));
}

#[tokio::test]
async fn g11_the_same_id_with_other_content_is_a_conflict() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let event = json!({"topic": "a", "id": "one", "type": "t", "key": "k", "data": {"a": 1}});
    assert_eq!(socket.publish(event.clone()).await, 1);
    for (field, value) in [
        ("topic", json!("b")),
        ("type", json!("u")),
        ("key", json!("l")),
        ("datacontenttype", json!("application/vnd.x+json")),
        ("data", json!({"a": 2})),
    ] {
        let mut other = event.clone();
        other[field] = value;
        let error = socket.refused("publish", other.clone()).await;
        assert_eq!(error["code"], "conflict", "{field}: {error}");
        assert_eq!(error["retryable"], false, "{field}");
        let answer = http::post_json(&broker.public, "/v1/events", &other).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{field}: {}", answer.text());
        assert_eq!(answer.json()["code"], "conflict", "{field}");
    }
    for (field, value) in [
        ("priority", json!("high")),
        ("correlation", json!("c")),
        ("headers", json!({"h": "1"})),
        ("source", json!("urn:x")),
        ("ttl_ms", json!(100_000)),
    ] {
        let mut same = event.clone();
        same[field] = value;
        let answer = socket.call("publish", same).await;
        assert_eq!(answer["published"]["duplicate"], true, "{field} is no content: {answer}");
    }
    assert_eq!(read(&broker, "%3E").await.len(), 1);
}

#[tokio::test]
async fn an_expectation_of_the_topics_last_offset_holds_or_is_a_conflict() {
    let mut broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let a = |expect: u64| json!({"topic": "a", "expect_last": expect});
    assert_eq!(socket.publish(a(0)).await, 1);
    assert_eq!(socket.refused("publish", a(0)).await["code"], "conflict");
    assert_eq!(socket.publish(json!({"topic": "b", "expect_last": 0})).await, 2);
    assert_eq!(socket.publish(a(1)).await, 3);
    for wrong in [0, 1, 2, 4, 1 << 40] {
        assert_eq!(socket.refused("publish", a(wrong)).await["code"], "conflict", "{wrong}");
    }
    broker.kill();
    broker.restart();
    for (expect, status) in [("2", 409), ("3", 201), ("3", 409), ("4", 201)] {
        let headers = [("tidings-expect-last", expect)];
        let answer = post(&broker, "/v1/topics/a/events", &headers, b"x").await;
        assert_eq!(answer.status.as_u16(), status, "{expect}: {}", answer.text());
    }
    assert_eq!(offsets(&read(&broker, "a").await), [1, 3, 4, 5]);
}

#[tokio::test]
async fn g11_a_repeated_publish_is_a_duplicate_although_its_expectation_is_over() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let event = json!({"topic": "a", "id": "one", "expect_last": 0});
    assert_eq!(socket.publish(event.clone()).await, 1);
    assert_eq!(socket.publish(json!({"topic": "a"})).await, 2);
    assert_eq!(socket.call("publish", event).await["published"]["duplicate"], true);
}

#[tokio::test]
async fn g12_of_many_with_the_same_expectation_one_wins() {
    let broker = Broker::start();
    for round in 0..10_u64 {
        let mut publishers = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let address = broker.public.clone();
            publishers.spawn(async move {
                let mut socket = Socket::open(&address).await;
                let event = json!({"topic": "a", "expect_last": round});
                let answer = socket.call("publish", event).await;
                match answer["error"]["code"].as_str() {
                    None => true,
                    Some(code) => {
                        assert_eq!(code, "conflict");
                        false
                    }
                }
            });
        }
        let won = publishers.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1, "round {round}");
    }
    assert_eq!(offsets(&read(&broker, "a").await), (1..=10).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_batch_is_appended_whole_or_not_at_all() {
    let mut broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let batch = |events: Value| json!({ "events": events });
    let two = batch(json!([{"topic": "a", "id": "1"}, {"topic": "b", "id": "2"}]));
    let answer = socket.call("publish_batch", two.clone()).await;
    let results = json!([{"offset": 1, "id": "1"}, {"offset": 2, "id": "2"}]);
    assert_eq!(answer["published_batch"]["results"], results);
    for (events, code) in [
        (json!([{"topic": "a"}, {"topic": "a b"}]), "invalid_argument"),
        (json!([{"topic": "a"}, {"topic": "$a"}]), "permission_denied"),
        (json!([{"topic": "c"}, {"topic": "b", "expect_last": 7}]), "conflict"),
        (json!([{"topic": "c"}, {"topic": "a", "id": "1"}]), "conflict"),
        (json!([{"topic": "a", "id": "1"}, {"topic": "a", "id": "3"}]), "conflict"),
        (json!([{"topic": "a", "id": "4"}, {"topic": "b", "id": "4"}]), "conflict"),
        (json!([{"topic": "c"}, {"topic": "c", "expect_last": 3}]), "invalid_argument"),
        (json!([]), "invalid_argument"),
    ] {
        let error = socket.refused("publish_batch", batch(events.clone())).await;
        assert_eq!(error["code"], code, "{events}: {error}");
        let answer = http::post_json(&broker.public, "/v1/events", &events).await;
        assert_eq!(answer.json()["code"], code, "{events}: {}", answer.text());
    }
    assert_eq!(offsets(&read(&broker, "%3E").await), [1, 2], "nothing of what was refused");
    broker.kill();
    broker.restart();
    let mut socket = Socket::open(&broker.public).await;
    let answer = socket.call("publish_batch", two).await;
    for result in answer["published_batch"]["results"].as_array().unwrap() {
        assert_eq!(result["duplicate"], true, "{answer}");
    }
    let chain = batch(json!([{"topic": "a", "expect_last": 1}, {"topic": "a"}, {"topic": "b"}]));
    let answer = socket.call("publish_batch", chain).await;
    let results = answer["published_batch"]["results"].as_array().unwrap();
    assert_eq!(offsets(results), [3, 4, 5], "one after the other: {answer}");
}

#[tokio::test]
async fn a_batch_over_http_is_atomic_in_each_of_its_forms() {
    let broker = Broker::start();
    let plain = json!([{"topic": "a", "data": 1}, {"topic": "b", "data": 2}]);
    let answer = http::post_json(&broker.public, "/v1/events", &plain).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    assert_eq!(offsets(answer.json()["results"].as_array().unwrap()), [1, 2]);
    let cloud = json!([
        {"specversion": "1.0", "id": "x", "type": "t", "source": "urn:s", "data": 3},
        {"specversion": "1.0", "id": "y", "type": "t", "source": "urn:s", "data": 4},
    ]);
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let body = cloud.to_string();
    let answer = post(&broker, "/v1/topics/c/events", &headers, body.as_bytes()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    let results = json!([{"offset": 3, "id": "x"}, {"offset": 4, "id": "y"}]);
    assert_eq!(answer.json()["results"], results);
    let half = json!([
        {"specversion": "1.0", "id": "z", "type": "t", "source": "urn:s"},
        {"specversion": "1.0", "id": "y", "type": "other", "source": "urn:s"},
    ]);
    let answer = post(&broker, "/v1/topics/c/events", &headers, half.to_string().as_bytes()).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text());
    let twice = json!([{"topic": "a", "id": "w"}, {"topic": "a"}, {"topic": "a", "id": "w"}]);
    let answer = http::post_json(&broker.public, "/v1/events", &twice).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text());
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("two events of the batch have the id \"w\""), "{detail}");
    assert_eq!(read(&broker, "%3E").await.len(), 4);
}

#[tokio::test]
async fn g12_publishes_of_one_socket_keep_their_order() {
    const COUNT: u64 = 1000;
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    for n in 1..=COUNT {
        socket.start("publish", json!({"topic": format!("t.{}", n % 3), "data": n})).await;
    }
    for n in 1..=COUNT {
        let answer = socket.next().await.unwrap();
        assert_eq!(answer["reply"], n, "the answers keep the order too");
        assert_eq!(answer["published"]["offset"], n, "{answer}");
    }
    let events = read(&broker, "%3E").await;
    assert_eq!(events.len(), 1000);
    for (n, event) in (1..).zip(&events) {
        assert_eq!((&event["offset"], &event["data"]), (&json!(n), &json!(n)));
    }
}

/// JSON as nobody's printer would write it.
const ODD_JSON: [&str; 14] = [
    r#"{"z":1,"a":1.0e5,"m":{"b":[],"a":{}}}"#,
    r#"{"big":100000000000000000000000000000001,"small":1E-400,"minus":-0.0,"exp":1.5E+07}"#,
    r#"{"tail":1.0000000000000000000001,"zero":0.10}"#,
    r#"{"u":"\u00e9\ud83d\ude00","slash":"\/","plain":"é😀","nul":"\u0000"}"#,
    "{ \"spaced\" : [ 1 ,\t2 ] }",
    r#"{"twice":1,"twice":2}"#,
    r#""just a text with \"quotes\" and \\ ""#,
    "1.0e5",
    "-0",
    "true",
    "[]",
    "{}",
    r#"[[[[null]]],null]"#,
    r#"{"":{"\n":"\u2028"}}"#,
];

/// The JSON of one event, cut out of a message, has exactly this data.
fn assert_data(message: &str, data: &str, door: &str) {
    let wanted = format!("\"data\":{data}");
    let found = message.split(&wanted).nth(1).is_some_and(|rest| rest.starts_with([',', '}']));
    assert!(found, "{door}: not {wanted} in {message}");
}

async fn publish_odd_json(broker: &Broker, data: &str) -> Vec<u64> {
    let mut socket = Socket::open(&broker.public).await;
    socket.send_text(&format!(r#"{{"id":1,"publish":{{"topic":"odd","data":{data}}}}}"#)).await;
    let mut given = vec![socket.next().await.unwrap()["published"]["offset"].clone()];
    let batch =
        format!(r#"{{"id":2,"publish_batch":{{"events":[{{"data":{data},"topic":"odd"}}]}}}}"#);
    socket.send_text(&batch).await;
    given.push(socket.next().await.unwrap()["published_batch"]["results"][0]["offset"].clone());
    // An id of CloudEvents is the publisher's: each must be its own.
    let cloud = || {
        let id = uuid::Uuid::now_v7();
        format!(r#""specversion":"1.0","id":"{id}","type":"t","source":"urn:s","data":{data}"#)
    };
    for (n, (path, content_type, body)) in [
        ("/v1/topics/odd/events", "application/json", data.to_owned()),
        ("/v1/events", "application/json", format!(r#"{{"topic":"odd","data":{data}}}"#)),
        ("/v1/topics/odd/events", "application/cloudevents+json", format!("{{{}}}", cloud())),
        (
            "/v1/topics/odd/events",
            "application/cloudevents-batch+json",
            format!("[{{{}}}]", cloud()),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = post(broker, path, &[("content-type", content_type)], body.as_bytes()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{n} {body}: {}", answer.text());
        let answer = answer.json();
        let offset = if n == 3 { &answer["results"][0]["offset"] } else { &answer["offset"] };
        given.push(offset.clone());
    }
    given.iter().map(|offset| offset.as_u64().unwrap()).collect()
}

#[tokio::test]
async fn json_passes_every_door_byte_for_byte() {
    let mut broker = Broker::start();
    let mut expected = Vec::new();
    for data in ODD_JSON {
        for offset in publish_odd_json(&broker, data).await {
            expected.push((offset, data));
        }
    }
    // Once from memory, once from the disk.
    for life in ["memory", "disk"] {
        let path = "/v1/topics/odd/events?limit=1";
        for (offset, data) in &expected {
            let one = http::get(&broker.public, &format!("/v1/events/{offset}")).await;
            assert_data(&one.text(), data, &format!("{life}: one event"));
            let read = http::get(&broker.public, &format!("{path}&after={}", offset - 1)).await;
            assert_data(&read.text(), data, &format!("{life}: a read"));
        }
        let mut sse = Sse::open(&broker.public, "/v1/topics/odd/events?after=0", &[]).await;
        for (offset, data) in &expected {
            let block = sse.event().await.unwrap();
            assert_eq!(block.cursor(), *offset);
            assert_data(&block.data.unwrap(), data, &format!("{life}: SSE"));
        }
        let mut socket = Socket::open(&broker.public).await;
        socket
            .send_text(r#"{"id":1,"subscribe":{"filters":["odd"],"after":0,"batch_max":1}}"#)
            .await;
        assert!(socket.next_text().await.contains("subscribed"));
        for (_, data) in &expected {
            assert_data(&socket.next_text().await, data, &format!("{life}: socket"));
        }
        broker.kill();
        broker.restart();
    }
    let options = json!({"filters": ["odd"], "start": "first"}).to_string();
    let put = http::request(
        &broker.public,
        Method::PUT,
        "/v1/subscriptions/d",
        &[JSON],
        options.as_bytes(),
    );
    assert!(put.await.status.is_success());
    for (_, data) in &expected {
        let path = "/v1/subscriptions/d/fetch";
        let fetched = http::post_json(&broker.public, path, &json!({"limit": 1})).await;
        assert_data(&fetched.text(), data, "fetch");
    }
}

#[tokio::test]
async fn text_and_bytes_come_out_as_they_went_in() {
    let broker = Broker::start();
    let text = "lines\nof \"text\"\r\nwith \\ and \u{0} and é😀 \u{2028}";
    let bytes: Vec<u8> = (0..=255).collect();
    let base64 = STANDARD.encode(&bytes);
    let mut socket = Socket::open(&broker.public).await;
    let plain = [("content-type", "text/plain; charset=utf-8")];
    let png = [("content-type", "image/png")];
    post(&broker, "/v1/topics/text/events", &plain, text.as_bytes()).await;
    let event =
        json!({"topic": "text", "datacontenttype": "text/plain; charset=utf-8", "data": text});
    socket.publish(event).await;
    post(&broker, "/v1/topics/bytes/events", &png, &bytes).await;
    let event = json!({"topic": "bytes", "datacontenttype": "image/png", "data_base64": base64});
    socket.publish(event).await;
    post(&broker, "/v1/topics/none/events", &[], b"").await;
    socket.publish(json!({"topic": "none"})).await;

    socket.subscribe(json!({"filters": [">"], "after": 0})).await;
    let mut over_socket = socket.take(6).await;
    over_socket.sort_by_key(|event| event["offset"].as_u64());
    assert_eq!(read(&broker, "%3E").await, over_socket);
    for event in &over_socket[..2] {
        assert_eq!(event["datacontenttype"], "text/plain; charset=utf-8");
        assert_eq!(event["data"], text);
        assert!(event.get("data_base64").is_none());
    }
    for event in &over_socket[2..4] {
        assert_eq!(event["datacontenttype"], "image/png");
        assert_eq!(event["data_base64"], base64);
        assert!(event.get("data").is_none());
    }
    for event in &over_socket[4..] {
        assert!(event.get("data").is_none() && event.get("data_base64").is_none(), "{event}");
    }
}

#[tokio::test]
async fn an_event_has_the_attributes_it_was_given_and_no_others() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    socket.publish(json!({"topic": "a", "data": 1})).await;
    let full = json!({
        "topic": "a.b", "id": "i", "type": "task.done", "source": "urn:x", "key": "k",
        "priority": "urgent", "correlation": "c", "headers": {"traceparent": "00-1", "é": ""},
        "data": {"x": 1}, "expires": "2999-01-01T00:00:00Z",
    });
    socket.publish(full.clone()).await;
    let over_http = [
        JSON,
        ("ce-id", "j"),
        ("ce-type", "task.done"),
        ("ce-source", "urn:x"),
        ("ce-traceparent", "00-1"),
        ("tidings-key", "k"),
        ("tidings-priority", "low"),
        ("tidings-correlation", "c"),
        ("tidings-expires", "2999-01-01T00:00:00Z"),
    ];
    let answer = post(&broker, "/v1/topics/a.b/events", &over_http, b"{\"x\":1}").await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    let events = read(&broker, "%3E").await;
    let names = |event: &Value| event.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut least = names(&events[0]);
    least.sort();
    let wanted = ["data", "datacontenttype", "id", "offset", "source", "time", "topic", "type"];
    assert_eq!(least, wanted, "normal priority and what is absent are left out");
    assert_eq!(events[0]["type"], "message");
    assert_eq!(events[0]["datacontenttype"], "application/json");
    assert_eq!(events[0]["source"], "urn:tidings:subject:anonymous");
    for (field, value) in full.as_object().unwrap() {
        if field != "expires" {
            assert_eq!(&events[1][field], value, "{field}");
        }
        if !["id", "priority", "headers", "expires"].contains(&field.as_str()) {
            assert_eq!(&events[2][field], value, "{field} over HTTP");
        }
    }
    for event in &events[1..] {
        let expires = event["expires"].as_str().unwrap();
        assert!(expires.starts_with("2999-01-01T00:00:00"), "{expires}");
    }
    assert_eq!(events[2]["priority"], "low");
    assert_eq!(events[2]["headers"], json!({"traceparent": "00-1"}));
    let time: jiff::Timestamp = events[0]["time"].as_str().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(time).as_secs() < 60, "{time}");
}

#[tokio::test]
async fn an_expired_event_is_delivered_no_more() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let before = jiff::Timestamp::now();
    socket.publish(json!({"topic": "a", "data": "long", "ttl_ms": 3_600_000})).await;
    let after = jiff::Timestamp::now();
    socket.publish(json!({"topic": "a", "data": "short", "ttl_ms": 1})).await;
    let past = json!({"topic": "a", "data": "past", "expires": "2001-01-01T00:00:00Z"});
    socket.publish(past).await;
    let headers = [("tidings-ttl-ms", "1")];
    post(&broker, "/v1/topics/a/events", &headers, b"short").await;
    let stays = async || read(&broker, "a").await.len() == 1;
    eventually("the expired events are gone from reads", stays).await;
    let event = read(&broker, "a").await.remove(0);
    let expires: jiff::Timestamp = event["expires"].as_str().unwrap().parse().unwrap();
    let hour = jiff::SignedDuration::from_hours(1);
    let slack = jiff::SignedDuration::from_millis(1);
    assert!(expires >= before + hour - slack && expires <= after + hour + slack, "{event}");
    socket.publish(json!({"topic": "a", "data": "last"})).await;
    socket.subscribe(json!({"filters": ["a"], "after": 0})).await;
    let events = socket.take(2).await;
    assert_eq!((&events[0]["data"], &events[1]["data"]), (&json!("long"), &json!("last")));
    assert_eq!(events.len(), 2);
}

#[tokio::test]
async fn g12_what_is_answered_can_be_read_at_once() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    let mut reader = Socket::open(&broker.public).await;
    for n in 0..100 {
        let offset = match n % 2 {
            0 => socket.publish(json!({"topic": "a", "data": n})).await,
            _ => {
                let body = n.to_string();
                let answer = post(&broker, "/v1/topics/a/events", &[JSON], body.as_bytes()).await;
                answer.json()["offset"].as_u64().unwrap()
            }
        };
        let one = http::get(&broker.public, &format!("/v1/events/{offset}")).await;
        assert_eq!((one.status, &one.json()["data"]), (StatusCode::OK, &json!(n)));
        let path = format!("/v1/topics/a/events?after={}", offset - 1);
        let read = http::get(&broker.public, &path).await.json();
        assert_eq!(read["events"][0]["offset"], offset, "{read}");
        assert_eq!(read["last"], offset);
        let connected = reader.call("connect", json!({})).await;
        assert_eq!(connected["connected"]["last"], offset);
        let subscribed =
            reader.subscribe(json!({"filters": ["a"], "after": offset - 1})).await["subscription"]
                .clone();
        assert_eq!(reader.take(1).await[0]["data"], n);
        reader.call("unsubscribe", json!({ "subscription": subscribed })).await;
        reader.so_far().await;
    }
}

#[tokio::test]
async fn a_publish_without_an_id_of_request_is_carried_out_without_an_answer() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    socket.send(&json!({"publish": {"topic": "a", "data": 1}})).await;
    socket.send(&json!({"publish": {"topic": "a b"}})).await;
    let answer = socket.call("publish", json!({"topic": "a", "data": 2})).await;
    assert_eq!(answer["published"]["offset"], 2, "the one without an id came first");
    let error = socket.push().await;
    assert_eq!(error["error"]["code"], "invalid_argument");
    assert!(error.get("reply").is_none(), "{error}");
    assert!(socket.so_far().await.is_empty());
}

#[tokio::test]
async fn nobody_publishes_to_the_brokers_own_topics() {
    let broker = Broker::start();
    let mut socket = Socket::open(&broker.public).await;
    for topic in ["$acks", "$dead.x", "$mine"] {
        let error = socket.refused("publish", json!({ "topic": topic })).await;
        assert_eq!(error["code"], "permission_denied", "{error}");
        let path = format!("/v1/topics/{topic}/events");
        let answer = post(&broker, &path, &[], b"x").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text());
    }
    assert!(read(&broker, "%3E").await.is_empty());
}
