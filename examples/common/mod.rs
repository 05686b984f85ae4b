//! What the examples have in common: where the broker is, and short ways to say things.

#![allow(dead_code, reason = "no example needs all of it")]

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tidings::client::{Client, Delivery, HttpClient, Options, Subscription};
use tidings_proto::{
    Event, Filter, Filters, NewEvent, Offset, SubscribeOptions, Topic, event::JSON,
    message::Publish,
};

/// The broker named on the command line, or the one that runs here.
pub(crate) fn url() -> String {
    std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8080".to_owned())
}

pub(crate) async fn connect() -> Result<Client> {
    Ok(Client::connect(Options::to(url())).await?)
}

pub(crate) fn http() -> Result<HttpClient> {
    Ok(HttpClient::new(&Options::to(url()), Duration::from_secs(10))?)
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

/// What a subscription to these filters asks for.
pub(crate) fn to(filters: &[&str]) -> Result<SubscribeOptions> {
    let filters = filters.iter().map(|text| Filter::parse(text)).collect::<Result<_, _>>()?;
    Ok(SubscribeOptions::to(Filters::new(filters)?))
}

/// The next event; what else comes is passed over.
pub(crate) async fn next(subscription: &mut Subscription) -> Result<Event> {
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Delivery::Event { event, .. } = subscription.next().await? {
                return Ok(event);
            }
        }
    })
    .await
    .context("no event came in time")?
}

/// The data of an event, as JSON.
pub(crate) fn json(event: &Event) -> Result<Value> {
    let data = event.data.as_deref().context("the event has no data")?;
    Ok(serde_json::from_slice(data)?)
}
