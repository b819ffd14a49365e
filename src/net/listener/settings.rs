//! What a listener is told.

use std::time::Duration;

use super::networks::Networks;

/// How long a connection without a request is kept by default. Load balancers and pools of clients keep idle
/// connections for 60 seconds, as a rule.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// What a listener of any protocol is told.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Its name: of its socket, and among the metrics.
    pub name: &'static str,
    /// Most connections; an HTTP listener does not count those that carry a stream or a WebSocket, which their door
    /// bounds.
    pub connections_max: usize,
    /// Load balancers whose connections begin with a PROXY header.
    pub proxy_protocol_from: Networks,
}
