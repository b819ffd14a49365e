//! Sessions that live at another node than the connection, and what is kept for clients that come back.

pub(super) mod between;
pub(super) mod far;
pub(super) mod recovery;
pub(super) mod remote;
