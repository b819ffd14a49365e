//! A WebSocket from its upgrade on: frames in, frames out, and the actor that a connection is.
//!
//! Invariant: a frame is refused before it is buffered when its announced size is over the limit.

pub mod connection;
pub mod frame_limit;
pub mod reader;
pub mod writer;
