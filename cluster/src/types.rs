//! The types that openraft is instantiated with.

use std::fmt;

use bytes::Bytes;
use openraft::impls::{BasicNode, leader_id_std};
use rollbook_core::command::Reply;

/// The payload of an entry of the log: the bytes of a [`rollbook_core::entry::Entry`], reference-counted.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EntryData(pub(crate) Bytes);

impl fmt::Debug for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry of {} bytes", self.0.len())
    }
}

impl fmt::Display for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The result of applying an entry: a reply for each frame.
pub(crate) type Replies = Vec<Reply>;

/// Tests draw every random number from a seed.
#[cfg(test)]
pub(crate) type Runtime = openraft_rt::deterministic_rng::DeterministicRng<openraft::TokioRuntime>;
#[cfg(not(test))]
pub(crate) type Runtime = openraft::TokioRuntime;

openraft::declare_raft_types!(
    /// The types of rollbook.
    pub(crate) Types:
        D = EntryData,
        R = Replies,
        NodeId = u64,
        Node = BasicNode,
        AsyncRuntime = Runtime,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(crate) type IoFlushed = openraft::storage::IOFlushed<Types>;
