//! The JSON of the specification page of Xbus.
//!
//! ```text
//! value      ids, numbers, words and times as clients write them
//! body       what clients send: outputs told apart by their keys, ends of jobs, logs, registrations
//! answer     what clients are told, and envelopes that are delivered to them
//! ```
//!
//! Read are snake case and the camel case of proto3 JSON, lower case and upper case words, ids with dashes and in
//! base64. What is written is always the dialect of the specification page. The door of NATS and the gateway share these
//! types, and the book has envelopes in this JSON.
//!
//! Invariant: a body is a typed request or an error text for its sender. Unknown keys are left out, as in protobuf.

pub mod answer;
pub mod body;
#[cfg(test)]
mod tests;
pub mod value;
