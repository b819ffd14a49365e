//! Jobs that wait, in the order in which actors get them.

use crate::xbus::id::Id;

/// A job that waits for an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waiting {
    /// The version of the pipeline.
    pub pipeline: Id,
    /// The number of the node.
    pub node: u32,
    /// The actor, when the job is for one alone; else all zero.
    pub actor: Id,
    /// When the process began: older ones come first. Milliseconds since 1970.
    pub since: u64,
    /// The process.
    pub process: Id,
}
