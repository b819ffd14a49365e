//! The raft log on the disk: openraft appends, and one thread writes all waiting entries with one fsync.
//!
//! May import `store`. Invariant: an acknowledged entry is on the disk, and a log that ends before its mark is refused.

pub(crate) mod cache;
pub(crate) mod mark;
pub(crate) mod page;
pub(crate) mod repair;
pub(crate) mod scan;
pub(crate) mod store;
pub(crate) mod writer;

#[cfg(test)]
mod torn;
