//! Durable subscriptions operated: paused, going on, reset.

use serde_json::{Value, json};

use crate::util::{
    Broker, eventually,
    http::{self, Answer},
    ws::{Socket, offsets},
};

async fn call(broker: &Broker, call: &str, body: Value) -> Answer {
    http::post_json(&broker.public, &format!("/v1/subscriptions/d/{call}"), &body).await
}

async fn done(broker: &Broker, name: &str, body: Value) -> Value {
    let answer = call(broker, name, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn attach(broker: &Broker, more: Value) -> Socket {
    let mut options = json!({"durable": "d", "filters": ["a"], "start": "first"});
    for (name, value) in more.as_object().unwrap() {
        options[name] = value.clone();
    }
    let mut socket = Socket::open(&broker.public).await;
    assert_eq!(socket.subscribe(options).await["durable"], "d");
    socket
}

async fn state(broker: &Broker) -> Value {
    http::get(&broker.public, "/v1/subscriptions/d").await.json()
}

#[tokio::test]
async fn what_is_paused_delivers_nothing_on_any_door_and_goes_on_where_it_was() {
    for more in [json!({}), json!({"mode": "shared"}), json!({"mode": "mirror"})] {
        let mut broker = Broker::start();
        let mut socket = attach(&broker, more.clone()).await;
        let mut publisher = Socket::open(&broker.public).await;
        let first = publisher.publish(json!({"topic": "a"})).await;
        assert_eq!(offsets(&socket.take(1).await), [first]);
        assert_eq!(done(&broker, "pause", json!({})).await, json!({"paused": true}));
        let second = publisher.publish(json!({"topic": "a"})).await;
        assert_eq!(offsets(&socket.events_so_far().await), [0; 0], "{more}");
        // Acks are taken all the same.
        let answer = socket.call("ack", json!({"subscription": 1, "offsets": [first]})).await;
        let floor = answer["acked"]["cursor"].as_u64().unwrap();
        assert!((first..second).contains(&floor), "{answer}");
        assert_eq!(done(&broker, "fetch", json!({})).await["events"], json!([]));
        // It stays paused over a restart.
        broker.kill();
        broker.restart();
        let at = state(&broker).await;
        assert_eq!((&at["paused"], &at["lag"]), (&json!(true), &json!(1)), "{at}");
        let mut socket = attach(&broker, more.clone()).await;
        assert_eq!(offsets(&socket.events_so_far().await), [0; 0], "{more}");
        assert_eq!(done(&broker, "resume", json!({})).await, json!({"paused": false}));
        assert_eq!(offsets(&socket.take(1).await), [second]);
        assert_eq!(state(&broker).await["paused"], Value::Null);
    }
}

#[tokio::test]
async fn a_lease_that_ends_while_it_is_paused_comes_again_when_it_goes_on() {
    let broker = Broker::start();
    let mut socket = attach(&broker, json!({"ack_wait_ms": 50})).await;
    let mut publisher = Socket::open(&broker.public).await;
    let only = publisher.publish(json!({"topic": "a"})).await;
    assert_eq!(offsets(&socket.take(1).await), [only]);
    done(&broker, "pause", json!({})).await;
    eventually("the lease is over", async || state(&broker).await["in_flight"] == 0).await;
    let _ = socket.so_far().await;
    done(&broker, "resume", json!({})).await;
    let batch = socket.events().await;
    assert_eq!(offsets(batch["events"].as_array().unwrap()), [only]);
    assert!(batch["attempts"][only.to_string()].as_u64() >= Some(2), "{batch}");
}

#[tokio::test]
async fn a_reset_goes_back_and_forth_and_is_there_after_a_kill() {
    let mut broker = Broker::start();
    let mut socket = attach(&broker, json!({})).await;
    let mut publisher = Socket::open(&broker.public).await;
    let mut all = Vec::new();
    for n in 1..=5 {
        all.push(publisher.publish(json!({"topic": "a", "data": n})).await);
    }
    assert_eq!(offsets(&socket.take(5).await), all);
    let last = all[4];
    let answer = socket.call("ack", json!({"subscription": 1, "offset": last})).await;
    assert_eq!(answer["acked"]["cursor"], last);

    assert_eq!(done(&broker, "reset", json!({"to": all[1]})).await["cursor"], all[1]);
    socket.expect("superseded").await;
    // What those who were attached before say is not about this life of it.
    let refused = socket.refused("ack", json!({"subscription": 1, "offset": last})).await;
    assert_eq!(refused["code"], "conflict", "{refused}");
    assert_eq!(state(&broker).await["lag"], 3);
    broker.kill();
    broker.restart();
    assert_eq!(state(&broker).await["lag"], 3);
    let mut socket = attach(&broker, json!({})).await;
    assert_eq!(offsets(&socket.take(3).await), all[2..]);

    done(&broker, "reset", json!({"to": "now"})).await;
    assert_eq!(state(&broker).await["lag"], 0);
    done(&broker, "reset", json!({"to": "first"})).await;
    assert_eq!(state(&broker).await["lag"], 5);
    let third = http::get(&broker.public, &format!("/v1/events/{}", all[2])).await.json();
    done(&broker, "reset", json!({"to": third["time"]})).await;
    let lag = state(&broker).await["lag"].as_u64().unwrap();
    assert!(lag >= 3, "{lag}");
    let mut socket = attach(&broker, json!({})).await;
    assert!(offsets(&socket.take(3).await).contains(&all[2]));
}

#[tokio::test]
async fn a_reset_of_one_in_use_ends_fetches_and_mirrors_too() {
    let broker = Broker::start();
    let mut socket = attach(&broker, json!({"mode": "mirror"})).await;
    let mut publisher = Socket::open(&broker.public).await;
    let only = publisher.publish(json!({"topic": "a"})).await;
    socket.take(1).await;
    done(&broker, "ack", json!({"offset": only})).await;
    done(&broker, "reset", json!({"to": "first"})).await;
    loop {
        if socket.push().await["superseded"].is_object() {
            break;
        }
    }
    eventually("a new session sees it again", async || {
        let mut socket = attach(&broker, json!({"mode": "mirror"})).await;
        offsets(&socket.take(1).await) == [only]
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let broker = Broker::start();
    for (name, body) in
        [("pause", json!({})), ("resume", json!({})), ("reset", json!({"to": "now"}))]
    {
        let answer = call(&broker, name, body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["code"].clone()),
            (404, json!("not_found"))
        );
    }
    let _socket = attach(&broker, json!({})).await;
    for (name, body, field, status) in [
        ("pause", json!({"for": "1h"}), "body", 400),
        ("reset", json!({}), "to", 400),
        ("reset", json!({"to": "last"}), "to", 400),
        ("reset", json!({"to": null}), "to", 400),
        ("reset", json!({"to": "5@00000000"}), "5@00000000 is of another log than this one", 410),
        ("reset", json!({"to": 99_999}), "99999 is above the last event", 410),
    ] {
        let answer = call(&broker, name, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.text());
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.starts_with(field), "{problem}");
    }
}

#[tokio::test]
async fn the_cli_operates_a_durable() {
    let broker = Broker::start();
    let run = |args: &[&str]| {
        let output = broker.cli(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let mut publisher = Socket::open(&broker.public).await;
    publisher.publish(json!({"topic": "a"})).await;
    drop(attach(&broker, json!({"headers": {"tenant": "7"}})).await);
    assert_eq!(run(&["durable", "pause", "d"]), "d  paused\n");
    assert!(run(&["durable", "ls"]).ends_with("  paused\n"));
    assert_eq!(run(&["durable", "resume", "d", "--json"]), "{\"paused\":false}\n");
    let at: Value = serde_json::from_str(&run(&["durable", "info", "d", "--json"])).unwrap();
    assert_eq!((&at["name"], &at["options"]["headers"]["tenant"]), (&json!("d"), &json!("7")));
    assert_eq!(run(&["durable", "reset", "d", "--to", "1"]), "d  goes on after 1\n");
    assert_eq!(state(&broker).await["cursor"], 1);
    run(&["durable", "rm", "d"]);
    assert_eq!(run(&["durable", "ls", "--json"]), "");
    let refused = broker.cli(&["durable", "reset", "d", "--to", "last"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

#[tokio::test]
async fn only_events_with_the_headers_are_delivered_on_every_door() {
    let broker = Broker::start();
    let mut publisher = Socket::open(&broker.public).await;
    let mut socket = Socket::open(&broker.public).await;
    let wish = json!({"filters": ["a"], "headers": {"tenant": "7", "kind": "x"}});
    socket.subscribe(wish).await;
    let mut wanted = Vec::new();
    for headers in [
        json!({"tenant": "7", "kind": "x", "more": "y"}),
        json!({"tenant": "7"}),
        json!({"tenant": "8", "kind": "x"}),
        json!({"tenant": "7", "kind": "x"}),
    ] {
        let is_wanted = headers["tenant"] == "7" && headers["kind"] == "x";
        let offset = publisher.publish(json!({"topic": "a", "headers": headers})).await;
        wanted.extend(is_wanted.then_some(offset));
    }
    assert_eq!(offsets(&socket.take(2).await), wanted);
    let path = "/v1/topics/a/events?header=tenant:7&header=kind:x";
    let read = http::get(&broker.public, path).await.json();
    assert_eq!(offsets(read["events"].as_array().unwrap()), wanted);
    for (query, field) in [("header=tenant", "header"), ("header=:7", "header")] {
        let refused = http::get(&broker.public, &format!("/v1/topics/a/events?{query}")).await;
        assert_eq!(refused.status, 400);
        assert!(
            refused.json()["detail"].as_str().unwrap().starts_with(field),
            "{}",
            refused.text()
        );
    }
    let many: serde_json::Map<String, Value> =
        (0..17).map(|n| (n.to_string(), json!("x"))).collect();
    let error = socket.refused("subscribe", json!({"filters": ["a"], "headers": many})).await;
    assert!(error["message"].as_str().unwrap().starts_with("headers: "), "{error}");
}
