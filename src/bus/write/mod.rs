//! Writes to the book: a publish is checked, encoded as a frame of records, admitted and proposed.
//!
//! Invariant: a publish has its answer within its deadline, and "not stored" is said only of a publish that was never
//! proposed.

pub mod draft;
pub mod headers;
pub mod notification;
pub mod proposer;
