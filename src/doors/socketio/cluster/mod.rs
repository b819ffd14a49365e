//! Sessions that live at another node than the connection, and what is kept for clients that come back.

pub(super) mod recovery;
pub(super) mod remote;
pub(super) mod session_owner;
pub(super) mod session_state;
