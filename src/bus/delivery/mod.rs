//! The rules of delivery: which member gets which event, when an event is delivered again, and when it becomes a dead
//! letter. The messages between a consumer and its members are here as well.
//!
//! Invariant: no actor, no clock and no I/O. Callers pass the time as an argument, so tests can replay every case.

pub mod acknowledgement;
pub mod filter;
pub mod messages;
pub mod order;
pub mod policy;
pub mod shares;
pub mod window;
