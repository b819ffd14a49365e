//! The protobuf messages of Xbus 3.0.0, and nrpc, the RPC over NATS that carries them.
//!
//! The tags come from the descriptors inside python-xbus 0.1.1 (2019), which are the API of 3.0.0. The field names are
//! those of the messages in snake case, but for `type`.
//!
//! Invariant: no message is written by hand: prost encodes and decodes all of them, and unknown fields are left out.

pub mod account;
pub mod control;
pub mod envelope;
pub mod ids;
pub mod job;
pub mod log;
pub mod nrpc;
pub mod process;
#[cfg(test)]
mod tests;
