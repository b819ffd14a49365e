//! Starts and stops a node, and watches signals, isolation and open files while the node runs.
//!
//! Used by `main` and by programs that build a node around this library. Invariant: floors are built from the bottom
//! up and drained in reverse, and nothing here knows a protocol.

mod bootstrap;
mod descriptors;
pub(super) mod isolation;
pub(super) mod membership;
pub(super) mod parts;
pub mod run;
pub(super) mod signals;
pub(super) mod sockets;
pub mod start_options;
