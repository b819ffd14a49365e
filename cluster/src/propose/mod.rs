//! From a write of a client to an entry of the log: proposals are put together into batches, here or at the leader, in
//! their order.
//!
//! May import `replicate` and what is below. Invariant: "not stored" is said only of what nobody gave to raft.

pub(crate) mod batch;
pub(crate) mod forward;
pub(crate) mod proposal;
