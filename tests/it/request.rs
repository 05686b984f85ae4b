//! Request and reply, and commands to an agent: conventions over topics, with the pieces that the broker has.

use std::time::Duration;

use serde_json::{Value, json};
use tidings::client::{Client, Delivery, Error, Options, REPLY_TO};
use tidings_proto::{
    Filter, Filters, NewEvent, Offset, Priority, SubscribeOptions, Topic,
    event::{Expiry, JSON},
    message::Publish,
    subscribe::Order,
};

use crate::util::{Broker, http, ws::Socket};

fn topic(text: &str) -> Topic {
    Topic::parse(text).unwrap()
}

fn question(data: &str, priority: Priority) -> Publish {
    Publish::of(NewEvent {
        datacontenttype: Some(JSON.to_owned()),
        data: Some(data.to_owned().into()),
        priority,
        ..NewEvent::on(topic("agents.7.commands"))
    })
}

/// The queue of the agent: one command at a time, urgent ones first.
fn queue(filter: &str) -> SubscribeOptions {
    let filters = Filters::one(Filter::parse(filter).unwrap());
    SubscribeOptions {
        durable: Some("agent-7".to_owned()),
        order: Order::Priority,
        max_in_flight: 1,
        start: tidings_proto::Start::First,
        ..SubscribeOptions::to(filters)
    }
}

/// An agent with lanes: it answers what it is asked, one command at a time.
async fn agent(client: Client) {
    let mut commands = client.subscribe(queue("agents.7.commands")).await.unwrap();
    loop {
        let Delivery::Event { event, .. } = commands.next().await.unwrap() else { continue };
        let answer = NewEvent {
            kind: "command.done".to_owned(),
            datacontenttype: event.datacontenttype.clone(),
            data: event.data.clone(),
            correlation: event.correlation.clone(),
            ..NewEvent::on(topic(&event.headers[REPLY_TO]))
        };
        client.publish(Publish::of(answer)).await.unwrap().await.unwrap();
        commands.ack_many(vec![event.offset]).await.unwrap();
    }
}

#[tokio::test]
async fn a_question_gets_its_own_answer_among_many_and_over_a_kill() {
    let mut broker = Broker::start();
    let client = Client::connect(Options::to(broker.url())).await.unwrap();
    let agent = tokio::spawn(agent(client.clone()));
    let reply_to = topic("replies.me");
    let asked = (0..20).map(|n: u32| {
        let (client, reply_to) = (client.clone(), reply_to.clone());
        async move {
            let question = question(&n.to_string(), Priority::Normal);
            let answer =
                client.request(question, &reply_to, Duration::from_secs(30)).await.unwrap();
            assert_eq!(answer.data.as_deref(), Some(n.to_string().as_bytes()));
            assert_eq!(answer.kind, "command.done");
        }
    });
    futures_util::future::join_all(asked).await;
    // The broker is away when it is asked.
    broker.kill();
    let last = tokio::spawn(async move {
        let question = question("99", Priority::Urgent);
        client.request(question, &topic("replies.me"), Duration::from_secs(30)).await.unwrap()
    });
    broker.restart();
    assert_eq!(last.await.unwrap().data.as_deref(), Some(&b"99"[..]));
    agent.abort();
}

#[tokio::test]
async fn an_interrupt_overtakes_commands_and_what_nobody_waits_for_is_not_worked_on() {
    let broker = Broker::start();
    let client = Client::connect(Options::to(broker.url())).await.unwrap();
    // Nobody answers: the question expires with the wait.
    let begun = std::time::Instant::now();
    let asked = question("0", Priority::Normal);
    let late = client.request(asked, &topic("replies.me"), Duration::from_millis(300)).await;
    assert!(matches!(late, Err(Error::NoReply { .. })), "{late:?}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    for n in 1..=5 {
        let mut command = question(&n.to_string(), Priority::Normal);
        command.event.expires = Some(Expiry::TtlMs(60_000));
        client.publish(command).await.unwrap().await.unwrap();
    }
    let mut interrupt = question("\"stop\"", Priority::Urgent);
    interrupt.event.kind = "command.interrupt".to_owned();
    let interrupt = client.publish(interrupt).await.unwrap().await.unwrap().offset;
    let mut commands = client.subscribe(queue("agents.*.commands")).await.unwrap();
    let mut got: Vec<Offset> = Vec::new();
    while got.len() < 6 {
        if let Delivery::Event { event, .. } = commands.next().await.unwrap() {
            assert_ne!(event.data.as_deref(), Some(&b"0"[..]), "it has expired");
            commands.ack_many(vec![event.offset]).await.unwrap();
            got.push(event.offset);
        }
    }
    assert_eq!(got[0], interrupt);
    assert!(got[1..].is_sorted());
}

#[tokio::test]
async fn the_cli_asks_and_says_when_nobody_answers() {
    let broker = Broker::start();
    let client = Client::connect(Options::to(broker.url())).await.unwrap();
    let agent = tokio::spawn(agent(client));
    let mut command = broker.cli(&[
        "request",
        "agents.7.commands",
        "{\"run\":\"tests\"}",
        "--reply-to",
        "replies.cli",
        "--type",
        "command",
        "--timeout",
        "20s",
    ]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&answer["topic"], &answer["data"]["run"]),
        (&json!("replies.cli"), &json!("tests"))
    );
    agent.abort();
    let mut command =
        broker.cli(&["request", "nobody", "x", "--reply-to", "replies.cli", "--timeout", "300ms"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A state machine by `expect_last`: of many who would take a step one does, and all agree on the order.
#[tokio::test]
async fn of_many_who_take_a_step_one_does() {
    let broker = Broker::start();
    let mut racers = Vec::new();
    for _ in 0..8 {
        racers.push(Socket::open(&broker.public).await);
    }
    let mut last = 0;
    for step in 0..20 {
        let mut won = Vec::new();
        let asked = racers.iter_mut().map(async |socket| {
            // The step and what follows from it, all or nothing.
            let events = json!([
                {"topic": "machines.1", "data": step, "expect_last": last},
                {"topic": "machines.1.log", "data": step},
            ]);
            socket.call("publish_batch", json!({ "events": events })).await
        });
        for answer in futures_util::future::join_all(asked).await {
            match answer["published_batch"]["results"][0]["offset"].as_u64() {
                Some(offset) => won.push(offset),
                None => assert_eq!(answer["error"]["code"], "conflict", "{answer}"),
            }
        }
        assert_eq!(won.len(), 1, "step {step}");
        last = won[0];
    }
    let log = http::get(&broker.public, "/v1/topics/machines.1.log/events?limit=100").await.json();
    let steps: Vec<u64> = log["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["data"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (0..20).collect::<Vec<u64>>());
}
