//! Structured mode: attributes and data in one JSON object, or an array of them (the CloudEvents
//! JSON format).

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{SPECVERSION, is_extension_name};
use crate::{
    Data, Event, EventId, NewEvent, Priority, Topic, WireError,
    event::{DEFAULT_TYPE, Expiry, JSON},
    message::Publish,
    wire::{
        Fault, LEVELS_MAX,
        json::{payload, read, write::Object},
        objects::publish::OCTETS,
    },
};

/// Reads one `application/cloudevents+json` object. Without a `topic` its `subject` names the
/// topic.
///
/// As CloudEvents asks, an attribute that is `null` counts as absent.
///
/// # Errors
/// When the text is no CloudEvent or the event is not valid; the error names the attribute.
pub fn decode_structured(text: &str, topic: Option<Topic>) -> Result<Publish, WireError> {
    let members: Members<'_> = read::value(text, "", LEVELS_MAX)?;
    members.into_publish(topic).map_err(|fault| fault.under(""))
}

/// Reads an `application/cloudevents-batch+json` array, which may be empty.
///
/// # Errors
/// As [`decode_structured`]; the path of an attribute begins with `[n]`.
pub fn decode_batch(text: &str, topic: Option<Topic>) -> Result<Vec<Publish>, WireError> {
    let batch: Vec<Members<'_>> = read::value(text, "", LEVELS_MAX)?;
    let one = |(n, members): (usize, Members<'_>)| {
        members.into_publish(topic.clone()).map_err(|fault| fault.under(&format!("[{n}]")))
    };
    batch.into_iter().enumerate().map(one).collect()
}

/// Appends an event as one `application/cloudevents+json` object.
///
/// The topic is its `subject`, the offset its `sequence`, the key its `partitionkey`; headers
/// become extensions, but for those that no extension may be called or whose name an attribute has
/// taken.
pub fn write_cloudevent(event: &Event, out: &mut Vec<u8>) {
    let mut object = Object::begin(out);
    object.text("specversion", SPECVERSION);
    object.text("id", &event.id);
    object.text("source", &event.source);
    object.text("type", &event.kind);
    object.text("subject", event.topic.as_str());
    object.plain("time", event.time);
    object.text_if("datacontenttype", event.datacontenttype.as_deref());
    if let Some(data) = &event.data {
        object.data(event.datacontenttype.as_deref(), data);
    }
    object.plain("sequence", event.offset);
    object.text_if("partitionkey", event.key.as_deref());
    if event.priority != Priority::Normal {
        object.text("priority", event.priority.as_str());
    }
    if let Some(expires) = event.expires {
        object.plain("expires", expires);
    }
    object.text_if("correlation", event.correlation.as_deref());
    for (name, value) in &event.headers {
        if is_extension_name(name) && !WRITTEN.contains(&name.as_str()) {
            object.text(name, value);
        }
    }
    object.end();
}

/// The names of [`write_cloudevent`]'s own attributes, which no header may take.
const WRITTEN: &[&str] = &[
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "data",
    "sequence",
    "partitionkey",
    "priority",
    "expires",
    "correlation",
];

/// The members of a CloudEvent, none of them read yet; none is `null`, none is there twice.
struct Members<'a>(BTreeMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'de>, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            members.insert(name, map.next_value::<&RawValue>()?);
        }
        members.retain(|_, raw| raw.get() != "null");
        Ok(Members(members))
    }
}

impl Members<'_> {
    fn into_publish(mut self, topic: Option<Topic>) -> Result<Publish, Fault> {
        match self.text("specversion")?.as_deref() {
            Some(SPECVERSION) => {}
            Some(_) => return Err(Fault::new("specversion", format!("must be {SPECVERSION}"))),
            None => {
                let text = format!("is missing: it must be {SPECVERSION}");
                return Err(Fault::new("specversion", text));
            }
        }
        let topic = match topic {
            Some(topic) => topic,
            None => self.topic()?,
        };
        let given = self.text("datacontenttype")?;
        let (datacontenttype, data) = self.payload(given)?;
        let event = NewEvent {
            id: self.text("id")?.as_deref().map(EventId::parse).transpose()?,
            kind: self.text("type")?.unwrap_or_else(|| DEFAULT_TYPE.to_owned()),
            source: self.text("source")?,
            datacontenttype,
            data,
            key: self.text("partitionkey")?,
            priority: self.priority()?,
            expires: self.expires()?,
            correlation: self.text("correlation")?,
            headers: self.extensions()?,
            ..NewEvent::on(topic)
        };
        event.check()?;
        Ok(Publish::of(event))
    }

    fn topic(&mut self) -> Result<Topic, Fault> {
        let Some(subject) = self.text("subject")? else {
            return Err(Fault::new("subject", "is missing: it names the topic"));
        };
        Topic::parse(&subject).map_err(|error| {
            let shown: String = subject.chars().take(64).collect();
            Fault::new("subject", format!("\"{shown}\" {error}"))
        })
    }

    /// The content type, which may be made up, and the bytes.
    fn payload(&mut self, given: Option<String>) -> Result<(Option<String>, Option<Bytes>), Fault> {
        let raw = self.0.remove("data");
        let base64 = self.text("data_base64")?;
        let default = if raw.is_some() { JSON } else { OCTETS };
        let content_type = given.as_deref().unwrap_or(default);
        let data = match (raw, &base64) {
            // Other than in the broker's own format, any format that is no JSON may come as a
            // string.
            (Some(raw), None) if Data::of(content_type) == Data::Binary => {
                Some(text(raw, "data")?.into())
            }
            _ => payload(Some(content_type), raw, base64)?,
        };
        let datacontenttype = match data {
            Some(_) => Some(content_type.to_owned()),
            None => given,
        };
        Ok((datacontenttype, data))
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        self.0.remove(name).map(|raw| text(raw, name)).transpose()
    }

    fn priority(&mut self) -> Result<Priority, Fault> {
        let Some(text) = self.text("priority")? else { return Ok(Priority::default()) };
        let want = "must be low, normal, high or urgent";
        text.parse().map_err(|_| Fault::new("priority", want))
    }

    fn expires(&mut self) -> Result<Option<Expiry>, Fault> {
        let Some(text) = self.text("expires")? else { return Ok(None) };
        let want = "must be a time in RFC 3339, as 2026-11-21T06:00:00Z";
        let at = text.parse().map_err(|_| Fault::new("expires", want))?;
        Ok(Some(Expiry::At(at)))
    }

    /// What is left: the attributes that are not the broker's, by name.
    fn extensions(self) -> Result<BTreeMap<String, String>, Fault> {
        let mut extensions = BTreeMap::new();
        for (name, raw) in self.0 {
            if !is_extension_name(&name) {
                let text = "is no name of an extension: those are made of a–z and 0–9";
                return Err(Fault::new(&name, text));
            }
            let value = match raw.get().bytes().next() {
                Some(b'"') => text(raw, &name)?,
                Some(b'[' | b'{') => {
                    return Err(Fault::new(&name, "must be a string, a number or a boolean"));
                }
                _ => raw.get().to_owned(),
            };
            extensions.insert(name, value);
        }
        Ok(extensions)
    }
}

fn text(raw: &RawValue, name: &str) -> Result<String, Fault> {
    serde_json::from_str(raw.get()).map_err(|_| Fault::new(name, "must be a string"))
}
