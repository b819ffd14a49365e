//! Bytes and sockets for the doors: listeners, HTTP, WebSocket, request bodies, origins. This room knows no event and
//! no door.
//!
//! May import `base`. Invariant: everything that a client sends is bounded in bytes and in time before it is kept.

pub mod budget;
pub mod byte_queue;
pub mod framed_body;
pub mod http;
pub mod http_body;
pub mod http_credential;
pub mod listen;
pub mod listener;
pub mod origins;
pub mod peer;
pub mod socket;
pub mod tls;
pub mod websocket;
