//! The sections of the configuration, their defaults, and the checks that compare several values.
//!
//! The section of a door lies in the door's folder.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rollbook_cluster::timing::{HEARTBEAT, HEARTBEAT_MAX, HEARTBEAT_MIN, NODE_TIMEOUT_HEARTBEATS};
use serde::{Deserialize, Serialize};

use crate::base::checks::Checks;
use crate::base::comma_list::CommaList;
use crate::base::{bytes, duration};
use crate::bus::call::choice::Strategies;
use crate::doors;
use crate::net::listen::Listen;
use crate::net::listener::connects::ListenersSettings;
use crate::net::listener::networks::Networks;
use crate::net::listener::settings::IDLE_TIMEOUT;
use crate::net::tls::settings::{ListenerTls, OwnClientCertificates, TlsMode, TlsSettings};

use super::values::{Founders, LogFormat, Namespaces, OnIsolation, log_filter};

/// All settings of `rollbook serve`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The number and the data directory of the node.
    pub node: Node,
    /// The listener of REST, metrics and health.
    pub web: Web,
    /// TLS of the listeners for clients.
    pub tls: TlsSettings,
    /// Bounds of all listeners for clients.
    pub listeners: ListenersSettings,
    /// The event log.
    pub book: Book,
    /// Connections between nodes.
    pub peer: Peer,
    /// The cluster that this node is part of.
    pub cluster: Cluster,
    /// Who clients are, and what they may do.
    pub security: Security,
    /// Services and their instances.
    pub roll: Roll,
    /// Requests between services.
    pub calls: Calls,
    /// Log lines.
    pub log: Log,
    /// Threads.
    pub threads: Threads,
    /// A section for each door, by its name.
    #[serde(flatten)]
    pub doors: doors::Settings,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Number of this node in its cluster, from 1.
    pub id: u64,
    /// Directory of everything that this node stores.
    pub data: PathBuf,
    /// Allows listeners that other machines can reach although there is no TLS, or nobody has to say who they are.
    pub insecure: bool,
    /// Names by which clients reach this node, separated by commas; `*.example.com` means all names below it, `*` any
    /// name. IP addresses, `localhost`, names without a dot, the name of the machine and those of the founders are
    /// always allowed. A request for another name is answered 421.
    pub hosts: CommaList,
    /// Most bytes of request bodies that the node receives at a time, on all listeners for clients.
    #[serde(with = "bytes")]
    pub receiving_bytes_max: usize,
}

impl Default for Node {
    fn default() -> Self {
        let receiving_bytes_max = 256 * 1024 * 1024;
        Self { id: 1, data: PathBuf::from("./data"), insecure: false, hosts: CommaList::default(), receiving_bytes_max }
    }
}

/// `[web]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Web {
    /// Address of the listener.
    pub listen: Listen,
    /// Origins of web pages that may use REST beside the own origin, separated by commas; `*` means any.
    pub origins: CommaList,
    /// Most namespaces that have samples of their own in `/metrics`.
    pub metrics_namespaces_max: usize,
    /// How long a connection without a request is kept: longer than load balancers and pools of clients keep theirs.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Load balancers whose connections begin with a PROXY header, as IP addresses or networks (`10.0.0.0/8`)
    /// separated by commas; empty: none.
    pub proxy_protocol_from: Networks,
    /// Whether the listener speaks TLS: `auto` (when `tls.certificate` is set), `on` or `off`.
    pub tls: TlsMode,
    /// Whether clients show a certificate: `auto` (as `tls.client_certificates`), `off`, `optional` or `required`.
    pub client_certificates: OwnClientCertificates,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            listen: Listen::loopback(7440),
            origins: CommaList::default(),
            metrics_namespaces_max: 1000,
            idle_timeout: IDLE_TIMEOUT,
            proxy_protocol_from: Networks::default(),
            tls: TlsMode::Auto,
            client_certificates: OwnClientCertificates::Auto,
        }
    }
}

