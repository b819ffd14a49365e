//! The raft log on the disk: openraft appends, one thread writes with one fsync for all that waits.
//!
//! May import `store`. Invariant: what was acknowledged is on the disk, and a log that has less than its mark says is
//! refused.

pub(crate) mod cache;
pub(crate) mod mark;
pub(crate) mod page;
pub(crate) mod repair;
pub(crate) mod scan;
pub(crate) mod store;
pub(crate) mod writer;

#[cfg(test)]
mod torn;
