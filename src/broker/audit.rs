//! What operators are told: events on `$audit`.

use smallvec::smallvec;
use tidings_proto::Topic;

use super::{Broker, error::AppendError};
use crate::{clock, log::codec};

/// Where it is told.
pub(super) const AUDIT_TOPIC: &str = "$audit";

impl Broker {
    /// Tells operators that something was done or seen; its place is durable when this returns.
    ///
    /// # Errors
    /// When the event could not be appended.
    pub async fn audit(&self, kind: &str, data: &serde_json::Value) -> Result<(), AppendError> {
        let Ok(topic) = Topic::parse(AUDIT_TOPIC) else { return Ok(()) };
        let data = data.to_string().into_bytes();
        let draft = codec::control(topic, kind, data, clock::event_id());
        self.log.append(smallvec![draft]).await?.await.map(drop)
    }
}
