//! Requests in JSON: `{"id":1,"publish":{…}}`.
//!
//! - The envelope has every request as an optional attribute, of which exactly one is there. (Raw
//!   JSON would not survive serde's `flatten` or `untagged`.)

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::{
    BadRequest, Incoming,
    publish::{WirePublish, encode_publish, into_publishes},
    read,
    write::{Object, push_serde},
};
use crate::{
    Offset, SubscribeOptions, Topic, WireError,
    message::{Ack, Connect, Nack, Request, RequestId},
    strict::{self, given, object},
    wire::{LEVELS_MAX, invalid},
};

/// Reads a request.
///
/// # Errors
/// When the text is no request or what it holds is not valid; with the id, if that can be read.
pub fn decode_request(text: &str) -> Result<Incoming, BadRequest> {
    let bad = |error| BadRequest { id: id_of(text), error };
    let envelope: Envelope<'_> = read::object(text, "", LEVELS_MAX).map_err(bad)?;
    let id = envelope.id;
    let request = envelope.into_request().map_err(bad)?;
    Ok(Incoming { id, request })
}

/// Appends a request.
pub fn encode_request(id: Option<RequestId>, request: &Request, out: &mut Vec<u8>) {
    let mut message = Object::begin(out);
    if let Some(id) = id {
        message.number("id", id);
    }
    match request {
        Request::Connect(connect) => push_serde(connect, message.name("connect")),
        Request::Publish(publish) => encode_publish(publish, message.name("publish")),
        Request::PublishBatch(publishes) => {
            let out = message.name("publish_batch");
            out.extend_from_slice(b"{\"events\":[");
            for (n, publish) in publishes.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                encode_publish(publish, out);
            }
            out.extend_from_slice(b"]}");
        }
        Request::Subscribe(options) => push_serde(options, message.name("subscribe")),
        Request::Ack(ack) => push_serde(ack, message.name("ack")),
        Request::Nack(nack) => push_serde(nack, message.name("nack")),
        Request::Unsubscribe { subscription } => {
            push_serde(&Unsubscribe { subscription: *subscription }, message.name("unsubscribe"));
        }
        Request::Refresh { token } => {
            push_serde(&Refresh { token: token.clone() }, message.name("refresh"));
        }
        Request::Presence { topic } => {
            push_serde(&Presence { topic: topic.clone() }, message.name("presence"));
        }
        Request::Receipts { offset } => {
            push_serde(&Receipts { offset: *offset }, message.name("receipts"));
        }
        Request::Ping => push_serde(&Ping {}, message.name("ping")),
    }
    message.end();
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(default, deserialize_with = "given")]
    id: Option<RequestId>,
    #[serde(default, deserialize_with = "object")]
    connect: Option<Connect>,
    #[serde(default, borrow, deserialize_with = "object")]
    publish: Option<Box<WirePublish<'a>>>,
    #[serde(default, borrow, deserialize_with = "object")]
    publish_batch: Option<PublishBatch<'a>>,
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
    ping: Option<Ping>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishBatch<'a> {
    #[serde(borrow)]
    events: Vec<strict::Object<WirePublish<'a>>>,
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
    offset: Offset,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ping {}

impl Envelope<'_> {
    fn into_request(self) -> Result<Request, WireError> {
        let given = self.given();
        if given.len() != 1 {
            return Err(not_one(&given));
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
            self.ping.map(|Ping {}| Request::Ping),
        ];
        rest.into_iter().flatten().next().ok_or_else(|| not_one(&[]))
    }

    /// The names of the requests that are there.
    fn given(&self) -> Vec<&'static str> {
        let all = [
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
            ("ping", self.ping.is_some()),
        ];
        all.into_iter().filter(|&(_, is_given)| is_given).map(|(name, _)| name).collect()
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

/// The id in a message that is wrong otherwise, read up to where the text stops being JSON.
fn id_of(text: &str) -> Option<RequestId> {
    let mut id = None;
    // The message is known to be wrong already; only what was found on the way counts. Values that
    // are passed over are not recursed into, however deep they are nested.
    let _ = serde_json::Deserializer::from_str(text).deserialize_map(FindId(&mut id));
    id
}

struct FindId<'a>(&'a mut Option<RequestId>);

impl<'de> Visitor<'de> for FindId<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == "id" {
                *self.0 = Some(map.next_value()?);
                break;
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}
