//! WebSockets: from the upgrade of a request to frames in both directions, and the actor of a connection.
//!
//! Invariant: a frame whose announced size is over the limit is refused before it is buffered.

pub mod connection;
pub mod frame_limit;
pub mod reader;
pub mod writer;
