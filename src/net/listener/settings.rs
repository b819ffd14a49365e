//! Settings of a listener of any protocol.

use std::path::PathBuf;
use std::time::Duration;

use super::greeting::Greeting;
use super::networks::Networks;
use crate::net::tls::settings::ListenerTls;

/// How long a connection without a request is kept by default. Load balancers and client pools usually keep idle
/// connections for 60 seconds.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// The settings.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Name of the listener, for its socket and in metrics.
    pub name: &'static str,
    /// Most connections. An HTTP listener does not count those that carry a stream or a WebSocket; their door bounds
    /// them.
    pub connections_max: usize,
    /// Load balancers whose connections begin with a PROXY header.
    pub proxy_protocol_from: Networks,
    /// Whether the listener speaks TLS, and whether its clients show certificates.
    pub tls: ListenerTls,
    /// Certificates of CAs whose certificates clients of this listener may show, beside those of `tls.client_ca`; PEM.
    pub client_ca: Option<PathBuf>,
    /// What the server says first, in a protocol where the server does.
    pub greeting: Option<Greeting>,
}
