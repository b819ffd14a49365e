//! Progress of the migration of rows from the first feature level to level `BOUNDED`.
//!
//! The migration runs in bounded steps, and its progress is a row of its own, so that it continues after a restart or
//! on another leader.

use alloc::vec::Vec;

use crate::limits;
use crate::rows::Family;

/// How far the migration has come.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Migration {
    /// Time of the log when the cluster reached the level. Keys of the first level have no time of their own, so all of
    /// them count as of this age.
    #[prost(uint64, tag = "1")]
    since: u64,
    /// The present stage, an index of [`STAGES`]; equal to their number when the migration is done.
    #[prost(uint64, tag = "2")]
    pub(super) stage: u64,
    /// The first key that the next step of this stage reads.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) cursor: Vec<u8>,
}

/// The families that the migration reads, one after the other.
const STAGES: [Family; 3] = [Family::Ids, Family::Keys, Family::KeyRing];

impl Migration {
    /// A migration that has not made a step, at this time of the log.
    pub(super) const fn begin(since: u64) -> Self {
        Self { since, stage: 0, cursor: Vec::new() }
    }

    /// The family of the present stage; none when the migration is done.
    pub(super) fn family(&self) -> Option<Family> {
        usize::try_from(self.stage).ok().and_then(|stage| STAGES.get(stage)).copied()
    }

    /// When the next step may be done, if one is left. Ids are migrated at once; keys only after they have expired,
    /// because they count until then.
    pub(super) fn due(&self) -> Option<u64> {
        self.family().map(|family| if family == Family::Ids { 0 } else { self.old_keys_until() })
    }

    /// The time at which the dedupe keys of the first level expire.
    pub(super) const fn old_keys_until(&self) -> u64 {
        self.since.saturating_add(limits::DEDUPE_WINDOW_MS)
    }
}
