//! The section `[nats]` of the configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::checks::Checks;
use crate::base::comma_list::CommaList;
use crate::base::{bytes, duration};
use crate::doors::door::{ConnectionBound, DoorSettings, OwnListener, check_socket_bounds};
use crate::net::listen::Listen;
use crate::net::listener::networks::Networks;
use crate::net::tls::settings::{ListenerTls, OwnClientCertificates, TlsMode};

/// Name of the door.
pub(super) const NAME: &str = "nats";
/// Stands for every namespace in `nats.namespaces`.
const ALL: &str = "*";
/// Longest control line that can be configured, bytes.
const CONTROL_LINE_MAX: usize = 64 * 1024;

/// When a client may start the handshake of TLS before the server has said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandshakeFirst {
    /// Never: the server begins in clear, as most clients expect.
    #[default]
    Off,
    /// A client that starts the handshake within 50 ms. Other clients wait so long for the server.
    Auto,
    /// Always: the server says nothing in clear.
    On,
}

/// `[nats]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address of the listener. `off`, which is the default: the door is closed. Clients expect port 4222.
    pub listen: Listen,
    /// Address that clients of other nodes are told to connect to, `HOST:PORT`. Empty: that of the listener, unless it
    /// listens on all addresses.
    pub advertise: String,
    /// Namespaces whose subjects are recorded in the book, separated by commas; `*` means all that there are. Other
    /// subjects are live only.
    pub namespaces: CommaList,
    /// Largest message with its headers, in bytes.
    #[serde(with = "bytes")]
    pub message_bytes_max: usize,
    /// Longest control line in bytes.
    #[serde(with = "bytes")]
    pub control_line_bytes_max: usize,
    /// Most bytes that wait for a client. A client that does not read is disconnected.
    #[serde(with = "bytes")]
    pub queue_bytes_max: usize,
    /// How long a client may read nothing of what waits.
    #[serde(with = "duration")]
    pub write_timeout: Duration,
    /// Most subscriptions of one client.
    pub subscriptions_max: usize,
    /// Most recorded messages of one client without an outcome. More are not read meanwhile.
    pub in_flight_max: usize,
    /// Most clients at a time.
    pub connections_max: usize,
    /// Silence after which the door sends a PING.
    #[serde(with = "duration")]
    pub ping_interval: Duration,
    /// PINGs without an answer after which a client counts as disconnected.
    pub pings_max: u32,
    /// Longest time from the connection to the CONNECT.
    #[serde(with = "duration")]
    pub auth_timeout: Duration,
    /// How long clients of a stopping node have to go to another one.
    #[serde(with = "duration")]
    pub lame_duck: Duration,
    /// Load balancers whose connections begin with a PROXY header, as IP addresses or networks (`10.0.0.0/8`)
    /// separated by commas. Empty means none.
    pub proxy_protocol_from: Networks,
    /// Whether the listener speaks TLS: `auto` (when `tls.certificate` is set), `on` or `off`.
    pub tls: TlsMode,
    /// Whether clients start the handshake of TLS before the server has said anything: `off`, `auto` or `on`.
    pub tls_handshake_first: HandshakeFirst,
    /// Whether clients show a certificate: `auto` (as `tls.client_certificates`), `off`, `optional` or `required`.
    pub client_certificates: OwnClientCertificates,
    /// Certificate of the CA that signs certificates of accounts of Xbus, PEM. Clients may show such a certificate then.
    /// Empty: this node accepts no accounts.
    pub xbus_ca_certificate: PathBuf,
    /// Private key of that CA, PEM.
    pub xbus_ca_key: PathBuf,
    /// Whether each client has to say in its name which version of the protocol of Xbus it speaks.
    pub xbus_strict: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Listen::Off,
            advertise: String::new(),
            namespaces: ALL.into(),
            message_bytes_max: 1024 * 1024,
            control_line_bytes_max: 4096,
            queue_bytes_max: 64 * 1024 * 1024,
            write_timeout: Duration::from_secs(10),
            subscriptions_max: 100_000,
            in_flight_max: 4096,
            connections_max: 20_000,
            ping_interval: Duration::from_secs(120),
            pings_max: 2,
            auth_timeout: Duration::from_secs(2),
            lame_duck: Duration::from_secs(2),
            proxy_protocol_from: Networks::default(),
            tls: TlsMode::Auto,
            tls_handshake_first: HandshakeFirst::Off,
            client_certificates: OwnClientCertificates::Auto,
            xbus_ca_certificate: PathBuf::new(),
            xbus_ca_key: PathBuf::new(),
            xbus_strict: false,
        }
    }
}

