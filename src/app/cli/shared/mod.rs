//! The parts that all commands share: the HTTP client, the reader of streams, output, errors.
//!
//! Knows no command.

pub(super) mod confirm;
pub mod error;
pub(super) mod event;
pub(super) mod follow;
pub mod global;
pub(super) mod http;
pub(super) mod lines;
pub mod output;
pub(super) mod payload;
pub(super) mod sse;
pub(super) mod store;
pub(super) mod tls_error;

#[cfg(test)]
pub(super) mod testing;
