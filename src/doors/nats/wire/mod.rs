//! The wire of the NATS client protocol, as a server reads and writes it. Pure: no socket, no clock, no task.
//!
//! `parser` turns the bytes of a client into operations, `connect` and `headers` read what operations carry, `subject`
//! checks names, and `encode` writes what a server says. Imports nothing of rollbook but the type that hides secrets.
//!
//! Invariant: whatever a client sends, the parser waits for no more bytes than its limits allow, and gives the same
//! operations however the bytes were cut on their way.
//!
//! Facts of the protocol are those of the public description of the client protocol (docs.nats.io, "Client
//! protocol"); where that is silent, those that nats-server 2.15 shows. What rollbook does differently is marked "Ours".

pub mod connect;
pub mod encode;
pub mod error;
pub mod headers;
pub mod info;
pub mod operation;
pub mod parser;
pub mod subject;
#[cfg(test)]
mod tests;
