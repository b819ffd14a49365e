//! Engine.IO: sessions and their transports.

pub(super) mod actor;
pub(super) mod arrivals;
pub(super) mod protocol;
pub(super) mod table;
