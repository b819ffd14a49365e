//! Names of events and what matches them: subjects, patterns, who wants what, which block may hold what.
//!
//! Invariant: a subject or pattern that exists is valid: parsed once, then the type is the proof.

pub mod filter;
pub mod interest;
pub mod marks;
pub mod pattern;
pub mod subject;
