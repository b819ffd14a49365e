//! Standard output and standard error of services: files first, and from there to the hub.
//!
//! Lives here: the rotated files, the reading of new bytes, and the task that does both for one service.
//! May import: `report`, `store` for the removal of a file.
//! Invariant: a service writes to its files alone, so nothing that the agent or the hub does can block or end the
//! service; the files and what is read of them are bounded.

mod log_file;
mod tail;
pub(super) mod task;
