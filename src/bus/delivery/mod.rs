//! Who gets which event, when again, and when no more: pure rules, and the messages between a consumer and its members.
//!
//! Invariant: no actor, no clock, no I/O; time comes as an argument.

pub mod messages;
pub mod shares;
pub mod window;
