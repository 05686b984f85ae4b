//! Retention and erasure, for the admin.

use tidings_proto::{Code, Filter, WireError, control::RetentionRule};

use super::{Erased, RuleInfo, Session, error::of_retention, parse_filter, parse_topic};
use crate::log::retention::check_ruled;

impl Session {
    /// The rules of retention that there are.
    ///
    /// # Errors
    /// When this is not the admin.
    pub fn retention_rules(&self) -> Result<Vec<RuleInfo>, WireError> {
        self.check_admin("retention")?;
        Ok(self.broker().retention_rules())
    }

    /// The rule for a filter.
    ///
    /// # Errors
    /// When this is not the admin, or there is none.
    pub fn retention_rule(&self, filter: &str) -> Result<RuleInfo, WireError> {
        self.check_admin("retention")?;
        let filter = parse_filter("filter", filter)?;
        let found = self.broker().retention_rules().into_iter().find(|info| info.filter == filter);
        found.ok_or_else(|| no_rule(&filter))
    }

    /// Makes or changes the rule for a filter.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn put_retention(&self, filter: &str, rule: RetentionRule) -> Result<(), WireError> {
        self.check_admin("retention")?;
        let filter = parse_filter("filter", filter)?;
        check_ruled(&filter).map_err(|problem| WireError::invalid(format!("filter: {problem}")))?;
        let put = self.broker().put_retention(filter.clone(), rule).await;
        put.map_err(|error| of_retention(&error))?;
        self.done_as_admin("retention.changed", "filter", filter.as_str()).await;
        Ok(())
    }

    /// Forgets the rule for a filter.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn delete_retention(&self, filter: &str) -> Result<(), WireError> {
        self.check_admin("retention")?;
        let filter = parse_filter("filter", filter)?;
        let deleted = self.broker().delete_retention(filter.clone()).await;
        match deleted.map_err(|error| of_retention(&error))? {
            true => {
                self.done_as_admin("retention.deleted", "filter", filter.as_str()).await;
                Ok(())
            }
            false => Err(no_rule(&filter)),
        }
    }

    /// Erases every event of a topic for good.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn erase(&self, topic: &str) -> Result<Erased, WireError> {
        self.check_admin("erasing a topic")?;
        let topic = parse_topic("topic", topic)?;
        if topic.is_own() {
            let text = "topic: the broker's own events are not erased";
            return Err(WireError::invalid(text));
        }
        let erased = self.broker().erase(&topic).await.map_err(|error| of_retention(&error))?;
        self.done_as_admin("topic.erased", "topic", topic.as_str()).await;
        Ok(erased)
    }
}

fn no_rule(filter: &Filter) -> WireError {
    let text = format!("{filter} has no rule of its own that was made over the protocol");
    WireError::new(Code::NotFound, text)
}
