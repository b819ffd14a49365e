//! What this door can be told.

use std::time::Duration;

/// What this door can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// After this much silence a client is asked for a sign of life.
    pub ping_interval: Duration,
    /// After this much it is gone.
    pub silence_max: Duration,
    /// From the upgrade to the registration.
    pub register_timeout: Duration,
    /// How long a client that leaves may take to end what it has begun.
    pub drain_timeout: Duration,
    /// Largest message, bytes.
    pub message_bytes_max: usize,
    /// Most bytes that wait for a client.
    pub queue_bytes_max: usize,
    /// Most messages of one client that have no end yet.
    pub in_flight_max: usize,
    /// Most clients of this node.
    pub connections_max: usize,
    /// Origins of browsers beside the door's own; `*` is any.
    pub origins: Vec<String>,
}

/// Its name.
pub const NAME: &str = "websocket";
