//! Events found by the marks beside their places in the index: of one priority, or with receipts.

use tidings_proto::{Cursor, Filters, Offset, Priority};

use super::{LogHandle, ReadError};

impl LogHandle {
    /// Up to `limit` of the offsets in (`after`, `until`] whose events match and have this priority, and how far was
    /// looked.
    ///
    /// # Errors
    /// What the storage finds, see [`ReadError`].
    pub async fn lane(
        &self,
        after: Cursor,
        until: Cursor,
        filters: &Filters,
        priority: Priority,
        limit: usize,
    ) -> Result<(Vec<Offset>, Cursor), ReadError> {
        let until = until.min(self.committed());
        let filters = filters.clone();
        let bits = priority.to_bits();
        self.on_disk(move |reader| reader.lane(after, until, &filters, bits, limit)).await
    }

    /// Up to `limit` of the offsets in (`after`, `until`] whose events match and whose publishers wish for receipts,
    /// and how far was looked.
    ///
    /// # Errors
    /// What the storage finds, see [`ReadError`].
    pub async fn with_receipts(
        &self,
        after: Cursor,
        until: Cursor,
        filters: &Filters,
        limit: usize,
    ) -> Result<(Vec<Offset>, Cursor), ReadError> {
        let until = until.min(self.committed());
        let filters = filters.clone();
        self.on_disk(move |reader| reader.with_receipts(after, until, &filters, limit)).await
    }
}
