//! Processes of the operating system: start, watch, measure and end them, with all that they start.
//!
//! Lives here: the child program that sets limits before the service runs, `/proc`, cgroups, process trees, exits.
//! May import: nothing of the agent.
//! Invariant: a signal goes only to a process whose start time was checked behind an open pidfd, so never to another
//! process that got the number of an ended one.

pub(super) mod accounts;
pub(super) mod cgroup;
pub(super) mod child_program;
pub(super) mod launch;
mod proc_fs;
pub(super) mod reaper;
pub(super) mod running;
pub(super) mod tree;
pub(super) mod usage;
