//! What reads find, and where they stop.

use std::sync::Arc;

use tidings_proto::{Cursor, Offset};
use tidings_storage::Reader;

use super::{StorageError, codec::Stored, faults};
use crate::metrics;

/// Where a read stops.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    /// After this many events.
    pub events: usize,
    /// Once this many bytes are reached.
    pub bytes: usize,
}

/// What a read found and how far it has looked.
#[derive(Debug)]
pub struct Batch {
    /// The events, by offset.
    pub events: Vec<Arc<Stored>>,
    /// Everything up to here has been looked at.
    pub cursor: Cursor,
    /// What is behind the cursor up to here is damaged and cannot be read. `events` is empty then.
    pub damaged: Option<Cursor>,
}

/// How many bytes events add to a batch, about: as [`Stored::batch_bytes`].
pub fn batch_bytes(events: &[Arc<Stored>]) -> usize {
    events.iter().map(|event| event.batch_bytes()).sum()
}

impl Batch {
    /// As much of what was read as has so many bytes in JSON: storage stops at so many stored ones.
    pub(super) fn within(mut self, bytes_max: usize) -> Batch {
        let mut bytes = 0;
        let fits = self.events.iter().take_while(|event| {
            let is_full = bytes >= bytes_max;
            bytes += event.content_bytes();
            !is_full
        });
        let fits = fits.count();
        if let Some(left) = self.events.get(fits) {
            self.cursor = left.offset().before();
            self.events.truncate(fits);
        }
        self
    }
}

/// What a read of single events found.
#[derive(Debug, Default)]
pub struct Several {
    /// The events that are there, in the order they were asked for.
    pub events: Vec<Arc<Stored>>,
    /// Those that are there and cannot be read.
    pub damaged: Vec<Offset>,
    /// Those that were not looked at: the limit was reached.
    pub left: Vec<Offset>,
    pub(super) bytes: usize,
}

impl Several {
    pub(super) fn push(&mut self, event: Arc<Stored>) {
        self.bytes += event.batch_bytes();
        self.events.push(event);
    }

    /// The same, and these.
    pub(super) fn read(
        mut self,
        reader: &Reader,
        offsets: Vec<Offset>,
        bytes_max: usize,
    ) -> Result<Several, StorageError> {
        for offset in offsets {
            if self.bytes >= bytes_max {
                self.left.push(offset);
                continue;
            }
            match reader.get(offset) {
                Ok(Some(record)) => self.push(Arc::new(Stored::new(record))),
                Ok(None) => {}
                Err(error @ StorageError::Corrupt { .. }) => {
                    tracing::error!(%offset, %error, "an event cannot be read");
                    metrics::storage_failed("read", faults::kind(&error));
                    self.damaged.push(offset);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self)
    }
}
