//! Engine.IO: the sessions, their transports (polling and WebSocket), and the table that finds a session by its sid.
//!
//! Used by the door and by `cluster`. Knows neither Socket.IO packets nor the bus, except in [`actor`], which
//! connects them.

pub(super) mod actor;
pub(super) mod arrivals;
pub(super) mod protocol;
pub(super) mod steps;
pub(super) mod table;
