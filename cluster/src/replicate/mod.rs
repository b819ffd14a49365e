//! Replication: openraft with our stores and our links, who leads, and whether a majority follows.
//!
//! May import `peer`, `book` and what is below. Invariant: an entry is applied when it is committed and on this disk.

pub(crate) mod contact;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod raft;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod server;
