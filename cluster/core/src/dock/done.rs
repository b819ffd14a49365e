//! What a change did: the reply of the rules to one change.

use super::build::BuildRow;

/// The reply to a change. Of the fields only those are filled that the change is about.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DockDone {
    /// The revision of the definition after the change; of a removed one the last.
    #[prost(uint64, tag = "1")]
    pub revision: u64,
    /// How many chunks of the build came.
    #[prost(uint32, tag = "2")]
    pub chunks: u32,
    /// Bytes of all these chunks.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
}

impl DockDone {
    /// The reply of a change of a definition.
    #[must_use]
    pub fn definition(revision: u64) -> Self {
        Self { revision, ..Self::default() }
    }

    /// The reply of a change of a build.
    #[must_use]
    pub const fn build(row: &BuildRow) -> Self {
        Self { revision: row.revision, chunks: row.chunks, bytes: row.bytes }
    }
}