impl Web {
    /// What the listener says about TLS.
    #[must_use]
    pub const fn listener_tls(&self) -> ListenerTls {
        ListenerTls { mode: self.tls, client_certificates: self.client_certificates, own_client_ca: false }
    }
}

/// `[book]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Book {
    /// Namespaces that clients may use.
    pub namespaces: Namespaces,
    /// Free disk space in bytes below which publishes are refused.
    #[serde(with = "bytes")]
    pub reserve_bytes: u64,
    /// Longest time a publish waits for its commit.
    #[serde(with = "duration")]
    pub publish_timeout: Duration,
    /// Most bytes of publishes that wait for their commit at a time.
    #[serde(with = "bytes")]
    pub pending_bytes_max: usize,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            namespaces: Namespaces::Any,
            reserve_bytes: 512 * 1024 * 1024,
            publish_timeout: Duration::from_secs(10),
            pending_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// `[peer]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peer {
    /// Address of the listener for other nodes, never for clients.
    pub listen: Listen,
    /// Address by which other nodes reach this node, HOST:PORT. Empty means its entry in `cluster.founders`, else the
    /// address of the listener.
    pub advertise: String,
    /// Certificate of the authority that signs the certificates of all nodes, PEM. Empty means no TLS between nodes.
    pub ca: PathBuf,
    /// Certificate of this node, PEM.
    pub certificate: PathBuf,
    /// Private key of this node, PEM.
    pub key: PathBuf,
}

impl Default for Peer {
    fn default() -> Self {
        let path = PathBuf::new;
        Self { listen: Listen::loopback(7441), advertise: String::new(), ca: path(), certificate: path(), key: path() }
    }
}

impl Peer {
    /// Whether certificates are configured.
    #[must_use]
    pub fn has_certificates(&self) -> bool {
        !self.ca.as_os_str().is_empty()
    }
}

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The nodes that found the cluster, `1=HOST:PORT,2=...`. Empty means this node alone, or a node that joined.
    pub founders: Founders,
    /// A node without a sign of life for this long leaves the roll.
    #[serde(with = "duration")]
    pub node_timeout: Duration,
    /// How often a leader sends heartbeats, the same on all nodes. A leader that is silent for 10 to 20 of them is
    /// replaced, and round trips may take 2 of them.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// What a node does with its streams after `node_timeout` without a majority: `close` or `hold`.
    pub on_isolation: OnIsolation,
    /// Bytes of the log that are kept for a node that is behind; a node further behind gets a snapshot.
    #[serde(with = "bytes")]
    pub log_keep_bytes: u64,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            founders: Founders::default(),
            node_timeout: Duration::from_secs(5),
            heartbeat: HEARTBEAT,
            on_isolation: OnIsolation::Close,
            log_keep_bytes: 256 * 1024 * 1024,
        }
    }
}

/// `[security]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// Whether clients on this machine need a credential too. Clients of other machines always need one, unless
    /// `node.insecure` is set.
    pub enabled: bool,
    /// File with the key that seals secrets in the replicated state, the same on all nodes: 32 bytes in hex or base64,
    /// readable by its owner alone. Empty: nothing can be sealed.
    pub key_file: PathBuf,
    /// CAs that sign the certificates of servers with keys of JWT issuers, PEM, beside those of the system. Empty: none.
    pub jwks_ca: PathBuf,
    /// How long keys of a JWT issuer are used when its server does not answer.
    #[serde(with = "duration")]
    pub jwks_keep: Duration,
}

impl Default for Security {
    fn default() -> Self {
        let (key_file, jwks_ca) = (PathBuf::new(), PathBuf::new());
        Self { enabled: false, key_file, jwks_ca, jwks_keep: Duration::from_secs(24 * 60 * 60) }
    }
}

/// `[roll]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roll {
    /// How long a service stays online after its last instance disconnected, so that a short absence does not show.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// An instance without a heartbeat for this long is unhealthy and gets no requests.
    #[serde(with = "duration")]
    pub heartbeat_timeout: Duration,
    /// An instance without a heartbeat for this long is disconnected.
    #[serde(with = "duration")]
    pub heartbeat_drop: Duration,
    /// Whether these limits also hold for instances that have never sent a heartbeat.
    pub heartbeat_required: bool,
}

