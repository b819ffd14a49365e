//! The way into the book: what a client wants to publish becomes a frame of records, is admitted, and is proposed.
//!
//! Invariant: a publish has its answer within its deadline, and "not stored" is said only of what was never proposed.

pub mod draft;
pub mod headers;
pub mod notification;
pub mod proposer;
