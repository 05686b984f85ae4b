//! What the examples have in common: where the broker is, and short ways to say things.

#![allow(dead_code, reason = "no example needs all of it")]

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tidings::client::{Client, Delivery, Error, HttpClient, Options, Subscription};
use tidings_proto::{
    Code, Cursor, Event, Filter, Filters, NewEvent, Offset, Position, SubscribeOptions, Topic,
    event::JSON,
    message::{Publish, Published},
    subscribe::After,
};

/// How long anything may take before the example says that it does not hold.
const PATIENCE: Duration = Duration::from_secs(60);

/// The broker named on the command line, or the one that runs here.
pub(crate) fn url() -> String {
    std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8080".to_owned())
}

pub(crate) async fn connect() -> Result<Client> {
    Ok(Client::connect(Options::to(url())).await?)
}

pub(crate) fn http() -> Result<HttpClient> {
    Ok(HttpClient::new(&Options::to(url()), PATIENCE)?)
}

/// A part of a topic that no run before had, so that an example can be run again.
pub(crate) fn run() -> String {
    let since_epoch = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("{:x}-{}", since_epoch.as_nanos(), std::process::id())
}

/// An event with JSON as data.
pub(crate) fn event(topic: &str, kind: &str, data: &Value) -> Result<NewEvent> {
    Ok(NewEvent {
        kind: kind.to_owned(),
        datacontenttype: Some(JSON.to_owned()),
        data: Some(data.to_string().into()),
        ..NewEvent::on(Topic::parse(topic)?)
    })
}

/// Publishes and waits until it is durable.
pub(crate) async fn publish(client: &Client, event: NewEvent) -> Result<Offset> {
    Ok(client.publish(Publish::of(event)).await?.await?.offset)
}

/// Publishes all of these or none, in one request; `None` where `expect_last` of one of them did not hold, since somebody
/// else was faster.
pub(crate) async fn publish_all(events: &[Value]) -> Result<Option<Vec<Offset>>> {
    #[derive(serde::Deserialize)]
    struct Answer {
        results: Vec<Published>,
    }
    let body = Value::from(events).to_string();
    match http()?.post("/v1/events", body).await?.ok() {
        Ok(answer) => {
            let Answer { results } = answer.json()?;
            Ok(Some(results.into_iter().map(|published| published.offset).collect()))
        }
        Err(error) if is_conflict(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the broker refused since something else is in the log than was expected.
pub(crate) fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Refused(refusal) if refusal.code == Code::Conflict)
}

/// What a subscription to these filters asks for: what is published from now on.
pub(crate) fn to(filters: &[&str]) -> Result<SubscribeOptions> {
    let filters = filters.iter().map(|text| Filter::parse(text)).collect::<Result<_, _>>()?;
    Ok(SubscribeOptions::to(Filters::new(filters)?))
}

/// The same, from the first event there is.
pub(crate) fn from_the_first(filters: &[&str]) -> Result<SubscribeOptions> {
    Ok(SubscribeOptions { after: Some(behind(Cursor::START)), ..to(filters)? })
}

/// The place behind everything up to this cursor.
pub(crate) fn behind(cursor: Cursor) -> After {
    After(Position { cursor, log: None })
}

/// The next delivery.
pub(crate) async fn delivery(subscription: &mut Subscription) -> Result<Delivery> {
    let next = tokio::time::timeout(PATIENCE, subscription.next());
    Ok(next.await.context("nothing came in time")??)
}

/// The next event; what else comes is passed over.
pub(crate) async fn next(subscription: &mut Subscription) -> Result<Event> {
    loop {
        if let Delivery::Event { event, .. } = delivery(subscription).await? {
            return Ok(event);
        }
    }
}

/// All that was there when the subscription was made.
pub(crate) async fn backlog(subscription: &mut Subscription) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    loop {
        match delivery(subscription).await? {
            Delivery::Event { event, .. } => events.push(event),
            Delivery::CaughtUp(_) => return Ok(events),
            _ => {}
        }
    }
}

/// The data of an event, as JSON.
pub(crate) fn json(event: &Event) -> Result<Value> {
    let data = event.data.as_deref().context("the event has no data")?;
    Ok(serde_json::from_slice(data)?)
}
