//! What one read of the log gathers.

use crate::types::Entry;

/// Entries that are being read, contiguous.
pub(crate) struct Page {
    /// Index of the next one.
    pub(crate) next: u64,
    /// Index behind the last one that is wanted.
    pub(crate) to: u64,
    /// Bytes so far.
    pub(crate) bytes: usize,
    /// About how many there may be.
    pub(crate) bytes_max: usize,
    /// In order.
    pub(crate) found: Vec<Entry>,
}

impl Page {
    /// Whether another one fits; the first always does.
    pub(crate) fn wants_more(&self) -> bool {
        self.next < self.to && (self.bytes < self.bytes_max || self.found.is_empty())
    }

    /// Takes the next one.
    pub(crate) fn push(&mut self, entry: Entry, bytes: usize) {
        self.found.push(entry);
        self.bytes = self.bytes.saturating_add(bytes);
        self.next = self.next.saturating_add(1);
    }
}
