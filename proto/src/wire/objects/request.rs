//! Requests: `{"id":1,"publish":{…}}`.
//!
//! - The envelope has every request as an optional attribute, of which exactly one is there. (Raw
//!   JSON would not survive serde's `flatten` or `untagged`.)

use serde::{Deserialize, Serialize};

use super::{
    List, Object, Payload, Syntax,
    publish::{self, WirePublish, into_publishes},
};
use crate::{
    Placed, SubscribeOptions, Topic, WireError,
    message::{Ack, Connect, Head, Nack, Request, RequestId},
    strict::{self, given, object},
    wire::{Incoming, invalid},
};

/// Appends a request.
pub(in crate::wire) fn write<S: Syntax>(head: Head, request: &Request, out: &mut Vec<u8>) {
    let mut message = Object::<S>::begin(out);
    if let Some(id) = head.id {
        message.number("id", id);
    }
    if head.follows {
        message.serde("follows", &true);
    }
    match request {
        Request::Connect(connect) => message.serde("connect", connect),
        Request::Publish(publish) => publish::write::<S>(publish, message.name("publish")),
        Request::PublishBatch(publishes) => {
            let mut batch = Object::<S>::begin(message.name("publish_batch"));
            let mut events = List::<S>::begin(batch.name("events"));
            for publish in publishes {
                publish::write::<S>(publish, events.element());
            }
            events.end();
            batch.end();
        }
        Request::Subscribe(options) => message.serde("subscribe", options),
        Request::Ack(ack) => message.serde("ack", ack),
        Request::Nack(nack) => message.serde("nack", nack),
        Request::Unsubscribe { subscription } => {
            message.serde("unsubscribe", &Unsubscribe { subscription: *subscription });
        }
        Request::Refresh { token } => {
            message.serde("refresh", &Refresh { token: token.clone() });
        }
        Request::Presence { topic } => {
            message.serde("presence", &Presence { topic: topic.clone() });
        }
        Request::Receipts { offset } => {
            message.serde("receipts", &Receipts { offset: offset.clone() });
        }
        Request::Cancel { offset } => message.serde("cancel", &Cancel { offset: offset.clone() }),
        Request::Ping => message.serde("ping", &Ping {}),
    }
    message.end();
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "D: Deserialize<'de>"))]
pub(in crate::wire) struct Envelope<D> {
    #[serde(default, deserialize_with = "given")]
    id: Option<RequestId>,
    #[serde(default)]
    follows: bool,
    #[serde(default, deserialize_with = "object")]
    connect: Option<Connect>,
    #[serde(default, deserialize_with = "object")]
    publish: Option<Box<WirePublish<D>>>,
    #[serde(default, deserialize_with = "object")]
    publish_batch: Option<PublishBatch<D>>,
    #[serde(default, deserialize_with = "object")]
    subscribe: Option<Box<SubscribeOptions>>,
    #[serde(default, deserialize_with = "object")]
    ack: Option<Ack>,
    #[serde(default, deserialize_with = "object")]
    nack: Option<Nack>,
    #[serde(default, deserialize_with = "object")]
    unsubscribe: Option<Unsubscribe>,
    #[serde(default, deserialize_with = "object")]
    refresh: Option<Refresh>,
    #[serde(default, deserialize_with = "object")]
    presence: Option<Presence>,
    #[serde(default, deserialize_with = "object")]
    receipts: Option<Receipts>,
    #[serde(default, deserialize_with = "object")]
    cancel: Option<Cancel>,
    #[serde(default, deserialize_with = "object")]
    ping: Option<Ping>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "D: Deserialize<'de>"))]
struct PublishBatch<D> {
    events: Vec<strict::Object<WirePublish<D>>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unsubscribe {
    subscription: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refresh {
    token: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Presence {
    topic: Topic,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Receipts {
    offset: Placed,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {
    offset: Placed,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ping {}

impl<D: Payload> Envelope<D> {
    pub(in crate::wire) fn into_incoming(self) -> Result<Incoming, WireError> {
        let head = Head { id: self.id, follows: self.follows };
        Incoming::checked(head, self.into_request()?)
    }

    fn into_request(self) -> Result<Request, WireError> {
        let given = self.given();
        if given.iter().filter(|(_, is_given)| *is_given).count() != 1 {
            let names: Vec<_> =
                given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
            return Err(not_one(&names));
        }
        if let Some(publish) = self.publish {
            let publish = publish.into_publish().map_err(|fault| fault.under("publish"))?;
            return Ok(Request::Publish(Box::new(publish)));
        }
        if let Some(batch) = self.publish_batch {
            return into_publishes(batch.events, "publish_batch.events").map(Request::PublishBatch);
        }
        if let Some(ack) = &self.ack {
            check_ack(ack)?;
        }
        if let Some(Nack { subscription: None, .. }) = &self.nack {
            return Err(invalid("nack.subscription", "is missing"));
        }
        let rest = [
            self.connect.map(Request::Connect),
            self.subscribe.map(Request::Subscribe),
            self.ack.map(Request::Ack),
            self.nack.map(Request::Nack),
            self.unsubscribe.map(|it| Request::Unsubscribe { subscription: it.subscription }),
            self.refresh.map(|it| Request::Refresh { token: it.token }),
            self.presence.map(|it| Request::Presence { topic: it.topic }),
            self.receipts.map(|it| Request::Receipts { offset: it.offset }),
            self.cancel.map(|it| Request::Cancel { offset: it.offset }),
            self.ping.map(|Ping {}| Request::Ping),
        ];
        rest.into_iter().flatten().next().ok_or_else(|| not_one(&[]))
    }

    /// The names of all requests, and whether they are there.
    fn given(&self) -> [(&'static str, bool); 12] {
        [
            ("connect", self.connect.is_some()),
            ("publish", self.publish.is_some()),
            ("publish_batch", self.publish_batch.is_some()),
            ("subscribe", self.subscribe.is_some()),
            ("ack", self.ack.is_some()),
            ("nack", self.nack.is_some()),
            ("unsubscribe", self.unsubscribe.is_some()),
            ("refresh", self.refresh.is_some()),
            ("presence", self.presence.is_some()),
            ("receipts", self.receipts.is_some()),
            ("cancel", self.cancel.is_some()),
            ("ping", self.ping.is_some()),
        ]
    }
}

fn not_one(given: &[&str]) -> WireError {
    match given {
        [] => invalid("message", "has no request: give one, as in {\"id\":1,\"ping\":{}}"),
        _ => invalid("message", &format!("has {}: give one request a message", given.join(", "))),
    }
}

fn check_ack(ack: &Ack) -> Result<(), WireError> {
    if ack.subscription.is_none() {
        return Err(invalid("ack.subscription", "is missing"));
    }
    match (ack.offset, &ack.offsets) {
        (Some(_), Some(_)) => {
            Err(invalid("ack.offset", "is given together with offsets: give one of the two"))
        }
        (None, None) => Err(invalid("ack.offset", "is missing: give offset or offsets")),
        _ => Ok(()),
    }
}
