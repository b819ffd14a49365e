//! Streams to clients: what a client may ask for, the actor of one stream, and several streams on one connection.
//!
//! Invariant: the pace is that of the client; what it does not read costs a cursor, not memory.

pub mod request;
pub mod streams;
pub mod subscription;
