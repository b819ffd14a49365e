//! Start and stop of a node, and what it watches meanwhile: signals, isolation, open files.
//!
//! Invariant: floors are built bottom up and drained in reverse.

pub(super) mod descriptors;
pub(super) mod isolation;
pub(super) mod membership;
pub(super) mod parts;
pub mod run;
pub(super) mod signals;
pub(super) mod sockets;
