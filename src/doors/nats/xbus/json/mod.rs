//! The JSON profile of the calls: what the specification page does not have. Its objects are in
//! [`crate::bus::xbus::envelopes::json`].
//!
//! ```text
//! control    the control API: accounts, actors and pipelines, bodies and answers
//! process    the same for processes, envelopes and logs
//! error      errors and ends of streams
//! ```
//!
//! Invariant: a body is a typed request or an error text for its sender. Unknown keys are left out, as in protobuf.

pub mod control;
pub mod error;
pub mod process;