impl Default for Roll {
    fn default() -> Self {
        Self {
            grace: Duration::ZERO,
            heartbeat_timeout: Duration::from_secs(30),
            heartbeat_drop: Duration::from_secs(90),
            heartbeat_required: false,
        }
    }
}

/// `[calls]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Calls {
    /// Deadline of a request that names none.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Longest deadline that a request may name; a longer one is cut.
    #[serde(with = "duration")]
    pub timeout_max: Duration,
    /// Most requests in flight at this node.
    pub in_flight_max: usize,
    /// Most bytes of requests in flight that this node keeps.
    #[serde(with = "bytes")]
    pub in_flight_bytes_max: usize,
    /// Most requests that one instance gets at a time.
    pub in_flight_per_instance: u32,
    /// How providers are chosen, `CAPABILITY=STRATEGY` separated by commas, `*` for all others: `least_in_flight`
    /// (default), `round_robin`, `random`, `sticky`.
    pub strategies: Strategies,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            timeout_max: Duration::from_secs(600),
            in_flight_max: 65_536,
            in_flight_bytes_max: 256 * 1024 * 1024,
            in_flight_per_instance: 1024,
            strategies: Strategies::default(),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Which lines are written: a level, or `target=level` pairs separated by commas.
    pub filter: String,
    /// How they are written.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

/// `[threads]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Threads {
    /// HTTP worker threads of the event log; 0 = one less than the cores, at least one.
    pub workers: usize,
    /// Threads of the web listener, where services are connected; 0 = half of the cores, at least one.
    pub web: usize,
}

/// Shortest time until a silent node is given up.
const NODE_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Most HTTP worker threads that make sense to ask for.
const WORKERS_MAX: usize = 1024;

impl Config {
    /// What is wrong although each value by itself is fine: pairs of key and message.
    pub(super) fn contradictions(&self) -> Vec<(&'static str, String)> {
        let mut checks = Checks::default();
        self.check_node(&mut checks);
        self.check_cluster(&mut checks);
        self.check_services(&mut checks);
        for (_, door) in self.doors.all() {
            door.check(&mut checks);
        }
        self.check_messages(&mut checks);
        self.tls.check(&mut checks);
        self.listeners.check(&mut checks);
        self.check_listeners(&mut checks);
        checks.into_findings()
    }

    fn check_node(&self, checks: &mut Checks) {
        checks.require(self.node.id > 0, "node.id", "node numbers start at 1");
        checks.require(!self.node.data.as_os_str().is_empty(), "node.data", "name a directory");
        checks.require(self.node.receiving_bytes_max > 0, "node.receiving_bytes_max", "must be more than 0");
        checks.require(!self.web.idle_timeout.is_zero(), "web.idle_timeout", "must be more than 0s");
        checks.require(!self.book.publish_timeout.is_zero(), "book.publish_timeout", "must be more than 0s");
        checks.require(
            self.threads.workers <= WORKERS_MAX,
            "threads.workers",
            format!("at most {WORKERS_MAX}; 0 means one less than the cores"),
        );
        checks.require(
            self.threads.web <= WORKERS_MAX,
            "threads.web",
            format!("at most {WORKERS_MAX}; 0 means half of the cores"),
        );
        if let Err(error) = log_filter(&self.log.filter) {
            checks.require(false, "log.filter", error);
        }
    }

