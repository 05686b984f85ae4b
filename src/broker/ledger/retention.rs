//! What was said about retention over the protocol: a part of the ledger.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidings_proto::{
    Cursor, Filter, Topic,
    control::{RetentionChange, RetentionRule},
};

/// The rules of retention that were made over the protocol, by filter, and the topics to be erased.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::broker) struct Retention {
    /// By filter.
    pub rules: BTreeMap<String, (Filter, RetentionRule)>,
    /// Up to which offset a topic is erased.
    pub erased: BTreeMap<String, (Topic, Cursor)>,
}

impl Retention {
    /// Something was said.
    pub(super) fn change(&mut self, change: RetentionChange) {
        match change {
            RetentionChange::Put { filter, rule } => {
                self.rules.insert(filter.to_string(), (filter, rule));
            }
            RetentionChange::Deleted { filter } => {
                self.rules.remove(filter.as_str());
            }
            RetentionChange::Erase { topic, upto } => {
                self.erased.insert(topic.to_string(), (topic, upto));
            }
        }
    }

    /// These are erased: nothing of them is left up to the offset that was said. Whether that was news.
    pub(super) fn forget_erased(&mut self, topic: &Topic, upto: Cursor) -> bool {
        let is_over = self.erased.get(topic.as_str()).is_some_and(|(_, said)| *said <= upto);
        is_over && self.erased.remove(topic.as_str()).is_some()
    }
}
