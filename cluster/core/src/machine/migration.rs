//! How far rows of the first feature level have become, or been replaced by, those of level `BOUNDED`.

use alloc::vec::Vec;

use crate::limits;
use crate::rows::Family;

/// How far the rows of the first level have been looked through.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Migration {
    /// Time of the log when the level was reached.
    #[prost(uint64, tag = "1")]
    since: u64,
    /// Which of [`STAGES`] comes next; their number when all is done.
    #[prost(uint64, tag = "2")]
    pub(super) stage: u64,
    /// Where it goes on.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) cursor: Vec<u8>,
}

/// What is looked through, one after the other.
const STAGES: [Family; 3] = [Family::Ids, Family::Keys, Family::KeyRing];

impl Migration {
    /// At its beginning, at this time of the log.
    pub(super) const fn begin(since: u64) -> Self {
        Self { since, stage: 0, cursor: Vec::new() }
    }

    /// The family that is being looked through.
    pub(super) fn family(&self) -> Option<Family> {
        usize::try_from(self.stage).ok().and_then(|stage| STAGES.get(stage)).copied()
    }

    /// When it goes on, if ever: keys of the first level count for a while.
    pub(super) fn due(&self) -> Option<u64> {
        self.family().map(|family| if family == Family::Ids { 0 } else { self.old_keys_until() })
    }

    /// Until when keys of the first level count.
    pub(super) const fn old_keys_until(&self) -> u64 {
        self.since.saturating_add(limits::DEDUPE_WINDOW_MS)
    }
}
