//! What an HTTP listener is told beyond what every listener is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;

use super::head::Fault;
use super::hosts::Hosts;
use crate::net::listener::limits::ListenerLimits;

/// How a listener answers a request that reaches no application, in the form of its door.
pub type Refuse = Arc<dyn Fn(&Fault) -> HttpResponse + Send + Sync>;

/// What an HTTP listener is told.
pub struct HttpSettings {
    /// Hosts that requests may ask for.
    pub hosts: Hosts,
    /// How long a connection without a request is kept.
    pub idle_timeout: Duration,
    /// Whether its application takes connections over as WebSockets.
    pub websockets: bool,
    /// How it says no.
    pub refuse: Refuse,
}

impl fmt::Debug for HttpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSettings").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// An HTTP listener: what it was told, and its bounds and counts.
#[derive(Debug)]
pub struct HttpListener {
    /// What it was told.
    pub settings: HttpSettings,
    /// Its bounds and counts.
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
