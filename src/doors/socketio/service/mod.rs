//! The events of the service bus and of the book over Socket.IO: `bus:*`, `book:*` and `config:*`.
//!
//! Used by the door and by `cluster`. Knows nothing of transports.

pub(super) mod acks;
pub(super) mod announcements;
pub(super) mod application;
pub(super) mod book;
pub(super) mod bus_socket;
pub(super) mod payloads;
pub(super) mod registration;
