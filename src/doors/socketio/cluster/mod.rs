//! Sessions of other nodes, and the recovery of state for clients that reconnect.
//!
//! Used by the door. Imports the engine, the service and the relay of the bus.

pub(super) mod recovery;
pub(super) mod remote;
pub(super) mod session_owner;
pub(super) mod session_state;
