//! The doors: one folder per protocol, none of which sees another.

pub mod socketio;
pub mod sse;
pub mod websocket;
