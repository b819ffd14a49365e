//! The JSON profile of Xbus: the objects of the specification page.
//!
//! ```text
//! value      ids, numbers, words and times as clients write them
//! body       what clients send: outputs told apart by their keys, ends of jobs, logs, registrations
//! control    the control API: bodies and answers
//! answer     what clients are told, and envelopes that are delivered to them
//! ```
//!
//! Read are snake case and the camel case of proto3 JSON, lower case and upper case words, ids with dashes and in
//! base64. What is written is always the dialect of the specification page.
//!
//! Invariant: a body is a typed request or an error text for its sender. Unknown keys are left out, as in protobuf.

pub mod answer;
pub mod body;
pub mod control;
#[cfg(test)]
mod tests;
pub mod value;
