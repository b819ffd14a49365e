//! From a write of a client to an entry of the log: proposals are collected into batches, here or at the leader, in
//! their order.
//!
//! May import `replicate` and the rooms below. Invariant: a proposal is answered with "not stored" only if no node gave
//! it to raft.

pub(crate) mod batch;
pub(crate) mod forward;
pub(crate) mod proposal;