    fn check_cluster(&self, checks: &mut Checks) {
        checks.require(
            self.cluster.node_timeout >= NODE_TIMEOUT_MIN,
            "cluster.node_timeout",
            "must be at least 1s: nodes that only pause must not be taken off the roll",
        );
        checks.require(
            (HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(&self.cluster.heartbeat),
            "cluster.heartbeat",
            "must be 20ms to 1s: about the round trip between nodes, or half of it",
        );
        checks.require(
            self.cluster.node_timeout >= self.cluster.heartbeat.saturating_mul(NODE_TIMEOUT_HEARTBEATS),
            "cluster.node_timeout",
            "must be at least 10 times cluster.heartbeat: the nodes must have time to elect another leader",
        );
        let given = [&self.peer.ca, &self.peer.certificate, &self.peer.key].map(|path| !path.as_os_str().is_empty());
        checks.require(
            given == [true; 3] || given == [false; 3],
            "peer.ca",
            "TLS between nodes needs peer.ca, peer.certificate and peer.key together",
        );
        checks.require(
            self.cluster.founders.is_empty() || self.peer.listen.addr().is_some(),
            "peer.listen",
            "a node of a cluster must listen for the others",
        );
    }

    fn check_services(&self, checks: &mut Checks) {
        let (roll, calls) = (&self.roll, &self.calls);
        checks.require(!roll.heartbeat_timeout.is_zero(), "roll.heartbeat_timeout", "must be more than 0s");
        checks.require(
            roll.heartbeat_drop >= roll.heartbeat_timeout,
            "roll.heartbeat_drop",
            "must be at least roll.heartbeat_timeout",
        );
        checks.require(!calls.timeout.is_zero(), "calls.timeout", "must be more than 0s");
        checks.require(calls.timeout_max >= calls.timeout, "calls.timeout_max", "must be at least calls.timeout");
        checks.require(calls.in_flight_max > 0, "calls.in_flight_max", "must be more than 0");
        checks.require(calls.in_flight_bytes_max > 0, "calls.in_flight_bytes_max", "must be more than 0");
        checks.require(calls.in_flight_per_instance > 0, "calls.in_flight_per_instance", "must be more than 0");
    }

    fn check_messages(&self, checks: &mut Checks) {
        for (_, door) in self.doors.all() {
            let (key, message_bytes_max) = door.message_bytes_max();
            checks.require(
                self.book.pending_bytes_max >= message_bytes_max,
                "book.pending_bytes_max",
                format!("must be at least {key}, or the largest publish could never be taken"),
            );
        }
    }

    /// The listeners for clients: the keys of their address and of their TLS, with the values.
    fn client_listeners(&self) -> Vec<(&'static str, Listen, &'static str, ListenerTls)> {
        let web = ("web.listen", self.web.listen, "web.tls", self.web.listener_tls());
        let own = self.doors.all().into_iter().filter_map(|(_, door)| door.listener());
        [web].into_iter().chain(own.map(|own| (own.key, own.listen, own.tls_key, own.tls))).collect()
    }

    fn check_listeners(&self, checks: &mut Checks) {
        let mut addresses: Vec<(&'static str, SocketAddr)> = Vec::new();
        for (key, listen, tls_key, tls) in self.client_listeners() {
            self.tls.check_listener(checks, tls_key, tls);
            checks.require(
                !listen.is_exposed() || self.tls.serves(tls) || self.node.insecure,
                key,
                format!(
                    "{listen} can be reached from other machines and there is no TLS; set tls.certificate and tls.key \
                     (see `rollbook cert dev`), listen on 127.0.0.1, or pass --insecure (node.insecure = true) if the \
                     network is trusted"
                ),
            );
            let Some(address) = listen.addr().filter(|address| address.port() != 0) else { continue };
            if let Some((other, _)) = addresses.iter().find(|(_, known)| *known == address) {
                checks.require(false, key, format!("{address} is already the address of {other}"));
            }
            addresses.push((key, address));
        }
        checks.require(
            !self.peer.listen.is_exposed() || self.peer.has_certificates() || self.node.insecure,
            "peer.listen",
            format!(
                "{} can be reached from other machines and there are no certificates for calls between nodes; \
                 set peer.ca, peer.certificate and peer.key (see `rollbook cert dev`), or pass --insecure \
                 (node.insecure = true) if the network is trusted",
                self.peer.listen
            ),
        );
    }
}
