//! Streams to clients: the parameters of a subscription, the actor of one stream, and several streams on one
//! connection.
//!
//! Invariant: the client sets the pace. Events that the client does not read cost a cursor, not memory.

pub mod batch;
mod chunks;
pub mod listener;
pub mod membership;
pub mod request;
pub mod streams;
pub mod subscription;
