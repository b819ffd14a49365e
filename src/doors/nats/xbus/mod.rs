//! Xbus over NATS: what its clients write and read, as types. Pure: bytes in, types out, and back.
//!
//! ```text
//! proto/     the protobuf messages, and nrpc, which carries them
//! json/      the JSON profile of the specification page: the same in another dialect
//! measure    envelopes of both become what the rules need to know of them
//! ```
//!
//! Imports `rollbook_core::xbus`, whose enumerations have the numbers of the protocol.
//!
//! Invariant: the tags are those of the published clients, whose bytes the tests compare. What comes in is decoded into
//! a type or answered with an error; nothing here keeps more than one message.

pub mod json;
pub mod measure;
pub mod proto;
