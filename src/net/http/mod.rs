//! HTTP/1.1 connections, the same for every listener: from the socket to an application of actix-web and back.
//!
//! The codec of actix-http parses and encodes. This room decides when to read and write, and what a client is told that
//! breaks the protocol. Nothing here knows events.
//!
//! Invariant: one request of a connection is served at a time, so no request is carried out whose answer cannot be
//! written.
//!
//! ```text
//! server      listens; builds the application on each thread
//! settings    the settings of a listener
//! worker      what the connections of one thread share
//! connection  one connection: request after request, each in [`head`], [`incoming`], [`answer`]
//! head        the bytes of a request head: its end, repairs, errors. Pure
//! hosts       the host names of this node. Pure
//! incoming    the body of a request, read when the application asks for it
//! inflate     a compressed body, decompressed piece by piece
//! answer      an answer, written at the pace of the client
//! socket      the socket and its buffers
//! status      the HTTP status of each kind of fault. Pure
//! ```

pub mod answer;
pub mod connection;
pub mod head;
pub mod hosts;
pub mod incoming;
pub mod inflate;
pub mod server;
pub mod settings;
pub mod socket;
pub mod status;
mod worker;
