//! The roll: which services and instances are here, cluster-wide, and who is told when that changes.
//!
//! Invariant: what must be the same everywhere is a command of the rules; this room decides when to propose one.

pub mod announcer;
pub mod pending_leaves;
pub mod registration;
pub mod registrations;
pub mod services;
