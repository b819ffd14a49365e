//! HTTP to one node: the opening of a connection, and the download of builds.
//!
//! May import: `base::archive`, `store`.
//! Invariant: whatever a node answers, heads and bodies are bounded, and a build is complete or not there.

pub(super) mod build;
pub(super) mod head;
pub(super) mod node_address;
pub(super) mod node_stream;
