//! What applying an entry leaves behind, before it is written.

use alloc::collections::BTreeMap;

use crate::rows::{IndexRow, Writes};

/// What one entry did to one namespace.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) row: IndexRow,
    pub(super) first: u64,
}

/// Collects the index rows of an entry: one per namespace it touches.
pub(super) type Index = BTreeMap<u32, Touched>;

/// Where the effects of a command go.
pub(super) struct Effects<'a> {
    /// Index of the entry that is being applied.
    pub(super) entry: u64,
    pub(super) writes: &'a mut Writes,
    pub(super) touched: &'a mut Index,
}
