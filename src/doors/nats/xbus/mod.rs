//! Xbus over NATS: what its clients write and read, and the service that answers them.
//!
//! ```text
//! proto/     the protobuf messages, and nrpc, which carries them
//! json/      the JSON profile of the specification page: the same in another dialect
//! measure    envelopes of both become what the rules need to know of them
//! stored     fragments as the book has them
//! subject    subjects by which clients call
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
pub mod measure;
pub mod notices;
pub mod proto;
pub mod service;
pub mod stored;
pub mod subject;
