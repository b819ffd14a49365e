//! Settings of an HTTP listener, beyond those of every listener.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;

use super::head::Fault;
use super::hosts::Hosts;
use crate::net::listener::limits::ListenerLimits;

/// Builds the answer to a request that reaches no application, in the form of the door.
pub type Refuse = Arc<dyn Fn(&Fault) -> HttpResponse + Send + Sync>;

/// The settings.
pub struct HttpSettings {
    /// Hosts that requests may name.
    pub hosts: Hosts,
    /// How long a connection waits for its next request.
    pub idle_timeout: Duration,
    /// Whether the application takes connections over as WebSockets.
    pub websockets: bool,
    /// Builds refusals.
    pub refuse: Refuse,
}

impl fmt::Debug for HttpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSettings").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// An HTTP listener: its settings, bounds and counts.
#[derive(Debug)]
pub struct HttpListener {
    /// The settings.
    pub settings: HttpSettings,
    /// Bounds and counts.
    pub limits: Arc<ListenerLimits>,
}

impl HttpListener {
    /// A listener that nothing is too much for.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Arc<Self> {
        let settings = HttpSettings {
            hosts: Hosts::default(),
            idle_timeout: Duration::from_secs(75),
            websockets: true,
            refuse: Arc::new(|fault| panic!("refused: {fault:?}")),
        };
        Arc::new(Self { settings, limits: ListenerLimits::for_tests() })
    }
}
