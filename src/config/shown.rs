//! The setting that says which durables have metrics of their own.

use tidings_proto::topic::is_durable_name;

use super::{ConfigError, Values};

impl Values {
    pub(super) fn durables_shown(&self) -> Result<Vec<String>, ConfigError> {
        let key = "metrics.durables";
        let shown = self.list(key);
        let holds = |text: &String| match text.strip_suffix('*') {
            Some(prefix) => prefix.is_empty() || is_durable_name(prefix),
            None => is_durable_name(text),
        };
        if shown.iter().all(holds) { Ok(shown) } else { Err(self.wrong(key)) }
    }
}
