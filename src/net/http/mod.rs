//! HTTP/1.1 connections, the same for every listener: from the socket to an application of actix-web and back.
//!
//! The codec of actix-http parses and encodes; when what is read and written, and what a client is told that does not
//! keep to the protocol, is decided here. One request of a connection is served at a time, so none is carried out
//! whose answer cannot be written. Nothing here knows events.
//!
//! ```text
//! server      listens; builds the application on each thread
//! settings    what a listener is told
//! worker      what the connections of one thread share
//! connection  one connection: request after request, each in [`head`], [`incoming`], [`answer`]
//! head        the bytes of a request head: where it ends, what is mended, what is wrong with it. Pure
//! hosts       which names of a host are this node's. Pure
//! incoming    the body of a request, taken from the connection as it is asked for
//! inflate     the same, decompressed piece by piece
//! answer      an answer, written as the client takes it
//! socket      the socket and its buffers
//! status      kinds of faults to statuses. Pure
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
