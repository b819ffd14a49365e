//! Replication: openraft on the stores and links of this crate, which node leads, and whether a majority follows.
//!
//! May import `peer`, `book` and the rooms below. Invariant: an entry is applied only when the entry is committed and
//! on the disk of this node.

pub(crate) mod contact;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod raft;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod server;