impl Settings {
    /// What the listener says about TLS.
    #[must_use]
    pub(super) fn listener_tls(&self) -> ListenerTls {
        // A closed door asks nobody; over REST accounts are accepted all the same.
        let own_client_ca = self.xbus_ca().is_some() && self.listen.addr().is_some();
        ListenerTls { mode: self.tls, client_certificates: self.client_certificates, own_client_ca }
    }

    /// The certificate of the CA of accounts, which is one of clients of this door.
    #[must_use]
    pub(super) fn xbus_ca(&self) -> Option<&Path> {
        Some(self.xbus_ca_certificate.as_path()).filter(|path| !path.as_os_str().is_empty())
    }

    /// Whether subjects of this namespace are recorded.
    #[must_use]
    pub(super) fn records(&self, namespace: &str) -> bool {
        self.namespaces.iter().any(|name| name == ALL || name == namespace)
    }
}

impl DoorSettings for Settings {
    fn check(&self, checks: &mut Checks) {
        let bounds = [
            ("nats.message_bytes_max", self.message_bytes_max),
            ("nats.queue_bytes_max", self.queue_bytes_max),
            ("nats.connections_max", self.connections_max),
        ];
        check_socket_bounds(checks, bounds);
        checks.require(
            (1024..=CONTROL_LINE_MAX).contains(&self.control_line_bytes_max),
            "nats.control_line_bytes_max",
            "1024 to 65536: the CONNECT of a client is one line",
        );
        for (key, count) in [
            ("nats.subscriptions_max", self.subscriptions_max),
            ("nats.in_flight_max", self.in_flight_max),
            ("nats.pings_max", usize::try_from(self.pings_max).unwrap_or_default()),
        ] {
            checks.require(count > 0, key, "must be more than 0");
        }
        for (key, time) in [
            ("nats.ping_interval", self.ping_interval),
            ("nats.auth_timeout", self.auth_timeout),
            ("nats.write_timeout", self.write_timeout),
        ] {
            checks.require(!time.is_zero(), key, "must be more than 0s");
        }
        for (key, here, other) in [
            ("nats.xbus_ca_certificate", &self.xbus_ca_certificate, &self.xbus_ca_key),
            ("nats.xbus_ca_key", &self.xbus_ca_key, &self.xbus_ca_certificate),
        ] {
            let half = here.as_os_str().is_empty() && !other.as_os_str().is_empty();
            checks.require(!half, key, "the CA of accounts needs its certificate and its key; see `rollbook cert dev`");
        }
        let advertised = self.advertise.is_empty()
            || self.advertise.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok() && !self.advertise.contains(char::is_whitespace)
            });
        checks.require(advertised, "nats.advertise", "an address as in node-1.example.com:4222");
    }

    fn listener(&self) -> Option<OwnListener> {
        let tls = self.listener_tls();
        Some(OwnListener { key: "nats.listen", flag: Some("--nats"), listen: self.listen, tls_key: "nats.tls", tls })
    }

    fn message_bytes_max(&self) -> (&'static str, usize) {
        ("nats.message_bytes_max", self.message_bytes_max)
    }

    fn connection_bounds(&mut self) -> Vec<ConnectionBound<'_>> {
        if self.listen.addr().is_none() {
            // A closed door takes no files from the others.
            return Vec::new();
        }
        vec![ConnectionBound { key: "nats.connections_max", max: &mut self.connections_max, files: 1, counted: 1 }]
    }
}
