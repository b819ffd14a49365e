//! The effects of an entry, collected while its frames are applied.

use alloc::collections::BTreeMap;

use crate::rows::{IndexRow, Writes};

/// The events that one entry appends to one namespace.
#[derive(Debug, Default)]
pub(super) struct NamespaceAppend {
    /// The index row, which grows with each frame for the namespace and is written after the last frame.
    pub(super) row: IndexRow,
    /// Sequence number of the first appended event: the key of the row.
    pub(super) first: u64,
}

/// The appended events of an entry by number of the namespace: one index row for each namespace.
pub(super) type Appends = BTreeMap<u32, NamespaceAppend>;

/// The places into which a command puts its effects.
pub(super) struct Effects<'a> {
    /// Index of the entry that is being applied.
    pub(super) entry: u64,
    /// Changed rows.
    pub(super) writes: &'a mut Writes,
    /// Appended events: a command appends the roll events that describe it.
    pub(super) appends: &'a mut Appends,
}
