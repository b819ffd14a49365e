//! The section `[sse]` of the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::checks::Checks;
use crate::base::comma_list::CommaList;
use crate::base::{bytes, duration};
use crate::doors::door::{ConnectionBound, DoorSettings, OwnListener};
use crate::net::listen::Listen;
use crate::net::listener::networks::Networks;
use crate::net::listener::settings::IDLE_TIMEOUT;
use crate::net::tls::settings::{ListenerTls, OwnClientCertificates, TlsMode};

/// Largest body of a publish that can be configured, in bytes.
const BODY_BYTES_MAX: usize = 24 * 1024 * 1024;

/// Name of the door.
pub(super) const NAME: &str = "sse";

/// `[sse]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address of the listener.
    pub listen: Listen,
    /// Largest request body in bytes; more is answered 413.
    #[serde(with = "bytes")]
    pub body_bytes_max: usize,
    /// Quiet time after which a stream gets a comment line.
    #[serde(with = "duration")]
    pub keep_alive: Duration,
    /// Longest time a request body may take to arrive.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// Most connections without a stream at a time; more are answered 503.
    pub connections_max: usize,
    /// Most streams at a time; more are answered 503.
    pub streams_max: usize,
    /// How long a connection without a request is kept: longer than load balancers and pools of clients keep theirs.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Origins of web pages that may use the event log beside its own, separated by commas; `*` means any.
    pub origins: CommaList,
    /// Load balancers whose connections begin with a PROXY header, as IP addresses or networks (`10.0.0.0/8`)
    /// separated by commas. Empty means none.
    pub proxy_protocol_from: Networks,
    /// Whether the listener speaks TLS: `auto` (when `tls.certificate` is set), `on` or `off`.
    pub tls: TlsMode,
    /// Whether clients show a certificate: `auto` (as `tls.client_certificates`), `off`, `optional` or `required`.
    pub client_certificates: OwnClientCertificates,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Listen::loopback(2021),
            body_bytes_max: 8 * 1024 * 1024,
            keep_alive: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            connections_max: 20_000,
            streams_max: 20_000,
            idle_timeout: IDLE_TIMEOUT,
            origins: "*".into(),
            proxy_protocol_from: Networks::default(),
            tls: TlsMode::Auto,
            client_certificates: OwnClientCertificates::Auto,
        }
    }
}

impl Settings {
    /// What the listener says about TLS.
    #[must_use]
    pub(super) const fn listener_tls(&self) -> ListenerTls {
        ListenerTls { mode: self.tls, client_certificates: self.client_certificates, own_client_ca: false }
    }
}

impl DoorSettings for Settings {
    fn check(&self, checks: &mut Checks) {
        checks.require(self.body_bytes_max > 0, "sse.body_bytes_max", "must be more than 0");
        checks.require(self.connections_max > 0, "sse.connections_max", "must be more than 0");
        checks.require(self.streams_max > 0, "sse.streams_max", "must be more than 0");
        checks.require(!self.idle_timeout.is_zero(), "sse.idle_timeout", "must be more than 0s");
        checks.require(!self.keep_alive.is_zero(), "sse.keep_alive", "must be more than 0s");
        checks.require(!self.body_timeout.is_zero(), "sse.body_timeout", "must be more than 0s");
        checks.require(
            self.body_bytes_max <= BODY_BYTES_MAX,
            "sse.body_bytes_max",
            format!("at most {BODY_BYTES_MAX}: a publish must fit into one message between nodes"),
        );
    }

    fn listener(&self) -> Option<OwnListener> {
        let tls = self.listener_tls();
        Some(OwnListener { key: "sse.listen", flag: Some("--log"), listen: self.listen, tls_key: "sse.tls", tls })
    }

    fn message_bytes_max(&self) -> (&'static str, usize) {
        ("sse.body_bytes_max", self.body_bytes_max)
    }

    fn connection_bounds(&mut self) -> Vec<ConnectionBound<'_>> {
        vec![
            ConnectionBound { key: "sse.connections_max", max: &mut self.connections_max, files: 1, counted: 1 },
            ConnectionBound { key: "sse.streams_max", max: &mut self.streams_max, files: 1, counted: 0 },
        ]
    }
}
