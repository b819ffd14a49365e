//! The doors, seen from outside, a folder for each protocol.

/// Events that wait for their time, at the doors beside `sse`.
mod delayed;
/// Actors of Xbus over HTTP.
mod gateway;
/// Clients and docks of hms.
pub(crate) mod hms;
/// A door of another program.
mod line;
/// Any client of NATS.
pub(crate) mod nats;
/// The service bus over Socket.IO and REST.
pub(crate) mod socketio;
/// The event log over HTTP.
mod sse;
/// Plain JSON services over a WebSocket, and calls across doors.
pub(crate) mod websocket;
