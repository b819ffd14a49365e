//! The connection to the hub: one of several nodes at a time.
//!
//! Lives here: which node comes next and when, the opening with the handshake, and the frames of a connection.
//! May import: the wire of the door, `config`, `dispatcher`, `node`, `report`.
//! Invariant: the end of a connection touches no service.

mod backoff;
pub(super) mod connector;
mod opening;
mod session;
