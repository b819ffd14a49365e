//! Xbus over NATS: what its clients write and read, and the service that answers them.
//!
//! ```text
//! proto/     the protobuf messages, and nrpc, which carries them
//! json/      the JSON profile of the control API: the same in another dialect
//! messages   fragments of envelopes in protobuf, from and to the JSON that the book has
//! subject    subjects by which clients call
//! version    which version a client speaks
//! service/   answers calls
//! agent/     brings jobs to an actor of a connection
//! notices    what clients are told of processes
//! ```
//!
//! All but the service is pure: bytes in, types out, and back. Imports `rollbook_core::xbus`, whose enumerations have the
//! numbers of the protocol; the service imports `bus`.
//!
//! Invariant: the tags are those of the published clients, whose bytes the tests compare. What comes in is decoded into
//! a type or answered with an error; nothing here keeps more than one message.

pub mod agent;
pub mod json;
pub mod messages;
pub mod notices;
pub mod proto;
pub mod service;
pub mod subject;
pub mod version;
